//! A conversation with a systemd manager: connect, call, wait for a job's end. One deadline holds for all of it, as
//! systemd does one thing after the other, and under load a call may stall.
//!
//! The manager's own socket is tried first: it needs no bus daemon, and one hop less. There are no descriptors in
//! this protocol, and no credentials: the peer takes ours from the socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::wire::{self, Message, Method, Parsed, Value};

/// As runc waits.
const PATIENCE: Duration = Duration::from_secs(30);

const SYSTEM_PRIVATE: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// Without credentials of our own, all lines can go at once.
const HANDSHAKE: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
const MAX_HANDSHAKE: usize = 4096;

const MATCH: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{name}: {text}")]
    Refused { name: String, text: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    pub(super) fn is(&self, error: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == error)
    }

    /// Nobody listens: there is no systemd, and so nothing that it holds.
    pub(super) fn is_absence(&self) -> bool {
        let kinds = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        matches!(self, Self::Io(error) if kinds.contains(&error.kind()))
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// The end of a job: who told, which, and how it went.
struct Job {
    sender: String,
    path: String,
    result: String,
}

pub(super) struct Bus {
    socket: UnixStream,
    deadline: Instant,
    received: Vec<u8>,
    serial: u32,
    /// The unit that is talked about; other units' jobs are nothing to us.
    unit: String,
    ended: Vec<Job>,
}

impl Bus {
    pub(super) fn connect(is_user: bool, unit: &str) -> Result<Self> {
        let mut failure = Failure::Io(io::ErrorKind::NotFound.into());
        for (path, is_bus) in addresses(is_user) {
            match stream(&path) {
                Ok(socket) => {
                    let mut bus = Self::over(socket, unit, PATIENCE);
                    bus.shake_hands()?;
                    if is_bus {
                        bus.call(to_bus("Hello"), &[])?;
                        bus.call(to_bus("AddMatch"), &[Value::text(MATCH)])?;
                    }
                    return Ok(bus);
                }
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    fn over(socket: UnixStream, unit: &str, patience: Duration) -> Self {
        let (received, ended) = (Vec::new(), Vec::new());
        Self { socket, deadline: Instant::now() + patience, received, serial: 0, unit: unit.into(), ended }
    }

    pub(super) fn call(&mut self, method: Method, body: &[Value]) -> Result<Message> {
        self.serial += 1;
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the call is too long");
        let call = wire::call(self.serial, method, body).ok_or_else(too_long)?;
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write_all(&call).map_err(late)?;
        loop {
            let message = self.receive()?;
            if message.reply_to != Some(self.serial) {
                continue;
            }
            match message.kind {
                wire::METHOD_RETURN => return Ok(message),
                wire::ERROR => {
                    let text = message.texts("s").map(|[text]| text).unwrap_or_default();
                    return Err(Failure::Refused { name: message.error, text });
                }
                _ => {}
            }
        }
    }

    /// Calls what starts a job, and waits for its end: how that went, in systemd's word.
    pub(super) fn job(&mut self, method: Method, body: &[Value]) -> Result<String> {
        let reply = self.call(method, body)?;
        let [path] = reply.texts("o").ok_or_else(malformed)?;
        loop {
            let is_it = |job: &Job| job.path == path && job.sender == reply.sender;
            if let Some(job) = self.ended.iter().position(is_it) {
                return Ok(self.ended.swap_remove(job).result);
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<Message> {
        loop {
            match wire::parse(&self.received) {
                Parsed::Whole(message, length) => {
                    self.received.drain(..length);
                    self.note(&message);
                    return Ok(message);
                }
                Parsed::More => self.read()?,
                Parsed::Malformed => return Err(malformed().into()),
            }
        }
    }

    /// The end of a job may be told before the call that started it is answered.
    fn note(&mut self, message: &Message) {
        if message.kind != wire::SIGNAL || message.member != "JobRemoved" {
            return;
        }
        if let Some([_, path, unit, result]) = message.texts("uoss")
            && unit == self.unit
        {
            self.ended.push(Job { sender: message.sender.clone(), path, result });
        }
    }

    fn shake_hands(&mut self) -> Result<()> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write_all(HANDSHAKE).map_err(late)?;
        loop {
            while let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).collect();
                match line.get(..2) {
                    Some(b"OK") => return Ok(()),
                    Some(b"DA") => {}
                    _ => {
                        let line = String::from_utf8_lossy(&line).trim().to_owned();
                        return Err(io::Error::new(io::ErrorKind::PermissionDenied, line).into());
                    }
                }
            }
            if self.received.len() > MAX_HANDSHAKE {
                return Err(malformed().into());
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        let mut bytes = [0; 4096];
        match self.socket.read(&mut bytes) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "systemd has closed the connection")),
            Ok(length) => {
                self.received.extend(&bytes[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(late(error)),
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(late(io::ErrorKind::WouldBlock.into())) } else { Ok(left) }
    }
}

fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, "systemd does not answer in time")
        }
        _ => error,
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "systemd's answer is not understood")
}

const fn to_bus(name: &'static str) -> Method {
    let destination = "org.freedesktop.DBus";
    Method { destination, path: "/org/freedesktop/DBus", interface: destination, name }
}

/// Sockets to try, and whether they are those of a bus.
fn addresses(is_user: bool) -> Vec<(PathBuf, bool)> {
    if !is_user {
        return vec![(SYSTEM_PRIVATE.into(), false), (SYSTEM_BUS.into(), true)];
    }
    let mut addresses = Vec::new();
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    if let Some(dir) = &runtime_dir {
        addresses.push((dir.join("systemd/private"), false));
    }
    let session = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let paths = session.split(';').filter_map(|address| address.strip_prefix("unix:path="));
    addresses.extend(paths.map(|path| (path.split(',').next().unwrap_or_default().into(), true)));
    if let Some(dir) = &runtime_dir {
        addresses.push((dir.join("bus"), true));
    }
    addresses
}

fn stream(path: &std::path::Path) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A listener whose queue is full makes callers wait.
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    connect(&socket, &SocketAddrUnix::new(path)?).map_err(|error| late(error.into()))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;

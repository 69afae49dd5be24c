//! The runtime's end of a container's terminal: sent to a console socket, or relayed to the caller's own terminal.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::create::Options;
use crate::bundle::plan::Plan;
use crate::sys::fd::standard;
use crate::{Error, Result};

/// A terminal needs somebody at its other end, and a console socket needs a terminal.
pub fn check(plan: &mut Plan, options: &Options) -> Result<()> {
    let terminal = plan.init.process.terminal.is_some();
    if let Some(window) = &mut plan.init.process.terminal {
        window.bare_line_feeds = options.console_socket.is_none();
    }
    requirements(terminal, options.runs && !options.detach, options.console_socket.as_deref())
}

pub fn requirements(terminal: bool, stays: bool, console_socket: Option<&Path>) -> Result<()> {
    match console_socket {
        None if terminal && !stays => Err(Error::invalid(
            "--console-socket",
            "missing",
            "a socket for the terminal (cannot allocate tty if the runtime will detach without setting console socket)",
        )),
        Some(path) if !terminal || stays => Err(Error::invalid(
            "--console-socket",
            path.display().to_string(),
            "process.terminal and a command that detaches (cannot use console socket otherwise)",
        )),
        None if terminal => host_terminal().map(drop),
        _ => Ok(()),
    }
}

/// Sends the master to the socket; without one it is the caller's to keep.
pub fn deliver(master: OwnedFd, console_socket: Option<&Path>) -> Result<Option<OwnedFd>> {
    let Some(path) = console_socket else { return Ok(Some(master)) };
    send(master.as_fd(), b"/dev/ptmx", path)?;
    Ok(None)
}

/// Sends a descriptor, under a name, to the socket `path`.
pub fn send(fd: BorrowedFd<'_>, name: &[u8], path: &Path) -> Result<()> {
    let fail = |call| Error::path(call, path);
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(fail("socket"))?;
    let address = SocketAddrUnix::new(path).map_err(fail("socket"))?;
    rustix::net::connect(&socket, &address).map_err(fail("connect to socket"))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(&socket, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL)
        .map_err(fail("send a descriptor to"))
        .map(drop)
}

/// The caller's terminal in raw mode for the time of the relay.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// The caller's terminal, and how it was.
    host: OwnedFd,
    saved: Termios,
    input_open: bool,
}

/// The terminal of the caller: the first standard stream that is one, else the controlling one.
fn host_terminal() -> Result<OwnedFd> {
    let stream = (0..3).map(standard).find(|stream| isatty(stream));
    match stream {
        Some(stream) => stream.try_clone_to_owned().map_err(Error::sys("dup")),
        None => rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::path("process.terminal needs a terminal of the caller: open", "/dev/tty")),
    }
}

impl Relay {
    pub fn new(master: OwnedFd) -> Result<Self> {
        let host = host_terminal()?;
        let saved = tcgetattr(&host).map_err(Error::sys("tcgetattr"))?;
        let mut raw = saved.clone();
        raw.make_raw();
        raw.output_modes.insert(OutputModes::OPOST);
        tcsetattr(&host, OptionalActions::Now, &raw).map_err(Error::sys("tcsetattr"))?;
        let relay = Self { master, host, saved, input_open: true };
        relay.resize();
        Ok(relay)
    }

    /// Takes over the size of the caller's terminal.
    pub fn resize(&self) {
        if let Ok(size) = tcgetwinsize(&self.host) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// Copies in both directions until one of `events` is readable, and says which, or the time is up.
    pub fn until(&mut self, events: [BorrowedFd<'_>; 2], timeout: Option<&Timespec>) -> Result<[bool; 2]> {
        loop {
            let mut waiting = vec![
                PollFd::from_borrowed_fd(events[0], PollFlags::IN),
                PollFd::from_borrowed_fd(events[1], PollFlags::IN),
                PollFd::new(&self.master, PollFlags::IN),
            ];
            if self.input_open {
                waiting.push(PollFd::from_borrowed_fd(standard(0), PollFlags::IN));
            }
            match poll(&mut waiting, timeout) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) => return Ok([false, false]),
                result => result.map_err(Error::sys("poll"))?,
            };
            let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[2] {
                copy(self.master.as_fd(), standard(1));
            }
            if ready.get(3) == Some(&true) {
                self.input_open = copy(standard(0), self.master.as_fd());
            }
            if ready[0] || ready[1] {
                return Ok([ready[0], ready[1]]);
            }
        }
    }

    /// What the container wrote before it ended.
    pub fn drain(&mut self) {
        while copy(self.master.as_fd(), standard(1)) {}
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.host, OptionalActions::Now, &self.saved);
    }
}

/// One read's worth; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut bytes = [0; 8192];
    let Ok(length) = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut bytes)) else { return false };
    let mut rest = &bytes[..length];
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, rest)) {
            Ok(written) => rest = &rest[written..],
            Err(_) => return false,
        }
    }
    length > 0
}

/// Standard streams are open in every process of ours: a closed one would be taken by the first file we open.
pub fn open_standard_streams() -> io::Result<()> {
    loop {
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
        if std::os::fd::AsRawFd::as_raw_fd(&null) > 2 {
            return Ok(());
        }
        // It fills a gap; it stays.
        std::mem::forget(null);
    }
}

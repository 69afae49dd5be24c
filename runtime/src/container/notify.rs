//! systemd's protocols, passed on as runc does: LISTEN_FDS to the container's program, and NOTIFY_SOCKET by a
//! socket in the container's directory, which is mounted into the container.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::bundle::mount_options;
use crate::bundle::plan::{Bind, Mount, Plan, Source};
use crate::bundle::process::LISTEN_PID;
use crate::store::Dir;
use crate::{Error, Result};

const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";

/// Extends the plan by what the caller's environment asks to be passed on.
pub fn prepare(plan: &mut Plan, dir: &Dir, preserve_fds: u32) -> Result<()> {
    let process = &mut plan.init.process;
    process.preserve_fds = preserve_fds + listen_fds(&mut process.env)?;
    if host_socket().is_none() || !plan.init.mount_namespace {
        return Ok(());
    }
    let path = dir.path().join(crate::store::NOTIFY);
    std::fs::create_dir(&path).map_err(Error::path("mkdir", &path))?;
    plan.init.process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
    mount(plan, path);
    Ok(())
}

/// The mount of a container that has such a socket.
pub(super) fn recall(plan: &mut Plan, dir: &Dir) {
    let path = dir.path().join(crate::store::NOTIFY);
    if path.is_dir() {
        mount(plan, path);
    }
}

fn mount(plan: &mut Plan, path: PathBuf) {
    plan.host.binds.push(Bind {
        path: Some(path),
        recursive: false,
        propagation: libc::MS_PRIVATE,
        idmap: None,
    });
    plan.init.mounts.push(Mount {
        destination: INSIDE.into(),
        source: Source::Bind(plan.host.binds.len() - 1),
        options: mount_options::parse(["bind", "nosuid", "noexec", "nodev", "ro"]),
    });
}

/// sd_listen_fds(3): the count, and the pid in the container's view, which init corrects where it is another.
pub fn listen_fds(env: &mut Vec<String>) -> Result<u32> {
    let Ok(count) = std::env::var("LISTEN_FDS") else { return Ok(0) };
    let bad = || Error::invalid("LISTEN_FDS", &count, "a number of at most 1024 descriptors");
    let number = count.parse().ok().filter(|number| *number <= 1024).ok_or_else(bad)?;
    if number > 0 {
        env.extend([format!("LISTEN_FDS={number}"), LISTEN_PID.to_owned()]);
        env.extend(std::env::var("LISTEN_FDNAMES").ok().map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    Ok(number)
}

fn host_socket() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty())
}

/// Between the container's socket and systemd's.
#[derive(Debug)]
pub struct Relay {
    socket: OwnedFd,
    host: SocketAddrUnix,
}

impl Relay {
    /// None where the caller has no NOTIFY_SOCKET.
    pub fn open(dir: &Dir) -> Result<Option<Self>> {
        let Some(host) = host_socket() else { return Ok(None) };
        let path = dir.notify_socket(NAME);
        let fail = |call| Error::path(call, PathBuf::from(NAME));
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .map_err(fail("socket"))?;
        let address = SocketAddrUnix::new(&path).map_err(fail("address"))?;
        rustix::net::bind(&socket, &address).map_err(fail("bind"))?;
        // Whoever the program runs as may tell that it is ready.
        let mode = rustix::fs::Mode::from_raw_mode(0o777);
        rustix::fs::chmod(&path, mode).map_err(fail("chmod"))?;
        let host = match host.strip_prefix('@') {
            Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
            None => SocketAddrUnix::new(host.as_str()),
        };
        Ok(Some(Self { socket, host: host.map_err(Error::sys("NOTIFY_SOCKET"))? }))
    }

    /// Passes on that the program is ready, with its pid as systemd knows it. Returns when it has, or when `ended`
    /// says that the container is over.
    pub fn wait_until_ready(&self, pid: i32, ended: &OwnedFd) -> Result<()> {
        const LIMIT: usize = 4096;
        loop {
            let mut waiting = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            poll(&mut waiting, None).map_err(Error::sys("poll"))?;
            if waiting[0].revents().is_empty() {
                return Ok(());
            }
            let mut text = [0; LIMIT];
            let (_, length) =
                rustix::net::recv(&self.socket, &mut text, RecvFlags::empty()).map_err(Error::sys("recv"))?;
            let text = String::from_utf8_lossy(&text[..length.min(LIMIT)]);
            if text.lines().any(|line| line == "READY=1") {
                self.tell(&format!("MAINPID={pid}"))?;
                self.tell("READY=1")?;
                return Ok(());
            }
        }
    }

    fn tell(&self, line: &str) -> Result<()> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        let socket = socket.map_err(Error::sys("socket"))?;
        let sent = rustix::net::sendto(&socket, line.as_bytes(), SendFlags::NOSIGNAL, &self.host);
        sent.map(drop).map_err(Error::sys("send to NOTIFY_SOCKET"))
    }
}

//! The process above the forker: starts it, starts it again when it dies, and reaps what its death has orphaned. It
//! does nothing else, so that nothing can go wrong with it; it never restarts.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hearth::process::channel;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags};
use rustix::process::{Pid, WaitOptions};

use super::dirs::Dirs;

/// A forker that dies sooner than this after its start is given a pause.
const HEALTHY: Duration = Duration::from_secs(1);

pub fn main(root: &Path) -> io::Result<()> {
    // From here on no signal of the daemon's terminal or session is ours.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let dirs = Dirs::new(root);
    let listener = listen(&dirs.forker())?;
    loop {
        let started = Instant::now();
        let forker = start(root, &listener)?;
        if reap_until(&dirs, pid_of(&forker))? {
            return Ok(());
        }
        if started.elapsed() < HEALTHY {
            std::thread::sleep(HEALTHY);
        }
    }
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    // An earlier reaper's: whoever starts us has seen that nobody answers there.
    let _ = std::fs::remove_file(path);
    let socket = rustix::net::socket_with(AddressFamily::UNIX, channel::KIND, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 8)?;
    Ok(socket)
}

/// The forker's standard input is the socket on which the daemon will find it.
fn start(root: &Path, listener: &OwnedFd) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("forker").arg(root).env_clear().current_dir("/");
    command.stdin(Stdio::from(listener.try_clone()?)).stdout(Stdio::null()).spawn()
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Whether the forker ended because nobody needs it.
fn reap_until(dirs: &Dirs, forker: Option<Pid>) -> io::Result<bool> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(false),
            Err(errno) => return Err(errno.into()),
            Ok(Some((pid, status))) if Some(pid) == forker => return Ok(status.exit_status() == Some(0)),
            Ok(Some((pid, status))) => {
                let path = dirs.exits().join(pid.as_raw_nonzero().to_string());
                // Without the file the status is told as unknown.
                let _ = std::fs::write(path, status.as_raw().to_string());
            }
            Ok(None) => {}
        }
    }
}

//! The container's terminal: a pty of its own devpts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, fstatfs, major, minor};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::devices::dev_directory;
use super::mounts::attach;
use super::tree::Tree;
use crate::bundle::process::Window;
use crate::sys::{fd::standard, process::set_controlling_terminal};
use crate::{Error, Result};

/// statfs(2)
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

/// Opens a pty by the container's /dev/pts/ptmx. Multiplexer and peer are checked to be devpts's own, and the peer
/// comes from the master, not from a path (CVE-2025-52565).
pub fn open(tree: &Tree, window: Window) -> Result<Pty> {
    let path = "/dev/pts/ptmx";
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = tree.open(path, flags).map_err(Error::path("open", path))?;
    let stat = fstat(&master).map_err(Error::path("stat", path))?;
    if !on_devpts(master.as_fd())? || (major(stat.st_rdev), minor(stat.st_rdev)) != (5, 2) {
        return Err(Error::invalid(path, "something else", "the multiplexer of a devpts (process.terminal)"));
    }
    unlockpt(&master).map_err(Error::sys("unlockpt"))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = ioctl_tiocgptpeer(&master, flags).map_err(Error::sys("TIOCGPTPEER"))?;
    if !on_devpts(peer.as_fd())? {
        return Err(Error::invalid("the pty's peer", "something else", "a file of a devpts"));
    }
    if window.bare_line_feeds {
        let mut modes = tcgetattr(&master).map_err(Error::sys("tcgetattr"))?;
        modes.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&master, OptionalActions::Now, &modes).map_err(Error::sys("tcsetattr"))?;
    }
    if (window.rows, window.columns) != (0, 0) {
        let size = Winsize { ws_row: window.rows, ws_col: window.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).map_err(Error::sys("TIOCSWINSZ"))?;
    }
    Ok(Pty { master, peer })
}

fn on_devpts(fd: BorrowedFd<'_>) -> Result<bool> {
    #[allow(clippy::unnecessary_cast, reason = "the type of f_type differs by architecture")]
    let magic = fstatfs(fd).map_err(Error::sys("fstatfs"))?.f_type as i64;
    Ok(magic == DEVPTS_SUPER_MAGIC)
}

/// Mounts the peer at /dev/console, from its descriptor.
pub fn mount_console(tree: &Tree, pty: &Pty) -> Result<()> {
    let path = "/dev/console";
    let dev = dev_directory(tree)?;
    let flags = OFlags::CREATE
        | OFlags::RDONLY
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC
        | OFlags::NONBLOCK
        | OFlags::NOCTTY;
    let made = rustix::fs::openat(&dev, "console", flags, Mode::from_raw_mode(0o666));
    made.map(drop).map_err(Error::path("make", path))?;
    let target =
        rustix::fs::openat(&dev, "console", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::path("open", path))?;
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(&pty.peer, "", clone).map_err(Error::path("clone the pty for", path))?;
    attach(&copy, target.as_fd()).map_err(Error::path("mount on", path))
}

/// Makes the peer standard input, output and error, and the controlling terminal of this session leader.
pub fn take(peer: &OwnedFd) -> Result<()> {
    set_controlling_terminal(peer.as_fd()).map_err(Error::sys("TIOCSCTTY"))?;
    rustix::stdio::dup2_stdin(peer).map_err(Error::sys("dup2"))?;
    rustix::stdio::dup2_stdout(peer).map_err(Error::sys("dup2"))?;
    rustix::stdio::dup2_stderr(peer).map_err(Error::sys("dup2"))
}

/// Gives standard streams that are not the user's own to the user, as runc does.
pub fn own_stdio(uid: u32) -> Result<()> {
    for number in 0..3 {
        let fd = standard(number);
        let Ok(stat) = fstat(fd) else { continue };
        let is_null = (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
        if stat.st_uid == uid || is_null {
            continue;
        }
        match rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None) {
            // A socket, a file on a read-only mount, an unmapped owner: it stays whose it is.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM | rustix::io::Errno::ROFS) => {}
            Err(errno) => return Err(Error::sys("fchown of a standard stream")(errno)),
        }
    }
    Ok(())
}

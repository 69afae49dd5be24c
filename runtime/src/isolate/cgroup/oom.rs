//! Out-of-memory events of a container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;
use rustix::fs::inotify::{CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::files;
use super::placement::Placement;
use crate::{Error, Result};

impl Placement {
    /// How many processes the OOM killer has taken from the container; 0 where memory is not controlled.
    pub fn oom_count(&self) -> Result<u64> {
        let (dir, file) = match (self.joined("memory"), &self.v2) {
            (Some(group), _) => (group.dir(), "memory.oom_control"),
            (None, Some(group)) => (group.dir(), "memory.events"),
            (None, None) => return Ok(0),
        };
        let text = files::read_if_there(&dir, file)?;
        Ok(text.and_then(|text| files::value_of(&text, "oom_kill")).unwrap_or(0))
    }

    /// Something to poll until the OOM killer takes a process or the container ends.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let (fd, dir) = match (self.joined("memory"), &self.v2) {
            (Some(group), _) => (watch_v1(&group.dir())?, group.dir()),
            (None, Some(group)) => (watch_v2(&group.dir())?, group.dir()),
            (None, None) => {
                let state = "is missing: the container is in none".to_owned();
                return Err(Error::Cgroup { path: "memory".into(), state });
            }
        };
        Ok(OomWatch { fd, dir, placement: self.clone() })
    }
}

/// Its descriptor becomes readable when there is news.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    dir: PathBuf,
    placement: Placement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomNews {
    /// As [`Placement::oom_count`] gives it.
    pub count: u64,
    /// The container's group is empty or gone: no more news will come.
    pub is_over: bool,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl OomWatch {
    /// How things stand. Does not block, and makes the descriptor unreadable until there is more.
    pub fn news(&self) -> Result<OomNews> {
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(&self.fd, &mut events) {
                // An eventfd gives its whole count at once, inotify as much as there is room for.
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(Error::sys("read of OOM events")(error)),
            }
        }
        let is_over = match files::read_if_there(&self.dir, "cgroup.events")? {
            Some(text) => files::value_of(&text, "populated") == Some(0),
            // There is none in v1.
            None => !self.dir.exists(),
        };
        Ok(OomNews { count: self.placement.oom_count()?, is_over })
    }
}

fn watch_v2(dir: &Path) -> Result<OwnedFd> {
    let fd = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
        .map_err(Error::sys("inotify_init1"))?;
    let watch = |file: &str| rustix::fs::inotify::add_watch(&fd, dir.join(file), WatchFlags::MODIFY);
    watch("cgroup.events").map_err(Error::path("inotify_add_watch", dir.join("cgroup.events")))?;
    match watch("memory.events") {
        // Where memory is not controlled there is nothing to count, but still an end to wait for.
        Ok(_) | Err(Errno::NOENT) => Ok(fd),
        Err(error) => Err(Error::path("inotify_add_watch", dir.join("memory.events"))(error)),
    }
}

/// The kernel adds to the eventfd when the group runs out of memory, and when it is removed.
fn watch_v1(dir: &Path) -> Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let fd = rustix::event::eventfd(0, flags).map_err(Error::sys("eventfd"))?;
    let path = dir.join("memory.oom_control");
    let control = rustix::fs::open(
        &path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(Error::path("open", &path))?;
    files::write_value(
        &dir.join("cgroup.event_control"),
        &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()),
    )?;
    Ok(fd)
}

//! What is done to the processes of a container as a whole: list, freeze, thaw, signal.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};

use super::placement::{Group, Placement};
use super::{files, tree};
use crate::sys::kill::kill;
use crate::{Error, Result};

/// A process in an uninterruptible sleep cannot be frozen; whoever waits is told after this time.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Rounds of listing and killing, for kernels that cannot kill a group at once: a fork bomb outruns one round.
const KILL_ROUNDS: usize = 100;

impl Placement {
    /// The processes of the container and of the groups that it made, in ascending order.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(group) = self.tracker() else { return Ok(Vec::new()) };
        let dir = group.dir();
        tree::processes(&dir).map_err(Error::path("read processes of", dir))
    }

    /// Stops all processes and waits until they stand still; if they don't, they run on and it is an error.
    pub fn freeze(&self) -> Result<()> {
        let group = self.freezer()?;
        let dir = group.dir();
        let result = if is_v2(group) { freeze_v2(&dir) } else { freeze_v1(&dir) };
        if result.is_err() {
            let _ = self.thaw();
        }
        result
    }

    pub fn thaw(&self) -> Result<()> {
        let group = self.freezer()?;
        let (file, value) = if is_v2(group) { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        files::write_value(&group.dir().join(file), value)
    }

    /// Whether [`Self::freeze`] was called on this container; a frozen parent does not count.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok(group) = self.freezer() else { return Ok(false) };
        let file = if is_v2(group) { "cgroup.freeze" } else { "freezer.self_freezing" };
        Ok(files::read_if_there(&group.dir(), file)?.is_some_and(|text| text.trim() == "1"))
    }

    /// The directory of the group that [`Self::freeze`] works on, for tools.
    pub fn freezer_dir(&self) -> Option<PathBuf> {
        self.freezer().ok().map(Group::dir)
    }

    fn freezer(&self) -> Result<&Group> {
        let group = self.v2.as_ref().or_else(|| self.joined("freezer"));
        let none =
            || Error::Cgroup { path: "freezer".into(), state: "is missing: the container is in none".into() };
        group.ok_or_else(none)
    }

    /// Runs `act` while the container stands still, and leaves it as it was. Where it cannot be frozen, `act` runs
    /// all the same.
    pub(super) fn frozen(&self, act: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let is_ours = !self.is_frozen()? && self.freeze().is_ok();
        let result = act(self);
        if is_ours {
            self.thaw()?;
        }
        result
    }

    /// Sends a signal to every process of the container. After SIGKILL they are dying, not yet dead.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        let Some(group) = self.tracker() else { return Ok(()) };
        if signal == libc::SIGKILL {
            return kill_group(group);
        }
        self.frozen(|placement| signal_each(&placement.processes()?, signal))
    }
}

fn is_v2(group: &Group) -> bool {
    group.controllers.is_empty()
}

fn signal_each(pids: &[i32], signal: i32) -> Result<()> {
    for &pid in pids {
        match kill(pid, signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(Error::sys("kill")(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Kills all that is in the group and below.
pub(super) fn kill_group(group: &Group) -> Result<()> {
    let dir = group.dir();
    if is_v2(group) {
        match files::write(&dir.join("cgroup.kill"), "1") {
            Ok(()) => return Ok(()),
            // Either the group is gone, or the kernel is older than 5.14.
            Err(error) if files::is_gone(&error) => {}
            Err(error) => return Err(Error::path("write", dir.join("cgroup.kill"))(error)),
        }
    }
    let freezer = |state: &str| match files::write(&dir.join("freezer.state"), state) {
        Err(error) if !files::is_gone(&error) => Err(Error::path("write", dir.join("freezer.state"))(error)),
        _ => Ok(()),
    };
    // What is being frozen makes no new processes.
    if group.has("freezer") {
        freezer("FROZEN")?;
    }
    let mut killed = Vec::new();
    for _ in 0..KILL_ROUNDS {
        let pids = tree::processes(&dir).map_err(Error::path("read processes of", &dir))?;
        if pids.iter().all(|pid| killed.contains(pid)) {
            break;
        }
        signal_each(&pids, libc::SIGKILL)?;
        killed = pids;
    }
    // And dies when it is thawed.
    if group.has("freezer") {
        freezer("THAWED")?;
    }
    Ok(())
}

fn freeze_v2(dir: &Path) -> Result<()> {
    files::write_value(&dir.join("cgroup.freeze"), "1")?;
    if wait_until_frozen(dir).map_err(Error::path("read cgroup.events of", dir))? {
        return Ok(());
    }
    Err(Error::Cgroup { path: dir.to_owned(), state: format!("did not freeze in {FREEZE_TIMEOUT:?}") })
}

/// The v1 freezer may stay at FREEZING while processes keep coming: it is asked again, and now and then thawed
/// for a moment so that what blocks it can pass.
fn freeze_v1(dir: &Path) -> Result<()> {
    let file = dir.join("freezer.state");
    let end = Instant::now() + FREEZE_TIMEOUT;
    let mut round = 0_u32;
    while Instant::now() < end {
        round += 1;
        if round.is_multiple_of(50) {
            files::write_value(&file, "THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        files::write_value(&file, "FROZEN")?;
        if round.is_multiple_of(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if files::read(&file).map_err(Error::path("read", &file))?.trim() == "FROZEN" {
            return Ok(());
        }
    }
    Err(Error::Cgroup { path: dir.to_owned(), state: format!("did not freeze in {FREEZE_TIMEOUT:?}") })
}

/// False if it does not come in time.
fn wait_until_frozen(dir: &Path) -> io::Result<bool> {
    let end = Instant::now() + FREEZE_TIMEOUT;
    let fd = rustix::fs::open(dir.join("cgroup.events"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    loop {
        let mut text = [0; 256];
        let length = rustix::io::pread(&fd, &mut text, 0)?;
        if files::value_of(&String::from_utf8_lossy(&text[..length]), "frozen") == Some(1) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

//! Whose a container's group is: the user that sees it writable is given it, as far as the kernel lets groups be
//! delegated, so that it can make groups below and move its processes among them. Limits stay the runtime's.

use rustix::fs::{AtFlags, Uid, chownat, fchown};
use rustix::io::Errno;

use super::create::Leaf;
use super::placement::Placement;
use crate::{Error, Result};

/// What the kernel would have listed before it had the list.
const FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Placement {
    /// Gives the container's group to `uid`; on v2 alone, as the spec advises. A caller that may not is a rootless
    /// one, and the container's processes go on without.
    pub fn give(&self, leaf: &mut Leaf, uid: u32) -> Result<()> {
        let Some(dir) = leaf.v2.as_ref().filter(|_| self.is_v2_alone()) else { return Ok(()) };
        if uid == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| FILES.into());
        let owner = Some(Uid::from_raw(uid));
        let give = |name: &str| chownat(dir, name, owner, None, AtFlags::SYMLINK_NOFOLLOW);
        let files = listed.lines().map(give).filter(|given| *given != Err(Errno::NOENT));
        match files.chain([fchown(dir, owner, None)]).collect() {
            Err(Errno::PERM) => {
                leaf.notes.push(format!("the container's cgroup is not given to uid {uid}: not permitted"));
                Ok(())
            }
            given => given.map_err(Error::sys("chown the container's cgroup")),
        }
    }
}

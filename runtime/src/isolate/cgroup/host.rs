//! What the host's control groups are: one v2 hierarchy, v1 hierarchies, or both.

use std::borrow::Cow;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::files;
use super::limits;
use super::placement::Joins;
use crate::{Error, Result};

const ROOT: &str = "/sys/fs/cgroup";
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2: i64 = 0x6367_7270;

/// The v1 controllers that a container joins. Other named hierarchies belong to whoever mounted them.
const CONTROLLERS: [&str; 14] = [
    "cpuset",
    "devices",
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "freezer",
    "rdma",
    "misc",
];
const NAMED: &str = "name=systemd";

/// A mounted hierarchy; `root` is the group that its mount point shows, `/` but in containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Empty for v2.
    pub(super) controllers: Vec<String>,
    pub(super) mount: PathBuf,
    pub(super) root: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub(super) v2: Option<Hierarchy>,
    pub(super) v1: Vec<Hierarchy>,
    /// There is v1 beside v2, which `v1` does not list.
    pub(super) has_unlisted_v1: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    V2,
    Hybrid,
    V1,
    /// No control groups at all: a container without them is still possible.
    None,
}

impl Host {
    /// One system call on a pure v2 host; the others also cost a look at `/proc/self/mountinfo`.
    pub fn detect() -> Result<Self> {
        if is_v2(ROOT)? {
            let v2 = Hierarchy { controllers: Vec::new(), mount: ROOT.into(), root: "/".into() };
            return Ok(Self { v2: Some(v2), v1: Vec::new(), has_unlisted_v1: false });
        }
        let path = Path::new("/proc/self/mountinfo");
        let mut host = parse_mountinfo(&files::read(path).map_err(Error::path("read", path))?);
        // The mount may be hidden by another one: what is seen at its place counts.
        if host.v2.is_some() && !is_v2(UNIFIED)? {
            host.v2 = None;
        }
        Ok(host)
    }

    /// What a container is placed in that joins only what its limits need: where these need no v1 controller, the
    /// v1 hierarchies of a hybrid host are not looked for, in a list that grows with every mount of the host.
    pub fn detect_for(joins: Joins, resources: Option<&LinuxResources>) -> Result<Self> {
        let needs_none = resources.is_none_or(|resources| limits::needed(resources).is_empty());
        if joins == Joins::Limited && needs_none && !is_v2(ROOT)? && is_v2(UNIFIED)? {
            let v2 = Hierarchy { controllers: Vec::new(), mount: UNIFIED.into(), root: "/".into() };
            return Ok(Self { v2: Some(v2), v1: Vec::new(), has_unlisted_v1: true });
        }
        Self::detect()
    }

    pub fn mode(&self) -> Mode {
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), false) => Mode::Hybrid,
            (Some(_), true) if self.has_unlisted_v1 => Mode::Hybrid,
            (Some(_), true) => Mode::V2,
            (None, false) => Mode::V1,
            (None, true) => Mode::None,
        }
    }
}

fn is_v2(path: &str) -> Result<bool> {
    match rustix::fs::statfs(path) {
        Ok(found) => Ok(found.f_type == CGROUP2),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(Error::path("statfs", path)(error)),
    }
}

/// Finds the hierarchies among the mounts; a later mount at the same place or above hides an earlier one.
fn parse_mountinfo(text: &str) -> Host {
    let mut host = Host { v2: None, v1: Vec::new(), has_unlisted_v1: false };
    for line in text.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let mut place = place.split(' ').skip(3);
        let (Some(root), Some(mount)) = (place.next(), place.next()) else { continue };
        let mount = unescape(mount);
        host.v1.retain(|earlier| !hides(&mount, &earlier.mount));
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next(), kind.nth(1).unwrap_or_default());
        let hierarchy = |controllers| {
            let (mount, root) = (mount.as_ref().into(), unescape(root).as_ref().into());
            Hierarchy { controllers, mount, root }
        };
        match kind {
            Some("cgroup2") if mount == UNIFIED => host.v2 = Some(hierarchy(Vec::new())),
            Some("cgroup") => {
                let known = |option: &&str| CONTROLLERS.contains(option) || *option == NAMED;
                let controllers: Vec<_> = options.split(',').filter(known).map(str::to_owned).collect();
                if !controllers.is_empty() {
                    host.v1.push(hierarchy(controllers));
                }
            }
            _ => {}
        }
    }
    // A hierarchy may be seen at several places: the first one that is visible counts.
    let all = std::mem::take(&mut host.v1);
    for hierarchy in all {
        if !host.v1.iter().any(|other| other.controllers == hierarchy.controllers) {
            host.v1.push(hierarchy);
        }
    }
    host
}

fn hides(later: &str, earlier: &Path) -> bool {
    // Bytes first: a host may have thousands of mounts, and nearly none of them hides one of ours.
    earlier.as_os_str().as_bytes().starts_with(later.as_bytes()) && earlier.starts_with(later)
}

/// Mountinfo writes blank, tab, newline and backslash as three octal digits.
pub fn unescape(field: &str) -> Cow<'_, str> {
    if !field.contains('\\') {
        return Cow::Borrowed(field);
    }
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    Cow::Owned(codes.iter().fold(field.to_owned(), |text, (code, character)| text.replace(code, character)))
}

/// The caller's own place in each hierarchy, from `/proc/self/cgroup`.
#[derive(Debug)]
pub(super) struct Own(String);

impl Own {
    pub(super) fn read() -> Result<Self> {
        let path = Path::new("/proc/self/cgroup");
        files::read(path).map(Self).map_err(Error::path("read", path))
    }

    /// Relative to the mount point of `hierarchy`. A place that the mount does not show counts as its root.
    pub(super) fn place_in(&self, hierarchy: &Hierarchy) -> PathBuf {
        let is_it = |controllers: &str| match hierarchy.controllers.first() {
            None => controllers.is_empty(),
            Some(first) => controllers.split(',').any(|controller| controller == first),
        };
        let place = self.0.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, place) = rest.split_once(':')?;
            is_it(controllers).then_some(Path::new(place))
        });
        let below_root =
            place.and_then(|place| place.strip_prefix(&hierarchy.root).ok()).unwrap_or(Path::new(""));
        // Seen from outside its cgroup namespace, a group shows as `/../..`.
        if below_root.as_os_str().as_bytes().split(|&b| b == b'/').any(|part| part == b"..") {
            return PathBuf::new();
        }
        below_root.to_owned()
    }
}

/// Whether a failure is for want of rights: the usual fate of a rootless caller.
pub(super) fn is_permission(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EROFS))
}

#[cfg(test)]
mod tests;

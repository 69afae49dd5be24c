//! Kernel parameters of the container's own namespaces.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::mounts::new_filesystem;
use crate::sys::fd::Done;
use crate::{Error, Result};

/// A detached procfs of our own: what the container has mounted at /proc, or swaps in, does not matter
/// (CVE-2019-16884, CVE-2025-52881).
pub fn procfs() -> Result<OwnedFd> {
    new_filesystem("proc", "proc", &[], &[], 0, &Done::default())
}

/// Writes to a file of our procfs, whose path contains no link of any kind.
pub fn write(procfs: &OwnedFd, path: &str, value: &[u8]) -> Result<()> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_XDEV
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_SYMLINKS;
    let file = openat2(procfs, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(Error::path("open /proc", path))?;
    rustix::io::write(file, value).map(drop).map_err(Error::path("write /proc", path))
}

pub fn apply(settings: &[(String, String)]) -> Result<()> {
    if settings.is_empty() {
        return Ok(());
    }
    let procfs = procfs()?;
    settings.iter().try_for_each(|(key, value)| {
        // As in sysctl(8): a key with slashes keeps its dots, else dots separate.
        let path = if key.contains('/') { key.clone() } else { key.replace('.', "/") };
        write(&procfs, &format!("sys/{path}"), value.as_bytes())
    })
}

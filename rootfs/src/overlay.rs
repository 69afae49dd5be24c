//! Overlay mounts over layers of the store.
//!
//! By the old mount call: it takes all layers in one string on every kernel, while the new API has no way to
//! pass more than 256 bytes of them before Linux 6.7.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::beneath;
use crate::error::{Error, Result};
use crate::store::open_directory;

/// What mount(2) takes: a page, with its NUL.
const MAX_OPTIONS: usize = 4095;
/// An upper directory shall be a layer of its own, that works wherever the lower ones are: no references into
/// them, whole files only.
const OPTIONS: &str = "index=off,metacopy=off,redirect_dir=off";

/// Layers, as links in one directory.
pub(crate) struct Lower {
    pub(crate) links: PathBuf,
    /// Lowest first.
    pub(crate) names: Vec<String>,
}

pub(crate) struct Overlay<'a> {
    pub(crate) lower: Lower,
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
}

impl Overlay<'_> {
    pub(crate) fn mount(&self, target: &Path) -> Result<()> {
        let mut options = self.options(&self.lower.links);
        // a path that many layers make too long has a short name as well, though one that tells people less
        let links = open_directory(&self.lower.links)?;
        if options.len() > MAX_OPTIONS {
            options = self.options(format!("/proc/self/fd/{}", links.as_raw_fd()).as_ref());
        }
        if options.len() > MAX_OPTIONS {
            let expected = "as many as fit into 4,095 bytes of mount options; unpack with --copy";
            return Err(Error::invalid("overlay", format!("{} layers", self.lower.names.len()), expected));
        }
        let failed = |source| Error::NoOverlay { rootfs: target.into(), source };
        let options = CString::new(options).map_err(|error| failed(error.into()))?;
        rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), &*options)
            .map_err(|error| failed(error.into()))
    }

    /// The same, but only the answer leads into it: nobody else sees it, and it ends with the answer.
    pub(crate) fn mount_hidden(&self, through: &Path) -> Result<OwnedFd> {
        self.mount(through)?;
        let root = open_directory(through);
        rustix::mount::unmount(through, UnmountFlags::DETACH).map_err(Error::path("unmount", through))?;
        root
    }

    fn options(&self, links: &Path) -> Vec<u8> {
        let mut options = format!("{OPTIONS},lowerdir=").into_bytes();
        for (index, name) in self.lower.names.iter().rev().enumerate() {
            if index > 0 {
                options.push(b':');
            }
            options.extend(links.join(name).as_os_str().as_bytes()); // the store's path has nothing to escape
        }
        for (name, path) in [(",upperdir=", self.upper), (",workdir=", self.work)] {
            options.extend(name.as_bytes());
            options.extend(escaped(path));
        }
        options
    }
}

/// Commas end an option and backslashes escape.
fn escaped(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

/// Gives the directory `to` the owner, mode, times and extended attributes of `from`: what an overlay's root
/// has is what its uppermost directory has.
pub(crate) fn like(from: &Path, to: &Path) -> Result<()> {
    let (source, target) = (open_directory(from)?, open_directory(to)?);
    let stat = rustix::fs::fstat(&source).map_err(Error::path("stat", from))?;
    let failed = |error| Error::path("set the metadata of", to)(error);
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&target, Some(uid), Some(gid)).map_err(failed)?;
    rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode)).map_err(failed)?;
    copy_xattrs(&source, &target).map_err(failed)?;
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(&target, &times).map_err(failed)
}

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    for name in beneath::xattr_names(from.as_fd())? {
        if name.starts_with(b"trusted.overlay.") || name == b"security.selinux" {
            continue;
        }
        let name = &name[..];
        let mut value = vec![0; rustix::fs::fgetxattr_query(from, name)?];
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

/// Whether something is mounted at this directory.
pub(crate) fn is_mount_point(path: &Path) -> Result<bool> {
    let (Some(parent), Ok(directory)) = (path.parent(), open_directory(path)) else { return Ok(false) };
    let device = |file: &OwnedFd| rustix::fs::fstat(file).map(|stat| stat.st_dev);
    let same = device(&open_directory(parent)?).and_then(|above| Ok(above == device(&directory)?));
    same.map(|same| !same).map_err(Error::path("stat", path))
}

/// Whether `path` is an overlay with this upper directory.
pub(crate) fn is_mounted_with(path: &Path, upper: &Path) -> Result<bool> {
    let is_upper =
        |option: &str| option.strip_prefix("upperdir=").is_some_and(|shown| unescaped(shown) == upper);
    Ok(mounts()?.any(|mount| {
        mount.point == path && mount.kind == "overlay" && mount.options.split(',').any(is_upper)
    }))
}

pub(crate) fn unmount(path: &Path) -> Result<(), Errno> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)
}

pub(crate) fn unmount_all_below(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let below: Vec<_> =
        mounts()?.map(|mount| mount.point).filter(|point| point.starts_with(directory)).collect();
    for point in below.iter().rev() {
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        rustix::mount::unmount(point, flags).map_err(Error::path("unmount", point))?;
    }
    Ok(())
}

struct MountLine {
    point: PathBuf,
    kind: String,
    options: String,
}

const MOUNTS: &str = "/proc/self/mountinfo";

/// See proc(5): `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mounts() -> Result<impl Iterator<Item = MountLine>> {
    let lines = fs::read(MOUNTS).map_err(Error::path("read", MOUNTS))?;
    let lines = String::from_utf8_lossy(&lines).into_owned();
    let mounts: Vec<_> = lines.lines().filter_map(mount_line).collect();
    Ok(mounts.into_iter())
}

fn mount_line(line: &str) -> Option<MountLine> {
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    Some(MountLine {
        point: unescaped(mount.split(' ').nth(4)?),
        kind: system.next()?.into(),
        options: system.nth(1)?.into(),
    })
}

/// What would be taken for something else is three octal digits there: blanks, newlines, commas in options.
fn unescaped(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut path = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let line = r"36 35 0:40 / /a\040b/rootfs rw,relatime shared:1 - overlay overlay rw,lowerdir=/s/l/1:/s/l/2,upperdir=/u";
        let mount = mount_line(line).unwrap();
        assert_eq!(mount.point, Path::new("/a b/rootfs"));
        assert_eq!(mount.kind, "overlay");
        assert!(mount.options.split(',').any(|option| option == "lowerdir=/s/l/1:/s/l/2"));
        assert!(mount_line("nonsense").is_none());
    }

    #[test]
    fn options_escape_what_would_end_them() {
        let (upper, work) = (Path::new("/b,u\\x/u"), Path::new("/w"));
        let lower = Lower { links: "/unused".into(), names: vec!["low".into(), "top".into()] };
        let options = Overlay { lower, upper, work }.options("/l".as_ref());
        let options = String::from_utf8(options).unwrap();
        assert!(options.ends_with(",lowerdir=/l/top:/l/low,upperdir=/b\\,u\\\\x/u,workdir=/w"), "{options}");
    }

    #[test]
    fn what_the_kernel_escapes_is_read_back() {
        assert_eq!(unescaped(r"/a\040b\054c\134d\"), Path::new(r"/a b,c\d\"));
    }
}

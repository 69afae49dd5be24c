//! What security modules know a process by: an AppArmor profile, an SELinux label. Both are told beforehand, to be
//! taken on at exec.

use rustix::fd::BorrowedFd;
use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, XattrFlags};
use rustix::fs::{fsetxattr, fstatfs, openat, openat2};
use rustix::io::Errno;

use super::sysctl;
use crate::bundle::process::Process;
use crate::{Error, Result};

/// The word for no profile, which every host can give.
const UNCONFINED: &str = "unconfined";

/// Refuses what this host's kernel does not know. Costs nothing where nothing is asked for.
pub fn check(process: &Process) -> Result<()> {
    if let Some(profile) = process.apparmor.as_deref().filter(|profile| *profile != UNCONFINED)
        && !has_apparmor()
    {
        let expected = "a host with AppArmor (config provided but apparmor not supported)";
        return Err(Error::invalid("process.apparmorProfile", profile, expected));
    }
    if let Some(label) = &process.selinux
        && !has_selinux()
    {
        let expected = "a host with SELinux (selinux is disabled or not supported)";
        return Err(Error::invalid("process.selinuxLabel", label, expected));
    }
    Ok(())
}

fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn has_selinux() -> bool {
    std::fs::exists("/sys/fs/selinux/enforce").unwrap_or(false)
}

/// For the program that this process is about to execute.
pub fn apply(process: &Process) -> Result<()> {
    if let Some(label) = &process.selinux {
        write(&["attr/exec"], label).map_err(|error| error.at(format!("process.selinuxLabel {label}")))?;
    }
    // Unconfined is what a process is without AppArmor: there is nothing to write then.
    let needed = |profile: &&str| *profile != UNCONFINED || has_apparmor();
    let Some(profile) = process.apparmor.as_deref().filter(needed) else { return Ok(()) };
    // The second is the only one before Linux 5.8, and belongs to SELinux where both are there.
    write(&["attr/apparmor/exec", "attr/exec"], &format!("exec {profile}"))
        .map_err(|error| error.at(format!("process.apparmorProfile {profile}")))
}

/// For this process itself, which executes nothing any more.
pub fn take_on(process: &Process) -> Result<()> {
    if let Some(label) = &process.selinux {
        write(&["attr/current"], label).map_err(|error| error.at(format!("process.selinuxLabel {label}")))?;
    }
    let Some(profile) = process.apparmor.as_deref().filter(|profile| *profile != UNCONFINED) else {
        return Ok(());
    };
    write(&["attr/apparmor/current", "attr/current"], &format!("changeprofile {profile}"))
        .map_err(|error| error.at(format!("process.apparmorProfile {profile}")))
}

/// Labels the session keyring that is made next.
pub fn label_keyring(process: &Process) -> Result<()> {
    let Some(label) = &process.selinux else { return Ok(()) };
    write(&["attr/keycreate"], label).map_err(|error| error.at(format!("process.selinuxLabel {label}")))
}

/// Gives a directory an SELinux label.
pub fn label(directory: BorrowedFd<'_>, label: &str) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(directory, ".", flags, Mode::empty())?;
    Ok(fsetxattr(directory, "security.selinux", label.as_bytes(), XattrFlags::empty())?)
}

/// To the first of these files of this thread's that exists.
fn write(paths: &[&str], value: &str) -> Result<()> {
    let procfs = procfs()?;
    for path in paths {
        let path = format!("thread-self/{path}");
        // `thread-self` is a link, though none by magic.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        match openat2(&procfs, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::NOENT) => {}
            opened => {
                let file = opened.map_err(Error::path("open /proc", &path))?;
                return rustix::io::write(file, value.as_bytes())
                    .map(drop)
                    .map_err(Error::path("write /proc", path));
            }
        }
    }
    Err(Error::path("open /proc", paths.join(" or "))(std::io::Error::from(Errno::NOENT)))
}

/// One of our own, or, where a user namespace whose /proc is masked may not mount another, the container's: the
/// kernel lets a process write to its own attributes only, so what another procfs could do is fail.
fn procfs() -> Result<rustix::fd::OwnedFd> {
    sysctl::procfs().or_else(|error| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mounted = openat(CWD, "/proc", flags, Mode::empty()).map_err(Error::path("open", "/proc"))?;
        match fstatfs(&mounted) {
            Ok(info) if info.f_type == PROC_SUPER_MAGIC => Ok(mounted),
            _ => Err(error),
        }
    })
}

//! Each namespace, made once; and user namespaces as an ordinary user gets them.

use nix::sched::{CloneFlags, unshare};

use super::{Check, child, plain, read, wait};
use crate::sys;

const NAMESPACES: [(&str, i32); 8] = [
    ("mount", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("network", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("user", libc::CLONE_NEWUSER),
    // Linux 5.6; libc's name for it is missing on some architectures.
    ("time", 0x80),
];

/// The ids of the kernel's "nobody".
const NOBODY: u32 = 65534;

pub(super) fn check() -> Vec<Check> {
    let mut missing = Vec::new();
    let mut reason = String::new();
    for (name, flag) in NAMESPACES {
        if let Err(error) = child(flag, || 0).and_then(|child| wait(&child)) {
            missing.push(name);
            reason = plain(error);
        }
    }
    const NAME: &str = "namespaces";
    let namespaces = if missing.is_empty() {
        Check::ok(NAME, NAMESPACES.map(|row| row.0).join(", "))
    } else {
        let found = format!("{} cannot be made: {reason}", missing.join(", "));
        let is_vital = missing.iter().any(|name| matches!(*name, "mount" | "pid"));
        let remedy = "root (CAP_SYS_ADMIN) or user namespaces, and a kernel with CONFIG_NAMESPACES in full";
        if is_vital { Check::no(NAME, found, remedy) } else { Check::warn(NAME, found, remedy) }
    };
    vec![namespaces.essential(), ordinary_user()]
}

/// Some distributions let a user make one, but take all rights in it away: so a right is used.
fn ordinary_user() -> Check {
    const NAME: &str = "rootless";
    let is_root = rustix::process::geteuid().is_root();
    let as_nobody = || {
        if is_root && sys::process::set_ids(NOBODY, NOBODY, Some(&[])).is_err() {
            return 255;
        }
        let tried = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS)
            .and_then(|()| nix::unistd::sethostname("doctor"));
        tried.map_or_else(|errno| u8::try_from(errno as i32).unwrap_or(255), |()| 0)
    };
    let status = sys::clone::spawn(sys::clone::Request::default(), as_nobody).and_then(|child| wait(&child));
    let settings: Vec<_> = [
        ("user.max_user_namespaces", "0"),
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ]
    .into_iter()
    .filter(|(name, value)| read(&format!("/proc/sys/{}", name.replace('.', "/"))).as_deref() == Some(value))
    .map(|(name, value)| format!("{name}={value}"))
    .collect();
    match status {
        Ok(0) => Check::ok(NAME, "an ordinary user can make a user namespace and has rights in it"),
        Ok(255) | Err(_) => Check::warn(NAME, "could not become an ordinary user to try", "run it as one"),
        Ok(errno) => {
            let reason = plain(std::io::Error::from_raw_os_error(errno));
            let found = format!("an ordinary user gets no user namespace with rights in it: {reason}");
            let found =
                if settings.is_empty() { found } else { format!("{found} ({})", settings.join(", ")) };
            Check::no(NAME, found, "change that sysctl, or run containers as root")
        }
    }
}

//! What takes rights away or grants them: capabilities, seccomp, landlock, the security modules.

use caps::{CapSet, Capability};

use super::{Check, plain, read};
use crate::container::features;
use crate::isolate::seccomp::support;
use crate::sys;

/// What the lack of a capability means; of the others a container only lacks the capability itself.
const MEANINGS: [(Capability, &str); 6] = [
    (Capability::CAP_SYS_RESOURCE, "rlimits above the caller's and an oom_score_adj below it are refused"),
    (Capability::CAP_SETUID, "no user but the caller"),
    (Capability::CAP_SETGID, "no group but the caller's"),
    (Capability::CAP_SETPCAP, "the bounding set of a container cannot be made smaller"),
    (Capability::CAP_NET_ADMIN, "no loopback device in a new network namespace"),
    (Capability::CAP_MKNOD, "devices are bind mounts"),
];

/// All nine names of the eight actions.
const ACTIONS: usize = 9;

pub(super) fn check() -> Vec<Check> {
    vec![capabilities(), seccomp(), landlock(), apparmor(), selinux()]
}

fn capabilities() -> Check {
    const NAME: &str = "capabilities";
    let had = match caps::read(None, CapSet::Effective) {
        Ok(had) => had,
        Err(error) => return Check::warn(NAME, error.to_string(), "/proc"),
    };
    let last =
        read("/proc/sys/kernel/cap_last_cap").and_then(|text| text.parse::<u8>().ok()).unwrap_or(u8::MAX);
    let mut missing: Vec<_> =
        caps::all().into_iter().filter(|cap| cap.index() <= last && !had.contains(cap)).collect();
    missing.sort_unstable_by_key(Capability::index);
    if missing.is_empty() {
        return Check::ok(NAME, "all that the kernel has");
    }
    if !rustix::process::geteuid().is_root() && had.is_empty() {
        return Check::warn(NAME, "none, as for every ordinary user", "rootless containers, or root");
    }
    let meaning = |cap: &Capability| {
        let meaning = MEANINGS.iter().find(|row| row.0 == *cap);
        meaning.map_or_else(|| cap.to_string(), |row| format!("{cap} ({})", row.1))
    };
    let found = format!("without {}", missing.iter().map(meaning).collect::<Vec<_>>().join(", "));
    Check::warn(NAME, found, "grant them to the caller, or use configs that ask for less")
}

fn seccomp() -> Check {
    const NAME: &str = "seccomp";
    let actions = support::actions();
    let short = |names: &[&str], prefix: &str| {
        names.iter().map(|name| name.trim_start_matches(prefix)).collect::<Vec<_>>().join(", ")
    };
    let flags = support::supported_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (actions, count) = (short(&actions, "SCMP_ACT_"), actions.len());
    let found = format!("actions {actions}; flags {}", short(&flags, "SECCOMP_FILTER_FLAG_"));
    match count {
        ACTIONS => Check::ok(NAME, found),
        0 => Check::no(
            NAME,
            "this kernel has no filters",
            "CONFIG_SECCOMP_FILTER, or configs without a profile",
        ),
        _ => Check::warn(NAME, found, "Linux 5.0 or later has all actions"),
    }
}

fn landlock() -> Check {
    match sys::probe::landlock_abi() {
        Ok(abi) => Check::ok("landlock", format!("ABI {abi}")),
        Err(error) => {
            let remedy =
                "Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and `landlock` in the boot parameter lsm=";
            Check::no("landlock", plain(error), remedy)
        }
    }
}

fn apparmor() -> Check {
    const NAME: &str = "AppArmor";
    match (read("/sys/module/apparmor/parameters/enabled").as_deref(), features::APPARMOR) {
        (Some("Y"), true) => Check::ok(NAME, "enabled"),
        (Some("Y"), false) => {
            Check::warn(NAME, "enabled, but this build sets no profile", "configs without apparmorProfile")
        }
        _ => Check::no(
            NAME,
            "this kernel has none, or it is off",
            "lsm=...,apparmor at boot, where it is wanted",
        ),
    }
}

fn selinux() -> Check {
    const NAME: &str = "SELinux";
    match (read("/sys/fs/selinux/enforce").as_deref(), features::SELINUX) {
        (Some(mode), true) => Check::ok(NAME, if mode == "1" { "enforcing" } else { "permissive" }),
        (Some(_), false) => {
            Check::warn(NAME, "enabled, but this build sets no label", "configs without selinuxLabel")
        }
        (None, _) => Check::no(
            NAME,
            "this kernel has none, or it is off",
            "a distribution with a policy, where it is wanted",
        ),
    }
}

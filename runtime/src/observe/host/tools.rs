//! What Hearth does not do itself: id maps of ordinary users, checkpoints, virtual machines.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid};

use super::{Check, plain, told};
use crate::isolate::criu::{Criu, search};
use crate::isolate::idmap;
use crate::store::Root;
use crate::sys;

pub(super) fn check() -> Vec<Check> {
    vec![state_directory(), id_map_helpers(), criu(), kvm()]
}

fn state_directory() -> Check {
    const NAME: &str = "state directory";
    match Root::default_place() {
        Ok(root) => Check::ok(NAME, root.path().display().to_string()),
        Err(error) => {
            Check::warn(NAME, told(&error), "a login session (pam_systemd), or --root with every command")
        }
    }
}

const GRANT: &str = "root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER";

/// An ordinary user may map nobody but itself; these programs map what /etc/subuid and /etc/subgid grant.
fn id_map_helpers() -> Check {
    const NAME: &str = "newuidmap, newgidmap";
    for (name, table) in [("newuidmap", "/etc/subuid"), ("newgidmap", "/etc/subgid")] {
        let Some(file) = search(Path::new(name)) else {
            return Check::no(
                NAME,
                format!("{name} is not installed"),
                "apt-get install uidmap, for rootless containers",
            );
        };
        let is_setuid = std::fs::metadata(&file).is_ok_and(|found| found.permissions().mode() & 0o4000 != 0);
        let has_capability = rustix::fs::getxattr(&file, "security.capability", &mut [0_u8; 64]).is_ok();
        if !is_setuid && !has_capability {
            let found = format!("{} is neither setuid nor has file capabilities", file.display());
            return Check::no(NAME, found, "reinstall the package uidmap");
        }
        if !std::fs::read_to_string(table).is_ok_and(|text| !text.trim().is_empty()) {
            return Check::warn(NAME, format!("{table} grants nothing"), GRANT);
        }
    }
    if geteuid().is_root() {
        return Check::ok(NAME, "installed; /etc/subuid and /etc/subgid grant ids");
    }
    let (uids, gids) = match (idmap::granted("/etc/subuid"), idmap::granted("/etc/subgid")) {
        (Some(uids), Some(gids)) => (uids, gids),
        (uids, _) => {
            let table = if uids.is_none() { "/etc/subuid" } else { "/etc/subgid" };
            return Check::warn(
                NAME,
                format!("{table} grants the caller nothing: one id a container"),
                GRANT,
            );
        }
    };
    let with = |own, (first, count)| [(0, own, 1), (1, first, count)];
    let maps = (with(geteuid().as_raw(), uids), with(getegid().as_raw(), gids));
    match idmap::user_namespace(&maps.0, &maps.1) {
        Ok(_) => Check::ok(NAME, format!("map {} users and {} groups for the caller", uids.1, gids.1)),
        Err(error) => Check::no(NAME, told(&error), GRANT),
    }
}

fn criu() -> Check {
    const NAME: &str = "criu";
    let Ok(criu) = Criu::find(None) else {
        return Check::no(NAME, "not installed", "apt-get install criu, for checkpoints");
    };
    let version = match criu.check_version() {
        Ok(version) => version,
        Err(error) => return Check::no(NAME, told(&error), "a newer criu"),
    };
    match finish(Command::new(criu.path()).arg("check")) {
        Ok(None) => Check::ok(
            NAME,
            format!("{version}; `criu check` is content, which is no promise that a dump succeeds"),
        ),
        Ok(Some(reason)) => {
            let found = format!("{version}; `criu check` fails: {reason}");
            Check::no(NAME, found, "a newer criu, all capabilities")
        }
        Err(error) => Check::no(NAME, plain(error), "reinstall the package criu"),
    }
}

/// The first line that a failing command says, `None` for one that succeeds in at most five seconds.
fn finish(command: &mut Command) -> std::io::Result<Option<String>> {
    const LIMIT: Duration = Duration::from_secs(5);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let end = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            child.kill()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Ok((!output.status.success()).then(|| first.trim().chars().take(200).collect()))
}

fn kvm() -> Check {
    const NAME: &str = "KVM";
    let device = rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let machine =
        device.map_err(std::io::Error::from).and_then(|kvm| sys::probe::create_machine(kvm.as_fd()));
    match machine {
        // It runs guests whose kernel knows it; of any other it executes each instruction in software.
        Ok(_) if std::path::Path::new("/sys/module/kvm_pvm").exists() => Check::warn(
            NAME,
            "/dev/kvm makes machines by kvm_pvm: an ordinary guest kernel is emulated, and slow",
            "a host with hardware virtualisation (kvm_intel, kvm_amd)",
        ),
        Ok(_) => Check::ok(NAME, "/dev/kvm makes machines"),
        Err(error) => {
            let remedy =
                "modprobe kvm_intel or kvm_amd, nested virtualisation, the group kvm; or software emulation";
            Check::no(NAME, format!("/dev/kvm: {}", plain(error)), remedy)
        }
    }
}

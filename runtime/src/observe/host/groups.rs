//! Control groups: which kind, which controllers; and one group, made as a container's is, entered and removed.

use std::os::fd::AsFd;

use rustix::process::geteuid;

use super::{Check, read, told, wait};
use crate::isolate::cgroup::{Host, Joins, Mode, Placement, device_rules};
use crate::sys::clone::{Request, spawn};
use crate::{Error, Result};

const WANTED: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn check() -> Vec<Check> {
    let planned = Host::detect().and_then(|host| {
        // Two at once may have one pid, each in a namespace of its own.
        let id = format!("hearth-doctor-{}-{}", std::process::id(), crate::observe::now());
        Ok((host.mode(), Placement::plan(&host, None, &id, Joins::All, None)?))
    });
    match planned {
        Ok((Mode::None, _)) => {
            let remedy = "mount -t cgroup2 none /sys/fs/cgroup";
            vec![Check::no("cgroups", "none are mounted: no limits, no pause, no statistics", remedy)]
        }
        Ok((mode, placement)) => vec![kind(mode, &placement), group(placement)],
        Err(error) => {
            vec![Check::no("cgroups", told(&error), "/proc and /sys/fs/cgroup as systemd mounts them")]
        }
    }
}

fn kind(mode: Mode, placement: &Placement) -> Check {
    const NAME: &str = "cgroups";
    let v2 = placement.v2_dir().and_then(|dir| {
        read(&dir.parent()?.join("cgroup.controllers").to_string_lossy()).map(|text| text.replace(' ', ", "))
    });
    let v2 = v2.unwrap_or_default();
    let view = placement.view();
    let v1: Vec<&str> = view.hierarchies.iter().flat_map(|one| &one.parameters).map(String::as_str).collect();
    let (v2_list, v1_list) = (if v2.is_empty() { "no controllers" } else { &v2 }, v1.join(", "));
    let found = match mode {
        Mode::V2 => format!("v2 with {v2_list}"),
        Mode::Hybrid => format!("hybrid: v2 with {v2_list}; v1 with {v1_list}"),
        Mode::V1 => format!("v1 with {v1_list}"),
        Mode::None => "none".to_owned(),
    };
    let lacking: Vec<_> = WANTED
        .into_iter()
        .filter(|name| !v1.contains(name) && !v2.split(", ").any(|had| had == *name))
        .collect();
    if !lacking.is_empty() {
        let found = format!("{found}; no limits for {}", lacking.join(", "));
        let remedy = "enable them in cgroup.subtree_control of the parents (a delegated unit: Delegate=yes)";
        return Check::warn(NAME, found, remedy);
    }
    match mode {
        Mode::V2 => Check::ok(NAME, found),
        _ => Check::warn(NAME, found, "boot with systemd.unified_cgroup_hierarchy=1 for v2 alone"),
    }
}

/// The whole of what a launch does: limits aside, which need the controllers that are told above.
fn group(mut placement: Placement) -> Check {
    const NAME: &str = "container's cgroup";
    const REMEDY: &str =
        "root or a delegated group; for v2: Linux 5.7, CAP_BPF or CAP_SYS_ADMIN for device rules";
    const DELEGATE: &str = "for limits: systemd-run --user --scope -p Delegate=yes, or a group that root has given \
                            to the caller, with its cgroup.procs and cgroup.subtree_control";
    let made = placement.create(None).and_then(|mut leaf| {
        let rules = device_rules(None, &[])?;
        placement.restrict_ahead(&mut leaf, &rules)?;
        placement.restrict_meanwhile(&mut leaf, &rules)?;
        Ok(leaf)
    });
    let tried = made.and_then(|mut leaf| {
        let entered = match &leaf.v2 {
            Some(dir) => enter(dir.as_fd()).map(|()| "a process starts in it (CLONE_INTO_CGROUP), "),
            None => Ok(""),
        };
        leaf.notes.extend(leaf.without.take());
        Ok((entered?, leaf.notes))
    });
    let kills = placement.v2_dir().is_some_and(|dir| dir.join("cgroup.kill").exists());
    let removed = placement.destroy();
    match tried.and_then(|found| removed.map(|()| found)) {
        Ok((_, notes)) if !notes.is_empty() => {
            let remedy = if geteuid().is_root() { REMEDY } else { DELEGATE };
            Check::warn(NAME, notes.join("; "), remedy)
        }
        Ok((entered, _)) => {
            let kills = if kills { ", cgroup.kill" } else { "" };
            Check::ok(NAME, format!("is made and removed, {entered}its devices are restricted{kills}"))
        }
        Err(error) => Check::no(NAME, told(&error), REMEDY),
    }
}

fn enter(dir: std::os::fd::BorrowedFd<'_>) -> Result<()> {
    let request = Request { flags: 0, cgroup: Some(dir), vfork: false };
    let child = spawn(request, || 0).map_err(Error::sys("clone3(CLONE_INTO_CGROUP)"))?;
    wait(&child).map(drop).map_err(Error::sys("waitid"))
}

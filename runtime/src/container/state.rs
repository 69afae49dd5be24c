//! What a container is doing, derived from the kernel each time; and how it is told.

use std::collections::BTreeMap;
use std::fmt;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, connect, socket_with};
use serde::Serialize;

use super::Container;
use crate::Result;
use crate::process::channel;
use crate::store::record::{End, Record};

/// runtime.md, "State", and runc's `paused`.
///
/// ```text
/// creating -> created -> running <-> paused
///     \__________\__________\_________/ -> stopped
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

pub(super) fn status(container: &Container) -> Result<Status> {
    let Some(process) = container.record.as_ref().and_then(|record| record.process) else {
        // Without a process it is being created, as long as its creator lives.
        return Ok(if container.dir.is_busy()? { Status::Creating } else { Status::Stopped });
    };
    if !process.is_alive() {
        return Ok(Status::Stopped);
    }
    if container.dir.has_start_socket() {
        if waits_for_start(container) {
            return Ok(Status::Created);
        }
        // Its `start` died before it could tidy up.
        container.dir.remove_start_socket();
    }
    let frozen = container.record()?.cgroups.is_frozen().unwrap_or(false);
    Ok(if frozen { Status::Paused } else { Status::Running })
}

/// Only an init that waits to be started listens: the exec of the user's program closes its end.
fn waits_for_start(container: &Container) -> bool {
    let made = socket_with(AddressFamily::UNIX, channel::KIND, SocketFlags::CLOEXEC, None);
    let (Ok(socket), Ok(address)) = (made, SocketAddrUnix::new(container.dir.start_socket())) else {
        return true;
    };
    connect(&socket, &address) != Err(rustix::io::Errno::CONNREFUSED)
}

/// `hearth state`: the fields of the spec and those that runc adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub oci_version: &'static str,
    pub id: String,
    /// 0 where there is no process.
    pub pid: i32,
    pub status: Status,
    pub bundle: String,
    pub rootfs: String,
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Empty, as in runc's `state`; `list` has it.
    pub owner: String,
    /// No field of runc's: where it stopped, and that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

pub fn report(container: &Container) -> Result<Report> {
    let status = container.status()?;
    let mut report = Report {
        oci_version: crate::OCI_VERSION,
        id: container.dir.id(),
        pid: 0,
        status,
        bundle: String::new(),
        rootfs: String::new(),
        created: String::new(),
        annotations: BTreeMap::new(),
        owner: String::new(),
        end: None,
    };
    if let Some(record) = &container.record {
        report.pid = record.process.filter(|_| status != Status::Stopped).map_or(0, |process| process.pid);
        report.bundle = record.bundle.display().to_string();
        report.rootfs = record.rootfs.display().to_string();
        report.created.clone_from(&record.created);
        report.annotations.clone_from(&record.annotations);
        report.end = (status == Status::Stopped).then(|| end(record)).flatten();
    }
    Ok(report)
}

/// What a command of ours saw, or what the process itself still tells until its parent has asked it.
fn end(record: &Record) -> Option<End> {
    record.end.clone().or_else(|| {
        let status = record.process?.wait_status()?;
        Some(End::new(status, record.cgroups.oom_count().unwrap_or(0)))
    })
}

//! Device rules, put in force: an eBPF program on the v2 group, or the v1 devices controller.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::create::Made;
use super::devices::{DeviceRule, v1_writes};
use super::placement::Placement;
use super::{files, filter};
use crate::sys::bpf;
use crate::{Error, Result};

impl Placement {
    /// Attaches the device program to the v2 group, or writes the rules of the v1 group. Returns a note where a
    /// rootless caller may do neither.
    pub(super) fn restrict_devices(
        &self,
        v2: Option<&OwnedFd>,
        devices: &[DeviceRule],
        made: Made,
    ) -> Result<Option<String>> {
        let result = match (v2, self.joined("devices")) {
            (Some(_), _) if made == Made::Now && filter::allows_all(devices) => Ok(()),
            (Some(dir), _) => attach_filter(dir, devices, made),
            (None, Some(group)) => restrict_v1(&group.dir(), devices),
            (None, None) if self.is_none() || filter::allows_all(devices) => Ok(()),
            (None, None) => {
                Err(Error::invalid("linux.resources.devices", "rules", "a host with a devices controller"))
            }
        };
        match result {
            Err(error) if self.is_rootless() => {
                Ok(Some(format!("devices not restricted: {}", with_causes(&error))))
            }
            other => other.map(|()| None),
        }
    }
}

/// A group that was there before may hold a program of ours, whose place the new one takes.
fn attach_filter(dir: &OwnedFd, devices: &[DeviceRule], made: Made) -> Result<()> {
    let program = filter::compile(devices);
    let program =
        bpf::load_device_filter(&program).map_err(Error::sys("bpf(PROG_LOAD) of the device filter"))?;
    let replaced = match made {
        Made::Now => None,
        Made::Before => bpf::attached_device_filter(dir.as_fd()).map_err(Error::sys("bpf(PROG_QUERY)"))?,
    };
    bpf::attach_device_filter(dir.as_fd(), program.as_fd(), replaced.as_ref().map(AsFd::as_fd))
        .map_err(Error::sys("bpf(PROG_ATTACH) of the device filter"))
}

fn restrict_v1(dir: &Path, devices: &[DeviceRule]) -> Result<()> {
    let writes = v1_writes(devices)?;
    let mut open: Option<(&str, OwnedFd)> = None;
    for write in &writes {
        let path = dir.join(write.file);
        let fd = match open.take() {
            Some((file, fd)) if file == write.file => fd,
            _ => files::open_for_write(&path).map_err(Error::path("open", &path))?,
        };
        files::write_fd(&fd, &write.value).map_err(|source| files::refused(&path, &write.value, source))?;
        open = Some((write.file, fd));
    }
    Ok(())
}

/// An error and its causes as one line, for a note.
pub(super) fn with_causes(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    line
}

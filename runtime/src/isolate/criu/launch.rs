//! Starting criu: `criu swrk N` speaks over descriptor N, and dies with nobody to speak to.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::isolate::cgroup::Leaf;
use crate::process::{channel, spawn};
use crate::sys::clone::{Child, Exec, Request};
use crate::{Error, Result, sys};

/// For a restore: where the restored processes find themselves, who inherit all of it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub leaf: &'a Leaf,
    /// Descriptors that criu gets beside the standard ones, under the same numbers.
    pub keep: &'a [OwnedFd],
}

/// Exit codes of a child that did not become criu.
const FAILED_CGROUP: u8 = 120;
const FAILED_EXEC: u8 = 123;

/// The process, and the socket to it.
pub(super) fn start(path: &Path, place: Option<Place<'_>>) -> Result<(Child, OwnedFd)> {
    let (ours, theirs) = channel::pair().map_err(Error::sys("socketpair"))?;
    let c_string = |bytes: Vec<u8>| {
        CString::new(bytes).map_err(|_| Error::invalid("--criu", path.display().to_string(), "no NUL byte"))
    };
    let program = c_string(path.as_os_str().as_bytes().to_vec())?;
    let number = theirs.as_raw_fd().to_string();
    let argv = [c"criu".to_owned(), c"swrk".to_owned(), c_string(number.into_bytes())?];
    let envp: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok())
        .collect();
    let exec = Exec::new(&argv, &envp);
    let cgroup = place.and_then(|place| place.leaf.v2.as_ref()).map(AsFd::as_fd);
    let enter = || {
        let Some(place) = place else {
            // Whoever interrupts a checkpoint at a terminal means the command: criu is to thaw what it has frozen.
            let _ = rustix::process::setsid();
            return become_criu(&exec, &program, &theirs, &[]);
        };
        if place.leaf.tasks.iter().any(|tasks| rustix::io::write(tasks, b"0").is_err()) {
            return FAILED_CGROUP;
        }
        become_criu(&exec, &program, &theirs, place.keep)
    };
    let request = Request { flags: 0, cgroup, vfork: true };
    let (child, _) = spawn::clone_into(request, |request| sys::clone::spawn(request, enter))?;
    Ok((child, ours))
}

/// In the child. Returns only if it fails.
fn become_criu(exec: &Exec<'_>, program: &CString, socket: &OwnedFd, keep: &[OwnedFd]) -> u8 {
    for fd in keep.iter().chain([socket]) {
        let _ = sys::fd::keep_on_exec(fd.as_raw_fd());
    }
    // A `hearth` that is killed must not take criu along, in the middle of what it has to take back.
    let _ = sys::process::ignore_broken_pipes();
    let _ = sys::process::block_signals(0);
    let _ = exec.execute(program);
    FAILED_EXEC
}

/// Why criu fell silent, by its exit status.
pub(super) fn silence(path: &Path, code: Option<i32>) -> String {
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(FAILED_CGROUP) => "cannot enter the container's cgroups".into(),
        Some(FAILED_EXEC) => format!("cannot execute {}", path.display()),
        Some(code) => format!("it ended with status {code} and without an answer"),
        None => "it was killed".into(),
    }
}

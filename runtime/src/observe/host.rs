//! What this host can and cannot do, found out by doing it: every probe is undone at once, and none asks for a
//! version where it can ask for the thing itself.

mod groups;
mod mounts;
mod namespaces;
mod rights;
mod tools;

use std::io;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::Serialize;

use crate::sys::clone::{Child, Request, spawn};
use crate::{Error, sys};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, but not for everything.
    Warn,
    No,
}

/// One thing that a container may need of the host.
#[derive(Debug, Serialize)]
pub struct Check {
    pub level: Level,
    pub name: &'static str,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
    /// No container can run without it.
    pub essential: bool,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, name, found: found.into(), remedy: None, essential: false }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy), ..Self::ok(name, found) }
    }

    fn no(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Self {
        Self { level: Level::No, remedy: Some(remedy), ..Self::ok(name, found) }
    }

    fn essential(self) -> Self {
        Self { essential: true, ..self }
    }

    pub fn is_fatal(&self) -> bool {
        self.essential && self.level == Level::No
    }
}

/// All checks, what is essential first.
pub fn examine() -> Vec<Check> {
    let mut checks = namespaces::check();
    checks.extend(mounts::check());
    checks.extend(groups::check());
    checks.extend(rights::check());
    checks.push(reaping());
    checks.extend(tools::check());
    checks
}

/// Whether `events` can tell how a container ended whose parent is another process.
fn reaping() -> Check {
    const NAME: &str = "reason of the end";
    let told = child(0, || 7).and_then(|child| {
        wait(&child)?;
        sys::pidfd::exit_status(std::os::fd::AsFd::as_fd(&child.pidfd))
    });
    match told {
        Ok(Some(status)) if libc::WEXITSTATUS(status) == 7 => {
            Check::ok(NAME, "the kernel tells how a process of another parent ended")
        }
        Ok(_) => Check::no(NAME, "this kernel tells only the parent how a process ended", "Linux 6.15"),
        Err(error) => Check::no(NAME, plain(error), "Linux 6.15"),
    }
}

/// A short-lived process in namespaces of its own. A caller who is not root needs a user namespace around them.
fn child(namespaces: i32, body: impl FnOnce() -> u8) -> io::Result<Child> {
    let mut flags = u64::try_from(namespaces).unwrap_or(0);
    if flags != 0 && !rustix::process::geteuid().is_root() {
        flags |= libc::CLONE_NEWUSER as u64;
    }
    spawn(Request { flags, cgroup: None, vfork: false }, body)
}

/// Its exit status.
fn wait(child: &Child) -> io::Result<i32> {
    let status = waitid(WaitId::Pid(child.pid), WaitIdOptions::EXITED)?;
    Ok(status.and_then(|status| status.exit_status()).unwrap_or(255))
}

fn plain(error: impl Into<io::Error>) -> String {
    crate::error::describe(&error.into())
}

fn told(error: &Error) -> String {
    error.chain()
}

/// A short file of the kernel's, without the newline at its end.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

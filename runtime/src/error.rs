//! The error is the call that was made: one variant per kind of operation, with its arguments and its cause.
//! `Display` never repeats the cause; `main` prints the chain once.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::isolate::cgroup::SystemdFailure;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Input from outside that cannot be accepted: names the field, the value and what was expected.
    #[error("{field}: {value}: expected {expected}")]
    Invalid { field: String, value: String, expected: String },
    /// A call on a path failed.
    #[error("{call} {}", path.display())]
    Path { call: &'static str, path: PathBuf, source: io::Error },
    /// A control file of the kernel refused a value.
    #[error("write {value:?} to {}{hint}", path.display())]
    Write { path: PathBuf, value: String, hint: &'static str, source: io::Error },
    /// A control group is in a state that the operation cannot work with.
    #[error("control group {} {state}", path.display())]
    Cgroup { path: PathBuf, state: String },
    /// A conversation with systemd failed.
    #[error("systemd: {call} of {unit}")]
    Systemd { call: &'static str, unit: String, source: SystemdFailure },
    /// As runc says it.
    #[error("container's cgroup {state} ({})", path.display())]
    InUse { path: PathBuf, state: String },
    /// A call without a path failed.
    #[error("{call}")]
    Sys { call: &'static str, source: io::Error },
    #[error("parse {what}")]
    Json { what: String, source: serde_json::Error },
    /// What was asked for is well-formed, but this host or this caller cannot do it.
    #[error("{what}")]
    Refused { what: String, source: io::Error },
    #[error("error running {name} hook #{index}: {path}: {message}")]
    Hook { name: &'static str, index: usize, path: String, message: String },
    #[error("container does not exist")]
    NoContainer { id: String },
    #[error("container with given ID already exists: {id}")]
    ContainerExists { id: String },
    /// A verb that the container's state does not allow.
    #[error("{refusal}")]
    WrongState { refusal: String },
    /// Where an error happened, if its own words do not say.
    #[error("{place}")]
    At { place: String, source: Box<Self> },
    /// The program of a container cannot be executed; the text is what engines look for.
    #[error("exec: {program:?}: {reason}")]
    Program { program: String, reason: String },
    #[error("exec {program}")]
    Exec { program: String, source: io::Error },
    /// The container's init failed; the chain crossed a process boundary as text.
    #[error("{step}: {message}")]
    Init { step: String, message: String },

    #[error("the container's init ended during set-up")]
    InitGone,
    /// criu could not do it: its own last words, and where there are more of them.
    #[error("criu failed: type {verb} {reason}")]
    Criu { verb: &'static str, reason: String },
    /// An image could not become a bundle.
    #[error(transparent)]
    Rootfs(#[from] hearth_rootfs::Error),
}

impl Error {
    pub fn invalid(field: impl Into<String>, value: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), value: value.into(), expected: expected.into() }
    }

    /// For `map_err`: `open(path).map_err(Error::path("open", path))`.
    pub fn path<E: Into<io::Error>>(call: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        move |source| Self::Path { call, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// For `map_err`: `setsid().map_err(Error::sys("setsid"))`.
    pub fn sys<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Sys { call, source: source.into() }
    }

    /// The same error with the place where it happened.
    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Self {
        Self::At { place: place.into(), source: Box::new(self) }
    }

    /// The whole chain in one line.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            line.push_str(": ");
            line.push_str(&describe(cause));
            next = cause.source();
        }
        line
    }
}

/// One cause. The kernel's errors are told in lower case and without their number, as tools expect that match
/// on "no such file or directory".
pub fn describe(cause: &(dyn std::error::Error + 'static)) -> String {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
        Some(code) => {
            let text = io::Error::from_raw_os_error(code).to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
        }
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_line_in_lower_case() {
        let error = Error::path("open", "/x")(io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.chain(), "open /x: no such file or directory");
    }
}

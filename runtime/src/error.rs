//! The error is the call that was made: one variant per kind of operation, with its arguments and its cause.
//! `Display` never repeats the cause; `main` prints the chain once.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Input from outside that cannot be accepted: names the field, the value and what was expected.
    #[error("{field}: {value}: expected {expected}")]
    Invalid { field: String, value: String, expected: String },
    /// A call on a path failed.
    #[error("{call} {}", path.display())]
    Path { call: &'static str, path: PathBuf, source: io::Error },
    /// A call without a path failed.
    #[error("{call}")]
    Sys { call: &'static str, source: io::Error },
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
}

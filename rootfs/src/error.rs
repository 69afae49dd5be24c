//! What can go wrong between an image and a bundle: one variant per kind of operation, with its arguments and
//! its cause. `Display` never repeats the cause.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Input from outside that cannot be accepted: names the field, the value and what was expected.
    #[error("{field}: {value}: expected {expected}")]
    Invalid { field: String, value: String, expected: String },
    /// A call on a path failed.
    #[error("{call} {}", path.display())]
    Path { call: &'static str, path: PathBuf, source: io::Error },
    /// A document of an image (index, manifest, config ...) is not what its kind of document must be.
    #[error("{document}: not understood")]
    Document { document: String, source: serde_json::Error },
    /// Content differs from what its digest or size promised.
    #[error("{what}: its {property} is {found}, expected {expected}")]
    Mismatch { what: String, property: &'static str, found: String, expected: String },
    /// The source does not hold the image that was asked for.
    #[error("{place}: no image {wanted}; it has {found}")]
    NoImage { place: String, wanted: String, found: String },
    /// A layer was refused or could not be applied.
    #[error("layer {layer}")]
    Layer { layer: String, source: LayerError },
    /// The bundle's directory holds something already.
    #[error("bundle {}: {holds}; give another directory or remove this one", bundle.display())]
    Occupied { bundle: PathBuf, holds: String },
    /// The store is being cleaned or filled by someone else.
    #[error("store {}: an unpack is at work in it; run gc again when it is done", store.display())]
    Busy { store: PathBuf },
    #[error("no overlay at {}: unpack with --copy for a plain tree", rootfs.display())]
    NoOverlay { rootfs: PathBuf, source: io::Error },
    /// The registry's helper could not be started.
    #[error("start hearth-pull, which docker:// needs beside this executable or in PATH")]
    NoPuller { source: io::Error },
    #[error("pull {image}: {message}")]
    Pull { image: String, message: String },
}

/// What is wrong with a layer. The layer itself is named by [`Error::Layer`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The entry asks for something that is never done.
    #[error("entry {entry:?}: {problem}")]
    Refused { entry: String, problem: Problem },
    /// A call on behalf of the entry failed.
    #[error("entry {entry:?}: {call}")]
    Entry { entry: String, call: &'static str, source: io::Error },
    /// The stream broke off or could not be decompressed.
    #[error("read after entry {entry:?}")]
    Read { entry: String, source: io::Error },
    /// The tree as a whole could not be finished.
    #[error("{call}")]
    Tree { call: &'static str, source: io::Error },
    #[error("its {property} is {found}, expected {expected}")]
    Mismatch { property: &'static str, found: String, expected: String },
}

/// Why an entry is refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    #[error("an absolute name")]
    Absolute,
    #[error("a name that climbs with `..`")]
    Climbs,
    #[error("an empty name")]
    Empty,
    #[error("a name with a NUL byte")]
    Nul,
    #[error("a name longer than {0} bytes")]
    TooLong(usize),
    #[error("a hard link to {0:?}, {1}")]
    LinkTarget(String, Box<Problem>),
    #[error("a whiteout of {0:?}")]
    Whiteout(String),
    #[error("its directory {0:?} is a link that leads nowhere in this tree")]
    DanglingParent(String),
    #[error("a replacement of the root directory")]
    Root,
    #[error("the character device 0:0, which an overlay takes for a whiteout")]
    OverlayWhiteout,
    #[error("the layer's contents exceed the limit of {0} bytes (--max-size)")]
    TooBig(u64),
    #[error("more than {0} entries")]
    TooMany(u64),
    #[error("directories nested deeper than {0}")]
    TooDeep(usize),
    #[error("{field} {value}: expected {expected}")]
    Field { field: &'static str, value: String, expected: &'static str },
}

impl Error {
    pub(crate) fn invalid(
        field: impl Into<String>,
        value: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Invalid { field: field.into(), value: value.into(), expected: expected.into() }
    }

    /// For `map_err`: `open(path).map_err(Error::path("open", path))`.
    pub(crate) fn path<E: Into<io::Error>>(
        call: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Path { call, path: path.as_ref().to_owned(), source: source.into() }
    }
}

impl LayerError {
    pub(crate) fn refused(entry: &[u8], problem: Problem) -> Self {
        Self::Refused { entry: lossy(entry), problem }
    }

    pub(crate) fn call<E: Into<io::Error>>(call: &'static str, entry: &[u8]) -> impl FnOnce(E) -> Self {
        move |source| Self::Entry { entry: lossy(entry), call, source: source.into() }
    }
}

/// A name from a layer, for a person: never longer than a screen's line.
pub(crate) fn lossy(name: &[u8]) -> String {
    const SHOWN: usize = 160;
    let text = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]).into_owned();
    if name.len() > SHOWN { text + "..." } else { text }
}

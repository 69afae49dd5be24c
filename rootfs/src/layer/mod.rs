//! One layer, from the bytes of its blob to files in a directory.
//!
//! `unpack` stacks the readers (digest, decompression, digest, limit), `tar` gives entries, `name` says what
//! they mean and `apply` does it. A layer is applied to the tree of the layers below it, whiteouts included:
//! a plain directory, or an overlay mount of them, where the kernel turns removals into overlay's whiteouts.

mod apply;
mod compression;
mod name;
pub(crate) mod tar;

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use crate::digest::{Digest, Hashing};
use crate::error::{LayerError, Problem};
pub(crate) use apply::Privilege;
pub(crate) use compression::Decompressed;

/// What an image may still use, over all of its layers.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) limit: u64,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// Far above any real image; keeps a layer of nothing but names from filling the disk with inodes.
pub(crate) const MAX_ENTRIES: u64 = 8_000_000;

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, bytes: limit, entries: MAX_ENTRIES }
    }
}

/// Where a layer goes.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// The root of the tree below, writable.
    pub(crate) root: BorrowedFd<'a>,
    /// Whether there are layers below, for whiteouts to hide something of.
    pub(crate) has_lower: bool,
    pub(crate) privilege: Privilege,
}

/// What a layer must turn out to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    /// Of the blob; an archive of docker's has none.
    pub(crate) blob: Option<(Digest, u64)>,
    /// Of the blob's content when decompressed.
    pub(crate) diff_id: Digest,
}

/// Applies the layer in `blob` to `target`. Its digests are known only at the end: on an error the target is
/// to be thrown away.
pub(crate) fn unpack(
    blob: impl Read,
    promise: &Promise,
    target: &Target<'_>,
    budget: &mut Budget,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LayerError> {
    let start = |source| LayerError::Read { entry: String::new(), source };
    let limited = Reported { input: blob, progress };
    let content = Decompressed::new(Hashing::new(limited)).map_err(start)?;
    let limit = budget.limit;
    let mut left = budget.bytes;
    let mut reader = tar::Reader::new(Hashing::new(Limited { input: content, left: &mut left }));
    apply::apply(&mut reader, target, &mut budget.entries, limit)?;
    let last = std::mem::take(&mut reader.last);
    // what follows the end mark is part of the digests
    let (diff_id, _, limited) =
        reader.into_inner().finish().map_err(|source| read_error(&last, source, limit))?;
    let blob = limited.input.into_inner();
    let (digest, size, _) = blob.finish().map_err(|source| read_error(&last, source, limit))?;
    budget.bytes = left;
    if let Some((expected, expected_size)) = promise.blob {
        same("size", size, expected_size)?;
        same("digest", digest, expected)?;
    }
    same("content's digest (diffID)", diff_id, promise.diff_id)
}

fn same<T: PartialEq + ToString>(property: &'static str, found: T, expected: T) -> Result<(), LayerError> {
    if found == expected {
        return Ok(());
    }
    Err(LayerError::Mismatch { property, found: found.to_string(), expected: expected.to_string() })
}

fn read_error(entry: &[u8], source: io::Error, limit: u64) -> LayerError {
    if source.get_ref().is_some_and(|inner| inner.is::<Exhausted>()) {
        return LayerError::refused(entry, Problem::TooBig(limit));
    }
    LayerError::Read { entry: crate::error::lossy(entry), source }
}

#[derive(Debug, thiserror::Error)]
#[error("the limit is reached")]
struct Exhausted;

/// Ends in an error, not in an early end of file, when an image's limit is used up.
struct Limited<'a, R> {
    input: R,
    left: &'a mut u64,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        *self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(Exhausted))?;
        Ok(count)
    }
}

impl<R: Read> tar::Input for Hashing<R> {}

struct Reported<'a, R> {
    input: R,
    progress: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Reported<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        (self.progress)(count as u64);
        Ok(count)
    }
}

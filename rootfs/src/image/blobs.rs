//! Where an image's bytes are: files in a directory, or stretches of an archive.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};

use super::archive::Archive;
use super::registry::Pulled;
use crate::error::{Error, Result};
use crate::layer::tar;

#[derive(Debug)]
pub(super) enum Blobs {
    Layout(PathBuf),
    Archive(Archive),
    Registry(Pulled),
}

impl Blobs {
    /// `place` is a path in a layout that we made; or what `docker_archive` found, looked up in its archive.
    pub(super) fn open(&self, place: &str) -> Result<Section> {
        match self {
            Self::Layout(directory) => Section::file(&directory.join(place)),
            Self::Registry(pulled) => Section::file(&pulled.directory.join(place)),
            Self::Archive(archive) => archive.section(place),
        }
    }
}

/// A stretch of a file, read from its start to its end.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    file: Rc<File>,
    position: u64,
    end: u64,
}

impl Section {
    pub(super) fn file(path: &Path) -> Result<Self> {
        // NONBLOCK: a fifo must not hold us
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::path("open", path))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(Error::path("stat", path))?;
        if !metadata.is_file() {
            return Err(Error::invalid("blob", path.display().to_string(), "a regular file"));
        }
        Ok(Self::new(file, metadata.len()))
    }

    pub(super) fn new(file: File, length: u64) -> Self {
        Self { file: Rc::new(file), position: 0, end: length }
    }

    pub(crate) fn length(&self) -> u64 {
        self.end - self.position
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// `None` when it is not all there.
    pub(super) fn part(&self, position: u64, length: u64) -> Option<Self> {
        let end = position.checked_add(length).filter(|end| *end <= self.end)?;
        Some(Self { file: Rc::clone(&self.file), position, end })
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.length()).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..want], self.position)?;
        if count == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl tar::Input for Section {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        if count > self.length() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count;
        Ok(())
    }
}

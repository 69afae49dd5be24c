//! Does what a layer's entries say, below one directory descriptor and never outside it.
//!
//! Every place is reached by its directory's descriptor, which `beneath` resolves inside the root; the last
//! component of a name is never followed. What an entry replaces is removed first. Directories get their times
//! at the end, for adding to them changes these; so do directories that are only passed through.

mod metadata;

use std::collections::hash_map::{Entry as Slot, RandomState};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat};
use rustix::io::Errno;

use super::name::{self, Meaning, Name};
use super::tar::{Entry, Input, Kind, Reader, Sparse, TarError};
use super::{MAX_ENTRIES, Target, read_error};
use crate::beneath;
use crate::error::{LayerError, Problem, lossy};
pub(crate) use metadata::Privilege;
use metadata::Times;

const BUFFER: usize = 128 * 1024;
/// How deep directories may be nested of which a part is hidden and a part is not.
const MAX_PARTLY_HIDDEN: usize = 256;

/// Which directory, whatever its path at the moment.
type Identity = (u64, u64);

struct Apply<'a> {
    target: &'a Target<'a>,
    limit: u64,
    root: Identity,
    /// The directory of the last entry, for the next one is mostly in it too.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    directories: HashMap<Identity, Pending>,
    upper: Upper,
    buffer: Vec<u8>,
}

/// What is still to be set on a directory when all entries are there.
struct Pending {
    path: Vec<u8>,
    times: Times,
    mode: Option<Mode>,
}

/// What this layer put in place, which its own whiteouts do not hide. Kept only when there is a layer below.
#[derive(Default)]
struct Upper {
    /// Hashes of a directory's identity and a name in it.
    names: HashSet<u64>,
    /// Directories with something of this layer in them.
    directories: HashSet<Identity>,
    hasher: RandomState,
}

pub(crate) fn apply<R: Input>(
    layer: &mut Reader<R>,
    target: &Target<'_>,
    entries: &mut u64,
    limit: u64,
) -> Result<(), LayerError> {
    let root = fstat(target.root).map_err(|error| tree("stat the root", error))?;
    let root = (root.st_dev, root.st_ino);
    let mut directories = HashMap::new();
    if !target.has_lower {
        // like any directory that no entry makes
        directories.insert(root, Pending { path: vec![], times: metadata::epoch(), mode: None });
    }
    let mut apply = Apply {
        target,
        limit,
        root,
        parent: None,
        directories,
        upper: Upper::default(),
        buffer: vec![0; BUFFER],
    };
    loop {
        match layer.next() {
            Ok(None) => return apply.finish(),
            Ok(Some(entry)) => {
                *entries = entries
                    .checked_sub(1)
                    .ok_or_else(|| LayerError::refused(&entry.name, Problem::TooMany(MAX_ENTRIES)))?;
                apply.entry(&entry, layer)?;
            }
            Err(TarError::Read(source)) => return Err(read_error(&layer.last, source, limit)),
            Err(TarError::Refused(problem)) => return Err(LayerError::refused(&layer.last, problem)),
        }
    }
}

fn tree(call: &'static str, error: Errno) -> LayerError {
    LayerError::Tree { call, source: error.into() }
}

impl Apply<'_> {
    fn entry<R: Input>(&mut self, entry: &Entry, data: &mut Reader<R>) -> Result<(), LayerError> {
        let refused = |problem| LayerError::refused(&entry.name, problem);
        match name::meaning(&entry.name).map_err(refused)? {
            Meaning::Ignored => Ok(()),
            Meaning::Root if entry.kind == Kind::Directory => {
                let root = self.target.root;
                self.directory_metadata(root, b"", entry, false)
            }
            Meaning::Root => Err(refused(Problem::Root)),
            Meaning::Place(name) => self.place(&name, entry, data),
            // the lowest layer has nothing to hide
            _ if !self.target.has_lower => Ok(()),
            Meaning::Whiteout(name) => {
                let Some(parent) = self.hiding_in(&name.directory, &entry.name)? else { return Ok(()) };
                self.hide(parent.as_fd(), &name.last, 0, &entry.name)
            }
            Meaning::Opaque(directory) => {
                let Some(directory) = self.hiding_in(&directory, &entry.name)? else { return Ok(()) };
                self.hide_contents(directory.as_fd(), 0, &entry.name)
            }
        }
    }

    fn place<R: Input>(
        &mut self,
        name: &Name,
        entry: &Entry,
        data: &mut Reader<R>,
    ) -> Result<(), LayerError> {
        let parent = self.parent(&name.directory, &entry.name)?;
        let parent = parent.as_fd();
        let last = &name.last[..];
        let exists = match beneath::stat(parent, last) {
            Ok(stat) if beneath::is_directory(&stat) && entry.kind == Kind::Directory => true,
            Ok(_) => {
                beneath::remove_tree(parent, last).map_err(LayerError::call("replace", &entry.name))?;
                self.parent = None; // it may have been on the way to it
                false
            }
            Err(Errno::NOENT) => false,
            Err(error) => return Err(LayerError::call("stat", &entry.name)(error)),
        };
        if self.target.has_lower {
            let identity = self.identity(parent, &entry.name)?;
            self.upper.mark(identity, last);
        }
        match &entry.kind {
            Kind::File => self.file(parent, last, entry, None, data),
            Kind::Sparse(sparse) => self.file(parent, last, entry, Some(sparse), data),
            Kind::Directory => self.directory(parent, name, entry, exists),
            Kind::HardLink(target) => self.hard_link(parent, last, target, &entry.name),
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(&target[..], parent, last)
                    .map_err(LayerError::call("make the link", &entry.name))?;
                metadata::set_by_name(parent, last, entry, self.target.privilege)
            }
            Kind::Char { major: 0, minor: 0 } => {
                Err(LayerError::refused(&entry.name, Problem::OverlayWhiteout))
            }
            Kind::Char { major, minor } => {
                self.node(parent, last, entry, FileType::CharacterDevice, (*major, *minor))
            }
            Kind::Block { major, minor } => {
                self.node(parent, last, entry, FileType::BlockDevice, (*major, *minor))
            }
            Kind::Fifo => self.node(parent, last, entry, FileType::Fifo, (0, 0)),
        }
    }

    fn file<R: Input>(
        &mut self,
        parent: BorrowedFd<'_>,
        last: &[u8],
        entry: &Entry,
        sparse: Option<&Sparse>,
        data: &mut Reader<R>,
    ) -> Result<(), LayerError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, last, flags, Mode::RUSR | Mode::WUSR)
            .map_err(LayerError::call("create", &entry.name))?;
        let mut file = File::from(file);
        match sparse {
            None => {
                let length = data.data_left();
                self.stretch(length, entry, data, |chunk, _| file.write_all(chunk))?;
            }
            Some(sparse) if sparse.size > self.limit => {
                return Err(LayerError::refused(&entry.name, Problem::TooBig(self.limit)));
            }
            Some(sparse) => {
                file.set_len(sparse.size).map_err(LayerError::call("set the size", &entry.name))?;
                for (offset, length) in &sparse.segments {
                    self.stretch(*length, entry, data, |chunk, at| file.write_all_at(chunk, offset + at))?;
                }
            }
        }
        metadata::set(file.as_fd(), entry, self.target.privilege)?;
        rustix::fs::futimens(&file, &metadata::times(entry))
            .map_err(LayerError::call("set the times", &entry.name))
    }

    /// Hands `length` bytes of the entry's data to `write`, with their place in the stretch.
    fn stretch<R: Input>(
        &mut self,
        length: u64,
        entry: &Entry,
        data: &mut Reader<R>,
        mut write: impl FnMut(&[u8], u64) -> std::io::Result<()>,
    ) -> Result<(), LayerError> {
        let mut done = 0;
        while done < length {
            let want = usize::try_from(length - done).unwrap_or(BUFFER).min(BUFFER);
            let count = data
                .read(&mut self.buffer[..want])
                .map_err(|source| read_error(&entry.name, source, self.limit))?;
            write(&self.buffer[..count], done).map_err(LayerError::call("write", &entry.name))?;
            done += count as u64;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &Name,
        entry: &Entry,
        exists: bool,
    ) -> Result<(), LayerError> {
        if !exists {
            rustix::fs::mkdirat(parent, &name.last[..], Mode::RWXU)
                .map_err(LayerError::call("make the directory", &entry.name))?;
        }
        let directory = beneath::child_directory(parent, &name.last)
            .map_err(LayerError::call("open the directory", &entry.name))?;
        self.directory_metadata(directory.as_fd(), &name.whole(), entry, !exists)
    }

    fn directory_metadata(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        entry: &Entry,
        fresh: bool,
    ) -> Result<(), LayerError> {
        let identity = self.identity(directory, &entry.name)?;
        if !fresh {
            metadata::clear_xattrs(directory, self.target.privilege)
                .map_err(LayerError::call("clear the extended attributes", &entry.name))?;
        }
        metadata::set(directory, entry, self.target.privilege)?;
        let mut mode = None;
        if self.target.privilege == Privilege::User {
            // who is not root must be able to fill it first
            mode = Some(metadata::mode(entry));
            rustix::fs::fchmod(directory, metadata::mode(entry) | Mode::RWXU)
                .map_err(LayerError::call("set the mode", &entry.name))?;
        }
        let pending = Pending { path: path.to_vec(), times: metadata::times(entry), mode };
        self.directories.insert(identity, pending);
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        last: &[u8],
        target: &[u8],
        entry: &[u8],
    ) -> Result<(), LayerError> {
        let refused =
            |problem| LayerError::refused(entry, Problem::LinkTarget(lossy(target), Box::new(problem)));
        let target = name::place(target).map_err(refused)?.ok_or_else(|| refused(Problem::Root))?;
        let directory = beneath::open_directory(self.target.root, &target.directory)
            .map_err(LayerError::call("open the directory of the hard link's target", entry))?;
        rustix::fs::linkat(&directory, &target.last[..], parent, last, AtFlags::empty())
            .map_err(LayerError::call("make the hard link", entry))
    }

    fn node(
        &mut self,
        parent: BorrowedFd<'_>,
        last: &[u8],
        entry: &Entry,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<(), LayerError> {
        if kind != FileType::Fifo && self.target.privilege != Privilege::Root {
            return Ok(()); // an ordinary user cannot make devices; a container's /dev is made at its start
        }
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(parent, last, kind, Mode::RUSR | Mode::WUSR, device)
            .map_err(LayerError::call("make the node", &entry.name))?;
        metadata::set_by_name(parent, last, entry, self.target.privilege)
    }

    /// The directory of an entry; it and those above it are made when no entry made them.
    fn parent(&mut self, path: &[u8], entry: &[u8]) -> Result<Rc<OwnedFd>, LayerError> {
        match self.existing_parent(path, entry)? {
            Some(directory) => Ok(directory),
            None => {
                self.make_parents(path, entry)?;
                self.existing_parent(path, entry)?
                    .ok_or_else(|| LayerError::call("open the directory of", entry)(Errno::NOENT))
            }
        }
    }

    fn existing_parent(&mut self, path: &[u8], entry: &[u8]) -> Result<Option<Rc<OwnedFd>>, LayerError> {
        if let Some((known, directory)) = &self.parent
            && known == path
        {
            return Ok(Some(Rc::clone(directory)));
        }
        let directory = match beneath::open_directory(self.target.root, path) {
            Err(Errno::NOENT) => return Ok(None),
            answer => Rc::new(answer.map_err(LayerError::call("open the directory of", entry))?),
        };
        self.touch(directory.as_fd(), path, entry)?;
        self.parent = Some((path.to_vec(), Rc::clone(&directory)));
        Ok(Some(directory))
    }

    /// The directory of what is to be hidden. Where there is none any more, a file perhaps in its place, there is
    /// nothing to hide: umoci writes whiteouts for all that was in a directory that became something else.
    fn hiding_in(&mut self, path: &[u8], entry: &[u8]) -> Result<Option<Rc<OwnedFd>>, LayerError> {
        if let Err(Errno::NOTDIR) = beneath::open_directory(self.target.root, path) {
            return Ok(None);
        }
        let directory = self.existing_parent(path, entry)?;
        self.parent = None; // what is removed may have been on the way to it
        Ok(directory)
    }

    fn make_parents(&mut self, path: &[u8], entry: &[u8]) -> Result<(), LayerError> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let path = &path[..end];
            if self.existing_parent(path, entry)?.is_some() {
                continue;
            }
            let (above, last) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (&path[..slash], &path[slash + 1..]),
                None => (&b""[..], path),
            };
            let above = self.parent(above, entry)?;
            match rustix::fs::mkdirat(&above, last, Mode::RWXU) {
                Err(Errno::EXIST) => {
                    return Err(LayerError::refused(entry, Problem::DanglingParent(lossy(path))));
                }
                answer => answer.map_err(LayerError::call("make the directory of", entry))?,
            }
            let made = beneath::child_directory(above.as_fd(), last)
                .map_err(LayerError::call("open the directory of", entry))?;
            let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
            rustix::fs::fchmod(&made, mode)
                .map_err(LayerError::call("set the mode of the directory of", entry))?;
            // no entry says when: the same layer shall give the same tree at any time
            let pending = Pending { path: path.to_vec(), times: metadata::epoch(), mode: None };
            self.directories.insert(self.identity(made.as_fd(), entry)?, pending);
        }
        Ok(())
    }

    fn identity(&self, directory: BorrowedFd<'_>, entry: &[u8]) -> Result<Identity, LayerError> {
        let stat = fstat(directory).map_err(LayerError::call("stat the directory of", entry))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Remembers a directory that is about to change.
    fn touch(&mut self, directory: BorrowedFd<'_>, path: &[u8], entry: &[u8]) -> Result<(), LayerError> {
        let failed = |error| LayerError::call("stat the directory of", entry)(error);
        let stat = fstat(directory).map_err(failed)?;
        let mut identity = (stat.st_dev, stat.st_ino);
        if let Slot::Vacant(slot) = self.directories.entry(identity) {
            slot.insert(Pending { path: path.to_vec(), times: metadata::times_of(&stat), mode: None });
        }
        if !self.target.has_lower {
            return Ok(());
        }
        let mut above: Option<OwnedFd> = None;
        while self.upper.directories.insert(identity) && identity != self.root {
            let from = above.as_ref().map_or(directory, AsFd::as_fd);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let next = rustix::fs::openat(from, "..", flags, Mode::empty()).map_err(failed)?;
            identity = self.identity(next.as_fd(), entry)?;
            above = Some(next);
        }
        Ok(())
    }

    /// Removes what lower layers have at `name`.
    fn hide(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        depth: usize,
        entry: &[u8],
    ) -> Result<(), LayerError> {
        let failed = |error| LayerError::call("hide", entry)(error);
        let stat = match beneath::stat(parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            answer => answer.map_err(failed)?,
        };
        let ours = self.upper.has(self.identity(parent, entry)?, name);
        if beneath::is_directory(&stat) {
            let directory = beneath::child_directory(parent, name).map_err(failed)?;
            if ours || self.upper.directories.contains(&self.identity(directory.as_fd(), entry)?) {
                return self.hide_contents(directory.as_fd(), depth + 1, entry);
            }
        } else if ours {
            return Ok(());
        }
        beneath::remove_tree(parent, name).map_err(failed)?;
        Ok(())
    }

    fn hide_contents(
        &mut self,
        directory: BorrowedFd<'_>,
        depth: usize,
        entry: &[u8],
    ) -> Result<(), LayerError> {
        if depth > MAX_PARTLY_HIDDEN {
            return Err(LayerError::refused(entry, Problem::TooDeep(MAX_PARTLY_HIDDEN)));
        }
        for name in beneath::names(directory).map_err(LayerError::call("hide the contents of", entry))? {
            self.hide(directory, &name, depth, entry)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), LayerError> {
        for (identity, pending) in &self.directories {
            let directory = match beneath::open_directory(self.target.root, &pending.path) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue, // replaced since
                Err(error) => return Err(tree("open a directory", error)),
            };
            let stat = fstat(&directory).map_err(|error| tree("stat a directory", error))?;
            if (stat.st_dev, stat.st_ino) != *identity {
                continue;
            }
            rustix::fs::futimens(&directory, &pending.times)
                .map_err(|error| tree("set the times of a directory", error))?;
            if let Some(mode) = pending.mode {
                rustix::fs::fchmod(&directory, mode)
                    .map_err(|error| tree("set the mode of a directory", error))?;
            }
        }
        Ok(())
    }
}

impl Upper {
    fn mark(&mut self, directory: Identity, name: &[u8]) {
        self.names.insert(self.hasher.hash_one((directory, name)));
    }

    fn has(&self, directory: Identity, name: &[u8]) -> bool {
        self.names.contains(&self.hasher.hash_one((directory, name)))
    }
}

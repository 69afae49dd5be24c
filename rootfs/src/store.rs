//! The layers that overlays share, each kept once under its ChainID, which names the tree that it makes on top
//! of the layers below it.
//!
//! ```text
//! STORE/lock           shared by every unpack for as long as it works, exclusive for gc
//! STORE/layers/HEX/fs  a layer, complete: it comes by one rename, when its digests are right and it is on disk
//! STORE/tmp/HEX        a layer in the making, its maker holding locks/HEX
//! STORE/l/SHORT        links to layers: mount options have 4,095 bytes for up to 127 of them
//! STORE/bundles/ID     which bundle stands on which layers; valid while the bundle says ID too
//! STORE/pull/HEX       what the registry's helper has brought so far, locked by locks/pull-HEX
//! ```
//! A process that dies at any point leaves only things in `tmp`, `pull` and `locks`: the next unpack of the
//! same image takes them up or away, `gc` takes away all of them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::bundle::record::{BundleRecord, OURS, StoreRecord};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::{Progress, Step};
use crate::{beneath, overlay};

const ROOMS: [&str; 6] = ["layers", "tmp", "l", "bundles", "pull", "locks"];

/// An open store: nothing in it is dropped while this value lives.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    _lock: Lock,
}

/// A lock on a file, let go when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: OwnedFd,
}

/// What `gc` dropped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    pub layers: usize,
    /// Records of bundles that are no more.
    pub bundles: usize,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Store {
    /// `/var/lib/hearth`, or an ordinary user's own.
    pub fn default_path() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return "/var/lib/hearth".into();
        }
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        data.or_else(home).unwrap_or_else(|| "/var/tmp".into()).join("hearth")
    }

    /// Opens the store at `root`, made if need be, for unpacking.
    pub fn open(root: &Path) -> Result<Self> {
        Self::locked(root, FlockOperation::LockShared)
    }

    fn locked(root: &Path, operation: FlockOperation) -> Result<Self> {
        make_directory(root)?;
        let root = root.canonicalize().map_err(Error::path("resolve", root))?;
        if root.as_os_str().as_encoded_bytes().iter().any(|byte| b":,\\\n".contains(byte)) {
            let expected = "a path without colon, comma, backslash or newline, which mount options split at";
            return Err(Error::invalid("--store", root.display().to_string(), expected));
        }
        for room in ROOMS {
            make_directory(&root.join(room))?;
        }
        let lock = Lock::take(&root.join("lock"), operation).map_err(|error| match error {
            Error::Path { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                Error::Busy { store: root.clone() }
            }
            other => other,
        })?;
        Ok(Self { root, _lock: lock })
    }

    fn room(&self, room: &str, name: &str) -> PathBuf {
        self.root.join(room).join(name)
    }

    /// The files of a layer, whether it is there or not.
    pub(crate) fn layer(&self, chain: &Digest) -> PathBuf {
        self.room("layers", &chain.hex()).join("fs")
    }

    pub(crate) fn has(&self, chain: &Digest) -> bool {
        self.layer(chain).exists()
    }

    /// Makes sure that the layer `chain` is there: `fill` is called, at most once on this machine, with the
    /// root of the tree below it (`below`, lowest first). Answers whether it was called.
    pub(crate) fn ensure(
        &self,
        chain: &Digest,
        below: &[Digest],
        progress: &mut dyn Progress,
        fill: impl FnOnce(BorrowedFd<'_>, &mut dyn Progress) -> Result<()>,
    ) -> Result<bool> {
        if self.has(chain) {
            return Ok(false);
        }
        let _lock = self.lock(&chain.hex(), *chain, progress)?;
        if self.has(chain) {
            return Ok(false);
        }
        self.discard_unfinished(&chain.hex())?;
        let making = self.room("tmp", &chain.hex());
        let made = self.make(&making, below, |root| fill(root, progress)).and_then(|()| {
            let layer = self.room("layers", &chain.hex());
            fs::rename(&making, &layer).map_err(Error::path("rename to", &layer))
        });
        if made.is_err() {
            // the first error is the one to tell; what stays is taken away by the next unpack or gc
            let _ = self.discard_unfinished(&chain.hex());
        }
        made.map(|()| true)
    }

    fn make(
        &self,
        making: &Path,
        below: &[Digest],
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let files = making.join("fs");
        make_directory(making)?;
        fs::create_dir(&files).map_err(Error::path("make", &files))?;
        set_mode(&files, 0o755)?;
        match below.last() {
            None => fill(open_directory(&files)?.as_fd())?,
            Some(top) => {
                overlay::like(&self.layer(top), &files)?;
                let (work, merged) = (making.join("work"), making.join("merged"));
                make_directory(&work)?;
                make_directory(&merged)?;
                let lower = self.short_names(below)?;
                let root = overlay::Overlay { lower, upper: &files, work: &work }.mount_hidden(&merged)?;
                let filled = fill(root.as_fd());
                drop(root);
                filled?;
                remove(&work)?;
                remove(&merged)?;
            }
        }
        let directory = open_directory(&files)?;
        rustix::fs::syncfs(&directory).map_err(Error::path("sync the file system of", making))
    }

    /// The layers by short names, lowest first as given.
    pub(crate) fn short_names(&self, layers: &[Digest]) -> Result<overlay::Lower> {
        let names = layers.iter().map(|layer| self.short_name(layer)).collect::<Result<_>>()?;
        Ok(overlay::Lower { links: self.root.join("l"), names })
    }

    fn short_name(&self, layer: &Digest) -> Result<String> {
        let hex = layer.hex();
        let target = format!("../layers/{hex}/fs");
        for length in 6..=hex.len() {
            let link = self.room("l", &hex[..length]);
            match rustix::fs::symlink(&target, &link) {
                Ok(()) => return Ok(hex[..length].into()),
                Err(Errno::EXIST) if fs::read_link(&link).is_ok_and(|known| known == Path::new(&target)) => {
                    return Ok(hex[..length].into());
                }
                Err(Errno::EXIST) => {} // another layer whose digest begins alike
                Err(error) => return Err(Error::path("make the link", &link)(error)),
            }
        }
        Err(Error::path("make the link", self.room("l", &hex))(Errno::EXIST))
    }

    /// Takes away what an unpack that died has left; the caller holds its lock.
    fn discard_unfinished(&self, name: &str) -> Result<u64> {
        let making = self.room("tmp", name);
        overlay::unmount_all_below(&making)?;
        remove(&making)
    }

    fn lock(&self, name: &str, shown: Digest, progress: &mut dyn Progress) -> Result<Lock> {
        let path = self.room("locks", name);
        match Lock::take(&path, FlockOperation::NonBlockingLockExclusive) {
            Err(Error::Path { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                progress.step(Step::Wait { name: shown });
                Lock::take(&path, FlockOperation::LockExclusive)
            }
            answer => answer,
        }
    }

    /// The place for what is pulled under this name, for one unpack at a time.
    pub(crate) fn pull_directory(
        &self,
        name: &Digest,
        progress: &mut dyn Progress,
    ) -> Result<(PathBuf, Lock)> {
        let lock = self.lock(&format!("pull-{}", name.hex()), *name, progress)?;
        let directory = self.room("pull", &name.hex());
        make_directory(&directory)?;
        Ok((directory, lock))
    }

    /// A file without a name, on the store's disk.
    pub(crate) fn unnamed_file(&self) -> Result<File> {
        let directory = self.root.join("tmp");
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = rustix::fs::open(&directory, flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).map_err(Error::path("make a temporary file in", &directory))
    }

    pub(crate) fn keep_for(&self, record: &BundleRecord, bundle: &Path) -> Result<()> {
        let path = self.room("bundles", &record.id);
        StoreRecord::new(bundle, &record.layers).write(&path)
    }
}

/// Drops the layers that no bundle stands on, and all that interrupted unpacks have left.
pub fn gc(root: &Path) -> Result<Freed> {
    let store = Store::locked(root, FlockOperation::NonBlockingLockExclusive)?;
    let mut freed = Freed::default();
    let mut used = HashSet::new();
    for id in names(&store.root.join("bundles"))? {
        let path = store.room("bundles", &id);
        // a half-written record is its writer's temporary file: that never became one
        let record = if id.ends_with(".new") { None } else { Some(StoreRecord::read(&path)?) };
        match record {
            Some(record) if in_use(&id, &record)? => used.extend(record.layers),
            _ => {
                freed.bundles += 1;
                remove(&path)?;
            }
        }
    }
    for name in names(&store.root.join("layers"))? {
        if Digest::from_hex(&name).is_some_and(|chain| !used.contains(&chain)) {
            // first out of its place: a layer that is there is whole
            let doomed = store.room("tmp", &name);
            store.discard_unfinished(&name)?;
            let layer = store.room("layers", &name);
            fs::rename(&layer, &doomed).map_err(Error::path("rename from", &layer))?;
            freed.layers += 1;
        }
    }
    for name in names(&store.root.join("tmp"))? {
        freed.bytes += store.discard_unfinished(&name)?;
    }
    for room in ["pull", "locks"] {
        for name in names(&store.root.join(room))? {
            freed.bytes += remove(&store.room(room, &name))?;
        }
    }
    for name in names(&store.root.join("l"))? {
        let link = store.room("l", &name);
        if !link.exists() {
            remove(&link)?;
        }
    }
    Ok(freed)
}

/// Whether the bundle is still there. When it is not, its overlay may be: that goes too, unless it is busy.
fn in_use(id: &str, record: &StoreRecord) -> Result<bool> {
    if BundleRecord::read(&record.bundle).is_ok_and(|bundle| bundle.is_some_and(|bundle| bundle.id == id)) {
        return Ok(true);
    }
    let rootfs = record.bundle.join("rootfs");
    if !overlay::is_mounted_with(&rootfs, &record.bundle.join(OURS).join("upper"))? {
        return Ok(false);
    }
    match overlay::unmount(&rootfs) {
        Err(Errno::BUSY) => return Ok(true),
        answer => answer.map_err(Error::path("unmount", &rootfs))?,
    }
    // what `rm -r` could not remove under the mount; if it is not empty, it is not ours to judge
    let _ = fs::remove_dir(&rootfs);
    let _ = fs::remove_dir(&record.bundle);
    Ok(false)
}

impl Lock {
    pub(crate) fn take(path: &Path, operation: FlockOperation) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(Error::path("open", path))?;
        Self::on(file, path, operation)
    }

    pub(crate) fn on(file: OwnedFd, path: &Path, operation: FlockOperation) -> Result<Self> {
        flock(&file, operation).map_err(Error::path("lock", path))?;
        Ok(Self { _file: file })
    }
}

/// Makes a directory, and those above it, for its owner only; an existing one is left as it is.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::path("make", path))
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(Error::path("set the mode of", path))
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::path("open", path))
}

/// Removes whatever is at `path`, if anything; answers the bytes that this frees.
pub(crate) fn remove(path: &Path) -> Result<u64> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::path("remove", path)(Errno::INVAL));
    };
    let parent = match open_directory(parent) {
        Err(Error::Path { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(0),
        answer => answer?,
    };
    beneath::remove_tree(parent.as_fd(), name.as_encoded_bytes()).map_err(Error::path("remove", path))
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let names = beneath::names(open_directory(directory)?.as_fd()).map_err(Error::path("read", directory))?;
    Ok(names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect())
}

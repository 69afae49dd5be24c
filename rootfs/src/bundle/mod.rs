//! From a source to a bundle: `BUNDLE/config.json` and `BUNDLE/rootfs`.
//!
//! By default rootfs is an overlay mount: the store's layers below, `BUNDLE/.hearth/upper` on top, so that what
//! containers change is kept in the bundle and goes with it. The mount lasts until a reboot or an umount;
//! unpacking the same image to the same bundle mounts it again and changes nothing else. With `copy`, rootfs is
//! a plain tree, and the store has no part in it.
//!
//! A bundle is finished when `.hearth/bundle.json` is there, which comes last. What an unpack that died has
//! left is taken away by the next one to the same place.

mod config;
pub(crate) mod record;
mod user;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::{Image, Layer, Platform, Source};
use crate::layer::{self, Budget, Privilege, Target};
use crate::progress::{Progress, Step};
use crate::spec::{Owner, host_has_cgroup2_only};
use crate::store::{Lock, Store, make_directory, open_directory, remove, set_mode};
use crate::{beneath, overlay};
use record::{BundleRecord, OURS};

/// Larger passwd and group files are no such files.
const MAX_USERS: u64 = 16 << 20;

#[derive(Debug, Clone)]
pub struct Options {
    /// A plain tree instead of an overlay, which only the host's root can mount for others to see.
    pub copy: bool,
    /// Whose files and config.json shall be. For subordinate ids the process is root of a user namespace that maps
    /// them so.
    pub owner: Owner,
    /// What the layers may add up to when decompressed.
    pub max_size: u64,
    /// Instead of this machine's.
    pub platform: Option<Platform>,
    /// Speak HTTP to the registry also when it is not on loopback.
    pub plain_http: bool,
    /// The store's directory.
    pub store: PathBuf,
}

/// Larger than images in use, small enough to stop a bomb before it has filled a usual disk.
const DEFAULT_MAX_SIZE: u64 = 64 << 30;

/// Bytes, or `K`, `M`, `G` or `T` of them (1024 each).
pub fn parse_size(word: &str) -> Result<u64> {
    let (digits, shift) = match word.as_bytes().last() {
        Some(b'K' | b'k') => (&word[..word.len() - 1], 10),
        Some(b'M' | b'm') => (&word[..word.len() - 1], 20),
        Some(b'G' | b'g') => (&word[..word.len() - 1], 30),
        Some(b'T' | b't') => (&word[..word.len() - 1], 40),
        _ => (word, 0),
    };
    let number =
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    let size = number.and_then(|number| number.checked_mul(1 << shift)).filter(|size| *size > 0);
    size.ok_or_else(|| {
        Error::invalid("--max-size", format!("{word:?}"), "bytes, or a number with K, M, G or T")
    })
}

impl Default for Options {
    fn default() -> Self {
        let store = Store::default_path();
        let owner = Owner::caller();
        Self { copy: false, owner, max_size: DEFAULT_MAX_SIZE, platform: None, plain_http: false, store }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Of the image's manifest.
    pub image: Digest,
    pub layers: usize,
    /// How many of the layers were unpacked now; the others were in the store.
    pub fresh: usize,
    /// The bundle was there, of this very image: its root is mounted, and nothing else was changed.
    pub existed: bool,
}

/// Makes `bundle` from the image in `source`.
pub fn unpack(
    source: &Source,
    bundle: &Path,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Unpacked> {
    let store = Store::open(&options.store)?;
    let image = Image::find(source, options.platform.as_ref(), options.plain_http, &store, progress)?;
    let place = Place::take(bundle, &image.digest)?;
    let existed = place.existing.is_some();
    let mut work = Work { source, image: &image, options, store: &store, place: &place, progress, fresh: 0 };
    if let Err(error) = work.run() {
        if !existed {
            // the first error is the one to tell
            let _ = place.clear();
        }
        return Err(error);
    }
    let (layers, fresh) = (image.layers.len(), work.fresh);
    let image_digest = image.digest;
    image.forget()?;
    Ok(Unpacked { image: image_digest, layers, fresh, existed })
}

struct Work<'a> {
    source: &'a Source,
    image: &'a Image,
    options: &'a Options,
    store: &'a Store,
    place: &'a Place,
    progress: &'a mut dyn Progress,
    fresh: usize,
}

impl Work<'_> {
    fn run(&mut self) -> Result<()> {
        let rootfs = self.place.path.join("rootfs");
        if let Some(record) = &self.place.existing {
            self.layers(&record.layers)?;
            if !overlay::is_mount_point(&rootfs)? {
                self.mount(&record.layers, &rootfs)?;
            }
            return self.store.keep_for(record, &self.place.path); // it may have been moved
        }
        if !self.options.copy && self.options.owner != Owner::Root {
            let source = io::ErrorKind::PermissionDenied.into();
            return Err(Error::NoOverlay { rootfs, source });
        }
        let ours = self.place.path.join(OURS);
        make_directory(&ours)?;
        fs::create_dir(&rootfs).map_err(Error::path("make", &rootfs))?;
        set_mode(&rootfs, 0o755)?;
        // an overlay needs something to lie over
        let chains = if self.options.copy { vec![] } else { self.chains() };
        if chains.is_empty() {
            self.copy(&rootfs)?;
        } else {
            self.layers(&chains)?;
            let upper = ours.join("upper");
            make_directory(&upper)?;
            make_directory(&ours.join("work"))?;
            if let Some(top) = chains.last() {
                overlay::like(&self.store.layer(top), &upper)?;
            }
            self.mount(&chains, &rootfs)?;
        }
        self.config(&rootfs)?;
        let record = BundleRecord::new(self.source.to_string(), self.image.digest, chains)?;
        if !record.layers.is_empty() {
            self.store.keep_for(&record, &self.place.path)?;
        }
        record.write(&self.place.path)
    }

    /// The names of the trees that the layers make, one on top of the other.
    fn chains(&self) -> Vec<Digest> {
        let layers = self.image.layers.iter().scan(None, |below, layer| {
            let chain = Digest::chain(*below, layer.promise.diff_id);
            *below = Some(chain);
            *below
        });
        layers.collect()
    }

    /// Makes sure that the store has every layer.
    fn layers(&mut self, chains: &[Digest]) -> Result<()> {
        let layers = &self.image.layers;
        let missing: Vec<_> = layers
            .iter()
            .zip(chains)
            .filter(|(_, chain)| !self.store.has(chain))
            .map(|(layer, _)| layer)
            .collect();
        self.image.fetch(&missing, self.progress)?;
        let mut budget = Budget::new(self.options.max_size);
        for (index, (layer, chain)) in layers.iter().zip(chains).enumerate() {
            let image = self.image;
            let fresh = self.store.ensure(chain, &chains[..index], self.progress, |root, progress| {
                let target = Target { root, has_lower: index > 0, privilege: Privilege::Root };
                apply(image, (index, layer), &target, &mut budget, progress)
            })?;
            self.fresh += usize::from(fresh);
        }
        Ok(())
    }

    fn mount(&self, chains: &[Digest], rootfs: &Path) -> Result<()> {
        let ours = self.place.path.join(OURS);
        let (upper, work) = (&ours.join("upper"), &ours.join("work"));
        overlay::Overlay { lower: self.store.short_names(chains)?, upper, work }.mount(rootfs)
    }

    /// All layers into one plain tree.
    fn copy(&mut self, rootfs: &Path) -> Result<()> {
        let root = open_directory(rootfs)?;
        let privilege = match self.options.owner {
            Owner::Root => Privilege::Root,
            Owner::Subordinate { .. } => Privilege::NamespaceRoot,
            Owner::Rootless { .. } => Privilege::User,
        };
        let mut budget = Budget::new(self.options.max_size);
        self.image.fetch(&self.image.layers.iter().collect::<Vec<_>>(), self.progress)?;
        for (index, layer) in self.image.layers.iter().enumerate() {
            let target = Target { root: root.as_fd(), has_lower: index > 0, privilege };
            apply(self.image, (index, layer), &target, &mut budget, self.progress)?;
            self.fresh += 1;
        }
        rustix::fs::syncfs(&root).map_err(Error::path("sync the file system of", rootfs))
    }

    fn config(&self, rootfs: &Path) -> Result<()> {
        let root = open_directory(rootfs)?;
        let users = config::Users {
            passwd: users_file(root.as_fd(), "etc/passwd")?,
            group: users_file(root.as_fd(), "etc/group")?,
        };
        let spec = config::convert(&self.image.config, &users, self.options.owner, host_has_cgroup2_only())?;
        let path = self.place.path.join("config.json");
        let json = spec
            .to_json()
            .map_err(|source| Error::Document { document: path.display().to_string(), source })?;
        record::write(&path, &json)
    }
}

fn apply(
    image: &Image,
    (index, layer): (usize, &Layer),
    target: &Target<'_>,
    budget: &mut Budget,
    progress: &mut dyn Progress,
) -> Result<()> {
    let blob = image.open(layer)?;
    let (total, mut done) = (blob.length(), 0);
    let (number, count, name) = (index + 1, image.layers.len(), layer.name());
    let mut report = |bytes| {
        done += bytes;
        progress.step(Step::Layer { number, count, name, done, total });
    };
    layer::unpack(blob, &layer.promise, target, budget, &mut report)
        .map_err(|source| Error::Layer { layer: name.to_string(), source })
}

fn users_file(root: BorrowedFd<'_>, path: &str) -> Result<String> {
    let content = beneath::read_file(root, path, MAX_USERS).map_err(Error::path("read the image's", path))?;
    Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
}

/// The bundle's directory, locked against other unpacks to it.
struct Place {
    path: PathBuf,
    made: bool,
    /// A finished bundle of the same image.
    existing: Option<BundleRecord>,
    _lock: Lock,
}

impl Place {
    fn take(bundle: &Path, image: &Digest) -> Result<Self> {
        loop {
            let made = match fs::DirBuilder::new().mode(0o700).create(bundle) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(Error::path("make", bundle)(error)),
            };
            let directory = open_directory(bundle)?;
            let path = bundle.canonicalize().map_err(Error::path("resolve", bundle))?;
            let stat = rustix::fs::fstat(&directory).map_err(Error::path("stat", bundle))?;
            let lock = Lock::on(directory, bundle, FlockOperation::LockExclusive)?;
            // who had the lock before may have removed the directory
            if !fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (stat.st_dev, stat.st_ino)) {
                continue;
            }
            let mut place = Self { path, made, existing: None, _lock: lock };
            place.existing = place.look(image)?;
            return Ok(place);
        }
    }

    /// What is there already: nothing, a leftover (then it is removed), or this image's bundle.
    fn look(&self, image: &Digest) -> Result<Option<BundleRecord>> {
        let occupied = |holds: String| Error::Occupied { bundle: self.path.clone(), holds };
        if let Some(record) = BundleRecord::read(&self.path)? {
            if record.image != *image {
                return Err(occupied(format!("it holds the image {}", record.image)));
            }
            if record.layers.is_empty() {
                return Err(occupied("it holds a copy of this image".into()));
            }
            return Ok(Some(record));
        }
        let entries = fs::read_dir(&self.path).map_err(Error::path("read", &self.path))?;
        let names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        if names.iter().any(|name| name == OURS) {
            self.clear_contents()?;
        } else if let Some(name) = names.first() {
            return Err(occupied(format!("it has {} in it", OsStr::new(name).display())));
        }
        Ok(None)
    }

    fn clear_contents(&self) -> Result<()> {
        let rootfs = self.path.join("rootfs");
        if overlay::is_mount_point(&rootfs)? {
            overlay::unmount(&rootfs).map_err(Error::path("unmount", &rootfs))?;
        }
        // our directory goes last: as long as it is there, the rest is known to be a leftover
        for name in ["rootfs", "config.json", "config.new", OURS] {
            remove(&self.path.join(name))?;
        }
        Ok(())
    }

    /// Takes away all that was made.
    fn clear(&self) -> Result<()> {
        self.clear_contents()?;
        if self.made {
            fs::remove_dir(&self.path).map_err(Error::path("remove", &self.path))?;
        }
        Ok(())
    }
}

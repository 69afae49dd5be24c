//! What a bundle says about itself (`BUNDLE/.hearth/bundle.json`), and what the store remembers of it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

const VERSION: u32 = 1;
const MAX_RECORD: u64 = 1 << 20;

/// The directory in a bundle that is ours. While it has no `bundle.json`, the bundle is unfinished.
pub(crate) const OURS: &str = ".hearth";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundleRecord {
    version: u32,
    pub(crate) id: String,
    pub(crate) source: String,
    /// The digest of the image's manifest.
    pub(crate) image: Digest,
    /// ChainIDs that the overlay stands on, lowest first; none when the tree is a copy.
    pub(crate) layers: Vec<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreRecord {
    version: u32,
    pub(crate) bundle: PathBuf,
    pub(crate) layers: Vec<Digest>,
}

impl BundleRecord {
    pub(crate) fn new(source: String, image: Digest, layers: Vec<Digest>) -> Result<Self> {
        Ok(Self { version: VERSION, id: random_id()?, source, image, layers })
    }

    fn path(bundle: &Path) -> PathBuf {
        bundle.join(OURS).join("bundle.json")
    }

    /// `None` when the bundle is not one of ours, or not finished.
    pub(crate) fn read(bundle: &Path) -> Result<Option<Self>> {
        let path = Self::path(bundle);
        match read(&path, |record: &Self| record.version) {
            Err(Error::Path { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    pub(crate) fn write(&self, bundle: &Path) -> Result<()> {
        write_record(&Self::path(bundle), self)
    }
}

impl StoreRecord {
    pub(crate) fn new(bundle: &Path, layers: &[Digest]) -> Self {
        Self { version: VERSION, bundle: bundle.into(), layers: layers.into() }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        read(path, |record: &Self| record.version)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        write_record(path, self)
    }
}

fn read<T: DeserializeOwned>(path: &Path, version: impl FnOnce(&T) -> u32) -> Result<T> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(Error::path("open", path))?;
    file.take(MAX_RECORD).read_to_end(&mut content).map_err(Error::path("read", path))?;
    let record = serde_json::from_slice(&content)
        .map_err(|source| Error::Document { document: path.display().to_string(), source })?;
    match version(&record) {
        VERSION => Ok(record),
        other => Err(Error::invalid(format!("{}: version", path.display()), other.to_string(), "1")),
    }
}

fn write_record(path: &Path, record: &impl Serialize) -> Result<()> {
    let content = serde_json::to_vec_pretty(record)
        .map_err(|source| Error::Document { document: path.display().to_string(), source })?;
    write(path, &content)
}

/// Writes a file that is there with all of its content or not at all.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().map_err(Error::path("write", path))
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    let random = "/dev/urandom";
    File::open(random)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::path("read", random))?;
    Ok(hex::encode(bytes))
}

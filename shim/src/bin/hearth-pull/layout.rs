//! The OCI layout that is filled: a blob has its name only when it is whole and right.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use hearth_rootfs::Digest;
use hearth_rootfs::image::{MAX_MANIFEST, parse};
use oci_spec::image::{ImageIndex, ImageManifest};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

pub(crate) struct Layout {
    directory: PathBuf,
}

/// A blob that is being brought.
pub(crate) struct Partial {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) done: u64,
    file: File,
    hash: Sha256,
    path: PathBuf,
    target: PathBuf,
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { call, path: path.into(), source }
}

impl Layout {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed("make", &blobs))?;
        let layout = Self { directory: directory.into() };
        layout.write("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
        Ok(layout)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    fn write(&self, name: &str, content: &Value) -> Result<()> {
        let (path, new) = (self.directory.join(name), self.directory.join(format!("{name}.new")));
        fs::write(&new, content.to_string()).map_err(failed("write", &new))?;
        fs::rename(&new, &path).map_err(failed("rename to", &path))
    }

    /// Keeps the manifest, and makes it the layout's only one.
    pub(crate) fn write_manifest(&self, digest: Digest, content: &[u8], document: &Value) -> Result<()> {
        let mut partial = self.partial(&digest, content.len() as u64)?;
        partial.restart()?;
        partial.append(content)?;
        partial.finish()?;
        let media_type = document.get("mediaType").and_then(Value::as_str);
        let media_type = media_type.unwrap_or(oci_client::manifest::OCI_IMAGE_MEDIA_TYPE);
        let descriptor =
            json!({ "mediaType": media_type, "digest": digest.to_string(), "size": content.len() });
        self.write("index.json", &json!({ "schemaVersion": 2, "manifests": [descriptor] }))
    }

    pub(crate) fn manifest(&self) -> Result<ImageManifest> {
        let index: ImageIndex = self.document(&self.directory.join("index.json"))?;
        let [descriptor] = &index.manifests()[..] else {
            return Err(Error::Usage(format!("{}: expected one manifest in it", self.directory.display())));
        };
        self.document(&self.blob(&crate::digest(descriptor)?))
    }

    fn document<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<T> {
        let mut content = Vec::new();
        let file = File::open(path).map_err(failed("open", path))?;
        file.take(MAX_MANIFEST).read_to_end(&mut content).map_err(failed("read", path))?;
        Ok(parse(&content, &path.display().to_string())?)
    }

    /// Whether the blob is there; a wrong one is removed.
    pub(crate) fn has(&self, digest: &Digest, size: u64) -> Result<bool> {
        let path = self.blob(digest);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            answer => answer.map_err(failed("open", &path))?,
        };
        let mut hash = Sha256::new();
        let length = hash_file(&mut file, &mut hash).map_err(failed("read", &path))?;
        if length == size && Digest::from(<[u8; 32]>::from(hash.finalize())) == *digest {
            return Ok(true);
        }
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        Ok(false)
    }

    /// The blob as far as it has come.
    pub(crate) fn partial(&self, digest: &Digest, size: u64) -> Result<Partial> {
        let target = self.blob(digest);
        let path = target.with_extension("partial");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open", &path))?;
        let mut hash = Sha256::new();
        let done = hash_file(&mut file, &mut hash).map_err(failed("read", &path))?;
        let mut partial = Partial { digest: *digest, size, done, file, hash, path, target };
        if partial.done > size {
            partial.restart()?;
        }
        Ok(partial)
    }
}

impl Partial {
    pub(crate) fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(failed("empty", &self.path))?;
        self.hash = Sha256::new();
        self.done = 0;
        Ok(())
    }

    pub(crate) fn append(&mut self, chunk: &[u8]) -> Result<()> {
        if chunk.len() as u64 > self.size - self.done {
            self.restart()?;
            return Err(self.mismatch("size", format!("more than {}", self.size), self.size.to_string()));
        }
        self.file.write_all(chunk).map_err(failed("write", &self.path))?;
        self.hash.update(chunk);
        self.done += chunk.len() as u64;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        let hash = std::mem::take(&mut self.hash);
        let found = Digest::from(<[u8; 32]>::from(hash.finalize()));
        if found != self.digest {
            self.restart()?; // what is wrong cannot be continued
            return Err(self.mismatch("digest", found.to_string(), self.digest.to_string()));
        }
        fs::rename(&self.path, &self.target).map_err(failed("rename to", &self.target))
    }

    fn mismatch(&self, property: &'static str, found: String, expected: String) -> Error {
        Error::Mismatch { what: format!("blob {}", self.digest), property, found, expected }
    }
}

fn hash_file(file: &mut File, hash: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(length),
            count => {
                hash.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

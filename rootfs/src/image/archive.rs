//! An image as one tar file: a table of what is where, so that blobs are read in place.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::blobs::Section;
use crate::error::{Error, Result};
use crate::layer::Decompressed;
use crate::layer::tar::{Kind, Reader, TarError};
use crate::store::Store;

const MAX_FILES: usize = 100_000;
/// docker's older archives keep a layer once and link to it from elsewhere.
const MAX_LINKS: usize = 8;

#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    whole: Section,
    places: HashMap<String, Place>,
}

#[derive(Debug)]
enum Place {
    File { position: u64, length: u64 },
    Link(String),
}

impl Archive {
    pub(super) fn open(path: &Path, store: &Store) -> Result<Self> {
        let whole = plain(path, store)?;
        let places = table(whole.clone()).map_err(|error| match error {
            TarError::Read(source) => Error::Path { call: "read the archive", path: path.into(), source },
            TarError::Refused(problem) => {
                Error::invalid("archive", path.display().to_string(), format!("a tar file; it has {problem}"))
            }
        })?;
        Ok(Self { path: path.to_owned(), whole, places })
    }

    pub(super) fn section(&self, place: &str) -> Result<Section> {
        let mut name = place.to_owned();
        for _ in 0..MAX_LINKS {
            match self.places.get(&name) {
                Some(Place::File { position, length }) => {
                    let part = self.whole.part(*position, *length);
                    return part.ok_or_else(|| self.missing(place, io::ErrorKind::UnexpectedEof));
                }
                Some(Place::Link(target)) => name.clone_from(target),
                None => return Err(self.missing(place, io::ErrorKind::NotFound)),
            }
        }
        Err(self.missing(place, io::ErrorKind::NotFound))
    }

    fn missing(&self, place: &str, kind: io::ErrorKind) -> Error {
        Error::Path { call: "read", path: self.path.join(place), source: kind.into() }
    }
}

/// The archive itself, or what it decompresses to: then in an unnamed file that vanishes with us.
fn plain(path: &Path, store: &Store) -> Result<Section> {
    let section = Section::file(path)?;
    let mut content = Decompressed::new(section.clone()).map_err(Error::path("read", path))?;
    if content.is_plain() {
        return Ok(section);
    }
    let mut file = store.unnamed_file()?;
    let length = io::copy(&mut content, &mut file).map_err(Error::path("decompress", path))?;
    file.flush().map_err(Error::path("decompress", path))?;
    Ok(Section::new(file, length))
}

fn table(whole: Section) -> Result<HashMap<String, Place>, TarError> {
    let mut places = HashMap::new();
    let mut reader = Reader::new(whole);
    while let Some(entry) = reader.next()? {
        let Ok(name) = String::from_utf8(entry.name) else { continue };
        let name = name.trim_start_matches("./").to_owned();
        let place = match entry.kind {
            Kind::File => Place::File { position: reader.input().position(), length: reader.data_left() },
            Kind::Symlink(target) => Place::Link(beside(&name, &target)),
            Kind::HardLink(target) => Place::Link(beside("", &target)),
            _ => continue,
        };
        places.insert(name, place);
        if places.len() > MAX_FILES {
            return Err(crate::error::Problem::TooMany(MAX_FILES as u64).into());
        }
    }
    Ok(places)
}

/// The name that a link at `name` leads to. It is only looked up in the table, so it cannot lead out.
fn beside(name: &str, target: &[u8]) -> String {
    let mut way: Vec<&str> = name.split('/').collect();
    way.pop();
    let target = String::from_utf8_lossy(target);
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(way.pop()),
            part => way.push(part),
        }
    }
    way.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_within_the_table() {
        assert_eq!(beside("a/layer.tar", b"../b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("a", b"../../etc/passwd"), "etc/passwd");
        assert_eq!(beside("", b"./x/y"), "x/y");
    }
}

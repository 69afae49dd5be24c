//! An OCI image layout: index.json and blobs by digest. Indexes may be nested.

use std::borrow::Cow;
use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use super::blobs::Blobs;
use super::{MAX_MANIFEST, Platform, document, parse, read_limited};
use crate::digest::Digest;
use crate::error::{Error, Result};

const TAG: &str = "org.opencontainers.image.ref.name";
const MAX_NESTING: usize = 4;

pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The manifests that index.json has for `tag`; without one, all of them.
pub(super) fn tagged(blobs: &Blobs, tag: Option<&str>, place: &str) -> Result<Vec<Descriptor>> {
    let content = read_limited(blobs.open("index.json")?, "index.json", MAX_MANIFEST)?;
    let index: ImageIndex = parse(&content, "index.json")?;
    let name = |descriptor: &Descriptor| descriptor.annotations().as_ref()?.get(TAG).cloned();
    let Some(tag) = tag else {
        let tags: BTreeSet<_> = index.manifests().iter().map(name).collect();
        if tags.len() > 1 {
            let wanted = "without a tag, for it has several".into();
            return Err(Error::NoImage {
                place: place.into(),
                wanted,
                found: list(tags.into_iter().flatten()),
            });
        }
        return Ok(index.manifests().clone());
    };
    let (chosen, others): (Vec<_>, Vec<_>) =
        index.manifests().iter().cloned().partition(|descriptor| name(descriptor).as_deref() == Some(tag));
    if chosen.is_empty() {
        let found = list(others.iter().filter_map(name));
        return Err(Error::NoImage { place: place.into(), wanted: format!("{tag:?}"), found });
    }
    Ok(chosen)
}

/// Follows indexes down to the manifest for `platform`.
pub(super) fn resolve(
    blobs: &Blobs,
    manifests: &[Descriptor],
    platform: &Platform,
    place: &str,
) -> Result<Descriptor> {
    let mut manifests = Cow::Borrowed(manifests);
    for _ in 0..MAX_NESTING {
        let chosen = choose(&manifests, platform, place)?.clone();
        if !is_index(chosen.media_type()) {
            return Ok(chosen);
        }
        let index: ImageIndex = document(blobs, "index", &chosen, MAX_MANIFEST)?;
        manifests = Cow::Owned(index.manifests().clone());
    }
    Err(Error::invalid("index", place, format!("indexes nested at most {MAX_NESTING} deep")))
}

/// The one manifest (or index) that there is, or the one for `platform`.
pub fn choose<'a>(manifests: &'a [Descriptor], platform: &Platform, place: &str) -> Result<&'a Descriptor> {
    if let [only] = manifests
        && only.platform().is_none()
    {
        return Ok(only);
    }
    platform.choose(manifests).ok_or_else(|| Error::NoImage {
        place: place.into(),
        wanted: format!("for {platform}"),
        found: list(manifests.iter().map(describe)),
    })
}

fn describe(descriptor: &Descriptor) -> String {
    let tag = descriptor.annotations().as_ref().and_then(|annotations| annotations.get(TAG));
    match (descriptor.platform(), tag) {
        (Some(platform), _) => {
            let variant =
                platform.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
            format!("{}/{}{variant}", platform.os(), platform.architecture())
        }
        (None, Some(tag)) => format!("the tag {tag:?}"),
        (None, None) => descriptor.digest().to_string(),
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.take(20).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

pub(crate) fn is_index(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageIndex => true,
        MediaType::Other(other) => other == "application/vnd.docker.distribution.manifest.list.v2+json",
        _ => false,
    }
}

//! What `docker save` and `skopeo copy ... docker-archive:` write: a manifest.json of its own kind. It states
//! no digests of layers; the configuration's diffIDs verify them, and its own name verifies the configuration.

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use super::blobs::Blobs;
use super::source::full_reference;
use super::{Image, MAX_CONFIG, MAX_MANIFEST, Platform, parse, read_limited, verify};
use crate::digest::Digest;
use crate::error::{Error, Result};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Vec<String>,
    #[serde(default)]
    layers: Vec<String>,
}

pub(super) fn find(
    blobs: Blobs,
    reference: Option<&str>,
    platform: Option<&Platform>,
    place: &str,
) -> Result<Image> {
    let manifest = read_limited(blobs.open("manifest.json")?, "manifest.json", MAX_MANIFEST)?;
    let items: Vec<Item> = parse(&manifest, "manifest.json")?;
    let item = choose(items, reference, place)?;
    let content = read_limited(blobs.open(&item.config)?, &item.config, MAX_CONFIG)?;
    let name = item.config.rsplit('/').next().unwrap_or_default();
    if let Some(digest) = Digest::from_hex(name.strip_suffix(".json").unwrap_or(name)) {
        verify(&content, &digest, &item.config)?;
    }
    let config: ImageConfiguration = parse(&content, &item.config)?;
    let layers = item.layers.into_iter().map(|layer| (None, layer)).collect();
    Image::assemble(blobs, Digest::of(&content), config, layers, platform)
}

fn choose(mut items: Vec<Item>, reference: Option<&str>, place: &str) -> Result<Item> {
    let tags = || items.iter().flat_map(|item| &item.repo_tags).cloned().collect::<Vec<_>>().join(", ");
    let at = match reference {
        Some(reference) => {
            let wanted = full_reference(reference);
            items.iter().position(|item| item.repo_tags.iter().any(|tag| full_reference(tag) == wanted))
        }
        None => (items.len() == 1).then_some(0),
    };
    match at {
        Some(at) => Ok(items.swap_remove(at)),
        None => {
            let wanted = reference.unwrap_or("without a reference, for it has several or none").to_owned();
            Err(Error::NoImage { place: place.into(), wanted, found: tags() })
        }
    }
}

//! Finds an image in a source, and knows its layers. Every document is verified against its digest and size,
//! limited in size, and turned into values that cannot be wrong before anything else looks at it.

mod archive;
mod blobs;
mod docker_archive;
mod layout;
mod platform;
mod registry;
mod source;

use std::io::Read;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, MediaType};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::json::{drop_nulls, from_value};
use crate::layer::Promise;
use crate::progress::Progress;
use crate::store::Store;
use archive::Archive;
use blobs::Blobs;
pub(crate) use blobs::Section;
pub use layout::choose;
pub use platform::Platform;
use registry::Pulled;
pub use source::Source;

/// What the distribution spec promises to carry.
pub const MAX_MANIFEST: u64 = 4 << 20;
const MAX_CONFIG: u64 = 16 << 20;
/// Far above what any builder makes.
const MAX_LAYERS: usize = 1000;

/// An image that was found: its configuration is read, its layers are not.
#[derive(Debug)]
pub(crate) struct Image {
    /// Of the manifest; of the configuration where there is no manifest.
    pub(crate) digest: Digest,
    pub(crate) config: ImageConfiguration,
    pub(crate) layers: Vec<Layer>,
    blobs: Blobs,
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) promise: Promise,
    /// Where `blobs` has it.
    place: String,
}

impl Layer {
    /// How the image calls it.
    pub(crate) fn name(&self) -> Digest {
        self.promise.blob.map_or(self.promise.diff_id, |(digest, _)| digest)
    }
}

impl Image {
    /// For a registry this brings manifest and configuration, not yet the layers.
    pub(crate) fn find(
        source: &Source,
        platform: Option<&Platform>,
        plain_http: bool,
        store: &Store,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let place = source.to_string();
        let (blobs, tag) = match source {
            Source::Layout { directory, tag } => (Blobs::Layout(directory.clone()), tag.as_deref()),
            Source::OciArchive { file, tag } => (Blobs::Archive(Archive::open(file, store)?), tag.as_deref()),
            Source::DockerArchive { file, reference } => {
                let blobs = Blobs::Archive(Archive::open(file, store)?);
                return docker_archive::find(blobs, reference.as_deref(), platform, &place);
            }
            Source::Registry { image } => {
                let pulled = Pulled::documents(image, platform, plain_http, store, progress)?;
                (Blobs::Registry(pulled), None)
            }
        };
        let manifests = layout::tagged(&blobs, tag, &place)?;
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        let manifest = layout::resolve(&blobs, &manifests, &wanted, &place)?;
        Self::from_manifest(blobs, &manifest, platform)
    }

    fn from_manifest(blobs: Blobs, descriptor: &Descriptor, platform: Option<&Platform>) -> Result<Self> {
        let manifest: ImageManifest = document(&blobs, "manifest", descriptor, MAX_MANIFEST)?;
        let digest = digest(descriptor)?;
        let config: ImageConfiguration =
            document(&blobs, "image configuration", manifest.config(), MAX_CONFIG)?;
        let mut promises = Vec::new();
        for (number, layer) in manifest.layers().iter().enumerate() {
            check_layer_type(number, layer.media_type())?;
            let blob = self::digest(layer)?;
            promises.push((Some((blob, layer.size())), layout::blob_path(&blob)));
        }
        Self::assemble(blobs, digest, config, promises, platform)
    }

    /// Pairs blobs with the configuration's diffIDs.
    fn assemble(
        blobs: Blobs,
        digest: Digest,
        config: ImageConfiguration,
        layers: Vec<(Option<(Digest, u64)>, String)>,
        platform: Option<&Platform>,
    ) -> Result<Self> {
        let found = Platform::of(&config);
        if !found.suits(&platform.cloned().unwrap_or_else(Platform::host)) {
            let expected = match platform {
                Some(wanted) => wanted.to_string(),
                None => format!("{}; --platform {found} unpacks it all the same", Platform::host()),
            };
            return Err(Error::invalid(format!("image {digest}: platform"), found.to_string(), expected));
        }
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != layers.len() || layers.len() > MAX_LAYERS {
            let found = format!("{} layers and {} diff_ids", layers.len(), diff_ids.len());
            return Err(Error::invalid(format!("image {digest}"), found, "as many of each, at most 1000"));
        }
        let layers = layers.into_iter().zip(diff_ids).map(|((blob, place), diff_id)| {
            Ok(Layer { promise: Promise { blob, diff_id: diff_id.parse()? }, place })
        });
        Ok(Self { digest, layers: layers.collect::<Result<_>>()?, config, blobs })
    }

    /// Makes sure that these layers can be opened: a registry is asked for those that are not here yet.
    pub(crate) fn fetch(&self, layers: &[&Layer], progress: &mut dyn Progress) -> Result<()> {
        match &self.blobs {
            Blobs::Registry(pulled) => pulled.layers(layers, progress),
            Blobs::Layout(_) | Blobs::Archive(_) => Ok(()),
        }
    }

    /// The image is unpacked: what was pulled is not needed any more.
    pub(crate) fn forget(self) -> Result<()> {
        match self.blobs {
            Blobs::Registry(pulled) => pulled.forget(),
            Blobs::Layout(_) | Blobs::Archive(_) => Ok(()),
        }
    }

    pub(crate) fn open(&self, layer: &Layer) -> Result<Section> {
        let section = self.blobs.open(&layer.place)?;
        if let Some((digest, size)) = layer.promise.blob
            && section.length() != size
        {
            return Err(Error::Mismatch {
                what: format!("layer {digest}"),
                property: "size",
                found: section.length().to_string(),
                expected: size.to_string(),
            });
        }
        Ok(section)
    }
}

fn check_layer_type(number: usize, media_type: &MediaType) -> Result<()> {
    use MediaType as M;
    let known = match media_type {
        M::ImageLayer | M::ImageLayerGzip | M::ImageLayerZstd => true,
        M::ImageLayerNonDistributable
        | M::ImageLayerNonDistributableGzip
        | M::ImageLayerNonDistributableZstd => true,
        M::Other(other) => matches!(
            other.strip_prefix("application/vnd.docker.image.rootfs."),
            Some(
                "diff.tar" | "diff.tar.gzip" | "diff.tar.zstd" | "foreign.diff.tar" | "foreign.diff.tar.gzip"
            )
        ),
        _ => false,
    };
    if known {
        return Ok(());
    }
    let field = format!("manifest: layers[{number}].mediaType");
    Err(Error::invalid(field, media_type.to_string(), "a tar layer, plain or by gzip or zstd"))
}

/// The digest that a descriptor states, of the algorithm that we verify.
pub(crate) fn digest(descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().as_ref().parse()
}

/// Reads and verifies the document that `descriptor` speaks of.
fn document<T: DeserializeOwned>(
    blobs: &Blobs,
    kind: &str,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<T> {
    let digest = digest(descriptor)?;
    let name = format!("{kind} {digest}");
    let content = read_limited(blobs.open(&layout::blob_path(&digest))?, &name, limit)?;
    if content.len() as u64 != descriptor.size() {
        let (found, expected) = (content.len().to_string(), descriptor.size().to_string());
        return Err(Error::Mismatch { what: name, property: "size", found, expected });
    }
    verify(&content, &digest, &name)?;
    parse(&content, &name)
}

fn verify(content: &[u8], digest: &Digest, name: &str) -> Result<()> {
    let found = Digest::of(content);
    if found == *digest {
        return Ok(());
    }
    let (found, expected) = (found.to_string(), digest.to_string());
    Err(Error::Mismatch { what: name.into(), property: "digest", found, expected })
}

fn read_limited(section: Section, name: &str, limit: u64) -> Result<Vec<u8>> {
    if section.length() > limit {
        let expected = format!("at most {limit} bytes");
        return Err(Error::invalid(format!("{name}: size"), section.length().to_string(), expected));
    }
    let mut content = Vec::new();
    section.take(limit).read_to_end(&mut content).map_err(Error::path("read", name))?;
    Ok(content)
}

/// Parses a document of an image.
pub fn parse<T: DeserializeOwned>(content: &[u8], name: &str) -> Result<T> {
    let failed = |source| Error::Document { document: name.into(), source };
    let mut value: Value = serde_json::from_slice(content).map_err(failed)?;
    drop_nulls(&mut value);
    from_value(&value).map_err(failed)
}

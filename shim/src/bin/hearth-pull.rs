//! `hearth-pull IMAGE DIRECTORY`: brings an image from a registry into an OCI layout.
//!
//! `hearth unpack docker://IMAGE` runs it, so that `hearth` itself has neither HTTP nor an async runtime in it.
//! Blobs that are there and right are kept, broken-off ones are continued. `BLOB DONE TOTAL` on standard
//! output says how far it is; when nobody reads that any more, it ends. Credentials come from the files that
//! other tools keep them in, and go nowhere but to the registry.
#![forbid(unsafe_code)]

#[path = "hearth-pull/credentials.rs"]
mod credentials;
#[path = "hearth-pull/layout.rs"]
mod layout;

use std::error::Error as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use hearth_rootfs::image::{MAX_MANIFEST, choose, parse};
use hearth_rootfs::{Digest, Platform};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::{Client, Reference};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde_json::Value;

use layout::{Layout, Partial};

const USAGE: &str = "usage: hearth-pull [--platform=OS/ARCH[/VARIANT]] [--plain-http] [--no-layers | --layer=DIGEST ...] IMAGE DIRECTORY";

const MANIFESTS: &[&str] = &[
    oci_client::manifest::OCI_IMAGE_MEDIA_TYPE,
    oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE,
    oci_client::manifest::IMAGE_MANIFEST_MEDIA_TYPE,
    oci_client::manifest::IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];
const MAX_CONFIG: u64 = 16 << 20;
/// A registry that sends without end shall not take the machine's memory.
const MAX_MEMORY: u64 = 1 << 30;
const MAX_NESTING: usize = 4;
const SILENCE: Duration = Duration::from_secs(60);
const RETRIES: u32 = 4;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{call} {}", path.display())]
    File { call: &'static str, path: PathBuf, source: io::Error },
    #[error("get {what}")]
    Registry { what: String, source: oci_client::errors::OciDistributionError },
    #[error("get {what}")]
    Stream { what: String, source: io::Error },
    #[error("{what}: its {property} is {found}, expected {expected}")]
    Mismatch { what: String, property: &'static str, found: String, expected: String },
    #[error(transparent)]
    Image(#[from] hearth_rootfs::Error),
    #[error("{call}")]
    Setup { call: &'static str, source: io::Error },
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// Which layers to bring.
#[derive(Debug, PartialEq, Eq)]
enum Layers {
    All,
    None,
    /// Of the manifest that is in the directory already.
    Only(Vec<Digest>),
}

#[derive(Debug)]
struct Arguments {
    platform: Platform,
    plain_http: bool,
    layers: Layers,
    image: Reference,
    directory: PathBuf,
}

fn arguments(words: impl Iterator<Item = String>) -> Result<Arguments> {
    let (mut platform, mut plain_http, mut layers) = (Platform::host(), false, Layers::All);
    let mut places = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("--platform", value)) => platform = value.parse()?,
            Some(("--layer", value)) => match &mut layers {
                Layers::Only(only) => only.push(value.parse()?),
                _ => layers = Layers::Only(vec![value.parse()?]),
            },
            _ if word == "--plain-http" => plain_http = true,
            _ if word == "--no-layers" => layers = Layers::None,
            _ if word.starts_with('-') => return Err(Error::Usage(format!("{word}: unknown; {USAGE}"))),
            _ => places.push(word),
        }
    }
    let [image, directory] = &places[..] else { return Err(Error::Usage(USAGE.into())) };
    let image: Reference = image
        .parse()
        .map_err(|error| Error::Usage(format!("{image}: expected HOST/NAME[:TAG|@DIGEST]: {error}")))?;
    let plain_http = plain_http || is_loopback(image.resolve_registry());
    Ok(Arguments { platform, plain_http, layers, image, directory: directory.into() })
}

/// Nobody listens in between there, and test registries have no certificates.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

struct Puller {
    client: Client,
    arguments: Arguments,
    layout: Layout,
}

impl Puller {
    fn new(arguments: Arguments) -> Result<Self> {
        let protocol = if arguments.plain_http { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            read_timeout: Some(SILENCE),
            connect_timeout: Some(SILENCE),
            user_agent: concat!("hearth-pull/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client =
            Client::try_from(config).map_err(|source| Error::Registry { what: "ready".into(), source })?;
        let layout = Layout::open(&arguments.directory)?;
        Ok(Self { client, arguments, layout })
    }

    async fn pull(&self) -> Result<()> {
        let image = &self.arguments.image;
        let auth = credentials::find(image)?;
        self.client.store_auth_if_needed(image.resolve_registry(), &auth).await;
        let manifest = match &self.arguments.layers {
            Layers::Only(_) => self.layout.manifest()?,
            Layers::All | Layers::None => {
                let manifest = self.manifest(&auth).await?;
                self.blob(manifest.config(), MAX_CONFIG).await?;
                manifest
            }
        };
        for layer in manifest.layers() {
            let wanted = match &self.arguments.layers {
                Layers::All => true,
                Layers::None => false,
                Layers::Only(only) => only.contains(&digest(layer)?),
            };
            if wanted {
                self.blob(layer, u64::MAX).await?;
            }
        }
        Ok(())
    }

    /// The manifest for the platform, by way of an index if there is one.
    async fn manifest(&self, auth: &oci_client::secrets::RegistryAuth) -> Result<ImageManifest> {
        let mut image = self.arguments.image.clone();
        let mut expected = image.digest().map(str::parse).transpose()?;
        for _ in 0..MAX_NESTING {
            let what = format!("the manifest of {image}");
            let (content, _) = self
                .client
                .pull_manifest_raw(&image, auth, MANIFESTS)
                .await
                .map_err(|source| Error::Registry { what: what.clone(), source })?;
            let found = Digest::of(&content);
            same(&what, "digest", found, expected.unwrap_or(found))?;
            let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
            if size > MAX_MANIFEST {
                let expected = format!("at most {MAX_MANIFEST}");
                return Err(Error::Mismatch { what, property: "size", found: size.to_string(), expected });
            }
            let document: Value = parse(&content, &what)?;
            if document.get("manifests").is_none() {
                let manifest = parse(&content, &what)?;
                self.layout.write_manifest(found, &content, &document)?;
                return Ok(manifest);
            }
            let index: ImageIndex = parse(&content, &what)?;
            let chosen = choose(index.manifests(), &self.arguments.platform, &image.to_string())?;
            let digest = digest(chosen)?;
            image = image.clone_with_digest(digest.to_string());
            expected = Some(digest);
        }
        Err(Error::Usage(format!("{image}: expected indexes nested at most {MAX_NESTING} deep")))
    }

    /// Brings one blob, if it is not there; a connection that breaks is taken up where it broke.
    async fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<()> {
        let digest = digest(descriptor)?;
        let size = descriptor.size();
        if size > limit {
            let (what, found) = (format!("blob {digest}"), size.to_string());
            return Err(Error::Mismatch {
                what,
                property: "size",
                found,
                expected: format!("at most {limit}"),
            });
        }
        if self.layout.has(&digest, size)? {
            return Ok(());
        }
        let mut failures = 0;
        loop {
            let mut partial = self.layout.partial(&digest, size)?;
            match self.transfer(&mut partial).await {
                Ok(()) => return partial.finish(),
                Err(error @ (Error::Registry { .. } | Error::Stream { .. })) => {
                    failures += 1;
                    if failures == RETRIES {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(250 << failures)).await;
        }
    }

    async fn transfer(&self, partial: &mut Partial) -> Result<()> {
        if partial.done == partial.size {
            return Ok(());
        }
        let digest = partial.digest.to_string();
        let what = || format!("blob {}", partial.digest);
        let image = &self.arguments.image;
        // a registry may answer the whole although a part was asked for
        let response = if partial.done == 0 {
            self.client.pull_blob_stream(image, digest.as_str()).await.map(BlobResponse::Full)
        } else {
            self.client.pull_blob_stream_partial(image, digest.as_str(), partial.done, None).await
        };
        let mut stream = match response.map_err(|source| Error::Registry { what: what(), source })? {
            BlobResponse::Full(answer) => {
                partial.restart()?;
                answer.stream
            }
            BlobResponse::Partial(answer) => answer.stream,
        };
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|source| Error::Stream { what: format!("blob {digest}"), source })?;
            partial.append(&chunk)?;
            report(&digest, partial.done, partial.size)?;
        }
        if partial.done < partial.size {
            let source = io::ErrorKind::UnexpectedEof.into();
            return Err(Error::Stream { what: format!("blob {digest}"), source });
        }
        Ok(())
    }
}

fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Ok(descriptor.digest().as_ref().parse()?)
}

fn same(what: &str, property: &'static str, found: Digest, expected: Digest) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.to_string(), expected.to_string());
    Err(Error::Mismatch { what: what.into(), property, found, expected })
}

fn report(blob: &str, done: u64, total: u64) -> Result<()> {
    let failed = |source| Error::Setup { call: "report the progress", source };
    writeln!(io::stdout(), "{blob} {done} {total}").map_err(failed)
}

fn run() -> Result<()> {
    let arguments = arguments(std::env::args().skip(1))?;
    let limit = rustix::process::Rlimit { current: Some(MAX_MEMORY), maximum: Some(MAX_MEMORY) };
    rustix::process::setrlimit(rustix::process::Resource::Data, limit)
        .map_err(|error| Error::Setup { call: "limit the memory", source: error.into() })?;
    // the only provider in this executable; a second call would be the only way to fail
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Setup { call: "start", source })?;
    runtime.block_on(Puller::new(arguments)?.pull())
}

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    // one line, whatever a registry has put into its answer
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = writeln!(io::stderr(), "hearth-pull: {line}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.1.2.3", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "10.0.0.1:5000", "127.0.0.1.example.org"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn arguments_are_checked() {
        let parse = |line: &str| arguments(line.split(' ').map(String::from));
        let digest = Digest::of(b"");
        let good = parse(&format!(
            "--layer={digest} --layer={digest} --platform=linux/arm64 127.0.0.1:5000/a:b dir"
        ))
        .unwrap();
        assert_eq!(good.layers, Layers::Only(vec![digest, digest]));
        assert!(good.plain_http);
        for line in ["", "a", "a b c", "--what a b", "--layer=x a b", "--platform=x a b", "UPPER/CASE:: d"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

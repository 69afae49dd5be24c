//! Makes images, runs commands, and cleans up after itself.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::mount::UnmountFlags;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory of its own for one test: no mount below it outlives the test.
pub(super) struct Workshop {
    directory: TempDir,
}

impl Workshop {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("hearth-unpack-").tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The unpacker on a store of this test.
    pub(super) fn hearth(&self, verb: &str) -> Command {
        let mut command = Command::new(unpacker());
        command.arg(verb).arg("--store").arg(self.path("store"));
        command
    }

    pub(super) fn unpack(&self, source: &str, bundle: &str, flags: &[&str]) -> PathBuf {
        let bundle = self.path(bundle);
        run(self.hearth("unpack").args(flags).arg(source).arg(&bundle));
        bundle
    }

    /// Unpacks what must be refused; answers the one line that says why.
    pub(super) fn refused(&self, source: &str, bundle: &str, flags: &[&str]) -> String {
        let output = self.hearth("unpack").args(flags).arg(source).arg(self.path(bundle)).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{source} was unpacked");
        assert_eq!(message.lines().count(), 1, "{message:?}");
        assert!(!self.path(bundle).exists(), "{bundle} is left behind: {message}");
        message
    }

    /// A process that another test starts at this moment may hold what this one had open, until it executes.
    pub(super) fn unmount(&self, bundle: &str) {
        let rootfs = self.path(bundle).join("rootfs");
        for _ in 0..500 {
            match rustix::mount::unmount(&rootfs, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(10)),
                answer => {
                    return answer.unwrap_or_else(|error| panic!("unmount {}: {error}", rootfs.display()));
                }
            }
        }
        panic!("{} stays busy", rootfs.display());
    }

    /// Removes a bundle of any kind, whole or not.
    pub(super) fn remove(&self, bundle: &str) {
        if self.mounts().contains(&self.path(bundle).join("rootfs")) {
            self.unmount(bundle);
        }
        fs::remove_dir_all(self.path(bundle)).unwrap();
    }

    /// Unmounts and removes the bundles, and expects that gc then leaves nothing in the store.
    pub(super) fn expect_clean(&self, bundles: &[&str]) {
        for bundle in bundles {
            self.remove(bundle);
        }
        run(&mut self.hearth("gc"));
        for room in ["layers", "tmp", "l", "bundles", "pull", "locks"] {
            let left: Vec<_> = fs::read_dir(self.path("store").join(room)).unwrap().collect();
            assert!(left.is_empty(), "{room}: {left:?}");
        }
        assert_eq!(self.mounts(), Vec::<PathBuf>::new());
    }

    pub(super) fn mounts(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()));
        points.map(unescaped).filter(|point| point.starts_with(self.directory.path())).collect()
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
        }
    }
}

fn unescaped(point: PathBuf) -> PathBuf {
    point.to_str().unwrap().replace("\\040", " ").replace("\\134", "\\").into()
}

pub(super) fn unpacker() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/hearth");
    let path = std::env::var_os("HEARTH_TEST_UNPACK").map_or(built, PathBuf::from);
    path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    output
}

pub(super) fn sh(script: &str, directory: &Path) -> Output {
    run(Command::new("sh").args(["-euc", script]).current_dir(directory))
}

fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program}");
        output.stdout
    })
}

pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    filter("gzip", &["-nc"], data)
}

pub(super) fn zstd(data: &[u8]) -> Vec<u8> {
    filter("zstd", &["-qc"], data)
}

pub(super) fn digest(data: &[u8]) -> String {
    let line = String::from_utf8(filter("sha256sum", &[], data)).unwrap();
    format!("sha256:{}", line.split(' ').next().unwrap())
}

/// One layer: its blob, and the digest of what that decompresses to.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) blob: Vec<u8>,
    pub(super) diff_id: String,
    pub(super) media_type: &'static str,
}

impl Layer {
    pub(super) fn plain(tar: Vec<u8>) -> Self {
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        Self { diff_id: digest(&tar), blob: tar, media_type }
    }

    pub(super) fn gzip(tar: &[u8]) -> Self {
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        Self { blob: gzip(tar), diff_id: digest(tar), media_type }
    }

    pub(super) fn zstd(tar: &[u8]) -> Self {
        let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
        Self { blob: zstd(tar), diff_id: digest(tar), media_type }
    }

    pub(super) fn digest(&self) -> String {
        digest(&self.blob)
    }
}

/// Writes OCI layouts.
pub(super) struct Layout<'a> {
    directory: &'a Path,
}

impl<'a> Layout<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { directory }
    }

    pub(super) fn blob(&self, content: &[u8]) -> String {
        let digest = digest(content);
        fs::write(self.directory.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap()), content)
            .unwrap();
        digest
    }

    /// Adds configuration and manifest; answers the manifest's descriptor.
    pub(super) fn image(&self, layers: &[Layer], arch: &str, config: &Value) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({
            "created": "2020-01-01T00:00:00Z", "architecture": arch, "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string();
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| json!({ "mediaType": layer.media_type, "digest": self.blob(&layer.blob), "size": layer.blob.len() }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.blob(config.as_bytes()), "size": config.len(),
            },
            "layers": layers,
        });
        self.descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)
    }

    pub(super) fn descriptor(&self, media_type: &str, document: &Value) -> Value {
        let document = document.to_string();
        json!({ "mediaType": media_type, "digest": self.blob(document.as_bytes()), "size": document.len() })
    }

    /// Makes `descriptor` the layout's only image, tagged `t`; answers the source's name.
    pub(super) fn tag(&self, mut descriptor: Value) -> String {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "t" });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(self.directory.join("index.json"), index.to_string()).unwrap();
        format!("oci:{}:t", self.directory.display())
    }
}

/// A layout with one image of these layers, for this machine.
pub(super) fn image(directory: &Path, layers: &[Layer]) -> String {
    let layout = Layout::new(directory);
    layout.tag(layout.image(layers, host_arch(), &json!({})))
}

pub(super) fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes tar entries that no honest tool would write, and simple honest ones.
#[derive(Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    pub(super) fn entry(mut self, name: impl AsRef<[u8]>, kind: u8, link: &str, data: &[u8]) -> Self {
        let name = name.as_ref();
        let long: Vec<_> = [("path", name), ("linkpath", link.as_bytes())]
            .into_iter()
            .filter(|(_, text)| text.len() > 100)
            .collect();
        if !long.is_empty() {
            self = self.pax(&long);
        }
        let header =
            header(&name[..name.len().min(100)], kind, &link[..link.len().min(100)], data.len() as u64);
        self.0.extend(header);
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: impl AsRef<[u8]>, data: &[u8]) -> Self {
        self.entry(name, b'0', "", data)
    }

    pub(super) fn directory(self, name: &str) -> Self {
        self.entry(name, b'5', "", b"")
    }

    pub(super) fn symlink(self, name: &str, target: impl AsRef<OsStr>) -> Self {
        self.entry(name, b'2', target.as_ref().to_str().unwrap(), b"")
    }

    pub(super) fn hard_link(self, name: &str, target: impl AsRef<OsStr>) -> Self {
        self.entry(name, b'1', target.as_ref().to_str().unwrap(), b"")
    }

    /// An extended header for the entry that follows.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = body.len() + 1;
            while length != body.len() + length.to_string().len() {
                length = body.len() + length.to_string().len();
            }
            text.extend(length.to_string().as_bytes());
            text.extend(body);
        }
        self.entry("pax", b'x', "", &text)
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub(super) fn header(name: &[u8], kind: u8, link: &str, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    let mode = if kind == b'5' { b"0000755" } else { b"0000644" };
    block[100..107].copy_from_slice(mode);
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"14000000000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[329..336].copy_from_slice(b"0000000");
    block[337..344].copy_from_slice(b"0000000");
    let blank = |at: usize| (148..156).contains(&at);
    let sum: u32 =
        block.iter().enumerate().map(|(at, byte)| if blank(at) { 32 } else { u32::from(*byte) }).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

//! Layers: any tar file is refused or unpacked, and nothing but the bundle changes by it.
//!
//! A thread of its own unpacks, below a root directory of its own: what escapes from the bundle does not escape
//! from there.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex};

use hearth_rootfs::{Digest, Options, Progress, Source, Step, unpack};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use serde_json::json;

type Layers = Vec<(Vec<Entry>, Vec<u8>)>;

#[derive(Arbitrary, Debug)]
struct Entry {
    name: Vec<u8>,
    kind: u8,
    mode: u16,
    link: Vec<u8>,
    content: Vec<u8>,
}

const WORDS: [&str; 16] = [
    "a", "b", "c", "..", ".", "", "canary", "secret", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh.", ".wh...", "bundle",
    "path=../a", "\u{e9}",
];
const KINDS: &[u8] = b"0125346xgLKS7\0D";

impl Entry {
    fn path(words: &[u8]) -> String {
        words.iter().map(|word| WORDS[usize::from(word % 16)]).collect::<Vec<_>>().join("/")
    }

    fn write(&self, tar: &mut Vec<u8>) {
        let start = tar.len();
        let field = |tar: &mut Vec<u8>, text: &[u8], width: usize| {
            tar.extend(text.iter().copied().chain(std::iter::repeat(0)).take(width));
        };
        let kind = KINDS[usize::from(self.kind) % KINDS.len()];
        let link = Self::path(&self.link);
        // What these kinds are about is in their content.
        let content = match kind {
            b'L' | b'K' => link.clone().into_bytes(),
            b'x' | b'g' => pax(&link),
            _ => self.content.clone(),
        };
        field(tar, Self::path(&self.name).as_bytes(), 100);
        for (value, width) in [(u64::from(self.mode), 8), (0, 8), (0, 8), (content.len() as u64, 12), (0, 12)] {
            field(tar, format!("{value:0width$o}", width = width - 1).as_bytes(), width);
        }
        field(tar, b"        ", 8);
        field(tar, &[kind], 1);
        field(tar, link.as_bytes(), 100);
        field(tar, b"ustar\x0000", 8);
        field(tar, b"", 64);
        field(tar, b"0000001\x000000003", 16);
        field(tar, b"", 512 - (tar.len() - start));
        let sum: u32 = tar[start..].iter().map(|byte| u32::from(*byte)).sum();
        tar[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(&content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
}

fn pax(path: &str) -> Vec<u8> {
    let record = format!(" path={path}\n");
    let length = (record.len() + 1..).find(|length| length.to_string().len() + record.len() == *length);
    format!("{}{record}", length.unwrap()).into_bytes()
}

struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: Step<'_>) {}
}

static UNPACKER: LazyLock<Mutex<(SyncSender<Layers>, Receiver<()>)>> = LazyLock::new(|| {
    let (to, from_fuzzer) = sync_channel::<Layers>(0);
    let (to_fuzzer, from) = sync_channel(0);
    std::thread::spawn(move || {
        enter_root();
        for (number, layers) in from_fuzzer.iter().enumerate() {
            attempt(number, &layers);
            to_fuzzer.send(()).unwrap();
        }
    });
    Mutex::new((to, from))
});

fuzz_target!(|layers: Layers| {
    let unpacker = UNPACKER.lock().unwrap();
    unpacker.0.send(layers).unwrap();
    // A panic over there ends its end of the channel.
    unpacker.1.recv().expect("the unpacker panicked");
});

/// An empty file system as this thread's root.
fn enter_root() {
    // File descriptors stay shared.
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("tmpfs", "/dev/shm", "tmpfs", MountFlags::empty(), None).unwrap();
    fs::create_dir_all("/dev/shm/proc").unwrap();
    mount("proc", "/dev/shm/proc", "proc", MountFlags::empty(), None).unwrap();
    rustix::process::chroot("/dev/shm").unwrap();
    std::env::set_current_dir("/").unwrap();
    fs::create_dir_all("/canary/a").unwrap();
    fs::write("/canary/secret", "untouched").unwrap();
}

fn attempt(number: usize, layers: &Layers) {
    // The store keeps what has been seen.
    if number % 64 == 0 {
        let _ = fs::remove_dir_all("/store");
    }
    let layers: Vec<Vec<u8>> = layers.iter().take(3).map(tar).collect();
    write_image(&layers);
    let source = Source::Layout { directory: "/image".into(), tag: None };
    let options = Options { copy: true, max_size: 1 << 20, store: "/store".into(), ..Options::default() };
    let before = tree(Path::new("/canary"));
    let bundle = Path::new("/bundle");
    let unpacked = unpack(&source, bundle, &options, &mut Silent);
    assert_eq!(tree(Path::new("/canary")), before);
    let mut names: Vec<_> = fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !["canary", "image", "proc", "store", "bundle"].iter().any(|known| name == known));
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(bundle.exists(), unpacked.is_ok(), "{unpacked:?}");
    let _ = fs::remove_dir_all(bundle);
    fs::remove_dir_all("/image").unwrap();
}

fn tar((entries, rest): &(Vec<Entry>, Vec<u8>)) -> Vec<u8> {
    let mut tar = Vec::new();
    entries.iter().take(32).for_each(|entry| entry.write(&mut tar));
    if rest.is_empty() { tar.resize(tar.len() + 1024, 0) } else { tar.extend(rest) }
    tar
}

fn write_image(layers: &[Vec<u8>]) {
    fs::create_dir_all("/image/blobs/sha256").unwrap();
    let blob = |content: &[u8], kind: &str| {
        let digest = Digest::of(content).to_string();
        let name = digest.strip_prefix("sha256:").unwrap();
        fs::write(format!("/image/blobs/sha256/{name}"), content).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": content.len()})
    };
    let ids: Vec<String> = layers.iter().map(|tar| Digest::of(tar).to_string()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ids}});
    let config = blob(config.to_string().as_bytes(), "config.v1+json");
    let layers: Vec<_> = layers.iter().map(|tar| blob(tar, "layer.v1.tar")).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers});
    let manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
    fs::write("/image/index.json", json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    fs::write("/image/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Names, kinds and contents.
fn tree(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        found.push((path.clone(), format!("{:?} {:?} {content}", meta.file_type(), meta.permissions())));
        if meta.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

//! What a directory tree is, to the last attribute, as text that can be compared.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Path below the root to all that is known of it.
pub(super) type Tree = BTreeMap<PathBuf, String>;

pub(super) fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let metadata = fs::symlink_metadata(&full).unwrap();
        if metadata.is_dir() {
            waiting.extend(fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        }
        tree.insert(path, describe(&full, &metadata));
    }
    tree
}

fn describe(path: &Path, metadata: &fs::Metadata) -> String {
    let content = if metadata.is_file() {
        format!("{} bytes {:016x}", metadata.len(), hash(&fs::read(path).unwrap()))
    } else if metadata.is_symlink() {
        format!("-> {:?}", fs::read_link(path).unwrap())
    } else {
        format!("device {:x}", metadata.rdev())
    };
    // an overlay counts a directory's links in its own way
    let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
    format!(
        "{:o} {}:{} {}.{:09} links {links} {content} {:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        xattrs(path),
    )
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 64 * 1024];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let names = names.filter(|name| !name.starts_with(b"trusted.overlay."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    names.map(|name| (OsString::from_vec(name.to_vec()), value(name))).collect()
}

/// Differences by accident are what is looked for.
fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}

/// Fails with the first differences, for a person. `but` are paths whose times are allowed to differ.
pub(super) fn expect_same(left: &Tree, right: &Tree, but: &[&str]) {
    let timeless = |path: &Path, text: &str| {
        let mut words: Vec<_> = text.split(' ').collect();
        if but.iter().any(|name| path.as_os_str().as_bytes() == name.as_bytes()) {
            words.remove(2);
        }
        words.join(" ")
    };
    let mut differences = Vec::new();
    for (path, text) in left {
        match right.get(path) {
            None => differences.push(format!("{}: only left: {text}", path.display())),
            Some(other) if timeless(path, text) != timeless(path, other) => {
                differences.push(format!("{}:\n  left  {text}\n  right {other}", path.display()));
            }
            Some(_) => {}
        }
    }
    for (path, text) in right.iter().filter(|(path, _)| !left.contains_key(*path)) {
        differences.push(format!("{}: only right: {text}", path.display()));
    }
    let shown = differences.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} differences in {} files:\n{shown}", differences.len(), left.len());
}

//! The fstab-style options of a mount, as runc and mount(8) understand them.

mod names;

pub use names::names;
use serde::{Deserialize, Serialize};

use crate::sys::mount::{self as attr, Attr};

/// What a list of options asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub bind: bool,
    pub recursive_bind: bool,
    /// Attributes of the mount itself, and of the whole tree below it (rro, rnosuid, ...).
    pub set: u64,
    pub clear: u64,
    pub tree_set: u64,
    pub tree_clear: u64,
    /// (propagation, recursive), in the order given.
    pub propagation: Vec<(u64, bool)>,
    /// Flags of the superblock, by their fsconfig(2) names.
    pub superblock: Vec<String>,
    pub tmpcopyup: bool,
    /// idmap (false) or ridmap (true).
    pub idmap: Option<bool>,
    /// The rest: parameters of the file system.
    pub data: Vec<(String, Option<String>)>,
}

impl Options {
    pub fn attr(&self) -> Attr {
        Attr { set: self.set, clear: self.clear, ..Attr::default() }
    }

    pub fn tree_attr(&self) -> Attr {
        Attr { set: self.tree_set, clear: self.tree_clear, ..Attr::default() }
    }
}

/// (name, attribute, whether the name sets it)
const ATTRIBUTES: &[(&str, u64, bool)] = &[
    ("ro", attr::RDONLY, true),
    ("rw", attr::RDONLY, false),
    ("nosuid", attr::NOSUID, true),
    ("suid", attr::NOSUID, false),
    ("nodev", attr::NODEV, true),
    ("dev", attr::NODEV, false),
    ("noexec", attr::NOEXEC, true),
    ("exec", attr::NOEXEC, false),
    ("nodiratime", attr::NODIRATIME, true),
    ("diratime", attr::NODIRATIME, false),
    ("nosymfollow", attr::NOSYMFOLLOW, true),
    ("symfollow", attr::NOSYMFOLLOW, false),
];

/// (name, access-time mode): any of them replaces the mode. `atime` and `norelatime` restore the default.
const ACCESS_TIMES: &[(&str, u64)] = &[
    ("relatime", attr::RELATIME),
    ("noatime", attr::NOATIME),
    ("strictatime", attr::STRICTATIME),
    ("atime", attr::RELATIME),
    ("norelatime", attr::RELATIME),
    ("nostrictatime", attr::RELATIME),
];

const PROPAGATIONS: &[(&str, u64)] = &[
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// sync and friends belong to the superblock; the second column is what undoes them, which is the default.
const SUPERBLOCK: &[(&str, &str)] =
    &[("sync", "async"), ("dirsync", ""), ("mand", "nomand"), ("lazytime", "nolazytime"), ("silent", "loud")];

pub fn parse<S: AsRef<str>>(options: impl IntoIterator<Item = S>) -> Options {
    let mut parsed = Options::default();
    for option in options {
        let option = option.as_ref();
        if !known(option, &mut parsed) && !option.is_empty() {
            parsed.data.push(match option.split_once('=') {
                Some((key, value)) => (key.into(), Some(value.into())),
                None => (option.into(), None),
            });
        }
    }
    parsed
}

fn known(option: &str, parsed: &mut Options) -> bool {
    match option {
        "defaults" => return true,
        "bind" => {
            parsed.bind = true;
            return true;
        }
        "rbind" => {
            (parsed.bind, parsed.recursive_bind) = (true, true);
            return true;
        }
        "tmpcopyup" => {
            parsed.tmpcopyup = true;
            return true;
        }
        "idmap" | "ridmap" => {
            parsed.idmap = Some(option == "ridmap");
            return true;
        }
        _ => {}
    }
    attribute(option, parsed) || propagation(option, parsed) || superblock(option, parsed)
}

/// `ro` is an attribute of the mount, `rro` (Linux 5.12) of the whole tree.
fn attribute(option: &str, parsed: &mut Options) -> bool {
    let flip = |set: &mut u64, clear: &mut u64, bits: u64, on: bool| {
        let (to, from) = if on { (set, clear) } else { (clear, set) };
        *to |= bits;
        *from &= !bits;
    };
    let (name, tree) = match option.strip_prefix('r') {
        Some(rest) if find(ATTRIBUTES, rest).is_some() || find_time(rest).is_some() => (rest, true),
        _ => (option, false),
    };
    // "relatime" is no recursive "elatime": the prefix is stripped only where the rest is a name.
    let (set, clear) = if tree {
        (&mut parsed.tree_set, &mut parsed.tree_clear)
    } else {
        (&mut parsed.set, &mut parsed.clear)
    };
    if let Some((bits, on)) = find(ATTRIBUTES, name) {
        flip(set, clear, bits, on);
        return true;
    }
    if let Some(mode) = find_time(name) {
        *clear |= attr::ATIME;
        *set = (*set & !attr::ATIME) | mode;
        return true;
    }
    false
}

fn find(table: &[(&str, u64, bool)], name: &str) -> Option<(u64, bool)> {
    table.iter().find(|row| row.0 == name).map(|row| (row.1, row.2))
}

fn find_time(name: &str) -> Option<u64> {
    ACCESS_TIMES.iter().find(|row| row.0 == name).map(|row| row.1)
}

fn propagation(option: &str, parsed: &mut Options) -> bool {
    match propagation_type(option) {
        Some(found) => {
            parsed.propagation.push(found);
            true
        }
        None => false,
    }
}

/// `shared`, `rslave`, ...: the type, and whether it is for the whole tree.
pub fn propagation_type(name: &str) -> Option<(u64, bool)> {
    let lookup = |name: &str| PROPAGATIONS.iter().find(|row| row.0 == name).map(|row| row.1);
    lookup(name)
        .map(|kind| (kind, false))
        .or_else(|| lookup(name.strip_prefix('r')?).map(|kind| (kind, true)))
}

fn superblock(option: &str, parsed: &mut Options) -> bool {
    let Some((name, _)) = SUPERBLOCK.iter().find(|row| row.0 == option || row.1 == option) else {
        return matches!(option, "iversion" | "noiversion");
    };
    parsed.superblock.retain(|had| had != name);
    if *name == option {
        parsed.superblock.push(option.into());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_opposites_wins() {
        assert_eq!(parse(["ro", "rw"]).set, 0);
        assert_eq!(parse(["ro", "rw"]).clear, attr::RDONLY);
        assert_eq!(parse(["nosuid", "suid", "nosuid"]).set, attr::NOSUID);
    }

    #[test]
    fn recursive_attributes_are_kept_apart() {
        let options = parse(["rbind", "rro", "nosuid", "rnoatime"]);
        assert_eq!(options.tree_set, attr::RDONLY | attr::NOATIME);
        assert_eq!(options.tree_clear, attr::ATIME);
        assert_eq!(options.set, attr::NOSUID);
        assert!(options.recursive_bind);
    }

    #[test]
    fn relatime_is_not_recursive_and_what_is_unknown_is_data() {
        let options = parse(["relatime", "mode=755", "size=64k", "newinstance", "rshared", "sync", "async"]);
        assert_eq!(options.tree_clear, 0);
        assert_eq!(options.propagation, [(libc::MS_SHARED, true)]);
        assert!(options.superblock.is_empty());
        let keys: Vec<_> = options.data.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["mode", "size", "newinstance"]);
    }
}

//! Every option that is understood, for `features`.

use super::{ACCESS_TIMES, ATTRIBUTES, PROPAGATIONS, SUPERBLOCK};

/// What is in no table: these name something else than one bit.
const SINGLE: &[&str] =
    &["bind", "defaults", "idmap", "iversion", "noiversion", "rbind", "ridmap", "tmpcopyup"];

/// Sorted.
pub fn names() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|row| row.0).chain(ACCESS_TIMES.iter().map(|row| row.0));
    let pairs = attributes.chain(PROPAGATIONS.iter().map(|row| row.0));
    let with_tree = pairs.flat_map(|name| [name.to_owned(), format!("r{name}")]);
    let superblock = SUPERBLOCK.iter().flat_map(|row| [row.0, row.1]).filter(|name| !name.is_empty());
    let mut names: Vec<_> =
        with_tree.chain(SINGLE.iter().copied().chain(superblock).map(str::to_owned)).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::super::{Options, parse};
    use super::*;

    #[test]
    fn each_name_is_understood_and_told_once() {
        let names = names();
        for name in &names {
            assert!(parse([name]).data.is_empty(), "{name} is passed on to the file system");
        }
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        for name in ["ro", "rro", "relatime", "rrelatime", "rshared", "noatime", "nolazytime", "tmpcopyup"] {
            assert!(names.iter().any(|listed| listed == name), "{name}");
        }
        assert_ne!(parse(["size=1"]), Options::default());
    }
}

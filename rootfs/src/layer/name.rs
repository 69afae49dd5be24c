//! PURE. What a name in a layer means: a place below the root, or a whiteout of one.

use crate::error::{Problem, lossy};

/// One component must fit in a directory entry, the whole in one system call.
const MAX_COMPONENT: usize = 255;
const MAX_NAME: usize = 4095;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself; layers of its days have some.
const AUFS: &[u8] = b".wh..wh.";

/// A place below the root: `directory` is empty for the root, else components with single slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) directory: Vec<u8>,
    pub(crate) last: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The root itself.
    Root,
    Place(Name),
    /// What lower layers have at this place is gone.
    Whiteout(Name),
    /// What lower layers have in this directory is gone.
    Opaque(Vec<u8>),
    /// Nothing to do.
    Ignored,
}

impl Name {
    pub(crate) fn whole(&self) -> Vec<u8> {
        join(&self.directory, &self.last)
    }
}

pub(crate) fn join(directory: &[u8], last: &[u8]) -> Vec<u8> {
    if directory.is_empty() { last.to_vec() } else { [directory, b"/", last].concat() }
}

pub(crate) fn meaning(raw: &[u8]) -> Result<Meaning, Problem> {
    let Some(Name { directory, last }) = place(raw)? else { return Ok(Meaning::Root) };
    if last == OPAQUE {
        return Ok(Meaning::Opaque(directory));
    }
    if last.starts_with(AUFS) {
        return Ok(Meaning::Ignored);
    }
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Place(Name { directory, last })),
        Some(b"" | b"." | b"..") => Err(Problem::Whiteout(lossy(&last[WHITEOUT.len()..]))),
        Some(hidden) => Ok(Meaning::Whiteout(Name { last: hidden.to_vec(), directory })),
    }
}

/// The place that a name of an entry, or of a hard link's target, stands for; `None` is the root.
pub(crate) fn place(raw: &[u8]) -> Result<Option<Name>, Problem> {
    if raw.is_empty() {
        return Err(Problem::Empty);
    }
    if raw[0] == b'/' {
        return Err(Problem::Absolute);
    }
    if raw.contains(&0) {
        return Err(Problem::Nul);
    }
    let components: Vec<_> =
        raw.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if components.contains(&&b".."[..]) {
        return Err(Problem::Climbs);
    }
    if components.iter().any(|part| part.len() > MAX_COMPONENT) {
        return Err(Problem::TooLong(MAX_COMPONENT));
    }
    let Some((last, directory)) = components.split_last() else { return Ok(None) };
    let name = Name { directory: directory.join(&b'/'), last: last.to_vec() };
    if name.directory.len() + 1 + name.last.len() > MAX_NAME {
        return Err(Problem::TooLong(MAX_NAME));
    }
    Ok(Some(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(directory: &str, last: &str) -> Name {
        Name { directory: directory.into(), last: last.into() }
    }

    #[test]
    fn names_are_normalised() {
        for (raw, expected) in [
            ("a", Meaning::Place(at("", "a"))),
            ("./a/b/", Meaning::Place(at("a", "b"))),
            ("a//b/./c", Meaning::Place(at("a/b", "c"))),
            ("./", Meaning::Root),
            (".", Meaning::Root),
            ("a/.wh.b", Meaning::Whiteout(at("a", "b"))),
            ("a/.wh..wh..opq", Meaning::Opaque(b"a".to_vec())),
            (".wh..wh..opq", Meaning::Opaque(vec![])),
            (".wh..wh.plnk/1.2", Meaning::Place(at(".wh..wh.plnk", "1.2"))),
            (".wh..wh.aufs", Meaning::Ignored),
            ("a/.wh.b/c", Meaning::Place(at("a/.wh.b", "c"))),
        ] {
            assert_eq!(meaning(raw.as_bytes()), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn names_that_climb_are_refused() {
        for (raw, problem) in [
            ("", Problem::Empty),
            ("/", Problem::Absolute),
            ("/etc/passwd", Problem::Absolute),
            ("..", Problem::Climbs),
            ("a/../b", Problem::Climbs),
            ("a/..", Problem::Climbs),
            ("../../x", Problem::Climbs),
            ("a\0b", Problem::Nul),
            (".wh.", Problem::Whiteout(String::new())),
            ("a/.wh..", Problem::Whiteout(".".into())),
            ("a/.wh...", Problem::Whiteout("..".into())),
        ] {
            assert_eq!(meaning(raw.as_bytes()), Err(problem), "{raw}");
        }
        assert_eq!(meaning(&[b'x'; 256]), Err(Problem::TooLong(255)));
        assert_eq!(meaning(&b"abc/".repeat(1100)), Err(Problem::TooLong(4095)));
        assert!(meaning(&[b'x'; 255]).is_ok());
    }

    proptest! {
        #[test]
        fn no_name_leads_out(raw in "([.]{1,2}|[a-c/]|\\.wh\\.|/){0,12}") {
            if let Ok(Meaning::Place(name) | Meaning::Whiteout(name)) = meaning(raw.as_bytes()) {
                let whole = name.whole();
                prop_assert!(!whole.starts_with(b"/"));
                for part in whole.split(|byte| *byte == b'/') {
                    prop_assert!(!matches!(part, b"" | b"." | b".."), "{raw}");
                }
            }
        }

        #[test]
        fn any_bytes_are_judged_without_panic(raw in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = meaning(&raw);
        }
    }
}

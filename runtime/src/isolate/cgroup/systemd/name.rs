//! From `cgroupsPath` to the names of a unit and its slice, and from a slice to its place. Pure.

use std::path::PathBuf;

use crate::{Error, Result};

const FIELD: &str = "linux.cgroupsPath";
const SLICE: &str = ".slice";
/// systemd's own limit.
const MAX_LENGTH: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) slice: String,
    pub(super) unit: String,
}

/// `SLICE:PREFIX:NAME` makes PREFIX-NAME.scope in SLICE, or the slice NAME where that ends so. Without a path it is
/// the scope that scripts know of runc: runc-ID.scope.
pub(super) fn parse(cgroups_path: Option<&str>, id: &str, default_slice: &str) -> Result<Names> {
    let default = format!(":runc:{id}");
    let given = cgroups_path.filter(|path| !path.is_empty());
    let path = given.unwrap_or(&default);
    let parts: Vec<_> = path.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        let expected = "the format \"slice:prefix:name\" for systemd cgroups";
        return Err(Error::invalid(FIELD, shown(path), expected));
    };
    let slice = if slice.is_empty() { default_slice } else { slice };
    let unit = if is_slice(name) { name.to_owned() } else { format!("{prefix}-{name}.scope") };
    if !is_valid(&unit) {
        let field = if given.is_some() { FIELD } else { "id" };
        let expected = "at most 255 letters, digits and :-_.\\@ in all, for the name of a systemd unit";
        return Err(Error::invalid(field, shown(&unit), expected));
    }
    expand(slice)?;
    if is_slice(&unit) {
        expand(&unit)?;
    }
    Ok(Names { slice: slice.to_owned(), unit })
}

pub(super) fn is_slice(unit: &str) -> bool {
    unit.ends_with(SLICE)
}

/// Each dash in the name of a slice is a step down: `a-b.slice` is at `a.slice/a-b.slice`.
pub(super) fn expand(slice: &str) -> Result<PathBuf> {
    let refuse =
        || Error::invalid(FIELD, shown(slice), "a slice as machine.slice or a-b.slice, no path of slices");
    let name = slice.strip_suffix(SLICE).filter(|_| is_valid(slice)).ok_or_else(refuse)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    let mut start = 0;
    for end in ends {
        if end == start {
            return Err(refuse());
        }
        path.push(format!("{}{SLICE}", &name[..end]));
        start = end + 1;
    }
    Ok(path)
}

fn is_valid(unit: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    unit.len() <= MAX_LENGTH && unit.bytes().all(is_valid)
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_slice_and_unit() {
        for (path, slice, unit) in [
            (Some("machine.slice:libpod:1"), "machine.slice", "libpod-1.scope"),
            (Some("::1"), "system.slice", "-1.scope"),
            (Some(":docker:1"), "system.slice", "docker-1.scope"),
            (Some("a-b.slice:ignored:a-b-c.slice"), "a-b.slice", "a-b-c.slice"),
            (Some("-.slice:x:1"), "-.slice", "x-1.scope"),
            (Some(""), "system.slice", "runc-id.scope"),
            (None, "system.slice", "runc-id.scope"),
        ] {
            let names = parse(path, "id", "system.slice").unwrap();
            assert_eq!((names.slice.as_str(), names.unit.as_str()), (slice, unit), "{path:?}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        let long = format!("a.slice:b:{}", "x".repeat(250));
        for path in ["/a", "a", "a:b", "a:b:c:d", "a:b:c", "a/b.slice:c:d", "--.slice:a:b", "-a.slice:b:c"] {
            let error = parse(Some(path), "id", "system.slice").unwrap_err().to_string();
            assert!(error.starts_with("linux.cgroupsPath: "), "{error}");
        }
        for path in ["a-.slice:b:c", "a--b.slice:c:d", ".slice:a:b", "::a/b", "::a b", ":\n:a", &long] {
            parse(Some(path), "id", "system.slice").unwrap_err();
        }
        let error = parse(Some("/a"), "id", "system.slice").unwrap_err().to_string();
        assert!(error.contains("\"slice:prefix:name\" for systemd cgroups"), "{error}");
        // An id may have a sign that a unit may not.
        assert!(parse(None, "a+b", "system.slice").unwrap_err().to_string().starts_with("id: "));
    }

    #[test]
    fn a_slice_is_below_those_that_its_name_begins_with() {
        assert_eq!(expand("a.slice").unwrap(), PathBuf::from("a.slice"));
        assert_eq!(expand("a-b-c.slice").unwrap(), PathBuf::from("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(expand("-.slice").unwrap(), PathBuf::new());
    }
}

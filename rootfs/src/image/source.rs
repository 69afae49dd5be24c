//! Where an image is, in skopeo's words.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Layout { directory: PathBuf, tag: Option<String> },
    /// `oci-archive:FILE[:TAG]`: the same as a tar file.
    OciArchive { file: PathBuf, tag: Option<String> },
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive { file: PathBuf, reference: Option<String> },
    /// `docker://HOST/NAME[:TAG|@DIGEST]`: a registry. `image` is what follows `docker://`.
    Registry { image: String },
}

const EXPECTED: &str =
    "oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF] or docker://HOST/NAME[:TAG|@DIGEST]";

impl FromStr for Source {
    type Err = Error;

    /// As in skopeo, a path ends at its first colon.
    fn from_str(word: &str) -> Result<Self> {
        let bad = || Error::invalid("SOURCE", format!("{word:?}"), EXPECTED);
        let (transport, rest) = word.split_once(':').ok_or_else(bad)?;
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag.to_owned())),
            None => (rest, None),
        };
        if path.is_empty() || tag.as_ref().is_some_and(String::is_empty) {
            return Err(bad());
        }
        match transport {
            "oci" => Ok(Self::Layout { directory: path.into(), tag }),
            "oci-archive" => Ok(Self::OciArchive { file: path.into(), tag }),
            "docker-archive" => Ok(Self::DockerArchive { file: path.into(), reference: tag }),
            "docker" => {
                let image = rest.strip_prefix("//").filter(|image| is_reference(image)).ok_or_else(bad)?;
                Ok(Self::Registry { image: image.into() })
            }
            _ => Err(bad()),
        }
    }
}

/// Coarse: the puller knows the whole grammar. What passes is one word that no command takes for a flag.
fn is_reference(image: &str) -> bool {
    image.len() <= 512
        && image.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
        && image.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./-_:@[]".contains(&byte))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match self {
            Self::Layout { directory, tag } => ("oci", directory, tag),
            Self::OciArchive { file, tag } => ("oci-archive", file, tag),
            Self::DockerArchive { file, reference } => ("docker-archive", file, reference),
            Self::Registry { image } => return write!(f, "docker://{image}"),
        };
        write!(f, "{transport}:{}", path.display())?;
        match tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

/// Docker's short names in full: `busybox` is `docker.io/library/busybox:latest`.
pub(super) fn full_reference(short: &str) -> String {
    let (host, name) = match short.split_once('/') {
        Some((host, name)) if host == "localhost" || host.contains(['.', ':']) => (host, name.to_owned()),
        Some(_) => ("docker.io", short.to_owned()),
        None => ("docker.io", format!("library/{short}")),
    };
    let tagged = name.contains('@') || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    format!("{host}/{name}{}", if tagged { "" } else { ":latest" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_as_they_are_read() {
        for word in [
            "oci:/a/b",
            "oci:a:v1.2",
            "oci:a:docker.io/library/x:latest",
            "oci-archive:x.tar:t",
            "docker-archive:x.tar:busybox:latest",
            "docker://127.0.0.1:5000/a/b:t",
            "docker://busybox",
            "docker://[::1]:5000/a@sha256:00",
        ] {
            assert_eq!(word.parse::<Source>().unwrap().to_string(), word);
        }
    }

    #[test]
    fn other_words_are_refused() {
        for word in [
            "",
            "oci",
            "oci:",
            "oci::tag",
            "oci:a:",
            "busybox",
            "dir:x",
            "docker:x",
            "docker://",
            "docker://-x",
            "docker://a b",
        ] {
            assert!(word.parse::<Source>().is_err(), "{word}");
        }
    }

    #[test]
    fn short_names_are_completed_as_docker_does() {
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost/a", "localhost/a:latest"),
            ("h:5000/a/b", "h:5000/a/b:latest"),
            ("a@sha256:00", "docker.io/library/a@sha256:00"),
        ] {
            assert_eq!(full_reference(short), full);
        }
    }
}

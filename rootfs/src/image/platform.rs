//! PURE. What an image was built for, and whether that is what was asked for.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageConfiguration};

use crate::error::{Error, Result};

/// `OS/ARCH[/VARIANT]`, in Go's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub arch: String,
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let (arch, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self { os: "linux".into(), arch: arch.into(), variant: variant.map(Into::into) }
    }

    pub(super) fn of(config: &ImageConfiguration) -> Self {
        Self {
            os: config.os().to_string(),
            arch: config.architecture().to_string(),
            variant: config.variant().clone(),
        }
    }

    /// Whether an image of this platform is one of `wanted`. What an image does not state is not held
    /// against it; a variant counts only when both name one.
    pub(super) fn suits(&self, wanted: &Self) -> bool {
        let same = |ours: &str, theirs: &str| ours.is_empty() || ours == theirs;
        same(&self.os, &wanted.os)
            && same(&self.arch, &wanted.arch)
            && match (&self.variant, &wanted.variant) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            }
    }

    /// The best of an index's manifests: the exact variant, then none, then (nothing was asked for) any.
    pub(super) fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let rank = |descriptor: &Descriptor| {
            let platform = descriptor.platform().as_ref()?;
            let same =
                platform.os().to_string() == self.os && platform.architecture().to_string() == self.arch;
            match (same, platform.variant()) {
                (false, _) => None,
                (true, ours) if *ours == self.variant => Some(0),
                (true, None) => Some(1),
                (true, Some(_)) => self.variant.is_none().then_some(2),
            }
        };
        let ranked = manifests.iter().filter_map(|descriptor| Some((rank(descriptor)?, descriptor)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, descriptor)| descriptor)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let parts: Vec<_> = word.split('/').collect();
        let valid = |part: &&str| {
            !part.is_empty()
                && part.len() <= 64
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        match parts[..] {
            [os, arch, ref variant @ ..] if variant.len() < 2 && parts.iter().all(valid) => Ok(Self {
                os: os.into(),
                arch: arch.into(),
                variant: variant.first().map(|variant| (*variant).into()),
            }),
            _ => Err(Error::invalid("--platform", format!("{word:?}"), "OS/ARCH or OS/ARCH/VARIANT")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let descriptors = platforms.iter().enumerate().map(|(size, word)| {
            let platform: Platform = word.parse().unwrap();
            serde_json::from_value(serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{}", "0".repeat(64)),
                "size": size,
                "platform": { "os": platform.os, "architecture": platform.arch, "variant": platform.variant },
            }))
            .unwrap()
        });
        descriptors.collect()
    }

    fn chosen(wanted: &str, platforms: &[&str]) -> Option<u64> {
        wanted.parse::<Platform>().unwrap().choose(&index(platforms)).map(Descriptor::size)
    }

    #[test]
    fn an_index_gives_the_closest_manifest() {
        let all = [
            "unknown/unknown",
            "linux/amd64/v3",
            "linux/amd64",
            "linux/arm/v6",
            "linux/arm/v7",
            "windows/amd64",
        ];
        assert_eq!(chosen("linux/amd64", &all), Some(2));
        assert_eq!(chosen("linux/amd64/v3", &all), Some(1));
        assert_eq!(chosen("linux/amd64/v2", &all), Some(2));
        assert_eq!(chosen("linux/arm/v7", &all), Some(4));
        assert_eq!(chosen("linux/arm", &all), Some(3));
        assert_eq!(chosen("linux/arm/v8", &all), None);
        assert_eq!(chosen("linux/riscv64", &all), None);
        assert_eq!(chosen("linux/arm64/v8", &["linux/arm64"]), Some(0));
    }

    #[test]
    fn platforms_are_strict_words() {
        for word in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b"] {
            assert!(word.parse::<Platform>().is_err(), "{word}");
        }
    }
}

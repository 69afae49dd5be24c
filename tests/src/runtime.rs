//! Which runtime is under test, and what it calls itself.

use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Hearth,
    Runc,
    Other,
}

#[derive(Debug, Clone)]
pub struct Runtime {
    pub path: PathBuf,
    pub kind: Kind,
    /// Major and minor version; zeroes where the runtime does not tell.
    pub version: (u32, u32),
    /// The first line of `--version`.
    pub banner: String,
}

impl Runtime {
    /// From `HEARTH_TEST_RUNTIME`, a path or a name in `PATH`; without it, the release build of hearth.
    pub fn from_env() -> Result<Self, String> {
        let given = std::env::var_os("HEARTH_TEST_RUNTIME").filter(|value| !value.is_empty());
        let path = match given {
            Some(name) => {
                find(Path::new(&name)).ok_or(format!("HEARTH_TEST_RUNTIME: {name:?}: not found"))?
            }
            None => {
                let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/hearth");
                built.canonicalize().map_err(|e| format!("{}: {e}: build it first", built.display()))?
            }
        };
        Self::probe(path)
    }

    fn probe(path: PathBuf) -> Result<Self, String> {
        let output = Command::new(&path)
            .arg("--version")
            .output()
            .map_err(|e| format!("{} --version: {e}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let banner = text.lines().next().unwrap_or_default().to_owned();
        let kind = match banner.split_whitespace().next() {
            Some("runc") => Kind::Runc,
            Some("hearth") => Kind::Hearth,
            _ if path.file_name().is_some_and(|name| name == "hearth") => Kind::Hearth,
            _ => Kind::Other,
        };
        Ok(Self { path, kind, version: version(&banner), banner })
    }

    pub fn is_hearth(&self) -> bool {
        self.kind == Kind::Hearth
    }

    /// True for a runc older than 1.5, where some behaviour differs from what hearth follows.
    pub fn is_old_runc(&self) -> bool {
        self.kind == Kind::Runc && self.version < (1, 5)
    }
}

fn version(banner: &str) -> (u32, u32) {
    let word = banner.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut numbers = word.unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Finds an executable by path or in `PATH`.
pub fn find(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.canonicalize().ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

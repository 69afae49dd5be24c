//! Who is measured: an OCI runtime by its command line, a pool of parked sandboxes, or a plain command that runs the
//! program itself.

use std::path::Path;
use std::process::Command;

use crate::runtime::find;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// vfork, exec and wait of the program itself, without any container.
    Bare,
    /// tests/bench/floor.c: what the kernel charges for a container.
    Floor,
    Runtime,
    /// `hearth launch` from a pool of parked sandboxes.
    Pool,
    Plain,
}

#[derive(Debug, Clone)]
pub struct Contender {
    pub name: String,
    pub kind: Kind,
    /// The executable and its global flags; empty for bare.
    pub words: Vec<String>,
}

impl Contender {
    pub fn bare() -> Self {
        Self { name: "bare".into(), kind: Kind::Bare, words: Vec::new() }
    }

    pub fn floor(executable: &Path) -> Self {
        let words = vec![executable.to_string_lossy().into_owned()];
        Self { name: "floor".into(), kind: Kind::Floor, words }
    }

    pub fn runtime(text: &str) -> Result<Self, String> {
        Self::parse("--runtime", text, Kind::Runtime)
    }

    /// A hearth, and flags of its `launch`.
    pub fn pool(text: &str) -> Result<Self, String> {
        Self::parse("--pool", text, Kind::Pool)
    }

    pub fn plain(text: &str) -> Result<Self, String> {
        Self::parse("--plain", text, Kind::Plain)
    }

    /// The hearth beside this program, and what this machine has besides.
    pub fn usual() -> Vec<Self> {
        let own = std::env::current_exe()
            .ok()
            .map(|exe| exe.with_file_name("hearth"))
            .filter(|path| path.is_file());
        let hearth = own.map_or("hearth=hearth".into(), |path| format!("hearth={}", path.display()));
        let others = ["runc=runc", "crun=crun"].map(str::to_owned);
        std::iter::once(hearth).chain(others).filter_map(|text| Self::runtime(&text).ok()).collect()
    }

    fn parse(flag: &str, text: &str, kind: Kind) -> Result<Self, String> {
        let bad = |why: &str| format!("{flag} {text}: expected NAME=COMMAND{why}");
        let (name, command) = text.split_once('=').ok_or_else(|| bad(""))?;
        let well_named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 24 || !name.chars().all(well_named) {
            return Err(bad(", the name of at most 24 letters, digits, `-`, `_` and `.`"));
        }
        let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let first = words.first_mut().ok_or_else(|| bad(""))?;
        let found = find(Path::new(first)).ok_or_else(|| bad(", the command being an executable"))?;
        *first = found.to_string_lossy().into_owned();
        Ok(Self { name: name.into(), kind, words })
    }

    pub fn is_runtime(&self) -> bool {
        self.kind == Kind::Runtime
    }

    /// Whether it can tell its own timeline.
    pub fn is_hearth(&self) -> bool {
        self.is_runtime() && self.words.first().is_some_and(|path| Path::new(path).ends_with("hearth"))
    }

    /// A runtime's command up to and without the verb.
    pub fn command(&self, root: &Path) -> Command {
        let mut command = Command::new(self.words.first().map_or("", String::as_str));
        command.args(self.words.iter().skip(1));
        if !self.words.iter().any(|word| word.starts_with("--root")) {
            command.arg("--root").arg(root.join(&self.name));
        }
        command
    }

    /// A plain command, with what it is to run: the word `{program}` becomes the program and its arguments.
    pub fn filled(&self, rootfs: &Path, program: &[String]) -> Command {
        let mut command = Command::new(self.words.first().map_or("", String::as_str));
        for word in self.words.iter().skip(1) {
            if word == "{program}" {
                command.args(program);
            } else {
                command.arg(word.replace("{rootfs}", &rootfs.to_string_lossy()));
            }
        }
        command
    }
}

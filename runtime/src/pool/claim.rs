//! What a launch asks of a sandbox, beyond its bundle. Pure: bounded, validated, and merged into the bundle's own
//! process.

use serde::{Deserialize, Serialize};

use crate::bundle::mount_options::Options;
use crate::bundle::process::{Process, Window};
use crate::{Error, Result};

/// Everything is optional; what is left out is as the bundle has it.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Replaces `process.args`.
    pub args: Vec<String>,
    /// NAME=VALUE, over `process.env`.
    pub env: Vec<String>,
    pub cwd: Option<String>,
    /// A uid, and a gid in place of the bundle's.
    pub user: Option<(u32, Option<u32>)>,
    pub hostname: Option<String>,
    /// (resource, soft, hard), over `process.rlimits`.
    pub rlimits: Vec<(u32, u64, u64)>,
    pub no_new_privileges: bool,
    pub terminal: Terminal,
    /// Each has a detached mount among the descriptors.
    pub mounts: Vec<Mount>,
    /// Each has a file among the descriptors, whose contents become `/run/secrets/NAME`.
    pub secrets: Vec<String>,
    /// A network namespace of the caller's among the descriptors, in place of the sandbox's own.
    pub network: bool,
    /// What a process of the caller's own would have got from it.
    pub inherited: Option<Inherited>,
    /// Signals that the launching process ignores, a bit each.
    pub ignored_signals: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terminal {
    /// The standard streams come as descriptors, whatever the bundle says.
    #[default]
    Streams,
    Own(Window),
    /// A terminal where the bundle has one. The streams come anyway.
    AsBundle,
}

/// What the bundle does not set is as in the launching process. Its CPUs are not: as in runc, they are all there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    pub rlimits: Vec<(u32, u64, u64)>,
    pub niceness: i32,
    pub oom_score_adj: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub destination: String,
    pub options: Options,
}

/// Directory of the secrets in the container, a private tmpfs.
pub const SECRETS: &str = "/run/secrets";
/// Mounts or secrets of one claim: with the streams they fit into one message's descriptors.
const MANY: usize = 64;
/// Bytes of one secret.
pub const SECRET_LIMIT: u64 = 1 << 20;

impl Claim {
    /// Descriptors that come with it: the report socket, the streams, the mounts, the secrets, the network namespace.
    pub fn descriptors(&self) -> usize {
        let streams = if self.has_streams() { 3 } else { 0 };
        1 + streams + self.mounts.len() + self.secrets.len() + usize::from(self.network)
    }

    pub fn has_streams(&self) -> bool {
        !matches!(self.terminal, Terminal::Own(_))
    }

    pub fn validate(&self) -> Result<()> {
        let texts = self.args.iter().chain(&self.env).chain(&self.cwd).chain(&self.hostname);
        if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
            return Err(Error::invalid("launch", text.replace('\0', "\\0"), "text without NUL bytes"));
        }
        if let Some(entry) = self.env.iter().find(|entry| entry.find('=').unwrap_or(0) == 0) {
            return Err(Error::invalid("--env", entry, "NAME=VALUE"));
        }
        if let Some(cwd) = self.cwd.as_ref().filter(|cwd| !cwd.starts_with('/')) {
            return Err(Error::invalid("--cwd", cwd, "an absolute path"));
        }
        if let Some(name) = self.hostname.as_ref().filter(|name| name.is_empty() || name.len() > 64) {
            return Err(Error::invalid("--hostname", name, "1 to 64 bytes"));
        }
        for (flag, count) in [("--mount", self.mounts.len()), ("--secret", self.secrets.len())] {
            if count > MANY {
                return Err(Error::invalid(flag, format!("{count} of them"), format!("at most {MANY}")));
            }
        }
        self.mounts.iter().try_for_each(Mount::validate)?;
        self.secrets.iter().try_for_each(|name| secret_name(name))
    }

    /// The bundle's process, as this launch wants it.
    pub fn merge(&self, process: &mut Process) {
        if !self.args.is_empty() {
            process.args.clone_from(&self.args);
        }
        process.set_env(&self.env);
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some((uid, gid)) = self.user {
            process.uid = uid;
            process.gid = gid.unwrap_or(process.gid);
            process.groups.clear();
        }
        process.rlimits.retain(|(resource, ..)| self.rlimits.iter().all(|(mine, ..)| mine != resource));
        process.rlimits.extend(&self.rlimits);
        process.no_new_privileges |= self.no_new_privileges;
        match self.terminal {
            Terminal::Streams => process.terminal = None,
            Terminal::Own(window) => process.terminal = Some(window),
            Terminal::AsBundle => {}
        }
    }
}

impl Mount {
    fn validate(&self) -> Result<()> {
        let destination = &self.destination;
        let plain = destination.split('/').all(|part| !matches!(part, "." | ".."));
        if plain && destination.len() > 1 && destination.starts_with('/') && !destination.contains('\0') {
            return Ok(());
        }
        Err(Error::invalid("--mount dst", destination, "an absolute path other than / and without . or .."))
    }
}

fn secret_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::invalid("--secret", name, "a name of letters, digits, _, - and ., not starting with ."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_claim_leaves_out_is_the_bundles() {
        let mut process = Process {
            args: vec!["a".into()],
            env: vec!["X=1".into(), "Y=2".into()],
            groups: vec![7],
            rlimits: vec![(7, 1, 1), (8, 2, 2)],
            ..Process::default()
        };
        let mut same = process.clone();
        Claim::default().merge(&mut same);
        assert_eq!(same, process);
        let claim = Claim {
            args: vec!["b".into()],
            env: vec!["X=3".into()],
            user: Some((5, Some(6))),
            rlimits: vec![(7, 3, 4)],
            ..Claim::default()
        };
        claim.merge(&mut process);
        assert_eq!(process.args, ["b"]);
        assert_eq!(process.env, ["Y=2", "X=3"]);
        assert_eq!((process.uid, process.gid, process.groups.len()), (5, 6, 0));
        assert_eq!(process.rlimits, [(8, 2, 2), (7, 3, 4)]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |claim: Claim| claim.validate().unwrap_err().to_string();
        let mount = |destination: &str| Claim {
            mounts: vec![Mount { destination: destination.into(), options: Options::default() }],
            ..Claim::default()
        };
        for destination in ["", "/", "a", "/a/../b", "/./a"] {
            assert!(refused(mount(destination)).starts_with("--mount dst"), "{destination}");
        }
        for name in ["", ".x", "a/b", "..", "a b"] {
            let claim = Claim { secrets: vec![name.into()], ..Claim::default() };
            assert!(refused(claim).starts_with("--secret"), "{name}");
        }
        for entry in ["", "=x", "x"] {
            let claim = Claim { env: vec![entry.into()], ..Claim::default() };
            assert!(refused(claim).starts_with("--env"), "{entry}");
        }
        assert!(mount("/a/b").validate().is_ok());
    }
}

//! A container's network namespace, made ahead: it costs as much as all the other namespaces together, so it is
//! made by a process beside the runtime, which still reads the config and prepares the rest.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::bundle::plan::Host;
use crate::sys::clone::Beside;
use crate::{Error, Result};

/// CLONE_NEWNET
pub const FLAG: u64 = 0x4000_0000;

#[derive(Debug)]
pub struct Ahead(Beside);

impl Ahead {
    /// By the first look at a config: [`Self::settle`] knows better.
    pub fn guess(config: &[u8]) -> Option<Self> {
        is_likely(config).then(Self::start).flatten()
    }

    /// None where there is none to make, or where it is to be owned by another user namespace than ours.
    pub fn settle(guessed: Option<Self>, host: &Host) -> Option<Self> {
        let joins_user = host.joined.iter().any(|(kind, _)| *kind == LinuxNamespaceType::User);
        let wanted = host.new_namespaces & (FLAG | libc::CLONE_NEWUSER as u64) == FLAG && !joins_user;
        if wanted { guessed.or_else(Self::start) } else { None }
    }

    /// Where that process cannot be made, clone3 makes the namespace in its turn.
    fn start() -> Option<Self> {
        Beside::start(make).ok().map(Self)
    }

    /// The namespace, with its loopback interface up.
    pub fn wait(self) -> Result<OwnedFd> {
        self.0.wait().map_err(Error::sys("make the network namespace"))
    }
}

fn make() -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    crate::sys::net::loopback_up()?;
    Ok(openat(CWD, c"/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Brings loopback up in a namespace that somebody else has made: this thread goes there for it, and comes back.
pub fn loopback_up_in(namespace: BorrowedFd<'_>) -> io::Result<()> {
    let own = std::fs::File::open("/proc/thread-self/ns/net")?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let result = crate::sys::net::loopback_up();
    setns(own, CloneFlags::CLONE_NEWNET)?;
    result
}

/// Whether a config wants a network namespace of its own, and no user namespace, read as text: a wrong answer costs
/// time only.
fn is_likely(config: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(config) else { return false };
    let object = |kind: &str| {
        // The value of a key, so that no key of this name is meant.
        let (before, after) = text.match_indices(kind).find_map(|(at, _)| {
            let rest = text[at + kind.len()..].trim_ascii_start();
            rest.starts_with([',', '}']).then_some((&text[..at], rest))
        })?;
        let start = before.rfind('{')?;
        Some((&before[start..], &after[..after.find('}')?]))
    };
    let is_new = |(before, after): (&str, &str)| !before.contains("\"path\"") && !after.contains("\"path\"");
    object("\"network\"").is_some_and(is_new) && object("\"user\"").is_none()
}

#[cfg(test)]
mod tests {
    use super::is_likely;

    #[test]
    fn a_config_that_wants_a_network_is_known_by_its_text() {
        let config = |network: &str| {
            format!(r#"{{"linux":{{"resources":{{"network":{{"classID":1}}}},"namespaces":[{network}]}}}}"#)
        };
        for (network, likely) in [
            (r#"{"type": "pid"}, {"type": "network"}"#, true),
            (r#"{"type": "network"},{"type": "pid", "path": "/p"}"#, true),
            (r#"{"type": "network", "path": "/run/netns/a"}"#, false),
            (r#"{"path": "/run/netns/a", "type": "network"}"#, false),
            (r#"{"type": "network"},{"type": "user"}"#, false),
            ("", false),
        ] {
            assert_eq!(is_likely(config(network).as_bytes()), likely, "{network}");
        }
        assert!(!is_likely(b"\"network\","));
        assert!(!is_likely(b"\xff"));
    }
}

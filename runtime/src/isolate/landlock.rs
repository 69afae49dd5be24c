//! Landlock: the rules of `bundle/landlock.rs`, made while the process may still open every path, and taken on as
//! late as its rights allow.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::tree::is_directory;
use crate::bundle::landlock::{Policy, annotation};
use crate::sys::landlock::{
    self as sys, ABSTRACT_UNIX_SOCKET, BIND_TCP, CHANGE_DIR, CONNECT_TCP, EXECUTE, Handled, OF_FILES,
    READ_DIR, READ_FILE, REFER, SIGNAL, TRUNCATE, WRITE_FILE,
};
use crate::sys::probe::landlock_abi;
use crate::{Error, Result};

const READ: u64 = READ_FILE | READ_DIR;
const WRITE: u64 = WRITE_FILE | CHANGE_DIR | REFER | TRUNCATE;

/// Rules that are ready to be taken on.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// From the container's root. What the kernel lacks is an error.
    pub fn new(policy: &Policy) -> Result<Self> {
        check(policy, landlock_abi())?;
        let handled = handled(policy);
        let ruleset = Self(sys::create(&handled).map_err(Error::sys("landlock_create_ruleset"))?);
        let execute = EXECUTE | (READ_FILE & handled.files);
        for (key, paths, rights) in [
            ("read", &policy.read, READ),
            ("write", &policy.write, WRITE),
            ("execute", &policy.execute, execute),
        ] {
            paths.iter().flatten().try_for_each(|path| ruleset.allow(key, path, rights))?;
        }
        if policy.write.is_none() {
            // Every ruleset denies this one right, asked or not.
            ruleset.allow("write", "/", REFER)?;
        }
        for (key, ports, right) in
            [("connect-tcp", &policy.connect_tcp, CONNECT_TCP), ("bind-tcp", &policy.bind_tcp, BIND_TCP)]
        {
            for port in ports.iter().flatten() {
                let call = Error::path("landlock_add_rule", format!("{}: {port}", annotation(key)));
                sys::allow_port(ruleset.0.as_fd(), right, *port).map_err(call)?;
            }
        }
        Ok(ruleset)
    }

    fn allow(&self, key: &str, path: &str, rights: u64) -> Result<()> {
        let place = || format!("{}: {path}", annotation(key));
        let target = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::path("open", place()))?;
        let directory = is_directory(target.as_fd()).map_err(Error::path("stat", place()))?;
        let rights = if directory { rights } else { rights & OF_FILES };
        sys::allow_beneath(self.0.as_fd(), rights, target.as_fd())
            .map_err(Error::path("landlock_add_rule", place()))
    }

    /// For this process and all that it becomes.
    pub fn take_on(&self) -> Result<()> {
        sys::restrict_self(self.0.as_fd()).map_err(Error::sys("landlock_restrict_self"))
    }
}

/// What is denied unless a rule allows it.
fn handled(policy: &Policy) -> Handled {
    let if_any = |any: bool, bits: u64| if any { bits } else { 0 };
    Handled {
        files: REFER
            | if_any(policy.read.is_some(), READ)
            | if_any(policy.write.is_some(), WRITE)
            | if_any(policy.execute.is_some(), EXECUTE),
        net: if_any(policy.connect_tcp.is_some(), CONNECT_TCP) | if_any(policy.bind_tcp.is_some(), BIND_TCP),
        scoped: if_any(policy.scope_signals, SIGNAL)
            | if_any(policy.scope_abstract_sockets, ABSTRACT_UNIX_SOCKET),
    }
}

fn check(policy: &Policy, abi: std::io::Result<i64>) -> Result<()> {
    let (needed, key) = policy.needs();
    let what = format!("{}: expected a kernel with landlock ABI {needed} or later", annotation(key));
    match abi {
        Ok(abi) if abi >= needed => Ok(()),
        Ok(abi) => Err(Error::Refused { what, source: std::io::Error::other(format!("this one has {abi}")) }),
        Err(source) => Err(Error::Refused { what, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_lacks_a_rule_is_refused() {
        let policy = Policy { scope_signals: true, ..Policy::default() };
        check(&policy, Ok(6)).unwrap();
        let error = check(&policy, Ok(5)).unwrap_err().chain();
        assert!(error.contains("landlock.scope") && error.contains("ABI 6"), "{error}");
        assert!(check(&Policy::default(), Err(std::io::Error::from_raw_os_error(libc::ENOSYS))).is_err());
    }

    #[test]
    fn only_what_is_asked_for_is_handled() {
        let policy = Policy { connect_tcp: Some(vec![]), ..Policy::default() };
        assert_eq!(handled(&policy), Handled { files: REFER, net: CONNECT_TCP, scoped: 0 });
    }
}

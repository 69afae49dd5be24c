//! Landlock rules from annotations: a tightening that the runtime-spec has no fields for.
//!
//! | annotation | value | what is denied elsewhere | ABI |
//! | --- | --- | --- | --- |
//! | `org.hearth.landlock.read` | paths | to read files and list directories | 2 |
//! | `org.hearth.landlock.write` | paths | to write, make, remove, rename, truncate | 3 |
//! | `org.hearth.landlock.execute` | paths | to execute files | 2 |
//! | `org.hearth.landlock.connect-tcp` | ports | to connect to a TCP port | 4 |
//! | `org.hearth.landlock.bind-tcp` | ports | to bind a TCP socket to a port | 4 |
//! | `org.hearth.landlock.scope` | `signal`, `abstract-unix-socket` | to reach processes outside | 6 |
//!
//! Paths are absolute, the container's, separated by colons; each counts with all below it and has to exist. Ports
//! and scopes are separated by commas. What an annotation allows is all that is allowed of its kind: an empty value
//! allows nothing. Kinds without an annotation stay as they are. What may be executed may be read as well, since
//! nothing could execute it otherwise. A dynamic program needs its loader among the executable paths.
//!
//! The rules hold for every process of the container; one that joins (`exec`) is a domain of its own. The kernel
//! lets nobody who has rules change mounts. With no_new_privs the rules are the last thing before the program,
//! otherwise they come while CAP_SYS_ADMIN is there, and bind the startContainer hooks too. Not here: to ask whether the kernel has the ABI
//! (`isolate/landlock.rs` does, and refuses), ioctl on devices, and UDP, for which there are no rules.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const PREFIX: &str = "org.hearth.landlock.";

/// As many rules as anyone may want; each costs a call at start.
const LIMIT: usize = 1024;

/// None: not restricted.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub read: Option<Vec<String>>,
    pub write: Option<Vec<String>>,
    pub execute: Option<Vec<String>>,
    pub connect_tcp: Option<Vec<u16>>,
    pub bind_tcp: Option<Vec<u16>>,
    pub scope_signals: bool,
    pub scope_abstract_sockets: bool,
}

impl Policy {
    /// None where no annotation asks for anything.
    pub fn from_annotations<'a>(
        annotations: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Result<Option<Self>> {
        let mut policy = None;
        for (name, value) in annotations {
            if let Some(key) = name.strip_prefix(PREFIX) {
                policy.get_or_insert_with(Self::default).set(name, key, value)?;
            }
        }
        Ok(policy)
    }

    fn set(&mut self, name: &str, key: &str, value: &str) -> Result<()> {
        match key {
            "read" => self.read = Some(paths(name, value)?),
            "write" => self.write = Some(paths(name, value)?),
            "execute" => self.execute = Some(paths(name, value)?),
            "connect-tcp" => self.connect_tcp = Some(ports(name, value)?),
            "bind-tcp" => self.bind_tcp = Some(ports(name, value)?),
            "scope" => {
                for scope in items(name, value, ',')? {
                    match scope {
                        "signal" => self.scope_signals = true,
                        "abstract-unix-socket" => self.scope_abstract_sockets = true,
                        _ => return Err(Error::invalid(name, scope, "signal or abstract-unix-socket")),
                    }
                }
            }
            _ => {
                let expected = "read, write, execute, connect-tcp, bind-tcp or scope after the prefix";
                return Err(Error::invalid(name, value, expected));
            }
        }
        Ok(())
    }

    /// The oldest ABI that has all of it, and the annotation that needs it.
    pub fn needs(&self) -> (i64, &'static str) {
        let rows = [
            (6, "scope", self.scope_signals || self.scope_abstract_sockets),
            (4, "connect-tcp", self.connect_tcp.is_some()),
            (4, "bind-tcp", self.bind_tcp.is_some()),
            (3, "write", self.write.is_some()),
            (2, "read", self.read.is_some()),
            (2, "execute", self.execute.is_some()),
        ];
        rows.iter().find(|row| row.2).map_or((2, "scope"), |row| (row.0, row.1))
    }
}

/// The whole name of an annotation, for errors.
pub fn annotation(key: &str) -> String {
    format!("{PREFIX}{key}")
}

fn items<'a>(name: &str, value: &'a str, separator: char) -> Result<Vec<&'a str>> {
    let items: Vec<_> =
        value.split(separator).map(str::trim).filter(|item| !item.is_empty()).take(LIMIT + 1).collect();
    if items.len() > LIMIT {
        return Err(Error::invalid(name, format!("more than {LIMIT} entries"), format!("at most {LIMIT}")));
    }
    Ok(items)
}

fn paths(name: &str, value: &str) -> Result<Vec<String>> {
    let good = |path: &&str| path.starts_with('/') && !path.contains('\0');
    let items = items(name, value, ':')?;
    match items.iter().find(|path| !good(path)) {
        Some(bad) => Err(Error::invalid(name, *bad, "absolute paths in the container, separated by ':'")),
        None => Ok(items.into_iter().map(str::to_owned).collect()),
    }
}

fn ports(name: &str, value: &str) -> Result<Vec<u16>> {
    let port = |item: &str| {
        // u16's own parser takes a leading plus.
        let number = item.bytes().all(|c| c.is_ascii_digit()).then(|| item.parse().ok()).flatten();
        number.ok_or_else(|| Error::invalid(name, item, "ports from 0 to 65535, separated by ','"))
    };
    items(name, value, ',')?.into_iter().map(port).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<Policy>> {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (annotation(key), (*value).to_owned())).collect();
        Policy::from_annotations(pairs.iter().map(|(name, value)| (name, value)))
    }

    #[test]
    fn other_annotations_are_none_of_ours() {
        let pair = ("org.hearth.other".to_owned(), "x".to_owned());
        assert_eq!(Policy::from_annotations([(&pair.0, &pair.1)].into_iter()).unwrap(), None);
    }

    #[test]
    fn an_empty_value_allows_nothing() {
        let policy = parse(&[("write", ""), ("connect-tcp", "")]).unwrap().unwrap();
        assert_eq!((policy.write, policy.connect_tcp), (Some(vec![]), Some(vec![])));
        assert_eq!(policy.read, None);
    }

    #[test]
    fn each_kind_has_its_abi() {
        for (pairs, abi) in [
            (&[("read", "/")][..], 2),
            (&[("execute", "/bin"), ("write", "/tmp")], 3),
            (&[("bind-tcp", "80"), ("read", "/")], 4),
            (&[("scope", "signal, abstract-unix-socket"), ("bind-tcp", "80")], 6),
        ] {
            assert_eq!(parse(pairs).unwrap().unwrap().needs().0, abi, "{pairs:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_name() {
        for (key, value) in [
            ("raed", "/"),
            ("", "/"),
            ("read", "bin"),
            ("read", "/bin:tmp"),
            ("connect-tcp", "65536"),
            ("connect-tcp", "+80"),
            ("bind-tcp", "http"),
            ("scope", "signals"),
        ] {
            let error = parse(&[(key, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&annotation(key)), "{error}");
        }
        assert!(parse(&[("read", &"/a:".repeat(LIMIT + 1))]).is_err());
    }

    proptest! {
        #[test]
        fn lists_come_back_as_they_were(
            paths in prop::collection::vec("/[a-z/.]{0,8}", 0..5),
            ports in prop::collection::vec(any::<u16>(), 0..5),
        ) {
            let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            let policy = parse(&[("read", &paths.join(":")), ("bind-tcp", &list)]).unwrap().unwrap();
            prop_assert_eq!(policy.read, Some(paths));
            prop_assert_eq!(policy.bind_tcp, Some(ports));
        }

        #[test]
        fn no_value_panics(key in "(read|connect-tcp|scope|x)", value in "\\PC{0,30}") {
            let _ = parse(&[(&key, &value)]);
        }
    }
}

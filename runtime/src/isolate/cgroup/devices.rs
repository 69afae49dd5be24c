//! Which devices a container may open and make. Pure.
//!
//! Rules hold in their order: for each kind of access the last rule that matches a device decides, and what no
//! rule names is denied. A rule list becomes either an eBPF program (`filter`, cgroup v2) or the writes for the
//! v1 devices controller, whose flat list of exceptions cannot express every rule list: what it cannot is an
//! error here, never a looser rule.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use crate::{Error, Result};

/// More rules than this are refused; real lists have fewer than a hundred.
const MAX_RULES: usize = 1024;

/// What a process wants to do with a device, or a rule speaks of: a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access(pub(super) u8);

impl Access {
    pub const MKNOD: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const WRITE: Self = Self(4);
    pub const ALL: Self = Self(7);

    pub(super) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.contains(bit) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Block,
    Char,
}

/// A set of devices: `None` stands for every kind, major or minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Devices {
    pub kind: Option<Kind>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Devices {
    pub(super) const EVERY: Self = Self { kind: None, major: None, minor: None };

    pub(super) fn covers(self, other: Self) -> bool {
        fn one<T: PartialEq>(wide: Option<T>, narrow: Option<T>) -> bool {
            wide.is_none() || wide == narrow
        }
        one(self.kind, other.kind) && one(self.major, other.major) && one(self.minor, other.minor)
    }

    fn meets(self, other: Self) -> bool {
        fn one<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        one(self.kind, other.kind) && one(self.major, other.major) && one(self.minor, other.minor)
    }
}

/// In the notation of the v1 controller: `c 1:3`.
impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            None => "a",
            Some(Kind::Block) => "b",
            Some(Kind::Char) => "c",
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub devices: Devices,
    pub access: Access,
}

impl DeviceRule {
    const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { allow: true, devices: Devices { kind: Some(kind), major, minor }, access }
    }

    pub(super) fn covers(self, other: Self) -> bool {
        self.access.contains(other.access) && self.devices.covers(other.devices)
    }
}

/// The devices that every runtime lets a container use, after whatever its config says. Making any device node
/// is harmless as long as it cannot be opened. A device that the config declares itself follows its own rules.
const DEFAULTS: [(Option<&str>, DeviceRule); 11] = {
    const fn char(major: u32, minor: Option<u32>) -> DeviceRule {
        DeviceRule::allow(Kind::Char, Some(major), minor, Access::ALL)
    }
    [
        (None, DeviceRule::allow(Kind::Char, None, None, Access::MKNOD)),
        (None, DeviceRule::allow(Kind::Block, None, None, Access::MKNOD)),
        (Some("/dev/null"), char(1, Some(3))),
        (Some("/dev/random"), char(1, Some(8))),
        (Some("/dev/full"), char(1, Some(7))),
        (Some("/dev/tty"), char(5, Some(0))),
        (Some("/dev/zero"), char(1, Some(5))),
        (Some("/dev/urandom"), char(1, Some(9))),
        (None, char(136, None)),     // /dev/pts/*
        (None, char(5, Some(2))),    // /dev/ptmx
        (None, char(10, Some(200))), // /dev/net/tun
    ]
};

/// The rules of a container: those of its config, then the defaults.
pub fn rules(resources: Option<&LinuxResources>, declared: &[LinuxDevice]) -> Result<Vec<DeviceRule>> {
    let listed = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
    if listed.len() > MAX_RULES {
        let expected = format!("at most {MAX_RULES} rules");
        return Err(Error::invalid("linux.resources.devices", format!("{} rules", listed.len()), expected));
    }
    let mut rules = listed.iter().enumerate().map(|(i, rule)| parse(i, rule)).collect::<Result<Vec<_>>>()?;
    let is_declared = |path: &str| declared.iter().any(|device| device.path().as_os_str() == path);
    rules.extend(DEFAULTS.iter().filter(|(path, _)| !path.is_some_and(is_declared)).map(|(_, rule)| *rule));
    Ok(rules)
}

fn parse(index: usize, rule: &LinuxDeviceCgroup) -> Result<DeviceRule> {
    let field = |name: &str| format!("linux.resources.devices[{index}].{name}");
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C) => Some(Kind::Char),
        Some(other) => return Err(Error::invalid(field("type"), other.as_str(), "a, b or c")),
    };
    let number = |name: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .map_err(|_| Error::invalid(field(name), n.to_string(), "a device number, or -1 for every one")),
    };
    let text = rule.access().as_deref().unwrap_or_default();
    let mut access = Access::default();
    for letter in text.chars() {
        access.0 |= match letter {
            'r' => Access::READ.0,
            'w' => Access::WRITE.0,
            'm' => Access::MKNOD.0,
            // Known from types, where it means all; here it means nothing, as in runc.
            'a' => 0,
            _ => return Err(Error::invalid(field("access"), format!("{text:?}"), "letters of rwm")),
        };
    }
    if access == Access::default() {
        return Err(Error::invalid(field("access"), "\"\"", "at least one letter of rwm"));
    }
    let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
    Ok(DeviceRule { allow: rule.allow(), devices: Devices { kind, major, minor }, access })
}

/// The rule list with what can make no difference left out, in the order in which to ask: the last rule first,
/// and the verdict when none of them speaks.
pub(super) fn simplify(rules: &[DeviceRule]) -> (Vec<DeviceRule>, bool) {
    let mut kept: Vec<DeviceRule> = Vec::new();
    let mut otherwise = false;
    for rule in rules.iter().rev() {
        if rule.access == Access::ALL && rule.devices == Devices::EVERY {
            otherwise = rule.allow;
            break;
        }
        if !kept.iter().any(|later| later.covers(*rule)) {
            kept.push(*rule);
        }
    }
    while kept.last().is_some_and(|rule| rule.allow == otherwise) {
        kept.pop();
    }
    (kept, otherwise)
}

/// One write to the v1 devices controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct V1Write {
    pub(super) file: &'static str,
    pub(super) value: String,
}

/// The writes that bring a v1 devices group, whatever its state, to these rules.
pub(super) fn v1_writes(rules: &[DeviceRule]) -> Result<Vec<V1Write>> {
    let (asked, otherwise) = simplify(rules);
    let mut exceptions: BTreeMap<Devices, Access> = BTreeMap::new();
    for rule in asked.iter().rev() {
        let kinds = rule.devices.kind.map_or_else(|| vec![Kind::Block, Kind::Char], |kind| vec![kind]);
        for kind in kinds {
            let devices = Devices { kind: Some(kind), ..rule.devices };
            if rule.allow == otherwise {
                revoke(&mut exceptions, devices, rule.access)?;
            } else {
                exceptions.entry(devices).or_default().0 |= rule.access.0;
            }
        }
    }
    let (file, reset) =
        if otherwise { ("devices.deny", "devices.allow") } else { ("devices.allow", "devices.deny") };
    let mut writes = vec![V1Write { file: reset, value: "a".to_owned() }];
    writes.extend(
        exceptions.iter().map(|(devices, access)| V1Write { file, value: format!("{devices} {access}") }),
    );
    Ok(writes)
}

/// Takes back what `devices` had been excepted from. The kernel holds a flat list, so an exception goes as a
/// whole or stays: one that is wider than what is to be taken from it cannot be cut.
fn revoke(exceptions: &mut BTreeMap<Devices, Access>, devices: Devices, access: Access) -> Result<()> {
    for (excepted, had) in exceptions.iter_mut() {
        if !had.intersects(access) || !devices.meets(*excepted) {
            continue;
        }
        if !devices.covers(*excepted) {
            return Err(Error::invalid(
                "linux.resources.devices",
                format!("{devices} {access}"),
                format!("no rule inside the wider {excepted} {had}, which cgroup v1 cannot express"),
            ));
        }
        had.0 &= !access.0;
    }
    exceptions.retain(|_, had| *had != Access::default());
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;

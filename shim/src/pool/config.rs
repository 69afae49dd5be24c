//! hearthd's configuration: a TOML file, read once into settings that cannot be wrong. `hearthd.toml` beside this file
//! shows every key with its unit, bounds and default.
//!
//! Every error is one line that names the key, its value, and what is expected.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::policy::config::{HOUR, MILLISECOND, MINUTE, Nanos, SECOND};
use super::policy::{self};

/// A larger file is no configuration.
const LARGEST: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading {0}")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{0}: larger than {LARGEST} bytes")]
    TooLarge(PathBuf),
    #[error("{path}: {what}", path = .0.display(), what = .1)]
    Wrong(PathBuf, String),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    pub root: PathBuf,
    pub pools: PathBuf,
    pub socket: Option<PathBuf>,
    pub group: Option<String>,
    pub metrics: Option<Endpoint>,
    pub log: Log,
    memory: Memory,
    limits: Limits,
    learning: Learning,
    #[serde(rename = "pool")]
    pub declared: Vec<Declared>,
    pub allow: Vec<Allow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Socket(PathBuf),
    Port(SocketAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl From<LogFormat> for hearth::observe::log::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Memory {
    budget: Size,
    keep_available: Size,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Limits {
    sandboxes: u32,
    forks: u32,
    stand_back: Span,
    held_by_caller: u32,
    waiting: u32,
    waiting_by_caller: u32,
    wait: Span,
    wait_only: Span,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Learning {
    enabled: bool,
    max_pools: u32,
    max_bundles: u32,
    keep_alive: Span,
}

/// A pool that the file declares.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Declared {
    pub name: String,
    pub bundle: Option<PathBuf>,
    pub image: Option<String>,
    #[serde(default)]
    pub min: u32,
    #[serde(default = "sixteen")]
    pub max: u32,
    #[serde(default)]
    pub tier: Tier,
}

fn sixteen() -> u32 {
    16
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    #[default]
    Bundle,
    Skeleton,
}

/// What a uid may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Allow {
    pub uid: u32,
    #[serde(default)]
    pub pools: BTreeSet<String>,
    #[serde(default)]
    pub mounts: Vec<PathBuf>,
    #[serde(default)]
    pub users: BTreeSet<u32>,
    #[serde(default)]
    pub privileges: BTreeSet<Privilege>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    Limits,
    Priority,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "/run/hearth".into(),
            pools: "/var/lib/hearth/pools".into(),
            socket: None,
            group: None,
            metrics: None,
            log: Log::default(),
            memory: Memory::default(),
            limits: Limits::default(),
            learning: Learning::default(),
            declared: Vec::new(),
            allow: Vec::new(),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        let policy = policy::Config::default();
        Self { budget: Size(policy.budget), keep_available: Size(policy.keep_available) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let policy = policy::Config::default();
        Self {
            sandboxes: policy.max_sandboxes,
            forks: policy.max_forks,
            stand_back: Span(policy.stand_back),
            held_by_caller: policy.max_leases_per_caller,
            waiting: policy.max_waiting,
            waiting_by_caller: policy.max_waiting_per_caller,
            wait: Span(policy.wait),
            wait_only: Span(policy.wait_only),
        }
    }
}

impl Default for Learning {
    fn default() -> Self {
        let policy = policy::Config::default();
        Self {
            enabled: policy.learning,
            max_pools: policy.max_learned_pools,
            max_bundles: policy.max_learned_keys,
            keep_alive: Span(policy.keep_alive),
        }
    }
}

impl Settings {
    pub fn load(path: &Path) -> Result<Self, Error> {
        let read = |error| Error::Read(path.into(), error);
        let mut text = String::new();
        File::open(path).map_err(read)?.take(LARGEST + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > LARGEST {
            return Err(Error::TooLarge(path.into()));
        }
        Self::parse(&text).map_err(|what| Error::Wrong(path.into(), what))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = toml::from_str(text).map_err(|error| one_line(text, &error))?;
        settings.check()?;
        Ok(settings)
    }

    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.root.join("hearthd.sock"))
    }

    /// What the file may say, and the daemon cannot do yet: said at the start, not found out later.
    pub fn check_served(&self) -> Result<(), String> {
        if self.group.is_some() || !self.allow.is_empty() {
            return Err("group and allow: expected neither: hearthd is for root alone so far".into());
        }
        let unserved = |pool: &&Declared| pool.image.is_some() || pool.tier != Tier::Bundle;
        match self.declared.iter().find(unserved) {
            Some(pool) => Err(format!(
                "pool {:?}: expected a bundle and the tier \"bundle\" (`hearth pool create --image` unpacks images)",
                pool.name
            )),
            None => Ok(()),
        }
    }

    /// The part that is the policy's.
    pub fn policy(&self) -> policy::Config {
        policy::Config {
            budget: self.memory.budget.0,
            keep_available: self.memory.keep_available.0,
            max_sandboxes: self.limits.sandboxes,
            max_forks: self.limits.forks,
            stand_back: self.limits.stand_back.0,
            wait: self.limits.wait.0,
            wait_only: self.limits.wait_only.0,
            max_waiting: self.limits.waiting,
            max_waiting_per_caller: self.limits.waiting_by_caller,
            max_leases_per_caller: self.limits.held_by_caller,
            learning: self.learning.enabled,
            max_learned_keys: self.learning.max_bundles,
            max_learned_pools: self.learning.max_pools,
            keep_alive: self.learning.keep_alive.0,
        }
    }

    fn check(&self) -> Result<(), String> {
        let (limits, memory, learning) = (&self.limits, &self.memory, &self.learning);
        within("memory.budget", &memory.budget, Size(0)..=Size(1024 * GIB))?;
        within("memory.keep-available", &memory.keep_available, Size(0)..=Size(1024 * GIB))?;
        within("limits.sandboxes", &limits.sandboxes, 1..=20_000)?;
        within("limits.forks", &limits.forks, 1..=64)?;
        within("limits.stand-back", &limits.stand_back, Span(0)..=Span(SECOND))?;
        within("limits.held-by-caller", &limits.held_by_caller, 1..=20_000)?;
        within("limits.waiting", &limits.waiting, 0..=10_000)?;
        within("limits.waiting-by-caller", &limits.waiting_by_caller, 0..=10_000)?;
        within("limits.wait", &limits.wait, Span(0)..=Span(SECOND))?;
        within("limits.wait-only", &limits.wait_only, Span(0)..=Span(MINUTE))?;
        within("learning.max-pools", &learning.max_pools, 0..=10_000)?;
        within("learning.max-bundles", &learning.max_bundles, 0..=10_000)?;
        within("learning.keep-alive", &learning.keep_alive, Span(SECOND)..=Span(24 * HOUR))?;
        absolute("root", &self.root)?;
        absolute("pools", &self.pools)?;
        self.socket.iter().try_for_each(|path| absolute("socket", path))?;
        if let Some(group) = &self.group {
            named("group", group)?;
        }
        self.check_lists()
    }

    fn check_lists(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for pool in &self.declared {
            named("pool.name", &pool.name)?;
            if !names.insert(&pool.name) {
                return Err(format!("pool.name = {:?}: expected a name that no other pool has", pool.name));
            }
            pool.check().map_err(|what| format!("pool {:?}: {what}", pool.name))?;
        }
        let mut uids = BTreeSet::new();
        for allow in &self.allow {
            if allow.uid == 0 || !uids.insert(allow.uid) {
                return Err(format!("allow.uid = {}: expected each uid once, and not root's", allow.uid));
            }
            allow.pools.iter().try_for_each(|name| named("allow.pools", name))?;
            allow.mounts.iter().try_for_each(|path| absolute("allow.mounts", path))?;
        }
        Ok(())
    }
}

impl Declared {
    fn check(&self) -> Result<(), String> {
        match (&self.bundle, &self.image) {
            (Some(bundle), None) => absolute("bundle", bundle)?,
            (None, Some(image)) if (1..=512).contains(&image.len()) => {}
            (None, Some(image)) => return Err(format!("image of {} bytes: expected 1 to 512", image.len())),
            _ => return Err("expected either bundle or image".into()),
        }
        within("max", &self.max, 1..=10_000)?;
        within("min", &self.min, 0..=self.max)
    }
}

fn within<T: PartialOrd + fmt::Display>(
    key: &str,
    value: &T,
    range: RangeInclusive<T>,
) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(format!("{key} = {value}: expected {} to {}", range.start(), range.end()))
}

fn absolute(key: &str, path: &Path) -> Result<(), String> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path.as_os_str().len() < 4096 {
        return Ok(());
    }
    Err(format!("{key} = {path:?}: expected an absolute path without `..`"))
}

fn named(key: &str, name: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
    if begins_well && name.len() <= 64 && name.bytes().all(good) {
        return Ok(());
    }
    Err(format!("{key} = {name:?}: expected at most 64 of a-z A-Z 0-9 _ . -, beginning with none of . -"))
}

/// The parser's complaint, with the line that it is about.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    let Some(span) = error.span() else { return message };
    let before = text.get(..span.start).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line: String = text.lines().nth(number - 1).unwrap_or_default().trim().chars().take(80).collect();
    format!("line {number}, {line:?}: {message}")
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Size(u64);

/// Nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span(Nanos);

/// Units from the largest to the smallest.
const SIZES: [(&str, u64); 4] = [("G", GIB), ("M", 1 << 20), ("K", 1 << 10), ("", 1)];
const SPANS: [(&str, u64); 5] =
    [("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MILLISECOND), ("us", MILLISECOND / 1_000)];

fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn with_unit(value: u64, units: &[(&str, u64)], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    let (unit, factor) = exact.or(units.last()).copied().unwrap_or(("", 1));
    write!(formatter, "{}{unit}", value / factor)
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_unit(self.0, &SIZES, formatter)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_unit(self.0, &SPANS, formatter)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Size;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("bytes, or a number with K, M or G, such as \"64M\"")
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Size, E> {
                let wrong = || E::invalid_value(Unexpected::Signed(value), &self);
                u64::try_from(value).map(Size).map_err(|_| wrong())
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                let wrong = || E::invalid_value(Unexpected::Str(text), &self);
                number_with_unit(text, &SIZES).map(Size).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = "a number with us, ms, s, m or h, such as \"500ms\"";
        let wrong = || D::Error::invalid_value(Unexpected::Str(&text), &expected);
        number_with_unit(&text, &SPANS).map(Span).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Ok(port) = text.parse() {
            return Ok(Self::Port(port));
        }
        let expected = "ADDRESS:PORT or the absolute path of a socket";
        let wrong = |_| D::Error::invalid_value(Unexpected::Str(&text), &expected);
        absolute("metrics", Path::new(&text)).map_err(wrong)?;
        Ok(Self::Socket(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("hearthd.toml");

    #[test]
    fn an_empty_file_is_the_example_is_the_default() {
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
        assert_eq!(Settings::parse(EXAMPLE), Ok(Settings::default()));
        assert_eq!(Settings::default().policy(), policy::Config::default());
    }

    #[test]
    fn what_the_example_leaves_out_is_accepted_too() {
        let keys =
            |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(String::from);
        let whole: Vec<String> = EXAMPLE.lines().map(|line| keys(line).unwrap_or(line.into())).collect();
        let settings = Settings::parse(&whole.join("\n")).unwrap();
        assert_eq!(settings.socket(), Settings::default().socket());
        assert_eq!(settings.metrics, Some(Endpoint::Port("127.0.0.1:9464".parse().unwrap())));
        assert_eq!((settings.declared[0].max, settings.declared[0].tier), (16, Tier::Bundle));
        assert_eq!(settings.allow[0].privileges, BTreeSet::from([Privilege::Limits]));
    }

    #[test]
    fn sizes_and_times_take_units() {
        let text = "[memory]\nbudget = \"3G\"\nkeep-available = 4096\n[limits]\nwait = \"250us\"";
        let config = Settings::parse(text).unwrap().policy();
        assert_eq!((config.budget, config.keep_available, config.wait), (3 << 30, 4096, 250_000));
    }

    #[test]
    fn errors_are_one_line_with_key_value_and_expectation() {
        let cases = [
            ("x = 1", "line 1, \"x = 1\": unknown field `x`"),
            ("[memory]\nbudget = \"64X\"", "line 2, \"budget = \\\"64X\\\"\": invalid value"),
            ("[memory]\nbudget = -1", "such as \"64M\""),
            ("[memory]\nbudget = \"99999999999999999999G\"", "such as \"64M\""),
            ("[memory]\nbudget = \"2048G\"", "memory.budget = 2048G: expected 0 to 1024G"),
            ("[limits]\nforks = 0", "limits.forks = 0: expected 1 to 64"),
            ("[limits]\nforks = -3", "line 2, \"forks = -3\": invalid value"),
            ("[limits]\nwait = 3", "line 2, \"wait = 3\": invalid type"),
            ("[limits]\nwait = \"2m\"", "limits.wait = 2m: expected 0us to 1s"),
            ("[learning]\nkeep-alive = \"10ms\"", "learning.keep-alive = 10ms: expected 1s to 24h"),
            ("[log]\nformat = \"xml\"", "line 2, \"format = \\\"xml\\\"\": unknown variant `xml`"),
            ("root = \"run\"", "root = \"run\": expected an absolute path"),
            ("root = \"/run/../etc\"", "expected an absolute path"),
            ("metrics = \"somewhere\"", "expected ADDRESS:PORT"),
            ("group = \"a b\"", "group = \"a b\": expected at most 64"),
            ("[[pool]]\nname = \"a\"", "pool \"a\": expected either bundle or image"),
            ("[[pool]]\nname = \"a\"\nimage = \"i\"\nmin = 17", "pool \"a\": min = 17: expected 0 to 16"),
            ("[[pool]]\nbundle = \"/b\"", "missing field `name`"),
            ("[[allow]]\nuid = 0", "allow.uid = 0: expected each uid once"),
            ("[[allow]]\nuid = 7\nprivileges = [\"all\"]", "unknown variant `all`"),
            ("root = [", "line 1"),
        ];
        for (text, expected) in cases {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn the_same_name_twice_is_refused() {
        let pool = "[[pool]]\nname = \"a\"\nimage = \"i\"\n";
        assert!(Settings::parse(&pool.repeat(2)).unwrap_err().contains("no other pool has"));
        assert!(Settings::parse(&"[[allow]]\nuid = 5\n".repeat(2)).is_err());
    }

    #[test]
    fn a_file_has_a_size() {
        let dir = std::env::temp_dir().join(format!("hearthd-config-{}", std::process::id()));
        std::fs::write(&dir, "#".repeat(2 << 20)).unwrap();
        let error = Settings::load(&dir).unwrap_err();
        std::fs::remove_file(&dir).unwrap();
        assert!(matches!(error, Error::TooLarge(_)));
        assert!(matches!(Settings::load(&dir), Err(Error::Read(..))));
    }
}

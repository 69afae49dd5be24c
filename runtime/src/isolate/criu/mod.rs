//! criu, which freezes processes into files and makes processes of files, by its RPC: one request, notices on the way
//! that wait for an answer, one response. `wire` is the encoding, `launch` starts it, `stage` is what a restore finds,
//! `mounts` tells it of what comes from outside.
//!
//! The numbers below are those of criu's `rpc.proto`. Nothing in here knows containers' records: the verbs do.

pub mod descriptors;
pub mod images;
mod launch;
pub mod mounts;
pub mod stage;
mod wire;

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::net::SendFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};

pub use launch::Place;
use wire::{Fields, Message};

use crate::observe::log;
use crate::process::channel;
use crate::sys::clone::Child;
use crate::{Error, Result};

/// Older ones lack a part of what is relied on: notices of readiness, external namespaces, profiles.
const OLDEST: Version = Version([3, 16, 0]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u64; 3]);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, sublevel] = self.0;
        write!(f, "{major}.{minor}.{sublevel}")
    }
}

/// What criu is asked to do: `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::FeatureCheck => "FEATURE_CHECK",
            Self::Version => "VERSION",
        }
    }
}

/// Features that not every kernel has: fields of `criu_features`.
#[derive(Debug, Clone, Copy)]
pub enum Feature {
    MemoryTracking = 1,
    LazyPages = 2,
}

/// Fields of `criu_opts`.
#[derive(Debug, Clone, Copy)]
pub enum Field {
    ImagesDir = 1,
    Pid = 2,
    LeaveRunning = 3,
    ExtUnixSk = 4,
    TcpEstablished = 5,
    EvasiveDevices = 6,
    ShellJob = 7,
    FileLocks = 8,
    LogLevel = 9,
    LogFile = 10,
    PageServer = 11,
    NotifyScripts = 12,
    Root = 13,
    ParentImage = 14,
    TrackMemory = 15,
    AutoDedup = 16,
    WorkDir = 17,
    LinkRemap = 18,
    ExternalMount = 23,
    ManageCgroups = 24,
    CgroupRoot = 25,
    Sibling = 26,
    InheritFd = 27,
    CgroupsMode = 34,
    External = 37,
    EmptyNamespaces = 38,
    JoinNamespace = 39,
    FreezeCgroup = 44,
    TcpSkipInFlight = 46,
    LazyPages = 48,
    OrphanTerminal = 50,
    ConfigFile = 51,
    LsmProfile = 53,
    LsmMountContext = 63,
    OldMountEngine = 65,
}

/// Options of a request, built up.
#[derive(Debug, Default, Clone)]
pub struct Options(Message);

impl Options {
    pub fn flag(self, field: Field, value: bool) -> Self {
        Self(self.0.flag(field as u32, value))
    }

    pub fn number(self, field: Field, value: u64) -> Self {
        Self(self.0.number(field as u32, value))
    }

    pub fn text(self, field: Field, value: &str) -> Self {
        Self(self.0.text(field as u32, value))
    }

    /// A message of two texts: a mount's key and value, a controller and its root, a namespace and its file.
    pub fn pair(self, field: Field, first: &str, second: &str) -> Self {
        Self(self.0.message(field as u32, &Message::default().text(1, first).text(2, second)))
    }

    /// A message of a text and a number: an inherited descriptor, the page server.
    pub fn numbered(self, field: Field, text: &str, number: i32) -> Self {
        Self(self.0.message(field as u32, &Message::default().text(1, text).signed(2, number)))
    }

    /// A descriptor of ours, which criu opens by our pid and this number.
    pub fn descriptor(self, field: Field, fd: impl AsFd) -> Self {
        Self(self.0.signed(field as u32, fd.as_fd().as_raw_fd()))
    }
}

/// What criu tells on its way, and waits for an answer to.
#[derive(Debug)]
pub struct Notice {
    pub script: String,
    /// The first process's, where it is about that.
    pub pid: i32,
    pub fds: Vec<OwnedFd>,
}

/// criu's executable.
#[derive(Debug)]
pub struct Criu {
    path: PathBuf,
}

impl Criu {
    /// `wanted`: a path or a name (`--criu`).
    pub fn find(wanted: Option<&Path>) -> Result<Self> {
        let name = wanted.unwrap_or(Path::new("criu"));
        let missing =
            || Error::invalid("criu", name.display().to_string(), "the program criu, which is not installed");
        let path = if name.components().count() > 1 { Some(name.to_owned()) } else { search(name) };
        Ok(Self { path: path.filter(|path| is_executable(path)).ok_or_else(missing)? })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn version(&self) -> Result<Version> {
        let response = Session::start(self, None)?.ask(Verb::Version, &message(Verb::Version))?;
        let number = |field| Fields::new(&response).message(10).and_then(|version| version.number(field));
        Ok(Version([number(1).unwrap_or(0), number(2).unwrap_or(0), number(4).unwrap_or(0)]))
    }

    /// Refuses a criu that is too old for what the verbs rely on.
    pub fn check_version(&self) -> Result<Version> {
        match self.version()? {
            version if version < OLDEST => {
                Err(Error::invalid("version of criu", version.to_string(), format!("at least {OLDEST}")))
            }
            version => Ok(version),
        }
    }

    pub fn check_feature(&self, feature: Feature) -> Result<()> {
        let asked = Message::default().flag(feature as u32, true);
        let question = message(Verb::FeatureCheck).message(5, &asked);
        let response = Session::start(self, None)?.ask(Verb::FeatureCheck, &question)?;
        let is_there = Fields::new(&response).message(8).is_some_and(|found| found.flag(feature as u32));
        let (flag, needs) = match feature {
            Feature::MemoryTracking => ("--pre-dump", "memory tracking by the kernel"),
            Feature::LazyPages => ("--lazy-pages", "userfaultfd of the kernel"),
        };
        if is_there { Ok(()) } else { Err(Error::invalid(flag, "not supported here", needs)) }
    }
}

/// criu can do without root since lately, but not with what a container has.
pub fn require_root() -> Result<()> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    Err(Error::invalid("uid", uid.as_raw().to_string(), "0: checkpoints need root"))
}

/// A program of that name in PATH.
pub fn search(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// A running criu, which serves one request.
#[derive(Debug)]
pub struct Session {
    child: Child,
    socket: OwnedFd,
    path: PathBuf,
}

impl Session {
    pub fn start(criu: &Criu, place: Option<Place<'_>>) -> Result<Self> {
        let (child, socket) = launch::start(&criu.path, place)?;
        Ok(Self { child, socket, path: criu.path.clone() })
    }

    pub fn pid(&self) -> i32 {
        self.child.pid.as_raw_nonzero().get()
    }

    /// Carries a request out; every notice is shown to `heed`, whose failure makes criu take back what it did.
    /// `log`: where criu writes its own. Gives the first process's pid, of a restore.
    pub fn carry_out(
        self,
        verb: Verb,
        options: &Options,
        log: &Path,
        mut heed: impl FnMut(Notice) -> Result<()>,
    ) -> Result<Option<i32>> {
        let response = self.request(&message(verb).message(2, &options.0), verb, log, &mut heed)?;
        Ok(Fields::new(&response).message(4).and_then(|restored| restored.signed(1)))
    }

    /// A question without options; nothing is noticed meanwhile, and nothing is logged.
    fn ask(self, verb: Verb, question: &Message) -> Result<Vec<u8>> {
        self.request(question, verb, Path::new(""), &mut |_| Ok(()))
    }

    fn request(
        self,
        message: &Message,
        verb: Verb,
        log: &Path,
        heed: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<Vec<u8>> {
        // Where criu could not even start, it is told below.
        let _ = self.send(message);
        let result = self.converse(verb, log, heed);
        // A pre-dump waits for more until nobody is left to ask.
        drop(self.socket);
        let status = waitid(WaitId::Pid(self.child.pid), WaitIdOptions::EXITED);
        match result {
            Ok(Some(response)) => Ok(response),
            Ok(None) => {
                let code = status.ok().flatten().and_then(|status| status.exit_status());
                Err(failure(verb, launch::silence(&self.path, code), log))
            }
            Err(error) => Err(error),
        }
    }

    /// None where criu went without an answer.
    fn converse(
        &self,
        verb: Verb,
        log: &Path,
        heed: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<Option<Vec<u8>>> {
        let mut refused = None;
        loop {
            let (mut bytes, mut fds) = (Vec::new(), Vec::new());
            let length = channel::receive_packet(self.socket.as_fd(), &mut bytes, &mut fds);
            if length.map_err(Error::sys("receive from criu"))? == 0 {
                return refused.map_or(Ok(None), Err);
            }
            let response = Fields::new(&bytes);
            if response.number(1) == Some(Verb::Notify as u64) {
                let notice = response.message(5);
                let script = notice.and_then(|notice| notice.text(1)).unwrap_or_default().to_owned();
                let pid = notice.and_then(|notice| notice.signed(2)).unwrap_or(0);
                log::debug(&format!("criu: {script}"));
                let heeded = heed(Notice { script, pid, fds });
                let answer = self::message(Verb::Notify).flag(3, heeded.is_ok());
                refused = refused.or(heeded.err());
                let _ = self.send(&answer);
                continue;
            }
            return match refused {
                Some(error) => Err(error),
                None if response.flag(2) => Ok(Some(bytes)),
                None => {
                    let errno = response.signed(7).unwrap_or(0);
                    Err(failure(verb, format!("errno {errno}"), log))
                }
            };
        }
    }

    fn send(&self, message: &Message) -> rustix::io::Result<usize> {
        rustix::net::send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL)
    }
}

fn message(verb: Verb) -> Message {
    Message::default().number(1, verb as u64)
}

fn failure(verb: Verb, reason: String, log: &Path) -> Error {
    let line = first_error(log).map(|line| format!(": {line}")).unwrap_or_default();
    let place = if log.as_os_str().is_empty() { String::new() } else { format!(" (log: {})", log.display()) };
    Error::Criu { verb: verb.name(), reason: format!("{reason}{line}{place}") }
}

/// The first error in criu's log: what comes after it is what came of it.
fn first_error(log: &Path) -> Option<String> {
    const LIMIT: u64 = 16 << 20;
    let mut text = Vec::new();
    std::fs::File::open(log).ok()?.take(LIMIT).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut errors = text.lines().filter_map(|line| line.get(line.find("Error (")?..));
    // That a helper failed is told of probes too.
    let line = errors.find(|line| !line.contains("exited, status="))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criu_tells_its_version() {
        let Ok(criu) = Criu::find(None) else {
            eprintln!("SKIPPED: criu is not installed");
            return;
        };
        let version = criu.check_version().unwrap();
        let own = std::process::Command::new(criu.path()).arg("--version").output().unwrap();
        let own = String::from_utf8_lossy(&own.stdout).into_owned();
        let [major, minor, _] = version.0;
        assert!(own.contains(&format!("Version: {major}.{minor}")), "{version}: {own}");
    }

    #[test]
    fn what_is_not_criu_is_told_so() {
        let missing = Criu::find(Some(Path::new("/no/such/criu"))).unwrap_err().chain();
        assert!(missing.contains("not installed"), "{missing}");
        let silent = Criu::find(Some(Path::new("true"))).unwrap().version().unwrap_err().chain();
        assert!(silent.contains("status 0 and without an answer"), "{silent}");
    }

    #[test]
    fn the_first_error_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("dump.log");
        let text = "(00.1) Warn  (a.c:1): x\n(00.2) Error (util.c:2): exited, status=1\n\
            (00.3) Error (b.c:2): reason\n(00.4) Error (c.c:3): Dumping FAILED.\n";
        std::fs::write(&log, text).unwrap();
        assert_eq!(first_error(&log).as_deref(), Some("Error (b.c:2): reason"));
        std::fs::write(&log, "nothing\n").unwrap();
        assert_eq!(first_error(&log), None);
    }
}

//! All that is on disk about containers: `ROOT/ID/state.json`, `ROOT/ID/config.json` and, until it is started,
//! `ROOT/ID/start.sock`.
//!
//! A container's directory appears under its name by one rename, with its lock held: a directory whose lock is free
//! has no creator any more. State is replaced by rename; nothing is synced, for /run does not survive a crash.

pub mod record;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::bundle::validate;
use crate::observe::process::is_rootless;
use crate::{Error, Result};
use record::Record;

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";
/// Before a container's directory has its name; no id starts with a dot.
const DRAFT: &str = ".new-";
pub const START_SOCKET: &str = "start.sock";
/// Directory of the container's NOTIFY_SOCKET.
pub const NOTIFY: &str = "notify";

/// How long a command waits for another one that is changing the same container.
const PATIENCE: Duration = Duration::from_secs(10);

/// The directory of all containers (`--root`).
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
}

/// The directory of one container.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    fd: OwnedFd,
}

impl Root {
    /// `/run/hearth`, or the session's of an ordinary user.
    pub fn default_place() -> Result<Self> {
        let (uid, session) = (rustix::process::geteuid(), std::env::var_os("XDG_RUNTIME_DIR"));
        let session = session.filter(|dir| !dir.is_empty()).map(PathBuf::from);
        if uid.is_root() && (session.is_none() || !is_rootless()) {
            return Self::new(Path::new("/run/hearth"));
        }
        // Where a login without the variable, as by `su`, has it.
        let usual = || {
            let dir = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
            dir.is_dir().then_some(dir)
        };
        let missing = || {
            let expected = "the directory of the login session, or --root DIR";
            Error::invalid("XDG_RUNTIME_DIR", "not set", expected)
        };
        Self::new(&session.or_else(usual).ok_or_else(missing)?.join("hearth"))
    }

    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { path: std::path::absolute(path).map_err(Error::path("resolve --root", path))? })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where detached launches write what they say.
    pub fn logs(&self) -> PathBuf {
        if self.path == Path::new("/run/hearth") { "/var/log/hearth".into() } else { self.path.join(".logs") }
    }

    /// The ids of all containers, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::path("read", &self.path))?,
        };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<_> = names.filter(|name| validate::id(name).is_ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Closed to other users. Sticky, as the XDG Base Directory Specification has it for what no clean-up of old files
    /// shall take away.
    fn make(&self) -> Result<()> {
        let fail = |call| Error::path(call, &self.path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(fail("mkdir"))?;
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o1700)).map_err(fail("chmod"))
    }

    /// Removes what a creator that died at its very first steps left: no container has that name yet.
    pub fn remove_drafts(&self) -> Result<usize> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Ok(0) };
        let drafts = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_draft = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(DRAFT.as_bytes()))
        };
        let mut removed = 0;
        for path in drafts.filter(is_draft) {
            let Ok(fd) = directory(CWD, &path) else { continue };
            if try_lock(fd.as_fd()).map_err(Error::path("lock", &path))? {
                rustix::fs::rmdir(&path).map_err(Error::path("rmdir", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    pub fn open(&self, id: &str) -> Result<Dir> {
        validate::id(id)?;
        let path = self.path.join(id);
        match directory(CWD, &path) {
            Ok(fd) => Ok(Dir { path, fd }),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Err(Error::NoContainer { id: id.to_owned() }),
            Err(errno) => Err(Error::path("open", &path)(errno)),
        }
    }

    /// Makes the directory of a new container, locked. None where the id is taken.
    pub fn reserve(&self, id: &str) -> Result<Option<Dir>> {
        validate::id(id)?;
        let path = self.path.join(id);
        let draft = self.path.join(format!("{DRAFT}{id}"));
        let fail = |call| Error::path(call, &path);
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdir(&draft, mode) {
            Err(Errno::NOENT) => {
                self.make()?;
                rustix::fs::mkdir(&draft, mode).map_err(fail("mkdir"))?;
            }
            // A creator that died at this very point, or one that is at it now: the lock tells.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail("mkdir")(errno)),
        }
        let fd = directory(CWD, &draft).map_err(fail("open"))?;
        if !try_lock(fd.as_fd()).map_err(fail("lock"))? {
            return Ok(None);
        }
        match rustix::fs::renameat_with(CWD, &draft, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Some(Dir { path, fd })),
            Err(errno) => {
                let _ = rustix::fs::rmdir(&draft);
                if errno == Errno::EXIST { Ok(None) } else { Err(fail("make")(errno)) }
            }
        }
    }
}

impl Dir {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Waits until no other command changes this container. The lock ends with the process.
    pub fn lock(&self) -> Result<()> {
        const STEP: Duration = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while !try_lock(self.fd.as_fd()).map_err(Error::path("lock", &self.path))? {
            if waited >= PATIENCE {
                let busy =
                    io::Error::new(io::ErrorKind::TimedOut, "another command is changing this container");
                return Err(Error::path("lock", &self.path)(busy));
            }
            std::thread::sleep(STEP);
            waited += STEP;
        }
        // The lock of a directory that was deleted meanwhile protects nothing; another may have its name by now.
        let (mine, there) = (rustix::fs::fstat(&self.fd), rustix::fs::stat(&self.path));
        match (mine, there) {
            (Ok(mine), Ok(there)) if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino) => Ok(()),
            _ => Err(Error::NoContainer { id: self.id() }),
        }
    }

    pub fn unlock(&self) -> Result<()> {
        rustix::fs::flock(&self.fd, FlockOperation::Unlock).map_err(Error::path("unlock", &self.path))
    }

    /// Whether a living process holds the lock.
    pub fn is_busy(&self) -> Result<bool> {
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let unlocked = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
                unlocked.map(|()| false).map_err(Error::path("unlock", &self.path))
            }
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(Error::path("lock", &self.path)(errno)),
        }
    }

    /// None where its creator died before it wrote one.
    pub fn read(&self) -> Result<Option<Record>> {
        match self.read_file(STATE) {
            // Empty: it died between the making and the one write of the first.
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => Record::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::path("read", self.path.join(STATE))(error)),
        }
    }

    /// The first record and the config, of a container that nobody can have read yet.
    pub fn write_first(&self, record: &Record) -> Result<()> {
        self.create(STATE, &to_json(record)?)
    }

    pub fn write(&self, record: &Record) -> Result<()> {
        self.replace(STATE, &to_json(record)?)
    }

    /// config.json as it was when the container was created.
    pub fn read_config(&self) -> Result<Vec<u8>> {
        self.read_file(CONFIG).map_err(Error::path("read", self.path.join(CONFIG)))
    }

    pub fn write_config(&self, text: &[u8]) -> Result<()> {
        self.create(CONFIG, text)
    }

    /// Removes the directory and what Hearth puts there.
    pub fn remove(&self) -> Result<()> {
        for name in [CONFIG, STATE] {
            match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::path("remove", self.path.join(name))(errno)),
            }
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Sockets, or the draft of a writer that died.
            Err(Errno::NOTEMPTY) => fs::remove_dir_all(&self.path).map_err(Error::path("remove", &self.path)),
            Err(errno) => Err(Error::path("rmdir", &self.path)(errno)),
        }
    }

    /// The start socket by a path that fits into a sockaddr_un.
    pub fn start_socket(&self) -> PathBuf {
        self.short(START_SOCKET)
    }

    pub fn notify_socket(&self, name: &str) -> PathBuf {
        self.short(&format!("{NOTIFY}/{name}"))
    }

    fn short(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    pub fn has_start_socket(&self) -> bool {
        rustix::fs::statat(&self.fd, START_SOCKET, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub fn remove_start_socket(&self) {
        // Already gone is as good.
        let _ = rustix::fs::unlinkat(&self.fd, START_SOCKET, AtFlags::empty());
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        use std::io::Read;
        const LIMIT: u64 = 64 << 20;
        let file = rustix::fs::openat(&self.fd, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = Vec::with_capacity(16 << 10);
        fs::File::from(file).take(LIMIT).read_to_end(&mut text)?;
        Ok(text)
    }

    fn create(&self, name: &str, text: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))
            .map_err(Error::path("create", self.path.join(name)))?;
        let written = io::Write::write_all(&mut fs::File::from(file), text);
        written.map_err(Error::path("write", self.path.join(name)))
    }

    fn replace(&self, name: &str, text: &[u8]) -> Result<()> {
        let draft = format!(".{name}");
        self.create(&draft, text)?;
        rustix::fs::renameat(&self.fd, &draft, &self.fd, name)
            .map_err(Error::path("rename", self.path.join(name)))
    }
}

fn to_json(record: &Record) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|source| Error::Json { what: STATE.into(), source })
}

fn directory(at: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

fn try_lock(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}

//! The directory of images, and what `checkpoint` and `restore` are asked for alike.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Criu, Field, Options};
use crate::{Error, Result};

/// CLONE_NEWNET: as in runc, a new network namespace is left to hooks and engines.
const NETWORK: u64 = 0x4000_0000;
/// What criu is to log: all but what helps only its authors.
const LOG_LEVEL: u64 = 4;

#[derive(Debug)]
pub struct Images {
    /// `--criu`
    pub criu: Option<PathBuf>,
    pub path: PathBuf,
    /// Where criu's log and its other files go, if not to the images.
    pub work: Option<PathBuf>,
    /// The value of `criu_cg_mode`.
    pub cgroups_mode: u64,
    pub tcp_established: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
}

/// Open directories, by which criu finds its files.
#[derive(Debug)]
pub struct Open {
    pub images: OwnedFd,
    work: Option<OwnedFd>,
    pub log: PathBuf,
}

impl Images {
    /// criu, of a version that can be used.
    pub fn criu(&self) -> Result<Criu> {
        let criu = Criu::find(self.criu.as_deref())?;
        criu.check_version().map(|_| criu)
    }

    pub fn make(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(Error::path("make --image-path", &self.path))
    }

    /// `log`: the name of criu's log.
    pub fn open(&self, log: &str) -> Result<Open> {
        let images = open(&self.path, "open --image-path")?;
        let work = match &self.work {
            None => None,
            Some(path) => match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::path("make --work-path", path)(error));
                }
                _ => Some(open(path, "open --work-path")?),
            },
        };
        let log = self.work.as_ref().unwrap_or(&self.path).join(log);
        Ok(Open { images, work, log })
    }

    /// `config`: the annotation that names a configuration of criu's, whose settings overrule ours. Empty: none.
    pub fn options(&self, open: &Open, config: Option<&str>) -> Options {
        let log = open.log.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let mut options = Options::default()
            .descriptor(Field::ImagesDir, &open.images)
            .number(Field::LogLevel, LOG_LEVEL)
            .text(Field::LogFile, &log)
            .flag(Field::NotifyScripts, true)
            .flag(Field::ManageCgroups, true)
            .number(Field::CgroupsMode, self.cgroups_mode)
            .number(Field::EmptyNamespaces, NETWORK)
            .flag(Field::OrphanTerminal, true)
            .flag(Field::TcpEstablished, self.tcp_established)
            .flag(Field::ExtUnixSk, self.ext_unix_sk)
            .flag(Field::ShellJob, self.shell_job)
            .flag(Field::FileLocks, self.file_locks)
            .flag(Field::AutoDedup, self.auto_dedup)
            .flag(Field::LazyPages, self.lazy_pages);
        if let Some(work) = &open.work {
            options = options.descriptor(Field::WorkDir, work);
        }
        match config.unwrap_or("/etc/criu/runc.conf") {
            "" => options,
            file => options.text(Field::ConfigFile, file),
        }
    }
}

fn open(path: &Path, call: &'static str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::path(call, path))
}

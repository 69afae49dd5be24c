//! The last steps, the same for a container's first process and for one that joins: rights, then the program.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};

use super::super::EXEC;
use super::super::channel::{self, ToRuntime};
use super::{Failure, step};
use crate::bundle::plan::Common;
use crate::bundle::process::{LISTEN_PID, Process};
use crate::isolate::landlock::Ruleset;
use crate::isolate::terminal::Pty;
use crate::isolate::{labels, rights, seccomp, terminal};
use crate::sys::{self, clone::Exec};
use crate::{Error, Result};

/// Found and looked at while it can still be told why it will not run.
#[derive(Debug)]
pub(super) struct Program {
    path: CString,
    pub(super) env: Vec<String>,
    /// Rules that wait for the last moment.
    landlock: Option<Ruleset>,
}

/// Everything that can fail before the program is due.
pub(super) fn prepare(
    process: &Process,
    common: &Common,
    pty: Option<&Pty>,
    report: &OwnedFd,
) -> Result<Program, Failure> {
    if let Some(pty) = pty {
        step("13 terminal", terminal::take(&pty.peer))?;
    }
    step("13 labels", labels::apply(process))?;
    step("13 rights", scheduling(process, common))?;
    if process.uid != 0 {
        step("13 rights", terminal::own_stdio(process.uid))?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
    // Now: the filter may forbid it. What is opened from here on is opened to be closed.
    step("13 rights", sys::fd::cloexec_from(3 + process.preserve_fds).map_err(Error::sys("close_range")))?;
    let mut rules = step("13 landlock", common.landlock.as_ref().map(Ruleset::new).transpose())?;
    if process.no_new_privileges {
        step("13 rights", no_new_privileges())?;
    } else {
        // Without no_new_privs both need CAP_SYS_ADMIN, which is about to go.
        if let Some(rules) = rules.take() {
            step("13 landlock", rules.take_on())?;
        }
        if let Some(filter) = &common.seccomp {
            step("13 seccomp", load_filter(filter, report))?;
        }
    }
    // Once with root's rights, for a directory that only root may enter, once with the user's own.
    // Every way here leads through "/".
    let elsewhere = process.cwd != "/";
    let as_root = if elsewhere { rustix::process::chdir(process.cwd.as_str()) } else { Ok(()) };
    step("13 rights", rights::become_user(process))?;
    if as_root.is_err() {
        let call = Error::path("chdir to cwd", &process.cwd);
        step("13 cwd", rustix::process::chdir(process.cwd.as_str()).map_err(call))?;
    }
    if elsewhere {
        step("13 cwd", inside_root())?;
    }
    let program = step("13 program", program(process))?;
    Ok(Program { landlock: rules, ..program })
}

/// The same rights for the process that stays behind as the container's init.
pub(super) fn restrict(process: &Process, common: &Common) -> Result<(), Failure> {
    step("13 labels", labels::take_on(process))?;
    if process.no_new_privileges {
        step("13 rights", no_new_privileges())?;
    } else if let Some(filter) = &common.seccomp {
        step("13 seccomp", filter.load().map(drop))?;
    }
    let mut process = process.clone();
    if let (Some(sets), 1..) = (&mut process.capabilities, process.uid) {
        // As the kernel does at exec.
        sets.permitted &= sets.ambient;
        sets.effective &= sets.ambient;
    }
    step("13 rights", rights::become_user(&process))
}

/// After which it can do little more than its work.
pub(super) fn restrict_last(process: &Process, common: &Common) -> Result<()> {
    let filter = common.seccomp.as_ref().filter(|_| process.no_new_privileges);
    filter.map_or(Ok(()), |filter| filter.load().map(drop))
}

fn no_new_privileges() -> Result<()> {
    rustix::thread::set_no_new_privs(true).map_err(Error::sys("PR_SET_NO_NEW_PRIVS"))
}

fn scheduling(process: &Process, common: &Common) -> Result<()> {
    rights::set_limits(&process.rlimits)?;
    rights::set_scheduling(process.scheduler.as_ref(), process.io_priority)?;
    if let Some(persona) = common.personality {
        sys::process::set_personality(persona).map_err(Error::sys("personality"))?;
    }
    match &common.memory_policy {
        Some((mode, nodes)) => sys::process::set_memory_policy(*mode, nodes)
            .map_err(Error::sys("set_mempolicy (linux.memoryPolicy)")),
        None => Ok(()),
    }
}

/// A working directory outside the root, which the kernel tells by "(unreachable)" (CVE-2024-21626).
fn inside_root() -> Result<()> {
    let cwd = rustix::process::getcwd(Vec::new()).map_err(Error::sys("getcwd"))?;
    if cwd.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Error::invalid("process.cwd", cwd.to_string_lossy(), "a directory inside the container's root"))
}

fn program(process: &Process) -> Result<Program> {
    let mut env = process.env.clone();
    let has_home = env.iter().any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty()));
    if !has_home {
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={}", home(process.uid)));
    }
    // The first process of a container need not be its program.
    if let Some(entry) = env.iter_mut().find(|entry| *entry == LISTEN_PID) {
        *entry = format!("LISTEN_PID={}", rustix::process::getpid().as_raw_nonzero());
    }
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let path = if name.contains('/') { check(name, Path::new(name))? } else { search(name, &env)? };
    let path = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Program { program: name.to_owned(), reason: "a NUL byte in its name".into() })?;
    Ok(Program { path, env, landlock: None })
}

fn search(name: &str, env: &[String]) -> Result<PathBuf> {
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut refused = None;
    for directory in path.split(':').map(|directory| if directory.is_empty() { "." } else { directory }) {
        let candidate = Path::new(directory).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(rustix::io::Errno::ACCESS) => refused = Some("permission denied"),
            Err(_) => {}
        }
    }
    let reason = refused.unwrap_or("executable file not found in $PATH").into();
    Err(Error::Program { program: name.to_owned(), reason })
}

fn check(name: &str, path: &Path) -> Result<PathBuf> {
    match executable(path) {
        Ok(()) => Ok(path.to_owned()),
        Err(errno) => {
            let reason = match errno {
                rustix::io::Errno::ACCESS => "permission denied".to_owned(),
                rustix::io::Errno::ISDIR => "is a directory".to_owned(),
                errno => format!("stat {name}: {}", crate::error::describe(&std::io::Error::from(errno))),
            };
            Err(Error::Program { program: name.to_owned(), reason })
        }
    }
}

fn executable(path: &Path) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(rustix::io::Errno::ISDIR);
    }
    // With the rights that the program will have: a capability may stand in for a missing bit.
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A filter that does not know the call.
        Err(rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) => rustix::fs::access(path, Access::EXEC_OK),
        result => result,
    }
}

/// The image's own file: it may be anything, a fifo that nobody writes to included.
fn passwd(limit: u64) -> std::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(std::fs::File::from(file), limit), &mut text)?;
    Ok(text)
}

/// As in runc: the user's home by the container's own /etc/passwd, else the root.
fn home(uid: u32) -> String {
    const LIMIT: u64 = 1 << 20;
    let text = passwd(LIMIT).unwrap_or_default();
    let home = text.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2).unwrap_or("/").to_owned())
    });
    home.filter(|home| home.starts_with('/')).unwrap_or_else(|| "/".into())
}

fn load_filter(filter: &seccomp::Program, report: &OwnedFd) -> Result<()> {
    if !filter.notify {
        return filter.load().map(drop);
    }
    let socket = report.try_clone().map_err(Error::sys("dup"))?;
    seccomp::notify::load(filter, move |listener| {
        channel::send(socket.as_fd(), &ToRuntime::Listener, &[listener])
    })
}

/// The last restrictions, for a process that gains no privileges any more: hooks of the container's own run in them.
pub(super) fn lock_down(
    process: &Process,
    common: &Common,
    program: &Program,
    report: &OwnedFd,
) -> Result<(), Failure> {
    if let Some(rules) = &program.landlock {
        step("14 landlock", rules.take_on())?;
    }
    match &common.seccomp {
        Some(filter) if process.no_new_privileges => step("14 seccomp", load_filter(filter, report)),
        _ => Ok(()),
    }
}

/// Becomes the program. Nothing of the host's is left open: what lies above the preserved descriptors goes at exec.
pub(super) fn execute(process: &Process, program: &Program) -> Result<Infallible, Failure> {
    let c_strings =
        |list: &[String]| list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
    let nul = |_| (EXEC, Error::invalid("process.args and process.env", "a NUL byte", "none"));
    let (argv, envp) = (c_strings(&process.args).map_err(nul)?, c_strings(&program.env).map_err(nul)?);
    let exec = Exec::new(&argv, &envp);
    let Err(source) = exec.execute(&program.path);
    let program = program.path.to_string_lossy().into_owned();
    Err((EXEC, Error::Exec { program, source }))
}

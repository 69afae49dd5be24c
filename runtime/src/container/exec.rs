//! `exec`: one more process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Pid, Signal, geteuid, pidfd_send_signal};

use super::run::Signals;
use super::{Container, Status, console, create, notify, start};
use crate::bundle::{capabilities, load, plan::Common, process::Process, validate};
use crate::isolate::cgroup::Below;
use crate::isolate::{idmap, labels, seccomp::notify::Agent};
use crate::observe::{self, log};
use crate::process::channel::{self, Join, ToInit, ToRuntime};
use crate::process::spawn;
use crate::sys::clone::Child;
use crate::{Error, Result};

/// What changes the container's own process, or replaces it.
#[derive(Debug, Default)]
pub struct Options {
    pub process: Option<PathBuf>,
    pub args: Vec<String>,
    pub cwd: Option<String>,
    pub env: Vec<String>,
    pub tty: bool,
    /// uid and gid.
    pub user: Option<(u32, Option<u32>)>,
    pub additional_gids: Vec<u32>,
    pub caps: Vec<String>,
    pub no_new_privs: bool,
    pub apparmor: Option<String>,
    pub process_label: Option<String>,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub detach: bool,
    pub preserve_fds: u32,
    pub ignore_paused: bool,
    /// Below the container's own cgroups.
    pub cgroups: Vec<String>,
    pub pidfd_socket: Option<PathBuf>,
}

const STOPPED: &str = "cannot exec in a stopped container";

/// The exit status of the command: the process's, or 0 when detached.
pub fn exec(container: &Container, options: &Options) -> Result<u8> {
    match container.status()? {
        Status::Created | Status::Running => {}
        Status::Paused if options.ignore_paused => {}
        Status::Paused => return Err(container.refuse("cannot exec in a paused container")),
        Status::Creating => return Err(container.refuse("cannot exec in a container that is being created")),
        Status::Stopped => return Err(container.refuse(STOPPED)),
    }
    let init = container.process().ok_or_else(|| container.refuse(STOPPED))?;
    let (join, outside) = plan(container, options)?;
    let terminal = join.process.terminal.is_some();
    console::requirements(terminal, !options.detach, options.console_socket.as_deref())?;
    let signals = if options.detach { None } else { Some(Signals::block()?) };
    let cgroups = &container.record()?.cgroups;
    let mut below = Below::parse(&options.cgroups)?;
    if below.is_empty() {
        // Where init is: a container with groups of its own may allow no process in its outermost one.
        below = Below::v2(cgroups.place_of(container.record()?.process.map_or(0, |process| process.pid))?);
    }
    let leaf = cgroups.open(&below)?;
    let spawned = spawn::joiner(&leaf, &join.process)?;
    join.common.tell();
    log::debug("nsexec container setup: cloned, to join the container's namespaces");
    if let (Some(cpus), _) = &join.process.affinity {
        log::debug(&format!(
            "nsexec: affinity: {:#x}",
            cpus.iter().fold(0_u128, |mask, cpu| mask | 1 << (cpu % 128))
        ));
    }
    drop(leaf);
    if let Some(groups) = &container.record()?.intel_rdt {
        groups.join(spawned.child.pid.as_raw_nonzero().get())?;
    }
    let message = ToInit::Join(Box::new(join));
    channel::send(spawned.socket.as_fd(), &message, &[init.as_fd()])
        .map_err(|_| spawn::silent_end(spawned.child.pid))?;
    drop(init);
    log::debug("child process in init(): it has its plan");
    log::debug("setns_init: about to exec");
    let (joined, terminal) = converse(&spawned, container, options, &outside)?;
    match signals {
        Some(signals) => signals
            .wait(joined.pidfd.as_fd(), &joined.pidfd, terminal, None)
            .and_then(|_| super::run::reap(joined.pid))
            .map(super::run::code),
        None => Ok(0),
    }
}

/// Joiner and joined share the socket, so their words may come in any order. The stream ends when the program is
/// executed, or when nobody is left to execute it.
fn converse(
    spawned: &spawn::Spawned,
    container: &Container,
    options: &Options,
    outside: &Outside,
) -> Result<(Child, Option<OwnedFd>)> {
    let mut terminal = None;
    let mut joined = None;
    let mut failure = None;
    let mut listener = None;
    let ended = loop {
        if let (Some(child), Some(fds)) = (&joined, listener.take_if(|_| joined.is_some()))
            && let Err(error) = deliver_listener(container, outside, fds, child)
        {
            break Err(error);
        }
        match channel::receive::<ToRuntime>(spawned.socket.as_fd())
            .map_err(Error::sys("receive from init"))?
        {
            Some((ToRuntime::Console, fds)) => {
                let master = fds.into_iter().next().ok_or(Error::InitGone)?;
                terminal = console::deliver(master, options.console_socket.as_deref())?;
            }
            Some((ToRuntime::Joined { pid }, fds)) => {
                let pidfd = fds.into_iter().next().ok_or(Error::InitGone)?;
                let child = joined.insert(Child { pid: Pid::from_raw(pid).ok_or(Error::InitGone)?, pidfd });
                announce(child, options, outside.score)?;
            }
            Some((ToRuntime::Listener, fds)) => listener = Some(fds),
            Some((ToRuntime::Failed { step, message }, _)) => failure = Some(Error::Init { step, message }),
            Some(_) => break Err(Error::InitGone),
            None => break Ok(()),
        }
    };
    match (joined, failure) {
        (Some(joined), None) => {
            super::run::reap(spawned.child.pid)?;
            if ended.is_err() {
                // It may wait for a listener that nobody has.
                let _ = pidfd_send_signal(&joined.pidfd, Signal::KILL);
                super::run::reap(joined.pid)?;
            }
            ended.map(|()| (joined, terminal))
        }
        (joined, failure) => {
            if let Some(joined) = joined {
                super::run::reap(joined.pid)?;
            }
            let silent = spawn::silent_end(spawned.child.pid);
            Err(failure.unwrap_or(silent))
        }
    }
}

fn deliver_listener(
    container: &Container,
    outside: &Outside,
    fds: Vec<OwnedFd>,
    child: &Child,
) -> Result<()> {
    let init = container.record()?.process.map_or(0, |process| process.pid);
    let bundle = container.record()?.bundle.display().to_string();
    let state = start::state(container, "running", init, &bundle)?;
    create::deliver_listener(outside.agent.as_ref(), fds, child.pid.as_raw_nonzero().get(), &state)
}

fn announce(child: &Child, options: &Options, score: Option<i32>) -> Result<()> {
    let pid = child.pid.as_raw_nonzero().get();
    if let Some(score) = score {
        create::set_oom_score(pid, score)?;
    }
    if let Some(path) = &options.pidfd_socket {
        console::send(child.pidfd.as_fd(), b"pidfd", path)?;
    }
    options.pid_file.as_ref().map_or(Ok(()), |path| create::write_pid_file(path, pid))
}

/// What is done from outside for a process that joins.
struct Outside {
    /// Only the host may set it.
    score: Option<i32>,
    agent: Option<Agent>,
}

/// The message for the joiner, and what it cannot do itself.
fn plan(container: &Container, options: &Options) -> Result<(Join, Outside)> {
    let record = container.record()?;
    let spec = start::stored_spec(container)?;
    let own = spec.process().clone().ok_or(Error::InitGone)?;
    let linux = spec.linux().as_ref();
    let mut process = match &options.process {
        Some(path) => {
            let (given, warnings) = load::process(path)?;
            warnings.iter().for_each(|warning| observe::log::warn(warning));
            validate::process(&given)?;
            Process::from_spec(&given)?
        }
        None => {
            let mut process = Process::from_spec(&own)?;
            process.terminal = None;
            process
        }
    };
    change(&mut process, options)?;
    process
        .warnings(record.namespaces & libc::CLONE_NEWUSER as u64 != 0)
        .for_each(|warning| observe::log::warn(&warning));
    labels::check(&process)?;
    process.preserve_fds = options.preserve_fds + notify::listen_fds(&mut process.env)?;
    let init = record.process.and_then(|process| Pid::from_raw(process.pid));
    process.groups_denied = init.is_some_and(|pid| idmap::denies_groups(pid, record.namespaces));
    let agent = linux.and_then(|linux| linux.seccomp().as_ref()).and_then(Agent::of);
    let score = process.oom_score_adj.filter(|_| geteuid().is_root());
    let outside = Outside { score, agent };
    let ignored_signals = observe::process::ignored_signals()?;
    let join = Join {
        process,
        common: Common::from_spec(&spec)?,
        namespaces: record.namespaces,
        id: record.id.clone(),
        ignored_signals,
    };
    Ok((join, outside))
}

fn change(process: &mut Process, options: &Options) -> Result<()> {
    if options.process.is_none() {
        process.args.clone_from(&options.args);
    }
    if let Some(cwd) = &options.cwd {
        if !cwd.starts_with('/') {
            return Err(Error::invalid("--cwd", cwd, "an absolute path"));
        }
        process.cwd.clone_from(cwd);
    }
    process.set_env(&options.env);
    if options.tty {
        process.terminal = Some(process.terminal.unwrap_or_default());
    }
    if let Some(window) = &mut process.terminal {
        window.bare_line_feeds = options.console_socket.is_none();
    }
    if let Some((uid, gid)) = options.user {
        process.uid = uid;
        process.gid = gid.unwrap_or(process.gid);
    }
    process.groups.extend(&options.additional_gids);
    for name in &options.caps {
        match capabilities::parse(name) {
            Ok(mask) => process.capabilities.get_or_insert_default().add(mask),
            // As in config.json, and as in runc.
            Err(error) => log::warn(&format!("ignoring {}", error.chain())),
        }
    }
    process.no_new_privileges |= options.no_new_privs;
    if options.apparmor.is_some() {
        process.apparmor.clone_from(&options.apparmor);
    }
    if options.process_label.is_some() {
        process.selinux.clone_from(&options.process_label);
    }
    if process.args.is_empty() {
        return Err(Error::invalid("COMMAND", "missing", "a program to execute, or --process FILE"));
    }
    Ok(())
}

/// `--user`: `uid[:gid]`, numbers only (crun CVE-2026-30892 came from a lenient parser).
pub fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let bad = || Error::invalid("--user", text, "uid[:gid] in numbers");
    // u32's own parser takes a leading plus; the last id means "none" to the kernel.
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let id = digits.then(|| text.parse::<u32>().ok()).flatten();
        id.filter(|id| *id != u32::MAX).ok_or_else(bad)
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_pair_of_ids_is_parsed_to_itself(uid in 0..u32::MAX, gid in 0..u32::MAX) {
            assert_eq!(parse_user(&format!("{uid}:{gid}")).unwrap(), (uid, Some(gid)));
            assert_eq!(parse_user(&uid.to_string()).unwrap(), (uid, None));
        }

        #[test]
        fn nothing_else_is_a_user(text in "(\\PC{0,12}|[0-9+: -]{1,6})") {
            let strict = text.split(':').count() <= 2
                && text.split(':').all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()) && part.parse::<u32>().is_ok_and(|id| id != u32::MAX));
            assert_eq!(parse_user(&text).is_ok(), strict, "{text:?}");
        }
    }
}

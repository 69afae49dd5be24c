//! Hooks: programs of the user's, run at points of a container's life with its state on their standard input.

use std::io::{Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;

use crate::bundle::plan::Hook;
use crate::{Error, Result};

/// The state that a hook reads (runtime.md, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub status: &'a str,
    pub pid: i32,
    pub bundle: &'a str,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<&'a str, &'a str>,
}

impl<'a> State<'a> {
    pub fn new(
        id: &'a str,
        status: &'a str,
        pid: i32,
        bundle: &'a str,
        annotations: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let annotations = annotations.map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Self { oci_version: crate::OCI_VERSION, id, status, pid, bundle, annotations }
    }
}

/// Runs hooks in their order; the first that fails ends it. A hook without an environment of its own gets `env`, or,
/// as in runc, that of this process.
pub fn run(name: &'static str, hooks: &[Hook], state: &State<'_>, env: Option<&[String]>) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state).map_err(|source| Error::Json { what: "state".into(), source })?;
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, &state, env).map_err(|message| Error::Hook {
            name,
            index,
            path: hook.path.clone(),
            message,
        })?;
    }
    Ok(())
}

fn one(hook: &Hook, state: &[u8], env: Option<&[String]>) -> Result<(), String> {
    // Memory files instead of pipes: nothing blocks, and a process that the hook leaves behind holds nothing up.
    let file = |name: &str| {
        let made = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(|errno| errno.to_string())?;
        Ok::<_, String>(std::fs::File::from(made))
    };
    let (mut input, mut output) = (file("state")?, file("output")?);
    input.write_all(state).and_then(|()| input.rewind()).map_err(|error| error.to_string())?;
    let share = |file: &std::fs::File| file.try_clone().map(Stdio::from).map_err(|error| error.to_string());
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    if let Some(env) = if hook.env.is_empty() { env } else { Some(hook.env.as_slice()) } {
        command.env_clear().envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    command.stdin(share(&input)?).stdout(share(&output)?).stderr(share(&output)?);
    let mut child = command.spawn().map_err(|error| crate::error::describe(&error))?;
    let in_time = hook.timeout.map_or(Ok(()), |seconds| wait_for(child.id(), seconds));
    let status = child.wait().map_err(|error| error.to_string())?;
    in_time?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    let _ = output.rewind().and_then(|()| (&output).take(4096).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal_words(signal.unwrap_or(0))),
    };
    Err(format!("{how}, output: {}", text.trim_end()))
}

/// As runc tells them, which some match on.
fn signal_words(signal: i32) -> String {
    match signal {
        libc::SIGKILL => "killed".into(),
        libc::SIGTERM => "terminated".into(),
        libc::SIGSEGV => "segmentation fault".into(),
        libc::SIGABRT => "aborted".into(),
        libc::SIGSYS => "bad system call".into(),
        other => other.to_string(),
    }
}

/// Kills the hook when its time is over.
fn wait_for(pid: u32, seconds: u64) -> Result<(), String> {
    let describe = |errno: rustix::io::Errno| errno.to_string();
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(describe)?;
    let timeout = Timespec::try_from(Duration::from_secs(seconds)).map_err(|error| error.to_string())?;
    let mut waiting = [PollFd::new(&pidfd, PollFlags::IN)];
    if poll(&mut waiting, Some(&timeout)).map_err(describe)? > 0 {
        return Ok(());
    }
    pidfd_send_signal(&pidfd, Signal::KILL).map_err(describe)?;
    Err(format!("timed out after {seconds} s (context deadline exceeded)"))
}

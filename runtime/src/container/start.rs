//! `start`: lets a created container's init become the user's program.

use std::os::fd::AsFd;

use crate::bundle::spec::Spec;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags};

use super::create::deliver_listener;
use super::{Container, Status, notify};
use crate::bundle::load;
use crate::bundle::plan;
use crate::isolate::hooks;
use crate::isolate::seccomp::notify::Agent;
use crate::process::channel::{self, ToInit, ToRuntime};
use crate::store::record::End;
use crate::{Error, Result};

pub fn start(container: &mut Container) -> Result<()> {
    container.lock()?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => return Err(container.refuse("cannot start a container that has stopped")),
        Status::Creating => return Err(container.refuse("cannot start a container that is being created")),
        Status::Running | Status::Paused => {
            return Err(container.refuse("cannot start an already running container"));
        }
    }
    let pid = container.record()?.process.map_or(0, |process| process.pid);
    let relay = notify::Relay::open(&container.dir)?;
    let fail = |call| Error::path(call, container.dir.path().join(crate::store::START_SOCKET));
    let socket = rustix::net::socket_with(AddressFamily::UNIX, channel::KIND, SocketFlags::CLOEXEC, None)
        .map_err(fail("socket"))?;
    let address = SocketAddrUnix::new(container.dir.start_socket()).map_err(fail("address"))?;
    rustix::net::connect(&socket, &address).map_err(fail("connect"))?;
    let go = ToInit::Go { pid, ignored: 0 };
    channel::send(socket.as_fd(), &go, &[]).map_err(Error::sys("send to init"))?;
    wait_for_exec(container, &socket, pid).inspect_err(|error| {
        if let (Error::Init { step, message }, Some(record)) = (error, &mut container.record) {
            record.end = Some(End::Failed { step: step.clone(), message: message.clone() });
            // The error is told anyway.
            let _ = container.dir.write(record);
        }
    })?;
    container.dir.remove_start_socket();
    poststart(container, pid)?;
    if let (Some(relay), Some(process)) = (relay, container.process()) {
        relay.wait_until_ready(pid, &process)?;
    }
    Ok(())
}

/// The stream ends without a word when the program is executed; before that there may be a listener to pass on.
fn wait_for_exec(container: &Container, socket: impl AsFd, pid: i32) -> Result<()> {
    loop {
        match channel::receive::<ToRuntime>(socket.as_fd()).map_err(Error::sys("receive from init"))? {
            None => return Ok(()),
            Some((ToRuntime::Listener, fds)) => {
                let spec = stored_spec(container)?;
                let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
                let agent = profile.and_then(Agent::of);
                let bundle = container.record()?.bundle.display().to_string();
                deliver_listener(agent.as_ref(), fds, pid, &state(container, "created", pid, &bundle)?)?;
            }
            Some((ToRuntime::Failed { step, message }, _)) => return Err(Error::Init { step, message }),
            Some(_) => return Err(Error::InitGone),
        }
    }
}

/// The config as it was at create.
pub(super) fn stored_spec(container: &Container) -> Result<Spec> {
    Ok(load::parse(&container.dir.read_config()?, "config.json")?.0)
}

pub(super) fn state<'a>(
    container: &'a Container,
    status: &'a str,
    pid: i32,
    bundle: &'a str,
) -> Result<hooks::State<'a>> {
    let record = container.record()?;
    Ok(hooks::State::new(&record.id, status, pid, bundle, record.annotations.iter()))
}

fn poststart(container: &Container, pid: i32) -> Result<()> {
    let hooks = plan::runtime_hooks(&stored_spec(container)?)?.poststart;
    let bundle = container.record()?.bundle.display().to_string();
    run_poststart(container, &hooks, &state(container, "running", pid, &bundle)?)
}

/// A failing poststart hook stops the container (runtime.md, step 9, as of 1.3 and as in runc).
pub(super) fn run_poststart(
    container: &Container,
    hooks: &[plan::Hook],
    state: &hooks::State<'_>,
) -> Result<()> {
    hooks::run("poststart", hooks, state, None).inspect_err(|_| {
        if let Some(process) = container.process() {
            let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
        }
    })
}

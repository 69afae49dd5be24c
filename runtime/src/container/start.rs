//! `start`: lets a created container's init become the user's program.

use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags};

use super::{Container, Status, notify};
use crate::bundle::load;
use crate::bundle::plan;
use crate::isolate::hooks;
use crate::process::channel::{self, ToInit, ToRuntime};
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
    wait_for_exec(&socket)?;
    container.dir.remove_start_socket();
    poststart(container, pid)?;
    if let (Some(relay), Some(process)) = (relay, container.process()) {
        relay.wait_until_ready(pid, &process)?;
    }
    Ok(())
}

/// The stream ends without a word when the program is executed.
fn wait_for_exec(socket: impl AsFd) -> Result<()> {
    match channel::receive::<ToRuntime>(socket.as_fd()).map_err(Error::sys("receive from init"))? {
        None => Ok(()),
        Some((ToRuntime::Failed { step, message }, _)) => Err(Error::Init { step, message }),
        Some(_) => Err(Error::InitGone),
    }
}

/// The hooks are in the config that was stored at create.
fn poststart(container: &Container, pid: i32) -> Result<()> {
    let record = container.record()?;
    let (spec, _) = load::parse::<crate::bundle::spec::Spec>(&container.dir.read_config()?, "config.json")?;
    let hooks = plan::runtime_hooks(&spec)?.poststart;
    let bundle = record.bundle.display().to_string();
    let state = hooks::State::new(&record.id, "running", pid, &bundle, record.annotations.iter());
    run_poststart(container, &hooks, &state)
}

/// A failing poststart hook stops the container (runtime.md, step 9, as of 1.3 and as in runc).
pub(super) fn run_poststart(
    container: &Container,
    hooks: &[plan::Hook],
    state: &hooks::State<'_>,
) -> Result<()> {
    hooks::run("poststart", hooks, state).inspect_err(|_| {
        if let Some(process) = container.process() {
            let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
        }
    })
}

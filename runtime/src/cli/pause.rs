use clap::{ArgMatches, Command};

use super::{Global, id_arg};
use crate::Result;
use crate::container::Status;

pub(super) fn define(command: Command) -> Command {
    command.about("Freeze all processes of a container").arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let mut container = global.container(args)?;
    container.lock()?;
    match container.status()? {
        Status::Created | Status::Running => container.record()?.cgroups.freeze().map(|()| 0),
        Status::Paused => Err(container.refuse("container already paused")),
        Status::Creating | Status::Stopped => Err(container.refuse("container not running")),
    }
}

use clap::{ArgMatches, Command};

use super::{Global, id_arg};
use crate::Result;
use crate::container::Status;

pub(super) fn define(command: Command) -> Command {
    command.about("Thaw a paused container").arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let mut container = global.container(args)?;
    container.lock()?;
    match container.status()? {
        Status::Paused => container.record()?.cgroups.thaw().map(|()| 0),
        _ => Err(container.refuse("container not paused")),
    }
}

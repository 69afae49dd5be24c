use clap::{ArgMatches, Command};

use super::{Global, id_arg};
use crate::Result;
use crate::container::start;

pub(super) fn define(command: Command) -> Command {
    command.about("Start the program of a created container").arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    start::start(&mut global.container(args)?).map(|()| 0)
}

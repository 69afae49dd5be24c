use clap::{ArgMatches, Command};

use super::{Global, id_arg, print_json};
use crate::Result;
use crate::container::state;

pub(super) fn define(command: Command) -> Command {
    command.about("Tell the state of a container as JSON").arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    print_json(&state::report(&global.container(args)?)?).map(|()| 0)
}

use clap::{ArgMatches, Command};

use super::{Global, run};
use crate::Result;
use crate::container::create;

pub(super) fn define(command: Command) -> Command {
    command.about("Create a container from a bundle").args(run::create_args())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    create::create(&global.root()?, &run::options(global, args, false)).map(|_| 0)
}

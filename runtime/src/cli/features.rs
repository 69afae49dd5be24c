use clap::{ArgMatches, Command};

use super::{Global, print_json};
use crate::Result;
use crate::container::features;

pub(super) fn define(command: Command) -> Command {
    command.about("Tell what this runtime can do, as JSON")
}

pub(super) fn run(_: &Global, _: &ArgMatches) -> Result<u8> {
    print_json(&features::features()).map(|()| 0)
}

use super::{Global, flag};
use crate::Result;
use clap::{ArgMatches, Command};
pub(super) fn define(command: Command) -> Command {
    command.about("Tell what this host can and cannot do").arg(flag("json"))
}
pub(super) fn run(_: &Global, _: &ArgMatches) -> Result<u8> {
    Ok(0)
}

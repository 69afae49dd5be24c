use clap::{ArgMatches, Command};

use super::{Global, flag, id_arg};
use crate::container::delete;
use crate::{Error, Result};

pub(super) fn define(command: Command) -> Command {
    command
        .about("Delete a container and all that belongs to it")
        .arg(flag("force").short('f').help("Kill it first if it runs; no error if it does not exist"))
        .arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let force = args.get_flag("force");
    match global.container(args) {
        Err(Error::NoContainer { .. }) if force => Ok(0),
        container => delete::delete(&mut container?, force).map(|()| 0),
    }
}

use clap::{Arg, ArgMatches, Command};

use super::{Global, flag, id_arg};
use crate::Result;
use crate::container::kill;

pub(super) fn define(command: Command) -> Command {
    command
        .about("Send a signal to a container")
        .arg(flag("all").short('a').help("Send it to every process of the container"))
        .arg(id_arg())
        .arg(Arg::new("signal").value_name("SIGNAL").default_value("SIGTERM"))
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let signal = kill::parse_signal(args.get_one::<String>("signal").map_or("SIGTERM", String::as_str))?;
    kill::kill(&global.container(args)?, signal, args.get_flag("all")).map(|()| 0)
}

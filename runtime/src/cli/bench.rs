//! The benchmark is a program of its own, `hearth-bench`: the runtime carries no code that only measures it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Program;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::Global;
use crate::{Error, Result};

const NAME: &str = "hearth-bench";

pub(super) fn define(command: Command) -> Command {
    command.about("Measure cold starts of this and other runtimes").disable_help_flag(true).arg(
        Arg::new("args")
            .value_name("ARGS")
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
            .value_parser(value_parser!(OsString))
            .help("What hearth-bench is told; --help for a list"),
    )
}

pub(super) fn run(_global: &Global, args: &ArgMatches) -> Result<u8> {
    let args: Vec<&OsString> = args.get_many("args").into_iter().flatten().collect();
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(NAME));
    let path = beside.filter(|path| path.is_file()).unwrap_or_else(|| Path::new(NAME).to_owned());
    // Returns only if it fails.
    let source = Program::new(&path).args(args).exec();
    Err(Error::path("execute (expected beside hearth or in PATH)", path)(source))
}

use std::process::Command as Program;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Global, id_arg, print};
use crate::{Error, Result};

pub(super) fn define(command: Command) -> Command {
    command
        .about("List the processes of a container")
        .arg(
            Arg::new("format")
                .long("format")
                .short('f')
                .value_parser(["table", "json"])
                .default_value("table"),
        )
        .arg(id_arg())
        .arg(
            Arg::new("options")
                .value_name("PS-OPTIONS")
                .action(ArgAction::Append)
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("Options of ps(1) [default: -ef]"),
        )
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let pids = global.container(args)?.processes()?;
    if args.get_one::<String>("format").is_some_and(|format| format == "json") {
        let text = serde_json::to_string(&pids);
        return print(&text.map_err(|source| Error::Json { what: "the list".into(), source })?).map(|()| 0);
    }
    let given: Vec<&String> = args.get_many("options").into_iter().flatten().collect();
    let mut ps = Program::new("ps");
    if given.is_empty() {
        ps.arg("-ef")
    } else {
        ps.args(given)
    };
    let output = ps.output().map_err(Error::path("execute (package procps)", "ps"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Init { step: "ps".into(), message });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let heading = text.lines().next().unwrap_or_default();
    let column = heading.split_whitespace().position(|title| title == "PID");
    let column =
        column.ok_or_else(|| Error::invalid("PS-OPTIONS", heading, "options that show the column PID"))?;
    let is_ours = |line: &str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let lines = text.lines().enumerate().filter(|(index, line)| *index == 0 || is_ours(line));
    let chosen: String = lines.map(|(_, line)| format!("{line}\n")).collect();
    print(&chosen).map(|()| 0)
}

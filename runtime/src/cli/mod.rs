//! The command line: runc's verbs and flags, one thin file per verb.

mod bench;
mod checkpoint;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod features;
mod gc;
mod kill;
mod launch;
mod list;
mod logs;
mod pause;
mod pool;
mod ps;
mod quick;
mod restore;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod unpack;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::container::Container;
use crate::observe::log;
use crate::store::Root;
use crate::{Error, Result};

/// What every verb may look at.
#[derive(Debug)]
pub(crate) struct Global {
    /// `--root`
    place: Option<PathBuf>,
    /// `--rootless`, where it is not `auto`.
    pub(crate) rootless: Option<bool>,
    /// Who makes new containers' groups.
    pub(crate) systemd_cgroup: bool,
    /// `--criu`
    pub(crate) criu: Option<PathBuf>,
}

impl Global {
    fn root(&self) -> Result<Root> {
        place(self.place.as_deref())
    }

    fn container(&self, args: &ArgMatches) -> Result<Container> {
        Container::open(&self.root()?, id(args))
    }
}

fn place(asked: Option<&Path>) -> Result<Root> {
    asked.map_or_else(Root::default_place, Root::new)
}

struct Verb {
    name: &'static str,
    /// Builds the rest of the command, only where it is the one that is asked for.
    define: fn(Command) -> Command,
    run: fn(&Global, &ArgMatches) -> Result<u8>,
    /// What a failure exits with.
    failure: u8,
}

const VERBS: &[Verb] = &[
    Verb { name: "create", define: create::define, run: create::run, failure: 1 },
    Verb { name: "start", define: start::define, run: start::run, failure: 1 },
    Verb { name: "state", define: state::define, run: state::run, failure: 1 },
    Verb { name: "kill", define: kill::define, run: kill::run, failure: 1 },
    Verb { name: "delete", define: delete::define, run: delete::run, failure: 1 },
    Verb { name: "run", define: run::define, run: run::run, failure: 1 },
    // As in runc: a status that programs seldom use themselves.
    Verb { name: "exec", define: exec::define, run: exec::run, failure: 255 },
    Verb { name: "list", define: list::define, run: list::run, failure: 1 },
    Verb { name: "ps", define: ps::define, run: ps::run, failure: 1 },
    Verb { name: "spec", define: spec::define, run: spec::run, failure: 1 },
    Verb { name: "pause", define: pause::define, run: pause::run, failure: 1 },
    Verb { name: "resume", define: resume::define, run: resume::run, failure: 1 },
    Verb { name: "update", define: update::define, run: update::run, failure: 1 },
    Verb { name: "events", define: events::define, run: events::run, failure: 1 },
    Verb { name: "checkpoint", define: checkpoint::define, run: checkpoint::run, failure: 1 },
    Verb { name: "restore", define: restore::define, run: restore::run, failure: 1 },
    Verb { name: "features", define: features::define, run: features::run, failure: 1 },
    Verb { name: "doctor", define: doctor::define, run: doctor::run, failure: 1 },
    Verb { name: "unpack", define: unpack::define, run: unpack::run, failure: 1 },
    Verb { name: "gc", define: gc::define, run: gc::run, failure: 1 },
    // As docker run: a status that programs seldom use themselves.
    Verb { name: "launch", define: launch::define, run: launch::run, failure: 125 },
    Verb { name: "logs", define: logs::define, run: logs::run, failure: 1 },
    Verb { name: "pool", define: pool::define, run: pool::run, failure: 1 },
    Verb { name: "bench", define: bench::define, run: bench::run, failure: 1 },
];

/// Everything the executable does; the value is its exit status.
pub fn main() -> u8 {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let [_, verb, socket] = args.as_slice()
        && verb == "init"
        && let Some(socket) = socket.to_str().and_then(|text| text.parse().ok())
    {
        return crate::process::init::main(socket);
    }
    if crate::sys::entry::clone_number().is_some() {
        // Kernels before 6.14 call a process by the number of the descriptor that it was executed from.
        let _ = rustix::thread::set_name(c"hearth");
    }
    // What the caller left open is not for hooks and other children of ours.
    let _ = crate::sys::fd::cloexec_from(3);
    if crate::container::console::open_standard_streams().is_err() {
        return 1;
    }
    if let Some(quick) = quick::run(&args) {
        let opened = check_preserved(0).and_then(|()| log::open(None, log::Format::Text, false));
        let root = opened.and_then(|()| place(quick.root.as_deref()));
        let result = root.and_then(|root| crate::container::run::run(&root, &quick.options, quick.keep));
        return told("run", 1, result);
    }
    // Only the verbs that are named are defined: the others cost as much as all the rest of the parsing. Where none
    // is, all are, for the help and for suggestions.
    let named = |verb: &&Verb| args.iter().any(|arg| arg == verb.name);
    let verbs: Vec<&Verb> = VERBS.iter().filter(named).collect();
    let verbs = if verbs.is_empty() { VERBS.iter().collect() } else { verbs };
    match command_of(&verbs).try_get_matches_from(args) {
        Ok(matches) => dispatch(&matches),
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            // clap explains over several lines; the first paragraph says it all.
            let first = text.trim_start_matches("error: ").lines().take_while(|line| !line.trim().is_empty());
            let line = first.map(str::trim).collect::<Vec<_>>().join(" ");
            // As runc says it.
            let line = line.replace("unrecognized subcommand", "No help topic for");
            let _ = writeln!(std::io::stderr(), "hearth: {line}");
            1
        }
        Err(help) => {
            let _ = help.print();
            0
        }
    }
}

/// The whole command line; `examples/manuals.rs` makes completions and manual pages of it.
pub fn command() -> Command {
    command_of(&VERBS.iter().collect::<Vec<_>>())
}

fn command_of(verbs: &[&Verb]) -> Command {
    let path = |name: &'static str| Arg::new(name).long(name).value_parser(value_parser!(PathBuf));
    let mut command = Command::new("hearth")
        .version(concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0"))
        .disable_version_flag(true)
        .arg(
            Arg::new("version")
                .long("version")
                .short('v')
                .action(ArgAction::Version)
                .help("Print the version"),
        )
        .about("OCI runtime: runs containers from bundles")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args_override_self(true)
        .arg(path("root").help("Directory of the containers' state").value_name("DIR"))
        .arg(path("log").help("File for the log [default: standard error]").value_name("FILE"))
        .arg(Arg::new("log-format").long("log-format").value_parser(["text", "json"]).default_value("text"))
        .arg(Arg::new("debug").long("debug").action(ArgAction::SetTrue).help("Log more"))
        .arg(
            Arg::new("rootless")
                .long("rootless")
                .value_parser(["auto", "true", "false"])
                .default_value("auto")
                .help("Do without the cgroups that the caller may not make [auto: unless it is root]"),
        )
        .arg(
            flag("systemd-cgroup").help("Have systemd make the cgroup, at the cgroupsPath SLICE:PREFIX:NAME"),
        )
        .arg(
            Arg::new("cgroup-manager")
                .long("cgroup-manager")
                .value_parser(["cgroupfs", "systemd"])
                .default_value("cgroupfs")
                .help("crun's name for the same"),
        )
        .arg(path("criu").help("criu's executable, for checkpoint and restore").value_name("FILE"));
    for verb in verbs {
        command = command.subcommand(Command::new(verb.name).defer(verb.define));
    }
    command
}

fn dispatch(matches: &ArgMatches) -> u8 {
    let Some((name, args)) = matches.subcommand() else { return 1 };
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else { return 1 };
    let asked = args.try_get_one("preserve-fds").ok().flatten().copied();
    let result = asked.map_or(Ok(()), check_preserved).and_then(|()| global_of(matches));
    told(name, verb.failure, result.and_then(|global| (verb.run)(&global, args)))
}

fn told(name: &str, failure: u8, result: Result<u8>) -> u8 {
    result.unwrap_or_else(|error| {
        let line = error.chain();
        if log::has_file() {
            log::error(&line);
        }
        let _ = match &error {
            // The program's failure, not ours: told as a shell tells it, and as runc does.
            Error::Init { step, message } if step == crate::process::EXEC => {
                writeln!(std::io::stderr(), "{message}")
            }
            _ => writeln!(std::io::stderr(), "hearth {name}: {line}"),
        };
        failure
    })
}

fn global_of(matches: &ArgMatches) -> Result<Global> {
    let json = matches.get_one::<String>("log-format").is_some_and(|format| format == "json");
    let format = if json { log::Format::Json } else { log::Format::Text };
    log::open(matches.get_one::<PathBuf>("log").map(PathBuf::as_path), format, matches.get_flag("debug"))?;
    let place = matches.get_one::<PathBuf>("root").cloned();
    let rootless = matches.get_one::<String>("rootless").and_then(|word| word.parse().ok());
    let manager = matches.get_one::<String>("cgroup-manager").is_some_and(|name| name == "systemd");
    let systemd_cgroup = manager || matches.get_flag("systemd-cgroup");
    Ok(Global { place, rootless, systemd_cgroup, criu: matches.get_one::<PathBuf>("criu").cloned() })
}

/// Before anything is opened: what is to be passed on must be there, else a file of ours would take its number.
fn check_preserved(asked: u32) -> Result<()> {
    let last = 3 + asked + crate::container::notify::listen_fds(&mut Vec::new())?;
    let own = crate::sys::entry::clone_number();
    let is_given = |number: i32| crate::sys::fd::is_open(number) && Some(number) != own;
    let gap = (3..last).find(|number| !i32::try_from(*number).is_ok_and(is_given));
    gap.map_or(Ok(()), |number| {
        Err(Error::invalid(
            "--preserve-fds or LISTEN_FDS",
            format!("descriptor {number}"),
            "an open descriptor",
        ))
    })
}

fn id_arg() -> Arg {
    Arg::new("id").value_name("CONTAINER-ID").required(true)
}

fn id(args: &ArgMatches) -> &str {
    args.get_one::<String>("id").map_or("", String::as_str)
}

fn path_arg(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf))
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

fn path(args: &ArgMatches, name: &str) -> Option<PathBuf> {
    args.get_one::<PathBuf>(name).cloned()
}

/// To standard output; whoever reads it may have gone.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::sys("write to standard output"))
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    print(&(text.map_err(|source| Error::Json { what: "the answer".into(), source })? + "\n"))
}

/// Columns that are as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    const MIN: usize = 12;
    const GAP: usize = 3;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        (cells.max().unwrap_or(0) + GAP).max(MIN)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.trim_end());
        text.push('\n');
    }
    text
}

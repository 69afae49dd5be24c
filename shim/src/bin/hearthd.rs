//! The warm-pool daemon, and the processes that it consists of.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};
use hearth_shim::pool::policy::Config;
use hearth_shim::pool::{daemon, forker, reaper};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let word = args.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let result = match (word, args.as_slice()) {
        ("init", [_, _, socket]) => {
            let socket = socket.to_str().and_then(|text| text.parse().ok()).unwrap_or(-1);
            return hearth::process::init::main(socket).into();
        }
        ("forker", [_, _, root]) => forker::main(Path::new(root)).map(|()| ExitCode::SUCCESS),
        ("reaper", [_, _, root]) => reaper::main(Path::new(root)).map(|()| ExitCode::SUCCESS),
        _ => run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "hearthd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<OsString>) -> io::Result<ExitCode> {
    let path = |name: &'static str, default: &'static str| {
        let value = value_parser!(PathBuf);
        Arg::new(name).long(name).value_name("DIR").default_value(default).value_parser(value)
    };
    let command = Command::new("hearthd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps sandboxes parked for `hearth launch`")
        .arg(path("root", "/run/hearth").help("Directory of the containers' state, and of the socket"))
        .arg(path("state", "/var/lib/hearth").help("Directory of what outlives a reboot: declared pools"));
    let matches = match command.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(u8::from(error.use_stderr())));
        }
    };
    let dir = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let root = std::path::absolute(dir("root"))?;
    daemon::main(&root, Config::default(), &dir("state").join("pools"))?;
    Ok(ExitCode::SUCCESS)
}

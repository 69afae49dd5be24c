//! The warm-pool daemon, and the processes that it consists of.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};
use hearth_shim::pool::config::Settings;
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
    let path = |name: &'static str| {
        Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf))
    };
    let command = Command::new("hearthd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps sandboxes parked for `hearth launch`")
        .arg(path("config").help("Settings in TOML; hearthd.toml in the sources shows all of them"))
        .arg(
            path("root").help("Directory of the containers' state, and of the socket [default: /run/hearth]"),
        )
        .arg(
            path("state")
                .help("Directory of what outlives a reboot: declared pools [default: /var/lib/hearth]"),
        );
    let matches = match command.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(u8::from(error.use_stderr())));
        }
    };
    let dir = |name: &str| matches.get_one::<PathBuf>(name);
    let settings = dir("config").map_or_else(|| Ok(Settings::default()), |path| Settings::load(path));
    let mut settings = settings.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        io::Error::other(format!("{error}{cause}"))
    })?;
    if let Some(root) = dir("root") {
        settings.root = std::path::absolute(root)?;
    }
    if let Some(state) = dir("state") {
        settings.pools = std::path::absolute(state)?.join("pools");
    }
    daemon::main(&settings)?;
    Ok(ExitCode::SUCCESS)
}

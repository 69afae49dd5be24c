//! The warm-pool daemon, and the processes that it consists of.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use hearth_shim::pool::policy::Config;
use hearth_shim::pool::{daemon, forker, reaper};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let word = args.first().and_then(|word| word.to_str()).unwrap_or_default();
    let result = match (word, args.as_slice()) {
        ("init", [_, socket]) => {
            let socket = socket.to_str().and_then(|text| text.parse().ok()).unwrap_or(-1);
            return hearth::process::init::main(socket).into();
        }
        ("forker", [_, root]) => forker::main(Path::new(root)),
        ("reaper", [_, root]) => reaper::main(Path::new(root)),
        _ => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "hearthd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[OsString]) -> io::Result<()> {
    let root = args.first().map_or_else(|| "/run/hearth".into(), OsString::clone);
    daemon::main(Path::new(&root), Config::default(), Path::new(hearth::pool::client::POOLS))
}

//! `hearth bench`: a program of its own, so that the runtime carries none of it.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match hearth_tests::bench::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "hearth-bench: {message}");
            ExitCode::FAILURE
        }
    }
}

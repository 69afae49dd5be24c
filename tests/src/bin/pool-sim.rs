//! The warm pool's policy in simulated time: `pool-sim --help`.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match hearth_tests::sim::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "pool-sim: {message}");
            ExitCode::FAILURE
        }
    }
}

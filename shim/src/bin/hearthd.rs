//! The warm-pool daemon: not built yet.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = "hearthd: the warm pool is not built yet: use `hearth run`, which always takes the cold path";
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::FAILURE
}

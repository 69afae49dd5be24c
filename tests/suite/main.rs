//! The black-box suite: a file per behaviour, each with a `cases!` table. `suite --list` names them all.

use std::process::ExitCode;

mod harness;
mod lifecycle;
mod run;
mod states;

fn main() -> ExitCode {
    hearth_tests::runner::main(&[harness::CASES, lifecycle::CASES, run::CASES, states::CASES])
}

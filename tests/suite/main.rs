//! The black-box suite: a file per behaviour, each with a `cases!` table. `suite --list` names them all.

use std::process::ExitCode;

mod exec;
mod harness;
mod lifecycle;
mod listing;
mod process;
mod run;
mod states;

fn main() -> ExitCode {
    hearth_tests::runner::main(&[
        exec::CASES,
        harness::CASES,
        lifecycle::CASES,
        listing::CASES,
        process::CASES,
        run::CASES,
        states::CASES,
    ])
}

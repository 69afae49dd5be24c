//! `pool-sim`: the warm pool's policy against launches that come from a trace, in simulated time.
//!
//! - [`trace`]: who is launched when: made by rule from a seed, or spread from a table of counts a minute.
//! - [`outside`]: a model of the daemon and the kernel: what a fork, a launch and a teardown take.
//! - [`rivals`]: what others do, in the same model. [`picture`]: hit rate against memory. [`speed`]: what a decision
//!   of the policy costs in real time.
//!
//! Deliberately absent: the cost of a launch itself, which `hearth bench` measures.

pub mod outside;
pub mod picture;
pub mod rivals;
pub mod speed;
pub mod trace;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use crate::bench::report::{Cell, Row, Section};
use hearth_shim::pool::policy::{Config, Policy};
use outside::{Outcome, run};
use rivals::KeepAlive;
use trace::Trace;

/// Budgets of memory, in MiB.
const BUDGETS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Sandboxes that a pool of fixed size holds.
const SIZES: [u32; 5] = [1, 2, 4, 8, 16];

pub fn main() -> Result<(), String> {
    let matches = command().get_matches();
    if matches.get_flag("make-table") {
        return print(&trace::make_table());
    }
    if matches.get_flag("speed") {
        return print(&speed::measure());
    }
    let mut sections = Vec::new();
    for name in matches.get_many::<String>("trace").into_iter().flatten() {
        let table = matches.get_one::<PathBuf>("table").map(|path| {
            fs::read_to_string(path).map_err(|error| format!("--table {}: {error}", path.display()))
        });
        let trace = Trace::named(name, table.transpose()?.as_deref())?;
        let section = sweep(&trace);
        print(&section.text())?;
        sections.push(section);
    }
    write(&matches, &sections)
}

fn command() -> Command {
    let path = |name: &'static str| Arg::new(name).long(name).value_parser(value_parser!(PathBuf));
    Command::new("pool-sim")
        .about("Replays launches against the warm pool's policy, in simulated time")
        .arg(
            Arg::new("trace")
                .help("What to replay; all of them by default")
                .num_args(0..)
                .value_parser(PossibleValuesParser::new(trace::NAMES))
                .default_values(trace::NAMES),
        )
        .arg(
            path("table")
                .help("Launches a minute, for the trace `azure`")
                .default_value("tests/fixtures/traces/azure-like.csv"),
        )
        .arg(path("json").help("Write all figures there"))
        .arg(path("svg").help("Write a picture of each trace into this directory"))
        .arg(Arg::new("speed").long("speed").action(ArgAction::SetTrue).help("Measure what a decision costs"))
        .arg(
            Arg::new("make-table")
                .long("make-table")
                .action(ArgAction::SetTrue)
                .help("Print the table that is committed as the trace `azure`"),
        )
}

/// The trace under each contender and each amount of memory.
fn sweep(trace: &Trace) -> Section {
    let mut section = Section::new(&format!("pool-sim-{}", trace.name), &trace.about);
    section.columns = outside::COLUMNS.map(Into::into).into();
    let mut add = |name: String, outcome: Outcome| section.rows.push(Row::new(&name, outcome.cells(), None));
    add("no pool".into(), run(trace, &mut Policy::new(config(0)), None));
    for mib in BUDGETS {
        add(format!("hearth {mib} MiB"), run(trace, &mut Policy::new(config(mib << 20)), None));
    }
    for mib in BUDGETS {
        add(
            format!("keep 10 min {mib} MiB"),
            run(trace, &mut KeepAlive::new(mib << 20), Some((0, outside::MOST))),
        );
    }
    for size in SIZES {
        let fixed = Config { learning: false, ..config(1 << 40) };
        add(format!("fixed {size}"), run(trace, &mut Policy::new(fixed), Some((size, size))));
    }
    section.note = format!(
        "{} launches of {} bundles in {:.1} h; a sandbox costs {:.2} MiB",
        trace.launches.len(),
        trace.bundles,
        trace.hours(),
        outside::COST as f64 / (1 << 20) as f64
    );
    section
}

fn config(budget: u64) -> Config {
    Config { budget, max_learned_pools: 256, max_learned_keys: 1024, ..Config::default() }
}

fn write(matches: &ArgMatches, sections: &[Section]) -> Result<(), String> {
    let put =
        |path: &PathBuf, text: &str| fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
    if let Some(path) = matches.get_one::<PathBuf>("json") {
        let all: Vec<_> = sections.iter().map(Section::json).collect();
        put(path, &format!("{:#}\n", json!(all)))?;
    }
    if let Some(dir) = matches.get_one::<PathBuf>("svg") {
        for section in sections {
            put(&dir.join(format!("{}.svg", section.key)), &picture::draw(section))?;
        }
    }
    Ok(())
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}"))
}

/// A number of a row, by its column's name.
fn figure(section: &Section, row: &Row, column: &str) -> Option<f64> {
    let at = section.columns.iter().position(|name| name == column)?;
    match row.cells.get(at) {
        Some(Cell::Number(value, _)) => Some(*value),
        _ => None,
    }
}

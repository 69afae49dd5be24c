//! `hearth-bench`: cold starts of OCI runtimes, measured so that anyone can repeat it and nobody fools himself.
//!
//! - [`args`]: the command line, once, into values that cannot be wrong. [`machine`]: where it was measured, and
//!   whether that place is quiet enough to say anything.
//! - [`bundles`]: what is launched: programs that exit with [`bundles::EXPECTED`], so that a launch that did not
//!   run cannot look fast. [`contender`]: who launches. [`launch`]: one launch, timed and checked.
//! - [`pool`]: hearthd and its parked sandboxes: the way until a program's first instruction, refill, memory.
//! - [`series`]: launches one after the other, the contenders taking turns. [`load`]: many at once, or among many.
//!   [`inside`]: what one launch consists of: system calls, memory, the runtime's own timeline.
//! - [`report`]: sections of rows, as text, Markdown and JSON; [`svg`]: as pictures. [`stats`]: percentiles.
//!
//! Deliberately absent: averages (a launch's cost has a long tail, and its mean says little), and any retry of a
//! failed launch.

pub mod args;
pub mod bundles;
pub mod contender;
pub mod inside;
pub mod launch;
pub mod load;
pub mod machine;
pub mod pool;
pub mod report;
pub mod series;
pub mod stats;
pub mod svg;

use std::fs;
use std::io::{self, Write};

use args::Measure;
use launch::Bench;
use report::{Report, Section};

pub fn main() -> Result<(), String> {
    let options = args::parse()?;
    machine::show_cgroups(options.cgroups)?;
    if options.realtime {
        machine::become_realtime()?;
    }
    let mut bench = Bench::new(options)?;
    let mut report = Report::new(machine::Machine::look(&bench)?);
    for failed in bench.warm_up() {
        say(&format!("warning: {failed}"));
    }
    measure(&mut bench, &mut report);
    report.machine.look_again(&bench, &report.sections);
    let options = &bench.options;
    print(&report.text())?;
    if let Some(path) = &options.json {
        write(path, &report.json().to_string())?;
    }
    if let Some(path) = &options.markdown {
        write(path, &report.markdown(options.svg.as_deref()))?;
    }
    if let Some(dir) = &options.svg {
        fs::create_dir_all(dir).map_err(|e| format!("--svg {}: {e}", dir.display()))?;
        for section in report.sections.iter().filter(|section| svg::is_worth_it(section)) {
            write(&dir.join(format!("{}.svg", section.key)), &svg::picture(section, &report.machine))?;
        }
    }
    Ok(())
}

fn measure(bench: &mut Bench, report: &mut Report) {
    let wanted = bench.options.measures.clone();
    for bundle in bench.bundles.clone() {
        for gap in bench.options.gaps.clone() {
            if wanted.contains(&Measure::Run) {
                keep(report, series::runs(bench, &bundle, gap));
            }
        }
        for measure in &wanted {
            match measure {
                Measure::Run => {}
                Measure::Phases => keep(report, series::phases(bench, &bundle)),
                Measure::Exec => keep(report, series::execs(bench, &bundle)),
                Measure::Timeline => {
                    inside::timelines(bench, &bundle).into_iter().for_each(|s| keep(report, s))
                }
                Measure::Cost => keep(report, inside::cost(bench, &bundle)),
                Measure::Memory => keep(report, inside::memory(bench, &bundle)),
                Measure::Burst => keep(report, load::burst(bench, &bundle)),
                Measure::Poisson => keep(report, load::poisson(bench, &bundle)),
                Measure::Crowd => keep(report, load::crowd(bench, &bundle)),
                Measure::First => keep(report, pool::first(bench, &bundle)),
                Measure::Pool => keep(report, pool::refill(bench, &bundle)),
            }
        }
    }
}

fn keep(report: &mut Report, section: Section) {
    say(&format!("{}: done", section.title));
    report.sections.push(section);
}

fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().lock().write_all(text.as_bytes()).map_err(|e| format!("write to standard output: {e}"))
}

/// Progress and warnings, beside the report.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "hearth-bench: {line}");
}

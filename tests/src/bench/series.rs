//! Launches one after the other, the contenders taking turns: whatever the machine does meanwhile hits all alike.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::bundles::{Bundle, EXPECTED};
use super::contender::Contender;
use super::launch::{Bench, Sample, micros, pid_of, until_end};
use super::report::{Cell, Row, Section};
use super::stats::{mean, median, ms, percentile};

/// Each contender's turns. One that fails is out for the rest, for what it would measure is no launch.
fn take_turns<T>(
    bench: &Bench,
    field: Vec<(Contender, Option<String>)>,
    gap: Duration,
    mut turn: impl FnMut(&Contender) -> Result<T, String>,
) -> Vec<(Contender, Vec<T>, Option<String>)> {
    let mut all: Vec<_> =
        field.into_iter().map(|(contender, failure)| (contender, Vec::new(), failure)).collect();
    for _ in 0..bench.options.rounds {
        for (contender, samples, failure) in all.iter_mut().filter(|one| one.2.is_none()) {
            sleep(gap);
            match turn(contender) {
                Ok(sample) => samples.push(sample),
                Err(error) => *failure = Some(error),
            }
        }
    }
    all
}

/// Whole launches: `run`.
pub fn runs(bench: &Bench, bundle: &Bundle, gap: Duration) -> Section {
    let turns = take_turns(bench, bench.field(bundle), gap, |contender| bench.launch(contender, bundle));
    let idle = if gap.is_zero() {
        "back to back".into()
    } else {
        format!("{} ms idle before each", gap.as_millis())
    };
    let key = format!("{}-{}-run-{}ms", bench.mode.name(), bundle.name, gap.as_millis());
    let title = format!("run `{}`, {}, {idle}", bundle.name, bench.mode.title());
    whole(Section::new(&key, &title), turns)
}

/// A section with one row of percentiles each.
fn whole(mut section: Section, turns: Vec<(Contender, Vec<Sample>, Option<String>)>) -> Section {
    section.columns =
        ["p50 ms", "p90 ms", "p99 ms", "min ms", "CPU ms", "faults", "x bare", "n"].map(String::from).into();
    let base = turns.first().and_then(|(_, samples, _)| median(&walls(samples)));
    for (contender, samples, failure) in turns {
        let wall = walls(&samples);
        let cpu: Vec<u32> = samples.iter().map(|sample| sample.cpu).collect();
        let faults: Vec<u32> = samples.iter().map(|sample| sample.faults).collect();
        let at = |permille| Cell::of(percentile(&wall, permille).map(ms), 2);
        let ratio = median(&wall).zip(base).map(|(own, base)| f64::from(own) / f64::from(base.max(1)));
        let cells = vec![
            at(500),
            at(900),
            at(990),
            at(0),
            Cell::of(mean(&cpu).map(|us| us / 1000.0), 2),
            Cell::of(median(&faults).map(f64::from), 0),
            Cell::of(ratio, 1),
            Cell::of(Some(wall.len() as f64), 0),
        ];
        section.rows.push(Row::new(&contender.name, cells, failure).with("wall", wall).with("cpu", cpu));
    }
    section
}

fn walls(samples: &[Sample]) -> Vec<u32> {
    samples.iter().map(|sample| sample.wall).collect()
}

const PHASES: [&str; 4] = ["create", "start", "wait", "delete"];

/// create, start, the program's end, delete: each its own command.
pub fn phases(bench: &Bench, bundle: &Bundle) -> Section {
    let gap = bench.options.gaps.first().copied().unwrap_or_default();
    let turns = take_turns(bench, bench.runtimes(bundle), gap, |contender| {
        let id = bench.next_id();
        let phases = one_by_one(bench, contender, bundle, &id);
        if phases.is_err() {
            bench.remove(contender, &id);
        }
        phases
    });
    let key = format!("{}-{}-phases", bench.mode.name(), bundle.name);
    let mut section = Section::new(
        &key,
        &format!("create, start, wait, delete of `{}`, {}", bundle.name, bench.mode.title()),
    );
    section.columns = PHASES.map(|phase| format!("{phase} ms")).into();
    section.columns.extend(["sum ms".into(), "p90 ms".into(), "n".into()]);
    for (contender, samples, failure) in turns {
        let phase = |at: usize| -> Vec<u32> { samples.iter().map(|sample: &[u32; 4]| sample[at]).collect() };
        let sum: Vec<u32> = samples.iter().map(|sample| sample.iter().sum()).collect();
        let mut cells: Vec<Cell> = (0..4).map(|at| Cell::of(median(&phase(at)).map(ms), 2)).collect();
        cells.push(Cell::of(median(&sum).map(ms), 2));
        cells.push(Cell::of(percentile(&sum, 900).map(ms), 2));
        cells.push(Cell::of(Some(sum.len() as f64), 0));
        let mut row = Row::new(&contender.name, cells, failure);
        for (at, name) in PHASES.iter().enumerate() {
            row = row.with(name, phase(at));
        }
        section.rows.push(row.with("wall", sum));
    }
    section
}

fn one_by_one(bench: &Bench, contender: &Contender, bundle: &Bundle, id: &str) -> Result<[u32; 4], String> {
    let pid_file = bench.scratch.path().join(format!("{id}.pid"));
    let verb = |verb: &str| -> Command {
        let mut command = contender.command(&bench.root());
        command.arg(verb);
        command
    };
    let mut create = verb("create");
    create.arg("--bundle").arg(&bundle.dir).arg("--pid-file").arg(&pid_file).arg(id);
    let created = bench.checked(create, 0).map_err(|e| format!("create: {e}"))?;
    let pid = pid_of(&pid_file)?;
    let mut start = verb("start");
    start.arg(id);
    let started = bench.checked(start, 0).map_err(|e| format!("start: {e}"))?;
    let begin = std::time::Instant::now();
    let code = until_end(pid)?;
    let ended = begin.elapsed();
    if code != Some(EXPECTED) {
        return Err(format!("the program ended with {code:?} instead of {EXPECTED}"));
    }
    let mut delete = verb("delete");
    delete.arg(id);
    let deleted = bench.checked(delete, 0).map_err(|e| format!("delete: {e}"))?;
    Ok([micros(created), micros(started), micros(ended), micros(deleted)])
}

/// A program in a running container.
pub fn execs(bench: &Bench, bundle: &Bundle) -> Section {
    let gap = bench.options.gaps.first().copied().unwrap_or_default();
    let mut running = Vec::new();
    let mut field = Vec::new();
    for (contender, failure) in bench.runtimes(bundle) {
        let id = bench.next_id();
        let started = failure.map_or_else(
            || bench.sleeper(&contender, bundle, &id).map_err(|e| format!("run --detach: {e}")),
            Err,
        );
        field.push((contender.clone(), started.as_ref().err().cloned()));
        if let Ok(pid) = started {
            running.push((contender, id, pid));
        }
    }
    let turns = take_turns(bench, field, gap, |contender| {
        let (_, id, _) =
            running.iter().find(|one| one.0.name == contender.name).ok_or("its container is gone")?;
        let mut command = contender.command(&bench.root());
        command.arg("exec").arg(id).args(&bundle.args);
        bench.timed(command, EXPECTED)
    });
    for (contender, id, pid) in &running {
        bench.end_sleeper(contender, id, *pid);
    }
    let key = format!("{}-{}-exec", bench.mode.name(), bundle.name);
    let mut section = whole(
        Section::new(&key, &format!("exec into a running `{}`, {}", bundle.name, bench.mode.title())),
        turns,
    );
    section.drop_column("x bare");
    section
}

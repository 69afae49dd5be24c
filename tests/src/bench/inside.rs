//! What one launch consists of.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::bundles::{Bundle, EXPECTED};
use super::contender::{Contender, Kind};
use super::launch::Bench;
use super::report::{Cell, Row, Section};
use super::stats::{median, percentile};

/// Where hearth says its time went: one section for each build of it among the contenders.
pub fn timelines(bench: &Bench, bundle: &Bundle) -> Vec<Section> {
    let hearths = bench
        .runtimes(bundle)
        .into_iter()
        .filter(|(contender, failure)| contender.is_hearth() && failure.is_none());
    hearths.map(|(contender, _)| timeline(bench, bundle, &contender)).collect()
}

fn timeline(bench: &Bench, bundle: &Bundle, contender: &Contender) -> Section {
    let key = format!("{}-{}-timeline-{}", bench.mode.name(), bundle.name, contender.name);
    let mut section = Section::new(
        &key,
        &format!("{}'s own marks in `run {}`, {}", contender.name, bundle.name, bench.mode.title()),
    );
    section.columns = ["step us p50", "step us p90", "until here us p50"].map(String::from).into();
    let mut marks: Vec<(String, Vec<u32>, Vec<u32>)> = Vec::new();
    let gap = bench.options.gaps.first().copied().unwrap_or_default();
    for _ in 0..bench.options.rounds {
        sleep(gap);
        let mut command = contender.command(&bench.root());
        command.args(["run", "--timeline", "--bundle"]).arg(&bundle.dir).arg(bench.next_id());
        let Ok(output) = command.stdin(Stdio::null()).stdout(Stdio::null()).output() else { continue };
        if output.status.code() != Some(EXPECTED) {
            continue;
        }
        for (at, (name, total, step)) in
            parse_timeline(&String::from_utf8_lossy(&output.stderr)).into_iter().enumerate()
        {
            if marks.len() == at {
                marks.push((name, Vec::new(), Vec::new()));
            }
            marks[at].1.push(step);
            marks[at].2.push(total);
        }
    }
    for (name, steps, totals) in marks {
        let cell = |value: Option<u32>| Cell::of(value.map(f64::from), 0);
        let cells = vec![cell(median(&steps)), cell(percentile(&steps, 900)), cell(median(&totals))];
        section.rows.push(Row::new(&name, cells, None).with("step", steps));
    }
    section
}

/// Lines of `  264 us    +264  config read`.
fn parse_timeline(text: &str) -> Vec<(String, u32, u32)> {
    let line = |line: &str| {
        let (total, rest) = line.trim_start().split_once(" us ")?;
        let (step, name) = rest.trim_start().split_once("  ")?;
        Some((name.to_owned(), total.parse().ok()?, step.trim_start_matches('+').parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// System calls and the largest resident set of a launch, each on launches of its own.
pub fn cost(bench: &Bench, bundle: &Bundle) -> Section {
    let key = format!("{}-{}-cost", bench.mode.name(), bundle.name);
    let mut section =
        Section::new(&key, &format!("What a `run {}` costs, {}", bundle.name, bench.mode.title()));
    section.columns = ["system calls", "peak RSS KiB", "most frequent calls"].map(String::from).into();
    section.note =
        "System calls by strace -f, without those of the launched program. Peak RSS is that of the largest \
                    process of the launch."
            .into();
    for (contender, failure) in bench.field(bundle) {
        if let Some(failure) = failure {
            section.rows.push(Row::new(&contender.name, Vec::new(), Some(failure)));
            continue;
        }
        let rss = (0..3).filter_map(|_| peak_rss(bench, &contender, bundle)).reduce(f64::max);
        let (calls, failure) = match system_calls(bench, &contender, bundle) {
            Ok(calls) => (calls, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let sum: u32 = calls.values().sum();
        let mut often: Vec<_> = calls.iter().map(|(name, count)| (*count, name)).collect();
        often.sort_unstable_by(|a, b| b.cmp(a));
        let often: Vec<String> =
            often.iter().take(6).map(|(count, name)| format!("{name} {count}")).collect();
        let cells = vec![
            Cell::of((sum > 0).then_some(f64::from(sum)), 0),
            Cell::of(rss, 0),
            Cell::Text(often.join(", ")),
        ];
        section.rows.push(Row::new(&contender.name, cells, failure));
    }
    section
}

fn peak_rss(bench: &Bench, contender: &Contender, bundle: &Bundle) -> Option<f64> {
    let mut command = Command::new(bench.floor.as_ref()?);
    let launch = bench.command(contender, bundle);
    command.arg("rusage").arg(launch.get_program()).args(launch.get_args());
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if output.status.code() != Some(EXPECTED) {
        return None;
    }
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

fn system_calls(
    bench: &Bench,
    contender: &Contender,
    bundle: &Bundle,
) -> Result<BTreeMap<String, u32>, String> {
    let trace = bench.scratch.path().join("trace");
    let launch = bench.command(contender, bundle);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-s", "256", "-o"])
        .arg(&trace)
        .arg(launch.get_program())
        .args(launch.get_args());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.map_err(|e| format!("strace: {e}"))?;
    if status.code() != Some(EXPECTED) {
        return Err(format!("under strace: {status}"));
    }
    let text = fs::read(&trace).map_err(|e| format!("{}: {e}", trace.display()))?;
    let program = match contender.kind {
        Kind::Bare => bundle.bare.as_ref().and_then(|words| words.first()),
        _ => bundle.args.first(),
    };
    Ok(count_calls(&String::from_utf8_lossy(&text), program.map_or("", String::as_str)))
}

/// Counts the lines of strace -f, those of a process only until it has become `program`.
fn count_calls(trace: &str, program: &str) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    let mut done = std::collections::BTreeSet::new();
    let exec = format!("execve(\"{program}\"");
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let begins = call.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        if !begins || done.contains(pid) {
            continue;
        }
        let name = call.split('(').next().unwrap_or_default();
        *counts.entry(name.to_owned()).or_insert(0) += 1;
        if call.starts_with(&exec) {
            done.insert(pid.to_owned());
        }
    }
    counts
}

/// Of a container whose program sleeps: all processes that stay, shared pages in proportion.
pub fn memory(bench: &Bench, bundle: &Bundle) -> Section {
    const CONTAINERS: usize = 4;
    let key = format!("{}-{}-memory", bench.mode.name(), bundle.name);
    let mut section =
        Section::new(&key, &format!("Memory of an idle `{}` container, {}", bundle.name, bench.mode.title()));
    section.columns = ["PSS KiB", "processes"].map(String::from).into();
    section.note = format!("Mean of {CONTAINERS} containers that sleep; kernel memory is not in it.");
    for (contender, failure) in bench.runtimes(bundle) {
        if failure.is_some() {
            section.rows.push(Row::new(&contender.name, Vec::new(), failure));
            continue;
        }
        let ids: Vec<String> = (0..CONTAINERS).map(|_| bench.next_id()).collect();
        let started: Vec<_> = ids.iter().map(|id| bench.sleeper(&contender, bundle, id)).collect();
        sleep(Duration::from_millis(300));
        let found: Vec<u64> = descendants().into_iter().filter_map(pss).collect();
        let pss: u64 = found.iter().sum();
        for (id, pid) in ids.iter().zip(&started) {
            match pid {
                Ok(pid) => bench.end_sleeper(&contender, id, *pid),
                Err(_) => bench.remove(&contender, id),
            }
        }
        let each = |sum: f64| Some(sum / CONTAINERS as f64);
        let cells = vec![Cell::of(each(pss as f64), 0), Cell::of(each(found.len() as f64), 1)];
        let failure = started.into_iter().find_map(Result::err);
        section.rows.push(Row::new(
            &contender.name,
            if failure.is_some() { Vec::new() } else { cells },
            failure,
        ));
    }
    section
}

/// All processes below this one.
fn descendants() -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything: state, parent.
        let parent =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![std::process::id()];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.remove(0);
    found
}

fn pss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_with_their_names() {
        let text = "       0 us      +0  start\n     264 us    +264  config read\nnoise\n";
        assert_eq!(parse_timeline(text), [("start".into(), 0, 0), ("config read".into(), 264, 264)]);
    }

    #[test]
    fn the_programs_own_calls_do_not_count() {
        let trace = "10  execve(\"/usr/bin/rt\", [\"rt\"], 0x1 /* 3 vars */) = 0\n10  read(3 <unfinished ...>\n\
                     11  execve(\"/bin/true\", [\"/bin/true\"], 0x2) = 0\n10  <... read resumed>) = 0\n\
                     11  exit(42) = ?\n10  exit_group(42) = ?\n10  +++ exited with 42 +++\n";
        let counts = count_calls(trace, "/bin/true");
        assert_eq!(counts.values().sum::<u32>(), 4);
        assert_eq!((counts["execve"], counts.get("exit")), (2, None));
    }
}

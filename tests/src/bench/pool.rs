//! The warm pool: a daemon of the benchmark's own, and what only a pool has to show.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::bundles::{Bundle, EXPECTED};
use super::contender::{Contender, Kind};
use super::launch::{Bench, micros};
use super::report::{Cell, Row, Section};
use super::stats::{median, ms, percentile};

/// How long a daemon, or a refill, may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The hearthd beside a contender's hearth, with a pool for each bundle.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
}

impl Daemon {
    pub fn start(
        contender: &Contender,
        root: &Path,
        bundles: &[Bundle],
        parked: usize,
    ) -> Result<Self, String> {
        let own = root.join(&contender.name);
        let hearth = contender.words.first().map(PathBuf::from).unwrap_or_default();
        fs::create_dir_all(&own).map_err(|e| format!("mkdir {}: {e}", own.display()))?;
        let mut command = Command::new(hearth.with_file_name("hearthd"));
        command.arg("--root").arg(&own).arg("--state").arg(root.join(format!("{}-state", contender.name)));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let process = process.map_err(|e| format!("hearthd beside {}: {e}", hearth.display()))?;
        let daemon = Self { process };
        until("hearthd to answer", || (hearth_of(contender, root, &["pool", "list"]).ok()?.0).then_some(()))?;
        for bundle in bundles {
            let (dir, min) = (bundle.dir.to_string_lossy(), parked.to_string());
            let args = ["pool", "create", "--bundle", &dir, "--min", &min, "--max", "4000", &bundle.name];
            if !hearth_of(contender, root, &args)?.0 {
                return Err(format!("{}: hearth pool create failed", contender.name));
            }
            until_parked(contender, root, &bundle.name, parked)?;
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    /// What is parked goes by the daemon's own hand.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> Result<T, String> {
    let begin = Instant::now();
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if begin.elapsed() > LIMIT {
            return Err(format!("waited {} s for {what}", LIMIT.as_secs()));
        }
        sleep(Duration::from_millis(2));
    }
}

/// Whether it succeeded, and what it printed.
fn hearth_of(contender: &Contender, root: &Path, args: &[&str]) -> Result<(bool, String), String> {
    let mut command = Command::new(contender.words.first().map_or("", String::as_str));
    command.arg("--root").arg(root.join(&contender.name)).args(args);
    let output = command.stderr(Stdio::null()).output().map_err(|e| format!("{}: {e}", contender.name))?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn until_parked(contender: &Contender, root: &Path, pool: &str, count: usize) -> Result<(), String> {
    until(&format!("{count} parked sandboxes"), || {
        let (_, text) = hearth_of(contender, root, &["pool", "inspect", pool]).ok()?;
        let state: Value = serde_json::from_str(&text).ok()?;
        (state["parked"].as_u64()? >= count as u64).then_some(())
    })
}

/// By the pool only: an empty pool is a failure here, not a cold launch that is taken for a warm one.
pub fn launch(contender: &Contender, root: &Path, pool: &str) -> Command {
    let mut command = Command::new(contender.words.first().map_or("", String::as_str));
    command.arg("--root").arg(root.join(&contender.name)).args(["launch", "--pool", "only"]);
    command.args(contender.words.iter().skip(1)).arg(pool);
    command
}

/// The time from the start of a command to the first instruction of the program, as the program itself tells it.
pub fn first(bench: &Bench, bundle: &Bundle) -> Section {
    let gap = bench.options.gaps.first().copied().unwrap_or_default();
    let key = format!("{}-{}-first", bench.mode.name(), bundle.name);
    let title = format!(
        "`{}` until its first instruction, {}, {} ms idle before each",
        bundle.name,
        bench.mode.title(),
        gap.as_millis()
    );
    let mut section = Section::new(&key, &title);
    section.note =
        "From the exec of the command; for pools also from the client's call, which comes when its own \
                    start is over."
            .into();
    section.columns = ["p50 ms", "p99 ms", "min ms", "call p50 ms", "call p99 ms", "whole p50 ms", "n"]
        .map(String::from)
        .into();
    let mut all: Vec<_> = bench
        .field(bundle)
        .into_iter()
        .filter(|(one, _)| one.kind != Kind::Plain)
        .map(|one| (one, Vec::new()))
        .collect();
    for _ in 0..bench.options.rounds {
        for ((contender, failure), samples) in all.iter_mut().filter(|((_, failure), _)| failure.is_none()) {
            sleep(gap);
            match clocked(bench, contender, bundle) {
                Ok(sample) => samples.push(sample),
                Err(error) => *failure = Some(error),
            }
        }
    }
    for ((contender, failure), samples) in all {
        let column = |at: usize| -> Vec<u32> {
            samples.iter().filter_map(|sample: &[Option<u32>; 3]| sample[at]).collect()
        };
        let (first, call, whole) = (column(0), column(1), column(2));
        let at = |samples: &[u32], permille| Cell::of(percentile(samples, permille).map(ms), 2);
        let cells = vec![
            at(&first, 500),
            at(&first, 990),
            at(&first, 0),
            at(&call, 500),
            at(&call, 990),
            Cell::of(median(&whole).map(ms), 2),
            Cell::of(Some(first.len() as f64), 0),
        ];
        section.rows.push(
            Row::new(&contender.name, cells, failure)
                .with("wall", first)
                .with("call", call)
                .with("whole", whole),
        );
    }
    section
}

/// Microseconds: until the first instruction, the same from the client's call, and of the whole command.
fn clocked(bench: &Bench, contender: &Contender, bundle: &Bundle) -> Result<[Option<u32>; 3], String> {
    let path = bench.scratch.path().join("told");
    let output = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut command = bench.command(contender, bundle);
    if contender.kind == Kind::Pool {
        command = with_json(command);
    }
    command.stdout(output);
    let begin = now();
    let whole = bench.watched(command, EXPECTED)?;
    let told = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let told = time_of(&told).ok_or("the program did not tell the time (is it the bundle `clock`?)")?;
    let since = |start: u64| u32::try_from(told.saturating_sub(start) / 1000).ok();
    let errors = fs::read_to_string(bench.errors()).unwrap_or_default();
    let report: Value =
        errors.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    Ok([since(begin), report["started"].as_u64().and_then(since), Some(micros(whole))])
}

/// `launch` takes its flags before the name, which is last.
fn with_json(command: Command) -> Command {
    let mut args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    args.insert(args.len() - 1, "--json".into());
    let mut with = Command::new(command.get_program());
    with.args(args);
    with
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn time_of(bytes: &[u8]) -> Option<u64> {
    let (seconds, rest) = bytes.split_first_chunk::<8>()?;
    let (nanoseconds, _) = rest.split_first_chunk::<8>()?;
    Some(u64::from_le_bytes(*seconds) * 1_000_000_000 + u64::from_le_bytes(*nanoseconds))
}

/// How fast a pool fills from nothing, what its sandboxes cost, and how fast they go.
pub fn refill(bench: &Bench, bundle: &Bundle) -> Section {
    const COUNT: usize = 400;
    let key = format!("{}-{}-pool", bench.mode.name(), bundle.name);
    let title = format!("{COUNT} sandboxes of `{}`, {}", bundle.name, bench.mode.title());
    let mut section = Section::new(&key, &title);
    section.note =
        "Memory is what the machine has less of while they are parked, kernel memory included.".into();
    section.columns = ["parked a second", "MiB each", "ms to drain"].map(String::from).into();
    for (contender, failure) in bench.field(bundle).into_iter().filter(|(one, _)| one.kind == Kind::Pool) {
        let result = failure.map_or_else(|| filled(bench, &contender, bundle, COUNT), Err);
        let (cells, failure) = match result {
            Ok([rate, each, drain]) => {
                (vec![Cell::of(Some(rate), 0), Cell::of(Some(each), 2), Cell::of(Some(drain), 0)], None)
            }
            Err(error) => (Vec::new(), Some(error)),
        };
        section.rows.push(Row::new(&contender.name, cells, failure));
    }
    section
}

fn filled(bench: &Bench, contender: &Contender, bundle: &Bundle, count: usize) -> Result<[f64; 3], String> {
    let root = bench.root();
    let resize = |min: usize| {
        let min = min.to_string();
        hearth_of(contender, &root, &["pool", "resize", "--min", &min, "--max", "4000", &bundle.name])
            .map(drop)
    };
    let drain = || -> Result<f64, String> {
        let begin = Instant::now();
        hearth_of(contender, &root, &["pool", "drain", &bundle.name])?;
        let parked = root.join(&contender.name).join(".pool/parked");
        until("the pool to be empty", || (fs::read_dir(&parked).ok()?.count() == 0).then_some(()))?;
        Ok(begin.elapsed().as_secs_f64() * 1000.0)
    };
    drain()?;
    sleep(Duration::from_secs(1));
    let before = available()?;
    let begin = Instant::now();
    resize(count)?;
    until_parked(contender, &root, &bundle.name, count)?;
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    sleep(Duration::from_secs(1));
    let each = (before - available()?) / count as f64;
    let drained = drain()?;
    resize(bench.options.parked)?;
    until_parked(contender, &root, &bundle.name, bench.options.parked)?;
    Ok([rate, each, drained])
}

/// MiB.
fn available() -> Result<f64, String> {
    let text = fs::read_to_string("/proc/meminfo").map_err(|e| format!("/proc/meminfo: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| "/proc/meminfo: no MemAvailable".into())
}

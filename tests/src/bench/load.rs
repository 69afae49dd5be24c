//! Many launches at once, launches that arrive whether or not the last one is done, and launches beside many
//! containers that are there already.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::bundles::Bundle;
use super::contender::Contender;
use super::launch::{Bench, micros, reap_strays};
use super::report::{Cell, Row, Section};
use super::say;
use super::stats::{median, ms, percentile};

struct Storm {
    /// From the scheduled arrival to the end, waiting included.
    latencies: Vec<u32>,
    failure: Option<String>,
    failed: usize,
    total: Duration,
}

/// Launches at the given times, each by a thread of its own.
fn storm(bench: &Bench, contender: &Contender, bundle: &Bundle, arrivals: &[Duration]) -> Storm {
    let results = Mutex::new(Vec::new());
    let begin = Instant::now() + Duration::from_millis(20);
    thread::scope(|scope| {
        for arrival in arrivals {
            let due = begin + *arrival;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let results = &results;
            scope.spawn(move || {
                let result = bench.checked(bench.command(contender, bundle), super::bundles::EXPECTED);
                let latency = due.elapsed();
                if let Ok(mut results) = results.lock() {
                    results.push(result.map(|_| micros(latency)));
                }
            });
        }
    });
    let total = begin.elapsed();
    reap_strays();
    let results = results.into_inner().unwrap_or_default();
    let failed = results.iter().filter(|result| result.is_err()).count();
    let failure = results.iter().find_map(|result| result.clone().err());
    Storm { latencies: results.into_iter().flatten().collect(), failure, failed, total }
}

pub fn burst(bench: &Bench, bundle: &Bundle) -> Section {
    let arrivals = vec![Duration::ZERO; bench.options.burst];
    let key = format!("{}-{}-burst", bench.mode.name(), bundle.name);
    let title = format!("{} launches of `{}` at once, {}", arrivals.len(), bundle.name, bench.mode.title());
    storms(bench, bundle, Section::new(&key, &title), &arrivals)
}

pub fn poisson(bench: &Bench, bundle: &Bundle) -> Section {
    let (rate, duration) = (bench.options.rate, bench.options.duration);
    let key = format!("{}-{}-poisson", bench.mode.name(), bundle.name);
    let title = format!(
        "`{}` arriving {rate} times a second for {} s, {}",
        bundle.name,
        duration.as_secs_f64(),
        bench.mode.title()
    );
    let mut section = Section::new(&key, &title);
    section.note =
        "Open loop: arrivals do not wait for earlier launches, and latencies include queueing. Everyone \
                    gets the same arrivals."
            .into();
    storms(bench, bundle, section, &poisson_arrivals(rate, duration))
}

/// The same for the same rate: xorshift with a fixed seed.
fn poisson_arrivals(rate: f64, duration: Duration) -> Vec<Duration> {
    const MOST: usize = 20_000;
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut at = 0.0;
    let mut arrivals = Vec::new();
    while arrivals.len() < MOST {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = ((state >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        at -= uniform.ln() / rate;
        if at > duration.as_secs_f64() {
            break;
        }
        arrivals.push(Duration::from_secs_f64(at));
    }
    arrivals
}

fn storms(bench: &Bench, bundle: &Bundle, mut section: Section, arrivals: &[Duration]) -> Section {
    section.columns =
        ["per second", "p50 ms", "p90 ms", "p99 ms", "max ms", "failed"].map(String::from).into();
    for (contender, failure) in bench.field(bundle) {
        if failure.is_some() {
            section.rows.push(Row::new(&contender.name, Vec::new(), failure));
            continue;
        }
        let storm = storm(bench, &contender, bundle, arrivals);
        let at = |permille| Cell::of(percentile(&storm.latencies, permille).map(ms), 1);
        let cells = vec![
            Cell::of(Some(storm.latencies.len() as f64 / storm.total.as_secs_f64()), 1),
            at(500),
            at(900),
            at(990),
            at(1000),
            Cell::of(Some(storm.failed as f64), 0),
        ];
        section.rows.push(Row::new(&contender.name, cells, storm.failure).with("wall", storm.latencies));
        thread::sleep(Duration::from_millis(500));
    }
    section
}

/// Whether a launch gets slower with the number of containers that are there: each runtime among its own.
pub fn crowd(bench: &Bench, bundle: &Bundle) -> Section {
    let key = format!("{}-{}-crowd", bench.mode.name(), bundle.name);
    let mut section = Section::new(
        &key,
        &format!("run `{}` beside running containers, {}", bundle.name, bench.mode.title()),
    );
    section.columns = bench.options.crowd.iter().map(|count| format!("p50 ms beside {count}")).collect();
    for (contender, failure) in bench.runtimes(bundle) {
        if failure.is_some() {
            section.rows.push(Row::new(&contender.name, Vec::new(), failure));
            continue;
        }
        section.rows.push(beside(bench, bundle, &contender));
    }
    section
}

fn beside(bench: &Bench, bundle: &Bundle, contender: &Contender) -> Row {
    let gap = bench.options.gaps.first().copied().unwrap_or_default();
    let mut running = Vec::new();
    let mut cells = Vec::new();
    let mut samples = Vec::new();
    let mut failure = None;
    for &count in &bench.options.crowd {
        while failure.is_none() && running.len() < count {
            let id = bench.next_id();
            match bench.sleeper(contender, bundle, &id) {
                Ok(pid) => running.push((id, pid)),
                Err(error) => {
                    bench.remove(contender, &id);
                    failure = Some(format!("container {}: {error}", running.len() + 1));
                }
            }
        }
        let mut walls = Vec::new();
        for _ in 0..bench.options.rounds.min(30) {
            if failure.is_some() {
                break;
            }
            thread::sleep(gap);
            match bench.launch(contender, bundle) {
                Ok(sample) => walls.push(sample.wall),
                Err(error) => failure = Some(format!("beside {count}: {error}")),
            }
        }
        cells.push(Cell::of(median(&walls).map(ms), 2));
        samples.push((format!("beside {count}"), walls));
    }
    say(&format!("{}: removing {} containers", contender.name, running.len()));
    for (id, pid) in &running {
        bench.end_sleeper(contender, id, *pid);
    }
    samples
        .into_iter()
        .fold(Row::new(&contender.name, cells, failure), |row, (label, walls)| row.with(&label, walls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_and_in_order() {
        let arrivals = poisson_arrivals(100.0, Duration::from_secs(50));
        assert!((4_500..5_500).contains(&arrivals.len()), "{}", arrivals.len());
        assert!(arrivals.is_sorted());
        assert_eq!(arrivals, poisson_arrivals(100.0, Duration::from_secs(50)));
    }
}

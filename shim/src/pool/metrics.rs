//! What the daemon counts and times, and the text that Prometheus reads. PURE: the daemon serves it.
//!
//! Counts come from the policy's own words, so that no decision can be made without being counted. What has a label
//! has few values: the paths, phases and reasons are ours, and pools are bounded by the configuration.

use std::fmt::{Display, Write};

use super::policy::{Action, End, Event, Nanos, View, Why};

/// Upper bounds of the buckets: 50 us, and twice as much each time, to 1.6 s.
const BUCKETS: usize = 16;
const FIRST: Nanos = 50_000;

/// How a launch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    Bundle,
    Skeleton,
    Cold,
}

/// A part of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the request's arrival to the decision.
    Decide,
    /// From the decision to the program's first instruction.
    Start,
    /// Both.
    Whole,
}

const PATHS: [&str; 3] = ["bundle", "skeleton", "cold"];
const PHASES: [&str; 3] = ["decide", "start", "whole"];

#[derive(Debug, Default)]
pub struct Metrics {
    took: [[Histogram; PHASES.len()]; PATHS.len()],
    granted: u64,
    cold: [u64; Why::ALL.len()],
    refused: [u64; Why::ALL.len()],
    forks: u64,
    failed_forks: u64,
    destroyed: [u64; End::ALL.len()],
}

#[derive(Debug, Default)]
struct Histogram {
    /// Within each bound, and not within the one before.
    counts: [u64; BUCKETS],
    /// All of them, those beyond the last bound included.
    count: u64,
    sum: u128,
}

/// What there is at the moment.
#[derive(Debug)]
pub struct Now<'a> {
    /// By name.
    pub pools: &'a [(&'a str, View)],
    pub leased: u64,
    /// Bytes of all that is not leased, and what they may be.
    pub memory: (u64, u64),
    /// Whether launches can be served.
    pub ready: bool,
}

impl Metrics {
    /// To be called with each event before the policy gets it.
    pub fn heard(&mut self, event: &Event) {
        self.failed_forks += u64::from(matches!(event, Event::ForkFailed { .. }));
    }

    /// To be called with each of the policy's actions.
    pub fn did(&mut self, action: &Action) {
        match action {
            Action::Grant { .. } => self.granted += 1,
            Action::Cold { why, .. } => self.cold[*why as usize] += 1,
            Action::Refuse { why, .. } => self.refused[*why as usize] += 1,
            Action::Fork { .. } => self.forks += 1,
            Action::Destroy { why, .. } => self.destroyed[*why as usize] += 1,
            Action::Learn { .. } | Action::Forget { .. } | Action::WakeAt { .. } => {}
        }
    }

    pub fn took(&mut self, path: Path, phase: Phase, span: Nanos) {
        self.took[path as usize][phase as usize].add(span);
    }

    /// In Prometheus' text format.
    pub fn text(&self, now: &Now<'_>) -> String {
        let mut page = Page(String::new());
        page.counter("hearth_granted_total", "Launches that got a parked sandbox");
        page.line("hearth_granted_total", "", self.granted);
        page.counter("hearth_cold_total", "Launches that the pool sent to the cold path");
        page.by_reason("hearth_cold_total", &Why::ALL.map(Why::label), &self.cold);
        page.counter("hearth_refused_total", "Launches that wanted only the pool, and were refused");
        page.by_reason("hearth_refused_total", &Why::ALL.map(Why::label), &self.refused);
        page.counter("hearth_forks_total", "Sandboxes that were asked for");
        page.line("hearth_forks_total", "", self.forks);
        page.counter("hearth_failed_forks_total", "Sandboxes that could not be made");
        page.line("hearth_failed_forks_total", "", self.failed_forks);
        page.counter("hearth_destroyed_total", "Sandboxes that were destroyed");
        page.by_reason("hearth_destroyed_total", &End::ALL.map(End::label), &self.destroyed);
        self.latencies(&mut page);
        now.write(&mut page);
        page.0
    }

    fn latencies(&self, page: &mut Page) {
        page.head("hearth_launch_seconds", "histogram", "What launches took, by path and phase");
        for (path, phases) in PATHS.iter().zip(&self.took) {
            for (phase, histogram) in PHASES.iter().zip(phases) {
                histogram.write(page, "hearth_launch_seconds", &format!("path=\"{path}\",phase=\"{phase}\""));
            }
        }
    }
}

impl Histogram {
    fn add(&mut self, span: Nanos) {
        let at = span.div_ceil(FIRST).max(1).next_power_of_two().ilog2() as usize;
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.count += 1;
        self.sum += u128::from(span);
    }

    fn write(&self, page: &mut Page, name: &str, labels: &str) {
        let mut within = 0;
        for (at, count) in self.counts.iter().enumerate() {
            within += count;
            let bound = (FIRST << at) as f64 / 1e9;
            page.line(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), within);
        }
        page.line(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), self.count);
        page.line(&format!("{name}_sum"), labels, self.sum as f64 / 1e9);
        page.line(&format!("{name}_count"), labels, self.count);
    }
}

impl Now<'_> {
    fn write(&self, page: &mut Page) {
        type Figure = fn(&View) -> u32;
        let figures: [(&str, &str, Figure); 4] = [
            ("hearth_parked", "Sandboxes that are ready", |view| view.parked),
            ("hearth_forking", "Sandboxes that are being made", |view| view.forking),
            ("hearth_target", "Sandboxes that should be ready", |view| view.target),
            ("hearth_waiting", "Launches that wait for a sandbox", |view| view.waiting),
        ];
        for (name, help, figure) in figures {
            page.head(name, "gauge", help);
            for (pool, view) in self.pools {
                page.line(name, &format!("pool=\"{}\"", escaped(pool)), figure(view));
            }
        }
        page.gauge("hearth_leased", "Sandboxes that run a program", self.leased);
        page.gauge("hearth_memory_bytes", "Memory of all sandboxes that run none", self.memory.0);
        page.gauge("hearth_memory_allowed_bytes", "What it may be at the moment", self.memory.1);
        page.gauge("hearth_ready", "Whether launches can be served", u8::from(self.ready));
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.head(name, "counter", help);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.line(name, "", value);
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn by_reason(&mut self, name: &str, reasons: &[&str], counts: &[u64]) {
        for (reason, count) in reasons.iter().zip(counts) {
            self.line(name, &format!("reason=\"{reason}\""), count);
        }
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Generation, Pool, RequestId, SandboxId};
    use super::*;

    fn page(metrics: &Metrics) -> String {
        let spec = Pool { min: 0, max: 9, cost: 1, generation: Generation(1), learned: None };
        let view = View { spec, draining: false, target: 3, parked: 2, forking: 1, waiting: 0 };
        let pools = [("a\"b\\c\nd", view)];
        metrics.text(&Now { pools: &pools, leased: 7, memory: (5, 6), ready: true })
    }

    #[test]
    fn decisions_are_counted_by_their_reason() {
        let mut metrics = Metrics::default();
        let (request, sandbox) = (RequestId(1), SandboxId(1));
        metrics.did(&Action::Grant { request, sandbox });
        metrics.did(&Action::Cold { request, why: Why::Late });
        metrics.did(&Action::Refuse { request, why: Why::QueueFull });
        metrics.did(&Action::Destroy { sandbox, why: End::Evicted });
        metrics.heard(&Event::ForkFailed { sandbox });
        let text = page(&metrics);
        for line in [
            "hearth_granted_total 1",
            "hearth_cold_total{reason=\"late\"} 1",
            "hearth_cold_total{reason=\"empty\"} 0",
            "hearth_refused_total{reason=\"queue_full\"} 1",
            "hearth_destroyed_total{reason=\"evicted\"} 1",
            "hearth_failed_forks_total 1",
            "hearth_leased 7",
            "hearth_memory_allowed_bytes 6",
            "hearth_parked{pool=\"a\\\"b\\\\c\\nd\"} 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn latencies_fall_into_the_bucket_that_bounds_them() {
        let mut metrics = Metrics::default();
        for span in [0, 50_000, 50_001, 3_000_000, 60_000_000_000] {
            metrics.took(Path::Skeleton, Phase::Whole, span);
        }
        let text = page(&metrics);
        let value = |le: &str| {
            let start =
                format!("hearth_launch_seconds_bucket{{path=\"skeleton\",phase=\"whole\",le=\"{le}\"}} ");
            text.lines()
                .find_map(|line| line.strip_prefix(&start))
                .unwrap_or_else(|| panic!("no {start}"))
                .to_owned()
        };
        assert_eq!(
            [value("0.00005"), value("0.0001"), value("0.0016"), value("0.0032")],
            ["2", "3", "3", "4"]
        );
        assert_eq!([value("1.6384"), value("+Inf")], ["4", "5"]);
        assert!(text.contains("hearth_launch_seconds_count{path=\"skeleton\",phase=\"whole\"} 5\n"));
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample_of_a_family_that_was_announced() {
        let text = page(&Metrics::default());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().into();
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with(&family) && value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
    }
}

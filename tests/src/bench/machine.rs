//! Where it was measured, and whether that place is quiet enough to say anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use super::args::Cgroups;
use super::bundles::SLEEPING;
use super::launch::{Bench, micros};
use super::report::Section;
use super::stats::{median, percentile};

const ROOT: &str = "/sys/fs/cgroup";
const UNIFIED: &str = "/sys/fs/cgroup/unified";
const CGROUP2: u64 = 0x6367_7270;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    V2,
    Hybrid,
    V1,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::V1 => "v1",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::V2 => "cgroup v2",
            Self::Hybrid => "hybrid cgroups",
            Self::V1 => "cgroup v1",
        }
    }

    /// A hierarchy in which leaves may be made.
    fn hierarchy(self) -> PathBuf {
        match self {
            Self::V2 => ROOT.into(),
            Self::Hybrid => UNIFIED.into(),
            Self::V1 => Path::new(ROOT).join("pids"),
        }
    }
}

/// What everything that is measured sees.
pub fn mode() -> Mode {
    let is_v2 =
        |path: &str| rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2));
    match (is_v2(ROOT), is_v2(UNIFIED)) {
        (true, _) => Mode::V2,
        (false, true) => Mode::Hybrid,
        (false, false) => Mode::V1,
    }
}

/// Shows this process, and so whatever it measures, one kind of cgroups only, by a mount that nobody else sees.
pub fn show_cgroups(wanted: Cgroups) -> Result<(), String> {
    let (kind, target) = match wanted {
        Cgroups::Host => return Ok(()),
        Cgroups::Hybrid if mode() == Mode::Hybrid => return Ok(()),
        Cgroups::Hybrid => return Err("--cgroups hybrid: this host's cgroups are not hybrid".into()),
        Cgroups::V2 if mode() == Mode::V2 => return Ok(()),
        Cgroups::V2 => ("cgroup2", ROOT),
        Cgroups::V1 if mode() == Mode::V1 => return Ok(()),
        Cgroups::V1 if mode() == Mode::V2 => return Err("--cgroups v1: this host has v2 only".into()),
        Cgroups::V1 => ("tmpfs", UNIFIED),
    };
    let fail = |what: &str| format!("--cgroups: {what}");
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| fail(&format!("unshare: {e}")))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| fail(&format!("make / private: {e}")))?;
    mount(Some(kind), target, Some(kind), MsFlags::empty(), none)
        .map_err(|e| fail(&format!("mount {kind}: {e}")))
}

/// /run where it is a tmpfs, as it should be; else another tmpfs; else any place for temporary files.
pub fn volatile_directory() -> PathBuf {
    const TMPFS: u64 = 0x0102_1994;
    let is_tmpfs =
        |path: &&str| rustix::fs::statfs(*path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS));
    ["/run", "/dev/shm"].into_iter().find(is_tmpfs).map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Removes empty groups whose names begin so, at most as deep as a supervisor's own group.
pub fn remove_groups(prefix: &str) {
    fn below(dir: &Path, prefix: &str, depth: u32) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                let _ = fs::remove_dir(entry.path());
            } else if depth > 0 {
                below(&entry.path(), prefix, depth - 1);
            }
        }
    }
    below(Path::new(ROOT), prefix, 4);
}

/// Puts this process, and with it all that it starts, ahead of whatever else wants the processors.
pub fn become_realtime() -> Result<(), String> {
    let mut chrt = Command::new("chrt");
    chrt.args(["--fifo", "--pid", "5", &std::process::id().to_string()]);
    match chrt.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("--realtime: chrt: {status}")),
        Err(error) => Err(format!("--realtime: chrt: {error}")),
    }
}

#[derive(Debug)]
pub struct Machine {
    pub kernel: String,
    pub cpu: String,
    pub mode: Mode,
    pub versions: Vec<(String, String)>,
    load_before: String,
    load_after: String,
    /// Nothing where it could not be measured.
    procs_write: Vec<u32>,
    /// Kernel-wide and for good once anyone mounted with it: cheap moves between cgroups.
    favordynmods: bool,
    state: String,
    cpu_times: (u64, u64),
    stolen: f64,
    pub verdict: String,
    pub too_noisy: bool,
    pub notes: Vec<String>,
}

impl Machine {
    pub fn look(bench: &Bench) -> Result<Self, String> {
        let uname = rustix::system::uname();
        let versions = bench.contenders.iter().filter_map(|contender| {
            let command = contender.words.first().filter(|_| contender.is_runtime())?;
            Some((contender.name.clone(), format!("{} ({})", version(command), contender.words.join(" "))))
        });
        let mut notes = bench.notes.clone();
        if bench.options.realtime {
            notes
                .push("everything ran at real-time priority, ahead of whatever else the machine does".into());
        }
        let procs_write = procs_write(bench.mode, &bench.scratch.path().join(SLEEPING));
        let procs_write =
            procs_write.map_err(|e| notes.push(format!("cgroup.procs not timed: {e}"))).unwrap_or_default();
        Ok(Self {
            kernel: format!(
                "Linux {} {}",
                uname.release().to_string_lossy(),
                uname.machine().to_string_lossy()
            ),
            cpu: cpu(),
            mode: bench.mode,
            versions: versions.collect(),
            load_before: load(),
            load_after: String::new(),
            procs_write,
            favordynmods: fs::read_to_string("/proc/self/mountinfo")
                .is_ok_and(|text| text.contains("favordynmods")),
            state: bench.root().display().to_string(),
            cpu_times: cpu_times(),
            stolen: 0.0,
            verdict: String::new(),
            too_noisy: false,
            notes,
        })
    }

    /// After the measuring: load, stolen time, and the verdict by the bare launches of this run, or by some more.
    pub fn look_again(&mut self, bench: &Bench, sections: &[Section]) {
        self.load_after = load();
        let (all, stolen) = cpu_times();
        self.stolen = 100.0 * (stolen - self.cpu_times.1) as f64 / (all - self.cpu_times.0).max(1) as f64;
        let own = |section: &Section| section.key.contains("-true-run-");
        let bare = sections
            .iter()
            .filter(|section| own(section))
            .find_map(|section| section.samples("bare", "wall"));
        let bare = bare.map_or_else(|| bench.bare_launches(), <[u32]>::to_vec);
        (self.verdict, self.too_noisy) = verdict(&bare);
    }

    pub fn lines(&self) -> Vec<String> {
        let favor = if self.favordynmods {
            "; favordynmods is on, which hides this cost: do not compare"
        } else {
            ""
        };
        let procs = median(&self.procs_write).map_or("unknown".into(), |us| {
            format!("{:.2} ms (p50 of {})", f64::from(us) / 1e3, self.procs_write.len())
        });
        let mut lines = vec![
            format!("Machine: {}; {}; {}", self.kernel, self.cpu, self.mode.title()),
            format!("One isolated write to cgroup.procs: {procs}{favor}"),
            format!(
                "Load {} before, {} after; {:.1} % of processor time stolen",
                self.load_before, self.load_after, self.stolen
            ),
            format!("The runtimes' state is in {}", self.state),
            format!("Noise: {}", self.verdict),
        ];
        lines.extend(self.versions.iter().map(|(name, version)| format!("{name}: {version}")));
        lines.extend(self.notes.iter().map(|note| format!("Note: {note}")));
        lines
    }

    pub fn json(&self) -> Value {
        let versions: BTreeMap<_, _> = self.versions.iter().cloned().collect();
        json!({
            "kernel": self.kernel, "cpu": self.cpu, "cgroups": self.mode.name(), "runtimes": versions,
            "load_before": self.load_before, "load_after": self.load_after, "stolen_percent": self.stolen,
            "cgroup_procs_write_us": self.procs_write, "favordynmods": self.favordynmods,
            "verdict": self.verdict, "too_noisy": self.too_noisy, "notes": self.notes,
        })
    }
}

/// From the launches without any container: how far the machine drifts, and how ragged it is.
fn verdict(bare: &[u32]) -> (String, bool) {
    const BLOCKS: usize = 5;
    if bare.len() < 2 * BLOCKS {
        return (format!("unknown: {} bare launches are too few", bare.len()), false);
    }
    let medians: Vec<u32> = bare.chunks(bare.len().div_ceil(BLOCKS)).filter_map(median).collect();
    let (least, most) =
        (medians.iter().min().copied().unwrap_or(1), medians.iter().max().copied().unwrap_or(1));
    let middle = median(bare).unwrap_or(1).max(1);
    let spread = 100.0 * f64::from(most - least) / f64::from(middle);
    let ragged = f64::from(percentile(bare, 900).unwrap_or(1)) / f64::from(middle);
    let (word, too_noisy) = match (spread, ragged) {
        (..=15.0, ..=1.8) => ("quiet enough", false),
        (..=50.0, ..=3.0) => ("noisy; ratios within one table hold, absolute figures drift", false),
        _ => ("TOO NOISY to say anything but orders of magnitude; run it again on an idle machine", true),
    };
    (
        format!(
            "{word} (bare launch: medians of {BLOCKS} blocks spread {spread:.0} %, p90 {ragged:.1} times p50)"
        ),
        too_noisy,
    )
}

/// A child of ours is moved to and fro between two leaves of ours, 60 ms apart.
fn procs_write(mode: Mode, pause: &Path) -> Result<Vec<u32>, String> {
    const WRITES: usize = 9;
    let leaf = |name: &str| mode.hierarchy().join(format!("hearth-bench-{}-{name}", std::process::id()));
    let leaves = [leaf("a"), leaf("b")];
    for leaf in &leaves {
        fs::create_dir(leaf).map_err(|e| format!("mkdir {}: {e}", leaf.display()))?;
    }
    let child = Command::new(pause).stdin(Stdio::null()).spawn();
    let result = child.map_err(|e| format!("{}: {e}", pause.display())).and_then(|mut child| {
        let mut samples = Vec::new();
        let mut wrong = None;
        for at in 0..WRITES {
            sleep(Duration::from_millis(60));
            let begin = Instant::now();
            match fs::write(leaves[at % 2].join("cgroup.procs"), child.id().to_string()) {
                Ok(()) => samples.push(micros(begin.elapsed())),
                Err(error) => wrong = Some(format!("write cgroup.procs: {error}")),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        wrong.map_or(Ok(samples), Err)
    });
    for leaf in &leaves {
        let _ = fs::remove_dir(leaf);
    }
    result
}

fn version(command: &str) -> String {
    let output = Command::new(command).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("version unknown").to_owned()
}

fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    format!("{count} x {}", name.unwrap_or("unknown processor"))
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// All ticks of all processors, and those that the hypervisor kept.
fn cpu_times() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|t| t.parse().ok())
        .collect();
    (ticks.iter().sum(), ticks.get(7).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_drift_and_raggedness() {
        let steady: Vec<u32> = (0..50).map(|i| 700 + i % 7).collect();
        assert!(verdict(&steady).0.starts_with("quiet"));
        let drifting: Vec<u32> = (0..50).map(|i| 700 + i * 5).collect();
        assert!(verdict(&drifting).0.starts_with("noisy"));
        let ragged: Vec<u32> = (0..50).map(|i| if i % 4 == 0 { 9000 } else { 700 }).collect();
        assert!(verdict(&ragged).1);
        assert!(verdict(&[700; 5]).0.starts_with("unknown"));
    }
}

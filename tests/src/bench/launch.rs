//! One launch: timed, accounted, checked and bounded in time.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, pidfd_open, wait, waitid,
};
use tempfile::TempDir;

use super::args::Options;
use super::bundles::{Bundle, EXITING, EXPECTED, SLEEPING, SYS_EXIT, SYS_PAUSE};
use super::contender::{Contender, Kind};
use super::machine::{self, Mode};
use super::pool::{self, Daemon};
use crate::program;

/// A launch that takes longer has failed.
pub const LIMIT: Duration = Duration::from_secs(20);
/// Before anything counts: caches are filled, and what cannot run at all is found out.
const WARM_UP: usize = 2;

/// Microseconds, and page faults with all descendants that were waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    pub wall: u32,
    pub cpu: u32,
    pub faults: u32,
}

#[derive(Debug)]
pub struct Bench {
    pub options: Options,
    pub contenders: Vec<Contender>,
    pub bundles: Vec<Bundle>,
    pub mode: Mode,
    /// tests/bench/floor.c, compiled; also what peak memory is measured with.
    pub floor: Option<PathBuf>,
    pub scratch: TempDir,
    /// The runtimes' state, on a tmpfs as on any host whose /run is one.
    pub state: TempDir,
    pub notes: Vec<String>,
    /// Of the pools, by contender.
    daemons: Vec<Daemon>,
    /// Whose warm-up failed, per bundle: contender and error.
    failures: Vec<(String, String, String)>,
    ids: AtomicU32,
}

impl Bench {
    pub fn new(options: Options) -> Result<Self, String> {
        let mode = machine::mode();
        let scratch =
            TempDir::with_prefix("hearth-bench-").map_err(|e| format!("temporary directory: {e}"))?;
        let state = TempDir::with_prefix_in("hearth-bench-", machine::volatile_directory());
        let state = state.map_err(|e| format!("temporary directory: {e}"))?;
        // What `create` leaves behind becomes our child, so that its end is seen and nothing stays.
        rustix::process::set_child_subreaper(Pid::from_raw(1))
            .map_err(|e| format!("become subreaper: {e}"))?;
        let make = |text: &String| Bundle::make(text, scratch.path(), mode == Mode::V2);
        let bundles = options.bundles.iter().map(make).collect::<Result<Vec<_>, _>>()?;
        program::syscall(&scratch.path().join(EXITING), SYS_EXIT, &[u64::from(EXPECTED.unsigned_abs())]);
        program::syscall(&scratch.path().join(SLEEPING), SYS_PAUSE, &[]);
        let mut notes = Vec::new();
        let floor = compiled_floor(options.floor.as_deref(), scratch.path());
        let floor = floor.map_err(|e| notes.push(format!("no floor and no peak memory: {e}"))).ok();
        let mut contenders = vec![Contender::bare()];
        contenders.extend(floor.as_deref().map(Contender::floor));
        contenders.extend(options.contenders.iter().cloned());
        let ids = AtomicU32::new(0);
        let pools = contenders.iter().filter(|contender| contender.kind == Kind::Pool);
        let daemons = pools
            .map(|contender| Daemon::start(contender, state.path(), &bundles, options.parked))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            daemons,
            options,
            contenders,
            bundles,
            mode,
            floor,
            scratch,
            state,
            notes,
            failures: Vec::new(),
            ids,
        })
    }

    pub fn root(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// Launches without any container, for the verdict on noise.
    pub fn bare_launches(&self) -> Vec<u32> {
        const LAUNCHES: usize = 50;
        let mut samples = Vec::new();
        for _ in 0..LAUNCHES {
            std::thread::sleep(Duration::from_millis(10));
            let program = Command::new(self.scratch.path().join(EXITING));
            samples.extend(self.checked(program, EXPECTED).map(micros));
        }
        samples
    }

    pub fn next_id(&self) -> String {
        format!("{}{}", prefix(), self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Lets everyone launch everything a few times; tells who cannot.
    pub fn warm_up(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        for bundle in &self.bundles {
            for (contender, _) in self.field(bundle) {
                let tried = (0..WARM_UP).try_for_each(|_| self.launch(&contender, bundle).map(drop));
                if let Err(error) = tried {
                    failures.push((bundle.name.clone(), contender.name, error));
                }
            }
        }
        self.failures = failures;
        self.failures
            .iter()
            .map(|(bundle, name, error)| format!("{name} cannot launch {bundle}: {error}"))
            .collect()
    }

    /// Everyone for whom this bundle makes sense, with the error of those who failed to warm up.
    pub fn field(&self, bundle: &Bundle) -> Vec<(Contender, Option<String>)> {
        let fits = |contender: &&Contender| match contender.kind {
            Kind::Bare => bundle.bare.is_some(),
            Kind::Floor => bundle.has_floor,
            _ => true,
        };
        let failure = |name: &str| {
            let found = self.failures.iter().find(|(of, who, _)| *of == bundle.name && who == name);
            found.map(|(_, _, error)| error.clone())
        };
        self.contenders.iter().filter(fits).map(|one| (one.clone(), failure(&one.name))).collect()
    }

    pub fn runtimes(&self, bundle: &Bundle) -> Vec<(Contender, Option<String>)> {
        self.field(bundle).into_iter().filter(|(contender, _)| contender.is_runtime()).collect()
    }

    /// The command of a whole launch.
    pub fn command(&self, contender: &Contender, bundle: &Bundle) -> Command {
        match contender.kind {
            Kind::Bare => {
                let words = bundle.bare.clone().unwrap_or_default();
                let mut command = Command::new(words.first().map_or("", String::as_str));
                command.args(words.iter().skip(1));
                command
            }
            Kind::Floor => {
                let mut command = contender.filled(&bundle.rootfs, &[]);
                command
                    .args(["run", self.mode.name(), &self.next_id()])
                    .arg(&bundle.rootfs)
                    .args(&bundle.args);
                command
            }
            Kind::Plain => contender.filled(&bundle.rootfs, &bundle.args),
            Kind::Pool => pool::launch(contender, &self.root(), &bundle.name),
            Kind::Runtime => {
                let mut command = contender.command(&self.root());
                command.arg("run").arg("--bundle").arg(&bundle.dir).arg(self.next_id());
                command
            }
        }
    }

    pub fn launch(&self, contender: &Contender, bundle: &Bundle) -> Result<Sample, String> {
        self.timed(self.command(contender, bundle), EXPECTED)
    }

    pub fn timed(&self, command: Command, expected: i32) -> Result<Sample, String> {
        self.accounted(|| self.checked(command, expected))
    }

    /// What our children used meanwhile.
    pub fn accounted(&self, work: impl FnOnce() -> Result<Duration, String>) -> Result<Sample, String> {
        // What a launch before this one left is not on this one's account.
        reap_strays();
        let before = used()?;
        let wall = work()?;
        reap_strays();
        let after = used()?;
        let faults = u32::try_from(after.1 - before.1).unwrap_or(0);
        Ok(Sample { wall: micros(wall), cpu: micros(after.0.saturating_sub(before.0)), faults })
    }

    pub fn errors(&self) -> PathBuf {
        self.scratch.path().join(format!("errors-{:?}", std::thread::current().id()))
    }

    /// The time from the start to the end of a command that must exit as expected.
    pub fn checked(&self, mut command: Command, expected: i32) -> Result<Duration, String> {
        command.stdout(Stdio::null());
        self.watched(command, expected)
    }

    /// The same, wherever its output goes.
    pub fn watched(&self, mut command: Command, expected: i32) -> Result<Duration, String> {
        let errors = self.errors();
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(&errors);
        let file = file.map_err(|e| format!("{}: {e}", errors.display()))?;
        command.stdin(Stdio::null()).stderr(file);
        let begin = Instant::now();
        let child =
            command.spawn().map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
        let code = end(child)?;
        let wall = begin.elapsed();
        if code == Some(expected) { Ok(wall) } else { Err(complaint(code, expected, &errors)) }
    }

    /// Ends a container whatever its state is.
    pub fn remove(&self, contender: &Contender, id: &str) {
        let mut command = contender.command(&self.root());
        command.args(["delete", "--force", id]);
        let _ = self.checked(command, 0);
    }

    /// Starts a container that sleeps; its pid.
    pub fn sleeper(&self, contender: &Contender, bundle: &Bundle, id: &str) -> Result<Pid, String> {
        let pid_file = self.scratch.path().join(format!("{id}.pid"));
        let mut command = contender.command(&self.root());
        command.args(["run", "--detach", "--bundle"]).arg(&bundle.sleeper);
        command.arg("--pid-file").arg(&pid_file).arg(id);
        self.checked(command, 0)?;
        pid_of(&pid_file)
    }

    /// Kills a sleeper, waits for its end and removes it.
    pub fn end_sleeper(&self, contender: &Contender, id: &str, pid: Pid) {
        let _ = kill_process(pid, Signal::KILL);
        let _ = until_end(pid);
        self.remove(contender, id);
    }
}

/// What failed launches left behind is removed: containers by their runtimes, then groups that nobody removed.
impl Drop for Bench {
    fn drop(&mut self) {
        self.daemons.clear();
        let names = |dir: PathBuf| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        for contender in self.contenders.iter().filter(|contender| contender.is_runtime()) {
            let ids = names(self.root().join(&contender.name));
            ids.iter().filter(|id| id.starts_with(&prefix())).for_each(|id| self.remove(contender, id));
        }
        machine::remove_groups(&prefix());
    }
}

/// Of every id, and so of every container's group.
fn prefix() -> String {
    format!("hb{}-", std::process::id())
}

/// Collects what launches left to us (bwrap does not wait for its program). Only while no thread waits for a child.
pub fn reap_strays() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

pub fn pid_of(pid_file: &Path) -> Result<Pid, String> {
    let text = fs::read_to_string(pid_file).map_err(|e| format!("{}: {e}", pid_file.display()))?;
    let _ = fs::remove_file(pid_file);
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| format!("pid file: {text:?}: expected a pid"))
}

/// Waits for a container's init, an orphan that came to us: its exit status.
pub fn until_end(pid: Pid) -> Result<Option<i32>, String> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| format!("pidfd_open: {e}"))?;
    if !within_limit(&pidfd) {
        return Err(format!("no end within {} s", LIMIT.as_secs()));
    }
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).map_err(|e| format!("waitid: {e}"))?;
    Ok(status.and_then(|status| status.exit_status()))
}

fn end(mut child: Child) -> Result<Option<i32>, String> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if pidfd.is_some_and(|pidfd| !within_limit(&pidfd)) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("no end within {} s", LIMIT.as_secs()));
    }
    child.wait().map(|status| status.code()).map_err(|e| format!("wait: {e}"))
}

fn within_limit(pidfd: &impl AsFd) -> bool {
    let limit = Timespec { tv_sec: i64::try_from(LIMIT.as_secs()).unwrap_or(20), tv_nsec: 0 };
    let mut waiting = [PollFd::new(pidfd, PollFlags::IN)];
    loop {
        match poll(&mut waiting, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}

/// The exit status and the last thing said.
fn complaint(code: Option<i32>, expected: i32, errors: &Path) -> String {
    let text = fs::read(errors).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(silent)");
    // runc's log lines have time and level before, crun's only a time.
    let last = last.split_once("msg=").map_or(last, |(_, message)| message.trim_matches('"'));
    let last: String = last.chars().take(200).collect();
    match code {
        Some(code) => format!("exit status {code} instead of {expected}: {last}"),
        None => format!("killed by a signal: {last}"),
    }
}

/// Processor time and page faults of all children that were waited for.
fn used() -> Result<(Duration, i64), String> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("getrusage: {e}"))?;
    let time = |value: nix::sys::time::TimeVal| {
        let micros = value.tv_sec() * 1_000_000 + value.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    let cpu = time(usage.user_time()) + time(usage.system_time());
    Ok((cpu, usage.minor_page_faults() + usage.major_page_faults()))
}

pub fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn compiled_floor(given: Option<&Path>, scratch: &Path) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return path.canonicalize().map_err(|e| format!("--floor {}: {e}", path.display()));
    }
    let source = scratch.join("floor.c");
    let made = scratch.join("floor");
    fs::write(&source, include_str!("../../bench/floor.c")).map_err(|e| format!("floor.c: {e}"))?;
    let log = File::create(scratch.join("cc.log")).map_err(|e| format!("cc.log: {e}"))?;
    let mut cc = Command::new("cc");
    cc.args(["-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-O2", "-o"])
        .arg(&made)
        .arg(&source)
        .stderr(log);
    match cc.status() {
        Ok(status) if status.success() => Ok(made),
        Ok(status) => Err(format!("cc floor.c: {status}")),
        Err(error) => Err(format!("cc: {error}")),
    }
}

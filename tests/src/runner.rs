//! The suite's main: `suite [--list] [--jobs N] [FILTER...]`.
//!
//! The same executable plays three parts. The *suite* starts workers and prints their results. A *worker* is PID 1 in
//! PID and mount namespaces of its own, with a private `/run` and working directory; it starts one process a case and
//! looks for leaks after it. A *case* runs one function. Workers read names on standard input and answer each with
//! one line of JSON.
//!
//! Cases about systemd, where it is there to be asked, run in the host's PID namespace and see its `/run`: systemd must
//! find the processes that it is told of. Their processes are not looked for afterwards.
//!
//! `HEARTH_TEST_CGROUPS=v1` or `v2` shows the workers, and so the runtime, one kind of cgroups only.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use serde_json::{Value, json};

use crate::context::{Case, Ctx, Side, Skip, patience};
use crate::leaks::{Before, is_apart, remove_cgroups};
use crate::runtime::Runtime;

/// Seconds.
const CASE_LIMIT: u64 = 60;
const LONG_CASE_LIMIT: u64 = 900;
/// The exit code of a case that was skipped.
const SKIPPED: u8 = 77;
/// How much of a failed case's commands is shown.
const TRACE_LINES: usize = 12;

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

pub fn main(files: &[&[Case]]) -> ExitCode {
    // Cases about scheduling expect what a caller of ordinary niceness hands down.
    let _ = rustix::process::setpriority_process(None, 0);
    let short = |case: &Case| Case { name: case.name.trim_start_matches("suite::"), ..*case };
    let cases: Vec<Case> = files.iter().flat_map(|file| file.iter().map(short)).collect();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["--worker", token, dir] => work(&cases, token, Path::new(dir)).map(|()| ExitCode::SUCCESS),
        ["--case", name, token, dir] => Ok(run_case(&cases, name, token, Path::new(dir))),
        words => suite(&cases, words),
    };
    result.unwrap_or_else(|message| {
        let _ = writeln!(io::stderr(), "suite: {message}");
        ExitCode::FAILURE
    })
}

// ---- the suite

fn suite(cases: &[Case], words: &[&str]) -> Result<ExitCode, String> {
    let mut jobs = 2;
    let mut list = false;
    let mut filters = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--list" => list = true,
            "--jobs" => {
                let number = words.next().and_then(|n| n.parse().ok()).filter(|n| (1..=16).contains(n));
                jobs = number.ok_or("--jobs: expected a number from 1 to 16")?;
            }
            word if word.starts_with("--") => return Err(format!("{word}: unknown flag")),
            word => filters.push(word),
        }
    }
    let wanted = |case: &&Case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter));
    let chosen: Vec<&Case> = cases.iter().filter(wanted).collect();
    if list {
        for case in chosen {
            say(&format!("{} ({:?})", case.name, case.side));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = Runtime::from_env()?;
    say(&format!("suite on {} ({})", runtime.path.display(), runtime.banner));
    let counts = run_all(&chosen, jobs)?;
    say(&format!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped));
    Ok(if counts.failed == 0 && counts.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_all(chosen: &[&Case], jobs: usize) -> Result<Counts, String> {
    let token = format!("hs{}", std::process::id());
    let dir = PathBuf::from("/tmp").join(&token);
    fs::create_dir(&dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
    let queue: Mutex<VecDeque<&str>> = Mutex::new(chosen.iter().map(|case| case.name).collect());
    let counts = Mutex::new(Counts::default());
    thread::scope(|scope| {
        for number in 0..jobs {
            let (queue, counts, token) = (&queue, &counts, format!("{token}w{number}"));
            let home = dir.join(format!("w{number}"));
            scope.spawn(move || drive(&token, &home, queue, counts));
        }
    });
    remove_cgroups(&token);
    fs::remove_dir_all(&dir).map_err(|e| format!("remove {}: {e}", dir.display()))?;
    Ok(*counts.lock().unwrap_or_else(|e| e.into_inner()))
}

/// Feeds one worker with names until none is left. A worker that dies fails its case and is replaced.
fn drive(token: &str, home: &Path, queue: &Mutex<VecDeque<&str>>, counts: &Mutex<Counts>) {
    let mut worker = None;
    loop {
        let Some(name) = queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front() else { break };
        let apart = !(name.starts_with("systemd::") && Path::new("/run/systemd/system").exists());
        if let Some(other) = worker.take_if(|worker: &mut Worker| worker.apart != apart) {
            other.stop();
        }
        let result = match worker.take().map_or_else(|| Worker::start(token, home, apart), Ok) {
            Ok(mut started) => started.ask(name).inspect(|_| worker = Some(started)),
            Err(e) => Err(e),
        };
        let answer = result.unwrap_or_else(|e| {
            remove_cgroups(token);
            json!({"verdict": "FAIL", "seconds": 0.0, "text": format!("the worker died: {e}")})
        });
        report(name, &answer, counts);
    }
    if let Some(worker) = worker {
        worker.stop();
    }
}

fn report(name: &str, answer: &Value, counts: &Mutex<Counts>) {
    let text = answer["text"].as_str().unwrap_or_default().trim_end();
    let seconds = answer["seconds"].as_f64().unwrap_or_default();
    let mut counts = counts.lock().unwrap_or_else(|e| e.into_inner());
    match answer["verdict"].as_str() {
        Some("ok") => {
            counts.passed += 1;
            say(&format!("ok   {seconds:5.2}s {name}"));
        }
        Some("skip") => {
            counts.skipped += 1;
            say(&format!("skip {seconds:5.2}s {name}: {text}"));
        }
        _ => {
            counts.failed += 1;
            let text: String = text.lines().map(|line| format!("\n     | {line}")).collect();
            say(&format!("FAIL {seconds:5.2}s {name}{text}"));
        }
    }
}

struct Worker {
    /// From the host's processes.
    apart: bool,
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start(token: &str, home: &Path, apart: bool) -> Result<Self, String> {
        const APART: &[&str] = &["--pid", "--fork", "--kill-child", "--mount-proc"];
        fs::create_dir_all(home).map_err(|e| format!("mkdir {}: {e}", home.display()))?;
        let own = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(if apart { APART } else { &[] })
            .arg(own)
            .args(["--worker", token])
            .arg(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let answers = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { apart, child, answers })
    }

    fn ask(&mut self, name: &str) -> Result<Value, String> {
        let stdin = self.child.stdin.as_mut().ok_or("no stdin")?;
        writeln!(stdin, "{name}").map_err(|e| format!("ask: {e}"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|e| format!("answer: {e}"))?;
        serde_json::from_str(&line).map_err(|e| format!("answer {line:?}: {e}"))
    }

    fn stop(mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

// ---- a worker

fn work(cases: &[Case], token: &str, home: &Path) -> Result<(), String> {
    // As on a host under systemd: what a runtime forgets to make private shows up here.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared).map_err(|e| format!("make / shared: {e}"))?;
    let run = Path::new("/run");
    for dir in [home, run].into_iter().filter(|dir| *dir != run || is_apart()) {
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), c"mode=755")
            .map_err(|e| format!("tmpfs on {dir:?}: {e}"))?;
    }
    show_cgroups()?;
    for line in io::stdin().lines() {
        let name = line.map_err(|e| format!("stdin: {e}"))?;
        let started = Instant::now();
        let leaking = cases.iter().any(|case| case.name == name && case.side == Side::Leaking);
        let (verdict, text) = judge(&name, leaking, token, home)?;
        let seconds = started.elapsed().as_secs_f64();
        let answer = json!({"verdict": verdict, "seconds": seconds, "text": text});
        writeln!(io::stdout(), "{answer}").map_err(|e| format!("stdout: {e}"))?;
    }
    Ok(())
}

fn show_cgroups() -> Result<(), String> {
    let cover = |kind: &str, dir: &str| {
        mount(kind, dir, kind, MountFlags::empty(), None).map_err(|e| format!("{kind} on {dir}: {e}"))
    };
    match std::env::var("HEARTH_TEST_CGROUPS").as_deref() {
        Err(_) | Ok("" | "host") => Ok(()),
        Ok("v1") if !Path::new("/sys/fs/cgroup/unified").exists() => Ok(()),
        Ok("v1") => cover("tmpfs", "/sys/fs/cgroup/unified"),
        Ok("v2") => cover("cgroup2", "/sys/fs/cgroup"),
        Ok(other) => Err(format!("HEARTH_TEST_CGROUPS: {other:?}: expected host, v1 or v2")),
    }
}

/// Runs one case in a process of its own and looks at what it left.
fn judge(name: &str, leaking: bool, token: &str, home: &Path) -> Result<(&'static str, String), String> {
    let dir = home.join("c");
    let tmp = dir.join("tmp");
    let before = Before::look();
    for path in [&dir, &dir.join("root"), &tmp] {
        fs::create_dir(path).map_err(|e| format!("mkdir {}: {e}", path.display()))?;
    }
    let log_path = dir.join("log");
    let log = File::create(&log_path).map_err(|e| format!("create log: {e}"))?;
    let own = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let child = Command::new(own)
        .args(["--case", name, token])
        .arg(&dir)
        .env("TMPDIR", &tmp)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|e| format!("log: {e}"))?)
        .stderr(log)
        .spawn()
        .map_err(|e| format!("start case: {e}"))?;
    let code = wait_for(&child);
    let log = read(&log_path);
    let (verdict, text) = match code {
        Some(0) => {
            // crun keeps a cache there, whatever its --root.
            let _ = fs::remove_dir_all("/run/crun");
            let mut dirs = vec![dir.join("root"), tmp];
            dirs.extend(is_apart().then(|| PathBuf::from("/run")));
            let leaks = before.leaks(token, &dirs, reap);
            match leaks.is_empty() {
                true if leaking => ("FAIL", "the leak check saw nothing".to_owned()),
                true => ("ok", String::new()),
                false if leaking => ("ok", String::new()),
                false => ("FAIL", leaks.join("\n")),
            }
        }
        Some(code) if code == i32::from(SKIPPED) => ("skip", log),
        Some(_) => ("FAIL", log),
        None => ("FAIL", format!("{log}killed after its time limit")),
    };
    let text = if verdict == "FAIL" { format!("{text}\n{}", tail(&read(&dir.join("trace")))) } else { text };
    if verdict != "ok" || leaking {
        before.clean(token, reap);
        if is_apart() {
            empty(Path::new("/run"));
        }
    }
    fs::remove_dir_all(&dir).map_err(|e| format!("remove {}: {e}", dir.display()))?;
    Ok((verdict, text))
}

/// The exit code of the case, reaping every orphan meanwhile; `None` where it ran out of time.
fn wait_for(child: &Child) -> Option<i32> {
    let limit = if std::env::var_os("HEARTH_TEST_LONG").is_some() { LONG_CASE_LIMIT } else { CASE_LIMIT };
    let started = Instant::now();
    let wanted = Pid::from_child(child);
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == wanted => {
                return Some(status.exit_status().unwrap_or(101));
            }
            Ok(Some(_)) => {}
            Ok(None) if started.elapsed() < patience(limit) => thread::sleep(Duration::from_millis(1)),
            Ok(None) | Err(_) => {
                let _ = kill_process(wanted, Signal::KILL);
                return None;
            }
        }
    }
}

fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

// ---- a case

fn run_case(cases: &[Case], name: &str, token: &str, dir: &Path) -> ExitCode {
    let Some(case) = cases.iter().find(|case| case.name == name) else {
        return fail(&format!("no case {name}"));
    };
    let runtime = match Runtime::from_env() {
        Ok(runtime) => runtime,
        Err(message) => return fail(&message),
    };
    if let Some(reason) = out_of_scope(case.side, &runtime) {
        return skipped(&reason);
    }
    std::panic::set_hook(Box::new(|info| {
        if let Some(message) = info.payload_as_str() {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(io::stderr(), "{place}: {message}");
        }
    }));
    let context = Ctx::new(dir.to_owned(), token.to_owned(), runtime);
    let result = catch_unwind(AssertUnwindSafe(|| {
        (case.run)(&context);
        context.finish();
    }));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(payload) => match payload.downcast_ref::<Skip>() {
            Some(Skip(reason)) => {
                context.finish();
                skipped(reason)
            }
            None => ExitCode::FAILURE,
        },
    }
}

fn out_of_scope(side: Side, runtime: &Runtime) -> Option<String> {
    match side {
        Side::Hearth if !runtime.is_hearth() => Some("a promise of hearth only".to_owned()),
        Side::Newer if runtime.is_old_runc() => Some(format!("differs before runc 1.5: {}", runtime.banner)),
        _ => None,
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::FAILURE
}

/// The log holds the reason alone, whatever was written before.
fn skipped(reason: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{reason}");
    ExitCode::from(SKIPPED)
}

// ---- small things

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TRACE_LINES)..].join("\n")
}

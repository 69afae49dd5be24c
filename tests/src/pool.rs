//! A warm-pool daemon of a case's own, with a root and declared pools of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::context::{Ctx, eventually};
use crate::invoke::{Invocation, Out};

#[derive(Debug)]
pub struct Pool<'t> {
    context: &'t Ctx,
    /// Of the containers.
    pub root: PathBuf,
    state: PathBuf,
    daemon: Child,
}

impl<'t> Pool<'t> {
    /// The daemon beside the runtime under test.
    pub fn start(context: &'t Ctx) -> Self {
        Self::with(context, "")
    }

    /// The same, with settings.
    pub fn with(context: &'t Ctx, settings: &str) -> Self {
        let (root, state) = (context.scratch(), context.scratch());
        let file = state.join("hearthd.toml");
        std::fs::write(&file, settings).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let daemon = start(context, &root, &state);
        let pool = Self { context, root, state, daemon };
        pool.wait_for_daemon();
        pool
    }

    fn wait_for_daemon(&self) {
        eventually("hearthd to answer", || (self.command(&["pool", "list"]).run().code == 0).then_some(()));
    }

    /// Starts it again, after it was killed.
    pub fn restart(&mut self) {
        let _ = self.daemon.wait();
        self.daemon = start(self.context, &self.root, &self.state);
        self.wait_for_daemon();
    }

    pub fn kill(&mut self) {
        self.daemon.kill().unwrap_or_else(|e| panic!("kill hearthd: {e}"));
        let _ = self.daemon.wait();
    }

    pub fn command(&self, args: &[&str]) -> Invocation<'t> {
        let root = self.root.to_string_lossy();
        let runtime = self.context.runtime.path.to_string_lossy();
        let mut full = vec!["--root", &*root];
        full.extend(args);
        self.context.host_command(&runtime, &full)
    }

    /// Declares a pool of `min` sandboxes and waits until they are parked. Its name carries the case's token.
    pub fn declare(&self, bundle: &Path, min: u32) -> String {
        let name = self.context.id();
        let (bundle, min) = (bundle.to_string_lossy(), min.to_string());
        let flags = ["pool", "create", "--bundle", &bundle, "--min", &min, "--max", "64", &name];
        self.command(&flags).run().ok();
        self.wait_for_parked(&name, i64::from(min.parse::<u32>().unwrap_or(0)));
        name
    }

    pub fn inspect(&self, name: &str) -> Value {
        self.command(&["pool", "inspect", name]).run().ok().json()
    }

    pub fn wait_for_parked(&self, name: &str, count: i64) {
        // A machine that is busy elsewhere makes them slowly.
        let started = Instant::now();
        while self.inspect(name)["parked"].as_i64() < Some(count) {
            let state = self.inspect(name);
            assert!(started.elapsed() < Duration::from_secs(20), "waited 20 s for {count} parked: {state}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `launch FLAGS NAME -- ARGS`, by the pool only.
    pub fn launch(&self, flags: &[&str], name: &str, args: &[&str]) -> Invocation<'t> {
        let mut full = vec!["launch", "--pool", "only"];
        full.extend(flags);
        full.extend([name, "--"]);
        full.extend(args);
        self.command(&full)
    }

    pub fn sh(&self, flags: &[&str], name: &str, script: &str) -> Out {
        self.launch(flags, name, &["sh", "-c", script]).run()
    }

    /// The pids of the daemon's helpers and parked inits: all that its reaper stands above, itself included.
    pub fn helpers(&self, role: &str) -> Vec<i32> {
        let root = self.root.to_string_lossy().into_owned();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
        pids.filter(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = command.split(|byte| *byte == 0).collect();
            words.get(1) == Some(&role.as_bytes()) && words.get(2) == Some(&root.as_bytes())
        })
        .collect()
    }

    /// All of it goes: what is parked, the daemon, its helpers.
    pub fn stop(&mut self) {
        if self.daemon.try_wait().is_ok_and(|status| status.is_some()) {
            // A killed daemon's next life cleans up.
            self.daemon = start(self.context, &self.root, &self.state);
            self.wait_for_daemon();
        }
        let _ = rustix::process::kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let _ = self.daemon.wait();
        for role in ["reaper", "forker"] {
            for pid in self.helpers(role) {
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
        }
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start(context: &Ctx, root: &Path, state: &Path) -> Child {
    let program = context.runtime.path.with_file_name("hearthd");
    let log = context.dir.join(format!("hearthd{}.log", context.next()));
    let log = std::fs::File::create(&log).unwrap_or_else(|e| panic!("create {}: {e}", log.display()));
    let mut command = Command::new(&program);
    command.arg("--root").arg(root).arg("--state").arg(state);
    command.arg("--config").arg(state.join("hearthd.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display()))
}

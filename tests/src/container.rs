//! One container: an id, a bundle, and the verbs on them.

use std::path::PathBuf;

use serde_json::Value;

use crate::context::{Ctx, eventually};
use crate::invoke::{Invocation, Out};

#[derive(Debug)]
pub struct Container<'t> {
    pub id: String,
    pub bundle: PathBuf,
    context: &'t Ctx,
}

impl<'t> Container<'t> {
    pub(crate) fn new(context: &'t Ctx, id: String, bundle: PathBuf) -> Self {
        Self { id, bundle, context }
    }

    /// A second id on the same bundle.
    pub fn sibling(&self) -> Self {
        Self::new(self.context, self.context.id(), self.bundle.clone())
    }

    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.bundle.join("rootfs").join(path)
    }

    /// `VERB FLAGS --bundle DIR ID`, for create and run.
    pub fn launch(&self, verb: &str, flags: &[&str]) -> Invocation<'t> {
        let bundle = self.bundle.to_string_lossy();
        let mut args = vec![verb];
        args.extend(flags);
        args.extend(["--bundle", &bundle, &self.id]);
        self.context.command(&args)
    }

    /// `VERB FLAGS ID REST`, for all other verbs.
    pub fn verb(&self, verb: &str, flags: &[&str], rest: &[&str]) -> Invocation<'t> {
        let mut args = vec![verb];
        args.extend(flags);
        args.push(&self.id);
        args.extend(rest);
        self.context.command(&args)
    }

    pub fn create(&self) -> Out {
        self.launch("create", &[]).run()
    }

    pub fn start(&self) -> Out {
        self.verb("start", &[], &[]).run()
    }

    pub fn run(&self) -> Out {
        self.launch("run", &[]).run()
    }

    /// `run --detach`, which has to succeed, until the program itself runs: the verb may return a moment earlier.
    pub fn up(&self) -> &Self {
        self.launch("run", &["--detach"]).run().ok();
        let config = std::fs::read(self.bundle.join("config.json")).expect("the bundle has a config");
        let config: Value = serde_json::from_slice(&config).expect("the config is JSON");
        let program = config["process"]["args"][0].as_str().unwrap_or_default().as_bytes();
        eventually("the program to run", || {
            let pid = self.state()["pid"].as_i64().filter(|pid| *pid > 0);
            let command = pid.map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
            command.is_none_or(|command| command.starts_with(program)).then_some(())
        });
        self
    }

    pub fn kill(&self, signal: &str) -> Out {
        self.verb("kill", &[], &[signal]).run()
    }

    pub fn delete(&self) -> Out {
        self.verb("delete", &[], &[]).run()
    }

    pub fn exec(&self, args: &[&str]) -> Out {
        self.exec_with(&[], args)
    }

    pub fn exec_with(&self, flags: &[&str], args: &[&str]) -> Out {
        self.verb("exec", flags, args).run()
    }

    /// What a shell script prints inside the running container.
    pub fn sh(&self, script: &str) -> String {
        self.exec(&["sh", "-c", script]).ok().text().to_owned()
    }

    pub fn state(&self) -> Value {
        self.verb("state", &[], &[]).run().ok().json()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or("no status").to_owned()
    }

    /// The init's pid as seen from the host.
    pub fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().unwrap_or_else(|| panic!("state has no pid"))
    }

    pub fn wait_until(&self, status: &str) {
        eventually(&format!("{} to be {status}", self.id), || (self.status() == status).then_some(()));
    }

    /// Reads a file of the init's `/proc` directory on the host.
    pub fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid());
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// The directory of the container's cgroup in a v1 hierarchy.
    pub fn cgroup_v1(&self, controller: &str) -> PathBuf {
        self.context.needs_cgroup_v1(controller);
        let path = self.cgroup(|controllers| controllers.split(',').any(|name| name == controller));
        PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}"))
    }

    /// The directory of the container's cgroup where v2 is all there is.
    pub fn cgroup_v2(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/cgroup{}", self.cgroup(str::is_empty)))
    }

    /// The directory of the container's cgroup, in the version that has this controller.
    pub fn cgroup_of(&self, controller: &str) -> PathBuf {
        if self.context.has_cgroup_v1(controller) { self.cgroup_v1(controller) } else { self.cgroup_v2() }
    }

    /// The path in the line of `/proc/PID/cgroup` whose controllers are wanted.
    fn cgroup(&self, wanted: impl Fn(&str) -> bool) -> String {
        let text = self.proc("cgroup");
        let path = text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            wanted(controllers).then(|| path.to_owned())
        });
        path.unwrap_or_else(|| panic!("no such cgroup in {text}"))
    }
}

/// The value of a `Name:\tvalue` line, as in `/proc/PID/status`.
#[track_caller]
pub fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .unwrap_or_else(|| panic!("no field {name} in {text}"))
}

//! What a case is and what it gets.

use std::cell::{Cell, RefCell, RefMut};
use std::ffi::OsString;
use std::fs;
use std::panic::panic_any;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bundle::{self, Config};
use crate::container::Container;
use crate::invoke::{Invocation, Out};
use crate::leaks::Before;
use crate::runtime::{Runtime, find};
use crate::user::{self, User};

/// For which runtimes a case judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The spec, or all of runc's versions agreeing, settles it.
    Settled,
    /// runc 1.5 and later; hearth follows it.
    Newer,
    /// A promise of hearth's own.
    Hearth,
    /// Of the harness itself: the case leaves something behind, and passes if the leak check says so.
    Leaking,
}

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub side: Side,
    pub run: fn(&Ctx),
}

/// Unwinds a case that cannot be judged here; the runner prints the reason.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

/// One case's directory, names and runtime.
#[derive(Debug)]
pub struct Ctx {
    pub dir: PathBuf,
    pub runtime: Runtime,
    token: String,
    sequence: Cell<u32>,
    ids: RefCell<Vec<String>>,
    user: RefCell<Option<User>>,
}

impl Ctx {
    pub(crate) fn new(dir: PathBuf, token: String, runtime: Runtime) -> Self {
        let (sequence, ids, user) = (Cell::new(0), RefCell::default(), RefCell::default());
        Self { dir, runtime, token, sequence, ids, user }
    }

    /// From here on bundles are an ordinary user's, with a config as [`Config::rootless`] makes it, and so is the
    /// runtime's process.
    pub fn become_user(&self) {
        user::own(&self.root(), user::UID);
        *self.user.borrow_mut() = Some(User::new(&self.dir, &self.runtime.path));
    }

    pub fn is_user(&self) -> bool {
        self.user.borrow().is_some()
    }

    /// What the user of [`Ctx::become_user`] has.
    pub fn user(&self) -> RefMut<'_, User> {
        RefMut::map(self.user.borrow_mut(), |user| user.as_mut().expect("become_user comes first"))
    }

    pub(crate) fn next(&self) -> u32 {
        self.sequence.set(self.sequence.get() + 1);
        self.sequence.get()
    }

    /// The directory given to the runtime as `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A container id (and cgroup name) that no other case uses; deleted by force when the case ends.
    pub fn id(&self) -> String {
        let id = format!("{}-{}", self.token, self.next());
        self.ids.borrow_mut().push(id.clone());
        id
    }

    /// A new empty directory.
    pub fn scratch(&self) -> PathBuf {
        let dir = self.dir.join(format!("dir{}", self.next()));
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("mkdir {}: {e}", dir.display()));
        dir
    }

    /// A new bundle: a busybox rootfs and the config that `runc spec` writes, without a terminal, then `edit`ed.
    pub fn bundle(&self, edit: impl FnOnce(&mut Config)) -> PathBuf {
        let dir = self.scratch();
        bundle::make_rootfs(&dir.join("rootfs"));
        let mut config = Config::default();
        if self.is_user() {
            config.rootless();
        }
        edit(&mut config);
        config.write(&dir);
        if self.is_user() {
            user::own(&dir, user::UID);
        }
        dir
    }

    /// A fresh id with a bundle of its own.
    pub fn container(&self, edit: impl FnOnce(&mut Config)) -> Container<'_> {
        Container::new(self, self.id(), self.bundle(edit))
    }

    /// A container whose program only waits; it can be created, started, exec'd into and killed.
    pub fn sleeper(&self) -> Container<'_> {
        self.container(|c| c.args(&["sleep", "100"]))
    }

    /// Runs `script` in a container of its own and gives what it printed; anything but success fails the case.
    pub fn sh(&self, script: &str, edit: impl FnOnce(&mut Config)) -> String {
        self.run_sh(script, edit).ok().stdout.trim_end().to_owned()
    }

    /// Like [`Ctx::sh`], for scripts or configs that may fail.
    pub fn run_sh(&self, script: &str, edit: impl FnOnce(&mut Config)) -> Out {
        let container = self.container(|c| {
            c.args(&["sh", "-c", script]);
            edit(c);
        });
        container.run()
    }

    /// A command of the runtime, with this case's `--root`.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Invocation<'_> {
        let mut full: Vec<OsString> = vec!["--root".into(), self.root().into()];
        full.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        match &*self.user.borrow() {
            Some(user) => user.wrap(Invocation::new(self, user.runtime.as_ref(), &full)),
            None => Invocation::new(self, self.runtime.path.as_ref(), &full),
        }
    }

    pub fn rt<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Out {
        self.command(args).run()
    }

    /// Any other program.
    pub fn host(&self, program: &str, args: &[&str]) -> Out {
        self.host_command(program, args).run()
    }

    pub fn host_command<S: AsRef<std::ffi::OsStr>>(&self, program: &str, args: &[S]) -> Invocation<'_> {
        Invocation::new(self, program.as_ref(), args)
    }

    pub fn is_hearth(&self) -> bool {
        self.runtime.is_hearth()
    }

    /// Whether the long form of the suite was asked for.
    pub fn long(&self) -> bool {
        std::env::var_os("HEARTH_TEST_LONG").is_some_and(|value| value == "1")
    }

    pub fn skip(&self, reason: impl Into<String>) -> ! {
        panic_any(Skip(reason.into()))
    }

    pub fn needs_tool(&self, name: &str) {
        if find(Path::new(name)).is_none() {
            self.skip(format!("{name} is not installed"));
        }
    }

    /// Whether a cgroup v1 hierarchy of this controller is mounted.
    pub fn has_cgroup_v1(&self, controller: &str) -> bool {
        Path::new("/sys/fs/cgroup").join(controller).join("cgroup.procs").exists()
    }

    /// Skips where this controller is in neither version of cgroups.
    pub fn needs_controller(&self, controller: &str) {
        if !self.has_cgroup_v1(controller) {
            self.needs_cgroup_v2(&[controller]);
        }
    }

    /// Whether limits of this controller can be written, on v1 or v2.
    pub fn has_controller(&self, name: &str) -> bool {
        let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let v1 = Path::new("/sys/fs/cgroup").join(name).join("cgroup.procs");
        v1.exists() || v2.split_whitespace().any(|known| known == name)
    }

    /// Skips where a cgroup v1 hierarchy of this controller is not mounted.
    pub fn needs_cgroup_v1(&self, controller: &str) {
        if !self.has_cgroup_v1(controller) {
            self.skip(format!("no cgroup v1 hierarchy for {controller}"));
        }
    }

    /// Skips where cgroup v2 does not manage these controllers.
    pub fn needs_cgroup_v2(&self, controllers: &[&str]) {
        let there = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        if let Some(missing) = controllers.iter().find(|name| !there.split_whitespace().any(|c| c == **name))
        {
            self.skip(format!("no cgroup v2 controller {missing}"));
        }
    }

    /// What is there now beyond `before`, after a short wait: for cases that check several times.
    pub fn leaks_since(&self, before: &Before) -> Vec<String> {
        before.leaks(&self.token, &[self.root()], || {})
    }

    /// Deletes what the case left alive, by the runtime's own means.
    pub(crate) fn finish(&self) {
        let root = self.root();
        for id in self.ids.borrow().iter() {
            if root.join(id).exists() {
                self.rt(&["delete", "--force", id]);
            }
        }
    }
}

/// How long to wait for what takes `seconds` at most on an ordinary machine; `HEARTH_TEST_PATIENCE` is how many times
/// slower this one is.
pub fn patience(seconds: u64) -> Duration {
    let factor = std::env::var("HEARTH_TEST_PATIENCE").ok().and_then(|text| text.parse::<u32>().ok());
    Duration::from_secs(seconds) * factor.unwrap_or(1).clamp(1, 100)
}

/// Polls until `check` gives something, for at most five seconds.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(started.elapsed() < patience(5), "waited {:?} for {what}", patience(5));
        std::thread::sleep(Duration::from_millis(5));
    }
}

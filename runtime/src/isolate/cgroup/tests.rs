//! What the kernel makes of it, on the real thing. These need root and, each as it says, a hybrid host; v2 and v1
//! alone are shown by a mount over a part of it, in a mount namespace of the test's own.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::create::Below;
use super::*;

const INSIDE: &str = "HEARTH_TEST_INSIDE";

fn is_hybrid_root() -> bool {
    let is = rustix::process::geteuid().is_root() && Host::detect().unwrap().mode() == Mode::Hybrid;
    if !is {
        eprintln!("not run: needs root on a hybrid host");
    }
    is
}

/// Runs the calling test again where `mount` (arguments of mount(8)) hides a part of the host's groups.
fn inside(name: &str, mount: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    if !is_hybrid_root() {
        return;
    }
    let script = format!("mount {mount} && exec \"$0\" --exact --nocapture isolate::cgroup::tests::{name}");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

const ONLY_V2: &str = "-t cgroup2 none /sys/fs/cgroup";
const ONLY_V1: &str = "-t tmpfs none /sys/fs/cgroup/unified";

fn resources(json: Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

/// A placement that is destroyed whatever happens.
struct Fixture {
    placement: Placement,
    top: String,
}

impl Fixture {
    /// `path` goes below a name of this test's own; an empty one is the bare form.
    fn plan(path: &str, joins: Joins, limits: Option<&LinuxResources>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let top = format!("hearth-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let given = (!path.is_empty()).then(|| format!("/{top}{path}"));
        let host = Host::detect().unwrap();
        let placement = Placement::plan(&host, given.as_deref(), &top, joins, limits).unwrap();
        Self { placement, top }
    }

    fn new(path: &str, joins: Joins, limits: Value) -> (Self, Leaf) {
        let limits = resources(limits);
        let mut fixture = Self::plan(path, joins, Some(&limits));
        let rules = device_rules(Some(&limits), &[]).unwrap();
        let mut leaf = fixture.placement.create(Some(&limits)).unwrap();
        fixture.placement.restrict(&mut leaf, &rules).unwrap();
        (fixture, leaf)
    }

    fn dirs(&self) -> Vec<PathBuf> {
        self.placement.groups().map(placement::Group::dir).collect()
    }

    /// A shell that enters all groups before it runs `script`.
    fn command(&self, script: &str) -> Command {
        let enter: String =
            self.dirs().iter().map(|dir| format!("echo $$ > {}/cgroup.procs; ", dir.display())).collect();
        let mut command = Command::new("sh");
        command.args(["-c", &(enter + script)]);
        command
    }

    fn run(&self, script: &str) -> Output {
        self.command(script).output().unwrap()
    }

    fn spawn(&self, script: &str) -> Child {
        let child = self.command(script).stdin(Stdio::null()).spawn().unwrap();
        wait_until("the child is inside", || {
            self.dirs().iter().all(|dir| {
                let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
                procs.lines().any(|line| line == child.id().to_string())
            })
        });
        child
    }

    fn file(&self, controller: &str, name: &str) -> String {
        let group = self.placement.joined(controller).or(self.placement.v2.as_ref()).unwrap();
        fs::read_to_string(group.dir().join(name)).unwrap().trim().to_owned()
    }

    /// What is left of this test anywhere in the host's groups.
    fn leftovers(&self) -> Vec<PathBuf> {
        let all = self.placement.v2.iter().chain(&self.placement.v1);
        let places = all.map(|group| {
            let at = group.path.ancestors().find(|path| path.ends_with(&self.top));
            group.mount.join(at.unwrap())
        });
        places.filter(|dir| dir.exists()).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let result = self.placement.destroy();
        let leftovers = self.leftovers();
        for dir in leftovers.iter().rev() {
            let _ = tree::remove(dir);
        }
        if !std::thread::panicking() {
            result.unwrap();
            assert!(leftovers.is_empty(), "left behind: {leftovers:?}");
        }
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn has_news(watch: &OomWatch, seconds: i64) -> bool {
    let mut poll = [rustix::event::PollFd::new(watch, rustix::event::PollFlags::IN)];
    let time = rustix::event::Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&time)).unwrap() == 1
}

fn code(output: &Output) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap())
}

#[test]
fn a_memory_limit_kills_and_is_counted() {
    if !is_hybrid_root() {
        return;
    }
    let limits = json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } });
    let (fixture, _leaf) = Fixture::new("", Joins::Limited, limits);
    let watch = fixture.placement.watch_oom().unwrap();
    assert_eq!(watch.news().unwrap(), OomNews { count: 0, is_over: false });
    assert!(!has_news(&watch, 0));
    let output = fixture.run("exec tail /dev/zero");
    assert_eq!(code(&output), 137, "{output:?}");
    assert!(has_news(&watch, 0));
    assert_eq!(watch.news().unwrap(), OomNews { count: 1, is_over: false });
    assert!(!has_news(&watch, 0));
    fixture.placement.destroy().unwrap();
    assert!(has_news(&watch, 5));
    assert!(watch.news().unwrap().is_over);
}

#[test]
fn a_pids_limit_refuses_forks() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("", Joins::Limited, json!({ "pids": { "limit": 3 } }));
    let output = fixture.run("sleep 0.3 & sleep 0.3 & sleep 0.3 & wait");
    assert!(String::from_utf8_lossy(&output.stderr).contains("fork"), "{output:?}");
    let (zero, _leaf) = Fixture::new("", Joins::Limited, json!({ "pids": { "limit": 0 } }));
    assert_eq!(code(&zero.run("true")), 0);
    assert_ne!(code(&zero.run("sleep 0 & wait")), 0);
}

/// Denied by the defaults, there on every host.
const READ_KMSG: &str = ": < /dev/kmsg";

#[test]
fn devices_are_guarded_by_the_program_of_the_v2_group() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("", Joins::Limited, json!({}));
    assert!(fixture.placement.joined("devices").is_none());
    check_devices(&fixture);
}

#[test]
fn devices_are_guarded_by_the_v1_controller() {
    inside("devices_are_guarded_by_the_v1_controller", ONLY_V1, || {
        assert_eq!(Host::detect().unwrap().mode(), Mode::V1);
        let (fixture, leaf) = Fixture::new("", Joins::Limited, json!({}));
        assert!(leaf.v2.is_none());
        check_devices(&fixture);
    });
}

fn check_devices(fixture: &Fixture) {
    assert_eq!(code(&fixture.run("cat < /dev/null && head -c 1 /dev/urandom > /dev/null")), 0);
    let denied = fixture.run(READ_KMSG);
    assert!(String::from_utf8_lossy(&denied.stderr).contains("not permitted"), "{denied:?}");
    let node = std::env::temp_dir().join(format!("hearth-test-{}-kmsg", std::process::id()));
    let made = fixture.run(&format!("mknod {0} c 1 11 && rm {0}", node.display()));
    assert_eq!(code(&made), 0, "{made:?}");

    let more = json!({ "devices": [{ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }] });
    let rules = device_rules(Some(&resources(more)), &[]).unwrap();
    assert_eq!(fixture.placement.update_devices(&rules).unwrap(), None);
    assert_eq!(code(&fixture.run(READ_KMSG)), 0);
    assert_ne!(code(&fixture.run(": > /dev/kmsg")), 0, "writing is still denied");

    fixture.placement.update_devices(&device_rules(None, &[]).unwrap()).unwrap();
    assert_ne!(code(&fixture.run(READ_KMSG)), 0, "the old rules are replaced, not added to");
}

#[test]
fn a_bare_container_joins_what_its_limits_need_and_a_supervised_one_all() {
    if !is_hybrid_root() {
        return;
    }
    let limits = json!({ "cpu": { "shares": 512 }, "pids": { "limit": 9 } });
    let (bare, leaf) = Fixture::new("", Joins::Limited, limits);
    let names = |fixture: &Fixture| -> Vec<String> {
        fixture.placement.groups().flat_map(|group| group.controllers.clone()).collect()
    };
    let mut joined = names(&bare);
    joined.sort();
    assert_eq!(joined, ["cpu", "pids"]);
    assert_eq!(leaf.tasks.len(), 2);
    assert_eq!((bare.file("cpu", "cpu.shares"), bare.file("pids", "pids.max")), ("512".into(), "9".into()));

    let (all, leaf) = Fixture::new("/a/b", Joins::All, json!({}));
    let hierarchies = fs::read_to_string("/proc/self/cgroup").unwrap().lines().count();
    assert_eq!(leaf.tasks.len() + 1, hierarchies);
    assert!(names(&all).contains(&"name=systemd".to_owned()));
}

/// As the first process of a container does it: "0" to each `tasks` file, by the descriptor it was given.
#[test]
fn writing_0_to_the_tasks_files_enters_every_v1_group() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, mut leaf) = Fixture::new("/x", Joins::All, json!({}));
    for (tasks, group) in leaf.tasks.drain(..).zip(fixture.placement.groups().skip(1)) {
        let mut child = Command::new("sh")
            .args(["-c", "echo 0; read line"])
            .stdout(tasks)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let procs = group.dir().join("cgroup.procs");
        wait_until("inside", || fs::read_to_string(&procs).unwrap().trim() == child.id().to_string());
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
fn the_v2_descriptor_is_the_groups_directory() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, leaf) = Fixture::new("/x", Joins::Limited, json!({}));
    assert_eq!(Some(path_of(&leaf.v2.unwrap())), fixture.placement.v2_dir());
}

fn path_of(fd: &OwnedFd) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
}

#[test]
fn parents_come_and_go_with_their_last_group() {
    if !is_hybrid_root() {
        return;
    }
    let limits = resources(json!({ "pids": { "limit": 5 } }));
    let mut first = Fixture::plan("/a/one", Joins::Limited, Some(&limits));
    first.placement.create(Some(&limits)).unwrap();
    let host = Host::detect().unwrap();
    let path = format!("/{}/a/two", first.top);
    let mut second = Placement::plan(&host, Some(&path), "two", Joins::Limited, Some(&limits)).unwrap();
    second.create(Some(&limits)).unwrap();
    first.placement.destroy().unwrap();
    assert!(second.v2_dir().unwrap().exists());
    second.destroy().unwrap();
    // The first one planned the parents, so they are its to remove; a second call is no error.
    first.placement.destroy().unwrap();
    assert_eq!(first.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_failure_leaves_nothing() {
    if !is_hybrid_root() {
        return;
    }
    for (limits, part) in [
        (json!({ "cpu": { "cpus": "4000" } }), "cpuset.cpus"),
        (json!({ "pids": { "limit": 5 }, "cpu": { "quota": 5 } }), "cpu.cfs_quota_us"),
        (json!({ "cpu": { "shares": 1 } }), "linux.resources.cpu.shares: 1"),
        (json!({ "rdma": { "mlx": { "hcaHandles": 1 } } }), "rdma"),
        (json!({ "unified": { "memory.high": "1" } }), "memory.high"),
        (json!({ "unified": { "cgroup.nonsense": "1" } }), "cgroup.nonsense"),
    ] {
        let limits = resources(limits);
        let mut fixture = Fixture::plan("/a/b", Joins::All, Some(&limits));
        let error = fixture.placement.create(Some(&limits)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(fixture.leftovers(), Vec::<PathBuf>::new(), "after {error}");
    }
}

#[test]
fn places_below_are_parsed_as_runc_does() {
    let parse = |list: &[&str]| Below::parse(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    for good in [&["a"][..], &["/"], &["a/b/"], &["memory:a", "cpu,cpuacct:b"], &["pids:/"], &[]] {
        parse(good).unwrap();
    }
    for bad in
        [&[".."][..], &["a", "b"], &["memory:a", "memory:b"], &["cpu,:a"], &["cpu:../x"], &["a", "cpu:b"]]
    {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_group_in_use_or_frozen_is_refused_and_stays_as_it_is() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("/x", Joins::Limited, json!({}));
    let mut again = fixture.placement.clone();
    again.check_unused().unwrap();
    again.create(None).unwrap();
    let mut child = fixture.spawn("sleep 30");
    let mut refused = again.clone();
    let error = refused.create(None).unwrap_err().to_string();
    assert!(error.contains("is not empty: ") && error.contains("process(es) found"), "{error}");
    // What is taken back of the container that was refused is not the other one's.
    refused.destroy().unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    fixture.placement.kill_all(9).unwrap();
    wait_until("empty", || fixture.placement.processes().unwrap().is_empty());
    fixture.placement.freeze().unwrap();
    let error = again.check_unused().unwrap_err().to_string();
    assert!(error.contains("frozen"), "{error}");
    fixture.placement.thaw().unwrap();
}

fn check_life(fixture: &Fixture) {
    let mut child = fixture.spawn("trap 'exit 7' TERM; while :; do sleep 0.01; done");
    let dir = fixture.placement.tracker().unwrap().dir();
    let nested = dir.join("inner/most");
    fs::create_dir_all(&nested).unwrap();
    let mut inner = fixture.spawn("exec sleep 30");
    fs::write(nested.join("cgroup.procs"), inner.id().to_string()).unwrap();
    let pids = fixture.placement.processes().unwrap();
    assert!(pids.contains(&(child.id() as i32)) && pids.contains(&(inner.id() as i32)), "{pids:?}");

    assert!(!fixture.placement.is_frozen().unwrap());
    fixture.placement.freeze().unwrap();
    assert!(fixture.placement.is_frozen().unwrap());
    fixture.placement.kill_all(15).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none(), "a frozen process does not act");
    fixture.placement.thaw().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    inner.wait().unwrap();

    let mut frozen = fixture.spawn("sleep 30");
    fixture.placement.freeze().unwrap();
    fixture.placement.kill_all(9).unwrap();
    frozen.wait().unwrap();
    assert!(!fixture.placement.is_frozen().unwrap() || fixture.placement.v2.is_some());

    fixture.placement.thaw().unwrap();
    let mut last = fixture.spawn("exec sleep 30");
    fixture.placement.freeze().unwrap();
    let before = Instant::now();
    fixture.placement.destroy().unwrap();
    assert!(
        before.elapsed() < Duration::from_secs(2),
        "destroy of a frozen container took {:?}",
        before.elapsed()
    );
    last.wait().unwrap();
    fixture.placement.destroy().unwrap();
}

#[test]
fn processes_are_listed_frozen_signalled_and_killed_on_a_hybrid_host() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("", Joins::Limited, json!({ "pids": { "limit": 50 } }));
    check_life(&fixture);
}

#[test]
fn processes_are_listed_frozen_signalled_and_killed_on_v2() {
    inside("processes_are_listed_frozen_signalled_and_killed_on_v2", ONLY_V2, || {
        assert_eq!(Host::detect().unwrap().mode(), Mode::V2);
        let (fixture, leaf) = Fixture::new("", Joins::Limited, json!({}));
        assert!(leaf.v2.is_some() && leaf.tasks.is_empty());
        check_life(&fixture);
    });
}

#[test]
fn processes_are_listed_frozen_signalled_and_killed_on_v1() {
    inside("processes_are_listed_frozen_signalled_and_killed_on_v1", ONLY_V1, || {
        let (fixture, _leaf) = Fixture::new("", Joins::All, json!({}));
        check_life(&fixture);
    });
}

#[test]
fn destroy_kills_what_is_left_and_removes_what_the_container_made() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("/a", Joins::All, json!({}));
    let mut children: Vec<_> = (0..3).map(|_| fixture.spawn("trap '' TERM; sleep 30 & sleep 30")).collect();
    for dir in fixture.dirs() {
        fs::create_dir_all(dir.join("made/by/it")).unwrap();
        fs::create_dir(dir.join("too")).unwrap();
    }
    let reaper = std::thread::spawn(move || children.iter_mut().all(|child| child.wait().is_ok()));
    fixture.placement.destroy().unwrap();
    assert!(reaper.join().unwrap());
    assert_eq!(fixture.leftovers(), Vec::<PathBuf>::new());
}

/// A container can nest its groups deeper than any path can name.
#[test]
fn destroy_removes_groups_deeper_than_a_path_is_long() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("/a", Joins::Limited, json!({}));
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = rustix::fs::open(&fixture.dirs()[0], flags, Mode::empty()).unwrap();
    let name = "n".repeat(100);
    for _ in 0..60 {
        rustix::fs::mkdirat(&here, &name, Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, &name, flags, Mode::empty()).unwrap();
    }
    assert_eq!(fixture.placement.processes().unwrap(), Vec::<i32>::new());
    fixture.placement.destroy().unwrap();
}

#[test]
fn limits_go_up_and_down_and_reach_groups_that_were_not_joined() {
    if !is_hybrid_root() {
        return;
    }
    let (mut fixture, _leaf) =
        Fixture::new("", Joins::Limited, json!({ "memory": { "limit": 64 << 20, "swap": 64 << 20 } }));
    let memory = |fixture: &Fixture| {
        let number = |file| fixture.file("memory", file).parse::<i64>().unwrap() >> 20;
        (number("memory.limit_in_bytes"), number("memory.memsw.limit_in_bytes"))
    };
    let mut child = fixture.spawn("sleep 30");
    for (limit, swap) in [(128, 256), (32, 32), (300, 300), (16, 128)] {
        let more = resources(json!({ "memory": { "limit": limit << 20, "swap": swap << 20 } }));
        fixture.placement.update(&more).unwrap();
        assert_eq!(memory(&fixture), (limit, swap));
    }
    let check = resources(json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } }));
    let error = fixture.placement.update(&check).unwrap_err().to_string();
    assert!(error.contains("linux.resources.memory.limit: 4096"), "{error}");

    assert!(fixture.placement.joined("cpu").is_none());
    for (quota, period) in [(50_000, 100_000), (5_000, 10_000), (90_000, 100_000)] {
        fixture.placement.update(&resources(json!({ "cpu": { "quota": quota, "period": period } }))).unwrap();
        assert_eq!(fixture.file("cpu", "cpu.cfs_quota_us"), quota.to_string());
    }
    assert!(fixture.file("cpu", "cgroup.procs").lines().any(|line| line == child.id().to_string()));
    let stored = serde_json::to_string(&fixture.placement).unwrap();
    let read: Placement = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, fixture.placement);
    read.kill_all(9).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_v1_cpuset_takes_over_what_its_parents_have() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("/a/b", Joins::Limited, json!({ "cpu": { "cpus": "0" } }));
    assert_eq!(
        (fixture.file("cpuset", "cpuset.cpus"), fixture.file("cpuset", "cpuset.mems")),
        ("0".into(), "0".into())
    );
    assert_eq!(code(&fixture.run("true")), 0);
}

#[test]
fn a_v2_host_gets_its_controllers_from_the_root_down() {
    inside("a_v2_host_gets_its_controllers_from_the_root_down", ONLY_V2, || {
        let control = "/sys/fs/cgroup/cgroup.subtree_control";
        let before = fs::read_to_string(control).unwrap();
        let limits = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] });
        let (fixture, _leaf) = Fixture::new("/a/b", Joins::Limited, limits);
        let max = (fixture.file("", "hugetlb.2MB.max"), fixture.file("", "hugetlb.2MB.rsvd.max"));
        drop(fixture);
        if !before.contains("hugetlb") {
            fs::write(control, "-hugetlb").unwrap();
        }
        assert_eq!(max, ("4194304".into(), "4194304".into()));

        let memory = resources(json!({ "memory": { "limit": 1 << 20 } }));
        let mut fixture = Fixture::plan("/a", Joins::Limited, Some(&memory));
        let error = fixture.placement.create(Some(&memory)).unwrap_err().to_string();
        if !before.contains("hugetlb") {
            fs::write(control, "-hugetlb").unwrap();
        }
        assert!(error.contains("memory"), "{error}");
        assert_eq!(fixture.leftovers(), Vec::<PathBuf>::new());
    });
}

#[test]
fn an_oom_watch_of_v2_tells_the_end() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("", Joins::Limited, json!({}));
    let mut child = fixture.spawn("exec sleep 30");
    let watch = fixture.placement.watch_oom().unwrap();
    assert_eq!(watch.news().unwrap(), OomNews { count: 0, is_over: false });
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel tells changes with some delay, so an older one may come first.
    while !watch.news().unwrap().is_over {
        assert!(has_news(&watch, 5));
    }
}

#[test]
fn statistics_say_what_the_container_uses() {
    if !is_hybrid_root() {
        return;
    }
    let limits = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 20 } });
    let (fixture, _leaf) = Fixture::new("/a", Joins::All, limits.clone());
    let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exec sleep 30";
    let mut child = fixture.spawn(busy);
    wait_until("cpu is used", || fixture.placement.stats().unwrap().cpu.usage.total > 50_000_000);
    let stats = fixture.placement.stats().unwrap();
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 20));
    assert_eq!(stats.memory.usage.limit, 64 << 20);
    assert!(stats.memory.usage.usage > 0 && stats.memory.raw.contains_key("total_rss"));
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert_eq!((stats.cpu.usage.percpu.len(), stats.cpu.usage.percpu_user.len()), (cpus, cpus));
    assert_eq!(stats.cpuset.cpus.len(), cpus);
    let (bare, _leaf) = Fixture::new("", Joins::Limited, json!({}));
    let mut other = bare.spawn(busy);
    wait_until("cpu is used", || bare.placement.stats().unwrap().cpu.usage.total > 10_000_000);
    assert_eq!(bare.placement.stats().unwrap().pids.current, 1);
    for (fixture, child) in [(&fixture, &mut child), (&bare, &mut other)] {
        fixture.placement.kill_all(9).unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_process_in_a_group_that_the_container_made_is_found_and_joined_there() {
    if !is_hybrid_root() {
        return;
    }
    let (fixture, _leaf) = Fixture::new("/a", Joins::All, json!({}));
    let inner = fixture.placement.v2_dir().unwrap().join("own/init");
    fs::create_dir_all(&inner).unwrap();
    let mut child = fixture.spawn("exec sleep 30");
    let pid = i32::try_from(child.id()).unwrap();
    assert_eq!(fixture.placement.place_of(pid).unwrap(), None);
    fs::write(inner.join("cgroup.procs"), pid.to_string()).unwrap();
    let place = fixture.placement.place_of(pid).unwrap();
    assert_eq!(place.as_deref(), Some("own/init"));
    let leaf = fixture.placement.open(&Below::v2(place)).unwrap();
    assert_eq!(path_of(&leaf.v2.unwrap()), inner);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_invalid_update_changes_nothing() {
    if !is_hybrid_root() {
        return;
    }
    let (mut fixture, _leaf) = Fixture::new("", Joins::Limited, json!({}));
    let before = fixture.placement.clone();
    let bad = resources(json!({ "pids": { "limit": 5 }, "cpu": { "shares": 1 } }));
    fixture.placement.update(&bad).unwrap_err();
    assert_eq!(fixture.placement, before);
    assert_eq!(fixture.leftovers(), [before.v2_dir().unwrap()]);
}

/// For a v2 host that has its controllers there, as a VM of the suite has.
#[test]
fn limits_hold_on_a_v2_host_with_controllers() {
    let has_all = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .is_ok_and(|text| ["memory", "pids", "cpu", "cpuset", "io"].iter().all(|name| text.contains(name)));
    if !has_all {
        eprintln!("not run: needs cgroup v2 with its controllers");
        return;
    }
    let limits = json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20, "reservation": 1 << 20 }, "pids": { "limit": 3 },
        "cpu": { "shares": 512, "quota": 20_000, "period": 50_000, "burst": 1000, "cpus": "0", "mems": "0" },
        "unified": { "memory.high": "30M", "cgroup.max.depth": "7" } });
    let (mut fixture, leaf) = Fixture::new("", Joins::Limited, limits);
    assert!(leaf.tasks.is_empty() && leaf.notes.is_empty(), "{leaf:?}");
    for (file, value) in [
        ("memory.max", "33554432"),
        ("memory.low", "1048576"),
        ("memory.high", "31457280"),
        ("pids.max", "3"),
        ("cpu.weight", "59"),
        ("cpu.max", "20000 50000"),
        ("cpu.max.burst", "1000"),
        ("cpuset.cpus", "0"),
        ("cgroup.max.depth", "7"),
    ] {
        assert_eq!(fixture.file("", file), value, "{file}");
    }
    let refused = fixture.run("sleep 0.3 & sleep 0.3 & sleep 0.3 & wait");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("fork"), "{refused:?}");
    fixture
        .placement
        .update(&resources(json!({ "cpu": { "period": 100_000 }, "pids": { "limit": -1 } })))
        .unwrap();
    assert_eq!(
        (fixture.file("", "cpu.max"), fixture.file("", "pids.max")),
        ("20000 100000".into(), "max".into())
    );
    fixture.placement.update(&resources(json!({ "unified": { "memory.high": "max" } }))).unwrap();
    let watch = fixture.placement.watch_oom().unwrap();
    assert_eq!(code(&fixture.run("exec tail /dev/zero")), 137);
    while watch.news().unwrap().count == 0 {
        assert!(has_news(&watch, 5));
    }
    let stats = fixture.placement.stats().unwrap();
    assert_eq!((stats.memory.usage.limit, stats.pids.limit), (32 << 20, 0));
    assert!(stats.memory.usage.max > 20 << 20 && stats.cpu.usage.total > 0, "{stats:?}");
    check_devices(&fixture);
    check_life(&fixture);

    // A supervisor's place: everything is enabled for it, also without limits.
    let (given, _leaf) = Fixture::new("/a/b", Joins::All, json!({}));
    assert!(
        ["memory", "pids", "cpu", "io"]
            .iter()
            .all(|name| given.file("", "cgroup.controllers").contains(name))
    );
}

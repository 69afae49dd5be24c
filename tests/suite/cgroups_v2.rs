//! Limits on a host whose hierarchy is version 2 alone, as `scripts/test vm` boots one: that they are written, and that
//! the kernel then holds the container to them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hearth_tests::container::field;
use hearth_tests::context::eventually;
use hearth_tests::{Config, Container, Ctx, Value, cases, json};

cases! {
    settled:
        limits_are_written,
        update_changes_limits,
        update_raises_and_lowers_memory_and_swap,
        unified_keys_are_written,
        the_memory_limit_kills,
        a_killed_child_leaves_the_container_running,
        the_pids_limit_holds,
        the_cpu_limit_throttles,
        processors_are_those_of_the_cpuset,
        the_read_limit_of_a_device_slows,
        a_huge_page_limit_is_written,
        a_cgroup_shown_read_only_stays_the_callers;
    hearth:
        a_container_is_given_the_cgroup_that_it_may_write,
        the_owner_is_the_host_id_of_the_user,
        a_user_makes_groups_below_its_own;
}

fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// The number in a line `NAME NUMBER` of a statistic.
fn count(dir: &Path, file: &str, name: &str) -> u64 {
    let text = read(dir, file);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn up<'t>(t: &'t Ctx, args: &[&str], resources: &[(&str, Value)]) -> Container<'t> {
    let c = t.container(|c| {
        c.args(args);
        for (name, value) in resources {
            c.set(&format!("/linux/resources/{name}"), value.clone());
        }
    });
    c.up();
    c
}

const WAIT: &[&str] = &["sleep", "1000"];

fn limits_are_written(t: &Ctx) {
    t.needs_cgroup_v2(&["cpu", "memory", "pids"]);
    let memory = json!({"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296});
    let cpu = json!({"shares": 1024, "quota": 20000, "period": 50000});
    let c = up(t, WAIT, &[("memory", memory), ("cpu", cpu), ("pids", json!({"limit": 20}))]);
    let dir = c.cgroup_v2();
    assert_eq!(read(&dir, "memory.max"), "67108864");
    assert_eq!(read(&dir, "memory.low"), "33554432");
    assert_eq!(read(&dir, "memory.swap.max"), "33554432", "v2 counts swap apart from memory");
    assert_eq!(read(&dir, "cpu.max"), "20000 50000");
    assert_eq!(read(&dir, "pids.max"), "20");
}

fn update_changes_limits(t: &Ctx) {
    t.needs_cgroup_v2(&["cpu", "memory", "pids"]);
    let c = up(t, WAIT, &[]);
    let flags =
        ["--memory", "33554432", "--pids-limit", "33", "--cpu-quota", "30000", "--cpu-period", "60000"];
    c.verb("update", &flags, &[]).run().ok();
    let dir = c.cgroup_v2();
    assert_eq!(read(&dir, "memory.max"), "33554432");
    assert_eq!(read(&dir, "pids.max"), "33");
    assert_eq!(read(&dir, "cpu.max"), "30000 60000");
}

fn update_raises_and_lowers_memory_and_swap(t: &Ctx) {
    t.needs_cgroup_v2(&["memory"]);
    let c = up(t, WAIT, &[("memory", json!({"limit": 67_108_864, "swap": 67_108_864}))]);
    let dir = c.cgroup_v2();
    for size in ["134217728", "33554432"] {
        c.verb("update", &["--memory", size, "--memory-swap", size], &[]).run().ok();
        assert_eq!((read(&dir, "memory.max"), read(&dir, "memory.swap.max")), (size.into(), "0".into()));
    }
}

fn unified_keys_are_written(t: &Ctx) {
    t.needs_cgroup_v2(&["memory", "pids"]);
    let c = up(t, WAIT, &[("unified", json!({"memory.high": "50331648", "pids.max": "77"}))]);
    let dir = c.cgroup_v2();
    assert_eq!((read(&dir, "memory.high").as_str(), read(&dir, "pids.max").as_str()), ("50331648", "77"));
}

fn the_memory_limit_kills(t: &Ctx) {
    t.needs_cgroup_v2(&["memory"]);
    let c = t.container(|c| {
        c.args(&["tail", "/dev/zero"]);
        c.set("/linux/resources/memory", json!({"limit": 16_777_216, "swap": 16_777_216}));
    });
    c.create().ok();
    let dir = c.cgroup_v2();
    c.start().ok();
    c.wait_until("stopped");
    assert_eq!(count(&dir, "memory.events", "oom_kill"), 1);
}

fn a_killed_child_leaves_the_container_running(t: &Ctx) {
    t.needs_cgroup_v2(&["memory"]);
    let memory = json!({"limit": 16_777_216, "swap": 16_777_216});
    let c = up(t, WAIT, &[("memory", memory)]);
    c.exec(&["tail", "/dev/zero"]).code(137);
    assert_eq!(count(&c.cgroup_v2(), "memory.events", "oom_kill"), 1);
    assert_eq!(c.status(), "running");
}

fn the_pids_limit_holds(t: &Ctx) {
    t.needs_cgroup_v2(&["pids"]);
    let c = up(t, WAIT, &[("pids", json!({"limit": 20}))]);
    let out = c.exec(&["sh", "-c", "for i in $(seq 40); do sleep 1 & done; wait"]);
    assert!(out.code != 0 && out.stderr.contains("fork"), "{out:?}");
    assert!(count(&c.cgroup_v2(), "pids.events", "max") > 0);
}

fn the_cpu_limit_throttles(t: &Ctx) {
    t.needs_cgroup_v2(&["cpu"]);
    let c =
        up(t, &["sh", "-c", "while :; do :; done"], &[("cpu", json!({"quota": 10_000, "period": 100_000}))]);
    let dir = c.cgroup_v2();
    let used = || count(&dir, "cpu.stat", "usage_usec");
    let (before, started) = (used(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let share = (used() - before) as f64 / started.elapsed().as_micros() as f64;
    assert!(share < 0.2, "a tenth of a processor was allowed, {share:.2} was used");
    assert!(count(&dir, "cpu.stat", "nr_throttled") > 0);
}

fn processors_are_those_of_the_cpuset(t: &Ctx) {
    t.needs_cgroup_v2(&["cpuset"]);
    let c = up(t, WAIT, &[("cpu", json!({"cpus": "0", "mems": "0"}))]);
    assert_eq!(read(&c.cgroup_v2(), "cpuset.cpus.effective"), "0");
    assert_eq!(field(&c.proc("status"), "Cpus_allowed_list"), "0");
}

fn the_read_limit_of_a_device_slows(t: &Ctx) {
    t.needs_cgroup_v2(&["io"]);
    let device = rustix::fs::stat("/").expect("stat /").st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    if !Path::new(&format!("/sys/dev/block/{major}:{minor}/queue")).exists() {
        t.skip("the root file system is not on a whole disk");
    }
    let rate = json!([{"major": major, "minor": minor, "rate": 1_048_576}]);
    let c = t.container(|c| {
        c.args(WAIT);
        c.set("/linux/resources/blockIO", json!({"throttleReadBpsDevice": rate}));
        c.push("/linux/devices", json!({"path": "/dev/disk", "type": "b", "major": major, "minor": minor}));
        let access = json!({"allow": true, "type": "b", "major": major, "minor": minor, "access": "r"});
        c.push("/linux/resources/devices", access);
    });
    c.up();
    assert!(read(&c.cgroup_v2(), "io.max").contains(&format!("{major}:{minor} rbps=1048576 ")));
    let started = Instant::now();
    c.exec(&["dd", "if=/dev/disk", "of=/dev/null", "bs=1M", "count=3", "iflag=direct"]).ok();
    assert!(started.elapsed() > Duration::from_millis(1900), "3 MiB came in {:?}", started.elapsed());
}

fn a_huge_page_limit_is_written(t: &Ctx) {
    t.needs_cgroup_v2(&["hugetlb"]);
    let limits = json!([{"pageSize": "2MB", "limit": 4_194_304}]);
    let c = up(t, WAIT, &[("hugepageLimits", limits)]);
    assert_eq!(read(&c.cgroup_v2(), "hugetlb.2MB.max"), "4194304");
}

// ---- ownership

/// A container of user 1000 that sees its cgroups, writable or not.
fn owned(c: &mut Config, writable: bool) {
    c.args(WAIT);
    c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    c.namespace("cgroup", None);
    let mounts = c.0["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    c.mount("/sys/fs/cgroup", "cgroup", "cgroup", if writable { &["nosuid"] } else { &["nosuid", "ro"] });
}

/// Who owns the container's group, and then whoever else owns a file in it.
fn owners(c: &Container<'_>) -> (u32, Vec<String>) {
    let dir = c.cgroup_v2();
    let uid = |path: &Path| rustix::fs::stat(path).expect("stat a cgroup file").st_uid;
    let files = fs::read_dir(&dir).expect("the group").flatten().filter(|entry| uid(&entry.path()) != 0);
    let mut names: Vec<_> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    (uid(&dir), names)
}

fn a_cgroup_shown_read_only_stays_the_callers(t: &Ctx) {
    t.needs_cgroup_v2(&["pids"]);
    let c = t.container(|c| owned(c, false));
    c.up();
    assert_eq!(owners(&c), (0, Vec::new()));
}

fn a_container_is_given_the_cgroup_that_it_may_write(t: &Ctx) {
    t.needs_cgroup_v2(&["pids"]);
    let c = t.container(|c| owned(c, true));
    c.up();
    let (owner, files) = owners(&c);
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").expect("the kernel's list");
    let mut expected: Vec<_> =
        listed.lines().filter(|name| c.cgroup_v2().join(name).exists()).map(str::to_owned).collect();
    expected.sort();
    assert!(expected.iter().any(|name| name == "cgroup.procs"), "{listed}");
    assert_eq!((owner, files), (1000, expected));
}

fn the_owner_is_the_host_id_of_the_user(t: &Ctx) {
    t.needs_cgroup_v2(&["pids"]);
    let c = t.container(|c| {
        owned(c, true);
        c.namespace("user", None);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        c.set("/linux/uidMappings", map.clone());
        c.set("/linux/gidMappings", map);
    });
    rustix::fs::chown(c.rootfs(""), Some(rustix::fs::Uid::from_raw(100_000)), None).expect("chown");
    c.up();
    assert_eq!(owners(&c).0, 101_000);
}

fn a_user_makes_groups_below_its_own(t: &Ctx) {
    t.needs_cgroup_v2(&["pids"]);
    let c = t.container(|c| {
        owned(c, true);
        c.set("/linux/resources/pids", json!({"limit": 20}));
    });
    c.up();
    let script = "cd /sys/fs/cgroup && mkdir below && echo $$ >below/cgroup.procs && cat /proc/self/cgroup; \
                  echo 30 2>/dev/null >pids.max || echo its limit is not its own";
    assert_eq!(c.sh(script), "0::/below\nits limit is not its own");
    eventually("the group to be empty", || fs::remove_dir(c.cgroup_v2().join("below")).ok());
}

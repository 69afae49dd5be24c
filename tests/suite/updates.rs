//! `update`: limits of a running container; what each limit's file then holds is in `cgroups`.

use std::fs;

use hearth_tests::context::eventually;
use hearth_tests::{Container, Ctx, Value, cases, json};

cases! {
    settled:
        update_takes_sizes_with_units,
        update_lifts_a_memory_limit,
        update_keeps_what_it_does_not_name,
        update_raises_and_lowers_memory_and_swap,
        update_works_on_a_created_container,
        update_of_a_stopped_container_is_refused,
        update_refuses_values_that_are_none,
        update_refuses_broken_json,
        update_refuses_a_file_that_is_not_there,
        update_refuses_a_cache_schema_without_rdt,
        update_ignores_kernel_memory_with_a_warning,
        update_lets_a_file_win_over_flags;
    newer:
        update_sets_a_pids_limit_of_zero,
        update_takes_an_empty_pids_for_no_limit;
    hearth:
        update_joins_a_group_that_was_not_needed_before,
        update_killed_on_the_way_leaves_nothing,
        update_after_a_refusal_works,
        updates_at_the_same_time_all_count;
}

/// The names of v1 that are used here, and what v2 calls the same.
const V2: [(&str, &str); 2] =
    [("memory.limit_in_bytes", "memory.max"), ("memory.soft_limit_in_bytes", "memory.low")];

fn file(c: &Container<'_>, controller: &str, file: &str) -> String {
    let dir = c.cgroup_of(controller);
    let renamed = V2.iter().find(|(v1, v2)| *v1 == file && dir.join(v2).exists());
    let path = dir.join(renamed.map_or(file, |(_, v2)| v2));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn up(t: &Ctx, resources: Value) -> Container<'_> {
    if resources != json!({}) {
        t.needs_controller("memory");
    }
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        for (name, value) in resources.as_object().expect("an object") {
            c.set(&format!("/linux/resources/{name}"), value.clone());
        }
    });
    c.up();
    c
}

fn update_takes_sizes_with_units(t: &Ctx) {
    t.needs_controller("memory");
    let c = up(t, json!({}));
    for (size, bytes) in
        [("64m", "67108864"), ("32768k", "33554432"), ("1G", "1073741824"), ("16MiB", "16777216")]
    {
        c.verb("update", &["--memory", size], &[]).run().ok();
        assert_eq!(file(&c, "memory", "memory.limit_in_bytes"), bytes, "{size}");
    }
}

fn update_lifts_a_memory_limit(t: &Ctx) {
    let c = up(t, json!({"memory": {"limit": 67_108_864}}));
    c.verb("update", &["--memory", "-1"], &[]).run().ok();
    let limit = file(&c, "memory", "memory.limit_in_bytes");
    assert!(["9223372036854771712", "max"].contains(&limit.as_str()), "{limit}");
}

fn update_keeps_what_it_does_not_name(t: &Ctx) {
    t.needs_cgroup_v1("memory");
    let c = up(t, json!({"memory": {"limit": 67_108_864}, "cpu": {"shares": 333}}));
    c.verb("update", &["--pids-limit", "9"], &[]).run().ok();
    c.verb("update", &["--memory-reservation", "33554432"], &[]).run().ok();
    assert_eq!(file(&c, "memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(file(&c, "memory", "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(file(&c, "cpu", "cpu.shares"), "333");
}

fn update_raises_and_lowers_memory_and_swap(t: &Ctx) {
    t.needs_cgroup_v1("memory");
    let c = up(t, json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}}));
    for size in ["134217728", "33554432"] {
        c.verb("update", &["--memory", size, "--memory-swap", size], &[]).run().ok();
        assert_eq!(file(&c, "memory", "memory.limit_in_bytes"), size);
        assert_eq!(file(&c, "memory", "memory.memsw.limit_in_bytes"), size);
    }
    c.verb("update", &["--memory-swap", "67108864"], &[]).run().ok();
    assert_eq!(file(&c, "memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(file(&c, "memory", "memory.memsw.limit_in_bytes"), "67108864");
}

fn update_works_on_a_created_container(t: &Ctx) {
    t.needs_controller("pids");
    let c = t.sleeper();
    c.create().ok();
    c.verb("update", &["--pids-limit", "9"], &[]).run().ok();
    assert_eq!(file(&c, "pids", "pids.max"), "9");
    assert_eq!(c.status(), "created");
}

fn update_of_a_stopped_container_is_refused(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    c.verb("update", &["--pids-limit", "9"], &[]).run().refused("container not running");
}

fn update_refuses_values_that_are_none(t: &Ctx) {
    let c = up(t, json!({}));
    for (flag, value) in [
        ("cpu-period", "-1"),
        ("cpu-quota", "much"),
        ("cpu-share", "1.5"),
        ("memory", "10x"),
        ("memory", "-2"),
        ("memory-swap", "k"),
    ] {
        let out = c.verb("update", &[&format!("--{flag}={value}")], &[]).run();
        out.refused(&format!("invalid value for {flag}"));
    }
}

fn update_refuses_broken_json(t: &Ctx) {
    let c = up(t, json!({}));
    for text in ["", "{", "[]", "7", "{\"memory\": {\"limit\": \"much\"}}"] {
        assert_ne!(c.verb("update", &["-r", "-"], &[]).stdin(text.as_bytes()).run().code, 0, "{text}");
    }
    assert_eq!(c.status(), "running");
}

fn update_refuses_a_file_that_is_not_there(t: &Ctx) {
    let c = up(t, json!({}));
    c.verb("update", &["-r", "/nowhere/at/all"], &[]).run().refused("no such file");
}

fn update_refuses_a_cache_schema_without_rdt(t: &Ctx) {
    if fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("resctrl") {
        t.skip("this host has resctrl");
    }
    let c = up(t, json!({}));
    c.verb("update", &["--l3-cache-schema", "L3:0=f"], &[]).run().refused("l3 cache schema is not enabled");
    c.verb("update", &["--mem-bw-schema", "MB:0=20"], &[])
        .run()
        .refused("memory bandwidth schema is not enabled");
}

fn update_ignores_kernel_memory_with_a_warning(t: &Ctx) {
    let c = up(t, json!({}));
    let out = c.verb("update", &["--kernel-memory", "64m"], &[]).run().ok();
    assert!(out.stderr.contains("Kernel memory settings are ignored"), "{out:?}");
}

fn update_lets_a_file_win_over_flags(t: &Ctx) {
    let c = up(t, json!({"pids": {"limit": 5}, "memory": {"limit": 67_108_864}}));
    let flags = ["--resources", "-", "--memory", "33554432"];
    c.verb("update", &flags, &[]).stdin(b"{\"pids\": {\"limit\": 7}}").run().ok();
    assert_eq!(file(&c, "pids", "pids.max"), "7");
    assert_eq!(file(&c, "memory", "memory.limit_in_bytes"), "67108864");
}

/// The kernel refuses a group of no process even its first one, so it is written as 1.
fn update_sets_a_pids_limit_of_zero(t: &Ctx) {
    let c = up(t, json!({"pids": {"limit": 5}}));
    c.verb("update", &["--pids-limit", "0"], &[]).run().ok();
    assert_eq!(file(&c, "pids", "pids.max"), "1");
}

fn update_takes_an_empty_pids_for_no_limit(t: &Ctx) {
    let c = up(t, json!({"pids": {"limit": 5}}));
    c.verb("update", &["-r", "-"], &[]).stdin(b"{\"pids\": {}}").run().ok();
    assert_eq!(file(&c, "pids", "pids.max"), "5");
}

/// A container that `run` waits for joins no more v1 groups than its limits need. The leak check sees whether those
/// that `change` makes are removed, so that they were stored.
fn while_run_waits(t: &Ctx, change: impl FnOnce(&Container<'_>)) {
    t.needs_cgroup_v1("pids");
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.remove("/linux/resources");
        c.remove("/linux/cgroupsPath");
    });
    let run = c.launch("run", &[]).spawn();
    eventually("the container", || {
        t.rt(&["list", "-q"]).ok().stdout.contains(&c.id).then_some(())?;
        (c.status() == "running").then_some(())
    });
    change(&c);
    c.kill("KILL").ok();
    run.finish().code(137);
}

fn update_joins_a_group_that_was_not_needed_before(t: &Ctx) {
    while_run_waits(t, |c| {
        c.verb("update", &["--pids-limit", "9", "--memory", "64m"], &[]).run().ok();
        assert_eq!(file(c, "pids", "pids.max"), "9");
        assert_eq!(file(c, "memory", "memory.limit_in_bytes"), "67108864");
    });
}

fn update_killed_on_the_way_leaves_nothing(t: &Ctx) {
    t.needs_tool("strace");
    while_run_waits(t, |c| {
        let kill = ["strace", "-qqq", "-o", "/dev/null", "-e", "inject=mkdir,mkdirat:signal=KILL:when=2"];
        c.verb("update", &["--pids-limit", "9", "--memory", "64m"], &[]).wrap(&kill).run().code(137);
    });
}

fn update_after_a_refusal_works(t: &Ctx) {
    t.needs_controller("memory");
    let c = up(t, json!({}));
    c.verb("update", &["--cpuset-cpus", "4000"], &[]).run().refused("cpuset.cpus");
    c.verb("update", &["--cpuset-cpus", "0"], &[]).run().ok();
    assert_eq!(file(&c, "cpuset", "cpuset.cpus"), "0");
}

fn updates_at_the_same_time_all_count(t: &Ctx) {
    t.needs_cgroup_v1("memory");
    let c = up(t, json!({}));
    let flags =
        [["--memory", "64m"], ["--pids-limit", "9"], ["--cpu-share", "333"], ["--cpu-quota", "30000"]];
    let runs: Vec<_> = flags.iter().map(|flags| c.verb("update", flags, &[]).spawn()).collect();
    for run in runs {
        run.finish().ok();
    }
    assert_eq!(file(&c, "memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(file(&c, "pids", "pids.max"), "9");
    assert_eq!(file(&c, "cpu", "cpu.shares"), "333");
    assert_eq!(file(&c, "cpu", "cpu.cfs_quota_us"), "30000");
}

//! When and where a program runs: scheduler, I/O priority, CPU affinity, memory policy.

use std::fs;

use hearth_tests::container::field;
use hearth_tests::{Config, Ctx, Value, cases, json};

cases! {
    newer:
        the_callers_cpus_are_not_the_containers,
        every_policy_that_may_be_set_is,
        flags_of_the_scheduler_are_named_as_in_the_spec,
        what_a_policy_does_not_have_is_refused,
        an_unknown_scheduler_is_refused,
        an_exec_has_the_scheduler_of_its_process,
        io_priorities_are_set,
        an_io_priority_out_of_range_is_refused,
        memory_policies_are_set,
        an_exec_has_the_memory_policy_too,
        a_memory_policy_with_wrong_nodes_is_refused,
        an_exec_runs_on_the_final_cpus,
        an_exec_without_final_cpus_keeps_the_containers,
        a_cpu_list_that_is_none_is_refused;
    hearth:
        realtime_policies_are_set;
}

/// Nice value, priority and policy of PID 1.
fn scheduler(t: &Ctx, value: Value) -> String {
    t.sh("cut -d' ' -f19,40,41 /proc/1/stat", |c| c.set("/process/scheduler", value))
}

fn every_policy_that_may_be_set_is(t: &Ctx) {
    for (value, wanted) in [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), "7 0 0"),
        (json!({"policy": "SCHED_OTHER", "nice": -3}), "-3 0 0"),
        (json!({"policy": "SCHED_BATCH", "nice": 19}), "19 0 3"),
        (json!({"policy": "SCHED_IDLE"}), "0 0 5"),
    ] {
        assert_eq!(scheduler(t, value.clone()), wanted, "{value}");
    }
}

/// runc's own threads get in the way of these.
fn realtime_policies_are_set(t: &Ctx) {
    for (value, wanted) in [
        (json!({"policy": "SCHED_FIFO", "priority": 5}), "0 5 1"),
        (json!({"policy": "SCHED_RR", "priority": 7}), "0 7 2"),
    ] {
        assert_eq!(scheduler(t, value.clone()), wanted, "{value}");
    }
}

fn flags_of_the_scheduler_are_named_as_in_the_spec(t: &Ctx) {
    let reset = json!({"policy": "SCHED_OTHER", "nice": -3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    let out = t.sh("cut -d' ' -f19 /proc/1/stat; cat /proc/self/stat | cut -d' ' -f19", |c| {
        c.set("/process/scheduler", reset)
    });
    assert_eq!(out, "-3\n0");
    let deadline = json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 9_000_000, "period": 9_000_000,
        "flags": ["SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RECLAIM"]
    });
    let c = t.container(|c| {
        c.set("/process/scheduler", deadline);
        // A process with a deadline may not fork.
        c.args(&["cat", "/proc/self/stat"]);
    });
    let out = c.run().ok().stdout;
    assert_eq!(out.split(' ').nth(40), Some("6"), "{out}");
}

fn what_a_policy_does_not_have_is_refused(t: &Ctx) {
    for (value, word) in [
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice"),
        (json!({"policy": "SCHED_BATCH", "nice": -21}), "nice"),
        (json!({"policy": "SCHED_OTHER", "priority": 1}), "priority"),
        (json!({"policy": "SCHED_IDLE", "runtime": 1}), "runtime"),
    ] {
        t.container(|c| c.set("/process/scheduler", value)).run().refused(word);
    }
}

fn an_unknown_scheduler_is_refused(t: &Ctx) {
    for value in
        [json!({"policy": "SCHED_NOSUCH"}), json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOSUCH"]})]
    {
        let c = t.container(|c| c.set("/process/scheduler", value.clone()));
        assert_ne!(c.run().code, 0, "{value}");
    }
    t.container(|c| c.set("/process/scheduler", json!({"nice": 1}))).run().refused("policy");
}

fn an_exec_has_the_scheduler_of_its_process(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 4}));
        c.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE"}));
    });
    c.up();
    assert_eq!(c.sh("cut -d' ' -f19,41 /proc/self/stat; ionice -p $$"), "4 3\nidle");
}

fn io_priorities_are_set(t: &Ctx) {
    for (value, wanted) in [
        (json!({"class": "IOPRIO_CLASS_RT", "priority": 3}), "realtime: prio 3"),
        (json!({"class": "IOPRIO_CLASS_BE"}), "best-effort: prio 0"),
        (json!({"class": "IOPRIO_CLASS_IDLE", "priority": 7}), "idle"),
    ] {
        assert_eq!(t.sh("ionice -p 1", |c| c.set("/process/ioPriority", value)), wanted);
    }
}

fn an_io_priority_out_of_range_is_refused(t: &Ctx) {
    for value in [
        json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
        json!({"class": "IOPRIO_CLASS_BE", "priority": -1}),
        json!({"class": "IOPRIO_CLASS_NOSUCH"}),
    ] {
        t.container(|c| c.set("/process/ioPriority", value)).run().refused("ioPriority");
    }
}

fn policy(c: &mut Config, value: Value) {
    c.set("/linux/memoryPolicy", value);
}

const POLICY: &str = "head -n 1 /proc/self/numa_maps | cut -d' ' -f2";

fn memory_policies_are_set(t: &Ctx) {
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        t.skip("this kernel has no NUMA");
    }
    for (value, wanted) in [
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0-5"}), "interleave:0"),
        (
            json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "prefer=static:0",
        ),
        (json!({"mode": "MPOL_PREFERRED"}), "local"),
    ] {
        assert_eq!(t.sh(POLICY, |c| policy(c, value.clone())), wanted, "{value}");
    }
}

fn an_exec_has_the_memory_policy_too(t: &Ctx) {
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        t.skip("this kernel has no NUMA");
    }
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        policy(c, json!({"mode": "MPOL_BIND", "nodes": "0"}));
    });
    c.up();
    assert_eq!(c.sh(POLICY), "bind:0");
}

fn a_memory_policy_with_wrong_nodes_is_refused(t: &Ctx) {
    for (value, word) in [
        (json!({"mode": "MPOL_DEFAULT", "nodes": "0"}), "requires 0 nodes"),
        (json!({"mode": "MPOL_BIND"}), "requires at least one node"),
        (json!({"mode": "MPOL_BIND", "nodes": ""}), "requires at least one node"),
        (json!({"mode": "MPOL_BIND", "nodes": "a"}), "nodes"),
        (json!({"mode": "MPOL_NOSUCH", "nodes": "0"}), "MPOL_NOSUCH"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NOSUCH"]}), "MPOL_F_NOSUCH"),
    ] {
        t.container(|c| policy(c, value)).run().refused(word);
    }
}

/// The CPUs of an exec'd process and of the container's own.
fn cpus(t: &Ctx, affinity: Value) -> (String, String) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/process/execCPUAffinity", affinity);
    });
    c.up();
    let status = c.sh("cat /proc/self/status");
    let own = c.proc("status");
    (field(&status, "Cpus_allowed_list").to_owned(), field(&own, "Cpus_allowed_list").to_owned())
}

fn needs_two_cpus(t: &Ctx) {
    let own = std::fs::read_to_string("/proc/self/status").expect("procfs");
    if field(&own, "Cpus_allowed_list") != "0-1" {
        t.skip("written for CPUs 0 and 1");
    }
}

fn an_exec_runs_on_the_final_cpus(t: &Ctx) {
    needs_two_cpus(t);
    let both = || "0-1".to_owned();
    assert_eq!(cpus(t, json!({"initial": "0", "final": "1"})), ("1".to_owned(), both()));
    assert_eq!(cpus(t, json!({"final": "0"})), ("0".to_owned(), both()));
    assert_eq!(cpus(t, json!({"initial": "", "final": "0,1"})), (both(), both()));
}

fn an_exec_without_final_cpus_keeps_the_containers(t: &Ctx) {
    needs_two_cpus(t);
    // What the kernel makes of `initial` on entering the cgroup is its own; the list is one of the two.
    let (exec, own) = cpus(t, json!({"initial": "1"}));
    assert!(["1", "0-1"].contains(&exec.as_str()), "{exec}");
    assert_eq!(own, "0-1");
}

fn a_cpu_list_that_is_none_is_refused(t: &Ctx) {
    for list in ["x", "1-", "3-1"] {
        let c = t.container(|c| c.set("/process/execCPUAffinity", json!({"initial": list})));
        assert_ne!(c.run().code, 0, "{list}");
    }
}

fn the_callers_cpus_are_not_the_containers(t: &Ctx) {
    t.needs_tool("taskset");
    let cpus = |text: &str| field(text, "Cpus_allowed_list").trim().to_owned();
    let all = cpus(&fs::read_to_string("/proc/self/status").expect("status"));
    let c = t.sleeper();
    c.launch("run", &["--detach"]).wrap(&["taskset", "-c", "0"]).run().ok();
    assert_eq!(cpus(&c.proc("status")), all);
    let seen =
        c.verb("exec", &[], &["cat", "/proc/self/status"]).wrap(&["taskset", "-c", "0"]).run().ok().stdout;
    assert_eq!(cpus(&seen), all);
}

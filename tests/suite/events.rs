//! `events`: lines of JSON while a container runs.

use hearth_tests::context::eventually;
use hearth_tests::{Container, Ctx, Running, Value, cases, json};

cases! {
    settled:
        stats_come_at_the_interval,
        stats_have_runcs_fields,
        a_shortage_of_memory_is_told,
        events_end_with_the_container,
        events_refuse_an_interval_of_zero,
        events_refuse_an_interval_that_is_none,
        events_of_a_stopped_container_are_refused,
        events_of_an_unknown_container_are_refused;
    hearth:
        events_follow_a_container_in_no_memory_group,
        the_end_is_told_with_its_status,
        the_end_by_a_signal_is_told,
        the_end_by_the_oom_killer_is_told;
}

fn lines(text: &str) -> Vec<Value> {
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// A command that waits for events: after the first line it misses none.
fn follow(c: &Container<'_>) -> Running {
    let events = c.verb("events", &["--interval", "50ms"], &[]).spawn();
    eventually("the first line", || lines(&events.stdout_so_far()).first().cloned());
    events
}

fn stop(c: &Container<'_>) {
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.verb("delete", &["--force"], &[]).run().ok();
}

fn stats_come_at_the_interval(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let events = follow(&c);
    let seen = eventually("three lines", || {
        let seen = lines(&events.stdout_so_far());
        (seen.len() >= 3).then_some(seen)
    });
    for event in &seen {
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(c.id)), "{event}");
        assert!(event["data"]["pids"]["current"].as_u64() > Some(0), "{event}");
    }
    stop(&c);
    events.finish().ok();
}

fn stats_have_runcs_fields(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let event = c.verb("events", &["--stats"], &[]).run().ok().json();
    let data = event["data"].as_object().expect("an object");
    for key in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"] {
        assert!(data.contains_key(key), "no {key} in {event}");
    }
}

fn out_of_memory<'t>(t: &'t Ctx, script: &str) -> Container<'t> {
    t.needs_controller("memory");
    let c = t.container(|c| {
        c.args(&["sh", "-c", script]);
        c.set("/linux/resources/memory", json!({"limit": 16_777_216}));
    });
    c.create().ok();
    c
}

fn a_shortage_of_memory_is_told(t: &Ctx) {
    let c = out_of_memory(t, "head -c 100m /dev/zero | tail; sleep 100");
    let events = follow(&c);
    c.start().ok();
    let event = eventually("an event", || {
        lines(&events.stdout_so_far()).into_iter().find(|event| event["type"] != "stats")
    });
    assert_eq!(event, json!({"type": "oom", "id": c.id}));
    // The killer may have taken the first process.
    c.kill("KILL");
    c.wait_until("stopped");
    c.verb("delete", &["--force"], &[]).run().ok();
    events.finish().ok();
}

fn events_end_with_the_container(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let mut events = follow(&c);
    assert!(!events.is_over(), "it does not wait");
    stop(&c);
    events.finish().ok();
}

fn events_refuse_an_interval_of_zero(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    for interval in ["0s", "-5s"] {
        let out = c.verb("events", &[&format!("--interval={interval}")], &[]).run();
        out.refused("duration interval must be greater than 0");
    }
}

fn events_refuse_an_interval_that_is_none(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    for interval in ["5", "soon", "5 s"] {
        assert_ne!(c.verb("events", &["--interval", interval], &[]).run().code, 0, "{interval}");
    }
}

fn events_of_a_stopped_container_are_refused(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    c.verb("events", &["--stats"], &[]).run().refused("not running");
}

fn events_of_an_unknown_container_are_refused(t: &Ctx) {
    t.rt(&["events", "--stats", &t.id()]).fails(1, "container does not exist");
}

/// A container that `run` waits for joins no more v1 groups than its limits need.
fn events_follow_a_container_in_no_memory_group(t: &Ctx) {
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
    let events = follow(&c);
    c.kill("KILL").ok();
    events.finish().ok();
    run.finish().code(137);
}

/// What `events` says last of a container that `end` ends.
fn last(t: &Ctx, c: &Container<'_>, end: impl FnOnce(&Container<'_>)) -> Value {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = kernel.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(15)) {
        t.skip("the kernel tells from 6.15 on");
    }
    let events = follow(c);
    end(c);
    let out = events.finish().ok();
    let event = lines(&out.stdout).pop().expect("a line");
    assert_eq!((&event["type"], &event["id"]), (&json!("exit"), &json!(c.id)), "{event}");
    event["data"].clone()
}

fn the_end_is_told_with_its_status(t: &Ctx) {
    let c = t.container(|c| c.args(&["sh", "-c", "exit 7"]));
    c.create().ok();
    let data = last(t, &c, |c| drop(c.start().ok()));
    assert_eq!(data, json!({"reason": "exited", "status": 7}));
}

fn the_end_by_a_signal_is_told(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let data = last(t, &c, |c| drop(c.kill("KILL").ok()));
    assert_eq!(data, json!({"reason": "signalled", "signal": 9}));
}

fn the_end_by_the_oom_killer_is_told(t: &Ctx) {
    let c = out_of_memory(t, "exec tail /dev/zero");
    let data = last(t, &c, |c| drop(c.start().ok()));
    assert_eq!(data, json!({"reason": "oom", "signal": 9}));
}

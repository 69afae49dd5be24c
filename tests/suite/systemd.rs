//! `--systemd-cgroup`: the container in a unit of systemd's. Where systemd is not PID 1 these skip; in the VM it is.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hearth_tests::context::eventually;
use hearth_tests::{Config, Container, Ctx, cases, json};
use rustix::process::Signal;

cases! {
    settled:
        the_container_is_in_a_scope_of_its_slice,
        limits_are_in_the_files_and_in_the_unit,
        update_changes_the_files_and_the_unit,
        a_reload_takes_no_limit_away,
        a_reload_takes_no_device_rule_away,
        a_run_is_in_a_scope_from_the_start,
        exec_joins_the_scope,
        pause_stops_and_resume_continues,
        the_scope_goes_with_the_container,
        a_failed_create_leaves_no_unit,
        annotations_are_properties_of_the_unit,
        a_property_that_is_no_value_is_refused,
        a_path_of_another_form_is_refused;
    hearth:
        unified_limits_are_told_to_systemd,
        a_scope_that_is_in_use_is_refused_and_left_alone,
        a_killed_create_leaves_no_unit,
        below_a_delegated_unit_none_is_made,
        without_systemd_it_is_refused,
        a_restore_into_a_unit_is_refused;
}

fn needs_systemd(t: &Ctx) {
    if !PathBuf::from("/run/systemd/system").is_dir() {
        t.skip("systemd has not booted this machine");
    }
    if !PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists() {
        t.skip("no cgroup v2 alone");
    }
}

fn needs_limits(t: &Ctx) {
    needs_systemd(t);
    t.needs_cgroup_v2(&["cpu", "memory", "pids", "cpuset"]);
}

/// A container that waits, not created yet, whose unit is `suite-NAME.scope` in system.slice.
fn waiting<'t>(t: &'t Ctx, edit: impl FnOnce(&mut Config)) -> (Container<'t>, String) {
    needs_systemd(t);
    let name = t.id();
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/linux/cgroupsPath", json!(format!("system.slice:suite:{name}")));
        edit(c);
    });
    (c, format!("suite-{name}.scope"))
}

fn create(c: &Container<'_>) -> hearth_tests::invoke::Out {
    c.launch("--systemd-cgroup", &["create"]).run()
}

fn up<'t>(t: &'t Ctx, edit: impl FnOnce(&mut Config)) -> (Container<'t>, String) {
    let (c, unit) = waiting(t, edit);
    create(&c).ok();
    c.start().ok();
    (c, unit)
}

fn property(t: &Ctx, unit: &str, name: &str) -> String {
    t.host("systemctl", &["show", "--value", "--property", name, unit]).ok().text().to_owned()
}

fn read(c: &Container<'_>, file: &str) -> String {
    let path = c.cgroup_v2().join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn assert_gone(t: &Ctx, unit: &str) {
    eventually(&format!("{unit} to go"), || (property(t, unit, "LoadState") == "not-found").then_some(()));
    assert!(!PathBuf::from(format!("/sys/fs/cgroup/system.slice/{unit}")).exists());
}

fn the_container_is_in_a_scope_of_its_slice(t: &Ctx) {
    let (c, unit) = up(t, |_| {});
    let place = format!("/system.slice/{unit}");
    assert_eq!(c.cgroup_v2(), PathBuf::from(format!("/sys/fs/cgroup{place}")));
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("ControlGroup", place.as_str()),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryAccounting", "yes"),
    ] {
        assert_eq!(property(t, &unit, name), value, "{name}");
    }
}

fn limits(c: &mut Config) {
    c.set(
        "/linux/resources/memory",
        json!({"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296}),
    );
    c.set(
        "/linux/resources/cpu",
        json!({"shares": 2, "quota": 20000, "period": 50000, "cpus": "0-1", "mems": "0"}),
    );
    c.set("/linux/resources/pids", json!({"limit": 20}));
}

const FILES: [(&str, &str); 8] = [
    ("memory.max", "67108864"),
    ("memory.low", "33554432"),
    ("memory.swap.max", "33554432"),
    ("cpu.weight", "1"),
    ("cpu.max", "20000 50000"),
    ("cpuset.cpus", "0-1"),
    ("cpuset.mems", "0"),
    ("pids.max", "20"),
];

fn limits_are_in_the_files_and_in_the_unit(t: &Ctx) {
    needs_limits(t);
    let (c, unit) = up(t, limits);
    for (file, value) in FILES {
        assert_eq!(read(&c, file), value, "{file}");
    }
    for (name, value) in [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemorySwapMax", "33554432"),
        ("CPUWeight", "1"),
        ("CPUQuotaPerSecUSec", "400ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("AllowedCPUs", "0-1"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "20"),
    ] {
        assert_eq!(property(t, &unit, name), value, "{name}");
    }
}

fn update_changes_the_files_and_the_unit(t: &Ctx) {
    needs_limits(t);
    let (c, unit) = up(t, limits);
    let flags = ["--memory", "33554432", "--memory-swap", "50331648", "--pids-limit", "-1"];
    c.verb("update", &flags, &[]).run().ok();
    c.verb("update", &["--cpu-quota", "30000", "--cpu-period", "60000", "--cpuset-cpus", "1"], &[])
        .run()
        .ok();
    for (file, name, value) in [
        ("memory.max", "MemoryMax", ["33554432", "33554432"]),
        ("memory.swap.max", "MemorySwapMax", ["16777216", "16777216"]),
        ("pids.max", "TasksMax", ["max", "infinity"]),
        ("cpu.max", "CPUQuotaPerSecUSec", ["30000 60000", "500ms"]),
        ("cpuset.cpus", "AllowedCPUs", ["1", "1"]),
    ] {
        assert_eq!([read(&c, file), property(t, &unit, name)], value, "{file}");
    }
    t.host("systemctl", &["daemon-reload"]).ok();
    assert_eq!([read(&c, "memory.max"), read(&c, "pids.max")], ["33554432", "max"]);
}

const RELOADS: [&str; 2] = ["daemon-reload", "daemon-reexec"];

fn a_reload_takes_no_limit_away(t: &Ctx) {
    needs_limits(t);
    let (c, _) = up(t, limits);
    for reload in RELOADS {
        t.host("systemctl", &[reload]).ok();
        for (file, value) in FILES {
            assert_eq!(read(&c, file), value, "{file} after {reload}");
        }
    }
}

fn a_reload_takes_no_device_rule_away(t: &Ctx) {
    // Making any node is allowed, opening that of the kernel's log is not.
    let (c, unit) = up(t, |c| {
        c.set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}]));
        c.capabilities(&["CAP_MKNOD"]);
    });
    c.sh("mknod /dev/log1 c 1 11 && mknod /dev/null1 c 1 3");
    let check = |when: &str| {
        let out = c.exec(&["sh", "-c", "exec < /dev/log1"]);
        assert!(out.code != 0 && out.stderr.contains("not permitted"), "{out:?} {when}");
        c.sh("exec < /dev/null1");
    };
    check("at first");
    for reload in RELOADS {
        t.host("systemctl", &[reload]).ok();
        check(reload);
    }
    assert_eq!(property(t, &unit, "ActiveState"), "active");
}

fn a_run_is_in_a_scope_from_the_start(t: &Ctx) {
    let (c, unit) = waiting(t, |c| c.args(&["cat", "/proc/self/cgroup"]));
    let out = c.launch("--systemd-cgroup", &["run"]).run().ok();
    assert!(out.stdout.lines().any(|line| line == format!("0::/system.slice/{unit}")), "{out:?}");
    assert_gone(t, &unit);
}

fn exec_joins_the_scope(t: &Ctx) {
    needs_limits(t);
    let (c, unit) = up(t, |c| c.set("/linux/resources/pids", json!({"limit": 20})));
    c.exec_with(&["--detach"], &["sleep", "50"]).ok();
    eventually("both processes to be in the scope", || (read(&c, "pids.current") == "2").then_some(()));
    assert!(c.cgroup_v2().ends_with(&unit));
    let out = c.exec(&["sh", "-c", "for i in $(seq 40); do sleep 1 & done; wait"]);
    assert!(out.code != 0 && out.stderr.contains("fork"), "{out:?}");
}

fn pause_stops_and_resume_continues(t: &Ctx) {
    let (c, _) = up(t, |_| {});
    c.verb("pause", &[], &[]).run().ok();
    assert_eq!((c.status().as_str(), read(&c, "cgroup.freeze").as_str()), ("paused", "1"));
    c.verb("resume", &[], &[]).run().ok();
    assert_eq!((c.status().as_str(), read(&c, "cgroup.freeze").as_str()), ("running", "0"));
}

fn the_scope_goes_with_the_container(t: &Ctx) {
    let (c, unit) = up(t, |_| {});
    c.exec_with(&["--detach"], &["sleep", "50"]).ok();
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.delete().ok();
    assert_gone(t, &unit);
    // The name is free again.
    create(&c).ok();
    c.verb("delete", &["--force"], &[]).run().ok();
    assert_gone(t, &unit);
}

fn a_failed_create_leaves_no_unit(t: &Ctx) {
    let (c, unit) = waiting(t, |c| c.set("/hooks/createRuntime", json!([{"path": "/bin/false"}])));
    assert_ne!(create(&c).code, 0);
    assert_gone(t, &unit);
    let (c, unit) = waiting(t, |c| c.set("/annotations/org.systemd.property.Nonsense", json!("5")));
    let out = create(&c);
    assert!(out.code != 0 && out.stderr.contains("Nonsense"), "{out:?}");
    assert_gone(t, &unit);
}

fn annotations_are_properties_of_the_unit(t: &Ctx) {
    let (_c, unit) = up(t, |c| {
        c.set("/annotations/org.systemd.property.TimeoutStopSec", json!("7"));
        c.set("/annotations/org.systemd.property.RuntimeMaxUSec", json!("uint64 9000000000"));
        c.set("/annotations/org.systemd.property.CollectMode", json!("'inactive-or-failed'"));
        c.set("/annotations/org.systemd.property.After", json!("['basic.target']"));
        c.set("/annotations/org.systemd.property.SendSIGHUP", json!("true"));
    });
    for (name, value) in [
        ("TimeoutStopUSec", "7s"),
        ("RuntimeMaxUSec", "2h 30min"),
        ("CollectMode", "inactive-or-failed"),
        ("SendSIGHUP", "yes"),
    ] {
        assert_eq!(property(t, &unit, name), value, "{name}");
    }
    assert!(property(t, &unit, "After").contains("basic.target"));
}

fn a_property_that_is_no_value_is_refused(t: &Ctx) {
    for (name, text) in [("TimeoutStopUSec", "uint64 x"), ("Timeout1", "5"), ("TimeoutStopSec", "'soon'")] {
        let (c, unit) =
            waiting(t, |c| c.set(&format!("/annotations/org.systemd.property.{name}"), json!(text)));
        let out = create(&c);
        assert!(out.code != 0 && out.stderr.contains(name), "{out:?}");
        assert_gone(t, &unit);
    }
}

fn a_path_of_another_form_is_refused(t: &Ctx) {
    needs_systemd(t);
    for path in ["/a/b", "a", "system.slice:a", "system:a:b", "a/b.slice:c:d"] {
        let c = t.container(|c| c.set("/linux/cgroupsPath", json!(path)));
        let out = create(&c);
        assert_ne!(out.code, 0, "{path}");
        assert!(out.stderr.contains("slice"), "{out:?}");
    }
}

fn unified_limits_are_told_to_systemd(t: &Ctx) {
    needs_limits(t);
    let unified = json!({"memory.high": "30M", "memory.min": "1048576", "cpu.max": "33333", "pids.max": "max",
        "cgroup.max.depth": "7"});
    let (c, unit) = up(t, |c| c.set("/linux/resources/unified", unified));
    for reloads in [false, true] {
        if reloads {
            t.host("systemctl", &["daemon-reload"]).ok();
        }
        for (file, value) in [
            ("memory.high", "31457280"),
            ("memory.min", "1048576"),
            ("pids.max", "max"),
            ("cgroup.max.depth", "7"),
        ] {
            assert_eq!(read(&c, file), value, "{file}");
        }
    }
    assert_eq!(property(t, &unit, "CPUQuotaPerSecUSec"), "340ms", "never less than what was asked for");
}

fn a_scope_that_is_in_use_is_refused_and_left_alone(t: &Ctx) {
    let (c, unit) = up(t, |_| {});
    let other = c.sibling();
    let out = create(&other);
    assert!(out.code != 0 && out.stderr.contains("not empty"), "{out:?}");
    assert_eq!((c.status().as_str(), property(t, &unit, "ActiveState").as_str()), ("running", "active"));
    assert_ne!(other.verb("state", &[], &[]).run().code, 0);
}

fn a_killed_create_leaves_no_unit(t: &Ctx) {
    let (c, unit) = waiting(t, |_| {});
    for after in [0, 2, 5, 10, 20, 40, 80, 160, 320] {
        let running = c.launch("--systemd-cgroup", &["create"]).spawn();
        std::thread::sleep(Duration::from_millis(after));
        running.signal(Signal::KILL);
        running.finish();
        // Either there is nothing, or `delete --force` takes it away.
        c.verb("delete", &["--force"], &[]).run().ok();
        assert_gone(t, &unit);
        assert_eq!(t.rt(&["list", "--quiet"]).ok().text(), "", "killed after {after} ms");
    }
}

/// The fast way: one unit for many containers, and no call for any of them.
fn below_a_delegated_unit_none_is_made(t: &Ctx) {
    needs_limits(t);
    let unit = format!("{}.service", t.id());
    let own = "mkdir /sys/fs/cgroup/system.slice/$0/own && \
        echo 0 > /sys/fs/cgroup/system.slice/$0/own/cgroup.procs && exec sleep 100";
    let flags = ["--collect", "--property", "Delegate=yes", "--unit", &unit, "sh", "-c", own, &unit];
    t.host("systemd-run", &flags).ok();
    let place = format!("/system.slice/{unit}");
    eventually("it to have a group of its own", || {
        PathBuf::from(format!("/sys/fs/cgroup{place}/own/cgroup.procs")).exists().then_some(())
    });
    let path = format!("{place}/{}", t.id());
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/linux/cgroupsPath", json!(path));
        limits(c);
    });
    c.up();
    assert_eq!(c.cgroup_v2(), PathBuf::from(format!("/sys/fs/cgroup{path}")));
    t.host("systemctl", &["daemon-reload"]).ok();
    for (file, value) in FILES {
        assert_eq!(read(&c, file), value, "{file}");
    }
    c.verb("delete", &["--force"], &[]).run().ok();
    t.host("systemctl", &["stop", &unit]).ok();
}

fn without_systemd_it_is_refused(t: &Ctx) {
    if PathBuf::from("/run/systemd/system").is_dir() {
        t.skip("systemd has booted this machine");
    }
    let c = t.sleeper();
    let out = create(&c);
    assert_eq!(out.code, 1);
    assert!(
        out.stderr.contains("--systemd-cgroup: systemd: expected a host that systemd has booted"),
        "{out:?}"
    );
    let out = c.launch("--cgroup-manager", &["systemd", "create"]).run();
    assert!(out.stderr.contains("a host that systemd has booted"), "{out:?}");
}

fn a_restore_into_a_unit_is_refused(t: &Ctx) {
    let c = t.sleeper();
    let out = c.launch("--systemd-cgroup", &["restore"]).run();
    assert!(out.code == 1 && out.stderr.contains("not restored into a unit"), "{out:?}");
}

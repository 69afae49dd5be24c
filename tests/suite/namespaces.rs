//! Namespaces: new ones, the runtime's own, and those joined by path; host names; the time namespace.

use std::fs;

use hearth_tests::context::eventually;
use hearth_tests::{Ctx, cases, json};

cases! {
    settled:
        every_listed_namespace_is_new,
        a_namespace_that_is_not_listed_is_the_callers,
        the_cgroup_namespace_is_new_when_listed,
        namespaces_are_joined_by_path,
        the_pid_namespace_of_another_container_can_be_joined,
        a_joined_path_that_is_missing_is_refused,
        a_joined_path_of_another_type_is_refused,
        an_unknown_namespace_is_refused,
        a_duplicate_namespace_is_refused,
        the_hostname_is_set,
        a_hostname_without_a_uts_namespace_is_refused,
        the_hosts_name_stays,
        loopback_is_up_in_a_new_network_namespace,
        a_new_network_namespace_has_nothing_but_loopback,
        message_queues_are_the_containers_own,
        namespaces_end_with_the_container;
    newer:
        the_domainname_is_set,
        time_offsets_are_set,
        both_clocks_have_their_offset,
        an_offset_to_before_the_boot_is_refused,
        offsets_with_a_joined_namespace_are_refused,
        a_config_without_a_linux_section_has_no_namespaces,
        time_offsets_without_the_namespace_are_refused;
}

const KINDS: [(&str, &str); 5] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt")];

fn own(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}")).expect("procfs").to_string_lossy().into_owned()
}

fn every_listed_namespace_is_new(t: &Ctx) {
    for (_, name) in KINDS {
        let inside = t.sh(&format!("readlink /proc/self/ns/{name}"), |_| {});
        assert_ne!(inside, own(name), "{name}");
    }
}

fn a_namespace_that_is_not_listed_is_the_callers(t: &Ctx) {
    for (kind, name) in KINDS.into_iter().filter(|(kind, _)| *kind != "mount") {
        let inside = t.sh(&format!("readlink /proc/self/ns/{name}"), |c| {
            c.no_namespace(kind);
            match kind {
                "uts" => c.remove("/hostname"),
                // Without a network of its own the container cannot mount sysfs, nor mqueue without its IPC.
                "network" => c.0["mounts"]
                    .as_array_mut()
                    .expect("mounts")
                    .retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup"),
                _ => {}
            }
        });
        assert_eq!(inside, own(name), "{kind}");
    }
    for name in ["user", "cgroup", "time"] {
        assert_eq!(t.sh(&format!("readlink /proc/self/ns/{name}"), |_| {}), own(name));
    }
}

fn the_cgroup_namespace_is_new_when_listed(t: &Ctx) {
    let out = t.sh("readlink /proc/self/ns/cgroup; cat /proc/self/cgroup", |c| c.namespace("cgroup", None));
    let mut lines = out.lines();
    assert_ne!(lines.next(), Some(own("cgroup").as_str()));
    let pids = lines.find(|line| line.contains(":pids:") || line.starts_with("0::")).unwrap_or_default();
    assert!(pids.ends_with(":/"), "{out}");
}

fn namespaces_are_joined_by_path(t: &Ctx) {
    let first = t.sleeper();
    first.up();
    let pid = first.pid();
    let names = KINDS.map(|(_, name)| name).into_iter().filter(|name| !["mnt", "pid"].contains(name));
    let script: Vec<String> = names.clone().map(|name| format!("readlink /proc/self/ns/{name}")).collect();
    let out = t.sh(&script.join(";"), |c| {
        c.remove("/hostname");
        for (kind, name) in KINDS.into_iter().filter(|(kind, _)| !["mount", "pid"].contains(kind)) {
            c.namespace(kind, Some(&format!("/proc/{pid}/ns/{name}")));
        }
    });
    let wanted: Vec<String> = names.map(|name| first.sh(&format!("readlink /proc/self/ns/{name}"))).collect();
    assert_eq!(out.lines().collect::<Vec<_>>(), wanted);
}

fn the_pid_namespace_of_another_container_can_be_joined(t: &Ctx) {
    let first = t.sleeper();
    first.up();
    let path = format!("/proc/{}/ns/pid", first.pid());
    let out = t.sh("readlink /proc/self/ns/pid; cat /proc/1/cmdline | tr '\\0' ' '", |c| {
        c.namespace("pid", Some(&path))
    });
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some(first.sh("readlink /proc/self/ns/pid").as_str()));
    assert_eq!(lines.next().map(str::trim), Some("sleep 100"));
}

fn a_joined_path_that_is_missing_is_refused(t: &Ctx) {
    let c = t.container(|c| c.namespace("ipc", Some("/no/such/namespace")));
    c.run().refused("/no/such/namespace");
}

fn a_joined_path_of_another_type_is_refused(t: &Ctx) {
    for path in ["/proc/self/ns/uts", "/etc/passwd"] {
        let c = t.container(|c| c.namespace("ipc", Some(path)));
        assert_ne!(c.run().code, 0, "{path} was joined as an IPC namespace");
    }
}

fn an_unknown_namespace_is_refused(t: &Ctx) {
    let c = t.container(|c| c.namespace("nosuch", None));
    c.run().refused("nosuch");
}

fn a_duplicate_namespace_is_refused(t: &Ctx) {
    let c = t.container(|c| c.push("/linux/namespaces", json!({"type": "ipc"})));
    c.run().refused("ipc");
}

fn the_hostname_is_set(t: &Ctx) {
    assert_eq!(t.sh("hostname", |c| c.set("/hostname", "a-name.of-hearth")), "a-name.of-hearth");
}

fn a_hostname_without_a_uts_namespace_is_refused(t: &Ctx) {
    let c = t.container(|c| c.no_namespace("uts"));
    c.run().refused("hostname");
}

fn the_hosts_name_stays(t: &Ctx) {
    let before = fs::read_to_string("/proc/sys/kernel/hostname").expect("procfs");
    t.sh("true", |c| c.set("/hostname", "other"));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("procfs"), before);
}

fn the_domainname_is_set(t: &Ctx) {
    let out = t.sh("cat /proc/sys/kernel/domainname", |c| c.set("/domainname", "example.org"));
    assert_eq!(out, "example.org");
}

fn loopback_is_up_in_a_new_network_namespace(t: &Ctx) {
    let out = t.sh("ip addr show lo", |_| {});
    assert!(out.contains("UP") && out.contains("127.0.0.1/8"), "{out}");
}

fn a_new_network_namespace_has_nothing_but_loopback(t: &Ctx) {
    assert_eq!(
        t.sh("ls /sys/class/net | grep -v -E '^(tunl|sit|gre|ip6|erspan|ip_vti|bonding)'", |_| {}),
        "lo"
    );
}

fn message_queues_are_the_containers_own(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    c.sh("touch /dev/mqueue/mine");
    assert_eq!(c.sh("ls /dev/mqueue"), "mine");
    assert_eq!(t.sh("ls /dev/mqueue", |_| {}), "");
}

fn namespaces_end_with_the_container(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let inode = c.sh("readlink /proc/self/ns/net");
    c.verb("delete", &["--force"], &[]).run().ok();
    eventually("the namespace to go", || {
        let list = t.host("lsns", &["--type", "net", "--noheadings", "--output", "NS"]).stdout;
        let number = inode.trim_start_matches("net:[").trim_end_matches(']');
        (!list.contains(number)).then_some(())
    });
}

fn time_offsets_are_set(t: &Ctx) {
    let out = t.sh("cat /proc/uptime; readlink /proc/self/ns/time", |c| {
        c.namespace("time", None);
        c.set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 0}}));
    });
    let uptime: f64 = out.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(uptime > 1e9, "{out}");
    assert!(!out.contains(&own("time")), "{out}");
}

fn time_offsets_without_the_namespace_are_refused(t: &Ctx) {
    let c = t.container(|c| c.set("/linux/timeOffsets", json!({"monotonic": {"secs": 1}})));
    c.run().refused("time");
}

fn both_clocks_have_their_offset(t: &Ctx) {
    let out = t.sh("cat /proc/self/timens_offsets", |c| {
        c.namespace("time", None);
        c.set(
            "/linux/timeOffsets",
            json!({"boottime": {"secs": -1, "nanosecs": 7}, "monotonic": {"secs": 100_000, "nanosecs": 5}}),
        );
    });
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "100000", "5", "boottime", "-1", "7"]);
}

fn an_offset_to_before_the_boot_is_refused(t: &Ctx) {
    let c = t.container(|c| {
        c.namespace("time", None);
        c.set("/linux/timeOffsets", json!({"boottime": {"secs": -1_000_000_000}}));
    });
    assert!(c.run().stderr.to_lowercase().contains("offsets"));
}

fn offsets_with_a_joined_namespace_are_refused(t: &Ctx) {
    let c = t.container(|c| {
        c.namespace("time", Some("/proc/self/ns/time"));
        c.set("/linux/timeOffsets", json!({"boottime": {"secs": 1}}));
    });
    c.run().refused("time");
}

fn a_config_without_a_linux_section_has_no_namespaces(t: &Ctx) {
    // The fixture's host name and mounts need some.
    t.container(|c| c.remove("/linux")).run().refused("namespace");
}

//! What is in `/dev`: the default nodes and links, the config's own devices, and what the device rules allow.

use std::path::Path;

use hearth_tests::{Ctx, cases, json};

cases! {
    settled:
        the_default_devices_are_there,
        the_default_devices_work,
        the_default_links_are_there,
        extra_devices_have_their_type_mode_and_owner,
        a_device_below_a_new_directory_is_made,
        a_fifo_can_be_asked_for,
        a_device_of_an_unknown_type_is_refused,
        devices_that_no_rule_allows_are_denied,
        a_rule_allows_a_device,
        later_rules_win,
        the_default_devices_work_whatever_the_rules,
        mknod_follows_the_rules,
        dev_can_be_left_to_the_caller,
        a_device_replaces_a_default_one;
    hearth:
        an_invalid_access_is_refused;
}

fn the_default_devices_are_there(t: &Ctx) {
    let out = t.sh("cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty", |_| {});
    let wanted = [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ];
    for (line, (name, number)) in out.lines().zip(wanted) {
        assert_eq!(line, format!("{name} character special file {number} 666 0:0"));
    }
    assert_eq!(out.lines().count(), wanted.len());
}

fn the_default_devices_work(t: &Ctx) {
    let script = "echo x > /dev/null && head -c 8 /dev/zero | od -An -tx1 && head -c 4 /dev/urandom | wc -c; \
                  echo x > /dev/full 2>/dev/null || echo full";
    assert_eq!(t.sh(script, |_| {}), " 00 00 00 00 00 00 00 00\n4\nfull");
}

fn the_default_links_are_there(t: &Ctx) {
    let out = t.sh("cd /dev; for l in fd stdin stdout stderr ptmx; do readlink $l; done", |_| {});
    let wanted = ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"];
    assert_eq!(out.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(t.sh("echo hello > /dev/stdout", |_| {}), "hello");
    // Only where the kernel has a kcore.
    let core = if Path::new("/proc/kcore").exists() { "/proc/kcore" } else { "" };
    assert_eq!(t.sh("readlink /dev/core; true", |_| {}), core);
}

fn extra_devices_have_their_type_mode_and_owner(t: &Ctx) {
    let out = t.sh("cd /dev; stat -c '%n %F %t:%T %a %u:%g' fuse mydisk", |c| {
        c.set(
            "/linux/devices",
            json!([
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 1000, "gid": 50},
                {"path": "/dev/mydisk", "type": "b", "major": 7, "minor": 300, "fileMode": 0o600, "uid": 0, "gid": 0},
            ]),
        );
    });
    assert_eq!(out, "fuse character special file a:e5 640 1000:50\nmydisk block special file 7:12c 600 0:0");
}

fn a_device_below_a_new_directory_is_made(t: &Ctx) {
    let device = json!({"path": "/dev/new/dir/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666});
    let out = t.sh("stat -c %t:%T /dev/new/dir/zero", |c| c.push("/linux/devices", device));
    assert_eq!(out, "1:5");
}

fn a_fifo_can_be_asked_for(t: &Ctx) {
    let device = json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o622});
    let out = t.sh("stat -c '%F %a' /dev/pipe", |c| c.push("/linux/devices", device));
    assert_eq!(out, "fifo 622");
}

fn a_device_of_an_unknown_type_is_refused(t: &Ctx) {
    let device = json!({"path": "/dev/x", "type": "q", "major": 1, "minor": 1});
    let c = t.container(|c| c.push("/linux/devices", device));
    c.run().refused("");
}

/// Tries to open `/dev/kmsg` (1:11) as a node made by the config.
fn open_kmsg(t: &Ctx, rules: &hearth_tests::Value) -> bool {
    let device = json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666});
    let out = t.run_sh("head -c 0 /dev/kmsg", |c| {
        c.push("/linux/devices", device);
        c.set("/linux/resources/devices", rules.clone());
        c.capabilities(&["CAP_SYSLOG"]);
    });
    assert!(out.code == 0 || out.stderr.contains("Operation not permitted"), "{out:?}");
    out.code == 0
}

fn devices_that_no_rule_allows_are_denied(t: &Ctx) {
    assert!(!open_kmsg(t, &json!([{"allow": false, "access": "rwm"}])));
}

fn a_rule_allows_a_device(t: &Ctx) {
    let deny = json!({"allow": false, "access": "rwm"});
    assert!(open_kmsg(
        t,
        &json!([deny, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}])
    ));
    assert!(!open_kmsg(
        t,
        &json!([deny, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}])
    ));
    assert!(!open_kmsg(
        t,
        &json!([deny, {"allow": true, "type": "b", "major": 1, "minor": 11, "access": "r"}])
    ));
    assert!(open_kmsg(t, &json!([deny, {"allow": true, "type": "c", "major": 1, "access": "rw"}])));
}

fn later_rules_win(t: &Ctx) {
    let deny = json!({"allow": false, "access": "rwm"});
    let allow = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
    let deny_again = json!({"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
    assert!(!open_kmsg(t, &json!([deny, allow, deny_again])));
    assert!(open_kmsg(t, &json!([allow, deny, allow])));
    assert!(!open_kmsg(t, &json!([allow, deny])));
    assert!(open_kmsg(t, &json!([deny, {"allow": true, "access": "rwm"}])));
}

fn the_default_devices_work_whatever_the_rules(t: &Ctx) {
    let rules = json!([{"allow": false, "access": "rwm"}]);
    let script =
        "for d in null zero full random urandom; do head -c 1 /dev/$d >/dev/null || exit 1; done; echo fine";
    assert_eq!(t.sh(script, |c| c.set("/linux/resources/devices", rules)), "fine");
}

fn mknod_follows_the_rules(t: &Ctx) {
    let mknod = |rules: hearth_tests::Value| {
        t.run_sh("mknod /dev/made c 1 11", |c| {
            c.capabilities(&["CAP_MKNOD"]);
            c.set("/linux/resources/devices", rules);
        })
        .code
    };
    let deny = json!({"allow": false, "access": "rwm"});
    // runc's default rules let any node be made, since making is not opening.
    assert_eq!(mknod(json!([deny])), 0);
    assert_eq!(mknod(json!([deny, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "m"}])), 0);
}

fn dev_can_be_left_to_the_caller(t: &Ctx) {
    // Where /dev is a bind mount, the runtime makes no nodes in it.
    let dir = t.scratch();
    let null = dir.join("null");
    t.host("busybox", &["mknod", "-m", "666", &null.to_string_lossy(), "c", "1", "3"]).ok();
    let out = t.sh("ls /dev", |c| {
        c.0["mounts"]
            .as_array_mut()
            .expect("mounts")
            .retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
        c.bind(&dir, "/dev", &["bind"]);
    });
    assert_eq!(out, "null");
    assert_eq!(std::fs::read_dir(&dir).map(Iterator::count).unwrap_or(9), 1);
}

fn a_device_replaces_a_default_one(t: &Ctx) {
    let device = json!({"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600, "uid": 5, "gid": 6});
    assert_eq!(t.sh("stat -c '%a %u:%g' /dev/full", |c| c.push("/linux/devices", device)), "600 5:6");
}

fn an_invalid_access_is_refused(t: &Ctx) {
    let c = t.container(|c| {
        c.push(
            "/linux/resources/devices",
            json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rq"}),
        );
    });
    c.run().refused("access");
}

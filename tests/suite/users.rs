//! User namespaces with id mappings.

use hearth_tests::container::field;
use hearth_tests::{Config, Ctx, cases, json};

cases! {
    settled:
        the_mappings_are_written,
        the_program_is_root_inside_and_another_outside,
        files_of_unmapped_owners_are_nobodys,
        a_user_inside_the_mapping_is_used,
        a_user_outside_of_the_mapping_is_refused,
        a_user_namespace_without_mappings_is_refused,
        mappings_without_a_user_namespace_are_passed_over,
        an_exec_joins_the_user_namespace,
        tmpfs_in_a_user_namespace_belongs_to_its_root,
        several_ranges_are_mapped,
        devices_are_bound_in_a_user_namespace,
        every_default_device_is_itself_in_a_user_namespace,
        a_mapping_that_overlaps_is_refused,
        capabilities_hold_inside_only,
        a_terminal_works_in_a_user_namespace;
}

fn mapped(c: &mut Config) {
    c.namespace("user", None);
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    c.set("/linux/uidMappings", map.clone());
    c.set("/linux/gidMappings", map);
}

fn the_mappings_are_written(t: &Ctx) {
    let out = t.sh("cat /proc/self/uid_map /proc/self/gid_map", mapped);
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "65536", "0", "100000", "65536"]);
}

fn the_program_is_root_inside_and_another_outside(t: &Ctx) {
    let c = t.container(|c| {
        mapped(c);
        c.args(&["sleep", "100"]);
    });
    c.up();
    assert_eq!(c.sh("id -u"), "0");
    let status = c.proc("status");
    assert_eq!(field(&status, "Uid"), "100000\t100000\t100000\t100000");
    assert_eq!(field(&status, "Gid"), "100000\t100000\t100000\t100000");
}

fn files_of_unmapped_owners_are_nobodys(t: &Ctx) {
    assert_eq!(t.sh("stat -c %u /etc/passwd", mapped), "65534");
}

fn a_user_inside_the_mapping_is_used(t: &Ctx) {
    let out = t.sh("id -u; id -g", |c| {
        mapped(c);
        c.set("/process/user", json!({"uid": 1000, "gid": 50, "additionalGids": [60]}));
    });
    assert_eq!(out, "1000\n50");
}

fn a_user_outside_of_the_mapping_is_refused(t: &Ctx) {
    let c = t.container(|c| {
        mapped(c);
        c.set("/process/user/uid", 70_000);
    });
    assert_ne!(c.run().code, 0);
}

fn a_user_namespace_without_mappings_is_refused(t: &Ctx) {
    let c = t.container(|c| c.namespace("user", None));
    c.run().refused("mapping");
}

fn mappings_without_a_user_namespace_are_passed_over(t: &Ctx) {
    let out = t.sh("cat /proc/self/uid_map", |c| {
        mapped(c);
        c.no_namespace("user");
    });
    assert!(!out.contains("100000"), "{out}");
}

fn an_exec_joins_the_user_namespace(t: &Ctx) {
    let c = t.container(|c| {
        mapped(c);
        c.args(&["sleep", "100"]);
    });
    c.up();
    let out = c.sh("cat /proc/self/uid_map");
    assert!(out.contains("100000"), "{out}");
    assert_eq!(c.exec_with(&["--user", "1000:1000"], &["id", "-u"]).ok().text(), "1000");
}

fn tmpfs_in_a_user_namespace_belongs_to_its_root(t: &Ctx) {
    let out = t.sh("stat -c %u /tmp; touch /tmp/x && stat -c %u /tmp/x", |c| {
        mapped(c);
        c.mount("/tmp", "tmpfs", "tmpfs", &[]);
    });
    assert_eq!(out, "0\n0");
}

fn several_ranges_are_mapped(t: &Ctx) {
    let out = t.sh("cat /proc/self/uid_map", |c| {
        mapped(c);
        c.set(
            "/linux/uidMappings",
            json!([
                {"containerID": 0, "hostID": 100_000, "size": 1000},
                {"containerID": 1000, "hostID": 300_000, "size": 10},
                {"containerID": 2000, "hostID": 200_000, "size": 5},
            ]),
        );
    });
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "1000", "1000", "300000", "10", "2000", "200000", "5"]);
}

fn devices_are_bound_in_a_user_namespace(t: &Ctx) {
    assert_eq!(t.sh("echo x > /dev/null; head -c 3 /dev/zero | wc -c", mapped), "3");
}

fn a_mapping_that_overlaps_is_refused(t: &Ctx) {
    let c = t.container(|c| {
        mapped(c);
        c.push("/linux/uidMappings", json!({"containerID": 5, "hostID": 900_000, "size": 5}));
    });
    assert_ne!(c.run().code, 0);
}

fn capabilities_hold_inside_only(t: &Ctx) {
    let dir = t.scratch();
    std::fs::write(dir.join("file"), "x").expect("write a file");
    let out = t.run_sh("chown 5 /tmp/file", |c| {
        mapped(c);
        c.capabilities(&["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        c.bind(&dir, "/tmp", &["bind"]);
    });
    assert_ne!(out.code, 0, "root of the namespace changed a file of the host's root");
}

fn a_terminal_works_in_a_user_namespace(t: &Ctx) {
    let c = t.container(|c| {
        mapped(c);
        c.set("/process/terminal", true);
        c.args(&["sh", "-c", "tty; echo END"]);
    });
    let socket = hearth_tests::terminal::ConsoleSocket::new(t);
    c.launch("create", &["--console-socket", &socket.path.to_string_lossy()]).run().ok();
    let (mut master, _) = socket.receive();
    c.start().ok();
    assert!(master.expect("END").contains("/dev/pts/0"));
}

fn every_default_device_is_itself_in_a_user_namespace(t: &Ctx) {
    let out = t.sh("cd /dev; stat -c '%n %t:%T' full null random tty urandom zero", mapped);
    assert_eq!(out, "full 1:7\nnull 1:3\nrandom 1:8\ntty 5:0\nurandom 1:9\nzero 1:5");
}

//! Id-mapped mounts: by lists of the mount's own, and by the container's user namespace.

use std::os::unix::fs::chown;
use std::path::PathBuf;

use hearth_tests::{Config, Ctx, Value, cases, json};

cases! {
    newer:
        a_mount_is_mapped_by_its_own_lists,
        a_mount_is_mapped_by_the_user_namespace,
        a_mount_is_mapped_by_a_joined_user_namespace,
        a_recursive_mapping_reaches_submounts,
        what_is_written_has_the_owner_of_the_source,
        only_bind_mounts_are_mapped,
        one_list_alone_is_refused,
        a_mapping_without_lists_is_refused;
}

/// A directory with the file `f` of 1000:1001, that every user namespace may look into.
fn source(t: &Ctx) -> PathBuf {
    let dir = t.scratch();
    std::fs::write(dir.join("f"), "").expect("write a file");
    chown(dir.join("f"), Some(1000), Some(1001)).expect("chown a file");
    dir
}

fn bind(c: &mut Config, source: &std::path::Path, options: &[&str], maps: Option<Value>) {
    let mut mount = json!({"destination": "/tmp", "type": "bind", "source": source, "options": options});
    if let Some(maps) = maps {
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps;
    }
    c.push("/mounts", mount);
}

fn own_lists() -> Option<Value> {
    Some(json!([{"containerID": 1000, "hostID": 5000, "size": 10}]))
}

fn user_namespace(c: &mut Config) {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    c.set("/linux/uidMappings", map.clone());
    c.set("/linux/gidMappings", map);
    c.namespace("user", None);
}

fn a_mount_is_mapped_by_its_own_lists(t: &Ctx) {
    let dir = source(t);
    for options in [&["bind"][..], &["bind", "idmap"], &["rbind", "ridmap"]] {
        let out = t.sh("stat -c %u:%g /tmp/f", |c| bind(c, &dir, options, own_lists()));
        assert_eq!(out, "5000:5001", "{options:?}");
    }
}

fn a_mount_is_mapped_by_the_user_namespace(t: &Ctx) {
    let dir = source(t);
    for (options, wanted) in [
        (&["bind"][..], "65534:65534"),
        (&["bind", "idmap"], "1000:1001"),
        (&["rbind", "ridmap"], "1000:1001"),
    ] {
        let out = t.sh("stat -c %u:%g /tmp/f", |c| {
            user_namespace(c);
            bind(c, &dir, options, None);
        });
        assert_eq!(out, wanted, "{options:?}");
    }
}

fn a_mount_is_mapped_by_a_joined_user_namespace(t: &Ctx) {
    let dir = source(t);
    let first = t.container(|c| {
        user_namespace(c);
        c.args(&["sleep", "100"]);
    });
    first.up();
    let path = format!("/proc/{}/ns/user", first.pid());
    let out = t.sh("stat -c %u:%g /tmp/f; readlink /proc/self/ns/user", |c| {
        c.namespace("user", Some(&path));
        bind(c, &dir, &["bind", "idmap"], None);
    });
    assert_eq!(out, format!("1000:1001\n{}", first.sh("readlink /proc/self/ns/user")));
}

fn a_recursive_mapping_reaches_submounts(t: &Ctx) {
    let dir = source(t);
    let below = dir.join("below");
    std::fs::create_dir(&below).expect("mkdir");
    let place = below.to_string_lossy();
    t.host("busybox", &["mount", "-t", "tmpfs", "-o", "uid=1000,gid=1001", "tmpfs", &place]).ok();
    for (option, wanted) in [("idmap", "5000:5001\n1000:1001"), ("ridmap", "5000:5001\n5000:5001")] {
        let out = t.sh("stat -c %u:%g /tmp/f /tmp/below", |c| bind(c, &dir, &["rbind", option], own_lists()));
        assert_eq!(out, wanted, "{option}");
    }
    t.host("busybox", &["umount", &place]).ok();
}

fn what_is_written_has_the_owner_of_the_source(t: &Ctx) {
    use std::os::unix::fs::MetadataExt;
    let dir = source(t);
    t.sh("touch /tmp/new && chown 7:8 /tmp/new", |c| {
        user_namespace(c);
        c.capabilities(&["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"]);
        bind(c, &dir, &["bind", "idmap"], None);
    });
    let new = std::fs::metadata(dir.join("new")).expect("the file is there");
    assert_eq!((new.uid(), new.gid()), (7, 8));
}

fn only_bind_mounts_are_mapped(t: &Ctx) {
    let c = t.container(|c| {
        user_namespace(c);
        c.mount("/tmp", "tmpfs", "tmpfs", &["idmap"]);
    });
    c.run().refused("id-mapped mounts are only supported for bind-mounts");
}

fn one_list_alone_is_refused(t: &Ctx) {
    let dir = source(t);
    let c = t.container(|c| {
        bind(c, &dir, &["bind"], own_lists());
        let mounts = c.0["mounts"].as_array_mut().expect("mounts");
        mounts.last_mut().and_then(Value::as_object_mut).expect("a mount").remove("gidMappings");
    });
    c.run().refused("gid");
}

fn a_mapping_without_lists_is_refused(t: &Ctx) {
    let dir = source(t);
    let c = t.container(|c| bind(c, &dir, &["bind", "idmap"], None));
    c.run().refused("must have both uid and gid mappings specified");
}

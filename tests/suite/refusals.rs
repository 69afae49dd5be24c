//! Bad input: one clear line, a failure, and nothing left behind.

use std::fs;
use std::path::Path;

use hearth_tests::{Config, Ctx, Out, Value, cases, json};

cases! {
    settled:
        a_bundle_without_config_is_refused,
        a_bundle_that_is_missing_is_refused,
        broken_json_is_refused,
        an_empty_config_is_refused,
        a_field_of_the_wrong_type_is_refused,
        a_number_out_of_range_is_refused,
        a_missing_root_is_refused,
        a_root_that_is_a_file_is_refused,
        a_config_without_process_is_refused,
        empty_args_are_refused,
        a_missing_cwd_field_is_refused,
        a_relative_cwd_is_refused,
        a_config_without_root_is_refused,
        unknown_fields_are_passed_over,
        versions_up_to_1_3_are_accepted,
        a_truncated_config_is_refused,
        a_root_directory_that_cannot_be_made_is_told,
        a_pid_file_that_cannot_be_written_is_told,
        a_failed_create_leaves_the_id_free;
    newer:
        what_says_nothing_is_passed_over,
        a_config_of_null_is_refused,
        a_full_disk_is_told;
    hearth:
        an_oom_score_out_of_range_is_refused,
        an_unsupported_version_is_refused,
        a_version_that_is_no_version_is_refused,
        the_error_names_the_field,
        a_huge_config_is_refused,
        deep_nesting_is_refused,
        a_nul_in_a_string_is_refused;
}

/// Runs `create` and `run` on a bundle whose config.json is this text; both have to refuse it.
fn raw(t: &Ctx, text: &[u8], said: &str) {
    for verb in ["create", "run"] {
        let c = t.container(|_| {});
        fs::write(c.bundle.join("config.json"), text).expect("write config.json");
        c.launch(verb, &[]).run().refused(said);
        nothing_of(t, &c.id);
    }
}

fn edited(t: &Ctx, said: &str, edit: impl Fn(&mut Config)) {
    for verb in ["create", "run"] {
        let c = t.container(&edit);
        c.launch(verb, &[]).run().refused(said);
        nothing_of(t, &c.id);
    }
}

fn nothing_of(t: &Ctx, id: &str) {
    assert!(!t.root().join(id).exists(), "state of {id} is left");
}

fn a_bundle_without_config_is_refused(t: &Ctx) {
    for verb in ["create", "run"] {
        let c = t.container(|_| {});
        fs::remove_file(c.bundle.join("config.json")).expect("remove config.json");
        c.launch(verb, &[]).run().refused("config.json");
    }
}

fn a_bundle_that_is_missing_is_refused(t: &Ctx) {
    t.rt(&["create", "--bundle", "/no/such/bundle", &t.id()]).refused("/no/such/bundle");
}

fn broken_json_is_refused(t: &Ctx) {
    raw(t, b"{\"ociVersion\": \"1.0.2\", oops", "");
    raw(t, b"[]", "");
    raw(t, b"1", "");
}

fn an_empty_config_is_refused(t: &Ctx) {
    raw(t, b"", "");
    raw(t, b"{}", "");
}

fn a_truncated_config_is_refused(t: &Ctx) {
    let whole = serde_json::to_vec(&Config::default().0).expect("JSON");
    raw(t, &whole[..whole.len() / 2], "");
}

fn a_field_of_the_wrong_type_is_refused(t: &Ctx) {
    for (pointer, value) in [
        ("/process/args", json!("sh")),
        ("/process/terminal", json!("yes")),
        ("/process/user/uid", json!("root")),
        ("/mounts", json!({})),
        ("/linux/namespaces", json!("all")),
        ("/linux/resources/memory/limit", json!("64M")),
        ("/root", json!("rootfs")),
        ("/hostname", json!(5)),
    ] {
        edited(t, "", |c| c.set(pointer, value.clone()));
    }
}

fn a_number_out_of_range_is_refused(t: &Ctx) {
    for (pointer, value) in [
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!(4_294_967_296_u64)),
        ("/process/user/uid", json!(1.5)),
    ] {
        edited(t, "", |c| c.set(pointer, value.clone()));
    }
}

fn a_config_of_null_is_refused(t: &Ctx) {
    // runc 1.1 panics.
    raw(t, b"null", "");
}

fn an_oom_score_out_of_range_is_refused(t: &Ctx) {
    // runc finds out in its child, and says it in two lines.
    edited(t, "process.oomScoreAdj", |c| c.set("/process/oomScoreAdj", 5000));
}

fn a_missing_root_is_refused(t: &Ctx) {
    edited(t, "nowhere", |c| c.set("/root/path", "nowhere"));
}

fn a_root_that_is_a_file_is_refused(t: &Ctx) {
    edited(t, "", |c| c.set("/root/path", "config.json"));
}

fn a_config_without_root_is_refused(t: &Ctx) {
    edited(t, "root", |c| c.remove("/root"));
}

fn a_config_without_process_is_refused(t: &Ctx) {
    edited(t, "process", |c| c.remove("/process"));
}

fn empty_args_are_refused(t: &Ctx) {
    edited(t, "args", |c| c.set("/process/args", json!([])));
    edited(t, "args", |c| c.remove("/process/args"));
}

fn a_missing_cwd_field_is_refused(t: &Ctx) {
    edited(t, "cwd", |c| c.remove("/process/cwd"));
    edited(t, "cwd", |c| c.set("/process/cwd", ""));
}

fn a_relative_cwd_is_refused(t: &Ctx) {
    edited(t, "cwd", |c| c.set("/process/cwd", "tmp"));
}

// runc does not look at the version; the spec asks for an error.
fn an_unsupported_version_is_refused(t: &Ctx) {
    edited(t, "version", |c| c.set("/ociVersion", "2.0.0"));
}

fn a_version_that_is_no_version_is_refused(t: &Ctx) {
    edited(t, "version", |c| c.set("/ociVersion", "latest"));
}

fn versions_up_to_1_3_are_accepted(t: &Ctx) {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0"] {
        assert_eq!(t.sh("echo fine", |c| c.set("/ociVersion", version)), "fine", "{version}");
    }
}

fn unknown_fields_are_passed_over(t: &Ctx) {
    let out = t.sh("echo fine", |c| {
        c.set("/somethingNew", json!({"a": [1, 2]}));
        c.set("/process/somethingNew", 5);
        c.set("/linux/somethingNew", "x");
    });
    assert_eq!(out, "fine");
}

fn a_root_directory_that_cannot_be_made_is_told(t: &Ctx) {
    let c = t.sleeper();
    let root = c.bundle.join("config.json").join("root");
    with_root(t, &root, &c.bundle, &c.id).refused("not a directory");
}

fn with_root(t: &Ctx, root: &Path, bundle: &Path, id: &str) -> Out {
    let runtime = t.runtime.path.to_string_lossy().into_owned();
    t.host(
        &runtime,
        &["--root", &root.to_string_lossy(), "create", "--bundle", &bundle.to_string_lossy(), id],
    )
}

fn a_full_disk_is_told(t: &Ctx) {
    let c = t.sleeper();
    let root = t.scratch();
    let path = root.to_string_lossy().into_owned();
    t.host("busybox", &["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", &path]).ok();
    let filler = root.join("filler");
    let _ = fs::write(&filler, vec![0; 128 * 1024]);
    let out = with_root(t, &root, &c.bundle, &c.id);
    let left: Vec<String> = fs::read_dir(&root)
        .expect("read the root")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "filler")
        .collect();
    t.host("busybox", &["umount", &path]).ok();
    out.refused("no space left on device");
    assert!(left.is_empty(), "left on the full disk: {left:?}");
}

fn a_pid_file_that_cannot_be_written_is_told(t: &Ctx) {
    let c = t.sleeper();
    c.launch("create", &["--pid-file", "/no/such/dir/pid"]).run().refused("/no/such/dir");
    nothing_of(t, &c.id);
}

fn a_failed_create_leaves_the_id_free(t: &Ctx) {
    let c = t.container(|c| c.args(&["/no/such/program"]));
    assert_ne!(c.create().code, 0);
    Config::default().write(&c.bundle);
    c.create().ok();
}

fn the_error_names_the_field(t: &Ctx) {
    edited(t, "process.user.uid", |c| c.set("/process/user/uid", "root"));
    edited(t, "process.cwd", |c| c.set("/process/cwd", "tmp"));
    edited(t, "linux.namespaces", |c| c.namespace("nosuch", None));
    edited(t, "process.rlimits", |c| c.set("/process/rlimits/0/type", "RLIMIT_NOSUCH"));
}

fn a_huge_config_is_refused(t: &Ctx) {
    let c = t.container(|c| c.set("/annotations", json!({"big": "x".repeat(64 << 20)})));
    c.create().refused("config.json");
}

fn deep_nesting_is_refused(t: &Ctx) {
    let deep = format!("{{\"ociVersion\":\"1.0.2\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    raw(t, deep.as_bytes(), "config.json");
}

fn a_nul_in_a_string_is_refused(t: &Ctx) {
    for (pointer, value) in [
        ("/process/args/0", json!("s\0h")),
        ("/process/env/0", json!("A=\0")),
        ("/process/cwd", json!("/\0")),
        ("/hostname", json!("a\0b")),
        ("/root/path", json!("root\0fs")),
    ] {
        edited(t, "", |c| c.set(pointer, Value::clone(&value)));
    }
}

fn what_says_nothing_is_passed_over(t: &Ctx) {
    let out = t.sh("id -u; echo ran", |c| {
        c.remove("/process/user");
        c.set("/linux/seccomp", json!({}));
        c.set("/linux/resources/devices", json!([{"allow": false, "type": "", "access": "rwm"}]));
        c.set("/linux/rootfsPropagation", "");
        c.set("/linux/mountLabel", "");
        c.set("/process/apparmorProfile", "");
        c.set("/process/selinuxLabel", "");
        for namespace in c.0["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            namespace["path"] = json!("");
        }
    });
    assert_eq!(out, "0\nran");
}

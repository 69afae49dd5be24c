//! `list`, `ps`, `spec` and `--version`: what tools read.

use std::fs;

use hearth_tests::{Ctx, Value, cases, json};

cases! {
    settled:
        ps_of_a_stopped_container_is_a_heading,
        list_of_nothing_is_a_heading,
        list_shows_a_row_for_each_container,
        list_quiet_gives_ids_only,
        list_json_gives_the_fields_of_state,
        list_json_of_nothing_is_null_or_empty,
        list_refuses_an_unknown_format,
        list_shows_stopped_containers,
        ps_json_lists_the_pids,
        ps_table_has_the_heading_and_rows_of_ps,
        ps_passes_options_to_ps,
        ps_refuses_an_unknown_format,
        spec_writes_the_default_config,
        spec_does_not_overwrite,
        spec_writes_into_the_given_bundle,
        spec_rootless_maps_the_caller,
        the_version_names_the_spec,
        help_is_told;
    newer:
        list_of_a_missing_root_is_an_error;
}

fn list_of_nothing_is_a_heading(t: &Ctx) {
    let out = t.rt(&["list"]).ok();
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    assert_eq!(words, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
}

fn list_shows_a_row_for_each_container(t: &Ctx) {
    let (one, two) = (t.sleeper(), t.sleeper());
    one.up();
    two.create().ok();
    let out = t.rt(&["list"]).ok();
    assert_eq!(out.stdout.lines().count(), 3, "{out:?}");
    for (c, status) in [(&one, "running"), (&two, "created")] {
        let row = out.stdout.lines().find(|line| line.starts_with(&c.id)).expect("a row");
        let words: Vec<&str> = row.split_whitespace().collect();
        let bundle = c.bundle.to_string_lossy();
        assert_eq!(words[..4], [&c.id, &c.pid().to_string(), status, &bundle]);
        assert!(words[4].starts_with("20"), "{row}");
        assert_eq!(words[5], "root");
    }
}

fn list_quiet_gives_ids_only(t: &Ctx) {
    let (one, two) = (t.sleeper(), t.sleeper());
    one.create().ok();
    two.create().ok();
    for flag in ["--quiet", "-q"] {
        let out = t.rt(&["list", flag]).ok();
        let mut ids: Vec<&str> = out.stdout.lines().collect();
        ids.sort_unstable();
        let mut wanted = [one.id.as_str(), two.id.as_str()];
        wanted.sort_unstable();
        assert_eq!(ids, wanted);
    }
}

fn list_json_gives_the_fields_of_state(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/annotations", json!({"a": "b"}));
    });
    c.up();
    let list = t.rt(&["list", "--format", "json"]).ok().json();
    let rows = list.as_array().expect("an array");
    assert_eq!(rows.len(), 1);
    let state = c.state();
    for key in ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created"] {
        assert_eq!(rows[0][key], state[key], "{key}");
    }
    assert_eq!(rows[0]["annotations"]["a"], "b");
    assert_eq!(rows[0]["owner"], "root");
}

fn list_json_of_nothing_is_null_or_empty(t: &Ctx) {
    let list = t.rt(&["list", "-f", "json"]).ok().json();
    assert!(list == Value::Null || list == json!([]), "{list}");
}

fn list_refuses_an_unknown_format(t: &Ctx) {
    t.rt(&["list", "--format", "yaml"]).refused("format");
}

fn list_shows_stopped_containers(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    let out = t.rt(&["list"]).ok();
    let row = out.stdout.lines().nth(1).expect("a row");
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..3], [&c.id, "0", "stopped"]);
}

fn ps_json_lists_the_pids(t: &Ctx) {
    let c = t.container(|c| c.args(&["sh", "-c", "sleep 100 & echo ready; wait"]));
    c.up();
    let pids = hearth_tests::context::eventually("two processes", || {
        let pids = t.rt(&["ps", "--format", "json", &c.id]).ok().json();
        (pids.as_array()?.len() == 2).then_some(pids)
    });
    assert!(pids.as_array().is_some_and(|pids| pids.contains(&json!(c.pid()))), "{pids}");
}

fn ps_table_has_the_heading_and_rows_of_ps(t: &Ctx) {
    t.needs_tool("ps");
    let c = t.sleeper();
    c.up();
    let out = t.rt(&["ps", &c.id]).ok();
    let mut lines = out.stdout.lines();
    let heading: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heading, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let rows: Vec<&str> = lines.collect();
    assert_eq!(rows.len(), 1, "{out:?}");
    assert!(rows[0].ends_with("sleep 100") && rows[0].contains(&c.pid().to_string()), "{out:?}");
}

fn ps_passes_options_to_ps(t: &Ctx) {
    t.needs_tool("ps");
    let c = t.sleeper();
    c.up();
    let out = t.rt(&["ps", &c.id, "-o", "pid,args"]).ok();
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    assert_eq!(words, ["PID", "COMMAND", &c.pid().to_string(), "sleep", "100"]);
}

fn ps_refuses_an_unknown_format(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    t.rt(&["ps", "--format", "yaml", &c.id]).refused("format");
}

fn spec_writes_the_default_config(t: &Ctx) {
    let dir = t.scratch();
    t.command(&["spec"]).dir(&dir).run().ok();
    let mut written = read(&dir);
    let wanted: Value = serde_json::from_str(include_str!("../fixtures/bundle-config.json")).expect("JSON");
    // Before 1.5 runc gave ambient capabilities too.
    if t.runtime.is_old_runc() {
        written["process"]["capabilities"].as_object_mut().expect("an object").remove("ambient");
    }
    // On a host of cgroup v2 alone, the cgroup namespace is added.
    let namespaces = written["linux"]["namespaces"].as_array_mut().expect("an array");
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    written["ociVersion"] = wanted["ociVersion"].clone();
    written["hostname"] = wanted["hostname"].clone();
    assert_eq!(written, wanted);
}

fn spec_does_not_overwrite(t: &Ctx) {
    let dir = t.scratch();
    fs::write(dir.join("config.json"), "mine").expect("write config.json");
    t.command(&["spec"]).dir(&dir).run().refused("config.json exists");
    assert_eq!(fs::read_to_string(dir.join("config.json")).unwrap_or_default(), "mine");
}

fn spec_writes_into_the_given_bundle(t: &Ctx) {
    let dir = t.scratch();
    t.rt(&["spec", "--bundle", &dir.to_string_lossy()]).ok();
    assert_eq!(read(&dir)["process"]["args"], json!(["sh"]));
}

fn spec_rootless_maps_the_caller(t: &Ctx) {
    let dir = t.scratch();
    t.rt(&["spec", "--rootless", "--bundle", &dir.to_string_lossy()]).ok();
    let spec = read(&dir);
    assert_eq!(spec["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    assert_eq!(spec["linux"]["gidMappings"], json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    let kinds: Vec<&str> = spec["linux"]["namespaces"]
        .as_array()
        .expect("namespaces")
        .iter()
        .filter_map(|n| n["type"].as_str())
        .collect();
    assert!(kinds.contains(&"user") && !kinds.contains(&"network"), "{kinds:?}");
}

fn the_version_names_the_spec(t: &Ctx) {
    for flag in ["--version", "-v"] {
        let out = t.rt(&[flag]).ok();
        assert!(out.stdout.contains(" version "), "{out:?}");
        assert!(out.stdout.lines().any(|line| line.starts_with("spec: 1.")), "{out:?}");
    }
}

fn help_is_told(t: &Ctx) {
    for flag in ["--help", "-h"] {
        let out = t.rt(&[flag]).ok();
        for verb in ["create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "spec"] {
            assert!(out.stdout.contains(verb), "no {verb}: {out:?}");
        }
    }
}

fn read(dir: &std::path::Path) -> Value {
    let text = fs::read_to_string(dir.join("config.json")).expect("config.json was written");
    serde_json::from_str(&text).expect("config.json is JSON")
}

fn list_of_a_missing_root_is_an_error(t: &Ctx) {
    let missing = t.scratch().join("missing");
    t.host(&t.runtime.path.to_string_lossy(), &["--root", &missing.to_string_lossy(), "list"])
        .refused("no such file or directory");
}

fn ps_of_a_stopped_container_is_a_heading(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    assert_eq!(t.rt(&["ps", &c.id]).ok().stdout.lines().count(), 1);
}

//! Containers that another version of Hearth made: older ones go on as before, newer ones are left alone.
//!
//! `tests/fixtures/states` has a state of each format there ever was; `runtime/src/store/record.rs` has the rule.

use std::fs;
use std::path::{Path, PathBuf};

use hearth_tests::{Container, Ctx, Value, cases, json};

cases! {
    hearth:
        a_container_of_an_older_version_runs_on,
        a_created_container_of_an_older_version_can_be_started,
        a_container_of_a_newer_version_is_left_alone;
}

fn states() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/states");
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect("a directory entry").path().join("state.json")).collect();
    files.sort();
    assert!(files.len() >= 2, "fixtures: {files:?}");
    files
}

fn read(file: &Path) -> Value {
    let text = fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn state_file(t: &Ctx, c: &Container<'_>) -> PathBuf {
    t.root().join(&c.id).join("state.json")
}

/// Leaves only what the format of the fixture knows, so that the record reads as that version would have written it.
fn reduce(value: &mut Value, known: &Value) {
    match (value, known) {
        (Value::Object(value), Value::Object(known)) => {
            value.retain(|key, _| known.contains_key(key));
            value.iter_mut().for_each(|(key, value)| reduce(value, &known[key]));
        }
        (Value::Array(values), Value::Array(known)) => {
            if let Some(known) = known.first() {
                values.iter_mut().for_each(|value| reduce(value, known));
            }
        }
        _ => {}
    }
}

fn age(t: &Ctx, c: &Container<'_>, fixture: &Path) {
    let file = state_file(t, c);
    let mut record = read(&file);
    reduce(&mut record, &read(fixture));
    record["version"] = read(fixture)["version"].clone();
    fs::write(&file, record.to_string()).expect("write the record");
}

fn a_container_of_an_older_version_runs_on(t: &Ctx) {
    for fixture in states() {
        let trace = t.scratch().join("stopped");
        let c = t.container(|c| {
            c.args(&["sleep", "100"]);
            c.set("/hooks/poststop", json!([{"path": "/bin/touch", "args": ["touch", trace]}]));
        });
        c.up();
        age(t, &c, &fixture);
        assert_eq!(c.status(), "running", "{}", fixture.display());
        assert_eq!(c.sh("echo inside"), "inside");
        assert!(t.rt(&["list", "-q"]).ok().stdout.contains(&c.id));
        if t.has_controller("pids") {
            c.verb("update", &["--pids-limit", "50"], &[]).run().ok();
        }
        c.verb("pause", &[], &[]).run().ok();
        c.verb("resume", &[], &[]).run().ok();
        c.kill("KILL").ok();
        c.wait_until("stopped");
        c.delete().ok();
        assert!(trace.exists(), "no poststop hook ran: {}", fixture.display());
    }
}

fn a_created_container_of_an_older_version_can_be_started(t: &Ctx) {
    for fixture in states() {
        let c = t.sleeper();
        c.create().ok();
        age(t, &c, &fixture);
        assert_eq!(c.status(), "created", "{}", fixture.display());
        c.start().ok();
        assert_eq!(c.status(), "running");
        c.verb("delete", &["--force"], &[]).run().ok();
    }
}

fn a_container_of_a_newer_version_is_left_alone(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let file = state_file(t, &c);
    let record = read(&file);
    let mut newer = record.clone();
    newer["version"] = json!(u32::MAX);
    fs::write(&file, newer.to_string()).expect("write the record");
    let words = [
        c.verb("state", &[], &[]),
        c.verb("exec", &[], &["true"]),
        c.verb("kill", &[], &["KILL"]),
        c.verb("pause", &[], &[]),
        c.verb("update", &["--pids-limit", "5"], &[]),
        c.verb("delete", &[], &[]),
        c.verb("delete", &["--force"], &[]),
    ];
    for command in words {
        command.run().refused("state.json version: 4294967295: expected at most");
    }
    // It does not hide the others.
    assert_eq!(t.rt(&["list", "-q"]).ok().stdout, "");
    assert_eq!(read(&file), newer);
    fs::write(&file, record.to_string()).expect("write the record");
    assert_eq!(c.status(), "running");
}

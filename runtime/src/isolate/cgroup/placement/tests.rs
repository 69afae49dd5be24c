use std::path::PathBuf;

use serde_json::json;

use super::*;

fn hierarchy(controllers: &[&str], mount: &str, root: &str) -> Hierarchy {
    let controllers = controllers.iter().map(|&name| name.to_owned()).collect();
    Hierarchy { controllers, mount: mount.into(), root: root.into() }
}

/// Mount points that don't exist: nothing here may depend on the machine.
fn hybrid() -> Host {
    Host {
        v2: Some(hierarchy(&[], "/nowhere/unified", "/")),
        has_unlisted_v1: false,
        v1: vec![
            hierarchy(&["cpu", "cpuacct"], "/nowhere/cpu,cpuacct", "/"),
            hierarchy(&["memory"], "/nowhere/memory", "/"),
            hierarchy(&["freezer"], "/nowhere/freezer", "/"),
        ],
    }
}

fn plan(host: &Host, path: Option<&str>, joins: Joins, resources: serde_json::Value) -> Result<Placement> {
    Placement::plan(host, path, "id", joins, Some(&serde_json::from_value(resources).unwrap()))
}

fn joined(placement: &Placement) -> Vec<PathBuf> {
    placement.groups().map(Group::dir).collect()
}

#[test]
fn an_absolute_path_starts_at_each_root() {
    let placement = plan(&hybrid(), Some("//a/./b/"), Joins::All, json!({})).unwrap();
    let expected =
        ["/nowhere/unified/a/b", "/nowhere/cpu,cpuacct/a/b", "/nowhere/memory/a/b", "/nowhere/freezer/a/b"];
    assert_eq!(joined(&placement), expected.map(PathBuf::from));
    assert_eq!(placement.tracker().unwrap().mount, Path::new("/nowhere/unified"));
}

#[test]
fn limited_joins_are_what_the_limits_need() {
    let limits = json!({ "cpu": { "shares": 5 } });
    let placement = plan(&hybrid(), Some("/a"), Joins::Limited, limits.clone()).unwrap();
    assert_eq!(joined(&placement), ["/nowhere/unified/a", "/nowhere/cpu,cpuacct/a"].map(PathBuf::from));
    let v1 = Host { v2: None, ..hybrid() };
    let placement = plan(&v1, Some("/a"), Joins::Limited, limits).unwrap();
    assert_eq!(joined(&placement), ["/nowhere/cpu,cpuacct/a", "/nowhere/freezer/a"].map(PathBuf::from));
    assert_eq!(placement.tracker().unwrap().mount, Path::new("/nowhere/freezer"));
}

#[test]
fn a_relative_path_starts_at_the_own_group() {
    let own = |host: &Host| Own::read().unwrap().place_in(host.v2.as_ref().unwrap());
    let hybrid = hybrid();
    let placement = plan(&hybrid, Some("a"), Joins::All, json!({})).unwrap();
    assert_eq!(placement.v2.as_ref().unwrap().path, own(&hybrid).join("a"));
    let v2 = Host { v1: Vec::new(), ..hybrid };
    let placement = plan(&v2, None, Joins::All, json!({})).unwrap();
    let parent = own(&v2).parent().map(Path::to_owned).unwrap_or_default();
    assert_eq!(placement.v2.as_ref().unwrap().path, parent.join("id"));
}

#[test]
fn only_missing_parents_are_the_containers_own() {
    let mount = tempfile::tempdir().unwrap();
    std::fs::create_dir(mount.path().join("there")).unwrap();
    let host = Host {
        v2: Some(hierarchy(&[], mount.path().to_str().unwrap(), "/")),
        v1: Vec::new(),
        has_unlisted_v1: false,
    };
    for (path, parents) in [("/id", 0), ("/there/id", 0), ("/there/a/b/id", 2), ("/a/id", 1)] {
        let placement = plan(&host, Some(path), Joins::All, json!({})).unwrap();
        assert_eq!(placement.v2.unwrap().parents, parents, "{path}");
    }
}

#[test]
fn bad_paths_are_refused() {
    let long_name = format!("/{}", "x".repeat(256));
    let long_path = "/x".repeat(2000);
    for path in ["/", "//", ".", "..", "/a/../b", "a/..", "a\0b", "/a\nb", &long_name, &long_path] {
        let error = plan(&hybrid(), Some(path), Joins::All, json!({})).unwrap_err().to_string();
        assert!(error.starts_with("linux.cgroupsPath: "), "{error}");
        assert!(error.len() < 200, "{error}");
    }
    let error = Placement::plan(&hybrid(), None, "../x", Joins::All, None).unwrap_err().to_string();
    assert!(error.starts_with("id: "), "{error}");
    assert!(plan(&hybrid(), Some(""), Joins::All, json!({})).is_ok(), "as if it were not given");
}

#[test]
fn a_host_without_groups_gives_an_empty_placement() {
    let host = Host { v2: None, v1: Vec::new(), has_unlisted_v1: false };
    let mut placement = plan(&host, None, Joins::Limited, json!({})).unwrap();
    assert!(placement.is_none());
    let leaf = placement.create(None).unwrap();
    assert!(leaf.v2.is_none() && leaf.tasks.is_empty());
    placement.kill_all(9).unwrap();
    placement.destroy().unwrap();
    assert_eq!(placement.processes().unwrap(), [] as [i32; 0]);
    assert!(!placement.is_frozen().unwrap());
    let limits = json!({ "memory": { "limit": 5 } });
    let limits = serde_json::from_value(limits).unwrap();
    assert!(placement.create(Some(&limits)).unwrap_err().to_string().contains("memory"));
}

/// What a container's record holds: a later version must be able to read it.
const STORED: &str = r#"{"version":1,"given":true,"joins":"limited","v2":{"controllers":[],"mount":"/nowhere/unified","path":"a/id","parents":1,"joined":true},"v1":[{"controllers":["cpu","cpuacct"],"mount":"/nowhere/cpu,cpuacct","path":"a/id","parents":0,"joined":false},{"controllers":["memory"],"mount":"/nowhere/memory","path":"a/id","parents":1,"joined":true},{"controllers":["freezer"],"mount":"/nowhere/freezer","path":"a/id","parents":0,"joined":false}]}"#;

#[test]
fn the_stored_form_stays_readable() {
    let placement =
        plan(&hybrid(), Some("/a/id"), Joins::Limited, json!({ "memory": { "limit": 5 } })).unwrap();
    assert_eq!(serde_json::to_string(&placement).unwrap(), STORED);
    assert_eq!(serde_json::from_str::<Placement>(STORED).unwrap(), placement);
    let newer = STORED.replace("\"version\":1", "\"version\":2");
    let error = serde_json::from_str::<Placement>(&newer).unwrap_err().to_string();
    assert!(error.contains("version 2: expected 1"), "{error}");
    for bad in ["", "/", "/a", "../a", "a/../b"] {
        let record = STORED.replace("\"path\":\"a/id\"", &format!("\"path\":{bad:?}"));
        let error = serde_json::from_str::<Placement>(&record).unwrap_err().to_string();
        assert!(error.contains("expected a group below the root"), "{error} for {bad:?}");
    }
}

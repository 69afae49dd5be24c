//! `features`: what a runtime says that it can do is what it does.

use hearth_tests::{Ctx, Value, cases, json};

cases! {
    settled:
        features_is_json_with_the_specs_fields,
        features_lists_hooks_and_namespaces,
        features_lists_what_mounts_understand;
}

fn features(t: &Ctx) -> Value {
    t.rt(&["features"]).ok().json()
}

fn has(list: &Value, words: &[&str]) {
    for word in words {
        assert!(list.as_array().is_some_and(|list| list.contains(&json!(word))), "no {word} in {list}");
    }
}

fn features_is_json_with_the_specs_fields(t: &Ctx) {
    let all = features(t);
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(all[key].as_str().is_some_and(|version| version.starts_with("1.")), "{key}: {all}");
    }
    assert!(all["linux"].is_object(), "{all}");
    has(&all["linux"]["capabilities"], &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_KILL"]);
    has(&all["linux"]["seccomp"]["actions"], &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"]);
    has(&all["linux"]["seccomp"]["operators"], &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"]);
    has(&all["linux"]["seccomp"]["archs"], &["SCMP_ARCH_X86_64"]);
    assert_eq!(all["linux"]["cgroup"]["v1"], true);
}

fn features_lists_hooks_and_namespaces(t: &Ctx) {
    let all = features(t);
    has(
        &all["hooks"],
        &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    );
    has(&all["linux"]["namespaces"], &["cgroup", "ipc", "mount", "network", "pid", "user", "uts"]);
}

fn features_lists_what_mounts_understand(t: &Ctx) {
    has(&features(t)["mountOptions"], &["bind", "rbind", "ro", "rw", "nosuid", "rprivate", "tmpcopyup"]);
}

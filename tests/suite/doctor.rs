//! `doctor`: what the host can do, told by trying it; the leak check sees that nothing of the trying remains.

use hearth_tests::{Ctx, cases, json};

cases! {
    hearth:
        doctor_tells_a_line_for_each_thing,
        doctor_tells_the_same_as_json,
        doctor_fails_where_no_container_can_run,
        doctor_works_for_an_ordinary_user;
}

fn doctor_tells_a_line_for_each_thing(t: &Ctx) {
    let out = t.rt(&["doctor"]).ok();
    for name in ["namespaces", "mount API", "cgroups", "capabilities", "seccomp", "landlock", "KVM"] {
        assert!(out.stdout.lines().any(|line| line[6..].starts_with(name)), "no {name}: {out:?}");
    }
    for line in out.stdout.lines() {
        let level = line.split_whitespace().next().unwrap_or_default();
        assert!(["ok", "warn", "no"].contains(&level), "{line}");
        assert!(level == "ok" || line.contains(" - "), "no remedy: {line}");
    }
}

fn doctor_tells_the_same_as_json(t: &Ctx) {
    let text = t.rt(&["doctor"]).ok().stdout;
    let told = t.rt(&["doctor", "--json"]).ok().json();
    let checks = told["checks"].as_array().expect("checks");
    assert_eq!(checks.len(), text.lines().count());
    for (check, line) in checks.iter().zip(text.lines()) {
        assert!(line.starts_with(check["level"].as_str().expect("a level")), "{check} {line}");
        assert!(line.contains(check["name"].as_str().expect("a name")), "{check} {line}");
    }
    assert_eq!(told["uid"], 0);
}

fn doctor_fails_where_no_container_can_run(t: &Ctx) {
    t.needs_tool("setpriv");
    let command = t.command(&["doctor", "--json"]);
    let out = command.wrap(&["setpriv", "--bounding-set=-sys_admin"]).run().code(1);
    let told = out.json();
    let fatal = |name: &str| {
        let check =
            told["checks"].as_array().and_then(|list| list.iter().find(|check| check["name"] == name));
        check.is_some_and(|check| check["level"] == json!("no") && check["essential"] == json!(true))
    };
    assert!(fatal("namespaces") && fatal("mount API"), "{told}");
}

fn doctor_works_for_an_ordinary_user(t: &Ctx) {
    t.needs_tool("setpriv");
    // Where the executable and the working directory are may not be open to nobody.
    let program = std::path::Path::new("/run/doctor");
    std::fs::copy(&t.runtime.path, program).expect("copy the runtime");
    let program = program.to_string_lossy();
    let out = t.host("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups", &program, "doctor"]);
    std::fs::remove_file(program.as_ref()).expect("remove the copy");
    assert!(out.code <= 1 && out.stderr.is_empty(), "{out:?}");
    assert!(out.stdout.contains("capabilities"), "{out:?}");
}

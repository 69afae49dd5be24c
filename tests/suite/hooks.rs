//! The six hooks: their order, what they read on standard input, where they run, and what their failure does.
//!
//! Where runc (1.1 and 1.5 alike) parts from the spec, hearth follows the spec: runc runs poststart hooks at the end of
//! create, before startContainer, with the status `created`; a failing poststop hook makes its delete fail; it looks
//! a relative hook up in its own PATH.

use std::fs;
use std::path::{Path, PathBuf};

use hearth_tests::context::eventually;
use hearth_tests::{Config, Container, Ctx, Value, cases, json};

cases! {
    settled:
        a_hook_without_an_environment_has_its_surroundings,
        runtime_hooks_find_the_root_in_the_new_mount_namespace,
        create_container_hooks_start_in_the_root,
        hooks_of_one_kind_run_in_the_listed_order,
        hooks_read_the_state_on_standard_input,
        the_state_that_hooks_read_has_no_escaped_slashes,
        hooks_get_their_own_arguments_and_environment,
        create_runtime_hooks_run_in_the_callers_namespaces,
        create_container_hooks_run_in_the_containers_namespaces,
        start_container_hooks_run_inside_the_root,
        the_network_can_be_set_up_by_a_hook,
        a_failing_create_hook_fails_create,
        a_failing_start_container_hook_keeps_the_program_from_running,
        a_failing_poststart_hook_is_an_error,
        a_hook_beyond_its_timeout_fails,
        a_missing_hook_fails_create,
        poststop_hooks_run_once_at_delete,
        poststop_hooks_run_after_a_failed_create;
    hearth:
        hooks_run_in_the_specs_order,
        the_status_that_hooks_read_follows_the_lifecycle,
        create_hooks_run_before_create_returns,
        a_failing_poststop_hook_lets_delete_succeed,
        a_relative_hook_path_is_refused;
}

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that notes its name in `DIR/order`, and its input in `DIR/NAME`.
fn noting(dir: &Path, name: &str) -> Value {
    let dir = dir.display();
    let script = format!("cat > {dir}/{name}; echo {name} >> {dir}/order");
    json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
}

fn failing(text: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo {text} >&2; exit 3")]})
}

/// A container with a noting hook of every kind; the notes' directory is bound to the same path inside.
fn noted<'t>(t: &'t Ctx, edit: impl FnOnce(&mut Config, &Path)) -> (Container<'t>, PathBuf) {
    let dir = t.scratch();
    let c = t.container(|c| {
        c.bind(&dir, &dir.to_string_lossy(), &["bind"]);
        for kind in KINDS {
            c.push(&format!("/hooks/{kind}"), noting(&dir, kind));
        }
        c.args(&["sleep", "100"]);
        edit(c, &dir);
    });
    (c, dir)
}

fn order(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("order")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn through_its_life(c: &Container<'_>, dir: &Path) {
    c.create().ok();
    c.start().ok();
    // start may return before the hook inside has run.
    eventually("five hooks", || (order(dir).len() == 5).then_some(()));
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.delete().ok();
}

fn hooks_run_in_the_specs_order(t: &Ctx) {
    let (c, dir) = noted(t, |_, _| {});
    through_its_life(&c, &dir);
    assert_eq!(order(&dir), KINDS);
}

fn hooks_of_one_kind_run_in_the_listed_order(t: &Ctx) {
    let (c, dir) = noted(t, |c, dir| {
        c.set("/hooks", json!({}));
        for name in ["first", "second", "third"] {
            c.push("/hooks/createRuntime", noting(dir, name));
        }
    });
    c.create().ok();
    assert_eq!(order(&dir), ["first", "second", "third"]);
}

fn hooks_read_the_state_on_standard_input(t: &Ctx) {
    let (c, dir) = noted(t, |c, _| c.set("/annotations", json!({"key": "a/value"})));
    c.create().ok();
    let pid = c.pid();
    c.start().ok();
    eventually("five hooks", || (order(&dir).len() == 5).then_some(()));
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.delete().ok();
    for kind in KINDS {
        let text = fs::read_to_string(dir.join(kind)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{kind}: {e}: {text}"));
        assert_eq!(state["id"], json!(c.id), "{kind}");
        assert_eq!(state["bundle"], json!(c.bundle), "{kind}");
        assert_eq!(state["annotations"]["key"], "a/value", "{kind}");
        assert!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "{kind}: {text}");
        match kind {
            "poststop" => {}
            // Inside of the container its pid may be told as seen from there.
            "createContainer" | "startContainer" => {
                assert!(state["pid"].as_i64() > Some(0), "{kind}: {text}")
            }
            _ => assert_eq!(state["pid"], json!(pid), "{kind}"),
        }
    }
}

fn the_state_that_hooks_read_has_no_escaped_slashes(t: &Ctx) {
    let (c, dir) = noted(t, |_, _| {});
    c.create().ok();
    let text = fs::read_to_string(dir.join("createRuntime")).expect("the hook ran");
    assert!(text.contains(&format!("\"{}\"", c.bundle.display())), "{text}");
}

fn the_status_that_hooks_read_follows_the_lifecycle(t: &Ctx) {
    let (c, dir) = noted(t, |_, _| {});
    through_its_life(&c, &dir);
    let wanted = ["creating", "creating", "creating", "created", "running", "stopped"];
    for (kind, status) in KINDS.iter().zip(wanted) {
        let text = fs::read_to_string(dir.join(kind)).expect("the hook ran");
        let state: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(state["status"], status, "{kind}");
    }
}

fn hooks_get_their_own_arguments_and_environment(t: &Ctx) {
    let dir = t.scratch();
    let script = format!("echo \"$0 $1\" > {0}/seen; env | sort >> {0}/seen", dir.display());
    let c = t.container(|c| {
        let hook =
            json!({"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["A=1", "B=2"]});
        c.push("/hooks/createRuntime", hook);
    });
    c.launch("create", &[]).env("OUTSIDE", "leak").run().ok();
    let seen = fs::read_to_string(dir.join("seen")).expect("the hook ran");
    assert!(seen.starts_with("zero one\n"), "{seen}");
    assert!(seen.contains("A=1\n") && seen.contains("B=2\n") && !seen.contains("OUTSIDE"), "{seen}");
}

fn create_hooks_run_before_create_returns(t: &Ctx) {
    let (c, dir) = noted(t, |_, _| {});
    c.create().ok();
    assert_eq!(order(&dir), KINDS[..3]);
    c.start().ok();
    eventually("the poststart hook", || (order(&dir).len() == 5).then_some(()));
}

/// What a hook of `kind` sees as its namespaces and root.
fn seen_by<'t>(t: &'t Ctx, kind: &str) -> (Container<'t>, String) {
    let (c, dir) = noted(t, |c, dir| {
        let script = format!(
            "for n in mnt uts net pid; do readlink /proc/self/ns/$n; done > {0}/ns; ls / > {0}/ls",
            dir.display()
        );
        c.set("/hooks", json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}));
    });
    c.up();
    let text = fs::read_to_string(dir.join("ns")).expect("the hook ran");
    let list = fs::read_to_string(dir.join("ls")).expect("the hook ran");
    let text = text + if list.contains("lost+found") || list.contains("work") { "outside" } else { "inside" };
    (c, text)
}

fn namespaces(pid: &str) -> Vec<String> {
    ["mnt", "uts", "net", "pid"]
        .map(|n| fs::read_link(format!("/proc/{pid}/ns/{n}")).expect("procfs").to_string_lossy().into_owned())
        .to_vec()
}

fn create_runtime_hooks_run_in_the_callers_namespaces(t: &Ctx) {
    for kind in ["prestart", "createRuntime", "poststart"] {
        let (_c, seen) = seen_by(t, kind);
        assert_eq!(seen.lines().take(4).collect::<Vec<_>>(), namespaces("self"), "{kind}");
    }
}

fn create_container_hooks_run_in_the_containers_namespaces(t: &Ctx) {
    let (c, seen) = seen_by(t, "createContainer");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..3], namespaces(&c.pid().to_string())[..3]);
    assert_eq!(lines[4], "outside", "before pivot_root the path is still the host's");
}

fn start_container_hooks_run_inside_the_root(t: &Ctx) {
    let (c, seen) = seen_by(t, "startContainer");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..4], namespaces(&c.pid().to_string()));
    assert_eq!(lines[4], "inside");
}

fn the_network_can_be_set_up_by_a_hook(t: &Ctx) {
    for tool in ["ip", "jq", "nsenter"] {
        t.needs_tool(tool);
    }
    let script = "nsenter --target $(jq .pid) --net ip addr add 10.98.7.6/32 dev lo";
    let env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"];
    let out = t.sh("ip addr show lo", |c| {
        c.push("/hooks/prestart", json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": env}));
    });
    assert!(out.contains("10.98.7.6/32"), "{out}");
}

fn a_failing_create_hook_fails_create(t: &Ctx) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let c = t.container(|c| c.push(&format!("/hooks/{kind}"), failing("because")));
        let out = c.create();
        assert_ne!(out.code, 0, "{kind}: {out:?}");
        assert!(out.stderr.contains("hook"), "{kind}: {out:?}");
        c.verb("state", &[], &[]).run().fails(1, "container does not exist");
    }
}

fn a_failing_start_container_hook_keeps_the_program_from_running(t: &Ctx) {
    let c = t.container(|c| {
        c.writable();
        c.args(&["touch", "/ran"]);
        c.push("/hooks/startContainer", failing("because"));
    });
    assert_ne!(c.run().code, 0);
    assert!(!c.rootfs("ran").exists());
}

fn a_failing_poststart_hook_is_an_error(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.push("/hooks/poststart", failing("because"));
    });
    let out = c.launch("run", &["--detach"]).run();
    assert_ne!(out.code, 0, "{out:?}");
}

fn a_failing_poststop_hook_lets_delete_succeed(t: &Ctx) {
    let (c, dir) = noted(t, |c, dir| {
        c.set("/hooks", json!({"poststop": [failing("because"), noting(dir, "poststop")]}));
    });
    c.up();
    c.verb("delete", &["--force"], &[]).run().ok();
    assert_eq!(order(&dir), ["poststop"], "the next hook runs all the same");
}

fn a_hook_beyond_its_timeout_fails(t: &Ctx) {
    let hook = json!({"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1});
    let c = t.container(|c| c.push("/hooks/createRuntime", hook));
    let out = c.create();
    assert_ne!(out.code, 0);
    assert!(out.stderr.contains("hook"), "{out:?}");
}

fn a_missing_hook_fails_create(t: &Ctx) {
    let c = t.container(|c| c.push("/hooks/createRuntime", json!({"path": "/no/such/hook"})));
    assert_ne!(c.create().code, 0);
}

fn a_relative_hook_path_is_refused(t: &Ctx) {
    let c = t.container(|c| c.push("/hooks/createRuntime", json!({"path": "bin/true"})));
    c.create().refused("hooks");
}

fn poststop_hooks_run_once_at_delete(t: &Ctx) {
    let (c, dir) = noted(t, |c, dir| c.set("/hooks", json!({"poststop": [noting(dir, "poststop")]})));
    c.up();
    c.kill("KILL").ok();
    c.wait_until("stopped");
    assert!(order(&dir).is_empty(), "before delete");
    c.delete().ok();
    assert_eq!(order(&dir), ["poststop"]);
}

fn poststop_hooks_run_after_a_failed_create(t: &Ctx) {
    let (c, dir) = noted(t, |c, dir| {
        c.set(
            "/hooks",
            json!({"createRuntime": [failing("because")], "poststop": [noting(dir, "poststop")]}),
        );
    });
    assert_ne!(c.create().code, 0);
    assert_eq!(order(&dir), ["poststop"]);
}

fn a_hook_without_an_environment_has_its_surroundings(t: &Ctx) {
    let dir = t.scratch();
    let hook = |name: &str| {
        let script = format!("echo $OUTSIDE $INSIDE > {}/{name}", dir.display());
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    };
    let c = t.container(|c| {
        c.args(&["true"]);
        c.env("INSIDE=program");
        c.bind(&dir, &dir.to_string_lossy(), &["bind"]);
        c.push("/hooks/createRuntime", hook("runtime"));
        c.push("/hooks/startContainer", hook("start"));
    });
    c.launch("run", &[]).env("OUTSIDE", "caller").run().ok();
    let seen = |name: &str| fs::read_to_string(dir.join(name)).expect("the hook ran");
    assert_eq!((seen("runtime").trim(), seen("start").trim()), ("caller", "program"));
}

/// As hooks that bring devices and libraries along do it: they enter the mount namespace and mount below the root.
fn runtime_hooks_find_the_root_in_the_new_mount_namespace(t: &Ctx) {
    t.needs_tool("nsenter");
    let c = t.container(|c| c.args(&["cat", "/home/alice/brought"]));
    fs::write(c.bundle.join("brought"), "by a hook").expect("write a file");
    fs::write(c.rootfs("home/alice/brought"), "").expect("write a file");
    let (from, to) = (c.bundle.join("brought"), c.rootfs("home/alice/brought"));
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -m -t $pid /bin/busybox mount --bind {} {}",
        from.display(),
        to.display()
    );
    let mut config: Value =
        serde_json::from_slice(&fs::read(c.bundle.join("config.json")).expect("config")).expect("JSON");
    config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]});
    Config(config).write(&c.bundle);
    assert_eq!(c.run().ok().text(), "by a hook");
}

fn create_container_hooks_start_in_the_root(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["cat", "/home/alice/note"]);
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo here > ./home/alice/note"]});
        c.push("/hooks/createContainer", hook);
    });
    assert_eq!(c.run().ok().text(), "here");
}

//! Verbs in the wrong state, and ids that cannot be: refused by runc's words, which tools match on.

use hearth_tests::{Ctx, cases, json};

cases! {
    settled:
        a_second_start_is_refused,
        a_stopped_container_cannot_be_started,
        a_running_container_is_not_deleted_without_force,
        a_stopped_container_cannot_be_killed,
        kill_all_of_a_stopped_container_succeeds,
        exec_works_in_a_created_container,
        exec_is_refused_in_a_stopped_container,
        every_verb_refuses_an_unknown_id,
        every_verb_refuses_a_missing_id,
        a_used_id_is_refused,
        a_used_id_of_a_stopped_container_is_refused,
        bad_ids_are_refused,
        good_ids_of_every_letter_are_accepted,
        an_unknown_flag_is_refused,
        an_unknown_verb_is_refused,
        too_many_arguments_are_refused,
        an_id_too_long_for_a_directory_is_refused;
    hearth:
        state_tells_the_status_of_a_kept_container,
        state_tells_the_signal_that_ended_a_kept_container,
        state_tells_the_step_at_which_a_start_failed;
}

fn a_second_start_is_refused(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    c.start().refused("cannot start an already running container");
    assert_eq!(c.status(), "running");
}

fn a_stopped_container_cannot_be_started(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    c.start().refused("cannot start a container that has stopped");
}

fn a_running_container_is_not_deleted_without_force(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    c.delete().refused(&format!("cannot delete container {} that is not stopped: running", c.id));
    assert_eq!(c.status(), "running");
}

fn a_stopped_container_cannot_be_killed(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    c.kill("KILL").refused("container not running");
}

fn kill_all_of_a_stopped_container_succeeds(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    c.verb("kill", &["--all"], &["KILL"]).run().ok();
}

fn exec_works_in_a_created_container(t: &Ctx) {
    let c = t.sleeper();
    c.create().ok();
    assert_eq!(c.sh("echo inside"), "inside");
    assert_eq!(c.status(), "created");
}

fn exec_is_refused_in_a_stopped_container(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    c.exec(&["true"]).fails(255, "cannot exec in a stopped container");
}

fn every_verb_refuses_an_unknown_id(t: &Ctx) {
    for verb in ["start", "state", "kill", "delete", "ps", "pause", "resume"] {
        t.rt(&[verb, &t.id()]).fails(1, "container does not exist");
    }
    t.rt(&["exec", &t.id(), "true"]).fails(255, "container does not exist");
}

fn every_verb_refuses_a_missing_id(t: &Ctx) {
    for verb in ["create", "start", "state", "kill", "delete", "run", "exec", "ps"] {
        let out = t.rt(&[verb]);
        assert_ne!(out.code, 0, "{verb} without an id was accepted");
    }
}

fn a_used_id_is_refused(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    c.create().refused("container with given ID already exists");
    c.run().refused("container with given ID already exists");
    assert_eq!(c.status(), "running", "the first container lives on");
    assert_eq!(c.sh("echo alive"), "alive");
}

fn a_used_id_of_a_stopped_container_is_refused(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    c.create().refused("container with given ID already exists");
    assert_eq!(c.status(), "stopped");
}

fn bad_ids_are_refused(t: &Ctx) {
    let bundle = t.bundle(|_| {});
    let bundle = bundle.to_string_lossy();
    for id in ["..", ".", "a/b", "../x", "/abs", "a b", "a\nb", "ümlaut", "a$b", ""] {
        for verb in ["create", "run"] {
            let out = t.rt(&[verb, "--bundle", &bundle, id]);
            assert_ne!(out.code, 0, "{verb} accepted the id {id:?}");
            assert!(!out.stderr.trim().is_empty(), "no reason for {id:?}");
        }
        for verb in ["state", "start", "kill", "delete"] {
            assert_ne!(t.rt(&[verb, id]).code, 0, "{verb} accepted the id {id:?}");
        }
    }
}

fn good_ids_of_every_letter_are_accepted(t: &Ctx) {
    let c = t.sleeper();
    let base = t.id();
    for suffix in ["_under", "-dash", ".dot", "+plus", "UPPER", "09"] {
        let id = format!("{base}{suffix}");
        t.rt(&["create", "--bundle", &c.bundle.to_string_lossy(), &id]).ok();
        t.rt(&["delete", "--force", &id]).ok();
    }
}

fn an_unknown_flag_is_refused(t: &Ctx) {
    for args in [&["create", "--no-such-flag", "x"][..], &["--no-such-flag", "list"]] {
        let out = t.rt(args);
        assert_ne!(out.code, 0, "{out:?}");
        assert!(out.stderr.contains("no-such-flag") || out.stdout.contains("no-such-flag"), "{out:?}");
    }
}

fn an_unknown_verb_is_refused(t: &Ctx) {
    let out = t.rt(&["no-such-verb"]);
    assert!(out.code != 0 || out.stdout.contains("No help topic"), "{out:?}");
}

fn too_many_arguments_are_refused(t: &Ctx) {
    let c = t.sleeper();
    c.create().ok();
    for verb in ["start", "state"] {
        assert_ne!(c.verb(verb, &[], &["superfluous"]).run().code, 0, "{verb}");
    }
    assert_eq!(c.status(), "created");
}

fn an_id_too_long_for_a_directory_is_refused(t: &Ctx) {
    let c = t.sleeper();
    for length in [300, 1100] {
        let id = format!("{}{}", c.id, "x".repeat(length));
        t.rt(&["create", "--bundle", &c.bundle.to_string_lossy(), &id]).refused("");
    }
}

fn state_tells_the_status_of_a_kept_container(t: &Ctx) {
    let c = t.container(|c| c.args(&["sh", "-c", "exit 7"]));
    c.launch("run", &["--keep"]).run().code(7);
    assert_eq!(c.state()["end"], json!({"reason": "exited", "status": 7}));
}

fn state_tells_the_signal_that_ended_a_kept_container(t: &Ctx) {
    let c = t.sleeper();
    let run = c.launch("run", &["--keep"]).spawn();
    hearth_tests::context::eventually("the container", || {
        (t.root().join(&c.id).join("state.json").exists() && c.status() == "running").then_some(())
    });
    assert!(c.state()["end"].is_null());
    c.kill("KILL").ok();
    run.finish().code(137);
    assert_eq!(c.state()["end"], json!({"reason": "signalled", "signal": 9}));
}

fn state_tells_the_step_at_which_a_start_failed(t: &Ctx) {
    let c = t.container(|c| c.args(&["/bin/garbage"]));
    hearth_tests::bundle::install(&c.bundle.join("config.json"), &c.rootfs("bin/garbage"));
    c.create().ok();
    c.start().refused("exec format error");
    c.wait_until("stopped");
    let end = &c.state()["end"];
    assert_eq!((&end["reason"], &end["step"]), (&json!("failed"), &json!("16 exec")), "{end}");
}

//! create, start, state, kill, delete in their right order, and the files that go with them.

use std::fs;
use std::os::fd::AsRawFd;

use hearth_tests::container::field;
use hearth_tests::context::eventually;
use hearth_tests::terminal::ConsoleSocket;
use hearth_tests::{Ctx, cases, json};

cases! {
    settled:
        a_created_container_ends_by_a_signal_that_asks_it_to,
        kill_takes_the_signal_that_is_none,
        a_container_goes_through_its_states,
        create_does_not_run_the_program,
        the_state_tells_what_the_spec_asks_for,
        the_state_of_a_stopped_container_has_no_pid,
        the_pid_file_names_the_init,
        a_created_container_can_be_killed,
        a_created_container_can_be_deleted,
        delete_by_force_kills_a_running_container,
        delete_by_force_of_an_unknown_id_succeeds,
        an_id_can_be_used_again_after_delete,
        create_uses_the_current_directory_as_bundle,
        the_root_path_may_be_absolute,
        the_program_starts_with_the_config_read_at_create,
        every_signal_form_is_understood,
        kill_sends_the_signal_to_the_init,
        a_container_that_ends_by_itself_is_stopped,
        annotations_come_back_in_the_state;
    newer:
        kill_without_a_pid_namespace_ends_all,
        the_pidfd_goes_to_the_socket;
}

fn a_container_goes_through_its_states(t: &Ctx) {
    let c = t.sleeper();
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.delete().ok();
    c.verb("state", &[], &[]).run().fails(1, "container does not exist");
    assert!(!t.root().join(&c.id).exists());
}

fn create_does_not_run_the_program(t: &Ctx) {
    let c = t.container(|c| {
        c.writable();
        c.args(&["sh", "-c", "echo here > /proof; sleep 100"]);
    });
    c.create().ok();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!c.rootfs("proof").exists(), "the program ran before start");
    c.start().ok();
    eventually("the program to run", || c.rootfs("proof").exists().then_some(()));
}

fn the_state_tells_what_the_spec_asks_for(t: &Ctx) {
    let c = t.sleeper();
    c.create().ok();
    let state = c.state();
    assert_eq!(state["id"], json!(c.id));
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(c.bundle));
    assert_eq!(state["rootfs"], json!(c.rootfs("").to_string_lossy().trim_end_matches('/')));
    assert_eq!(state["owner"], "");
    let version = state["ociVersion"].as_str().expect("ociVersion is a string");
    assert!(version.starts_with("1."), "{version}");
    let created = state["created"].as_str().expect("created is a string");
    assert!(created.starts_with("20") && created.ends_with('Z') && created.contains('T'), "{created}");
    let pid = state["pid"].as_i64().expect("pid is a number");
    assert!(fs::exists(format!("/proc/{pid}/ns/mnt")).unwrap_or(false), "no process {pid}");
}

fn the_state_of_a_stopped_container_has_no_pid(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    assert_eq!(c.state()["pid"], 0);
    c.delete().ok();
}

fn the_pid_file_names_the_init(t: &Ctx) {
    let c = t.sleeper();
    let file = t.scratch().join("pid");
    c.launch("create", &["--pid-file", &file.to_string_lossy()]).run().ok();
    let text = fs::read_to_string(&file).expect("the pid file exists");
    assert_eq!(text, c.pid().to_string(), "no newline, nothing but the number");
}

fn a_created_container_can_be_killed(t: &Ctx) {
    let c = t.sleeper();
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.delete().ok();
}

fn a_created_container_can_be_deleted(t: &Ctx) {
    for flags in [&[][..], &["--force"]] {
        let c = t.sleeper();
        c.create().ok();
        c.verb("delete", flags, &[]).run().ok();
        c.verb("state", &[], &[]).run().fails(1, "container does not exist");
    }
}

fn delete_by_force_kills_a_running_container(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let pid = c.pid();
    c.verb("delete", &["-f"], &[]).run().ok();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "the init lives on: {stat}");
}

fn delete_by_force_of_an_unknown_id_succeeds(t: &Ctx) {
    t.rt(&["delete", "--force", &t.id()]).ok();
    t.rt(&["delete", &t.id()]).fails(1, "container does not exist");
}

fn an_id_can_be_used_again_after_delete(t: &Ctx) {
    let c = t.sleeper();
    for _ in 0..2 {
        c.up();
        c.verb("delete", &["--force"], &[]).run().ok();
    }
}

fn create_uses_the_current_directory_as_bundle(t: &Ctx) {
    let bundle = t.bundle(|c| c.args(&["pwd"]));
    let id = t.id();
    t.command(&["create", &id]).dir(&bundle).run().ok();
    let state = t.rt(&["state", &id]).ok().json();
    assert_eq!(state["bundle"], json!(bundle));
}

fn the_root_path_may_be_absolute(t: &Ctx) {
    let other = t.bundle(|_| {});
    let out = t.sh("cat /etc/passwd", |c| c.set("/root/path", json!(other.join("rootfs"))));
    assert!(out.contains("alice"), "{out}");
}

fn the_program_starts_with_the_config_read_at_create(t: &Ctx) {
    let c = t.container(|c| c.args(&["sh", "-c", "echo before"]));
    let mut run = c.launch("create", &[]).spawn();
    eventually("create to return", || run.is_over().then_some(()));
    let mut later = hearth_tests::Config::default();
    later.args(&["sh", "-c", "echo after"]);
    later.write(&c.bundle);
    c.start().ok();
    eventually("the program's word", || (!run.stdout_so_far().is_empty()).then_some(()));
    assert_eq!(run.finish().text(), "before");
}

fn every_signal_form_is_understood(t: &Ctx) {
    // What the init does not catch does not kill a PID 1 from inside, but any signal from the host's namespace does.
    for signal in ["KILL", "SIGKILL", "9", "TERM", "15", "kill", "SIGUSR1"] {
        let c = t.sleeper();
        c.up();
        c.kill(signal).ok();
        if !["KILL", "SIGKILL", "9", "kill"].contains(&signal) {
            // Default dispositions of PID 1: the kernel drops the signal.
            assert_eq!(c.status(), "running", "after {signal}");
            c.kill("KILL").ok();
        }
        c.wait_until("stopped");
        c.delete().ok();
    }
    let c = t.sleeper();
    c.up();
    c.kill("NOSUCH").refused("signal");
    c.kill("999").refused("");
    assert_eq!(c.status(), "running");
}

fn kill_sends_the_signal_to_the_init(t: &Ctx) {
    let script = "trap 'echo caught; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let c = t.container(|c| c.args(&["sh", "-c", script]));
    let mut run = c.launch("run", &[]).spawn();
    eventually("the trap", || run.stdout_so_far().contains("ready").then_some(()));
    // SIGTERM is the default.
    c.verb("kill", &[], &[]).run().ok();
    eventually("the end", || run.is_over().then_some(()));
    assert_eq!(run.finish().ok().text(), "ready\ncaught");
}

fn a_container_that_ends_by_itself_is_stopped(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.create().ok();
    c.start().ok();
    c.wait_until("stopped");
    c.delete().ok();
}

fn annotations_come_back_in_the_state(t: &Ctx) {
    let c = t.container(|c| {
        c.set(
            "/annotations",
            json!({"org.example.one": "1", "org.example.empty": "", "dots.and/slash": "x"}),
        );
    });
    c.create().ok();
    let annotations = c.state()["annotations"].clone();
    assert_eq!(annotations["org.example.one"], "1");
    assert_eq!(annotations["org.example.empty"], "");
    assert_eq!(annotations["dots.and/slash"], "x");
}

/// The first process of a PID namespace has no default action of its own.
fn a_created_container_ends_by_a_signal_that_asks_it_to(t: &Ctx) {
    let c = t.sleeper();
    c.create().ok();
    c.kill("TERM").ok();
    c.wait_until("stopped");
}

fn kill_takes_the_signal_that_is_none(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    c.kill("0").ok();
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.kill("0").refused("container not running");
}

fn kill_without_a_pid_namespace_ends_all(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.no_namespace("pid");
    });
    c.up();
    c.verb("exec", &["--detach"], &["sleep", "100"]).run().ok();
    c.kill("KILL").ok();
    eventually("all to be gone", || {
        let pids = t.rt(&["ps", "--format", "json", &c.id]).ok().json();
        pids.as_array().is_none_or(Vec::is_empty).then_some(())
    });
}

fn the_pidfd_goes_to_the_socket(t: &Ctx) {
    let c = t.sleeper();
    let socket = ConsoleSocket::new(t);
    c.launch("create", &["--pidfd-socket", &socket.path.to_string_lossy()]).run().ok();
    let fd = socket.receive().0;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).expect("fdinfo");
    assert_eq!(field(&info, "Pid").trim(), c.pid().to_string(), "{info}");
}

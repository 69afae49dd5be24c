//! `run`: exit codes, standard streams, signals, and its flags.

use std::fs;
use std::io::Write;

use hearth_tests::context::eventually;
use hearth_tests::{Ctx, cases, json};
use rustix::process::Signal;

cases! {
    settled:
        the_exit_status_of_the_program_is_runs_own,
        a_program_killed_by_a_signal_gives_128_and_its_number,
        output_and_errors_go_where_they_belong,
        standard_input_is_passed_on,
        standard_input_ends_when_its_pipe_closes,
        a_megabyte_goes_through_unharmed,
        run_leaves_nothing_behind,
        run_keeps_the_container_when_asked,
        run_detached_returns_at_once,
        run_detached_writes_the_pid_file,
        signals_are_forwarded_to_the_program,
        orphans_of_the_program_die_with_it,
        many_runs_of_one_bundle_in_parallel_work,
        the_log_file_gets_the_error,
        the_log_can_be_json,
        no_pivot_uses_the_root_too,
        run_gives_the_same_exit_code_with_a_log_file;
}

fn the_exit_status_of_the_program_is_runs_own(t: &Ctx) {
    for code in [0, 1, 42, 125, 126, 127, 128, 200, 255] {
        t.run_sh(&format!("exit {code}"), |_| {}).code(code);
    }
}

fn a_program_killed_by_a_signal_gives_128_and_its_number(t: &Ctx) {
    for (name, number) in [("KILL", 9), ("TERM", 15), ("INT", 2), ("SEGV", 11), ("USR1", 10)] {
        // The init of a PID namespace cannot kill itself: without one of its own, the program is an ordinary process.
        let c = t.container(|c| {
            c.no_namespace("pid");
            c.args(&["sh", "-c", &format!("kill -{name} $$; sleep 5")]);
        });
        c.run().code(128 + number);
    }
    let c = t.sleeper();
    let run = c.launch("run", &[]).spawn();
    eventually("running", || t.rt(&["state", &c.id]).stdout.contains("running").then_some(()));
    c.kill("KILL").ok();
    run.finish().code(137);
}

fn output_and_errors_go_where_they_belong(t: &Ctx) {
    let out = t.run_sh("echo to out; echo to err >&2", |_| {}).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("to out\n", "to err\n"));
}

fn standard_input_is_passed_on(t: &Ctx) {
    let c = t.container(|c| c.args(&["tr", "a-z", "A-Z"]));
    let out = c.launch("run", &[]).stdin(b"hello\nworld\n").run().ok();
    assert_eq!(out.stdout, "HELLO\nWORLD\n");
}

fn standard_input_ends_when_its_pipe_closes(t: &Ctx) {
    let c = t.container(|c| c.args(&["cat"]));
    let mut run = c.launch("run", &[]).stdin_pipe().spawn();
    let mut pipe = run.stdin.take().expect("a pipe was asked for");
    pipe.write_all(b"one\n").expect("write to the program");
    eventually("the echo", || (run.stdout_so_far() == "one\n").then_some(()));
    drop(pipe);
    assert_eq!(run.finish().ok().stdout, "one\n");
}

fn a_megabyte_goes_through_unharmed(t: &Ctx) {
    let c = t.container(|c| c.args(&["cat"]));
    let text = "0123456789abcdef".repeat(65_536);
    assert_eq!(c.launch("run", &[]).stdin(text.as_bytes()).run().ok().stdout, text);
}

fn run_leaves_nothing_behind(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.run().ok();
    t.rt(&["state", &c.id]).fails(1, "container does not exist");
    assert_eq!(fs::read_dir(t.root()).map(Iterator::count).unwrap_or(0), 0);
}

fn run_keeps_the_container_when_asked(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.launch("run", &["--keep"]).run().ok();
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
}

fn run_detached_returns_at_once(t: &Ctx) {
    let c = t.sleeper();
    c.launch("run", &["-d"]).run().ok();
    assert_eq!(c.status(), "running");
}

fn run_detached_writes_the_pid_file(t: &Ctx) {
    let c = t.sleeper();
    let file = t.scratch().join("pid");
    c.launch("run", &["--detach", "--pid-file", &file.to_string_lossy()]).run().ok();
    assert_eq!(fs::read_to_string(&file).expect("the pid file exists"), c.pid().to_string());
}

fn signals_are_forwarded_to_the_program(t: &Ctx) {
    for (signal, name) in
        [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")]
    {
        let script =
            format!("trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done");
        let c = t.container(|c| c.args(&["sh", "-c", &script]));
        let run = c.launch("run", &[]).spawn();
        eventually("the trap", || run.stdout_so_far().contains("ready").then_some(()));
        run.signal(signal);
        assert_eq!(run.finish().code(7).text(), format!("ready\ngot {name}"));
    }
}

fn orphans_of_the_program_die_with_it(t: &Ctx) {
    // Where the container has no PID namespace, only its cgroup names what belongs to it.
    t.sh("sleep 100 & sleep 100 & exit 0", |_| {});
    let out = t.run_sh("setsid sleep 100 </dev/null >/dev/null 2>&1 & exit 3", |c| c.no_namespace("pid"));
    out.code(3);
}

fn many_runs_of_one_bundle_in_parallel_work(t: &Ctx) {
    let first = t.container(|c| c.args(&["sh", "-c", "echo done"]));
    let runs: Vec<_> = (0..8).map(|_| first.sibling().launch("run", &[]).spawn()).collect();
    for run in runs {
        assert_eq!(run.finish().ok().text(), "done");
    }
}

fn the_log_file_gets_the_error(t: &Ctx) {
    let log = t.scratch().join("log");
    let out = t.rt(&["--log", &log.to_string_lossy(), "state", &t.id()]).code(1);
    let text = fs::read_to_string(&log).expect("the log exists");
    assert!(text.contains("level=error") && text.contains("container does not exist"), "{text}");
    // The error is on standard error as well, for a person.
    assert!(out.stderr.contains("container does not exist"), "{out:?}");
}

fn the_log_can_be_json(t: &Ctx) {
    let log = t.scratch().join("log");
    let log_path = log.to_string_lossy();
    t.rt(&["--log", &log_path, "--log-format", "json", "state", &t.id()]).code(1);
    let text = fs::read_to_string(&log).expect("the log exists");
    let line: hearth_tests::Value =
        serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("one line of JSON: {e}: {text}"));
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], json!("container does not exist"));
    assert!(line["time"].as_str().is_some_and(|time| time.starts_with("20")), "{line}");
}

fn no_pivot_uses_the_root_too(t: &Ctx) {
    let c = t.container(|c| c.args(&["cat", "/etc/passwd"]));
    let out = c.launch("run", &["--no-pivot"]).run().ok();
    assert!(out.stdout.contains("alice"), "{out:?}");
}

fn run_gives_the_same_exit_code_with_a_log_file(t: &Ctx) {
    let log = t.scratch().join("log");
    let c = t.container(|c| c.args(&["sh", "-c", "exit 9"]));
    let bundle = c.bundle.to_string_lossy();
    t.rt(&["--log", &log.to_string_lossy(), "--debug", "run", "--bundle", &bundle, &c.id]).code(9);
    let text = fs::read_to_string(&log).unwrap_or_default();
    assert!(!text.contains("level=error"), "{text}");
}

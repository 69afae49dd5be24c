//! `exec`: another process in a running container, with its own flags.

use std::fs;

use hearth_tests::container::field;
use hearth_tests::context::eventually;
use hearth_tests::{Container, Ctx, Value, cases, json};
use rustix::process::Signal;

cases! {
    settled:
        exec_can_enter_a_cgroup_of_one_controller,
        exec_gives_the_exit_status_of_its_program,
        exec_joins_every_namespace_of_the_container,
        exec_joins_the_cgroups_of_the_container,
        exec_passes_the_standard_streams,
        exec_forwards_signals,
        exec_sets_the_environment,
        exec_starts_in_the_given_directory,
        exec_without_cwd_starts_in_the_containers,
        exec_runs_as_the_given_user,
        exec_runs_with_additional_groups,
        exec_can_add_a_capability,
        exec_can_set_no_new_privileges,
        exec_detached_returns_at_once,
        exec_takes_a_process_from_a_file,
        exec_has_the_containers_rights_by_default,
        exec_of_a_missing_program_is_refused,
        exec_of_a_file_that_is_not_executable_is_refused,
        exec_of_a_directory_is_refused,
        exec_without_a_program_is_refused,
        exec_with_a_bad_user_is_refused,
        exec_in_a_missing_directory_is_refused,
        exec_does_not_end_the_container,
        an_exec_dies_with_the_container,
        many_execs_at_once_work,
        exec_sees_what_the_container_mounted_later,
        exec_is_no_child_of_the_container,
        exec_arguments_after_the_id_are_the_programs;
    newer:
        exec_with_a_bad_cgroup_is_refused;
    hearth:
        exec_with_a_user_beyond_32_bits_is_refused;
}

fn up(t: &Ctx) -> Container<'_> {
    let c = t.sleeper();
    c.up();
    c
}

fn exec_gives_the_exit_status_of_its_program(t: &Ctx) {
    let c = up(t);
    for code in [0, 1, 42, 127, 255] {
        c.exec(&["sh", "-c", &format!("exit {code}")]).code(code);
    }
    c.exec(&["sh", "-c", "kill -TERM $$"]).code(143);
    c.exec(&["sh", "-c", "kill -KILL $$"]).code(137);
}

fn exec_joins_every_namespace_of_the_container(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.namespace("cgroup", None);
    });
    c.up();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        let inside = c.sh(&format!("readlink /proc/self/ns/{kind}"));
        let init = fs::read_link(format!("/proc/{}/ns/{kind}", c.pid())).expect("the init's namespace");
        assert_eq!(inside, init.to_string_lossy(), "{kind}");
    }
}

fn exec_joins_the_cgroups_of_the_container(t: &Ctx) {
    let c = up(t);
    let exec = c.verb("exec", &["--detach"], &["sleep", "50"]).run();
    exec.ok();
    let pids = t.rt(&["ps", "--format", "json", &c.id]).ok().json();
    let pids = pids.as_array().expect("an array of pids");
    assert_eq!(pids.len(), 2, "{pids:?}");
    let groups: Vec<String> = pids
        .iter()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process's cgroups"))
        .collect();
    assert_eq!(groups[0], groups[1]);
}

fn exec_passes_the_standard_streams(t: &Ctx) {
    let c = up(t);
    let script = "cat; echo error >&2";
    let out = c.verb("exec", &[], &["sh", "-c", script]).stdin(b"in\n").run().ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("in\n", "error\n"));
}

fn exec_forwards_signals(t: &Ctx) {
    let c = up(t);
    let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let run = c.verb("exec", &[], &["sh", "-c", script]).spawn();
    eventually("the trap", || run.stdout_so_far().contains("ready").then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.finish().code(5).text(), "ready\ncaught");
}

fn exec_sets_the_environment(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.env("FROM=config");
        c.env("BOTH=config");
    });
    c.up();
    let out = c.exec_with(&["--env", "A=1", "--env", "B=two words", "--env", "BOTH=exec"], &["env"]).ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    for wanted in ["A=1", "B=two words", "FROM=config", "BOTH=exec"] {
        assert!(lines.contains(&wanted), "no {wanted}: {out:?}");
    }
    assert!(!lines.contains(&"BOTH=config"), "{out:?}");
}

fn exec_starts_in_the_given_directory(t: &Ctx) {
    let c = up(t);
    assert_eq!(c.exec_with(&["--cwd", "/usr/bin"], &["pwd"]).ok().text(), "/usr/bin");
}

fn exec_without_cwd_starts_in_the_containers(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/process/cwd", "/home/alice");
    });
    c.up();
    assert_eq!(c.exec(&["pwd"]).ok().text(), "/home/alice");
}

fn exec_runs_as_the_given_user(t: &Ctx) {
    let c = up(t);
    let id = |user: &str| c.exec_with(&["--user", user], &["sh", "-c", "echo $(id -u):$(id -g)"]).ok();
    assert_eq!(id("1000:50").text(), "1000:50");
    assert_eq!(id("1000").text(), "1000:0");
    assert_eq!(id("0:0").text(), "0:0");
    // The greatest id that runc takes.
    assert_eq!(id("2147483647:7").text(), "2147483647:7");
    assert_eq!(c.exec_with(&["-u", "5:6"], &["id", "-u"]).ok().text(), "5");
}

fn exec_runs_with_additional_groups(t: &Ctx) {
    let c = up(t);
    let flags = ["--user", "1000:1000", "--additional-gids", "50", "--additional-gids", "77"];
    let out = c.exec_with(&flags, &["cat", "/proc/self/status"]).ok();
    let mut groups: Vec<&str> = field(&out.stdout, "Groups").split_whitespace().collect();
    groups.sort_unstable();
    assert_eq!(groups, ["50", "77"]);
}

fn exec_can_add_a_capability(t: &Ctx) {
    let c = up(t);
    let before = c.exec(&["cat", "/proc/self/status"]).ok().stdout;
    assert_eq!(field(&before, "CapEff"), "0000000020000420");
    let after = c.exec_with(&["--cap", "CAP_SYS_CHROOT"], &["cat", "/proc/self/status"]).ok().stdout;
    // CAP_SYS_CHROOT is bit 18.
    assert_eq!(field(&after, "CapEff"), "0000000020040420");
    assert_eq!(field(&after, "CapBnd"), "0000000020040420");
}

fn exec_can_set_no_new_privileges(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/process/noNewPrivileges", false);
    });
    c.up();
    let status = |flags: &[&str]| c.exec_with(flags, &["cat", "/proc/self/status"]).ok().stdout;
    assert_eq!(field(&status(&[]), "NoNewPrivs"), "0");
    assert_eq!(field(&status(&["--no-new-privs"]), "NoNewPrivs"), "1");
}

fn exec_detached_returns_at_once(t: &Ctx) {
    let c = up(t);
    let file = t.scratch().join("pid");
    let flags = ["--detach", "--pid-file", &file.to_string_lossy()];
    c.verb("exec", &flags, &["sleep", "77"]).run().ok();
    let pid = fs::read_to_string(&file).expect("the pid file exists");
    eventually("the program", || {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("the process lives");
        (command == "sleep\x0077\0").then_some(())
    });
}

fn exec_takes_a_process_from_a_file(t: &Ctx) {
    let c = up(t);
    let file = t.scratch().join("process.json");
    let process = json!({
        "terminal": false,
        "user": {"uid": 1000, "gid": 50, "additionalGids": [60]},
        "args": ["sh", "-c", "id -u; id -g; pwd; echo $ONLY; cat /proc/self/status"],
        "env": ["PATH=/bin", "ONLY=this"],
        "cwd": "/tmp",
        "noNewPrivileges": true,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 321, "soft": 123}],
        "capabilities": {"bounding": ["CAP_KILL"]}
    });
    fs::write(&file, process.to_string()).expect("write process.json");
    let flag = file.to_string_lossy();
    let out = c.verb("exec", &["--process", &flag], &[]).run().ok().stdout;
    assert!(out.starts_with("1000\n50\n/tmp\nthis\n"), "{out}");
    assert_eq!(field(&out, "Groups"), "60");
    assert_eq!(field(&out, "CapBnd"), "0000000000000020");
    assert_eq!(field(&out, "NoNewPrivs"), "1");
}

fn exec_has_the_containers_rights_by_default(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.capabilities(&["CAP_KILL", "CAP_CHOWN"]);
    });
    c.up();
    let init = c.proc("status");
    let exec = c.exec(&["cat", "/proc/self/status"]).ok().stdout;
    for name in
        ["Uid", "Gid", "Groups", "CapBnd", "CapEff", "CapPrm", "CapInh", "NoNewPrivs", "Seccomp", "Umask"]
    {
        assert_eq!(field(&exec, name), field(&init, name), "{name}");
    }
    let limits = c.exec(&["cat", "/proc/self/limits"]).ok().stdout;
    let line = |text: &str| text.lines().find(|line| line.starts_with("Max open files")).map(str::to_owned);
    assert_eq!(line(&limits), line(&c.proc("limits")));
}

fn exec_of_a_missing_program_is_refused(t: &Ctx) {
    let c = up(t);
    c.exec(&["no-such-program"]).fails(255, "executable file not found in $PATH");
    c.exec(&["/no/such/program"]).fails(255, "no such file or directory");
    assert_eq!(c.status(), "running");
}

fn exec_of_a_file_that_is_not_executable_is_refused(t: &Ctx) {
    let c = up(t);
    c.exec(&["/etc/passwd"]).fails(255, "permission denied");
}

fn exec_of_a_directory_is_refused(t: &Ctx) {
    let c = up(t);
    let out = c.exec(&["/etc"]);
    assert_eq!(out.code, 255, "{out:?}");
}

fn exec_without_a_program_is_refused(t: &Ctx) {
    let c = up(t);
    let out = c.exec(&[]);
    assert_ne!(out.code, 0, "{out:?}");
}

fn exec_with_a_bad_user_is_refused(t: &Ctx) {
    let c = up(t);
    for user in ["nobody-of-that-name", "1:2:3", ":", "-1", "1:x", "1 2", "0x0"] {
        let out = c.exec_with(&["--user", user], &["true"]);
        assert_ne!(out.code, 0, "the user {user:?} was accepted");
    }
}

fn exec_with_a_user_beyond_32_bits_is_refused(t: &Ctx) {
    // runc cuts it off.
    let c = up(t);
    for user in ["99999999999", "0:4294967296", "4294967295", "+1", " 1"] {
        c.exec_with(&["--user", user], &["true"]).refused("user");
    }
}

fn exec_in_a_missing_directory_is_refused(t: &Ctx) {
    let c = t.container(|c| {
        c.writable();
        c.args(&["sleep", "100"]);
    });
    c.up();
    c.exec_with(&["--cwd", "/no/such"], &["pwd"]).fails(255, "no such file or directory");
    assert!(!c.rootfs("no").exists(), "exec made the directory");
}

fn exec_does_not_end_the_container(t: &Ctx) {
    let c = up(t);
    let pid = c.pid();
    c.exec(&["true"]).ok();
    c.exec(&["sh", "-c", "kill -9 $$"]).code(137);
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
}

fn an_exec_dies_with_the_container(t: &Ctx) {
    let c = up(t);
    let mut run = c.verb("exec", &[], &["sleep", "60"]).spawn();
    let is_it =
        |pid: &Value| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|s| s == "sleep\x0060\0");
    eventually("the exec", || {
        let pids = t.rt(&["ps", "-f", "json", &c.id]).json();
        pids.as_array()?.iter().any(is_it).then_some(())
    });
    c.kill("KILL").ok();
    eventually("the end of the exec", || run.is_over().then_some(()));
    run.finish().code(137);
}

fn many_execs_at_once_work(t: &Ctx) {
    let c = up(t);
    let runs: Vec<_> =
        (0..10).map(|n| c.verb("exec", &[], &["sh", "-c", &format!("echo {n}; exit {n}")]).spawn()).collect();
    for (n, run) in (0..).zip(runs) {
        assert_eq!(run.finish().code(n).text(), n.to_string());
    }
}

fn exec_sees_what_the_container_mounted_later(t: &Ctx) {
    let c = t.container(|c| {
        c.capabilities(&["CAP_SYS_ADMIN"]);
        c.args(&["sh", "-c", "mount -t tmpfs tmpfs /tmp && echo x > /tmp/late && echo ready; sleep 100"]);
    });
    let run = c.launch("run", &[]).spawn();
    eventually("the mount", || run.stdout_so_far().contains("ready").then_some(()));
    assert_eq!(c.sh("cat /tmp/late"), "x");
    c.kill("KILL").ok();
    run.finish().code(137);
}

fn exec_is_no_child_of_the_container(t: &Ctx) {
    // Its parent is outside of the PID namespace.
    let c = up(t);
    assert_eq!(field(&c.exec(&["cat", "/proc/self/status"]).ok().stdout, "PPid"), "0");
}

fn exec_arguments_after_the_id_are_the_programs(t: &Ctx) {
    let c = up(t);
    let out = c.exec(&["echo", "--env", "-t", "--", "-x"]).ok();
    assert_eq!(out.text(), "--env -t -- -x");
}

fn exec_can_enter_a_cgroup_of_one_controller(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/linux/cgroupsPath", format!("/{}", t.id()));
    });
    c.up();
    fs::create_dir(c.cgroup_v1("pids").join("sub")).expect("mkdir a group");
    let seen = c.exec_with(&["--cgroup", "pids:sub"], &["cat", "/proc/self/cgroup"]).ok().stdout;
    let ends =
        |part: &str| seen.lines().find(|line| line.contains(part)).is_some_and(|line| line.ends_with("/sub"));
    assert!(ends(":pids:") && !ends(":memory:"), "{seen}");
    // `/` is the container's own.
    c.exec_with(&["--cgroup", "/"], &["true"]).ok();
}

fn exec_with_a_bad_cgroup_is_refused(t: &Ctx) {
    t.needs_cgroup_v1("pids");
    let c = up(t);
    c.exec_with(&["--cgroup", ".."], &["true"]).fails(255, "bad sub cgroup path");
    c.exec_with(&["--cgroup", "whaaat:/"], &["true"]).fails(255, "unknown controller");
    c.exec_with(&["--cgroup", "pids:missing"], &["true"]).fails(255, "no such file or directory");
}

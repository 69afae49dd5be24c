//! `--init`: the container's first process passes signals on, reaps orphans, and ends as the program does.

use std::fs;
use std::path::Path;

use hearth_tests::bundle::install;
use hearth_tests::container::field;
use hearth_tests::context::eventually;
use hearth_tests::terminal::ConsoleSocket;
use hearth_tests::{Config, Container, Ctx, cases, json};
use rustix::fs::SealFlags;
use rustix::process::Signal;

cases! {
    hearth:
        orphans_are_reaped,
        without_it_orphans_stay_zombies,
        the_exit_status_is_the_programs,
        a_signal_that_ends_the_program_gives_128_and_its_number,
        signals_of_run_reach_the_program,
        signals_of_kill_reach_the_program,
        created_and_started_by_steps,
        an_annotation_asks_for_it_too,
        an_annotation_that_is_neither_true_nor_false_is_refused,
        a_program_that_cannot_be_executed_is_told,
        init_holds_no_descriptor,
        init_has_the_programs_rights_and_filter,
        inits_executable_cannot_be_overwritten,
        a_filter_that_forbids_to_fork_binds_the_program_only_later,
        exec_works_beside_it,
        the_terminal_is_the_programs,
        an_interrupt_key_reaches_the_program,
        a_killed_init_takes_the_program_along_in_a_shared_pid_namespace,
        orphans_are_reaped_in_a_shared_pid_namespace,
        it_works_in_a_user_namespace,
        the_oom_score_is_the_programs,
        listen_pid_is_the_programs;
}

/// A container whose program only sleeps, and so reaps nothing.
fn sleeper(t: &Ctx, edit: impl FnOnce(&mut Config)) -> Container<'_> {
    t.container(|c| {
        c.args(&["sleep", "100"]);
        edit(c);
    })
}

fn up(c: &Container<'_>) {
    c.launch("run", &["--init", "--detach"]).run().ok();
    eventually("the program to run", || (child(c.pid())?.1 == "sleep").then_some(()));
}

/// The only child of a process, and its name.
fn child(pid: i64) -> Option<(i64, String)> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let child = children.trim().parse().ok()?;
    Some((child, fs::read_to_string(format!("/proc/{child}/comm")).ok()?.trim().to_owned()))
}

/// How many zombies the first process has once an orphan has ended.
fn zombies(c: &Container<'_>) -> usize {
    c.exec(&["sh", "-c", "sleep 0.05 & exit 0"]).ok();
    let pid = c.pid();
    let states = || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let stat = |child: &str| fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        children.split_whitespace().map(stat).collect::<Vec<_>>()
    };
    let orphans = |states: &[String]| {
        states.iter().filter(|state| !state.contains("Z (") && state.contains("0.05")).count()
    };
    eventually("the orphan to end", || (orphans(&states()) == 0).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(150));
    states().iter().filter(|state| state.contains(") Z ")).count()
}

fn orphans_are_reaped(t: &Ctx) {
    let c = sleeper(t, |_| {});
    up(&c);
    assert_eq!(zombies(&c), 0);
}

fn without_it_orphans_stay_zombies(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    assert_eq!(zombies(&c), 1);
}

fn the_exit_status_is_the_programs(t: &Ctx) {
    for code in [0, 1, 42, 255] {
        let c = t.container(|c| c.args(&["sh", "-c", &format!("sleep 100 & exit {code}")]));
        c.launch("run", &["--init"]).run().code(code);
    }
}

fn a_signal_that_ends_the_program_gives_128_and_its_number(t: &Ctx) {
    for (name, number) in [("KILL", 9), ("TERM", 15), ("SEGV", 11)] {
        let c = t.container(|c| c.args(&["sh", "-c", &format!("kill -{name} $$; sleep 5")]));
        c.launch("run", &["--init"]).run().code(128 + number);
    }
}

fn trapping<'t>(t: &'t Ctx, name: &str) -> Container<'t> {
    let script = format!("trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done");
    t.container(|c| c.args(&["sh", "-c", &script]))
}

fn signals_of_run_reach_the_program(t: &Ctx) {
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP")] {
        let c = trapping(t, name);
        let run = c.launch("run", &["--init"]).spawn();
        eventually("the trap", || run.stdout_so_far().contains("ready").then_some(()));
        run.signal(signal);
        assert_eq!(run.finish().code(7).text(), format!("ready\ngot {name}"));
    }
}

fn signals_of_kill_reach_the_program(t: &Ctx) {
    // Also one that init's own C library would keep from it, and one that stops nobody but it continues.
    for name in ["USR1", "CONT", "RTMIN+3", "RTMAX"] {
        let number = match name {
            "RTMIN+3" => "37",
            "RTMAX" => "64",
            name => name,
        };
        let c = trapping(t, number);
        let run = c.launch("run", &["--init"]).spawn();
        eventually("the trap", || run.stdout_so_far().contains("ready").then_some(()));
        c.kill(name).ok();
        run.finish().code(7);
    }
}

fn created_and_started_by_steps(t: &Ctx) {
    let c = sleeper(t, |_| {});
    c.launch("create", &["--init"]).run().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill("TERM").ok();
    c.wait_until("stopped");
    c.delete().ok();
}

fn an_annotation_asks_for_it_too(t: &Ctx) {
    let name =
        |value: &str| t.sh("cat /proc/1/comm", |c| c.set("/annotations", json!({"org.hearth.init": value})));
    assert_eq!((name("true").as_str(), name("false").as_str()), ("hearth-init", "cat"));
}

fn an_annotation_that_is_neither_true_nor_false_is_refused(t: &Ctx) {
    let c = sleeper(t, |c| c.set("/annotations", json!({"org.hearth.init": "yes"})));
    c.run().refused("org.hearth.init: yes: expected true or false");
}

fn a_program_that_cannot_be_executed_is_told(t: &Ctx) {
    let c = t.container(|c| c.args(&["nowhere"]));
    c.launch("run", &["--init"]).run().refused("executable file not found in $PATH");
    c.launch("create", &["--init"]).run().refused("executable file not found in $PATH");
}

fn init_holds_no_descriptor(t: &Ctx) {
    let c = sleeper(t, |c| {
        c.args(&["/probe", "watch", "2"]);
        c.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"]);
    });
    install(Path::new(env!("CARGO_BIN_EXE_probe")), &c.rootfs("probe"));
    let run = c.launch("run", &["--init"]).spawn();
    eventually("the probe", || run.stdout_so_far().contains("ready").then_some(()));
    let init = format!("/proc/{}", c.pid());
    assert_eq!(fs::read_dir(format!("{init}/fd")).expect("init's descriptors").count(), 0);
    let link = |name: &str| fs::read_link(format!("{init}/{name}")).expect("a link of init's");
    assert_eq!((link("root"), link("cwd")), ("/".into(), "/".into()));
    assert_ne!(link("ns/mnt"), fs::read_link("/proc/self/ns/mnt").expect("our own"));
    let seen = run.finish().ok().stdout;
    assert!(!seen.contains("saw 0 processes") && seen.ends_with("nothing\n"), "{seen}");
}

fn init_has_the_programs_rights_and_filter(t: &Ctx) {
    for no_new_privileges in [true, false] {
        let c = sleeper(t, |c| {
            c.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [50]}));
            c.set("/process/noNewPrivileges", no_new_privileges);
            c.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}]}),
            );
        });
        up(&c);
        let init = c.pid();
        let (program, _) = child(init).expect("init has one child");
        let status = |pid: i64| fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
        let (init, program) = (status(init), status(program));
        let fields = [
            "Uid",
            "Gid",
            "Groups",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
        ];
        for name in fields {
            assert_eq!(field(&init, name), field(&program, name), "{name}");
        }
        assert_eq!((field(&init, "Seccomp"), field(&init, "CapPrm")), ("2", "0000000000000000"));
        c.verb("delete", &["--force"], &[]).run().ok();
    }
}

fn inits_executable_cannot_be_overwritten(t: &Ctx) {
    // CVE-2019-5736. While it runs nobody could; what counts is that its mount is read-only, or that it is a sealed
    // copy, as below a `run`, which runs from a clone of its own and cannot clone its directory from there.
    let c = sleeper(t, |_| {});
    up(&c);
    let path = format!("/proc/{}/exe", c.pid());
    let mount = rustix::fs::statvfs(&path).expect("init's executable");
    let file = std::fs::File::open(&path).expect("init's executable");
    let sealed = rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    assert!(sealed || mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{:?}", mount.f_flag);
}

fn a_filter_that_forbids_to_fork_binds_the_program_only_later(t: &Ctx) {
    for no_new_privileges in [true, false] {
        let c = t.container(|c| {
            c.set("/process/noNewPrivileges", no_new_privileges);
            c.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["fork", "vfork", "clone", "clone3"], "action": "SCMP_ACT_ERRNO"}]}),
            );
            c.args(&["sh", "-c", "(true) 2>/dev/null || exit 5"]);
        });
        c.launch("run", &["--init"]).run().code(2);
    }
}

fn exec_works_beside_it(t: &Ctx) {
    let c = sleeper(t, |_| {});
    up(&c);
    assert_eq!(c.sh("cat /proc/1/comm /proc/2/comm; kill -0 2 && echo $?"), "hearth-init\nsleep\n0");
    c.exec(&["sh", "-c", "exit 9"]).code(9);
}

/// Creates and starts a container on a terminal of its own.
fn on_terminal<'t>(t: &'t Ctx, script: &str) -> (Container<'t>, hearth_tests::terminal::Master) {
    let c = t.container(|c| {
        c.set("/process/terminal", true);
        c.args(&["sh", "-c", script]);
    });
    let socket = ConsoleSocket::new(t);
    c.launch("create", &["--init", "--console-socket", &socket.path.to_string_lossy()]).run().ok();
    c.start().ok();
    let (master, _) = socket.receive();
    (c, master)
}

fn the_terminal_is_the_programs(t: &Ctx) {
    let (c, mut master) = on_terminal(t, "tty; cut -d' ' -f6,7,8 /proc/$$/stat; echo $$; read line");
    // Session, terminal and foreground group are its own.
    let seen = master.expect("2\r\n");
    assert!(seen.contains("/dev/pts/0") && seen.contains("2 34816 2"), "{seen}");
    assert_eq!(fs::read_dir(format!("/proc/{}/fd", c.pid())).expect("init's descriptors").count(), 0);
    master.send("\n");
    c.wait_until("stopped");
}

fn an_interrupt_key_reaches_the_program(t: &Ctx) {
    let (c, mut master) =
        on_terminal(t, "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done");
    master.expect("ready");
    master.send("\x03");
    master.expect("caught");
    c.wait_until("stopped");
}

fn a_killed_init_takes_the_program_along_in_a_shared_pid_namespace(t: &Ctx) {
    let c = sleeper(t, |c| {
        c.no_namespace("pid");
        c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    });
    up(&c);
    let (program, _) = child(c.pid()).expect("init has one child");
    c.kill("KILL").ok();
    eventually("the program to end", || {
        let stat = fs::read_to_string(format!("/proc/{program}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

fn orphans_are_reaped_in_a_shared_pid_namespace(t: &Ctx) {
    let c = t.container(|c| {
        c.no_namespace("pid");
        // The orphan looks who its parent is by now.
        c.args(&[
            "sh",
            "-c",
            "(sh -c 'sleep 0.1; cut -d\" \" -f4 /proc/$$/stat > /tmp/parent' &); exec sleep 100",
        ]);
        c.mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    });
    up(&c);
    let parent = eventually("the orphan", || {
        Some(c.sh("cat /tmp/parent 2>/dev/null; true")).filter(|text| !text.trim().is_empty())
    });
    assert_eq!(parent.trim(), c.pid().to_string());
}

fn it_works_in_a_user_namespace(t: &Ctx) {
    let c = t.container(|c| {
        c.namespace("user", None);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        c.set("/linux/uidMappings", map.clone());
        c.set("/linux/gidMappings", map);
        c.args(&["sh", "-c", "cat /proc/1/comm; exit 4"]);
    });
    assert_eq!(c.launch("run", &["--init"]).run().code(4).text(), "hearth-init");
}

fn the_oom_score_is_the_programs(t: &Ctx) {
    let c = t.container(|c| {
        c.set("/process/oomScoreAdj", 500);
        c.args(&["sh", "-c", "cat /proc/self/oom_score_adj /proc/1/oom_score_adj"]);
    });
    assert_eq!(c.launch("run", &["--init"]).run().ok().text(), "500\n500");
}

fn listen_pid_is_the_programs(t: &Ctx) {
    let file = t.scratch().join("three");
    fs::write(&file, "third").expect("write a file");
    let script = format!("LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<{}", file.display());
    let c = t.container(|c| c.args(&["sh", "-c", "cat <&3; echo; echo $$ $LISTEN_PID"]));
    let out = c.launch("run", &["--init"]).wrap(&["sh", "-c", &script]).run().ok();
    assert_eq!(out.text(), "third\n2 2");
}

//! The `process` object of the config: who runs, where, with what.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use hearth_tests::container::field;
use hearth_tests::{Ctx, cases, json};

cases! {
    settled:
        a_capability_stands_in_for_a_missing_bit,
        the_environment_is_the_configs_alone,
        home_is_taken_from_the_passwd_file,
        home_of_an_unknown_user_is_the_root,
        home_that_is_set_stays,
        an_environment_entry_without_a_value_is_kept,
        the_program_is_looked_up_in_the_containers_path,
        the_program_may_be_relative_to_the_cwd,
        a_missing_program_is_refused,
        a_program_that_is_not_executable_is_refused,
        a_program_of_another_format_is_refused,
        a_script_without_interpreter_is_refused,
        the_cwd_is_where_the_program_starts,
        a_missing_cwd_is_made,
        a_cwd_below_a_file_is_refused,
        the_user_and_its_groups_are_set,
        an_unnamed_user_works,
        the_umask_is_set,
        the_umask_is_022_by_default,
        rlimits_are_set,
        an_unknown_rlimit_is_refused,
        an_rlimit_with_soft_above_hard_is_refused,
        no_new_privileges_follows_the_config,
        the_oom_score_is_raised,
        the_oom_score_is_lowered,
        rlimits_above_the_callers_are_set,
        the_oom_score_is_inherited_when_unset,
        signals_are_reset_to_their_defaults,
        no_descriptor_of_the_runtime_is_left_open,
        the_program_is_pid_one_without_a_parent,
        the_program_leads_a_session,
        the_hosts_dev_null_keeps_its_owner,
        arguments_arrive_unchanged,
        a_very_long_argument_arrives,
        many_environment_variables_arrive,
        the_personality_is_kept;
    newer:
        the_scheduler_is_set,
        the_io_priority_is_set,
        the_personality_is_set,
        a_repeated_environment_variable_takes_the_last_value;
    hearth:
        a_duplicate_rlimit_is_refused;
}

fn the_environment_is_the_configs_alone(t: &Ctx) {
    let c = t.container(|c| {
        c.set("/process/env", json!(["PATH=/bin", "ONE=1", "TWO=a b=c", "HOME=/x"]));
        c.args(&["env"]);
    });
    let out = c.launch("run", &[]).env("OUTSIDE", "leak").run().ok();
    let mut lines: Vec<&str> = out.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["HOME=/x", "ONE=1", "PATH=/bin", "TWO=a b=c"]);
}

fn home(t: &Ctx, uid: u32) -> String {
    t.sh("echo $HOME", |c| c.set("/process/user/uid", uid))
}

fn home_is_taken_from_the_passwd_file(t: &Ctx) {
    assert_eq!(home(t, 0), "/root");
    assert_eq!(home(t, 1000), "/home/alice");
}

fn home_of_an_unknown_user_is_the_root(t: &Ctx) {
    assert_eq!(home(t, 4242), "/");
}

fn home_that_is_set_stays(t: &Ctx) {
    assert_eq!(t.sh("echo $HOME", |c| c.env("HOME=/elsewhere")), "/elsewhere");
}

fn an_environment_entry_without_a_value_is_kept(t: &Ctx) {
    let out = t.sh("env", |c| c.env("EMPTY="));
    assert!(out.lines().any(|line| line == "EMPTY="), "{out}");
}

fn a_repeated_environment_variable_takes_the_last_value(t: &Ctx) {
    let out = t.sh("env | grep -c ^TWICE; echo $TWICE", |c| {
        c.env("TWICE=first");
        c.env("TWICE=second");
    });
    assert_eq!(out, "1\nsecond");
}

fn the_program_is_looked_up_in_the_containers_path(t: &Ctx) {
    let c = t.container(|c| {
        c.set("/process/env", json!(["PATH=/nowhere:/tools"]));
        c.args(&["mytool", "x"]);
    });
    fs::create_dir(c.rootfs("tools")).expect("mkdir tools");
    fs::write(c.rootfs("tools/mytool"), "#!/bin/sh\necho \"$0 $1\"\n").expect("write mytool");
    t.host("chmod", &["755", &c.rootfs("tools/mytool").to_string_lossy()]).ok();
    assert_eq!(c.run().ok().text(), "/tools/mytool x");
}

fn the_program_may_be_relative_to_the_cwd(t: &Ctx) {
    let c = t.container(|c| {
        c.set("/process/cwd", "/bin");
        c.args(&["./busybox", "echo", "relative"]);
    });
    assert_eq!(c.run().ok().text(), "relative");
}

fn a_missing_program_is_refused(t: &Ctx) {
    for verb in ["run", "create"] {
        let c = t.container(|c| c.args(&["no-such-program"]));
        let out = c.launch(verb, &[]).run().refused("executable file not found in $PATH");
        assert_eq!(out.code, 1);
        let c = t.container(|c| c.args(&["/no/such"]));
        assert_eq!(c.launch(verb, &[]).run().refused("no such file or directory").code, 1);
        c.verb("state", &[], &[]).run().fails(1, "container does not exist");
    }
}

fn a_program_that_is_not_executable_is_refused(t: &Ctx) {
    for verb in ["run", "create"] {
        let c = t.container(|c| c.args(&["/etc/passwd"]));
        assert_eq!(c.launch(verb, &[]).run().refused("permission denied").code, 1);
        c.verb("state", &[], &[]).run().fails(1, "container does not exist");
    }
}

fn executable(t: &Ctx, content: &str) -> hearth_tests::Out {
    let c = t.container(|c| c.args(&["/tool"]));
    fs::write(c.rootfs("tool"), content).expect("write the tool");
    t.host("chmod", &["755", &c.rootfs("tool").to_string_lossy()]).ok();
    c.run()
}

fn a_program_of_another_format_is_refused(t: &Ctx) {
    executable(t, "\x7fELF of no kind").refused("exec format error");
}

fn a_script_without_interpreter_is_refused(t: &Ctx) {
    executable(t, "#!/no/such/shell\n").refused("no such file or directory");
}

fn the_cwd_is_where_the_program_starts(t: &Ctx) {
    assert_eq!(t.sh("pwd", |c| c.set("/process/cwd", "/usr/bin")), "/usr/bin");
}

fn a_missing_cwd_is_made(t: &Ctx) {
    let out = t.sh("pwd; stat -c %a:%u /made/by/runtime", |c| {
        c.writable();
        c.set("/process/cwd", "/made/by/runtime");
    });
    assert_eq!(out, "/made/by/runtime\n755:0");
}

fn a_cwd_below_a_file_is_refused(t: &Ctx) {
    for verb in ["run", "create"] {
        let c = t.container(|c| c.set("/process/cwd", "/etc/passwd/below"));
        c.launch(verb, &[]).run().refused("not a directory");
    }
}

fn the_user_and_its_groups_are_set(t: &Ctx) {
    let c = t.container(|c| {
        c.set("/process/user", json!({"uid": 1000, "gid": 50, "additionalGids": [5, 60000, 0]}));
        c.args(&["cat", "/proc/self/status"]);
    });
    let out = c.run().ok().stdout;
    assert_eq!(field(&out, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&out, "Gid"), "50\t50\t50\t50");
    let mut groups: Vec<u32> =
        field(&out, "Groups").split_whitespace().filter_map(|g| g.parse().ok()).collect();
    groups.sort_unstable();
    assert_eq!(groups, [0, 5, 60000]);
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(field(&out, set), "0000000000000000", "{set} of an ordinary user");
    }
}

fn an_unnamed_user_works(t: &Ctx) {
    assert_eq!(
        t.sh("id -u; id -g", |c| c.set("/process/user", json!({"uid": 123_456, "gid": 654_321}))),
        "123456\n654321"
    );
}

fn umask(t: &Ctx, mask: Option<u32>) -> String {
    t.sh("umask; touch /tmp/f; stat -c %a /tmp/f", |c| {
        c.mount("/tmp", "tmpfs", "tmpfs", &[]);
        if let Some(mask) = mask {
            c.set("/process/user/umask", mask);
        }
    })
}

fn the_umask_is_set(t: &Ctx) {
    assert_eq!(umask(t, Some(0o077)), "0077\n600");
    assert_eq!(umask(t, Some(0)), "0000\n666");
}

fn the_umask_is_022_by_default(t: &Ctx) {
    assert_eq!(umask(t, None), "0022\n644");
}

fn rlimits_are_set(t: &Ctx) {
    let out = t.sh("cat /proc/self/limits", |c| {
        c.set(
            "/process/rlimits",
            json!([
                {"type": "RLIMIT_NOFILE", "hard": 512, "soft": 256},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
                {"type": "RLIMIT_STACK", "hard": 16_777_216, "soft": 4_194_304},
                {"type": "RLIMIT_FSIZE", "hard": 1_000_000, "soft": 999_999},
            ]),
        );
    });
    let limit = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {out}"));
        let words: Vec<&str> = line[26..].split_whitespace().collect();
        (words[0].to_owned(), words[1].to_owned())
    };
    assert_eq!(limit("Max open files"), ("256".into(), "512".into()));
    assert_eq!(limit("Max core file size"), ("0".into(), "0".into()));
    assert_eq!(limit("Max stack size"), ("4194304".into(), "16777216".into()));
    assert_eq!(limit("Max file size"), ("999999".into(), "1000000".into()));
}

fn an_unknown_rlimit_is_refused(t: &Ctx) {
    let c =
        t.container(|c| c.push("/process/rlimits", json!({"type": "RLIMIT_NOSUCH", "hard": 1, "soft": 1})));
    c.run().refused("RLIMIT_NOSUCH");
}

fn a_duplicate_rlimit_is_refused(t: &Ctx) {
    // The spec asks for an error; runc takes the last one.
    let c =
        t.container(|c| c.push("/process/rlimits", json!({"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1})));
    c.run().refused("RLIMIT_NOFILE");
}

fn an_rlimit_with_soft_above_hard_is_refused(t: &Ctx) {
    let c = t
        .container(|c| c.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "hard": 10, "soft": 20}])));
    c.run().refused("");
}

fn no_new_privileges_follows_the_config(t: &Ctx) {
    for (value, wanted) in [(true, "1"), (false, "0")] {
        let out = t.sh("cat /proc/self/status", |c| c.set("/process/noNewPrivileges", value));
        assert_eq!(field(&out, "NoNewPrivs"), wanted);
    }
}

fn the_oom_score_is_raised(t: &Ctx) {
    assert_eq!(t.sh("cat /proc/self/oom_score_adj", |c| c.set("/process/oomScoreAdj", 789)), "789");
}

/// What root has unless something took it away, as it is on hosts inside a host.
fn needs_sys_resource(t: &Ctx) {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let effective = u64::from_str_radix(field(&status, "CapEff"), 16).expect("hexadecimal");
    if effective & (1 << 24) == 0 {
        t.skip("root lacks CAP_SYS_RESOURCE");
    }
}

fn the_oom_score_is_lowered(t: &Ctx) {
    needs_sys_resource(t);
    assert_eq!(t.sh("cat /proc/self/oom_score_adj", |c| c.set("/process/oomScoreAdj", -500)), "-500");
    let c = t.sleeper();
    c.up();
    let process = json!({"args": ["/bin/cat", "/proc/self/oom_score_adj"], "cwd": "/", "oomScoreAdj": -300});
    let file = t.scratch().join("process.json");
    fs::write(&file, process.to_string()).expect("write");
    let out = c.verb("exec", &["--process", &file.to_string_lossy()], &[]).run().ok();
    assert_eq!(out.text(), "-300");
}

fn rlimits_above_the_callers_are_set(t: &Ctx) {
    needs_sys_resource(t);
    let c = t.container(|c| {
        c.args(&["sh", "-c", "ulimit -Hl; ulimit -Sn"]);
        let memlock = json!({"type": "RLIMIT_MEMLOCK", "hard": 1_073_741_824, "soft": 1_073_741_824});
        c.set("/process/rlimits", json!([memlock, {"type": "RLIMIT_NOFILE", "hard": 9000, "soft": 9000}]));
    });
    let out =
        c.launch("run", &[]).wrap(&["sh", "-c", "ulimit -l 64; ulimit -n 256; exec \"$0\" \"$@\""]).run();
    assert_eq!(out.ok().text(), "1048576\n9000");
}

fn the_oom_score_is_inherited_when_unset(t: &Ctx) {
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("procfs");
    assert_eq!(t.sh("cat /proc/self/oom_score_adj", |_| {}), own.trim());
}

fn signals_are_reset_to_their_defaults(t: &Ctx) {
    let c = t.container(|c| c.args(&["cat", "/proc/self/status"]));
    // A caller written in Go leaves SIGPIPE ignored; a shell may leave more so.
    let run =
        c.launch("run", &[]).wrap(&["sh", "-c", "trap '' PIPE USR1 HUP; exec \"$0\" \"$@\""]).run().ok();
    assert_eq!(field(&run.stdout, "SigBlk"), "0000000000000000");
    let ignored = u64::from_str_radix(field(&run.stdout, "SigIgn"), 16).expect("hexadecimal");
    assert_eq!(ignored & (1 << 12), 0, "SIGPIPE is ignored: {ignored:x}");
    if t.is_hearth() {
        assert_eq!(ignored, 0, "{ignored:x}");
    }
}

fn no_descriptor_of_the_runtime_is_left_open(t: &Ctx) {
    assert_eq!(t.sh("ls /proc/1/fd; true", |_| {}), "0\n1\n2");
}

fn the_program_is_pid_one_without_a_parent(t: &Ctx) {
    let c = t.container(|c| c.args(&["cat", "/proc/self/status"]));
    let out = c.run().ok().stdout;
    assert_eq!((field(&out, "Pid"), field(&out, "PPid")), ("1", "0"));
}

fn the_program_leads_a_session(t: &Ctx) {
    let c = t.container(|c| c.args(&["cat", "/proc/self/stat"]));
    let out = c.run().ok().stdout;
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!((words[4], words[5]), ("1", "1"), "process group and session: {out}");
}

fn the_hosts_dev_null_keeps_its_owner(t: &Ctx) {
    let before = fs::metadata("/dev/null").expect("stat /dev/null");
    t.sh("id -u", |c| c.set("/process/user/uid", 1000));
    let after = fs::metadata("/dev/null").expect("stat /dev/null");
    assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
}

fn arguments_arrive_unchanged(t: &Ctx) {
    let words = ["", " a  b ", "\"quoted\"", "$HOME", "ünïcödé", "-x", "new\nline", "\\"];
    let c = t.container(|c| {
        let mut args = vec!["printf", "<%s>"];
        args.extend(words);
        c.args(&args);
    });
    let wanted: String = words.iter().map(|word| format!("<{word}>")).collect();
    assert_eq!(c.run().ok().stdout, wanted);
}

fn a_very_long_argument_arrives(t: &Ctx) {
    let long = "x".repeat(100_000);
    let c = t.container(|c| c.args(&["echo", &long]));
    assert_eq!(c.run().ok().text(), long);
}

fn many_environment_variables_arrive(t: &Ctx) {
    let out = t.sh("env | grep -c ^VARIABLE_", |c| {
        for n in 0..2000 {
            c.env(&format!("VARIABLE_{n}={n}"));
        }
    });
    assert_eq!(out, "2000");
}

fn the_personality_is_kept(t: &Ctx) {
    assert_eq!(t.sh("cat /proc/self/personality", |c| c.capabilities(&["CAP_SYS_PTRACE"])), "00000000");
}

fn the_personality_is_set(t: &Ctx) {
    assert_eq!(t.sh("uname -m", |c| c.set("/linux/personality", json!({"domain": "LINUX32"}))), "i686");
}

fn the_scheduler_is_set(t: &Ctx) {
    let scheduler = json!({"policy": "SCHED_BATCH", "nice": 5});
    let out = t.sh("cat /proc/1/stat", |c| c.set("/process/scheduler", scheduler));
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!((words[18], words[40]), ("5", "3"), "nice and policy: {out}");
}

fn the_io_priority_is_set(t: &Ctx) {
    let priority = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    let out = t.sh("ionice -p 1", |c| c.set("/process/ioPriority", priority));
    assert_eq!(out, "best-effort: prio 6");
}

fn a_capability_stands_in_for_a_missing_bit(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["/home/alice/true"]);
        c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        let names = ["CAP_DAC_OVERRIDE"];
        c.capabilities(&names);
        for set in ["inheritable", "ambient"] {
            c.set(&format!("/process/capabilities/{set}"), json!(names));
        }
    });
    let file = c.rootfs("home/alice/true");
    hearth_tests::bundle::install(std::path::Path::new("/bin/busybox"), &file);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o100)).expect("chmod");
    c.run().code(0);
}

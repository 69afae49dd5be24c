//! Seccomp profiles, judged by what system calls give inside.

use hearth_tests::container::field;
use hearth_tests::program;
use hearth_tests::terminal::ConsoleSocket;
use hearth_tests::{Config, Ctx, Value, cases, json};

cases! {
    settled:
        start_container_hooks_run_under_the_filter,
        a_filter_may_forbid_what_the_runtime_itself_uses,
        without_a_profile_there_is_no_filter,
        a_denied_call_gives_eperm,
        a_denied_call_gives_the_errno_asked_for,
        the_default_action_may_deny,
        a_killed_process_dies_by_sigsys,
        a_trapped_process_dies_by_sigsys,
        arguments_are_compared,
        every_operator_compares,
        arguments_of_64_bits_are_compared_whole,
        several_conditions_have_to_hold_together,
        several_rules_for_one_call_are_alternatives,
        an_unknown_call_name_is_passed_over,
        an_unknown_action_is_refused,
        an_unknown_operator_is_refused,
        an_unknown_architecture_is_refused,
        an_argument_index_beyond_five_is_refused,
        calls_newer_than_the_profile_give_enosys,
        a_foreign_architecture_is_kept_out,
        a_listed_architecture_is_let_in,
        exec_has_the_filter_too,
        the_filter_does_not_need_no_new_privileges,
        log_and_trace_actions_are_accepted,
        dockers_profile_runs_a_shell,
        dockers_profile_denies_what_it_should,
        a_listener_receives_the_notify_descriptor;
    newer:
        a_kill_process_action_ends_the_whole_process;
    hearth:
        an_errno_out_of_range_is_refused;
}

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

const GETPID: u32 = 39;
const GETPRIORITY: u32 = 140;
const PERSONALITY: u32 = 135;

/// The errno that one system call gives under a profile.
fn errno(t: &Ctx, profile: &Value, number: u32, args: &[u64]) -> i32 {
    let c = t.container(|c| {
        c.set("/linux/seccomp", profile.clone());
        c.args(&["/call"]);
    });
    program::syscall(&c.rootfs("call"), number, args);
    c.run().code
}

fn profile(default: &str, rules: Value) -> Value {
    json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

fn deny(name: &str, args: Value) -> Value {
    profile("SCMP_ACT_ALLOW", json!([{"names": [name], "action": "SCMP_ACT_ERRNO", "args": args}]))
}

fn without_a_profile_there_is_no_filter(t: &Ctx) {
    assert_eq!(field(&t.sh("cat /proc/self/status", |_| {}), "Seccomp"), "0");
    let out = t.sh("cat /proc/self/status", |c| c.set("/linux/seccomp", deny("mkdir", json!([]))));
    assert_eq!((field(&out, "Seccomp"), field(&out, "Seccomp_filters")), ("2", "1"));
}

fn a_denied_call_gives_eperm(t: &Ctx) {
    let profile = deny("getpriority", json!([]));
    assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 0]), EPERM);
    assert_eq!(errno(t, &profile, GETPID, &[]), 0);
}

fn a_denied_call_gives_the_errno_asked_for(t: &Ctx) {
    let rule = json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]);
    assert_eq!(errno(t, &profile("SCMP_ACT_ALLOW", rule), GETPRIORITY, &[0, 0]), 95);
    let zero = json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}]);
    assert_eq!(errno(t, &profile("SCMP_ACT_ALLOW", zero), GETPRIORITY, &[9, 9]), 0);
}

fn the_default_action_may_deny(t: &Ctx) {
    let mut profile = docker(t);
    for rule in profile["syscalls"].as_array_mut().expect("rules") {
        rule["names"].as_array_mut().expect("names").retain(|name| name != "getpriority");
    }
    profile["defaultAction"] = json!("SCMP_ACT_ERRNO");
    profile["defaultErrnoRet"] = json!(77);
    assert_eq!(errno(t, &profile, GETPID, &[]), 0);
    assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 0]), 77);
    profile.as_object_mut().expect("an object").remove("defaultErrnoRet");
    assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 0]), EPERM);
}

fn a_killed_process_dies_by_sigsys(t: &Ctx) {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD"] {
        let profile = profile("SCMP_ACT_ALLOW", json!([{"names": ["getpriority"], "action": action}]));
        assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 0]), 128 + 31, "{action}");
    }
}

fn a_kill_process_action_ends_the_whole_process(t: &Ctx) {
    let profile =
        profile("SCMP_ACT_ALLOW", json!([{"names": ["getpriority"], "action": "SCMP_ACT_KILL_PROCESS"}]));
    assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 0]), 128 + 31);
}

fn a_trapped_process_dies_by_sigsys(t: &Ctx) {
    // The init of a PID namespace is not killed by a signal that it has no handler for, but SIGSYS is forced.
    let profile = profile("SCMP_ACT_ALLOW", json!([{"names": ["getpriority"], "action": "SCMP_ACT_TRAP"}]));
    assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 0]), 128 + 31);
}

fn arguments_are_compared(t: &Ctx) {
    let profile = deny("getpriority", json!([{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]));
    assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 7]), EPERM);
    assert_ne!(errno(t, &profile, GETPRIORITY, &[0, 0]), EPERM);
}

fn every_operator_compares(t: &Ctx) {
    // (operator, value, second value, an argument that matches, one that does not)
    let table = [
        ("SCMP_CMP_EQ", 5, 0, 5, 6),
        ("SCMP_CMP_NE", 5, 0, 6, 5),
        ("SCMP_CMP_LT", 5, 0, 4, 5),
        ("SCMP_CMP_LE", 5, 0, 5, 6),
        ("SCMP_CMP_GT", 5, 0, 6, 5),
        ("SCMP_CMP_GE", 5, 0, 5, 4),
        ("SCMP_CMP_MASKED_EQ", 0xf0, 0x20, 0x2f, 0x3f),
    ];
    for (operator, value, second, hit, miss) in table {
        let condition = json!([{"index": 0, "value": value, "valueTwo": second, "op": operator}]);
        let profile = deny("getsid", condition);
        // getsid of a process that does not exist gives ESRCH.
        assert_eq!(errno(t, &profile, 124, &[hit]), EPERM, "{operator}: {hit} should match");
        assert_eq!(errno(t, &profile, 124, &[miss]), 3, "{operator}: {miss} should not match");
    }
}

fn arguments_of_64_bits_are_compared_whole(t: &Ctx) {
    let value: u64 = 0x1_0000_0005;
    let profile = deny("getsid", json!([{"index": 5, "value": value, "op": "SCMP_CMP_EQ"}]));
    let call = |last: u64| errno(t, &profile, 124, &[9999, 0, 0, 0, 0, last]);
    assert_eq!(call(value), EPERM);
    assert_eq!(call(5), 3);
    assert_eq!(call(0x2_0000_0005), 3);
    let above = deny("getsid", json!([{"index": 5, "value": value, "op": "SCMP_CMP_GT"}]));
    assert_eq!(errno(t, &above, 124, &[9999, 0, 0, 0, 0, 0x2_0000_0000]), EPERM);
    assert_eq!(errno(t, &above, 124, &[9999, 0, 0, 0, 0, 0xffff_ffff]), 3);
}

fn several_conditions_have_to_hold_together(t: &Ctx) {
    let profile = deny(
        "getpriority",
        json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 9999, "op": "SCMP_CMP_EQ"}]),
    );
    assert_eq!(errno(t, &profile, GETPRIORITY, &[1, 9999]), EPERM);
    assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 9999]), 3);
    assert_eq!(errno(t, &profile, GETPRIORITY, &[1, 9998]), 3);
}

fn several_rules_for_one_call_are_alternatives(t: &Ctx) {
    let rule = |value: u64| json!({"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]});
    let profile = profile("SCMP_ACT_ALLOW", json!([rule(8001), rule(8002)]));
    assert_eq!(errno(t, &profile, 124, &[8001]), EPERM);
    assert_eq!(errno(t, &profile, 124, &[8002]), EPERM);
    assert_eq!(errno(t, &profile, 124, &[8003]), 3);
}

fn an_unknown_call_name_is_passed_over(t: &Ctx) {
    let rules = json!([{"names": ["no_such_call", "getpriority"], "action": "SCMP_ACT_ERRNO"}]);
    assert_eq!(errno(t, &profile("SCMP_ACT_ALLOW", rules), GETPRIORITY, &[0, 0]), EPERM);
}

fn refused(t: &Ctx, profile: Value, text: &str) {
    let c = t.container(|c| c.set("/linux/seccomp", profile));
    c.run().refused(text);
}

fn an_unknown_action_is_refused(t: &Ctx) {
    refused(t, profile("SCMP_ACT_NOSUCH", json!([])), "SCMP_ACT_NOSUCH");
}

fn an_unknown_operator_is_refused(t: &Ctx) {
    refused(t, deny("getsid", json!([{"index": 0, "value": 0, "op": "SCMP_CMP_NOSUCH"}])), "SCMP_CMP_NOSUCH");
}

fn an_unknown_architecture_is_refused(t: &Ctx) {
    refused(
        t,
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"], "syscalls": [{"names": ["getsid"], "action": "SCMP_ACT_ERRNO"}]}),
        "SCMP_ARCH_NOSUCH",
    );
}

fn an_argument_index_beyond_five_is_refused(t: &Ctx) {
    refused(t, deny("getsid", json!([{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])), "");
}

fn an_errno_out_of_range_is_refused(t: &Ctx) {
    // The kernel knows 4095 errnos at most; runc lets libseccomp cut the value off.
    refused(
        t,
        profile(
            "SCMP_ACT_ALLOW",
            json!([{"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000}]),
        ),
        "errnoRet",
    );
}

fn calls_newer_than_the_profile_give_enosys(t: &Ctx) {
    // A program asks whether a new call exists by ENOSYS; EPERM would tell it otherwise.
    let c = t.container(|c| {
        c.set("/linux/seccomp", docker(t));
        c.args(&["/call"]);
    });
    program::syscall(&c.rootfs("call"), 1000, &[]);
    assert_eq!(c.run().code, ENOSYS);
}

fn foreign(t: &Ctx, architectures: Value) -> i32 {
    let mut profile = profile("SCMP_ACT_ALLOW", json!([{"names": ["getsid"], "action": "SCMP_ACT_ERRNO"}]));
    profile["architectures"] = architectures;
    let c = t.container(|c| {
        c.set("/linux/seccomp", profile);
        c.args(&["/call"]);
    });
    // getpid in the 32-bit table
    program::syscall_i386(&c.rootfs("call"), 20);
    c.run().code
}

fn a_foreign_architecture_is_kept_out(t: &Ctx) {
    if foreign(t, json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])) != 0 {
        t.skip("this kernel has no 32-bit system calls");
    }
    assert_ne!(foreign(t, json!(["SCMP_ARCH_X86_64"])), 0);
}

fn a_listed_architecture_is_let_in(t: &Ctx) {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]
    });
    assert_eq!(errno(t, &profile, GETPRIORITY, &[0, 0]), 99);
}

fn exec_has_the_filter_too(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/linux/seccomp", deny("personality", json!([])));
    });
    program::syscall(&c.rootfs("call"), PERSONALITY, &[0xffff_ffff]);
    c.up();
    c.exec(&["/call"]).code(EPERM);
    assert_eq!(field(&c.exec(&["cat", "/proc/self/status"]).ok().stdout, "Seccomp"), "2");
}

fn the_filter_does_not_need_no_new_privileges(t: &Ctx) {
    let out = t.sh("cat /proc/self/status", |c| {
        c.set("/process/noNewPrivileges", false);
        c.set("/linux/seccomp", deny("mkdir", json!([])));
    });
    assert_eq!((field(&out, "Seccomp"), field(&out, "NoNewPrivs")), ("2", "0"));
}

fn log_and_trace_actions_are_accepted(t: &Ctx) {
    let log = profile("SCMP_ACT_ALLOW", json!([{"names": ["getpriority"], "action": "SCMP_ACT_LOG"}]));
    assert_eq!(errno(t, &log, GETPRIORITY, &[0, 0]), 0);
    // Without a tracer a traced call gives ENOSYS.
    let trace = profile("SCMP_ACT_ALLOW", json!([{"names": ["getpriority"], "action": "SCMP_ACT_TRACE"}]));
    assert_eq!(errno(t, &trace, GETPRIORITY, &[0, 0]), ENOSYS);
}

/// Debian's copy of Docker's default profile, as Docker hands it to a runtime for a container without capabilities.
fn docker(t: &Ctx) -> Value {
    let path = "/usr/share/containers/seccomp.json";
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|_| t.skip("golang-github-containers-common is not installed"));
    let full: Value = serde_json::from_str(&text).expect("the profile is JSON");
    let applies = |rule: &&Value| {
        let has = |side: &str, key: &str| rule[side][key].as_array().is_some_and(|list| !list.is_empty());
        let amd64 =
            |side: &str| rule[side]["arches"].as_array().is_some_and(|list| list.contains(&json!("amd64")));
        !has("includes", "caps") && (!has("includes", "arches") || amd64("includes")) && !amd64("excludes")
    };
    let rules: Vec<Value> =
        full["syscalls"].as_array().expect("rules").iter().filter(applies).map(plain).collect();
    json!({
        "defaultAction": full["defaultAction"],
        "defaultErrnoRet": full["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// The fields that the runtime-spec knows.
fn plain(rule: &Value) -> Value {
    let mut out = json!({"names": rule["names"], "action": rule["action"]});
    for key in ["errnoRet", "args"] {
        if !rule[key].is_null() && rule[key] != json!([]) {
            out[key] = rule[key].clone();
        }
    }
    out
}

fn dockers_profile_runs_a_shell(t: &Ctx) {
    let profile = docker(t);
    let out = t.sh("echo a | cat; ls / | wc -l; cat /proc/self/status", |c: &mut Config| {
        c.set("/linux/seccomp", profile)
    });
    assert!(out.starts_with("a\n11\n"), "{out}");
    assert_eq!(field(&out, "Seccomp"), "2");
}

fn dockers_profile_denies_what_it_should(t: &Ctx) {
    let profile = docker(t);
    for (name, number) in [("bpf", 321), ("kexec_load", 246), ("chroot", 161)] {
        assert_eq!(errno(t, &profile, number, &[0, 0, 0, 0]), EPERM, "{name}");
    }
    assert_eq!(errno(t, &profile, GETPID, &[]), 0);
}

fn a_listener_receives_the_notify_descriptor(t: &Ctx) {
    let socket = ConsoleSocket::new(t);
    let mut profile =
        profile("SCMP_ACT_ALLOW", json!([{"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}]));
    profile["listenerPath"] = json!(socket.path);
    profile["listenerMetadata"] = json!("the metadata");
    let c = t.container(|c| {
        c.set("/linux/seccomp", profile);
        c.args(&["/call"]);
    });
    program::syscall(&c.rootfs("call"), GETPRIORITY, &[0, 0]);
    let run = c.launch("run", &[]).spawn();
    let (descriptor, text) = socket.receive();
    let state: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "the metadata");
    assert_eq!(state["state"]["id"], json!(c.id));
    assert!(state["pid"].as_i64() > Some(0), "{text}");
    // Nobody listens any more: the kernel answers.
    drop(descriptor);
    assert_eq!(run.finish().code, ENOSYS);
}

fn start_container_hooks_run_under_the_filter(t: &Ctx) {
    for no_new_privileges in [true, false] {
        let c = t.container(|c| {
            c.args(&["true"]);
            c.set("/process/noNewPrivileges", no_new_privileges);
            let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
            c.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
            let hook =
                json!({"path": "/bin/sh", "args": ["sh", "-c", "mkdir /dev/shm/made"], "env": ["PATH=/bin"]});
            c.push("/hooks/startContainer", hook);
        });
        c.run().refused("hook #0");
    }
}

fn a_filter_may_forbid_what_the_runtime_itself_uses(t: &Ctx) {
    let names = ["close_range", "fsopen", "fsconfig", "openat2", "open_tree", "move_mount", "mount_setattr"];
    for no_new_privileges in [true, false] {
        let c = t.container(|c| {
            c.args(&["true"]);
            c.set("/process/noNewPrivileges", no_new_privileges);
            let rule = json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]);
            c.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
        });
        c.run().ok();
    }
}

//! What profiles mean and which are refused, one behaviour a test.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::interpret::{Data, run};
use crate::isolate::seccomp::{Program, compile, unknown_names};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x5_0001;
const ENOSYS: u32 = 0x5_0026;
const KILL: u32 = 0;

const READ: u32 = 0;
const MKDIR: u32 = 83;
const PERSONALITY: u32 = 135;
const FSPICK: u32 = 433;

fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn program(json: Value) -> Program {
    compile(&profile(json)).unwrap()
}

fn ask(program: &Program, arch: u32, nr: u32, first: u64) -> u32 {
    run(&program.filter, &Data { nr, arch, args: [first, 0, 0, 0, 0, 0] }, false).0
}

/// Denies all but `rules`, mentioning a recent call so that older ones are known.
fn denying(mut rules: Vec<Value>) -> Value {
    rules.push(json!({"names": ["fspick"], "action": "SCMP_ACT_LOG"}));
    json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})
}

fn when(op: &str, value: u64) -> Value {
    json!({"index": 0, "op": format!("SCMP_CMP_{op}"), "value": value})
}

#[test]
fn the_native_architecture_needs_no_mention_and_others_do() {
    let rules = json!([{"names": ["mkdir", "fspick"], "action": "SCMP_ACT_ALLOW"}]);
    let native = program(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    assert_eq!(ask(&native, X86_64, MKDIR, 0), ALLOW);
    assert_eq!(ask(&native, X86, 39, 0), KILL);
    assert_eq!(ask(&native, X86_64, MKDIR | 1 << 30, 0), KILL);
    assert_eq!(ask(&native, AARCH64, 34, 0), KILL);
    let all = ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_PARISC"];
    let all = program(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": all, "syscalls": rules}));
    assert_eq!(ask(&all, X86_64, MKDIR, 0), ALLOW);
    assert_eq!(ask(&all, X86, 39, 0), ALLOW);
    assert_eq!(ask(&all, X86_64, MKDIR | 1 << 30, 0), ALLOW);
    assert_eq!(ask(&all, AARCH64, 34, 0), KILL, "none of its programs can run here");
}

#[test]
fn an_errno_is_eperm_unless_told() {
    for (action, errno, expected) in [
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(0), 0x5_0000),
        ("SCMP_ACT_ERRNO", Some(4094), 0x5_0ffe),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_TRACE", Some(65535), 0x7ff0_ffff),
        ("SCMP_ACT_KILL", None, KILL),
        ("SCMP_ACT_KILL_THREAD", None, KILL),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x3_0000),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
    ] {
        let rule = json!({"names": ["mkdir", "fspick"], "action": action, "errnoRet": errno});
        let by_rule = program(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
        assert_eq!(ask(&by_rule, X86_64, MKDIR, 0), expected, "{action} {errno:?}");
        let allowed = json!({"names": ["fspick"], "action": "SCMP_ACT_ALLOW"});
        let default = json!({"defaultAction": action, "defaultErrnoRet": errno, "syscalls": [allowed]});
        assert_eq!(ask(&program(default), X86_64, MKDIR, 0), expected, "{action} {errno:?} by default");
    }
}

#[test]
fn a_rule_without_conditions_wins_wherever_it_stands() {
    let always = json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW"});
    let sometimes = json!({"names": ["personality"], "action": "SCMP_ACT_TRAP", "args": [when("EQ", 7)]});
    let later = json!({"names": ["personality"], "action": "SCMP_ACT_TRAP"});
    for rules in
        [vec![always.clone(), sometimes.clone()], vec![sometimes, always.clone()], vec![always, later]]
    {
        let program = program(denying(rules));
        assert_eq!(ask(&program, X86_64, PERSONALITY, 7), ALLOW);
        assert_eq!(ask(&program, X86_64, PERSONALITY, 8), ALLOW);
    }
}

#[test]
fn a_rule_with_the_default_action_is_no_rule() {
    let same = json!({"names": ["personality"], "action": "SCMP_ACT_ERRNO"});
    let sometimes = json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [when("EQ", 7)]});
    let program = program(denying(vec![same, sometimes]));
    assert_eq!(ask(&program, X86_64, PERSONALITY, 7), ALLOW);
    assert_eq!(ask(&program, X86_64, PERSONALITY, 8), EPERM);
}

#[test]
fn calls_with_the_same_conditions_keep_their_own_actions() {
    const CHDIR: u32 = 80;
    let rule = |name, action| json!({"names": [name], "action": action, "args": [when("EQ", 7)]});
    let both = vec![rule("personality", "SCMP_ACT_TRAP"), rule("chdir", "SCMP_ACT_ALLOW")];
    let program = program(denying(both));
    assert_eq!(ask(&program, X86_64, PERSONALITY, 7), 0x3_0000);
    assert_eq!(ask(&program, X86_64, CHDIR, 7), ALLOW);
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let args = [when("EQ", 1), when("EQ", 1 << 40), json!({"index": 1, "op": "SCMP_CMP_EQ", "value": 5})];
    let program =
        program(denying(vec![json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args})]));
    let ask = |args| run(&program.filter, &Data { nr: PERSONALITY, arch: X86_64, args }, false).0;
    assert_eq!(ask([1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(ask([1 << 40, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(ask([3, 5, 0, 0, 0, 0]), ALLOW);
    assert_eq!(ask([3, 1, 0, 0, 0, 0]), EPERM);
}

#[test]
fn a_rule_that_a_broader_one_made_needless_contradicts_nothing() {
    let second = json!({"index": 1, "op": "SCMP_CMP_EQ", "value": 5});
    let program = program(denying(vec![
        json!({"names": ["personality"], "action": "SCMP_ACT_TRAP", "args": [when("EQ", 7), second]}),
        json!({"names": ["personality"], "action": "SCMP_ACT_TRAP", "args": [second]}),
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [when("EQ", 7)]}),
    ]));
    let ask = |args| run(&program.filter, &Data { nr: PERSONALITY, arch: X86_64, args }, false).0;
    assert_eq!(ask([7, 5, 0, 0, 0, 0]), 0x3_0000);
    assert_eq!(ask([7, 6, 0, 0, 0, 0]), ALLOW);
    assert_eq!(ask([8, 6, 0, 0, 0, 0]), EPERM);
}

#[test]
fn a_call_newer_than_the_profile_is_unknown_and_not_forbidden() {
    let rules = json!([{"names": ["read", "fspick"], "action": "SCMP_ACT_ALLOW"}]);
    for (default, expected) in [
        ("SCMP_ACT_ERRNO", ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", ENOSYS),
        ("SCMP_ACT_TRAP", ENOSYS),
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_LOG", 0x7ffc_0000),
        ("SCMP_ACT_TRACE", 0x7ff0_0001),
    ] {
        let program = program(json!({"defaultAction": default, "syscalls": rules}));
        for nr in [FSPICK + 1, 1000, (1 << 30) - 1] {
            assert_eq!(ask(&program, X86_64, nr, 0), expected, "{default} {nr}");
        }
        assert_ne!(ask(&program, X86_64, MKDIR, 0), ENOSYS, "{default}");
    }
}

#[test]
fn without_a_name_above_zero_no_call_is_unknown() {
    let program = program(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
    ]}));
    assert_eq!(ask(&program, X86_64, READ, 0), ALLOW);
    assert_eq!(ask(&program, X86_64, 1000, 0), EPERM);
}

#[test]
fn unknown_names_are_passed_over_and_told() {
    let rules = vec![json!({"names": ["zzz", "mkdir", "aaa", "zzz"], "action": "SCMP_ACT_ALLOW"})];
    assert_eq!(unknown_names(&profile(denying(rules.clone()))), ["aaa", "zzz"]);
    assert_eq!(ask(&program(denying(rules)), X86_64, MKDIR, 0), ALLOW);
}

#[test]
fn a_profile_gets_the_flags_of_runc() {
    let flags = |flags: Value| {
        let mut profile = denying(vec![]);
        profile["flags"] = flags;
        program(profile).flags
    };
    assert_eq!(flags(Value::Null), 4, "SPEC_ALLOW");
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 0, "one thread has nothing to synchronise");
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 6);
    let mut notify = denying(vec![json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})]);
    notify["listenerPath"] = json!("/run/agent");
    assert_eq!((program(notify.clone()).flags, program(notify.clone()).notify), (12, true));
    notify["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    assert_eq!(program(notify).flags, 40);
}

#[test]
fn a_bad_profile_is_refused_with_the_reason() {
    let rule = |rule: Value| denying(vec![json!({"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}), rule]);
    let default = |action: &str, errno: u32| json!({"defaultAction": action, "defaultErrnoRet": errno});
    let contradiction = |first: Value, second: Value| {
        denying(vec![
            json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": first}),
            json!({"names": ["personality"], "action": "SCMP_ACT_TRAP", "args": second}),
        ])
    };
    let narrow = json!([when("EQ", 7), {"index": 1, "op": "SCMP_CMP_EQ", "value": 5}]);
    let mut killable = denying(vec![]);
    killable["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let many: Vec<_> = (0..1300).map(|n| when("MASKED_EQ", 1 << 40 | n)).collect();
    let more: Vec<_> = (0..4097).map(|n| when("EQ", n)).collect();
    for (profile, message) in [
        (default("SCMP_ACT_NOTIFY", 0), "linux.seccomp.defaultErrnoRet: 0: expected no value"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "SCMP_ACT_NOTIFY cannot be used as default action"),
        (
            default("SCMP_ACT_ALLOW", 1),
            "linux.seccomp.defaultErrnoRet: 1: expected no value: only SCMP_ACT_ERRNO",
        ),
        (default("SCMP_ACT_ERRNO", 4095), "linux.seccomp.defaultErrnoRet: 4095: expected less than 4095"),
        (default("SCMP_ACT_TRACE", 65536), "linux.seccomp.defaultErrnoRet: 65536: expected less than 65536"),
        (
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
            "linux.seccomp.syscalls[1].errnoRet: 1: expected no value",
        ),
        (
            rule(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.syscalls[1]: SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})), "seccomp listenerPath is not set"),
        (
            rule(json!({"names": ["mkdir", ""], "action": "SCMP_ACT_ALLOW"})),
            "linux.seccomp.syscalls[1].names: \"\": expected the name of a system call",
        ),
        (
            rule(json!({"names": ["chdir"], "action": "SCMP_ACT_ALLOW", "args": [
                when("EQ", 1), {"index": 6, "op": "SCMP_CMP_EQ", "value": 1},
            ]})),
            "linux.seccomp.syscalls[1].args[1].index: 6: expected an argument's index, 0 to 5",
        ),
        (
            killable,
            "linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: expected a rule with SCMP_ACT_NOTIFY",
        ),
        (
            contradiction(json!([when("EQ", 7)]), json!([when("EQ", 7)])),
            "linux.seccomp.syscalls[1]: another action for the same call and args: expected that of syscalls[0]",
        ),
        (contradiction(narrow, json!([when("EQ", 7)])), "expected that of syscalls[0]"),
        (
            rule(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": many})),
            "instructions: expected at most 4096",
        ),
        (
            rule(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": more})),
            "linux.seccomp.syscalls[1]: more than 4096 rules with args",
        ),
    ] {
        let error = compile(&self::profile(profile)).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} lacks {message:?}");
        assert!(!error.contains('\n'), "{error:?}");
    }
}

#[test]
fn a_thousand_values_of_an_argument_are_told_apart() {
    let values: Vec<_> = (0..1000).map(|n| when("EQ", n * 0x1_0001_0003)).collect();
    let program =
        program(denying(vec![json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": values})]));
    assert!(program.filter.len() > 2000);
    for n in 0..1000 {
        let value = n * 0x1_0001_0003;
        assert_eq!(ask(&program, X86_64, PERSONALITY, value), ALLOW);
        assert_eq!(ask(&program, X86_64, PERSONALITY, value + 1), EPERM);
        assert_eq!(ask(&program, X86_64, PERSONALITY, value.wrapping_sub(1)), EPERM);
        assert_eq!(ask(&program, X86_64, PERSONALITY, value ^ 1 << 33), EPERM);
    }
    assert_eq!(ask(&program, X86_64, FSPICK, 0), 0x7ffc_0000);
}

#[test]
fn a_program_is_the_same_each_time_and_after_sending() {
    let profile = super::kernel::fixture("docker");
    let program = compile(&profile).unwrap();
    assert_eq!(program, compile(&profile).unwrap());
    let sent = postcard::to_stdvec(&program).unwrap();
    assert!(sent.len() < 6 * program.filter.len(), "{} bytes", sent.len());
    assert_eq!(program, postcard::from_bytes(&sent).unwrap());
}

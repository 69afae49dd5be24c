//! A seccomp profile is refused, or becomes a filter that the kernel takes and whose every answer is in the profile.
#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use hearth::isolate::seccomp::{Insn, Program, compile, unknown_names};
use hearth::sys::clone::{Request, exit_now, spawn};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
struct Profile {
    default: u8,
    errno: Option<u16>,
    architectures: Vec<u8>,
    rules: Vec<Rule>,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
struct Rule {
    names: Vec<u16>,
    action: u8,
    errno: Option<u16>,
    args: Vec<(u8, u64, u64, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Call {
    number: u16,
    x32: bool,
    foreign: bool,
    args: [u64; 6],
}

const ACTIONS: [(&str, u32); 8] = [
    ("SCMP_ACT_KILL_THREAD", 0),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_TRAP", 0x3_0000),
    ("SCMP_ACT_ERRNO", 0x5_0000),
    ("SCMP_ACT_NOTIFY", 0x7fc0_0000),
    ("SCMP_ACT_TRACE", 0x7ff0_0000),
    ("SCMP_ACT_LOG", 0x7ffc_0000),
    ("SCMP_ACT_ALLOW", 0x7fff_0000),
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const ARCHITECTURES: [&str; 4] =
    ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"];

/// Those of Docker's profile, and one that no kernel has.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let profile: Value = serde_json::from_str(include_str!("../../fixtures/seccomp/docker.json")).unwrap();
    let names = profile["syscalls"].as_array().into_iter().flatten();
    let names = names.flat_map(|rule| rule["names"].as_array().into_iter().flatten());
    let names: BTreeSet<String> = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
    names.into_iter().chain(["no_such_call".to_owned()]).collect()
});

fn pick<T: Copy>(list: &[T], index: u8) -> T {
    list[usize::from(index) % list.len()]
}

impl Profile {
    fn json(&self) -> Value {
        let rule = |rule: &Rule| {
            let name = |index: &u16| NAMES[usize::from(*index) % NAMES.len()].as_str();
            let arg = |(index, value, two, op): &(u8, u64, u64, u8)| {
                json!({"index": index % 8, "value": value, "valueTwo": two, "op": pick(&OPERATORS, *op)})
            };
            json!({
                "names": rule.names.iter().map(name).collect::<Vec<_>>(),
                "action": pick(&ACTIONS, rule.action).0,
                "errnoRet": rule.errno,
                "args": rule.args.iter().map(arg).collect::<Vec<_>>(),
            })
        };
        json!({
            "defaultAction": pick(&ACTIONS, self.default).0,
            "defaultErrnoRet": self.errno,
            "architectures": self.architectures.iter().map(|a| pick(&ARCHITECTURES, *a)).collect::<Vec<_>>(),
            "listenerPath": "/run/agent.sock",
            "syscalls": self.rules.iter().map(rule).collect::<Vec<_>>(),
        })
    }

    /// All that the profile may say; to kill what is of another architecture and ENOSYS are always among it.
    fn answers(&self) -> BTreeSet<u32> {
        let answer = |action: u8, errno: Option<u16>| {
            let (name, value) = pick(&ACTIONS, action);
            let data = matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
            value | if data { u32::from(errno.unwrap_or(1)) } else { 0 }
        };
        let rules = self.rules.iter().map(|rule| answer(rule.action, rule.errno));
        rules.chain([answer(self.default, self.errno), 0, 0x8000_0000, 0x5_0026]).collect()
    }
}

fuzz_target!(|profile: Profile| {
    let json = profile.json();
    let parsed: LinuxSeccomp = hearth_rootfs::json::from_value(&json).expect("well-formed");
    let _ = unknown_names(&parsed);
    let Ok(program) = compile(&parsed) else { return };
    assert_eq!(compile(&parsed).expect("as before"), program);
    let answers = profile.answers();
    for call in &profile.calls {
        let answer = run(&program.filter, call);
        assert!(answers.contains(&answer), "{call:x?}: {answer:#x}: {json}");
    }
    // A filter that notifies would have the child wait for itself.
    if !program.notify && profile.calls.len() % 8 == 1 {
        loads(&program, &json);
    }
});

/// Runs a filter as the kernel would.
fn run(filter: &[Insn], call: &Call) -> u32 {
    let number = u32::from(call.number % 1024) | if call.x32 { 1 << 30 } else { 0 };
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let Insn { code, jt, jf, k } = filter[at];
        at += 1;
        let mut jump = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            0x20 => {
                a = match k {
                    0 => number,
                    4 => if call.foreign { 0x4000_0003 } else { 0xc000_003e },
                    16..64 => (call.args[(k as usize - 16) / 8] >> (8 * (k % 8))) as u32,
                    other => panic!("load at {other}"),
                }
            }
            0x54 => a &= k,
            0x06 => return k,
            0x05 => at += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x45 => jump(a & k != 0),
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// A child that could load it may end in any way but by this status.
fn loads(program: &Program, json: &Value) {
    const REFUSED: u8 = 99;
    let child = spawn(Request::default(), || {
        let _ = rustix::thread::set_no_new_privs(true);
        let refused = program.load().is_err();
        exit_now(if refused { REFUSED } else { 0 })
    });
    let pid = child.unwrap().pid;
    let status = loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {} // the fuzzer's clock
            result => break result.unwrap(),
        }
    };
    assert_ne!(status.and_then(|status| status.exit_status()), Some(i32::from(REFUSED)), "{json}");
}

//! The filter that runc really loads, read back from the kernel.

use std::path::Path;
use std::process::{Command, Output};

use libseccomp::ScmpSyscall;
use oci_spec::runtime::LinuxSeccomp;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::interpret::{Data, run};
use super::{kernel, profiles};
use crate::isolate::seccomp::{Insn, compile};
use crate::sys::seccomp::filter_of;

fn runc(dir: &Path, args: &[&str]) -> Output {
    let runtime = std::env::var("HEARTH_TEST_RUNC").unwrap_or_else(|_| "runc".into());
    let mut command = Command::new(runtime);
    command.arg("--root").arg(dir.join("state")).args(args).current_dir(dir);
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

/// Runs busybox's sleep under the profile and reads its filter.
fn loaded(profile: &LinuxSeccomp) -> Vec<Insn> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("rootfs");
    std::fs::create_dir(&root).unwrap();
    std::fs::copy("/bin/busybox", root.join("sleep")).unwrap();
    assert!(runc(dir.path(), &["spec"]).status.success());
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["args"] = json!(["/sleep", "1000"]);
    config["process"]["terminal"] = json!(false);
    config["linux"]["seccomp"] = serde_json::to_value(profile).unwrap();
    std::fs::write(&path, config.to_string()).unwrap();
    let id = format!("hearth-seccomp-{}", std::process::id());
    // Its own pipes would stay open in the container, so the output goes to a file.
    let log = dir.path().join("log");
    let started = Command::new("sh")
        .args(["-c", r#"exec "$0" --root state --log log run -d "$1" >/dev/null 2>&1 </dev/null"#])
        .arg(std::env::var("HEARTH_TEST_RUNC").unwrap_or_else(|_| "runc".into()))
        .arg(&id)
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(started.success(), "{}", std::fs::read_to_string(log).unwrap_or_default());
    let state: Value = serde_json::from_slice(&runc(dir.path(), &["state", &id]).stdout).unwrap();
    let filter = filter_of(state["pid"].as_i64().unwrap().try_into().unwrap());
    assert!(runc(dir.path(), &["delete", "--force", &id]).status.success());
    filter.unwrap()
}

fn nasty() -> LinuxSeccomp {
    let arg = |index: u32, op: &str, value: u64| json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value});
    let masked = json!({"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0xff_0000_00ff_u64, "valueTwo": 5});
    serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_LOG",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": [],
        "syscalls": [
            {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [arg(1, "GE", 5 << 32), arg(2, "NE", 1)]},
            {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": [arg(0, "EQ", 1), arg(0, "EQ", 5)]},
            {"names": ["socket", "semop"], "action": "SCMP_ACT_TRAP", "args": [masked]},
            {"names": ["accept4"], "action": "SCMP_ACT_KILL_PROCESS", "args": [arg(0, "LE", 5)]},
            {"names": ["accept4"], "action": "SCMP_ACT_TRACE", "errnoRet": 100, "args": [arg(1, "EQ", 5)]},
            {"names": ["clone3", "no_such_call", "umount", "arm_fadvise64_64"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["ipc"], "action": "SCMP_ACT_ERRNO", "args": [arg(0, "GT", 0x10_0000_0000), arg(3, "LT", 2)]},
            {"names": ["chroot"], "action": "SCMP_ACT_LOG"},
        ],
    }))
    .unwrap()
}

/// The profile without the calls that the libseccomp under runc lacks, or lacks on x32.
fn without_news(mut profile: LinuxSeccomp) -> LinuxSeccomp {
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    for rule in &mut rules {
        let names = rule
            .names()
            .iter()
            .filter(|name| ScmpSyscall::from_name(name).is_ok() && *name != "map_shadow_stack");
        rule.set_names(names.cloned().collect());
    }
    profile.set_syscalls(Some(rules));
    profile
}

/// `HEARTH_TEST_RUNC=PATH cargo test -p hearth --lib -- --ignored runc` judges by another runc.
#[test]
#[ignore = "needs root, runc and busybox-static"]
fn programs_answer_as_the_one_that_runc_loads() {
    let mut runner = TestRunner::deterministic();
    let mut random = || profiles::call().new_tree(&mut runner).unwrap().current();
    for (name, profile) in
        [("docker", kernel::fixture("docker")), ("podman", kernel::fixture("podman")), ("nasty", nasty())]
    {
        let profile = without_news(profile);
        let (ours, theirs) = (compile(&profile).unwrap().filter, loaded(&profile));
        let every = (0..1200).chain(1 << 30..(1 << 30) + 1200).chain([1 << 31, 3 << 30, u32::MAX]);
        let every = every.flat_map(|nr| [0xc000_003e, 0x4000_0003, 0xc000_00b7].map(|arch| (nr, arch)));
        let mut calls: Vec<_> = every.map(|(nr, arch)| Data { nr, arch, args: random().args }).collect();
        calls.extend((0..20_000).map(|_| random()));
        // libseccomp enters names that an architecture lacks under pseudo numbers at the end.
        for call in calls.into_iter().filter(|call| !(0xffff_0000..u32::MAX).contains(&call.nr)) {
            let (answer, expected) = (run(&ours, &call, false).0, run(&theirs, &call, false).0);
            assert_eq!(answer, expected, "{name}: {call:x?}: {answer:#x}, runc {expected:#x}");
        }
    }
}

//! The five capability sets.

use hearth_tests::container::field;
use hearth_tests::{Config, Ctx, cases, json};

cases! {
    settled:
        the_sets_are_the_configs,
        no_capabilities_leave_none,
        the_bounding_set_limits_what_exec_regains,
        ambient_capabilities_survive_for_an_ordinary_user,
        inheritable_ones_are_empty_unless_asked_for,
        an_unknown_capability_warns_only,
        an_ordinary_user_loses_what_is_not_ambient,
        capabilities_are_enforced,
        the_whole_bounding_set_can_be_given;
    hearth:
        a_capability_that_the_runtime_lacks_warns_only;
}

fn status(t: &Ctx, edit: impl FnOnce(&mut Config)) -> String {
    let c = t.container(|c| {
        c.args(&["cat", "/proc/self/status"]);
        edit(c);
    });
    c.run().ok().stdout
}

fn bits(status: &str, set: &str) -> u64 {
    u64::from_str_radix(field(status, set), 16).expect("hexadecimal")
}

const KILL: u64 = 1 << 5;
const CHOWN: u64 = 1;
const NET_RAW: u64 = 1 << 13;

fn the_sets_are_the_configs(t: &Ctx) {
    let out = status(t, |c| {
        c.set(
            "/process/capabilities",
            json!({
                "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
                "effective": ["CAP_KILL"],
                "permitted": ["CAP_KILL", "CAP_CHOWN"],
                "inheritable": ["CAP_KILL"],
                "ambient": ["CAP_KILL"]
            }),
        );
        // An exec of uid 0 fills the sets up from the bounding set; any other user's keeps what is ambient.
        c.set("/process/user/uid", 1000);
    });
    assert_eq!(bits(&out, "CapBnd"), KILL | CHOWN | NET_RAW);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(bits(&out, set), KILL, "{set}");
    }
}

fn no_capabilities_leave_none(t: &Ctx) {
    for value in [json!({}), json!({"bounding": [], "effective": [], "permitted": []})] {
        let out = status(t, |c| c.set("/process/capabilities", value));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(bits(&out, set), 0, "{set}");
        }
    }
}

fn the_bounding_set_limits_what_exec_regains(t: &Ctx) {
    let out = status(t, |c| {
        c.set("/process/capabilities", json!({"bounding": ["CAP_CHOWN"], "effective": [], "permitted": []}));
        c.set("/process/noNewPrivileges", false);
    });
    assert_eq!(bits(&out, "CapEff"), CHOWN);
}

fn ambient_capabilities_survive_for_an_ordinary_user(t: &Ctx) {
    let names = json!(["CAP_NET_RAW"]);
    let out = status(t, |c| {
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            c.set(&format!("/process/capabilities/{set}"), names.clone());
        }
        c.set("/process/user/uid", 1000);
    });
    assert_eq!((bits(&out, "CapEff"), bits(&out, "CapAmb")), (NET_RAW, NET_RAW));
}

fn inheritable_ones_are_empty_unless_asked_for(t: &Ctx) {
    let out = status(t, |_| {});
    assert_eq!((bits(&out, "CapInh"), bits(&out, "CapAmb")), (0, 0));
}

fn an_unknown_capability_warns_only(t: &Ctx) {
    let c = t.container(|c| {
        c.capabilities(&["CAP_KILL", "CAP_NO_SUCH_THING"]);
        c.args(&["cat", "/proc/self/status"]);
    });
    let out = c.run().ok();
    assert_eq!(bits(&out.stdout, "CapBnd"), KILL);
    assert!(out.stderr.contains("CAP_NO_SUCH_THING"), "no warning: {out:?}");
}

fn an_ordinary_user_loses_what_is_not_ambient(t: &Ctx) {
    let out = status(t, |c| c.set("/process/user/uid", 1000));
    assert_eq!((bits(&out, "CapPrm"), bits(&out, "CapEff")), (0, 0));
    assert_ne!(bits(&out, "CapBnd"), 0);
}

fn capabilities_are_enforced(t: &Ctx) {
    let chown = |names: &[&str]| {
        t.run_sh("touch /tmp/f && chown 1000 /tmp/f", |c| {
            c.capabilities(names);
            c.mount("/tmp", "tmpfs", "tmpfs", &[]);
        })
    };
    chown(&["CAP_CHOWN"]).ok();
    let out = chown(&["CAP_KILL"]);
    assert!(out.code != 0 && out.stderr.contains("Operation not permitted"), "{out:?}");
}

fn the_whole_bounding_set_can_be_given(t: &Ctx) {
    let own = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let names: Vec<&str> = NAMES
        .iter()
        .enumerate()
        .filter(|(n, _)| bits(&own, "CapBnd") & (1 << n) != 0)
        .map(|(_, name)| *name)
        .collect();
    let out = status(t, |c| c.capabilities(&names));
    assert_eq!(bits(&out, "CapBnd"), bits(&own, "CapBnd") & ((1 << NAMES.len()) - 1));
}

const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The spec asks for it (config.md, "capabilities"); runc fails.
fn a_capability_that_the_runtime_lacks_warns_only(t: &Ctx) {
    t.needs_tool("setpriv");
    let c = t.container(|c| {
        c.capabilities(&["CAP_KILL", "CAP_SYS_TIME"]);
        c.args(&["cat", "/proc/self/status"]);
    });
    let out = c.launch("run", &[]).wrap(&["setpriv", "--bounding-set=-sys_time"]).run().ok();
    assert_eq!(bits(&out.stdout, "CapEff"), KILL);
    assert!(out.stderr.contains("CAP_SYS_TIME"), "no warning: {out:?}");
}

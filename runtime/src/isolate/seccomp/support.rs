//! What `features` tells about seccomp.

use oci_spec::runtime::LinuxSeccompFilterFlag as Flag;

use super::profile::{NEW_LISTENER, WAIT_KILLABLE_RECV, bit};
use crate::sys::seccomp::{knows_action, knows_flags};

pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const ACTIONS: [(&str, u32); 9] = [
    ("SCMP_ACT_ALLOW", libc::SECCOMP_RET_ALLOW),
    ("SCMP_ACT_ERRNO", libc::SECCOMP_RET_ERRNO),
    ("SCMP_ACT_KILL", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", libc::SECCOMP_RET_KILL_PROCESS),
    ("SCMP_ACT_KILL_THREAD", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG),
    ("SCMP_ACT_NOTIFY", libc::SECCOMP_RET_USER_NOTIF),
    ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE),
    ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP),
];

const FLAGS: [Flag; 4] = [
    Flag::SeccompFilterFlagTsync,
    Flag::SeccompFilterFlagSpecAllow,
    Flag::SeccompFilterFlagLog,
    Flag::SeccompFilterFlagWaitKillableRecv,
];

/// The actions that this kernel has.
pub fn actions() -> Vec<&'static str> {
    ACTIONS.iter().filter(|(_, action)| knows_action(*action)).map(|(name, _)| *name).collect()
}

/// The flags that profiles may name.
pub fn known_flags() -> Vec<String> {
    FLAGS.iter().map(Flag::to_string).collect()
}

/// The flags that this kernel has, or that need nothing of it.
pub fn supported_flags() -> Vec<String> {
    let supported = |flag: &&Flag| match bit(**flag) {
        WAIT_KILLABLE_RECV => knows_flags(WAIT_KILLABLE_RECV | NEW_LISTENER),
        bit => knows_flags(bit),
    };
    FLAGS.iter().filter(supported).map(Flag::to_string).collect()
}

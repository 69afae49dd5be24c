//! Reads the profile of a config.json: what is wrong with it is found here, and named.

use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as SpecOperator, LinuxSyscall,
};

use super::MAX_INSNS;
use super::arguments::{Condition, Operator};
use super::names::{Arch, Call};
use crate::{Error, Result};

/// The kernel answers with this errno for every larger one; libseccomp refuses it as well.
const ERRNO_LIMIT: u32 = 4095;
const EPERM: u32 = 1;

/// One rule for one call, still the same for every architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) call: Call,
    /// `SECCOMP_RET_*` with its data.
    pub(super) answer: u32,
    pub(super) conditions: &'a [Condition],
    /// The index in `linux.seccomp.syscalls`.
    pub(super) index: usize,
}

/// What an action and its errno become.
pub(super) fn answer(field: &str, action: Action, errno: Option<u32>) -> Result<u32> {
    let (answer, limit) = match action {
        Action::ScmpActErrno => (libc::SECCOMP_RET_ERRNO, ERRNO_LIMIT),
        Action::ScmpActTrace => (libc::SECCOMP_RET_TRACE, 1 << 16),
        other => {
            let none = "no value: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take one";
            return match errno {
                Some(errno) => Err(Error::invalid(field, errno.to_string(), none)),
                None => Ok(plain(other)),
            };
        }
    };
    match errno.unwrap_or(EPERM) {
        errno if errno < limit => Ok(answer | errno),
        errno => Err(Error::invalid(field, errno.to_string(), format!("less than {limit}"))),
    }
}

fn plain(action: Action) -> u32 {
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO,
        Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        Action::ScmpActTrace => libc::SECCOMP_RET_TRACE,
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    }
}

pub(super) const SPEC_ALLOW: u32 = 1 << 2;
pub(super) const NEW_LISTENER: u32 = 1 << 3;
pub(super) const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The flag's bit for seccomp(2). TSYNC means nothing to a process that has one thread.
pub(super) fn bit(flag: Flag) -> u32 {
    match flag {
        Flag::SeccompFilterFlagTsync => 0,
        Flag::SeccompFilterFlagLog => 1 << 1,
        Flag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
        Flag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
    }
}

/// All flags for seccomp(2). A profile without the field gets SPEC_ALLOW, as with runc.
pub(super) fn flags(profile: &LinuxSeccomp, notify: bool) -> Result<u32> {
    let listed = profile
        .flags()
        .as_ref()
        .map_or(SPEC_ALLOW, |flags| flags.iter().fold(0, |all, flag| all | bit(*flag)));
    if listed & WAIT_KILLABLE_RECV != 0 && !notify {
        let value = Flag::SeccompFilterFlagWaitKillableRecv.to_string();
        return Err(Error::invalid("linux.seccomp.flags", value, "a rule with SCMP_ACT_NOTIFY beside it"));
    }
    Ok(listed | if notify { NEW_LISTENER } else { 0 })
}

/// Whether a listener is to be told of calls; if so, whether it can be.
pub(super) fn notifies(profile: &LinuxSeccomp) -> Result<bool> {
    if profile.default_action() == Action::ScmpActNotify {
        let value = "SCMP_ACT_NOTIFY cannot be used as default action";
        return Err(Error::invalid("linux.seccomp.defaultAction", value, "another action"));
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut notifies = rules.iter().enumerate().filter(|(_, rule)| rule.action() == Action::ScmpActNotify);
    // runc's init tells its parent about the listener by write(2). Ours does without, but a profile that runs here
    // should run there.
    if let Some((index, _)) =
        notifies.clone().find(|(_, rule)| rule.names().iter().any(|name| name == "write"))
    {
        let value = "SCMP_ACT_NOTIFY cannot be used for the write syscall";
        return Err(Error::invalid(format!("linux.seccomp.syscalls[{index}]"), value, "another action"));
    }
    let any = notifies.any(|(_, rule)| !rule.names().is_empty());
    if any && profile.listener_path().as_ref().is_none_or(|path| path.as_os_str().is_empty()) {
        let expected = "a socket's path, as a rule has SCMP_ACT_NOTIFY (seccomp listenerPath is not set)";
        return Err(Error::invalid("linux.seccomp.listenerPath", "none", expected));
    }
    Ok(any)
}

/// Which of the host's architectures the profile lets in: the native one always.
pub(super) fn architectures(profile: &LinuxSeccomp, host: &[Arch]) -> Vec<Arch> {
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let named = |arch| listed.iter().any(|listed| known(*listed) == Some(arch));
    host.iter().enumerate().filter(|(n, arch)| *n == 0 || named(**arch)).map(|(_, arch)| *arch).collect()
}

fn known(arch: SpecArch) -> Option<Arch> {
    match arch {
        SpecArch::ScmpArchX86_64 => Some(Arch::X86_64),
        SpecArch::ScmpArchX86 => Some(Arch::X86),
        SpecArch::ScmpArchX32 => Some(Arch::X32),
        SpecArch::ScmpArchAarch64 => Some(Arch::Aarch64),
        SpecArch::ScmpArchArm => Some(Arch::Arm),
        SpecArch::ScmpArchRiscv64 => Some(Arch::Riscv64),
        SpecArch::ScmpArchPpc64le => Some(Arch::Ppc64le),
        SpecArch::ScmpArchS390x => Some(Arch::S390x),
        // Either the native architecture, which needs no mention, or one whose programs cannot run here.
        _ => None,
    }
}

/// One entry for each known name and each of its lists of conditions.
pub(super) fn entries<'a>(
    profile: &'a LinuxSeccomp,
    conditions: &'a [Vec<Vec<Condition>>],
) -> Result<Vec<Entry<'a>>> {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut entries = Vec::with_capacity(rules.iter().map(|rule| rule.names().len()).sum());
    let mut conditional = 0;
    for ((index, rule), lists) in rules.iter().enumerate().zip(conditions) {
        let field = || format!("linux.seccomp.syscalls[{index}]");
        let answer = match (rule.action(), rule.errno_ret()) {
            (action, None) => answer("", action, None)?,
            (action, errno) => answer(&format!("{}.errnoRet", field()), action, errno)?,
        };
        if rule.names().iter().any(String::is_empty) {
            return Err(Error::invalid(format!("{}.names", field()), "\"\"", "the name of a system call"));
        }
        for call in rule.names().iter().filter_map(|name| Call::named(name)) {
            entries.extend(lists.iter().map(|conditions| Entry { call, answer, conditions, index }));
            conditional += lists.iter().filter(|list| !list.is_empty()).count();
        }
        if conditional > MAX_INSNS {
            let value = format!("more than {MAX_INSNS} rules with args");
            return Err(Error::invalid(
                field(),
                value,
                format!("as many as {MAX_INSNS} instructions can hold"),
            ));
        }
    }
    Ok(entries)
}

/// What a rule asks of the arguments: the rule holds if all conditions of any of the lists do.
pub(super) fn conditions(index: usize, rule: &LinuxSyscall) -> Result<Vec<Vec<Condition>>> {
    let args = rule.args().as_deref().unwrap_or_default();
    let mut conditions = Vec::with_capacity(args.len());
    for (n, arg) in args.iter().enumerate() {
        conditions.push(condition(arg).ok_or_else(|| {
            let field = format!("linux.seccomp.syscalls[{index}].args[{n}].index");
            Error::invalid(field, arg.index().to_string(), "an argument's index, 0 to 5")
        })?);
    }
    conditions.sort_by_key(|condition| condition.argument);
    let repeated = conditions.windows(2).any(|pair| pair[0].argument == pair[1].argument);
    // Conditions on one argument have always meant "any of them" to runc, and then all of the rule's do.
    Ok(if repeated {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    })
}

fn condition(arg: &LinuxSeccompArg) -> Option<Condition> {
    let argument = u8::try_from(arg.index()).ok().filter(|argument| *argument < 6)?;
    let (operator, mask) = match arg.op() {
        SpecOperator::ScmpCmpNe => (Operator::NotEqual, None),
        SpecOperator::ScmpCmpLt => (Operator::Less, None),
        SpecOperator::ScmpCmpLe => (Operator::LessEqual, None),
        SpecOperator::ScmpCmpEq => (Operator::Equal, None),
        SpecOperator::ScmpCmpGe => (Operator::GreaterEqual, None),
        SpecOperator::ScmpCmpGt => (Operator::Greater, None),
        SpecOperator::ScmpCmpMaskedEq => (Operator::Equal, Some(arg.value())),
    };
    let value = mask.map_or(arg.value(), |mask| arg.value_two().unwrap_or(0) & mask);
    Some(Condition { argument, operator, mask, value })
}

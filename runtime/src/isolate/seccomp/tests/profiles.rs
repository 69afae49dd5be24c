//! Random profiles and calls, chosen so that rules and calls meet.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompFilterFlag, LinuxSeccompOperator as Operator, LinuxSyscall,
    LinuxSyscallBuilder,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::interpret::Data;

pub(super) const NAMES: &[&str] = &[
    "read",
    "write",
    "open",
    "close",
    "ioctl",
    "fork",
    "clone",
    "clone3",
    "personality",
    "socket",
    "accept",
    "accept4",
    "sendmsg",
    "recv",
    "send",
    "semop",
    "semtimedop",
    "shmctl",
    "socketcall",
    "ipc",
    "mmap2",
    "mmap",
    "set_tls",
    "clock_gettime64",
    "statx",
    "openat2",
    "rt_sigaction",
    "arch_prctl",
    "modify_ldt",
    "execveat",
    "_llseek",
    "umount",
    "umount2",
    "io_uring_setup",
    "restart_syscall",
    "exit_group",
    "futex",
    "kexec_load",
    "swapcontext",
    "s390_runtime_instr",
    "arm_fadvise64_64",
    "cacheflush",
    "faccessat2",
    "no_such_call",
];

pub(super) const ARCHES: &[Arch] = &[
    Arch::ScmpArchX86_64,
    Arch::ScmpArchX86,
    Arch::ScmpArchX32,
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchMips,
];

pub(super) const OPERATORS: &[Operator] = &[
    Operator::ScmpCmpNe,
    Operator::ScmpCmpLt,
    Operator::ScmpCmpLe,
    Operator::ScmpCmpEq,
    Operator::ScmpCmpGe,
    Operator::ScmpCmpGt,
    Operator::ScmpCmpMaskedEq,
];

/// An action with the errno it takes.
pub(super) fn action() -> impl Strategy<Value = (Action, Option<u32>)> {
    let plain = select(
        &[
            Action::ScmpActKill,
            Action::ScmpActKillThread,
            Action::ScmpActKillProcess,
            Action::ScmpActTrap,
            Action::ScmpActLog,
            Action::ScmpActAllow,
            Action::ScmpActAllow,
            Action::ScmpActErrno,
        ][..],
    );
    let errno = select(&[Action::ScmpActErrno, Action::ScmpActTrace][..]);
    prop_oneof![
        3 => plain.prop_map(|action| (action, None)),
        2 => (errno, select(&[1_u32, 13, 38, 100][..])).prop_map(|(action, errno)| (action, Some(errno))),
    ]
}

pub(super) fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => select(&[0, 1, 2, 5, 0xff, 0x7e02_0000, 0xffff_ffff, 1 << 32, (1 << 32) + 5, 5 << 32, u64::MAX][..]),
        1 => 0..16_u64,
        1 => any::<u64>(),
    ]
}

pub(super) fn condition(operators: &'static [Operator]) -> impl Strategy<Value = LinuxSeccompArg> {
    condition_on(0..4_usize, operators, value(), value())
}

fn condition_on(
    index: impl Strategy<Value = usize>,
    operators: &'static [Operator],
    value: impl Strategy<Value = u64>,
    mask: impl Strategy<Value = u64>,
) -> impl Strategy<Value = LinuxSeccompArg> {
    (index, select(operators), value, mask).prop_map(|(index, op, value, mask)| {
        let arg = LinuxSeccompArgBuilder::default().index(index).op(op);
        if op == Operator::ScmpCmpMaskedEq {
            arg.value(mask).value_two(value).build().unwrap()
        } else {
            arg.value(value).build().unwrap()
        }
    })
}

pub(super) fn rule(
    action: impl Strategy<Value = (Action, Option<u32>)>,
    args: impl Strategy<Value = Vec<LinuxSeccompArg>>,
    names: usize,
) -> impl Strategy<Value = LinuxSyscall> {
    (action, args, prop::collection::vec(select(NAMES), 1..=names)).prop_map(
        |((action, errno), args, names)| {
            let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
            let mut rule =
                LinuxSyscallBuilder::default().names(names).action(action).args(args).build().unwrap();
            rule.set_errno_ret(errno);
            rule
        },
    )
}

pub(super) fn profile(
    rules: impl Strategy<Value = Vec<LinuxSyscall>>,
) -> impl Strategy<Value = LinuxSeccomp> {
    let arches = prop::sample::subsequence(ARCHES, 0..=ARCHES.len());
    (action(), arches, rules).prop_map(|((default, errno), arches, rules)| {
        let flags: Vec<LinuxSeccompFilterFlag> = vec![];
        let mut profile = LinuxSeccompBuilder::default()
            .default_action(default)
            .architectures(arches)
            .flags(flags)
            .syscalls(rules)
            .build()
            .unwrap();
        profile.set_default_errno_ret(errno);
        profile
    })
}

/// Rules of every kind at once.
pub(super) fn any_profile() -> impl Strategy<Value = LinuxSeccomp> {
    let args = prop_oneof![2 => Just(vec![]), 3 => prop::collection::vec(condition(OPERATORS), 1..4)];
    profile(prop::collection::vec(rule(action(), args, 6), 0..12))
}

const CROWD: &[u64] = &[1, 5, 6, 0xff, 1 << 32, (1 << 32) + 5, (1 << 32) + 0xff];
/// libseccomp goes wrong where half of a mask is empty.
const MASKS: &[u64] = &[(1 << 32) + 1, (1 << 32) + 5, (5 << 32) + 0xff, u64::MAX];

/// Some rules for personality(2) alone, whose conditions overlap, but none of which covers another: what libseccomp
/// makes of those depends on accidents.
pub(super) fn crowd(
    operators: &'static [Operator],
    conditions: usize,
) -> impl Strategy<Value = LinuxSeccomp> {
    let args = prop::collection::vec(
        condition_on(0..2_usize, operators, select(CROWD), select(MASKS)),
        1..=conditions,
    );
    let rules = prop::collection::vec((action(), args), 2..6).prop_map(|rules| {
        let rule = |((action, errno), args)| {
            let names = vec!["personality".to_owned()];
            let mut rule = LinuxSyscallBuilder::default()
                .names(names)
                .action(action)
                .args::<Vec<_>>(args)
                .build()
                .unwrap();
            rule.set_errno_ret(errno);
            rule
        };
        rules.into_iter().map(rule).collect::<Vec<_>>()
    });
    let rules = rules.prop_filter("covered", |rules| {
        let lists: Vec<_> = rules.iter().flat_map(alternatives).collect();
        let covers = |a: &[_], b: &[_]| a.iter().all(|condition| b.contains(condition));
        !(0..lists.len()).any(|a| (0..lists.len()).any(|b| a != b && covers(&lists[a], &lists[b])))
    });
    profile(rules).prop_map(|mut profile| {
        profile.set_architectures(Some(vec![Arch::ScmpArchX86]));
        profile
    })
}

/// The rule's lists of conditions, as x86 sees them.
fn alternatives(rule: &LinuxSyscall) -> Vec<Vec<(usize, Operator, u64, u64)>> {
    let low = |value: u64| value & 0xffff_ffff;
    let condition = |arg: &LinuxSeccompArg| {
        (arg.index(), arg.op(), low(arg.value()), low(arg.value_two().unwrap_or(0) & arg.value()))
    };
    let args: Vec<_> = rule.args().iter().flatten().map(condition).collect();
    match args[..] {
        [a, b] if a.0 == b.0 => vec![vec![a], vec![b]],
        _ => vec![args],
    }
}

/// personality(2) on x86_64 or x86, with arguments that meet the crowd's.
pub(super) fn crowd_call() -> impl Strategy<Value = Data> {
    let value = || (select(CROWD), 0..2_u64).prop_map(|(value, more)| value - more);
    let call = select(&[(0xc000_003e, 135), (0x4000_0003, 136)][..]);
    (call, value(), value()).prop_map(|((arch, nr), a, b)| Data { nr, arch, args: [a, b, 0, 0, 0, 0] })
}

/// So many rules that jumps get long; all with one action, so that they don't contradict each other.
pub(super) fn large_profile() -> impl Strategy<Value = LinuxSeccomp> {
    let action = Just((Action::ScmpActErrno, Some(77)));
    profile(prop::collection::vec(rule(action, prop::collection::vec(condition(OPERATORS), 1..4), 8), 30..80))
}

/// A call, most of them of a kind and number that profiles mention.
pub(super) fn call() -> impl Strategy<Value = Data> {
    const AUDIT: &[u32] = &[
        0xc000_003e,
        0xc000_003e,
        0xc000_003e,
        0x4000_0003,
        0xc000_00b7,
        0x4000_0028,
        0xc000_00f3,
        0xc000_0015,
        0x8000_0016,
    ];
    let marks = select(&[0, 0, 0, 1 << 30, 1 << 31, 3 << 30][..]);
    let number = |name, column| match super::reading::number(name, column) {
        Some(private) if private & 0x8000 != 0 => 0xf_0000 | private & 0x7fff,
        Some(number) if column == 2 => number | 1 << 30,
        number => number.unwrap_or(102),
    };
    let named = (select(NAMES), 0..AUDIT.len()).prop_map(move |(name, at)| {
        let column = [0, 0, 2, 1, 3, 4, 5, 6, 7][at];
        (number(name, column), AUDIT[at])
    });
    let near = (0..500_u32, marks).prop_map(|(nr, mark)| nr | mark);
    let odd = select(&[0, 102, 117, 0xf_0002, 1 << 30, (1 << 30) - 1, u32::MAX][..]);
    let other = (prop_oneof![near, odd], prop_oneof![4 => select(AUDIT), 1 => any::<u32>()]);
    let value = prop_oneof![3 => value(), 1 => value().prop_map(|value| value.wrapping_add(1))];
    (prop_oneof![3 => named, 1 => other], prop::array::uniform6(value)).prop_map(|((nr, arch), args)| Data {
        nr,
        arch,
        args,
    })
}

//! A plain reading of a profile: no tree, no order of conditions, no code.

use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::prelude::*;

use super::interpret::{Data, run};
use super::profiles;
use crate::isolate::seccomp::{Insn, compile, table};

/// A row of the table, read without `names`.
pub(super) fn number(name: &str, column: usize) -> Option<u32> {
    let (_, numbers) = table::ROWS.iter().find(|(row, _)| *row == name)?;
    Some(u32::from(numbers[column])).filter(|number| *number != 0xffff)
}

fn answer(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x3_0000,
        Action::ScmpActErrno => 0x5_0000 + errno.unwrap_or(1),
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActTrace => 0x7ff0_0000 + errno.unwrap_or(1),
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
    }
}

/// What a rule may ask of the arguments.
#[derive(Clone, Copy)]
enum Wish<'a> {
    Arg(&'a LinuxSeccompArg),
    /// The first argument of `socketcall` or `ipc` that selects a call.
    Selector(u32),
}

impl Wish<'_> {
    fn holds(self, args: &[u64; 6], wide: bool) -> bool {
        let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
        let arg = match self {
            Wish::Arg(arg) => arg,
            Wish::Selector(selector) => return cut(args[0]) == u64::from(selector),
        };
        let (given, value) = (cut(args[arg.index()]), cut(arg.value()));
        match arg.op() {
            Operator::ScmpCmpNe => given != value,
            Operator::ScmpCmpLt => given < value,
            Operator::ScmpCmpLe => given <= value,
            Operator::ScmpCmpEq => given == value,
            Operator::ScmpCmpGe => given >= value,
            Operator::ScmpCmpGt => given > value,
            Operator::ScmpCmpMaskedEq => given & value == arg.value_two().unwrap_or(0) & value,
        }
    }

    /// Whether it is no wish at all.
    fn empty(self, wide: bool) -> bool {
        let Wish::Arg(arg) = self else { return false };
        let mask = if wide { arg.value() } else { arg.value() & 0xffff_ffff };
        arg.op() == Operator::ScmpCmpMaskedEq && mask == 0
    }
}

/// The ways to match a rule with a call: all wishes of any list must hold.
fn ways<'a>(rule: &'a LinuxSyscall, nr: u32, column: usize) -> Vec<Vec<Wish<'a>>> {
    let args = rule.args().as_deref().unwrap_or_default();
    let repeated = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
    let lists: Vec<Vec<_>> =
        if repeated { args.iter().map(|arg| vec![arg]).collect() } else { vec![args.iter().collect()] };
    let mut ways = vec![];
    for name in rule.names() {
        if number(name, column) == Some(nr) {
            ways.extend(lists.iter().map(|list| list.iter().map(|arg| Wish::Arg(arg)).collect()));
        }
        let carried = number(name, 8).filter(|_| column == 1 && [102, 117].contains(&nr));
        if let Some(carried) = carried.filter(|carried| (carried / 100 == 1) == (nr == 102)) {
            ways.extend(lists.iter().map(|list| {
                let rest = list.iter().filter(|arg| arg.index() != 0).map(|arg| Wish::Arg(arg));
                std::iter::once(Wish::Selector(carried % 100)).chain(rest).collect()
            }));
        }
    }
    ways
}

/// Whether x86 can also reach the call through `socketcall` or `ipc`, or it is one of these.
pub(super) fn shared_on_x86(name: &str) -> bool {
    [
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
    ]
    .contains(&name)
}

/// The highest call that the profile mentions; libseccomp does not count those that x86 may also multiplex.
fn mentioned(profile: &LinuxSeccomp, column: usize) -> u32 {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let names = rules.iter().flat_map(|rule| rule.names());
    let names = names
        .filter(|name| column != 1 || !shared_on_x86(name) || ["socketcall", "ipc"].contains(&name.as_str()));
    names.filter_map(|name| number(name, column)).max().unwrap_or(0)
}

/// Every answer that the profile may be read to give; more than one where rules with conditions overlap.
/// `None` where the plain reading has nothing to say: in odd corners of x32.
pub(super) fn answers(profile: &LinuxSeccomp, data: &Data) -> Option<Vec<u32>> {
    let listed = |arch| profile.architectures().as_ref().is_some_and(|arches| arches.contains(&arch));
    let (column, nr) = match (data.arch, data.nr >> 30) {
        (0xc000_003e, 0) => (0, data.nr),
        (0xc000_003e, 1) if listed(SpecArch::ScmpArchX32) => (2, data.nr & !(1 << 30)),
        (0x4000_0003, _) if listed(SpecArch::ScmpArchX86) => (1, data.nr),
        (0xc000_003e, 2..) => return None,
        _ => return Some(vec![0]),
    };
    let default = answer(profile.default_action(), profile.default_errno_ret());
    let last = mentioned(profile, column);
    let deny =
        !matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    if deny && last > 0 && nr > last {
        return Some(vec![0x5_0000 + 38]);
    }
    if column == 2 && last == 0 {
        return None;
    }
    let mut matching = vec![];
    for rule in profile.syscalls().as_deref().unwrap_or_default() {
        let answer = answer(rule.action(), rule.errno_ret());
        if answer == default {
            continue;
        }
        for way in ways(rule, nr, column) {
            if way.iter().all(|wish| wish.empty(column == 0)) {
                return Some(vec![answer]);
            }
            if way.iter().all(|wish| wish.holds(&data.args, column == 0)) {
                matching.push(answer);
            }
        }
    }
    Some(if matching.is_empty() { vec![default] } else { matching })
}

fn judge(profile: &LinuxSeccomp, filter: &[Insn], calls: &[Data]) -> Result<(), TestCaseError> {
    for call in calls {
        let (answer, _) = run(filter, call, false);
        if let Some(expected) = answers(profile, call) {
            prop_assert!(expected.contains(&answer), "{call:x?}: {answer:#x}, not one of {expected:x?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_profile_answers_as_it_reads(
        profile in profiles::any_profile(),
        calls in prop::collection::vec(profiles::call(), 64),
    ) {
        // Contradictions are refused, which `rules` covers.
        let Ok(program) = compile(&profile) else { return Err(TestCaseError::reject("contradiction")) };
        judge(&profile, &program.filter, &calls)?;
    }

    #[test]
    fn a_profile_of_many_rules_answers_as_it_reads(
        profile in profiles::large_profile(),
        calls in prop::collection::vec(profiles::call(), 256),
    ) {
        let program = compile(&profile);
        prop_assume!(program.as_ref().is_ok_and(|program| program.filter.len() > 255));
        let program = program.unwrap();
        judge(&profile, &program.filter, &calls)?;
    }
}

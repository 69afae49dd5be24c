//! libseccomp, driven as runc drives it, with runc's own stub for unknown calls before it.

use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::prelude::*;

use super::interpret::{Data, run};
use super::{profiles, reading};
use crate::isolate::seccomp::names::{Arch, HOST};
use crate::isolate::seccomp::{Insn, compile_for};

/// What libseccomp calls an architecture, and its filter's name for it.
pub(super) fn arch(arch: Arch) -> (ScmpArch, SpecArch) {
    match arch {
        Arch::X86_64 => (ScmpArch::X8664, SpecArch::ScmpArchX86_64),
        Arch::X86 => (ScmpArch::X86, SpecArch::ScmpArchX86),
        Arch::X32 => (ScmpArch::X32, SpecArch::ScmpArchX32),
        Arch::Aarch64 => (ScmpArch::Aarch64, SpecArch::ScmpArchAarch64),
        Arch::Arm => (ScmpArch::Arm, SpecArch::ScmpArchArm),
        Arch::Riscv64 => (ScmpArch::Riscv64, SpecArch::ScmpArchRiscv64),
        Arch::Ppc64le => (ScmpArch::Ppc64Le, SpecArch::ScmpArchPpc64le),
        Arch::S390x => (ScmpArch::S390X, SpecArch::ScmpArchS390x),
    }
}

fn action(action: Action, errno: Option<u32>) -> ScmpAction {
    let errno = errno.unwrap_or(1);
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno => ScmpAction::Errno(errno.try_into().unwrap()),
        Action::ScmpActNotify => ScmpAction::Notify,
        Action::ScmpActTrace => ScmpAction::Trace(errno.try_into().unwrap()),
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
    }
}

fn compare(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (op, datum) = match arg.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        Operator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0)),
    };
    ScmpArgCompare::new(arg.index().try_into().unwrap(), op, datum)
}

/// The filter that runc would load, without its stub; `Err` where libseccomp refuses a rule.
fn filter(profile: &LinuxSeccomp, host: &[Arch]) -> Result<Vec<Insn>, libseccomp::error::SeccompError> {
    // Without its tree, libseccomp 2.5 forgets to load the call's number if a pseudo call comes first.
    filter_with(profile, host, 2)
}

fn filter_with(
    profile: &LinuxSeccomp,
    host: &[Arch],
    optimize: u32,
) -> Result<Vec<Insn>, libseccomp::error::SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default)?;
    if arch(host[0]).0 != ScmpArch::native() {
        filter.remove_arch(ScmpArch::Native)?;
        filter.add_arch(arch(host[0]).0)?;
    }
    let listed = profile.architectures().as_deref().unwrap_or_default();
    for (scmp, _) in host.iter().map(|host| arch(*host)).filter(|(_, spec)| listed.contains(spec)) {
        filter.add_arch(scmp)?;
    }
    let mut filter_has_rules = false;
    for rule in profile.syscalls().as_deref().unwrap_or_default() {
        filter_has_rules |= add(&mut filter, rule, default)?;
    }
    // With its tree and no rules, it misbehaves.
    if filter_has_rules {
        filter.set_ctl_optimize(optimize)?;
    }
    let mut file = tempfile::tempfile().unwrap();
    filter.export_bpf(&file)?;
    file.rewind().unwrap();
    let mut bytes = vec![];
    file.read_to_end(&mut bytes).unwrap();
    let big_endian = host[0].big_endian();
    let insns = bytes.chunks_exact(8).map(|b| {
        let (code, k) = ([b[0], b[1]], [b[4], b[5], b[6], b[7]]);
        let code = if big_endian { u16::from_be_bytes(code) } else { u16::from_le_bytes(code) };
        let k = if big_endian { u32::from_be_bytes(k) } else { u32::from_le_bytes(k) };
        Insn { code, jt: b[2], jf: b[3], k }
    });
    Ok(insns.collect())
}

/// The filter as libseccomp writes it by default, one comparison a call.
pub(super) fn linear(profile: &LinuxSeccomp) -> Vec<Insn> {
    filter_with(profile, HOST, 1).unwrap()
}

fn add(
    filter: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    default: ScmpAction,
) -> Result<bool, libseccomp::error::SeccompError> {
    let mut added = false;
    let answer = action(rule.action(), rule.errno_ret());
    let conditions: Vec<_> = rule.args().as_deref().unwrap_or_default().iter().map(compare).collect();
    for name in rule.names() {
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        if answer == default {
            continue;
        }
        added = true;
        match &conditions[..] {
            [] => _ = filter.add_rule(answer, call)?,
            _ if repeated(rule) => {
                for condition in &conditions {
                    filter.add_rule_conditional(answer, call, &[*condition])?;
                }
            }
            _ => _ = filter.add_rule_conditional(answer, call, &conditions)?,
        }
    }
    Ok(added)
}

/// Whether runc's stub answers ENOSYS before the filter is asked.
fn unknown(profile: &LinuxSeccomp, host: &[Arch], data: &Data) -> bool {
    if matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace) {
        return false;
    }
    let listed = profile.architectures().as_deref().unwrap_or_default();
    host.iter().enumerate().any(|(n, host)| {
        let (scmp, spec) = arch(*host);
        let x32 = data.nr & (1 << 30) != 0;
        if n > 0 && !listed.contains(&spec)
            || host.audit() != data.arch
            || *host == Arch::X86_64 && x32
            || *host == Arch::X32 && !x32
        {
            return false;
        }
        let rules = profile.syscalls().as_deref().unwrap_or_default();
        let names = rules.iter().flat_map(|rule| rule.names());
        let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, scmp).ok());
        let largest = numbers.filter_map(|number| u32::try_from(i32::from(number)).ok()).max().unwrap_or(0);
        largest != 0 && (data.nr > largest || *host == Arch::S390x && data.nr == 0)
    })
}

/// Calls for which libseccomp has no sensible answer: a name that an architecture lacks is entered in its filter
/// under a negative pseudo number.
fn pseudo(data: &Data) -> bool {
    (0xffff_0000..u32::MAX).contains(&data.nr)
}

fn judge(profile: &LinuxSeccomp, host: &[Arch], calls: &[Data]) -> Result<(), TestCaseError> {
    let big_endian = host[0].big_endian();
    let (ours, theirs) = (compile_for(profile, host), filter(profile, host));
    // libseccomp sees contradictions while it adds rules, also those that a later rule overrides or that are about
    // a call which does not exist here.
    let Ok(theirs) = theirs else { return Ok(()) };
    let json = || serde_json::to_string(profile).unwrap();
    let ours = ours.map_err(|error| TestCaseError::fail(format!("{error}\n{}", json())))?;
    for call in calls.iter().filter(|call| !pseudo(call)) {
        let (answer, _) = run(&ours.filter, call, big_endian);
        let expected = if unknown(profile, host, call) { 0x5_0026 } else { run(&theirs, call, big_endian).0 };
        // libseccomp 2.5 compares the wrong word at times, where rules share comparisons of other words.
        let wrong = reading::answers(profile, call).is_some_and(|answers| !answers.contains(&expected));
        prop_assert!(
            answer == expected || wrong,
            "{call:x?}: {answer:#x}, libseccomp {expected:#x}\n{}",
            json()
        );
    }
    Ok(())
}

/// Rules with equalities that may contradict each other: their order shows. (Where rules with other comparisons
/// share a word, libseccomp goes wrong, and `reading` is the judge.)
fn overlapping() -> impl Strategy<Value = LinuxSeccomp> {
    let equality = profiles::condition(EQUALITIES);
    let args = prop_oneof![1 => Just(vec![]), 4 => prop::collection::vec(equality, 1..4)];
    profiles::profile(prop::collection::vec(profiles::rule(profiles::action(), args, 3), 0..10))
}

/// One rule a call, with any conditions at all.
fn separate() -> impl Strategy<Value = LinuxSeccomp> {
    let args = prop::collection::vec(profiles::condition(profiles::OPERATORS), 1..5);
    let rules = prop::collection::vec(profiles::rule(profiles::action(), args, 1), 0..10);
    profiles::profile(rules).prop_map(|mut profile| {
        let mut rules = profile.syscalls().clone().unwrap_or_default();
        let mut seen = vec![];
        rules.retain(|rule| {
            let name = &rule.names()[0];
            let once = !repeated(rule) && !seen.contains(name) && !reading::shared_on_x86(name);
            seen.push(name.clone());
            once
        });
        profile.set_syscalls(Some(rules));
        profile
    })
}

/// Whether two conditions of the rule are about the same argument.
fn repeated(rule: &LinuxSyscall) -> bool {
    let args = rule.args().as_deref().unwrap_or_default();
    (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1)
}

const EQUALITIES: &[Operator] = &[Operator::ScmpCmpEq, Operator::ScmpCmpMaskedEq];
const FOREIGN: &[&[Arch]] =
    &[&[Arch::Aarch64, Arch::Arm], &[Arch::Riscv64], &[Arch::Ppc64le], &[Arch::S390x]];

proptest! {
    #[test]
    fn overlapping_rules_are_ordered_as_libseccomp_does(profile in overlapping(), calls in prop::collection::vec(profiles::call(), 64)) {
        judge(&profile, HOST, &calls)?;
    }

    #[test]
    fn crowded_equalities_are_ordered_as_libseccomp_does(
        profile in profiles::crowd(EQUALITIES, 2),
        calls in prop::collection::vec(profiles::crowd_call(), 64),
    ) {
        judge(&profile, HOST, &calls)?;
    }

    #[test]
    fn crowded_comparisons_of_one_word_are_ordered_as_libseccomp_does(
        profile in profiles::crowd(profiles::OPERATORS, 1),
        calls in prop::collection::vec(profiles::crowd_call(), 64),
    ) {
        // libseccomp misses contradictions where a comparison has met its opposite.
        prop_assume!(compile_for(&profile, HOST).is_ok());
        let calls: Vec<_> = calls.into_iter().filter(|call| call.arch == Arch::X86.audit()).collect();
        judge(&profile, HOST, &calls)?;
    }

    #[test]
    fn other_hosts_answer_as_libseccomp_does(
        profile in overlapping(),
        host in prop::sample::select(FOREIGN),
        calls in prop::collection::vec(profiles::call(), 64),
    ) {
        judge(&profile, host, &calls)?;
    }

    #[test]
    fn any_one_rule_answers_as_libseccomp_does(profile in separate(), calls in prop::collection::vec(profiles::call(), 64)) {
        judge(&profile, HOST, &calls)?;
    }
}

//! seccompiler, for what it can express: one action, one architecture.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::prelude::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::interpret::run;
use super::{profiles, reading};
use crate::isolate::seccomp::{Insn, compile};

fn condition(arg: &LinuxSeccompArg) -> SeccompCondition {
    let (op, value) = match arg.op() {
        Operator::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        Operator::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        Operator::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        Operator::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        Operator::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        Operator::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        Operator::ScmpCmpMaskedEq => {
            (SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap_or(0) & arg.value())
        }
    };
    SeccompCondition::new(arg.index().try_into().unwrap(), SeccompCmpArgLen::Qword, op, value).unwrap()
}

/// Allows everything but what a rule matches.
fn filter(rules: &[LinuxSyscall]) -> Vec<Insn> {
    let mut calls: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for rule in rules {
        let args = rule.args().as_deref().unwrap_or_default();
        for nr in rule.names().iter().filter_map(|name| reading::number(name, 0)) {
            let rules = calls.entry(nr.into()).or_insert_with(|| Some(vec![]));
            match rules {
                _ if args.is_empty() => *rules = None,
                Some(rules) => rules.push(SeccompRule::new(args.iter().map(condition).collect()).unwrap()),
                None => {}
            }
        }
    }
    let calls = calls.into_iter().map(|(nr, rules)| (nr, rules.unwrap_or_default())).collect();
    let filter =
        SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(13), TargetArch::x86_64)
            .unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    program.into_iter().map(|insn| Insn { code: insn.code, jt: insn.jt, jf: insn.jf, k: insn.k }).collect()
}

fn rules() -> impl Strategy<Value = Vec<LinuxSyscall>> {
    let once = prop::collection::vec(profiles::condition(profiles::OPERATORS), 1..4).prop_map(|mut args| {
        let mut seen = [false; 6];
        args.retain(|arg| !std::mem::replace(&mut seen[arg.index()], true));
        args
    });
    let args = prop_oneof![1 => Just(vec![]), 6 => once];
    prop::collection::vec(profiles::rule(Just((Action::ScmpActErrno, Some(13))), args, 3), 0..12)
}

proptest! {
    #[test]
    fn one_action_on_one_architecture_answers_as_seccompiler_does(
        rules in rules(),
        calls in prop::collection::vec(profiles::call(), 64),
    ) {
        let theirs = filter(&rules);
        let mut profile = oci_spec::runtime::LinuxSeccomp::default();
        profile.set_syscalls(Some(rules));
        let ours = compile(&profile).unwrap();
        for mut call in calls {
            call.arch = 0xc000_003e;
            call.nr &= (1 << 30) - 1;
            prop_assert_eq!(run(&ours.filter, &call, false).0, run(&theirs, &call, false).0, "{:x?}", call);
        }
    }
}

use proptest::prelude::*;

use super::super::devices::tests::{allows, rule};
use super::*;

/// Runs a program as the kernel would, on the few instructions that the compiler uses.
fn run(program: &[Instruction], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    let context = [u32::try_from(kind_number(kind)).unwrap() | u32::from(access) << 16, major, minor];
    let mut registers = [0xdead_u64; 11];
    let mut at = 0_usize;
    loop {
        let Instruction { code, registers: pair, offset, immediate } = program[at];
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let number = u64::try_from(immediate).unwrap();
        let mut is_jump = false;
        match code {
            LOAD_WORD => registers[to] = u64::from(context[usize::try_from(offset).unwrap() / 4]),
            MOVE_IMMEDIATE => registers[to] = number,
            MOVE32 => registers[to] = registers[from],
            AND32_IMMEDIATE => registers[to] &= number,
            SHIFT_RIGHT32_IMMEDIATE => registers[to] >>= number,
            JUMP => is_jump = true,
            JUMP_IF_EQUAL => is_jump = registers[to] == number,
            JUMP_IF_NOT_EQUAL => is_jump = registers[to] != number,
            JUMP_IF_ANY_BIT => is_jump = registers[to] & number != 0,
            EXIT => return registers[usize::from(VERDICT)] == 1,
            other => panic!("instruction {other:#x}"),
        }
        // Forward jumps only: so it ends.
        at += 1 + if is_jump { usize::try_from(offset).unwrap() } else { 0 };
    }
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    prop_oneof![
        3 => rule(),
        1 => (rule(), any::<u32>()).prop_map(|(mut rule, n)| {
            rule.devices.minor = Some(n >> 1);
            rule
        }),
    ]
}

proptest! {
    #[test]
    fn the_program_decides_as_the_rules_do(
        rules in prop::collection::vec(any_rule(), 0..12),
        minors in prop::collection::vec(any::<u32>(), 2),
    ) {
        let program = compile(&rules);
        let of_rules = rules.iter().filter_map(|rule| rule.devices.minor);
        let minors: Vec<u32> = (0..4).chain(minors).chain(of_rules).collect();
        for kind in [Kind::Char, Kind::Block] {
            for major in 0..5 {
                for &minor in &minors {
                    for access in 0..8 {
                        prop_assert_eq!(
                            run(&program, kind, access, major, minor),
                            allows(&rules, kind, major, minor, Access(access)),
                            "{:?} {}:{} {}", kind, major, minor, access
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rules_that_allow_all_are_known(rules in prop::collection::vec(rule(), 0..3), any in any::<bool>()) {
        let mut rules = rules;
        let every = super::super::devices::Devices::EVERY;
        rules.push(DeviceRule { allow: any, devices: every, access: Access::ALL });
        prop_assert_eq!(allows_all(&rules), any);
    }
}

#[test]
fn the_longest_list_still_fits_the_jumps() {
    let rules: Vec<_> = (0..1035)
        .map(|n| DeviceRule {
            allow: true,
            devices: super::super::devices::Devices {
                kind: Some(Kind::Char),
                major: Some(n),
                minor: Some(n),
            },
            access: Access::READ,
        })
        .collect();
    let program = compile(&rules);
    assert!(
        run(&program, Kind::Char, Access::READ.0, 0, 0)
            && run(&program, Kind::Char, Access::READ.0, 1034, 1034)
    );
    assert!(!run(&program, Kind::Char, Access::READ.0, 1034, 0));
}

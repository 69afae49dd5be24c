use proptest::prelude::*;

use super::super::devices::Access;
use super::super::devices::tests::{allows, rule};
use super::*;

/// Runs a program as the kernel would, on the few instructions that the compiler uses.
fn run(program: &[Instruction], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    let context = [u32::try_from(kind_number(kind)).unwrap() | u32::from(access) << 16, major, minor];
    let mut registers = [0xdead_u64; 11];
    let mut at = 0_usize;
    loop {
        let Instruction { code, registers: pair, offset, immediate } = program[at];
        let (to, from) = (usize::from(pair & 15), registers[usize::from(pair >> 4)]);
        let number = i64::from(immediate).cast_unsigned();
        let value = registers[to];
        registers[to] = match code {
            LOAD_WORD => u64::from(context[usize::try_from(offset).unwrap() / 4]),
            LOAD_IMMEDIATE64 => {
                at += 1;
                u64::from(immediate.cast_unsigned()) | u64::from(program[at].immediate.cast_unsigned()) << 32
            }
            MOVE => from,
            MOVE_IMMEDIATE => number,
            ADD_IMMEDIATE => value.wrapping_add(number),
            OR => value | from,
            AND => value & from,
            AND_IMMEDIATE => value & number,
            XOR => value ^ from,
            XOR_IMMEDIATE => value ^ number,
            SHIFT_LEFT_IMMEDIATE => value << number,
            SHIFT_RIGHT_IMMEDIATE => value >> number,
            MULTIPLY_IMMEDIATE => value.wrapping_mul(number),
            EXIT => {
                assert!(value <= 1, "the verifier wants 0 or 1");
                return value == 1;
            }
            other => panic!("instruction {other:#x}"),
        };
        at += 1;
    }
}

/// Small numbers, which meet often, and any that a rule may name or a device have.
fn any_rule() -> impl Strategy<Value = DeviceRule> {
    prop_oneof![
        3 => rule(),
        1 => (rule(), prop_oneof![0..1_u32 << 20, any::<u32>()], prop_oneof![0..1_u32 << 12, any::<u32>()]).prop_map(
            |(mut rule, minor, major)| {
                rule.devices.minor = Some(minor);
                rule.devices.major = Some(major);
                rule
            }
        ),
    ]
}

proptest! {
    #[test]
    fn the_program_decides_as_the_rules_do(
        rules in prop::collection::vec(any_rule(), 0..12),
        other in (0..1_u32 << 12, 0..1_u32 << 20),
    ) {
        let program = compile(&rules);
        let of_rules = rules.iter().filter_map(|rule| Some((rule.devices.major?, rule.devices.minor?)));
        let real = of_rules.filter(|(major, minor)| *major < 1 << 12 && *minor < 1 << 20);
        let small = (0..5).flat_map(|major| (0..5).map(move |minor| (major, minor)));
        for (major, minor) in small.chain([other, (4095, (1 << 20) - 1)]).chain(real) {
            for kind in [Kind::Char, Kind::Block] {
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

    #[test]
    fn rules_that_allow_all_are_known(rules in prop::collection::vec(rule(), 0..3), any in any::<bool>()) {
        let mut rules = rules;
        let every = super::super::devices::Devices::EVERY;
        rules.push(DeviceRule { allow: any, devices: every, access: Access::ALL });
        prop_assert_eq!(allows_all(&rules), any);
    }
}

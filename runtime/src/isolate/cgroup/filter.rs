//! Compiles device rules to an eBPF program. Pure.
//!
//! The program gets the kind, the wanted access and the numbers of a device, and returns 1 to let the call pass.
//! It has no jump: the rules are applied one after the other to a register of granted accesses, each through a
//! number that is 1 for a device that it matches and else 0. Loading a program costs what the kernel's verifier must
//! look at, and each branch is one more state of the world to it: with a chain of branches, making a group with the
//! usual rules took 250 us, and without 100.

use super::devices::{DeviceRule, Kind, simplify};
use crate::sys::bpf::Instruction;

const LOAD_WORD: u8 = 0x61;
/// Takes two places: the second one carries the upper half.
const LOAD_IMMEDIATE64: u8 = 0x18;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const ADD_IMMEDIATE: u8 = 0x07;
const OR: u8 = 0x4f;
const AND: u8 = 0x5f;
const AND_IMMEDIATE: u8 = 0x57;
const XOR: u8 = 0xaf;
const XOR_IMMEDIATE: u8 = 0xa7;
const SHIFT_LEFT_IMMEDIATE: u8 = 0x67;
const SHIFT_RIGHT_IMMEDIATE: u8 = 0x77;
const MULTIPLY_IMMEDIATE: u8 = 0x27;
const EXIT: u8 = 0x95;

const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const PART: u8 = 2;
/// Kind, major and minor number in one: the kernel's numbers have 12 and 20 bits.
const DEVICE: u8 = 3;
const WANTED: u8 = 4;
const GRANTED: u8 = 5;
/// What a rule compares; then whether it matches.
const MATCH: u8 = 1;

const MAJOR_BITS: i32 = 12;
const MINOR_BITS: i32 = 20;
const ALL: i32 = 7;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const fn kind_number(kind: Kind) -> u64 {
    match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    }
}

/// Whether the rules let everything pass, so that no program is needed.
pub(super) fn allows_all(rules: &[DeviceRule]) -> bool {
    let (asked, otherwise) = simplify(rules);
    asked.is_empty() && otherwise
}

pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let (asked, otherwise) = simplify(rules);
    let mut program = Program(Vec::with_capacity(24 + asked.len() * 9));
    program.two(LOAD_WORD, DEVICE, CONTEXT, 0);
    program.two(MOVE, WANTED, DEVICE, 0);
    program.one(SHIFT_RIGHT_IMMEDIATE, WANTED, 16);
    program.one(AND_IMMEDIATE, DEVICE, 0xffff);
    for (bits, offset) in [(MAJOR_BITS, 4), (MINOR_BITS, 8)] {
        program.one(SHIFT_LEFT_IMMEDIATE, DEVICE, bits);
        program.two(LOAD_WORD, PART, CONTEXT, offset);
        program.two(OR, DEVICE, PART, 0);
    }
    program.one(MOVE_IMMEDIATE, GRANTED, if otherwise { ALL } else { 0 });
    for rule in asked.into_iter().rev() {
        program.rule(rule);
    }
    // What is wanted and not granted; the verdict is whether that is nothing.
    program.two(MOVE, VERDICT, GRANTED, 0);
    program.one(XOR_IMMEDIATE, VERDICT, ALL);
    program.two(AND, VERDICT, WANTED, 0);
    program.one(ADD_IMMEDIATE, VERDICT, -1);
    program.one(SHIFT_RIGHT_IMMEDIATE, VERDICT, 63);
    program.one(EXIT, 0, 0);
    program.0
}

struct Program(Vec<Instruction>);

impl Program {
    fn one(&mut self, code: u8, register: u8, immediate: i32) {
        self.0.push(Instruction { code, registers: register, offset: 0, immediate });
    }

    fn two(&mut self, code: u8, to: u8, from: u8, offset: i16) {
        self.0.push(Instruction { code, registers: to | from << 4, offset, immediate: 0 });
    }

    fn load(&mut self, register: u8, number: u64) {
        let bytes = number.to_le_bytes();
        let half = |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        self.one(LOAD_IMMEDIATE64, register, half(0));
        self.one(0, 0, half(4));
    }

    fn rule(&mut self, rule: DeviceRule) {
        let Some(Pattern { number, mask }) = Pattern::of(rule) else { return };
        self.load(MATCH, number);
        self.two(XOR, MATCH, DEVICE, 0);
        if mask != Pattern::EXACT {
            self.load(PART, mask);
            self.two(AND, MATCH, PART, 0);
        }
        // Zero if the rule matches, and at most 34 bits otherwise: one less has the top bit only for zero.
        // No arithmetic shift here: kernels since 6.18 follow its two outcomes as two states, which doubles with
        // every rule.
        self.one(ADD_IMMEDIATE, MATCH, -1);
        self.one(SHIFT_RIGHT_IMMEDIATE, MATCH, 63);
        self.one(MULTIPLY_IMMEDIATE, MATCH, i32::from(rule.access.0));
        if rule.allow {
            self.two(OR, GRANTED, MATCH, 0);
        } else {
            self.one(XOR_IMMEDIATE, MATCH, ALL);
            self.two(AND, GRANTED, MATCH, 0);
        }
    }
}

/// The devices of a rule: those whose number is `number` where `mask` has ones.
struct Pattern {
    number: u64,
    mask: u64,
}

impl Pattern {
    const EXACT: u64 = 3 << 32 | 0xfff << 20 | 0xf_ffff;

    /// Nothing for numbers that no device can have.
    fn of(rule: DeviceRule) -> Option<Self> {
        let devices = rule.devices;
        let mut pattern = Self { number: 0, mask: 0 };
        let fields = [
            (devices.kind.map(kind_number), 32, 3),
            (devices.major.map(u64::from), MINOR_BITS, 0xfff),
            (devices.minor.map(u64::from), 0, 0xf_ffff),
        ];
        for (value, shift, all) in fields {
            if let Some(value) = value {
                if value > all {
                    return None;
                }
                pattern.number |= value << shift;
                pattern.mask |= all << shift;
            }
        }
        Some(pattern)
    }
}

#[cfg(test)]
mod tests;

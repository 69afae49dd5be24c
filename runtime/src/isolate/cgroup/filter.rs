//! Compiles device rules to an eBPF program. Pure.
//!
//! The program gets the kind, the wanted access and the numbers of a device, and returns 1 to let the call pass.
//! It asks the rules from the last to the first. Register 3 holds the access that is not yet granted: a rule
//! that allows takes its bits away, a rule that denies ends the search if it meets one, and nothing left means
//! yes. So each kind of access is decided by its own last rule.

use super::devices::{Access, DeviceRule, Kind, simplify};
use crate::sys::bpf::Instruction;

const LOAD_WORD: u8 = 0x61;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND32_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT32_IMMEDIATE: u8 = 0x74;
const MOVE32: u8 = 0xbc;
const JUMP: u8 = 0x05;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_NOT_EQUAL: u8 = 0x55;
const JUMP_IF_ANY_BIT: u8 = 0x45;
const EXIT: u8 = 0x95;

const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const fn kind_number(kind: Kind) -> i32 {
    match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Target {
    NextRule,
    Allow,
    Deny,
}

/// Whether the rules let everything pass, so that no program is needed.
pub(super) fn allows_all(rules: &[DeviceRule]) -> bool {
    let (asked, otherwise) = simplify(rules);
    asked.is_empty() && otherwise
}

pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let (asked, otherwise) = simplify(rules);
    let mut program = Program::default();
    program.add(LOAD_WORD, KIND | CONTEXT << 4, 0, 0);
    program.add(MOVE32, WANTED | KIND << 4, 0, 0);
    program.add(AND32_IMMEDIATE, KIND, 0, 0xffff);
    program.add(SHIFT_RIGHT32_IMMEDIATE, WANTED, 0, 16);
    program.add(LOAD_WORD, MAJOR | CONTEXT << 4, 4, 0);
    program.add(LOAD_WORD, MINOR | CONTEXT << 4, 8, 0);
    program.jump(JUMP_IF_EQUAL, WANTED, 0, Target::Allow);
    for rule in asked {
        program.rule(rule);
    }
    program.jump(JUMP, 0, 0, if otherwise { Target::Allow } else { Target::Deny });
    program.finish()
}

#[derive(Default)]
struct Program {
    code: Vec<Instruction>,
    /// Jumps to the two verdicts at the end, whose place is not yet known.
    pending: Vec<(usize, Target)>,
}

impl Program {
    fn add(&mut self, code: u8, registers: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers, offset, immediate });
    }

    fn jump(&mut self, code: u8, register: u8, immediate: i32, target: Target) {
        self.pending.push((self.code.len(), target));
        self.add(code, register, 0, immediate);
    }

    fn rule(&mut self, rule: DeviceRule) {
        // Numbers are at most 31 bits wide: the parser of rules sees to it.
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let first = self.pending.len();
        for (register, value) in [
            (KIND, rule.devices.kind.map(kind_number)),
            (MAJOR, rule.devices.major.map(number)),
            (MINOR, rule.devices.minor.map(number)),
        ] {
            if let Some(value) = value {
                self.jump(JUMP_IF_NOT_EQUAL, register, value, Target::NextRule);
            }
        }
        let access = i32::from(rule.access.0);
        match (rule.allow, rule.access == Access::ALL) {
            (true, true) => self.jump(JUMP, 0, 0, Target::Allow),
            (true, false) => {
                self.add(AND32_IMMEDIATE, WANTED, 0, i32::from(Access::ALL.0) & !access);
                self.jump(JUMP_IF_EQUAL, WANTED, 0, Target::Allow);
            }
            (false, true) => self.jump(JUMP, 0, 0, Target::Deny),
            (false, false) => self.jump(JUMP_IF_ANY_BIT, WANTED, access, Target::Deny),
        }
        let next = self.code.len();
        for (at, target) in self.pending.split_off(first) {
            if target == Target::NextRule {
                self.aim(at, next);
            } else {
                self.pending.push((at, target));
            }
        }
    }

    fn aim(&mut self, at: usize, to: usize) {
        // At most 1,024 rules of five instructions: the distance fits.
        self.code[at].offset = i16::try_from(to - at - 1).unwrap_or(i16::MAX);
    }

    fn finish(mut self) -> Vec<Instruction> {
        let deny = self.code.len();
        let allow = deny + 2;
        for verdict in [0, 1] {
            self.add(MOVE_IMMEDIATE, VERDICT, 0, verdict);
            self.add(EXIT, 0, 0, 0);
        }
        for (at, target) in std::mem::take(&mut self.pending) {
            self.aim(at, if target == Target::Allow { allow } else { deny });
        }
        self.code
    }
}

#[cfg(test)]
mod tests;

//! Writes classic BPF from its last instruction to its first.
//!
//! A filter only ever jumps forward, so writing backwards means that every target is already there when a jump
//! to it is written: no labels to patch, and a target beyond the eight bits of a jump gets its stepping stone at
//! once. The filter's register holds whatever word was loaded last; who branches must know which.

use super::Insn;

const LD: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const RET: u16 = 0x06;

/// A comparison of the loaded word with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    Equal = 0x15,
    Greater = 0x25,
    GreaterEqual = 0x35,
}

/// Where a branch leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The filter's answer, `SECCOMP_RET_*` with its data.
    Return(u32),
    /// An instruction, counted from the end of the program.
    At(usize),
}

#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// The last instruction first.
    code: Vec<Insn>,
    /// The answers already written, each where it was written last.
    returns: Vec<(u32, usize)>,
}

impl Assembler {
    pub(super) fn with_capacity(insns: usize) -> Self {
        Self { code: Vec::with_capacity(insns), returns: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Vec<Insn> {
        self.code.reverse();
        self.code
    }

    /// Loads the word at `offset` of `seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Target) -> Target {
        self.fall_into(next);
        self.push(LD, 0, 0, offset)
    }

    /// Masks the loaded word, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Target) -> Target {
        if mask == u32::MAX {
            return next;
        }
        self.fall_into(next);
        self.push(AND, 0, 0, mask)
    }

    /// Compares the loaded word: on to `yes` or to `no`.
    pub(super) fn branch(&mut self, jump: Jump, value: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        let yes = self.reachable(yes, 1);
        let no = self.reachable(no, 0);
        let (jt, jf) = (self.distance(yes), self.distance(no));
        self.push(jump as u16, jt, jf, value)
    }

    /// Makes sure that the next instruction written runs into `target`.
    fn fall_into(&mut self, target: Target) {
        let at = match target {
            Target::Return(answer) => self.answer(answer, 0),
            Target::At(at) => at,
        };
        if at + 1 != self.code.len() {
            self.leap(at);
        }
    }

    /// An instruction at or leading to `target` that a branch can reach, even after `more` further instructions.
    fn reachable(&mut self, target: Target, more: usize) -> usize {
        match target {
            Target::Return(answer) => self.answer(answer, more),
            Target::At(at) if self.near(at, more) => at,
            Target::At(at) => self.leap(at),
        }
    }

    fn answer(&mut self, answer: u32, more: usize) -> usize {
        let known = self.returns.iter().position(|(written, _)| *written == answer);
        match known.map(|index| (index, self.returns[index].1)) {
            Some((_, at)) if self.near(at, more) => at,
            Some((index, _)) => {
                self.returns[index].1 = self.code.len();
                self.emit(RET, 0, 0, answer)
            }
            None => {
                self.returns.push((answer, self.code.len()));
                self.emit(RET, 0, 0, answer)
            }
        }
    }

    fn leap(&mut self, at: usize) -> usize {
        let skipped = self.code.len() - at - 1;
        self.emit(JA, 0, 0, u32::try_from(skipped).unwrap_or(u32::MAX))
    }

    fn near(&self, at: usize, more: usize) -> bool {
        self.code.len() + more - at - 1 <= usize::from(u8::MAX)
    }

    fn distance(&self, at: usize) -> u8 {
        u8::try_from(self.code.len() - at - 1).unwrap_or(u8::MAX)
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Target {
        Target::At(self.emit(code, jt, jf, k))
    }

    fn emit(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> usize {
        self.code.push(Insn { code, jt, jf, k });
        self.code.len() - 1
    }
}

/// Which target each value of a word leads to: from each start up to the next one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u32, Target)>);

impl Ranges {
    pub(super) fn all(target: Target) -> Self {
        Self(vec![(0, target)])
    }

    /// Everything from `start` on leads to `target`; starts come in ascending order, and the last word wins.
    pub(super) fn from(&mut self, start: u32, target: Target) {
        debug_assert!(self.0.last().is_none_or(|(last, _)| *last <= start));
        if self.0.last().is_some_and(|(last, _)| *last == start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, last)| *last != target) {
            self.0.push((start, target));
        }
    }

    /// Only `value` leads to `target`.
    pub(super) fn only(&mut self, value: u32, target: Target, otherwise: Target) {
        self.from(value, target);
        if let Some(next) = value.checked_add(1) {
            self.from(next, otherwise);
        }
    }

    pub(super) fn first(&self) -> Target {
        self.0.first().map_or(Target::Return(0), |(_, target)| *target)
    }

    pub(super) fn last(&self) -> Target {
        self.0.last().map_or(Target::Return(0), |(_, target)| *target)
    }

    pub(super) fn constant(&self) -> bool {
        self.0.len() == 1
    }

    /// A balanced search tree over the loaded word.
    pub(super) fn assemble(&self, code: &mut Assembler) -> Target {
        tree(&self.0, code)
    }
}

fn tree(ranges: &[(u32, Target)], code: &mut Assembler) -> Target {
    match ranges {
        [] => Target::Return(0),
        [(_, target)] => *target,
        [(_, below), (value, only), (above, rest)] if below == rest && above - value == 1 => {
            code.branch(Jump::Equal, *value, *only, *below)
        }
        _ => {
            // An odd number of ranges on the left lets most of its leaves be a single comparison for equality.
            let middle = (ranges.len() / 2) | 1;
            let right = tree(&ranges[middle..], code);
            let left = tree(&ranges[..middle], code);
            code.branch(Jump::GreaterEqual, ranges[middle].0, right, left)
        }
    }
}

//! Rules on a call's arguments: their order, their contradictions and their code.
//!
//! Several rules for one call are tried one after the other; the first whose conditions all hold decides. The
//! order is libseccomp's, which sorts by what is compared and not by the profile: the higher argument first,
//! then equalities before upper bounds before lower bounds, then the larger value first (the smaller one for
//! upper bounds), the rule with fewer conditions first, and only then the place in the profile.

use std::cmp::Reverse;

use super::assemble::{Assembler, Jump, Ranges, Target};
use super::names::Arch;

/// `seccomp_data.args`.
const ARGS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// `argument & mask OPERATOR value`; only equality has a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) operator: Operator,
    /// `None` compares the whole argument.
    pub(super) mask: Option<u64>,
    pub(super) value: u64,
}

impl Condition {
    pub(super) fn equal(argument: u8, value: u64) -> Self {
        Self { argument, operator: Operator::Equal, mask: None, value }
    }

    /// The condition as an architecture with 32-bit arguments sees it.
    pub(super) fn narrowed(self) -> Self {
        let low = u64::from(u32::MAX);
        Self { mask: self.mask.map(|mask| mask & low), value: self.value & low, ..self }
    }

    pub(super) fn always_holds(&self) -> bool {
        self.mask == Some(0)
    }

    fn holds(&self, argument: u64) -> bool {
        let argument = argument & self.mask.unwrap_or(u64::MAX);
        match self.operator {
            Operator::Equal => argument == self.value,
            Operator::NotEqual => argument != self.value,
            Operator::Less => argument < self.value,
            Operator::LessEqual => argument <= self.value,
            Operator::Greater => argument > self.value,
            Operator::GreaterEqual => argument >= self.value,
        }
    }
}

/// All conditions must hold. Their arguments ascend, no two name the same one.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    /// `SECCOMP_RET_*` with its data.
    pub(super) answer: u32,
    /// Its place in the profile.
    pub(super) place: usize,
}

impl PartialEq for Rule {
    /// Two rules that compile to the same code.
    fn eq(&self, other: &Self) -> bool {
        self.conditions == other.conditions && self.answer == other.answer
    }
}

impl Rule {
    /// Whether this rule says all that `narrow` does, and said so before `broad` came.
    fn makes_needless(&self, narrow: &Self, broad: &Self) -> bool {
        self.answer == narrow.answer
            && self.place < broad.place
            && self.conditions.iter().all(|condition| narrow.conditions.contains(condition))
    }
}

/// Two rules that ask for different answers in the same case, as their places in the profile.
#[derive(Debug)]
pub(super) struct Contradiction {
    pub(super) earlier: usize,
    pub(super) later: usize,
}

/// The rules of one call, given in the profile's order, in the order in which they are tried; without those that
/// can't be reached.
pub(super) fn order(rules: &[Rule], arch: Arch) -> Result<Vec<Rule>, Contradiction> {
    let mut ranks = Ranks { wide: arch.wide(), seen: Vec::new() };
    let mut keyed: Vec<_> = rules.iter().map(|rule| (ranks.key(&rule.conditions), rule)).collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut ordered: Vec<Rule> = Vec::with_capacity(rules.len());
    for (_, rule) in keyed {
        // What starts with all conditions of a rule stands right behind it, and can never be reached.
        match ordered.last().filter(|last| rule.conditions.starts_with(&last.conditions)) {
            Some(last)
                if contradict(last, rule)
                    && !ordered.iter().any(|other| other.makes_needless(rule, last)) =>
            {
                let (earlier, later) = (last.place.min(rule.place), last.place.max(rule.place));
                return Err(Contradiction { earlier, later });
            }
            Some(_) => {}
            None => ordered.push(rule.clone()),
        }
    }
    Ok(ordered)
}

/// Whether the narrower of two rules is lost although it came first, or both are the same but for the answer.
fn contradict(broad: &Rule, narrow: &Rule) -> bool {
    broad.answer != narrow.answer && (narrow.place < broad.place || narrow.conditions == broad.conditions)
}

/// Remembers in which order comparisons of a word were first seen: libseccomp keeps equal comparisons together.
#[derive(Debug)]
struct Ranks {
    wide: bool,
    seen: Vec<Comparison>,
}

type Comparison = (u8, bool, bool, Option<u64>, u64);
type Key = (Reverse<u8>, u8, u64, usize, u64, usize);

impl Ranks {
    fn key(&mut self, conditions: &[Condition]) -> Vec<Key> {
        conditions.iter().map(|condition| self.one(condition)).collect()
    }

    fn one(&mut self, c: &Condition) -> Key {
        use Operator::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
        let (high, low) = (c.value >> 32, c.value & u64::from(u32::MAX));
        let class = match c.operator {
            Equal | NotEqual => 0,
            Less | LessEqual => 1,
            Greater | GreaterEqual => 2,
        };
        let (equality, strict) = (class == 0, matches!(c.operator, Greater | LessEqual));
        let first = match self.wide {
            true => self.rank((c.argument, equality, false, c.mask.map(|mask| mask >> 32), high)),
            false => 0,
        };
        let second = self.rank((c.argument, equality, strict, c.mask, c.value));
        let towards = |word: u64| if class == 1 { word } else { u64::MAX - word };
        (Reverse(c.argument), class, towards(high), first, towards(low), second)
    }

    fn rank(&mut self, comparison: Comparison) -> usize {
        self.seen.iter().position(|seen| *seen == comparison).unwrap_or_else(|| {
            self.seen.push(comparison);
            self.seen.len() - 1
        })
    }
}

/// Writes ordered rules; where none of them matches, the filter goes on at `otherwise`.
pub(super) fn assemble(rules: &[Rule], arch: Arch, otherwise: Target, code: &mut Assembler) -> Target {
    let mut conditions = rules.iter().flat_map(|rule| &rule.conditions);
    let argument = conditions.next().map(|first| first.argument);
    let one_argument = rules.iter().all(|rule| match rule.conditions[..] {
        [only] => Some(only.argument) == argument && only.mask.is_none(),
        _ => false,
    });
    let words = Words { code, arch };
    match argument {
        Some(argument) if one_argument => words.by_value(rules, argument, otherwise),
        _ => words.one_by_one(rules, otherwise),
    }
}

/// Compares arguments word by word.
struct Words<'a> {
    code: &'a mut Assembler,
    arch: Arch,
}

impl Words<'_> {
    fn one_by_one(mut self, rules: &[Rule], otherwise: Target) -> Target {
        rules.iter().rev().fold(otherwise, |next, rule| {
            let matched = Target::Return(rule.answer);
            rule.conditions.iter().rev().fold(matched, |then, condition| self.test(condition, then, next))
        })
    }

    fn test(&mut self, c: &Condition, yes: Target, no: Target) -> Target {
        match c.operator {
            Operator::Equal => self.equal(c, yes, no),
            Operator::NotEqual => self.equal(c, no, yes),
            Operator::Greater => self.greater(c, Jump::Greater, yes, no),
            Operator::GreaterEqual => self.greater(c, Jump::GreaterEqual, yes, no),
            Operator::Less => self.greater(c, Jump::GreaterEqual, no, yes),
            Operator::LessEqual => self.greater(c, Jump::Greater, no, yes),
        }
    }

    fn equal(&mut self, c: &Condition, yes: Target, no: Target) -> Target {
        let (mask, value) = (halves(c.mask.unwrap_or(u64::MAX)), halves(c.value));
        let mut next = yes;
        if mask.1 != 0 {
            let test = self.code.branch(Jump::Equal, value.1, next, no);
            let masked = self.code.and(mask.1, test);
            next = self.load_low(c.argument, masked);
        }
        if self.arch.wide() && mask.0 != 0 {
            let test = self.code.branch(Jump::Equal, value.0, next, no);
            let masked = self.code.and(mask.0, test);
            next = self.load_high(c.argument, masked);
        }
        next
    }

    fn greater(&mut self, c: &Condition, low: Jump, yes: Target, no: Target) -> Target {
        let value = halves(c.value);
        let test = self.code.branch(low, value.1, yes, no);
        let low = self.load_low(c.argument, test);
        if !self.arch.wide() {
            return low;
        }
        let same = self.code.branch(Jump::Equal, value.0, low, no);
        let test = self.code.branch(Jump::Greater, value.0, yes, same);
        self.load_high(c.argument, test)
    }

    /// Rules about one argument only: a search tree over its values, high word first.
    fn by_value(mut self, rules: &[Rule], argument: u8, otherwise: Target) -> Target {
        let decide = |value| {
            let rule = rules.iter().find(|rule| rule.conditions.iter().all(|c| c.holds(value)));
            rule.map_or(otherwise, |rule| Target::Return(rule.answer))
        };
        let edges = edges(rules, self.arch);
        let mut high = Ranges::all(otherwise);
        let mut last = otherwise;
        for same_high in edges.chunk_by(|a, b| halves(*a).0 == halves(*b).0) {
            let mut low = Ranges::all(last);
            same_high.iter().for_each(|edge| low.from(halves(*edge).1, decide(*edge)));
            last = low.last();
            let tree = low.assemble(self.code);
            let target = if low.constant() { last } else { self.load_low(argument, tree) };
            high.only(halves(same_high[0]).0, target, last);
        }
        if !self.arch.wide() {
            return high.first();
        }
        let tree = high.assemble(self.code);
        if high.constant() { high.first() } else { self.load_high(argument, tree) }
    }

    fn load_low(&mut self, argument: u8, next: Target) -> Target {
        self.code.load(ARGS + 8 * u32::from(argument) + if self.arch.big_endian() { 4 } else { 0 }, next)
    }

    fn load_high(&mut self, argument: u8, next: Target) -> Target {
        self.code.load(ARGS + 8 * u32::from(argument) + if self.arch.big_endian() { 0 } else { 4 }, next)
    }
}

pub(super) fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// Where the answer may change: the first value of every stretch of values that the rules treat alike.
fn edges(rules: &[Rule], arch: Arch) -> Vec<u64> {
    let top = if arch.wide() { u64::MAX } else { u64::from(u32::MAX) };
    let mut edges = vec![0];
    for c in rules.iter().flat_map(|rule| &rule.conditions) {
        let (at, after) = match c.operator {
            Operator::Equal | Operator::NotEqual => (true, true),
            Operator::Less | Operator::GreaterEqual => (true, false),
            Operator::LessEqual | Operator::Greater => (false, true),
        };
        edges.extend(at.then_some(c.value));
        edges.extend(c.value.checked_add(1).filter(|next| after && *next <= top));
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}

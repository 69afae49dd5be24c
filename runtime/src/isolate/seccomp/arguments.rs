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

impl Rule {
    /// Whether this rule applies wherever the other does. Then it is tried first, too.
    fn covers(&self, other: &Self) -> bool {
        self.conditions.iter().all(|condition| other.conditions.contains(condition))
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
pub(super) fn order(rules: &[Rule], arch: Arch) -> Result<Vec<&Rule>, Contradiction> {
    let mut tree = Tree::new(arch.wide());
    let needed = needed(rules)?;
    let mut paths: Vec<_> = needed.into_iter().map(|rule| (tree.enter(&rule.conditions), rule)).collect();
    let places = tree.places();
    paths.iter_mut().flat_map(|(path, _)| path).for_each(|node| *node = places[*node]);
    paths.sort_by(|(a, _), (b, _)| a.cmp(b));
    let ordered: Vec<_> = paths.into_iter().map(|(_, rule)| rule).collect();
    // What starts with all conditions of a later rule stands right behind it, and would be lost in silence.
    match ordered.windows(2).find(|pair| pair[1].conditions.starts_with(&pair[0].conditions)) {
        Some(pair) => Err(Contradiction { earlier: pair[1].place, later: pair[0].place }),
        None => Ok(ordered),
    }
}

/// Leaves out the rules that an earlier one covers, and those that a later one with the same answer does.
fn needed(rules: &[Rule]) -> Result<Vec<&Rule>, Contradiction> {
    let mut needed: Vec<&Rule> = Vec::with_capacity(rules.len());
    for rule in rules {
        let covering = needed.iter().filter(|earlier| earlier.covers(rule));
        match covering.min_by_key(|earlier| earlier.conditions.len()) {
            Some(same) if rule.covers(same) && rule.answer != same.answer => {
                return Err(Contradiction { earlier: same.place, later: rule.place });
            }
            Some(_) => {}
            None => {
                needed.retain(|earlier| rule.answer != earlier.answer || !rule.covers(earlier));
                needed.push(rule);
            }
        }
    }
    Ok(needed)
}

/// libseccomp's tree of comparisons, as far as it settles the order of rules. It compares words; rules that start
/// alike share nodes, and so do a comparison and its opposite if nothing that stands behind the new one comes first.
#[derive(Debug)]
struct Tree {
    wide: bool,
    nodes: Vec<Node>,
    /// The nodes that are tried one after the other, as indices; the first level is the root.
    levels: Vec<Vec<usize>>,
}

#[derive(Debug)]
struct Node {
    comparison: Comparison,
    class: Class,
    /// The levels to go on with where the comparison fails or holds.
    below: [Option<usize>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Comparison {
    argument: u8,
    jump: Jump,
    mask: Option<u32>,
    value: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Equality,
    UpperBound,
    LowerBound,
}

impl Tree {
    fn new(wide: bool) -> Self {
        Self { wide, nodes: Vec::new(), levels: vec![Vec::new()] }
    }

    /// Enters a rule and answers with its nodes.
    fn enter(&mut self, conditions: &[Condition]) -> Vec<usize> {
        use Operator::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
        let mut path = Vec::with_capacity(2 * conditions.len());
        let mut level = 0;
        for c in conditions {
            let (class, jump, holds) = match c.operator {
                Equal => (Class::Equality, Jump::Equal, true),
                NotEqual => (Class::Equality, Jump::Equal, false),
                Less => (Class::UpperBound, Jump::GreaterEqual, false),
                LessEqual => (Class::UpperBound, Jump::Greater, false),
                GreaterEqual => (Class::LowerBound, Jump::GreaterEqual, true),
                Greater => (Class::LowerBound, Jump::Greater, true),
            };
            let (mask, value, argument) = (c.mask.map(halves), halves(c.value), c.argument);
            if self.wide {
                let jump = if jump == Jump::Equal { Jump::Equal } else { Jump::Greater };
                let high = Comparison { argument, jump, mask: mask.map(|mask| mask.0), value: value.0 };
                path.push(self.node(level, high, class));
                level = self.below(path[path.len() - 1], true);
            }
            let low = Comparison { argument, jump, mask: mask.map(|mask| mask.1), value: value.1 };
            path.push(self.node(level, low, class));
            level = self.below(path[path.len() - 1], holds);
        }
        path
    }

    fn node(&mut self, level: usize, comparison: Comparison, class: Class) -> usize {
        let rank = |c: Comparison, class| {
            (
                Reverse(c.argument),
                class,
                if class == Class::UpperBound { c.value } else { u32::MAX - c.value },
            )
        };
        let found = self.levels[level].iter().position(|node| {
            let node = &self.nodes[*node];
            node.comparison == comparison || rank(comparison, class) < rank(node.comparison, node.class)
        });
        let at = found.unwrap_or(self.levels[level].len());
        if let Some(node) = self.levels[level].get(at)
            && self.nodes[*node].comparison == comparison
        {
            return *node;
        }
        self.nodes.push(Node { comparison, class, below: [None; 2] });
        self.levels[level].insert(at, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn below(&mut self, node: usize, holds: bool) -> usize {
        *self.nodes[node].below[usize::from(holds)].get_or_insert_with(|| {
            self.levels.push(Vec::new());
            self.levels.len() - 1
        })
    }

    /// Each node's place in its level.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.nodes.len()];
        for (place, node) in self.levels.iter().flat_map(|level| level.iter().enumerate()) {
            places[*node] = place;
        }
        places
    }
}

/// Writes ordered rules; where none of them matches, the filter goes on at `otherwise`.
pub(super) fn assemble(rules: &[&Rule], arch: Arch, otherwise: Target, code: &mut Assembler) -> Target {
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
    fn one_by_one(mut self, rules: &[&Rule], otherwise: Target) -> Target {
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
    fn by_value(mut self, rules: &[&Rule], argument: u8, otherwise: Target) -> Target {
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
fn edges(rules: &[&Rule], arch: Arch) -> Vec<u64> {
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

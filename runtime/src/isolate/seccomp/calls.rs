//! Where each call of each architecture leads.

use super::Insn;
use super::arguments::{self, Condition, Rule};
use super::assemble::{Assembler, Jump, Ranges, Target};
use super::names::{Arch, Call, X32_BIT};
use super::profile::Entry;
use crate::{Error, Result};

const ENOSYS: Target = Target::Return(libc::SECCOMP_RET_ERRNO | 38);
const KILL: Target = Target::Return(libc::SECCOMP_RET_KILL_THREAD);
/// `seccomp_data.nr` and `seccomp_data.arch`.
const NR: u32 = 0;
const ARCH: u32 = 4;

pub(super) struct Compiler<'a> {
    code: Assembler,
    entries: &'a [Entry<'a>],
    default: Target,
    unknown_is_enosys: bool,
    /// Argument rules written so far; an equal set is not written again.
    shared: Vec<Shared>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(entries: &'a [Entry<'a>], default: u32, unknown_is_enosys: bool) -> Self {
        let default = Target::Return(default);
        Self { code: Assembler::with_capacity(512), entries, default, unknown_is_enosys, shared: Vec::new() }
    }

    /// The whole filter for these architectures.
    pub(super) fn program(mut self, archs: &[Arch]) -> Result<Vec<Insn>> {
        let mut next = KILL;
        // Written backwards, so the native architecture, which comes first in the list, is asked for first.
        let mut entries = Vec::new();
        for arch in archs.iter().rev().filter(|arch| **arch != Arch::X32) {
            let ranges = match arch {
                Arch::X86_64 => self.x86_64(archs.contains(&Arch::X32))?,
                arch => self.calls(Ranges::all(self.default), 0, *arch)?.0,
            };
            let tree = ranges.assemble(&mut self.code);
            entries.push((arch, self.code.load(NR, tree)));
        }
        for (arch, entry) in entries {
            next = self.code.branch(Jump::Equal, arch.audit(), entry, next);
        }
        self.code.load(ARCH, next);
        Ok(self.code.finish())
    }

    /// x86_64 and x32 share an audit number; bit 30 of the call's number tells them apart.
    fn x86_64(&mut self, x32: bool) -> Result<Ranges> {
        let foreign = if x32 { self.default } else { KILL };
        let (mut ranges, native_stub) = self.calls(Ranges::all(self.default), 0, Arch::X86_64)?;
        ranges.from(X32_BIT, foreign);
        let mut x32_stub = false;
        if x32 {
            (ranges, x32_stub) = self.calls(ranges, X32_BIT, Arch::X32)?;
        }
        // No call has bit 31, but programs may try.
        ranges.from(1 << 31, if native_stub { ENOSYS } else { foreign });
        ranges.from(1 << 31 | X32_BIT, if x32_stub { ENOSYS } else { foreign });
        if !x32 {
            // A tracer makes a call -1 to skip it.
            ranges.from(u32::MAX, self.default);
        }
        Ok(ranges)
    }

    /// Adds an architecture's calls, and whether it knows calls that the profile does not.
    fn calls(&mut self, mut ranges: Ranges, base: u32, arch: Arch) -> Result<(Ranges, bool)> {
        let mut targets = self.targets(arch)?;
        let last = self.unknown_is_enosys.then(|| self.last_mentioned(arch)).flatten();
        if let Some(last) = last {
            targets.retain(|(number, _)| *number <= last);
            if arch == Arch::S390x {
                // The kernel makes numbers that it does not know 0 there.
                targets.retain(|(number, _)| *number != 0);
                targets.insert(0, (0, ENOSYS));
            }
        }
        ranges.from(base, self.default);
        targets.iter().for_each(|(number, target)| ranges.only(*number, *target, self.default));
        if let Some(after) = last.and_then(|last| last.checked_add(1)) {
            ranges.from(after, ENOSYS);
        }
        Ok((ranges, last.is_some()))
    }

    /// The highest call in the profile, whatever its rule says. Call 0 alone counts for nothing, and neither do
    /// calls that libseccomp takes for multiplexed ones.
    fn last_mentioned(&self, arch: Arch) -> Option<u32> {
        let direct = |call: &Call| !(arch.multiplexes() && call.multiplexed().is_some());
        let numbers =
            self.entries.iter().map(|entry| entry.call).filter_map(|call| Some((arch.number(call)?, call)));
        numbers.filter(|(number, call)| *number > 0 && direct(call)).map(|(number, _)| number).max()
    }

    /// What each call with a rule of its own leads to, by ascending number.
    fn targets(&mut self, arch: Arch) -> Result<Vec<(u32, Target)>> {
        let mut hits = self.hits(arch);
        hits.sort_unstable();
        let mut targets = Vec::with_capacity(hits.len());
        for same in hits.chunk_by(|a, b| a.number() == b.number()) {
            let target = match same.iter().find(|hit| self.unconditional(**hit, arch)) {
                Some(hit) => Target::Return(self.entries[hit.place()].answer),
                None => self.conditional(same, arch)?,
            };
            targets.push((same[0].number(), target));
        }
        Ok(targets)
    }

    fn hits(&self, arch: Arch) -> Vec<Hit> {
        let mut hits = Vec::with_capacity(self.entries.len());
        for (place, entry) in (0..).zip(self.entries) {
            if Target::Return(entry.answer) == self.default {
                continue;
            }
            hits.extend(arch.number(entry.call).map(|number| Hit::new(number, place)));
            if let Some((carrier, _)) = entry.call.multiplexed().filter(|_| arch.multiplexes()) {
                hits.push(Hit::new(carrier, place));
            }
        }
        hits
    }

    /// Where the rules for one call lead, all of which have conditions.
    fn conditional(&mut self, hits: &[Hit], arch: Arch) -> Result<Target> {
        if let Some(known) = self.shared.iter().find(|known| self.alike(known, hits, arch)) {
            return Ok(known.target);
        }
        let rules: Vec<_> = hits.iter().map(|hit| self.rule(*hit, arch)).collect();
        let ordered = arguments::order(&rules, arch).map_err(|found| {
            let index = |place: usize| self.entries[place].index;
            let field = format!("linux.seccomp.syscalls[{}]", index(found.later));
            let expected = format!("that of syscalls[{}]", index(found.earlier));
            Error::invalid(field, "another action for the same call and args", expected)
        })?;
        let target = arguments::assemble(&ordered, arch, self.default, &mut self.code);
        self.shared.push(Shared { hits: hits.to_vec(), arch, target });
        Ok(target)
    }

    fn rule(&self, hit: Hit, arch: Arch) -> Rule {
        let conditions = self.conditions(hit, arch).collect();
        Rule { conditions, answer: self.entries[hit.place()].answer, place: hit.place() }
    }

    /// What must hold of the arguments, as the architecture sees them.
    fn conditions(&self, hit: Hit, arch: Arch) -> impl Iterator<Item = Condition> {
        let selector = self.selector(hit, arch).map(|value| Condition::equal(0, value));
        let own = self.entries[hit.place()]
            .conditions
            .iter()
            .filter(move |c| selector.is_none() || c.argument != 0);
        let own = own.map(move |c| if arch.wide() { *c } else { c.narrowed() }).filter(|c| !c.always_holds());
        selector.into_iter().chain(own)
    }

    /// Reached through a multiplexed call, the first argument says which call is meant.
    fn selector(&self, hit: Hit, arch: Arch) -> Option<u64> {
        let (carrier, selector) =
            self.entries[hit.place()].call.multiplexed().filter(|_| arch.multiplexes())?;
        (carrier == hit.number()).then_some(selector)
    }

    fn unconditional(&self, hit: Hit, arch: Arch) -> bool {
        let plain = self.entries[hit.place()].conditions.is_empty() && self.selector(hit, arch).is_none();
        plain || self.conditions(hit, arch).next().is_none()
    }

    /// Whether two lists of hits come to the same code.
    fn alike(&self, known: &Shared, hits: &[Hit], arch: Arch) -> bool {
        let same = |(a, b): (&Hit, &Hit)| {
            self.entries[a.place()].answer == self.entries[b.place()].answer
                && self.conditions(*a, known.arch).eq(self.conditions(*b, arch))
        };
        known.arch.wide() == arch.wide()
            && known.hits.len() == hits.len()
            && known.hits.iter().zip(hits).all(same)
    }
}

/// The code of some argument rules.
struct Shared {
    hits: Vec<Hit>,
    arch: Arch,
    target: Target,
}

/// An entry that applies to a call of one architecture. In order of the calls' numbers, then of the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hit(u64);

impl Hit {
    fn new(number: u32, place: u32) -> Self {
        Self(u64::from(number) << 32 | u64::from(place))
    }

    fn number(self) -> u32 {
        arguments::halves(self.0).0
    }

    /// The index of the entry.
    fn place(self) -> usize {
        usize::try_from(arguments::halves(self.0).1).unwrap_or(usize::MAX)
    }
}

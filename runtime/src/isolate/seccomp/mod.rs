//! Compiles the OCI seccomp profile of a container to classic BPF, and loads it.
//!
//! What a profile means is what runc and libseccomp make of it:
//!
//! - the native architecture is always let in, the others that can run on this kernel if listed; a call of any
//!   other kind kills the thread;
//! - a rule without conditions wins over all rules with conditions for its call, and the first such rule wins;
//!   rules with conditions are ordered by `arguments`; no rule, the default action;
//! - a rule whose action is the default action does not exist;
//! - names that the table lacks are passed over (`unknown_names` tells them);
//! - if the default action denies, a call above the highest one that the profile mentions is unknown to its
//!   author rather than forbidden: it answers ENOSYS, so that programs fall back to older calls.
//!
//! The program dispatches on the architecture and then searches a balanced tree over ranges of call numbers:
//! short enough for the kernel to walk it once for every call there is, which it does while loading.
//! `profile` reads and checks, `names` knows the numbers, `arguments` compiles conditions, `assemble` writes
//! instructions. All of it is pure; only `Program::load` and `notify` touch the kernel.

mod arguments;
mod assemble;
mod names;
pub mod notify;
mod profile;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};
use serde::{Deserialize, Serialize};

use self::arguments::{Condition, Rule};
use self::assemble::{Assembler, Jump, Ranges, Target};
use self::names::{Arch, Call, X32_BIT};
use self::profile::Entry;
pub use crate::sys::seccomp::Insn;
use crate::{Error, Result, sys};

/// The kernel's limit on a program (BPF_MAXINSNS).
const MAX_INSNS: usize = 4096;
const ENOSYS: Target = Target::Return(libc::SECCOMP_RET_ERRNO | 38);
const KILL: Target = Target::Return(libc::SECCOMP_RET_KILL_THREAD);
/// `seccomp_data.nr` and `seccomp_data.arch`.
const NR: u32 = 0;
const ARCH: u32 = 4;

/// A filter ready for the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub filter: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Whether `load` answers with a listener, to be sent to the profile's `listenerPath`.
    pub notify: bool,
}

impl Program {
    /// Filters the calling thread and all that it becomes. Without no_new_privs it takes CAP_SYS_ADMIN.
    pub fn load(&self) -> Result<Option<OwnedFd>> {
        sys::seccomp::load(&self.filter, self.flags).map_err(Error::sys("seccomp"))
    }
}

/// The same profile always gives the same program.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
    compile_for(profile, names::HOST)
}

/// The names in the profile that no architecture has a call for, each once.
pub fn unknown_names(profile: &LinuxSeccomp) -> Vec<&str> {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let names = rules.iter().flat_map(|rule| rule.names()).map(String::as_str);
    let mut unknown: Vec<_> = names.filter(|name| Call::named(name).is_none()).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

fn compile_for(profile: &LinuxSeccomp, host: &[Arch]) -> Result<Program> {
    let default = profile::answer(
        "linux.seccomp.defaultErrnoRet",
        profile.default_action(),
        profile.default_errno_ret(),
    )?;
    let notify = profile::notifies(profile)?;
    let flags = profile::flags(profile, notify)?;
    let archs = profile::architectures(profile, host);
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let conditions = rules.iter().enumerate().map(|(index, rule)| profile::conditions(index, rule));
    let conditions = conditions.collect::<Result<Vec<_>>>()?;
    let entries = entries(profile, &conditions)?;
    let permissive =
        matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    let mut compiler = Compiler {
        code: Assembler::with_capacity(512),
        entries: &entries,
        default: Target::Return(default),
        unknown_is_enosys: !permissive,
        shared: Vec::new(),
    };
    let filter = compiler.program(&archs)?;
    if filter.len() > MAX_INSNS {
        let value = format!("{} instructions", filter.len());
        return Err(Error::invalid("linux.seccomp", value, format!("at most {MAX_INSNS}")));
    }
    Ok(Program { filter, flags, notify })
}

/// One entry for each known name and each of its lists of conditions.
fn entries<'a>(profile: &'a LinuxSeccomp, conditions: &'a [Vec<Vec<Condition>>]) -> Result<Vec<Entry<'a>>> {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut entries = Vec::with_capacity(rules.iter().map(|rule| rule.names().len()).sum());
    let mut conditional = 0;
    for ((index, rule), lists) in rules.iter().enumerate().zip(conditions) {
        let field = || format!("linux.seccomp.syscalls[{index}]");
        let answer = match (rule.action(), rule.errno_ret()) {
            (action, None) => profile::answer("", action, None)?,
            (action, errno) => profile::answer(&format!("{}.errnoRet", field()), action, errno)?,
        };
        if rule.names().iter().any(String::is_empty) {
            return Err(Error::invalid(format!("{}.names", field()), "\"\"", "the name of a system call"));
        }
        for call in rule.names().iter().filter_map(|name| Call::named(name)) {
            entries.extend(lists.iter().map(|conditions| Entry { call, answer, conditions, index }));
            conditional += lists.iter().filter(|list| !list.is_empty()).count();
        }
        if conditional > MAX_INSNS {
            let value = format!("more than {MAX_INSNS} rules with args");
            return Err(Error::invalid(
                field(),
                value,
                format!("as many as {MAX_INSNS} instructions can hold"),
            ));
        }
    }
    Ok(entries)
}

struct Compiler<'a> {
    code: Assembler,
    entries: &'a [Entry<'a>],
    default: Target,
    unknown_is_enosys: bool,
    /// Argument rules written so far; an equal set is not written again.
    shared: Vec<(bool, Vec<Rule>, Target)>,
}

impl Compiler<'_> {
    fn program(&mut self, archs: &[Arch]) -> Result<Vec<Insn>> {
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
        Ok(std::mem::take(&mut self.code).finish())
    }

    /// x86_64 and x32 share an audit number; bit 30 of the call's number tells them apart.
    fn x86_64(&mut self, x32: bool) -> Result<Ranges> {
        let (mut ranges, stub) = self.calls(Ranges::all(self.default), 0, Arch::X86_64)?;
        let native = if stub { ENOSYS } else { self.default };
        if !x32 {
            ranges.from(X32_BIT, KILL);
            ranges.from(1 << 31, if stub { ENOSYS } else { KILL });
            ranges.from(3 << 30, KILL);
            // A tracer that skips a call makes it -1.
            ranges.only(u32::MAX, self.default, self.default);
            return Ok(ranges);
        }
        ranges.from(X32_BIT, self.default);
        let (mut ranges, stub) = self.calls(ranges, X32_BIT, Arch::X32)?;
        ranges.from(1 << 31, native);
        ranges.from(3 << 30, if stub { ENOSYS } else { self.default });
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
            targets.push((same[0].number(), self.target(same, arch)?));
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

    /// Where all rules for one call lead.
    fn target(&mut self, hits: &[Hit], arch: Arch) -> Result<Target> {
        let mut rules = Vec::new();
        for hit in hits {
            let rule = self.rule(*hit, arch);
            if rule.conditions.is_empty() {
                return Ok(Target::Return(rule.answer));
            }
            rules.push(rule);
        }
        let same = |(wide, known, _): &&(bool, Vec<Rule>, Target)| *wide == arch.wide() && *known == rules;
        if let Some((_, _, target)) = self.shared.iter().find(same) {
            return Ok(*target);
        }
        let ordered = arguments::order(&rules, arch).map_err(|found| {
            let index = |place: usize| self.entries[place].index;
            let field = format!("linux.seccomp.syscalls[{}]", index(found.later));
            let expected = format!("that of syscalls[{}]", index(found.earlier));
            Error::invalid(field, "another action for the same call and args", expected)
        })?;
        let target = arguments::assemble(&ordered, arch, self.default, &mut self.code);
        self.shared.push((arch.wide(), rules, target));
        Ok(target)
    }

    fn rule(&self, hit: Hit, arch: Arch) -> Rule {
        let entry = self.entries[hit.place()];
        // Reached through a multiplexed call, the first argument says which call is meant.
        let carrier =
            entry.call.multiplexed().filter(|(carrier, _)| arch.multiplexes() && *carrier == hit.number());
        let selector = carrier.map(|(_, selector)| Condition::equal(0, selector));
        let own = entry.conditions.iter().filter(|c| selector.is_none() || c.argument != 0);
        let own = own.map(|c| if arch.wide() { *c } else { c.narrowed() }).filter(|c| !c.always_holds());
        Rule {
            conditions: selector.into_iter().chain(own).collect(),
            answer: entry.answer,
            place: hit.place(),
        }
    }
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

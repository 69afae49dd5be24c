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
//! `profile` reads and checks, `names` knows the numbers, `calls` builds the tree, `arguments` compiles
//! conditions, `assemble` writes instructions. All of it is pure; only `Program::load`, `notify` and `support`
//! touch the kernel. Not here: a fallback for kernels without seccomp(2) or its flags, which are older than all
//! else that Hearth needs.

mod arguments;
mod assemble;
mod calls;
mod names;
pub mod notify;
mod profile;
pub mod support;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};
use serde::{Deserialize, Serialize};

use self::calls::Compiler;
use self::names::{Arch, Call};
pub use crate::sys::seccomp::Insn;
use crate::{Error, Result, sys};

/// The kernel's limit on a program (BPF_MAXINSNS).
const MAX_INSNS: usize = 4096;

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
    let entries = profile::entries(profile, &conditions)?;
    let permissive =
        matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    let filter = Compiler::new(&entries, default, !permissive).program(&archs)?;
    if filter.len() > MAX_INSNS {
        let value = format!("{} instructions", filter.len());
        return Err(Error::invalid("linux.seccomp", value, format!("at most {MAX_INSNS}")));
    }
    Ok(Program { filter, flags, notify })
}

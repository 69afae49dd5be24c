//! seccomp(2): loading a filter, and what the kernel can do with one.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// One instruction of a classic BPF program, laid out as the kernel's `sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct Insn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

const _: () = assert!(size_of::<Insn>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Insn>() == align_of::<libc::sock_filter>());

/// Filters every further system call of the calling thread. Without no_new_privs it takes CAP_SYS_ADMIN.
///
/// The listener's descriptor comes back if `flags` has `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub fn load(filter: &[Insn], flags: u32) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: `program` holds the address and the length of `filter`, whose elements have sock_filter's layout
    // (asserted above) and which is borrowed for the whole call; the kernel copies from it and never writes to it.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::c_ulong::from(flags),
            &raw const program,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    if libc::c_ulong::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = libc::c_int::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: with NEW_LISTENER the kernel answers with a descriptor made for this call, which nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows this action (`SECCOMP_RET_*`, without its data).
pub fn knows_action(action: u32) -> bool {
    // SAFETY: the kernel reads the four bytes of `action`, which lives until the call returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_GET_ACTION_AVAIL),
            0,
            &raw const action,
        )
    };
    answer == 0
}

/// Whether the kernel knows these flags of the filter: it looks at them first, then fails at the missing program.
pub fn knows_flags(flags: u32) -> bool {
    // SAFETY: a null program is refused with EFAULT before anything of the caller changes.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::c_ulong::from(flags),
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    answer < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Makes a call as it comes, to see what a filter answers; the errno of what fails.
#[cfg(test)]
pub(crate) fn attempt(nr: u32, args: [u64; 6]) -> Result<i64, i32> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the tests only attempt calls that their filter does not let through to the kernel, and calls that
    // take no address.
    let answer = unsafe { libc::syscall(i64::from(nr), a, b, c, d, e, f) };
    if answer < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(answer) }
}

/// The newest filter of another process, which is stopped for a moment (PTRACE_SECCOMP_GET_FILTER).
#[cfg(test)]
pub(crate) fn filter_of(pid: i32) -> io::Result<Vec<Insn>> {
    const GET_FILTER: libc::c_uint = 0x420c;
    fn checked(answer: libc::c_long) -> io::Result<usize> {
        usize::try_from(answer).map_err(|_| io::Error::last_os_error())
    }
    // SAFETY: SEIZE takes no address.
    checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0_usize, 0_usize) })?;
    // SAFETY: INTERRUPT takes no address.
    checked(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0_usize, 0_usize) })?;
    // SAFETY: waitpid may be told to store no status.
    checked(unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) }.into())?;
    let mut filter = vec![Insn { code: 0, jt: 0, jf: 0, k: 0 }; 4096];
    // SAFETY: the kernel writes the program's instructions, of which no filter has more than `filter` has room for,
    // in the layout that is asserted above.
    let len = checked(unsafe { libc::ptrace(GET_FILTER, pid, 0_usize, filter.as_mut_ptr()) });
    // SAFETY: DETACH takes no address.
    checked(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0_usize, 0_usize) })?;
    filter.truncate(len?);
    Ok(filter)
}

//! What a process says about itself before it becomes the user's program.

use std::io;

use super::check;

/// Of the kernel's sigset_t. glibc's calls keep two realtime signals to themselves.
const MASK_BYTES: usize = 8;

/// Gives the signals of the mask their default disposition.
pub fn reset_signals(ignored: u64) -> io::Result<()> {
    const SIGNALS: libc::c_int = 64;
    // The kernel's struct: handler SIG_DFL, no flags, no restorer, an empty mask.
    let default = [0u64; 4];
    let none = std::ptr::null_mut::<u64>();
    for signal in (1..=SIGNALS).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        // SAFETY: `default` is as large as a kernel sigaction with its mask, and outlives the call.
        check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, MASK_BYTES) })?;
    }
    Ok(())
}

/// Blocks the signals of the mask and no others.
pub fn block_signals(mask: u64) -> io::Result<()> {
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: `mask` is a kernel sigset_t of that many bytes and outlives the call; the old one is not asked for.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, MASK_BYTES)
    })
    .map(drop)
}

/// Waits for a signal, all of which are blocked.
pub fn next_signal() -> io::Result<i32> {
    let mask = u64::MAX;
    loop {
        let (info, timeout) = (std::ptr::null::<u8>(), std::ptr::null::<u8>());
        // SAFETY: `mask` is a kernel sigset_t of that many bytes and outlives the call; null asks for no details and
        // for no time limit.
        let ret =
            unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const mask, info, timeout, MASK_BYTES) };
        match check(ret) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.and_then(|signal| i32::try_from(signal).map_err(io::Error::other)),
        }
    }
}

/// A write to a peer that is gone fails from here on, instead of being the end of this process or of what it becomes.
pub fn ignore_broken_pipes() -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of ours.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// setgroups(2), setresgid(2), setresuid(2) of this (single-threaded) process by the raw calls: glibc's wrappers
/// signal every thread.
pub fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        // SAFETY: the pointer and the length describe `groups`; gid_t is u32.
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    }
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// personality(2).
pub fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// ioprio_set(2) of this process: class in the upper bits, level in the lower.
pub fn set_io_priority(value: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// struct sched_attr with the clamps of utilisation (Linux 5.3), which the flags of that name read.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// sched_setattr(2) of this process.
pub fn set_scheduler(mut attr: SchedAttr) -> io::Result<()> {
    attr.size = u32::try_from(size_of::<SchedAttr>()).unwrap_or(0);
    // SAFETY: `attr` is a sched_attr whose size field is right, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// set_mempolicy(2) of this process; `nodes` is the mask of NUMA nodes.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    let bits = nodes.len() * 64;
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: `mask` is null or describes `bits` bits; the kernel reads one bit less than `maxnode`.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, if bits == 0 { 0 } else { bits + 1 }) })
        .map(drop)
}

/// Makes this process session leader and gives it the terminal on `fd` (TIOCSCTTY).
pub fn set_controlling_terminal(fd: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: TIOCSCTTY takes an integer argument.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY as _, 0) }.into()).map(drop)
}

/// Overwrites the environment that this process was executed with.
pub fn forget_environment() {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: nothing here changes the environment (clippy.toml forbids it), so this is the list that exec made.
    let mut entry = unsafe { environ };
    loop {
        // SAFETY: the list ends with a null pointer, where this loop ends.
        let text = unsafe { *entry };
        if text.is_null() {
            return;
        }
        // SAFETY: an entry is a string on the initial stack, which ends with a zero.
        let length = unsafe { libc::strlen(text) };
        // SAFETY: these bytes are that string, and nothing borrows it.
        unsafe { text.write_bytes(0, length) };
        entry = entry.wrapping_add(1);
    }
}

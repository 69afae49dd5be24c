//! The first instructions of `hearth`, ahead of the C library's: `hearth run` executes itself once more from a
//! read-only clone of its executable. What it forks from then on, a container's init above all, has nothing in it
//! that leads to the host's file (CVE-2019-5736) and needs no exec of its own. Here that is cheap, for nothing is
//! touched yet; the C library's own start costs as much again, where CPUID is an exit to a hypervisor.
//!
//! Whatever is in doubt goes on to the C library as it is: then init is executed afresh (`process::spawn`).
//!
//! The C library is not there yet: no thread-local storage, and no relocation of memcpy, strlen and the like, which a
//! compiler may make of any loop. So memory is read by volatile reads only.

use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::mount::{ATIME, Attr, NOATIME, NODEV, NODIRATIME, NOSUID, RDONLY};

/// Linked as the entry point (`.cargo/rustc-static`). The kernel enters with the stack pointer at argc, where the C
/// library wants it.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn hearth_start() -> ! {
    std::arch::naked_asm!(
        "mov rbx, rsp",
        "mov r12, rdx",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {}",
        "mov rdx, r12",
        "mov rsp, rbx",
        "xor ebp, ebp",
        "jmp _start",
        sym first,
    )
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn hearth_start() -> ! {
    std::arch::naked_asm!("mov x19, x0", "mov x0, sp", "bl {}", "mov x0, x19", "b _start", sym first)
}

/// Where the kernel says that a program was executed by descriptor N.
const BY_DESCRIPTOR: &[u8] = b"/dev/fd/";
const SELF: &std::ffi::CStr = c"/proc/self/exe";
/// An odd lot of flags, so that no mount of the host's is taken for the clone.
const MARKS: u64 = RDONLY | NOSUID | NODEV | NOATIME | NODIRATIME;

extern "C" fn first(stack: *const usize) {
    let argc = word(stack, 0);
    let (argv, envp) = (stack.wrapping_add(1), stack.wrapping_add(argc + 2));
    let mut auxv = envp;
    while word(auxv, 0) != 0 {
        auxv = auxv.wrapping_add(1);
    }
    auxv = auxv.wrapping_add(1);
    let mut name = 0;
    while word(auxv, 0) != 0 {
        match word(auxv, 0) as u64 {
            libc::AT_EXECFN => name = word(auxv, 1),
            // A clone has no set-uid bit and no capabilities of its file.
            libc::AT_SECURE if word(auxv, 1) != 0 => return,
            _ => {}
        }
        auxv = auxv.wrapping_add(2);
    }
    if name != 0 && !begins(name, BY_DESCRIPTOR) && is_run(argv, argc) {
        execute_clone(argv, envp);
    }
}

/// Whether the verb is `run`: the first word that is neither a flag nor the value of one.
fn is_run(argv: *const usize, argc: usize) -> bool {
    let mut at = 1;
    while at < argc {
        let arg = word(argv, at);
        if byte(arg, 0) != b'-' {
            return begins(arg, b"run\0");
        }
        // Global flags without a value begin so; all others take one, after `=` or as the next word.
        let alone = begins(arg, b"--debug") || begins(arg, b"--systemd-cgroup") || has(arg, b'=');
        at += if alone { 1 } else { 2 };
    }
    false
}

/// Returns where it cannot.
fn execute_clone(argv: *const usize, envp: *const usize) {
    // The path is absolute: no directory is looked at.
    let path = SELF.as_ptr() as usize;
    let clone = call(libc::SYS_open_tree, [usize::MAX, path, libc::OPEN_TREE_CLONE as usize, 0, 0]);
    let Ok(clone) = usize::try_from(clone) else { return };
    let attr = Attr { set: MARKS, clear: ATIME, propagation: 0, userns: 0 };
    let (none, by_fd) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH.cast_unsigned() as usize);
    let size = size_of::<Attr>();
    if call(libc::SYS_mount_setattr, [clone, none, by_fd, (&raw const attr) as usize, size]) == 0 {
        call(libc::SYS_execveat, [clone, none, argv as usize, envp as usize, by_fd]);
    }
    call(libc::SYS_close, [clone, 0, 0, 0, 0]);
}

fn begins(text: usize, start: &[u8]) -> bool {
    let mut at = 0;
    while at < start.len() {
        if byte(text, at) != byte(start.as_ptr() as usize, at) {
            return false;
        }
        at += 1;
    }
    true
}

fn has(text: usize, wanted: u8) -> bool {
    let mut at = 0;
    while byte(text, at) != 0 {
        if byte(text, at) == wanted {
            return true;
        }
        at += 1;
    }
    false
}

/// Word `at` of the initial stack.
fn word(stack: *const usize, at: usize) -> usize {
    // SAFETY: `first` was given the initial stack by `hearth_start`, and its functions stop at the counts and null
    // words that the kernel put there.
    unsafe { stack.wrapping_add(at).read_volatile() }
}

/// Byte `at` of a string: of the initial stack, or a constant.
fn byte(text: usize, at: usize) -> u8 {
    // SAFETY: the kernel's strings end with a zero, and no function here reads beyond one; constants are as long as
    // their slices say.
    unsafe { ((text + at) as *const u8).read_volatile() }
}

/// A system call by hand: libc's own sets errno, which is thread-local.
fn call(number: i64, args: [usize; 5]) -> i64 {
    let [a, b, c, d, e] = args;
    let result: i64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the callers pass what the call of that number takes; it clobbers rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            out("rcx") _, out("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as on x86_64; nothing but x0 changes.
    unsafe {
        std::arch::asm!(
            "svc #0",
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x8") number,
        );
    }
    result
}

/// The number of the clone that this process runs from, unless it runs from the host's file.
pub fn clone_number() -> Option<RawFd> {
    // SAFETY: getauxval has no precondition.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if name.is_null() {
        return None;
    }
    // SAFETY: AT_EXECFN is a string on the initial stack, which stays.
    let name = unsafe { std::ffi::CStr::from_ptr(name) }.to_bytes();
    std::str::from_utf8(name.strip_prefix(BY_DESCRIPTOR)?).ok()?.parse().ok()
}

/// The clone that this process runs from; once. The name that the kernel gave is believed when the mount behind it
/// bears the marks: only root could make another of that kind, and would cheat itself.
pub fn take_clone() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = clone_number().filter(|number| super::fd::is_open(*number))?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: it is open since before `main`, nothing else here knows of it, and `TAKEN` lets one caller have it.
    let clone = unsafe { OwnedFd::from_raw_fd(number) };
    let flags = rustix::fs::fstatvfs(clone.as_fd()).ok()?.f_flag.bits();
    // ST_NOATIME and ST_NODIRATIME of statfs(2); the first three have the same values there.
    let marks = (MARKS & 0xf) | 0x400 | 0x800;
    (flags & marks == marks).then_some(clone)
}

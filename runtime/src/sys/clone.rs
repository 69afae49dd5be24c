//! clone3(2): the one way in which Hearth makes a process.

use std::convert::Infallible;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::check;

/// What clone3(2) is asked for.
#[derive(Debug, Default, Clone, Copy)]
pub struct Request<'a> {
    /// CLONE_NEW* and CLONE_PARENT.
    pub flags: u64,
    /// The cgroup v2 directory in which the child starts (CLONE_INTO_CGROUP).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Share the caller's memory until exec and suspend the caller meanwhile (CLONE_VM | CLONE_VFORK): no page
    /// table is copied. Without it the child is an ordinary fork.
    pub vfork: bool,
}

/// A new child of this process.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// linux/sched.h; libc's constant of that name overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Enough for a closure that makes a handful of system calls. The child's stack must not be the parent's, which
/// the parent goes on to use while the child's frames are still referred to by the kernel's register save.
const STACK: usize = 32 * 1024;

/// Runs `body` in a new process. `body` must not allocate, lock or log, and ends by exec; when it returns, its
/// value is the exit status of the child.
pub fn spawn<F: FnOnce() -> u8>(request: Request<'_>, body: F) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: request.flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        // A sibling's parent, which is not us, gets the signal that our own end gives it.
        exit_signal: if request.flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    let mut stack = Vec::<u8>::new();
    if request.vfork {
        args.flags |= (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
        stack.reserve_exact(STACK);
        let base = stack.as_mut_ptr() as u64;
        args.stack = (base + 15) & !15;
        args.stack_size = (STACK as u64 - 16) & !15;
    }
    let mut body = Some(body);
    let data = &raw mut body;
    // SAFETY: `args` and `stack` outlive the call: with CLONE_VFORK the caller is suspended until the child has
    // exec'd or exited, without it the child has copies of its own. `entry::<F>` is given the pointer to `body`,
    // whose type it was made for, exactly once in the child; the parent only drops it.
    let pid = unsafe { clone3(&raw const args, size_of::<CloneArgs>(), entry::<F>, data.cast()) };
    let child = child_of(pid, pidfd)?;
    // The child took (or copied) the closure; the parent must not run its destructor twice under CLONE_VM.
    if request.vfork {
        std::mem::forget(body);
    }
    Ok(child)
}

/// What clone3 returned, with CLONE_PIDFD.
fn child_of(pid: i64, pidfd: RawFd) -> io::Result<Child> {
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::EINVAL)));
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: clone3 succeeded, so the kernel stored a descriptor that nobody else owns.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

extern "C" fn entry<F: FnOnce() -> u8>(data: *mut c_void) -> ! {
    // SAFETY: `spawn::<F>` passed a pointer to its own live `Option<F>`, used by this child alone.
    let body = unsafe { &mut *data.cast::<Option<F>>() };
    let status = body.take().map_or(255, |run| run());
    // SAFETY: _exit runs no destructor and no atexit handler, which belong to the parent.
    unsafe { libc::_exit(c_int::from(status)) }
}

/// A process beside this one, in the same memory and with the same descriptors, for one call that takes its time.
/// No thread: there is nothing of the C library's to set up, and a later clone of this process copies no lock that
/// it could hold.
#[derive(Debug)]
pub struct Beside {
    child: Option<Child>,
    job: Box<Job>,
    _stack: Vec<u8>,
}

#[derive(Debug)]
struct Job {
    body: fn() -> io::Result<OwnedFd>,
    /// A descriptor, or an errno as a negative number.
    result: AtomicI32,
}

impl Beside {
    /// `body` must neither allocate nor lock.
    pub fn start(body: fn() -> io::Result<OwnedFd>) -> io::Result<Self> {
        let mut job = Box::new(Job { body, result: AtomicI32::new(-libc::EIO) });
        let mut stack = Vec::<u8>::with_capacity(STACK);
        let mut pidfd: RawFd = -1;
        let args = CloneArgs {
            flags: (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD) as u64,
            pidfd: &raw mut pidfd as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: (stack.as_mut_ptr() as u64 + 15) & !15,
            stack_size: (STACK as u64 - 16) & !15,
            ..CloneArgs::default()
        };
        let data = &raw mut *job;
        // SAFETY: stack and job are on the heap and owned by the value that is returned, which waits for the child
        // before it lets go of them; `work` is given the job that it was written for.
        let pid = unsafe { clone3(&raw const args, size_of::<CloneArgs>(), work, data.cast()) };
        let child = child_of(pid, pidfd)?;
        Ok(Self { child: Some(child), job, _stack: stack })
    }

    pub fn wait(mut self) -> io::Result<OwnedFd> {
        self.join();
        match self.job.result.load(Ordering::Acquire) {
            // SAFETY: the child left this descriptor in our table and gave it up with its number.
            number @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        }
    }

    fn join(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = waitid(WaitId::Pid(child.pid), WaitIdOptions::EXITED);
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.join();
    }
}

extern "C" fn work(data: *mut c_void) -> ! {
    // SAFETY: `Beside::start` passed its own job, which outlives this process and is only read, but for an atomic.
    let job = unsafe { &*data.cast::<Job>() };
    let result = match (job.body)() {
        Ok(fd) => fd.into_raw_fd(),
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    };
    job.result.store(result, Ordering::Release);
    exit_now(0)
}

/// The raw call. In the child, `entry(data)` runs on the stack that `args` names (or on a copy of the caller's).
///
/// # Safety
/// `args` points to `size` bytes of clone_args; `data` is what `entry` expects.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    args: *const CloneArgs,
    size: usize,
    entry: extern "C" fn(*mut c_void) -> !,
    data: *mut c_void,
) -> i64 {
    let ret: i64;
    // SAFETY: only the child leaves the parent's flow, and never comes back: `entry` does not return. The parent
    // sees an ordinary system call that clobbers rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "and rsp, -16",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => ret,
            in("rdi") args,
            in("rsi") size,
            in("r12") data,
            in("r13") entry,
            out("rcx") _,
            out("r11") _,
        );
    }
    ret
}

/// As above, for aarch64.
///
/// # Safety
/// `args` points to `size` bytes of clone_args; `data` is what `entry` expects.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    args: *const CloneArgs,
    size: usize,
    entry: extern "C" fn(*mut c_void) -> !,
    data: *mut c_void,
) -> i64 {
    let ret: i64;
    // SAFETY: as on x86_64.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, #0",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            inlateout("x0") args as i64 => ret,
            in("x1") size,
            in("x8") libc::SYS_clone3,
            in("x20") data,
            in("x21") entry,
        );
    }
    ret
}

/// A program to execute, with everything laid out beforehand, so that the call itself does not allocate.
#[derive(Debug)]
pub struct Exec<'a> {
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    // The pointers above are into these borrowed strings.
    _strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> Exec<'a> {
    pub fn new<S: AsRef<CStr>>(argv: &'a [S], envp: &'a [S]) -> Self {
        let pointers = |list: &'a [S]| {
            list.iter().map(|s| s.as_ref().as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
        };
        Self { argv: pointers(argv), envp: pointers(envp), _strings: std::marker::PhantomData }
    }

    /// execve(2) of `path`.
    pub fn execute(&self, path: &CStr) -> io::Result<Infallible> {
        // SAFETY: both arrays end with a null pointer and point to strings that `'a` keeps alive.
        let ret = unsafe { libc::execve(path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        check(ret.into()).and_then(|_| Err(io::Error::from_raw_os_error(libc::EINVAL)))
    }
}

/// execveat(2) of the file behind `fd`, with no environment. Allocates nothing.
pub fn execute_fd<const N: usize>(fd: BorrowedFd<'_>, argv: [&CStr; N]) -> io::Result<Infallible> {
    const LIMIT: usize = 8;
    let mut pointers = [std::ptr::null::<c_char>(); LIMIT];
    for (pointer, text) in pointers[..LIMIT - 1].iter_mut().zip(argv) {
        *pointer = text.as_ptr();
    }
    let none = std::ptr::null::<c_char>();
    // SAFETY: both arrays end with a null pointer and point to strings that outlive the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            &raw const none,
            libc::AT_EMPTY_PATH,
        )
    };
    check(ret).and_then(|_| Err(io::Error::from_raw_os_error(libc::EINVAL)))
}

/// Ends this process at once: no destructor, no atexit handler.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(c_int::from(status)) }
}

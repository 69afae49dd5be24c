//! Descriptors: inherited ones, and whole ranges of them.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use super::check;

/// Marks every descriptor from `first` upwards close-on-exec (close_range(2), Linux 5.11).
pub fn cloexec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` upwards. The caller must own none of them any more: this is for a process
/// that is about to become something else.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: no memory is passed. With flags 0 it is documented that no owner of such a descriptor lives on.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) }).map(drop)
}

/// For a fork: closes its copy of a descriptor whose owner is in the parent's code.
pub fn close_copy(number: RawFd) {
    // SAFETY: no memory is passed; a fork does not return into the parent's code, so nothing here uses the number.
    unsafe { libc::syscall(libc::SYS_close, number) };
}

/// For a fork that goes its own way: takes these over, and closes all others from `first` upwards.
pub fn keep_only(one: BorrowedFd<'_>, rest: &[BorrowedFd<'_>], first: u32) -> (OwnedFd, Vec<OwnedFd>) {
    let mut from = first;
    let mut kept: Vec<u32> = rest.iter().chain([&one]).map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    for number in kept.into_iter().chain([u32::MAX]) {
        if from < number {
            // SAFETY: no memory is passed. Of what the parent owned nothing is used any more in this process, which
            // never returns into the parent's code.
            unsafe { libc::syscall(libc::SYS_close_range, from, number - 1, 0) };
        }
        from = from.max(number.saturating_add(1));
    }
    // SAFETY: as above: their owners are in the parent's code, which is not returned to.
    let take = |fd: &BorrowedFd<'_>| unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) };
    (take(&one), rest.iter().map(take).collect())
}

/// Descriptors that are done with, closed together: a range of them costs one call.
#[derive(Debug, Default)]
pub struct Done(RefCell<Vec<OwnedFd>>);

impl Done {
    /// Well below the lowest usual limit of descriptors.
    const LIMIT: usize = 64;

    pub fn push(&self, fd: OwnedFd) {
        let mut fds = self.0.borrow_mut();
        fds.push(fd);
        if fds.len() == Self::LIMIT {
            Self::close(&mut fds);
        }
    }

    fn close(fds: &mut Vec<OwnedFd>) {
        let mut numbers: Vec<RawFd> = fds.drain(..).map(IntoRawFd::into_raw_fd).collect();
        numbers.sort_unstable();
        for range in numbers.chunk_by(|a, b| a + 1 == *b) {
            let (first, last) = (range[0].cast_unsigned(), range[range.len() - 1].cast_unsigned());
            // SAFETY: no memory is passed; `into_raw_fd` made this function the owner of all of them.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        Self::close(self.0.get_mut());
    }
}

pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD only asks whether the descriptor is open.
    number >= 0 && unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0
}

/// Takes over a descriptor that was inherited under a number that the caller knows, or that its owner in this
/// process has let go of (`into_raw_fd`). None where it is not open.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    if !is_open(number) {
        return None;
    }
    // SAFETY: it is open, and neither inherited descriptors, asked for once at start, nor those that were let go of,
    // whose numbers are handed over once, have another owner in this process.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A descriptor of the standard three, or one that is known to stay open for `'static`.
pub fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: 0, 1 and 2 are open for the whole life of the process: `main` makes sure of it at start.
    unsafe { BorrowedFd::borrow_raw(number.clamp(0, 2)) }
}

/// Lets descriptor `number` survive the next exec. Async-signal-safe.
pub fn keep_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD passes no memory.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }.into()).map(drop)
}

/// Undoes [`keep_on_exec`].
pub fn keep_cloexec(fd: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?)
}

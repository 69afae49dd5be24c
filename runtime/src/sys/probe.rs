//! Questions to the kernel that change nothing, for `doctor`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// The version of the landlock interface; an error where there is none.
pub fn landlock_abi() -> io::Result<i64> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel takes no rules: it wants a null pointer and the size 0.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    })
}

/// A virtual machine without memory and processors, by /dev/kvm. It goes when its descriptor is closed.
pub fn create_machine(kvm: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const KVM_CREATE_VM: u32 = 0xae01;
    // SAFETY: the request takes a machine type by value, and no memory of ours.
    let answer = check(unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM as _, 0) }.into())?;
    let fd = i32::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for this call, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

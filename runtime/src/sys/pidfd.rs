//! What a pidfd tells of its process (PIDFD_GET_INFO, Linux 6.13), which neither rustix nor nix asks for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// struct pidfd_info as it was at first; the kernel takes any size from this one upwards.
#[repr(C)]
#[derive(Debug, Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// Process, thread group, parent, and eight ids.
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

/// _IOWR(0xff, 11, struct pidfd_info)
const GET_INFO: u32 = 0xc000_0000 | (64 << 16) | (0xff << 8) | 11;
/// Linux 6.15.
const EXIT: u64 = 1 << 3;

/// The wait status of a process, whoever was its parent: `None` until it has been reaped, and on a kernel that does
/// not tell. The descriptor must have been opened before.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the request's number says 64 bytes, which is the size of `info` (asserted above), and the kernel
    // writes no more; `info` outlives the call.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &raw mut info) };
    match check(answer.into()) {
        Ok(_) => Ok((info.mask & EXIT != 0).then_some(info.exit_code)),
        // Not reaped yet on some kernels, or a kernel without the call.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOTTY | libc::EINVAL)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

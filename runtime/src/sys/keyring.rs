//! keyctl(2).

use std::ffi::CString;
use std::io;

use super::check;

/// Joins (or makes) the session keyring of that name, so that a container shares no keys with its caller.
/// Kernels without key management have nothing to share.
pub fn join_session(name: &str) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = CString::new(name)?;
    // SAFETY: `name` is a C string that outlives the call.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }) {
        // Full quotas are no reason to refuse a container either, as in runc.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EDQUOT | libc::EPERM)) => {
            Ok(())
        }
        result => result.map(drop),
    }
}

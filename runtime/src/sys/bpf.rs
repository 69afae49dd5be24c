//! bpf(2) for one kind of program: the device filter of a control group.
//!
//! Neither `rustix` nor `nix` has this call. The attributes are declared up to the last field that is used; the
//! kernel takes what lies beyond the given size as zero.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// The kernel allows at most 64 programs of one kind on a control group.
const MAX_ATTACHED: usize = 64;

/// The name under which our programs are found again, padded as the kernel stores it.
const NAME: [u8; 16] = *b"hearth_devices\0\0";

/// One eBPF instruction, as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination register in the low half, source register in the high half.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: RawFd,
}

/// Declared to its very end: kernels 6.17 to 7.1 write `revision` whatever size they are given.
#[repr(C)]
struct Query {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
struct GetFdById {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct GetInfo {
    bpf_fd: RawFd,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to its name.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    before_name: [u64; 8],
    name: [u8; 16],
}

/// # Safety
/// `attr` is the attribute structure of `command`, and every address and length in it describes memory that
/// lives through the call and that the kernel may use as the command says.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: the pointer and the size are those of one live, exclusively borrowed structure; what its fields
    // point to is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), std::mem::size_of::<T>()) };
    RawFd::try_from(result).ok().filter(|&value| value >= 0).ok_or_else(io::Error::last_os_error)
}

/// # Safety
/// As for [`bpf`]; besides, the command is one that returns a new descriptor.
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise is that of `bpf`.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the command returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T>(data: &[T]) -> u64 {
    data.as_ptr() as u64
}

/// Has the kernel verify and compile a device filter.
pub fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    // The verifier asks for a licence string; the filter calls no helper that demands a particular one.
    let license = c"Apache-2.0".to_bytes_with_nul();
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        insns: address(program),
        license: address(license),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: NAME,
    };
    // SAFETY: `insns` and `insn_cnt` describe the borrowed slice, `license` a static string with its NUL; the
    // kernel only reads both, and PROG_LOAD returns a new descriptor.
    unsafe { bpf_fd(BPF_PROG_LOAD, &mut attr) }
}

/// Attaches a filter to the control group behind `cgroup`, beside those of others; in place of `replaced` if given.
pub fn attach_device_filter(
    cgroup: BorrowedFd<'_>,
    filter: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: filter.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | if replaced.is_some() { BPF_F_REPLACE } else { 0 },
        replace_bpf_fd: replaced.map_or(0, |fd| fd.as_raw_fd()),
    };
    // SAFETY: the structure holds no addresses; the descriptors are borrowed for longer than the call.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

/// The filter that an earlier [`attach_device_filter`] left on the control group itself, if any.
pub fn attached_device_filter(cgroup: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut ids = [0_u32; MAX_ATTACHED];
    let mut attr = Query {
        target_fd: cgroup.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: `prog_ids` and `prog_cnt` describe the array above, which outlives the call; zero addresses ask
    // for nothing.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.prog_cnt).unwrap_or(MAX_ATTACHED).min(MAX_ATTACHED);
    for &id in &ids[..count] {
        let mut attr = GetFdById { prog_id: id, next_id: 0, open_flags: 0 };
        // SAFETY: the structure holds no addresses; the command returns a new descriptor.
        let program = match unsafe { bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr) } {
            Ok(program) => program,
            // A program that a security module hides, or that went away meanwhile, is not ours.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOENT)) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        if name_of(&program)? == NAME {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

fn name_of(program: &OwnedFd) -> io::Result<[u8; 16]> {
    let mut info = ProgInfo::default();
    let mut attr = GetInfo {
        bpf_fd: program.as_raw_fd(),
        info_len: u32::try_from(std::mem::size_of::<ProgInfo>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` and `info_len` describe the structure above, which outlives the call; all its fields are
    // plain integers, so whatever the kernel writes is valid.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.name)
}

//! Executables of a few bytes, for what no shell can ask: the result of one raw system call.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const BASE: u64 = 0x40_0000;
const HEADERS: usize = 64 + 56;

/// Writes a static x86-64 executable that makes one system call and exits with its errno (0 where it succeeded).
pub fn syscall(path: &Path, number: u32, args: &[u64]) {
    write(path, &code(number, args));
}

/// One that clears the read-only flag of the mount whose root is its standard input (mount_setattr(2)).
pub fn clear_read_only(path: &Path) {
    const MOUNT_SETATTR: u32 = 442;
    const AT_EMPTY_PATH: u64 = 0x1000;
    let attr: Vec<u8> = [0_u64, 1, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let call = |attr: u64| {
        // The path is empty: its NUL is the first byte of the struct.
        code(MOUNT_SETATTR, &[0, attr, AT_EMPTY_PATH, attr, 32])
    };
    let address = BASE + HEADERS as u64 + call(0).len() as u64;
    write(path, &[call(address), attr].concat());
}

fn code(number: u32, args: &[u64]) -> Vec<u8> {
    // mov esi.. are 10-byte movabs into rdi, rsi, rdx, r10, r8, r9 in the kernel's order.
    const MOVES: [[u8; 2]; 6] =
        [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
    let mut code = Vec::new();
    for (register, value) in MOVES.iter().zip(args) {
        code.extend(register);
        code.extend(value.to_le_bytes());
    }
    code.push(0xb8); // mov eax, number
    code.extend(number.to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend(EXIT_WITH_ERRNO);
    code
}

/// [`syscall`] through the 32-bit entry, `int 0x80`, which seccomp sees as another architecture.
pub fn syscall_i386(path: &Path, number: u32) {
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    code.extend([0xcd, 0x80]);
    code.extend(EXIT_WITH_ERRNO);
    write(path, &code);
}

/// An executable whose first deed is to ask for the time: it writes CLOCK_MONOTONIC, a timespec, to standard output.
pub fn clock(path: &Path, exit: u8) {
    let mut code = vec![0xb8, 228, 0, 0, 0, 0xbf, 1, 0, 0, 0]; // eax: clock_gettime, edi: CLOCK_MONOTONIC
    code.extend([0x48, 0x8d, 0x74, 0x24, 0xe0, 0x0f, 0x05]); // lea rsi, [rsp-32]; syscall
    code.extend([0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0]); // eax: write, edi: standard output
    code.extend([0x48, 0x8d, 0x74, 0x24, 0xe0, 0xba, 16, 0, 0, 0, 0x0f, 0x05]); // the same place, 16 bytes
    code.extend([0xb8, 60, 0, 0, 0, 0xbf, exit, 0, 0, 0, 0x0f, 0x05]); // exit
    write(path, &code);
}

/// `xor edi, edi; test eax, eax; jns +4; neg eax; mov edi, eax; mov eax, 60; syscall`
const EXIT_WITH_ERRNO: [u8; 17] =
    [0x31, 0xff, 0x85, 0xc0, 0x79, 0x04, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

fn write(path: &Path, code: &[u8]) {
    let size = u64::try_from(HEADERS + code.len()).expect("a program of a few bytes");
    let mut elf = Vec::with_capacity(HEADERS + code.len());
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64
    elf.extend((BASE + 64 + 56).to_le_bytes()); // entry
    elf.extend(64_u64.to_le_bytes()); // program headers
    elf.extend(0_u64.to_le_bytes()); // no section headers
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]); // load, readable and executable
    for value in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(code);
    fs::write(path, elf).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod a file just made");
}

//! The executable: as a command of the user's, or as the init of a container.
#![no_main]

use std::ffi::{c_char, c_int};

/// Rust's own start-up opens, maps and asks for things that no launch needs: 20 system calls less, twice a launch.
#[allow(unsafe_code, reason = "the C runtime looks for this name")]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    c_int::from(hearth::cli::main())
}

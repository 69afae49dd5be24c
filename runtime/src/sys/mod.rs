//! The only room with unsafe code: one family of kernel calls per file, safe functions out.
//!
//! What `rustix` or `nix` offers is used from there; this room holds only what neither has.
#![allow(unsafe_code, reason = "the one room for it; every block states its invariant")]
pub mod seccomp;

pub mod bpf;
pub mod kill;

//! Hearth's resident processes.

#![forbid(unsafe_code)]

pub mod pool;

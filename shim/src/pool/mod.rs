//! The warm pool, as `hearthd` keeps it.

//!
//! [`daemon`] is the program that clients talk to; [`forker`] makes the sandboxes, below [`reaper`].

pub mod config;
pub mod daemon;
mod dirs;
pub mod forker;
pub mod metrics;
pub mod policy;
pub mod reaper;
mod wire;

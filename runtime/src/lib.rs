//! Hearth's runtime: makes and keeps one sandbox.
//!
//! `cli` parses, `bundle` turns a config.json into a plan (pure), `container` answers the OCI verbs,
//! `process` makes processes, `isolate` has one file per kernel mechanism, `store` is all that is on disk, `pool` is
//! what clients share with the warm-pool daemon, and `sys` is the only room with unsafe code.

pub mod bundle;
pub mod cli;
pub mod container;
pub mod error;
pub mod isolate;
pub mod observe;
pub mod pool;
pub mod process;
pub mod store;
pub mod sys;

pub use error::{Error, Result};

/// The version of the runtime specification that is implemented.
pub const OCI_VERSION: &str = "1.3.0";

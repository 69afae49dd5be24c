//! Hearth's runtime: makes and keeps one sandbox.
//!
//! `cli` parses, `bundle` turns a config.json into a plan (pure), `container` answers the OCI verbs,
//! `process` makes processes, `isolate` has one file per kernel mechanism, `store` is all that is on disk,
//! and `sys` is the only room with unsafe code.

pub mod error;
pub mod isolate;
pub mod sys;

pub use error::{Error, Result};

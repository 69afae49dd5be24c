//! What a sandbox stands on: an OCI image becomes a bundle.
//!
//! [`unpack`] does the whole: `image` finds and verifies what a [`Source`] has, `store` keeps each layer once,
//! `layer` turns a blob into files, `overlay` mounts layers on each other, `bundle` adds the config.json that
//! `spec` begins. `beneath` is the only way into a tree that strangers filled. [`gc`] drops what nobody uses.
//!
//! Never here: a path in an untrusted tree by name, an async runtime, an HTTP client.
#![forbid(unsafe_code)]

mod beneath;
mod bundle;
mod digest;
mod error;
pub mod image;
pub mod json;
mod layer;
mod overlay;
mod progress;
pub mod spec;
mod store;

pub use bundle::{Options, Unpacked, parse_size, unpack};
pub use digest::Digest;
pub use error::{Error, LayerError, Problem, Result};
pub use image::{Platform, Source};
pub use progress::{Progress, Step, TerminalLine};
pub use store::{Freed, Store, gc};

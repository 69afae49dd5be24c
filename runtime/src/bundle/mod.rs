//! PURE: a bundle's config.json becomes a [`plan::Plan`] that cannot be wrong. `load` reads and normalises,
//! `validate` has one function per rule of the spec, `plan` translates. Nothing downstream checks again.

pub mod capabilities;
pub mod landlock;
pub mod load;
mod locate;
pub mod mount_options;
pub mod plan;
pub mod process;
pub mod spec;
pub mod validate;

//! The warm pool, as its clients and its daemon share it: what a launch may ask for, and how it is said.
//!
//! A sandbox is parked after everything but the claim. A claim is one message that the parked init itself applies
//! (`process/init/claim.rs`); a cold launch makes a sandbox on the spot and sends it the same message.

pub mod claim;
pub mod client;
pub mod protocol;

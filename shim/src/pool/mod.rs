//! The warm pool, as `hearthd` keeps it.

pub mod policy;

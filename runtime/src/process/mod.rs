//! Making processes without surprises: `spawn` is the runtime's side, `init` the container's, `channel` what they
//! say to each other, `executable` what is executed.

pub mod channel;
mod executable;
pub mod init;
pub mod spawn;

/// The name of the last step of an init.
pub const EXEC: &str = "16 exec";

//! Making processes without surprises: `spawn` is the runtime's side, `init` the container's, `channel` what they
//! say to each other.

pub mod channel;
pub mod init;
pub mod spawn;

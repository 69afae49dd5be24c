//! Control groups: version 2 first, version 1 and hybrid hosts supported.
//!
//! `Host::detect` says what the host has, `Placement::plan` where a container goes (pure but for a look at the
//! caller's own place), `Placement::create` makes the groups and opens them for the container's first process.
//! The placement is stored in the container's record; every later verb works from it alone.
//!
//! The launch path decides the shape. Writing a pid to `cgroup.procs` waits for a grace period of the kernel, about
//! 8 ms. So no process is moved here while a container starts: the first process is cloned into the v2 group by
//! its descriptor, and writes "0" to the `tasks` files of its v1 groups itself, while it has one thread. On pure
//! v2 without limits, making a group is one mkdir and one open, and the device program's load, attach and close.
//!
//! On a hybrid host the v2 group is what counts: tracking, freezing, killing and the device program; v1 groups hold
//! the limits whose controllers are there. On pure v1 the freezer's group tracks and the devices controller guards.
//!
//! Never here: reading what to do from the system again after planning, waiting without a bound, leaving groups
//! behind after a failure.
//!
//! The crate cgroups-rs is not used: it brings an async D-Bus library along, moves processes by pid, has no device
//! program and no order of writes, and unwraps what it parses.
//!
//! The systemd driver is a second way to a `Placement` and a second way to make its group; limits, devices and all
//! verbs stay as they are. Not here: RDT, and the cgroup namespace and mount of a container.

mod apply;
mod create;
mod delegate;
mod delegation;
mod destroy;
mod devices;
mod files;
mod filter;
mod host;
mod limits;
mod oom;
mod placement;
mod processes;
mod restrict;
mod stats;
mod systemd;
mod tree;
mod update;

#[cfg(test)]
mod tests;

pub use create::{Below, Leaf};
pub use devices::{Access, DeviceRule, Devices, Kind, rules as device_rules};
pub use host::{Host, Mode, unescape};
pub use oom::{OomNews, OomWatch};
pub use placement::{Joins, Placement};
pub use stats::Stats;
pub use systemd::Failure as SystemdFailure;

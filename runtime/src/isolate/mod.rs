//! One file per kernel mechanism. Nothing here decides what a container gets: the plan does.

pub mod cgroup;
pub mod cgroup_view;
pub mod copy_up;
pub mod criu;
pub mod devices;
pub mod hooks;
pub mod idmap;
pub mod intel_rdt;
pub mod labels;
pub mod landlock;
pub mod mounts;
pub mod net_devices;
pub mod netlink;
pub mod network;
pub mod paths;
pub mod rights;
pub mod rootfs;
pub mod seccomp;
pub mod sources;
pub mod sysctl;
pub mod terminal;
pub mod tree;

//! One file per kernel mechanism. Nothing here decides what a container gets: the plan does.

pub mod cgroup;
pub mod seccomp;

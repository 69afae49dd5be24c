//! The black-box suite: a file per behaviour, each with a `cases!` table. `suite --list` names them all.

use std::process::ExitCode;

mod attacks;
mod capabilities;
mod cgroups;
mod cgroups_v2;
mod checkpoint;
mod console;
mod crash;
mod descriptors;
mod devices;
mod doctor;
mod events;
mod exec;
mod features;
mod harness;
mod hooks;
mod idmap;
mod init;
mod labels;
mod landlock;
mod lifecycle;
mod listing;
mod mounts;
mod namespaces;
mod net_devices;
mod paths;
mod pool;
mod process;
mod refusals;
mod rootless;
mod run;
mod scheduling;
mod seccomp;
mod seccomp_agent;
mod states;
mod storm;
mod sysctl;
mod systemd;
mod updates;
mod upgrades;
mod users;

fn main() -> ExitCode {
    hearth_tests::runner::main(&[
        attacks::CASES,
        capabilities::CASES,
        cgroups::CASES,
        cgroups_v2::CASES,
        checkpoint::CASES,
        console::CASES,
        crash::CASES,
        descriptors::CASES,
        devices::CASES,
        doctor::CASES,
        events::CASES,
        exec::CASES,
        features::CASES,
        harness::CASES,
        hooks::CASES,
        idmap::CASES,
        init::CASES,
        labels::CASES,
        landlock::CASES,
        lifecycle::CASES,
        listing::CASES,
        mounts::CASES,
        namespaces::CASES,
        net_devices::CASES,
        paths::CASES,
        pool::CASES,
        process::CASES,
        refusals::CASES,
        rootless::CASES,
        run::CASES,
        scheduling::CASES,
        seccomp::CASES,
        seccomp_agent::CASES,
        states::CASES,
        storm::CASES,
        sysctl::CASES,
        systemd::CASES,
        updates::CASES,
        upgrades::CASES,
        users::CASES,
    ])
}

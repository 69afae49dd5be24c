use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::launch::{pool, pool_arg};
use super::{Global, flag, id, id_arg, path, path_arg};
use crate::Result;
use crate::container::{create::Options, launch, run};

pub(super) fn define(command: Command) -> Command {
    command
        .about("Create a container, start it, wait for its end and delete it")
        .args(create_args())
        .arg(flag("detach").short('d').help("Do not wait for the container's end"))
        .arg(flag("keep").help("Do not delete the container when it ends"))
        .arg(flag("timeline").help("Tell at the end what the time was spent on"))
        .arg(pool_arg("never"))
        .arg(flag("no-subreaper").hide(true))
}

pub(super) fn create_args() -> [Arg; 9] {
    [
        path_arg("bundle").short('b').default_value(".").help("Directory of config.json"),
        path_arg("console-socket").help("AF_UNIX socket that receives the terminal's master"),
        path_arg("pidfd-socket")
            .help("AF_UNIX socket that receives a pidfd of the container's first process"),
        path_arg("pid-file").help("File to write the container's pid to"),
        Arg::new("preserve-fds")
            .long("preserve-fds")
            .value_name("N")
            .value_parser(value_parser!(u32).range(0..=1024))
            .default_value("0")
            .help("Descriptors from 3 on that the program gets"),
        flag("init")
            .help("Stay the container's first process: pass signals on to the program, and reap its orphans"),
        flag("no-pivot").help("chroot instead of pivot_root, for a root on a ramdisk"),
        flag("no-new-keyring").help("Stay in the caller's session keyring"),
        id_arg(),
    ]
}

pub(super) fn options(global: &Global, args: &ArgMatches, runs: bool) -> Options {
    Options {
        id: id(args).to_owned(),
        bundle: path(args, "bundle").unwrap_or_else(|| PathBuf::from(".")),
        console_socket: path(args, "console-socket"),
        pidfd_socket: path(args, "pidfd-socket"),
        pid_file: path(args, "pid-file"),
        preserve_fds: args.get_one("preserve-fds").copied().unwrap_or(0),
        init: args.get_flag("init"),
        no_pivot: args.get_flag("no-pivot"),
        no_new_keyring: args.get_flag("no-new-keyring"),
        systemd_cgroup: global.systemd_cgroup,
        rootless: global.rootless,
        runs,
        detach: runs && args.get_flag("detach"),
        parks: false,
        timeline: runs && args.get_flag("timeline"),
    }
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let (root, options) = (global.root()?, options(global, args, true));
    let keep = args.get_flag("keep");
    match launch::run(&root, &options, keep, pool(args))? {
        Some(status) => Ok(status),
        None => run::run(&root, &options, keep),
    }
}

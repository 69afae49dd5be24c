use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Global, flag, id_arg, path, path_arg};
use crate::Result;
use crate::container::exec::{Options, exec, parse_user};

pub(super) fn define(command: Command) -> Command {
    let text = |name: &'static str| Arg::new(name).long(name);
    let list = |name: &'static str| text(name).action(ArgAction::Append);
    command
        .about("Run one more process in a container")
        .arg(path_arg("console-socket").help("AF_UNIX socket that receives the terminal's master"))
        .arg(text("cwd").value_name("DIR").help("Working directory in the container"))
        .arg(list("env").short('e').value_name("NAME=VALUE"))
        .arg(flag("tty").short('t').help("Allocate a terminal"))
        .arg(text("user").short('u').value_name("UID[:GID]"))
        .arg(
            list("additional-gids")
                .short('g')
                .value_name("GID")
                .value_delimiter(',')
                .value_parser(value_parser!(u32)),
        )
        .arg(path_arg("process").short('p').help("process.json instead of the other options"))
        .arg(flag("detach").short('d').help("Do not wait for the process"))
        .arg(path_arg("pid-file").help("File to write the process's pid to"))
        .arg(text("process-label").value_name("LABEL").help("SELinux label"))
        .arg(text("apparmor").value_name("PROFILE").help("AppArmor profile"))
        .arg(flag("no-new-privs").help("Set no_new_privs"))
        .arg(list("cap").short('c').value_name("NAME").help("One more capability"))
        .arg(
            text("preserve-fds")
                .value_name("N")
                .value_parser(value_parser!(u32).range(0..=1024))
                .default_value("0"),
        )
        .arg(list("cgroup").value_name("[CONTROLLERS:]PATH").help("Cgroup below the container's own"))
        .arg(path_arg("pidfd-socket").help("AF_UNIX socket that receives a pidfd of the process"))
        .arg(flag("ignore-paused").help("Do not refuse a paused container"))
        .arg(flag("no-subreaper").hide(true))
        .arg(id_arg())
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .action(ArgAction::Append)
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true),
        )
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let text = |name: &str| args.get_one::<String>(name).cloned();
    let list = |name: &str| args.get_many::<String>(name).into_iter().flatten().cloned().collect();
    let options = Options {
        process: path(args, "process"),
        args: list("command"),
        cwd: text("cwd"),
        env: list("env"),
        tty: args.get_flag("tty"),
        user: text("user").as_deref().map(parse_user).transpose()?,
        additional_gids: args.get_many("additional-gids").into_iter().flatten().copied().collect(),
        caps: list("cap"),
        no_new_privs: args.get_flag("no-new-privs"),
        apparmor: text("apparmor"),
        process_label: text("process-label"),
        pid_file: path(args, "pid-file"),
        console_socket: path(args, "console-socket"),
        detach: args.get_flag("detach"),
        preserve_fds: args.get_one("preserve-fds").copied().unwrap_or(0),
        ignore_paused: args.get_flag("ignore-paused"),
        cgroups: list("cgroup"),
        pidfd_socket: path(args, "pidfd-socket"),
    };
    exec(&global.container(args)?, &options)
}

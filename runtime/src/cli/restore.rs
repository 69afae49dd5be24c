use clap::{Arg, ArgMatches, Command};

use super::checkpoint::{images, images_args};
use super::{Global, flag, id, id_arg, path, path_arg};
use crate::Result;
use crate::container::create;
use crate::container::restore::{Options, restore};

pub(super) fn define(command: Command) -> Command {
    let text = |name: &'static str| Arg::new(name).long(name);
    command
        .about("Make a container of the files of a checkpoint")
        .args(images_args())
        .arg(path_arg("bundle").short('b').default_value(".").help("Directory of config.json"))
        .arg(path_arg("console-socket").help("AF_UNIX socket that receives the terminal's master"))
        .arg(path_arg("pid-file").help("File to write the container's pid to"))
        .arg(flag("detach").short('d').help("Do not wait for the container's end"))
        .arg(text("lsm-profile").value_name("TYPE:NAME").help("Profile instead of that of the checkpoint"))
        .arg(
            text("lsm-mount-context")
                .value_name("CONTEXT")
                .help("Mount context instead of that of the checkpoint"),
        )
        .arg(flag("no-pivot").hide(true))
        .arg(flag("no-subreaper").hide(true))
        .arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let text = |name: &str| args.get_one::<String>(name).filter(|text| !text.is_empty()).cloned();
    let container = create::Options {
        id: id(args).to_owned(),
        bundle: path(args, "bundle").unwrap_or_default(),
        console_socket: path(args, "console-socket"),
        pid_file: path(args, "pid-file"),
        no_pivot: args.get_flag("no-pivot"),
        systemd_cgroup: global.systemd_cgroup,
        detach: true,
        ..create::Options::default()
    };
    let options = Options {
        container,
        images: images(global, args),
        detach: args.get_flag("detach"),
        lsm_profile: text("lsm-profile"),
        lsm_mount_context: text("lsm-mount-context"),
    };
    restore(&global.root()?, &options)
}

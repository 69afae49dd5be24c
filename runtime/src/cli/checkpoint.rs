use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Global, flag, id_arg, path, path_arg};
use crate::container::checkpoint::{Options, checkpoint};
use crate::isolate::criu::images::Images;
use crate::{Error, Result};

/// criu's modes of handling cgroups, by its own numbers.
const CGROUP_MODES: [(&str, u64); 4] = [("soft", 3), ("full", 4), ("strict", 5), ("ignore", 0)];
const DEFAULT_CGROUP_MODE: u64 = 6;

pub(super) fn define(command: Command) -> Command {
    command
        .about("Turn a running container into files, by criu")
        .args(images_args())
        .arg(
            Arg::new("parent-path")
                .long("parent-path")
                .value_name("PATH")
                .help("Images of a --pre-dump, relative to --image-path"),
        )
        .arg(flag("leave-running").help("Leave the container running"))
        .arg(flag("tcp-skip-in-flight").help("Skip TCP connections that are being made"))
        .arg(flag("link-remap").help("Give unlinked files a name again"))
        .arg(flag("pre-dump").help("Store memory only, and leave the container running"))
        .arg(
            Arg::new("status-fd")
                .long("status-fd")
                .value_name("FD")
                .value_parser(value_parser!(i32))
                .allow_negative_numbers(true)
                .help("Descriptor that gets a zero byte once --lazy-pages can be asked for"),
        )
        .arg(
            Arg::new("page-server")
                .long("page-server")
                .value_name("ADDRESS:PORT")
                .help("Where memory is sent to"),
        )
        .arg(id_arg())
}

/// What both directions take.
pub(super) fn images_args() -> [Arg; 10] {
    [
        path_arg("image-path").default_value("checkpoint").help("Directory of the images"),
        path_arg("work-path").help("Directory of criu's log and work files [default: that of the images]"),
        flag("tcp-established").help("Allow open TCP connections"),
        flag("ext-unix-sk").help("Allow Unix sockets whose peer is outside"),
        flag("shell-job").help("Allow a session or a terminal from outside"),
        flag("file-locks").help("Allow file locks"),
        flag("auto-dedup").help("Drop memory from earlier images that later ones have"),
        flag("lazy-pages").help("Move memory when it is needed (userfaultfd)"),
        Arg::new("manage-cgroups-mode")
            .long("manage-cgroups-mode")
            .value_name("MODE")
            .value_parser(CGROUP_MODES.map(|(name, _)| name))
            .help("What criu does about cgroups inside the container"),
        Arg::new("empty-ns")
            .long("empty-ns")
            .value_name("KIND")
            .value_parser(["network"])
            .action(clap::ArgAction::Append)
            .help("Kind of namespaces to leave empty; new network namespaces always are"),
    ]
}

pub(super) fn images(global: &Global, args: &ArgMatches) -> Images {
    let mode = args.get_one::<String>("manage-cgroups-mode");
    let mode = mode.and_then(|name| CGROUP_MODES.iter().find(|(known, _)| known == name));
    Images {
        criu: global.criu.clone(),
        path: path(args, "image-path").unwrap_or_else(|| PathBuf::from("checkpoint")),
        work: path(args, "work-path"),
        cgroups_mode: mode.map_or(DEFAULT_CGROUP_MODE, |(_, number)| *number),
        tcp_established: args.get_flag("tcp-established"),
        ext_unix_sk: args.get_flag("ext-unix-sk"),
        shell_job: args.get_flag("shell-job"),
        file_locks: args.get_flag("file-locks"),
        auto_dedup: args.get_flag("auto-dedup"),
        lazy_pages: args.get_flag("lazy-pages"),
    }
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let server = args.get_one::<String>("page-server").map(|text| page_server(text));
    let options = Options {
        images: images(global, args),
        parent: args.get_one::<String>("parent-path").filter(|path| !path.is_empty()).cloned(),
        leave_running: args.get_flag("leave-running"),
        tcp_skip_in_flight: args.get_flag("tcp-skip-in-flight"),
        link_remap: args.get_flag("link-remap"),
        pre_dump: args.get_flag("pre-dump"),
        status_fd: args.get_one::<i32>("status-fd").copied().filter(|fd| *fd != -1),
        page_server: server.transpose()?,
    };
    checkpoint(&mut global.container(args)?, &options).map(|()| 0)
}

fn page_server(text: &str) -> Result<(String, u16)> {
    let parsed = text.rsplit_once(':').and_then(|(address, port)| {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        Some((address.to_owned(), port.parse().ok()?)).filter(|(address, _)| !address.is_empty())
    });
    parsed.ok_or_else(|| Error::invalid("--page-server", text, "ADDRESS:PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        assert_eq!(page_server("0.0.0.0:27277").unwrap(), ("0.0.0.0".to_owned(), 27277));
        assert_eq!(page_server("[::1]:5").unwrap(), ("::1".to_owned(), 5));
        for bad in ["", ":5", "host", "host:", "host:70000"] {
            assert!(page_server(bad).is_err(), "{bad}");
        }
    }
}

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::{ArgMatches, Command};
use hearth_rootfs::spec::{self, Owner, Spec};

use super::{Global, flag, path, path_arg};
use crate::{Error, Result};

pub(super) fn define(command: Command) -> Command {
    command
        .about("Write a default config.json")
        .arg(path_arg("bundle").short('b').default_value(".").help("Directory to write it to"))
        .arg(flag("rootless").help("For a container of an ordinary user"))
}

pub(super) fn run(_global: &Global, args: &ArgMatches) -> Result<u8> {
    let owner = if args.get_flag("rootless") {
        Owner::Rootless { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    } else {
        Owner::Root
    };
    let spec = Spec::new(owner, spec::host_has_cgroup2_only());
    let text = spec.to_json().map_err(|source| Error::Json { what: "the default config".into(), source })?;
    let path = path(args, "bundle").unwrap_or_else(|| PathBuf::from(".")).join("config.json");
    // Somebody's config is not to be lost.
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
    match file.and_then(|mut file| file.write_all(&text)) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::path("write", &path)(
            std::io::Error::new(error.kind(), "File config.json exists. Remove it first"),
        )),
        result => result.map(|()| 0).map_err(Error::path("write", &path)),
    }
}

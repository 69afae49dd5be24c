//! `hearth gc`: drops layers that no bundle stands on, and what interrupted unpacks have left.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{ArgMatches, Command};
use hearth_rootfs::{Store, gc};

use crate::container::delete;

pub(super) fn define(command: Command) -> Command {
    command
        .about("Drop layers that no bundle needs, and what interrupted work of Hearth has left")
        .arg(super::unpack::store_argument())
}

pub(super) fn run(global: &super::Global, args: &ArgMatches) -> crate::Result<u8> {
    let store = args.get_one::<PathBuf>("store").cloned().unwrap_or_else(Store::default_path);
    let root = global.root()?;
    let containers = delete::clean(&root)? + delete::clean_parked(&root)?;
    let freed = gc(&store)?;
    let mib = freed.bytes.div_ceil(1 << 20);
    let line = format!(
        "{} layers, {} records of bundles, {mib} MiB, {containers} unfinished containers",
        freed.layers, freed.bundles
    );
    writeln!(io::stdout(), "{line}").map_err(crate::Error::sys("write to standard output"))?;
    Ok(0)
}

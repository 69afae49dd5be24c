//! `hearth unpack`: an OCI image becomes a bundle.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use hearth_rootfs::spec::Owner;
use hearth_rootfs::{Options, Source, TerminalLine, parse_size};

use crate::Error;
use crate::isolate::idmap;

const ABOUT: &str = "Make a bundle from an OCI image

The root file system is an overlay over layers that the store keeps once for all bundles; changes stay in the \
bundle. Its mount ends with a reboot: unpacking the same image to the same bundle mounts it again and keeps what \
was changed. To remove such a bundle, unmount BUNDLE/rootfs first; `hearth gc` then drops layers that no bundle \
needs. An ordinary user gets a plain tree, as by --copy.";

const SOURCE: &str = "oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF] or \
docker://HOST/NAME[:TAG|@DIGEST]";

#[derive(Debug)]
pub(crate) struct Unpack {
    source: Source,
    bundle: PathBuf,
    options: Options,
}

pub(super) fn define(command: Command) -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let value = |name: &'static str, shown: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(shown).help(help)
    };
    command
        .about("Make a bundle from an OCI image")
        .long_about(ABOUT)
        .arg(flag("copy", "Make a plain tree instead of an overlay over the store's layers"))
        .arg(value("max-size", "BYTES", "What the layers may add up to, with K, M, G or T [default: 64G]"))
        .arg(value("platform", "OS/ARCH[/VARIANT]", "Which image of an index [default: this machine's]"))
        .arg(flag("squash", "As an ordinary user: all files are the caller's, though it has subordinate ids"))
        .arg(flag("plain-http", "Speak HTTP to the registry (on loopback always)"))
        .arg(store_argument())
        .arg(Arg::new("SOURCE").required(true).help(SOURCE))
        .arg(
            Arg::new("BUNDLE")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("A directory that is new or empty"),
        )
}

/// Shared with `gc`.
pub(super) fn store_argument() -> Arg {
    let help = "Where layers are kept [default: /var/lib/hearth; an ordinary user's ~/.local/share/hearth]";
    Arg::new("store").long("store").value_name("DIR").value_parser(clap::value_parser!(PathBuf)).help(help)
}

impl Unpack {
    fn parse(args: &ArgMatches) -> hearth_rootfs::Result<Self> {
        let text = |name| args.get_one::<String>(name).map(String::as_str);
        let mut options = Options {
            copy: args.get_flag("copy"),
            plain_http: args.get_flag("plain-http"),
            platform: text("platform").map(str::parse).transpose()?,
            ..Options::default()
        };
        if let Some(size) = text("max-size") {
            options.max_size = parse_size(size)?;
        }
        if let Some(store) = args.get_one::<PathBuf>("store") {
            options.store.clone_from(store);
        }
        let source = text("SOURCE").unwrap_or_default().parse()?;
        let bundle = args.get_one::<PathBuf>("BUNDLE").map_or_else(PathBuf::new, Clone::clone);
        Ok(Self { source, bundle, options })
    }
}

/// An ordinary user gets a plain tree, whose files keep their owners where subordinate ids can stand for these.
fn for_caller(mut options: Options, squash: bool) -> crate::Result<Options> {
    let Owner::Rootless { uid, gid } = options.owner else { return Ok(options) };
    options.copy = true;
    let granted = (idmap::granted("/etc/subuid"), idmap::granted("/etc/subgid"));
    let line = match granted {
        (Some(uids), Some(gids)) if !squash => {
            let with = |own, (first, count)| [(0, own, 1), (1, first, count)];
            idmap::enter(&with(uid, uids), &with(gid, gids))?;
            options.owner = Owner::Subordinate { uid, gid, uids, gids };
            format!("files keep their owners, by {} subordinate users and {} groups", uids.1, gids.1)
        }
        _ if squash => "all files are the caller's".to_owned(),
        _ => "all files are the caller's: /etc/subuid and /etc/subgid grant it no other ids".to_owned(),
    };
    writeln!(std::io::stderr(), "hearth unpack: {line}").map_err(Error::sys("write to standard error"))?;
    Ok(options)
}

pub(crate) fn run(_: &super::Global, args: &ArgMatches) -> crate::Result<u8> {
    let Unpack { source, bundle, options } = Unpack::parse(args)?;
    let options = for_caller(options, args.get_flag("squash"))?;
    let mut progress = TerminalLine::on_stderr();
    hearth_rootfs::unpack(&source, Path::new(&bundle), &options, &mut *progress)?;
    Ok(0)
}

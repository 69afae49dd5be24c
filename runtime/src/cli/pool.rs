use std::path::{Path, PathBuf};

use clap::{Arg, ArgGroup, ArgMatches, Command, value_parser};
use hearth_rootfs::TerminalLine;

use super::{Global, flag, path, path_arg, print, print_json, table};
use crate::bundle::process::text;
use crate::pool::client::Client;
use crate::pool::protocol::{PoolState, Reply, Request};
use crate::{Error, Result};

/// Of pools that were made of an image.
const BUNDLES: &str = "/var/lib/hearth/bundles";

pub(super) fn define(command: Command) -> Command {
    let name = || Arg::new("name").value_name("NAME").required(true);
    let number = |name: &'static str| {
        Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u32).range(0..=100_000))
    };
    let sizes = || {
        [
            number("min").default_value("1").help("Sandboxes that are always kept parked"),
            number("max").default_value("16").help("The most that are ever parked"),
        ]
    };
    command
        .about("Keep sandboxes parked for `hearth launch`")
        .subcommand_required(true)
        .subcommand(
            Command::new("create")
                .about("Declare a pool")
                .arg(path_arg("bundle").short('b').help("Directory of config.json"))
                .arg(
                    Arg::new("image").long("image").value_name("SOURCE").conflicts_with("bundle").help(
                        "An image instead, as for `unpack`; its bundle is /var/lib/hearth/bundles/NAME",
                    ),
                )
                .group(ArgGroup::new("from").args(["bundle", "image"]).required(true))
                .args(sizes())
                .arg(name()),
        )
        .subcommand(Command::new("list").about("All pools").arg(flag("json")))
        .subcommand(Command::new("inspect").about("One pool, as JSON").arg(name()))
        .subcommand(Command::new("resize").about("Other numbers for a pool").args(sizes()).arg(name()))
        .subcommand(Command::new("drain").about("Destroy what is parked").arg(name()))
        .subcommand(Command::new("delete").about("Drain a pool and forget it").arg(name()))
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let Some((verb, args)) = args.subcommand() else { return Ok(1) };
    let name = || args.get_one::<String>("name").cloned().unwrap_or_default();
    let number = |key: &str| args.get_one::<u32>(key).copied().unwrap_or(0);
    let ask = |request: Request| -> Result<Reply> {
        match Client::connect(&global.root()?)?.ask(&request, &[])?.0 {
            Reply::Refused { reason } => {
                Err(Error::Refused { what: "hearthd refuses".into(), source: std::io::Error::other(reason) })
            }
            reply => Ok(reply),
        }
    };
    let pools = || -> Result<Vec<PoolState>> {
        match ask(Request::Pools)? {
            Reply::Pools(pools) => Ok(pools),
            _ => Ok(Vec::new()),
        }
    };
    match verb {
        "create" => {
            crate::bundle::validate::id(&name())?;
            let bundle = match args.get_one::<String>("image") {
                Some(image) => unpacked(image, &name())?,
                None => path(args, "bundle").unwrap_or_default(),
            };
            let bundle = std::path::absolute(&bundle).map_err(Error::path("resolve", &bundle))?;
            let bundle = text(&bundle, "--bundle")?;
            ask(Request::CreatePool { name: name(), bundle, min: number("min"), max: number("max") })?;
        }
        "resize" => {
            ask(Request::ResizePool { name: name(), min: number("min"), max: number("max") })?;
        }
        "drain" => {
            ask(Request::DrainPool { name: name() })?;
        }
        "delete" => {
            ask(Request::DeletePool { name: name() })?;
        }
        "inspect" => {
            let pools = pools()?;
            let pool = pools.iter().find(|pool| pool.name == name());
            print_json(pool.ok_or_else(|| Error::invalid("pool", name(), "one of `hearth pool list`"))?)?;
        }
        _ if args.get_flag("json") => print_json(&pools()?)?,
        _ => print(&table(&rows(&pools()?)))?,
    }
    Ok(0)
}

/// Unpacking the same image to the same place again only mounts it again.
fn unpacked(image: &str, name: &str) -> Result<PathBuf> {
    let bundle = Path::new(BUNDLES).join(name);
    std::fs::create_dir_all(BUNDLES).map_err(Error::path("mkdir", BUNDLES))?;
    let mut progress = TerminalLine::on_stderr();
    hearth_rootfs::unpack(&image.parse()?, &bundle, &hearth_rootfs::Options::default(), &mut *progress)?;
    Ok(bundle)
}

fn rows(pools: &[PoolState]) -> Vec<Vec<String>> {
    let header = ["NAME", "PARKED", "MAKING", "LEASED", "MIN", "MAX", "HITS", "MISSES", "BUNDLE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(pools.iter().map(|pool| {
        let numbers = [pool.parked, pool.making, pool.leased, pool.min, pool.max].map(|n| n.to_string());
        let counts = [pool.hits, pool.misses].map(|n| n.to_string());
        let bundle = Path::new(&pool.bundle).display().to_string();
        std::iter::once(pool.name.clone()).chain(numbers).chain(counts).chain([bundle]).collect()
    }));
    rows
}

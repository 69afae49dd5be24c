use clap::{ArgMatches, Command};
use serde_json::json;

use super::{Global, flag, print, print_json};
use crate::Result;
use crate::observe::host::{Check, Level, examine};

pub(super) fn define(command: Command) -> Command {
    command
        .about("Tell what this host can and cannot do, and what to do about it")
        .long_about(
            "Try out what containers need of this host. A line for each: ok, warn (it works, but not for everything) \
             or no; what is so; and the remedy. Fails only where no container could run.",
        )
        .arg(flag("json").help("Print JSON"))
}

pub(super) fn run(_: &Global, args: &ArgMatches) -> Result<u8> {
    let checks = examine();
    if args.get_flag("json") {
        let system = rustix::system::uname();
        print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "kernel": system.release().to_string_lossy(),
            "uid": rustix::process::geteuid().as_raw(),
            "checks": checks,
        }))?;
    } else {
        print(&checks.iter().map(line).collect::<String>())?;
    }
    Ok(u8::from(checks.iter().any(Check::is_fatal)))
}

fn line(check: &Check) -> String {
    let level = match check.level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::No => "no",
    };
    let remedy = check.remedy.map(|remedy| format!(" - {remedy}")).unwrap_or_default();
    format!("{level:<4}  {:<20}  {}{remedy}\n", check.name, check.found)
}

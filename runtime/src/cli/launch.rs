use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::update::bytes;
use super::{Global, flag};
use crate::bundle::mount_options;
use crate::bundle::process::Window;
use crate::container::exec::parse_user;
use crate::container::launch::{self, Options, Pool};
use crate::pool::claim::{Claim, Mount, Terminal};
use crate::pool::protocol::{Limits, Target};
use crate::{Error, Result};

pub(super) fn define(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let list = |name: &'static str, value: &'static str| text(name, value).action(ArgAction::Append);
    command
        .about("Run a program in a sandbox of the warm pool, or in a new one")
        .arg(list("env", "NAME=VALUE").short('e').help("Set a variable"))
        .arg(list("secret", "NAME=FILE").help("A file that the program finds at /run/secrets/NAME"))
        .arg(
            list("mount", "type=bind,src=PATH,dst=PATH[,ro][,rbind]...")
                .help("Mount a file or directory of the host"),
        )
        .arg(text("memory", "SIZE").help("Memory, as 512M"))
        .arg(text("cpu", "CPUS").help("CPUs, as 0.5"))
        .arg(text("pids", "N").help("Number of processes and threads"))
        .arg(text("timeout", "DURATION").help("Kill it after that, as 500ms, 30s or 5m: status 124"))
        .arg(flag("stdin").short('i').help("Pass the caller's standard input on"))
        .arg(flag("tty").short('t').help("Allocate a terminal"))
        .arg(text("network", "PATH").help("A network namespace, in place of the sandbox's own"))
        .arg(text("hostname", "NAME"))
        .arg(text("user", "UID[:GID]").short('u'))
        .arg(text("cwd", "DIR").help("Working directory in the container"))
        .arg(flag("no-new-privs").help("Set no_new_privs"))
        .arg(text("id", "ID").help("Name of the container"))
        .arg(pool_arg("auto"))
        .arg(
            flag("detach")
                .short('d')
                .conflicts_with_all(["tty", "stdin", "json"])
                .help("Print the container's name once the program runs; `hearth logs` has what it says"),
        )
        .arg(flag("json").help("Tell how it went, as JSON on standard error"))
        .arg(Arg::new("target").value_name("POOL|BUNDLE").required(true))
        .arg(
            Arg::new("args")
                .value_name("ARGS")
                .action(ArgAction::Append)
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("Instead of the bundle's process.args"),
        )
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let text = |name: &str| args.get_one::<String>(name).cloned();
    let list = |name: &str| args.get_many::<String>(name).into_iter().flatten();
    let secrets = list("secret").map(|text| secret(text)).collect::<Result<Vec<_>>>()?;
    let (secret_names, secrets) = secrets.into_iter().unzip();
    let mounts = list("mount").map(|text| mount(text)).collect::<Result<Vec<_>>>()?;
    let (mounts, sources) = mounts.into_iter().unzip();
    let claim = Claim {
        args: list("args").cloned().collect(),
        env: list("env").cloned().collect(),
        cwd: text("cwd"),
        user: text("user").as_deref().map(parse_user).transpose()?,
        hostname: text("hostname"),
        no_new_privileges: args.get_flag("no-new-privs"),
        terminal: if args.get_flag("tty") { Terminal::Own(Window::default()) } else { Terminal::Streams },
        mounts,
        secrets: secret_names,
        network: text("network").is_some(),
        ..Claim::default()
    };
    let options = Options {
        target: target(&text("target").unwrap_or_default())?,
        id: text("id"),
        claim,
        sources,
        secrets,
        network: text("network").map(PathBuf::from),
        limits: limits(text)?,
        pool: pool(args),
        timeout: text("timeout").as_deref().map(duration).transpose()?,
        detach: args.get_flag("detach"),
        stdin: args.get_flag("stdin"),
        json: args.get_flag("json"),
    };
    launch::launch(&global.root()?, &options)
}

pub(super) fn pool_arg(default: &'static str) -> Arg {
    Arg::new("pool")
        .long("pool")
        .value_name("WHEN")
        .value_parser(["auto", "only", "never"])
        .default_value(default)
        .help("Whether to take a parked sandbox")
}

pub(super) fn pool(args: &ArgMatches) -> Pool {
    match args.get_one::<String>("pool").map(String::as_str) {
        Some("auto") => Pool::Auto,
        Some("only") => Pool::Only,
        _ => Pool::Never,
    }
}

/// A path has a slash in it, or is a dot: a pool's name has neither.
pub(super) fn target(text: &str) -> Result<Target> {
    if !text.contains('/') && !matches!(text, "." | "..") {
        crate::bundle::validate::id(text)?;
        return Ok(Target::Pool(text.to_owned()));
    }
    let path = std::path::absolute(text).map_err(Error::path("resolve", text))?;
    Ok(Target::Bundle(crate::bundle::process::text(&path, "BUNDLE")?))
}

fn secret(text: &str) -> Result<(String, PathBuf)> {
    match text.split_once('=') {
        Some((name, file)) if !file.is_empty() => Ok((name.to_owned(), file.into())),
        // The value is not repeated: it may be the secret itself.
        _ => Err(Error::invalid("--secret", "another form", "NAME=FILE")),
    }
}

/// Docker's spelling; what is no key is an option of the mount.
fn mount(text: &str) -> Result<(Mount, (PathBuf, bool))> {
    let bad = |expected: &str| Error::invalid("--mount", text, expected);
    let (mut source, mut destination, mut names) = (None, None, Vec::new());
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("type", "bind")) => {}
            Some(("type", _)) => return Err(bad("type=bind, the one type there is")),
            Some(("src" | "source", path)) => source = Some(path),
            Some(("dst" | "destination" | "target", path)) => destination = Some(path),
            None if part == "readonly" => names.push("ro"),
            None if part == "bind" => {}
            None => names.push(part),
            Some(_) => return Err(bad("keys type, src and dst")),
        }
    }
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err(bad("src=PATH,dst=PATH"));
    };
    let mut options = mount_options::parse(names);
    options.bind = true;
    if let Some((name, _)) = options.data.first() {
        return Err(Error::invalid("--mount", name, "an option of bind mounts"));
    }
    let source = std::path::absolute(source).map_err(Error::path("resolve", source))?;
    let recursive = options.recursive_bind;
    Ok((Mount { destination: destination.to_owned(), options }, (source, recursive)))
}

fn limits(text: impl Fn(&str) -> Option<String>) -> Result<Limits> {
    let read = |name: &str, parse: fn(&str) -> Option<i64>, expected: &str| {
        let given = text(name);
        given
            .map(|text| {
                parse(&text)
                    .filter(|value| *value > 0)
                    .ok_or_else(|| Error::invalid(format!("--{name}"), text, expected))
            })
            .transpose()
    };
    let thousandths = |text: &str| {
        let value = text.parse::<f64>().ok().filter(|value| (0.01..=4096.0).contains(value))?;
        format!("{:.0}", value * 1000.0).parse().ok()
    };
    Ok(Limits {
        memory: read("memory", bytes, "a size, as 512M")?,
        cpu: read("cpu", thousandths, "a number of CPUs from 0.01 to 4096")?
            .and_then(|cpu| u64::try_from(cpu).ok()),
        pids: read("pids", |text| text.parse().ok(), "a whole number from 1")?,
    })
}

fn duration(text: &str) -> Result<Duration> {
    let bad = || Error::invalid("--timeout", text, "a duration from 1ms to 24h, as 500ms, 30s, 5m or 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let milliseconds =
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(bad)?;
    let allowed = (1..=24 * 3_600_000).contains(&milliseconds);
    if allowed { Ok(Duration::from_millis(milliseconds)) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_defined() {
        define(Command::new("launch")).debug_assert();
    }

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for text in ["", "5", "s", "1d", "0s", "25h", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_are_spelled_as_dockers() {
        let (parsed, source) = mount("type=bind,src=/a,dst=/b,ro,nosuid,rbind").unwrap();
        assert_eq!((parsed.destination.as_str(), source), ("/b", (PathBuf::from("/a"), true)));
        assert_ne!(parsed.options.set, 0);
        for text in
            ["", "src=/a", "dst=/b", "type=tmpfs,dst=/b", "src=/a,dst=/b,size=1m", "src=/a,dst=/b,what"]
        {
            assert!(mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_positive_numbers() {
        let given = |name: &'static str, value: &'static str| {
            limits(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(given("cpu", "0.5").unwrap().cpu, Some(500));
        assert_eq!(given("memory", "64M").unwrap().memory, Some(64 << 20));
        for (name, value) in
            [("cpu", "0"), ("cpu", "nan"), ("cpu", "-1"), ("memory", "0"), ("pids", "0"), ("pids", "x")]
        {
            assert!(given(name, value).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn a_name_is_a_pool_and_a_path_is_a_bundle() {
        assert_eq!(target("hello").unwrap(), Target::Pool("hello".into()));
        assert_eq!(target("/a/b").unwrap(), Target::Bundle("/a/b".into()));
        assert!(matches!(target(".").unwrap(), Target::Bundle(_)));
        assert!(target("a b").is_err());
    }
}

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::contender::Contender;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    Host,
    Hybrid,
    V2,
    V1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Run,
    Phases,
    Exec,
    Timeline,
    Cost,
    Memory,
    Burst,
    Poisson,
    Crowd,
    First,
    Pool,
}

const MEASURES: [(&str, Measure); 11] = [
    ("run", Measure::Run),
    ("phases", Measure::Phases),
    ("exec", Measure::Exec),
    ("timeline", Measure::Timeline),
    ("cost", Measure::Cost),
    ("memory", Measure::Memory),
    ("burst", Measure::Burst),
    ("poisson", Measure::Poisson),
    ("crowd", Measure::Crowd),
    ("first", Measure::First),
    ("pool", Measure::Pool),
];

#[derive(Debug)]
pub struct Options {
    pub contenders: Vec<Contender>,
    /// `true`, `limits` or NAME=DIR.
    pub bundles: Vec<String>,
    pub cgroups: Cgroups,
    pub parked: usize,
    pub measures: Vec<Measure>,
    pub realtime: bool,
    pub rounds: usize,
    pub gaps: Vec<Duration>,
    pub floor: Option<PathBuf>,
    pub burst: usize,
    /// Arrivals a second, and for how long.
    pub rate: f64,
    pub duration: Duration,
    pub crowd: Vec<usize>,
    pub json: Option<PathBuf>,
    pub markdown: Option<PathBuf>,
    pub svg: Option<PathBuf>,
}

const ABOUT: &str = "Measure cold starts of OCI runtimes, taking turns";
const AFTER: &str = "Measures: run (whole launches), phases (create, start, wait, delete), exec (into a running \
container), timeline (hearth's own marks), cost (system calls, peak memory), memory (of an idle container), burst (N \
at once), poisson (open loop), crowd (a launch beside many running containers), first (until the program's first \
instruction), pool (refill and memory of parked sandboxes).\n\
Every launched program exits with 42, and a launch that does not is a failure, shown as such.\n\n\
Example: hearth bench --runtime runc=runc --runtime 'crun=crun --cgroup-manager=cgroupfs' --cgroups v1 --svg .";

fn command() -> Command {
    let many = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
    let list = |name: &'static str| many(name).value_delimiter(',');
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf)).help(help)
    };
    Command::new("hearth-bench")
        .bin_name("hearth bench")
        .about(ABOUT)
        .after_help(AFTER)
        .arg(many("runtime").value_name("NAME=COMMAND").help(
            "A runtime with its global flags [default: the hearth beside this program, and runc and crun of PATH]",
        ))
        .arg(many("pool").value_name("NAME=HEARTH [FLAGS]").help(
            "`hearth launch FLAGS` from a pool of parked sandboxes, kept by the hearthd beside that hearth",
        ))
        .arg(Arg::new("parked").long("parked").value_parser(value_parser!(u16).range(1..=2_000)).default_value("8").help("Sandboxes that the pool keeps"))
        .arg(many("plain").value_name("NAME=COMMAND").help(
            "A command that is no OCI runtime and runs a program itself; {rootfs} and {program} are filled in",
        ))
        .arg(list("bundle").value_name("BUNDLE").default_value("true").help(
            "`true` (default spec), `limits` (with Docker's seccomp profile and limits of memory, cpu and pids), or \
             NAME=DIR, whose program exits with 42",
        ))
        .arg(
            Arg::new("cgroups")
                .long("cgroups")
                .value_parser(["host", "hybrid", "v2", "v1"])
                .default_value("host")
                .help("Which cgroups to show: v2 or v1 alone, in a private mount namespace"),
        )
        .arg(
            list("measure")
                .value_parser(PossibleValuesParser::new(MEASURES.map(|(name, _)| name)))
                .default_value("run")
                .help("What to measure"),
        )
        .arg(Arg::new("realtime").long("realtime").action(ArgAction::SetTrue).help(
            "Run everything at real-time priority, ahead of whatever else a shared machine does (needs chrt)",
        ))
        .arg(
            Arg::new("rounds")
                .short('n')
                .long("rounds")
                .value_parser(value_parser!(u16).range(1..=10_000))
                .default_value("50")
                .help("Launches of each"),
        )
        .arg(list("gap").default_value("50ms").help("Idle time before each launch: 0, 20ms, 1s; several for several series"))
        .arg(path("floor", "The compiled tests/bench/floor.c [default: compiled with cc]"))
        .arg(Arg::new("burst").long("burst").value_parser(value_parser!(u16).range(1..=5_000)).default_value("100").help("Launches at once"))
        .arg(Arg::new("rate").long("rate").value_parser(value_parser!(f64)).default_value("50").help("Arrivals a second"))
        .arg(Arg::new("duration").long("duration").default_value("10s").help("Of the arrivals"))
        .arg(list("crowd").value_parser(value_parser!(u16).range(0..=5_000)).default_value("1,100,1000").help("Running containers to measure beside"))
        .arg(path("json", "Write everything there, raw samples too"))
        .arg(path("markdown", "Write the tables there"))
        .arg(path("svg", "Directory for pictures"))
}

pub fn parse() -> Result<Options, String> {
    let matches = command().get_matches();
    let strings = |name: &str| -> Vec<String> {
        matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
    };
    let mut contenders = Vec::new();
    for text in strings("runtime") {
        contenders.push(Contender::runtime(&text)?);
    }
    if contenders.is_empty() {
        contenders = Contender::usual();
    }
    for text in strings("pool") {
        contenders.push(Contender::pool(&text)?);
    }
    for text in strings("plain") {
        contenders.push(Contender::plain(&text)?);
    }
    let rate = *matches.get_one::<f64>("rate").unwrap_or(&50.0);
    if !(0.1..=10_000.0).contains(&rate) {
        return Err(format!("--rate {rate}: expected 0.1 to 10000 arrivals a second"));
    }
    let named = |name: String| MEASURES.iter().find(|(known, _)| *known == name).map(|(_, measure)| *measure);
    Ok(Options {
        contenders,
        bundles: strings("bundle"),
        cgroups: match strings("cgroups").first().map(String::as_str) {
            Some("v2") => Cgroups::V2,
            Some("v1") => Cgroups::V1,
            Some("hybrid") => Cgroups::Hybrid,
            _ => Cgroups::Host,
        },
        parked: number(&matches, "parked"),
        realtime: matches.get_flag("realtime"),
        measures: strings("measure").into_iter().filter_map(named).collect(),
        rounds: number(&matches, "rounds"),
        gaps: strings("gap").iter().map(|text| time("--gap", text)).collect::<Result<_, _>>()?,
        floor: matches.get_one("floor").cloned(),
        burst: number(&matches, "burst"),
        rate,
        duration: time("--duration", strings("duration").first().map_or("10s", String::as_str))?,
        crowd: matches.get_many::<u16>("crowd").into_iter().flatten().map(|n| usize::from(*n)).collect(),
        json: matches.get_one("json").cloned(),
        markdown: matches.get_one("markdown").cloned(),
        svg: matches.get_one("svg").cloned(),
    })
}

fn number(matches: &ArgMatches, name: &str) -> usize {
    matches.get_one::<u16>(name).map_or(1, |n| usize::from(*n))
}

/// `0`, `50ms`, `2s`; at most a minute.
fn time(flag: &str, text: &str) -> Result<Duration, String> {
    let bad = || format!("{flag} {text}: expected a time like 0, 50ms or 2s, at most 60s");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: u64 = digits.parse().map_err(|_| bad())?;
    let time = match &text[digits.len()..] {
        "" if value == 0 => Duration::ZERO,
        "ms" => Duration::from_millis(value),
        "s" => Duration::from_secs(value.min(61)),
        _ => return Err(bad()),
    };
    if time > Duration::from_secs(60) { Err(bad()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_an_end() {
        let ok = |text: &str| time("--gap", text).unwrap();
        assert_eq!(
            (ok("0"), ok("50ms"), ok("2s")),
            (Duration::ZERO, Duration::from_millis(50), Duration::from_secs(2))
        );
        for bad in ["", "5", "-1s", "1h", "61s", "60001ms", "ms", "99999999999999999999s"] {
            assert!(time("--gap", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }
}

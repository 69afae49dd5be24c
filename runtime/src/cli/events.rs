use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use super::{Global, flag, id_arg, print};
use crate::container::events::{self, Event};
use crate::{Error, Result};

pub(super) fn define(command: Command) -> Command {
    command
        .about("Tell what a container uses, when it runs out of memory, and how it ends")
        .arg(
            Arg::new("interval")
                .long("interval")
                .value_name("DURATION")
                .default_value("5s")
                .allow_negative_numbers(true)
                .help("Time between two looks at what is used, as 500ms or 1m30s"),
        )
        .arg(flag("stats").help("Tell what is used now, and no more"))
        .arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    let container = global.container(args)?;
    let interval = interval(args.get_one::<String>("interval").map_or("5s", String::as_str))?;
    if args.get_flag("stats") {
        give(&events::usage(&container)?)?;
    } else {
        events::follow(&container, interval, give)?;
    }
    Ok(0)
}

fn give(event: &Event<'_>) -> Result<()> {
    let line = serde_json::to_string(event);
    print(&(line.map_err(|source| Error::Json { what: "the event".into(), source })? + "\n"))
}

fn interval(text: &str) -> Result<Duration> {
    let expected = "a time such as 500ms, 5s or 1m30s (duration interval must be greater than 0)";
    duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| Error::invalid("--interval", format!("{text:?}"), expected))
}

/// A duration as Go writes it: decimal numbers, each with a unit, one after the other.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum = 0_u128;
    loop {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let factor = UNITS.iter().find(|row| row.0 == unit)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || whole.len() + fraction.len() == 0 || number.len() > 18 {
            return None;
        }
        let value = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        sum += value(whole)? * factor + value(fraction)? * factor / scale;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    // Go's durations are signed.
    let nanoseconds = i64::try_from(sum).ok()?;
    Some(Duration::from_nanos(nanoseconds.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_defined() {
        define(Command::new("events")).debug_assert();
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let rows = [
            ("5s", 5_000),
            ("100ms", 100),
            ("1.5s", 1_500),
            (".5m", 30_000),
            ("1h2m3s4ms", 3_723_004),
            ("+2s", 2_000),
            ("1000us", 1),
            ("1000µs", 1),
            ("1.s", 1_000),
        ];
        for (text, milliseconds) in rows {
            assert_eq!(interval(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for text in ["", "0", "0s", "5", "-1s", "s", ".s", "1.2.3s", "5 s", "5x", "5s3", "9999999999h", "1ß"]
        {
            let error = interval(text).unwrap_err().to_string();
            assert!(error.starts_with("--interval"), "{error}");
        }
    }
}

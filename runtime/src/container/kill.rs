//! `kill`: a signal to a container.

use super::{Container, Status};
use crate::{Error, Result};

const NOT_RUNNING: &str = "container not running";

pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let status = container.status()?;
    let record = container.record()?;
    // Also after init ended: in a shared PID namespace others live on, and the end of init ends none of them.
    if all || (signal == libc::SIGKILL && record.shares_pids) {
        if !record.cgroups.is_none() {
            return record.cgroups.kill_all(signal);
        }
        // One by one; the kernel lets none of them outlive their init.
        return container.processes()?.into_iter().try_for_each(|pid| {
            match crate::sys::kill::kill(pid, signal) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                result => result.map_err(Error::sys("kill")),
            }
        });
    }
    if matches!(status, Status::Stopped | Status::Creating) {
        return Err(container.refuse(NOT_RUNNING));
    }
    let process = container.process().ok_or_else(|| container.refuse(NOT_RUNNING))?;
    crate::sys::kill::pidfd_send(&process, signal).map_err(Error::sys("kill"))?;
    if signal == libc::SIGKILL && status == Status::Paused {
        // A frozen process takes the signal only once it is thawed.
        record.cgroups.thaw()?;
    }
    Ok(())
}

/// `KILL`, `SIGKILL`, `sigkill`, `9`, `SIGRTMIN+3`.
pub fn parse_signal(text: &str) -> Result<i32> {
    let bad = || {
        Error::invalid(
            "signal",
            format!("unknown signal {text:?}"),
            "a name such as SIGTERM or a number up to 64",
        )
    };
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset =
            if offset.is_empty() { Some(0) } else { offset.strip_prefix('+').and_then(|n| n.parse().ok()) };
        return offset.map(|n: i32| 34 + n).filter(|number| (34..=64).contains(number)).ok_or_else(bad);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset =
            if offset.is_empty() { Some(0) } else { offset.strip_prefix('-').and_then(|n| n.parse().ok()) };
        return offset.map(|n: i32| 64 - n).filter(|number| (34..=64).contains(number)).ok_or_else(bad);
    }
    let alias = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        "UNUSED" => "SYS",
        other => other,
    };
    let signal = nix::sys::signal::Signal::iterator().find(|signal| signal.as_str() == format!("SIG{alias}"));
    signal.map(|signal| signal as i32).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let rows = [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("0", 0),
            ("RTMIN+1", 35),
            ("SIGRTMAX-2", 62),
            ("64", 64),
            ("SIGCLD", 17),
            ("POLL", 29),
        ];
        for (text, number) in rows {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "65", "-1", "SIGFOO", "RTMIN+99", "SIG"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}

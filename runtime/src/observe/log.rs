//! The log, as runc's drivers read it: one line an event, text or JSON, to a file or to standard error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use super::clock;
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

#[derive(Debug)]
struct Log {
    /// None: standard error.
    file: Option<File>,
    format: Format,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Called once, by main, when the command line is parsed.
pub fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let open = |path: &Path| {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.map_err(Error::path("open --log", path))
    };
    let file = path.map(open).transpose()?;
    let _ = LOG.set(Log { file, format, debug });
    Ok(())
}

/// Whether errors go somewhere else than to standard error, where main tells them in any case.
pub fn has_file() -> bool {
    LOG.get().is_some_and(|log| log.file.is_some())
}

pub fn error(message: &str) {
    write("error", message);
}

pub fn warn(message: &str) {
    write("warning", message);
}

pub fn debug(message: &str) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", message);
    }
}

/// A line of `--timeline`, for a person: to standard error as it is.
pub fn timeline(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn write(level: &str, message: &str) {
    let time = clock::rfc3339(std::time::SystemTime::now());
    let log = LOG.get();
    let line = match log.map_or(Format::Text, |log| log.format) {
        Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
        Format::Json => format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time})),
    };
    // A log that cannot be written must not stop a container.
    let _ = match log.and_then(|log| log.file.as_ref()) {
        Some(mut file) => file.write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

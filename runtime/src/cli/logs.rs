use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use rustix::io::Errno;

use super::{Global, flag, id, id_arg};
use crate::container::{Container, Status};
use crate::{Error, Result};

pub(super) fn define(command: Command) -> Command {
    command
        .about("What a detached launch has said: its last 8 to 16 MiB")
        .arg(flag("follow").short('f').help("Go on until it has ended"))
        .arg(
            Arg::new("tail")
                .long("tail")
                .short('n')
                .value_name("LINES")
                .value_parser(value_parser!(u64))
                .help("Only the last lines"),
        )
        .arg(id_arg())
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    const BETWEEN: Duration = Duration::from_millis(100);
    let id = id(args);
    crate::bundle::validate::id(id)?;
    let path = global.root()?.logs().join(format!("{id}.log"));
    let mut log = File::open(&path).map_err(Error::path("open", &path))?;
    let fail = |call| Error::path::<io::Error>(call, &path);
    match args.get_one::<u64>("tail") {
        Some(lines) => seek_lines(&mut log, *lines).map_err(fail("read"))?,
        // The head may have been given back.
        None => seek_data(&mut log).map_err(fail("seek in"))?,
    }
    loop {
        // Looked at before the last read: what it said last is there by then.
        let ended = !args.get_flag("follow") || !is_running(global, id);
        let mut out = io::stdout().lock();
        io::copy(&mut log, &mut out).and_then(|_| out.flush()).map_err(Error::sys("copy the log"))?;
        if ended {
            return Ok(0);
        }
        std::thread::sleep(BETWEEN);
    }
}

fn is_running(global: &Global, id: &str) -> bool {
    let opened = global.root().and_then(|root| Container::open(&root, id));
    let status = opened.and_then(|container| container.status());
    status.is_ok_and(|status| status != Status::Stopped)
}

fn seek_data(log: &mut File) -> io::Result<()> {
    match rustix::fs::seek(&*log, rustix::fs::SeekFrom::Data(0)) {
        // An empty file.
        Ok(_) | Err(Errno::NXIO) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// To the start of the last lines, backwards by blocks.
fn seek_lines(log: &mut File, lines: u64) -> io::Result<()> {
    const BLOCK: u64 = 64 << 10;
    seek_data(log)?;
    let first = log.stream_position()?;
    let mut at = log.seek(SeekFrom::End(0))?;
    let mut block = Vec::new();
    let mut seen = 0;
    let end = at;
    while at > first {
        let length = BLOCK.min(at - first);
        at -= length;
        block.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        log.seek(SeekFrom::Start(at))?;
        log.read_exact(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let place = at + index as u64 + 1;
            // The newline at the very end ends the last line.
            if *byte == b'\n' && place != end {
                seen += 1;
                if seen == lines {
                    return log.seek(SeekFrom::Start(place)).map(drop);
                }
            }
        }
    }
    let start = if lines == 0 { end } else { first };
    log.seek(SeekFrom::Start(start)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_defined() {
        define(Command::new("logs")).debug_assert();
    }

    #[test]
    fn the_last_lines_are_found() {
        let rest = |text: &str, lines| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            seek_lines(&mut file, lines).unwrap();
            let mut rest = String::new();
            file.read_to_string(&mut rest).unwrap();
            rest
        };
        assert_eq!(rest("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(rest("a\nb\nc", 1), "c");
        assert_eq!(rest("a\nb\n", 9), "a\nb\n");
        assert_eq!(rest("a\n", 0), "");
        assert_eq!(rest("", 3), "");
    }
}

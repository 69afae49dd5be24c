//! What is done every second: the machine's memory is told to the policy, and the logs of detached launches are kept
//! within their bounds.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use hearth::observe::log;
use rustix::fs::{FallocateFlags, fallocate};

use super::super::policy::Event;
use super::Daemon;

/// Bytes that one log keeps: above, its head is given back to the disk, half of it at a time. The program writes the
/// file itself, so that nothing is copied; what it said last is always there.
const LOG: u64 = 16 << 20;
/// Logs that are kept: the oldest go first.
const LOGS: usize = 1_000;

impl Daemon {
    pub(super) fn keep_house(&mut self) {
        if let Some(event) = pressure() {
            self.decide(event);
        }
        if let Err(error) = bound_logs(&self.root.logs()) {
            log::warn(&format!("bound the logs: {error}"));
        }
    }
}

fn pressure() -> Option<Event> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10;
    // A kernel without PSI has no pressure to tell of.
    let psi = fs::read_to_string("/proc/pressure/memory").unwrap_or_default();
    let average = |kind: &str| {
        let line = psi.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
    };
    Some(Event::Pressure {
        available,
        some: average("some").unwrap_or(0.0),
        full: average("full").unwrap_or(0.0),
    })
}

fn bound_logs(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut logs = Vec::new();
    for entry in entries.flatten() {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        if !metadata.is_file() {
            continue;
        }
        if metadata.blocks() * 512 > LOG {
            behead(&OpenOptions::new().write(true).open(&path)?, metadata.size())?;
        }
        logs.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), path));
    }
    if logs.len() > LOGS {
        logs.sort();
        logs[..logs_over(logs.len())].iter().try_for_each(|(_, path)| fs::remove_file(path))?;
    }
    Ok(())
}

fn logs_over(count: usize) -> usize {
    count.saturating_sub(LOGS)
}

/// A hole up to the last half: the program's offset stays what it is.
fn behead(file: &File, size: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, 0, size.saturating_sub(LOG / 2))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_end_and_its_size() {
        use std::io::{Read, Seek, SeekFrom, Write};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        for _ in 0..20 {
            file.write_all(&vec![b'x'; 1 << 20]).unwrap();
        }
        file.write_all(b"last").unwrap();
        bound_logs(dir.path()).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.size(), (20 << 20) + 4);
        assert!(metadata.blocks() * 512 <= LOG, "{} blocks", metadata.blocks());
        let mut end = String::new();
        let mut file = File::open(&path).unwrap();
        file.seek(SeekFrom::End(-4)).unwrap();
        file.read_to_string(&mut end).unwrap();
        assert_eq!(end, "last");
    }

    #[test]
    fn the_machines_memory_is_read() {
        let Some(Event::Pressure { available, .. }) = pressure() else { panic!("no MemAvailable") };
        assert!(available > 0);
    }
}

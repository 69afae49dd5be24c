//! What a container's shell cannot do by itself. Each part prints what it found, and `nothing` where that is nothing.
//!
//! - `probe notify TEXT` sends a datagram to `$NOTIFY_SOCKET`;
//! - `probe connect NAME` connects to an abstract Unix socket, and prints `connected` or the kernel's answer;
//! - `probe watch SECONDS` looks for directories of other file systems than the container's behind the descriptors,
//!   roots and working directories of whatever shows up in `/proc`, until it has seen enough or the time is over;
//! - `probe overwrite SECONDS` tries to write into the executable of any process that is not its own image's; with
//!   `/flip` (`program::clear_read_only`) there, it first tries to make the executable's mount, or a clone of it, writable.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

/// So many other processes tell what there is to be told.
const ENOUGH: usize = 12;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["notify", text] => notify(text),
        ["connect", name] => connect(name),
        ["watch", seconds] => duration(seconds).and_then(watch),
        ["overwrite", seconds] => duration(seconds).and_then(overwrite),
        _ => Err("usage: probe notify TEXT | connect NAME | watch SECONDS | overwrite SECONDS".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "probe: {message}");
            ExitCode::FAILURE
        }
    }
}

fn duration(seconds: &str) -> Result<Duration, String> {
    seconds.parse().map(Duration::from_secs).map_err(|e| format!("{seconds}: {e}"))
}

fn notify(text: &str) -> Result<(), String> {
    let path = std::env::var("NOTIFY_SOCKET").map_err(|e| format!("NOTIFY_SOCKET: {e}"))?;
    let socket = UnixDatagram::unbound().map_err(|e| format!("socket: {e}"))?;
    socket.send_to(text.as_bytes(), &path).map_err(|e| format!("send to {path}: {e}"))?;
    Ok(())
}

fn connect(name: &str) -> Result<(), String> {
    let address = SocketAddr::from_abstract_name(name).map_err(|e| format!("{name}: {e}"))?;
    match UnixStream::connect_addr(&address) {
        Ok(_) => say("connected"),
        Err(error) => say(&error.to_string()),
    }
}

fn watch(limit: Duration) -> Result<(), String> {
    let own = own_devices()?;
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    say("ready")?;
    let started = Instant::now();
    while started.elapsed() < limit && seen.len() < ENOUGH {
        for process in processes() {
            seen.insert(process.clone());
            let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
            for link in [process.join("root"), process.join("cwd")].into_iter().chain(fds) {
                // Held, since what is behind the name may change at any moment.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let Ok(dir) = rustix::fs::open(&link, flags, Mode::empty()) else { continue };
                let held = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
                let known = fs::metadata(&held).map_or(true, |meta| own.contains(&meta.dev()));
                if !known && !is_own_procfs(&held) {
                    let name = link.strip_prefix(&process).unwrap_or(&link).display().to_string();
                    let target = fs::read_link(&held).unwrap_or_default();
                    found.insert(format!("{name}: {}", target.display()));
                }
            }
        }
    }
    say(&format!("saw {} processes", seen.len()))?;
    tell(&found)
}

/// Whether a directory lies in a procfs of this PID namespace, which shows nothing of the host.
fn is_own_procfs(dir: &Path) -> bool {
    const MAGIC: i64 = 0x9fa0;
    if !rustix::fs::statfs(dir).is_ok_and(|info| info.f_type == MAGIC) {
        return false;
    }
    // Only the top has `self`; below it, everything belongs to a process that is seen here.
    let own = std::process::id().to_string();
    fs::read_link(dir.join("self")).map_or(true, |target| target == Path::new(&own))
}

/// The devices of all that is mounted in this container.
fn own_devices() -> Result<BTreeSet<u64>, String> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("mountinfo: {e}"))?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.filter_map(|point| fs::metadata(point).ok()).map(|meta| meta.dev()).collect())
}

fn overwrite(limit: Duration) -> Result<(), String> {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let image: Vec<_> = ["/probe", "/flip", "/bin/busybox"]
        .iter()
        .filter_map(|p| fs::metadata(p).ok())
        .map(identity)
        .collect();
    let mut grabbed: Vec<File> = Vec::new();
    let mut found = BTreeSet::new();
    say("ready")?;
    let started = Instant::now();
    while started.elapsed() < limit && grabbed.len() < ENOUGH {
        for process in processes() {
            let link = process.join("exe");
            // What the image does not have came with the runtime.
            if let Ok(file) = File::open(&link)
                && file.metadata().is_ok_and(|meta| !image.contains(&identity(meta)))
            {
                grabbed.push(file);
            }
        }
        for file in &grabbed {
            found.extend(flip(file).map(|()| "its mount became writable".to_owned()));
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            if let Ok(mut open) = OpenOptions::new().write(true).open(&again)
                && open.write_all(b"overwritten").is_ok()
            {
                found.insert(fs::read_link(&again).unwrap_or_default().display().to_string());
            }
        }
    }
    say(&format!("held {} executables", grabbed.len()))?;
    tell(&found)
}

/// By the mount itself, and by a clone of it.
fn flip(file: &File) -> Option<()> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(file, "", flags).ok().map(File::from);
    let works = |file: File| Command::new("/flip").stdin(file).status().is_ok_and(|status| status.success());
    let flipped = [file.try_clone().ok(), clone].into_iter().flatten().any(works);
    flipped.then_some(())
}

/// The other processes' directories.
fn processes() -> Vec<PathBuf> {
    let own = std::process::id().to_string();
    let is_other = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(|c: char| c.is_ascii_digit()) && name != own.as_str()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_other(path)).collect()
}

fn tell(found: &BTreeSet<String>) -> Result<(), String> {
    if found.is_empty() {
        return say("nothing");
    }
    found.iter().try_for_each(|line| say(line))
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|e| format!("stdout: {e}"))
}

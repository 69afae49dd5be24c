//! What a container has on its standard streams that comes from outside: it is stored by name, as runc does it
//! (`descriptors.json`), and is the restorer's own after a restore.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags, openat};

use crate::{Error, Result};

const FILE: &str = "descriptors.json";

/// Three names. `members`: all processes of the container.
pub fn of(pid: i32, members: &[i32]) -> Result<Vec<String>> {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))
        .map_err(Error::path("read", format!("/proc/{pid}/mountinfo")))?;
    let is_inside = |id: &str| mounts.lines().any(|line| line.split(' ').next() == Some(id));
    Ok((0..3).map(|number| name(pid, number, members, is_inside)).collect())
}

/// Empty for what is not open, or is all the container's own.
fn name(pid: i32, number: i32, members: &[i32], is_inside: impl Fn(&str) -> bool) -> String {
    let path = format!("/proc/{pid}/fd/{number}");
    let Ok(link) = fs::read_link(&path) else { return String::new() };
    let link = link.to_string_lossy().into_owned();
    if link.starts_with("pipe:") {
        let ends: u32 = members.iter().fold(0, |ends, pid| ends | ends_of(*pid, &link));
        return if ends == READS | WRITES { String::new() } else { link };
    }
    let mount = field(&format!("/proc/{pid}/fdinfo/{number}"), "mnt_id:");
    match (fs::metadata(&path), mount.and_then(|id| id.parse::<u32>().ok().map(|number| (id, number)))) {
        // criu's name of a file that no mount of the container leads to.
        (Ok(file), Some((id, mount))) if link.starts_with('/') && !is_inside(&id) => {
            format!("file[{mount:x}:{:x}]", file.ino())
        }
        _ => link,
    }
}

const READS: u32 = 1;
const WRITES: u32 = 2;

/// Which ends of a pipe a process has open.
fn ends_of(pid: i32, pipe: &str) -> u32 {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let ours = open.filter_map(|entry| {
        let entry = entry
            .ok()
            .filter(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == pipe))?;
        let flags = field(&format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()), "flags:")?;
        // O_ACCMODE, in octal: 0 reads, 1 writes, 2 does both.
        Some(match flags.chars().last()?.to_digit(8)? & 3 {
            0 => READS,
            1 => WRITES,
            _ => READS | WRITES,
        })
    });
    ours.fold(0, |ends, end| ends | end)
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

/// Those that criu must be told of as external, at dump.
pub fn external(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| name.starts_with("file["))
}

/// (name, descriptor): what the restorer's own take the place of.
pub fn inherited(names: &[String]) -> impl Iterator<Item = (&String, i32)> {
    let outside = |name: &str| name.starts_with("file[") || name.contains("pipe:");
    names.iter().zip(0..3).filter(move |(name, _)| outside(name))
}

pub fn write(images: BorrowedFd<'_>, names: &[String]) -> Result<()> {
    let text = serde_json::to_vec(names).map_err(|source| Error::Json { what: FILE.into(), source })?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(images.as_fd(), FILE, flags, Mode::from_raw_mode(0o600))
        .map_err(Error::path("create", FILE))?;
    File::from(file).write_all(&text).map_err(Error::path("write", FILE))
}

pub fn read(images: BorrowedFd<'_>) -> Result<Vec<String>> {
    const LIMIT: u64 = 64 << 10;
    let file = openat(images.as_fd(), FILE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let file = file.map_err(Error::path("open in --image-path", FILE))?;
    let mut text = Vec::new();
    File::from(file).take(LIMIT).read_to_end(&mut text).map_err(Error::path("read", FILE))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { what: FILE.into(), source })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_pipe_that_both_ends_of_are_inside_is_nobody_elses() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let alone = of(pid, &[pid]).unwrap();
        assert!(alone[0].starts_with("pipe:[") && alone[1].starts_with("pipe:["), "{alone:?}");
        assert_eq!(inherited(&alone).map(|(_, fd)| fd).filter(|fd| *fd < 2).count(), 2);
        let together = of(pid, &[pid, me]).unwrap();
        assert_eq!((together[0].as_str(), together[1].as_str()), ("", ""));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let images = File::open(dir.path()).unwrap();
        let names = ["pipe:[7]".to_owned(), "/dev/null".to_owned(), "file[1:2]".to_owned()];
        write(images.as_fd(), &names).unwrap();
        assert_eq!(read(images.as_fd()).unwrap(), names);
        assert_eq!(inherited(&names).map(|(_, fd)| fd).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(external(&names).collect::<Vec<_>>(), ["file[1:2]"]);
    }
}

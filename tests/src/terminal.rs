//! Consoles: the socket that receives a pty's master, and a pty of the suite's own to run a command on.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::context::Ctx;

/// A listening socket for `--console-socket`.
#[derive(Debug)]
pub struct ConsoleSocket {
    pub path: PathBuf,
    listener: UnixListener,
}

/// The master side of a pty.
#[derive(Debug)]
pub struct Master(File);

impl AsRawFd for Master {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl ConsoleSocket {
    pub fn new(t: &Ctx) -> Self {
        let path = t.scratch().join("console");
        let listener = UnixListener::bind(&path).unwrap_or_else(|e| panic!("bind {}: {e}", path.display()));
        Self { path, listener }
    }

    /// Receives the master that the runtime sends, and the name that goes with it.
    pub fn receive(&self) -> (Master, String) {
        wait_readable(&self.listener);
        let (stream, _) = self.listener.accept().expect("accept on the console socket");
        wait_readable(&stream);
        let mut name = [0_u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut name)];
        let received = recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
            .unwrap_or_else(|e| panic!("recvmsg on the console socket: {e}"));
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        assert_eq!(descriptors.len(), 1, "one descriptor is expected on the console socket");
        let master = Master(File::from(descriptors.remove(0)));
        (master, String::from_utf8_lossy(&name[..received.bytes]).into_owned())
    }
}

/// A new pty: its master and an open slave.
pub fn open_pty() -> (Master, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("open a pty");
    unlockpt(&master).expect("unlock a pty");
    let slave = ioctl_tiocgptpeer(&master, flags).expect("open a pty's peer");
    (Master(File::from(master)), slave)
}

impl Master {
    pub fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap_or_else(|e| panic!("write to the pty: {e}"));
    }

    pub fn size(&self) -> Winsize {
        tcgetwinsize(&self.0).expect("a pty has a size")
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.0, size).expect("a pty can be resized");
    }

    /// Reads until `text` appears; gives all that was read.
    pub fn expect(&mut self, text: &str) -> String {
        let started = Instant::now();
        let mut seen = String::new();
        while !seen.contains(text) {
            assert!(started.elapsed() < Duration::from_secs(5), "no {text:?} on the terminal, only {seen:?}");
            match self.read() {
                Some(more) => seen.push_str(&more),
                None => panic!("the terminal closed without {text:?}: {seen:?}"),
            }
        }
        seen
    }

    /// Reads until the other side closes.
    pub fn rest(&mut self) -> String {
        let mut seen = String::new();
        while let Some(more) = self.read() {
            seen.push_str(&more);
        }
        seen
    }

    fn read(&mut self) -> Option<String> {
        wait_readable(&self.0);
        let mut buffer = [0; 4096];
        // A master whose last slave closed gives EIO.
        let count = self.0.read(&mut buffer).unwrap_or(0);
        (count > 0).then(|| String::from_utf8_lossy(&buffer[..count]).into_owned())
    }
}

fn wait_readable(descriptor: &impl AsFd) {
    let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
    let mut set = [PollFd::new(descriptor, PollFlags::IN)];
    let ready = poll(&mut set, Some(&limit)).expect("poll");
    assert_ne!(ready, 0, "nothing came within 5 s");
}

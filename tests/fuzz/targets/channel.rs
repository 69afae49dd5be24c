//! What init and runtime say to each other: packets of anything are a message, an error or the end, and no descriptor
//! of a message is lost.
#![no_main]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hearth::process::channel::{self, ToInit, ToRuntime};
use libfuzzer_sys::fuzz_target;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;

/// Packets, each with a count of descriptors that go with it.
type Packets = Vec<(u8, Vec<u8>)>;

fuzz_target!(|input: (bool, Packets)| {
    let (to_init, packets) = input;
    let before = open_descriptors();
    if to_init { feed::<ToInit>(&packets) } else { feed::<ToRuntime>(&packets) }
    assert_eq!(open_descriptors(), before);
});

fn feed<T: DeserializeOwned>(packets: &Packets) {
    let (ours, theirs) = channel::pair().unwrap();
    // More would not fit into the socket's buffer, and block.
    for (fds, bytes) in packets.iter().filter(|(_, bytes)| !bytes.is_empty()).take(16) {
        send(&ours, &bytes[..bytes.len().min(8 << 10)], usize::from(*fds % 4));
    }
    drop(ours);
    while let Ok(Some(_)) = channel::receive::<T>(theirs.as_fd()) {}
}

fn send(socket: &OwnedFd, bytes: &[u8], count: usize) {
    // Not the socket itself, which would keep its own stream open.
    let fds: Vec<BorrowedFd<'_>> = (0..count).map(|_| rustix::stdio::stdin()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let _ = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT);
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

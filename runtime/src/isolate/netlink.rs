//! As much of rtnetlink(7) as moves a network device: requests, their answers, nothing that listens.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

pub const NEW_LINK: u16 = 16;
pub const GET_LINK: u16 = 18;
pub const NEW_ADDRESS: u16 = 20;
pub const GET_ADDRESS: u16 = 22;

pub const CREATE: u16 = 0x400 | 0x200;
pub const DUMP: u16 = 0x300;
const REQUEST_AND_ACK: u16 = 0x1 | 0x4;

const ERROR: u16 = 2;
const DONE: u16 = 3;

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// Larger than any datagram that the kernel sends.
const DATAGRAM: usize = 64 << 10;

/// A socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub fn open() -> io::Result<Self> {
        // No protocol is number 0: NETLINK_ROUTE.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// The bodies of the answers, after the kernel said that it was all.
    pub fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        send(&self.fd, &message(kind, flags | REQUEST_AND_ACK, self.sequence, body)?, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let (_, length) = recv(&self.fd, datagram.as_mut_slice(), RecvFlags::TRUNC)?;
            let whole = datagram.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            if collect(whole, self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    Ok(message)
}

/// Whether a datagram was the last one. What answers another request is passed over.
fn collect(mut datagram: &[u8], sequence: u32, answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some(header) = datagram.first_chunk::<HEADER>() {
        let [a, b, c, d, kind_a, kind_b, _, _, e, f, g, h, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let body = datagram.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        if u32::from_ne_bytes([e, f, g, h]) == sequence {
            match u16::from_ne_bytes([kind_a, kind_b]) {
                ERROR | DONE => return outcome(body).map(|()| true),
                _ => answers.push(body.to_vec()),
            }
        }
        datagram = datagram.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// An error's number, negated; 0 is an acknowledgement.
fn outcome(body: &[u8]) -> io::Result<()> {
    let number = i32::from_ne_bytes(*body.first_chunk().ok_or(io::ErrorKind::InvalidData)?);
    if number < 0 { Err(io::Error::from_raw_os_error(number.saturating_neg())) } else { Ok(()) }
}

/// Appends an attribute.
pub fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

/// The attributes that follow a fixed part of `fixed` bytes; what is malformed ends them.
pub fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(aligned(fixed)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk::<ATTRIBUTE>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        // The two upper bits say how a value is laid out.
        Some((u16::from_ne_bytes([c, d]) & 0x3fff, value))
    })
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut body = vec![9; 8];
        push(&mut body, 3, b"eth0\0");
        push(&mut body, 1, &[]);
        push(&mut body, 7, &[1, 2, 3, 4]);
        let read: Vec<_> = attributes(&body, 8).collect();
        assert_eq!(read, [(3, &b"eth0\0"[..]), (1, &[]), (7, &[1, 2, 3, 4])]);
    }

    #[test]
    fn an_error_is_the_kernels_number() {
        let refusal = message(ERROR, 0, 5, &(-libc::ENODEV).to_ne_bytes()).unwrap();
        let error = collect(&refusal, 5, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(!collect(&refusal, 6, &mut Vec::new()).unwrap());
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_panics_or_loops(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120)) {
            let _ = collect(&bytes, 1, &mut Vec::new());
            let _ = attributes(&bytes, 4).count();
        }
    }
}

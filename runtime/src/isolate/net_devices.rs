//! `linux.netDevices`: devices of the caller's network namespace become the container's, with their addresses.
//! When the container's namespace ends, the kernel takes physical ones back to the first namespace.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sched::{CloneFlags, setns};

use super::netlink::{CREATE, DUMP, GET_ADDRESS, GET_LINK, NEW_ADDRESS, NEW_LINK, Socket, attributes, push};
use crate::{Error, Result};

/// struct ifinfomsg and struct ifaddrmsg
const LINK: usize = 16;
const ADDRESS: usize = 8;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const UP: u32 = libc::IFF_UP.cast_unsigned();

/// Moves each (name, new name) into the namespace.
pub fn take(devices: &[(String, String)], namespace: BorrowedFd<'_>) -> Result<()> {
    let mut here = Socket::open().map_err(Error::sys("netlink socket"))?;
    let mut there = open_in(namespace).map_err(Error::sys("netlink socket in the container"))?;
    devices.iter().try_for_each(|(name, new)| {
        one(&mut here, &mut there, name, new, namespace)
            .map_err(Error::path("linux.netDevices: move network device", name))
    })
}

/// A socket stays in the namespace in which it was opened: this thread goes there for it, and comes back.
fn open_in(namespace: BorrowedFd<'_>) -> io::Result<Socket> {
    let own = std::fs::File::open("/proc/thread-self/ns/net")?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let socket = Socket::open();
    setns(own, CloneFlags::CLONE_NEWNET)?;
    socket
}

fn one(
    here: &mut Socket,
    there: &mut Socket,
    name: &str,
    new: &str,
    namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    let index = find(here, name)?;
    // Before the device goes down: IPv6 forgets its addresses then.
    let addresses = addresses(here, index)?;
    change(here, index, 0, &[])?;
    // Renamed on the way: the new name need not be free here, nor the old one there.
    let number = namespace.as_fd().as_raw_fd().to_ne_bytes();
    change(here, index, 0, &[(IFLA_IFNAME, &c_string(new)), (IFLA_NET_NS_FD, &number)])?;
    let index = find(there, new)?;
    for address in &addresses {
        there.request(NEW_ADDRESS, CREATE, &address.message(index))?;
    }
    change(there, index, UP, &[])
}

fn find(socket: &mut Socket, name: &str) -> io::Result<u32> {
    let mut body = vec![0; LINK];
    push(&mut body, IFLA_IFNAME, &c_string(name));
    let answers = socket.request(GET_LINK, 0, &body)?;
    answers.first().and_then(|answer| number(answer)).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Sets the device up or down, with what else is to change.
fn change(socket: &mut Socket, index: u32, flags: u32, more: &[(u16, &[u8])]) -> io::Result<()> {
    let mut body = vec![0; 4];
    for field in [index, flags, UP] {
        body.extend(field.to_ne_bytes());
    }
    more.iter().for_each(|(kind, value)| push(&mut body, *kind, value));
    socket.request(NEW_LINK, 0, &body).map(drop)
}

/// An address as the kernel told it.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Those of `index` that an administrator set, and that mean the same in another namespace: permanent and
    /// global.
    fn parse(body: &[u8], index: u32) -> Option<Self> {
        const PERMANENT: u8 = 0x80;
        const GLOBAL: u8 = 0;
        let [family, prefix, flags, scope] = *body.first_chunk()?;
        if number(body)? != index || flags & PERMANENT == 0 || scope != GLOBAL {
            return None;
        }
        let kept = |kind: u16| matches!(kind, IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST);
        let attributes = attributes(body, ADDRESS).filter(|(kind, _)| kept(*kind));
        let attributes = attributes.map(|(kind, value)| (kind, value.to_vec())).collect();
        Some(Self { family, prefix, attributes })
    }

    fn message(&self, index: u32) -> Vec<u8> {
        let mut body = vec![self.family, self.prefix, 0, 0];
        body.extend(index.to_ne_bytes());
        self.attributes.iter().for_each(|(kind, value)| push(&mut body, *kind, value));
        body
    }
}

fn addresses(socket: &mut Socket, index: u32) -> io::Result<Vec<Address>> {
    let answers = socket.request(GET_ADDRESS, DUMP, &[0; ADDRESS])?;
    Ok(answers.iter().filter_map(|body| Address::parse(body, index)).collect())
}

/// The index of a device, at the same place in both kinds of answers.
fn number(body: &[u8]) -> Option<u32> {
    body.get(4..8).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_ne_bytes(*bytes))
}

fn c_string(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_lease_or_of_a_link_stays() {
        let told = |index: u32, flags: u8, scope: u8| {
            let address = Address { family: 2, prefix: 24, attributes: vec![(IFA_LOCAL, vec![10, 0, 0, 1])] };
            let mut body = address.message(index);
            (body[2], body[3]) = (flags, scope);
            (Address::parse(&body, 7), address)
        };
        let (parsed, address) = told(7, 0x80, 0);
        assert_eq!(parsed, Some(address));
        for (index, flags, scope) in [(8, 0x80, 0), (7, 0, 0), (7, 0x80, 253)] {
            assert_eq!(told(index, flags, scope).0, None);
        }
    }
}

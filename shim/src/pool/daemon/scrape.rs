//! Metrics, health and readiness over HTTP: a request is one packet's worth, an answer closes the connection.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::super::config::Endpoint;
use super::super::metrics::Now;
use super::{Daemon, METRICS, READER};

/// Readers at a time: of more, the one that has waited longest is dropped.
const READERS: usize = 16;

#[derive(Debug)]
pub(super) struct Scrape {
    listener: OwnedFd,
    readers: VecDeque<(u64, OwnedFd)>,
    next: u64,
}

impl Scrape {
    pub(super) fn listen(endpoint: &Endpoint, epoll: &OwnedFd) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = match endpoint {
            Endpoint::Port(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                OwnedFd::from(listener)
            }
            Endpoint::Socket(path) => {
                let _ = std::fs::remove_file(path);
                let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
                rustix::net::listen(&socket, 16)?;
                socket
            }
        };
        epoll::add(epoll, &listener, epoll::EventData::new_u64(METRICS), epoll::EventFlags::IN)?;
        Ok(Self { listener, readers: VecDeque::new(), next: 0 })
    }
}

impl Daemon {
    pub(super) fn accept_reader(&mut self) {
        let Some(scrape) = &mut self.scrape else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&scrape.listener, flags) else { return };
        let token = READER | scrape.next;
        scrape.next += 1;
        if epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(token), epoll::EventFlags::IN).is_ok() {
            scrape.readers.push_back((token, socket));
            if scrape.readers.len() > READERS {
                scrape.readers.pop_front();
            }
        }
    }

    pub(super) fn answer_reader(&mut self, token: u64) {
        let Some(scrape) = &mut self.scrape else { return };
        let Some(at) = scrape.readers.iter().position(|(of, _)| *of == token) else { return };
        let Some((_, socket)) = scrape.readers.remove(at) else { return };
        let mut request = [0; 1024];
        let Ok(length) = rustix::io::read(&socket, &mut request) else { return };
        let line = String::from_utf8_lossy(&request[..length]);
        let (status, body) = match line.split(' ').nth(1) {
            Some("/metrics") => ("200 OK", self.metrics_text()),
            Some("/healthz") => ("200 OK", "ok\n".to_owned()),
            Some("/readyz") if self.is_ready() => ("200 OK", "ready\n".to_owned()),
            Some("/readyz") => ("503 Service Unavailable", "no forker, or stopping\n".to_owned()),
            _ => ("404 Not Found", "expected /metrics, /healthz or /readyz\n".to_owned()),
        };
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        // As much as the socket takes at once, which is all but of a reader that reads nothing.
        let _ = rustix::net::send(socket.as_fd(), answer.as_bytes(), rustix::net::SendFlags::NOSIGNAL);
    }

    fn is_ready(&self) -> bool {
        self.forker.is_some() && self.stopping.is_none()
    }

    fn metrics_text(&self) -> String {
        let pools: Vec<_> = self
            .policy
            .pools()
            .filter_map(|(id, view)| Some((self.pools.all.get(&id)?.name.as_str(), view)))
            .collect();
        self.metrics.text(&Now {
            pools: &pools,
            leased: self.sandboxes.leased() as u64,
            memory: self.policy.memory(),
            ready: self.is_ready(),
        })
    }
}

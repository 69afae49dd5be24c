//! Takes sandboxes away, on a thread of its own: launches do not wait for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use hearth::Error;
use hearth::container::{Container, delete};
use hearth::observe::log;
use hearth::store::Root;
use hearth::store::record::End;

use super::super::dirs::Dirs;

/// A sandbox whose process has ended, or never was.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) sandbox: u64,
    pub(super) id: String,
    /// Whether it has left the parked ones.
    pub(super) leased: bool,
    /// Of a detached launch the record stays, with its end in it, until someone deletes it.
    pub(super) keep: Option<End>,
    /// Its first process, 0 where that is not known: the name may be another's by now.
    pub(super) pid: i32,
    /// Its mount namespace, let go of here.
    pub(super) mounts: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Teardown {
    jobs: Sender<Job>,
    done: Receiver<u64>,
    news: OwnedFd,
}

impl Teardown {
    pub(super) fn start(dirs: &Dirs) -> io::Result<Self> {
        let (jobs, todo) = channel::<Job>();
        let (tell, done) = channel();
        let news = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )?;
        let bell = news.try_clone()?;
        let root = Root::new(dirs.root()).map_err(io::Error::other)?;
        let parked = Root::new(&dirs.parked()).map_err(io::Error::other)?;
        std::thread::Builder::new().name("teardown".into()).spawn(move || {
            for mut job in todo {
                drop(job.mounts.take());
                let root = if job.leased { &root } else { &parked };
                if let Err(error) = take_away(root, &job) {
                    log::error(&format!("take away {}: {}", job.id, error.chain()));
                }
                if tell.send(job.sandbox).is_err() {
                    return;
                }
                let _ = rustix::io::write(&bell, &1_u64.to_ne_bytes());
            }
        })?;
        Ok(Self { jobs, done, news })
    }

    pub(super) fn news(&self) -> impl AsFd + '_ {
        self.news.as_fd()
    }

    pub(super) fn take_away(&self, job: Job) {
        // The thread lives as long as we do.
        let _ = self.jobs.send(job);
    }

    /// The sandboxes that are gone since the last call.
    pub(super) fn done(&self) -> Vec<u64> {
        let _ = rustix::io::read(&self.news, &mut [0_u8; 8]);
        self.done.try_iter().collect()
    }
}

fn take_away(root: &Root, job: &Job) -> hearth::Result<()> {
    let mut container = match Container::open(root, &job.id) {
        // Someone else was faster.
        Err(Error::NoContainer { .. }) => return Ok(()),
        container => container?,
    };
    container.lock()?;
    let pid = container.record.as_ref().and_then(|record| record.process).map_or(0, |process| process.pid);
    if job.pid != 0 && pid != job.pid {
        return Ok(());
    }
    match (&job.keep, &mut container.record) {
        (Some(end), Some(record)) => {
            record.end = Some(end.clone());
            container.dir.write(record)
        }
        _ => delete::destroy(&container),
    }
}

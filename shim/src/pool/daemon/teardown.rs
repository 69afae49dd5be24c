//! Takes sandboxes away, on a thread of its own: launches do not wait for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use hearth::container::{Container, delete};
use hearth::store::Root;

use super::super::dirs::Dirs;

/// A sandbox whose process has ended, or never was.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) sandbox: u64,
    pub(super) id: String,
    /// Whether it has left the parked ones.
    pub(super) leased: bool,
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
            for job in todo {
                let root = if job.leased { &root } else { &parked };
                take_away(root, &job.id);
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

fn take_away(root: &Root, id: &str) {
    // Where someone else was faster, nothing is left to do.
    let Ok(container) = Container::open(root, id) else { return };
    if let Err(error) = container.dir.lock().and_then(|()| delete::destroy(&container)) {
        hearth::observe::log::error(&format!("take away {id}: {}", error.chain()));
    }
}

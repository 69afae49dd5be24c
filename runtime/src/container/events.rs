//! `events`: what a container uses, when the OOM killer comes, and how it ends, in runc's JSON.
//!
//! The end is no event of runc's: `{"type":"exit","id":...,"data":{"reason":"exited","status":0}}`. Only the
//! parent of a process is told how it ended, but who holds its pidfd can ask once it has been reaped (Linux 6.15).
//! Where the kernel does not tell, or nobody reaps, the event is left out.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::{Container, Status};
use crate::isolate::cgroup::{OomWatch, Placement, Stats};
use crate::observe::log;
use crate::store::record::End;
use crate::{Error, Result, sys};

/// How long after its end a supervisor may take to reap the container's process.
const PATIENCE: Duration = Duration::from_secs(3);
/// v1 tells of a shortage before it has killed: the count is looked at again after this time.
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data {
    Usage(Box<Usage>),
    End(End),
}

/// What runc tells beside the numbers of the groups: nothing, for a container as configs describe it.
#[derive(Debug, Serialize)]
struct Usage {
    #[serde(flatten)]
    stats: Stats,
    intel_rdt: Rdt,
    network_interfaces: Option<[u8; 0]>,
}

#[derive(Debug, Serialize)]
struct Rdt {}

/// What is used now.
pub fn usage(container: &Container) -> Result<Event<'_>> {
    let (id, cgroups) = running(container)?;
    stats(id, cgroups)
}

/// Gives what is used every `interval`, and what happens meanwhile, until the container ends.
pub fn follow(
    container: &Container,
    interval: Duration,
    mut give: impl FnMut(&Event<'_>) -> Result<()>,
) -> Result<()> {
    let (id, cgroups) = running(container)?;
    let process = container.process().ok_or_else(|| not_running(container))?;
    let watch = match cgroups.watch_oom() {
        // It is in no group that could tell.
        Err(Error::Cgroup { .. }) => None,
        watch => Some(watch?),
    };
    let mut ooms = cgroups.oom_count()?;
    let mut next = Instant::now() + interval;
    let mut settled = None::<Instant>;
    loop {
        let until = settled.map_or(next, |settled| settled.min(next));
        let [ended, news] = wait(&process, watch.as_ref(), until)?;
        let count = watch.as_ref().map_or(Ok(0), |watch| watch.news().map(|news| news.count))?;
        if count > ooms {
            give(&Event { kind: "oom", id, data: None })?;
            ooms = count;
        }
        settled = (news && count <= ooms).then(|| Instant::now() + SETTLE);
        if ended {
            return end(&process, ooms)?
                .map_or(Ok(()), |end| give(&Event { kind: "exit", id, data: Some(Data::End(end)) }));
        }
        if Instant::now() >= next {
            match stats(id, cgroups) {
                Ok(event) => give(&event)?,
                Err(error) => log::error(&error.chain()),
            }
            next = Instant::now() + interval;
        }
    }
}

fn running(container: &Container) -> Result<(&str, &Placement)> {
    if container.status()? == Status::Stopped {
        return Err(not_running(container));
    }
    let record = container.record()?;
    Ok((&record.id, &record.cgroups))
}

fn not_running(container: &Container) -> Error {
    container.refuse("container not running")
}

fn stats<'a>(id: &'a str, cgroups: &Placement) -> Result<Event<'a>> {
    let usage = Usage { stats: cgroups.stats()?, intel_rdt: Rdt {}, network_interfaces: None };
    Ok(Event { kind: "stats", id, data: Some(Data::Usage(Box::new(usage))) })
}

/// Whether the process has ended, and whether there is news of memory.
fn wait(process: &OwnedFd, watch: Option<&OomWatch>, until: Instant) -> Result<[bool; 2]> {
    let mut waiting = vec![PollFd::new(process, PollFlags::IN)];
    waiting.extend(watch.map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
    pause(&mut waiting, until)?;
    let is_ready = |at: usize| waiting.get(at).is_some_and(|fd| !fd.revents().is_empty());
    Ok([is_ready(0), is_ready(1)])
}

fn pause(waiting: &mut [PollFd<'_>], until: Instant) -> Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    match poll(waiting, Some(&left)) {
        Err(rustix::io::Errno::INTR) => Ok(()),
        result => result.map(drop).map_err(Error::sys("poll")),
    }
}

fn end(process: &OwnedFd, ooms: u64) -> Result<Option<End>> {
    // A pidfd hangs up when its process has been reaped.
    pause(&mut [PollFd::new(process, PollFlags::empty())], Instant::now() + PATIENCE)?;
    let status = sys::pidfd::exit_status(process.as_fd()).map_err(Error::sys("ioctl(PIDFD_GET_INFO)"))?;
    Ok(status.map(|status| End::new(status, ooms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_have_the_shape_that_tools_read() {
        let line = |event: &Event<'_>| serde_json::to_string(event).unwrap();
        assert_eq!(line(&Event { kind: "oom", id: "a", data: None }), r#"{"type":"oom","id":"a"}"#);
        let data = Some(Data::End(End::new(9, 0)));
        let expected = r#"{"type":"exit","id":"a","data":{"reason":"signalled","signal":9}}"#;
        assert_eq!(line(&Event { kind: "exit", id: "a", data }), expected);
        let event = stats("a", &Placement::none()).unwrap();
        let value = serde_json::to_value(&event).unwrap();
        for key in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"]
        {
            assert!(value["data"].get(key).is_some(), "{key}: {value}");
        }
    }
}

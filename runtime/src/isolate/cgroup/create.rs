//! Making a container's groups: nothing is made before all values are known to be valid, and what was made is
//! removed when a later step fails.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::apply::Work;
use super::devices::DeviceRule;
use super::files;
use super::host::is_permission;
use super::limits::Current;
use super::placement::{Group, Placement, clean};
use super::tree;
use crate::{Error, Result};

const DIR_MODE: Mode = Mode::from_raw_mode(0o755);

/// Open groups, ready for a process to enter them.
#[derive(Debug, Default)]
pub struct Leaf {
    /// The v2 group's directory, for CLONE_INTO_CGROUP.
    pub v2: Option<OwnedFd>,
    /// The `tasks` file of each v1 group: the child, while it has one thread, writes "0" to each.
    pub tasks: Vec<OwnedFd>,
    /// What was asked for and could not be had, where that is no failure: to be logged as warnings.
    pub notes: Vec<String>,
    /// The group is made when there is a process to put into it, which must not begin before.
    pub is_late: bool,
    /// What was not asked for and could not be had: no news to an ordinary user.
    pub without: Option<String>,
    /// Whether the v2 group was there before.
    tracker: Made,
}

impl Placement {
    /// Makes the groups with their limits, and opens them; [`Self::restrict_ahead`] is to follow before init is made
    /// in them, [`Self::restrict_meanwhile`] before anything of the container's own runs. A rootless caller goes
    /// without those that are not delegated to it, unless a limit needs one, or the config names a place and none is
    /// left: the placement then has fewer groups, or none, and is to be stored so. A scope of systemd's cannot be
    /// made yet: [`Self::enclose`] does it.
    pub fn create(&mut self, resources: Option<&LinuxResources>) -> Result<Leaf> {
        let mut note = None;
        if self.unit.is_none() && !rustix::process::geteuid().is_root() && self.is_rootless() {
            note = self.leave_out(resources)?;
        }
        let mut result = self.attempt(resources);
        if let Err(Error::Path { source, .. }) = &result
            && note.is_none()
            && is_permission(source)
            && self.is_rootless()
        {
            note = self.leave_out(resources)?;
            result = self.attempt(resources);
        }
        if let Err(Error::Cgroup { .. } | Error::InUse { .. }) = &result {
            // What is another container's must not go with what is taken back of this one.
            *self = Self::none();
        }
        result.map(|leaf| Leaf { without: note, ..leaf })
    }

    fn attempt(&self, resources: Option<&LinuxResources>) -> Result<Leaf> {
        let work = self.work(resources, &Current::default())?;
        if self.scope().is_some() {
            return Ok(Leaf { notes: work.notes, is_late: true, ..Leaf::default() });
        }
        if let Some(slice) = &self.unit {
            slice.start(work.settings(), None)?;
        }
        let mut made = Vec::new();
        let result = self.build(work, &mut made);
        if result.is_err() {
            for dir in made.iter().rev() {
                // The failure that is reported is the first one.
                let _ = rustix::fs::rmdir(dir);
            }
        }
        result
    }

    /// Opens the groups of a running container for one more process.
    pub fn open(&self, below: &Below) -> Result<Leaf> {
        below.check(self)?;
        let mut leaf = Leaf::default();
        for group in self.groups() {
            let (own, place) = (group.dir(), below.of(group));
            let dir = own.join(&place.path);
            // Beside v1, who names no controller means v1, and the v2 group need not have the same below it.
            let is_own = !place.named && is_v2(group) && !self.is_v2_alone() && !dir.is_dir();
            leaf.add(group, if is_own { &own } else { &dir })?;
        }
        Ok(leaf)
    }

    fn build(&self, work: Work<'_>, made: &mut Vec<PathBuf>) -> Result<Leaf> {
        let mut leaf = Leaf::default();
        for group in self.groups() {
            let dir = group.dir();
            if make(group, &dir, made)? == Made::Before && Some(group) == self.tracker() {
                self.check_unused()?;
                leaf.tracker = Made::Before;
            }
            if group.has("cpuset") {
                inherit_cpuset(&dir)?;
            }
            leaf.add(group, &dir)?;
        }
        self.carry_out(&work)?;
        leaf.notes = work.notes;
        Ok(leaf)
    }

    /// Puts device rules in force that come one by one, as on v1: while init makes nodes, they may not.
    pub fn restrict_ahead(&self, leaf: &mut Leaf, devices: &[DeviceRule]) -> Result<()> {
        if leaf.v2.is_some() || leaf.is_late { Ok(()) } else { self.restrict(leaf, devices) }
    }

    /// Puts device rules in force that come at one stroke, as on v2: init may be at work meanwhile, for it makes
    /// nodes, and opens none that the rules could deny.
    pub fn restrict_meanwhile(&self, leaf: &mut Leaf, devices: &[DeviceRule]) -> Result<()> {
        if leaf.v2.is_some() { self.restrict(leaf, devices) } else { Ok(()) }
    }

    /// At once, where nothing of ours is at work in the groups.
    pub fn restrict(&self, leaf: &mut Leaf, devices: &[DeviceRule]) -> Result<()> {
        leaf.notes.extend(self.restrict_devices(leaf.v2.as_ref(), devices, leaf.tracker)?);
        Ok(())
    }

    /// As runc: a group that is there already may be used, but not one that something runs in, nor a frozen one, in
    /// which init would stand still. To be asked before the placement is stored: who cleans up by a stored one kills
    /// what is in it.
    pub fn check_unused(&self) -> Result<()> {
        for group in self.groups().filter(|group| Some(*group) == self.tracker() || group.has("freezer")) {
            let dir = group.dir();
            let in_use = |state: String| Err(Error::InUse { path: dir.clone(), state });
            let (file, still) = if is_v2(group) { ("cgroup.freeze", "1") } else { ("freezer.state", "FR") };
            if files::read_if_there(&dir, file)?.is_some_and(|text| text.starts_with(still)) {
                return in_use("unexpectedly frozen".into());
            }
            let count = tree::processes(&dir).map_err(Error::path("read processes of", &dir))?.len();
            if count > 0 {
                return in_use(format!("is not empty: {count} process(es) found"));
            }
        }
        Ok(())
    }
}

/// Where in the container's groups one more process is to be (`exec --cgroup`), by controller; none: all of them.
#[derive(Debug, Default)]
pub struct Below(Vec<(Option<String>, PathBuf)>);

/// The place in one group, and whether one of the group's controllers was named.
#[derive(Default)]
struct Place {
    path: PathBuf,
    named: bool,
}

impl Below {
    /// `[CONTROLLER[,CONTROLLER...]:]PATH`, as runc's.
    pub fn parse(list: &[String]) -> Result<Self> {
        let mut places = Vec::new();
        for text in list {
            let (names, path) = text.split_once(':').map_or((None, text.as_str()), |(n, p)| (Some(n), p));
            let inside = match path.trim_matches('/') {
                "" => PathBuf::new(),
                path => clean("bad sub cgroup path", path)?.1,
            };
            let bad = |expected: &str| Err(Error::invalid("--cgroup", text, expected));
            match names {
                None if list.len() > 1 => return bad("CONTROLLER:PATH where there are several"),
                None => places.push((None, inside)),
                Some(names) => {
                    for name in names.split(',') {
                        if name.is_empty() || places.iter().any(|(other, _)| other.as_deref() == Some(name)) {
                            return bad("controllers, each of them once");
                        }
                        places.push((Some(name.to_owned()), inside.clone()));
                    }
                }
            }
        }
        Ok(Self(places))
    }

    /// Of the v2 hierarchy alone.
    pub fn v2(path: Option<String>) -> Self {
        Self(path.into_iter().map(|path| (Some(UNIFIED.to_owned()), path.into())).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, group: &Group) -> Place {
        let place = self.0.iter().find(|(name, _)| name.as_ref().is_none_or(|name| answers(group, name)));
        place.map_or_else(Place::default, |(name, path)| Place { path: path.clone(), named: name.is_some() })
    }

    fn check(&self, placement: &Placement) -> Result<()> {
        for name in self.0.iter().filter_map(|(name, _)| name.as_ref()) {
            if !placement.groups().any(|group| answers(group, name)) {
                let expected = "one that the container is in";
                return Err(Error::invalid("--cgroup", format!("unknown controller {name}"), expected));
            }
        }
        Ok(())
    }
}

/// What the v2 group of a hybrid host is called.
const UNIFIED: &str = "unified";

fn answers(group: &Group, controller: &str) -> bool {
    group.has(controller) || (is_v2(group) && controller == UNIFIED)
}

fn is_v2(group: &Group) -> bool {
    group.controllers.is_empty()
}

impl Leaf {
    pub(super) fn add(&mut self, group: &Group, dir: &Path) -> Result<()> {
        if group.controllers.is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(Error::path(ADDING, dir))?;
            self.v2 = Some(fd);
        } else {
            let path = dir.join("tasks");
            self.tasks.push(files::open_for_write(&path).map_err(Error::path(ADDING, path))?);
        }
        Ok(())
    }
}

/// In runc's words.
const ADDING: &str = "error adding pid to cgroup: open";

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) enum Made {
    #[default]
    Now,
    Before,
}

/// Makes a group, and its parents where they are missing. Another container's end may take a shared parent away
/// between two calls, so a few tries are made.
pub(super) fn make(group: &Group, dir: &Path, made: &mut Vec<PathBuf>) -> Result<Made> {
    let mut tries = 0;
    loop {
        match rustix::fs::mkdir(dir, DIR_MODE) {
            Ok(()) => {
                made.push(dir.to_owned());
                return Ok(Made::Now);
            }
            Err(Errno::EXIST) => return Ok(Made::Before),
            Err(Errno::NOENT) if tries < 5 && group.path.parent().is_some() => tries += 1,
            Err(error) => return Err(Error::path("mkdir", dir)(error)),
        }
        let relative = group.path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        let parents: Vec<_> = relative.map(|parent| group.mount.join(parent)).collect();
        for parent in parents.into_iter().rev() {
            match rustix::fs::mkdir(&parent, DIR_MODE) {
                Ok(()) => made.push(parent),
                Err(Errno::EXIST | Errno::NOENT) => {}
                Err(error) => return Err(Error::path("mkdir", parent)(error)),
            }
        }
    }
}

/// A new v1 cpuset has no processors and no memory, and refuses every task: it and each of its parents in the
/// same state take over what their parent has.
pub(super) fn inherit_cpuset(dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut empty = Vec::new();
        let mut found = String::new();
        for ancestor in dir.ancestors() {
            let path = ancestor.join(file);
            found = files::read(&path).map_err(Error::path("read", &path))?.trim().to_owned();
            if !found.is_empty() {
                break;
            }
            empty.push(path);
        }
        for path in empty.into_iter().rev() {
            files::write_value(&path, &found)?;
        }
    }
    Ok(())
}

//! Making a container's groups: nothing is made before all values are known to be valid, and what was made is
//! removed when a later step fails.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::devices::{DeviceRule, v1_writes};
use super::host::{is_permission, is_rootless};
use super::limits::{self, Controller, Current, Missing, Setting};
use super::placement::{Group, Joins, Placement};
use super::{files, filter};
use crate::sys::bpf;
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
}

/// The values for one group.
struct Settings<'a> {
    group: &'a Group,
    values: Vec<Setting>,
}

/// Everything that is to be written, and the v2 controllers that must be enabled for it.
#[derive(Default)]
struct Work<'a> {
    settings: Vec<Settings<'a>>,
    v2_controllers: Vec<String>,
    notes: Vec<String>,
}

impl Placement {
    /// Makes the groups with their limits and device rules, and opens them. A rootless caller whose config names
    /// neither place nor limits, and who may not make groups, goes without: the placement then is empty, and is to
    /// be stored so.
    pub fn create(&mut self, resources: Option<&LinuxResources>, devices: &[DeviceRule]) -> Result<Leaf> {
        let is_optional = !self.given && resources.is_none_or(|r| limits::needed(r).is_empty());
        let work = self.work(resources, &Current::default())?;
        let mut made = Vec::new();
        let result = self.build(work, devices, &mut made);
        let Err(error) = result else { return result };
        for dir in made.iter().rev() {
            // The failure that is reported is the first one.
            let _ = rustix::fs::rmdir(dir);
        }
        match &error {
            Error::Path { source, call: "mkdir", .. }
                if is_optional && is_permission(source) && is_rootless() =>
            {
                let notes = vec![format!("container without control groups: {error}: {source}")];
                *self = Self::none();
                Ok(Leaf { notes, ..Leaf::default() })
            }
            _ => Err(error),
        }
    }

    /// Opens the groups of a running container for one more process; `below` is a group inside the container's.
    pub fn open(&self, below: &Path) -> Result<Leaf> {
        let mut leaf = Leaf::default();
        for group in self.groups() {
            leaf.add(group, &group.dir().join(below))?;
        }
        Ok(leaf)
    }

    fn build(&self, work: Work<'_>, devices: &[DeviceRule], made: &mut Vec<PathBuf>) -> Result<Leaf> {
        let mut leaf = Leaf { notes: work.notes, ..Leaf::default() };
        let mut tracker = Made::Now;
        for group in self.groups() {
            let dir = group.dir();
            if make(group, &dir, made)? == Made::Before && Some(group) == self.tracker() {
                self.check_unused(&dir)?;
                tracker = Made::Before;
            }
            if group.has("cpuset") {
                inherit_cpuset(&dir)?;
            }
            leaf.add(group, &dir)?;
        }
        if let Some(group) = &self.v2 {
            self.enable(group, &work.v2_controllers)?;
        }
        for Settings { group, values } in &work.settings {
            apply(&group.dir(), values)?;
        }
        leaf.notes.extend(self.restrict_devices(leaf.v2.as_ref(), devices, tracker)?);
        Ok(leaf)
    }

    /// As runc: a group that is there already may be used, but not one that something runs in.
    fn check_unused(&self, dir: &Path) -> Result<()> {
        let state = match self.processes()?.len() {
            0 if !self.is_frozen()? => return Ok(()),
            0 => "is there already and frozen".to_owned(),
            count => format!("is not empty: {count} process(es) found"),
        };
        Err(Error::Cgroup { path: dir.to_owned(), state })
    }

    /// Translates the limits and finds the group for each of them.
    fn work(&self, resources: Option<&LinuxResources>, current: &Current) -> Result<Work<'_>> {
        let mut work = Work::default();
        let Some(resources) = resources else { return Ok(work) };
        for controller in limits::needed(resources) {
            let name = controller.v1_name();
            if let Some(group) = self.joined(name) {
                work.settings.push(Settings { group, values: limits::v1(controller, resources)? });
            } else if let Some(group) = self.v2_home(controller) {
                let values = limits::v2(controller, resources, current)?;
                if !values.is_empty() {
                    work.settings.push(Settings { group, values });
                    work.v2_controllers.extend(controller.v2_name().map(str::to_owned));
                }
            } else {
                return Err(Error::invalid("linux.resources", name, "a controller that this host has"));
            }
        }
        let is_v2 = |controller| self.v2_home(controller).is_some();
        work.notes = limits::notes(resources, is_v2(Controller::Memory), is_v2(Controller::NetCls));
        self.unified(resources, &mut work)?;
        Ok(work)
    }

    fn unified<'a>(&'a self, resources: &LinuxResources, work: &mut Work<'a>) -> Result<()> {
        let Some(map) = resources.unified().as_ref().filter(|map| !map.is_empty()) else { return Ok(()) };
        let settings = limits::unified(map)?;
        let Some(group) = &self.v2 else {
            let expected = "a host with cgroup v2";
            return Err(Error::invalid("linux.resources.unified", format!("{} keys", map.len()), expected));
        };
        let mut values = Vec::new();
        for (setting, controller) in settings {
            let v1_name = if controller == "io" { "blkio" } else { controller.as_str() };
            if self.v1_group(v1_name).is_some() {
                let expected = "a controller of the v2 hierarchy: this host has it in v1";
                return Err(Error::invalid("linux.resources.unified", setting.file, expected));
            }
            if controller != "cgroup" && !work.v2_controllers.contains(&controller) {
                work.v2_controllers.push(controller);
            }
            values.push(setting);
        }
        work.settings.push(Settings { group, values });
        Ok(())
    }

    /// Changes the limits of a container. What `resources` leaves out stays as it is. A v1 hierarchy that the
    /// container had no need of is joined now, so the placement is to be stored again. Returns notes.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<Vec<String>> {
        self.join_needed(resources)?;
        let v2 = self.v2.as_ref().map(Group::dir);
        let cpu_max = match &v2 {
            Some(dir) if self.v2_home(Controller::Cpu).is_some() => files::read_if_there(dir, "cpu.max")?,
            _ => None,
        };
        let work = self.work(Some(resources), &Current { cpu_max })?;
        self.check_usage(resources)?;
        if let Some(group) = &self.v2 {
            self.enable(group, &work.v2_controllers)?;
        }
        for Settings { group, values } in &work.settings {
            apply(&group.dir(), values)?;
        }
        Ok(work.notes)
    }

    /// `checkBeforeUpdate`: a limit below what is in use would only bring the OOM killer.
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let memory = resources.memory().unwrap_or_default();
        if memory.check_before_update() != Some(true) {
            return Ok(());
        }
        let (dir, file) = match (self.joined("memory"), &self.v2) {
            (Some(group), _) => (group.dir(), "memory.usage_in_bytes"),
            (None, Some(group)) => (group.dir(), "memory.current"),
            (None, None) => return Ok(()),
        };
        let usage =
            files::read_if_there(&dir, file)?.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
        for (field, limit) in [("limit", memory.limit()), ("swap", memory.swap())] {
            if let Some(limit @ 1..) = limit
                && limit <= usage
            {
                let expected = format!("more than the usage of {usage}");
                return Err(Error::invalid(
                    format!("linux.resources.memory.{field}"),
                    limit.to_string(),
                    expected,
                ));
            }
        }
        Ok(())
    }

    /// Moves the container into the v1 groups that its new limits need.
    fn join_needed(&mut self, resources: &LinuxResources) -> Result<()> {
        let names: Vec<_> = limits::needed(resources).into_iter().map(Controller::v1_name).collect();
        let is_new = |group: &Group| !group.joined && names.iter().any(|name| group.has(name));
        for index in 0..self.v1.len() {
            if !is_new(&self.v1[index]) {
                continue;
            }
            let dir = self.v1[index].dir();
            make(&self.v1[index], &dir, &mut Vec::new())?;
            self.v1[index].joined = true;
            if self.v1[index].has("cpuset") {
                inherit_cpuset(&dir)?;
            }
            self.frozen(|placement| {
                let procs = dir.join("cgroup.procs");
                for pid in placement.processes()? {
                    write_value(&procs, &pid.to_string())?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Enables controllers for the v2 group, from the nearest parent that has them downwards. On a v2 host, where
    /// the config or a supervisor asks for the place, all that there are, as runc does, so that the supervisor can
    /// read and set them; otherwise only those that are needed, as each has its cost.
    fn enable(&self, group: &Group, needed: &[String]) -> Result<()> {
        let enables_all = self.v1.is_empty() && (self.given || self.joins == Joins::All);
        if needed.is_empty() && !enables_all {
            return Ok(());
        }
        let has = |dir: &Path| {
            let path = dir.join("cgroup.controllers");
            files::read(&path).map_err(Error::path("read", path))
        };
        let lacking = |listed: &str, wanted: &[String]| -> Vec<String> {
            wanted.iter().filter(|name| !listed.split_whitespace().any(|l| l == *name)).cloned().collect()
        };
        let root = if enables_all { has(&group.mount)? } else { String::new() };
        let mut wanted: Vec<String> = root.split_whitespace().map(str::to_owned).collect();
        wanted.extend(lacking(&root, needed));
        let dir = group.dir();
        let missing = lacking(&has(&dir)?, &wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut parents = Vec::new();
        for parent in dir.ancestors().skip(1).take_while(|parent| parent.starts_with(&group.mount)) {
            parents.push(parent);
            if lacking(&has(parent)?, &missing).is_empty() {
                break;
            }
        }
        for parent in parents.into_iter().rev() {
            enable_below(parent, &missing, needed)?;
        }
        match lacking(&has(&dir)?, needed).first() {
            None => Ok(()),
            Some(name) => {
                let expected = "a controller that this host's cgroup v2 has for this group";
                Err(Error::invalid("linux.resources", name, expected))
            }
        }
    }

    /// Replaces the device rules of a running container. A v1 group denies all for the moment between two writes.
    pub fn update_devices(&self, devices: &[DeviceRule]) -> Result<Option<String>> {
        let v2 = self.open(Path::new(""))?.v2;
        self.restrict_devices(v2.as_ref(), devices, Made::Before)
    }

    /// Attaches the device program to the v2 group, or writes the rules of the v1 group. Returns a note where a
    /// rootless caller may do neither.
    fn restrict_devices(
        &self,
        v2: Option<&OwnedFd>,
        devices: &[DeviceRule],
        made: Made,
    ) -> Result<Option<String>> {
        let result = match (v2, self.joined("devices")) {
            (Some(_), _) if made == Made::Now && filter::allows_all(devices) => Ok(()),
            (Some(dir), _) => attach_filter(dir, devices, made),
            (None, Some(group)) => restrict_v1(&group.dir(), devices),
            (None, None) if self.is_none() || filter::allows_all(devices) => Ok(()),
            (None, None) => {
                Err(Error::invalid("linux.resources.devices", "rules", "a host with a devices controller"))
            }
        };
        match result {
            Err(error) if is_rootless() => Ok(Some(format!("devices not restricted: {error}"))),
            other => other.map(|()| None),
        }
    }
}

impl Leaf {
    fn add(&mut self, group: &Group, dir: &Path) -> Result<()> {
        if group.controllers.is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(Error::path("open", dir))?;
            self.v2 = Some(fd);
        } else {
            let path = dir.join("tasks");
            self.tasks.push(files::open_for_write(&path).map_err(Error::path("open", path))?);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Made {
    Now,
    Before,
}

/// Makes a group, and its parents where they are missing. Another container's end may take a shared parent away
/// between two calls, so a few tries are made.
fn make(group: &Group, dir: &Path, made: &mut Vec<PathBuf>) -> Result<Made> {
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
fn inherit_cpuset(dir: &Path) -> Result<()> {
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
            write_value(&path, &found)?;
        }
    }
    Ok(())
}

/// All controllers in one write; if one of them is refused, each by itself, and only a needed one is an error.
fn enable_below(parent: &Path, controllers: &[String], needed: &[String]) -> Result<()> {
    let path = parent.join("cgroup.subtree_control");
    let all: Vec<_> = controllers.iter().map(|name| format!("+{name}")).collect();
    if files::write(&path, &all.join(" ")).is_ok() {
        return Ok(());
    }
    for name in controllers {
        let result = write_value(&path, &format!("+{name}"));
        if needed.contains(name) {
            result?;
        }
    }
    Ok(())
}

/// Some values check each other (memory and memsw, quota, period and burst): what is refused at first is written
/// again after the others, so that raising and lowering both work without reading what is there.
fn apply(dir: &Path, settings: &[Setting]) -> Result<()> {
    let mut refused = Vec::new();
    for setting in settings {
        match set(dir, setting) {
            Err(Error::Write { source, .. })
                if source.raw_os_error() == Some(libc::EINVAL) && settings.len() > 1 =>
            {
                refused.push(setting);
            }
            other => other?,
        }
    }
    refused.into_iter().try_for_each(|setting| set(dir, setting))
}

fn set(dir: &Path, setting: &Setting) -> Result<()> {
    let result = write_value(&dir.join(&setting.file), &setting.value);
    match (&result, &setting.missing) {
        (Err(Error::Write { source, .. }), missing) if source.raw_os_error() == Some(libc::ENOENT) => {
            match missing {
                Missing::Fail => result,
                Missing::Skip => Ok(()),
                Missing::Instead(other) => set(dir, other),
            }
        }
        _ => result,
    }
}

pub(super) fn write_value(path: &Path, value: &str) -> Result<()> {
    files::write(path, value).map_err(|source| refused(path, value, source))
}

fn refused(path: &Path, value: &str, source: io::Error) -> Error {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let hint = match (file, source.raw_os_error()) {
        ("cgroup.subtree_control", Some(libc::EBUSY)) => {
            ": a group that holds processes cannot limit groups below it"
        }
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Some(libc::EBUSY)) => {
            ": more is in use already"
        }
        (_, Some(libc::ENOENT)) => ": this kernel or group has no such control",
        _ => "",
    };
    Error::Write { path: path.to_owned(), value: value.to_owned(), hint, source }
}

/// A group that was there before may hold a program of ours, whose place the new one takes.
fn attach_filter(dir: &OwnedFd, devices: &[DeviceRule], made: Made) -> Result<()> {
    let program = filter::compile(devices);
    let program =
        bpf::load_device_filter(&program).map_err(Error::sys("bpf(PROG_LOAD) of the device filter"))?;
    let replaced = match made {
        Made::Now => None,
        Made::Before => bpf::attached_device_filter(dir.as_fd()).map_err(Error::sys("bpf(PROG_QUERY)"))?,
    };
    bpf::attach_device_filter(dir.as_fd(), program.as_fd(), replaced.as_ref().map(AsFd::as_fd))
        .map_err(Error::sys("bpf(PROG_ATTACH) of the device filter"))
}

fn restrict_v1(dir: &Path, devices: &[DeviceRule]) -> Result<()> {
    let writes = v1_writes(devices)?;
    let mut open: Option<(&str, OwnedFd)> = None;
    for write in &writes {
        let path = dir.join(write.file);
        let fd = match open.take() {
            Some((file, fd)) if file == write.file => fd,
            _ => files::open_for_write(&path).map_err(Error::path("open", &path))?,
        };
        files::write_fd(&fd, &write.value).map_err(|source| refused(&path, &write.value, source))?;
        open = Some((write.file, fd));
    }
    Ok(())
}

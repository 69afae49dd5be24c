//! The plan of a container: everything decided, nothing done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    Hook as SpecHook, Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxIntelRdt,
    LinuxNamespaceType as Ns, LinuxResources, Mount as SpecMount,
};
use serde::{Deserialize, Serialize};

use super::landlock;
use super::load::Bundle;
use super::mount_options::{self, Options};
use super::process::{Process, cpu_list, text};
use super::spec::Spec;
use super::validate;
use crate::isolate::seccomp;
use crate::sys::mount as sys;
use crate::{Error, Result};

/// A container, split by who acts: the runtime's own process, and the container's init.
#[derive(Debug)]
pub struct Plan {
    pub host: Host,
    pub init: Init,
}

impl Init {
    /// Whether hooks run between the making of the namespaces and the change of the root.
    pub fn has_early_hooks(&self) -> bool {
        self.runtime_hooks || !self.create_container.is_empty()
    }
}

/// What the runtime does before and around the container.
#[derive(Debug)]
pub struct Host {
    pub rootfs: PathBuf,
    /// Paths on the host, in the order in which [`Source::Bind`] counts them.
    pub binds: Vec<Bind>,
    /// Namespaces to make, as CLONE_NEW* flags; the cgroup namespace is init's own business.
    pub new_namespaces: u64,
    /// (type, path) of namespaces to join.
    pub joined: Vec<(Ns, PathBuf)>,
    pub uid_mappings: Vec<IdMap>,
    pub gid_mappings: Vec<IdMap>,
    /// Lines for /proc/PID/timens_offsets.
    pub time_offsets: String,
    pub cgroups_path: Option<String>,
    /// Whom the container's group is given to, on the host.
    pub cgroup_owner: Option<u32>,
    pub resources: Option<LinuxResources>,
    pub intel_rdt: Option<LinuxIntelRdt>,
    pub hooks: Hooks,
    /// (name on the host, name in the container)
    pub net_devices: Vec<(String, String)>,
    /// Where the listener of a seccomp filter with `notify` goes.
    pub seccomp_agent: Option<seccomp::notify::Agent>,
}

/// (in the container, on the host, size)
pub type IdMap = (u32, u32, u32);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// None: only the user namespace to map by is wanted, for a source inside the root.
    pub path: Option<PathBuf>,
    pub recursive: bool,
    /// Propagation to give the detached copy, 0 to keep it.
    pub propagation: u64,
    /// What to map the mount by, and whether the whole tree is mapped.
    pub idmap: Option<(MapBy, bool)>,
}

/// A user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapBy {
    /// To be made, with these mappings.
    New(Vec<IdMap>, Vec<IdMap>),
    /// The one that the container joins.
    Joined(PathBuf),
}

/// What the container's init does, in the order of its steps.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Init {
    pub id: String,
    pub bundle: String,
    pub annotations: Vec<(String, String)>,
    pub user_namespace: bool,
    pub mount_namespace: bool,
    pub new_network: bool,
    pub new_cgroup_namespace: bool,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// chroot instead of pivot_root, for a root file system that cannot be pivoted (an initramfs).
    pub no_pivot: bool,
    /// A session keyring of the container's own.
    pub new_keyring: bool,
    /// Propagation of the container's root: (type, recursive).
    pub root_propagation: Option<(u64, bool)>,
    pub root_readonly: bool,
    pub mounts: Vec<Mount>,
    /// Whether /dev is the container's own, to be filled with devices and links.
    pub fill_dev: bool,
    pub devices: Vec<Device>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub sysctl: Vec<(String, String)>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    /// Whether the runtime has hooks to run once the namespaces are there.
    pub runtime_hooks: bool,
    /// Whether init stays the first process, and the program is its child.
    pub reaper: bool,
    pub process: Process,
    pub common: Common,
    pub mount_label: Option<String>,
}

/// What every process of a container gets, the first one and those that join.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    pub seccomp: Option<seccomp::Program>,
    pub personality: Option<u64>,
    /// (mode and flags, nodes) of set_mempolicy(2)
    pub memory_policy: Option<(i32, Vec<u64>)>,
    pub landlock: Option<landlock::Policy>,
}

impl Common {
    /// For `--debug`.
    pub fn tell(&self) {
        if let Some(filter) = &self.seccomp {
            crate::observe::log::debug(&format!("seccomp filter flags: {}", filter.flags));
        }
    }

    pub fn from_spec(spec: &Spec) -> Result<Self> {
        let annotations = spec.annotations().iter().flatten();
        let landlock = landlock::Policy::from_annotations(annotations)?;
        let Some(linux) = spec.linux() else { return Ok(Self { landlock, ..Self::default() }) };
        Ok(Self {
            landlock,
            seccomp: linux.seccomp().as_ref().map(seccomp::compile).transpose()?,
            personality: linux.personality().as_ref().map(personality),
            memory_policy: linux.memory_policy().as_ref().map(memory_policy).transpose()?,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub destination: String,
    pub source: Source,
    pub options: Options,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Index into the descriptors of bind sources.
    Bind(usize),
    /// A bind of what the container's own root has at that point of the order, earlier mounts included.
    Inside(Inside),
    /// A new instance of a file system: type and source.
    New(String, String),
    /// What of the cgroup hierarchies the container may see.
    Cgroup,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// In the root.
    pub path: String,
    pub recursive: bool,
    pub propagation: u64,
    /// Index of the descriptor of a user namespace to map by, and whether the whole tree is mapped.
    pub idmap: Option<(usize, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub path: String,
    /// S_IFCHR, S_IFBLK or S_IFIFO with the permissions.
    pub mode: u32,
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Default)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub path: String,
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<u64>,
}

/// Turns a validated config into a plan.
pub fn plan(id: &str, bundle: &Bundle) -> Result<Plan> {
    validate::spec(&bundle.spec)?;
    let spec = &bundle.spec;
    let linux = spec.linux().clone().unwrap_or_default();
    let mut host = host(&bundle.dir, spec, &linux)?;
    let root_propagation = linux.rootfs_propagation().as_deref().and_then(mount_options::propagation_type);
    let mut mounts = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        mounts.push(self::mount(index, mount, &bundle.dir, root_propagation, &mut host)?);
    }
    let common = Common::from_spec(spec)?;
    let listed = |kind| validate::namespace(&linux, kind);
    let strings = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let has_runtime_hooks = !(host.hooks.prestart.is_empty() && host.hooks.create_runtime.is_empty());
    let mut process = spec.process().as_ref().map(Process::from_spec).transpose()?.unwrap_or_default();
    process.make_cwd = true;
    let hook_list = |list: Option<&Option<Vec<SpecHook>>>| hooks(list.and_then(Option::as_deref));
    host.cgroup_owner = cgroup_owner(&linux, &mounts, process.uid, &host);
    let own_dev = !mounts.iter().any(|m| m.destination.trim_end_matches('/') == "/dev" && m.options.bind);
    let init = Init {
        id: id.to_owned(),
        bundle: text(&bundle.dir, "bundle")?,
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        user_namespace: listed(Ns::User).is_some(),
        mount_namespace: listed(Ns::Mount).is_some(),
        new_network: listed(Ns::Network) == Some(None),
        new_cgroup_namespace: listed(Ns::Cgroup) == Some(None),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        no_pivot: false,
        new_keyring: true,
        root_propagation,
        root_readonly: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
        fill_dev: own_dev,
        mounts,
        devices: devices(&linux)?,
        masked_paths: strings(linux.masked_paths()),
        readonly_paths: strings(linux.readonly_paths()),
        sysctl: linux.sysctl().clone().unwrap_or_default().into_iter().collect(),
        create_container: hook_list(spec.hooks().as_ref().map(oci_spec::runtime::Hooks::create_container))?,
        start_container: hook_list(spec.hooks().as_ref().map(oci_spec::runtime::Hooks::start_container))?,
        runtime_hooks: has_runtime_hooks,
        reaper: reaper(spec)?,
        process,
        common,
        mount_label: linux.mount_label().clone().filter(|label| !label.is_empty()),
    };
    Ok(Plan { host, init })
}

/// By annotation, for callers that cannot pass `--init`.
fn reaper(spec: &Spec) -> Result<bool> {
    const NAME: &str = "org.hearth.init";
    match spec.annotations().as_ref().and_then(|annotations| annotations.get(NAME)).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(value) => Err(Error::invalid(NAME, value, "true or false")),
    }
}

fn host(dir: &std::path::Path, spec: &Spec, linux: &Linux) -> Result<Host> {
    let mut new_namespaces = 0;
    let mut joined = Vec::new();
    for ns in linux.namespaces().iter().flatten() {
        match validate::namespace(linux, ns.typ()).flatten() {
            Some(path) => joined.push((ns.typ(), path.to_owned())),
            None => new_namespaces |= ns.typ() as u64,
        }
    }
    let offsets = linux.time_offsets().iter().flatten().map(|(clock, offset)| {
        format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0))
    });
    let devices: BTreeMap<_, _> = linux.net_devices().iter().flatten().collect();
    let cgroups_path =
        linux.cgroups_path().as_deref().map(|path| text(path, "linux.cgroupsPath")).transpose()?;
    Ok(Host {
        rootfs: dir.join(spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default()),
        binds: Vec::new(),
        new_namespaces,
        joined,
        uid_mappings: id_maps(linux.uid_mappings()),
        gid_mappings: id_maps(linux.gid_mappings()),
        time_offsets: offsets.collect(),
        cgroups_path: cgroups_path.filter(|path| !path.is_empty()),
        cgroup_owner: None,
        resources: linux.resources().clone(),
        intel_rdt: linux.intel_rdt().clone(),
        hooks: runtime_hooks(spec)?,
        net_devices: devices
            .into_iter()
            .map(|(name, device)| {
                let new = device.name().as_ref().filter(|new| !new.is_empty());
                (name.clone(), new.unwrap_or(name).clone())
            })
            .collect(),
        seccomp_agent: linux.seccomp().as_ref().and_then(seccomp::notify::Agent::of),
    })
}

/// Who may write the cgroups that the container is shown writable: the user of its process (config-linux.md, "Cgroup
/// ownership").
fn cgroup_owner(linux: &Linux, mounts: &[Mount], uid: u32, host: &Host) -> Option<u32> {
    let is_shown = |mount: &Mount| {
        let is_there = mount.destination.trim_end_matches('/') == "/sys/fs/cgroup";
        is_there && mount.source == Source::Cgroup && mount.options.set & sys::RDONLY == 0
    };
    if validate::namespace(linux, Ns::Cgroup) != Some(None) || !mounts.iter().any(is_shown) {
        return None;
    }
    match validate::namespace(linux, Ns::User) {
        None => Some(uid),
        Some(Some(_)) => None,
        Some(None) => host.uid_mappings.iter().find_map(|(inside, outside, size)| {
            let offset = uid.checked_sub(*inside).filter(|offset| offset < size)?;
            outside.checked_add(offset)
        }),
    }
}

fn id_maps(list: &Option<Vec<LinuxIdMapping>>) -> Vec<IdMap> {
    list.iter().flatten().map(|map| (map.container_id(), map.host_id(), map.size())).collect()
}

pub fn runtime_hooks(spec: &Spec) -> Result<Hooks> {
    let Some(list) = spec.hooks() else { return Ok(Hooks::default()) };
    #[allow(deprecated, reason = "prestart is still in every engine's configs")]
    let prestart = hooks(list.prestart().as_deref())?;
    Ok(Hooks {
        prestart,
        create_runtime: hooks(list.create_runtime().as_deref())?,
        poststart: hooks(list.poststart().as_deref())?,
        poststop: hooks(list.poststop().as_deref())?,
    })
}

fn hooks(list: Option<&[SpecHook]>) -> Result<Vec<Hook>> {
    list.unwrap_or_default()
        .iter()
        .map(|hook| {
            Ok(Hook {
                path: text(hook.path(), "hooks.path")?,
                args: hook.args().clone().unwrap_or_default(),
                env: hook.env().clone().unwrap_or_default(),
                timeout: hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()),
            })
        })
        .collect()
}

fn mount(
    index: usize,
    spec: &SpecMount,
    bundle: &std::path::Path,
    root_propagation: Option<(u64, bool)>,
    host: &mut Host,
) -> Result<Mount> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let mut options = mount_options::parse(spec.options().iter().flatten());
    let kind = spec.typ().as_deref().unwrap_or_default();
    if kind == "bind" {
        options.bind = true;
    }
    let source = spec.source().as_deref();
    let source = if options.bind {
        let path = source.filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| Error::invalid(field("source"), "missing", "a path on the host"))?;
        // As in runc: what the caller's mounts share stays shared only where the root does.
        let keep = root_propagation.is_some_and(|(kind, _)| kind == libc::MS_SHARED);
        let maps = spec.uid_mappings().is_some();
        let idmap = (maps || options.idmap.is_some()).then(|| {
            let joined = host.joined.iter().find(|(kind, _)| *kind == Ns::User);
            let by = match joined {
                _ if maps => MapBy::New(id_maps(spec.uid_mappings()), id_maps(spec.gid_mappings())),
                Some((_, path)) => MapBy::Joined(path.clone()),
                None => MapBy::New(host.uid_mappings.clone(), host.gid_mappings.clone()),
            };
            (by, options.idmap == Some(true))
        });
        let bind = Bind {
            path: Some(bundle.join(path)),
            recursive: options.recursive_bind,
            propagation: if keep { 0 } else { libc::MS_SLAVE },
            idmap,
        };
        bind_source(bind, host, &field("source"))?
    } else if kind == "cgroup" || kind == "cgroup2" {
        Source::Cgroup
    } else if kind.is_empty() {
        return Err(Error::invalid(field("type"), "missing", "a file system type, or the option bind"));
    } else {
        let source = source.map(|path| text(path, &field("source"))).transpose()?;
        Source::New(kind.to_owned(), source.filter(|s| !s.is_empty()).unwrap_or_else(|| kind.to_owned()))
    };
    if options.bind
        && let Some((name, _)) = options.data.first()
    {
        let expected = "options of mounts (bind mounts cannot have any filesystem-specific options applied)";
        return Err(Error::invalid(field("options"), name, expected));
    }
    idmap_rules(&field("uidMappings"), spec, &options, host)?;
    owner_rules(&field("options"), &options, host)?;
    if options.tmpcopyup && !matches!(&source, Source::New(kind, _) if kind == "tmpfs") {
        return Err(Error::invalid(field("options"), "tmpcopyup", "a tmpfs to copy up to"));
    }
    // As in runc: a destination may be the path outside.
    let outside = spec.destination().strip_prefix(&host.rootfs).unwrap_or(spec.destination());
    let destination = text(outside, &field("destination"))?;
    // An older spec allows relative destinations: they are taken from the root.
    let destination = if destination.starts_with('/') { destination } else { format!("/{destination}") };
    Ok(Mount { destination, source, options })
}

/// Who owns a file system is a number in the container's user namespace, where the kernel refuses those that stand
/// for nobody.
fn owner_rules(field: &str, options: &Options, host: &Host) -> Result<()> {
    for (key, value) in &options.data {
        let maps = match key.as_str() {
            "uid" => &host.uid_mappings,
            "gid" => &host.gid_mappings,
            _ => continue,
        };
        let id = value.as_ref().and_then(|value| value.parse::<u32>().ok());
        let is_mapped = |id: u32| maps.iter().any(|(inside, _, size)| id >= *inside && id - inside < *size);
        if host.new_namespaces & Ns::User as u64 != 0 && id.is_some_and(|id| !is_mapped(id)) {
            let value = format!("{key}={}", value.as_deref().unwrap_or_default());
            let expected = "an id that the container's mappings have";
            return Err(Error::invalid(field, value, expected));
        }
    }
    Ok(())
}

fn bind_source(mut bind: Bind, host: &mut Host, field: &str) -> Result<Source> {
    let path = bind.path.as_ref().and_then(|path| path.strip_prefix(&host.rootfs).ok());
    let Some(path) = path.map(|path| text(path, field)).transpose()? else {
        host.binds.push(bind);
        return Ok(Source::Bind(host.binds.len() - 1));
    };
    let Bind { recursive, propagation, .. } = bind;
    let idmap = bind.idmap.as_ref().map(|(_, whole)| (host.binds.len(), *whole));
    if idmap.is_some() {
        bind.path = None;
        host.binds.push(bind);
    }
    Ok(Source::Inside(Inside { path, recursive, propagation, idmap }))
}

/// A mount is mapped by lists of its own, or by those of the container's user namespace.
fn idmap_rules(field: &str, spec: &SpecMount, options: &Options, host: &Host) -> Result<()> {
    if spec.uid_mappings().is_none() && options.idmap.is_none() {
        return Ok(());
    }
    if !options.bind {
        let value = spec.typ().as_deref().unwrap_or_default();
        let expected = "a bind mount (id-mapped mounts are only supported for bind-mounts)";
        return Err(Error::invalid(field, value, expected));
    }
    let last = host.binds.last().and_then(|bind| bind.idmap.as_ref());
    if last.is_some_and(|(by, _)| matches!(by, MapBy::New(uids, gids) if uids.is_empty() || gids.is_empty()))
    {
        let expected = "mappings (id-mapped mounts must have both uid and gid mappings specified)";
        return Err(Error::invalid(field, "none, nor a user namespace's", expected));
    }
    Ok(())
}

/// Every runtime adds these (config-linux.md, "Default Devices").
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

fn devices(linux: &Linux) -> Result<Vec<Device>> {
    let listed = linux.devices().clone().unwrap_or_default();
    let defaults = DEFAULT_DEVICES
        .iter()
        .filter(|row| !listed.iter().any(|d| d.path().as_os_str() == row.0))
        .map(|(path, major, minor)| {
            Ok(Device {
                path: (*path).into(),
                mode: libc::S_IFCHR | 0o666,
                major: *major,
                minor: *minor,
                uid: 0,
                gid: 0,
            })
        });
    defaults.chain(listed.iter().map(device)).collect()
}

fn device(spec: &LinuxDevice) -> Result<Device> {
    let kind = match spec.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            let path = spec.path().display().to_string();
            return Err(Error::invalid("linux.devices.type", path, "one of c, b, u, p"));
        }
    };
    let number = |name: &str, value: i64| {
        u32::try_from(value).map_err(|_| {
            Error::invalid(format!("linux.devices.{name}"), value.to_string(), "a device number")
        })
    };
    Ok(Device {
        path: text(spec.path(), "linux.devices.path")?,
        mode: kind | (spec.file_mode().unwrap_or(0o666) & 0o7777),
        major: number("major", spec.major())?,
        minor: number("minor", spec.minor())?,
        uid: spec.uid().unwrap_or(0),
        gid: spec.gid().unwrap_or(0),
    })
}

fn personality(spec: &oci_spec::runtime::LinuxPersonality) -> u64 {
    match spec.domain() {
        oci_spec::runtime::LinuxPersonalityDomain::PerLinux => 0,
        oci_spec::runtime::LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

fn memory_policy(spec: &oci_spec::runtime::LinuxMemoryPolicy) -> Result<(i32, Vec<u64>)> {
    use oci_spec::runtime::{MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
    let mode = match spec.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flags: i32 = spec
        .flags()
        .iter()
        .flatten()
        .map(|flag| match flag {
            Flag::MpolFNumaBalancing => 1 << 13,
            Flag::MpolFRelativeNodes => 1 << 14,
            Flag::MpolFStaticNodes => 1 << 15,
        })
        .sum();
    let list = spec.nodes().as_deref().filter(|list| !list.is_empty());
    let nodes = list.map(|list| cpu_list("linux.memoryPolicy.nodes: invalid memory policy nodes", list));
    let nodes = nodes.transpose()?.unwrap_or_default();
    let expected = match spec.mode() {
        Mode::MpolDefault | Mode::MpolLocal if !nodes.is_empty() => {
            Some(format!("none (mode requires 0 nodes but got {})", nodes.len()))
        }
        Mode::MpolDefault | Mode::MpolLocal | Mode::MpolPreferred => None,
        _ if nodes.is_empty() => Some("some (mode requires at least one node)".to_owned()),
        _ => None,
    };
    if let Some(expected) = expected {
        return Err(Error::invalid("linux.memoryPolicy.nodes", list.unwrap_or("none"), expected));
    }
    let mut mask = Vec::new();
    for node in nodes {
        let word = usize::try_from(node / 64).unwrap_or(0);
        if mask.len() <= word {
            mask.resize(word + 1, 0);
        }
        mask[word] |= 1 << (node % 64);
    }
    Ok((mode | flags, mask))
}

//! An ordinary user who exists in this worker's mount namespace only: copies of the tables of users and of subordinate
//! ids, with lines for the user, cover the host's. They go with the value, or with the namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::bundle::install;
use crate::invoke::Invocation;

/// The user's and its group's number.
pub const UID: u32 = 71_000;
/// The first of the subordinate ids.
pub const SUBID: u32 = 300_000;
pub const SUBIDS: u32 = 65_536;

const TABLES: [(&str, &str); 4] = [
    ("passwd", "hearthtest:x:71000:71000::/nonexistent:/bin/sh\n"),
    ("group", "hearthtest:x:71000:\n"),
    ("subuid", "hearthtest:300000:65536\n"),
    ("subgid", "hearthtest:300000:65536\n"),
];

#[derive(Debug)]
pub struct User {
    /// Closed to others.
    pub home: PathBuf,
    /// The user's own copy of the runtime.
    pub runtime: PathBuf,
    /// Where the user's processes start, if not where the test is.
    pub cgroups: Vec<PathBuf>,
    covered: Vec<PathBuf>,
}

impl User {
    pub(crate) fn new(dir: &Path, runtime: &Path) -> Self {
        let home = dir.join("home");
        fs::create_dir_all(home.join("run")).unwrap_or_else(|e| panic!("mkdir {}: {e}", home.display()));
        let mut user = Self { runtime: dir.join("runtime"), home, cgroups: Vec::new(), covered: Vec::new() };
        install(runtime, &user.runtime);
        fs::set_permissions(&user.home, fs::Permissions::from_mode(0o700)).expect("chmod");
        for path in [&user.home, &user.home.join("run"), &user.runtime] {
            own(path, UID);
        }
        for (name, line) in TABLES {
            let (host, copy) = (Path::new("/etc").join(name), dir.join(name));
            let table = fs::read_to_string(&host).unwrap_or_default() + line;
            fs::write(&copy, table).unwrap_or_else(|e| panic!("write {}: {e}", copy.display()));
            mount_bind(&copy, &host).unwrap_or_else(|e| panic!("cover {}: {e}", host.display()));
            user.covered.push(host);
        }
        user
    }

    /// The command as the user runs it.
    pub fn wrap<'t>(&self, command: Invocation<'t>) -> Invocation<'t> {
        let (uid, gid) = (format!("--reuid={UID}"), format!("--regid={UID}"));
        let command = command.wrap(&["setpriv", &uid, &gid, "--clear-groups"]);
        let command = command
            .env("HOME", &self.home)
            .env("USER", "hearthtest")
            .env("XDG_RUNTIME_DIR", self.home.join("run"));
        if self.cgroups.is_empty() {
            return command;
        }
        let enter =
            "while [ \"$1\" != -- ]; do echo 0 > \"$1/cgroup.procs\"; shift; done; shift; exec \"$@\"";
        let groups: Vec<_> = self.cgroups.iter().map(|dir| dir.to_string_lossy()).collect();
        let mut prefix = vec!["sh", "-c", enter, "enter"];
        prefix.extend(groups.iter().map(AsRef::as_ref));
        prefix.push("--");
        command.wrap(&prefix)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for path in &self.covered {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}

/// Gives a whole tree to a user and the group of that number.
pub fn own(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id))
        .unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a directory that was just made").flatten() {
            own(&entry.path(), id);
        }
    }
}

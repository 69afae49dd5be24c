//! Bundles: a busybox rootfs and a config.json.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::user;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n";
const GROUP: &str = "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n";

/// A config.json under construction. Its start is what `runc spec` writes, without a terminal.
#[derive(Debug, Clone)]
pub struct Config(pub Value);

impl Default for Config {
    fn default() -> Self {
        let text = include_str!("../fixtures/bundle-config.json");
        let mut config = Self(serde_json::from_str(text).expect("the fixture is JSON"));
        config.set("/process/terminal", false);
        // What every runtime at hand accepts; Debian's crun refuses later ones.
        config.set("/ociVersion", "1.0.2");
        config
    }
}

impl Config {
    /// Sets the value at a JSON pointer; missing objects on the way are made.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        let mut here = &mut self.0;
        for key in pointer.split('/').skip(1) {
            let index = key.parse::<usize>().ok();
            here = match (here.is_array(), index) {
                (true, Some(index)) => &mut here[index],
                _ => &mut here[key],
            };
        }
        *here = value.into();
    }

    /// Appends to the array at a JSON pointer, made where missing.
    pub fn push(&mut self, pointer: &str, value: impl Into<Value>) {
        if self.0.pointer(pointer).is_none() {
            self.set(pointer, json!([]));
        }
        let array = self.0.pointer_mut(pointer).and_then(Value::as_array_mut);
        array.unwrap_or_else(|| panic!("{pointer} is no array")).push(value.into());
    }

    pub fn remove(&mut self, pointer: &str) {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer starts with /");
        let parent = self.0.pointer_mut(parent).and_then(Value::as_object_mut);
        parent.unwrap_or_else(|| panic!("{pointer} has no parent")).remove(key);
    }

    pub fn args(&mut self, args: &[&str]) {
        self.set("/process/args", json!(args));
    }

    pub fn env(&mut self, assignment: &str) {
        self.push("/process/env", assignment);
    }

    pub fn writable(&mut self) {
        self.set("/root/readonly", false);
    }

    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) {
        let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.push("/mounts", mount);
    }

    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) {
        self.mount(destination, "bind", &source.to_string_lossy(), options);
    }

    /// Removes the namespace of this type, or adds it when a path is given or it was missing.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) {
        self.no_namespace(kind);
        let namespace = path.map_or(json!({"type": kind}), |path| json!({"type": kind, "path": path}));
        self.push("/linux/namespaces", namespace);
    }

    pub fn no_namespace(&mut self, kind: &str) {
        let list = self.0.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
        list.expect("the fixture has namespaces").retain(|namespace| namespace["type"] != kind);
    }

    /// As `runc spec --rootless` has it: a user namespace with one user and group in it, the host's network.
    pub fn rootless(&mut self) {
        self.namespace("user", None);
        self.no_namespace("network");
        self.map(0, user::UID, 1);
        self.remove("/linux/resources");
        let mounts = self.0["mounts"].as_array_mut().expect("the fixture has mounts");
        for mount in mounts {
            if mount["destination"] == "/sys" {
                let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
            }
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        }
    }

    /// One more range of users and groups.
    pub fn map(&mut self, inside: u32, outside: u32, size: u32) {
        for list in ["/linux/uidMappings", "/linux/gidMappings"] {
            self.push(list, json!({"containerID": inside, "hostID": outside, "size": size}));
        }
    }

    /// Beside the user as root, all of its subordinate ids, from 1.
    pub fn subordinate(&mut self) {
        self.map(1, user::SUBID, user::SUBIDS);
    }

    /// The same five sets for all of these names.
    pub fn capabilities(&mut self, names: &[&str]) {
        for set in ["bounding", "effective", "permitted"] {
            self.set(&format!("/process/capabilities/{set}"), json!(names));
        }
    }

    pub fn write(&self, bundle: &Path) {
        let text = serde_json::to_vec_pretty(&self.0).expect("a JSON value can be written");
        let path = bundle.join("config.json");
        fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
}

/// A small root: busybox with all its applets, a passwd, the usual directories.
pub fn make_rootfs(root: &Path) {
    for dir in ["bin", "dev", "etc", "home/alice", "proc", "root", "run", "sys", "tmp", "usr/bin", "var"] {
        make_dir(&root.join(dir), 0o755);
    }
    make_dir(&root.join("tmp"), 0o1777);
    install(Path::new("/bin/busybox"), &root.join("bin/busybox"));
    for applet in applets() {
        symlink("busybox", root.join("bin").join(applet)).unwrap_or_else(|e| panic!("symlink {applet}: {e}"));
    }
    fs::write(root.join("etc/passwd"), PASSWD).expect("write passwd");
    fs::write(root.join("etc/group"), GROUP).expect("write group");
}

/// Copies an executable.
pub fn install(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|e| panic!("copy {}: {e}", from.display()));
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("chmod a file just made");
}

fn make_dir(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod a directory just made");
}

fn applets() -> &'static [String] {
    static LIST: OnceLock<Vec<String>> = OnceLock::new();
    LIST.get_or_init(|| {
        let output =
            Command::new("/bin/busybox").arg("--list").output().expect("busybox-static is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter(|name| *name != "busybox").map(str::to_owned).collect()
    })
}

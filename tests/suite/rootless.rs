//! An ordinary user: with newuidmap and newgidmap or a single mapping, with a delegated cgroup or none.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hearth_tests::container::field;
use hearth_tests::terminal::ConsoleSocket;
use hearth_tests::user::{SUBID, UID, own};
use hearth_tests::{Config, Container, Ctx, cases, json};

cases! {
    settled:
        one_user_is_mapped_without_helpers,
        setgroups_is_denied_without_helpers,
        subordinate_ids_are_mapped_by_the_helpers,
        files_belong_to_whom_they_are_mapped_to,
        ids_that_are_not_granted_are_refused,
        another_user_of_the_namespace_runs_the_program,
        the_life_of_a_users_container,
        an_exec_joins_a_users_container,
        a_users_terminal_works,
        a_users_bind_mounts_work,
        a_users_bind_mount_can_be_read_only,
        a_user_cannot_mount_what_only_root_reads,
        devices_are_there_by_bind,
        paths_are_masked_and_read_only,
        a_new_network_namespace_has_a_sysfs_and_loopback,
        hooks_run_as_the_user,
        the_owner_is_listed,
        a_users_container_is_killed,
        a_memory_limit_without_delegation_is_refused,
        capabilities_hold_inside_only,
        a_group_that_is_not_delegated_is_refused,
        without_the_flag_a_missing_group_is_an_error;
    hearth:
        the_state_is_in_the_runtime_directory,
        without_a_runtime_directory_it_is_told,
        other_users_are_kept_from_the_state,
        a_root_that_is_not_the_user_reaches_the_users_files,
        additional_groups_work_where_the_helpers_map,
        additional_groups_are_refused_without_helpers,
        what_a_user_cannot_have_is_said,
        a_container_is_in_the_delegated_group,
        limits_hold_in_delegated_groups,
        doctor_tells_what_a_user_lacks,
        an_unpacked_image_keeps_its_owners_by_subordinate_ids,
        a_squashed_image_is_the_users_own,
        the_spec_is_runcs,
        a_group_of_a_mount_must_be_mapped,
        processes_are_listed_and_killed_without_cgroups;
}

/// The output of a script in a user's container that has to succeed.
fn sh(t: &Ctx, script: &str, edit: impl FnOnce(&mut Config)) -> String {
    t.become_user();
    t.sh(script, edit)
}

fn sleeper(t: &Ctx, edit: impl FnOnce(&mut Config)) -> Container<'_> {
    t.become_user();
    t.container(|c| {
        edit(c);
        c.args(&["sleep", "100"]);
    })
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn one_user_is_mapped_without_helpers(t: &Ctx) {
    let out = sh(t, "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map", |_| {});
    assert_eq!(words(&out), ["0", "0", "0", "71000", "1", "0", "71000", "1"]);
}

fn setgroups_is_denied_without_helpers(t: &Ctx) {
    assert_eq!(sh(t, "cat /proc/self/setgroups", |_| {}), "deny");
}

fn subordinate_ids_are_mapped_by_the_helpers(t: &Ctx) {
    let out = sh(t, "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups", Config::subordinate);
    let ids = ["0", "71000", "1", "1", "300000", "65536"];
    assert_eq!(words(&out), [&ids[..], &ids[..], &["allow"]].concat());
}

fn files_belong_to_whom_they_are_mapped_to(t: &Ctx) {
    t.become_user();
    let c = t.container(|c| {
        c.subordinate();
        c.writable();
        c.capabilities(&["CAP_CHOWN"]);
        c.args(&["sh", "-c", "touch /root/mine /root/others && chown 7:8 /root/others"]);
    });
    c.run().ok();
    let owner = |name| {
        let found = fs::metadata(c.rootfs(name)).expect("the file was made");
        (found.uid(), found.gid())
    };
    assert_eq!(owner("root/mine"), (UID, UID));
    assert_eq!(owner("root/others"), (SUBID + 6, SUBID + 7));
}

fn ids_that_are_not_granted_are_refused(t: &Ctx) {
    t.become_user();
    let c = t.container(|c| {
        c.map(1, SUBID - 1, 10);
    });
    assert_ne!(c.run().code, 0);
    // Nor those of another user.
    let c = t.container(|c| {
        c.map(1, 0, 1);
    });
    assert_ne!(c.run().code, 0);
}

fn another_user_of_the_namespace_runs_the_program(t: &Ctx) {
    let c = sleeper(t, |c| {
        c.subordinate();
        c.set("/process/user", json!({"uid": 1000, "gid": 50}));
    });
    c.up();
    assert_eq!(c.sh("id -u; id -g"), "1000\n50");
    let status = c.proc("status");
    assert_eq!(words(field(&status, "Uid"))[0], (SUBID + 999).to_string());
    assert_eq!(words(field(&status, "Gid"))[0], (SUBID + 49).to_string());
}

fn the_life_of_a_users_container(t: &Ctx) {
    let c = sleeper(t, |_| {});
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    let listed = t.rt(&["list", "--quiet"]).ok();
    assert_eq!(listed.text(), c.id);
    assert_ne!(c.delete().code, 0, "a running container was deleted");
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.delete().ok();
    assert!(!t.root().join(&c.id).exists());
}

fn an_exec_joins_a_users_container(t: &Ctx) {
    let c = sleeper(t, Config::subordinate);
    c.up();
    assert_eq!(c.sh("id -u; cat /proc/1/comm"), "0\nsleep");
    assert_eq!(c.exec_with(&["--user", "1000:1000"], &["id", "-u"]).ok().text(), "1000");
    assert_eq!(c.exec(&["sh", "-c", "exit 7"]).code, 7);
    let out = c.exec_with(&["--cwd", "/tmp", "--env", "A=b"], &["sh", "-c", "pwd; echo $A"]).ok();
    assert_eq!(out.text(), "/tmp\nb");
}

fn a_users_terminal_works(t: &Ctx) {
    t.become_user();
    let c = t.container(|c| {
        c.set("/process/terminal", true);
        c.args(&["sh", "-c", "tty; echo END"]);
    });
    let socket = ConsoleSocket::new(t);
    own(&socket.path, UID);
    c.launch("create", &["--console-socket", &socket.path.to_string_lossy()]).run().ok();
    let (mut master, _) = socket.receive();
    c.start().ok();
    assert!(master.expect("END").contains("/dev/pts/0"));
}

fn a_users_bind_mounts_work(t: &Ctx) {
    t.become_user();
    let dir = t.scratch();
    fs::write(dir.join("given"), "given").expect("write a file");
    own(&dir, UID);
    let out = t.sh("cat /tmp/given; echo back > /tmp/back", |c| {
        c.bind(&dir, "/tmp", &["bind", "rw"]);
    });
    assert_eq!(out, "given");
    assert_eq!(fs::metadata(dir.join("back")).expect("written inside").uid(), UID);
}

fn a_users_bind_mount_can_be_read_only(t: &Ctx) {
    t.become_user();
    let dir = t.scratch();
    own(&dir, UID);
    let out = t.run_sh("echo back > /tmp/back", |c| {
        c.bind(&dir, "/tmp", &["bind", "ro", "nosuid"]);
    });
    assert_ne!(out.code, 0);
    assert!(!dir.join("back").exists());
}

fn a_user_cannot_mount_what_only_root_reads(t: &Ctx) {
    t.become_user();
    let dir = t.scratch();
    fs::create_dir(dir.join("inner")).expect("mkdir");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("chmod");
    let out = t.run_sh("ls /tmp", |c| {
        c.bind(&dir.join("inner"), "/tmp", &["bind"]);
    });
    assert_ne!(out.code, 0);
}

fn devices_are_there_by_bind(t: &Ctx) {
    let script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 1 /dev/urandom | wc -c; \
                  ls -l /dev/fd /dev/stdin /dev/ptmx > /dev/null && mknod /dev/x c 1 3";
    t.become_user();
    let out = t.run_sh(script, |_| {});
    assert_eq!(words(&out.stdout), ["3", "1"]);
    assert_ne!(out.code, 0, "a device node was made");
}

fn paths_are_masked_and_read_only(t: &Ctx) {
    t.become_user();
    let script =
        "cat /proc/kcore /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic";
    let out = t.run_sh(script, |_| {});
    assert_eq!(words(&out.stdout), ["0", "0"]);
    assert_ne!(out.code, 0);
}

fn a_new_network_namespace_has_a_sysfs_and_loopback(t: &Ctx) {
    let out = sh(t, "ls /sys/class/net; ip -o link show lo", |c| {
        c.namespace("network", None);
        let mounts = c.0["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["destination"] != "/sys");
        c.mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
    });
    assert!(out.starts_with("lo\n") && out.contains("UP"), "{out}");
}

fn hooks_run_as_the_user(t: &Ctx) {
    t.become_user();
    let dir = t.scratch();
    own(&dir, UID);
    let names = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let c = t.container(|c| {
        c.args(&["true"]);
        for name in names.into_iter().filter(|name| *name != "startContainer") {
            let script = format!("cat > {}; true", dir.join(name).display());
            c.push(&format!("/hooks/{name}"), json!({"path": "/bin/sh", "args": ["sh", "-c", script]}));
        }
    });
    c.run().ok();
    for name in names.into_iter().filter(|name| *name != "startContainer") {
        assert_eq!(fs::metadata(dir.join(name)).expect(name).uid(), UID, "{name}");
    }
}

fn the_owner_is_listed(t: &Ctx) {
    let c = sleeper(t, |_| {});
    c.up();
    let list = t.rt(&["list", "--format", "json"]).ok().json();
    assert_eq!(list[0]["owner"], "hearthtest");
}

fn a_users_container_is_killed(t: &Ctx) {
    // Also where the program is another user of the namespace.
    let c = sleeper(t, |c| {
        c.subordinate();
        c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    });
    c.up();
    c.kill("KILL").ok();
    c.wait_until("stopped");
}

fn a_memory_limit_without_delegation_is_refused(t: &Ctx) {
    t.become_user();
    let c = t.container(|c| {
        c.set("/linux/resources/memory/limit", 32 << 20);
    });
    c.run().refused("cannot set memory limit: container could not join or create cgroup");
}

fn capabilities_hold_inside_only(t: &Ctx) {
    t.become_user();
    let dir = t.scratch();
    fs::write(dir.join("roots"), "x").expect("write a file");
    fs::set_permissions(dir.join("roots"), fs::Permissions::from_mode(0o600)).expect("chmod");
    let out = t.run_sh("cat /tmp/roots", |c| {
        c.capabilities(&["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
        c.bind(&dir, "/tmp", &["bind"]);
    });
    assert_ne!(out.code, 0, "root of the namespace read a file of the host's root");
}

/// The user's command without the `--root` that cases give.
fn plain<'t>(t: &'t Ctx, args: &[&str]) -> hearth_tests::invoke::Invocation<'t> {
    let runtime = t.user().runtime.to_string_lossy().into_owned();
    let mut all = vec![runtime.as_str()];
    all.extend(args);
    let user = t.user();
    user.wrap(t.host_command("env", &all))
}

fn the_state_is_in_the_runtime_directory(t: &Ctx) {
    let c = sleeper(t, |_| {});
    let bundle = c.bundle.to_string_lossy().into_owned();
    plain(t, &["run", "--detach", "--bundle", &bundle, &c.id]).run().ok();
    let root = t.user().home.join("run/hearth");
    let mode = fs::metadata(&root).expect("the directory of the state").mode() & 0o7777;
    // Sticky: what clears runtime directories of old files is to pass it over (XDG Base Directory Specification).
    assert_eq!(format!("{mode:o}"), "1700");
    assert!(root.join(&c.id).join("state.json").exists());
    plain(t, &["delete", "--force", &c.id]).run().ok();
    assert!(fs::read_dir(&root).expect("it stays").next().is_none());
}

fn without_a_runtime_directory_it_is_told(t: &Ctx) {
    t.become_user();
    let out = plain(t, &["list"]).env("XDG_RUNTIME_DIR", "").run();
    out.refused("XDG_RUNTIME_DIR");
}

fn other_users_are_kept_from_the_state(t: &Ctx) {
    let c = sleeper(t, |_| {});
    c.up();
    let root = t.root().join(&c.id);
    for path in [root.clone(), root.join("state.json"), root.join("config.json")] {
        let mode = fs::metadata(&path).expect("state").mode() & 0o077;
        assert_eq!(mode, 0, "{} is open to others", path.display());
    }
    let runtime = t.user().runtime.to_string_lossy().into_owned();
    let root = t.root().to_string_lossy().into_owned();
    for verb in [&["kill", &c.id, "KILL"][..], &["delete", "--force", &c.id], &["exec", &c.id, "true"]] {
        let args =
            [&["--reuid=71001", "--regid=71001", "--clear-groups", &runtime, "--root", &root], verb].concat();
        assert_ne!(t.host("setpriv", &args).code, 0, "{verb:?} by another user");
    }
    assert_eq!(c.status(), "running");
}

fn a_root_that_is_not_the_user_reaches_the_users_files(t: &Ctx) {
    // The container's root is a subordinate id, which may not even enter the user's home.
    t.become_user();
    let home = t.user().home.clone();
    let bundle = t.bundle(|c| {
        c.args(&["cat", "/tmp/note"]);
        for list in ["/linux/uidMappings", "/linux/gidMappings"] {
            c.set(list, json!([{"containerID": 0, "hostID": SUBID, "size": 1000}]));
        }
        c.bind(&home, "/tmp", &["bind"]);
    });
    fs::write(home.join("note"), "a note").expect("write a note");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o701)).expect("chmod");
    own(&bundle.join("rootfs"), SUBID);
    let moved = home.join("secret");
    fs::create_dir(&moved).expect("mkdir");
    fs::rename(&bundle, moved.join("bundle")).expect("move the bundle");
    fs::set_permissions(&moved, fs::Permissions::from_mode(0o700)).expect("chmod");
    own(&moved, UID);
    own(&moved.join("bundle/rootfs"), SUBID);
    let id = t.id();
    let bundle = moved.join("bundle").to_string_lossy().into_owned();
    assert_eq!(t.rt(&["run", "--bundle", &bundle, &id]).ok().text(), "a note");
}

fn additional_groups_work_where_the_helpers_map(t: &Ctx) {
    let out = sh(t, "id -G", |c| {
        c.subordinate();
        c.set("/process/user/additionalGids", json!([5, 60]));
    });
    assert_eq!(out, "0 5 60");
}

fn additional_groups_are_refused_without_helpers(t: &Ctx) {
    t.become_user();
    let c = t.container(|c| {
        c.set("/process/user/additionalGids", json!([5]));
    });
    c.run().refused("cannot set any additional groups in a rootless container");
}

fn what_a_user_cannot_have_is_said(t: &Ctx) {
    t.become_user();
    let c = t.container(|c| c.no_namespace("user"));
    c.run().refused("user namespace");
    let c = t.container(|c| {
        for list in ["/linux/uidMappings", "/linux/gidMappings"] {
            c.set(list, json!([]));
        }
    });
    c.run().refused("mapping");
}

/// Groups as systemd delegates them to a user's manager: owned by the user, who starts inside.
struct Delegated {
    dirs: Vec<PathBuf>,
    name: String,
}

impl Delegated {
    /// In these hierarchies, by the names of their directories.
    fn new(t: &Ctx, hierarchies: &[&str]) -> Self {
        let name = t.id();
        let dirs: Vec<_> =
            hierarchies.iter().map(|one| Path::new("/sys/fs/cgroup").join(one).join(&name)).collect();
        for dir in &dirs {
            if !dir.parent().is_some_and(|mount| mount.join("cgroup.procs").exists()) {
                t.skip(format!("no cgroup hierarchy {}", dir.display()));
            }
            let inner = dir.join("session");
            fs::create_dir_all(&inner).expect("make the groups");
            for group in [dir, &inner] {
                own_group(group);
            }
            t.user().cgroups.push(inner);
        }
        Self { dirs, name }
    }

    /// A cgroupsPath in it.
    fn path(&self) -> String {
        format!("/{}/container", self.name)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in &self.dirs {
            let _ = fs::remove_dir(dir.join("session"));
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The directory and what delegation hands over (`/sys/kernel/cgroup/delegate`).
fn own_group(dir: &Path) {
    for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"] {
        let path = dir.join(name);
        if path.exists() {
            std::os::unix::fs::chown(path, Some(UID), Some(UID)).expect("chown");
        }
    }
}

fn a_container_is_in_the_delegated_group(t: &Ctx) {
    t.become_user();
    let delegated = Delegated::new(t, &["unified"]);
    let c = t.container(|c| {
        c.set("/linux/cgroupsPath", delegated.path());
        c.args(&["sleep", "100"]);
    });
    c.up();
    assert!(c.proc("cgroup").contains(&format!("0::{}", delegated.path())), "{}", c.proc("cgroup"));
    let groups = c.verb("ps", &["--format", "json"], &[]).run().ok().json();
    assert_eq!(groups, json!([c.pid()]));
    c.verb("pause", &[], &[]).run().ok();
    assert_eq!(c.status(), "paused");
    c.verb("resume", &[], &[]).run().ok();
    assert_eq!(c.sh("cat /proc/self/cgroup | grep ^0:"), format!("0::{}", delegated.path()));
    c.verb("delete", &["--force"], &[]).run().ok();
    assert!(!delegated.dirs[0].join("container").exists());
}

fn limits_hold_in_delegated_groups(t: &Ctx) {
    t.become_user();
    let delegated = Delegated::new(t, &["unified", "pids", "memory"]);
    let c = t.container(|c| {
        c.set("/linux/cgroupsPath", delegated.path());
        c.set("/linux/resources/pids/limit", 4);
        c.set("/linux/resources/memory/limit", 32 << 20);
        c.args(&["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 1 & done; wait"]);
    });
    c.create().ok();
    let limit = fs::read_to_string(c.cgroup_v1("pids").join("pids.max")).expect("pids.max");
    assert_eq!(limit.trim(), "4");
    c.start();
    c.wait_until("stopped");
    let failed = fs::read_to_string(delegated.dirs[1].join("container/pids.events")).expect("pids.events");
    assert_ne!(failed.trim(), "max 0", "the limit of processes did not hold");
    c.delete().ok();
    assert!(delegated.dirs.iter().all(|dir| !dir.join("container").exists()));
}

fn a_group_that_is_not_delegated_is_refused(t: &Ctx) {
    t.become_user();
    let c = t.container(|c| {
        c.set("/linux/cgroupsPath", format!("/{}", t.id()));
    });
    c.run().refused("permission denied");
}

fn without_the_flag_a_missing_group_is_an_error(t: &Ctx) {
    t.become_user();
    let c = t.container(|_| {});
    let bundle = c.bundle.to_string_lossy().into_owned();
    let run = |flag: &str| t.command(&["--rootless", flag, "run", "--bundle", &bundle, &c.id]).run();
    run("false").refused("permission denied");
    let c = t.container(|c| {
        c.args(&["true"]);
    });
    let bundle = c.bundle.to_string_lossy().into_owned();
    t.command(&["--rootless", "true", "run", "--bundle", &bundle, &c.id]).run().ok();
    if t.is_hearth() {
        let told = t.command(&["--debug", "run", "--bundle", &bundle, &c.id]).run().ok().stderr;
        assert!(told.contains("level=debug msg=\"container without control groups"), "{told}");
    }
}

fn doctor_tells_what_a_user_lacks(t: &Ctx) {
    t.become_user();
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line[6..].starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    };
    let told = plain(t, &["doctor"]).run().ok().stdout;
    assert!(line(&told, "newuidmap").contains("map 65536 users and 65536 groups"), "{told}");
    assert!(line(&told, "state directory").starts_with("ok"), "{told}");
    assert!(line(&told, "container's cgroup").contains("Delegate=yes"), "{told}");
    let told = plain(t, &["doctor"]).env("XDG_RUNTIME_DIR", "").run().ok().stdout;
    assert!(line(&told, "state directory").contains("XDG_RUNTIME_DIR"), "{told}");
    // One to whom nothing is granted.
    let runtime = t.user().runtime.to_string_lossy().into_owned();
    let other = ["--reuid=71001", "--regid=71001", "--clear-groups", &runtime, "doctor"];
    let told = t.host("setpriv", &other).ok().stdout;
    assert!(line(&told, "newuidmap").contains("usermod --add-subuids"), "{told}");
}

/// An image of one layer: busybox, and a file of user 1000.
fn image(t: &Ctx) -> String {
    t.needs_tool("umoci");
    let layout = t.scratch().join("image");
    let image = format!("{}:t", layout.display());
    let work = t.scratch().to_string_lossy().into_owned();
    t.host("umoci", &["init", "--layout", &layout.to_string_lossy()]).ok();
    t.host("umoci", &["new", "--image", &image]).ok();
    t.host("umoci", &["unpack", "--image", &image, &work]).ok();
    let tree = Path::new(&work).join("rootfs");
    hearth_tests::bundle::make_rootfs(&tree);
    fs::write(tree.join("home/alice/hers"), "hers").expect("write a file");
    own(&tree.join("home/alice"), 1000);
    t.host("umoci", &["repack", "--image", &image, &work]).ok();
    t.host(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.cmd",
            "/bin/stat",
            "--config.cmd=-c",
            "--config.cmd=%u",
            "--config.cmd=/home/alice/hers",
        ],
    )
    .ok();
    own(&layout, UID);
    format!("oci:{image}")
}

/// Unpacks the image as the user, runs it, and gives what was told, what was printed and who owns the file.
fn unpacked(t: &Ctx, flags: &[&str]) -> (String, String, u32) {
    t.become_user();
    let image = image(t);
    let bundle = t.user().home.join("bundle");
    let path = bundle.to_string_lossy().into_owned();
    let told = plain(t, &[&["unpack"], flags, &[&image, &path]].concat()).run().ok().stderr;
    let id = t.id();
    let out = t.rt(&["run", "--bundle", &path, &id]).ok();
    let owner = fs::metadata(bundle.join("rootfs/home/alice/hers")).expect("unpacked").uid();
    (told, out.text().to_owned(), owner)
}

fn an_unpacked_image_keeps_its_owners_by_subordinate_ids(t: &Ctx) {
    let (told, inside, outside) = unpacked(t, &[]);
    assert!(told.contains("65536 subordinate users"), "{told}");
    assert_eq!((inside.as_str(), outside), ("1000", SUBID + 999));
}

fn a_squashed_image_is_the_users_own(t: &Ctx) {
    let (told, inside, outside) = unpacked(t, &["--squash"]);
    assert!(told.contains("all files are the caller's"), "{told}");
    assert_eq!((inside.as_str(), outside), ("0", UID));
    let store = t.user().home.join(".local/share/hearth");
    assert!(store.join("lock").exists(), "no store of the user's own");
    let freed = plain(t, &["gc"]).run().ok();
    assert!(freed.text().starts_with("0 layers"), "{freed:?}");
}

fn the_spec_is_runcs(t: &Ctx) {
    t.become_user();
    t.needs_tool("runc");
    let spec = |program: &str| {
        let dir = t.scratch();
        own(&dir, UID);
        let path = dir.to_string_lossy().into_owned();
        let user = t.user();
        user.wrap(t.host_command("env", &[program, "spec", "--rootless", "--bundle", &path])).run().ok();
        let text = fs::read(dir.join("config.json")).expect("config.json");
        let mut config: hearth_tests::Value = serde_json::from_slice(&text).expect("JSON");
        config["ociVersion"] = json!("");
        config["process"]["capabilities"].as_object_mut().expect("sets").remove("ambient");
        config
    };
    let runtime = t.user().runtime.to_string_lossy().into_owned();
    assert_eq!(spec(&runtime), spec("runc"));
}

fn a_group_of_a_mount_must_be_mapped(t: &Ctx) {
    t.become_user();
    let with_group = |c: &mut Config| {
        let mounts = c.0["mounts"].as_array_mut().expect("mounts");
        let devpts = mounts.iter_mut().find(|m| m["destination"] == "/dev/pts").expect("devpts");
        devpts["options"].as_array_mut().expect("options").push(json!("gid=5"));
    };
    t.container(with_group).run().refused("gid=5");
    let out = t.sh("stat -c %g /dev/pts/ptmx; true", |c| {
        c.subordinate();
        with_group(c);
    });
    assert_eq!(out, "0");
}

fn processes_are_listed_and_killed_without_cgroups(t: &Ctx) {
    t.become_user();
    let c = t.container(|c| c.args(&["sh", "-c", "sleep 100 & wait"]));
    c.up();
    hearth_tests::context::eventually("both processes", || {
        let pids = c.verb("ps", &["--format", "json"], &[]).run().ok().json();
        (pids.as_array().map(Vec::len) == Some(2) && pids[0] == c.pid()).then_some(())
    });
    c.verb("kill", &["--all"], &["KILL"]).run().ok();
    c.wait_until("stopped");
}

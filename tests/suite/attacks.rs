//! What hostile images and containers have tried on other runtimes: a case a row of the past CVEs that a black-box test
//! can reach. Those about mounts through symlinks are in `mounts.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hearth_tests::bundle::install;
use hearth_tests::context::eventually;
use hearth_tests::program::clear_read_only;
use hearth_tests::{Container, Ctx, cases, json};
use rustix::fs::{CWD, RenameFlags};

cases! {
    settled:
        a_cwd_among_the_runtimes_descriptors_leads_nowhere_outside,
        an_exec_cwd_among_the_runtimes_descriptors_leads_nowhere_outside,
        the_runtimes_executable_cannot_be_overwritten,
        an_exec_shows_no_directory_of_the_host,
        a_careless_join_shows_directories_of_the_host,
        a_container_without_cgroup_namespace_cannot_write_its_cgroups,
        a_terminal_does_not_follow_a_console_symlink,
        a_passwd_that_is_no_file_is_harmless,
        a_sysctl_is_not_redirected_by_what_is_mounted_at_proc,
        an_exec_with_a_capability_leaves_the_inheritable_ones_empty;
    newer:
        a_mount_point_swapped_while_create_runs_leads_nowhere_outside,
        masks_do_not_come_from_the_roots_dev_null;
    hearth:
        a_container_with_all_rights_cannot_overwrite_the_runtime,
        a_users_cwd_among_the_runtimes_descriptors_leads_nowhere_outside,
        a_users_exec_cwd_among_the_runtimes_descriptors_leads_nowhere_outside,
        a_users_runtime_cannot_be_overwritten,
        a_users_exec_shows_no_directory_of_the_host,
        a_users_container_cannot_write_cgroups,
        a_users_terminal_does_not_follow_a_console_symlink,
        a_users_masks_do_not_come_from_the_roots_dev_null,
        a_passwd_that_is_a_fifo_hangs_nothing,
        init_has_nothing_of_its_caller;
}

/// Installs the probe into a container's root.
fn with_probe(c: &Container<'_>) {
    install(Path::new(env!("CARGO_BIN_EXE_probe")), &c.rootfs("probe"));
}

/// Whether a listing shows a directory of the host rather than the container's root.
fn is_outside(text: &str) -> bool {
    text.contains("config.json") || text.contains("Cargo.toml") || text.contains("boot")
}

fn a_cwd_among_the_runtimes_descriptors_leads_nowhere_outside(t: &Ctx) {
    // CVE-2024-21626
    for number in 3..16 {
        for path in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../../../..")] {
            let out = t.run_sh("ls . .. ../../..", |c| c.set("/process/cwd", path.as_str()));
            assert!(!is_outside(&out.stdout), "{path}: {out:?}");
        }
    }
}

fn an_exec_cwd_among_the_runtimes_descriptors_leads_nowhere_outside(t: &Ctx) {
    let c = t.sleeper();
    symlink("/proc/self/fd/7", c.rootfs("link")).expect("symlink");
    c.up();
    for number in 3..16 {
        let out = c.exec_with(&["--cwd", &format!("/proc/self/fd/{number}")], &["ls", ".", "..", "../.."]);
        assert!(!is_outside(&out.stdout), "{number}: {out:?}");
    }
    let out = c.exec_with(&["--cwd", "/link"], &["ls", ".", ".."]);
    assert!(!is_outside(&out.stdout), "{out:?}");
}

fn a_users_cwd_among_the_runtimes_descriptors_leads_nowhere_outside(t: &Ctx) {
    t.become_user();
    a_cwd_among_the_runtimes_descriptors_leads_nowhere_outside(t);
}

fn a_users_exec_cwd_among_the_runtimes_descriptors_leads_nowhere_outside(t: &Ctx) {
    t.become_user();
    an_exec_cwd_among_the_runtimes_descriptors_leads_nowhere_outside(t);
}

fn a_users_exec_shows_no_directory_of_the_host(t: &Ctx) {
    t.become_user();
    an_exec_shows_no_directory_of_the_host(t);
}

fn a_users_container_cannot_write_cgroups(t: &Ctx) {
    t.become_user();
    a_container_without_cgroup_namespace_cannot_write_its_cgroups(t);
}

fn a_users_terminal_does_not_follow_a_console_symlink(t: &Ctx) {
    t.become_user();
    a_terminal_does_not_follow_a_console_symlink(t);
}

fn a_users_masks_do_not_come_from_the_roots_dev_null(t: &Ctx) {
    t.become_user();
    masks_do_not_come_from_the_roots_dev_null(t);
}

/// Starts the probe as the container's program and gives its output; meanwhile `during` happens over and over.
fn probed(c: &Container<'_>, during: impl Fn()) -> String {
    with_probe(c);
    let mut run = c.launch("run", &[]).spawn();
    eventually("the probe", || run.stdout_so_far().contains("ready").then_some(()));
    while !run.is_over() {
        during();
    }
    run.finish().ok().stdout
}

fn the_runtimes_executable_cannot_be_overwritten(t: &Ctx) {
    overwrite(t, |_| {});
}

fn a_container_with_all_rights_cannot_overwrite_the_runtime(t: &Ctx) {
    // With CAP_SYS_ADMIN a mount's read-only flag can be cleared by whoever holds the mount's root.
    overwrite(t, |c| clear_read_only(&c.rootfs("flip")));
}

fn a_users_runtime_cannot_be_overwritten(t: &Ctx) {
    // Which is the user's own file, so that nothing but its being read-only is in the way.
    t.become_user();
    overwrite(t, |c| clear_read_only(&c.rootfs("flip")));
}

fn overwrite(t: &Ctx, equip: impl FnOnce(&Container<'_>)) {
    // CVE-2019-5736: a script whose interpreter is /proc/self/exe makes the runtime run inside, where it can be held.
    let own = if t.is_user() { t.user().runtime.clone() } else { t.scratch().join("runtime") };
    if !t.is_user() {
        install(&t.runtime.path, &own);
    }
    let before = fs::read(&own).expect("read the runtime");
    let c = t.container(|c| {
        c.args(&["/probe", "overwrite", "20"]);
        c.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]);
    });
    equip(&c);
    fs::write(c.rootfs("evil"), "#!/proc/self/exe\n").expect("write the script");
    t.host("chmod", &["755", &c.rootfs("evil").to_string_lossy()]).ok();
    let (own_path, root) = (own.to_string_lossy(), t.root());
    let seen = probed(&c, || {
        match t.is_user() {
            true => c.exec(&["/evil"]),
            false => t.host(&own_path, &["--root", &root.to_string_lossy(), "exec", &c.id, "/evil"]),
        };
    });
    assert!(seen.ends_with("nothing\n"), "{seen}");
    assert_eq!(fs::read(&own).expect("read the runtime"), before, "the runtime was overwritten: {seen}");
    assert!(!seen.contains("held 0 executables"), "the probe never held the runtime: {seen}");
}

fn an_exec_shows_no_directory_of_the_host(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["/probe", "watch", "20"]);
        c.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"]);
    });
    let seen = probed(&c, || {
        c.exec(&["true"]);
    });
    assert!(!seen.contains("saw 0 processes"), "the probe saw no exec: {seen}");
    assert!(seen.ends_with("nothing\n"), "directories of the host: {seen}");
}

/// The probe judged: it finds what `nsenter` brings along.
fn a_careless_join_shows_directories_of_the_host(t: &Ctx) {
    t.needs_tool("nsenter");
    let c = t.container(|c| {
        c.args(&["/probe", "watch", "20"]);
        c.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"]);
    });
    let pid = std::cell::OnceCell::new();
    let seen = probed(&c, || {
        let pid = pid.get_or_init(|| c.pid().to_string());
        t.host("nsenter", &["--target", pid, "--pid", "sleep", "0.2"]);
    });
    assert!(seen.contains("root: ") && seen.contains("cwd: "), "{seen}");
}

fn a_container_without_cgroup_namespace_cannot_write_its_cgroups(t: &Ctx) {
    // CVE-2023-25809
    let script = "for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name memory.limit_in_bytes); do \
                  echo 1 2>/dev/null > $f && echo wrote $f; done; true";
    let out = t.sh(script, |c| c.capabilities(&["CAP_DAC_OVERRIDE", "CAP_CHOWN"]));
    assert_eq!(out, "");
}

fn masks_do_not_come_from_the_roots_dev_null(t: &Ctx) {
    // CVE-2025-31133: with a /dev of the image, its null must not become what masks are made of.
    let dev = t.scratch();
    symlink("/etc/group", dev.join("null")).expect("symlink");
    let out = t.run_sh("cat /etc/passwd; echo x > /etc/passwd", |c| {
        c.writable();
        let mounts = c.0["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
        c.bind(&dev, "/dev", &["bind"]);
        c.set("/linux/maskedPaths", json!(["/etc/passwd"]));
    });
    assert!(!out.stdout.contains("staff"), "the mask shows /etc/group: {out:?}");
}

fn a_terminal_does_not_follow_a_console_symlink(t: &Ctx) {
    // CVE-2025-52565: the image has its own idea of /dev/console.
    let victim = t.scratch().join("victim");
    let dev = t.scratch();
    symlink(&victim, dev.join("console")).expect("symlink");
    let c = t.container(|c| {
        c.set("/process/terminal", true);
        c.args(&["sh", "-c", "echo x > /dev/console"]);
        let mounts = c.0["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["destination"] != "/dev");
        c.bind(&dev, "/dev", &["bind"]);
    });
    for dir in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(dir)).expect("mkdir");
    }
    let socket = hearth_tests::terminal::ConsoleSocket::new(t);
    let created = c.launch("create", &["--console-socket", &socket.path.to_string_lossy()]).run();
    if created.code == 0 {
        c.start();
    }
    assert!(!victim.exists(), "a file was made where the link leads");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("procfs");
    assert!(!mounts.contains("victim"), "{mounts}");
}

/// The init of `run` is a fork of the runtime: its executable, environment and descriptors are looked at by a hook, while
/// it waits, with the rights of root on the host.
fn init_has_nothing_of_its_caller(t: &Ctx) {
    let own = t.scratch().join("hearth");
    install(&t.runtime.path, &own);
    let before = fs::read(&own).expect("read the runtime");
    let notes = t.scratch();
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); cd {}; (: >/proc/$pid/exe) 2>write; \
         tr -d '\\0' </proc/$pid/environ >environ; readlink /proc/$pid/fd/* >fds; true",
        notes.display()
    );
    let c = t.container(|c| {
        c.args(&["true"]);
        c.push("/hooks/createContainer", json!({"path": "/bin/sh", "args": ["sh", "-c", script]}));
    });
    let args = [
        &own.to_string_lossy(),
        "--root",
        &t.root().to_string_lossy(),
        "run",
        "-b",
        &c.bundle.to_string_lossy(),
        &c.id,
    ]
    .map(str::to_owned);
    t.host_command("env", &args).env("SECRET", "of the caller").run().ok();
    let note = |name: &str| fs::read_to_string(notes.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(note("write").contains("Read-only file system"), "{}", note("write"));
    assert_eq!(note("environ"), "");
    assert!(
        note("fds").contains("socket:") && !note("fds").contains(&*t.root().to_string_lossy()),
        "{}",
        note("fds")
    );
    assert_eq!(fs::read(&own).expect("read the runtime"), before);
}

fn a_passwd_that_is_a_fifo_hangs_nothing(t: &Ctx) {
    // HOME is looked up in a file of the image, which may be one that nobody ever writes to.
    let c = t.container(|c| c.args(&["sh", "-c", "echo home $HOME"]));
    let passwd = c.rootfs("etc/passwd");
    fs::remove_file(&passwd).expect("remove passwd");
    let made = std::process::Command::new("mkfifo").arg(&passwd).status().expect("mkfifo comes with Debian");
    assert!(made.success());
    assert_eq!(c.run().ok().text(), "home /");
}

fn a_passwd_that_is_no_file_is_harmless(t: &Ctx) {
    // HOME is looked up in a file of the image: a symlink must not lead outside.
    let secret = t.scratch().join("passwd");
    fs::write(&secret, "root:x:0:0:root:/secret:/bin/sh\n").expect("write a file");
    let c = t.container(|c| c.args(&["sh", "-c", "echo $HOME"]));
    fs::remove_file(c.rootfs("etc/passwd")).expect("remove passwd");
    symlink(&secret, c.rootfs("etc/passwd")).expect("symlink");
    assert!(!c.run().stdout.contains("secret"), "HOME was read from the host");
}

fn a_mount_point_swapped_while_create_runs_leads_nowhere_outside(t: &Ctx) {
    // CVE-2021-30465, CVE-2024-45310: somebody who shares a volume turns a directory into a link, and back.
    let victim = t.scratch();
    let file = t.scratch().join("file");
    fs::write(&file, "mounted").expect("write a file");
    let c = t.container(|c| {
        c.args(&["true"]);
        c.writable();
        c.mount("/volume/swap/a/b", "tmpfs", "tmpfs", &[]);
        c.bind(&file, "/volume/swap/file", &["bind"]);
    });
    let volume = c.rootfs("volume");
    fs::create_dir_all(volume.join("swap")).expect("mkdir");
    symlink(&victim, volume.join("link")).expect("symlink");
    let stop = AtomicBool::new(false);
    let (swap, link) = (volume.join("swap"), volume.join("link"));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &swap, CWD, &link, RenameFlags::EXCHANGE)
                    .expect("both are there");
            }
        });
        let runs = if t.long() { 500 } else { 60 };
        // Whether it runs or is refused is a matter of luck.
        let good = (0..runs).filter(|_| c.sibling().run().code == 0).count();
        stop.store(true, Ordering::Relaxed);
        assert!(good > 0, "it never ran");
    });
    let found: Vec<_> =
        fs::read_dir(&victim).expect("the victim").flatten().map(|entry| entry.path()).collect();
    assert!(found.is_empty(), "made outside of the root: {found:?}");
}

fn a_sysctl_is_not_redirected_by_what_is_mounted_at_proc(t: &Ctx) {
    // CVE-2019-16884, CVE-2025-52881: the image has its own idea of /proc/sys.
    let fake = t.scratch();
    for dir in ["kernel", "sys/kernel"] {
        fs::create_dir_all(fake.join(dir)).expect("mkdir");
        symlink("/victim", fake.join(dir).join("domainname")).expect("symlink");
    }
    for place in ["/proc", "/proc/sys"] {
        let c = t.container(|c| {
            c.args(&["cat", "/victim"]);
            c.bind(&fake, place, &["bind"]);
            c.set("/linux/sysctl", json!({"kernel.domainname": "redirected"}));
        });
        fs::write(c.rootfs("victim"), "untouched").expect("write a file");
        c.run();
        assert_eq!(fs::read_to_string(c.rootfs("victim")).expect("the victim"), "untouched", "{place}");
    }
}

fn an_exec_with_a_capability_leaves_the_inheritable_ones_empty(t: &Ctx) {
    // CVE-2022-29162, CVE-2022-27650
    let c = t.sleeper();
    c.up();
    let out =
        c.exec_with(&["--cap", "CAP_NET_ADMIN"], &["grep", "-E", "^Cap(Inh|Prm)", "/proc/self/status"]).ok();
    assert_eq!(hearth_tests::container::field(&out.stdout, "CapInh"), "0000000000000000", "{out:?}");
    assert_ne!(hearth_tests::container::field(&out.stdout, "CapPrm"), "0000000000000000", "{out:?}");
}

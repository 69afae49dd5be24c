//! `checkpoint` and `restore`, by criu: what a container was is what it is again. They need a kernel that the installed
//! criu knows; where it cannot dump a process at all, the cases are skipped.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hearth_tests::container::field;
use hearth_tests::context::eventually;
use hearth_tests::invoke::Invocation;
use hearth_tests::terminal::ConsoleSocket;
use hearth_tests::{Container, Ctx, cases, json};
use rustix::process::Signal;

cases! {
    settled:
        memory_and_pipes_come_back,
        a_checkpoint_ends_the_container,
        leave_running_leaves_it_running,
        a_pre_dump_takes_its_share_of_the_dump,
        a_parent_path_that_leads_nowhere_is_refused,
        a_terminal_comes_back_over_the_socket,
        limits_are_there_again,
        device_rules_are_there_again,
        a_restored_container_answers_all_verbs,
        a_paused_container_can_be_checkpointed,
        restore_gives_the_exit_status,
        what_criu_cannot_dump_runs_on,
        mount_points_in_bind_mounts_are_made_again,
        a_network_namespace_by_path_is_joined_again,
        a_stopped_container_is_refused,
        a_terminal_needs_a_console_socket;
    hearth:
        another_id_gets_the_container,
        a_process_of_exec_comes_back,
        a_created_container_is_refused,
        images_that_are_missing_are_refused,
        a_missing_criu_is_refused,
        an_ordinary_user_is_refused,
        landlock_rules_are_refused,
        a_seccomp_filter_comes_back,
        streams_to_files_come_back,
        what_was_read_only_is_read_only_again,
        an_idmapped_mount_is_mapped_again,
        loopback_is_up_again,
        hooks_run_at_restore,
        a_checkpoint_that_is_killed_leaves_the_container_running,
        a_killed_criu_leaves_the_container_running,
        a_restore_that_is_killed_leaves_nothing;
}

/// Says what it was told first, again and again.
const PROGRAM: &str = "read secret; n=0; while read line; do n=$((n+1)); echo \"$secret $n $line\"; done";

/// What criu keeps for its next run.
struct Cache;

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = fs::remove_file("/run/criu.kdat");
    }
}

/// Skips where this criu and this kernel cannot do it, whoever asks.
fn needs_criu(t: &Ctx) -> Cache {
    let cache = Cache;
    for tool in ["criu", "iptables-restore", "setsid"] {
        t.needs_tool(tool);
    }
    let check = t.host("criu", &["check"]);
    if check.code != 0 {
        t.skip(format!(
            "criu cannot dump on this kernel: {}",
            check.stderr.lines().next().unwrap_or_default()
        ));
    }
    let images = t.scratch().to_string_lossy().into_owned();
    let null = Stdio::null;
    let mut sleeper = Command::new("setsid")
        .args(["sleep", "100"])
        .stdin(null())
        .stdout(null())
        .stderr(null())
        .spawn()
        .expect("setsid");
    let pid = sleeper.id().to_string();
    let dump = t.host("criu", &["dump", "--shell-job", "-D", &images, "-t", &pid]);
    let _ = sleeper.kill();
    sleeper.wait().expect("wait for the sleeper");
    if dump.code != 0 {
        t.skip(format!(
            "criu cannot dump a process here: {}",
            dump.stderr.lines().next().unwrap_or_default()
        ));
    }
    cache
}

/// The other ends of a container's standard streams.
struct Streams {
    input: PipeWriter,
    output: PipeReader,
    error: PipeReader,
}

impl Streams {
    /// And whatever runs on them.
    fn of<T>(command: impl FnOnce([PipeWriter; 2], PipeReader) -> T) -> (Self, T) {
        let pipe = || std::io::pipe().expect("pipe");
        let ((theirs, input), (output, out), (error, err)) = (pipe(), pipe(), pipe());
        let result = command([out, err], theirs);
        (Self { input, output, error }, result)
    }

    /// Of a command that detaches.
    fn detached(command: Invocation<'_>) -> Self {
        let (mut streams, out) =
            Self::of(|[output, error], input| command.on_pipes(input, output, error).run());
        assert_eq!(
            out.code,
            0,
            "{out:?} {}",
            if out.code == 0 { String::new() } else { rest(&mut streams.error) }
        );
        streams
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("write to the container");
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).expect("read from the container") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }
}

/// All that is said until nobody is left to say it.
fn rest(pipe: &mut PipeReader) -> String {
    let mut said = String::new();
    pipe.read_to_string(&mut said).expect("read to the end");
    said
}

fn up(c: &Container<'_>) -> Streams {
    Streams::detached(c.launch("run", &["--detach"]))
}

/// A running container that was told its secret.
fn talker<'t>(t: &'t Ctx, edit: impl FnOnce(&mut hearth_tests::Config)) -> (Container<'t>, Streams) {
    let c = t.container(|c| {
        c.args(&["sh", "-c", PROGRAM]);
        edit(c);
    });
    let mut streams = up(&c);
    streams.say("secret");
    assert_eq!(streams.ask("a"), "secret 1 a");
    (c, streams)
}

fn images(t: &Ctx) -> String {
    t.scratch().join("images").to_string_lossy().into_owned()
}

fn checkpoint(c: &Container<'_>, images: &str, flags: &[&str]) {
    c.verb("checkpoint", &[&["--image-path", images], flags].concat(), &[]).run().ok();
}

fn restore(c: &Container<'_>, images: &str) -> Streams {
    Streams::detached(c.launch("restore", &["--detach", "--image-path", images]))
}

fn gone(c: &Container<'_>) {
    c.verb("state", &[], &[]).run().fails(1, "does not exist");
}

fn memory_and_pipes_come_back(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |_| {});
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let mut streams = restore(&c, &images);
    assert_eq!(streams.ask("b"), "secret 2 b");
    assert_eq!(c.status(), "running");
}

fn a_checkpoint_ends_the_container(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _streams) = talker(t, |_| {});
    let (pid, images) = (c.pid(), images(t));
    let work = t.scratch();
    checkpoint(&c, &images, &["--work-path", &work.to_string_lossy()]);
    gone(&c);
    assert!(!Path::new(&format!("/proc/{pid}/root/bin")).exists(), "{pid} lives on");
    assert!(work.join("dump.log").exists(), "no log in the work path");
    let names: Vec<String> = serde_json::from_slice(
        &fs::read(Path::new(&images).join("descriptors.json")).expect("descriptors.json"),
    )
    .expect("JSON");
    assert!(names.len() == 3 && names.iter().all(|name| name.starts_with("pipe:[")), "{names:?}");
}

fn leave_running_leaves_it_running(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, mut streams) = talker(t, |_| {});
    let pid = c.pid();
    checkpoint(&c, &images(t), &["--leave-running"]);
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
    assert_eq!(streams.ask("b"), "secret 2 b");
}

fn another_id_gets_the_container(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |_| {});
    let images = images(t);
    checkpoint(&c, &images, &[]);
    for other in [c.sibling(), c.sibling()] {
        let mut streams = restore(&other, &images);
        assert_eq!(streams.ask("b"), "secret 2 b");
        assert!(other.proc("cgroup").contains(&other.id) || other.proc("cgroup").contains("0::/"));
        other.verb("delete", &["--force"], &[]).run().ok();
    }
}

fn a_pre_dump_takes_its_share_of_the_dump(t: &Ctx) {
    let _criu = needs_criu(t);
    // Memory that changes between the two dumps only in small part.
    let program = format!("big=$(head -c 400000 /dev/zero | tr '\\0' x); {PROGRAM}; echo ${{#big}}");
    let (c, mut streams) = talker(t, |c| c.args(&["sh", "-c", &program]));
    let dir = t.scratch();
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    checkpoint(&c, &path("first"), &["--pre-dump"]);
    assert_eq!(streams.ask("b"), "secret 2 b");
    checkpoint(&c, &path("second"), &["--pre-dump", "--parent-path", "../first"]);
    assert_eq!(streams.ask("c"), "secret 3 c");
    checkpoint(&c, &path("last"), &["--parent-path", "../second"]);
    let pages = |name: &str| {
        let files = fs::read_dir(dir.join(name)).expect("images").filter_map(Result::ok);
        files
            .filter(|file| file.file_name().to_string_lossy().starts_with("pages-"))
            .map(|file| file.metadata().expect("stat").len())
            .sum::<u64>()
    };
    assert!(pages("last") < pages("first"), "{} of {} bytes", pages("last"), pages("first"));
    let mut streams = restore(&c, &path("last"));
    assert_eq!(streams.ask("d"), "secret 4 d");
    let Streams { input, mut output, .. } = streams;
    drop(input);
    assert_eq!(rest(&mut output).trim(), "400000");
}

fn a_parent_path_that_leads_nowhere_is_refused(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, mut streams) = talker(t, |_| {});
    let images = images(t);
    for parent in ["/absolute", "../missing"] {
        let flags = ["--image-path", &images, "--parent-path", parent];
        c.verb("checkpoint", &flags, &[]).run().refused("--parent-path");
    }
    assert_eq!(streams.ask("b"), "secret 2 b");
}

fn a_terminal_comes_back_over_the_socket(t: &Ctx) {
    let _criu = needs_criu(t);
    let c = t.container(|c| {
        c.set("/process/terminal", true);
        c.args(&["sh", "-c", "stty -echo; n=0; while read line; do n=$((n+1)); echo got $n $line; done"]);
    });
    let socket = ConsoleSocket::new(t);
    c.launch("run", &["--detach", "--console-socket", &socket.path.to_string_lossy()]).run().ok();
    let (mut master, _) = socket.receive();
    master.send("a\n");
    master.expect("got 1 a");
    let images = images(t);
    checkpoint(&c, &images, &[]);
    drop(master);
    let socket = ConsoleSocket::new(t);
    let flags = ["--detach", "--image-path", &images, "--console-socket", &socket.path.to_string_lossy()];
    c.launch("restore", &flags).run().ok();
    let (mut master, _) = socket.receive();
    master.send("b\n");
    master.expect("got 2 b");
    master.resize(40, 99);
    assert_eq!(c.exec(&["stty", "-F", "/dev/console", "size"]).ok().text(), "40 99");
}

fn limits_are_there_again(t: &Ctx) {
    let _criu = needs_criu(t);
    t.needs_cgroup_v2(&["memory", "pids", "cpu"]);
    let (c, _old) = talker(t, |c| {
        c.set("/linux/resources/memory", json!({"limit": 64 << 20}));
        c.set("/linux/resources/pids", json!({"limit": 40}));
        c.set("/linux/resources/cpu", json!({"quota": 50_000, "period": 100_000}));
    });
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let _streams = restore(&c, &images);
    let dir = c.cgroup_v2();
    let value = |file: &str| fs::read_to_string(dir.join(file)).expect("a limit").trim().to_owned();
    assert_eq!(
        [value("memory.max"), value("pids.max"), value("cpu.max")],
        ["67108864", "40", "50000 100000"]
    );
}

fn device_rules_are_there_again(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |c| c.capabilities(&["CAP_MKNOD"]));
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let _streams = restore(&c, &images);
    let script = "mknod /dev/kmsg2 c 1 11; mknod /dev/zero2 c 1 5; \
        head -c 1 /dev/zero2 >/dev/null && echo allowed; head -c 1 /dev/kmsg2 || echo denied";
    let out = c.exec(&["sh", "-c", script]);
    assert_eq!(out.text(), "allowed\ndenied", "{out:?}");
}

fn a_restored_container_answers_all_verbs(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |_| {});
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let pid_file = t.scratch().join("pid");
    let flags = ["--detach", "--image-path", &images, "--pid-file", &pid_file.to_string_lossy()];
    let mut streams = Streams::detached(c.launch("restore", &flags));
    let pid = c.pid();
    assert_eq!(fs::read_to_string(&pid_file).expect("a pid file"), pid.to_string());
    assert_eq!(c.sh("echo in && ls /proc | grep -c '^1$'"), "in\n1");
    let listed = t.rt(&["list", "--format", "json"]).ok().json();
    assert_eq!(listed[0]["pid"], pid);
    let ps = c.verb("ps", &["--format", "json"], &[]).run().ok().json();
    assert!(ps.as_array().is_some_and(|pids| pids.contains(&json!(pid))), "{ps}");
    let stats = c.verb("events", &["--stats"], &[]).run().ok().json();
    assert!(stats["data"]["pids"]["current"].as_u64() >= Some(1), "{stats}");
    c.verb("pause", &[], &[]).run().ok();
    assert_eq!(c.status(), "paused");
    c.verb("resume", &[], &[]).run().ok();
    assert_eq!(streams.ask("b"), "secret 2 b");
    c.kill("KILL").ok();
    c.wait_until("stopped");
    c.delete().ok();
    gone(&c);
}

fn a_paused_container_can_be_checkpointed(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |_| {});
    c.verb("pause", &[], &[]).run().ok();
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let mut streams = restore(&c, &images);
    assert_eq!(c.status(), "running");
    assert_eq!(streams.ask("b"), "secret 2 b");
}

fn restore_gives_the_exit_status(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |c| c.args(&["sh", "-c", &format!("{PROGRAM}; exit 7")]));
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let foreground = c.launch("restore", &["--image-path", &images]);
    let (streams, running) =
        Streams::of(|[output, error], input| foreground.on_pipes(input, output, error).spawn());
    let Streams { mut input, mut output, .. } = streams;
    writeln!(input, "b").expect("write");
    drop(input);
    running.finish().code(7);
    assert_eq!(rest(&mut output), "secret 2 b\n");
    gone(&c);
}

fn a_process_of_exec_comes_back(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, mut streams) = talker(t, |_| {});
    let images = images(t);
    let mut pids = Vec::new();
    for round in 0..2 {
        let pid = c.sh("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!");
        pids.push(pid);
        let images = format!("{images}{round}");
        checkpoint(&c, &images, &[]);
        drop(streams);
        streams = restore(&c, &images);
        for pid in &pids {
            assert_eq!(c.sh(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline")).trim(), "sleep 1000");
        }
        assert_eq!(streams.ask("b"), format!("secret {} b", round + 2));
    }
}

fn what_criu_cannot_dump_runs_on(t: &Ctx) {
    let _criu = needs_criu(t);
    // An unlinked file that is larger than what criu keeps of such.
    let program = format!("exec 9>/dev/shm/f; head -c 2m /dev/zero >&9; rm /dev/shm/f; {PROGRAM}");
    let (c, mut streams) = talker(t, |c| c.args(&["sh", "-c", &program]));
    let failed = c.verb("checkpoint", &["--image-path", &images(t)], &[]).run();
    assert!(failed.code != 0 && failed.stderr.contains("criu failed"), "{failed:?}");
    if t.is_hearth() {
        failed.refused("ghost file");
    }
    assert_eq!(c.status(), "running");
    assert_eq!(streams.ask("b"), "secret 2 b");
}

fn mount_points_in_bind_mounts_are_made_again(t: &Ctx) {
    let _criu = needs_criu(t);
    let (outer, inner) = (t.scratch(), t.scratch());
    fs::write(inner.join("name"), "inner").expect("write");
    let (c, _old) = talker(t, |c| {
        c.bind(&outer, "/mnt/outer", &["bind"]);
        c.bind(&inner, "/mnt/outer/deep/inner", &["bind"]);
    });
    let images = images(t);
    checkpoint(&c, &images, &[]);
    fs::remove_dir_all(outer.join("deep")).expect("the mount point that was made");
    let _streams = restore(&c, &images);
    assert_eq!(c.sh("cat /mnt/outer/deep/inner/name"), "inner");
}

fn a_network_namespace_by_path_is_joined_again(t: &Ctx) {
    let _criu = needs_criu(t);
    let mut holder = Command::new("unshare").args(["--net", "sleep", "100"]).spawn().expect("unshare");
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = fs::read_link("/proc/self/ns/net").expect("readlink");
    eventually("a namespace", || fs::read_link(&path).ok().filter(|namespace| *namespace != own));
    let (c, _old) = talker(t, |c| c.namespace("network", Some(&path)));
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let _streams = restore(&c, &images);
    let joined = fs::read_link(format!("/proc/{}/ns/net", c.pid())).expect("readlink");
    assert_eq!(joined, fs::read_link(&path).expect("readlink"));
    c.verb("delete", &["--force"], &[]).run().ok();
    holder.kill().expect("kill");
    holder.wait().expect("wait");
}

fn a_stopped_container_is_refused(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.launch("run", &["--detach"]).run().ok();
    c.wait_until("stopped");
    c.verb("checkpoint", &["--image-path", &images(t)], &[]).run().refused("stopped");
}

fn a_terminal_needs_a_console_socket(t: &Ctx) {
    let c = t.container(|c| {
        c.set("/process/terminal", true);
        c.args(&["sleep", "100"]);
    });
    let images = t.scratch();
    c.launch("restore", &["--detach", "--image-path", &images.to_string_lossy()])
        .run()
        .refused("console socket");
}

// ---- promises of hearth's own

fn a_created_container_is_refused(t: &Ctx) {
    let c = t.sleeper();
    c.create().ok();
    c.verb("checkpoint", &["--image-path", &images(t)], &[]).run().refused("created");
    assert_eq!(c.status(), "created");
}

fn images_that_are_missing_are_refused(t: &Ctx) {
    let c = t.sleeper();
    c.launch("restore", &["--image-path", &images(t)]).run().refused("--image-path");
    let empty = t.scratch();
    c.launch("restore", &["--image-path", &empty.to_string_lossy()]).run().refused("descriptors.json");
}

fn a_missing_criu_is_refused(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let out = t.rt(&["--criu", "/no/such/criu", "checkpoint", "--image-path", &images(t), &c.id]);
    out.refused("not installed");
    let out = t.rt(&["--criu", "true", "checkpoint", "--image-path", &images(t), &c.id]);
    out.refused("criu failed");
    assert_eq!(c.status(), "running");
}

fn an_ordinary_user_is_refused(t: &Ctx) {
    t.needs_tool("setpriv");
    let c = t.sleeper();
    let runtime = t.runtime.path.to_string_lossy().into_owned();
    if fs::metadata(t.runtime.path.parent().expect("a directory")).is_err() {
        t.skip("the runtime's directory is not there");
    }
    let script = "cp \"$1\" \"$2/hearth\" && chmod 755 \"$2/hearth\" && cd / && \
        exec setpriv --reuid 65534 --clear-groups \"$2/hearth\" --root /x restore --bundle /x some-id";
    let place = std::env::temp_dir().join(&c.id);
    fs::create_dir(&place).expect("mkdir");
    let out = t.host("sh", &["-c", script, "sh", &runtime, &place.to_string_lossy()]);
    fs::remove_dir_all(&place).expect("remove");
    out.refused("need root");
}

fn landlock_rules_are_refused(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/annotations", json!({"org.hearth.landlock.read": "/"}));
    });
    let out = c.launch("run", &["--detach"]).run();
    if out.code != 0 {
        t.skip(format!("no landlock: {}", out.stderr));
    }
    c.verb("checkpoint", &["--image-path", &images(t)], &[]).run().refused("landlock");
    assert_eq!(c.status(), "running");
}

fn a_seccomp_filter_comes_back(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |c| {
        c.set("/process/noNewPrivileges", false);
        let rule = json!({"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95});
        c.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    });
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let _streams = restore(&c, &images);
    assert_eq!(field(&c.proc("status"), "Seccomp"), "2");
}

fn streams_to_files_come_back(t: &Ctx) {
    let _criu = needs_criu(t);
    let c = t.container(|c| {
        c.args(&["sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done"]);
        c.set("/process/noNewPrivileges", false);
    });
    let file = t.scratch().join("said");
    let script = format!("exec \"$0\" \"$@\" >> {} 2>&1", file.display());
    c.launch("run", &["--detach"]).wrap(&["sh", "-c", &script]).run().ok();
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let said = || fs::read_to_string(&file).expect("read");
    let before = said();
    let restore = c.launch("restore", &["--detach", "--image-path", &images]);
    restore.wrap(&["sh", "-c", &script]).run().ok();
    let after = patiently("a number", || Some(said()).filter(|said| said.len() > before.len()));
    let numbers: Vec<u32> = after.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(numbers.is_sorted() && numbers[0] == 1, "{numbers:?}");
}

fn what_was_read_only_is_read_only_again(t: &Ctx) {
    let _criu = needs_criu(t);
    let (one, two, three) = (t.scratch(), t.scratch(), t.scratch());
    let (c, _old) = talker(t, |c| {
        c.bind(&one, "/one", &["bind", "ro"]);
        c.bind(&two, "/two", &["bind", "ro", "nosuid"]);
        c.bind(&three, "/three", &["bind", "ro"]);
        c.set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi"]));
    });
    // Mount point and options of every mount.
    let mounts = || {
        let text = c.proc("mountinfo");
        let mut list: Vec<String> = text
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .map(|fields| format!("{} {}", fields[4], fields[5]))
            .collect();
        list.sort();
        list
    };
    let before = mounts();
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let _streams = restore(&c, &images);
    assert_eq!(mounts(), before);
    c.exec(&["sh", "-c", "touch /one/x || touch /two/x || touch /three/x"]).code(1);
}

fn an_idmapped_mount_is_mapped_again(t: &Ctx) {
    let _criu = needs_criu(t);
    let source = t.scratch();
    fs::write(source.join("file"), "").expect("write");
    let maps = json!([{"containerID": 0, "hostID": 5000, "size": 100}]);
    let c = t.container(|c| {
        c.args(&["sh", "-c", PROGRAM]);
        let source = source.to_string_lossy().into_owned();
        c.push(
            "/mounts",
            json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["bind"],
                "uidMappings": maps, "gidMappings": maps}),
        );
    });
    let command = c.launch("run", &["--detach"]);
    let (mut streams, out) =
        Streams::of(|[output, error], input| command.on_pipes(input, output, error).run());
    if out.code != 0 {
        t.skip(format!("no id-mapped mounts here: {}", rest(&mut streams.error)));
    }
    let owner = || c.exec(&["stat", "-c", "%u", "/mnt/file"]).ok().text().to_owned();
    let before = owner();
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let _streams = restore(&c, &images);
    assert_eq!(owner(), before);
}

fn loopback_is_up_again(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |_| {});
    let images = images(t);
    checkpoint(&c, &images, &[]);
    let _streams = restore(&c, &images);
    assert!(c.sh("ip addr show lo").contains("127.0.0.1"), "{}", c.sh("ip addr show lo"));
}

fn hooks_run_at_restore(t: &Ctx) {
    let _criu = needs_criu(t);
    let log = t.scratch().join("log");
    let hook = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} >> {}; true", log.display())]}]);
    let names = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let hooks = names.iter().map(|name| ((*name).to_owned(), hook(name))).collect::<serde_json::Map<_, _>>();
    let (c, _old) = talker(t, |c| {
        c.set("/hooks", hooks);
    });
    fs::write(&log, "").expect("write");
    let images = images(t);
    checkpoint(&c, &images, &[]);
    assert_eq!(fs::read_to_string(&log).expect("read"), "poststop\n");
    let _streams = restore(&c, &images);
    assert_eq!(fs::read_to_string(&log).expect("read"), "poststop\nprestart\ncreateRuntime\npoststart\n");
}

/// Memory enough that a dump takes a while.
fn large<'t>(t: &'t Ctx) -> (Container<'t>, Streams) {
    let program = format!("head -c 16m /dev/zero > /dev/shm/big; {PROGRAM}");
    let (c, streams) = talker(t, |c| {
        c.args(&["sh", "-c", &program]);
        c.mount("/dev/shm", "tmpfs", "shm", &["size=100m"]);
    });
    (c, streams)
}

/// What criu does takes a while on a slow machine.
fn patiently<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(50), "waited 50 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until criu is that far.
fn wait_for_log(images: &str, log: &str, line: &str) {
    let path = Path::new(images).join(log);
    patiently(line, || fs::read_to_string(&path).unwrap_or_default().contains(line).then_some(()));
}

fn a_checkpoint_that_is_killed_leaves_the_container_running(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, mut streams) = large(t);
    for line in ["Dumping processes", "Dumping task", "Dumping pages"] {
        let images = images(t);
        let running = c.verb("checkpoint", &["--image-path", &images], &[]).spawn();
        wait_for_log(&images, "dump.log", line);
        running.signal(Signal::KILL);
        running.finish().code(137);
        // criu finds nobody to answer it, and takes back what it did.
        patiently("criu to end", || (t.host("pgrep", &["-f", "^criu"]).code != 0).then_some(()));
        assert_eq!(c.status(), "running");
        assert!(streams.ask("b").starts_with("secret"), "{line}");
    }
    checkpoint(&c, &images(t), &[]);
    gone(&c);
}

fn a_killed_criu_leaves_the_container_running(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, mut streams) = large(t);
    let images = images(t);
    let running = c.verb("checkpoint", &["--image-path", &images], &[]).spawn();
    wait_for_log(&images, "dump.log", "Dumping task");
    t.host("pkill", &["-KILL", "-f", "^criu"]).ok();
    let out = running.finish();
    assert!(out.code != 0 && out.stderr.contains("it was killed"), "{out:?}");
    assert_eq!(c.status(), "running");
    assert_eq!(streams.ask("b"), "secret 2 b");
}

fn a_restore_that_is_killed_leaves_nothing(t: &Ctx) {
    let _criu = needs_criu(t);
    let (c, _old) = talker(t, |_| {});
    let images = images(t);
    checkpoint(&c, &images, &[]);
    for line in ["Will mount", "Restoring resources", "Restore finished"] {
        let log = Path::new(&images).join("restore.log");
        let _ = fs::remove_file(&log);
        let running = c.launch("restore", &["--detach", "--image-path", &images]).spawn();
        wait_for_log(&images, "restore.log", line);
        running.signal(Signal::KILL);
        running.finish();
        c.verb("delete", &["--force"], &[]).run().ok();
        gone(&c);
    }
    let mut streams = restore(&c, &images);
    assert_eq!(streams.ask("b"), "secret 2 b");
}

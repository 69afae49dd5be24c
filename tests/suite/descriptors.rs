//! Descriptors and sockets that a caller hands through: `--preserve-fds`, `LISTEN_FDS`, `NOTIFY_SOCKET`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use hearth_tests::bundle::install;
use hearth_tests::{Ctx, cases};

cases! {
    settled:
        preserved_descriptors_reach_the_program,
        descriptors_are_not_passed_unasked,
        preserved_descriptors_reach_an_exec,
        a_descriptor_to_preserve_that_is_not_open_is_refused,
        listen_fds_reach_the_program,
        listen_fds_and_preserved_ones_come_in_order,
        ready_messages_reach_the_callers_notify_socket,
        create_passes_descriptors_too;
}

/// Opens two files as descriptors 3 and 4 before the runtime starts.
fn shell(t: &Ctx) -> [String; 3] {
    let dir = t.scratch();
    fs::write(dir.join("three"), "third").expect("write a file");
    fs::write(dir.join("four"), "fourth").expect("write a file");
    // As systemd hands sockets over: LISTEN_PID is the process that is meant.
    let script = format!("LISTEN_PID=$$ exec \"$0\" \"$@\" 3<{0}/three 4<{0}/four", dir.display());
    ["sh".to_owned(), "-c".to_owned(), script]
}

fn wrapped(prefix: &[String; 3]) -> [&str; 3] {
    prefix.each_ref().map(String::as_str)
}

fn preserved_descriptors_reach_the_program(t: &Ctx) {
    let prefix = shell(t);
    let c = t.container(|c| c.args(&["sh", "-c", "cat <&3; cat <&4; ls /proc/1/fd; true"]));
    let out = c.launch("run", &["--preserve-fds", "2"]).wrap(&wrapped(&prefix)).run().ok();
    assert_eq!(out.text(), "thirdfourth0\n1\n2\n3\n4");
}

fn descriptors_are_not_passed_unasked(t: &Ctx) {
    let prefix = shell(t);
    let c = t.container(|c| c.args(&["sh", "-c", "ls /proc/1/fd; true"]));
    let out = c.launch("run", &[]).wrap(&wrapped(&prefix)).run().ok();
    assert_eq!(out.text(), "0\n1\n2");
    let c = c.sibling();
    let out = c.launch("run", &["--preserve-fds", "1"]).wrap(&wrapped(&prefix)).run().ok();
    assert_eq!(out.text(), "0\n1\n2\n3");
}

fn preserved_descriptors_reach_an_exec(t: &Ctx) {
    let prefix = shell(t);
    let c = t.sleeper();
    c.up();
    let script = "cat <&3; ls /proc/self/fd | wc -l; [ -e /proc/self/fd/4 ] || echo no four";
    let flags = ["--preserve-fds", "1"];
    let out = c.verb("exec", &flags, &["sh", "-c", script]).wrap(&wrapped(&prefix)).run().ok();
    assert!(out.stdout.starts_with("third") && out.stdout.ends_with("no four\n"), "{out:?}");
}

fn a_descriptor_to_preserve_that_is_not_open_is_refused(t: &Ctx) {
    let c = t.sleeper();
    let out = c.launch("run", &["--preserve-fds", "30"]).run();
    assert_ne!(out.code, 0, "{out:?}");
    assert!(!out.stderr.is_empty());
}

fn listen_fds_reach_the_program(t: &Ctx) {
    let prefix = shell(t);
    let c = t.container(|c| c.args(&["sh", "-c", "cat <&3; echo; env | grep ^LISTEN_; ls /proc/1/fd; true"]));
    let out = c.launch("run", &[]).env("LISTEN_FDS", "1").wrap(&wrapped(&prefix)).run().ok();
    assert!(out.stdout.starts_with("third\n"), "{out:?}");
    assert!(out.stdout.contains("LISTEN_FDS=1\n") && out.stdout.contains("LISTEN_PID=1\n"), "{out:?}");
    assert!(out.stdout.ends_with("\n0\n1\n2\n3\n"), "{out:?}");
}

fn listen_fds_and_preserved_ones_come_in_order(t: &Ctx) {
    let prefix = shell(t);
    let c = t.container(|c| c.args(&["sh", "-c", "cat <&3; cat <&4"]));
    let run = c.launch("run", &["--preserve-fds", "1"]).env("LISTEN_FDS", "1");
    assert_eq!(run.wrap(&wrapped(&prefix)).run().ok().text(), "thirdfourth");
}

fn create_passes_descriptors_too(t: &Ctx) {
    let prefix = shell(t);
    let c = t.container(|c| {
        c.writable();
        c.args(&["sh", "-c", "cat <&3 >/seen; cat <&4 >>/seen"]);
    });
    c.launch("create", &["--preserve-fds", "2"]).wrap(&wrapped(&prefix)).run().ok();
    c.start().ok();
    c.wait_until("stopped");
    assert_eq!(fs::read_to_string(c.rootfs("seen")).unwrap_or_default(), "thirdfourth");
}

fn ready_messages_reach_the_callers_notify_socket(t: &Ctx) {
    let path = t.scratch().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bind a datagram socket");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set a timeout");
    let c = t.container(|c| c.args(&["/probe", "notify", "READY=1\nSTATUS=fine"]));
    let probe = Path::new(env!("CARGO_BIN_EXE_probe"));
    install(probe, &c.rootfs("probe"));
    let mut run = c.launch("run", &[]).env("NOTIFY_SOCKET", path.as_os_str()).spawn();
    // runc 1.5 sends BARRIER=1 last, with a descriptor, and waits for it to be closed: so read to the end.
    let mut buffer = [0; 256];
    let mut seen = String::new();
    let mut over = false;
    while !over {
        // Once more after its end: what was sent last lies in the queue.
        over = run.is_over();
        if let Ok(count) = socket.recv(&mut buffer) {
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            seen.push('\n');
        }
    }
    assert!(seen.lines().any(|line| line == "READY=1"), "{seen}");
    run.finish().ok();
}

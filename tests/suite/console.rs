//! Terminals: `--console-socket`, `run` on a pty, window size, controlling terminal.

use std::fs;

use hearth_tests::terminal::{ConsoleSocket, Master, open_pty};
use hearth_tests::{Config, Container, Ctx, cases, json};
use rustix::termios::{Termios, tcgetattr};

cases! {
    settled:
        run_on_a_terminal_ends_lines_by_a_line_feed_alone,
        create_sends_the_master_over_the_socket,
        the_program_has_the_pty_on_its_streams,
        the_pty_is_the_controlling_terminal,
        dev_console_is_the_pty,
        the_console_size_is_set,
        a_resize_reaches_the_program,
        the_pty_belongs_to_the_containers_devpts,
        the_pty_belongs_to_the_user,
        run_detached_needs_a_console_socket,
        create_with_a_terminal_needs_a_console_socket,
        a_console_socket_without_a_terminal_is_refused,
        a_console_socket_that_is_missing_is_refused,
        exec_with_a_terminal_sends_its_master,
        exec_detached_with_a_terminal_needs_a_socket,
        run_on_a_terminal_relays_both_ways,
        run_on_a_terminal_gives_the_exit_status,
        run_on_a_terminal_restores_its_mode,
        run_on_a_terminal_passes_the_size_on,
        exec_on_a_terminal_relays_both_ways,
        run_with_a_terminal_needs_one;
}

fn with_terminal(c: &mut Config, script: &str) {
    c.set("/process/terminal", true);
    c.args(&["sh", "-c", script]);
}

/// Creates and starts the container with a console socket; gives the master and the name that came with it.
fn started(t: &Ctx, c: &Container<'_>) -> (Master, String) {
    let socket = ConsoleSocket::new(t);
    c.launch("create", &["--console-socket", &socket.path.to_string_lossy()]).run().ok();
    let received = socket.receive();
    c.start().ok();
    received
}

fn on_console(t: &Ctx, script: &str, edit: impl FnOnce(&mut Config)) -> String {
    let c = t.container(|c| {
        with_terminal(c, &format!("{script}; echo END"));
        edit(c);
    });
    let (mut master, _) = started(t, &c);
    let seen = master.expect("END");
    c.wait_until("stopped");
    c.delete().ok();
    seen
}

fn create_sends_the_master_over_the_socket(t: &Ctx) {
    let c = t.container(|c| with_terminal(c, "read line; echo got $line; read end"));
    let (mut master, name) = started(t, &c);
    assert!(name.ends_with("/ptmx") || name.contains("/dev/pts"), "{name}");
    master.send("hello\n");
    master.expect("got hello");
}

fn the_program_has_the_pty_on_its_streams(t: &Ctx) {
    let seen = on_console(t, "for n in 0 1 2; do [ -t $n ] && echo fd$n; done; tty", |_| {});
    for wanted in ["fd0", "fd1", "fd2", "/dev/pts/0"] {
        assert!(seen.contains(wanted), "no {wanted} in {seen}");
    }
}

fn the_pty_is_the_controlling_terminal(t: &Ctx) {
    let seen = on_console(t, "echo through > /dev/tty && cut -d' ' -f6,7,8 /proc/1/stat", |_| {});
    assert!(seen.contains("through"), "{seen}");
    // Session 1, a terminal of major 136, and the foreground is process group 1.
    assert!(seen.contains("1 34816 1"), "{seen}");
}

fn dev_console_is_the_pty(t: &Ctx) {
    let seen = on_console(t, "echo by-console > /dev/console; stat -c %t /dev/console", |_| {});
    assert!(seen.contains("by-console") && seen.contains("88"), "{seen}");
}

fn the_console_size_is_set(t: &Ctx) {
    let seen =
        on_console(t, "stty size", |c| c.set("/process/consoleSize", json!({"height": 33, "width": 77})));
    assert!(seen.contains("33 77"), "{seen}");
}

fn a_resize_reaches_the_program(t: &Ctx) {
    let c = t.container(|c| {
        with_terminal(c, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
    });
    let (mut master, _) = started(t, &c);
    master.expect("ready");
    master.resize(40, 99);
    master.expect("40 99");
}

fn the_pty_belongs_to_the_containers_devpts(t: &Ctx) {
    let c = t.container(|c| with_terminal(c, "ls /dev/pts; read end"));
    let before = fs::read_dir("/dev/pts").map(Iterator::count).unwrap_or(0);
    let (mut master, _) = started(t, &c);
    master.expect("ptmx");
    let after = fs::read_dir("/dev/pts").map(Iterator::count).unwrap_or(0);
    assert_eq!(before, after, "the host's devpts has another pty");
}

fn the_pty_belongs_to_the_user(t: &Ctx) {
    let seen = on_console(t, "stat -c %u /dev/pts/0", |c| c.set("/process/user/uid", 1000));
    assert!(seen.contains("1000"), "{seen}");
}

fn run_detached_needs_a_console_socket(t: &Ctx) {
    let c = t.container(|c| with_terminal(c, "true"));
    c.launch("run", &["--detach"]).run().refused("console socket");
}

fn create_with_a_terminal_needs_a_console_socket(t: &Ctx) {
    let c = t.container(|c| with_terminal(c, "true"));
    c.create().refused("console socket");
}

fn a_console_socket_without_a_terminal_is_refused(t: &Ctx) {
    let socket = ConsoleSocket::new(t);
    let c = t.sleeper();
    c.launch("create", &["--console-socket", &socket.path.to_string_lossy()]).run().refused("console socket");
}

fn a_console_socket_that_is_missing_is_refused(t: &Ctx) {
    let c = t.container(|c| with_terminal(c, "true"));
    c.launch("create", &["--console-socket", "/no/such/socket"]).run().refused("/no/such/socket");
}

fn exec_with_a_terminal_sends_its_master(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let socket = ConsoleSocket::new(t);
    let path = socket.path.to_string_lossy().into_owned();
    let script = "tty; stty size; read line; echo got $line";
    let flags = ["--tty", "--detach", "--console-socket", &path];
    c.verb("exec", &flags, &["sh", "-c", script]).run().ok();
    let (mut master, _) = socket.receive();
    master.expect("/dev/pts/0");
    master.send("hi\n");
    master.expect("got hi");
}

fn exec_detached_with_a_terminal_needs_a_socket(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    c.exec_with(&["--tty", "--detach"], &["true"]).fails(255, "console socket");
}

/// Runs a command with a pty of the suite's as its controlling terminal.
fn on_pty(t: &Ctx, args: &[String]) -> (Master, std::process::Child, std::os::fd::OwnedFd) {
    let (master, slave) = open_pty();
    let copy = || slave.try_clone().expect("dup a pty");
    let child = std::process::Command::new("setsid")
        .arg("--ctty")
        .arg(&t.runtime.path)
        .arg("--root")
        .arg(t.root())
        .args(args)
        .stdin(copy())
        .stdout(copy())
        .stderr(copy())
        .spawn()
        .expect("setsid comes with Debian");
    (master, child, slave)
}

fn launched(c: &Container<'_>) -> Vec<String> {
    ["run", "--bundle", &c.bundle.to_string_lossy(), &c.id].map(str::to_owned).to_vec()
}

fn run_on_a_terminal_relays_both_ways(t: &Ctx) {
    let c = t.container(|c| with_terminal(c, "echo ready; read line; echo got $line"));
    let (mut master, mut child, _slave) = on_pty(t, &launched(&c));
    master.expect("ready");
    master.send("typed\n");
    master.expect("got typed");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

fn run_on_a_terminal_gives_the_exit_status(t: &Ctx) {
    let c = t.container(|c| with_terminal(c, "exit 6"));
    let (_master, mut child, _slave) = on_pty(t, &launched(&c));
    assert_eq!(child.wait().expect("wait").code(), Some(6));
}

fn run_on_a_terminal_restores_its_mode(t: &Ctx) {
    let c = t.container(|c| with_terminal(c, "stty -echo; echo bye"));
    let (mut master, mut child, slave) = on_pty(t, &launched(&c));
    let modes = |t: Termios| (t.input_modes, t.output_modes, t.control_modes, t.local_modes);
    let before = modes(open_pty_mode());
    master.expect("bye");
    child.wait().expect("wait");
    assert_eq!(modes(tcgetattr(&slave).expect("tcgetattr")), before);
}

/// The mode of a pty that nobody touched.
fn open_pty_mode() -> Termios {
    let (_master, slave) = open_pty();
    tcgetattr(&slave).expect("tcgetattr")
}

fn run_on_a_terminal_passes_the_size_on(t: &Ctx) {
    let c = t.container(|c| {
        with_terminal(c, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
    });
    let (mut master, mut child, _slave) = on_pty(t, &launched(&c));
    master.expect("ready");
    master.resize(50, 101);
    master.expect("50 101");
    child.wait().expect("wait");
}

fn exec_on_a_terminal_relays_both_ways(t: &Ctx) {
    let c = t.sleeper();
    c.up();
    let args = ["exec", "--tty", &c.id, "sh", "-c", "tty; read line; echo got $line; exit 4"];
    let (mut master, mut child, _slave) = on_pty(t, &args.map(str::to_owned));
    master.expect("/dev/pts/0");
    master.send("typed\n");
    master.expect("got typed");
    assert_eq!(child.wait().expect("wait").code(), Some(4));
}

fn run_with_a_terminal_needs_one(t: &Ctx) {
    // Neither a terminal among the standard streams nor a controlling one.
    let c = t.container(|c| with_terminal(c, "true"));
    c.launch("run", &[]).wrap(&["setsid", "--wait"]).run().refused("tty");
}

fn run_on_a_terminal_ends_lines_by_a_line_feed_alone(t: &Ctx) {
    t.needs_tool("script");
    let c = t.container(|c| with_terminal(c, "echo one; echo two"));
    let run = format!(
        "{} --root {} run --bundle {} {} > {}",
        t.runtime.path.display(),
        t.root().display(),
        c.bundle.display(),
        c.id,
        c.bundle.join("out").display()
    );
    t.host("script", &["-qec", &run, "/dev/null"]).ok();
    let seen = std::fs::read_to_string(c.bundle.join("out")).expect("the output");
    // What script(1) types at the end of its input is echoed.
    assert_eq!(seen.replace("^@", ""), "one\ntwo\n");
}

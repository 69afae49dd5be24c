//! Filters with SCMP_ACT_NOTIFY, with an agent that is at work: `fixtures/seccomp-agent.py`.

use std::path::PathBuf;

use hearth_tests::context::eventually;
use hearth_tests::{Config, Ctx, Running, Value, cases, json};
use rustix::process::Signal;

cases! {
    settled:
        the_agent_lets_a_call_go_on,
        the_listener_of_a_created_container_comes,
        the_listener_of_an_exec_tells_of_its_process,
        a_profile_without_an_agent_is_refused,
        the_write_call_cannot_be_notified;
    hearth:
        any_call_of_the_set_up_may_be_notified,
        an_agent_that_does_not_listen_is_told;
}

struct Agent {
    socket: PathBuf,
    running: Option<Running>,
}

impl Agent {
    fn start(t: &Ctx) -> Self {
        t.needs_tool("python3");
        let dir = t.scratch();
        let script = dir.join("agent.py");
        std::fs::write(&script, include_str!("../fixtures/seccomp-agent.py")).expect("write the agent");
        let socket = dir.join("socket");
        let args = [script.to_string_lossy().into_owned(), socket.to_string_lossy().into_owned()];
        let running = t.host_command("python3", &args).spawn();
        let agent = Self { socket, running: Some(running) };
        eventually("the agent to listen", || agent.text().starts_with("ready").then_some(()));
        agent
    }

    fn text(&self) -> String {
        self.running.as_ref().map(Running::stdout_so_far).unwrap_or_default()
    }

    /// The states that came with listeners, once there are as many.
    fn states(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} listeners"), || {
            let states: Vec<Value> =
                self.text().lines().skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect();
            (states.len() >= count).then_some(states)
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.signal(Signal::KILL);
            running.finish();
        }
    }
}

fn notify(c: &mut Config, agent: &Agent, calls: &[&str]) {
    c.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "listenerPath": agent.socket,
            "syscalls": [{"names": calls, "action": "SCMP_ACT_NOTIFY"}]
        }),
    );
}

fn the_agent_lets_a_call_go_on(t: &Ctx) {
    for no_new_privileges in [true, false] {
        let agent = Agent::start(t);
        let out = t.sh("mkdir /tmp/d && ls /tmp", |c| {
            c.mount("/tmp", "tmpfs", "tmpfs", &[]);
            c.set("/process/noNewPrivileges", no_new_privileges);
            c.set("/annotations/a", "b");
            notify(c, &agent, &["mkdir"]);
        });
        assert_eq!(out, "d");
        let state = &agent.states(1)[0];
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["state"]["status"], "creating");
        assert_eq!(state["state"]["pid"], state["pid"]);
        assert_eq!(state["state"]["annotations"]["a"], "b");
        assert!(state["metadata"].as_str().is_none_or(str::is_empty), "{state}");
    }
}

fn the_listener_of_a_created_container_comes(t: &Ctx) {
    for no_new_privileges in [true, false] {
        let agent = Agent::start(t);
        let c = t.container(|c| {
            c.set("/process/noNewPrivileges", no_new_privileges);
            c.args(&["sh", "-c", "mkdir /dev/shm/d; exec sleep 100"]);
            notify(c, &agent, &["mkdir"]);
        });
        c.create().ok();
        c.start().ok();
        let state = &agent.states(1)[0];
        assert_eq!(state["pid"], json!(c.pid()));
        assert_eq!(state["state"]["id"], json!(c.id));
        eventually("the directory", || (c.sh("ls /dev/shm") == "d").then_some(()));
    }
}

fn the_listener_of_an_exec_tells_of_its_process(t: &Ctx) {
    let agent = Agent::start(t);
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        notify(c, &agent, &["mkdir"]);
    });
    c.up();
    for flags in [&[][..], &["--no-new-privs"]] {
        c.exec_with(flags, &["mkdir", "-p", "/dev/shm/d"]).ok();
    }
    let states = agent.states(3);
    for state in &states[1..] {
        assert_eq!(state["state"]["pid"], json!(c.pid()));
        assert_eq!(state["state"]["status"], "running");
        assert_ne!(state["pid"], state["state"]["pid"]);
        assert!(state["pid"].as_i64() > Some(0), "{state}");
    }
}

fn a_profile_without_an_agent_is_refused(t: &Ctx) {
    let agent = Agent { socket: PathBuf::new(), running: None };
    let c = t.container(|c| {
        notify(c, &agent, &["mkdir"]);
        c.remove("/linux/seccomp/listenerPath");
    });
    assert!(c.run().code != 0, "accepted");
}

fn the_write_call_cannot_be_notified(t: &Ctx) {
    let agent = Agent { socket: "/nobody".into(), running: None };
    t.container(|c| notify(c, &agent, &["write"])).run().refused("write");
}

/// runc's own init makes calls under the filter before the agent has the listener.
fn any_call_of_the_set_up_may_be_notified(t: &Ctx) {
    let calls = [
        "sendmsg",
        "recvmsg",
        "close",
        "dup",
        "fcntl",
        "futex",
        "mmap",
        "munmap",
        "brk",
        "mprotect",
        "chdir",
        "getcwd",
        "setresuid",
        "setresgid",
        "setgroups",
        "prctl",
        "capget",
        "capset",
        "close_range",
        "execve",
        "accept4",
        "openat",
        "newfstatat",
        "access",
        "faccessat",
        "stat",
        "nanosleep",
        "clock_nanosleep",
        "sched_yield",
        "exit_group",
        "rt_sigprocmask",
        "madvise",
        "umask",
        "read",
        "sendto",
    ];
    for no_new_privileges in [true, false] {
        let agent = Agent::start(t);
        let c = t.container(|c| {
            c.set("/process/noNewPrivileges", no_new_privileges);
            c.args(&["sleep", "100"]);
            notify(c, &agent, &calls);
        });
        c.create().ok();
        c.start().ok();
        assert_eq!(c.sh("echo alive"), "alive");
        agent.states(2);
    }
}

fn an_agent_that_does_not_listen_is_told(t: &Ctx) {
    let agent = Agent { socket: "/no/such/agent".into(), running: None };
    t.container(|c| notify(c, &agent, &["mkdir"])).run().refused("/no/such/agent");
    let c = t.container(|c| {
        c.set("/process/noNewPrivileges", false);
        notify(c, &agent, &["mkdir"]);
    });
    c.create().refused("/no/such/agent");
}

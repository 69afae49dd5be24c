//! The warm pool: launches from parked sandboxes, what a claim may carry, and who may die when.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use hearth_tests::context::eventually;
use hearth_tests::pool::Pool;
use hearth_tests::{Ctx, Out, Value, cases};
use rustix::process::Signal;

cases! {
    hearth:
        a_launch_takes_a_parked_sandbox,
        a_launch_gives_the_programs_exit_status,
        a_launch_passes_the_standard_streams,
        a_launch_forwards_signals,
        a_claim_carries_environment_and_arguments,
        a_claim_carries_a_hostname_a_user_and_a_directory,
        a_claim_carries_secrets_as_files_of_the_user,
        a_claim_carries_mounts,
        a_claim_carries_limits,
        a_claim_carries_a_network_namespace,
        a_claim_carries_a_terminal,
        a_failing_claim_is_told_and_leaves_nothing,
        a_sandbox_is_used_once,
        a_launch_has_a_deadline,
        an_empty_pool_launches_cold_and_says_why,
        a_pool_that_is_not_there_launches_the_bundle_cold,
        only_the_pool_is_refused_where_it_is_empty,
        a_changed_bundle_never_serves_an_old_sandbox,
        a_leased_sandbox_is_an_ordinary_container,
        a_taken_name_is_refused,
        a_drained_pool_is_empty_and_a_deleted_one_is_gone,
        declared_pools_survive_the_daemon,
        a_killed_daemon_leaves_no_parked_sandbox,
        gc_takes_away_what_a_killed_daemon_has_left,
        a_launch_outlives_the_daemon_and_its_status_is_told,
        a_killed_forker_is_replaced_and_no_status_is_lost,
        a_killed_parked_init_is_replaced,
        a_killed_client_takes_its_program_along,
        a_detached_launch_is_followed_by_its_log,
        a_detached_launch_has_a_deadline_that_survives_the_daemon,
        a_run_may_take_a_parked_sandbox,
        a_run_by_the_pool_hands_down_what_it_has_itself,
        a_run_that_the_pool_cannot_serve_is_an_ordinary_one,
        settings_come_from_a_file,
        a_wrong_setting_is_one_line,
        metrics_health_and_readiness_are_served,
        unfit_bundles_are_told_by_the_field;
}

fn two<'t>(t: &'t Ctx) -> (Pool<'t>, String) {
    let pool = Pool::start(t);
    let bundle = t.bundle(|c| c.args(&["sh", "-c", "echo from the bundle"]));
    let name = pool.declare(&bundle, 2);
    (pool, name)
}

/// What `--json` said, on the last line of standard error.
fn told(stderr: &str) -> Value {
    let line = stderr.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON: {e}: {stderr}"))
}

fn a_launch_takes_a_parked_sandbox(t: &Ctx) {
    let (pool, name) = two(t);
    let out = pool.launch(&["--json"], &name, &[]).run().ok();
    assert_eq!(out.text(), "from the bundle");
    let told = told(&out.stderr);
    assert_eq!((&told["path"], &told["reason"]), (&"bundle".into(), &"exited".into()));
    assert_eq!(pool.inspect(&name)["hits"], 1);
}

fn a_launch_gives_the_programs_exit_status(t: &Ctx) {
    let (pool, name) = two(t);
    for code in [0, 1, 42, 255] {
        pool.wait_for_parked(&name, 1);
        pool.sh(&[], &name, &format!("exit {code}")).code(code);
    }
}

fn a_launch_passes_the_standard_streams(t: &Ctx) {
    let (pool, name) = two(t);
    let command = pool.launch(&["--stdin"], &name, &["sh", "-c", "cat; echo error >&2"]);
    let out = command.stdin(b"input").run().ok();
    assert_eq!((out.text(), out.stderr.as_str()), ("input", "error\n"));
    pool.wait_for_parked(&name, 1);
    assert_eq!(pool.launch(&[], &name, &["cat"]).stdin(b"unseen").run().ok().text(), "");
}

fn a_launch_forwards_signals(t: &Ctx) {
    let (pool, name) = two(t);
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let running = pool.launch(&[], &name, &["sh", "-c", script]).spawn();
    eventually("the program to run", || running.stdout_so_far().contains("ready").then_some(()));
    running.signal(Signal::TERM);
    running.finish().code(7);
}

fn a_claim_carries_environment_and_arguments(t: &Ctx) {
    let (pool, name) = two(t);
    let out = pool.sh(&["--env", "A=b c", "-e", "PATH=/bin:/x"], &name, "echo $A $PATH $0");
    assert_eq!(out.ok().text(), "b c /bin:/x sh");
}

fn a_claim_carries_a_hostname_a_user_and_a_directory(t: &Ctx) {
    let (pool, name) = two(t);
    let flags = ["--hostname", "claimed", "--user", "1000:1001", "--cwd", "/tmp"];
    let out = pool.sh(&flags, &name, "hostname; id -u; id -g; pwd").ok();
    assert_eq!(out.text(), "claimed\n1000\n1001\n/tmp");
}

fn a_claim_carries_secrets_as_files_of_the_user(t: &Ctx) {
    let (pool, name) = two(t);
    let file = t.scratch().join("secret");
    fs::write(&file, "hush").expect("a secret");
    let flag = format!("key={}", file.display());
    let script = "cat /run/secrets/key; stat -c ' %a %u' /run/secrets/key /run/secrets; touch /run/secrets/x";
    let out = pool.sh(&["--secret", &flag, "--user", "1000"], &name, script);
    assert_eq!(out.text(), "hush 400 1000\n 700 1000");
    assert!(out.stderr.contains("Read-only"), "{out:?}");
    // Neither in what is stored nor on a command line.
    assert!(
        !pool.sh(&[], &name, "cat /run/secrets/key").stdout.contains("hush"),
        "it is the next one's, too"
    );
}

fn a_claim_carries_mounts(t: &Ctx) {
    let (pool, name) = two(t);
    let dir = t.scratch();
    fs::write(dir.join("file"), "mounted").expect("a file");
    let at = |options: &str| format!("type=bind,src={},dst=/mnt/new/dir{options}", dir.display());
    let script = "cat /mnt/new/dir/file; echo written > /mnt/new/dir/out";
    let out = pool.sh(&["--mount", &at(",ro")], &name, script);
    assert!(out.stdout == "mounted" && out.stderr.contains("Read-only"), "{out:?}");
    pool.wait_for_parked(&name, 1);
    pool.sh(&["--mount", &at("")], &name, script).ok();
    assert_eq!(fs::read_to_string(dir.join("out")).expect("what it wrote"), "written\n");
}

fn a_claim_carries_limits(t: &Ctx) {
    if let Some(missing) = ["memory", "pids", "cpu"].into_iter().find(|name| !t.has_controller(name)) {
        t.skip(format!("no cgroup controller {missing}"));
    }
    let (pool, name) = two(t);
    let running = pool.launch(
        &["--memory", "32M", "--pids", "17", "--cpu", "0.5", "--id", &t.id()],
        &name,
        &["sh", "-c", "cat /proc/self/cgroup; echo; sleep 100"],
    );
    let running = running.spawn();
    eventually("the program to run", || running.stdout_so_far().ends_with("\n\n").then_some(()));
    let list = pool.command(&["list", "--quiet"]).run().ok();
    let events = pool.command(&["events", "--stats", list.text()]).run().ok().json();
    let data = &events["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 32 << 20, "{data}");
    assert_eq!(data["pids"]["limit"], 17, "{data}");
    running.signal(Signal::KILL);
    running.finish();
}

fn a_claim_carries_a_network_namespace(t: &Ctx) {
    t.needs_tool("ip");
    let (pool, name) = two(t);
    let file = t.scratch().join("netns");
    fs::write(&file, "").expect("a mount point");
    let path = file.to_string_lossy();
    // A namespace is kept by a mount of it.
    let script = "ip link set lo up && ip addr add 10.9.8.7/32 dev lo";
    t.host("unshare", &[&format!("--net={path}"), "sh", "-c", script]).ok();
    let out = pool.sh(&["--network", &path], &name, "cat /proc/net/fib_trie");
    assert!(out.ok().stdout.contains("10.9.8.7"), "not in the namespace");
    pool.wait_for_parked(&name, 1);
    assert!(
        !pool.sh(&[], &name, "cat /proc/net/dev").ok().stdout.contains("handed:"),
        "the next one has it, too"
    );
    pool.wait_for_parked(&name, 1);
    pool.sh(&["--network", "/proc/self/ns/uts"], &name, "true").fails(125, "--network");
    t.host("umount", &["--no-mtab", &path]).ok();
}

fn a_claim_carries_a_terminal(t: &Ctx) {
    let (pool, name) = two(t);
    let command = pool.launch(&["--tty"], &name, &["sh", "-c", "tty; test -t 0 && test -t 1"]);
    // script(1) gives the client a terminal of its own.
    let line = command.to_string();
    let out = t.host("script", &["-qec", &line, "/dev/null"]).ok();
    assert!(out.stdout.contains("/dev/pts/0"), "{out:?}");
}

fn a_failing_claim_is_told_and_leaves_nothing(t: &Ctx) {
    let (pool, name) = two(t);
    pool.launch(&[], &name, &["/no/such"]).run().code(125).fails(125, "no such file or directory");
    pool.wait_for_parked(&name, 1);
    pool.launch(&["--cwd", "/etc/passwd"], &name, &["true"]).run().fails(125, "cwd");
    eventually("nothing to be left", || {
        (pool.command(&["list", "--quiet"]).run().ok().text().is_empty()).then_some(())
    });
}

fn a_sandbox_is_used_once(t: &Ctx) {
    let (pool, name) = two(t);
    pool.sh(&[], &name, "hostname changed; touch /dev/shm/trace /tmp/x; mount 2>/dev/null | wc -l").ok();
    for _ in 0..3 {
        pool.wait_for_parked(&name, 1);
        let out = pool.sh(&[], &name, "ls /dev/shm; hostname").ok();
        assert!(!out.stdout.contains("trace") && !out.stdout.contains("changed"), "{out:?}");
    }
}

fn a_launch_has_a_deadline(t: &Ctx) {
    let (pool, name) = two(t);
    let out = pool.launch(&["--timeout", "300ms", "--json"], &name, &["sleep", "100"]).run().code(124);
    assert_eq!(told(&out.stderr)["reason"], "timed-out");
}

fn an_empty_pool_launches_cold_and_says_why(t: &Ctx) {
    let (pool, name) = two(t);
    pool.command(&["pool", "resize", "--min", "0", "--max", "1", &name]).run().ok();
    pool.command(&["pool", "drain", &name]).run().ok();
    let id = t.id();
    let out = pool.command(&["launch", "--json", "--id", &id, &name, "--", "echo", "cold"]).run().ok();
    let told = told(&out.stderr);
    assert_eq!((out.text(), &told["path"]), ("cold", &"cold".into()));
    assert!(told["why"].as_str().is_some_and(|why| why.contains("pool")), "{told}");
}

fn a_pool_that_is_not_there_launches_the_bundle_cold(t: &Ctx) {
    let pool = Pool::start(t);
    let bundle = t.bundle(|c| c.args(&["echo", "here"]));
    let (bundle, id) = (bundle.to_string_lossy(), t.id());
    assert_eq!(pool.command(&["launch", "--id", &id, &bundle]).run().ok().text(), "here");
    pool.command(&["launch", "nosuchpool"]).run().refused("nosuchpool");
    let mut pool = pool;
    pool.kill();
    let out = pool.command(&["launch", "--json", "--id", &id, &bundle]).run().ok();
    assert!(told(&out.stderr)["why"].as_str().is_some_and(|why| why.contains("connect")), "{out:?}");
}

fn only_the_pool_is_refused_where_it_is_empty(t: &Ctx) {
    let (pool, name) = two(t);
    pool.command(&["pool", "drain", &name]).run().ok();
    pool.launch(&[], &name, &["true"]).run().refused("pool");
    pool.command(&["launch", "--pool", "only", "/nowhere"]).run().refused("pool");
}

fn a_changed_bundle_never_serves_an_old_sandbox(t: &Ctx) {
    let pool = Pool::start(t);
    let bundle = t.bundle(|c| c.args(&["echo", "old"]));
    let name = pool.declare(&bundle, 3);
    let text = fs::read_to_string(bundle.join("config.json")).expect("a config");
    fs::write(bundle.join("config.json"), text.replace("old", "new")).expect("another config");
    for _ in 0..4 {
        let id = t.id();
        assert_eq!(pool.command(&["launch", "--id", &id, &name]).run().ok().text(), "new");
    }
    eventually("new sandboxes to be parked", || {
        (pool.launch(&[], &name, &[]).run().stdout == "new\n").then_some(())
    });
}

fn a_leased_sandbox_is_an_ordinary_container(t: &Ctx) {
    let (pool, name) = two(t);
    let id = t.id();
    let running = pool.launch(&["--id", &id], &name, &["sleep", "100"]).spawn();
    eventually("it to be listed", || {
        pool.command(&["list", "--quiet"]).run().stdout.contains(&id).then_some(())
    });
    let state = pool.command(&["state", &id]).run().ok().json();
    assert_eq!((&state["status"], &state["id"]), (&"running".into(), &id.as_str().into()));
    assert_eq!(pool.command(&["exec", &id, "echo", "inside"]).run().ok().text(), "inside");
    pool.command(&["kill", &id, "KILL"]).run().ok();
    running.finish().code(137);
}

fn a_taken_name_is_refused(t: &Ctx) {
    let (pool, name) = two(t);
    let id = t.id();
    let running = pool.launch(&["--id", &id], &name, &["sleep", "100"]).spawn();
    eventually("it to be listed", || {
        pool.command(&["list", "--quiet"]).run().stdout.contains(&id).then_some(())
    });
    pool.launch(&["--id", &id], &name, &["true"]).run().fails(125, "already exists");
    pool.command(&["state", &id]).run().ok();
    running.signal(Signal::TERM);
    pool.command(&["kill", &id, "KILL"]).run().ok();
    running.finish();
    pool.launch(&["--id", "../x"], &name, &["true"]).run().refused("../x");
}

fn a_drained_pool_is_empty_and_a_deleted_one_is_gone(t: &Ctx) {
    let (pool, name) = two(t);
    pool.command(&["pool", "drain", &name]).run().ok();
    eventually("it to be empty", || (pool.inspect(&name)["parked"] == 0).then_some(()));
    pool.command(&["pool", "resize", "--min", "1", "--max", "2", &name]).run().ok();
    pool.wait_for_parked(&name, 1);
    pool.command(&["pool", "delete", &name]).run().ok();
    pool.command(&["pool", "inspect", &name]).run().refused(&name);
    pool.command(&["pool", "delete", &name]).run().refused(&name);
}

fn declared_pools_survive_the_daemon(t: &Ctx) {
    let (mut pool, name) = two(t);
    pool.kill();
    pool.restart();
    pool.wait_for_parked(&name, 2);
    assert_eq!(pool.launch(&[], &name, &[]).run().ok().text(), "from the bundle");
}

fn a_killed_daemon_leaves_no_parked_sandbox(t: &Ctx) {
    let (mut pool, name) = two(t);
    pool.kill();
    eventually("the forker to be alone", || {
        let forker = pool.helpers("forker");
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", forker[0]));
        children.unwrap_or_default().trim().is_empty().then_some(())
    });
    pool.restart();
    pool.wait_for_parked(&name, 2);
}

fn gc_takes_away_what_a_killed_daemon_has_left(t: &Ctx) {
    let (mut pool, _) = two(t);
    let dir = pool.root.join(".pool/parked");
    let parked = || fs::read_dir(&dir).expect("the daemon's directory").count();
    // Not while it lives.
    pool.command(&["gc", "--store", &t.scratch().to_string_lossy()]).run().ok();
    assert_eq!(parked(), 2);
    pool.kill();
    pool.command(&["gc", "--store", &t.scratch().to_string_lossy()]).run().ok();
    assert_eq!(parked(), 0);
}

fn a_launch_outlives_the_daemon_and_its_status_is_told(t: &Ctx) {
    let (mut pool, name) = two(t);
    let script = "echo up; while ! test -e /dev/shm/go; do sleep 0.05; done; echo late; exit 9";
    let id = t.id();
    let running = pool.launch(&["--id", &id], &name, &["sh", "-c", script]).spawn();
    eventually("the program to run", || running.stdout_so_far().contains("up").then_some(()));
    pool.kill();
    pool.restart();
    // The program's end may be its own.
    pool.command(&["exec", &id, "touch", "/dev/shm/go"]).run();
    assert_eq!(running.finish().code(9).text(), "up\nlate");
    eventually("its container to be gone", || {
        pool.command(&["list", "--quiet"]).run().ok().text().is_empty().then_some(())
    });
}

fn a_killed_forker_is_replaced_and_no_status_is_lost(t: &Ctx) {
    let (pool, name) = two(t);
    let script = "echo up; while ! test -e /dev/shm/go; do sleep 0.05; done; exit 9";
    let id = t.id();
    let running = pool.launch(&["--id", &id], &name, &["sh", "-c", script]).spawn();
    eventually("the program to run", || running.stdout_so_far().contains("up").then_some(()));
    let forker = pool.helpers("forker");
    t.host("kill", &["-KILL", &forker[0].to_string()]).ok();
    // The program's end may be its own.
    pool.command(&["exec", &id, "touch", "/dev/shm/go"]).run();
    running.finish().code(9);
    pool.wait_for_parked(&name, 2);
    assert_eq!(pool.launch(&[], &name, &[]).run().ok().text(), "from the bundle");
}

fn a_killed_parked_init_is_replaced(t: &Ctx) {
    let (pool, name) = two(t);
    let forker = pool.helpers("forker");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", forker[0])).expect("children");
    for pid in children.split_whitespace() {
        t.host("kill", &["-KILL", pid]).ok();
    }
    eventually("a launch", || (pool.launch(&[], &name, &[]).run().code == 0).then_some(()));
    pool.wait_for_parked(&name, 2);
}

fn a_killed_client_takes_its_program_along(t: &Ctx) {
    let (pool, name) = two(t);
    let id = t.id();
    let running = pool.launch(&["--id", &id], &name, &["sh", "-c", "echo up; sleep 100"]).spawn();
    eventually("the program to run", || running.stdout_so_far().contains("up").then_some(()));
    running.signal(Signal::KILL);
    running.finish();
    eventually("its container to be gone", || {
        pool.command(&["list", "--quiet"]).run().ok().text().is_empty().then_some(())
    });
}

fn a_detached_launch_is_followed_by_its_log(t: &Ctx) {
    let (pool, name) = two(t);
    let script = "echo one; echo two >&2; sleep 0.3; echo three; exit 3";
    let id = t.id();
    let out = pool.launch(&["--detach", "--id", &id], &name, &["sh", "-c", script]).run().ok();
    assert_eq!(out.text(), id);
    let logs = |flags: &[&str]| {
        let mut args = vec!["logs"];
        args.extend(flags);
        args.push(&id);
        pool.command(&args).run().ok().stdout
    };
    assert_eq!(logs(&["--follow"]), "one\ntwo\nthree\n");
    assert_eq!(logs(&["--tail", "1"]), "three\n");
    let state = eventually("its end to be recorded", || {
        let state = pool.command(&["state", &id]).run().ok().json();
        state["end"].is_object().then_some(state)
    });
    assert_eq!((&state["end"]["reason"], &state["end"]["status"]), (&"exited".into(), &3.into()));
    pool.command(&["delete", &id]).run().ok();
    pool.command(&["logs", "../x"]).run().refused("../x");
}

fn a_detached_launch_has_a_deadline_that_survives_the_daemon(t: &Ctx) {
    let (mut pool, name) = two(t);
    let id = t.id();
    pool.launch(&["--detach", "--id", &id, "--timeout", "1s"], &name, &["sleep", "100"]).run().ok();
    pool.kill();
    pool.restart();
    eventually("it to be killed", || {
        let state = pool.command(&["state", &id]).run().ok().json();
        (state["end"]["reason"] == "timed-out").then_some(())
    });
    pool.command(&["delete", &id]).run().ok();
}

/// `run --pool WHEN FLAGS`, of a bundle that has a pool.
fn run_of(pool: &Pool<'_>, when: &str, flags: &[&str], bundle: &Path, id: &str) -> Out {
    let bundle = bundle.to_string_lossy();
    let mut args = vec!["run", "--pool", when];
    args.extend(flags);
    args.extend(["--bundle", &bundle, id]);
    pool.command(&args).run()
}

fn a_run_may_take_a_parked_sandbox(t: &Ctx) {
    let pool = Pool::start(t);
    let bundle = t.bundle(|c| c.args(&["sh", "-c", "echo from the bundle; exit 4"]));
    let name = pool.declare(&bundle, 1);
    let out = run_of(&pool, "only", &[], &bundle, &t.id()).code(4);
    assert_eq!((out.text(), &pool.inspect(&name)["hits"]), ("from the bundle", &1.into()));
    // Without the flag it never does.
    pool.wait_for_parked(&name, 1);
    let id = t.id();
    pool.command(&["run", "--bundle", &bundle.to_string_lossy(), &id]).run().code(4);
    assert_eq!(pool.inspect(&name)["hits"], 1);
}

fn a_run_by_the_pool_hands_down_what_it_has_itself(t: &Ctx) {
    let pool = Pool::start(t);
    let script = "ulimit -c; ulimit -s; cat /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; grep Cpus_allowed: /proc/self/status";
    let bundle = t.bundle(|c| c.args(&["sh", "-c", script]));
    let name = pool.declare(&bundle, 1);
    let wrapped = |when: &str, id: &str| {
        let bundle = bundle.to_string_lossy();
        let command = pool.command(&["run", "--pool", when, "--bundle", &bundle, id]);
        let shell = format!(
            "ulimit -c 7; ulimit -s 4096; echo 123 > /proc/self/oom_score_adj; exec nice -n 5 taskset 1 {command}"
        );
        t.host("sh", &["-c", &shell]).ok().stdout
    };
    let warm = wrapped("only", &t.id());
    assert_eq!(pool.inspect(&name)["hits"], 1);
    assert_eq!(warm, wrapped("never", &t.id()));
    assert!(warm.starts_with("7\n") && warm.contains("\n123\n5\n"), "{warm}");
}

fn a_run_that_the_pool_cannot_serve_is_an_ordinary_one(t: &Ctx) {
    let pool = Pool::start(t);
    let bundle = t.bundle(|c| c.args(&["echo", "ran"]));
    let pid_file = t.scratch().join("pid");
    let flag = pid_file.to_string_lossy();
    assert_eq!(run_of(&pool, "auto", &["--pid-file", &flag], &bundle, &t.id()).ok().text(), "ran");
    run_of(&pool, "only", &[], &bundle, &t.id()).refused("no pool");
    let name = pool.declare(&bundle, 1);
    run_of(&pool, "only", &["--no-pivot"], &bundle, &t.id()).refused("flag");
    assert_eq!(run_of(&pool, "auto", &["--no-new-keyring"], &bundle, &t.id()).ok().text(), "ran");
    assert_eq!(pool.inspect(&name)["hits"], 0);
}

fn settings_come_from_a_file(t: &Ctx) {
    let bundle = t.bundle(|c| c.args(&["echo", "declared"]));
    let name = t.id();
    let settings = format!(
        "[limits]\nforks = 1\n[[pool]]\nname = \"{name}\"\nbundle = \"{}\"\nmin = 1\n",
        bundle.display()
    );
    let mut pool = Pool::with(t, &settings);
    pool.wait_for_parked(&name, 1);
    assert_eq!(pool.launch(&[], &name, &[]).run().ok().text(), "declared");
    // It is kept by the file alone.
    pool.kill();
    pool.restart();
    pool.wait_for_parked(&name, 1);
}

fn a_wrong_setting_is_one_line(t: &Ctx) {
    let daemon = t.runtime.path.with_file_name("hearthd");
    let dir = t.scratch();
    let file = dir.join("settings");
    for (text, named) in [
        ("forks = 1", "forks"),
        ("[limits]\nforks = 0", "limits.forks"),
        ("[memory]\nbudget = \"much\"", "much"),
        ("[[pool]]\nname = \"x\"", "bundle"),
        ("group = \"users\"", "group"),
        ("[", "settings"),
    ] {
        fs::write(&file, text).expect("settings");
        let (config, root) = (file.to_string_lossy(), dir.join("root"));
        let root = root.to_string_lossy();
        let args = ["--config", &config, "--root", &root];
        t.host(&daemon.to_string_lossy(), &args).refused(named);
    }
    assert!(!dir.join("root").exists(), "something is left");
}

fn metrics_health_and_readiness_are_served(t: &Ctx) {
    let socket = t.scratch().join("metrics");
    let pool = Pool::with(t, &format!("metrics = \"{}\"", socket.display()));
    let bundle = t.bundle(|c| c.args(&["true"]));
    let name = pool.declare(&bundle, 1);
    pool.launch(&[], &name, &[]).run().ok();
    let get = |path: &str| {
        let mut stream = UnixStream::connect(&socket).expect("hearthd listens");
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("hearth_granted_total 1"), "{metrics}");
    assert!(metrics.contains("hearth_launch_seconds_bucket{") && metrics.contains(&name), "{metrics}");
    assert!(get("/healthz").ends_with("ok\n") && get("/readyz").ends_with("ready\n"));
    assert!(get("/").starts_with("HTTP/1.1 404"));
}

fn unfit_bundles_are_told_by_the_field(t: &Ctx) {
    let pool = Pool::start(t);
    let bundle = t.bundle(|c| c.set("/linux/cgroupsPath", "/somewhere"));
    let (bundle, name) = (bundle.to_string_lossy(), t.id());
    pool.command(&["pool", "create", "--bundle", &bundle, &name]).run().ok();
    eventually("the reason", || {
        let trouble = pool.inspect(&name)["trouble"].clone();
        trouble.as_str().is_some_and(|text| text.contains("linux.cgroupsPath")).then_some(())
    });
    let empty = t.scratch();
    let empty = empty.to_string_lossy();
    pool.command(&["pool", "create", "--bundle", &empty, &t.id()]).run().refused("config.json");
}

//! `create` killed at any of its system calls: `delete --force` cleans what there is, and the id is free again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hearth_tests::leaks::Before;
use hearth_tests::{Container, Ctx, cases};

cases! {
    hearth:
        gc_removes_what_dead_creators_left,
        create_killed_anywhere_can_be_deleted,
        create_and_its_children_killed_anywhere_can_be_deleted,
        create_killed_anywhere_leaves_the_id_usable_after_delete,
        start_killed_anywhere_can_be_deleted,
        delete_killed_anywhere_can_be_repeated;
}

/// Points of the sweep in the short form.
const SAMPLE: usize = 40;

/// The most system calls that one process of a command makes when nobody disturbs it.
fn calls(t: &Ctx, follow: &[&str], command: &Command<'_>, c: &Container<'_>) -> usize {
    let log = t.scratch().join("calls");
    let path = log.to_string_lossy().into_owned();
    let mut strace = vec!["strace", "-qq", "-o", &path];
    strace.extend(follow);
    command(c, &strace);
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        // With -f each line starts with its process.
        let process = if follow.is_empty() { "" } else { line.split(' ').next().unwrap_or_default() };
        *counts.entry(process).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

fn points(t: &Ctx, total: usize) -> Vec<usize> {
    let step = if t.long() { 1 } else { total.div_ceil(SAMPLE).max(1) };
    (1..=total).step_by(step).collect()
}

/// Runs a command under strace with these words before it.
type Command<'a> = dyn Fn(&Container<'_>, &[&str]) + 'a;

/// What happens before the command that is killed, and after it.
struct Around<'a> {
    before: &'a dyn Fn(&Container<'_>),
    after: &'a dyn Fn(&Container<'_>),
}

/// Runs the command once a point, killed there; what comes `after` has to leave nothing.
fn sweep(t: &Ctx, follow: &[&str], command: &Command<'_>, around: &Around<'_>) {
    t.needs_tool("strace");
    let first = t.sleeper();
    (around.before)(&first);
    let total = calls(t, follow, command, &first);
    assert!(total > SAMPLE, "strace saw {total} calls only");
    first.verb("delete", &["--force"], &[]).run().ok();
    for point in points(t, total) {
        let before = Before::look();
        let c = first.sibling();
        (around.before)(&c);
        let inject = format!("inject=all:signal=KILL:when={point}");
        let mut strace = vec!["strace", "-qq", "-o", "/dev/null", "-e", &inject];
        strace.extend(follow);
        command(&c, &strace);
        (around.after)(&c);
        let leaks = t.leaks_since(&before);
        assert!(leaks.is_empty(), "killed at call {point} of {total}: {leaks:#?}");
    }
}

fn create(c: &Container<'_>, strace: &[&str]) {
    c.launch("create", &[]).wrap(strace).run();
}

/// strace follows the init as well and so stays: the pid file tells that create is through.
fn create_followed(t: &Ctx, c: &Container<'_>, strace: &[&str]) {
    let pid_file = t.scratch().join("pid");
    let flag = pid_file.to_string_lossy();
    let mut run = c.launch("create", &["--pid-file", &flag]).wrap(strace).spawn();
    let started = Instant::now();
    while !run.is_over() && !pid_file.exists() && started.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(2));
    }
    delete(c);
    run.finish();
}

fn nothing(_: &Container<'_>) {}

fn created(c: &Container<'_>) {
    c.create().ok();
}

fn delete(c: &Container<'_>) {
    c.verb("delete", &["--force"], &[]).run().ok();
}

fn gc_removes_what_dead_creators_left(t: &Ctx) {
    let root = t.root();
    for name in [".new-a", "b"] {
        std::fs::create_dir_all(root.join(name)).expect("a directory in --root");
    }
    let c = t.sleeper();
    c.create().ok();
    let store = t.scratch().join("store").to_string_lossy().into_owned();
    let out = t.rt(&["gc", "--store", &store]).ok();
    assert!(out.stdout.contains("2 unfinished containers"), "{out:?}");
    let left: Vec<_> = std::fs::read_dir(root)
        .expect("--root")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    assert_eq!(left, [c.id.as_str()]);
    delete(&c);
}

fn create_killed_anywhere_can_be_deleted(t: &Ctx) {
    sweep(t, &[], &create, &Around { before: &nothing, after: &delete });
}

fn create_and_its_children_killed_anywhere_can_be_deleted(t: &Ctx) {
    let command = |c: &Container<'_>, strace: &[&str]| create_followed(t, c, strace);
    sweep(t, &["-f"], &command, &Around { before: &nothing, after: &delete });
}

fn create_killed_anywhere_leaves_the_id_usable_after_delete(t: &Ctx) {
    let after = |c: &Container<'_>| {
        delete(c);
        created(c);
        delete(c);
    };
    sweep(t, &[], &create, &Around { before: &nothing, after: &after });
}

fn start_killed_anywhere_can_be_deleted(t: &Ctx) {
    let start = |c: &Container<'_>, strace: &[&str]| {
        c.verb("start", &[], &[]).wrap(strace).run();
    };
    sweep(t, &[], &start, &Around { before: &created, after: &delete });
}

fn delete_killed_anywhere_can_be_repeated(t: &Ctx) {
    let command = |c: &Container<'_>, strace: &[&str]| {
        c.verb("delete", &["--force"], &[]).wrap(strace).run();
    };
    sweep(t, &[], &command, &Around { before: &created, after: &delete });
}

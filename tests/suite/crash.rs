//! `create` killed at any of its system calls: `delete --force` cleans what there is, and the id is free again.

use hearth_tests::leaks::Before;
use hearth_tests::{Container, Ctx, cases};

cases! {
    hearth:
        create_killed_anywhere_can_be_deleted,
        run_and_its_children_killed_anywhere_can_be_deleted,
        create_killed_anywhere_leaves_the_id_usable_after_delete,
        start_killed_anywhere_can_be_deleted,
        delete_killed_anywhere_can_be_repeated;
}

/// Points of the sweep in the short form.
const SAMPLE: usize = 40;

/// How many system calls a command makes when nobody disturbs it.
fn calls(t: &Ctx, follow: &[&str], command: &dyn Fn(&[&str]) -> i32) -> usize {
    let log = t.scratch().join("calls");
    let path = log.to_string_lossy().into_owned();
    let mut strace = vec!["strace", "-qq", "-o", &path];
    strace.extend(follow);
    assert_eq!(command(&strace), 0, "the undisturbed command failed");
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    text.lines().count()
}

fn points(t: &Ctx, total: usize) -> Vec<usize> {
    let step = if t.long() { 1 } else { total.div_ceil(SAMPLE).max(1) };
    (1..=total).step_by(step).collect()
}

/// Runs the command once a point, killed there, then `check`.
fn sweep(
    t: &Ctx,
    follow: &[&str],
    command: &dyn Fn(&Container<'_>, &[&str]) -> i32,
    prepare: &dyn Fn(&Container<'_>),
    check: &dyn Fn(&Container<'_>),
) {
    sweep_from(t, t.sleeper(), follow, command, prepare, check);
}

fn sweep_from(
    t: &Ctx,
    first: Container<'_>,
    follow: &[&str],
    command: &dyn Fn(&Container<'_>, &[&str]) -> i32,
    prepare: &dyn Fn(&Container<'_>),
    check: &dyn Fn(&Container<'_>),
) {
    t.needs_tool("strace");
    prepare(&first);
    let total = calls(t, follow, &|strace| command(&first, strace));
    first.verb("delete", &["--force"], &[]).run().ok();
    for point in points(t, total) {
        let before = Before::look();
        let c = first.sibling();
        prepare(&c);
        let inject = format!("inject=all:signal=KILL:when={point}");
        let mut strace = vec!["strace", "-qq", "-o", "/dev/null", "-e", &inject];
        strace.extend(follow);
        command(&c, &strace);
        check(&c);
        let leaks = t.leaks_since(&before);
        assert!(leaks.is_empty(), "killed at call {point} of {total}: {leaks:#?}");
    }
}

fn create(c: &Container<'_>, strace: &[&str]) -> i32 {
    c.launch("create", &[]).wrap(strace).run().code
}

fn nothing(_: &Container<'_>) {}

fn delete(c: &Container<'_>) {
    c.verb("delete", &["--force"], &[]).run().ok();
}

fn create_killed_anywhere_can_be_deleted(t: &Ctx) {
    sweep(t, &[], &create, &nothing, &delete);
}

fn run_and_its_children_killed_anywhere_can_be_deleted(t: &Ctx) {
    let run = |c: &Container<'_>, strace: &[&str]| c.launch("run", &[]).wrap(strace).run().code;
    sweep_from(t, t.container(|c| c.args(&["true"])), &["-f"], &run, &nothing, &delete);
}

fn create_killed_anywhere_leaves_the_id_usable_after_delete(t: &Ctx) {
    sweep(t, &[], &create, &nothing, &|c| {
        delete(c);
        c.create().ok();
        delete(c);
    });
}

fn start_killed_anywhere_can_be_deleted(t: &Ctx) {
    let start = |c: &Container<'_>, strace: &[&str]| c.verb("start", &[], &[]).wrap(strace).run().code;
    sweep(t, &[], &start, &|c| drop(c.create().ok()), &delete);
}

fn delete_killed_anywhere_can_be_repeated(t: &Ctx) {
    let command =
        |c: &Container<'_>, strace: &[&str]| c.verb("delete", &["--force"], &[]).wrap(strace).run().code;
    sweep(t, &[], &command, &|c| drop(c.create().ok()), &delete);
}

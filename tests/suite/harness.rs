//! The harness tested on itself: whatever a case may leave is seen, and cleaned before the next case.

use std::fs;
use std::path::Path;

use hearth_tests::{Ctx, cases};

cases! {
    leaking:
        a_mount_left_behind_is_seen,
        a_process_left_behind_is_seen,
        a_namespace_left_behind_is_seen,
        a_cgroup_left_behind_is_seen,
        a_v1_cgroup_left_behind_is_seen,
        a_state_file_left_behind_is_seen,
        a_file_left_in_run_is_seen,
        a_temporary_file_left_behind_is_seen;
    settled:
        nothing_is_seen_after_the_leaks_above;
}

fn a_mount_left_behind_is_seen(t: &Ctx) {
    let dir = t.scratch();
    t.host("busybox", &["mount", "-t", "tmpfs", "tmpfs", &dir.to_string_lossy()]).ok();
}

fn a_process_left_behind_is_seen(t: &Ctx) {
    t.host("sh", &["-c", "setsid sleep 100 & exit 0"]).ok();
}

fn a_namespace_left_behind_is_seen(t: &Ctx) {
    let file = t.scratch().join("net");
    fs::write(&file, "").expect("write a file");
    t.host("unshare", &[&format!("--net={}", file.display()), "true"]).ok();
}

fn a_cgroup_left_behind_is_seen(t: &Ctx) {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    let top = if hybrid.is_dir() { hybrid } else { Path::new("/sys/fs/cgroup") };
    if !top.join("cgroup.controllers").exists() {
        t.skip("no cgroup v2");
    }
    fs::create_dir(top.join(t.id())).expect("mkdir in cgroup v2");
}

fn a_v1_cgroup_left_behind_is_seen(t: &Ctx) {
    t.needs_cgroup_v1("pids");
    fs::create_dir(format!("/sys/fs/cgroup/pids/{}", t.id())).expect("mkdir in a v1 hierarchy");
}

fn a_state_file_left_behind_is_seen(t: &Ctx) {
    fs::create_dir(t.root().join("left")).expect("mkdir in the root");
}

fn a_file_left_in_run_is_seen(_: &Ctx) {
    fs::create_dir("/run/hearth").expect("mkdir in the worker's own /run");
}

fn a_temporary_file_left_behind_is_seen(_: &Ctx) {
    fs::write(std::env::temp_dir().join("left"), "").expect("write into TMPDIR");
}

fn nothing_is_seen_after_the_leaks_above(t: &Ctx) {
    t.host("true", &[]).ok();
}

//! Masked and read-only paths.

use std::fs;
use std::os::unix::fs::symlink;

use hearth_tests::{Ctx, cases, json};

cases! {
    settled:
        the_default_masked_paths_are_empty,
        a_masked_file_reads_as_empty,
        a_masked_directory_is_empty_and_read_only,
        a_masked_path_that_is_missing_is_passed_over,
        readonly_paths_refuse_writing,
        a_readonly_path_that_is_missing_is_passed_over,
        a_readonly_path_takes_its_submounts_along,
        masking_also_holds_for_exec,
        proc_sys_is_read_only_by_default,
        a_masked_path_wins_over_a_mount;
    newer:
        a_path_that_is_masked_twice_is_masked_once;
}

fn the_default_masked_paths_are_empty(t: &Ctx) {
    let script = "for f in kcore keys timer_list; do [ ! -e /proc/$f ] || wc -c < /proc/$f; done; ls /sys/firmware | wc -l";
    let out = t.sh(script, |_| {});
    assert!(out.lines().all(|line| line == "0"), "{out}");
}

fn a_masked_file_reads_as_empty(t: &Ctx) {
    let out = t.sh("cat /etc/passwd; stat -c '%F %t:%T' /etc/passwd", |c| {
        c.push("/linux/maskedPaths", "/etc/passwd")
    });
    assert_eq!(out, "character special file 1:3");
}

fn a_masked_directory_is_empty_and_read_only(t: &Ctx) {
    let out = t.sh("ls -A /etc; touch /etc/x 2>&1; stat -f -c %T /etc", |c| {
        c.writable();
        c.push("/linux/maskedPaths", "/etc");
    });
    assert!(
        out.contains("Read-only file system") && out.ends_with("tmpfs") && !out.contains("passwd"),
        "{out}"
    );
}

fn a_masked_path_that_is_missing_is_passed_over(t: &Ctx) {
    t.sh("true", |c| c.push("/linux/maskedPaths", "/no/such/path"));
}

fn readonly_paths_refuse_writing(t: &Ctx) {
    let out = t.run_sh("cat /etc/group | wc -l; touch /tmp/fine; echo x > /etc/group", |c| {
        c.writable();
        c.push("/linux/readonlyPaths", "/etc");
    });
    assert!(out.code != 0 && out.stdout == "3\n" && out.stderr.contains("Read-only"), "{out:?}");
}

fn a_readonly_path_that_is_missing_is_passed_over(t: &Ctx) {
    t.sh("true", |c| c.push("/linux/readonlyPaths", "/no/such/path"));
}

fn a_readonly_path_takes_its_submounts_along(t: &Ctx) {
    let out = t.sh("ls /etc/below", |c| {
        c.mount("/etc/below", "tmpfs", "tmpfs", &[]);
        c.push("/linux/readonlyPaths", "/etc");
    });
    assert_eq!(out, "");
}

fn masking_also_holds_for_exec(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.push("/linux/maskedPaths", "/etc/passwd");
    });
    c.up();
    assert_eq!(c.sh("cat /etc/passwd"), "");
}

fn proc_sys_is_read_only_by_default(t: &Ctx) {
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"] {
        let out = t.run_sh(&format!("[ -e {path} ] && echo x > {path}"), |_| {});
        assert_ne!(out.code, 0, "{path} was written: {out:?}");
    }
}

fn a_masked_path_wins_over_a_mount(t: &Ctx) {
    let dir = t.scratch();
    fs::write(dir.join("secret"), "secret").expect("write a file");
    symlink("secret", dir.join("link")).expect("symlink");
    let out = t.sh("cat /tmp/secret /tmp/link", |c| {
        c.bind(&dir, "/tmp", &["bind"]);
        c.set("/linux/maskedPaths", json!(["/tmp/secret"]));
    });
    assert_eq!(out, "");
}

fn a_path_that_is_masked_twice_is_masked_once(t: &Ctx) {
    let out =
        t.sh("grep -c ' /home ' /proc/mounts", |c| c.set("/linux/maskedPaths", json!(["/home", "/home"])));
    assert_eq!(out, "1");
}

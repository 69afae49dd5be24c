//! AppArmor profiles and SELinux labels. What a host with either does is seen in a VM; here, what one without says.

use std::path::Path;

use hearth_tests::{Ctx, cases};

cases! {
    settled:
        a_profile_without_apparmor_is_refused,
        a_label_without_selinux_is_refused,
        a_mount_label_without_selinux_is_refused;
    hearth:
        unconfined_is_what_a_process_is_without_apparmor,
        exec_is_refused_what_run_is;
}

fn needs_no(t: &Ctx, module: &str, file: &str) {
    if Path::new(file).exists() {
        t.skip(format!("this host has {module}"));
    }
}

fn needs_neither(t: &Ctx) {
    needs_no(t, "AppArmor", "/sys/kernel/security/apparmor");
    needs_no(t, "SELinux", "/sys/fs/selinux/enforce");
}

fn a_profile_without_apparmor_is_refused(t: &Ctx) {
    needs_neither(t);
    t.container(|c| c.set("/process/apparmorProfile", "a-profile")).run().refused("apparmor");
}

fn a_label_without_selinux_is_refused(t: &Ctx) {
    needs_neither(t);
    let label = "system_u:system_r:container_t:s0:c1,c2";
    t.container(|c| c.set("/process/selinuxLabel", label)).run().refused("selinux");
}

fn a_mount_label_without_selinux_is_refused(t: &Ctx) {
    needs_neither(t);
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    t.container(|c| c.set("/linux/mountLabel", label)).run().refused("context");
}

fn unconfined_is_what_a_process_is_without_apparmor(t: &Ctx) {
    needs_neither(t);
    assert_eq!(t.sh("echo ran", |c| c.set("/process/apparmorProfile", "unconfined")), "ran");
}

fn exec_is_refused_what_run_is(t: &Ctx) {
    needs_neither(t);
    let c = t.sleeper();
    c.up();
    c.exec_with(&["--apparmor", "a-profile"], &["true"]).refused("apparmor not supported");
    c.exec_with(&["--process-label", "a:b:c:s0"], &["true"]).refused("selinux is disabled");
    c.exec_with(&["--apparmor", "unconfined"], &["true"]).ok();
}

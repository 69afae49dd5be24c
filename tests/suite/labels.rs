//! AppArmor profiles and SELinux labels: taken on where the host knows them (`scripts/test vm` boots such hosts), refused
//! where it does not.

use std::fs;
use std::path::Path;

use hearth_tests::{Config, Ctx, cases};

cases! {
    settled:
        a_profile_without_apparmor_is_refused,
        a_label_without_selinux_is_refused,
        a_mount_label_without_selinux_is_refused,
        a_profile_confines_the_program,
        a_profile_holds_for_exec_too,
        exec_takes_a_profile_of_its_own,
        a_profile_that_is_not_loaded_fails_create,
        a_label_is_taken_on_at_exec,
        exec_takes_a_label_of_its_own,
        a_label_that_is_none_fails_create,
        the_mount_label_is_that_of_the_containers_mounts;
    hearth:
        unconfined_is_what_a_process_is_without_apparmor,
        exec_is_refused_what_run_is;
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn needs_neither(t: &Ctx) {
    if has_apparmor() || has_selinux() {
        t.skip("this host has AppArmor or SELinux");
    }
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

// ---- AppArmor

/// A profile in the kernel, which goes with the case.
struct Profile<'t> {
    name: String,
    file: String,
    t: &'t Ctx,
}

impl Drop for Profile<'_> {
    fn drop(&mut self) {
        self.t.host("apparmor_parser", &["--remove", &self.file]);
    }
}

/// Everything is allowed but to read `/etc/group`.
fn profile(t: &Ctx) -> Profile<'_> {
    if !has_apparmor() {
        t.skip("this host has no AppArmor");
    }
    t.needs_tool("apparmor_parser");
    let name = format!("{}-profile", t.id());
    let file = t.scratch().join("profile");
    let allowed = "capability, file, mount, network, ptrace, signal, umount, deny /etc/group r,";
    fs::write(&file, format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {allowed} }}\n"))
        .expect("write a profile");
    let file = file.to_string_lossy().into_owned();
    t.host("apparmor_parser", &["--replace", "--skip-cache", &file]).ok();
    Profile { name, file, t }
}

const PROBE: &str =
    "cat /proc/self/attr/current; cat /etc/passwd >/dev/null && cat /etc/group || echo denied";

fn a_profile_confines_the_program(t: &Ctx) {
    let profile = profile(t);
    let out = t.sh(PROBE, |c| c.set("/process/apparmorProfile", profile.name.as_str()));
    assert_eq!(out, format!("{} (enforce)\ndenied", profile.name));
}

fn a_profile_holds_for_exec_too(t: &Ctx) {
    let profile = profile(t);
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/process/apparmorProfile", profile.name.as_str());
    });
    c.up();
    assert_eq!(c.sh(PROBE), format!("{} (enforce)\ndenied", profile.name));
}

fn exec_takes_a_profile_of_its_own(t: &Ctx) {
    let profile = profile(t);
    let c = t.sleeper();
    c.up();
    assert!(c.sh(PROBE).starts_with("unconfined\nroot:"));
    let out = c.exec_with(&["--apparmor", &profile.name], &["sh", "-c", PROBE]).ok();
    assert_eq!(out.text(), format!("{} (enforce)\ndenied", profile.name));
    assert_ne!(c.exec_with(&["--apparmor", "not-loaded"], &["true"]).code, 0);
}

fn a_profile_that_is_not_loaded_fails_create(t: &Ctx) {
    if !has_apparmor() {
        t.skip("this host has no AppArmor");
    }
    t.container(|c| c.set("/process/apparmorProfile", "not-loaded")).create().refused("apparmor");
}

// ---- SELinux

/// A label that Debian's policy knows, for the process and for what it mounts.
const PROCESS: &str = "system_u:system_r:initrc_t:s0";
const FILES: &str = "system_u:object_r:tmp_t:s0";

fn needs_selinux(t: &Ctx) {
    if !has_selinux() {
        t.skip("this host has no SELinux");
    }
}

fn labelled(c: &mut Config) {
    c.set("/process/selinuxLabel", PROCESS);
}

fn a_label_is_taken_on_at_exec(t: &Ctx) {
    needs_selinux(t);
    let out = t.sh("cat /proc/self/attr/current", labelled);
    assert_eq!(out.trim_end_matches('\0'), PROCESS);
}

fn exec_takes_a_label_of_its_own(t: &Ctx) {
    needs_selinux(t);
    let c = t.sleeper();
    c.up();
    let out = c.exec_with(&["--process-label", PROCESS], &["cat", "/proc/self/attr/current"]).ok();
    assert_eq!(out.text().trim_end_matches('\0'), PROCESS);
}

fn a_label_that_is_none_fails_create(t: &Ctx) {
    needs_selinux(t);
    assert_ne!(t.container(|c| c.set("/process/selinuxLabel", "no:such:label:s0")).create().code, 0);
}

fn the_mount_label_is_that_of_the_containers_mounts(t: &Ctx) {
    needs_selinux(t);
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        labelled(c);
        c.set("/linux/mountLabel", FILES);
    });
    c.up();
    for place in ["dev/shm", "dev/mqueue"] {
        let path = format!("/proc/{}/root/{place}", c.pid());
        let mut label = [0; 256];
        let length = rustix::fs::getxattr(&path, "security.selinux", &mut label).expect("a label");
        let label = String::from_utf8_lossy(&label[..length]);
        assert_eq!(label.trim_end_matches('\0'), FILES, "{place}");
    }
}

//! cgroups on v1 or hybrid hosts, and what needs no version (v2's own: `cgroups_v2`): where the container is, what its limits are, `update`, `pause` and `events`.

use std::fs;
use std::path::Path;

use hearth_tests::context::eventually;
use hearth_tests::{Config, Container, Ctx, cases, json};

cases! {
    settled:
        the_container_has_a_cgroup_of_its_own,
        memory_limits_are_written,
        the_memory_limit_kills,
        cpu_limits_are_written,
        the_pids_limit_is_written_and_holds,
        cpusets_are_written,
        an_absolute_cgroups_path_is_below_the_hierarchy,
        a_relative_cgroups_path_is_used,
        a_nested_cgroups_path_is_used,
        a_cgroups_path_with_dotdot_stays_in_the_hierarchy,
        the_cgroup_goes_with_the_container,
        a_limit_that_the_kernel_refuses_fails_create,
        pause_stops_and_resume_continues,
        exec_in_a_paused_container_is_refused,
        exec_ignores_the_pause_when_asked,
        a_paused_container_can_be_deleted_by_force,
        a_paused_container_killed_dies,
        pause_of_a_stopped_container_is_refused,
        resume_of_a_running_container_is_refused,
        update_changes_limits_by_flags,
        update_reads_resources_from_a_file,
        update_reads_resources_from_standard_input,
        update_of_an_unknown_container_is_refused,
        events_stats_gives_one_json_object,
        kill_all_reaches_every_process;
    newer:
        a_cgroup_that_is_in_use_is_refused_and_left_alone,
        a_frozen_cgroup_is_refused;
}

fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn memory_limit(c: &Container<'_>) -> String {
    let dir = c.cgroup_of("memory");
    read(&dir, if dir.join("memory.max").exists() { "memory.max" } else { "memory.limit_in_bytes" })
}

fn limited(t: &Ctx, edit: impl FnOnce(&mut Config)) -> Container<'_> {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        edit(c);
    });
    c.up();
    c
}

fn the_container_has_a_cgroup_of_its_own(t: &Ctx) {
    t.needs_cgroup_v1("pids");
    let c = limited(t, |_| {});
    for controller in ["cpu", "memory", "pids", "devices", "freezer"] {
        let dir = c.cgroup_v1(controller);
        assert!(dir.ends_with(&c.id), "{}", dir.display());
        assert_eq!(read(&dir, "cgroup.procs"), c.pid().to_string(), "{controller}");
    }
}

fn memory_limits_are_written(t: &Ctx) {
    t.needs_cgroup_v1("memory");
    let c = limited(t, |c| {
        c.set(
            "/linux/resources/memory",
            json!({"limit": 67_108_864, "reservation": 33_554_432, "swappiness": 10}),
        );
    });
    let dir = c.cgroup_v1("memory");
    assert_eq!(read(&dir, "memory.limit_in_bytes"), "67108864");
    assert_eq!(read(&dir, "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(read(&dir, "memory.swappiness"), "10");
}

fn the_memory_limit_kills(t: &Ctx) {
    t.needs_controller("memory");
    let out = t.run_sh("head -c 100m /dev/zero | tail", |c| {
        c.set("/linux/resources/memory", json!({"limit": 16_777_216}));
    });
    assert!(
        out.code != 0 && (out.code == 137 || out.stderr.contains("Killed") || out.stderr.is_empty()),
        "{out:?}"
    );
}

fn cpu_limits_are_written(t: &Ctx) {
    t.needs_cgroup_v1("cpu");
    let c = limited(t, |c| {
        c.set("/linux/resources/cpu", json!({"shares": 512, "quota": 20000, "period": 50000}));
    });
    let dir = c.cgroup_v1("cpu");
    assert_eq!(read(&dir, "cpu.shares"), "512");
    assert_eq!(read(&dir, "cpu.cfs_quota_us"), "20000");
    assert_eq!(read(&dir, "cpu.cfs_period_us"), "50000");
}

fn the_pids_limit_is_written_and_holds(t: &Ctx) {
    t.needs_controller("pids");
    let c = limited(t, |c| c.set("/linux/resources/pids", json!({"limit": 20})));
    assert_eq!(read(&c.cgroup_of("pids"), "pids.max"), "20");
    let out = c.exec(&["sh", "-c", "for i in $(seq 40); do sleep 1 & done; wait"]);
    assert!(out.code != 0 && out.stderr.contains("fork"), "{out:?}");
}

fn cpusets_are_written(t: &Ctx) {
    t.needs_cgroup_v1("cpuset");
    let c = limited(t, |c| c.set("/linux/resources/cpu", json!({"cpus": "0", "mems": "0"})));
    let dir = c.cgroup_v1("cpuset");
    assert_eq!((read(&dir, "cpuset.cpus").as_str(), read(&dir, "cpuset.mems").as_str()), ("0", "0"));
    assert!(c.sh("cat /proc/self/status").contains("Cpus_allowed_list:\t0\n"));
}

fn an_absolute_cgroups_path_is_below_the_hierarchy(t: &Ctx) {
    t.needs_cgroup_v1("pids");
    let name = t.id();
    let c = limited(t, |c| c.set("/linux/cgroupsPath", format!("/{name}")));
    assert_eq!(c.cgroup_v1("pids"), Path::new("/sys/fs/cgroup/pids").join(&name));
    assert_eq!(c.cgroup_v1("memory"), Path::new("/sys/fs/cgroup/memory").join(&name));
}

fn a_relative_cgroups_path_is_used(t: &Ctx) {
    t.needs_cgroup_v1("pids");
    let name = t.id();
    let c = limited(t, |c| c.set("/linux/cgroupsPath", name.as_str()));
    assert!(c.cgroup_v1("memory").ends_with(&name));
    assert!(c.cgroup_v1("memory").is_dir());
}

fn a_nested_cgroups_path_is_used(t: &Ctx) {
    t.needs_cgroup_v1("pids");
    let name = t.id();
    let c = limited(t, |c| c.set("/linux/cgroupsPath", format!("/{name}/deep/er")));
    assert_eq!(c.cgroup_v1("pids"), Path::new("/sys/fs/cgroup/pids").join(&name).join("deep/er"));
    c.verb("delete", &["--force"], &[]).run().ok();
    assert!(!Path::new("/sys/fs/cgroup/pids").join(&name).join("deep/er").exists());
    if !t.is_hearth() {
        // runc leaves the parents that it made.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            for below in ["deep", ""] {
                let _ = fs::remove_dir(hierarchy.path().join(&name).join(below));
            }
        }
    }
}

fn a_cgroups_path_with_dotdot_stays_in_the_hierarchy(t: &Ctx) {
    t.needs_cgroup_v1("pids");
    let name = t.id();
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        c.set("/linux/cgroupsPath", format!("/../../../{name}"));
    });
    let out = c.launch("run", &["--detach"]).run();
    // Refusing it is as good as cleaning it.
    if out.code == 0 {
        assert_eq!(c.cgroup_v1("pids"), Path::new("/sys/fs/cgroup/pids").join(&name));
    }
}

fn the_cgroup_goes_with_the_container(t: &Ctx) {
    t.needs_controller("pids");
    let c = limited(t, |_| {});
    let dir = c.cgroup_of("pids");
    c.verb("delete", &["--force"], &[]).run().ok();
    assert!(!dir.exists());
}

fn a_limit_that_the_kernel_refuses_fails_create(t: &Ctx) {
    t.needs_controller("cpuset");
    let c = t.container(|c| c.set("/linux/resources/cpu", json!({"cpus": "4000"})));
    c.run().refused("cpuset");
    let c = t.container(|c| c.set("/linux/resources/cpu", json!({"period": 1})));
    c.run().refused("cpu");
}

fn counting(t: &Ctx) -> Container<'_> {
    let c = t.container(|c| {
        c.mount("/tmp", "tmpfs", "tmpfs", &[]);
        c.args(&[
            "sh",
            "-c",
            "n=0; while :; do n=$((n+1)); echo $n > /tmp/.n; mv /tmp/.n /tmp/n; sleep 0.01; done",
        ]);
    });
    c.up();
    c
}

fn count(c: &Container<'_>) -> Option<u64> {
    let path = format!("/proc/{}/root/tmp/n", c.pid());
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn pause_stops_and_resume_continues(t: &Ctx) {
    let c = counting(t);
    eventually("the first count", || count(&c));
    c.verb("pause", &[], &[]).run().ok();
    assert_eq!(c.status(), "paused");
    let before = count(&c);
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert_eq!(count(&c), before, "it counts on");
    c.verb("resume", &[], &[]).run().ok();
    assert_eq!(c.status(), "running");
    eventually("counting again", || (count(&c) > before).then_some(()));
}

fn exec_in_a_paused_container_is_refused(t: &Ctx) {
    let c = limited(t, |_| {});
    c.verb("pause", &[], &[]).run().ok();
    c.exec(&["true"]).fails(255, "cannot exec in a paused container");
}

fn exec_ignores_the_pause_when_asked(t: &Ctx) {
    let c = limited(t, |_| {});
    c.verb("pause", &[], &[]).run().ok();
    let mut run = c.verb("exec", &["--ignore-paused"], &["true"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert!(!run.is_over(), "it ran in a frozen cgroup");
    c.verb("resume", &[], &[]).run().ok();
    run.finish().ok();
}

fn a_paused_container_can_be_deleted_by_force(t: &Ctx) {
    let c = limited(t, |_| {});
    c.verb("pause", &[], &[]).run().ok();
    c.verb("delete", &["--force"], &[]).run().ok();
}

fn a_paused_container_killed_dies(t: &Ctx) {
    let c = limited(t, |_| {});
    c.verb("pause", &[], &[]).run().ok();
    c.kill("KILL").ok();
    // On v1 a frozen process dies when it thaws, which runc does for it.
    c.wait_until("stopped");
}

fn pause_of_a_stopped_container_is_refused(t: &Ctx) {
    let c = t.container(|c| c.args(&["true"]));
    c.up();
    c.wait_until("stopped");
    c.verb("pause", &[], &[]).run().refused("not running");
}

fn resume_of_a_running_container_is_refused(t: &Ctx) {
    let c = limited(t, |_| {});
    c.verb("resume", &[], &[]).run().refused("not paused");
}

fn update_changes_limits_by_flags(t: &Ctx) {
    t.needs_cgroup_v1("memory");
    let c = limited(t, |c| c.set("/linux/resources/memory", json!({"limit": 67_108_864})));
    let flags = [
        "--memory",
        "33554432",
        "--pids-limit",
        "33",
        "--cpu-share",
        "333",
        "--cpu-quota",
        "30000",
        "--cpu-period",
        "60000",
    ];
    c.verb("update", &flags, &[]).run().ok();
    assert_eq!(read(&c.cgroup_v1("memory"), "memory.limit_in_bytes"), "33554432");
    assert_eq!(read(&c.cgroup_v1("pids"), "pids.max"), "33");
    let cpu = c.cgroup_v1("cpu");
    assert_eq!(read(&cpu, "cpu.shares"), "333");
    assert_eq!(read(&cpu, "cpu.cfs_quota_us"), "30000");
    assert_eq!(read(&cpu, "cpu.cfs_period_us"), "60000");
}

fn update_reads_resources_from_a_file(t: &Ctx) {
    t.needs_controller("memory");
    let c = limited(t, |_| {});
    let file = t.scratch().join("resources.json");
    fs::write(&file, json!({"pids": {"limit": 44}, "memory": {"limit": 50_331_648}}).to_string())
        .expect("write");
    c.verb("update", &["--resources", &file.to_string_lossy()], &[]).run().ok();
    assert_eq!(read(&c.cgroup_of("pids"), "pids.max"), "44");
    assert_eq!(memory_limit(&c), "50331648");
}

fn update_reads_resources_from_standard_input(t: &Ctx) {
    t.needs_controller("pids");
    let c = limited(t, |_| {});
    c.verb("update", &["-r", "-"], &[]).stdin(b"{\"pids\": {\"limit\": 55}}").run().ok();
    assert_eq!(read(&c.cgroup_of("pids"), "pids.max"), "55");
}

fn update_of_an_unknown_container_is_refused(t: &Ctx) {
    t.rt(&["update", "--pids-limit", "5", &t.id()]).fails(1, "container does not exist");
}

fn events_stats_gives_one_json_object(t: &Ctx) {
    t.needs_cgroup_v1("memory");
    let c = limited(t, |c| c.set("/linux/resources/memory", json!({"limit": 67_108_864})));
    let event = c.verb("events", &["--stats"], &[]).run().ok().json();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(c.id)));
    let data = &event["data"];
    assert!(data["memory"]["usage"]["usage"].as_u64() > Some(0), "{event}");
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(data["pids"]["current"], 1);
    assert!(data["cpu"]["usage"]["total"].as_u64() > Some(0), "{event}");
}

fn a_cgroup_that_is_in_use_is_refused_and_left_alone(t: &Ctx) {
    let path = format!("/{}", t.id());
    let c = limited(t, |c| c.set("/linux/cgroupsPath", json!(path)));
    let out = c.sibling().launch("run", &["--detach"]).run();
    assert!(out.code != 0 && out.stderr.contains("not empty"), "{out:?}");
    assert_eq!(c.status(), "running", "a failed create takes its own back, nobody else's");
    c.exec(&["true"]).ok();
}

fn kill_all_reaches_every_process(t: &Ctx) {
    let c = limited(t, |c| c.no_namespace("pid"));
    c.exec_with(&["--detach"], &["sleep", "70"]).ok();
    c.exec_with(&["--detach"], &["sleep", "71"]).ok();
    c.verb("kill", &["--all"], &["KILL"]).run().ok();
    c.wait_until("stopped");
    eventually("all of them to die", || {
        let pids = t.rt(&["ps", "--format", "json", &c.id]);
        (pids.code != 0 || pids.json().as_array().is_none_or(Vec::is_empty)).then_some(())
    });
}

fn a_frozen_cgroup_is_refused(t: &Ctx) {
    t.needs_cgroup_v1("freezer");
    let name = t.id();
    let dir = Path::new("/sys/fs/cgroup/freezer").join(&name);
    fs::create_dir(&dir).expect("mkdir a group");
    fs::write(dir.join("freezer.state"), "FROZEN").expect("freeze the empty group");
    let out = t.container(|c| c.set("/linux/cgroupsPath", format!("/{name}"))).create();
    let _ = fs::remove_dir(&dir);
    out.refused("container's cgroup unexpectedly frozen");
}

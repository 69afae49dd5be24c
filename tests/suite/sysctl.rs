//! Kernel parameters: those of the container's own namespaces only.

use hearth_tests::{Ctx, cases, json};

cases! {
    settled:
        network_parameters_are_set,
        ipc_parameters_are_set,
        the_hosts_values_stay,
        a_network_parameter_without_a_network_namespace_is_refused,
        an_ipc_parameter_without_an_ipc_namespace_is_refused,
        a_parameter_of_the_whole_kernel_is_refused,
        a_parameter_with_dotdot_is_refused,
        a_parameter_that_does_not_exist_is_refused,
        a_hostname_by_sysctl_is_refused;
    newer:
        counts_of_a_user_namespace_are_set,
        counts_of_the_callers_user_namespace_are_refused;
}

fn network_parameters_are_set(t: &Ctx) {
    let out = t.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range", |c| {
        c.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "net.ipv4.ping_group_range": "0 1000"}));
    });
    assert_eq!(out, "1\n0\t1000");
}

fn ipc_parameters_are_set(t: &Ctx) {
    let out = t.sh("cat /proc/sys/kernel/shmmni /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max", |c| {
        c.set(
            "/linux/sysctl",
            json!({"kernel.shmmni": "2048", "kernel.msgmax": "4096", "fs.mqueue.msg_max": "20"}),
        );
    });
    assert_eq!(out, "2048\n4096\n20");
}

fn the_hosts_values_stay(t: &Ctx) {
    let read = || std::fs::read_to_string("/proc/sys/kernel/shmmni").expect("procfs");
    let before = read();
    t.sh("true", |c| c.set("/linux/sysctl", json!({"kernel.shmmni": "1234"})));
    assert_eq!(read(), before);
}

fn a_network_parameter_without_a_network_namespace_is_refused(t: &Ctx) {
    let c = t.container(|c| {
        c.no_namespace("network");
        c.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    });
    c.run().refused("net.ipv4.ip_forward");
}

fn an_ipc_parameter_without_an_ipc_namespace_is_refused(t: &Ctx) {
    let c = t.container(|c| {
        c.no_namespace("ipc");
        c.set("/linux/sysctl", json!({"kernel.shmmni": "1"}));
    });
    c.run().refused("kernel.shmmni");
}

fn refused(t: &Ctx, name: &str) {
    let c = t.container(|c| c.set("/linux/sysctl", json!({name: "1"})));
    c.run().refused(name);
}

fn a_parameter_of_the_whole_kernel_is_refused(t: &Ctx) {
    refused(t, "kernel.panic");
    refused(t, "vm.overcommit_memory");
}

fn a_parameter_with_dotdot_is_refused(t: &Ctx) {
    for name in ["net/../kernel/panic", "net.../kernel/panic"] {
        let c = t.container(|c| c.set("/linux/sysctl", json!({name: "1"})));
        assert_ne!(c.run().code, 0, "{name} was accepted");
    }
}

fn a_parameter_that_does_not_exist_is_refused(t: &Ctx) {
    let c = t.container(|c| c.set("/linux/sysctl", json!({"net.no_such_parameter": "1"})));
    c.run().refused("no such file or directory");
}

fn a_hostname_by_sysctl_is_refused(t: &Ctx) {
    // The config has a field for it.
    refused(t, "kernel.hostname");
}

fn counts_of_a_user_namespace_are_set(t: &Ctx) {
    let out = t.sh("cat /proc/sys/user/max_net_namespaces", |c| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        c.set("/linux/uidMappings", map.clone());
        c.set("/linux/gidMappings", map);
        c.namespace("user", None);
        c.set("/linux/sysctl", json!({"user.max_net_namespaces": "3"}));
    });
    assert_eq!(out, "3");
}

fn counts_of_the_callers_user_namespace_are_refused(t: &Ctx) {
    let c = t.container(|c| c.set("/linux/sysctl", json!({"user.max_net_namespaces": "3"})));
    c.run().refused("user.max_net_namespaces");
}

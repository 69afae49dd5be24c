//! `linux.netDevices`: each case has a network namespace of its own as the runtime's, with a veth pair in it.

use hearth_tests::{Config, Container, Ctx, Out, cases, json};

cases! {
    newer:
        a_device_becomes_the_containers_with_its_addresses,
        a_device_gets_the_name_asked_for,
        a_device_of_the_same_name_there_is_refused,
        a_device_that_is_missing_is_refused,
        devices_without_a_network_namespace_are_refused,
        a_joined_namespace_gets_the_device,
        a_name_that_is_none_is_refused;
    hearth:
        ipv6_addresses_come_too;
}

/// Runs the container with `veth0` and `veth1` beside it.
fn run(t: &Ctx, c: &Container<'_>) -> Out {
    t.needs_tool("ip");
    let script = "ip link add veth0 type veth peer name veth1 && \
        ip addr add 10.77.0.2/24 dev veth0 && ip addr add 10.78.0.2/32 dev veth0 && \
        ip addr add fd77::2/64 dev veth0 nodad && ip link set veth0 mtu 1400 up && ip link set veth1 up && \
        exec \"$0\" \"$@\"";
    c.launch("run", &[]).wrap(&["unshare", "--net", "sh", "-c", script]).run()
}

fn container<'t>(t: &'t Ctx, script: &str, edit: impl FnOnce(&mut Config)) -> Container<'t> {
    t.container(|c| {
        c.args(&["sh", "-c", script]);
        edit(c);
    })
}

fn a_device_becomes_the_containers_with_its_addresses(t: &Ctx) {
    let c = container(t, "ip addr show veth0", |c| c.set("/linux/netDevices", json!({"veth0": {}})));
    let out = run(t, &c).ok();
    for wanted in ["inet 10.77.0.2/24", "inet 10.78.0.2/32", "mtu 1400", "UP"] {
        assert!(out.stdout.contains(wanted), "no {wanted}: {out:?}");
    }
}

fn a_device_gets_the_name_asked_for(t: &Ctx) {
    let devices = json!({"veth0": {"name": "ctr0"}, "veth1": {"name": "veth0"}});
    let c = container(t, "ip addr show ctr0; cat /sys/class/net/veth0/operstate", |c| {
        c.set("/linux/netDevices", devices)
    });
    let out = run(t, &c);
    assert!(out.stdout.contains("inet 10.77.0.2/24") && out.stdout.ends_with("up\n"), "{out:?}");
}

fn a_device_of_the_same_name_there_is_refused(t: &Ctx) {
    let c = container(t, "true", |c| c.set("/linux/netDevices", json!({"veth0": {"name": "lo"}})));
    assert_ne!(run(t, &c).code, 0);
}

fn a_device_that_is_missing_is_refused(t: &Ctx) {
    let c = container(t, "true", |c| c.set("/linux/netDevices", json!({"nosuch0": {}})));
    let out = run(t, &c);
    assert!(out.code != 0 && out.stderr.contains("nosuch0"), "{out:?}");
}

fn devices_without_a_network_namespace_are_refused(t: &Ctx) {
    let c = container(t, "true", |c| {
        c.set("/linux/netDevices", json!({"veth0": {}}));
        c.no_namespace("network");
    });
    c.run().refused("net");
}

fn a_joined_namespace_gets_the_device(t: &Ctx) {
    let first = t.sleeper();
    first.up();
    let path = format!("/proc/{}/ns/net", first.pid());
    // The pair ends with the other end's namespace, so it is looked at while this container lives.
    let c = container(t, "readlink /proc/self/ns/net; ip addr show given0", |c| {
        c.set("/linux/netDevices", json!({"veth0": {"name": "given0"}}));
        c.namespace("network", Some(&path));
    });
    let out = run(t, &c).ok();
    assert!(out.stdout.contains("inet 10.77.0.2/24"), "{out:?}");
    assert!(out.stdout.starts_with(&first.sh("readlink /proc/self/ns/net")), "{out:?}");
}

fn a_name_that_is_none_is_refused(t: &Ctx) {
    for name in ["a/b", "a b", "..", "a-name-of-more-than-16"] {
        let c = container(t, "true", |c| c.set("/linux/netDevices", json!({"veth0": {"name": name}})));
        c.run().refused(name);
    }
}

/// runc takes the device down first, and the kernel forgets them then.
fn ipv6_addresses_come_too(t: &Ctx) {
    let c = container(t, "ip addr show veth0", |c| c.set("/linux/netDevices", json!({"veth0": {}})));
    let out = run(t, &c).ok();
    assert!(out.stdout.contains("inet6 fd77::2/64"), "{out:?}");
}

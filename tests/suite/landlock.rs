//! Landlock rules by annotation, which no other runtime has.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use hearth_tests::{Config, Ctx, Out, cases};

cases! {
    hearth:
        only_what_is_listed_may_be_read,
        only_what_is_listed_may_be_written,
        only_what_is_listed_may_be_executed,
        a_file_alone_may_be_listed,
        an_empty_list_allows_nothing,
        kinds_without_a_rule_stay_as_they_are,
        tcp_ports_are_the_listed_ones,
        signals_stay_within,
        abstract_sockets_stay_within,
        the_rules_hold_without_no_new_privileges,
        an_exec_has_the_rules_too,
        a_path_that_is_missing_is_refused,
        what_is_not_understood_is_refused;
}

fn rule(c: &mut Config, key: &str, value: &str) {
    let annotations = &mut c.0["annotations"];
    annotations[format!("org.hearth.landlock.{key}")] = value.into();
}

/// Runs a script as root on a writable root with these rules.
fn sh(t: &Ctx, script: &str, rules: &[(&str, &str)]) -> Out {
    let out = t.run_sh(script, |c| {
        c.writable();
        rules.iter().for_each(|(key, value)| rule(c, key, value));
    });
    if out.stderr.contains("expected a kernel with landlock ABI") {
        t.skip("this kernel's landlock is too old");
    }
    out
}

fn denied(out: &Out) {
    assert!(out.code != 0 && out.stderr.contains("ermission denied"), "{out:?}");
}

fn only_what_is_listed_may_be_read(t: &Ctx) {
    let rules = [("read", "/bin:/etc")];
    assert!(sh(t, "cat /etc/passwd; ls /bin", &rules).ok().stdout.starts_with("root:"));
    denied(&sh(t, "cat /proc/version", &rules));
    denied(&sh(t, "ls /", &rules));
    denied(&sh(t, "cat /etc/../proc/version", &rules));
    // A link leads no further than its end may be read.
    denied(&sh(t, "ln -s /proc/version /etc/link && cat /etc/link", &rules));
}

fn only_what_is_listed_may_be_written(t: &Ctx) {
    let rules = [("write", "/tmp:/dev")];
    sh(t, "echo a > /tmp/a && mkdir -p /tmp/d/e && mv /tmp/a /tmp/d/e/b && rm -r /tmp/d", &rules).ok();
    for script in [
        "echo x > /home/x",
        "echo x >> /etc/passwd",
        "rm /etc/passwd",
        "mkdir /home/d",
        "mv /etc/passwd /tmp/",
        "ln /etc/passwd /tmp/p && echo x > /tmp/p",
        "truncate -s 0 /etc/passwd",
        "mknod /home/null c 1 3",
        "ln -s a /home/link",
    ] {
        let out = sh(t, script, &rules);
        assert_ne!(out.code, 0, "{script}: {out:?}");
        assert_eq!(
            sh(t, &format!("{script}; ls /home; head -c 5 /etc/passwd"), &rules).stdout,
            "alice\nroot:"
        );
    }
}

fn only_what_is_listed_may_be_executed(t: &Ctx) {
    let rules = [("execute", "/bin")];
    assert_eq!(sh(t, "cat /etc/passwd | head -n 1 | cut -c 1-4", &rules).ok().text(), "root");
    denied(&sh(t, "cp /bin/busybox /tmp/busybox && /tmp/busybox true", &rules));
}

fn a_file_alone_may_be_listed(t: &Ctx) {
    let rules = [("read", "/bin:/etc/passwd"), ("execute", "/bin/busybox")];
    assert_eq!(sh(t, "head -c 4 /etc/passwd", &rules).ok().stdout, "root");
    denied(&sh(t, "cat /etc/group", &rules));
}

fn an_empty_list_allows_nothing(t: &Ctx) {
    denied(&sh(t, "echo x > /tmp/x", &[("write", "")]));
    denied(&sh(t, "echo x > /dev/null", &[("write", "")]));
    // The program itself may be executed and, with that, read.
    denied(&sh(t, "cat /etc/passwd", &[("read", ""), ("execute", "/bin")]));
}

fn kinds_without_a_rule_stay_as_they_are(t: &Ctx) {
    let script = "mkdir /tmp/a /tmp/b && echo x > /tmp/a/x && mv /tmp/a/x /tmp/b/ && ln /tmp/b/x /tmp/a/x && cat /tmp/a/x";
    for rules in [&[("read", "/")][..], &[("bind-tcp", "")], &[("scope", "signal")], &[("execute", "/")]] {
        assert_eq!(sh(t, script, rules).ok().text(), "x", "{rules:?}");
    }
}

fn tcp_ports_are_the_listed_ones(t: &Ctx) {
    let talk = |port: u32| {
        format!(
            "nc -l -p {port} -e echo hello & sleep 0.3; nc 127.0.0.1 {port} < /dev/null; code=$?; kill %1; exit $code"
        )
    };
    assert_eq!(sh(t, &talk(8080), &[("connect-tcp", "1,8080"), ("bind-tcp", "8080")]).stdout, "hello\n");
    denied(&sh(t, &talk(8080), &[("connect-tcp", "8081")]));
    let out = sh(t, "nc -l -p 8080 -e echo hello", &[("bind-tcp", "8081")]);
    denied(&out);
}

fn signals_stay_within(t: &Ctx) {
    let up = |rules: &[(&str, &str)]| {
        let c = t.container(|c| {
            c.args(&["sleep", "100"]);
            rules.iter().for_each(|(key, value)| rule(c, key, value));
        });
        c.up();
        c.exec(&["kill", "-0", "1"]).code
    };
    assert_eq!(up(&[]), 0);
    // What joins is a domain of its own.
    assert_ne!(up(&[("scope", "signal")]), 0);
    assert_eq!(sh(t, "sleep 100 & kill $!; wait $!; echo $?", &[("scope", "signal")]).ok().text(), "143");
}

fn abstract_sockets_stay_within(t: &Ctx) {
    let name = t.id();
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let _listener = UnixListener::bind_addr(&address).expect("bind an abstract socket");
    let connect = |rules: &[(&str, &str)]| {
        let c = t.container(|c| {
            c.no_namespace("network");
            c.0["mounts"]
                .as_array_mut()
                .expect("mounts")
                .retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
            c.args(&["/probe", "connect", &name]);
            rules.iter().for_each(|(key, value)| rule(c, key, value));
        });
        hearth_tests::bundle::install(Path::new(env!("CARGO_BIN_EXE_probe")), &c.rootfs("probe"));
        c.run().text().to_owned()
    };
    assert_eq!(connect(&[]), "connected");
    assert_eq!(connect(&[("scope", "abstract-unix-socket")]), "Operation not permitted (os error 1)");
}

fn the_rules_hold_without_no_new_privileges(t: &Ctx) {
    let out = t.run_sh("grep NoNewPrivs /proc/self/status; id -u; cat /etc/passwd", |c| {
        c.set("/process/noNewPrivileges", false);
        c.set("/process/user/uid", 1000);
        rule(c, "read", "/bin:/proc");
    });
    denied(&out);
    assert_eq!(out.stdout.replace('\t', " "), "NoNewPrivs: 0\n1000\n");
}

fn an_exec_has_the_rules_too(t: &Ctx) {
    let c = t.container(|c| {
        c.args(&["sleep", "100"]);
        rule(c, "read", "/bin");
    });
    c.up();
    denied(&c.exec(&["cat", "/etc/passwd"]));
    c.exec(&["ls", "/bin"]).ok();
}

fn a_path_that_is_missing_is_refused(t: &Ctx) {
    sh(t, "true", &[("read", "/bin:/no/such/path")]).refused("org.hearth.landlock.read: /no/such/path");
}

fn what_is_not_understood_is_refused(t: &Ctx) {
    for (key, value) in [
        ("raed", "/"),
        ("read", "bin"),
        ("connect-tcp", "http"),
        ("bind-tcp", "65536"),
        ("scope", "everything"),
    ] {
        sh(t, "true", &[(key, value)]).refused(&format!("org.hearth.landlock.{key}"));
    }
}

use super::*;

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
33 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 31 0:39 / /sys/fs/cgroup/openrc rw - cgroup cgroup rw,name=openrc
36 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
37 31 0:32 / /mnt/with\\040blank rw - cgroup cgroup rw,memory
";

fn named(host: &Host) -> Vec<(String, &str, &str)> {
    host.v1
        .iter()
        .map(|h| (h.controllers.join(","), h.mount.to_str().unwrap(), h.root.to_str().unwrap()))
        .collect()
}

#[test]
fn hierarchies_are_found_with_their_roots() {
    let host = parse_mountinfo(HYBRID);
    assert_eq!(host.mode(), Mode::Hybrid);
    assert_eq!(
        named(&host),
        [
            ("cpu,cpuacct".to_owned(), "/sys/fs/cgroup/cpu,cpuacct", "/"),
            ("memory".to_owned(), "/sys/fs/cgroup/memory", "/docker/abc"),
            ("name=systemd".to_owned(), "/sys/fs/cgroup/systemd", "/"),
        ]
    );
}

#[test]
fn a_later_mount_hides_those_below() {
    let hidden = format!("{HYBRID}40 31 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n");
    assert_eq!(
        named(&parse_mountinfo(&hidden)).len(),
        1,
        "only the one in /mnt is left, of those that came before"
    );
}

#[test]
fn escaped_mount_points_are_read() {
    let line = "37 31 0:32 / /mnt/a\\040b\\134c rw - cgroup cgroup rw,memory\n";
    assert_eq!(parse_mountinfo(line).v1[0].mount, Path::new("/mnt/a b\\c"));
}

#[test]
fn nothing_is_made_of_broken_lines() {
    for text in ["", "\n\n", " - ", "1 2 3 - cgroup", "1 2 0:1 / /x rw - cgroup cgroup\n", "x - cgroup2 y z"]
    {
        assert_eq!(parse_mountinfo(text).mode(), Mode::None, "{text:?}");
    }
}

#[test]
fn the_own_place_is_relative_to_what_the_mount_shows() {
    let host = parse_mountinfo(HYBRID);
    let own = |text: &str, n: usize| Own(text.to_owned()).place_in(&host.v1[n]).to_str().unwrap().to_owned();
    let text = "4:memory:/docker/abc/inner\n2:cpu,cpuacct:/a/b\n0::/user.slice/x\n";
    assert_eq!(own(text, 0), "a/b");
    assert_eq!(own(text, 1), "inner");
    assert_eq!(own("4:memory:/elsewhere\n", 1), "");
    assert_eq!(own("2:cpu,cpuacct:/../../x\n", 0), "");
    let v2 = host.v2.unwrap();
    assert_eq!(Own(text.to_owned()).place_in(&v2), Path::new("user.slice/x"));
}

//! umoci's unpack and ours give the same tree.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::XattrFlags;
use serde_json::Value;

use super::tree;
use super::workshop::{Layer, Tar, Workshop, image, run, sh};

/// Unpacks with umoci, with an overlay and as a copy, and compares the three. `but`: see `expect_same`.
fn expect_as_umoci(workshop: &Workshop, source: &str, but: &[&str]) {
    let reference = workshop.path("umoci");
    let name = source.strip_prefix("oci:").unwrap();
    run(Command::new("umoci").args(["unpack", "--image", name]).arg(&reference));
    let expected = tree::read(&reference.join("rootfs"));
    assert!(expected.len() > 3, "umoci unpacked nothing");
    for (bundle, flags) in [("overlay", &[][..]), ("copy", &["--copy"])] {
        let bundle = workshop.unpack(source, bundle, flags);
        tree::expect_same(&expected, &tree::read(&bundle.join("rootfs")), but);
        expect_same_process(&reference, &bundle);
    }
    workshop.expect_clean(&["overlay", "copy"]);
}

/// What the image says must be in both configurations alike.
fn expect_same_process(umoci: &Path, ours: &Path) {
    let [umoci, ours] = [umoci, ours].map(|bundle| {
        let config = fs::read(bundle.join("config.json")).unwrap();
        let mut config = serde_json::from_slice::<Value>(&config).unwrap();
        // umoci mounts volumes in the order of a Go map: in any
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.sort_by_key(|mount| mount["destination"].to_string());
        // and it states what the image does not say
        config["annotations"].as_object_mut().unwrap().retain(|_, value| value != "");
        config
    });
    for field in
        ["/process/args", "/process/env", "/process/cwd", "/process/user", "/root", "/mounts", "/annotations"]
    {
        assert_eq!(umoci.pointer(field), ours.pointer(field), "{field}");
    }
}

#[test]
fn busybox_is_as_umoci_unpacks_it() {
    let workshop = Workshop::new();
    let script = "
        umoci init --layout image && umoci new --image image:t && umoci unpack --image image:t work
        mkdir -p work/rootfs/bin work/rootfs/etc work/rootfs/home/app
        cp /bin/busybox work/rootfs/bin/
        for applet in $(/bin/busybox --list); do [ $applet = busybox ] || ln work/rootfs/bin/busybox work/rootfs/bin/$applet; done
        printf 'root:x:0:0::/root:/bin/sh\\napp:x:1000:1001::/home/app:/bin/sh\\n' > work/rootfs/etc/passwd
        printf 'root:x:0:\\napp:x:1001:\\naudio:x:29:root,app\\n' > work/rootfs/etc/group
        chown 1000:1001 work/rootfs/home/app
        umoci repack --image image:t work
        umoci config --image image:t --config.user app --config.entrypoint /bin/sh --config.cmd=-c --config.cmd 'echo hi' \
            --config.env A=b --config.env PATH=/bin --config.workingdir /home/app --config.label k=v --config.stopsignal SIGINT \
            --config.exposedports 80/tcp --config.exposedports 22 --config.volume /data --config.volume /cache --author me";
    sh(script, &workshop.path(""));
    expect_as_umoci(&workshop, &format!("oci:{}:t", workshop.path("image").display()), &[]);
}

/// Debian's minimal system with three layers of changes on top, made once by debootstrap and umoci.
pub(super) fn minbase() -> String {
    let cache = Path::new("/var/cache/hearth-test");
    fs::create_dir_all(cache).unwrap();
    let script = "
        exec 9>lock && flock 9
        [ -d minbase-image ] && exit
        rm -rf new && mkdir new
        if ! [ -f minbase.tar ]; then
            debootstrap --variant=minbase bookworm new/tree > new/log
            tar --numeric-owner --xattrs -C new/tree -cf new/minbase.tar . && mv new/minbase.tar minbase.tar
        fi
        cd new
        umoci init --layout image && umoci new --image image:t && umoci raw add-layer --image image:t ../minbase.tar
        umoci unpack --image image:t work
        rm -rf work/rootfs/usr/share/doc work/rootfs/usr/share/man work/rootfs/etc/motd
        rm -rf work/rootfs/usr/share/locale && echo now a file > work/rootfs/usr/share/locale
        echo more >> work/rootfs/etc/passwd && chmod 4755 work/rootfs/bin/cat && mkdir work/rootfs/opt/a
        umoci repack --refresh-bundle --image image:t work
        rm work/rootfs/usr/share/locale && mkdir work/rootfs/usr/share/locale && echo x > work/rootfs/usr/share/locale/x
        rm work/rootfs/usr/bin/perl && ln -s /bin/true work/rootfs/usr/bin/perl && ln work/rootfs/bin/cat work/rootfs/bin/dog
        umoci repack --refresh-bundle --image image:t work
        rm -rf work/rootfs/opt work/rootfs/usr/share/zoneinfo && mkdir work/rootfs/usr/share/doc && chmod 700 work/rootfs/root
        umoci repack --image image:t work && rm -rf work
        cd .. && mv new/image minbase-image && rm -rf new";
    sh(script, cache);
    "oci:/var/cache/hearth-test/minbase-image:t".into()
}

#[test]
fn debian_with_layers_and_whiteouts_is_as_umoci_unpacks_it() {
    let workshop = Workshop::new();
    expect_as_umoci(&workshop, &minbase(), &[]);
}

/// Everything that a file system can hold, as GNU tar's PAX format with all extended attributes.
fn odd_files(root: &Path) {
    let script = "
        mkdir -p plain/deep/er sticky readonly none links
        echo suid > suid && echo sgid > sgid && echo none > none/none
        echo owner > owner && echo cap > cap && echo linked > links/a && echo times > times
        ln links/a links/b && ln links/a c && ln suid links/suid
        ln -s /absolute links/absolute && ln -s nowhere links/dangling && ln -s ../plain links/up
        mkfifo fifo && mknod null c 1 3 && mknod disk b 7 200 && mknod large c 500 70000
        chown 70000:3000000000 owner && chown -h 4294967294:65536 links/absolute && chown 5:6 fifo null
        chmod 4755 suid && chmod 2711 sgid && chmod 1777 sticky && chmod 0555 readonly && chmod 0000 none/none none && chmod 0640 disk
        setcap cap_net_raw,cap_sys_admin=ep cap
        truncate -s 1M hole && echo end >> hole
        touch -d '1965-02-03 04:05:06.123456789 UTC' times && touch -d '2100-01-01 00:00:00.000000001 UTC' plain/deep
        touch -h -d '2001-01-01 01:01:01.5 UTC' links/dangling fifo null";
    sh(script, root);
    let long = root.join("l".repeat(255)).join("m".repeat(255)).join("n".repeat(200));
    fs::create_dir_all(long.parent().unwrap()).unwrap();
    fs::write(&long, "long").unwrap();
    std::os::unix::fs::symlink("t".repeat(1000), root.join("long-target")).unwrap();
    use std::os::unix::ffi::OsStrExt;
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not \xff utf-8 \xc3")), "").unwrap();
    fs::write(root.join("name with\nnewline and = sign"), "").unwrap();
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("owner", "user.text", b"value");
    set("owner", "user.binary", b"a=\0\n\xff");
    set("plain", "user.directory", b"d");
    set("plain", "trusted.secret", b"t");
    set("links/dangling", "trusted.link", b"l");
    set("fifo", "trusted.fifo", b"f");
}

/// For other formats: GNU's long names, base-256 numbers and sparse files of many stretches.
fn gnu_files(root: &Path) {
    let script = "
        mkdir gnu && cd gnu && echo big > big-owner && chown 2000000000:2100000 big-owner
        for n in $(seq 0 40); do printf \"stretch $n\" | dd of=many-stretches bs=64K seek=$((n * 2)) conv=notrunc status=none; done
        truncate -s 9M many-stretches
        truncate -s 3M all-hole
        printf head > few-stretches && truncate -s 1M few-stretches && printf tail >> few-stretches";
    sh(script, root);
    let long = root.join("gnu").join("g".repeat(200));
    fs::write(&long, "long").unwrap();
    std::os::unix::fs::symlink("u".repeat(300), root.join("gnu/long-target")).unwrap();
    sh("find . -depth -exec touch -h -d @1000000000 {} +", root); // GNU's format has whole seconds
}

fn tar(root: &Path, flags: &[&str], what: &str) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(root).args(["--sort=name", "--numeric-owner"]);
    if flags.contains(&"--format=pax") {
        command.args(["--xattrs", "--xattrs-include=*"]);
    }
    run(command.args(flags).args(["-cf", "-", what])).stdout
}

#[test]
fn everything_odd_is_as_umoci_unpacks_it() {
    let workshop = Workshop::new();
    let [odd, gnu] = ["odd", "gnu"].map(|name| workshop.path(name));
    for root in [&odd, &gnu] {
        fs::create_dir(root).unwrap();
    }
    odd_files(&odd);
    gnu_files(&gnu);
    let sparse = |version: &str| {
        let root = workshop.path(version);
        fs::create_dir(&root).unwrap();
        sh(
            &format!(
                "cp -a --sparse=always ../gnu/gnu sparse-{version} && chown 7:8 . && chmod 2751 . && touch -d @5.5 ."
            ),
            &root,
        );
        rustix::fs::setxattr(&root, "user.root", version.as_bytes(), XattrFlags::empty()).unwrap();
        let version_flag = format!("--sparse-version={version}");
        tar(&root, &["--format=pax", "--sparse", &version_flag], ".")
    };
    let changes = Tar::default()
        .file("plain/deep", b"a file where a directory was")
        .directory("links/up")
        .file("links/up/inside", b"a directory where a link was")
        .symlink("sticky", "plain")
        .entry("times/", 0, "", b"") // a directory of old
        .file("disk/", b"a file all the same")
        .file(".wh.sgid", b"")
        .file("gnu/new", b"before the mark")
        .file("gnu/.wh..wh..opq", b"")
        .file("gnu/newer", b"after the mark")
        .file(".wh.owner", b"")
        .file("owner", b"again")
        .file(".wh.nothing-of-this-name", b"")
        .hard_link("hard-link-to-a-lower-layer", "cap")
        .file("sparse-1.0/few-stretches", b"replaced")
        .directory("./plain/.")
        .end();
    let layers = [
        Layer::gzip(&tar(&odd, &["--format=pax", "--sparse"], ".")),
        Layer::gzip(&tar(&gnu, &["--format=gnu"], "gnu")), // umoci does not know GNU's own sparse files
        Layer::gzip(&sparse("0.0")),
        Layer::gzip(&sparse("0.1")),
        Layer::plain(sparse("1.0")),
        Layer::gzip(&changes),
    ];
    let source = image(&workshop.path("image"), &layers);
    expect_as_umoci(&workshop, &source, &[]);
}

#[test]
fn holes_stay_holes_and_long_paths_are_reached() {
    let workshop = Workshop::new();
    let root = workshop.path("tree");
    fs::create_dir(&root).unwrap();
    gnu_files(&root);
    for format in [&["--format=gnu", "--sparse"][..], &["--format=pax", "--sparse"]] {
        let source = image(&workshop.path("image"), &[Layer::plain(tar(&root, format, "."))]);
        let bundle = workshop.unpack(&source, "bundle", &["--copy"]);
        tree::expect_same(&tree::read(&root), &tree::read(&bundle.join("rootfs")), &[]);
        for (file, size, at_most) in
            [("all-hole", 3 << 20, 0), ("many-stretches", 9 << 20, 400), ("few-stretches", (1 << 20) + 4, 32)]
        {
            let metadata = fs::metadata(bundle.join("rootfs/gnu").join(file)).unwrap();
            assert_eq!(metadata.len(), size, "{file}");
            assert!(metadata.blocks() <= at_most, "{file}: {} blocks", metadata.blocks());
        }
        workshop.expect_clean(&["bundle"]);
    }
    // 15 names of 255 bytes are 3,840: near the longest path that one call takes
    let name = vec!["d".repeat(255); 15].join("/");
    let layer = Tar::default().pax(&[("path", name.as_bytes())]).file("x", b"deep").end();
    let source = image(&workshop.path("image"), &[Layer::plain(layer)]);
    let bundle = workshop.unpack(&source, "bundle", &[]);
    let mut directory = bundle.join("rootfs");
    for _ in 0..14 {
        let entries: Vec<PathBuf> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(entries.len(), 1);
        directory = entries[0].clone();
    }
    assert_eq!(fs::read(directory.join("d".repeat(255))).unwrap(), b"deep");
    workshop.expect_clean(&["bundle"]);
}

#[test]
fn directories_that_no_entry_makes_are_plain_and_of_no_time() {
    let workshop = Workshop::new();
    let base = Layer::plain(Tar::default().pax(&[("mtime", b"77.5")]).directory("kept").end());
    let upper = Layer::plain(Tar::default().file("made/up/file", b"x").file("kept/file", b"x").end());
    let source = image(&workshop.path("image"), &[base, upper]);
    for (name, flags) in [("overlay", &[][..]), ("copy", &["--copy"])] {
        let rootfs = workshop.unpack(&source, name, flags).join("rootfs");
        for made in ["made", "made/up"] {
            let metadata = fs::metadata(rootfs.join(made)).unwrap();
            assert_eq!(
                (metadata.permissions().mode() & 0o7777, metadata.mtime(), metadata.uid()),
                (0o755, 0, 0)
            );
        }
        let kept = fs::metadata(rootfs.join("kept")).unwrap();
        assert_eq!((kept.mtime(), kept.mtime_nsec()), (77, 500_000_000), "a passed directory keeps its time");
    }
    workshop.expect_clean(&["overlay", "copy"]);
}

#[test]
fn links_in_the_image_lead_where_they_would_in_the_container() {
    let workshop = Workshop::new();
    let base = Tar::default()
        .directory("run")
        .directory("usr")
        .directory("usr/lib")
        .directory("var")
        .symlink("var/run", "/run")
        .symlink("lib", "usr/lib")
        .symlink("climber", "../../../../../../usr")
        .file("usr/lib/old", b"old");
    let upper = Tar::default()
        .file("var/run/pid", b"1")
        .file("lib/libc.so", b"elf")
        .file("lib/.wh.old", b"")
        .file("climber/share", b"inside");
    let source = image(&workshop.path("image"), &[Layer::plain(base.end()), Layer::plain(upper.end())]);
    for (name, flags) in [("overlay", &[][..]), ("copy", &["--copy"])] {
        let rootfs = workshop.unpack(&source, name, flags).join("rootfs");
        for file in ["run/pid", "usr/lib/libc.so", "usr/share"] {
            assert!(rootfs.join(file).is_file(), "{name}: {file}");
        }
        assert!(rootfs.join("lib").is_symlink() && rootfs.join("var/run").is_symlink());
        assert!(!rootfs.join("usr/lib/old").exists(), "{name}");
    }
    workshop.expect_clean(&["overlay", "copy"]);
}

#[test]
fn layers_of_the_store_are_overlayfs_own() {
    let workshop = Workshop::new();
    let base =
        Tar::default().directory("d").file("d/a", b"a").file("gone", b"").directory("old").file("old/x", b"");
    let upper = Tar::default().file(".wh.gone", b"").file(".wh.old", b"").directory("old").file("old/y", b"");
    let source = image(&workshop.path("image"), &[Layer::plain(base.end()), Layer::gzip(&upper.end())]);
    let bundle = workshop.unpack(&source, "bundle", &[]);
    let layers: Vec<_> = fs::read_dir(workshop.path("store/layers"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("fs"))
        .collect();
    let upper =
        layers.iter().find(|layer| !layer.join("d").exists()).expect("the upper layer has only what changed");
    let gone = fs::symlink_metadata(upper.join("gone")).unwrap();
    assert_eq!((gone.mode() & 0o170_000, gone.rdev()), (0o020_000, 0), "a whiteout is the device 0:0");
    let mut value = [0; 8];
    let length = rustix::fs::lgetxattr(upper.join("old"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");
    assert!(
        !bundle.join("rootfs/gone").exists()
            && bundle.join("rootfs/old/y").exists()
            && !bundle.join("rootfs/old/x").exists()
    );
    workshop.expect_clean(&["bundle"]);
}

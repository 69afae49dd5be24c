//! Sources other than a layout, compressions, platforms, and what is said when there is no such image.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::tree;
use super::workshop::{Layer, Layout, Tar, Workshop, gzip, host_arch, image, sh, zstd};

fn layers() -> [Layer; 2] {
    let base = Tar::default().directory("d").file("d/a", &[1; 3000]).file("gone", b"").symlink("s", "d/a");
    let upper = Tar::default().file(".wh.gone", b"").file("d/b", b"b").hard_link("h", "d/a");
    [Layer::gzip(&base.end()), Layer::gzip(&upper.end())]
}

#[test]
fn every_transport_gives_the_same_tree() {
    let workshop = Workshop::new();
    let source = image(&workshop.path("image"), &layers());
    let expected = tree::read(&workshop.unpack(&source, "layout", &[]).join("rootfs"));
    let made = "
        skopeo copy -q oci:image:t oci-archive:a.tar:t 2>/dev/null
        skopeo copy -q oci:image:t docker-archive:d.tar:example/name:v1
        gzip -k a.tar d.tar && zstd -q d.tar";
    sh(made, &workshop.path(""));
    let archives = [
        "oci-archive:a.tar",
        "oci-archive:a.tar:t",
        "oci-archive:a.tar.gz:t",
        "docker-archive:d.tar",
        "docker-archive:d.tar:example/name:v1",
        "docker-archive:d.tar:docker.io/example/name:v1",
        "docker-archive:d.tar.gz",
        "docker-archive:d.tar.zst",
    ];
    for archive in archives {
        let (transport, file) = archive.split_once(':').unwrap();
        let source = format!("{transport}:{}", workshop.path(file).display());
        for flags in [&[][..], &["--copy"]] {
            let bundle = workshop.unpack(&source, "archive", flags);
            tree::expect_same(&expected, &tree::read(&bundle.join("rootfs")), &[]);
            workshop.remove("archive");
        }
    }
    workshop.expect_clean(&["layout"]);
}

#[test]
fn every_compression_gives_the_same_tree() {
    let workshop = Workshop::new();
    let tar = Tar::default().directory("d").file("d/large", &b"0123456789abcdef".repeat(50_000)).end();
    let (head, tail) = tar.split_at(tar.len() / 3);
    let with = |blob: Vec<u8>| Layer { blob, ..Layer::gzip(&tar) };
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&tar)].concat();
    let blobs = [
        Layer::plain(tar.clone()),
        Layer::gzip(&tar),
        Layer::zstd(&tar),
        with([gzip(head), gzip(tail)].concat()),
        with([zstd(head), zstd(tail)].concat()),
        with(skippable),
    ];
    let mut expected = None;
    for (number, layer) in blobs.into_iter().enumerate() {
        let source = image(&workshop.path("image"), &[layer]);
        let bundle = workshop.unpack(&source, &format!("b{number}"), &["--copy"]);
        let tree = tree::read(&bundle.join("rootfs"));
        tree::expect_same(expected.get_or_insert_with(|| tree.clone()), &tree, &[]);
    }
    let mut cut = zstd(&tar);
    cut.truncate(cut.len() / 2);
    let source = image(&workshop.path("image"), &[with(cut)]);
    assert!(workshop.refused(&source, "cut", &["--copy"]).contains("layer sha256:"));
}

#[test]
fn an_index_gives_the_image_for_the_platform() {
    let workshop = Workshop::new();
    let directory = workshop.path("image");
    let layout = Layout::new(&directory);
    let mut manifests = Vec::new();
    for (arch, variant) in [("s390x", None), (host_arch(), None), ("arm", Some("v6")), ("arm", Some("v7"))] {
        let name = format!("{arch}{}", variant.unwrap_or_default());
        let layer = Layer::gzip(&Tar::default().file(name, b"").end());
        let mut descriptor = layout.image(&[layer], arch, &json!({}));
        descriptor["platform"] = json!({ "os": "linux", "architecture": arch });
        if let Some(variant) = variant {
            descriptor["platform"]["variant"] = variant.into();
        }
        manifests.push(descriptor);
    }
    let index = "application/vnd.oci.image.index.v1+json";
    let source = layout.tag(
        layout.descriptor(index, &json!({ "schemaVersion": 2, "mediaType": index, "manifests": manifests })),
    );
    for (flags, file) in [
        (&[][..], host_arch()),
        (&["--platform", "linux/s390x"], "s390x"),
        (&["--platform", "linux/arm/v6"], "armv6"),
        (&["--platform", "linux/arm/v7"], "armv7"),
    ] {
        let bundle = workshop.unpack(&source, file, &[flags, &["--copy"]].concat());
        assert!(bundle.join("rootfs").join(file).exists(), "{file}");
    }
    let message = workshop.refused(&source, "none", &["--platform", "linux/riscv64"]);
    assert!(message.contains("linux/riscv64") && message.contains("linux/s390x, linux/"), "{message}");

    let foreign = layout.image(&[Layer::plain(Tar::default().file("x", b"").end())], "s390x", &json!({}));
    let source = layout.tag(foreign);
    let message = workshop.refused(&source, "none", &[]);
    assert!(message.contains("linux/s390x"), "{message}");
    workshop.unpack(&source, "asked", &["--copy", "--platform", "linux/s390x"]);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let workshop = Workshop::new();
    let source = image(&workshop.path("image"), &layers());
    let layout = source.strip_suffix(":t").unwrap();
    let missing = workshop.path("missing");
    for (source, flags, reason) in [
        (format!("{layout}:other"), &[][..], "it has t"),
        (format!("oci:{}", missing.display()), &[], "missing/index.json: no such file"),
        (format!("oci-archive:{}", missing.display()), &[], "missing: no such file"),
        (format!("docker-archive:{}", workshop.path("image/oci-layout").display()), &[], "archive"),
        ("containers-storage:x".into(), &[], "expected oci:DIR[:TAG]"),
        (source.clone(), &["--platform", "amd64"], "OS/ARCH"),
        (source.clone(), &["--store", "/tmp/a,b"], "without colon, comma"),
    ] {
        let message = workshop.refused(&source, "bundle", flags);
        assert!(message.contains(reason), "{message}: expected {reason}");
    }
    let _ = fs::remove_dir("/tmp/a,b");
    for (content, reason) in [
        ("{", "not understood"),
        (r#"{"schemaVersion":2}"#, "manifests"),
        (r#"{"schemaVersion":2,"manifests":[]}"#, "no image"),
    ] {
        fs::write(workshop.path("image/index.json"), content).unwrap();
        let message = workshop.refused(layout, "bundle", &[]);
        assert!(message.contains(reason), "{message}: expected {reason}");
    }
    fs::write(workshop.path("image/index.json"), vec![b' '; 5 << 20]).unwrap();
    assert!(workshop.refused(layout, "bundle", &[]).contains("at most 4194304"));
    workshop.expect_clean(&[]);
}

#[test]
fn a_bundle_that_is_there_is_never_written_over() {
    let workshop = Workshop::new();
    let source = image(&workshop.path("image"), &layers());
    let bundle = workshop.unpack(&source, "copy", &["--copy"]);
    fs::write(bundle.join("rootfs/mine"), "").unwrap();
    fs::create_dir(workshop.path("full")).unwrap();
    fs::write(workshop.path("full/file"), "").unwrap();
    for (name, reason) in [("copy", "it holds a copy"), ("full", "it has file in it")] {
        let bundle = workshop.path(name);
        let before = tree::read(&bundle);
        let output = workshop.hearth("unpack").arg(&source).arg(&bundle).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(reason), "{message}");
        tree::expect_same(&before, &tree::read(&bundle), &[]);
    }
    fs::create_dir(workshop.path("empty")).unwrap();
    workshop.unpack(&source, "empty", &["--copy"]);
}

#[test]
fn an_ordinary_user_gets_a_copy_and_is_told_so() {
    let workshop = Workshop::new();
    let tar = Tar::default().directory("d").pax(&[("uid", b"70000")]).file("d/f", b"x").raw(&device()).end();
    let source = image(&workshop.path("image"), &[Layer::gzip(&tar)]);
    let home = workshop.path("home");
    fs::create_dir(&home).unwrap();
    for path in [&home, &workshop.path("")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let nobody = |bundle: &str, flags: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(super::workshop::unpacker());
        command
            .arg("unpack")
            .arg("--store")
            .arg(home.join("store"))
            .args(flags)
            .arg(&source)
            .arg(home.join(bundle));
        command
    };
    let output = nobody("copy", &[]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && message.contains("all files are the caller's"), "{message}");
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(home.join("copy/config.json")).unwrap()).unwrap();
    assert_eq!(config["linux"]["uidMappings"][0]["hostID"], 65534);
    assert!(home.join("copy/rootfs/d/f").exists() && !home.join("copy/rootfs/null").exists());
}

/// The header of /null, character device 1:3.
fn device() -> Vec<u8> {
    let mut header = super::workshop::header(b"null", b'3', "", 0);
    header[329..336].copy_from_slice(b"0000001");
    header[337..344].copy_from_slice(b"0000003");
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.to_vec()
}

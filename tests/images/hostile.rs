//! Layers made to write, delete or fill what is not theirs: each is refused with a line that names the layer
//! and the entry, and nothing outside the target is touched.

use std::fs;

use super::tree;
use super::workshop::{Layer, Tar, Workshop, header, image};

/// Something to attack, and a layer below the hostile one, so that there is something to hide.
fn expect_refused(layer: impl Fn(&str) -> Layer, flags: &[&str], entry: &str, reason: &str) {
    let workshop = Workshop::new();
    let canary = workshop.path("canary");
    fs::create_dir_all(canary.join("directory")).unwrap();
    fs::write(canary.join("secret"), "untouched").unwrap();
    let hostile = layer(canary.to_str().unwrap());
    let base = Tar::default().directory("etc").file("etc/passwd", b"root:x:0:0:::\n").directory("a").end();
    let source = image(&workshop.path("image"), &[Layer::gzip(&base), hostile.clone()]);
    let before = tree::read(&canary);
    for mode in [&[][..], &["--copy"]] {
        let message = workshop.refused(&source, "bundle", &[flags, mode].concat());
        assert!(message.contains(&format!("layer {}", hostile.digest())), "{message}");
        assert!(message.contains(&format!("{entry:?}")), "{message}: expected the entry {entry:?}");
        assert!(message.contains(reason), "{message}: expected {reason}");
    }
    tree::expect_same(&before, &tree::read(&canary), &[]);
    workshop.expect_clean(&[]);
}

fn refused(tar: impl Fn(Tar, &str) -> Tar, entry: &str, reason: &str) {
    expect_refused(|canary| Layer::gzip(&tar(Tar::default(), canary).end()), &[], entry, reason);
}

#[test]
fn names_that_climb_or_are_absolute_are_refused() {
    refused(|tar, _| tar.file("../escaped", b"x"), "../escaped", "climbs");
    refused(|tar, _| tar.file("a/../../../canary/x", b"x"), "a/../../../canary/x", "climbs");
    refused(|tar, _| tar.directory(".."), "..", "climbs");
    refused(|tar, _| tar.symlink("a/..", "x"), "a/..", "climbs");
    refused(|tar, _| tar.file("/tmp/x", b"x"), "/tmp/x", "absolute");
    refused(|tar, _| tar.pax(&[("path", b"../by/pax")]).file("x", b"x"), "../by/pax", "climbs");
    refused(|tar, _| tar.entry("long", b'L', "", b"../by/gnu\0").file("x", b"x"), "../by/gnu", "climbs");
    refused(|tar, _| tar.pax(&[("path", b"a\0b")]).file("x", b"x"), "a\0b", "NUL");
    refused(|tar, _| tar.file("", b"x"), "", "empty");
    refused(|tar, _| tar.symlink("./", "/tmp"), "./", "root");
    let long = "x".repeat(256);
    refused(
        move |tar, _| tar.pax(&[("path", long.as_bytes())]).file("x", b"x"),
        &("x".repeat(160) + "..."),
        "longer than 255",
    );
    let long = "abc/".repeat(1200);
    refused(
        move |tar, _| tar.pax(&[("path", long.as_bytes())]).file("x", b"x"),
        &("abc/".repeat(40) + "..."),
        "longer than 4095",
    );
}

#[test]
fn links_that_lead_out_are_no_way_out() {
    let nowhere = "leads nowhere";
    refused(|tar, canary| tar.symlink("out", canary).file("out/evil", b"x"), "out/evil", nowhere);
    refused(
        |tar, canary| tar.symlink("out", format!("../../../../../../../..{canary}")).file("out/evil", b"x"),
        "out/evil",
        nowhere,
    );
    refused(
        |tar, canary| tar.symlink("b", canary).symlink("a/b", "../b").file("a/b/evil", b"x"),
        "a/b/evil",
        nowhere,
    );
    let swap = |tar: Tar, canary: &str| {
        tar.directory("d").file("d/x", b"x").symlink("d", canary).file("d/evil", b"x")
    };
    refused(swap, "d/evil", nowhere);
    refused(
        |tar, canary| tar.symlink("loop", "loop").file("loop/x", canary.as_bytes()),
        "loop/x",
        "oo many levels",
    );
    refused(|tar, _| tar.symlink("p", "/proc/self/root/tmp").file("p/evil", b"x"), "p/evil", nowhere);
}

#[test]
fn hard_links_to_the_outside_are_refused() {
    refused(|tar, canary| tar.hard_link("stolen", format!("{canary}/secret")), "stolen", "absolute");
    refused(|tar, _| tar.hard_link("stolen", "../canary/secret"), "stolen", "climbs");
    refused(
        |tar, canary| tar.symlink("out", canary).hard_link("stolen", "out/secret"),
        "stolen",
        "no such file",
    );
    refused(|tar, _| tar.hard_link("stolen", "./"), "stolen", "root");
    refused(|tar, _| tar.hard_link("stolen", "etc"), "stolen", "not permitted");
}

#[test]
fn whiteouts_that_climb_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh..."] {
        refused(|tar, _| tar.file(name, b""), name, "whiteout of");
    }
    refused(|tar, _| tar.file("a/../.wh.etc", b""), "a/../.wh.etc", "climbs");
}

#[test]
fn whiteouts_through_links_hide_nothing_outside() {
    let workshop = Workshop::new();
    let canary = workshop.path("canary");
    fs::create_dir_all(canary.join("directory")).unwrap();
    fs::write(canary.join("secret"), "untouched").unwrap();
    let before = tree::read(&canary);
    let out = canary.to_str().unwrap();
    let base = Tar::default().symlink("out", out).symlink("up", format!("../../../../../..{out}")).end();
    let hostile = Tar::default()
        .file("out/.wh.secret", b"")
        .file("out/.wh..wh..opq", b"")
        .file("up/.wh.directory", b"")
        .file("up/.wh..wh..opq", b"")
        .symlink("fresh", out)
        .file("fresh/.wh.secret", b"")
        .file(".wh.out", b"");
    let source = image(&workshop.path("image"), &[Layer::gzip(&base), Layer::gzip(&hostile.end())]);
    for (name, flags) in [("overlay", &[][..]), ("copy", &["--copy"])] {
        let bundle = workshop.unpack(&source, name, flags);
        assert!(!bundle.join("rootfs/out").is_symlink(), "the link itself is hidden");
        tree::expect_same(&before, &tree::read(&canary), &[]);
    }
    workshop.expect_clean(&["overlay", "copy"]);
    tree::expect_same(&before, &tree::read(&canary), &[]);
}

#[test]
fn bombs_stop_at_the_limit() {
    let bomb = |_: &str| Layer::gzip(&Tar::default().file("bomb", &vec![0; 40 << 20]).end());
    expect_refused(bomb, &["--max-size", "8M"], "bomb", "8388608");
    let bomb = |_: &str| Layer::zstd(&Tar::default().file("bomb", &vec![0; 40 << 20]).end());
    expect_refused(bomb, &["--max-size", "8M"], "bomb", "8388608");
    let sparse = |_: &str| {
        let records: &[(&str, &[u8])] = &[("GNU.sparse.size", b"1099511627776"), ("GNU.sparse.map", b"0,1")];
        Layer::gzip(&Tar::default().pax(records).file("sparse", b"x").end())
    };
    expect_refused(sparse, &["--max-size", "8M"], "sparse", "8388608");
    // what follows the end mark counts too
    let tail = |_: &str| Layer::gzip(&[Tar::default().file("small", b"x").end(), vec![0; 40 << 20]].concat());
    expect_refused(tail, &["--max-size", "8M"], "small", "8388608");
}

#[test]
fn absurd_headers_are_refused() {
    refused(|tar, _| tar.raw(&header(b"h", b'x', "", 1 << 32)), "h", "at most 1 MiB");
    refused(|tar, _| tar.raw(&header(b"h", b'L', "", 1 << 32)), "h", "at most 1 MiB");
    refused(|tar, _| tar.entry("h", b'x', "", b"999999999999999999999 path=x\n"), "h", "PAX record");
    refused(|tar, _| tar.entry("h", b'x', "", b"7 path=x\n"), "h", "PAX record");
    refused(|tar, _| tar.pax(&[("uid", b"4294967295")]).file("f", b""), "pax", "uid");
    refused(|tar, _| tar.pax(&[("size", b"99999999999999999999")]).file("f", b""), "pax", "size");
    refused(|tar, _| tar.pax(&[("mtime", b"soon")]).file("f", b""), "pax", "mtime");
    refused(
        |tar, _| tar.pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"8,3")]).file("f", b"abc"),
        "f",
        "sparse map",
    );
    refused(|tar, _| tar.entry("odd", b'Z', "", b""), "odd", "entry type");
    refused(|tar, _| tar.file("before", b"").raw(&[b'x'; 512]), "before", "checksum");
    refused(|tar, _| tar.entry("dev", b'3', "", b""), "dev", "0:0");
}

#[test]
fn content_that_is_not_what_was_promised_is_refused() {
    let tar = Tar::default().file("file", &[7; 100_000]).end();
    let truncated = |_: &str| {
        let mut layer = Layer::gzip(&tar);
        layer.blob.truncate(layer.blob.len() / 2);
        layer
    };
    expect_refused(truncated, &[], "file", "");
    let wrong_content = |_: &str| Layer { diff_id: Layer::plain(vec![]).diff_id, ..Layer::gzip(&tar) };
    let workshop = Workshop::new();
    let source = image(&workshop.path("image"), &[wrong_content("")]);
    let message = workshop.refused(&source, "bundle", &[]);
    assert!(message.contains("diffID") && message.contains(&wrong_content("").digest()), "{message}");

    for (change, reason) in
        [("printf x | dd of=FILE seek=600 bs=1 conv=notrunc", "digest is"), ("printf x >> FILE", "size is")]
    {
        let layer = Layer::plain(tar.clone());
        let source = image(&workshop.path("image"), std::slice::from_ref(&layer));
        let file = format!("image/blobs/{}", layer.digest().replace(':', "/"));
        super::workshop::sh(&change.replace("FILE", &file), &workshop.path(""));
        for flags in [&[][..], &["--copy"]] {
            let message = workshop.refused(&source, "bundle", flags);
            assert!(message.contains(reason) && message.contains(&layer.digest()), "{message}");
        }
        fs::remove_dir_all(workshop.path("image")).unwrap();
    }
    workshop.expect_clean(&[]);
}

/// A tree deeper than any path, made by links into itself, can still be removed again.
#[test]
fn trees_deeper_than_paths_are_removed() {
    let workshop = Workshop::new();
    let step = vec!["d"; 150].join("/");
    let mut tar = Tar::default();
    let mut below = String::new();
    for level in 0..18 {
        let link = format!("l{level}");
        tar = tar.directory(&format!("{below}{step}")).symlink(&link, format!("{below}{step}"));
        below = format!("{link}/");
    }
    let base = Layer::gzip(&tar.directory("d").end());
    let hide = Layer::gzip(&Tar::default().file(".wh.d", b"").end());
    let source = image(&workshop.path("image"), &[base, hide]);
    for (name, flags) in [("overlay", &[][..]), ("copy", &["--copy"])] {
        let bundle = workshop.unpack(&source, name, flags);
        assert!(!bundle.join("rootfs/d").exists() && bundle.join("rootfs/l0").is_symlink());
    }
    workshop.expect_clean(&["overlay", "copy"]);
}

//! Layers are kept once, shared, and dropped when nobody uses them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::workshop::{Layer, Tar, Workshop, image, run, unpacker};
use super::{tree, trees};

fn layer(file: &str) -> Layer {
    Layer::gzip(&Tar::default().directory("d").file(format!("d/{file}"), file.as_bytes()).end())
}

fn layers_in(workshop: &Workshop) -> usize {
    fs::read_dir(workshop.path("store/layers")).unwrap().count()
}

fn gc(workshop: &Workshop) {
    run(&mut workshop.hearth("gc"));
}

#[test]
fn images_share_layers_and_gc_drops_those_of_no_bundle() {
    let workshop = Workshop::new();
    let one = image(&workshop.path("one"), &[layer("base"), layer("one")]);
    let two = image(&workshop.path("two"), &[layer("base"), layer("two")]);
    let (first, second) = (workshop.unpack(&one, "a", &[]), workshop.unpack(&two, "b", &[]));
    assert_eq!(layers_in(&workshop), 3);
    fs::write(first.join("rootfs/d/base"), "changed").unwrap();
    assert_eq!(
        fs::read_to_string(second.join("rootfs/d/base")).unwrap(),
        "base",
        "changes are a bundle's own"
    );
    gc(&workshop);
    assert_eq!(layers_in(&workshop), 3);
    workshop.unmount("a");
    gc(&workshop);
    assert_eq!(layers_in(&workshop), 3, "a bundle that is not mounted, as after a reboot, is still a bundle");
    fs::remove_dir_all(&first).unwrap();
    gc(&workshop);
    assert_eq!(layers_in(&workshop), 2);
    assert_eq!(fs::read_to_string(second.join("rootfs/d/two")).unwrap(), "two");
    workshop.expect_clean(&["b"]);
}

#[test]
fn unpacking_again_mounts_again_and_keeps_what_was_changed() {
    let workshop = Workshop::new();
    let source = image(&workshop.path("image"), &[layer("base"), layer("top")]);
    let bundle = workshop.unpack(&source, "bundle", &[]);
    fs::write(bundle.join("rootfs/mine"), "kept").unwrap();
    fs::write(bundle.join("config.json"), "mine too").unwrap();
    workshop.unpack(&source, "bundle", &[]);
    assert_eq!(workshop.mounts().len(), 1, "mounted twice");
    workshop.unmount("bundle");
    workshop.unpack(&source, "bundle", &[]);
    assert_eq!(fs::read_to_string(bundle.join("rootfs/mine")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(bundle.join("config.json")).unwrap(), "mine too");

    // moved, dropped by gc, and brought back
    workshop.unmount("bundle");
    fs::rename(&bundle, workshop.path("moved")).unwrap();
    gc(&workshop);
    assert_eq!(layers_in(&workshop), 0);
    let moved = workshop.unpack(&source, "moved", &[]);
    assert_eq!(fs::read_to_string(moved.join("rootfs/mine")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(moved.join("rootfs/d/top")).unwrap(), "top");
    gc(&workshop);
    assert_eq!(layers_in(&workshop), 2);

    let other = image(&workshop.path("other"), &[layer("other")]);
    let output = workshop.hearth("unpack").arg(&other).arg(&moved).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("it holds the image sha256:"), "{message}");
    workshop.expect_clean(&["moved"]);
}

#[test]
fn gc_unmounts_what_a_removed_bundle_left_unless_it_is_busy() {
    let workshop = Workshop::new();
    let source = image(&workshop.path("image"), &[layer("base")]);
    let bundle = workshop.unpack(&source, "bundle", &[]);
    // what `rm -r` of a mounted bundle leaves: the mount point
    fs::remove_dir_all(bundle.join(".hearth")).unwrap();
    fs::remove_file(bundle.join("config.json")).unwrap();
    let busy = fs::File::open(bundle.join("rootfs/d/base")).unwrap();
    gc(&workshop);
    assert_eq!((layers_in(&workshop), workshop.mounts().len()), (1, 1));
    drop(busy);
    for _ in 0..100 {
        gc(&workshop); // another test's new process may hold the file a little longer
        if layers_in(&workshop) == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((layers_in(&workshop), workshop.mounts().len()), (0, 0));
    assert!(!bundle.exists());
    workshop.expect_clean(&[]);
}

#[test]
fn gc_waits_for_nobody_and_says_so() {
    let workshop = Workshop::new();
    let source = image(&workshop.path("image"), &[layer("base")]);
    workshop.unpack(&source, "bundle", &[]);
    let lock = fs::File::open(workshop.path("store/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).unwrap();
    let output = workshop.hearth("gc").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("an unpack is at work"), "{message}");
    drop(lock);
    // records of a later version are not guessed at
    let record = fs::read_dir(workshop.path("store/bundles")).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"version\": 1", "\"version\": 9")).unwrap();
    let output = workshop.hearth("gc").output().unwrap();
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("version: 9"));
    assert_eq!(layers_in(&workshop), 1);
    fs::write(&record, text).unwrap();
    workshop.expect_clean(&["bundle"]);
}

#[test]
fn four_at_once_do_the_work_once() {
    let workshop = Workshop::new();
    let source = trees::minbase();
    let bundles: Vec<_> = (0..4).map(|number| workshop.path(&format!("b{number}"))).collect();
    let traces: Vec<PathBuf> = (0..4).map(|number| workshop.path(&format!("trace{number}"))).collect();
    let children: Vec<_> = bundles
        .iter()
        .zip(&traces)
        .map(|(bundle, trace)| {
            let mut strace = Command::new("strace");
            strace
                .args(["-f", "-qq", "--seccomp-bpf", "-e", "trace=rename,renameat,renameat2", "-o"])
                .arg(trace);
            strace
                .arg(unpacker())
                .arg("unpack")
                .arg("--store")
                .arg(workshop.path("store"))
                .arg(&source)
                .arg(bundle);
            strace.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let renames = traces.iter().map(|trace| fs::read_to_string(trace).unwrap()).collect::<String>();
    let made =
        renames.lines().filter(|line| line.contains("/store/layers/") && line.ends_with("= 0")).count();
    assert_eq!((made, layers_in(&workshop)), (4, 4));
    let expected = tree::read(&bundles[0].join("rootfs"));
    assert!(expected.len() > 1000);
    for bundle in &bundles[1..] {
        tree::expect_same(&expected, &tree::read(&bundle.join("rootfs")), &[]);
    }
    workshop.expect_clean(&["b0", "b1", "b2", "b3"]);
}

#[test]
fn four_at_once_to_one_bundle_make_one_bundle() {
    let workshop = Workshop::new();
    let source = image(&workshop.path("image"), &[layer("base"), layer("top")]);
    let mut children: Vec<_> = (0..4)
        .map(|_| workshop.hearth("unpack").arg(&source).arg(workshop.path("bundle")).spawn().unwrap())
        .collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    assert_eq!(workshop.mounts().len(), 1);
    workshop.expect_clean(&["bundle"]);
}

#[test]
fn a_hundred_layers_fit_and_bundles_may_have_odd_names() {
    let workshop = Workshop::new();
    let layers: Vec<_> = (0..100).map(|number| layer(&format!("f{number}"))).collect();
    let source = image(&workshop.path("image"), &layers);
    let bundle = workshop.unpack(&source, "odd, name: with \\ and blank", &[]);
    assert_eq!(fs::read_dir(bundle.join("rootfs/d")).unwrap().count(), 100);
    fs::write(bundle.join("rootfs/d/new"), "").unwrap();
    assert!(bundle.join(".hearth/upper/d/new").exists());
    workshop.expect_clean(&["odd, name: with \\ and blank"]);
}

//! Killed at any time, or out of space: the next unpack makes it whole.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use super::workshop::{Layer, Tar, Workshop, image, run, unpacker};
use super::{tree, trees};

fn killed_and_repeated(flags: &[&str]) {
    let workshop = Workshop::new();
    let source = trees::minbase();
    let started = Instant::now();
    let expected = tree::read(&workshop.unpack(&source, "reference", flags).join("rootfs"));
    let whole = started.elapsed();
    workshop.expect_clean(&["reference"]);
    let mut interrupted = 0;
    for twelfth in [0, 2, 5, 8] {
        let bundle = workshop.path("bundle");
        let mut child = workshop
            .hearth("unpack")
            .args(flags)
            .arg(&source)
            .arg(&bundle)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * twelfth / 12 + Duration::from_millis(3));
        child.kill().unwrap();
        interrupted += u32::from(!child.wait().unwrap().success());
        if bundle.join(".hearth/bundle.json").exists() {
            fs::write(bundle.join("config.json"), "").unwrap(); // it was too late; nothing to repeat
        } else {
            workshop.unpack(&source, "bundle", flags);
        }
        tree::expect_same(&expected, &tree::read(&bundle.join("rootfs")), &[]);
        workshop.expect_clean(&["bundle"]);
    }
    assert!(interrupted >= 3, "only {interrupted} were killed in time");
}

#[test]
fn a_killed_overlay_unpack_is_repeated_to_the_same_tree() {
    killed_and_repeated(&[]);
}

#[test]
fn a_killed_copy_is_repeated_to_the_same_tree() {
    killed_and_repeated(&["--copy"]);
}

#[test]
fn gc_clears_all_that_killed_unpacks_left() {
    let workshop = Workshop::new();
    let source = trees::minbase();
    for milliseconds in [5, 50, 200, 400] {
        let bundle = format!("b{milliseconds}");
        let mut child = workshop.hearth("unpack").arg(&source).arg(workshop.path(&bundle)).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        if workshop.path(&bundle).exists() {
            workshop.expect_clean(&[&bundle]);
        } else {
            workshop.expect_clean(&[]);
        }
    }
}

/// A small disk of its own for store and bundle.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn new(path: &'a Path, size: &str) -> Self {
        fs::create_dir(path).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), &*options).unwrap();
        Self(path)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_a_store_that_works() {
    let workshop = Workshop::new();
    let path = workshop.path("disk");
    let disk = Disk::new(&path, "8M");
    let small = image(&workshop.path("small"), &[Layer::gzip(&Tar::default().file("file", b"fits").end())]);
    let large = trees::minbase();
    let unpack = |source: &str, bundle: &str, flags: &[&str]| {
        let mut command = Command::new(unpacker());
        command
            .arg("unpack")
            .arg("--store")
            .arg(path.join("store"))
            .args(flags)
            .arg(source)
            .arg(path.join(bundle));
        command
    };
    for flags in [&[][..], &["--copy"]] {
        let output = unpack(&large, "large", flags).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(
            message.contains("no space left on device") && message.contains("layer sha256:"),
            "{message}"
        );
        assert!(!path.join("large").exists());
        let bundle = if flags.is_empty() { "small-overlay" } else { "small-copy" };
        run(&mut unpack(&small, bundle, flags));
        assert_eq!(fs::read_to_string(path.join(bundle).join("rootfs/file")).unwrap(), "fits");
    }
    assert_eq!(fs::read_dir(path.join("store/tmp")).unwrap().count(), 0);
    rustix::mount::unmount(path.join("small-overlay/rootfs"), UnmountFlags::empty()).unwrap();
    drop(disk);
}

//! Pulls from Debian's docker-registry on loopback, filled by skopeo.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::tree;
use super::workshop::{Layer, Layout, Tar, Workshop, host_arch, image, run, sh, unpacker};

struct Registry {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Registry {
    fn start(workshop: &Workshop, more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let data = workshop.path("registry");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{more}",
            data.display()
        );
        fs::write(workshop.path("registry.yml"), config).unwrap();
        let log = workshop.path("registry.log");
        let file = fs::File::create(&log).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(workshop.path("registry.yml"))
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let registry = Self { child, address, log };
        for _ in 0..200 {
            if TcpStream::connect(&registry.address).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("docker-registry does not listen");
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn layers() -> [Layer; 2] {
    let noise: Vec<u8> = (0..600_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let base = Tar::default().directory("d").file("d/noise", &noise).file("gone", b"").end();
    [Layer::gzip(&base), Layer::gzip(&Tar::default().file(".wh.gone", b"").file("new", b"n").end())]
}

fn digest_of(source: &str) -> String {
    let output = run(Command::new("skopeo").args([
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        source,
    ]));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

#[test]
fn a_registry_gives_the_same_tree_as_a_layout() {
    let workshop = Workshop::new();
    let registry = Registry::start(&workshop, "");
    let source = image(&workshop.path("image"), &layers());
    let expected = tree::read(&workshop.unpack(&source, "layout", &["--copy"]).join("rootfs"));
    let name = format!("{}/some/name", registry.address);
    sh(
        &format!("skopeo copy -q --dest-tls-verify=false oci:image:t docker://{name}:oci"),
        &workshop.path(""),
    );
    sh(
        &format!("skopeo copy -q --dest-tls-verify=false -f v2s2 oci:image:t docker://{name}:docker"),
        &workshop.path(""),
    );
    let pinned = format!("{name}@{}", digest_of(&format!("docker://{name}:oci")));
    let port = registry.address.rsplit(':').next().unwrap();
    for (number, image) in
        [format!("{name}:oci"), format!("{name}:docker"), pinned, format!("localhost:{port}/some/name:oci")]
            .iter()
            .enumerate()
    {
        for (bundle, flags) in [(format!("o{number}"), &[][..]), (format!("c{number}"), &["--copy"])] {
            let bundle = workshop.unpack(&format!("docker://{image}"), &bundle, flags);
            tree::expect_same(&expected, &tree::read(&bundle.join("rootfs")), &[]);
        }
    }
    let before = registry.log().matches("GET /v2/some/name/blobs/").count();
    workshop.unpack(&format!("docker://{name}:oci"), "again", &[]);
    let configs = registry.log().matches("GET /v2/some/name/blobs/").count() - before;
    assert!(configs <= 2, "layers in the store are not pulled again: {configs} lines");
    assert_eq!(fs::read_dir(workshop.path("store/pull")).unwrap().count(), 0);

    for (image, reason) in
        [(format!("{name}:none"), "manifest unknown"), ("127.0.0.1:1/x".into(), "Connection refused")]
    {
        let message = workshop.refused(&format!("docker://{image}"), "none", &[]);
        assert!(message.contains(reason) && message.contains(&image), "{message}");
    }
    let bundles = ["layout", "o0", "c0", "o1", "c1", "o2", "c2", "o3", "c3", "again"];
    workshop.expect_clean(&bundles);
}

#[test]
fn a_registry_gives_the_image_for_the_platform() {
    let workshop = Workshop::new();
    let registry = Registry::start(&workshop, "");
    let directory = workshop.path("image");
    let layout = Layout::new(&directory);
    let manifests: Vec<_> = ["s390x", host_arch()]
        .iter()
        .map(|arch| {
            let layer = Layer::gzip(&Tar::default().file(arch, b"").end());
            let mut descriptor = layout.image(&[layer], arch, &json!({}));
            descriptor["platform"] = json!({ "os": "linux", "architecture": arch });
            descriptor
        })
        .collect();
    let index = "application/vnd.oci.image.index.v1+json";
    layout.tag(
        layout.descriptor(index, &json!({ "schemaVersion": 2, "mediaType": index, "manifests": manifests })),
    );
    let name = format!("{}/multi:t", registry.address);
    sh(
        &format!("skopeo copy -q --all --dest-tls-verify=false oci:image:t docker://{name}"),
        &workshop.path(""),
    );
    let pinned = format!("{}/multi@{}", registry.address, digest_of_index(&name));
    for (number, (image, flags, file)) in [
        (&name, &["--copy"][..], host_arch()),
        (&name, &["--copy", "--platform", "linux/s390x"], "s390x"),
        (&pinned, &["--copy"], host_arch()),
    ]
    .iter()
    .enumerate()
    {
        let bundle = workshop.unpack(&format!("docker://{image}"), &format!("b{number}"), flags);
        assert!(bundle.join("rootfs").join(file).exists(), "{file}");
    }
}

fn digest_of_index(name: &str) -> String {
    let output = run(Command::new("skopeo").args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{name}"),
    ]));
    super::workshop::digest(&output.stdout)
}

#[test]
fn a_broken_pull_is_taken_up_where_it_broke() {
    let workshop = Workshop::new();
    let registry = Registry::start(&workshop, "");
    image(&workshop.path("image"), &layers());
    let name = format!("{}/some/name:t", registry.address);
    sh(&format!("skopeo copy -q --dest-tls-verify=false oci:image:t docker://{name}"), &workshop.path(""));
    let layout = workshop.path("pulled");
    let pull = || {
        let helper = unpacker().with_file_name("hearth-pull");
        run(Command::new(helper).arg(&name).arg(&layout))
    };
    pull();
    let blob = layout.join("blobs/sha256").join(layers()[0].digest().strip_prefix("sha256:").unwrap());
    let whole = fs::read(&blob).unwrap();
    assert_eq!(whole, layers()[0].blob);
    // broken off in the middle
    fs::write(blob.with_extension("partial"), &whole[..whole.len() / 2]).unwrap();
    fs::remove_file(&blob).unwrap();
    let first = String::from_utf8(pull().stdout).unwrap();
    assert_eq!(fs::read(&blob).unwrap(), whole);
    assert!(registry.log().contains("206"), "it was not continued");
    let done: usize = first.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(done > whole.len() / 2);
    // what is there but wrong is brought anew; a partial one that is wrong is not believed
    fs::write(&blob, &whole[1..]).unwrap();
    pull();
    assert_eq!(fs::read(&blob).unwrap(), whole);
    fs::write(blob.with_extension("partial"), vec![0; whole.len() / 2]).unwrap();
    fs::remove_file(&blob).unwrap();
    let output =
        Command::new(unpacker().with_file_name("hearth-pull")).arg(&name).arg(&layout).output().unwrap();
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("digest"));
    pull();
    assert_eq!(fs::read(&blob).unwrap(), whole);
    assert_eq!(pull().stdout, b"", "nothing left to bring");
}

#[test]
fn credentials_are_taken_from_the_file_and_shown_nowhere() {
    let workshop = Workshop::new();
    // "hearth" with the password "sesame", by bcrypt
    fs::write(
        workshop.path("htpasswd"),
        "hearth:$2a$04$c3VoH5Yz3jgGPM/RD4x7lOMLIpzaE/DWfyw9JFZTo6CWrj.jfC9Fu\n",
    )
    .unwrap();
    let access =
        format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", workshop.path("htpasswd").display());
    let registry = Registry::start(&workshop, &access);
    let source = image(&workshop.path("image"), &layers());
    let name = format!("{}/closed:t", registry.address);
    sh(
        &format!(
            "skopeo copy -q --dest-tls-verify=false --dest-creds hearth:sesame oci:image:t docker://{name}"
        ),
        &workshop.path(""),
    );
    let auth = workshop.path("auth.json");
    let unpack = |password: &str, bundle: &str| {
        let encoded =
            String::from_utf8(sh(&format!("printf 'hearth:{password}' | base64"), &workshop.path("")).stdout)
                .unwrap();
        let content = json!({ "auths": { &registry.address: { "auth": encoded.trim() } } });
        fs::write(&auth, content.to_string()).unwrap();
        let mut command = workshop.hearth("unpack");
        command.env("REGISTRY_AUTH_FILE", &auth).arg(format!("docker://{name}")).arg(workshop.path(bundle));
        command.output().unwrap()
    };
    let output = unpack("wrong-password", "refused");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && !message.contains("wrong-password"), "{message}");
    assert!(!workshop.path("refused").exists());
    let output = unpack("sesame", "bundle");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = tree::read(&workshop.unpack(&source, "layout", &["--copy"]).join("rootfs"));
    tree::expect_same(&expected, &tree::read(&workshop.path("bundle/rootfs")), &[]);
    workshop.expect_clean(&["bundle", "layout"]);
}

/// A registry that lies: one answer for every request, whatever was asked.
#[test]
fn a_registry_that_lies_is_not_believed() {
    let workshop = Workshop::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..8 {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            if request[..length].starts_with(b"GET /stop") {
                return;
            }
            let body = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let pinned = format!("docker://{address}/x@sha256:{}", "0".repeat(64));
    let message = workshop.refused(&pinned, "bundle", &[]);
    assert!(message.to_lowercase().contains("digest"), "{message}");
    let message = workshop.refused(&format!("docker://{address}/x:t"), "bundle", &[]);
    assert!(message.contains("not understood"), "{message}");
    let mut stop = TcpStream::connect(address).unwrap();
    stop.write_all(b"GET /stop\r\n\r\n").unwrap();
    server.join().unwrap();
    workshop.expect_clean(&[]);
}

#[test]
fn a_missing_helper_is_one_clear_line() {
    let workshop = Workshop::new();
    let alone = workshop.path("alone");
    fs::copy(unpacker(), &alone).unwrap();
    let output = Command::new(&alone)
        .args(["unpack", "--store"])
        .arg(workshop.path("store"))
        .args(["docker://127.0.0.1:1/x"])
        .arg(workshop.path("bundle"))
        .env("PATH", "/nonexistent")
        .stdout(Stdio::null())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("hearth-pull") && message.lines().count() == 1, "{message}");
    workshop.expect_clean(&[]);
}

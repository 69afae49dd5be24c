//! PURE. An image's configuration becomes a config.json, by the image-spec's rules (conversion.md).
//!
//! Where the rules leave a choice, the bundle is what umoci makes: a writable root and a tmpfs for each volume.
//! Only `terminal` differs: an image does not say, and without one a container runs in a pipe as well as at a
//! prompt.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::{Config, ImageConfiguration};

use super::user;
use crate::error::{Error, Result};
use crate::spec::{Mount, Owner, Spec};

const PREFIX: &str = "org.opencontainers.image.";

/// The files of the image that tell who its users are; empty where it has none.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) passwd: String,
    pub(super) group: String,
}

pub(super) fn convert(
    image: &ImageConfiguration,
    users: &Users,
    owner: Owner,
    cgroup2: bool,
) -> Result<Spec> {
    let mut spec = Spec::new(owner, cgroup2);
    spec.hostname = "hearth".into();
    spec.root.readonly = false;
    spec.process.terminal = false;
    let absent = Config::default();
    let config = image.config().as_ref().unwrap_or(&absent);

    let account = user::resolve(config.user().as_deref().unwrap_or_default(), &users.passwd, &users.group)?;
    spec.process.user = account.user;
    if matches!(owner, Owner::Rootless { .. }) {
        // the kernel lets nobody set groups who maps one group only
        spec.process.user.additional_gids.clear();
    }
    let command = [config.entrypoint(), config.cmd()];
    let args: Vec<_> = command.into_iter().flatten().flatten().cloned().collect();
    if !args.is_empty() {
        spec.process.args = args;
    }
    if let Some(directory) = config.working_dir().as_ref().filter(|directory| !directory.is_empty()) {
        spec.process.cwd = absolute("WorkingDir", directory)?;
    }
    for variable in config.env().iter().flatten() {
        set_variable(&mut spec.process.env, variable)?;
    }
    if let Some(home) = account.home
        && !spec.process.env.iter().any(|variable| variable.starts_with("HOME="))
    {
        spec.process.env.push(format!("HOME={home}"));
    }
    let volumes: BTreeSet<_> = config.volumes().iter().flatten().collect();
    for volume in volumes {
        spec.mounts.push(Mount {
            destination: absolute("Volumes", volume)?,
            kind: "tmpfs",
            source: "none",
            options: &["rw", "nosuid", "nodev", "noexec", "relatime"],
        });
    }
    spec.annotations = annotations(image, config);
    Ok(spec)
}

/// A later value of a variable replaces the earlier one in its place.
fn set_variable(env: &mut Vec<String>, variable: &str) -> Result<()> {
    let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        let field = "image configuration: Env";
        return Err(Error::invalid(field, format!("{variable:?}"), "NAME=VALUE"));
    };
    let same = |known: &&mut String| known.split_once('=').is_some_and(|(known, _)| known == name);
    match env.iter_mut().find(same) {
        Some(known) => variable.clone_into(known),
        None => env.push(variable.into()),
    }
    Ok(())
}

fn absolute(field: &str, path: &str) -> Result<String> {
    if path.starts_with('/') {
        return Ok(path.into());
    }
    Err(Error::invalid(format!("image configuration: {field}"), format!("{path:?}"), "an absolute path"))
}

/// What the image says of itself; its labels have the last word.
fn annotations(image: &ImageConfiguration, config: &Config) -> BTreeMap<String, String> {
    let features = image.os_features().as_ref().map(|features| features.join(","));
    let ports: BTreeSet<_> = config.exposed_ports().iter().flatten().map(String::as_str).collect();
    let ports = ports.into_iter().collect::<Vec<_>>().join(",");
    let said = [
        ("os", Some(image.os().to_string())),
        ("architecture", Some(image.architecture().to_string())),
        ("variant", image.variant().clone()),
        ("os.version", image.os_version().clone()),
        ("os.features", features),
        ("author", image.author().clone()),
        ("created", image.created().clone()),
        ("stopSignal", config.stop_signal().clone()),
        ("exposedPorts", Some(ports)),
    ];
    let mut annotations = BTreeMap::new();
    for (name, value) in said {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            annotations.insert(format!("{PREFIX}{name}"), value);
        }
    }
    for (name, value) in config.labels().iter().flatten() {
        annotations.insert(name.clone(), value.clone());
    }
    annotations
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn converted(config: Value, passwd: &str) -> Result<Spec> {
        let image = json!({
            "created": "2020-01-01T00:00:00Z", "author": "me", "architecture": "arm64", "variant": "v8",
            "os": "linux", "os.version": null, "os.features": ["a", "b"],
            "rootfs": { "type": "layers", "diff_ids": [] }, "config": config,
        });
        let image = crate::image::parse(&serde_json::to_vec(&image).unwrap(), "test")?;
        let users = Users { passwd: passwd.into(), group: String::new() };
        convert(&image, &users, Owner::Root, false)
    }

    #[test]
    fn everything_that_an_image_says_is_taken_over() {
        let spec = converted(
            json!({
                "User": "app", "Entrypoint": ["/bin/app", "-v"], "Cmd": ["serve"], "WorkingDir": "/srv",
                "Env": ["PATH=/bin", "A=b=c", "A=d"], "StopSignal": "SIGINT",
                "ExposedPorts": { "80/tcp": {}, "443": {} }, "Volumes": { "/data": {} },
                "Labels": { "k": "v", "org.opencontainers.image.author": "label" },
            }),
            "app:x:7:8::/home/app:",
        )
        .unwrap();
        assert_eq!(spec.process.args, ["/bin/app", "-v", "serve"]);
        assert_eq!(spec.process.env, ["PATH=/bin", "TERM=xterm", "A=d", "HOME=/home/app"]);
        assert_eq!((spec.process.cwd.as_str(), spec.process.user.uid, spec.process.user.gid), ("/srv", 7, 8));
        assert_eq!(spec.mounts.last().unwrap().destination, "/data");
        let expected = [
            ("k", "v"),
            ("org.opencontainers.image.architecture", "arm64"),
            ("org.opencontainers.image.author", "label"),
            ("org.opencontainers.image.created", "2020-01-01T00:00:00Z"),
            ("org.opencontainers.image.exposedPorts", "443,80/tcp"),
            ("org.opencontainers.image.os", "linux"),
            ("org.opencontainers.image.os.features", "a,b"),
            ("org.opencontainers.image.stopSignal", "SIGINT"),
            ("org.opencontainers.image.variant", "v8"),
        ];
        assert!(spec.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected));
    }

    #[test]
    fn an_image_that_says_nothing_gets_a_shell_at_the_root() {
        for config in [
            json!(null),
            json!({}),
            json!({ "Entrypoint": null, "Cmd": [], "WorkingDir": "", "Volumes": null }),
        ] {
            let spec = converted(config, "").unwrap();
            assert_eq!((&spec.process.args[..], spec.process.cwd.as_str()), (&["sh".to_owned()][..], "/"));
            assert_eq!(spec.process.env, Spec::new(Owner::Root, false).process.env);
        }
    }

    #[test]
    fn what_cannot_be_converted_is_refused() {
        for config in [
            json!({ "WorkingDir": "srv" }),
            json!({ "Volumes": { "data": {} } }),
            json!({ "Env": ["novalue"] }),
            json!({ "Env": ["=x"] }),
            json!({ "User": "ghost" }),
            json!({ "Cmd": "not a list" }),
        ] {
            assert!(converted(config.clone(), "").is_err(), "{config}");
        }
    }
}

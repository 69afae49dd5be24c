//! Who we are to a registry: `$REGISTRY_AUTH_FILE`, else docker's config.json, in the form that docker, podman
//! and skopeo share. Helper programs (`credHelpers`) are not run.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::{Error, Result};

const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

/// Never shown: no `Debug` of its content.
#[derive(Deserialize, Default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("credentials")
    }
}

pub(crate) fn find(image: &Reference) -> Result<RegistryAuth> {
    let Some(path) = file() else { return Ok(RegistryAuth::Anonymous) };
    let mut content = Vec::new();
    let failed = |source| Error::File { call: "read", path: path.clone(), source };
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        answer => answer.map_err(failed)?.take(MAX_FILE).read_to_end(&mut content).map_err(failed)?,
    };
    lookup(&content, image, &path)
}

fn file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("REGISTRY_AUTH_FILE")
        .or_else(|| Some(variable("DOCKER_CONFIG")?.join("config.json")))
        .or_else(|| Some(variable("HOME")?.join(".docker/config.json")))
}

/// The most specific entry: `HOST/NAME/SPACE`, ..., `HOST`.
fn lookup(content: &[u8], image: &Reference, path: &Path) -> Result<RegistryAuth> {
    let config: Config = serde_json::from_slice(content).map_err(|source| {
        // the cause of a parse error may quote what it stumbled over: only say where
        let place = format!("{} (line {}, column {})", path.display(), source.line(), source.column());
        Error::Usage(format!("{place}: expected docker's config.json"))
    })?;
    let mut scope = format!("{}/{}", image.registry(), image.repository());
    loop {
        if let Some(entry) = config.auths.iter().find(|(key, _)| normal(key) == scope).map(|(_, entry)| entry)
        {
            return credentials(entry, path);
        }
        match scope.rfind('/') {
            Some(slash) => scope.truncate(slash),
            None => return Ok(RegistryAuth::Anonymous),
        }
    }
}

/// Old entries are URLs: `https://index.docker.io/v1/`.
fn normal(key: &str) -> &str {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let key = key.trim_end_matches("/v1").trim_end_matches("/v2");
    if key == "index.docker.io" { "docker.io" } else { key }
}

fn credentials(entry: &Entry, path: &Path) -> Result<RegistryAuth> {
    if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
        return Ok(RegistryAuth::Basic(user.clone(), password.clone()));
    }
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else {
        return Ok(RegistryAuth::Anonymous);
    };
    let decoded = BASE64_STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_ref().and_then(|decoded| decoded.split_once(':'));
    let (user, password) =
        pair.ok_or_else(|| Error::Usage(format!("{}: expected base64 of USER:PASSWORD", path.display())))?;
    Ok(RegistryAuth::Basic(user.into(), password.trim_end_matches('\0').into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(config: &str, image: &str) -> Option<(String, String)> {
        match lookup(config.as_bytes(), &image.parse().unwrap(), Path::new("test")).unwrap() {
            RegistryAuth::Basic(user, password) => Some((user, password)),
            _ => None,
        }
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let auth = |pair: &str| BASE64_STANDARD.encode(pair);
        let config = format!(
            r#"{{"auths": {{"h:5000": {{"auth": "{}"}}, "h:5000/team": {{"username": "t", "password": "p:q"}},
                "https://index.docker.io/v1/": {{"auth": "{}"}}, "empty": {{}}}}, "credsStore": "x"}}"#,
            auth("a:b:c"),
            auth("d:e"),
        );
        assert_eq!(user(&config, "h:5000/x/y:t"), Some(("a".into(), "b:c".into())));
        assert_eq!(user(&config, "h:5000/team/y"), Some(("t".into(), "p:q".into())));
        assert_eq!(user(&config, "busybox"), Some(("d".into(), "e".into())));
        assert_eq!(user(&config, "other.example/x"), None);
    }

    #[test]
    fn broken_files_are_refused_without_quoting_them() {
        for config in [r#"{"auths": {"h.example": {"auth": "secret!"}}}"#, r#"{"auths": "secret"}"#, "secret"]
        {
            let error =
                lookup(config.as_bytes(), &"h.example/x".parse().unwrap(), Path::new("f")).err().unwrap();
            assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
        }
    }
}

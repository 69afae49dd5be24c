//! What is launched. Every program exits with [`EXPECTED`]: a launch that ends with anything else did not run it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle::Config;
use crate::program;

/// Seldom the exit status of a runtime that failed.
pub const EXPECTED: i32 = 42;

pub const SYS_EXIT: u32 = 60;
pub const SYS_PAUSE: u32 = 34;
/// The same two programs outside any bundle.
pub const EXITING: &str = "exiting";
pub const SLEEPING: &str = "sleeping";
const PROGRAM: &str = "/bin/true";
const SLEEPER: &str = "/bin/pause";
/// Tells when it runs, and exits.
const CLOCK: &str = "/bin/clock";

#[derive(Debug, Clone)]
pub struct Bundle {
    pub name: String,
    pub dir: PathBuf,
    /// The same, with a program that sleeps until it is killed.
    pub sleeper: PathBuf,
    pub rootfs: PathBuf,
    pub args: Vec<String>,
    /// The program's command on the host, where that is the same program.
    pub bare: Option<Vec<String>>,
    /// The floor makes containers of the default spec only.
    pub has_floor: bool,
}

impl Bundle {
    /// `true`, `limits`, `clock` (for the measure `first`) or NAME=DIR. `v2`: as `runc spec` does on such a host, with a cgroup namespace.
    pub fn make(text: &str, scratch: &Path, v2: bool) -> Result<Self, String> {
        match text {
            "true" => Self::own("true", default_spec(v2), scratch),
            "limits" => Self::own("limits", with_limits(default_spec(v2))?, scratch),
            "clock" => Self::own("clock", default_spec(v2), scratch),
            _ => {
                let (name, dir) = text
                    .split_once('=')
                    .ok_or_else(|| format!("--bundle {text}: expected true, limits or NAME=DIR"))?;
                Self::given(name, Path::new(dir), scratch).map_err(|e| format!("--bundle {text}: {e}"))
            }
        }
    }

    /// The rootfs holds programs of a few bytes: one that exits, one that sleeps, one that tells the time.
    fn own(name: &str, config: Config, scratch: &Path) -> Result<Self, String> {
        let rootfs = scratch.join("rootfs");
        for dir in ["bin", "dev", "etc", "proc", "sys"] {
            fs::create_dir_all(rootfs.join(dir)).map_err(|e| format!("mkdir {dir}: {e}"))?;
        }
        program::syscall(&rootfs.join(&PROGRAM[1..]), SYS_EXIT, &[u64::from(EXPECTED.unsigned_abs())]);
        program::syscall(&rootfs.join(&SLEEPER[1..]), SYS_PAUSE, &[]);
        program::clock(&rootfs.join(&CLOCK[1..]), EXPECTED.to_le_bytes()[0]);
        let program = if name == "clock" { CLOCK } else { PROGRAM };
        let bare = rootfs.join(&program[1..]).to_string_lossy().into_owned();
        let mut bundle = Self {
            name: name.into(),
            dir: scratch.join(name),
            sleeper: scratch.join(format!("{name}-sleeper")),
            rootfs,
            args: vec![program.into()],
            bare: Some(vec![bare]),
            has_floor: name == "true",
        };
        bundle.write(config)?;
        Ok(bundle)
    }

    fn given(name: &str, dir: &Path, scratch: &Path) -> Result<Self, String> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err("expected a name of letters, digits and `-`".into());
        }
        let dir = dir.canonicalize().map_err(|e| e.to_string())?;
        let text = fs::read_to_string(dir.join("config.json")).map_err(|e| format!("config.json: {e}"))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("config.json: {e}"))?;
        let args = value["process"]["args"].as_array().into_iter().flatten();
        let args: Vec<String> = args.filter_map(Value::as_str).map(str::to_owned).collect();
        let first = args.first().ok_or("config.json: process.args: expected a program")?;
        let bare = Path::new(first).is_file().then(|| args.clone());
        let rootfs = dir.join(value["root"]["path"].as_str().unwrap_or("rootfs"));
        let sleeper = scratch.join(format!("{name}-sleeper"));
        let mut bundle = Self { name: name.into(), dir, sleeper, rootfs, args, bare, has_floor: false };
        // Its own directory stays as it is.
        bundle.dir = scratch.join(name);
        bundle.write(Config(value))?;
        Ok(bundle)
    }

    fn write(&mut self, mut config: Config) -> Result<(), String> {
        config.set("/process/terminal", false);
        config.set("/process/args", json!(self.args));
        config.set("/root/path", self.rootfs.to_string_lossy().into_owned());
        for dir in [&self.dir, &self.sleeper] {
            fs::create_dir_all(dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
            config.write(dir);
            if self.rootfs.join(&SLEEPER[1..]).exists() {
                config.args(&[SLEEPER]);
            } else {
                config.args(&["/bin/sleep", "1000000"]);
            }
        }
        Ok(())
    }
}

fn default_spec(v2: bool) -> Config {
    let mut config = Config::default();
    if v2 {
        config.namespace("cgroup", None);
    }
    config
}

/// What Docker adds to a container with `--memory --cpus --pids-limit`.
fn with_limits(mut config: Config) -> Result<Config, String> {
    let profile = include_str!("../../fixtures/seccomp/docker.json");
    let profile: Value = serde_json::from_str(profile).map_err(|e| format!("docker.json: {e}"))?;
    config.set("/linux/seccomp", profile);
    config.set("/linux/resources/memory", json!({"limit": 256 << 20}));
    config.set("/linux/resources/cpu", json!({"quota": 100_000, "period": 100_000, "shares": 512}));
    config.set("/linux/resources/pids", json!({"limit": 100}));
    Ok(config)
}

//! A registry, by the helper `hearth-pull`: it speaks HTTP, so that nothing of that is in this executable.
//!
//! The helper fills an OCI layout below the store, which stays until its layers are unpacked; what an
//! interrupted pull has brought is found by the next one. Layers that the store has are never asked for.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Layer, Platform};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::{Progress, Step};
use crate::store::{Lock, Store};

const HELPER: &str = "hearth-pull";
const MAX_MESSAGE: u64 = 16 * 1024;
const MAX_LINE: u64 = 1024;

/// An image that is being pulled, and nobody else pulls meanwhile.
#[derive(Debug)]
pub(super) struct Pulled {
    image: String,
    plain_http: bool,
    pub(super) directory: PathBuf,
    // let go last
    _lock: Lock,
}

impl Pulled {
    /// Brings the manifest for `platform` and its configuration.
    pub(super) fn documents(
        image: &str,
        platform: Option<&Platform>,
        plain_http: bool,
        store: &Store,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let name = Digest::of(image.as_bytes());
        let (directory, lock) = store.pull_directory(&name, progress)?;
        let pulled = Self { image: image.into(), plain_http, directory, _lock: lock };
        let mut arguments = vec!["--no-layers".to_owned()];
        arguments.extend(platform.map(|platform| format!("--platform={platform}")));
        match pulled.run(&arguments, progress) {
            Ok(()) => Ok(pulled),
            Err(error) => {
                // without an image there is nothing to go on with later
                pulled.forget()?;
                Err(error)
            }
        }
    }

    pub(super) fn forget(self) -> Result<()> {
        std::fs::remove_dir_all(&self.directory).map_err(Error::path("remove", &self.directory))
    }

    pub(super) fn layers(&self, layers: &[&Layer], progress: &mut dyn Progress) -> Result<()> {
        let arguments: Vec<_> = layers.iter().map(|layer| format!("--layer={}", layer.name())).collect();
        if arguments.is_empty() { Ok(()) } else { self.run(&arguments, progress) }
    }

    fn run(&self, arguments: &[String], progress: &mut dyn Progress) -> Result<()> {
        let mut child = self.start(arguments).map_err(|source| Error::NoPuller { source })?;
        let mut message = String::new();
        if let Some(output) = child.stdout.take() {
            report(BufReader::new(output), progress);
        }
        if let Some(errors) = child.stderr.take() {
            // what is unreadable is no message; the exit status decides
            let _ = errors.take(MAX_MESSAGE).read_to_string(&mut message);
        }
        let status = child.wait().map_err(Error::path("wait for", HELPER))?;
        if status.success() {
            return Ok(());
        }
        let message = message.trim().trim_start_matches("hearth-pull: ");
        let message =
            if message.is_empty() { format!("{HELPER} ended with {status}") } else { message.into() };
        Err(Error::Pull { image: self.image.clone(), message })
    }

    fn start(&self, arguments: &[String]) -> std::io::Result<Child> {
        let beside = std::env::current_exe().ok().map(|executable| executable.with_file_name(HELPER));
        let helper = beside.filter(|path| path.exists()).unwrap_or_else(|| HELPER.into());
        let mut command = Command::new(helper);
        if self.plain_http {
            command.arg("--plain-http");
        }
        command.args(arguments).arg(&self.image).arg(&self.directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }
}

/// The helper writes `BLOB DONE TOTAL`, a line each; anything else is not worth failing for.
fn report(mut output: impl BufRead, progress: &mut dyn Progress) {
    let mut line = String::new();
    while output.by_ref().take(MAX_LINE).read_line(&mut line).is_ok_and(|length| length > 0) {
        let mut words = line.split_ascii_whitespace();
        if let (Some(blob), Some(done), Some(total)) = (words.next(), words.next(), words.next())
            && let (Ok(done), Ok(total)) = (done.parse(), total.parse())
        {
            progress.step(Step::Pull { blob, done, total });
        }
        line.clear();
    }
}

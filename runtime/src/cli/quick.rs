//! The usual form of `run`, read by hand: clap makes its definition of every flag before it reads the first word, which
//! costs a launch 0.1 ms. Whatever is not known here is clap's to read or to refuse.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::container::create::Options;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Run {
    pub(super) root: Option<PathBuf>,
    pub(super) options: Options,
    pub(super) keep: bool,
}

/// None: ask clap.
pub(super) fn run(args: &[OsString]) -> Option<Run> {
    let mut run = Run::default();
    let options = &mut run.options;
    options.runs = true;
    options.bundle = PathBuf::from(".");
    let mut words = args.iter().skip(1).map(OsString::as_os_str);
    loop {
        match words.next()?.to_str()? {
            "--root" => run.root = Some(value(words.next())?.into()),
            "run" => break,
            _ => return None,
        }
    }
    while let Some(word) = words.next() {
        match word.to_str()? {
            "-b" | "--bundle" => options.bundle = value(words.next())?.into(),
            "--pid-file" => options.pid_file = Some(value(words.next())?.into()),
            "-d" | "--detach" => options.detach = true,
            "--keep" => run.keep = true,
            "--timeline" => options.timeline = true,
            id if options.id.is_empty() => options.id = value(Some(OsStr::new(id)))?.to_str()?.to_owned(),
            _ => return None,
        }
    }
    if options.id.is_empty() { None } else { Some(run) }
}

fn value(word: Option<&OsStr>) -> Option<&OsStr> {
    word.filter(|word| !word.is_empty() && !word.as_encoded_bytes().starts_with(b"-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As clap reads it; None where it refuses.
    fn by_clap(args: &[OsString]) -> Option<Run> {
        let matches = super::super::command().try_get_matches_from(args).ok()?;
        let (name, verb) = matches.subcommand()?;
        assert_eq!(name, "run");
        let root = super::super::Root::new(std::path::Path::new("/r")).ok()?;
        let global = super::super::Global { root, given_root: true, systemd_cgroup: false, criu: None };
        Some(Run {
            root: super::super::path(&matches, "root"),
            options: super::super::run::options(&global, verb, true),
            keep: verb.get_flag("keep"),
        })
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_here_is_what_clap_reads(
            before in proptest::collection::vec("--root|/r|--root=/r|-b", 0..3),
            after in proptest::collection::vec("--bundle|-b|-d|--detach|--keep|--timeline|--pid-file|--init|--|-|a|/b||--b", 0..6),
        ) {
            let words = ["hearth".to_owned()].into_iter().chain(before).chain(["run".to_owned()]).chain(after);
            let args: Vec<OsString> = words.map(OsString::from).collect();
            if let Some(read) = run(&args) {
                assert_eq!(Some(read), by_clap(&args), "{args:?}");
            }
        }
    }

    #[test]
    fn the_usual_form_is_read() {
        let args = ["hearth", "--root", "/r", "run", "--bundle", "/b", "-d", "id"].map(OsString::from);
        let read = run(&args).unwrap();
        assert_eq!((read.root, read.options.id.as_str()), (Some("/r".into()), "id"));
        assert!(read.options.detach);
    }
}

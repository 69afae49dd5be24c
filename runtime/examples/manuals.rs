//! Writes shell completions and manual pages, made of the command line itself: `manuals DIR`.
//!
//! An example rather than a verb, so that what makes them is not in the executable that starts containers. The
//! files lie in DIR as they do below `/usr/share`.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use clap_complete::Shell;

const NAME: &str = "hearth";

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: manuals DIR")?;
    completions(&dir)?;
    manuals(&dir.join("man/man8"))
}

fn completions(dir: &Path) -> Result<(), Box<dyn Error>> {
    let files = [
        (Shell::Bash, "bash-completion/completions/hearth"),
        (Shell::Zsh, "zsh/vendor-completions/_hearth"),
        (Shell::Fish, "fish/vendor_completions.d/hearth.fish"),
    ];
    for (shell, file) in files {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        clap_complete::generate(shell, &mut hearth::cli::command(), NAME, &mut File::create(path)?);
    }
    Ok(())
}

/// hearth.8, and hearth-VERB.8 for each verb.
fn manuals(dir: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let mut command = hearth::cli::command().disable_help_subcommand(true);
    command.build();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for command in std::iter::once(&command).chain(verbs) {
        let command = command.clone().version(env!("CARGO_PKG_VERSION"));
        let source = concat!("hearth ", env!("CARGO_PKG_VERSION"));
        let page = clap_mangen::Man::new(command).section("8").source(source).manual("Hearth");
        page.render(&mut File::create(dir.join(page.get_filename()))?)?;
    }
    Ok(())
}

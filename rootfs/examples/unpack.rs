//! The library's two calls behind a bare command line, for tests of this crate alone.
#![allow(clippy::print_stdout, reason = "a program for tests")]

use std::error::Error as _;
use std::process::ExitCode;

use hearth_rootfs::{Options, Store, TerminalLine, gc, unpack};

fn run(words: &[String]) -> hearth_rootfs::Result<()> {
    let mut options = Options::default();
    let mut rest = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("--store", path)) => options.store = path.into(),
            Some(("--max-size", bytes)) => options.max_size = bytes.parse().unwrap_or(0),
            Some(("--platform", platform)) => options.platform = Some(platform.parse()?),
            _ if word == "--copy" => options.copy = true,
            _ => rest.push(word.as_str()),
        }
    }
    match rest[..] {
        ["gc"] => println!("{:?}", gc(&options.store)?),
        ["unpack", source, bundle] => {
            let mut progress = TerminalLine::on_stderr();
            let unpacked = unpack(&source.parse()?, bundle.as_ref(), &options, &mut *progress)?;
            drop(progress);
            println!("{unpacked:?}");
        }
        _ => println!(
            "unpack [--copy] [--store=] [--max-size=] [--platform=] SOURCE BUNDLE | gc [--store=]; default store {}",
            Store::default_path().display()
        ),
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let Err(error) = run(&words) else { return ExitCode::SUCCESS };
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    eprintln!("{message}");
    ExitCode::FAILURE
}

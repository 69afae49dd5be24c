//! The library's two calls behind a bare command line, for tests of this crate alone.
#![allow(clippy::print_stdout, reason = "a program for tests")]

use std::error::Error as _;
use std::process::ExitCode;

use hearth_rootfs::{Options, TerminalLine, gc, parse_size, unpack};

fn run(words: &[String]) -> hearth_rootfs::Result<()> {
    let mut options = Options::default();
    let mut rest = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().map(String::as_str).unwrap_or_default();
        match word.as_str() {
            "--copy" => options.copy = true,
            "--store" => options.store = value().into(),
            "--max-size" => options.max_size = parse_size(value())?,
            "--platform" => options.platform = Some(value().parse()?),
            word => rest.push(word),
        }
    }
    match rest[..] {
        ["gc"] => println!("{:?}", gc(&options.store)?),
        ["unpack", source, bundle] => {
            let mut progress = TerminalLine::on_stderr();
            unpack(&source.parse()?, bundle.as_ref(), &options, &mut *progress)?;
        }
        _ => println!(
            "unpack [--copy] [--store DIR] [--max-size N] [--platform P] SOURCE BUNDLE | gc [--store DIR]"
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

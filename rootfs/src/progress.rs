//! What an unpack tells while it works.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::digest::Digest;

#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The registry's helper reports a blob.
    Pull { blob: &'a str, done: u64, total: u64 },
    /// Of layer `number` of `count`, `done` bytes of its blob are applied.
    Layer { number: usize, count: usize, name: Digest, done: u64, total: u64 },
    /// Someone else is unpacking this layer.
    Wait { name: Digest },
}

pub trait Progress {
    fn step(&mut self, step: Step<'_>);
}

/// Says nothing.
impl Progress for () {
    fn step(&mut self, _: Step<'_>) {}
}

/// One line on a terminal that is written over again and again, and gone at the end.
#[derive(Debug)]
pub struct TerminalLine {
    shown: Option<Instant>,
}

impl TerminalLine {
    const PAUSE: Duration = Duration::from_millis(100);

    /// On standard error when that is a terminal; silence otherwise.
    pub fn on_stderr() -> Box<dyn Progress> {
        if io::stderr().is_terminal() { Box::new(Self { shown: None }) } else { Box::new(()) }
    }
}

impl Progress for TerminalLine {
    fn step(&mut self, step: Step<'_>) {
        let ended = matches!(step, Step::Layer { done, total, .. } if done == total);
        if !ended && self.shown.is_some_and(|shown| shown.elapsed() < Self::PAUSE) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = match step {
            Step::Pull { blob, done, total } => format!("pull {:.19} {}", blob, share(done, total)),
            Step::Layer { number, count, name, done, total } => {
                format!("layer {number}/{count} sha256:{:.12} {}", name.hex(), share(done, total))
            }
            Step::Wait { name } => format!("waiting for another unpack of sha256:{:.12}", name.hex()),
        };
        // a terminal that went away is no reason to fail
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }
}

impl Drop for TerminalLine {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn share(done: u64, total: u64) -> String {
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
    format!("{percent:3} % of {:.1} MiB", total as f64 / f64::from(1 << 20))
}

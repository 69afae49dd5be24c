//! The containerd shim: not built yet.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = "containerd-shim-hearth-v2: not built yet: use io.containerd.runc.v2 with BinaryName = hearth";
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::FAILURE
}

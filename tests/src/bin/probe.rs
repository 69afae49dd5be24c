//! What a container's shell cannot do by itself: `probe notify TEXT` sends a datagram to `$NOTIFY_SOCKET`.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["notify", text] => notify(text),
        _ => Err("usage: probe notify TEXT".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "probe: {message}");
            ExitCode::FAILURE
        }
    }
}

fn notify(text: &str) -> Result<(), String> {
    let path = std::env::var("NOTIFY_SOCKET").map_err(|e| format!("NOTIFY_SOCKET: {e}"))?;
    let socket = UnixDatagram::unbound().map_err(|e| format!("socket: {e}"))?;
    socket.send_to(text.as_bytes(), &path).map_err(|e| format!("send to {path}: {e}"))?;
    Ok(())
}

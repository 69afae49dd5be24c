//! Running one command: its output goes to files, never to pipes, since a created container holds them open.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::context::{Ctx, patience};

/// No command of a runtime takes more seconds, unless it hangs.
const LIMIT: u64 = 20;

/// A command about to run.
#[derive(Debug)]
pub struct Invocation<'t> {
    context: &'t Ctx,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    dir: Option<PathBuf>,
    stdin: Stdin,
    output: Option<[PipeWriter; 2]>,
}

#[derive(Debug)]
enum Stdin {
    Null,
    Pipe,
    Bytes(Vec<u8>),
    Given(PipeReader),
}

/// What a command did.
#[derive(Clone)]
pub struct Out {
    /// The exit code, or 128 + the signal's number.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    command: String,
}

/// A command that still runs.
#[derive(Debug)]
pub struct Running {
    pub stdin: Option<ChildStdin>,
    child: Child,
    command: String,
    files: PathBuf,
    trace: PathBuf,
}

impl fmt::Display for Invocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &OsString| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
        f.write_str(&quoted(&self.program))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

impl<'t> Invocation<'t> {
    pub(crate) fn new<S: AsRef<OsStr>>(context: &'t Ctx, program: &OsStr, args: &[S]) -> Self {
        let args = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let program = program.to_owned();
        Self { context, program, args, env: Vec::new(), dir: None, stdin: Stdin::Null, output: None }
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Gives these bytes on standard input, which is `/dev/null` otherwise.
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = Stdin::Bytes(bytes.to_owned());
        self
    }

    /// Standard input is a pipe, kept in [`Running::stdin`].
    pub fn stdin_pipe(mut self) -> Self {
        self.stdin = Stdin::Pipe;
        self
    }

    /// The standard streams are pipes of the case's own; [`Out`] then has no text.
    pub fn on_pipes(mut self, input: PipeReader, output: PipeWriter, error: PipeWriter) -> Self {
        self.stdin = Stdin::Given(input);
        self.output = Some([output, error]);
        self
    }

    /// Runs the command under another one: `wrap(&["strace", "-f"])`.
    pub fn wrap(mut self, prefix: &[&str]) -> Self {
        let mut args: Vec<OsString> = prefix[1..].iter().map(OsString::from).collect();
        args.push(std::mem::replace(&mut self.program, prefix[0].into()));
        args.append(&mut self.args);
        self.args = args;
        self
    }

    pub fn run(self) -> Out {
        self.spawn().finish()
    }

    pub fn spawn(self) -> Running {
        let files = self.context.dir.join(format!("cmd{}", self.context.next()));
        let open = |suffix: &str| {
            let path = files.with_extension(suffix);
            File::create(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()))
        };
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        match self.output {
            None => command.stdout(open("out")).stderr(open("err")),
            Some([output, error]) => command.stdout(output).stderr(error),
        };
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(match self.stdin {
            Stdin::Null => Stdio::null(),
            Stdin::Pipe => Stdio::piped(),
            Stdin::Bytes(bytes) => {
                let path = files.with_extension("in");
                fs::write(&path, bytes).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
                File::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display())).into()
            }
            Stdin::Given(pipe) => pipe.into(),
        });
        let text = show(&self.program, &self.args);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{text}: {e}"));
        let trace = self.context.dir.join("trace");
        Running { stdin: child.stdin.take(), child, command: text, files, trace }
    }
}

impl Running {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap_or_else(|e| panic!("kill {signal:?}: {e}"));
    }

    pub fn stdout_so_far(&self) -> String {
        read_lossy(&self.files.with_extension("out"))
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    pub fn finish(mut self) -> Out {
        drop(self.stdin.take());
        let started = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if started.elapsed() > patience(LIMIT) => {
                    let _ = self.child.kill();
                    let out = self.out(ExitStatus::from_raw(9));
                    panic!("still running after {:?}: {out:?}", patience(LIMIT));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(e) => panic!("wait for {}: {e}", self.command),
            }
        };
        self.out(status)
    }

    fn out(&self, status: ExitStatus) -> Out {
        let out = Out {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: read_lossy(&self.files.with_extension("out")),
            stderr: read_lossy(&self.files.with_extension("err")),
            command: self.command.clone(),
        };
        let text = format!("$ {}\n= {}\n{}", out.command, out.code, out.stderr);
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(&self.trace) {
            let _ = file.write_all(text.as_bytes());
        }
        out
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.chars().take(1000).collect::<String>();
        let (out, err) = (short(&self.stdout), short(&self.stderr));
        write!(f, "`{}` gave {}\n  stdout: {out:?}\n  stderr: {err:?}", self.command, self.code)
    }
}

impl Out {
    /// Fails the case unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, expected, "exit code of {self:?}");
        self
    }

    /// Fails the case unless the command failed with `code` and said `text` (whatever the case of letters).
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> Self {
        let out = self.code(code);
        let said = out.stderr.to_lowercase();
        assert!(said.contains(&text.to_lowercase()), "stderr lacks {text:?}: {out:?}");
        out
    }

    /// Fails the case unless the command refused: a non-zero code and one clear line that names `text`.
    #[track_caller]
    pub fn refused(self, text: &str) -> Self {
        assert_ne!(self.code, 0, "accepted: {self:?}");
        let errors: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.contains("level=warning"))
            .collect();
        assert_eq!(errors.len(), 1, "one line of error is expected: {self:?}");
        assert!(
            !["panicked at", "goroutine "].iter().any(|word| self.stderr.contains(word)),
            "a panic: {self:?}"
        );
        let line = errors[0].to_lowercase();
        assert!(line.contains(&text.to_lowercase()), "the error does not name {text:?}: {self:?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON: {e}: {self:?}"))
    }

    /// Standard output without the newline at its end.
    pub fn text(&self) -> &str {
        self.stdout.trim_end()
    }
}

fn show(program: &OsStr, args: &[OsString]) -> String {
    let mut text = program.to_string_lossy().into_owned();
    for arg in args {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

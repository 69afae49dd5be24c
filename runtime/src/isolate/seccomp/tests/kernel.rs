//! What the kernel makes of the programs.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxSeccomp;
use serde_json::json;

use super::interpret::{Data, run};
use crate::isolate::seccomp::{Program, compile, notify, support};
use crate::sys::seccomp::{attempt, knows_action, knows_flags};

const X86_64: u32 = 0xc000_003e;
const UNSHARE: u32 = 272;
const PERSONALITY: u32 = 135;
const GETPPID: u32 = 110;
const SOCKET: u32 = 41;

pub(super) fn fixture(name: &str) -> LinuxSeccomp {
    let path = format!("{}/../tests/fixtures/seccomp/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The median of many runs of `work`.
fn median(mut work: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..301).map(|_| work()).collect();
    times.sort();
    times[150]
}

/// A filter belongs to the thread that loads it, so each load has its own.
fn load(program: &Program) -> Duration {
    let load = || {
        let start = Instant::now();
        program.load().unwrap();
        start.elapsed()
    };
    std::thread::scope(|scope| scope.spawn(load).join().unwrap())
}

/// What `work` gives in a thread under the filter.
fn under<T: Send>(program: &Program, work: impl FnOnce() -> T + Send) -> T {
    let filtered = || {
        program.load().unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(filtered).join().unwrap())
}

#[test]
fn every_call_that_a_profile_denies_fails_with_its_errno() {
    for name in ["docker", "podman"] {
        let program = compile(&fixture(name)).unwrap();
        let mut denied = vec![];
        for nr in (0..600).chain([1000, 0x3fff_ffff]).chain(1 << 30..(1 << 30) + 600) {
            // uretprobe and uprobe, which the kernel lets pass every filter.
            if [335, 336].contains(&nr) {
                continue;
            }
            for args in [[0; 6], [40; 6], [1 << 28; 6], [u64::MAX - 9; 6]] {
                let (answer, _) = run(&program.filter, &Data { nr, arch: X86_64, args }, false);
                if let Some(errno) = answer.checked_sub(0x5_0000).filter(|errno| *errno < 4096) {
                    denied.push((nr, args, errno));
                }
            }
        }
        assert!(denied.len() > 1000, "{}", denied.len());
        let seen =
            under(&program, || denied.iter().map(|(nr, args, _)| attempt(*nr, *args)).collect::<Vec<_>>());
        for ((nr, args, errno), seen) in denied.into_iter().zip(seen) {
            assert_eq!(seen, Err(errno as i32), "{name}: call {nr:#x} with {args:x?}");
        }
    }
}

#[test]
fn arguments_decide_what_docker_allows() {
    let program = compile(&fixture("docker")).unwrap();
    under(&program, || {
        assert!(attempt(PERSONALITY, [0xffff_ffff, 0, 0, 0, 0, 0]).is_ok());
        assert_eq!(attempt(PERSONALITY, [1, 0, 0, 0, 0, 0]), Err(1));
        assert_eq!(attempt(PERSONALITY, [0x1_ffff_ffff, 0, 0, 0, 0, 0]), Err(1), "the high half counts");
        assert!(attempt(SOCKET, [1, 1, 0, 0, 0, 0]).is_ok_and(|fd| fd > 2), "AF_UNIX");
        assert_eq!(attempt(SOCKET, [40, 1, 0, 0, 0, 0]), Err(1), "AF_VSOCK");
        assert_eq!(attempt(UNSHARE, [1 << 30, 0, 0, 0, 0, 0]), Err(1), "CLONE_NEWNET");
        assert_eq!(attempt(1000, [0; 6]), Err(38), "a call of the future");
    });
}

#[test]
fn the_largest_programs_load() {
    let values =
        |len: u64| (0..len).map(|n| json!({"index": 0, "op": "SCMP_CMP_EQ", "value": n * 0x1_0001_0003}));
    let size = |len| {
        let args: Vec<_> = values(len).collect();
        let rules = json!([{"names": ["personality"], "action": "SCMP_ACT_TRAP", "args": args}]);
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
        compile(&serde_json::from_value(profile).unwrap())
    };
    let lengths: Vec<_> = (0..2000).collect();
    let fit = lengths.partition_point(|len| size(*len).is_ok()) as u64;
    let program = size(fit - 1).unwrap();
    assert!((4090..=4096).contains(&program.filter.len()), "{}", program.filter.len());
    under(&program, || attempt(GETPPID, [0; 6])).unwrap();
}

#[test]
fn the_kernel_has_what_a_profile_may_ask_for() {
    for action in [0_u32, 0x3_0000, 0x5_0000, 0x7fc0_0000, 0x7ff0_0000, 0x7ffc_0000, 0x7fff_0000, 0x8000_0000]
    {
        assert!(knows_action(action), "{action:#x}");
    }
    assert!(!knows_action(0x1_0000));
    assert_eq!(support::actions().len(), 9);
    assert_eq!(support::supported_flags(), support::known_flags());
    assert!(support::known_flags().contains(&"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".to_owned()));
    assert!(knows_flags(2 | 4) && !knows_flags(1 << 20));
}

#[test]
fn a_bad_program_is_an_error_and_filters_nothing() {
    let program = Program { filter: vec![], flags: 0, notify: false };
    assert!(program.load().unwrap_err().to_string().starts_with("seccomp"));
    let filter = compile(&fixture("docker")).unwrap().filter.repeat(300);
    assert!(Program { filter, flags: 0, notify: false }.load().is_err());
    attempt(GETPPID, [0; 6]).unwrap();
}

/// A child of the two tests below: this test binary once more, which meets the filter's answer.
#[test]
#[ignore = "run by others as a child"]
fn child_that_meets_an_action() {
    let Ok(action) = std::env::var("HEARTH_TEST_ACTION") else { return };
    let rule = json!([{"names": ["getppid"], "action": action}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule});
    let program = compile(&serde_json::from_value(profile).unwrap()).unwrap();
    let seen = under(&program, || attempt(GETPPID, [0; 6]));
    std::io::stdout().write_all(format!("seen {seen:?}").as_bytes()).unwrap();
}

#[test]
fn actions_do_what_they_say() {
    const SIGSYS: i32 = 31;
    for (action, signal, seen) in [
        ("SCMP_ACT_KILL_PROCESS", Some(SIGSYS), ""),
        ("SCMP_ACT_TRAP", Some(SIGSYS), ""),
        ("SCMP_ACT_LOG", None, "seen Ok("),
        ("SCMP_ACT_TRACE", None, "seen Err(38)"),
        ("SCMP_ACT_ERRNO", None, "seen Err(1)"),
        ("SCMP_ACT_ALLOW", None, "seen Ok("),
    ] {
        let child = "isolate::seccomp::tests::kernel::child_that_meets_an_action";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", child, "--ignored", "--nocapture"]).env("HEARTH_TEST_ACTION", action);
        let output = command.output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.signal(), signal, "{action}: {stdout}");
        assert!(stdout.contains(seen), "{action}: {stdout}");
    }
}

#[test]
fn an_agent_gets_the_listener_and_hears_of_calls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    let agent = UnixListener::bind(&path).unwrap();
    let rules = json!([{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": rules});
    let program = compile(&serde_json::from_value(profile).unwrap()).unwrap();
    let state = format!("{{\"metadata\":\"{}\"}}", "x".repeat(1 << 20));
    std::thread::scope(|scope| {
        let notified = scope.spawn(|| {
            let listener = program.load().unwrap().unwrap();
            notify::send(&path, listener.as_fd(), state.as_bytes()).unwrap();
            drop(listener);
            attempt(GETPPID, [0; 6])
        });
        let (received, listener) = receive(&agent);
        assert!(received == state.as_bytes(), "{} of {} bytes", received.len(), state.len());
        let mut heard = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut heard, None).unwrap();
        assert!(heard[0].revents().contains(rustix::event::PollFlags::IN));
        drop(listener);
        assert_eq!(notified.join().unwrap(), Err(38), "nobody left to answer");
    });
}

/// What arrives over one connection, and the descriptor that came with it.
fn receive(agent: &UnixListener) -> (Vec<u8>, OwnedFd) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (mut connection, _) = agent.accept().unwrap();
    let mut bytes = vec![0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
    let len = recvmsg(&connection, &mut buffers, &mut ancillary, RecvFlags::empty()).unwrap().bytes;
    bytes.truncate(len);
    connection.read_to_end(&mut bytes).unwrap();
    let mut descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => vec![],
    });
    (bytes, descriptors.next().unwrap())
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let listener: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    for path in ["/nonexistent/agent", "/dev/null", &format!("/{}", "x".repeat(200))] {
        let error = notify::send(path.as_ref(), listener.as_fd(), b"{}").unwrap_err().to_string();
        assert!(error.contains("failed to connect with seccomp agent") && error.contains(path), "{error}");
    }
}

/// Prints what compiling, sending and loading cost. `cargo test --release -p hearth --lib -- --ignored cost`
#[test]
#[ignore = "a measurement"]
fn cost_of_real_profiles() {
    for name in ["docker", "podman"] {
        let profile = fixture(name);
        let start = Instant::now();
        let program = compile(&profile).unwrap();
        let first = start.elapsed();
        let compiling = median(|| {
            let start = Instant::now();
            std::hint::black_box(compile(std::hint::black_box(&profile)).unwrap());
            start.elapsed()
        });
        let bytes = postcard::to_stdvec(&program).unwrap();
        let decoding = median(|| {
            let start = Instant::now();
            std::hint::black_box(postcard::from_bytes::<Program>(std::hint::black_box(&bytes)).unwrap());
            start.elapsed()
        });
        let steps = |arch, mark| {
            let call = |nr: u32| Data { nr: nr | mark, arch, args: [0; 6] };
            (0..480).map(|nr| run(&program.filter, &call(nr), false).1).sum::<usize>() as f64 / 480.0
        };
        let linear = Program { filter: super::libseccomp_oracle::linear(&profile), ..program.clone() };
        println!(
            "{name}: {} instructions, {} bytes to send; compile {compiling:?} ({first:?} the first time), decode {decoding:?}, load {:?}; \
             steps {:.1} x86_64, {:.1} x86, {:.1} x32; libseccomp's chain: {} instructions, load {:?}",
            program.filter.len(),
            bytes.len(),
            median(|| load(&program)),
            steps(0xc000_003e, 0),
            steps(0x4000_0003, 0),
            steps(0xc000_003e, 1 << 30),
            linear.filter.len(),
            median(|| load(&linear)),
        );
    }
}

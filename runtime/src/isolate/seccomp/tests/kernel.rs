//! What the kernel makes of the programs.

use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxSeccomp;

use super::interpret::{Data, run};
use crate::isolate::seccomp::{Program, compile};

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

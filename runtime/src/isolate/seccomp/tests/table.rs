//! The table against libseccomp's.

use libseccomp::ScmpSyscall;

use super::libseccomp_oracle::arch;
use crate::isolate::seccomp::names::{Arch, Call};
use crate::isolate::seccomp::table::ROWS;

const ALL: [Arch; 8] =
    [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm, Arch::Riscv64, Arch::Ppc64le, Arch::S390x];

#[test]
fn every_name_is_found_and_no_other() {
    for (row, (name, _)) in ROWS.iter().enumerate() {
        let call = Call::named(name).unwrap();
        assert_eq!(call, Call::named(name).unwrap());
        assert_eq!(format!("{call:?}"), format!("Call({row})"), "{name}");
        assert_eq!(Call::named(&format!("{name}_")), None);
    }
    for name in ["", "rea", "READ", "read ", "\u{e9}", &"x".repeat(100_000)] {
        assert_eq!(Call::named(name), None, "{name}");
    }
}

#[test]
fn numbers_are_those_of_libseccomp() {
    let mut compared = 0;
    for (name, _) in ROWS {
        for ours in ALL {
            let Ok(theirs) = ScmpSyscall::from_name_by_arch(name, arch(ours).0) else { continue };
            let Ok(theirs) = u32::try_from(i32::from(theirs)) else { continue };
            assert_eq!(ours.number(Call::named(name).unwrap()), Some(theirs), "{name} on {ours:?}");
            compared += 1;
        }
    }
    assert!(compared > 2500, "{compared}");
}

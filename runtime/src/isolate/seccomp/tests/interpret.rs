//! Runs a filter as the kernel would.

use crate::isolate::seccomp::Insn;
use crate::isolate::seccomp::arguments::halves;

/// What a filter is shown of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) nr: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32, big_endian: bool) -> u32 {
        let (high, low) = match offset {
            0 => return self.nr,
            4 => return self.arch,
            16..64 => halves(self.args[(offset as usize - 16) / 8]),
            other => panic!("load at {other}"),
        };
        if offset.is_multiple_of(8) == big_endian { high } else { low }
    }
}

/// The filter's answer, and how many instructions it took.
pub(super) fn run(filter: &[Insn], data: &Data, big_endian: bool) -> (u32, usize) {
    let (mut at, mut a, mut steps) = (0, 0_u32, 0);
    loop {
        let Insn { code, jt, jf, k } = filter[at];
        at += 1;
        steps += 1;
        let mut jump = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            0x20 => a = data.word(k, big_endian),
            0x54 => a &= k,
            0x06 => return (k, steps),
            0x05 => at += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x45 => jump(a & k != 0),
            other => panic!("instruction {other:#x}"),
        }
    }
}

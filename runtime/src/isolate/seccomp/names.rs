//! Which system call a name means on each architecture.
//!
//! The names lie in one string without gaps and the numbers in one array a call, both made from `table` while
//! compiling: no pointer in them, so a position-independent binary has nothing to relocate when it starts.

use super::table::{COLUMNS, NONE, ROWS};

/// What the kernel may hand to a filter, as seccomp tells them apart; the order is that of `table`'s columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
    Ppc64le,
    S390x,
}

/// The architectures whose calls this kernel can serve, the native one first.
pub(super) const HOST: &[Arch] = {
    #[cfg(target_arch = "x86_64")]
    {
        &[Arch::X86_64, Arch::X86, Arch::X32]
    }
    #[cfg(target_arch = "aarch64")]
    {
        &[Arch::Aarch64, Arch::Arm]
    }
    #[cfg(target_arch = "riscv64")]
    {
        &[Arch::Riscv64]
    }
    #[cfg(target_arch = "powerpc64")]
    {
        &[Arch::Ppc64le]
    }
    #[cfg(target_arch = "s390x")]
    {
        &[Arch::S390x]
    }
};

/// Marks a call of the x32 kind, which otherwise has x86_64's audit number.
pub(super) const X32_BIT: u32 = 1 << 30;

impl Arch {
    /// `AUDIT_ARCH_*`: what `seccomp_data.arch` holds.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::Ppc64le => 0xc000_0015,
            Self::S390x => 0x8000_0016,
        }
    }

    /// Whether arguments are compared as 64 bits; the others see the low half only, as with libseccomp.
    pub(super) fn wide(self) -> bool {
        !matches!(self, Self::X86 | Self::X32 | Self::Arm)
    }

    pub(super) fn big_endian(self) -> bool {
        self == Self::S390x
    }

    /// Whether `socketcall` and `ipc` exist, through which a program may reach what other calls do.
    pub(super) fn multiplexes(self) -> bool {
        matches!(self, Self::X86 | Self::Ppc64le | Self::S390x)
    }

    /// The call's number, with x32's mark.
    pub(super) fn number(self, call: Call) -> Option<u32> {
        match NUMBERS[usize::from(call.0)][self as usize] {
            NONE => None,
            raw if self == Self::X32 => Some(X32_BIT | u32::from(raw)),
            raw if self == Self::Arm && raw & 0x8000 != 0 => Some(0xf_0000 | u32::from(raw & 0x7fff)),
            raw => Some(u32::from(raw)),
        }
    }
}

/// A call that the table knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call(u16);

impl Call {
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut slot = slot(name.as_bytes());
        loop {
            let call = SLOTS[slot];
            if call == NONE {
                return None;
            }
            if Self(call).name() == name.as_bytes() {
                return Some(Self(call));
            }
            slot = (slot + 1) % SLOTS.len();
        }
    }

    fn name(self) -> &'static [u8] {
        let at = usize::from(self.0);
        &NAMES[usize::from(STARTS[at])..usize::from(STARTS[at + 1])]
    }

    /// The call that carries this one where `Arch::multiplexes`, and the first argument that selects it there.
    pub(super) fn multiplexed(self) -> Option<(u32, u64)> {
        const SOCKETCALL: u32 = 102;
        const IPC: u32 = 117;
        match NUMBERS[usize::from(self.0)][COLUMNS - 1] {
            n @ 101..=120 => Some((SOCKETCALL, u64::from(n - 100))),
            n @ 201..=224 => Some((IPC, u64::from(n - 200))),
            _ => None,
        }
    }
}

const fn slot(name: &[u8]) -> usize {
    let mut hash: u32 = 0;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash >> 16 ^ hash) as usize % (2 * ROWS.len())
}

const NAMES_LEN: usize = {
    let mut sum = 0;
    let mut row = 0;
    while row < ROWS.len() {
        sum += ROWS[row].0.len();
        row += 1;
    }
    sum
};

static NAMES: [u8; NAMES_LEN] = {
    let mut names = [0; NAMES_LEN];
    let (mut row, mut end) = (0, 0);
    while row < ROWS.len() {
        let name = ROWS[row].0.as_bytes();
        let mut at = 0;
        while at < name.len() {
            names[end] = name[at];
            (at, end) = (at + 1, end + 1);
        }
        row += 1;
    }
    names
};

#[expect(clippy::cast_possible_truncation, reason = "evaluated while compiling; the assertion holds it")]
static STARTS: [u16; ROWS.len() + 1] = {
    assert!(NAMES_LEN <= u16::MAX as usize);
    let mut starts = [0; ROWS.len() + 1];
    let mut row = 0;
    while row < ROWS.len() {
        starts[row + 1] = starts[row] + ROWS[row].0.len() as u16;
        row += 1;
    }
    starts
};

static NUMBERS: [[u16; COLUMNS]; ROWS.len()] = {
    let mut numbers = [[NONE; COLUMNS]; ROWS.len()];
    let mut row = 0;
    while row < ROWS.len() {
        numbers[row] = ROWS[row].1;
        row += 1;
    }
    numbers
};

/// Open addressing with linear probing, half full.
#[expect(
    clippy::cast_possible_truncation,
    reason = "evaluated while compiling; ROWS is far shorter than 65,535"
)]
static SLOTS: [u16; 2 * ROWS.len()] = {
    let mut slots = [NONE; 2 * ROWS.len()];
    let mut row = 0;
    while row < ROWS.len() {
        let mut at = slot(ROWS[row].0.as_bytes());
        while slots[at] != NONE {
            at = (at + 1) % slots.len();
        }
        slots[at] = row as u16;
        row += 1;
    }
    slots
};

//! One 512-byte header: fixed fields, in octal or base-256.

use super::{TarError, Time};
use crate::error::Problem;

pub(crate) const BLOCK: usize = 512;

pub(crate) struct Header([u8; BLOCK]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
    GnuSparse,
    Pax,
    PaxGlobal,
    LongName,
    LongLink,
    Other(u8),
}

impl Header {
    /// Accepts a block whose checksum is right.
    pub(crate) fn parse(block: [u8; BLOCK]) -> Result<Self, TarError> {
        let header = Self(block);
        let stored = header.number("checksum", 148..156)?;
        let sums = checksums(&block);
        if i64::try_from(stored).is_ok_and(|stored| stored == sums.0 || stored == sums.1) {
            return Ok(header);
        }
        Err(Problem::Field {
            field: "header's checksum",
            value: stored.to_string(),
            expected: "the sum of its bytes; this is no tar stream, or a damaged one",
        }
        .into())
    }

    pub(crate) fn type_byte(&self) -> u8 {
        self.0[156]
    }

    pub(crate) fn kind(&self) -> Type {
        match self.type_byte() {
            0 | b'0' | b'7' => Type::File,
            b'1' => Type::HardLink,
            b'2' => Type::Symlink,
            b'3' => Type::Char,
            b'4' => Type::Block,
            b'5' => Type::Directory,
            b'6' => Type::Fifo,
            b'S' => Type::GnuSparse,
            b'x' => Type::Pax,
            b'g' => Type::PaxGlobal,
            b'L' => Type::LongName,
            b'K' => Type::LongLink,
            other => Type::Other(other),
        }
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        let name = self.text(0..100);
        // GNU's magic is followed by a blank, and it keeps times where POSIX has the prefix
        let prefix = if &self.0[257..263] == b"ustar\0" { self.text(345..500) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        self.text(157..257).to_vec()
    }

    pub(crate) fn mode(&self) -> Result<u32, TarError> {
        // bits of the file's type, which some write too, are not ours to take
        Ok(u32::try_from(self.number("mode", 100..108)? & 0o7777).unwrap_or(0))
    }

    pub(crate) fn uid(&self) -> Result<u32, TarError> {
        id("uid", self.number("uid", 108..116)?)
    }

    pub(crate) fn gid(&self) -> Result<u32, TarError> {
        id("gid", self.number("gid", 116..124)?)
    }

    pub(crate) fn size(&self) -> Result<u64, TarError> {
        self.number("size", 124..136)
    }

    pub(crate) fn mtime(&self) -> Result<Time, TarError> {
        let seconds = number(&self.0[136..148]).ok_or_else(|| self.bad("mtime", 136..148))?;
        Ok(Time { seconds, nanos: 0 })
    }

    pub(crate) fn major(&self) -> Result<u32, TarError> {
        self.device("device's major number", 329..337)
    }

    pub(crate) fn minor(&self) -> Result<u32, TarError> {
        self.device("device's minor number", 337..345)
    }

    /// GNU sparse: the file's size with its holes.
    pub(crate) fn real_size(&self) -> Result<u64, TarError> {
        self.number("real size", 483..495)
    }

    /// GNU sparse: the first offsets and lengths, and whether another block of them follows.
    pub(crate) fn sparse_map(&self) -> Result<(Vec<u64>, bool), TarError> {
        let mut numbers = Vec::new();
        sparse_pairs(&self.0[386..482], &mut numbers)?;
        Ok((numbers, self.0[482] != 0))
    }

    fn device(&self, field: &'static str, at: std::ops::Range<usize>) -> Result<u32, TarError> {
        let value = self.number(field, at)?;
        u32::try_from(value).map_err(|_| {
            Problem::Field { field, value: value.to_string(), expected: "a 32-bit number" }.into()
        })
    }

    fn number(&self, field: &'static str, at: std::ops::Range<usize>) -> Result<u64, TarError> {
        let value = number(&self.0[at.clone()]).and_then(|value| u64::try_from(value).ok());
        value.ok_or_else(|| self.bad(field, at))
    }

    fn bad(&self, field: &'static str, at: std::ops::Range<usize>) -> TarError {
        let value = format!("{:?}", String::from_utf8_lossy(&self.0[at]));
        Problem::Field { field, value, expected: "an octal or base-256 number" }.into()
    }

    fn text(&self, at: std::ops::Range<usize>) -> &[u8] {
        let field = &self.0[at];
        &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
    }
}

/// A further block of a GNU sparse map; answers whether another one follows.
pub(super) fn sparse_block(block: &[u8; BLOCK], numbers: &mut Vec<u64>) -> Result<bool, TarError> {
    sparse_pairs(&block[..504], numbers)?;
    Ok(block[504] != 0)
}

fn sparse_pairs(pairs: &[u8], numbers: &mut Vec<u64>) -> Result<(), TarError> {
    for pair in pairs.chunks_exact(24) {
        if pair[0] == 0 {
            break; // unused ones are zero to the end
        }
        for field in pair.chunks_exact(12) {
            let value = number(field).and_then(|value| u64::try_from(value).ok());
            numbers.push(value.ok_or_else(|| super::map_problem("a field that is no number"))?);
        }
    }
    Ok(())
}

/// Owners are 32-bit, and the last number means "nobody" to every call that takes one.
pub(super) fn id(field: &'static str, value: u64) -> Result<u32, TarError> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Problem::Field { field, value: value.to_string(), expected: "0 to 4294967294" }.into())
}

/// Octal digits between blanks and NULs, or base-256: a first byte with its top bit set, two's complement.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field.first()? & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value = if negative { -1 } else { 0_i128 };
        for (index, byte) in field.iter().enumerate() {
            // the mark is not part of the number; in a negative one it is part of the sign
            let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(blank) {
        return None;
    }
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// The sum of all bytes, the checksum's own read as blanks: unsigned as it should be, and signed as some wrote it.
fn checksums(block: &[u8; BLOCK]) -> (i64, i64) {
    let bytes =
        block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    bytes.fold((0, 0), |sums, byte| (sums.0 + i64::from(byte), sums.1 + i64::from(byte.cast_signed())))
}

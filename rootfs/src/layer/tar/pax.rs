//! What extension headers say about the entry that follows them.

use super::header::id;
use super::{TarError, Time};
use crate::error::{Problem, lossy};

#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU tar's sparse files as PAX records.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) real_size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Versions 0.0 and 0.1: offsets and lengths by turns.
    pub(super) numbers: Vec<u64>,
}

impl Extensions {
    pub(super) fn read(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or_else(|| Problem::Field {
                field: "PAX record",
                value: format!("{:?}", lossy(&records[..records.len().min(40)])),
                expected: "LENGTH KEY=VALUE and a newline",
            })?;
            self.apply(key, value)?;
            records = rest;
        }
        Ok(())
    }

    /// Unknown keys are no concern of ours (comments, names of owners, character sets).
    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if !name.is_empty() && name.len() < 256 && !name.contains(&0) {
                self.xattrs.retain(|(known, _)| known != name);
                self.xattrs.push((name.to_vec(), value.to_vec()));
                return Ok(());
            }
            return Err(bad("PAX extended attribute's name", name, "1 to 255 bytes without NUL"));
        }
        match key {
            b"path" => self.name = some(value),
            b"linkpath" => self.link = some(value),
            b"size" => self.size = Some(decimal("PAX size", value)?),
            b"uid" => self.uid = Some(id("PAX uid", decimal("PAX uid", value)?)?),
            b"gid" => self.gid = Some(id("PAX gid", decimal("PAX gid", value)?)?),
            b"mtime" => self.mtime = Some(time("PAX mtime", value)?),
            b"atime" => self.atime = Some(time("PAX atime", value)?),
            b"GNU.sparse.major" => self.sparse.major = Some(decimal("GNU.sparse.major", value)?),
            b"GNU.sparse.name" => self.sparse.name = some(value),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = Some(decimal("GNU.sparse.size", value)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.numbers.push(decimal("GNU.sparse.offset", value)?);
            }
            b"GNU.sparse.map" if !value.is_empty() => {
                let numbers = value.split(|byte| *byte == b',');
                self.sparse.numbers =
                    numbers.map(|number| decimal("GNU.sparse.map", number)).collect::<Result<_, _>>()?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// An empty value takes a record back.
fn some(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// Splits off the first `LENGTH KEY=VALUE\n`: key, value, rest.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(8).position(|byte| *byte == b' ')?;
    let length = usize::try_from(digits(&records[..blank])?).ok()?;
    if length <= blank + 1 || length > records.len() {
        return None;
    }
    let (record, rest) = records.split_at(length);
    let record = record[blank + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then(|| (&record[..equals], &record[equals + 1..], rest))
}

fn digits(text: &[u8]) -> Option<u64> {
    let decimal = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if decimal { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

fn decimal(field: &'static str, value: &[u8]) -> Result<u64, TarError> {
    digits(value).ok_or_else(|| bad(field, value, "a decimal number"))
}

/// Seconds since 1970, perhaps negative, perhaps with a fraction (beyond nanoseconds it is cut off).
pub(super) fn time(field: &'static str, value: &[u8]) -> Result<Time, TarError> {
    parse_time(value).ok_or_else(|| bad(field, value, "seconds, with or without a fraction"))
}

fn parse_time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let point = value.iter().position(|byte| *byte == b'.');
    let whole = digits(&value[..point.unwrap_or(value.len())])?;
    let fraction = point.map_or(&b""[..], |point| &value[point + 1..]);
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos =
        (0..9).fold(0, |nanos, at| nanos * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0')));
    let seconds = i64::try_from(whole).ok()?;
    match (negative, nanos) {
        (false, _) => Some(Time { seconds, nanos }),
        (true, 0) => Some(Time { seconds: -seconds, nanos }),
        (true, _) => Some(Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos }),
    }
}

fn bad(field: &'static str, value: &[u8], expected: &'static str) -> TarError {
    Problem::Field { field, value: format!("{:?}", lossy(value)), expected }.into()
}

//! Reads a tar stream entry by entry: ustar, PAX, GNU long names, base-256 numbers and all four sparse formats.
//!
//! The `tar` crate's own extraction cannot be used (it works by path), and its reader lacks PAX sparse files,
//! so the whole format is read here. Nothing in a header is trusted: each number has a range, each record a
//! limit, and a name is only bytes until `layer::name` has looked at it.

mod header;
mod pax;

use std::io::{self, Read};

pub(crate) use header::{BLOCK, Header, Type};
use pax::Extensions;

use crate::error::Problem;

/// Extension headers larger than this are refused: names, links and extended attributes fit well.
const MAX_EXTENSION: u64 = 1 << 20;
/// Stretches of data in one sparse file.
const MAX_SEGMENTS: usize = 1 << 20;

/// A stream that knows a cheaper way past bytes than reading them may say so.
pub(crate) trait Input: Read + Sized {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        if io::copy(&mut self.by_ref().take(count), &mut io::sink())? < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) enum TarError {
    Read(io::Error),
    Refused(Problem),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<Problem> for TarError {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Sparse(Sparse),
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Directory,
    Fifo,
}

/// A file whose holes are not in the stream: `segments` are (offset, length), in order, within `size`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    pub(crate) size: u64,
    pub(crate) segments: Vec<(u64, u64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) atime: Option<Time>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(crate) struct Reader<R> {
    input: R,
    /// Of the current entry: bytes of data not yet read, and the padding behind them.
    data: u64,
    padding: u64,
    /// The name of the last entry, for errors about what follows it.
    pub(crate) last: Vec<u8>,
}

impl<R: Input> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, data: 0, padding: 0, last: Vec::new() }
    }

    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    pub(crate) fn input(&self) -> &R {
        &self.input
    }

    /// Bytes of the current entry's data that are left in the stream.
    pub(crate) fn data_left(&self) -> u64 {
        self.data
    }

    /// The next entry, or `None` at the end mark (or where the stream ends between two entries).
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.input.skip(self.data + self.padding)?;
            (self.data, self.padding) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            self.last = header.name();
            let size = header.size()?;
            match header.kind() {
                Type::PaxGlobal => self.extent(size)?,
                Type::Pax => {
                    let records = self.extension(size)?;
                    extensions.read(&records)?;
                }
                Type::LongName => extensions.name = Some(until_nul(self.extension(size)?)),
                Type::LongLink => extensions.link = Some(until_nul(self.extension(size)?)),
                kind => return self.entry(kind, &header, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, kind: Type, header: &Header, mut extensions: Extensions) -> Result<Entry, TarError> {
        let name = extensions.name.take().unwrap_or_else(|| header.name());
        self.last.clone_from(&name);
        let stored = match extensions.size {
            Some(size) => size,
            None => header.size()?,
        };
        // only these have data; others may give a size all the same
        let has_data = matches!(kind, Type::File | Type::GnuSparse);
        self.extent(if has_data { stored } else { 0 })?;
        let kind = match kind {
            // how tar wrote directories before there was a type for them
            Type::File if name.ends_with(b"/") && header.type_byte() == 0 => Kind::Directory,
            Type::File => match self.pax_sparse(&mut extensions)? {
                Some(sparse) => Kind::Sparse(sparse),
                None => Kind::File,
            },
            Type::GnuSparse => Kind::Sparse(self.gnu_sparse(header)?),
            Type::HardLink => Kind::HardLink(extensions.link.take().unwrap_or_else(|| header.link())),
            Type::Symlink => Kind::Symlink(extensions.link.take().unwrap_or_else(|| header.link())),
            Type::Char => Kind::Char { major: header.major()?, minor: header.minor()? },
            Type::Block => Kind::Block { major: header.major()?, minor: header.minor()? },
            Type::Directory => Kind::Directory,
            Type::Fifo => Kind::Fifo,
            Type::Pax | Type::PaxGlobal | Type::LongName | Type::LongLink | Type::Other(_) => {
                let value = format!("{:?}", char::from(header.type_byte()));
                let expected = "a file, link, directory, device or fifo";
                return Err(Problem::Field { field: "entry type", value, expected }.into());
            }
        };
        Ok(Entry {
            name: extensions.sparse.name.take().unwrap_or(name),
            kind,
            mode: header.mode()?,
            uid: extensions.uid.map_or_else(|| header.uid(), Ok)?,
            gid: extensions.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: extensions.mtime.map_or_else(|| header.mtime(), Ok)?,
            atime: extensions.atime,
            xattrs: extensions.xattrs,
        })
    }

    /// Reads one header; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => filled += count,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Ok(Some(Header::parse(block)?))
    }

    /// From now on `size` bytes of data belong to the entry.
    fn extent(&mut self, size: u64) -> Result<(), TarError> {
        if size > i64::MAX as u64 - BLOCK as u64 {
            return Err(Problem::Field { field: "size", value: size.to_string(), expected: "less" }.into());
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            let expected = "at most 1 MiB";
            return Err(Problem::Field {
                field: "extended header's size",
                value: size.to_string(),
                expected,
            }
            .into());
        }
        self.extent(size)?;
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    /// PAX: the map is in records (versions 0.0 and 0.1) or before the data (1.0).
    fn pax_sparse(&mut self, extensions: &mut Extensions) -> Result<Option<Sparse>, TarError> {
        let sparse = &mut extensions.sparse;
        let Some(size) = sparse.real_size else { return Ok(None) };
        let numbers = if sparse.major == Some(1) {
            self.sparse_map_in_data()?
        } else {
            std::mem::take(&mut sparse.numbers)
        };
        self.checked_map(size, &numbers).map(Some)
    }

    /// Decimal numbers, one a line: how many, then offset and length of each; padded to a whole block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<u64>, TarError> {
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut number = None;
        let mut block = [0; BLOCK];
        loop {
            self.read_exact(&mut block)?;
            for byte in block {
                match byte {
                    b'0'..=b'9' => {
                        let digits: u64 = number.unwrap_or(0);
                        let next = digits.checked_mul(10).and_then(|n| n.checked_add(u64::from(byte - b'0')));
                        number = Some(next.ok_or_else(|| map_problem("a number too large"))?);
                    }
                    b'\n' => {
                        let done = number.take().ok_or_else(|| map_problem("an empty line"))?;
                        match wanted {
                            None => {
                                let segments =
                                    usize::try_from(done).ok().filter(|count| *count <= MAX_SEGMENTS);
                                wanted = Some(2 * segments.ok_or_else(|| map_problem("too many segments"))?);
                            }
                            Some(_) => numbers.push(done),
                        }
                        if wanted == Some(numbers.len()) {
                            return Ok(numbers);
                        }
                    }
                    _ => return Err(map_problem("a byte that is no digit").into()),
                }
            }
        }
    }

    /// GNU's own format: four stretches in the header, 21 in each block that follows it.
    fn gnu_sparse(&mut self, header: &Header) -> Result<Sparse, TarError> {
        let size = header.real_size()?;
        let (mut numbers, mut more) = header.sparse_map()?;
        while more {
            let mut block = [0; BLOCK];
            self.input.read_exact(&mut block)?;
            more = header::sparse_block(&block, &mut numbers)?;
            if numbers.len() > 2 * MAX_SEGMENTS {
                return Err(map_problem("too many segments").into());
            }
        }
        self.checked_map(size, &numbers)
    }

    fn checked_map(&self, size: u64, numbers: &[u64]) -> Result<Sparse, TarError> {
        if !numbers.len().is_multiple_of(2) || numbers.len() > 2 * MAX_SEGMENTS {
            return Err(map_problem("offsets and lengths that do not pair up").into());
        }
        let (mut end, mut stored) = (0, 0_u64);
        let mut segments = Vec::with_capacity(numbers.len() / 2);
        for pair in numbers.chunks_exact(2) {
            let (offset, length) = (pair[0], pair[1]);
            let next = offset.checked_add(length).filter(|next| offset >= end && *next <= size);
            end = next.ok_or_else(|| map_problem("segments out of order or beyond the file's size"))?;
            stored += length;
            segments.push((offset, length));
        }
        if stored != self.data {
            return Err(map_problem("segments that do not add up to the stored size").into());
        }
        Ok(Sparse { size, segments })
    }
}

/// The current entry's data.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.data -= count as u64;
        Ok(count)
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
    text
}

fn map_problem(value: &str) -> Problem {
    Problem::Field { field: "sparse map", value: value.into(), expected: "ordered stretches within the file" }
}

#[cfg(test)]
mod tests;

use proptest::prelude::*;

use super::header::number;
use super::pax::time;
use super::*;

impl Input for &[u8] {}

/// A ustar header with a right checksum.
pub(crate) fn header(name: &[u8], kind: u8, size: u64, edit: impl FnOnce(&mut [u8; BLOCK])) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    edit(&mut block);
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) })
        .sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = body.len();
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &body].concat()
}

fn pax(records: &[u8]) -> Vec<u8> {
    [&header(b"x", b'x', records.len() as u64, |_| {})[..], &padded(records)].concat()
}

fn all(stream: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(stream);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut data = Vec::new();
        reader.read_to_end(&mut data)?;
        entries.push((entry, data));
    }
    Ok(entries)
}

#[test]
fn reads_plain_entries_and_stops_at_the_end_mark() {
    let mut stream = header(b"a/b", b'0', 5, |_| {}).to_vec();
    stream.extend(padded(b"hello"));
    stream.extend(header(b"a/", 0, 0, |_| {}));
    stream.extend([0; 1024]);
    stream.extend(b"what follows the end mark is not looked at");
    let entries = all(&stream).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0].0.name[..], &entries[0].1[..]), (&b"a/b"[..], &b"hello"[..]));
    assert_eq!(entries[1].0.kind, Kind::Directory);
}

#[test]
fn pax_records_override_the_header() {
    let records = [
        record("path", b"long/name"),
        record("uid", b"70000"),
        record("gid", b"4294967294"),
        record("mtime", b"-1.5"),
        record("SCHILY.xattr.user.k", b"a=\0\nb"),
        record("comment", b"ignored"),
    ]
    .concat();
    let stream = [pax(&records), header(b"short", b'0', 0, |_| {}).to_vec()].concat();
    let (entry, _) = all(&stream).unwrap().remove(0);
    assert_eq!(entry.name, b"long/name");
    assert_eq!((entry.uid, entry.gid), (70_000, 4_294_967_294));
    assert_eq!(entry.mtime, Time { seconds: -2, nanos: 500_000_000 });
    assert_eq!(entry.xattrs, [(b"user.k".to_vec(), b"a=\0\nb".to_vec())]);
}

#[test]
fn extensions_end_with_the_entry_they_precede() {
    let stream = [
        pax(&record("path", b"p")),
        header(b"a", b'0', 0, |_| {}).to_vec(),
        header(b"b", b'0', 0, |_| {}).to_vec(),
    ];
    let names: Vec<_> = all(&stream.concat()).unwrap().into_iter().map(|(entry, _)| entry.name).collect();
    assert_eq!(names, [b"p".to_vec(), b"b".to_vec()]);
}

#[test]
fn pax_sparse_1_0_reads_its_map_from_the_data() {
    let records = [
        record("GNU.sparse.major", b"1"),
        record("GNU.sparse.minor", b"0"),
        record("GNU.sparse.name", b"real"),
        record("GNU.sparse.realsize", b"1000000"),
    ]
    .concat();
    let data = [padded(b"2\n4096\n3\n999999\n1\n"), b"abcd".to_vec()].concat();
    let stream =
        [pax(&records), header(b"fake", b'0', data.len() as u64, |_| {}).to_vec(), padded(&data)].concat();
    let (entry, data) = all(&stream).unwrap().remove(0);
    assert_eq!(entry.name, b"real");
    assert_eq!(entry.kind, Kind::Sparse(Sparse { size: 1_000_000, segments: vec![(4096, 3), (999_999, 1)] }));
    assert_eq!(data, b"abcd");
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    for map in ["1,2,1,2", "0,5", "5", "8,3", "18446744073709551615,2", "x"] {
        let records = [record("GNU.sparse.size", b"10"), record("GNU.sparse.map", map.as_bytes())].concat();
        let stream = [pax(&records), header(b"f", b'0', 4, |_| {}).to_vec(), padded(b"abcd")].concat();
        assert!(matches!(all(&stream), Err(TarError::Refused(_))), "{map}");
    }
}

#[test]
fn absurd_headers_are_refused() {
    let cases: Vec<Vec<u8>> = vec![
        header(b"x", b'x', 1 << 30, |_| {}).to_vec(),
        header(b"x", b'L', 1 << 30, |_| {}).to_vec(),
        header(b"x", b'Z', 0, |_| {}).to_vec(),
        header(b"x", b'0', 0, |block| block[108..116].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff"))
            .to_vec(),
        header(b"x", b'0', 0, |block| block[124..136].copy_from_slice(b"9999999999 \0")).to_vec(),
        header(b"x", b'0', 0, |block| {
            block[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")
        })
        .to_vec(),
        pax(b"5 a=b\n"),
        pax(b"999999 a=b\n"),
        pax(b"99999999999999999999999 a=b\n"),
        pax(b"0 a=b\n"),
        pax(&record("uid", b"4294967295")),
        pax(&record("size", b"-1")),
        pax(&record("SCHILY.xattr.", b"x")),
        vec![b'x'; 512],
    ];
    for (index, case) in cases.iter().enumerate() {
        assert!(matches!(all(case), Err(TarError::Refused(_))), "case {index}");
    }
    assert!(matches!(all(&header(b"x", b'0', 10, |_| {})), Err(TarError::Read(_))));
    assert!(matches!(all(&[1; 100]), Err(TarError::Read(_))));
}

proptest! {
    #[test]
    fn octal_fields_round_trip(value in 0_i64..0o777_7777_7777, width in 0_usize..12) {
        let text = format!("{value:0width$o} ");
        prop_assert_eq!(number(text.as_bytes()), Some(value));
        prop_assert_eq!(number(format!("  {value:o}\0").as_bytes()), Some(value));
    }

    #[test]
    fn base_256_fields_round_trip(value in any::<i64>()) {
        let mut field = [if value < 0 { 0xff } else { 0 }; 12];
        field[4..].copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
        prop_assert_eq!(number(&field), Some(value));
    }

    #[test]
    fn numbers_and_times_never_panic(field in proptest::collection::vec(any::<u8>(), 0..16)) {
        let _ = number(&field);
        let _ = time("t", &field);
    }

    #[test]
    fn times_round_trip(seconds in -1_000_000_000_000_i64..1_000_000_000_000, nanos in 0_u32..1_000_000_000) {
        let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let sign = if total < 0 { "-" } else { "" };
        let text = format!("{sign}{}.{:09}", total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
        prop_assert_eq!(time("t", text.as_bytes()).unwrap(), Time { seconds, nanos });
    }

    #[test]
    fn a_reader_survives_any_stream(noise in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = all(&noise);
    }

    #[test]
    fn a_reader_survives_any_header(name in proptest::collection::vec(any::<u8>(), 0..100), kind in any::<u8>(),
        size in 0_u64..5000, noise in proptest::collection::vec(any::<u8>(), 0..2000), at in 100_usize..512) {
        let block = header(&name, kind, size, |block| {
            let end = BLOCK.min(at + noise.len().min(20));
            block[at..end].copy_from_slice(&noise[..end - at]);
        });
        let _ = all(&[&block[..], &noise].concat());
    }
}

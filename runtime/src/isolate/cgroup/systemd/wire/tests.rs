use proptest::prelude::*;

use super::*;

const METHOD: Method = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    name: "StopUnit",
};

/// The peer's side, made of the same parts: a reply, or a signal.
pub(in super::super) fn answer(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
    let field = |(code, value): (u8, Value)| Value::Struct(vec![Value::Byte(code), value.variant()]);
    let mut fields: Vec<_> = fields.into_iter().map(field).collect();
    fields.push(field((SIGNATURE, Value::Signature(signature(body)))));
    let mut content = Writer::default();
    body.iter().for_each(|value| content.put(value).unwrap());
    let mut message = Writer(vec![ENDIAN, kind, 1, VERSION]);
    message.put(&Value::U32(u32::try_from(content.0.len()).unwrap())).unwrap();
    message.put(&Value::U32(7)).unwrap();
    message.put(&Value::Array("(yv)".into(), fields)).unwrap();
    message.align(8);
    message.0.extend(content.0);
    message.0
}

#[cfg(target_endian = "little")]
#[test]
fn a_call_is_written_byte_for_byte() {
    let method = Method { destination: "d", path: "/p", interface: "i.i", name: "M" };
    let property = Value::Struct(vec![Value::text("N"), Value::U64(5).variant()]);
    let body = [Value::text("a"), Value::Array("(sv)".into(), vec![property])];
    #[rustfmt::skip]
    let expected = [
        b'l', 1, 0, 1,  40, 0, 0, 0,  9, 0, 0, 0,  76, 0, 0, 0,
        1, 1, b'o', 0,  2, 0, 0, 0, b'/', b'p', 0, 0, 0, 0, 0, 0,
        2, 1, b's', 0,  3, 0, 0, 0, b'i', b'.', b'i', 0, 0, 0, 0, 0,
        3, 1, b's', 0,  1, 0, 0, 0, b'M', 0, 0, 0, 0, 0, 0, 0,
        6, 1, b's', 0,  1, 0, 0, 0, b'd', 0, 0, 0, 0, 0, 0, 0,
        8, 1, b'g', 0,  6, b's', b'a', b'(', b's', b'v', b')', 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'a', 0, 0, 0,  24, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'N', 0,  1, b't', 0, 0, 0, 0, 0, 0, 0, 0,
        5, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(call(9, method, &body).unwrap(), expected);
}

#[test]
fn what_is_written_is_read_again() {
    let body = [Value::U32(4), Value::Path("/job".into()), Value::text("a.scope"), Value::text("done")];
    let fields = vec![
        (SENDER, Value::text(":1.0")),
        (MEMBER, Value::text("JobRemoved")),
        (PATH, Value::Path("/p".into())),
        (9, Value::U32(0)),
    ];
    let mut bytes = answer(SIGNAL, fields, &body);
    let length = bytes.len();
    bytes.extend(b"more");
    let Parsed::Whole(message, end) = parse(&bytes) else { panic!("{:?}", parse(&bytes)) };
    assert_eq!(end, length);
    assert_eq!(
        (message.kind, message.member.as_str(), message.sender.as_str()),
        (SIGNAL, "JobRemoved", ":1.0")
    );
    assert_eq!(message.texts("uoss").unwrap(), ["4", "/job", "a.scope", "done"]);
    assert_eq!(message.texts::<1>("s"), None);
    for short in 0..length {
        assert_eq!(parse(&bytes[..short]), Parsed::More, "{short}");
    }
}

#[test]
fn what_is_too_long_is_refused_on_both_sides() {
    assert_eq!(call(1, METHOD, &[Value::text("a\0b")]), None);
    assert_eq!(call(1, METHOD, &[Value::text("x".repeat(MAX_TEXT + 1))]), None);
    let mut bytes = call(1, METHOD, &[Value::text("x")]).unwrap();
    bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert_eq!(parse(&bytes), Parsed::Malformed);
}

proptest! {
    #[test]
    fn no_bytes_panic(noise in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..200, byte: u8) {
        parse(&noise);
        let body = [Value::U32(4), Value::Path("/job".into()), Value::text("done").variant()];
        let mut bytes = answer(SIGNAL, vec![(MEMBER, Value::text("M")), (REPLY_SERIAL, Value::U32(1))], &body);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        if let Parsed::Whole(message, _) = parse(&bytes) {
            let _ = message.texts::<3>("uov");
        }
    }
}

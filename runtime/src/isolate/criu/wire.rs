//! PURE: as much of protocol buffers as criu's RPC (`rpc.proto`) needs: numbers, flags, texts and messages in them.
//! What a reader does not know it passes over, so that a newer criu is understood.

/// A message being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value);
        self
    }

    /// A descriptor or a pid: an int32, of which the negative ones are told by 64 bits.
    pub(super) fn signed(self, field: u32, value: i32) -> Self {
        self.number(field, i64::from(value).cast_unsigned())
    }

    /// False is what a missing flag means.
    pub(super) fn flag(self, field: u32, value: bool) -> Self {
        if value { self.number(field, 1) } else { self }
    }

    pub(super) fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(super) fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let low = value.to_le_bytes()[0] & 0x7f;
            value >>= 7;
            self.0.push(if value == 0 { low } else { 0x80 | low });
            if value == 0 {
                return;
            }
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A message as it was received. Where it breaks off, its fields end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn number(self, field: u32) -> Option<u64> {
        self.find(field).and_then(|value| if let Value::Number(number) = value { Some(number) } else { None })
    }

    pub(super) fn signed(self, field: u32) -> Option<i32> {
        self.number(field).and_then(|number| i32::try_from(number.cast_signed()).ok())
    }

    pub(super) fn flag(self, field: u32) -> bool {
        self.number(field).is_some_and(|number| number != 0)
    }

    pub(super) fn text(self, field: u32) -> Option<&'a str> {
        self.bytes(field).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    pub(super) fn message(self, field: u32) -> Option<Self> {
        self.bytes(field).map(Self)
    }

    fn bytes(self, field: u32) -> Option<&'a [u8]> {
        self.find(field).and_then(|value| if let Value::Bytes(bytes) = value { Some(bytes) } else { None })
    }

    /// The last one of that number, as the format has it.
    fn find(mut self, field: u32) -> Option<Value<'a>> {
        let mut found = None;
        while let Some((number, value)) = self.next() {
            if number == u64::from(field) {
                found = Some(value);
            }
        }
        found
    }

    fn next(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            FIXED64 => Value::Bytes(self.take(8)?),
            BYTES => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            FIXED32 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_the_format_says() {
        // protoc --encode of the same values.
        let inner = Message::default().text(1, "k").signed(2, 7);
        let message = Message::default().number(1, 2).number(20, 300).message(27, &inner).flag(3, false);
        assert_eq!(
            message.as_bytes(),
            [0x08, 0x02, 0xa0, 0x01, 0xac, 0x02, 0xda, 0x01, 0x05, 0x0a, 0x01, b'k', 0x10, 0x07]
        );
        let negative = Message::default().signed(1, -1);
        assert_eq!(negative.as_bytes(), [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn what_was_written_is_read() {
        let inner = Message::default().text(1, "post-dump").signed(2, -3);
        let message = Message::default().number(1, u64::MAX).flag(2, true).message(5, &inner);
        let fields = Fields::new(message.as_bytes());
        assert_eq!(fields.number(1), Some(u64::MAX));
        assert!(fields.flag(2) && !fields.flag(3));
        let inner = fields.message(5).unwrap();
        assert_eq!((inner.text(1), inner.signed(2)), (Some("post-dump"), Some(-3)));
        assert_eq!((fields.number(5), fields.text(1), fields.number(9)), (None, None, None));
    }

    #[test]
    fn rubbish_and_broken_off_messages_have_no_fields() {
        let whole = Message::default().text(9, "abc").number(1, 1);
        let bytes = whole.as_bytes();
        for length in 0..bytes.len() {
            assert_eq!(Fields::new(&bytes[..length]).number(1), None, "{length}");
        }
        let huge = [0x4a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Fields::new(&huge).text(9), None);
        assert_eq!(Fields::new(&[0xff; 40]).number(1), None);
    }
}

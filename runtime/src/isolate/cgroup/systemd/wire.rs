//! The wire format of D-Bus, as far as a conversation with systemd needs it: any value out, a few shapes in. Pure.

/// More than any message that systemd sends; a longer one is refused.
const MAX_MESSAGE: usize = 1 << 20;
const MAX_TEXT: usize = 1 << 16;

const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
const VERSION: u8 = 1;

pub(super) const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// A value to send. Numbers are named by their letter in a signature, for those are what annotations speak of.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    Variant(Box<Value>),
    Struct(Vec<Value>),
    /// With the signature of an item.
    Array(String, Vec<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn variant(self) -> Self {
        Self::Variant(Box::new(self))
    }

    pub(super) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Variant(_) => "v".into(),
            Self::Struct(fields) => format!("({})", signature(fields)),
            Self::Array(item, _) => format!("a{item}"),
        }
    }
}

fn signature(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 1,
    }
}

/// A method and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
    pub(super) name: &'static str,
}

/// A call as it goes over the wire; `None` where it would be too long.
pub(super) fn call(serial: u32, method: Method, body: &[Value]) -> Option<Vec<u8>> {
    let field = |code, value: Value| Value::Struct(vec![Value::Byte(code), value.variant()]);
    let mut fields = vec![
        field(PATH, Value::Path(method.path.into())),
        field(INTERFACE, Value::text(method.interface)),
        field(MEMBER, Value::text(method.name)),
        field(DESTINATION, Value::text(method.destination)),
    ];
    if !body.is_empty() {
        fields.push(field(SIGNATURE, Value::Signature(signature(body))));
    }
    let mut content = Writer::default();
    body.iter().try_for_each(|value| content.put(value))?;
    let mut message = Writer(vec![ENDIAN, METHOD_CALL, 0, VERSION]);
    message.put(&Value::U32(u32::try_from(content.0.len()).ok()?))?;
    message.put(&Value::U32(serial))?;
    message.put(&Value::Array("(yv)".into(), fields))?;
    message.align(8);
    message.0.extend(content.0);
    Some(message.0).filter(|message| message.len() <= MAX_MESSAGE)
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        self.align(N);
        self.0.extend(bytes);
        Some(())
    }

    fn put(&mut self, value: &Value) -> Option<()> {
        match value {
            Value::Byte(n) => self.number([*n]),
            Value::Bool(is) => self.number(u32::from(*is).to_ne_bytes()),
            Value::I16(n) => self.number(n.to_ne_bytes()),
            Value::U16(n) => self.number(n.to_ne_bytes()),
            Value::I32(n) => self.number(n.to_ne_bytes()),
            Value::U32(n) => self.number(n.to_ne_bytes()),
            Value::I64(n) => self.number(n.to_ne_bytes()),
            Value::U64(n) => self.number(n.to_ne_bytes()),
            Value::Double(n) => self.number(n.to_ne_bytes()),
            Value::Text(text) | Value::Path(text) => {
                self.number(u32::try_from(text.len()).ok()?.to_ne_bytes())?;
                self.zero_terminated(text)
            }
            Value::Signature(text) => {
                self.number([u8::try_from(text.len()).ok()?])?;
                self.zero_terminated(text)
            }
            Value::Variant(value) => {
                self.put(&Value::Signature(value.signature()))?;
                self.put(value)
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().try_for_each(|field| self.put(field))
            }
            Value::Array(item, items) => {
                self.align(4);
                let length_at = self.0.len();
                self.0.extend([0; 4]);
                // What aligns the first item does not count.
                self.align(alignment(item));
                let start = self.0.len();
                items.iter().try_for_each(|item| self.put(item))?;
                let length = u32::try_from(self.0.len() - start).ok()?;
                self.0.get_mut(length_at..length_at + 4)?.copy_from_slice(&length.to_ne_bytes());
                Some(())
            }
        }
    }

    fn zero_terminated(&mut self, text: &str) -> Option<()> {
        if text.contains('\0') || text.len() > MAX_TEXT {
            return None;
        }
        self.0.extend(text.as_bytes());
        self.0.push(0);
        Some(())
    }
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) reply_to: Option<u32>,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) sender: String,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// The texts and numbers (as texts) of a body that begins with these types, each one of `s`, `o`, `u` and `v`
    /// for a variant of a text.
    pub(super) fn texts<const N: usize>(&self, types: &str) -> Option<[String; N]> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        if !self.signature.starts_with(types) {
            return None;
        }
        let read = |kind| match kind {
            'u' => Some(reader.u32()?.to_string()),
            'v' => reader.variant_text(),
            _ => reader.text(),
        };
        types.chars().map(read).collect::<Option<Vec<_>>>()?.try_into().ok()
    }
}

/// What the bytes that came in begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// And its length.
    Whole(Message, usize),
    More,
    Malformed,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    const FIXED: usize = 16;
    let mut reader = Reader { bytes, at: 4 };
    let (Some(&[endian, kind, _, version]), Some(body), Some(_), Some(fields)) =
        (bytes.first_chunk(), reader.size(), reader.u32(), reader.size())
    else {
        return Parsed::More;
    };
    if endian != ENDIAN || version != VERSION || body > MAX_MESSAGE || fields > MAX_MESSAGE {
        return Parsed::Malformed;
    }
    let start = (FIXED + fields).next_multiple_of(8);
    let (Some(header), Some(content)) = (bytes.get(..FIXED + fields), bytes.get(start..start + body)) else {
        return Parsed::More;
    };
    let mut message = Message { kind, body: content.to_owned(), ..Message::default() };
    let mut reader = Reader { bytes: header, at: FIXED };
    while reader.at < header.len() {
        if reader.field(&mut message).is_none() {
            return Parsed::Malformed;
        }
    }
    Parsed::Whole(message, start + body)
}

/// Positions count from the start of the message, or of the body, which is aligned.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }

    fn zero_terminated(&mut self, length: usize) -> Option<String> {
        let text = self.take(length.checked_add(1)?)?;
        String::from_utf8(text.strip_suffix(b"\0")?.to_owned()).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.size()?;
        self.zero_terminated(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = *self.take(1)?.first()?;
        self.zero_terminated(length.into())
    }

    fn variant_text(&mut self) -> Option<String> {
        match self.signature()?.as_str() {
            "s" | "o" => self.text(),
            "g" => self.signature(),
            _ => None,
        }
    }

    fn field(&mut self, message: &mut Message) -> Option<()> {
        self.align(8);
        let code = *self.take(1)?.first()?;
        match code {
            REPLY_SERIAL => {
                message.reply_to = (self.signature()? == "u").then(|| self.u32())?;
                message.reply_to.map(|_| ())
            }
            MEMBER => self.variant_text().map(|text| message.member = text),
            ERROR_NAME => self.variant_text().map(|text| message.error = text),
            SENDER => self.variant_text().map(|text| message.sender = text),
            SIGNATURE => self.variant_text().map(|text| message.signature = text),
            PATH | INTERFACE | DESTINATION => self.variant_text().map(drop),
            // The number of descriptors that came along: none are ever asked for.
            _ => (self.signature()? == "u").then(|| self.u32())?.map(drop),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

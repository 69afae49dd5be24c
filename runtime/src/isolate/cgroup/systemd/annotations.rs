//! Properties of the unit that a config asks for by annotations `org.systemd.property.NAME`, whose values are
//! GVariant's text form: numbers (`uint64 5`), booleans, strings and lists of these. Pure.

use super::wire::Value;
use super::{Property, property};
use crate::{Error, Result};

const PREFIX: &str = "org.systemd.property.";
const MAX_TEXT: usize = 4096;

const OTHER_TYPE: &str = "a value of the type that is named before it";

const TYPES: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

pub(super) fn properties(annotations: &[(String, String)]) -> Result<Vec<Property>> {
    let named = annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)));
    named.filter(|(_, name, _)| !name.is_empty()).map(|(key, name, text)| one(key, name, text)).collect()
}

fn one(key: &str, name: &str, text: &str) -> Result<Property> {
    let field = || format!("annotation {key}");
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        let shown: String = name.chars().take(60).collect();
        let expected = "a property of at least three letters and nothing but letters";
        return Err(Error::invalid(field(), format!("{shown:?}"), expected));
    }
    let refuse = |expected| {
        let shown: String = text.chars().take(60).collect();
        Error::invalid(field(), format!("{shown:?}"), expected)
    };
    let value = parse(text).map_err(refuse)?;
    // systemd documents times in seconds, and takes them in microseconds under another name.
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|c: char| c.is_ascii_lowercase()) => {
            let value = microseconds(&value).ok_or_else(|| refuse("a number of seconds"))?;
            Ok(property(&format!("{stem}USec"), value))
        }
        _ => Ok(property(name, value)),
    }
}

fn microseconds(seconds: &Value) -> Option<Value> {
    let seconds = match *seconds {
        Value::Byte(n) => n.into(),
        Value::U16(n) => n.into(),
        Value::U32(n) => n.into(),
        Value::U64(n) => n,
        Value::I16(n) => u64::try_from(n).ok()?,
        Value::I32(n) => u64::try_from(n).ok()?,
        Value::I64(n) => u64::try_from(n).ok()?,
        Value::Double(n) if (0.0..1e12).contains(&n) => {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range was looked at, and less than a microsecond is nothing"
            )]
            return Some(Value::U64((n * 1e6) as u64));
        }
        _ => return None,
    };
    seconds.checked_mul(1_000_000).map(Value::U64)
}

fn parse(text: &str) -> Result<Value, &'static str> {
    if text.len() > MAX_TEXT {
        return Err("at most 4096 bytes");
    }
    let mut parser = Parser { rest: text };
    let value = parser.value(None)?;
    parser.skip_blanks();
    if parser.rest.is_empty() { Ok(value) } else { Err("one value and nothing after it") }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn accept(&mut self, sign: char) -> bool {
        self.skip_blanks();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self) -> &'a str {
        let is_end = |c: char| c.is_ascii_whitespace() || "[],".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// `wanted` is a signature that was named before the value.
    fn value(&mut self, wanted: Option<&str>) -> Result<Value, &'static str> {
        if self.accept('[') {
            return self.list(wanted);
        }
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                let text = self.quoted(quote)?;
                match wanted.unwrap_or("s") {
                    "s" => Ok(Value::Text(text)),
                    "o" => Ok(Value::Path(text)),
                    "g" => Ok(Value::Signature(text)),
                    _ => Err(OTHER_TYPE),
                }
            }
            Some('@') => {
                let signature = &self.word()[1..];
                let item = signature.strip_prefix('a').unwrap_or(signature);
                if wanted.is_some() || !TYPES.iter().any(|(_, letter)| *letter == item) {
                    return Err("after @ the type of a number, a string or a list of these, as in @as");
                }
                self.value(Some(signature))
            }
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => number(self.word(), wanted),
            Some(_) => match (self.word(), wanted) {
                ("true", None | Some("b")) => Ok(Value::Bool(true)),
                ("false", None | Some("b")) => Ok(Value::Bool(false)),
                (word, wanted) => {
                    let named = TYPES.iter().find(|(name, _)| *name == word);
                    let (_, letter) =
                        named.ok_or("a number, a quoted string, true, false, or a list of these in []")?;
                    if wanted.is_some_and(|wanted| wanted != *letter) {
                        return Err(OTHER_TYPE);
                    }
                    self.value(Some(letter))
                }
            },
            None => Err("a value"),
        }
    }

    fn list(&mut self, wanted: Option<&str>) -> Result<Value, &'static str> {
        let mut item = match wanted {
            Some(signature) => Some(signature.strip_prefix('a').ok_or("one value, for no list was named")?),
            None => None,
        }
        .map(str::to_owned);
        let mut items = Vec::new();
        while !self.accept(']') {
            if !items.is_empty() && !self.accept(',') {
                return Err("a list whose items have commas in between and whose end is ]");
            }
            self.skip_blanks();
            if self.rest.starts_with('[') {
                return Err("no list inside a list");
            }
            let value = self.value(item.as_deref())?;
            if *item.get_or_insert_with(|| value.signature()) != value.signature() {
                return Err("a list whose items are of one type");
            }
            items.push(value);
        }
        item.map(|item| Value::Array(item, items)).ok_or("the type of an empty list, as in @as []")
    }

    fn quoted(&mut self, quote: char) -> Result<String, &'static str> {
        let mut text = String::new();
        let mut signs = self.rest.char_indices().skip(1);
        while let Some((at, sign)) = signs.next() {
            if sign == quote {
                self.rest = &self.rest[at + 1..];
                return Ok(text);
            }
            let sign = match sign {
                '\\' => match signs.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, sign @ ('\\' | '\'' | '"'))) => sign,
                    _ => return Err("of escapes only \\n, \\t and those of quotes and backslashes"),
                },
                '\0' => return Err("a string without zeros"),
                sign => sign,
            };
            text.push(sign);
        }
        Err("a string with a closing quote")
    }
}

fn number(word: &str, wanted: Option<&str>) -> Result<Value, &'static str> {
    let is_whole = !word.contains(['.', 'e', 'E']) || word.starts_with("0x");
    let whole = || {
        let (sign, digits) = match word.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, word.strip_prefix('+').unwrap_or(word)),
        };
        let (digits, radix) = match digits.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
            None => (digits, 10),
        };
        u64::from_str_radix(digits, radix).ok().map(|n| sign * i128::from(n))
    };
    let value = match wanted.unwrap_or(if is_whole { "i" } else { "d" }) {
        "y" => whole().and_then(|n| n.try_into().ok()).map(Value::Byte),
        "n" => whole().and_then(|n| n.try_into().ok()).map(Value::I16),
        "q" => whole().and_then(|n| n.try_into().ok()).map(Value::U16),
        "i" => whole().and_then(|n| n.try_into().ok()).map(Value::I32),
        "u" => whole().and_then(|n| n.try_into().ok()).map(Value::U32),
        "x" => whole().and_then(|n| n.try_into().ok()).map(Value::I64),
        "t" => whole().and_then(|n| n.try_into().ok()).map(Value::U64),
        "d" => word.parse().ok().filter(|n: &f64| n.is_finite()).map(Value::Double),
        _ => None,
    };
    value.ok_or("a number of the named type, int32 where none is named")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<Property>> {
        properties(&[(format!("{PREFIX}{name}"), text.to_owned()), ("other".into(), "x".into())])
    }

    #[test]
    fn values_are_read_with_their_types() {
        let texts = |list: &[&str]| list.iter().map(|&text| Value::text(text)).collect::<Vec<_>>();
        for (text, value) in [
            ("uint64 123456789", Value::U64(123_456_789)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            ("\"it's \\\"so\\\"\"", Value::text("it's \"so\"")),
            (" true ", Value::Bool(true)),
            ("boolean false", Value::Bool(false)),
            ("-5", Value::I32(-5)),
            ("0x10", Value::I32(16)),
            ("byte 010", Value::Byte(8)),
            ("@t 5", Value::U64(5)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("['a', 'b']", Value::Array("s".into(), texts(&["a", "b"]))),
            ("@as []", Value::Array("s".into(), vec![])),
            ("@au [1,2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            ("[uint64 1, uint64 2]", Value::Array("t".into(), vec![Value::U64(1), Value::U64(2)])),
            ("objectpath '/a'", Value::Path("/a".into())),
        ] {
            assert_eq!(read("Name", text).unwrap(), [property("Name", value)], "{text}");
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        for (name, text, expected, value) in [
            ("TimeoutStopSec", "5", "TimeoutStopUSec", 5_000_000),
            ("TimeoutStopSec", "uint64 7", "TimeoutStopUSec", 7_000_000),
            ("TimeoutStopSec", "0.5", "TimeoutStopUSec", 500_000),
            ("TimeoutStopUSec", "uint64 7", "TimeoutStopUSec", 7),
        ] {
            assert_eq!(read(name, text).unwrap(), [property(expected, Value::U64(value))], "{name}");
        }
        for text in ["-1", "'5'", "true", "uint64 18446744073709551615", "-0.5"] {
            assert!(read("TimeoutStopSec", text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "x",
            "'a",
            "[1",
            "[1 2]",
            "[]",
            "[1, 'a']",
            "[[1]]",
            "@(ss) ('a','b')",
            "{'a': 1}",
            "<1>",
            "1 2",
            "uint16 65536",
            "byte -1",
            "uint64 1.5",
            "@u",
            "@t 'a'",
            "boolean 1",
            "int32 true",
            "'\\x'",
            "--5",
            "08",
            "@ 5",
            "[,]",
            "@as 'a'",
            "string ['a']",
            "nan",
            "1e999",
        ] {
            let error = read("Name", text).unwrap_err().to_string();
            assert!(error.starts_with("annotation org.systemd.property.Name: "), "{error}");
        }
        for name in ["ab", "Name1", "Na-me", "N\u{e4}me"] {
            read(name, "5").unwrap_err();
        }
        assert_eq!(read("", "x").unwrap(), [], "no name, no property");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]@a-z0-9'\"\\\\ ,.+-]{0,24}|\\PC{0,24}") {
            let _ = parse(&text);
        }
    }
}

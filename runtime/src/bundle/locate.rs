//! Names the field of a JSON text in which the parser stopped: its errors know line and column only.

use std::fmt::Write as _;

/// `process.user.uid`, `mounts[2].type`; empty at the top.
pub(super) fn path(text: &[u8], line: usize, column: usize) -> String {
    let start: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let end = (start + column).min(text.len());
    let mut places: Vec<Place> = Vec::new();
    let mut at = 0;
    while at < end {
        match text[at] {
            b'{' => places.push(Place::Object { key: String::new(), expects_key: true }),
            b'[' => places.push(Place::Array { index: 0 }),
            b'}' | b']' if at + 1 < end => drop(places.pop()),
            b',' => match places.last_mut() {
                Some(Place::Object { expects_key, .. }) => *expects_key = true,
                Some(Place::Array { index }) => *index += 1,
                None => {}
            },
            b'"' => {
                let length = string(&text[at..end]);
                if let Some(Place::Object { key, expects_key: expects_key @ true }) = places.last_mut() {
                    *key = String::from_utf8_lossy(text[at..at + length].trim_ascii())
                        .trim_matches('"')
                        .to_owned();
                    *expects_key = false;
                }
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for place in &places {
        match place {
            Place::Object { key, .. } if key.is_empty() => {}
            Place::Object { key, .. } if path.is_empty() => path.push_str(key),
            Place::Object { key, .. } => {
                let _ = write!(path, ".{key}");
            }
            Place::Array { index } => {
                let _ = write!(path, "[{index}]");
            }
        }
    }
    path
}

enum Place {
    Object { key: String, expects_key: bool },
    Array { index: usize },
}

/// Length of the string that starts here, quotes included; of all there is, if it does not end.
fn string(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named() {
        let text = b"{\"process\": {\"args\": [\"a\", \"b, \\\"{\"],\n \"user\": {\"uid\": \"root\"}}}";
        assert_eq!(path(text, 2, 24), "process.user.uid");
        assert_eq!(path(text, 1, 31), "process.args[1]");
        assert_eq!(path(text, 1, 1), "");
        assert_eq!(path(b"[{}, {\"a\": 1}]", 1, 12), "[1].a");
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), line in 0usize..5, column in 0usize..80) {
            path(&text, line, column);
        }
    }
}

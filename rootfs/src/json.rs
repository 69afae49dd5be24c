//! JSON documents that are changed before they become typed.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A value as a type, by way of its text: each type's parser is in the executable once.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> serde_json::Result<T> {
    serde_json::from_slice(&serde_json::to_vec(value)?)
}

/// Go's tools write `null` for whatever is not set, also where a specification has no room for it: such fields
/// are as good as absent.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

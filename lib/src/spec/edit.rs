//! Changing some keys of a JSON object, and nothing else of it.

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use super::json::{self, JsonError};
use super::view::{Json, SpecError};

/// An edited copy of a JSON object, which keeps the text of every other key and value byte for byte, and their order.
///
/// Only what stands between them is written anew: [`to_vec`](Self::to_vec) has no blanks there.
#[derive(Clone, Default)]
pub struct Object(Vec<Entry>);

#[derive(Clone)]
struct Entry {
    name: String,
    /// The name as it is written, with quotes and escapes: Go and Python escape more than they must.
    key: String,
    value: Box<RawValue>,
}

impl Object {
    /// An object without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an object apart. The bytes are checked as strictly as [`json::check`] does, but for its limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        json::check_unbounded(bytes)?;
        let raw: &RawValue = serde_json::from_slice(bytes).map_err(SpecError::new)?;
        Ok(Self::from_json(Json::of(raw))?)
    }

    pub(crate) fn from_json(json: Json<'_>) -> Result<Self, SpecError> {
        // What is an object has an object's opening brace first: then the text of every key is to be had as well as its meaning.
        let fields = json.object()?;
        let keys = key_texts(json.text());
        let entries = fields.iter().zip(keys).map(|((name, value), key)| {
            let value = RawValue::from_string(value.text().to_owned()).map_err(SpecError::new)?;
            Ok(Entry { name: name.to_owned(), key: key.to_owned(), value })
        });
        Ok(Self(entries.collect::<Result<_, SpecError>>()?))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|entry| entry.name == key).map(|entry| &*entry.value)
    }

    /// Whether there is a `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Its keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.name.as_str())
    }

    /// The number of its keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives `key` a value: in its place if there is one, else at the end.
    ///
    /// # Panics
    ///
    /// If `value` cannot be JSON, which is so only for maps whose keys are no strings, and for types that refuse to be serialised.
    pub fn set(&mut self, key: &str, value: impl Serialize) -> &mut Self {
        let value = serde_json::value::to_raw_value(&value).expect("strings, numbers, lists and maps of strings are JSON");
        self.set_raw(key, value)
    }

    /// Gives `key` a value that is JSON already.
    pub fn set_raw(&mut self, key: &str, value: Box<RawValue>) -> &mut Self {
        match self.0.iter_mut().find(|entry| entry.name == key) {
            Some(entry) => entry.value = value,
            None => {
                let text = serde_json::Value::from(key).to_string();
                self.0.push(Entry { name: key.to_owned(), key: text, value });
            }
        }
        self
    }

    /// Removes `key`, and gives back its value.
    pub fn remove(&mut self, key: &str) -> Option<Box<RawValue>> {
        let at = self.0.iter().position(|entry| entry.name == key)?;
        Some(self.0.remove(at).value)
    }

    /// The object as text.
    pub fn to_vec(&self) -> Vec<u8> {
        self.to_text().into_bytes()
    }

    /// The object as a value, for [`Object::set_raw`] of another.
    pub fn to_raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.to_text()).expect("its keys and values are JSON")
    }

    fn to_text(&self) -> String {
        let size: usize = self.0.iter().map(|entry| entry.key.len() + entry.value.get().len() + 2).sum();
        let mut text = String::with_capacity(size + 2);
        text.push('{');
        for (at, Entry { key, value, .. }) in self.0.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            text.push_str(key);
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        text
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_raw().serialize(serializer)
    }
}

/// The texts of the keys of an object that is known to be well-formed.
fn key_texts(object: &str) -> Vec<&str> {
    let bytes = object.as_bytes();
    let mut keys = Vec::new();
    let (mut depth, mut at, mut key_follows) = (0usize, 0, false);
    while let Some(&c) = bytes.get(at) {
        match c {
            b'"' => {
                let start = at;
                at += 1;
                while bytes.get(at).is_some_and(|&c| c != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                if depth == 1 && std::mem::take(&mut key_follows) {
                    keys.push(&object[start..=at]);
                }
            }
            b'{' | b'[' => {
                depth += 1;
                key_follows = depth == 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => key_follows = true,
            _ => {}
        }
        at += 1;
    }
    keys
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_what_it_does_not_touch() {
        let text = br#" { "z" : [ 1 , {"q":"\u003c"} ] , "\u0061b": 1.50e+01, "c":{"":"}"},
            "d" : "\"," } "#;
        let mut object = Object::parse(text).unwrap();
        assert_eq!(object.keys().collect::<Vec<_>>(), ["z", "ab", "c", "d"]);
        assert_eq!(object.get("ab").unwrap().get(), "1.50e+01");
        assert_eq!(object.to_vec(), br#"{"z":[ 1 , {"q":"\u003c"} ],"\u0061b":1.50e+01,"c":{"":"}"},"d":"\","}"#);
        object.set("c", [1, 2]).set("new\n", "x");
        assert_eq!(object.remove("z").unwrap().get(), "[ 1 , {\"q\":\"\\u003c\"} ]");
        assert!(object.remove("z").is_none());
        assert_eq!(object.to_vec(), br#"{"\u0061b":1.50e+01,"c":[1,2],"d":"\",","new\n":"x"}"#);
        object.set("ab", None::<u8>);
        assert_eq!(object.get("ab").unwrap().get(), "null");
    }

    #[test]
    fn nests_and_starts_empty() {
        let mut inner = Object::new();
        assert!(inner.is_empty());
        assert_eq!(inner.to_vec(), b"{}");
        inner.set("a", 1);
        let mut outer = Object::new();
        outer.set_raw("raw", inner.to_raw()).set("typed", &inner);
        assert_eq!(outer.to_vec(), br#"{"raw":{"a":1},"typed":{"a":1}}"#);
        assert_eq!(outer.len(), 2);
    }

    #[test]
    fn takes_objects_only() {
        for bad in ["[]", "1", "", "{", "{\"a\":1,\"a\":2}", "{}x"] {
            assert!(Object::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(Object::parse(b"null").unwrap_err().to_string(), "expected an object, found null");
    }

    proptest! {
        #[test]
        fn parse_and_print_is_identity_on_compact_text(map in proptest::collection::btree_map(".{0,6}", ".{0,6}", 0..6)) {
            let text = serde_json::to_vec(&map).unwrap();
            prop_assert_eq!(Object::parse(&text).unwrap().to_vec(), text);
        }
    }
}

//! Reading typed views out of JSON values, with errors that name the place.
//!
//! A [`Json`] is the text of one value, and a [`Fields`] an object taken apart one level deep; values below stay text until somebody asks.
//! A failed reader says what is wrong with its own value, and everyone above adds where that value is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::reference::shown;

/// Why a JSON value is not what the specification asks for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Two media types of the same bytes disagree.
    #[error("the descriptor says {descriptor:?}, but the content says mediaType {content:?}")]
    MediaType {
        /// What the descriptor says.
        descriptor: String,
        /// What the content says.
        content: String,
    },
    /// A manifest of Docker's schema 1.
    #[error("the manifest is of Docker's schema 1")]
    Schema1,
    /// A value of another type or content than expected.
    #[error("{path}{}{clause}", if path.is_empty() { "" } else { ": " })]
    Value {
        /// Where it is: `layers[2].size`, or empty for the whole document.
        path: String,
        /// What is wrong.
        clause: String,
    },
}

impl SpecError {
    /// Says what is wrong with the value at hand.
    pub fn new(clause: impl fmt::Display) -> Self {
        Self::Value { path: String::new(), clause: clause.to_string() }
    }

    /// Says what was expected and what is there.
    pub fn expected(expected: &str, found: impl fmt::Display) -> Self {
        Self::new(format_args!("expected {expected}, found {found}"))
    }

    /// Says that the value is the one of `key`.
    #[must_use]
    pub fn at_key(self, key: &str) -> Self {
        // A key from outside may be anything.
        let plain =
            !key.is_empty() && key.len() <= 80 && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'.' || c == b'_' || c == b'-');
        self.below(if plain { key.to_owned() } else { format!("[{}]", quoted(key)) })
    }

    /// Says that the value is the one at `index`.
    #[must_use]
    pub fn at_index(self, index: usize) -> Self {
        self.below(format!("[{index}]"))
    }

    fn below(self, step: String) -> Self {
        match self {
            Self::Value { path, clause } => {
                let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
                Self::Value { path: format!("{step}{dot}{path}"), clause }
            }
            other => other,
        }
    }
}

impl From<SpecError> for crate::error::Error {
    fn from(error: SpecError) -> Self {
        match error {
            SpecError::Schema1 => Self::unsupported(error)
                .hint("schema 1 names no config; pull the image with a Docker that still reads it, and push it again"),
            _ => Self::invalid(error),
        }
    }
}

/// One JSON value, as text that has passed [`check`](super::json::check) or [`serde_json`].
#[derive(Debug, Clone, Copy)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// The value that `raw` holds.
    pub fn of(raw: &'a RawValue) -> Self {
        Self(raw.get())
    }

    /// The value that `text` is.
    pub(crate) fn text_of(text: &'a str) -> Self {
        Self(text)
    }

    /// Its text, unknown keys and blanks included.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// Whether it is `null`, which Go reads as absent.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Takes an object apart.
    pub fn object(self) -> Result<Fields<'a>, SpecError> {
        if !self.0.starts_with('{') {
            return Err(self.unexpected("an object"));
        }
        self.typed()
    }

    /// Takes an array apart.
    pub fn array(self) -> Result<Vec<Self>, SpecError> {
        if !self.0.starts_with('[') {
            return Err(self.unexpected("an array"));
        }
        Ok(self.typed::<Vec<&'a RawValue>>()?.into_iter().map(Self::of).collect())
    }

    /// Reads every item of an array.
    pub fn list<T>(self, read: impl Fn(Self) -> Result<T, SpecError>) -> Result<Vec<T>, SpecError> {
        let items = self.array()?.into_iter().enumerate();
        items.map(|(at, item)| read(item).map_err(|error| error.at_index(at))).collect()
    }

    /// Reads every value of an object whose keys are data.
    pub fn map<T>(self, read: impl Fn(Self) -> Result<T, SpecError>) -> Result<BTreeMap<String, T>, SpecError> {
        let entries = self.object()?.0.into_iter();
        entries.map(|(key, value)| read(value).map(|read| (key.to_string(), read)).map_err(|error| error.at_key(&key))).collect()
    }

    /// Reads a string.
    pub fn string(self) -> Result<String, SpecError> {
        if !self.0.starts_with('"') {
            return Err(self.unexpected("a string"));
        }
        self.typed()
    }

    /// Reads `true` or `false`.
    pub fn bool(self) -> Result<bool, SpecError> {
        match self.0 {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.unexpected("true or false")),
        }
    }

    /// Reads a number of bytes or things: Go's int64, and not negative.
    pub fn size(self) -> Result<u64, SpecError> {
        if !self.0.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return Err(self.unexpected("a number"));
        }
        // As in Go, neither 1.0 nor 1e3 is an integer.
        match self.0.parse::<u64>() {
            Ok(size) if size <= i64::MAX as u64 => Ok(size),
            _ => Err(SpecError::expected("a whole number from 0 to 9223372036854775807", self.0.chars().take(40).collect::<String>())),
        }
    }

    /// Reads a string that `parse` takes.
    pub fn parsed<T, E: fmt::Display>(self, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, SpecError> {
        parse(&self.string()?).map_err(SpecError::new)
    }

    /// Reads whatever serde can, for what is not worth a reader of its own.
    pub fn typed<T: Deserialize<'a>>(self) -> Result<T, SpecError> {
        serde_json::from_str(self.0).map_err(|error| SpecError::new(error_text(&error)))
    }

    /// Says what it is instead of what was `expected`.
    pub fn unexpected(self, expected: &str) -> SpecError {
        SpecError::expected(expected, self.kind())
    }

    fn kind(self) -> &'static str {
        match self.0.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b't') => "true",
            Some(b'f') => "false",
            Some(b'n') => "null",
            Some(b'-' | b'0'..=b'9') => "a number",
            _ => "nothing",
        }
    }
}

/// An object, in its order.
#[derive(Debug, Clone)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Fields<'a> {
    /// The value of `key`, unless it is absent or `null`.
    pub fn value(&self, key: &str) -> Option<Json<'a>> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value).filter(|value| !value.is_null())
    }

    /// Whether there is a `key`, be it `null`.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// Refuses a key that differs from one of `known` only in case: Go's encoding/json takes it for that one, others do not.
    pub fn exact(&self, known: &[&str]) -> Result<(), SpecError> {
        for (name, _) in &self.0 {
            if let Some(meant) = known.iter().find(|meant| meant.eq_ignore_ascii_case(name) && *meant != name) {
                return Err(SpecError::new(format_args!("expected the key {meant:?}, found {name:?} (upper and lower case differ)")));
            }
        }
        Ok(())
    }

    /// Reads the value of `key` if there is one.
    pub fn optional<T>(&self, key: &str, read: impl FnOnce(Json<'a>) -> Result<T, SpecError>) -> Result<Option<T>, SpecError> {
        self.value(key).map(read).transpose().map_err(|error| error.at_key(key))
    }

    /// Reads the value of `key`, and refuses an object without it.
    pub fn required<T>(&self, key: &str, read: impl FnOnce(Json<'a>) -> Result<T, SpecError>) -> Result<T, SpecError> {
        match (self.optional(key, read)?, self.has(key)) {
            (Some(value), _) => Ok(value),
            (None, true) => Err(SpecError::new("expected a value, found null").at_key(key)),
            (None, false) => Err(SpecError::new("missing").at_key(key)),
        }
    }

    /// Reads the value of `key`; absent is the same as empty, zero or false.
    pub fn or_default<T: Default>(&self, key: &str, read: impl FnOnce(Json<'a>) -> Result<T, SpecError>) -> Result<T, SpecError> {
        Ok(self.optional(key, read)?.unwrap_or_default())
    }

    /// Reads a string; the empty one is absent, as Go's `omitempty` has it.
    pub fn text(&self, key: &str) -> Result<Option<String>, SpecError> {
        Ok(self.optional(key, Json::string)?.filter(|text| !text.is_empty()))
    }

    /// Reads a map of strings, such as annotations. "If there are no annotations then this property MUST either be absent or be an empty map."
    pub fn strings(&self, key: &str) -> Result<BTreeMap<String, String>, SpecError> {
        self.or_default(key, |value| value.map(Json::string))
    }

    /// Its keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Json<'a>)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Key(key), value)) = map.next_entry::<_, &'de RawValue>()? {
                    fields.push((key, Json::of(value)));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// A key, copied only if it holds escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Makes serde's traits out of a type's reader, for code that asks for them.
macro_rules! deserialize_by_reading {
    ($($name:ty),+) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let raw = Box::<serde_json::value::RawValue>::deserialize(deserializer)?;
                <$name>::read($crate::spec::Json::of(&raw)).map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use deserialize_by_reading;

/// A text for a message: quoted, escaped, and not too long.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", shown(text))
}

/// What serde_json says, without the names of our types, and not too long.
fn error_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // "invalid type: map, expected struct Descriptor at line 1 column 1"
    let Some((found, expected)) = text.rsplit_once(", expected ") else { return shown(&text) };
    let (what, place) = expected.rfind(" at line ").map_or((expected, ""), |at| expected.split_at(at));
    let what = match what.split(' ').next() {
        Some("struct" | "enum" | "tuple" | "newtype") => "an object",
        Some("u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" | "f32" | "f64") => "a number",
        _ => what,
    };
    format!("{}, expected {}{place}", shown(found), shown(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, read: impl FnOnce(Json<'_>) -> Result<(), SpecError>) -> String {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        read(Json::of(raw)).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn errors_name_the_place() {
        let layers = |json: Json<'_>| {
            json.object()?.required("layers", |list| list.list(|item| item.object()?.required("size", Json::size)))?;
            Ok(())
        };
        for (text, expected) in [
            (r#"{"layers":[]}"#, "fine"),
            (r#"{"layers":[{"size":1},{"size":9223372036854775807}]}"#, "fine"),
            ("[]", "expected an object, found an array"),
            ("{}", "layers: missing"),
            (r#"{"layers":null}"#, "layers: expected a value, found null"),
            (r#"{"layers":"x"}"#, "layers: expected an array, found a string"),
            (r#"{"layers":[{"size":1},7]}"#, "layers[1]: expected an object, found a number"),
            (r#"{"layers":[{"size":1},{"size":"1"}]}"#, "layers[1].size: expected a number, found a string"),
            (r#"{"layers":[{}]}"#, "layers[0].size: missing"),
            (r#"{"layers":[{"size":-1}]}"#, "layers[0].size: expected a whole number from 0 to 9223372036854775807, found -1"),
            (r#"{"layers":[{"size":1.0}]}"#, "layers[0].size: expected a whole number from 0 to 9223372036854775807, found 1.0"),
            (
                r#"{"layers":[{"size":9223372036854775808}]}"#,
                "layers[0].size: expected a whole number from 0 to 9223372036854775807, found 9223372036854775808",
            ),
        ] {
            assert_eq!(read(text, layers), expected, "{text}");
        }
    }

    #[test]
    fn odd_keys_are_quoted() {
        let annotations = |json: Json<'_>| json.object()?.strings("annotations").map(|_| ());
        assert_eq!(read(r#"{"annotations":{"a.b/c":"x"}}"#, annotations), "fine");
        assert_eq!(read(r#"{"annotations":null}"#, annotations), "fine");
        assert_eq!(read(r#"{"annotations":{"a.b":1}}"#, annotations), "annotations.a.b: expected a string, found a number");
        assert_eq!(
            read(r#"{"annotations":{"a\u001b\"":null}}"#, annotations),
            r#"annotations["a\u{1b}\""]: expected a string, found null"#
        );
    }

    #[test]
    fn case_matters() {
        let exact = |json: Json<'_>| json.object()?.exact(&["Config", "Layers"]);
        assert_eq!(read(r#"{"Config":1,"other":2}"#, exact), "fine");
        assert_eq!(read(r#"{"config":1}"#, exact), "expected the key \"Config\", found \"config\" (upper and lower case differ)");
    }

    #[test]
    fn no_names_of_our_types() {
        #[derive(Debug, Deserialize)]
        struct Inner {
            #[serde(rename = "x")]
            _x: u8,
        }
        let typed = |json: Json<'_>| json.typed::<Vec<Inner>>().map(|_| ());
        assert_eq!(read("[1]", typed), "invalid type: integer `1`, expected an object at line 1 column 2");
        assert_eq!(read("[{}]", typed), "missing field `x` at line 1 column 3");
    }
}

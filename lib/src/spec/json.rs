//! Strict JSON: one pass over a document before anything looks at its meaning.
//!
//! The grammar is that of [RFC 8259], and three things on top that the RFC leaves open and on which readers differ: a key may come only once
//! in an object (Go keeps the last, others the first), a text is valid Unicode (a lone `\ud800` becomes U+FFFD in Go and is an error in
//! Rust), and depth is bounded. What passes here, [`serde_json`] takes too.
//!
//! The scanner is a loop with a stack of one byte a level, so depth costs no recursion, under unknown keys neither. Of the keys of open
//! objects it keeps eight bytes each: half of a keyed 64-bit digest, and where the key is, so that two that collide can be compared.
//!
//! [RFC 8259]: https://www.rfc-editor.org/rfc/rfc8259

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use thiserror::Error;

use super::view::SpecError;
use crate::error::Error;
use crate::limits::Limits;

/// Values in one document, nested ones included. A view takes up to a hundred bytes for each, however short its text is (`{}` in a history):
/// without a bound 8 MiB could become 300. Ten thousand layers with their history, the most that is taken, have 80,000.
const VALUES: usize = 1 << 18;

/// Bounds on one document. The number of its values is bounded too, at 262,144.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonLimits {
    /// Bytes of the document.
    pub bytes: u64,
    /// Levels of nested arrays and objects.
    pub depth: usize,
}

impl JsonLimits {
    /// Those of a manifest or index, and of archive manifests and other small files.
    pub fn manifest(limits: &Limits) -> Self {
        Self { bytes: limits.manifest, depth: limits.json_depth }
    }

    /// Those of a config.
    pub fn config(limits: &Limits) -> Self {
        Self { bytes: limits.config, depth: limits.json_depth }
    }
}

/// Where something is in a document: bytes from 0, lines and columns (in characters) from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it.
    pub byte: usize,
    /// Its line.
    pub line: usize,
    /// Its column.
    pub column: usize,
}

impl Position {
    fn of(bytes: &[u8], byte: usize) -> Self {
        let before = &bytes[..byte.min(bytes.len())];
        let line = before.iter().filter(|&&c| c == b'\n').count() + 1;
        let start = before.iter().rposition(|&c| c == b'\n').map_or(0, |at| at + 1);
        let column = before[start..].iter().filter(|&&c| c & 0xc0 != 0x80).count() + 1;
        Self { byte, line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {} (byte {})", self.line, self.column, self.byte)
    }
}

/// Why bytes are not the document expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// It starts with EF BB BF. "Implementations MUST NOT add a byte order mark."
    #[error("the JSON starts with a byte order mark")]
    ByteOrderMark,
    /// Arrays and objects are nested too deep.
    #[error("the JSON is nested over {limit} deep at {at}")]
    Depth {
        /// The limit.
        limit: usize,
        /// Where it is exceeded.
        at: Position,
    },
    /// An object has a key twice.
    #[error("the JSON has the key {key:?} twice in one object, again at {at}")]
    DuplicateKey {
        /// The key, cut short if it is long.
        key: String,
        /// Where it comes again.
        at: Position,
    },
    /// There are no bytes, or only blanks.
    #[error("expected JSON, found nothing")]
    Empty,
    /// The document is over its limit.
    #[error("the JSON has {found} bytes, over the limit of {limit}")]
    Size {
        /// The limit.
        limit: u64,
        /// What it has.
        found: u64,
    },
    /// It is JSON, but not what the specification asks for.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// It breaks the grammar.
    #[error("the JSON is malformed at {at}: expected {expected}, found {found}")]
    Syntax {
        /// What the grammar asks for.
        expected: &'static str,
        /// What is there.
        found: String,
        /// Where.
        at: Position,
    },
    /// Something follows the document.
    #[error("the JSON ends at {at}, but {found} follows")]
    Trailing {
        /// What follows.
        found: String,
        /// Where.
        at: Position,
    },
    /// It is UTF-16 or UTF-32.
    #[error("the JSON is not in UTF-8, but in UTF-16 or UTF-32")]
    Utf16,
    /// It is not UTF-8.
    #[error("the JSON is not in UTF-8: byte {byte:#04x} at {at}")]
    Utf8 {
        /// The byte.
        byte: u8,
        /// Where.
        at: Position,
    },
    /// The document has too many values.
    #[error("the JSON has over {limit} values, the last of them at {at}")]
    Values {
        /// The limit.
        limit: usize,
        /// Where it is exceeded.
        at: Position,
    },
}

impl From<JsonError> for Error {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Depth { .. } | JsonError::Size { .. } | JsonError::Values { .. } => Self::limit(error),
            JsonError::Spec(error) => error.into(),
            _ => Self::invalid(error),
        }
    }
}

/// Checks that `bytes` are one JSON value, strictly.
pub fn check(bytes: &[u8], limits: &JsonLimits) -> Result<(), JsonError> {
    check_values(bytes, limits, VALUES)
}

/// Checks what is ours already, or whose bounds were looked at.
pub(crate) fn check_unbounded(bytes: &[u8]) -> Result<(), JsonError> {
    check_values(bytes, &JsonLimits { bytes: u64::MAX, depth: usize::MAX }, usize::MAX)
}

fn check_values(bytes: &[u8], limits: &JsonLimits, values: usize) -> Result<(), JsonError> {
    // A key's place is kept in 32 bits.
    let limit = limits.bytes.min(u64::from(u32::MAX));
    let found = bytes.len() as u64;
    if found > limit {
        return Err(JsonError::Size { limit, found });
    }
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => return Err(JsonError::ByteOrderMark),
        // No JSON holds a NUL or these bytes; with one in the first two, an ASCII character is two or four bytes wide.
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => return Err(JsonError::Utf16),
        _ => {}
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        let at = error.valid_up_to();
        return Err(JsonError::Utf8 { byte: bytes[at], at: Position::of(bytes, at) });
    }
    Scanner {
        bytes,
        at: 0,
        depth: limits.depth,
        values,
        read: 0,
        hasher: RandomState::new(),
        open: Vec::new(),
        keys: Vec::new(),
        scratch: Vec::new(),
    }
    .document()
}

/// Checks whatever comes; serde_json must take what passes.
pub fn fuzz_json(data: &[u8]) {
    let limits = JsonLimits { bytes: 1 << 20, depth: 100 };
    match check(data, &limits) {
        Ok(()) => {
            let raw = serde_json::from_slice::<&serde_json::value::RawValue>(data);
            raw.unwrap_or_else(|error| panic!("accepted, but serde_json says: {error}"));
            if let Err(error) = serde_json::from_slice::<serde_json::Value>(data) {
                assert!(error.to_string().contains("number out of range"), "accepted, but serde_json says: {error}");
            }
        }
        Err(error) => assert!(error.to_string().len() < 4096),
    }
}

/// An array or object that is being read.
#[derive(Debug, Clone, Copy)]
enum Open {
    Array,
    /// With where its keys start among all.
    Object(u32),
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// How many values may be read.
    values: usize,
    /// How many were.
    read: usize,
    hasher: RandomState,
    open: Vec<Open>,
    /// The keys of all open objects: half a digest above, and the place of the opening quote below.
    keys: Vec<u64>,
    scratch: Vec<u8>,
}

impl Scanner<'_> {
    fn document(mut self) -> Result<(), JsonError> {
        self.blanks();
        if self.at == self.bytes.len() {
            return Err(JsonError::Empty);
        }
        // Each turn reads one value, or its opening bracket, and then everything up to the next value.
        loop {
            if self.value()? {
                continue;
            }
            loop {
                let Some(&open) = self.open.last() else { return self.end() };
                self.blanks();
                match (open, self.peek()) {
                    (Open::Array, Some(b',')) => self.at += 1,
                    (Open::Array, Some(b']')) => {
                        self.close();
                        continue;
                    }
                    (Open::Array, _) => return Err(self.syntax("',' or ']'")),
                    (Open::Object(_), Some(b',')) => {
                        self.at += 1;
                        self.blanks();
                        self.key("a string as key")?;
                    }
                    (Open::Object(start), Some(b'}')) => {
                        self.unique(start)?;
                        self.close();
                        continue;
                    }
                    (Open::Object(_), _) => return Err(self.syntax("',' or '}'")),
                }
                break;
            }
        }
    }

    fn end(&mut self) -> Result<(), JsonError> {
        let end = self.at;
        self.blanks();
        if self.at < self.bytes.len() {
            return Err(JsonError::Trailing { found: self.found(), at: self.position(end) });
        }
        Ok(())
    }

    /// Reads a value. Of an array or object that is not empty only the bracket and the first key; then it says that a value follows.
    fn value(&mut self) -> Result<bool, JsonError> {
        self.blanks();
        self.read += 1;
        if self.read > self.values {
            return Err(JsonError::Values { limit: self.values, at: self.position(self.at) });
        }
        match self.peek() {
            Some(b'[') => {
                self.push(Open::Array)?;
                self.blanks();
                if self.peek() != Some(b']') {
                    return Ok(true);
                }
                self.close();
            }
            Some(b'{') => {
                let start = u32::try_from(self.keys.len()).expect("a document of under 4 GiB has fewer keys");
                self.push(Open::Object(start))?;
                self.blanks();
                if self.peek() != Some(b'}') {
                    self.key("a string as key, or '}'")?;
                    return Ok(true);
                }
                self.close();
            }
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            _ => return Err(self.syntax("a value")),
        }
        Ok(false)
    }

    fn push(&mut self, open: Open) -> Result<(), JsonError> {
        if self.open.len() >= self.depth {
            return Err(JsonError::Depth { limit: self.depth, at: self.position(self.at) });
        }
        self.open.push(open);
        self.at += 1;
        Ok(())
    }

    /// Takes the closing bracket.
    fn close(&mut self) {
        self.at += 1;
        if let Some(Open::Object(start)) = self.open.pop() {
            self.keys.truncate(start as usize);
        }
    }

    /// Reads a key and its colon.
    fn key(&mut self, expected: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax(expected));
        }
        let start = self.at;
        self.string()?;
        unescape(&self.bytes[start + 1..self.at - 1], &mut self.scratch);
        let digest = self.hasher.hash_one(self.scratch.as_slice());
        self.keys.push(digest & !u64::from(u32::MAX) | start as u64);
        self.blanks();
        if self.peek() != Some(b':') {
            return Err(self.syntax("':'"));
        }
        self.at += 1;
        Ok(())
    }

    /// Checks that the keys from `start` on are all different. The first that is not is named, whatever the digests are.
    fn unique(&mut self, start: u32) -> Result<(), JsonError> {
        let bytes = self.bytes;
        let key_at = |key: &u64| (key & u64::from(u32::MAX)) as usize;
        let text = |key: &u64| {
            let mut text = Vec::new();
            unescape(raw_string(&bytes[key_at(key) + 1..]), &mut text);
            text
        };
        let keys = &mut self.keys[start as usize..];
        keys.sort_unstable();
        let mut first: Option<usize> = None;
        for run in keys.chunk_by(|a, b| a >> 32 == b >> 32).filter(|run| run.len() > 1) {
            // Different keys that collide are rare, as nobody knows the hasher's key; so this is no quadratic search.
            let again = (1..run.len()).find(|&at| run[..at].iter().any(|other| text(other) == text(&run[at])));
            first = first.into_iter().chain(again.map(|at| key_at(&run[at]))).min();
        }
        let Some(at) = first else { return Ok(()) };
        let mut key = Vec::new();
        unescape(raw_string(&bytes[at + 1..]), &mut key);
        let key = String::from_utf8_lossy(&key).chars().take(80).collect();
        Err(JsonError::DuplicateKey { key, at: self.position(at) })
    }

    /// Reads a string, from its quote on.
    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0..0x20) | None => return Err(self.syntax("the end of a string, or its next character")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                let unit = self.hex()?;
                let pair = match unit {
                    0xd800..0xdc00 if self.bytes[self.at..].starts_with(b"\\u") => {
                        self.at += 2;
                        (0xdc00..0xe000).contains(&self.hex()?)
                    }
                    0xd800..0xe000 => false,
                    _ => true,
                };
                if !pair {
                    self.at = start;
                    return Err(self.syntax("a pair of UTF-16 surrogates"));
                }
            }
            _ => return Err(self.syntax("one of \"\\/bfnrtu after a backslash")),
        }
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|c| char::from(c).to_digit(16));
            let Some(digit) = digit else { return Err(self.syntax("four hexadecimal digits")) };
            unit = unit << 4 | digit;
            self.at += 1;
        }
        Ok(unit)
    }

    /// `[ minus ] int [ frac ] [ exp ]`
    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax("a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.syntax("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn position(&self, at: usize) -> Position {
        Position::of(self.bytes, at)
    }

    /// What is at hand, for a message.
    fn found(&self) -> String {
        let rest = std::str::from_utf8(&self.bytes[self.at..]).unwrap_or_default();
        rest.chars().next().map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"))
    }

    fn syntax(&self, expected: &'static str) -> JsonError {
        JsonError::Syntax { expected, found: self.found(), at: self.position(self.at) }
    }
}

/// The inside of a string that has passed the scanner, from a text that starts behind its opening quote.
fn raw_string(text: &[u8]) -> &[u8] {
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        match c {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    &text[..at.min(text.len())]
}

/// Resolves the escapes of a string that has passed the scanner.
fn unescape(raw: &[u8], text: &mut Vec<u8>) {
    text.clear();
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&c| c == b'\\') {
        text.extend_from_slice(&rest[..at]);
        let unit = |from: usize| {
            let digits = rest.get(from..from + 4).unwrap_or_default();
            digits.iter().fold(0, |unit, &c| unit << 4 | char::from(c).to_digit(16).unwrap_or(0))
        };
        let mut taken = 2;
        let c = match rest.get(at + 1) {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                taken = 6;
                let mut code = unit(at + 2);
                if (0xd800..0xdc00).contains(&code) {
                    taken = 12;
                    code = 0x10000 + ((code - 0xd800) << 10) + (unit(at + 8).wrapping_sub(0xdc00) & 0x3ff);
                }
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            Some(&c) => char::from(c),
            None => break,
        };
        text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        rest = rest.get(at + taken..).unwrap_or_default();
    }
    text.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: JsonLimits = JsonLimits { bytes: 8 << 20, depth: 100 };

    #[test]
    fn takes_what_the_rfc_has() {
        for text in [
            "{}",
            "[]",
            " \t\r\n[ ] ",
            "null",
            "true",
            "false",
            "\"\"",
            "0",
            "-0",
            "-0.0e-0",
            "1E+9",
            "123.456",
            "1e999",
            r#"{"a":{"a":[1,2,{"a":null}]},"b":[]}"#,
            r#"{ "a" : 1 , "b" : [ 1 , "x" ] }"#,
            r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0000""#,
            "\"é😀\u{7f}\u{2028}\"",
            r#"{"a":1,"A":2,"":3,"a ":4}"#,
            r#"[{"a":1},{"a":1}]"#,
        ] {
            assert_eq!(check(text.as_bytes(), &LIMITS), Ok(()), "{text}");
            fuzz_json(text.as_bytes());
        }
    }

    #[test]
    fn refuses_the_rest_and_says_where() {
        for (text, clause) in [
            (&b""[..], "found nothing"),
            (b" \n", "found nothing"),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            (b"\xff\xfe{\0}\0", "UTF-16"),
            (b"{\0}\0", "UTF-16"),
            (b"\0{\0}", "UTF-16"),
            (b"[\"a\xff\"]", "byte 0xff at line 1, column 4 (byte 3)"),
            (b"[\"\xed\xa0\x80\"]", "not in UTF-8"),
            (b"{} {}", "ends at line 1, column 3 (byte 2), but '{' follows"),
            (b"{}\0", "but '\\0' follows"),
            (b"nullx", "but 'x' follows"),
            (b"{}]", "but ']' follows"),
            (b"[1,]", "expected a value, found ']'"),
            (b"[1 2]", "expected ',' or ']', found '2'"),
            (b"[", "expected a value, found the end"),
            (b"[1", "found the end"),
            (b"[1}", "found '}'"),
            (b"{]", "found ']'"),
            (b"{a:1}", "expected a string as key, or '}', found 'a'"),
            (b"{\"a\"}", "expected ':'"),
            (b"{\"a\":}", "expected a value"),
            (b"{\"a\":1,}", "expected a string as key, found '}'"),
            (b"{\"a\":1\n\"b\":2}", "line 2, column 1"),
            (b"'a'", "expected a value"),
            (b"tru", "expected a value"),
            (b"NaN", "expected a value"),
            (b"01", "but '1' follows"),
            (b"-", "expected a digit"),
            (b"+1", "expected a value"),
            (b"1.", "expected a digit"),
            (b".5", "expected a value"),
            (b"1e", "expected a digit"),
            (b"1e+", "expected a digit"),
            (b"\"a", "end of a string"),
            (b"\"a\nb\"", "found '\\n'"),
            (b"\"\\x\"", "after a backslash"),
            (b"\"\\", "after a backslash"),
            (b"\"\\u12g4\"", "four hexadecimal digits"),
            (b"\"\\ud800\"", "surrogates"),
            (b"\"\\ud800\\u0041\"", "surrogates"),
            (b"\"\\udc00\"", "surrogates"),
            (b"{\"a\":1,\"b\":2,\"a\":3}", "the key \"a\" twice in one object, again at line 1, column 14 (byte 13)"),
            (b"{\"a\":1,\"\\u0061\":3}", "the key \"a\" twice"),
            (b"{\"\xf0\x9f\x98\x80\":1,\"\\ud83d\\ude00\":3}", "twice"),
            (b"[{\"x\":{\"\":1,\"\":1}}]", "the key \"\" twice"),
            (b"{\"b\":1,\"a\":{\"a\":1},\"b\":2,\"a\":1}", "the key \"b\" twice"),
            (b"/**/{}", "expected a value"),
        ] {
            let error = check(text, &LIMITS).expect_err(&String::from_utf8_lossy(text)).to_string();
            assert!(error.contains(clause), "{:?}: {error}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn depth_and_size_are_limits() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(nested(100).as_bytes(), &LIMITS), Ok(()));
        fuzz_json(nested(100).as_bytes());
        let deep = check(nested(101).as_bytes(), &LIMITS).unwrap_err();
        assert_eq!(deep, JsonError::Depth { limit: 100, at: Position { byte: 100, line: 1, column: 101 } });
        let objects = format!("{}1{}", "{\"x\":".repeat(1 << 20), "}".repeat(1 << 20));
        assert!(matches!(check(objects.as_bytes(), &LIMITS), Err(JsonError::Depth { .. })));
        assert_eq!(check_unbounded(objects.as_bytes()), Ok(()));
        assert_eq!(check(b"[1]", &JsonLimits { bytes: 2, depth: 1 }), Err(JsonError::Size { limit: 2, found: 3 }));
        assert_eq!(Error::from(deep).kind(), crate::ErrorKind::Limit);
    }

    #[test]
    fn a_million_keys_take_no_quadratic_time() {
        let mut text: String = (0..600_000).fold("{".to_owned(), |text, at| text + &format!("\"{at:x}\":0,"));
        text.push_str("\"last\":0}");
        assert_eq!(check_unbounded(text.as_bytes()), Ok(()));
        assert!(matches!(check(text.as_bytes(), &LIMITS), Err(JsonError::Values { limit: VALUES, .. })));
        let again = text.replace("\"last\"", "\"7\"");
        assert!(matches!(check_unbounded(again.as_bytes()), Err(JsonError::DuplicateKey { key, .. }) if key == "7"));
        let same = format!("{{{}\"a\":0}}", "\"a\":0,".repeat(1_000_000));
        assert!(matches!(check_unbounded(same.as_bytes()), Err(JsonError::DuplicateKey { at, .. }) if at.byte == 7));
    }

    #[test]
    fn unescapes_as_serde_json_does() {
        for text in [r#""a\u00e9\ud83d\ude00\n\/\\\"z""#, r#""\u0000""#, r#""""#] {
            let mut ours = Vec::new();
            unescape(raw_string(&text.as_bytes()[1..]), &mut ours);
            assert_eq!(String::from_utf8(ours).unwrap(), serde_json::from_str::<String>(text).unwrap());
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"\\u0-9a-f.eE+\-tn \n]{0,24}"#) {
            fuzz_json(text.as_bytes());
            if check(text.as_bytes(), &LIMITS).is_ok() != serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                let error = check(text.as_bytes(), &LIMITS);
                prop_assert!(matches!(error, Ok(()) | Err(JsonError::DuplicateKey { .. })), "{:?}: {:?}", text, error);
            }
        }

        #[test]
        fn any_bytes_go_in(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            fuzz_json(&data);
        }
    }
}

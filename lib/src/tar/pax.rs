//! PAX extended headers: a payload of records `LENGTH KEY=VALUE\n`, where LENGTH is decimal and counts the whole record.
//!
//! POSIX.1-2017 pax, "pax Extended Header": the last record of a key counts, and one with an empty value takes back what came before, so that
//! the field of the ordinary header counts again.

use super::{Record, TarError, Time, escape_bytes};

/// The keys whose values are names: a NUL in them would end them for some readers only.
const NAMES: [(&str, &str); 5] =
    [("path", "path"), ("linkpath", "link"), ("uname", "user name"), ("gname", "group name"), ("GNU.sparse.name", "path")];

/// The keys that, in a global header, would change where every following entry lies or what its payload is.
const NEVER_GLOBAL: [&[u8]; 3] = [b"path", b"linkpath", b"size"];

/// Splits the payload of an extended header into at most `limit` records.
pub(super) fn records(payload: &[u8], limit: usize) -> Result<Vec<Record>, TarError> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let (record, length) = record(&payload[at..]).map_err(|problem| TarError::Record { at, problem })?;
        if let Some((_, field)) = NAMES.iter().find(|(key, _)| key.as_bytes() == record.0)
            && record.1.contains(&0)
        {
            return Err(TarError::Nul { field });
        }
        if records.len() == limit {
            return Err(TarError::Limit { what: "number of records in a PAX header", found: limit as u64 + 1, limit: limit as u64 });
        }
        records.push(record);
        at += length;
    }
    Ok(records)
}

/// Reads the first record of `rest`, and says how long it is.
fn record(rest: &[u8]) -> Result<(Record, usize), &'static str> {
    // No header is so long that its length has more digits.
    let space = rest.iter().take(20).position(|&b| b == b' ').ok_or("has no space after its length, expected one")?;
    let length = decimal(&rest[..space]).ok_or("has a length that is no decimal number")?;
    let length = usize::try_from(length).ok().filter(|&l| l <= rest.len()).ok_or("is longer than the rest of the header")?;
    if length <= space + 1 {
        return Err("has a length that ends within itself");
    }
    let Some((b'\n', body)) = rest[space + 1..length].split_last() else {
        return Err("does not end in a newline where its length says");
    };
    let equals = body.iter().position(|&b| b == b'=').ok_or("has no `=`, expected one after its key")?;
    let key = &body[..equals];
    if key.is_empty() || key.contains(&0) {
        return Err("has a key that is empty or contains a NUL byte");
    }
    Ok(((key.to_vec(), body[equals + 1..].to_vec()), length))
}

/// Refuses in a global header what would change the meaning of an archive: Go gives global records no effect, GNU tar does.
pub(super) fn check_global(records: &[Record]) -> Result<(), TarError> {
    match records.iter().find(|(key, _)| NEVER_GLOBAL.contains(&key.as_slice()) || key.starts_with(b"GNU.sparse.")) {
        Some((key, _)) => Err(TarError::Global { key: escape_bytes(key) }),
        None => Ok(()),
    }
}

/// The value of `key` that counts: the last one, unless it is empty.
pub(super) fn value<'a>(records: &'a [Record], key: &str) -> Option<&'a [u8]> {
    let (_, value) = records.iter().rev().find(|(k, _)| k == key.as_bytes())?;
    Some(value.as_slice()).filter(|v| !v.is_empty())
}

/// The number that counts for `key`, up to 63 bits.
pub(super) fn number(records: &[Record], key: &'static str) -> Result<Option<u64>, TarError> {
    let Some(text) = value(records, key) else { return Ok(None) };
    let bad = || TarError::Number { field: key, found: escape_bytes(text), expected: "a decimal number of 63 bits" };
    decimal(text).filter(|&n| i64::try_from(n).is_ok()).map(Some).ok_or_else(bad)
}

/// The time that counts for `key`: `[-]SECONDS[.FRACTION]`. What is finer than a nanosecond is cut off, as Go does.
pub(super) fn time(records: &[Record], key: &'static str) -> Result<Option<Time>, TarError> {
    let Some(text) = value(records, key) else { return Ok(None) };
    let bad = || TarError::Number { field: key, found: escape_bytes(text), expected: "seconds with an optional fraction" };
    parse_time(text).map(Some).ok_or_else(bad)
}

fn parse_time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &text[text.len()..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = fraction.iter().chain(std::iter::repeat(&b'0')).take(9).fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    let whole = i128::from(decimal(whole)?);
    let (secs, nanos) = match (negative, nanos) {
        (false, nanos) => (whole, nanos),
        (true, 0) => (-whole, 0),
        (true, nanos) => (-whole - 1, 1_000_000_000 - nanos),
    };
    Some(Time { secs: i64::try_from(secs).ok()?, nanos })
}

/// Reads decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digit = |value: u64, byte: &u8| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    text.iter().try_fold(0, digit).filter(|_| !text.is_empty())
}

/// Writes a record in front of which its own length stands.
pub(super) fn write_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Space, equals sign, newline.
    let body = key.len() + value.len() + 3;
    let length = body + body.to_string().len();
    // Counting its own digits may have added one.
    let length = body + length.to_string().len();
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Writes a time as the shortest decimal number that [`time`] reads as the same.
pub(super) fn write_time(time: Time) -> String {
    if time.nanos == 0 {
        return time.secs.to_string();
    }
    let total = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    format!("{sign}{whole}.{fraction:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(payload: &[u8]) -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        records(payload, 100).unwrap().into_iter().map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn splits_records() {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
        assert_eq!(pairs(b""), []);
        assert_eq!(pairs(b"9 path=a\n6 a=b\n"), owned(&[("path", "a"), ("a", "b")]));
        assert_eq!(pairs(b"5 a=\n"), owned(&[("a", "")]));
        assert_eq!(pairs(b"011 k=v=\nw\n"), owned(&[("k", "v=\nw")]));
    }

    #[test]
    fn refuses_malformed_records() {
        let cases: &[(&[u8], &str)] = &[
            (b"0 a=b\n", "has a length that ends within itself"),
            (b"2 a=b\n", "has a length that ends within itself"),
            (b"5 a=b\n", "does not end in a newline where its length says"),
            (b"7 a=b\n", "is longer than the rest of the header"),
            (b"99999999999999999999 a=b\n", "has no space after its length, expected one"),
            (b"9999999999999999999 a=b\n", "is longer than the rest of the header"),
            (b"-6 a=b\n", "has a length that is no decimal number"),
            (b" a=b\n", "has a length that is no decimal number"),
            (b"6a=b\n", "has no space after its length, expected one"),
            (b"6 aab\n", "has no `=`, expected one after its key"),
            (b"5 =b\n", "has a key that is empty or contains a NUL byte"),
            (b"6 \0=b\n", "has a key that is empty or contains a NUL byte"),
            (b"\0\0\0\0", "has no space after its length, expected one"),
        ];
        for (payload, problem) in cases {
            assert_eq!(records(payload, 9), Err(TarError::Record { at: 0, problem }), "{}", escape_bytes(payload));
        }
        assert_eq!(records(b"6 a=b\n6 a=b", 9), Err(TarError::Record { at: 6, problem: "is longer than the rest of the header" }));
        assert_eq!(
            records(b"11 path=a\0b\n", 9),
            Err(TarError::Record { at: 0, problem: "does not end in a newline where its length says" })
        );
        assert_eq!(records(b"12 path=a\0b\n", 9), Err(TarError::Nul { field: "path" }));
        assert!(records(b"12 note=a\0b\n", 9).is_ok());
        assert!(matches!(records(b"6 a=b\n6 a=b\n", 1), Err(TarError::Limit { found: 2, limit: 1, .. })));
    }

    #[test]
    fn last_value_counts_and_an_empty_one_takes_back() {
        let list = records(b"9 size=1\n9 size=2\n9 path=a\n8 path=\n", 9).unwrap();
        assert_eq!(number(&list, "size"), Ok(Some(2)));
        assert_eq!(value(&list, "path"), None);
        assert_eq!(value(&list, "linkpath"), None);
    }

    #[test]
    fn reads_and_writes_times() {
        let cases: &[(&str, Option<(i64, u32)>)] = &[
            ("0", Some((0, 0))),
            ("1700000000.123456789", Some((1_700_000_000, 123_456_789))),
            ("1.5", Some((1, 500_000_000))),
            ("1.", Some((1, 0))),
            ("1.0000000009", Some((1, 0))),
            ("-1", Some((-1, 0))),
            ("-0.5", Some((-1, 500_000_000))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-9223372036854775808", Some((i64::MIN, 0))),
            ("-9223372036854775808.5", None),
            ("9223372036854775808", None),
            ("", None),
            (".5", None),
            ("1e5", None),
            ("1.-5", None),
            ("--1", None),
            ("+1", None),
            ("nan", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_time(text.as_bytes()), expected.map(|(secs, nanos)| Time { secs, nanos }), "{text}");
        }
        for (secs, nanos) in
            [(0, 0), (0, 1), (-1, 999_999_999), (-1, 500_000_000), (-7, 1), (12, 340_000_000), (i64::MIN, 1), (i64::MAX, 999_999_999)]
        {
            let time = Time { secs, nanos };
            assert_eq!(parse_time(write_time(time).as_bytes()), Some(time), "{}", write_time(time));
        }
        assert_eq!(write_time(Time { secs: -1, nanos: 500_000_000 }), "-0.5");
    }

    #[test]
    fn written_lengths_count_themselves() {
        for size in (0..200).chain(980..1020).chain(9_980..10_020) {
            let mut out = Vec::new();
            write_record(&mut out, b"k", &vec![b'v'; size]);
            assert_eq!(records(&out, 1).unwrap(), [(b"k".to_vec(), vec![b'v'; size])], "{size}");
        }
    }
}

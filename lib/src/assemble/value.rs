//! Values as people write them on a command line: files for values, stamps, words, pairs, times and ports.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::spec::config::parse_time;
use crate::spec::{Json, SpecError};
use crate::transport::read_small;

/// The time of what has no time of its own.
pub const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// Numbers above this are milliseconds, as in rules_docker: as seconds they would be after the year 5138.
const MOST_SECONDS: i64 = 100_000_000_000;

/// What stands for `{KEY}` in values, as Bazel's stamps have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamps(BTreeMap<String, String>);

impl Stamps {
    /// Reads a file with lines of `KEY value` (Bazel's `volatile-status.txt`); what comes later wins.
    ///
    /// # Errors
    /// When it cannot be read, is not text, or is larger than a config may be.
    pub fn read(&mut self, path: &Path, ctx: &Context) -> Result<()> {
        self.add(&text_of(path, ctx)?);
        Ok(())
    }

    /// Takes lines of `KEY value`.
    pub fn add(&mut self, lines: &str) {
        for line in lines.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            if !key.is_empty() {
                self.0.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    /// A text with every `{KEY}` that is known replaced, once; others stay.
    pub fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let found = after.split_once('}').and_then(|(key, after)| Some((self.0.get(key)?, after)));
            rest = match found {
                Some((value, after)) => {
                    out.push_str(value);
                    after
                }
                None => {
                    out.push('{');
                    after
                }
            };
        }
        out + rest
    }

    /// What a value of a flag means: `@FILE` is what the file holds, `@@text` is `@text`, and then stamps are applied.
    ///
    /// # Errors
    /// When the file cannot be read, is not text, or is larger than a config may be.
    pub fn value(&self, text: &str, ctx: &Context) -> Result<String> {
        let text = match text.strip_prefix('@') {
            Some(rest) if rest.starts_with('@') => rest.to_owned(),
            Some(path) => text_of(Path::new(path), ctx)?,
            None => text.to_owned(),
        };
        Ok(self.apply(&text))
    }
}

fn text_of(path: &Path, ctx: &Context) -> Result<String> {
    let bytes = read_small(path, ctx.limits.config, &ctx.cancel)?;
    String::from_utf8(bytes).map_err(|_| Error::invalid("it is not UTF-8 text").frame(path.display()))
}

/// Splits `KEY=VALUE`.
///
/// # Errors
/// When there is no `=`, or nothing before it.
pub fn pair(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::invalid(format_args!("{text} has no key and value")).hint("expected KEY=VALUE")),
    }
}

/// The words of a command: one JSON array of strings, or each its own.
pub fn words(texts: &[String]) -> Vec<String> {
    let array = |text: &str| -> Result<Vec<String>, SpecError> {
        let raw: &serde_json::value::RawValue = serde_json::from_str(text).map_err(SpecError::new)?;
        Json::of(raw).list(Json::string)
    };
    match texts {
        [only] if only.trim_start().starts_with('[') => array(only).unwrap_or_else(|_| vec![only.clone()]),
        several => several.to_vec(),
    }
}

/// A time: as in RFC 3339, or in seconds since 1970, or in milliseconds where the number is too large for that.
///
/// # Errors
/// When it is neither.
pub fn time(text: &str) -> Result<String> {
    let text = text.trim();
    if parse_time(text).is_some() {
        return Ok(text.to_owned());
    }
    let number = text.parse::<i64>().ok();
    let time = number.and_then(|number| match number {
        ..=MOST_SECONDS => jiff::Timestamp::from_second(number).ok(),
        _ => jiff::Timestamp::from_millisecond(number).ok(),
    });
    let found = time
        .ok_or_else(|| Error::invalid(format_args!("{text:?} is no time")).hint("expected 2024-01-02T03:04:05Z, or seconds since 1970"))?;
    Ok(found.to_string())
}

/// A port with its protocol, `80/tcp`; TCP where there is none. Ranges are ports too.
///
/// # Errors
/// When it is no number or range, or of another protocol than tcp, udp or sctp.
pub fn port(text: &str) -> Result<String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let is_port = |text: &str| text.bytes().all(|c| c.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let fine = ports.splitn(2, '-').all(is_port) && ["tcp", "udp", "sctp"].contains(&protocol);
    if fine {
        Ok(format!("{ports}/{protocol}"))
    } else {
        Err(Error::invalid(format_args!("{text} is no port")).hint("expected 80, 80/tcp, 53/udp or 8000-8010/tcp"))
    }
}

/// A text with `$NAME` and `${NAME}` replaced by what `env` has; names that it does not have stay, as in Python's `expandvars`.
pub fn expand(text: &str, env: &HashMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, behind) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        rest = match env.get(name) {
            Some(value) => {
                out.push_str(value);
                behind
            }
            None => {
                out.push('$');
                after
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_replaced_once_and_the_last_value_wins() {
        let mut stamps = Stamps::default();
        stamps.add("A one\nB \nA two words\n\nNO\nC {A}\n");
        for (text, expected) in [
            ("{A}", "two words"),
            ("x{A}y{B}z{NO}", "xtwo wordsyz"),
            ("{C}", "{A}"),
            ("{unknown} {{A}} {A", "{unknown} {two words} {A"),
            ("", ""),
        ] {
            assert_eq!(stamps.apply(text), expected, "{text}");
        }
    }

    #[test]
    fn a_value_may_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = &crate::testing::context(dir.path());
        let path = dir.path().join("value");
        std::fs::write(&path, "{A}\n").unwrap();
        let mut stamps = Stamps::default();
        stamps.add("A 1");
        assert_eq!(stamps.value(&format!("@{}", path.display()), ctx).unwrap(), "1\n");
        assert_eq!(stamps.value("@@x", ctx).unwrap(), "@x");
        assert_eq!(stamps.value("a@x", ctx).unwrap(), "a@x");
        assert!(stamps.value("@/absent", ctx).unwrap_err().to_string().starts_with("/absent: "));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(stamps.read(&path, ctx).unwrap_err().to_string().ends_with("it is not UTF-8 text"));
    }

    #[test]
    fn commands_are_words_or_one_array() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (given, expected) in [
            (&["/bin/sh", "-c", "a b"][..], &["/bin/sh", "-c", "a b"][..]),
            (&[r#"["/bin/sh","-c"]"#], &["/bin/sh", "-c"]),
            (&["[]"], &[]),
            (&["["], &["["]),
            (&["[1]"], &["[1]"]),
            (&["[\"a\"]", "b"], &["[\"a\"]", "b"]),
        ] {
            assert_eq!(words(&strings(given)), strings(expected));
        }
    }

    #[test]
    fn times_are_read_in_three_forms() {
        for (text, expected) in [
            ("2024-01-02T03:04:05+01:00", "2024-01-02T03:04:05+01:00"),
            ("0", NO_TIME),
            (" 1700000000\n", "2023-11-14T22:13:20Z"),
            ("1700000000123", "2023-11-14T22:13:20.123Z"),
            ("100000000000", "5138-11-16T09:46:40Z"),
        ] {
            assert_eq!(time(text).unwrap(), expected);
        }
        for bad in ["", "now", "2024-01-02", "1.5", "99999999999999999999", "9223372036854775807"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_have_a_protocol() {
        for (text, expected) in [("80", "80/tcp"), ("53/udp", "53/udp"), ("8000-8010", "8000-8010/tcp"), ("1/sctp", "1/sctp")] {
            assert_eq!(port(text).unwrap(), expected);
        }
        for bad in ["", "/tcp", "80/", "80/TCP", "http", "65536", "1-", "-1", "1-2-3", "+1"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_are_those_that_are_known() {
        let env = HashMap::from([("PATH".to_owned(), "/bin".to_owned()), ("A".to_owned(), "$PATH".to_owned())]);
        for (text, expected) in [
            ("$PATH:/x", "/bin:/x"),
            ("${PATH}x$PATHx", "/binx$PATHx"),
            ("$A", "$PATH"),
            ("$", "$"),
            ("$$PATH ${", "$/bin ${"),
            ("${no} $no", "${no} $no"),
            ("100%", "100%"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn pairs_have_a_key() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(pair("a=").unwrap(), ("a".to_owned(), String::new()));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}

//! JSON in the style of other programs, for files that must equal theirs byte for byte.
//!
//! Go's `encoding/json` keeps the order of a raw value and escapes what HTML would read; Python's `json.dumps(sort_keys=True)` reads
//! everything and writes it anew: sorted, ASCII only, with a blank after each comma and colon, and floats in their shortest form.

use std::fmt::Write as _;

use super::view::{Json, SpecError};

/// A value as Go writes a `json.RawMessage`: no blanks, and `<`, `>`, `&`, U+2028 and U+2029 escaped.
///
/// [`Compact`](https://github.com/golang/go/blob/go1.22.0/src/encoding/json/indent.go#L44) leaves all other text as it is.
pub fn go(json: Json<'_>) -> String {
    let mut out = String::with_capacity(json.text().len());
    let (mut inside, mut escaped) = (false, false);
    for c in json.text().chars() {
        match c {
            ' ' | '\t' | '\n' | '\r' if !inside => {}
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything"),
            _ => out.push(c),
        }
        inside ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    out
}

/// A string as Go writes it: of the control characters, tab, line feed and carriage return have short escapes, like backspace and form feed
/// since Go 1.22.
pub fn go_string(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    go(Json::text_of(&quoted))
}

/// A value as Python's `json.dumps(json.loads(text), sort_keys=True)` writes it.
///
/// # Errors
/// When a number is too large for Python's float, which `json.dumps` would write as `Infinity`.
pub fn python(json: Json<'_>) -> Result<String, SpecError> {
    let mut out = String::with_capacity(json.text().len() * 2);
    write_python(&mut out, json)?;
    Ok(out)
}

/// A string as Python's `json.dumps` writes it: everything but ASCII escaped, in UTF-16.
pub fn python_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_python_string(&mut out, text);
    out
}

fn write_python(out: &mut String, json: Json<'_>) -> Result<(), SpecError> {
    match json.text().as_bytes().first() {
        Some(b'{') => {
            let fields = json.object()?;
            let mut fields: Vec<_> = fields.iter().collect();
            // By code point, which is the order of UTF-8.
            fields.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (at, (key, value)) in fields.into_iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                push_python_string(out, key);
                out.push_str(": ");
                write_python(out, value)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            out.push('[');
            for (at, item) in json.array()?.into_iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_python(out, item)?;
            }
            out.push(']');
        }
        Some(b'"') => push_python_string(out, &json.string()?),
        Some(b'-' | b'0'..=b'9') => out.push_str(&python_number(json.text())?),
        _ => out.push_str(json.text()),
    }
    Ok(())
}

fn push_python_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| write!(out, "\\u{unit:04x}").expect("a String takes everything")),
        }
    }
    out.push('"');
}

/// An integer of any length as it is; anything else as `float.__repr__` has it: the fewest digits that mean the same number, with an
/// exponent below 1e-4 and from 1e16 on.
fn python_number(text: &str) -> Result<String, SpecError> {
    if !text.contains(['.', 'e', 'E']) {
        return Ok(if text == "-0" { "0" } else { text }.to_owned());
    }
    let value: f64 = text.parse().map_err(SpecError::new)?;
    if !value.is_finite() {
        return Err(SpecError::expected("a number up to 1.8e308", text));
    }
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').ok_or_else(|| SpecError::new("a float without an exponent"))?;
    let exponent: i32 = exponent.parse().map_err(SpecError::new)?;
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return Ok(if plain.contains('.') { plain } else { plain + ".0" });
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    Ok(format!("{mantissa}e{sign}{:02}", exponent.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_keeps_order_and_escapes_for_html() {
        let text = "{ \"b\" : [1.50, \"<a & b>\\\"\\\\\" ] ,\n\t\"a\":\"é\u{2028}\\u00e9\" }";
        assert_eq!(go(Json::text_of(text)), "{\"b\":[1.50,\"\\u003ca \\u0026 b\\u003e\\\"\\\\\"],\"a\":\"é\\u2028\\u00e9\"}");
        assert_eq!(go_string("a\"<\n\u{1}\u{7f}é"), "\"a\\\"\\u003c\\n\\u0001\u{7f}é\"");
    }

    /// Each right side is what Python 3.11 printed.
    #[test]
    fn python_sorts_and_writes_numbers_and_strings_anew() {
        for (text, dumped) in [
            (r#"{"b":1,"a":{"é":null,"z":[true,false]},"A":""}"#, r#"{"A": "", "a": {"z": [true, false], "\u00e9": null}, "b": 1}"#),
            (r#"["ü\u00fc😀\u001f\b\f\n\r\t\/\\\"\u007f"]"#, "[\"\\u00fc\\u00fc\\ud83d\\ude00\\u001f\\b\\f\\n\\r\\t/\\\\\\\"\\u007f\"]"),
            ("[1.0,2.5,-0,-0.0,1e3,1E-5,0.0001,123456789012345678]", "[1.0, 2.5, 0, -0.0, 1000.0, 1e-05, 0.0001, 123456789012345678]"),
            (
                "[1e15,1e16,1.5e300,123456789012345678901234567890,1e22,5e-324]",
                "[1000000000000000.0, 1e+16, 1.5e+300, 123456789012345678901234567890, 1e+22, 5e-324]",
            ),
            ("[0.1,1.10,100.000,3.141592653589793238,1e-7]", "[0.1, 1.1, 100.0, 3.141592653589793, 1e-07]"),
            ("[]", "[]"),
            ("{}", "{}"),
        ] {
            assert_eq!(python(Json::text_of(text)).unwrap(), dumped);
        }
        assert!(python(Json::text_of("[1e999]")).is_err());
        assert_eq!(python_string("a/ü"), r#""a/\u00fc""#);
    }
}

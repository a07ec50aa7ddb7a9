//! Base64 of RFC 4648, decoded where it stands: a line of tar-split may have many MiB, and is in memory once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Letters that are decoded at once.
const PIECE: usize = 4096;

/// How many bytes a text stands for. Its letters are not looked at.
pub(super) fn decoded_len(text: &[u8]) -> Option<usize> {
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    text.len().is_multiple_of(4).then(|| text.len() / 4 * 3 - padding)
}

/// Decodes a text into its own beginning, and says how many bytes it stands for. `None` when it is not base64.
pub(super) fn decode_in_place(text: &mut [u8]) -> Option<usize> {
    let len = decoded_len(text)?;
    let mut bytes = [0; PIECE / 4 * 3];
    let mut at = 0;
    for start in (0..text.len()).step_by(PIECE) {
        let end = text.len().min(start + PIECE);
        let count = STANDARD.decode_slice(&text[start..end], &mut bytes).ok()?;
        text[at..at + count].copy_from_slice(&bytes[..count]);
        at += count;
    }
    // Padding is for the end.
    (at == len).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Option<Vec<u8>> {
        let mut bytes = text.as_bytes().to_vec();
        let len = decode_in_place(&mut bytes)?;
        bytes.truncate(len);
        Some(bytes)
    }

    #[test]
    fn the_test_vectors_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("\u{3ff}>?", "z78+Pw=="),
        ] {
            assert_eq!(STANDARD.encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
            assert_eq!(decoded_len(text.as_bytes()), Some(bytes.len()));
        }
        let all: Vec<u8> = (0..=255).cycle().take(PIECE * 3 + 1).collect();
        assert_eq!(decode(&STANDARD.encode(&all)), Some(all));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Zm9v\n", "Zm-_", "Z===", "====", "Zg==Zm9v", "Zm9\u{e9}", "=m9v"] {
            assert_eq!(decode(text), None, "{text}");
        }
        // Padding where a piece ends, and another follows.
        let text = format!("{}Zg=={}", "A".repeat(PIECE - 4), "AAAA".repeat(5));
        assert_eq!(decode(&text), None);
    }
}

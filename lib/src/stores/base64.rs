//! Base64 of RFC 4648, as Go's `StdEncoding` has it: the alphabet with `+` and `/`, and padding.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Marks a byte that is not in the alphabet.
const NONE: u8 = 0xff;

const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut at = 0;
    while at < 64 {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
};

/// How many bytes a text stands for. Its letters are not looked at.
pub(super) fn decoded_len(text: &[u8]) -> Option<usize> {
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    text.len().is_multiple_of(4).then(|| text.len() / 4 * 3 - padding)
}

/// Decodes a text into its own beginning, and says how many bytes it stands for. `None` when it is not base64.
pub(super) fn decode_in_place(text: &mut [u8]) -> Option<usize> {
    let len = decoded_len(text)?;
    let whole = len / 3;
    let mut wrong = 0;
    for group in 0..whole {
        let [a, b, c, d] = *text[group * 4..].first_chunk::<4>()?;
        let values = [a, b, c, d].map(|letter| VALUES[usize::from(letter)]);
        wrong |= values[0] | values[1] | values[2] | values[3];
        let word = values.iter().fold(0_u32, |word, value| word << 6 | u32::from(value & 0x3f));
        let [_, x, y, z] = word.to_be_bytes();
        text[group * 3..group * 3 + 3].copy_from_slice(&[x, y, z]);
    }
    let rest = len % 3;
    if rest > 0 {
        let [a, b, c, _] = *text[whole * 4..].first_chunk::<4>()?;
        let values = [a, b, if rest == 2 { c } else { b'A' }].map(|letter| VALUES[usize::from(letter)]);
        wrong |= values[0] | values[1] | values[2];
        let word = values.iter().fold(0_u32, |word, value| word << 6 | u32::from(value & 0x3f)) << 6;
        let bytes = word.to_be_bytes();
        text[whole * 3..len].copy_from_slice(&bytes[1..=rest]);
    }
    // Only NONE has a bit above the six of a value.
    (wrong & 0xc0 == 0).then_some(len)
}

/// Encodes bytes.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let value = (word >> (18 - 6 * at)) & 0x3f;
            text.push(if at <= group.len() { char::from(ALPHABET[value as usize]) } else { '=' });
        }
    }
    text
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
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
            assert_eq!(decoded_len(text.as_bytes()), Some(bytes.len()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Zm9v\n", "Zm-_", "Z===", "====", "Zg==Zm9v", "Zm9\u{e9}", "=m9v"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}

//! Which compression a stream has, from its first bytes alone.
//!
//! Names and media types lie: engines look at the bytes (moby `archive.DetectCompression`, containers/image `compression.DetectCompression`),
//! and so does this. Kinds that no engine reads are named, so that an error can name them, instead of being taken for a broken tar.

use std::fmt;
use std::str::FromStr;

use super::CompressError;

/// How a stream of bytes is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, [RFC 1952](https://www.rfc-editor.org/rfc/rfc1952).
    Gzip,
    /// Zstandard, [RFC 8878](https://www.rfc-editor.org/rfc/rfc8878).
    Zstd,
    /// The [.xz file format](https://tukaani.org/xz/xz-file-format.txt).
    Xz,
    /// [bzip2](https://sourceware.org/bzip2/).
    Bzip2,
}

/// How many first bytes [`sniff`] wants; more change nothing, fewer do when the stream is longer than that.
pub const SNIFF: usize = 13;

/// The first bytes of kinds that are recognised in order to be refused.
const UNKNOWN: &[(&[u8], &str)] = &[
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    (&[0x02, 0x21, 0x4c, 0x18], "legacy lz4"),
    (&[0x1f, 0x9d], "compress (.Z)"),
    (&[0x1f, 0x1e], "pack (.z)"),
    (&[0x1f, 0xa0], "compress -H (.z)"),
    (b"LZIP\x01", "lzip"),
    (b"LRZI\x00", "lrzip"),
    (&[0x89, b'L', b'Z', b'O', 0x00, 0x0d, 0x0a, 0x1a, 0x0a], "lzop"),
    (&[b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c], "7-Zip"),
    (b"PK\x03\x04", "zip"),
    (&[0xff, 0x06, 0x00, 0x00, b's', b'N', b'a', b'P', b'p', b'Y'], "snappy"),
    (&[0x1e, 0xb5, 0x2f, 0xfd], "zstd before 0.8"),
    (&[0x22, 0xb5, 0x2f, 0xfd], "zstd before 0.8"),
    (&[0x23, 0xb5, 0x2f, 0xfd], "zstd before 0.8"),
    (&[0x24, 0xb5, 0x2f, 0xfd], "zstd before 0.8"),
    (&[0x25, 0xb5, 0x2f, 0xfd], "zstd before 0.8"),
    (&[0x26, 0xb5, 0x2f, 0xfd], "zstd before 0.8"),
    (&[0x27, 0xb5, 0x2f, 0xfd], "zstd before 0.8"),
];

/// Says how a stream that starts with `head` is compressed: [`SNIFF`] bytes of it, or all when it is shorter.
///
/// Bytes that start no compression known here are [`Compression::None`]. A skippable frame counts as zstd, as it does for the engines,
/// although lz4 has the same ones.
pub fn sniff(head: &[u8]) -> Result<Compression, CompressError> {
    let compression = match head {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Compression::Xz,
        // A block starts with the digits of pi, the end of a stream with those of its square root.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Compression::Bzip2,
        _ if is_lzma_alone(head) => return Err(CompressError::Unknown { kind: "lzma" }),
        _ => match UNKNOWN.iter().find(|(magic, _)| head.starts_with(magic)) {
            Some(&(_, kind)) => return Err(CompressError::Unknown { kind }),
            None => Compression::None,
        },
    };
    Ok(compression)
}

/// Whether `head` is the header of the legacy .lzma format, which has no magic: properties, dictionary size, uncompressed size. Taken as
/// one only with the default properties and sizes that xz itself would accept; a tar whose first member is called `]` is none.
fn is_lzma_alone(head: &[u8]) -> bool {
    let [0x5d, d0, d1, d2, d3, s0, s1, s2, s3, s4, s5, s6, s7, ..] = *head else { return false };
    let dictionary = u32::from_le_bytes([d0, d1, d2, d3]);
    let size = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let leading = dictionary.checked_ilog2().map_or(0, |bits| dictionary >> bits.saturating_sub(1) << bits.saturating_sub(1));
    dictionary >= 4096 && dictionary == leading && (size == u64::MAX || size < 1 << 38)
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        })
    }
}

impl FromStr for Compression {
    type Err = CompressError;

    fn from_str(name: &str) -> Result<Self, CompressError> {
        match name {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "xz" => Ok(Self::Xz),
            "bzip2" => Ok(Self::Bzip2),
            _ => Err(CompressError::Name(name.to_owned(), "none, gzip, zstd, xz or bzip2")),
        }
    }
}

/// Sniffs `data` for a fuzzer: no panic, and nothing after [`SNIFF`] bytes matters.
pub fn fuzz_sniff(data: &[u8]) {
    let head = &data[..data.len().min(SNIFF)];
    assert_eq!(sniff(data), sniff(head), "bytes after the first {SNIFF} matter");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_each_kind_by_its_first_bytes() {
        let table: &[(&[u8], Compression)] = &[
            (b"", Compression::None),
            (b"\x1f\x8b", Compression::None),
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"\x1f\x8b\x07\x00", Compression::None),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x50\x2a\x4d\x18\x00", Compression::Zstd),
            (b"\x5f\x2a\x4d\x18\x00", Compression::Zstd),
            (b"\x60\x2a\x4d\x18\x00", Compression::None),
            (b"\xfd7zXZ\x00", Compression::Xz),
            (b"\xfd7zXZ\x01", Compression::None),
            (b"BZh91AY&SY", Compression::Bzip2),
            (b"BZh1\x17\x72\x45\x38\x50\x90", Compression::Bzip2),
            (b"BZh01AY&SY", Compression::None),
            (b"BZh9-notes.txt", Compression::None),
            (b"]\0\0\0\0\0\0\0\0\0\0\0\0", Compression::None),
            (b"etc/passwd\0\0\0", Compression::None),
        ];
        for (head, expected) in table {
            assert_eq!(sniff(head), Ok(*expected), "{head:x?}");
        }
    }

    #[test]
    fn names_kinds_that_cannot_be_read() {
        let table: &[(&[u8], &str)] = &[
            (b"\x04\x22\x4d\x18\x64", "lz4"),
            (b"\x1f\x9d\x90", "compress (.Z)"),
            (b"LZIP\x01\x0c", "lzip"),
            (b"]\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff", "lzma"),
            (b"]\x00\x00\x60\x00\x10\x00\x00\x00\x00\x00\x00\x00", "lzma"),
            (b"\x25\xb5\x2f\xfd", "zstd before 0.8"),
            (b"PK\x03\x04", "zip"),
        ];
        for (head, kind) in table {
            assert_eq!(sniff(head), Err(CompressError::Unknown { kind }), "{head:x?}");
        }
        let text = crate::Error::from(sniff(b"\x04\x22\x4d\x18").unwrap_err()).to_string();
        assert_eq!(text, "compressed with lz4, which cannot be read; gzip, zstd, xz and bzip2 can");
    }

    #[test]
    fn what_is_shown_is_parsed() {
        for kind in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("GZIP".parse::<Compression>().is_err());
    }
}

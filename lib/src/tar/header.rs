//! One header block: where its fields lie, how its numbers are read, which of the four layouts it has.
//!
//! ```text
//!   0 name 100   100 mode 8   108 uid 8   116 gid 8   124 size 12   136 mtime 12   148 checksum 8   156 type 1   157 link 100      (v7)
//! 257 magic 6    263 version 2   265 user 32   297 group 32   329 major 8   337 minor 8                         (ustar, star, GNU)
//! 345 prefix 155                                                                                                (ustar)
//! 345 prefix 131   476 atime 12   488 ctime 12   508 "tar\0"                                                    (star)
//! 345 atime 12   357 ctime 12   386 four sparse entries 24 each   482 extended 1   483 real size 12             (GNU)
//! ```

use std::ops::Range;

use super::{BLOCK, TarError, escape_bytes};

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Range<usize> = 157..257;
/// Magic and version together: every writer sets both.
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const USER: Range<usize> = 265..297;
pub(super) const GROUP: Range<usize> = 297..329;
pub(super) const MAJOR: Range<usize> = 329..337;
pub(super) const MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;
const GNU_ATIME: Range<usize> = 345..357;
const GNU_CTIME: Range<usize> = 357..369;
/// Four pairs of offset and length.
pub(super) const GNU_SPARSE: Range<usize> = 386..482;
/// Not zero when blocks with more pairs follow.
pub(super) const GNU_SPARSE_MORE: usize = 482;
pub(super) const GNU_REAL_SIZE: Range<usize> = 483..495;

pub(super) const MAGIC_USTAR: &[u8; 8] = b"ustar\x0000";
pub(super) const MAGIC_GNU: &[u8; 8] = b"ustar  \0";

/// Which layout the second half of a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// The fields of one header block, before any extended header changes them.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) layout: Layout,
    pub(super) type_byte: u8,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) user: Vec<u8>,
    pub(super) group: Vec<u8>,
    pub(super) device: (u64, u64),
}

impl Fields {
    /// Reads a block that is not all zeros.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, TarError> {
        let stated = octal("header checksum", &block[CHECKSUM])?;
        let (unsigned, signed) = checksums(block);
        if stated != unsigned && i64::try_from(stated) != Ok(signed) {
            return Err(TarError::Checksum { found: stated, expected: unsigned });
        }
        let layout = layout(block);
        let mut path = c_string(&block[NAME]).to_vec();
        let prefix = prefix(block, layout);
        if !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        // Before POSIX the rest of the block held nothing.
        let late = layout != Layout::V7;
        let text = |range: Range<usize>| if late { c_string(&block[range]).to_vec() } else { Vec::new() };
        let device = |field, range: Range<usize>| if late { unsigned_number(field, &block[range]) } else { Ok(0) };
        Ok(Self {
            layout,
            type_byte: block[TYPE],
            path,
            link: c_string(&block[LINK]).to_vec(),
            mode: small(unsigned_number("mode", &block[MODE])?, "mode", &block[MODE])?,
            uid: small(unsigned_number("uid", &block[UID])?, "uid", &block[UID])?.into(),
            gid: small(unsigned_number("gid", &block[GID])?, "gid", &block[GID])?.into(),
            size: unsigned_number("size", &block[SIZE])?,
            mtime: number("mtime", &block[MTIME])?,
            user: text(USER),
            group: text(GROUP),
            device: (device("device major number", MAJOR)?, device("device minor number", MINOR)?),
        })
    }
}

/// The sum over a header with its checksum field taken as spaces: of unsigned bytes as POSIX says, of signed bytes as SunOS summed.
pub(super) fn checksums(block: &[u8; BLOCK]) -> (u64, i64) {
    let bytes = block.iter().enumerate().map(|(at, &byte)| if CHECKSUM.contains(&at) { b' ' } else { byte });
    bytes.fold((0, 0), |(unsigned, signed), byte| (unsigned + u64::from(byte), signed + i64::from(byte.cast_signed())))
}

/// The bytes up to the first NUL, or all of them.
pub(super) fn c_string(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

fn layout(block: &[u8; BLOCK]) -> Layout {
    if &block[MAGIC] == MAGIC_GNU {
        Layout::Gnu
    } else if !block[MAGIC].starts_with(b"ustar\0") {
        Layout::V7
    } else if &block[STAR_TRAILER] == b"tar\0" {
        Layout::Star
    } else {
        Layout::Ustar
    }
}

/// The directory part of a split name.
///
/// GNU headers have times in its place. Go before 1.8 wrote a prefix there nevertheless, for long names of files with large numbers; like Go
/// since, take it for one when it is text that cannot be those times.
fn prefix(block: &[u8; BLOCK], layout: Layout) -> &[u8] {
    match layout {
        Layout::V7 => b"",
        Layout::Ustar => c_string(&block[PREFIX]),
        Layout::Star => c_string(&block[STAR_PREFIX]),
        Layout::Gnu => {
            let is_time = |range: Range<usize>| block[range.start] == 0 || number("time", &block[range]).is_ok();
            let text = c_string(&block[PREFIX]);
            if (is_time(GNU_ATIME) && is_time(GNU_CTIME)) || !text.is_ascii() { b"" } else { text }
        }
    }
}

/// Reads a number, octal or base-256 (a set top bit, then two's complement, big-endian: GNU tar, star).
pub(super) fn number(field: &'static str, bytes: &[u8]) -> Result<i64, TarError> {
    let bad = || TarError::Number { field, found: escape_bytes(bytes), expected: "a number of 63 bits" };
    let Some((&first, rest)) = bytes.split_first().filter(|(first, _)| **first & 0x80 != 0) else {
        return i64::try_from(octal(field, bytes)?).map_err(|_| bad());
    };
    // The sign is the second bit, since the top one marks the encoding.
    let start = if first & 0x40 == 0 { i64::from(first & 0x7f) } else { i64::from(first.cast_signed()) };
    let shifted = |value: i64, byte: &u8| value.checked_mul(256).map(|v| v | i64::from(*byte));
    rest.iter().try_fold(start, shifted).ok_or_else(bad)
}

/// Reads a number that must not be negative.
pub(super) fn unsigned_number(field: &'static str, bytes: &[u8]) -> Result<u64, TarError> {
    let found = number(field, bytes)?;
    u64::try_from(found).map_err(|_| TarError::Number { field, found: found.to_string(), expected: "no negative number" })
}

/// Reads octal digits among leading and trailing spaces and NULs; nothing at all is 0, and what follows a NUL is not looked at.
fn octal(field: &'static str, bytes: &[u8]) -> Result<u64, TarError> {
    let is_blank = |b: &u8| matches!(b, b' ' | 0);
    let start = bytes.iter().position(|b| !is_blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !is_blank(b)).map_or(start, |last| last + 1);
    let digit = |value: u64, byte: &u8| match byte {
        b'0'..=b'7' => value.checked_mul(8).map(|v| v | u64::from(byte - b'0')),
        _ => None,
    };
    let digits = c_string(&bytes[start..end]);
    digits.iter().try_fold(0, digit).ok_or_else(|| TarError::Number { field, found: escape_bytes(bytes), expected: "an octal number" })
}

/// Narrows to the 32 bits that Linux has for modes and ids.
pub(super) fn small(value: u64, field: &'static str, found: &[u8]) -> Result<u32, TarError> {
    u32::try_from(value).map_err(|_| TarError::Number { field, found: escape_bytes(found), expected: "at most 32 bits" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_as_go_does() {
        let good: &[(&[u8], i64)] = &[
            (b"", 0),
            (b"\0\0\0\0", 0),
            (b"        ", 0),
            (b"0000644\0", 0o644),
            (b"   644 \0", 0o644),
            (b"\x00\x00644  ", 0o644),
            (b"644\0junk", 0o644),
            (b"77777777777\0", 0o77777777777),
            (b"777777777777777777777", i64::MAX),
            (b"\x80\0\0\0\0\0\0\x01", 1),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", i64::MIN),
            (b"\xff\xfe", -2),
            (b"\xbf\xff", 0x3fff),
        ];
        for (bytes, expected) in good {
            assert_eq!(number("x", bytes), Ok(*expected), "{}", escape_bytes(bytes));
        }
        let bad: &[&[u8]] = &[
            b"-1",
            b"+1",
            b"8",
            b"12 34",
            b"0x1f",
            b"1777777777777777777777",
            b"7777777777777777777777777",
            b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for bytes in bad {
            assert!(number("x", bytes).is_err(), "{}", escape_bytes(bytes));
        }
        assert_eq!(unsigned_number("size", b"\xff\xff").unwrap_err().to_string(), "size is `-1`, expected no negative number");
        assert_eq!(unsigned_number("size", b"12x").unwrap_err().to_string(), "size is `12x`, expected an octal number");
    }

    fn block(fill: impl FnOnce(&mut [u8; BLOCK])) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..4].copy_from_slice(b"name");
        fill(&mut block);
        let sum = format!("{:06o}\0 ", checksums(&block).0);
        block[CHECKSUM].copy_from_slice(sum.as_bytes());
        block
    }

    #[test]
    fn prefix_counts_in_the_layouts_that_have_one() {
        let path = |magic: &[u8], trailer: &[u8], prefix: &[u8]| {
            let block = block(|b| {
                b[MAGIC][..magic.len()].copy_from_slice(magic);
                b[508..508 + trailer.len()].copy_from_slice(trailer);
                b[PREFIX][..prefix.len()].copy_from_slice(prefix);
            });
            String::from_utf8(Fields::parse(&block).unwrap().path).unwrap()
        };
        assert_eq!(path(b"ustar\x0000", b"", b"dir"), "dir/name");
        assert_eq!(path(b"ustar\0", b"", b"dir"), "dir/name");
        assert_eq!(path(b"", b"", b"dir"), "name");
        assert_eq!(path(b"ustar  \0", b"", b"14544676445\0"), "name");
        assert_eq!(path(b"ustar  \0", b"", b"dir/of/an/old/go"), "dir/of/an/old/go/name");
        assert_eq!(path(b"ustar  \0", b"", b"dir\xff"), "name");
        assert_eq!(path(b"ustar\x0000", b"tar\0", &[b'd'; 140]), format!("{}/name", "d".repeat(131)));
    }

    #[test]
    fn accepts_both_checksums_and_no_other() {
        let mut signed = block(|b| b[NAME].fill(0xe9));
        assert!(Fields::parse(&signed).is_ok());
        let sum = u64::try_from(checksums(&signed).1 + 256 * 100).unwrap();
        let (unsigned, other) = checksums(&signed);
        assert_eq!((sum, i64::try_from(unsigned).unwrap() - other), (unsigned, 25_600));
        // A negative signed sum cannot be written in octal; keep it positive.
        signed = block(|b| b[0] = 0xe9);
        let sum = format!("{:06o}\0 ", checksums(&signed).1);
        signed[CHECKSUM].copy_from_slice(sum.as_bytes());
        assert!(Fields::parse(&signed).is_ok());
        signed[1] ^= 1;
        assert!(matches!(Fields::parse(&signed), Err(TarError::Checksum { .. })));
    }

    #[test]
    fn v7_headers_have_no_later_fields() {
        let junk = block(|b| b[USER.start..].fill(b'?'));
        let fields = Fields::parse(&junk).unwrap();
        assert_eq!((fields.layout, fields.user.len(), fields.device), (Layout::V7, 0, (0, 0)));
    }

    #[test]
    fn ids_and_mode_have_32_bits() {
        let parse = |range: Range<usize>, value: &[u8; 8]| Fields::parse(&block(|b| b[range].copy_from_slice(value)));
        assert_eq!(parse(UID, b"\x80\0\0\0\xff\xff\xff\xff").unwrap().uid, u64::from(u32::MAX));
        assert_eq!(
            parse(UID, b"\x80\0\0\x01\0\0\0\0").unwrap_err().to_string(),
            r"uid is `\x80\x00\x00\x01\x00\x00\x00\x00`, expected at most 32 bits"
        );
        assert!(parse(GID, b"\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(parse(MODE, b"rw-r--r-").is_err());
    }
}

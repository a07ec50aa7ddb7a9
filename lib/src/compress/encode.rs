//! Encoding in blocks: each becomes a stream of its own, and streams one after another are one stream.
//!
//! An encoded layer is the encoded blocks in order, cut every [`Encoding::block_size`] bytes: bytes depend on input, level and version, never
//! on threads. Both formats allow it: "a gzip file consists of a series of members" (RFC 1952, 2.2), "Zstandard compressed data is made up of
//! one or more frames" (RFC 8878, 3.1), and every engine reads them so. What blocks cost in size is in the defaults' documentation.
//!
//! ```text
//! gzip  1f 8b 08 04  0000 0000  00 ff   0008  'L' 'S'  0004  SIZE(4)   deflate   CRC32(4)  ISIZE(4)
//!       FLG=FEXTRA   MTIME=0  XFL OS=?  XLEN     ID     LEN  whole member
//! zstd  a frame with its content's size and checksum
//! ```
//!
//! SIZE lets a reader walk from member to member without inflating, learn the uncompressed size from every ISIZE, and inflate in parallel
//! ([`Members`](super::Members)), as BGZF's `BC` field does; others skip it.

use std::fmt;
use std::io;
use std::str::FromStr;

use libdeflater::{CompressionLvl, Compressor};

use super::{CompressError, Compression};
use crate::error::{Error, Result};

/// The identifier (SI1, SI2) of the extra field that holds the size of a whole gzip member, header and trailer included, as a
/// little-endian 32-bit number.
pub const MEMBER_SIZE_ID: [u8; 2] = *b"LS";

pub(super) const HEADER: usize = 20;
pub(super) const TRAILER: usize = 8;
/// All of a member's header but its size, which takes the last four bytes.
pub(super) const MEMBER_START: [u8; HEADER - 4] =
    [0x1f, 0x8b, 0x08, 0x04, 0, 0, 0, 0, 0, 0xff, 8, 0, MEMBER_SIZE_ID[0], MEMBER_SIZE_ID[1], 4, 0];

/// A level of libdeflate: 1 is fastest, 12 smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GzipLevel(u8);

impl GzipLevel {
    const MIN: u8 = 1;
    const MAX: u8 = 12;

    /// Takes a level from 1 to 12.
    pub fn new(level: u8) -> Result<Self, CompressError> {
        check_level("gzip", level, Self::MIN, Self::MAX).map(Self)
    }
}

/// 1: by far the fastest, and 3% larger than what Go's engines write. Whoever wants less gives a level.
///
/// Measured on 784 MB of layers (Debian and Python files), in MB/s on one core and the size beside that of skopeo 1.9 (pgzip, its default
/// level), members of 1 MiB: level 1: 231, 102.7%; 2: 169, 99.1%; 3: 153, 97.9%; 4: 144, 97.2%; 6: 102, 94.5%; 7: 75, 94.1%. zlib-rs with
/// the last 32 KiB as a dictionary, as pigz does: 1: 277, 125.4%; 4: 105, 98.8%; 6: 78, 97.0%.
impl Default for GzipLevel {
    fn default() -> Self {
        Self(1)
    }
}

/// A level of zstd: 1 is fastest, 19 smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZstdLevel(u8);

impl ZstdLevel {
    const MIN: u8 = 1;
    const MAX: u8 = 19;

    /// Takes a level from 1 to 19. Those above would only bring windows larger than a block.
    pub fn new(level: u8) -> Result<Self, CompressError> {
        check_level("zstd", level, Self::MIN, Self::MAX).map(Self)
    }
}

/// 3, zstd's own default: 306 MB/s on one core and 87.4% of skopeo's gzip, by the measure of [`GzipLevel`]; level 5: 156, 83.9%.
impl Default for ZstdLevel {
    fn default() -> Self {
        Self(3)
    }
}

fn check_level(name: &'static str, level: u8, min: u8, max: u8) -> Result<u8, CompressError> {
    if (min..=max).contains(&level) { Ok(level) } else { Err(CompressError::Level { name, level: level.to_string(), min, max }) }
}

/// How to compress: written `gzip`, `gzip:9`, `zstd` or `zstd:19`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// gzip members, made by libdeflate.
    Gzip(GzipLevel),
    /// Zstandard frames.
    Zstd(ZstdLevel),
}

impl Encoding {
    /// How to compress in the way of bytes that are there, at the default level; none for plain bytes, and for what nothing here writes.
    pub fn like(compression: Compression) -> Option<Self> {
        match compression {
            Compression::Gzip => Some(Self::Gzip(GzipLevel::default())),
            Compression::Zstd => Some(Self::Zstd(ZstdLevel::default())),
            Compression::None | Compression::Xz | Compression::Bzip2 => None,
        }
    }

    /// The compression that its output has.
    pub fn compression(&self) -> Compression {
        match self {
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// How many bytes of input make one block; only the last block may be shorter.
    ///
    /// Some eight blocks are in flight on two threads, which have 64 MiB for everything. Members of 4 MiB would be 0.2% smaller than those
    /// of 1 MiB, and of 256 KiB 0.6% larger.
    pub fn block_size(&self) -> usize {
        match self {
            Self::Gzip(_) => 1 << 20,
            Self::Zstd(_) => 2 << 20,
        }
    }

    /// Makes an encoder; every thread that encodes has its own.
    pub fn encoder(&self) -> BlockEncoder {
        BlockEncoder(match *self {
            Self::Gzip(GzipLevel(level)) => {
                let level = CompressionLvl::new(i32::from(level)).expect("GzipLevel holds levels of libdeflate only");
                Codec::Gzip(Compressor::new(level))
            }
            Self::Zstd(level) => Codec::Zstd(level),
        })
    }
}

/// gzip, since every engine and every registry reads it.
impl Default for Encoding {
    fn default() -> Self {
        Self::Gzip(GzipLevel::default())
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(GzipLevel(level)) => write!(f, "gzip:{level}"),
            Self::Zstd(ZstdLevel(level)) => write!(f, "zstd:{level}"),
        }
    }
}

impl FromStr for Encoding {
    type Err = CompressError;

    fn from_str(text: &str) -> Result<Self, CompressError> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let number = |name, min, max| match level {
            None => Ok(None),
            Some(level) => level.parse().map(Some).map_err(|_| CompressError::Level { name, level: level.to_owned(), min, max }),
        };
        match name {
            "gzip" => {
                let level = number("gzip", GzipLevel::MIN, GzipLevel::MAX)?;
                Ok(Self::Gzip(level.map_or(Ok(GzipLevel::default()), GzipLevel::new)?))
            }
            "zstd" => {
                let level = number("zstd", ZstdLevel::MIN, ZstdLevel::MAX)?;
                Ok(Self::Zstd(level.map_or(Ok(ZstdLevel::default()), ZstdLevel::new)?))
            }
            _ => Err(CompressError::Name(name.to_owned(), "gzip or zstd")),
        }
    }
}

/// Encodes blocks, one after another, each independent of those before it.
pub struct BlockEncoder(Codec);

enum Codec {
    Gzip(Compressor),
    Zstd(ZstdLevel),
}

impl BlockEncoder {
    /// Appends to `out` the gzip member or zstd frame that decompresses to `block`. An empty input as a whole is one empty block.
    pub fn encode(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match &mut self.0 {
            Codec::Gzip(compressor) => encode_member(compressor, block, out),
            Codec::Zstd(level) => encode_frame(*level, block, out).map_err(Error::io),
        }
    }
}

impl fmt::Debug for BlockEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Codec::Gzip(_) => "BlockEncoder(gzip)",
            Codec::Zstd(_) => "BlockEncoder(zstd)",
        })
    }
}

fn encode_member(compressor: &mut Compressor, block: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    out.resize(start + HEADER + compressor.deflate_compress_bound(block.len()) + TRAILER, 0);
    let member = &mut out[start..];
    let deflated = compressor.deflate_compress(block, &mut member[HEADER..]).expect("the room is libdeflate's own bound");
    let size = HEADER + deflated + TRAILER;

    let too_large = |_| Error::limit("a block of 4 GiB or more");
    let (stated, length) = (u32::try_from(size).map_err(too_large)?, u32::try_from(block.len()).map_err(too_large)?);
    member[..HEADER - 4].copy_from_slice(&MEMBER_START);
    member[HEADER - 4..HEADER].copy_from_slice(&stated.to_le_bytes());
    member[size - TRAILER..size - 4].copy_from_slice(&libdeflater::crc32(block).to_le_bytes());
    member[size - 4..size].copy_from_slice(&length.to_le_bytes());
    out.truncate(start + size);
    Ok(())
}

/// Every frame has a context of its own. libzstd salts the hash tables of levels that search rows with what the context saw before, so a
/// used one may give other bytes; and a new one costs nothing that can be measured at blocks of this size.
fn encode_frame(ZstdLevel(level): ZstdLevel, block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut compressor = zstd::bulk::Compressor::new(i32::from(level))?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    let start = out.len();
    out.resize(start + zstd::zstd_safe::compress_bound(block.len()), 0);
    let size = compressor.compress_to_buffer(block, &mut out[start..])?;
    out.truncate(start + size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text-like bytes that compress, but not to nothing.
    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        };
        let mut made = Vec::with_capacity(len + 16);
        while made.len() < len {
            match next() {
                0..96 => made.extend_from_slice(b"usr/share/doc/"),
                96..160 => made.extend((0..next() % 16).map(|i| b'a' + (i as u8))),
                byte => made.push(byte as u8),
            }
        }
        made.truncate(len);
        made
    }

    fn all() -> Vec<Encoding> {
        let gzip = (GzipLevel::MIN..=GzipLevel::MAX).map(|level| Encoding::Gzip(GzipLevel(level)));
        gzip.chain((ZstdLevel::MIN..=ZstdLevel::MAX).map(|level| Encoding::Zstd(ZstdLevel(level)))).collect()
    }

    #[test]
    fn a_used_encoder_makes_the_bytes_of_a_new_one() {
        let data = sample(600_000);
        for encoding in all() {
            let mut used = encoding.encoder();
            for block in [&data[..300_000], &data[300_000..], &data[..5_000], &data[100..150_000], &[]] {
                let (mut again, mut fresh) = (vec![7], vec![7]);
                used.encode(block, &mut again).unwrap();
                encoding.encoder().encode(block, &mut fresh).unwrap();
                assert!(again == fresh, "{encoding}: {} bytes", block.len());
            }
        }
    }

    #[test]
    fn gzip_members_have_a_fixed_header_and_say_their_size() {
        let mut out = Vec::new();
        let mut encoder = Encoding::default().encoder();
        encoder.encode(b"abc", &mut out).unwrap();
        let first = out.len();
        encoder.encode(b"", &mut out).unwrap();
        for member in [&out[..first], &out[first..]] {
            assert_eq!(&member[..16], b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x08\0LS\x04\0");
            assert_eq!(member[16..20], (member.len() as u32).to_le_bytes());
        }
        assert_eq!(out[first - 4..first], [3, 0, 0, 0]);
    }

    #[test]
    fn zstd_frames_have_content_size_and_checksum() {
        let mut out = Vec::new();
        Encoding::Zstd(ZstdLevel::default()).encoder().encode(&sample(100_000), &mut out).unwrap();
        assert_eq!(out[4] & 0b100, 0b100, "checksum flag");
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&out).unwrap(), Some(100_000));
    }

    #[test]
    fn encodings_are_parsed_and_shown() {
        for encoding in all() {
            assert_eq!(encoding.to_string().parse(), Ok(encoding));
        }
        assert_eq!("gzip".parse(), Ok(Encoding::default()));
        assert_eq!("zstd".parse(), Ok(Encoding::Zstd(ZstdLevel(3))));
        for (text, expected) in [
            ("gzip:0", "gzip has no level \"0\", expected 1 to 12"),
            ("gzip:13", "gzip has no level \"13\", expected 1 to 12"),
            ("gzip:", "gzip has no level \"\", expected 1 to 12"),
            ("zstd:20", "zstd has no level \"20\", expected 1 to 19"),
            ("zstd:-1", "zstd has no level \"-1\", expected 1 to 19"),
            ("xz", "\"xz\" is no compression known here, expected gzip or zstd"),
        ] {
            assert_eq!(text.parse::<Encoding>().unwrap_err().to_string(), expected);
        }
    }
}

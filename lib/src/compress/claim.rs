//! What a compressed stream claims to decompress to, found without decompressing it.

use std::io;

use super::{Compression, Members};

/// Above this, what a gzip stream decompresses to may well not fit the 32 bits of its ISIZE.
const ISIZE_TRUSTED: u64 = 1 << 30;

/// How many bytes a stream of `length` bytes claims to decompress to; `read_at` reads those at an offset.
///
/// It is a guess to make room by, no more: for a stream of longshore's own the sum of what its members claim ([`Members`]), for other gzip
/// ISIZE of the last member, which "contains the size of the original (uncompressed) input data modulo 2^32" (RFC 1952, 2.3.1).
pub fn claimed_size(kind: Compression, length: u64, mut read_at: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> Option<u64> {
    match kind {
        Compression::None => Some(length),
        Compression::Gzip => {
            let sum = Members::new(length, &mut read_at).try_fold(0_u64, |sum, member| Some(sum + u64::from(member.ok()?.inflated)));
            sum.or_else(|| {
                let mut isize = [0; 4];
                read_at(length.checked_sub(4)?, &mut isize).ok()?;
                let claimed = u64::from(u32::from_le_bytes(isize));
                // Deflate may grow what does not compress, but hardly.
                (length < ISIZE_TRUSTED && claimed + claimed / 64 + 1024 > length).then_some(claimed)
            })
        }
        Compression::Zstd | Compression::Xz | Compression::Bzip2 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Encoding;

    fn claimed(kind: Compression, bytes: &[u8]) -> Option<u64> {
        claimed_size(kind, bytes.len() as u64, |at, buffer| {
            let at = usize::try_from(at).unwrap();
            let from = bytes.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(from);
            Ok(())
        })
    }

    #[test]
    fn sums_our_members_and_reads_the_isize_of_others() {
        let mut ours = Vec::new();
        let mut encoder = Encoding::default().encoder();
        encoder.encode(&[1; 5000], &mut ours).unwrap();
        encoder.encode(&[2; 300], &mut ours).unwrap();
        assert_eq!(claimed(Compression::Gzip, &ours), Some(5300));

        let mut other = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut other, &[3; 7000]).unwrap();
        assert_eq!(claimed(Compression::Gzip, &other.finish().unwrap()), Some(7000));
    }

    #[test]
    fn claims_nothing_where_nothing_is_said() {
        assert_eq!(claimed(Compression::Gzip, &[0x1f, 0x8b]), None);
        assert_eq!(claimed(Compression::Xz, &[0; 100]), None);
        // An ISIZE far below the compressed size is another stream's, or wrapped.
        assert_eq!(claimed(Compression::Gzip, &[0; 5000]), None);
        assert_eq!(claimed(Compression::None, b"abc"), Some(3));
    }
}

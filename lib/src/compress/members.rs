//! Walks the gzip members that [`Encoding::Gzip`](super::Encoding::Gzip) writes, without inflating them.
//!
//! A layer compressed by longshore says where its members are and how large they are inside, so that its uncompressed size is known at once
//! and members can be inflated side by side. All of that is only claimed: whoever uses it decodes each range with [`decoder`](super::decoder)
//! and compares the size. Ranges that each decode to what they claim decode together to the same bytes.

use std::io;

use super::encode::{HEADER, MEMBER_START, TRAILER};
use crate::error::{Error, Result};

/// Where a gzip member lies, and what it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Bytes before it.
    pub offset: u64,
    /// Its own size, header and trailer included.
    pub size: u64,
    /// What it claims to decompress to, at most [`Encoding::block_size`](super::Encoding::block_size) when longshore wrote it.
    pub inflated: u32,
}

/// The members of a gzip stream, one after another, until the end or the first that is not as longshore writes them.
///
/// Nothing is kept of those before, so a stream of any length costs no memory.
#[derive(Debug)]
pub struct Members<F> {
    read_at: F,
    at: u64,
    length: u64,
}

impl<F: FnMut(u64, &mut [u8]) -> io::Result<()>> Members<F> {
    /// Walks a stream of `length` bytes, of which `read_at` reads those at an offset, all that it is asked for.
    pub fn new(length: u64, read_at: F) -> Self {
        Self { read_at, at: 0, length }
    }

    fn read(&mut self) -> Result<Member> {
        let offset = self.at;
        let left = self.length - offset;
        let foreign = || Error::unsupported(format!("the gzip member at offset {offset} does not say its size"));
        let mut header = [0; HEADER];
        if left < (HEADER + TRAILER) as u64 {
            return Err(foreign());
        }
        (self.read_at)(offset, &mut header).map_err(Error::io)?;
        let size = match header.strip_prefix(&MEMBER_START) {
            Some(&[a, b, c, d]) => u64::from(u32::from_le_bytes([a, b, c, d])),
            _ => return Err(foreign()),
        };
        if size < (HEADER + TRAILER) as u64 || size > left {
            return Err(Error::invalid(format!("the gzip member at offset {offset} claims {size} bytes of {left}")));
        }
        let mut inflated = [0; 4];
        (self.read_at)(offset + size - 4, &mut inflated).map_err(Error::io)?;
        self.at += size;
        Ok(Member { offset, size, inflated: u32::from_le_bytes(inflated) })
    }
}

impl<F: FnMut(u64, &mut [u8]) -> io::Result<()>> Iterator for Members<F> {
    type Item = Result<Member>;

    fn next(&mut self) -> Option<Result<Member>> {
        if self.at >= self.length {
            return None;
        }
        let member = self.read();
        if member.is_err() {
            self.at = self.length;
        }
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::ErrorKind;
    use crate::compress::{Compression, DecodeLimits, Encoding, decoder};

    fn walk(stream: &[u8]) -> Vec<Result<Member>> {
        let read_at = |offset: u64, buf: &mut [u8]| (&stream[offset as usize..]).read_exact(buf);
        Members::new(stream.len() as u64, read_at).collect()
    }

    fn sample() -> Vec<u8> {
        let (mut encoder, mut stream) = (Encoding::default().encoder(), Vec::new());
        for block in [&[b'a'; 5000][..], b"", b"bcd"] {
            encoder.encode(block, &mut stream).unwrap();
        }
        stream
    }

    #[test]
    fn what_members_claim_is_what_they_hold() {
        let stream = sample();
        let members: Vec<Member> = walk(&stream).into_iter().map(Result::unwrap).collect();
        assert_eq!(members.iter().map(|member| member.inflated).collect::<Vec<_>>(), [5000, 0, 3]);
        let mut end = 0;
        for member in members {
            assert_eq!(member.offset, end);
            end += member.size;
            let range = &stream[member.offset as usize..end as usize];
            let mut made = Vec::new();
            decoder(Compression::Gzip, range, DecodeLimits::default()).unwrap().read_to_end(&mut made).unwrap();
            assert_eq!(made.len(), member.inflated as usize);
        }
        assert_eq!(end, stream.len() as u64);
        assert!(walk(b"").is_empty());
    }

    #[test]
    fn others_are_an_error_once() {
        let stream = sample();
        for end in 1..stream.len() {
            let found = walk(&stream[..end]);
            let whole = found.iter().all(Result::is_ok);
            assert!(whole == (found.iter().flatten().map(|member| member.size).sum::<u64>() == end as u64));
            assert!(found.iter().filter(|member| member.is_err()).count() <= 1);
        }
        let padded = [&stream[..], &[0; 40]].concat();
        let error = walk(&padded).pop().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), format!("the gzip member at offset {} does not say its size", stream.len()));
    }

    #[test]
    fn sizes_that_cannot_be_are_an_error() {
        for claim in [0_u32, 27, 10_000, u32::MAX] {
            let mut stream = sample();
            stream[16..20].copy_from_slice(&claim.to_le_bytes());
            let found = walk(&stream);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}

//! The compressed side of every decoder: one large buffer, and a count of the bytes taken from it.

use std::io::{self, ErrorKind, Read};

/// Bytes asked from the reader at once: large enough that decoders run long between two reads, small beside a decoder's own window.
const BUFFER: usize = 256 << 10;

/// A buffered reader that knows how much of it was used, and whether an error came from below.
pub(super) struct Input<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    consumed: u64,
    failed: bool,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, consumed: 0, failed: false }
    }

    /// The bytes at hand, reading some when there are none; empty only at the end.
    pub(super) fn fill(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end { self.peek(1) } else { Ok(&self.buffer[self.start..self.end]) }
    }

    /// At least `count` bytes, or all that are left when those are fewer. `count` is small.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.start == self.end || self.start + count > BUFFER {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < count {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Takes `count` of the bytes at hand.
    pub(super) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
        self.consumed += count as u64;
    }

    /// The next `N` bytes, `None` when the end comes first.
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let bytes = self.peek(N)?.first_chunk::<N>().copied();
        self.consume(if bytes.is_some() { N } else { 0 });
        Ok(bytes)
    }

    /// How many bytes have been taken.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether the reader below has returned an error.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let data = self.fill()?;
        let count = data.len().min(buf.len());
        buf[..count].copy_from_slice(&data[..count]);
        self.consume(count);
        Ok(count)
    }
}

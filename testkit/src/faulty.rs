//! Readers and writers that behave as badly as real ones may.

use std::io::{self, Read, Write};

/// A reader or writer that moves at most some bytes a call, and fails after some in all.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    step: usize,
    left: u64,
    kind: io::ErrorKind,
    interrupt: bool,
    interrupted: bool,
}

impl<T> Faulty<T> {
    /// Behaves as `inner` does.
    pub fn new(inner: T) -> Self {
        Self { inner, step: usize::MAX, left: u64::MAX, kind: io::ErrorKind::Other, interrupt: false, interrupted: false }
    }

    /// Moves at most `step` bytes a call; 1 is a trickle.
    #[must_use]
    pub fn step(mut self, step: usize) -> Self {
        assert!(step > 0, "a step of 0 would be the end");
        self.step = step;
        self
    }

    /// Fails with `kind` once `bytes` have passed.
    #[must_use]
    pub fn fails_after(mut self, bytes: u64, kind: io::ErrorKind) -> Self {
        (self.left, self.kind) = (bytes, kind);
        self
    }

    /// Fails every other call with `Interrupted`, which callers must try again.
    #[must_use]
    pub fn interrupted(mut self) -> Self {
        self.interrupt = true;
        self
    }

    /// What it wraps.
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn allow(&mut self, wanted: usize) -> io::Result<usize> {
        if self.interrupt {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        if self.left == 0 && wanted > 0 {
            return Err(io::Error::new(self.kind, "fault of the test"));
        }
        Ok(wanted.min(self.step).min(usize::try_from(self.left).unwrap_or(usize::MAX)))
    }
}

impl<T: Read> Read for Faulty<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.allow(buffer.len())?;
        let read = self.inner.read(&mut buffer[..len])?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

impl<T: Write> Write for Faulty<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let len = self.allow(buffer.len())?;
        let written = self.inner.write(&buffer[..len])?;
        self.left = self.left.saturating_sub(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trickles_interrupts_and_fails_where_told() {
        let mut faulty = Faulty::new(&b"abcdef"[..]).step(1).interrupted().fails_after(4, io::ErrorKind::BrokenPipe);
        let mut bytes = Vec::new();
        let error = faulty.read_to_end(&mut bytes).unwrap_err();
        assert_eq!((bytes.as_slice(), error.kind()), (&b"abcd"[..], io::ErrorKind::BrokenPipe));
        let mut faulty = Faulty::new(Vec::new()).step(2).fails_after(3, io::ErrorKind::StorageFull);
        assert_eq!(faulty.write_all(b"abcdef").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(faulty.into_inner(), b"abc");
    }
}

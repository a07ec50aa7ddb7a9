//! Entries of an archive with the bytes of their headers, for whoever passes them on as they are.

use std::io::{self, Read};

use super::{Entry, Parser, Step, TarError, TarLimits, escape_bytes};
use crate::error::{Context as _, Error, Result};

/// How much is read at once of what nobody wants.
pub(super) const SKIP: usize = 32 << 10;

/// Where the type of a header block is, and the type of a global header.
const TYPE: (usize, u8) = (156, b'g');

/// A reader that can leave bytes out, perhaps without reading them.
pub trait Skip: Read {
    /// Goes `bytes` further, and says how far it came: less only at the end of the input.
    ///
    /// # Errors
    /// Those of reading.
    fn skip(&mut self, bytes: u64) -> io::Result<u64>;
}

impl<R: Skip + ?Sized> Skip for Box<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        (**self).skip(bytes)
    }
}

/// Skips by reading.
#[derive(Debug)]
pub struct BySkimming<R> {
    /// What is read.
    pub input: R,
    scratch: Vec<u8>,
}

impl<R> BySkimming<R> {
    /// Skips in `input` by reading it.
    pub fn new(input: R) -> Self {
        Self { input, scratch: Vec::new() }
    }
}

impl<R: Read> Read for BySkimming<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.input.read(out)
    }
}

impl<R: Read> Skip for BySkimming<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        self.scratch.resize(SKIP, 0);
        let mut done = 0;
        while done < bytes {
            let step = usize::try_from(bytes - done).map_or(SKIP, |left| left.min(SKIP));
            match self.input.read(&mut self.scratch[..step]) {
                Ok(0) => break,
                Ok(count) => done += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Reads an archive entry by entry; as a reader it gives the payload and the padding of the current entry as they are in the archive.
///
/// Holds the headers of one entry, within [`TarLimits`]. Errors name the entry or the offset. After one, stop.
#[derive(Debug)]
pub struct RawEntries<R> {
    input: R,
    parser: Parser,
    block: Vec<u8>,
    headers: Vec<u8>,
    /// Bytes taken from the input so far.
    position: u64,
    path: Vec<u8>,
    /// Bytes left of the current entry's payload and padding.
    payload: u64,
    padding: u64,
    is_ended: bool,
}

impl<R: Skip> RawEntries<R> {
    /// Reads an archive that begins where `input` stands. A buffered reader helps, since headers are read in blocks.
    pub fn new(input: R, limits: TarLimits) -> Self {
        let parser = Parser::new(limits);
        let (block, headers, path) = (Vec::new(), Vec::new(), Vec::new());
        Self { input, parser, block, headers, position: 0, path, payload: 0, padding: 0, is_ended: false }
    }

    /// Gives the next entry, after skipping what was not read of the current one; `None` at the end of the archive.
    ///
    /// # Errors
    /// A malformed or truncated archive, a limit, and what the input reports.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_payload()?;
        self.headers.clear();
        let mut global = false;
        while !self.is_ended {
            let at = self.position;
            let frame = || format!("header at byte {at}");
            let expected = self.parser.want();
            let found = self.fill(expected).context(frame)?;
            if found == 0 {
                self.parser.finish().map_err(Error::from).context(frame)?;
                self.is_ended = true;
                break;
            }
            if found < expected {
                return Err(Error::from(TarError::Truncated { expected, found }).frame(frame()));
            }
            // A global header belongs to no entry; it has no effect here and might have one on others.
            let is_header = !self.parser.is_within_extended();
            let step = self.parser.take(&self.block).map_err(Error::from).context(frame)?;
            global = if is_header { self.headers.is_empty() && self.block[TYPE.0] == TYPE.1 } else { global };
            if !global {
                self.headers.extend_from_slice(&self.block);
            }
            match step {
                Step::More => {}
                Step::End => self.is_ended = true,
                Step::Entry(entry) => {
                    (self.payload, self.padding) = (entry.size, entry.padding());
                    self.path.clone_from(&entry.path);
                    return Ok(Some(*entry));
                }
            }
        }
        Ok(None)
    }

    /// The blocks of the current entry's headers, without global ones; and the map of a sparse file, where that begins its payload.
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// Says how many bytes were taken from the input: right after [`next_entry`](Self::next_entry), where the payload begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the current entry that were not read yet, padding included.
    pub fn left(&self) -> u64 {
        self.payload.saturating_add(self.padding)
    }

    /// Reads the rest of the archive and of its input, and says whether anything but zeros came after the end marker. Such bytes do not belong
    /// to the archive; every reader ignores them.
    ///
    /// # Errors
    /// Those of [`next_entry`](Self::next_entry).
    pub fn drain(&mut self) -> Result<bool> {
        while self.next_entry()?.is_some() {}
        let mut is_more = false;
        loop {
            let found = self.fill(SKIP)?;
            is_more |= self.block.iter().any(|&b| b != 0);
            if found == 0 {
                return Ok(is_more);
            }
        }
    }

    /// Gives the input back, standing at [`position`](Self::position).
    pub fn into_inner(self) -> R {
        self.input
    }

    fn skip_payload(&mut self) -> Result<()> {
        for (what, left) in [("data", std::mem::take(&mut self.payload)), ("padding", std::mem::take(&mut self.padding))] {
            if left > 0 {
                let skipped = self.input.skip(left).map_err(Error::io).context(|| self.frame())?;
                self.position += skipped;
                if skipped < left {
                    return Err(self.truncated(left - skipped, what));
                }
            }
        }
        Ok(())
    }

    fn truncated(&self, missing: u64, what: &str) -> Error {
        Error::invalid(format!("archive ends {missing} bytes before the end of its {what}")).frame(self.frame())
    }

    fn frame(&self) -> String {
        format!("entry `{}`", escape_bytes(&self.path))
    }

    /// Reads `length` bytes into the block, fewer only at the end of the input.
    fn fill(&mut self, length: usize) -> Result<usize> {
        self.block.resize(length, 0);
        let mut filled = 0;
        while filled < length {
            match self.input.read(&mut self.block[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(error)),
            }
        }
        self.block.truncate(filled);
        self.position += filled as u64;
        Ok(filled)
    }
}

impl<R: Skip> Read for RawEntries<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (left, what) = if self.payload > 0 { (self.payload, "data") } else { (self.padding, "padding") };
        if left == 0 || out.is_empty() {
            return Ok(0);
        }
        let wanted = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        let read = match self.input.read(&mut out[..wanted]) {
            Ok(0) => return Err(self.truncated(left, what).into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(Error::io(error).frame(self.frame()).into()),
        };
        let of = if self.payload > 0 { &mut self.payload } else { &mut self.padding };
        *of -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{END, Header, HeaderFormat};

    #[test]
    fn headers_and_payloads_put_together_are_the_archive() {
        let header = |path: &[u8], size: u64| Header { path: path.to_vec(), size, ..Header::default() }.to_blocks().unwrap();
        let mut archive = header(b"one", 5);
        archive.extend([&b"first"[..], &[7; 507]].concat());
        archive.extend(header(&[b'n'; 300], 512));
        archive.extend([b'2'; 512]);
        let global =
            Header { path: b"pax".to_vec(), kind: crate::tar::Kind::Other(b'g'), size: 13, format: HeaderFormat::Gnu, ..Header::default() };
        let global = [&global.to_blocks().unwrap()[..], b"13 comment=x\n", &[0; 499]].concat();
        let input = [&global[..], &archive, &END].concat();
        let mut entries = RawEntries::new(BySkimming::new(input.as_slice()), TarLimits::default());
        let mut out = Vec::new();
        while entries.next_entry().unwrap().is_some() {
            out.extend_from_slice(entries.headers());
            let left = entries.left();
            assert_eq!(entries.read_to_end(&mut out).unwrap() as u64, left);
        }
        assert!(out == archive, "padding is kept, and the global header is not");
    }
}

//! Entries of an archive that is read from front to back: the I/O around a [`Parser`].

use std::io::{self, Read};

use super::{Entry, Parser, Sparse, Step, TarError, TarLimits, escape_bytes};
use crate::error::{Context as _, Error, Result};

/// How much is read at once of what nobody wants.
const SKIP: usize = 32 << 10;

/// Reads an archive entry by entry; as a reader it gives the content of the current entry, holes of sparse files filled.
///
/// Holds one buffer of at least 32 KiB that grows up to [`TarLimits::header`]. Errors name the entry or the offset. After one, stop.
#[derive(Debug)]
pub struct Entries<R> {
    input: R,
    parser: Parser,
    buffer: Vec<u8>,
    /// Bytes taken from the input so far.
    position: u64,
    current: Option<Current>,
    is_ended: bool,
}

/// What is left of an entry.
#[derive(Debug)]
struct Current {
    path: Vec<u8>,
    /// Bytes of payload and padding in the stream.
    payload: u64,
    padding: u64,
    /// Zeros, then data, to give before the next piece.
    hole: u64,
    data: u64,
    /// Where the pieces begin that are still to come, and where the last known one ends.
    pieces: std::vec::IntoIter<(u64, u64)>,
    end: u64,
    size: u64,
}

impl Current {
    fn new(entry: &Entry) -> Self {
        let (map, data) = match &entry.sparse {
            Some(Sparse { map, .. }) => (map.clone(), 0),
            None => (Vec::new(), entry.size),
        };
        Self {
            path: entry.path.clone(),
            payload: entry.size,
            padding: entry.padding(),
            hole: 0,
            data,
            pieces: map.into_iter(),
            end: data,
            size: entry.content_size(),
        }
    }

    /// Goes on to the next hole and piece of data; false at the end of the file.
    fn advance(&mut self) -> bool {
        while self.hole == 0 && self.data == 0 && self.end < self.size {
            let (offset, length) = self.pieces.next().unwrap_or((self.size, 0));
            (self.hole, self.data) = (offset - self.end, length);
            self.end = offset + length;
        }
        self.hole > 0 || self.data > 0
    }

    fn truncated(&self, missing: u64, what: &str) -> Error {
        Error::invalid(format!("archive ends {missing} bytes before the end of its {what}")).frame(self.frame())
    }

    fn frame(&self) -> String {
        format!("entry `{}`", escape_bytes(&self.path))
    }
}

impl<R: Read> Entries<R> {
    /// Reads an archive that begins where `input` stands. A buffered reader helps, since headers are read in blocks.
    pub fn new(input: R, limits: TarLimits) -> Self {
        Self { input, parser: Parser::new(limits), buffer: Vec::new(), position: 0, current: None, is_ended: false }
    }

    /// Gives the next entry, after skipping what was not read of the current one; `None` at the end of the archive.
    ///
    /// # Errors
    /// A malformed or truncated archive, a limit, and what the input reports.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_current()?;
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
            match self.parser.take(&self.buffer[..expected]).map_err(Error::from).context(frame)? {
                Step::More => {}
                Step::End => self.is_ended = true,
                Step::Entry(entry) => {
                    self.current = Some(Current::new(&entry));
                    return Ok(Some(*entry));
                }
            }
        }
        Ok(None)
    }

    /// Says how many bytes were taken from the input: right after [`next_entry`](Self::next_entry), where the payload begins.
    pub fn position(&self) -> u64 {
        self.position
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
            is_more |= self.buffer[..found].iter().any(|&b| b != 0);
            if found == 0 {
                return Ok(is_more);
            }
        }
    }

    /// Gives the input back, standing at [`position`](Self::position).
    pub fn into_inner(self) -> R {
        self.input
    }

    fn skip_current(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        for (what, mut left) in [("data", current.payload), ("padding", current.padding)] {
            while left > 0 {
                let wanted = usize::try_from(left).map_or(SKIP, |left| left.min(SKIP));
                let found = self.fill(wanted).context(|| current.frame())?;
                if found == 0 {
                    return Err(current.truncated(left, what));
                }
                left -= found as u64;
            }
        }
        Ok(())
    }

    /// Reads `length` bytes into the buffer, fewer only at the end of the input.
    fn fill(&mut self, length: usize) -> Result<usize> {
        if self.buffer.len() < length {
            self.buffer.resize(length.max(SKIP), 0);
        }
        let mut filled = 0;
        while filled < length {
            match self.input.read(&mut self.buffer[filled..length]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }
}

impl<R: Read> Read for Entries<R> {
    /// Reads the content of the entry that [`Entries::next_entry`] gave last; nothing before the first and after the end.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(current) = self.current.as_mut() else { return Ok(0) };
        if out.is_empty() || !current.advance() {
            return Ok(0);
        }
        let at_most = |left: u64| usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        if current.hole > 0 {
            let zeros = at_most(current.hole);
            out[..zeros].fill(0);
            current.hole -= zeros as u64;
            return Ok(zeros);
        }
        let wanted = at_most(current.data);
        let read = match self.input.read(&mut out[..wanted]) {
            Ok(0) => return Err(current.truncated(current.payload, "data").into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(Error::io(error).frame(current.frame()).into()),
        };
        current.data -= read as u64;
        current.payload -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{END, Header, HeaderFormat, padding};

    fn member(out: &mut Vec<u8>, path: &str, content: &[u8]) {
        let header = Header { path: path.as_bytes().to_vec(), size: content.len() as u64, ..Header::default() };
        out.extend(header.to_blocks().unwrap());
        out.extend(content);
        out.resize(out.len() + padding(header.size) as usize, 0);
    }

    fn two_members() -> Vec<u8> {
        let mut archive = Vec::new();
        member(&mut archive, "one", b"first");
        member(&mut archive, &"two".repeat(100), &[b'2'; 1000]);
        archive
    }

    fn entries(archive: &[u8]) -> Entries<&[u8]> {
        Entries::new(archive, TarLimits::default())
    }

    #[test]
    fn reads_or_skips_content() {
        let archive = two_members();
        let mut entries = entries(&archive);
        assert_eq!(entries.next_entry().unwrap().unwrap().path, b"one");
        assert_eq!(entries.position(), 512);
        entries.next_entry().unwrap().unwrap();
        let mut content = Vec::new();
        entries.read_to_end(&mut content).unwrap();
        assert_eq!(content, [b'2'; 1000]);
        assert_eq!(entries.next_entry().unwrap(), None);
        assert_eq!(entries.next_entry().unwrap(), None);
        assert_eq!(entries.read(&mut [0]).unwrap(), 0);
        assert_eq!(entries.position(), archive.len() as u64);
    }

    #[test]
    fn drain_tells_padding_from_bytes() {
        for (tail, expected) in
            [(vec![], false), (END.to_vec(), false), ([&END[..], &[0; 9000]].concat(), false), ([&END[..], b"x"].concat(), true)]
        {
            let archive = [two_members(), tail].concat();
            assert_eq!(entries(&archive).drain().unwrap(), expected);
        }
        assert!(!entries(b"").drain().unwrap());
    }

    #[test]
    fn every_truncation_but_between_entries_is_an_error() {
        let archive = two_members();
        let starts = [0, 1024, archive.len()];
        for length in 0..=archive.len() {
            assert_eq!(entries(&archive[..length]).drain().is_ok(), starts.contains(&length), "{length}");
        }
        let message = |length: usize| entries(&archive[..length]).drain().unwrap_err().to_string();
        assert_eq!(message(5), "header at byte 0: archive ends 5 bytes into a header of 512 bytes");
        assert_eq!(message(514), "entry `one`: archive ends 3 bytes before the end of its data");
        assert_eq!(message(520), "entry `one`: archive ends 504 bytes before the end of its padding");
        assert_eq!(message(1536), "header at byte 1536: archive ends 0 bytes into a header of 512 bytes");
        assert_eq!(message(2048), "header at byte 2048: the end follows an extended header, expected the entry that it describes");
        let mut short = entries(&archive[..514]);
        short.next_entry().unwrap();
        let error = short.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(Error::io(error).to_string(), "entry `one`: archive ends 3 bytes before the end of its data");
    }

    #[test]
    fn fills_holes() {
        let records = [("size", "12"), ("map", "2,3,9,1")];
        let records = records.map(|(key, value)| (format!("GNU.sparse.{key}").into_bytes(), value.as_bytes().to_vec()));
        let header = Header { path: b"holes".to_vec(), size: 4, records: records.to_vec(), format: HeaderFormat::Pax, ..Header::default() };
        let archive = [header.to_blocks().unwrap(), b"abcd".to_vec(), vec![0; 508], END.to_vec()].concat();
        let mut entries = entries(&archive);
        assert_eq!(entries.next_entry().unwrap().unwrap().content_size(), 12);
        let mut content = Vec::new();
        entries.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"\0\0abc\0\0\0\0d\0\0");
        assert_eq!(entries.next_entry().unwrap(), None);
    }
}

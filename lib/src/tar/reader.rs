//! Entries of an archive that is read from front to back, with the contents of files.

use std::io::{self, Read};

use super::raw::BySkimming;
use super::{Entry, RawEntries, Sparse, TarLimits};
use crate::error::Result;

/// Reads an archive entry by entry; as a reader it gives the content of the current entry, holes of sparse files filled.
///
/// Holds the headers of one entry, within [`TarLimits`]. Errors name the entry or the offset. After one, stop.
#[derive(Debug)]
pub struct Entries<R> {
    raw: RawEntries<BySkimming<R>>,
    content: Content,
}

/// What is left of an entry's content.
#[derive(Debug, Default)]
struct Content {
    /// Zeros, then data, to give before the next piece.
    hole: u64,
    data: u64,
    /// Where the pieces begin that are still to come, and where the last known one ends.
    pieces: std::vec::IntoIter<(u64, u64)>,
    end: u64,
    size: u64,
}

impl Content {
    fn new(entry: &Entry) -> Self {
        let (map, data) = match &entry.sparse {
            Some(Sparse { map, .. }) => (map.clone(), 0),
            None => (Vec::new(), entry.size),
        };
        Self { hole: 0, data, pieces: map.into_iter(), end: data, size: entry.content_size() }
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
}

impl<R: Read> Entries<R> {
    /// Reads an archive that begins where `input` stands. A buffered reader helps, since headers are read in blocks.
    pub fn new(input: R, limits: TarLimits) -> Self {
        Self { raw: RawEntries::new(BySkimming::new(input), limits), content: Content::default() }
    }

    /// Gives the next entry, after skipping what was not read of the current one; `None` at the end of the archive.
    ///
    /// # Errors
    /// A malformed or truncated archive, a limit, and what the input reports.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let entry = self.raw.next_entry()?;
        self.content = entry.as_ref().map(Content::new).unwrap_or_default();
        Ok(entry)
    }

    /// Says how many bytes were taken from the input: right after [`next_entry`](Self::next_entry), where the payload begins.
    pub fn position(&self) -> u64 {
        self.raw.position()
    }

    /// Reads the rest of the archive and of its input, and says whether anything but zeros came after the end marker. Such bytes do not belong
    /// to the archive; every reader ignores them.
    ///
    /// # Errors
    /// Those of [`next_entry`](Self::next_entry).
    pub fn drain(&mut self) -> Result<bool> {
        self.content = Content::default();
        self.raw.drain()
    }

    /// Gives the input back, standing at [`position`](Self::position).
    pub fn into_inner(self) -> R {
        self.raw.into_inner().input
    }
}

impl<R: Read> Read for Entries<R> {
    /// Reads the content of the entry that [`Entries::next_entry`] gave last; nothing before the first and after the end.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let content = &mut self.content;
        if out.is_empty() || !content.advance() {
            return Ok(0);
        }
        let at_most = |left: u64| usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        if content.hole > 0 {
            let zeros = at_most(content.hole);
            out[..zeros].fill(0);
            content.hole -= zeros as u64;
            return Ok(zeros);
        }
        let wanted = at_most(content.data);
        let read = self.raw.read(&mut out[..wanted])?;
        content.data -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
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

//! The parser: one state machine over exact amounts of bytes, which does no I/O and holds at most one entry's headers.

use super::entry::{Entry, Kind, Record};
use super::header::{self, Fields, Layout};
use super::sparse::{self, Map, PayloadMap};
use super::{BLOCK, Entries, TarError, Time, escape_bytes, pax};

/// What headers may make a parser hold. All of it is freed with the entry that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarLimits {
    /// Payload of one PAX header in bytes. Go and libarchive stop at 1 MiB; a little more lets an attribute of 1 MiB pass with its key.
    pub header: u64,
    /// Length of a path or link target in bytes. Linux stops at 4,096; archives of deep trees are a little over it.
    pub path: usize,
    /// Records of one PAX header, since each costs more memory than the six bytes that it may be short.
    pub records: usize,
    /// Pieces of one sparse file. GNU tar makes one for each run of data that is aligned to 512 bytes.
    pub sparse: usize,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self { header: (1 << 20) + 4096, path: 64 << 10, records: 1 << 16, sparse: 1 << 16 }
    }
}

/// A tar parser that is fed by its caller: [`want`](Self::want) says how many bytes it needs, [`take`](Self::take) takes them.
///
/// After [`Step::Entry`] the caller reads or skips [`Entry::size`] and [`Entry::padding`] bytes itself before it goes on. Memory is bounded by
/// [`TarLimits`], work by the bytes fed. After an error the only sensible thing is to stop.
///
/// ```
/// use longshore::tar::{END, Header, Parser, Step, TarLimits};
/// let mut archive = Header { path: b"etc/".to_vec(), ..Header::default() }.to_blocks()?;
/// archive.extend_from_slice(&END);
/// let (mut parser, mut rest) = (Parser::new(TarLimits::default()), archive.as_slice());
/// loop {
///     let (bytes, after) = rest.split_at(parser.want());
///     rest = after;
///     match parser.take(bytes)? {
///         Step::More => {}
///         Step::Entry(entry) => assert_eq!((entry.path.as_slice(), entry.size), (&b"etc/"[..], 0)),
///         Step::End => break,
///     }
/// }
/// # Ok::<(), longshore::tar::TarError>(())
/// ```
#[derive(Debug)]
pub struct Parser {
    limits: TarLimits,
    state: State,
    pending: Pending,
}

/// What [`Parser::take`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: an extended header, or a first block of zeros.
    More,
    /// An entry, whose payload follows.
    Entry(Box<Entry>),
    /// The end marker: two blocks of zeros. One alone ends an archive only together with its input. Bytes after it do not belong to the archive.
    End,
}

#[derive(Debug)]
enum State {
    /// Between entries or their headers.
    Header,
    /// After one block of zeros.
    Zero,
    /// Before the payload of an extended header, of so many bytes.
    Extended(Extended, usize),
    /// Within the map of an old GNU sparse file, whose size follows.
    OldSparse(Box<Entry>, Map, u64),
    /// Within the map of a PAX 1.0 sparse file, whose size follows.
    PaxSparse(Box<Entry>, PayloadMap, u64),
    /// After two blocks of zeros.
    End,
}

/// The kinds of extended headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extended {
    Pax,
    PaxGlobal,
    LongName,
    LongLink,
}

impl Extended {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'x' => Some(Self::Pax),
            b'g' => Some(Self::PaxGlobal),
            b'L' => Some(Self::LongName),
            b'K' => Some(Self::LongLink),
            _ => None,
        }
    }
}

/// Extended headers that wait for their entry.
#[derive(Debug, Default)]
struct Pending {
    pax: Option<Vec<Record>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.path.is_none() && self.link.is_none()
    }
}

impl Parser {
    /// Makes a parser for one archive.
    pub fn new(limits: TarLimits) -> Self {
        Self { limits, state: State::Header, pending: Pending::default() }
    }

    /// Says how many bytes the next [`take`](Self::take) needs: a block, or the padded payload of an extended header.
    pub fn want(&self) -> usize {
        match self.state {
            State::Extended(_, size) => size.next_multiple_of(BLOCK),
            _ => BLOCK,
        }
    }

    /// Whether the next bytes are the payload of an extended header.
    pub(super) fn is_within_extended(&self) -> bool {
        matches!(self.state, State::Extended(..))
    }

    /// Takes exactly [`want`](Self::want) bytes, and says what they complete. After [`Step::End`] it takes anything and says so again.
    ///
    /// # Errors
    /// Whatever makes the archive malformed; [`TarError::Truncated`] for any other number of bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Step, TarError> {
        let expected = self.want();
        if bytes.len() != expected {
            return Err(TarError::Truncated { expected, found: bytes.len() });
        }
        match std::mem::replace(&mut self.state, State::Header) {
            State::Extended(kind, size) => self.extended(kind, &bytes[..size]),
            state => {
                let block = bytes.try_into().expect("want gives one block in every other state");
                self.block(state, block)
            }
        }
    }

    /// Judges an input that ends before another byte is taken. It is complete where a header could begin, with and without the end marker.
    ///
    /// # Errors
    /// [`TarError::Orphan`] when extended headers wait for an entry, [`TarError::Truncated`] within the headers of one.
    pub fn finish(&self) -> Result<(), TarError> {
        match self.state {
            State::Header | State::Zero => self.no_orphans("the end"),
            State::End => Ok(()),
            _ => Err(TarError::Truncated { expected: self.want(), found: 0 }),
        }
    }

    fn no_orphans(&self, found: &'static str) -> Result<(), TarError> {
        if self.pending.is_empty() { Ok(()) } else { Err(TarError::Orphan { found }) }
    }

    fn block(&mut self, state: State, block: &[u8; BLOCK]) -> Result<Step, TarError> {
        let is_zero = block == &[0; BLOCK];
        match state {
            State::End => {
                self.state = State::End;
                Ok(Step::End)
            }
            State::Zero if is_zero => {
                self.state = State::End;
                Ok(Step::End)
            }
            State::Zero => Err(TarError::LoneZeroBlock),
            State::OldSparse(entry, mut map, size) => {
                map.push_old(&block[sparse::CONTINUED])?;
                self.old_sparse(entry, map, size, block[sparse::CONTINUED_MORE] != 0)
            }
            State::PaxSparse(mut entry, mut map, size) => {
                if !map.take(block)? {
                    return self.pax_sparse(entry, map, size);
                }
                entry.size -= map.blocks * BLOCK as u64;
                entry.sparse = Some(map.into_map().finish(size, entry.size)?);
                Ok(Step::Entry(entry))
            }
            _ if is_zero => {
                self.no_orphans("a block of zeros")?;
                self.state = State::Zero;
                Ok(Step::More)
            }
            _ => self.header(block),
        }
    }

    fn header(&mut self, block: &[u8; BLOCK]) -> Result<Step, TarError> {
        let fields = Fields::parse(block)?;
        match Extended::from_byte(fields.type_byte) {
            Some(kind) => self.extended_header(kind, fields.size),
            None => self.entry(fields, block),
        }
    }

    fn extended_header(&mut self, kind: Extended, size: u64) -> Result<Step, TarError> {
        let limit = match kind {
            Extended::Pax | Extended::PaxGlobal => self.limits.header,
            // The NUL that ends it.
            Extended::LongName | Extended::LongLink => self.limits.path as u64 + 1,
        };
        if size > limit {
            return Err(TarError::Limit { what: "size of an extended header in bytes", found: size, limit });
        }
        match kind {
            Extended::Pax if self.pending.pax.is_some() => return Err(TarError::Repeated { kind: "PAX header" }),
            Extended::LongName if self.pending.path.is_some() => return Err(TarError::Repeated { kind: "GNU long name" }),
            Extended::LongLink if self.pending.link.is_some() => return Err(TarError::Repeated { kind: "GNU long link" }),
            Extended::PaxGlobal => self.no_orphans("a global header")?,
            _ => {}
        }
        if size == 0 {
            return self.extended(kind, b"");
        }
        let size =
            usize::try_from(size).map_err(|_| TarError::Limit { what: "size of an extended header in bytes", found: size, limit })?;
        self.state = State::Extended(kind, size);
        Ok(Step::More)
    }

    fn extended(&mut self, kind: Extended, payload: &[u8]) -> Result<Step, TarError> {
        match kind {
            Extended::Pax => self.pending.pax = Some(pax::records(payload, self.limits.records)?),
            Extended::PaxGlobal => pax::check_global(&pax::records(payload, self.limits.records)?)?,
            Extended::LongName => self.pending.path = Some(long_name(payload, "path")?),
            Extended::LongLink => self.pending.link = Some(long_name(payload, "link")?),
        }
        Ok(Step::More)
    }

    /// Puts a header and the extended headers before it together.
    fn entry(&mut self, fields: Fields, block: &[u8; BLOCK]) -> Result<Step, TarError> {
        let Pending { pax, path, link } = std::mem::take(&mut self.pending);
        let pax = pax.unwrap_or_default();
        let sparse = sparse::stated(&pax, self.limits.sparse)?;
        let pax_path = pax::value(&pax, "GNU.sparse.name").or_else(|| pax::value(&pax, "path"));
        let path = self.name("path", path, pax_path, fields.path)?;
        let link = self.name("link", link, pax::value(&pax, "linkpath"), fields.link)?;
        let text = |key, own: Vec<u8>| pax::value(&pax, key).map_or(own, <[u8]>::to_vec);
        let id = |key, own| match pax::number(&pax, key)? {
            Some(id) => header::small(id, key, id.to_string().as_bytes()).map(u64::from),
            None => Ok(own),
        };
        // Not used, but engines refuse an entry for them.
        pax::time(&pax, "atime")?;
        pax::time(&pax, "ctime")?;
        let kind = Kind::from_byte(fields.type_byte, &path);
        let size = pax::number(&pax, "size")?.unwrap_or(fields.size);
        let entry = Box::new(Entry {
            kind,
            mode: fields.mode,
            uid: id("uid", fields.uid)?,
            gid: id("gid", fields.gid)?,
            mtime: pax::time(&pax, "mtime")?.unwrap_or(Time::from_secs(fields.mtime)),
            size: if kind.has_payload() { size } else { 0 },
            user: text("uname", fields.user),
            group: text("gname", fields.group),
            device: fields.device,
            path,
            link,
            pax,
            sparse: None,
        });
        match (fields.type_byte, sparse) {
            (b'S', None) if fields.layout == Layout::Gnu => {
                let mut map = Map::new(self.limits.sparse);
                map.push_old(&block[header::GNU_SPARSE])?;
                let size = header::unsigned_number("size of a sparse file", &block[header::GNU_REAL_SIZE])?;
                self.old_sparse(entry, map, size, block[header::GNU_SPARSE_MORE] != 0)
            }
            (b'S', None) => Err(TarError::Sparse("is in a header that is not GNU's")),
            (b'S', Some(_)) => Err(TarError::Sparse("is stated twice, by GNU and PAX headers")),
            (_, Some(_)) if kind != Kind::File => Err(TarError::Sparse("belongs to what is no regular file")),
            (_, Some(sparse::Stated::Map(map, size))) => self.old_sparse(entry, map, size, false),
            (_, Some(sparse::Stated::InPayload(size))) => {
                let map = PayloadMap::new(self.limits.sparse);
                self.pax_sparse(entry, map, size)
            }
            (_, None) => Ok(Step::Entry(entry)),
        }
    }

    /// Chooses between the names that a GNU header, a PAX header and the ordinary header give. An empty one is none.
    fn name(&self, field: &'static str, gnu: Option<Vec<u8>>, pax: Option<&[u8]>, own: Vec<u8>) -> Result<Vec<u8>, TarError> {
        let name = match (gnu.filter(|name| !name.is_empty()), pax) {
            (Some(gnu), Some(pax)) if gnu != pax => return Err(TarError::Conflict { field }),
            (Some(name), _) => name,
            (None, Some(name)) => name.to_vec(),
            (None, None) => own,
        };
        if name.len() > self.limits.path {
            let what = "length of a path or link in bytes";
            return Err(TarError::Limit { what, found: name.len() as u64, limit: self.limits.path as u64 });
        }
        Ok(name)
    }

    fn old_sparse(&mut self, mut entry: Box<Entry>, map: Map, size: u64, more: bool) -> Result<Step, TarError> {
        if more {
            self.state = State::OldSparse(entry, map, size);
            return Ok(Step::More);
        }
        entry.sparse = Some(map.finish(size, entry.size)?);
        Ok(Step::Entry(entry))
    }

    fn pax_sparse(&mut self, entry: Box<Entry>, map: PayloadMap, size: u64) -> Result<Step, TarError> {
        if entry.size < (map.blocks + 1) * BLOCK as u64 {
            return Err(TarError::Sparse("does not end before the payload does"));
        }
        self.state = State::PaxSparse(entry, map, size);
        Ok(Step::More)
    }
}

/// The name in the payload of a GNU header: all of it but the NUL at its end.
fn long_name(payload: &[u8], field: &'static str) -> Result<Vec<u8>, TarError> {
    let name = header::c_string(payload);
    if payload[name.len()..].iter().any(|&b| b != 0) {
        return Err(TarError::Nul { field });
    }
    Ok(name.to_vec())
}

/// Parses `data` as an archive in two ways, all at once and through [`Entries`] in small reads, and asserts that they agree.
///
/// For fuzzing; it must not panic, whatever `data` is.
pub fn fuzz_tar(data: &[u8]) {
    let limits = TarLimits { header: 64 << 10, path: 4096, records: 1000, sparse: 1000 };
    let (entries, complete) = parse_slice(data, &limits);
    for entry in &entries {
        assert!(entry.path.len() <= limits.path && entry.link.len() <= limits.path, "{}", escape_bytes(&entry.path));
        assert!(!entry.path.contains(&0) && !entry.link.contains(&0), "{}", escape_bytes(&entry.path));
        assert!(entry.mtime.nanos < 1_000_000_000 && entry.size <= i64::MAX as u64);
        assert!(entry.kind.has_payload() || entry.size == 0);
    }
    let step = data.first().map_or(1, |&b| usize::from(b) + 1);
    let mut reader = Entries::new(Trickle { data, step }, limits);
    for expected in &entries {
        let found = reader.next_entry();
        assert_eq!(found.ok().flatten().as_ref(), Some(expected));
    }
    // `None` only where the slice was complete too.
    assert_eq!(matches!(reader.next_entry(), Ok(None)), complete);
}

/// The entries whose headers are whole and whose predecessors' payloads are, and whether the archive is complete.
fn parse_slice(data: &[u8], limits: &TarLimits) -> (Vec<Entry>, bool) {
    let mut parser = Parser::new(limits.clone());
    let mut entries = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let Some((bytes, after)) = rest.split_at_checked(parser.want()) else { return (entries, false) };
        rest = after;
        match parser.take(bytes) {
            Ok(Step::More) => {}
            Ok(Step::End) => return (entries, true),
            Err(_) => return (entries, false),
            Ok(Step::Entry(entry)) => {
                let payload = usize::try_from(entry.size + entry.padding()).unwrap_or(usize::MAX);
                entries.push(*entry);
                let Some((_, after)) = rest.split_at_checked(payload) else { return (entries, false) };
                rest = after;
            }
        }
    }
    (entries, parser.finish().is_ok())
}

/// Gives few bytes at a time.
struct Trickle<'a> {
    data: &'a [u8],
    step: usize,
}

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let end = out.len().min(self.step);
        self.data.read(&mut out[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{END, Header, HeaderFormat, header::*, padding};
    use proptest::prelude::*;

    /// A header block with bytes put over those that a writer would write, and the right checksum.
    fn raw(type_byte: u8, size: u64, change: &[(usize, &[u8])]) -> Vec<u8> {
        let header = Header { path: b"name".to_vec(), size, kind: Kind::Other(type_byte), format: HeaderFormat::Gnu, ..Header::default() };
        let mut block: [u8; BLOCK] = header.to_blocks().unwrap().try_into().unwrap();
        for (at, bytes) in change {
            block[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let sum = format!("{:06o}\0 ", checksums(&block).0);
        block[CHECKSUM].copy_from_slice(sum.as_bytes());
        block.to_vec()
    }

    fn extended(type_byte: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = raw(type_byte, payload.len() as u64, &[]);
        out.extend(payload);
        out.resize(out.len() + padding(payload.len() as u64) as usize, 0);
        out
    }

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        let mut payload = Vec::new();
        records.iter().for_each(|(key, value)| super::pax::write_record(&mut payload, key.as_bytes(), value.as_bytes()));
        extended(b'x', &payload)
    }

    fn file() -> Vec<u8> {
        raw(b'0', 0, &[])
    }

    fn parse(parts: &[Vec<u8>]) -> Result<Vec<Entry>, TarError> {
        let archive = parts.concat();
        let (mut rest, mut parser, mut entries) = (archive.as_slice(), Parser::new(TarLimits::default()), Vec::new());
        while !rest.is_empty() {
            let (bytes, after) = rest.split_at(parser.want());
            rest = after;
            match parser.take(bytes)? {
                Step::More => {}
                Step::End => break,
                Step::Entry(entry) => {
                    rest = &rest[(entry.size + entry.padding()) as usize..];
                    entries.push(*entry);
                }
            }
        }
        parser.finish().map(|()| entries)
    }

    fn one(parts: &[Vec<u8>]) -> Entry {
        let mut entries = parse(parts).unwrap();
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }

    fn error(parts: &[Vec<u8>]) -> String {
        parse(parts).unwrap_err().to_string()
    }

    #[test]
    fn pax_records_beat_the_header() {
        let entry = one(&[
            pax(&[
                ("path", "p/q"),
                ("linkpath", "l"),
                ("size", "3"),
                ("uid", "4000000000"),
                ("gid", "7"),
                ("mtime", "-0.5"),
                ("uname", "ü"),
                ("gname", "g"),
                ("SCHILY.xattr.user.note", "old"),
                ("SCHILY.xattr.user.note", "kept\0"),
                ("SCHILY.xattr.user.empty", ""),
            ]),
            raw(b'0', 0, &[]),
            [&b"abc"[..], &[0; 509]].concat(),
        ]);
        assert_eq!((entry.path.as_slice(), entry.link.as_slice(), entry.size), (&b"p/q"[..], &b"l"[..], 3));
        assert_eq!((entry.uid, entry.gid, entry.mtime), (4_000_000_000, 7, Time { secs: -1, nanos: 500_000_000 }));
        assert_eq!((entry.user.as_slice(), entry.group.as_slice(), entry.padding()), ("ü".as_bytes(), &b"g"[..], 509));
        let xattrs: Vec<_> = entry.xattrs().into_iter().collect();
        assert_eq!(xattrs, [(&b"user.empty"[..], &b""[..]), (b"user.note", b"kept\0")]);
        assert_eq!(entry.pax.len(), 11);
        assert_eq!(one(&[pax(&[("path", "p"), ("path", "")]), file()]).path, b"name");
    }

    #[test]
    fn pax_size_hides_what_is_inside() {
        let hidden = file();
        let entries = parse(&[pax(&[("size", "512")]), raw(b'0', 0, &[]), hidden, END.to_vec()]).unwrap();
        assert_eq!((entries.len(), entries[0].size), (1, 512));
    }

    #[test]
    fn gnu_names() {
        let long = "n".repeat(200);
        let entry = one(&[extended(b'K', b"target\0"), extended(b'L', format!("{long}\0").as_bytes()), file()]);
        assert_eq!((entry.path.as_slice(), entry.link.as_slice()), (long.as_bytes(), &b"target"[..]));
        assert_eq!(one(&[extended(b'L', b"no end"), file()]).path, b"no end");
        assert_eq!(one(&[extended(b'L', b""), file()]).path, b"name");
        assert_eq!(one(&[pax(&[("path", "same")]), extended(b'L', b"same"), file()]).path, b"same");
        assert_eq!(error(&[extended(b'L', b"a\0b"), file()]), "path contains a NUL byte");
        assert_eq!(
            error(&[pax(&[("path", "other")]), extended(b'L', b"same"), file()]),
            "GNU long path differs from that of the PAX header, expected one of them or the same"
        );
    }

    #[test]
    fn kinds_and_payloads() {
        let size = |type_byte, change: &[(usize, &[u8])]| {
            let payload = vec![0; 512];
            let entries = parse(&[raw(type_byte, 5, change), payload]).unwrap();
            (entries[0].kind, entries[0].size)
        };
        assert_eq!(size(b'0', &[]), (Kind::File, 5));
        assert_eq!(size(b'7', &[]), (Kind::File, 5));
        assert_eq!(size(0, &[]), (Kind::File, 5));
        assert_eq!(size(b'V', &[]), (Kind::Other(b'V'), 5));
        assert_eq!(size(0, &[(0, b"old/\0")]), (Kind::Directory, 0));
        assert_eq!(size(b'0', &[(0, b"new/\0")]), (Kind::File, 5));
        for (byte, kind) in
            [(b'1', Kind::HardLink), (b'2', Kind::Symlink), (b'3', Kind::CharDevice), (b'5', Kind::Directory), (b'6', Kind::Fifo)]
        {
            assert_eq!(size(byte, &[]), (kind, 0));
        }
    }

    #[test]
    fn ends() {
        let zero = || vec![0; BLOCK];
        assert_eq!(parse(&[]).unwrap().len(), 0);
        assert_eq!(parse(&[file()]).unwrap().len(), 1);
        assert_eq!(parse(&[file(), zero()]).unwrap().len(), 1);
        assert_eq!(parse(&[file(), zero(), zero(), b"junk".to_vec()]).unwrap().len(), 1);
        assert_eq!(error(&[file(), zero(), file()]), "a single block of zeros is followed by a header, expected a second one or the end");
        let mut parser = Parser::new(TarLimits::default());
        assert_eq!(
            [parser.take(&[0; BLOCK]), parser.take(&[0; BLOCK]), parser.take(&[7; BLOCK])],
            [Ok(Step::More), Ok(Step::End), Ok(Step::End)]
        );
        assert_eq!(parser.take(&[0; 9]), Err(TarError::Truncated { expected: 512, found: 9 }));
    }

    #[test]
    fn orphans_and_repetitions() {
        let x = || pax(&[("path", "a")]);
        let orphan = |found| TarError::Orphan { found }.to_string();
        assert_eq!(error(&[x()]), orphan("the end"));
        assert_eq!(error(&[extended(b'L', b"a"), END.to_vec()]), orphan("a block of zeros"));
        assert_eq!(error(&[x(), extended(b'g', b""), file()]), orphan("a global header"));
        assert_eq!(error(&[x(), x(), file()]), "a second PAX header precedes one entry, expected one");
        assert_eq!(error(&[extended(b'L', b"a"), extended(b'L', b"a")]), "a second GNU long name precedes one entry, expected one");
        assert_eq!(error(&[extended(b'K', b"a"), extended(b'K', b"a")]), "a second GNU long link precedes one entry, expected one");
    }

    #[test]
    fn global_headers_have_no_effect() {
        let global = |records: &[(&str, &str)]| {
            let mut header = pax(records);
            let size = unsigned_number("size", &header[SIZE]).unwrap();
            header[..BLOCK].copy_from_slice(&raw(b'g', size, &[]));
            header
        };
        let entry = one(&[global(&[("comment", "1234"), ("uid", "5")]), file()]);
        assert_eq!((entry.uid, entry.pax.len()), (0, 0));
        for key in ["path", "linkpath", "size", "GNU.sparse.map"] {
            assert_eq!(
                error(&[global(&[(key, "1")]), file()]),
                format!("global header holds `{key}`, expected it for single entries only")
            );
        }
    }

    #[test]
    fn numbers_in_range() {
        assert_eq!(error(&[raw(b'0', 0, &[(SIZE.start, b"-0000000001\0")])]), r"size is `-0000000001\x00`, expected an octal number");
        assert_eq!(error(&[raw(b'0', 0, &[(SIZE.start, &[0xff; 12])])]), "size is `-1`, expected no negative number");
        assert_eq!(one(&[raw(b'0', 0, &[(MTIME.start, &[0xff; 12])])]).mtime, Time::from_secs(-1));
        for (key, value) in [
            ("size", "-1"),
            ("size", "9223372036854775808"),
            ("size", "1x"),
            ("uid", "4294967296"),
            ("uid", "-1"),
            ("mtime", "x"),
            ("atime", "x"),
        ] {
            assert!(error(&[pax(&[(key, value)]), file()]).starts_with(&format!("{key} is `{value}`, expected ")), "{key}={value}");
        }
        let huge = one_header(&[pax(&[("size", "9223372036854775807")]), file()].concat());
        assert_eq!((huge.size, huge.padding()), (i64::MAX as u64, 1));
    }

    fn one_header(headers: &[u8]) -> Entry {
        Entries::new(headers, TarLimits::default()).next_entry().unwrap().unwrap()
    }

    #[test]
    fn limits_hold() {
        let xattr = "v".repeat(1 << 20);
        assert_eq!(one(&[pax(&[("SCHILY.xattr.user.big", &xattr)]), file()]).xattrs().len(), 1);
        let limit = "size of an extended header in bytes is 1052673, expected at most 1052672";
        assert_eq!(error(&[raw(b'x', (1 << 20) + 4097, &[])]), limit);
        assert!(error(&[raw(b'L', 600_000, &[])]).contains("expected at most 65537"));
        let path = "length of a path or link in bytes is 600000, expected at most 65536";
        assert_eq!(error(&[pax(&[("path", &"p".repeat(600_000))]), file()]), path);
        assert_eq!(one(&[extended(b'L', &[b'p'; 65_536]), file()]).path.len(), 65_536);
        let many = vec![("a", "b"); (1 << 16) + 1];
        assert!(error(&[pax(&many), file()]).starts_with("number of records in a PAX header is 65537"));
    }

    #[test]
    fn sparse_files_of_old_gnu() {
        let pair = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0").into_bytes();
        let pieces = |range: std::ops::Range<u64>| range.flat_map(|n| pair(n * 1024, 1)).collect::<Vec<u8>>();
        let header = raw(b'S', 30, &[(GNU_SPARSE.start, &pieces(0..4)), (GNU_SPARSE_MORE, &[1]), (GNU_REAL_SIZE.start, b"00000100000\0")]);
        let block = |range, more: u8| {
            let mut block = pieces(range);
            block.resize(BLOCK, 0);
            block[sparse::CONTINUED_MORE] = more;
            block
        };
        let parts = [header.clone(), block(4..25, 1), block(25..30, 0), vec![b'd'; 512]];
        let entry = one(&parts);
        assert_eq!((entry.kind, entry.size, entry.content_size()), (Kind::File, 30, 0o100000));
        assert_eq!(entry.sparse.unwrap().map, (0..30).map(|n| (n * 1024, 1)).collect::<Vec<_>>());
        assert_eq!(error(std::slice::from_ref(&header)), "archive ends 0 bytes into a header of 512 bytes");
        assert_eq!(error(&[header, block(4..25, 0)]), "map of a sparse file does not cover as many bytes as follow");
        assert_eq!(error(&[raw(b'S', 0, &[(MAGIC.start, MAGIC_USTAR)])]), "map of a sparse file is in a header that is not GNU's");
    }

    #[test]
    fn sparse_files_of_pax() {
        let version_1 = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "real"), ("GNU.sparse.realsize", "100")];
        let mut map = b"1\n90\n10\n".to_vec();
        map.resize(BLOCK, 0);
        let data = vec![b'd'; 512];
        let entry = one(&[pax(&version_1), raw(b'0', 522, &[]), map.clone(), data.clone()]);
        assert_eq!((entry.path.as_slice(), entry.size, entry.content_size()), (&b"real"[..], 10, 100));
        let short = error(&[pax(&version_1), raw(b'0', 10, &[]), map.clone()]);
        assert_eq!(short, "map of a sparse file does not end before the payload does");
        assert!(error(&[pax(&version_1), raw(b'0', 512, &[]), b"999999\n".repeat(74)[..BLOCK].to_vec()]).contains("number of pieces"));
        assert_eq!(error(&[pax(&version_1), raw(b'5', 522, &[])]), "map of a sparse file belongs to what is no regular file");
        let version_0 = [("GNU.sparse.name", "real"), ("GNU.sparse.size", "100"), ("GNU.sparse.map", "90,10")];
        assert_eq!(one(&[pax(&version_0), raw(b'0', 10, &[]), data]).content_size(), 100);
    }

    fn sample() -> Vec<u8> {
        let mut parts = vec![pax(&[("path", "long"), ("mtime", "1.5"), ("SCHILY.xattr.user.a", "b")]), raw(b'0', 3, &[]), vec![b'x'; 512]];
        parts.extend([extended(b'L', b"gnu\0"), file(), extended(b'g', b"13 comment=x\n"), raw(b'5', 7, &[]), END.to_vec()]);
        parts.concat()
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            fuzz_tar(&data);
        }

        #[test]
        fn mutations_do_not_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), fix: bool, cut in 0..5000_usize) {
            let mut archive = sample();
            for (at, byte) in changes {
                let at = at.index(archive.len());
                archive[at] = byte;
            }
            if fix {
                for block in archive.as_chunks_mut::<BLOCK>().0.iter_mut().filter(|block| block[257..].starts_with(b"ustar")) {
                    let sum = format!("{:06o}\0 ", checksums(block).0);
                    block[CHECKSUM].copy_from_slice(sum.as_bytes());
                }
            }
            archive.truncate(cut.max(512));
            fuzz_tar(&archive);
        }
    }
}

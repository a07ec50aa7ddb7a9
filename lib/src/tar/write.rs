//! Headers to write: from fields to blocks, the way that other tools write them, byte for byte.
//!
//! Two families of writers matter, because archives of ours must equal theirs: Go's `archive/tar` (docker, podman, skopeo, crane) and Python's
//! `tarfile` (bazel's rules, containerregistry). They agree on every number and differ in [`HeaderStyle`].

use std::ops::Range;

use super::header::{self, MAGIC_GNU, MAGIC_USTAR};
use super::{BLOCK, Entry, Kind, Record, TarError, Time, padding, pax};

/// The name of headers that hold a long name, as GNU tar has it.
const LONG_LINK: &[u8] = b"././@LongLink";

/// Records whose meaning is in the fields of [`Header`].
const FIELD_KEYS: [&[u8]; 8] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"uname", b"gname"];

/// What is to be written in front of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Name, written as it is: directories end in `/` by custom.
    pub path: Vec<u8>,
    /// What a link points to.
    pub link: Vec<u8>,
    /// What the entry is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of the last change; a fraction of a second needs [`HeaderFormat::Pax`].
    pub mtime: Time,
    /// Bytes of payload that the caller writes after the header, before [`padding`]; at most 2^63 - 1.
    pub size: u64,
    /// Owner's name.
    pub user: Vec<u8>,
    /// Group's name.
    pub group: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u64, u64),
    /// More PAX records, such as `SCHILY.xattr.user.note`; they need [`HeaderFormat::Pax`]. The fields above beat those of the same meaning.
    pub records: Vec<Record>,
    /// What may be written where the fields of a header do not suffice.
    pub format: HeaderFormat,
    /// Whose habits to follow.
    pub style: HeaderStyle,
}

/// What is written where the fields of a ustar header do not suffice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HeaderFormat {
    /// GNU tar's own: its magic always, long names in headers `L` and `K`, base-256 numbers.
    Gnu,
    /// A ustar header when that suffices, with a PAX header before it when not.
    #[default]
    Pax,
    /// A ustar header (names may be split at a slash), or an error.
    Ustar,
}

/// The habits in which writers of one format differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HeaderStyle {
    /// Go's `archive/tar`: device numbers of other kinds are octal zeros; a PAX header is named `DIR/PaxHeaders.0/NAME` and sorted by key; names
    /// are split as late as possible, also where PAX is allowed.
    #[default]
    Go,
    /// Python's `tarfile` (checked with containerregistry's archives and Python 3.11): device numbers of other kinds are NULs; a PAX header is named `././@PaxHeader` and has extra records
    /// first; names are split as early as possible, and never where PAX is allowed.
    Python,
}

impl Default for Header {
    /// An empty file without a name, mode 0644, owned by root, of 1970.
    fn default() -> Self {
        Self {
            path: Vec::new(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            user: Vec::new(),
            group: Vec::new(),
            device: (0, 0),
            records: Vec::new(),
            format: HeaderFormat::default(),
            style: HeaderStyle::default(),
        }
    }
}

impl From<&Entry> for Header {
    /// Describes the same entry; a sparse one as the plain file of its [`Entry::content_size`].
    fn from(entry: &Entry) -> Self {
        let is_extra = |key: &[u8]| !FIELD_KEYS.contains(&key) && !key.starts_with(b"GNU.sparse.");
        Self {
            path: entry.path.clone(),
            link: entry.link.clone(),
            kind: entry.kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            size: entry.content_size(),
            user: entry.user.clone(),
            group: entry.group.clone(),
            device: entry.device,
            records: entry.pax.iter().filter(|(key, _)| is_extra(key)).cloned().collect(),
            ..Self::default()
        }
    }
}

/// What to do with a number that octal digits cannot hold.
#[derive(Clone, Copy)]
enum Overflow {
    Refuse,
    /// Write 0, since a PAX record holds it.
    Zero,
    Base256,
}

/// The texts of a block, already cut to what it may hold.
struct Texts<'a> {
    prefix: &'a [u8],
    path: &'a [u8],
    link: &'a [u8],
    user: &'a [u8],
    group: &'a [u8],
}

impl Header {
    /// Makes the blocks of the header, and of extended headers in front of it where they are needed.
    ///
    /// # Errors
    /// [`TarError::Unfit`] for what the format has no room for, [`TarError::Nul`] for a name with a NUL byte.
    pub fn to_blocks(&self) -> Result<Vec<u8>, TarError> {
        for (field, text) in [("path", &self.path), ("link", &self.link), ("user name", &self.user), ("group name", &self.group)] {
            if text.contains(&0) {
                return Err(TarError::Nul { field });
            }
        }
        match self.format {
            HeaderFormat::Gnu => self.gnu(),
            HeaderFormat::Pax => self.pax(),
            HeaderFormat::Ustar => {
                self.refuse_pax()?;
                self.ustar()
            }
        }
    }

    fn ustar(&self) -> Result<Vec<u8>, TarError> {
        let (prefix, path) = self.split().ok_or(TarError::Unfit { field: "path" })?;
        check_length("link", &self.link, header::LINK)?;
        let texts = Texts { prefix, path, link: &self.link, user: &self.user, group: &self.group };
        Ok(self.block(MAGIC_USTAR, &texts, Overflow::Refuse)?.to_vec())
    }

    /// Without PAX there is no room for a fraction of a second and for other records.
    fn refuse_pax(&self) -> Result<(), TarError> {
        match (self.mtime.nanos, self.records.is_empty()) {
            (0, true) => Ok(()),
            (0, false) => Err(TarError::Unfit { field: "PAX record" }),
            _ => Err(TarError::Unfit { field: "fraction of a second of mtime" }),
        }
    }

    fn gnu(&self) -> Result<Vec<u8>, TarError> {
        self.refuse_pax()?;
        let name = (b'L', &self.path, header::NAME);
        let link = (b'K', &self.link, header::LINK);
        let order = match self.style {
            HeaderStyle::Go => [name, link],
            HeaderStyle::Python => [link, name],
        };
        let mut out = Vec::new();
        for (type_byte, text, field) in order {
            if text.len() > field.len() {
                extended(&mut out, LONG_LINK, type_byte, MAGIC_GNU, &[text, &b"\0"[..]].concat())?;
            }
        }
        let texts = Texts { prefix: b"", path: self.cut(&self.path), link: self.cut(&self.link), user: &self.user, group: &self.group };
        out.extend_from_slice(&self.block(MAGIC_GNU, &texts, Overflow::Base256)?);
        Ok(out)
    }

    fn pax(&self) -> Result<Vec<u8>, TarError> {
        let records = self.pax_records()?;
        if records.is_empty() {
            return self.ustar();
        }
        let mut payload = Vec::new();
        for (key, value) in &records {
            pax::write_record(&mut payload, key, value);
        }
        let mut out = Vec::new();
        extended(&mut out, &self.pax_name(), b'x', MAGIC_USTAR, &payload)?;
        let [path, link, user, group] = [&self.path, &self.link, &self.user, &self.group].map(|text| self.to_ascii(text));
        let texts = Texts {
            prefix: b"",
            path: self.cut(&path),
            link: self.cut(&link),
            user: &user[..user.len().min(header::USER.len())],
            group: &group[..group.len().min(header::GROUP.len())],
        };
        out.extend_from_slice(&self.block(MAGIC_USTAR, &texts, Overflow::Zero)?);
        Ok(out)
    }

    /// The records without which a ustar header would not say everything; none when it suffices.
    fn pax_records(&self) -> Result<Vec<Record>, TarError> {
        let mut records = Vec::new();
        for (key, value) in &self.records {
            if key.is_empty() || key.contains(&0) || key.contains(&b'=') {
                return Err(TarError::Unfit { field: "key of a PAX record" });
            }
            if !FIELD_KEYS.contains(&key.as_slice()) {
                records.push((key.clone(), value.clone()));
            }
        }
        let texts = [
            ("path", &self.path, header::NAME),
            ("linkpath", &self.link, header::LINK),
            ("uname", &self.user, header::USER),
            ("gname", &self.group, header::GROUP),
        ];
        let too_long = |text: &[u8], field: Range<usize>| text.len() > field.len();
        let unfit = texts.into_iter().filter(|(_, text, field)| !text.is_ascii() || too_long(text, field.clone()));
        let numbers = [
            ("uid", signed("uid", self.uid)?, header::UID, 0),
            ("gid", signed("gid", self.gid)?, header::GID, 0),
            ("size", signed("size", self.size)?, header::SIZE, 0),
            ("mtime", self.mtime.secs, header::MTIME, self.mtime.nanos),
        ];
        let large = numbers.into_iter().filter(|(_, number, field, nanos)| *nanos > 0 || !fits_octal(field.len(), *number));
        let mut needed: Vec<Record> = unfit.map(|(key, text, _)| (key.into(), text.clone())).collect();
        needed.extend(large.map(|(key, secs, _, nanos)| (key.into(), pax::write_time(Time { secs, nanos }).into_bytes())));
        // Go notes a long name also where splitting it would do, but then does not choose PAX for its sake.
        let splits = self.style == HeaderStyle::Go && self.path.is_ascii() && self.split().is_some();
        if splits && records.is_empty() && needed.iter().all(|(key, _)| key == b"path") {
            return Ok(Vec::new());
        }
        records.append(&mut needed);
        if self.style == HeaderStyle::Go {
            records.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Ok(records)
    }

    /// The name of the PAX header.
    fn pax_name(&self) -> Vec<u8> {
        if self.style == HeaderStyle::Python {
            return b"././@PaxHeader".to_vec();
        }
        let start = self.path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        let (dir, base) = self.path.split_at(start);
        let parts = dir.split(|&b| b == b'/').chain([&b"PaxHeaders.0"[..], base]);
        let parts: Vec<_> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
        let root: &[u8] = if dir.starts_with(b"/") { b"/" } else { b"" };
        let name = self.to_ascii(&[root, &parts.join(&b'/')].concat());
        let cut = &name[..name.len().min(header::NAME.len())];
        let end = cut.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
        cut[..end].to_vec()
    }

    /// The text in a header whose PAX record has the true one.
    fn to_ascii(&self, text: &[u8]) -> Vec<u8> {
        match self.style {
            HeaderStyle::Go => text.iter().copied().filter(u8::is_ascii).collect(),
            HeaderStyle::Python => {
                let replaced = |c: char| u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(b'?');
                text.utf8_chunks().flat_map(|c| c.valid().chars().map(replaced).chain(c.invalid().iter().map(|_| b'?'))).collect()
            }
        }
    }

    /// The beginning of a long name, for the 100 bytes of a header that is preceded by the whole one.
    fn cut<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        if text.len() <= header::NAME.len() {
            return text;
        }
        let cut = &text[..header::NAME.len()];
        match (self.style, cut) {
            // Old readers take a file whose name ends in a slash for a directory, so Go leaves none at the cut.
            (HeaderStyle::Go, [.., b'/']) => &cut[..cut.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1)],
            _ => cut,
        }
    }

    /// Splits the name into prefix and name of a ustar header, at a slash when it is too long for the latter.
    fn split(&self) -> Option<(&[u8], &[u8])> {
        let (path, room) = (self.path.as_slice(), header::NAME.len());
        if path.len() <= room {
            return Some((b"", path));
        }
        let fits = |at: &usize| (1..=header::PREFIX.len()).contains(at) && (1..=room).contains(&(path.len() - at - 1));
        let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let at = match self.style {
            HeaderStyle::Go => slashes.rfind(fits),
            HeaderStyle::Python => slashes.find(fits),
        }?;
        Some((&path[..at], &path[at + 1..]))
    }

    /// Fills one block, and sums it up.
    fn block(&self, magic: &[u8; 8], texts: &Texts<'_>, overflow: Overflow) -> Result<[u8; BLOCK], TarError> {
        check_length("user name", texts.user, header::USER)?;
        check_length("group name", texts.group, header::GROUP)?;
        // No PAX record exists for these.
        let strict = if matches!(overflow, Overflow::Zero) { Overflow::Refuse } else { overflow };
        let mut block = [0; BLOCK];
        for (range, text) in
            [(header::NAME, texts.path), (header::LINK, texts.link), (header::USER, texts.user), (header::GROUP, texts.group)]
        {
            block[range][..text.len()].copy_from_slice(text);
        }
        if magic == MAGIC_USTAR {
            block[header::PREFIX][..texts.prefix.len()].copy_from_slice(texts.prefix);
        }
        put(&mut block, "mode", header::MODE, self.mode.into(), strict)?;
        put(&mut block, "uid", header::UID, signed("uid", self.uid)?, overflow)?;
        put(&mut block, "gid", header::GID, signed("gid", self.gid)?, overflow)?;
        put(&mut block, "size", header::SIZE, signed("size", self.size)?, overflow)?;
        put(&mut block, "mtime", header::MTIME, self.mtime.secs, overflow)?;
        if self.style == HeaderStyle::Go || matches!(self.kind, Kind::CharDevice | Kind::BlockDevice) {
            put(&mut block, "device major number", header::MAJOR, signed("device major number", self.device.0)?, strict)?;
            put(&mut block, "device minor number", header::MINOR, signed("device minor number", self.device.1)?, strict)?;
        }
        seal(&mut block, self.kind.to_byte(), magic);
        Ok(block)
    }
}

/// Appends a header of its own with `payload`, padded.
fn extended(out: &mut Vec<u8>, name: &[u8], type_byte: u8, magic: &[u8; 8], payload: &[u8]) -> Result<(), TarError> {
    let mut block = [0; BLOCK];
    block[header::NAME][..name.len()].copy_from_slice(name);
    for (field, range) in [("mode", header::MODE), ("uid", header::UID), ("gid", header::GID), ("mtime", header::MTIME)] {
        put(&mut block, field, range, 0, Overflow::Refuse)?;
    }
    let size = payload.len() as u64;
    put(&mut block, "extended header", header::SIZE, signed("extended header", size)?, Overflow::Refuse)?;
    seal(&mut block, type_byte, magic);
    out.extend_from_slice(&block);
    out.extend_from_slice(payload);
    out.resize(out.len() + usize::try_from(padding(size)).expect("less than a block"), 0);
    Ok(())
}

/// Completes a block: type, magic and checksum.
fn seal(block: &mut [u8; BLOCK], type_byte: u8, magic: &[u8; 8]) {
    block[header::TYPE] = type_byte;
    block[header::MAGIC].copy_from_slice(magic);
    let (sum, _) = header::checksums(block);
    // Alone among the numbers it ends in NUL and space; the sum of a block has at most six digits.
    block[header::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn put(block: &mut [u8; BLOCK], name: &'static str, range: Range<usize>, value: i64, overflow: Overflow) -> Result<(), TarError> {
    let field = &mut block[range];
    let digits = field.len() - 1;
    let bits = 8 * digits;
    let value = match overflow {
        _ if fits_octal(field.len(), value) => value,
        Overflow::Zero => 0,
        // The first byte is the sign and nothing else.
        Overflow::Base256 if bits >= 64 || (-(1 << bits)..1 << bits).contains(&value) => {
            let sign = if value < 0 { 0xff } else { 0 };
            let bytes = std::iter::repeat_n(sign, field.len()).chain(value.to_be_bytes());
            let skip = size_of::<i64>();
            field.iter_mut().zip(bytes.skip(skip)).for_each(|(out, byte)| *out = byte);
            field[0] = sign | 0x80;
            return Ok(());
        }
        Overflow::Base256 | Overflow::Refuse => return Err(TarError::Unfit { field: name }),
    };
    field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    Ok(())
}

/// Whether octal digits and a NUL fit into a field of `length` bytes.
fn fits_octal(length: usize, value: i64) -> bool {
    (0..1 << (3 * (length - 1))).contains(&value)
}

fn signed(field: &'static str, value: u64) -> Result<i64, TarError> {
    i64::try_from(value).map_err(|_| TarError::Unfit { field })
}

fn check_length(field: &'static str, text: &[u8], range: Range<usize>) -> Result<(), TarError> {
    if text.len() > range.len() { Err(TarError::Unfit { field }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{END, Entries, TarLimits};
    use proptest::prelude::*;

    /// Builds a block from what a hex dump of a real one shows.
    fn dump(fields: &[(Range<usize>, &[u8])]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        for (range, bytes) in fields {
            block[range.clone()][..bytes.len()].copy_from_slice(bytes);
        }
        block
    }

    /// The numbers of a header whose ids are zero.
    fn numbers<'a>(mode: &'a [u8], size: &'a [u8], mtime: &'a [u8], sum: &'a [u8]) -> Vec<(Range<usize>, &'a [u8])> {
        let zero = &b"0000000"[..];
        vec![
            (header::MODE, mode),
            (header::UID, zero),
            (header::GID, zero),
            (header::SIZE, size),
            (header::MTIME, mtime),
            (header::CHECKSUM, sum),
        ]
    }

    /// Parses headers that stand in front of `payload`, and makes them anew.
    fn rebuild(blocks: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
        let mut entries = Entries::new(blocks, TarLimits::default());
        let mut header = Header::from(&entries.next_entry().unwrap().unwrap());
        change(&mut header);
        header.to_blocks().unwrap()
    }

    const EPOCH: &[u8] = b"00000000000";
    const GO_DEVICE: [(Range<usize>, &[u8]); 2] = [(header::MAJOR, b"0000000"), (header::MINOR, b"0000000")];

    #[test]
    fn equals_crane() {
        let name = b"manifest.json";
        let mut fields = numbers(b"0000644", b"00000001000", EPOCH, b"011675\0 ");
        fields.extend([(header::NAME, &name[..]), (header::TYPE..157, b"0"), (header::MAGIC, MAGIC_USTAR)]);
        fields.extend(GO_DEVICE);
        let block = dump(&fields);
        assert_eq!(rebuild(&block, |_| {}), block);
        assert_eq!(rebuild(&block, |header| header.format = HeaderFormat::Ustar), block);
    }

    #[test]
    fn equals_podman_4() {
        let layer = b"a12e86156783739f43068ac453708b569572062c4127137b2a109b1c7f32b607.tar";
        let mut fields = numbers(b"0000444", b"00000360000", EPOCH, b"017551\0 ");
        fields.extend([(header::NAME, &layer[..]), (header::TYPE..157, b"0"), (header::MAGIC, MAGIC_USTAR)]);
        fields.extend(GO_DEVICE);
        let block = dump(&fields);
        assert_eq!(rebuild(&block, |_| {}), block);

        let name = b"00c47ddc0432f4e004772fadcd0a142e7750a3cecefe9b5da9ec29b87406a909/layer.tar";
        let target = [b"../", &layer[..]].concat();
        let mut fields = numbers(b"0000000", EPOCH, EPOCH, b"032647\0 ");
        fields.extend([(header::NAME, &name[..]), (header::TYPE..157, b"2"), (header::LINK, &target), (header::MAGIC, MAGIC_USTAR)]);
        fields.extend(GO_DEVICE);
        let block = dump(&fields);
        assert_eq!(rebuild(&block, |_| {}), block);
    }

    #[test]
    fn equals_docker_20() {
        let name = b"07541209134bbef015f268604acebc995c4985c540abfbfd21af24eab0662e2c/";
        let mut fields = numbers(b"0040755", EPOCH, b"14544676445", b"022016\0 ");
        fields.extend([(header::NAME, &name[..]), (header::TYPE..157, b"5"), (header::MAGIC, MAGIC_USTAR)]);
        fields.extend([(header::USER, &b"root"[..]), (header::GROUP, b"root")]);
        fields.extend(GO_DEVICE);
        let block = dump(&fields);
        assert_eq!(rebuild(&block, |_| {}), block);
    }

    #[test]
    fn equals_python_tarfile() {
        // containerregistry's v1 archive.
        let name = b"63da381b846cf09e1d240d5dd6cbb72022f7de6d6da0e4affee96584742be1d6/VERSION";
        let mut fields = numbers(b"0000644", b"00000000003", EPOCH, b"020172\0 ");
        fields.extend([(header::NAME, &name[..]), (header::TYPE..157, b"0"), (header::MAGIC, MAGIC_USTAR)]);
        let block = dump(&fields);
        assert_eq!(rebuild(&block, |header| header.style = HeaderStyle::Python), block);

        // Python 3.11's `tarfile.GNU_FORMAT`, with a long name.
        let name = b"./db937e2a79cd879e1379ed28829ca02d9ef22037f7f804ba15ee3870146748c3/a12e86156783739f43068ac453708b569572062c4127137b2a109b1c7f32b607.tar";
        let mut fields = numbers(b"0000000", b"00000000210", EPOCH, b"007746\0 ");
        fields.extend([(header::NAME, LONG_LINK), (header::TYPE..157, b"L"), (header::MAGIC, MAGIC_GNU)]);
        let mut blocks = dump(&fields);
        blocks.extend(dump(&[(0..BLOCK, name)]));
        let mut fields = numbers(b"0000644", b"00000360000", EPOCH, b"022515\0 ");
        fields.extend([(header::NAME, &name[..100]), (header::TYPE..157, b"0"), (header::MAGIC, MAGIC_GNU)]);
        blocks.extend(dump(&fields));
        let rebuilt = rebuild(&blocks, |header| (header.format, header.style) = (HeaderFormat::Gnu, HeaderStyle::Python));
        assert_eq!(rebuilt, blocks);
    }

    fn header(path: &str) -> Header {
        Header { path: path.as_bytes().to_vec(), ..Header::default() }
    }

    fn types(blocks: &[u8]) -> String {
        blocks
            .chunks(BLOCK)
            .filter(|block| block[header::MAGIC].starts_with(b"ustar"))
            .map(|block| char::from(block[header::TYPE]))
            .collect()
    }

    #[test]
    fn adds_a_pax_header_only_when_needed() {
        let long = format!("{}/{}", "d".repeat(90), "n".repeat(90));
        let python = |path: &str| Header { style: HeaderStyle::Python, ..header(path) };
        let deep = "d/".repeat(100);
        for (header, expected) in [
            (header("a"), "0"),
            (header(&long), "0"),
            (python(&long), "x0"),
            (header(&deep), "0"),
            (header(&"n".repeat(101)), "x0"),
            (header("ä"), "x0"),
            (Header { uid: 0o7777777, ..header("a") }, "0"),
            (Header { uid: 0o10000000, ..header("a") }, "x0"),
            (Header { size: 8 << 30, ..header("a") }, "x0"),
            (Header { size: (8 << 30) - 1, ..header("a") }, "0"),
            (Header { mtime: Time::from_secs(-1), ..header("a") }, "x0"),
            (Header { mtime: Time { secs: 1, nanos: 1 }, ..header("a") }, "x0"),
            (Header { records: vec![(b"k".to_vec(), vec![])], ..header("a") }, "x0"),
            (Header { records: vec![(b"size".to_vec(), b"9".to_vec())], ..header("a") }, "0"),
            (Header { format: HeaderFormat::Gnu, uid: 1 << 31, ..header(&long) }, "L0"),
            (Header { format: HeaderFormat::Gnu, link: vec![b'l'; 101], kind: Kind::Symlink, ..header(&long) }, "LK2"),
        ] {
            assert_eq!(types(&header.to_blocks().unwrap()), expected, "{header:?}");
        }
    }

    #[test]
    fn names_pax_headers_as_go_and_python_do() {
        let name = |header: Header| String::from_utf8(header::c_string(&header.to_blocks().unwrap()[..100]).to_vec()).unwrap();
        assert_eq!(name(header("./a/ü")), "a/PaxHeaders.0");
        assert_eq!(name(header("ü.txt")), "PaxHeaders.0/.txt");
        assert_eq!(name(header("/ä/b/")), "//b/PaxHeaders.0");
        assert_eq!(name(header(&format!("{}/b", "d".repeat(200)))), "d".repeat(100));
        assert_eq!(name(Header { style: HeaderStyle::Python, ..header("a/ü") }), "././@PaxHeader");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let ustar = |header: Header| Header { format: HeaderFormat::Ustar, ..header }.to_blocks();
        let unfit = |field| Err(TarError::Unfit { field });
        assert_eq!(ustar(header(&"n".repeat(101))), unfit("path"));
        assert_eq!(ustar(Header { uid: 1 << 21, ..header("a") }), unfit("uid"));
        assert_eq!(ustar(Header { mtime: Time { secs: 0, nanos: 1 }, ..header("a") }), unfit("fraction of a second of mtime"));
        assert_eq!(ustar(header("a\0b")), Err(TarError::Nul { field: "path" }));
        assert_eq!(Header { size: 1 << 63, ..header("a") }.to_blocks(), unfit("size"));
        assert_eq!(Header { mode: 1 << 21, ..header("a") }.to_blocks(), unfit("mode"));
        assert_eq!(Header { device: (1 << 21, 0), ..header("a") }.to_blocks(), unfit("device major number"));
        assert_eq!(Header { records: vec![(b"a=b".to_vec(), vec![])], ..header("a") }.to_blocks(), unfit("key of a PAX record"));
        assert_eq!(Header { format: HeaderFormat::Gnu, user: vec![b'u'; 33], ..header("a") }.to_blocks(), unfit("user name"));
    }

    prop_compose! {
        fn any_name(max: usize)(name in proptest::collection::vec(prop_oneof![Just(b'/'), b'a'..=b'z', 1..=255_u8], 1..max)) -> Vec<u8> { name }
    }

    prop_compose! {
        fn any_header()(
            path in any_name(300),
            link in any_name(200),
            kind in prop::sample::select(&[Kind::File, Kind::HardLink, Kind::Symlink, Kind::CharDevice, Kind::Directory, Kind::Fifo, Kind::Other(b'V')]),
            mode in 0..1_u32 << 21,
            uid in prop_oneof![0..1_u64 << 21, Just(u64::from(u32::MAX))],
            gid in 0..1_u64 << 32,
            secs in prop_oneof![Just(0), any::<i64>(), 0..1_i64 << 33],
            nanos in prop_oneof![Just(0), 0..1_000_000_000_u32],
            size in prop_oneof![Just(0), any::<i64>().prop_map(i64::unsigned_abs).prop_filter("63 bits", |size| *size < 1 << 63)],
            user in any_name(40),
            device in (0..1_u64 << 21, 0..1_u64 << 21),
            note in prop::option::of(any_name(1000)),
            style in prop::sample::select(&[HeaderStyle::Go, HeaderStyle::Python]),
        ) -> Header {
            let device = if style == HeaderStyle::Go || kind == Kind::CharDevice { device } else { (0, 0) };
            let size = if kind.has_payload() { size } else { 0 };
            let records = note.map(|note| (b"SCHILY.xattr.user.note".to_vec(), note)).into_iter().collect();
            let group = b"wheel".to_vec();
            let (mtime, format) = (Time { secs, nanos }, HeaderFormat::Pax);
            Header { path, link, kind, mode, uid, gid, mtime, size, user, group, device, records, format, style }
        }
    }

    proptest! {
        #[test]
        fn writing_then_parsing_is_identity(header in any_header(), is_gnu: bool) {
            let mut header = header;
            if is_gnu {
                header.format = HeaderFormat::Gnu;
                header.mtime.nanos = 0;
                header.records.clear();
                header.user.truncate(32);
            }
            let archive = [header.to_blocks().unwrap(), END.to_vec()].concat();
            let entry = Entries::new(archive.as_slice(), TarLimits::default()).next_entry().unwrap().unwrap();
            prop_assert_eq!(Header { format: header.format, style: header.style, ..Header::from(&entry) }, header);
        }
    }
}

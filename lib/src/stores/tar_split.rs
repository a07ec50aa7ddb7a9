//! Rebuilds a layer's tar from what [tar-split] kept of it and the files that it was unpacked to.
//!
//! A store keeps a layer as a folder, and beside it everything of the tar that is not the content of a file. tar-split writes that as lines of
//! JSON, compressed with gzip:
//!
//! ```text
//! {"type":2,"payload":"<base64>","position":0}                               bytes of the tar: headers and padding
//! {"type":1,"name":"etc/hosts","size":174,"payload":"<base64>","position":1}   the content of a file (and its CRC-64)
//! {"type":1,"name_raw":"<base64>",...}                                       the same, of a name that is not UTF-8
//! ```
//!
//! Put together in their order they are the tar, byte for byte. What is missing or has another size is an error here; another content is found
//! by whoever reads, since the digest of the tar is known: so the CRC is not looked at.
//!
//! [tar-split]: https://github.com/vbatts/tar-split/blob/v0.11.5/tar/storage/entry.go

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Cursor, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{base64, disk};
use crate::beneath::Beneath;
use crate::compress::{Compression, DecodeLimits, decoder};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::tar::{RootPath, escape_bytes};

/// Bytes of one line. Docker wrote all that follows the end of an archive as one, in base64.
const LINE: u64 = 16 << 20;

/// Bytes of lines that are read ahead.
const BUFFER: usize = 128 << 10;

/// Why a file is not as it was when the layer was unpacked, in words.
const CHANGED: &str = "the layer is being deleted or was changed";

/// Where the contents of a layer's files are.
pub(super) trait Contents: Send {
    /// One of them.
    type File: Read + Seek + Send;

    /// Opens the file of an entry, and says how many bytes it has.
    fn open(&self, name: &[u8]) -> Result<(Self::File, u64)>;
}

/// A folder that a layer was unpacked to.
#[derive(Debug)]
pub(super) struct Folder {
    root: OwnedFd,
    beneath: Beneath,
}

impl Folder {
    pub(super) fn new(root: OwnedFd) -> Self {
        let beneath = Beneath::detect(&root);
        Self { root, beneath }
    }
}

impl Contents for Arc<Folder> {
    type File = File;

    fn open(&self, name: &[u8]) -> Result<(File, u64)> {
        let path = RootPath::parse_layer(name).map_err(|error| Error::invalid(format_args!("its name {error}")))?;
        let file = self.beneath.open_file_in_root(&self.root, path.as_bytes()).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => Error::not_found(format_args!("it is missing: {CHANGED}")),
            Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::AGAIN => Error::mismatch(format_args!("it is not a regular file: {CHANGED}")),
            error => Error::io(error.into()),
        })?;
        let meta = file.metadata().map_err(Error::io)?;
        if !meta.is_file() {
            return Err(Error::mismatch(format_args!("it is not a regular file: {CHANGED}")));
        }
        Ok((file, meta.len()))
    }
}

/// The lines of a tar-split stream.
pub(super) struct Lines<'a> {
    reader: BufReader<Box<dyn Read + Send + 'a>>,
    line: Vec<u8>,
    number: u64,
}

/// One line.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u32,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name_raw: Option<&'a RawValue>,
    #[serde(default)]
    size: i64,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// What a line says.
enum Step {
    /// Bytes of the tar, in base64: where they are in the line.
    Segment(std::ops::Range<usize>),
    /// The content of a file.
    File { name: Vec<u8>, size: u64 },
}

impl<'a> Lines<'a> {
    /// Reads what is compressed with gzip, as both stores keep it.
    pub(super) fn new(stored: impl Read + Send + 'a, limits: DecodeLimits) -> Result<Self> {
        let decoded = decoder(Compression::Gzip, stored, limits)?;
        Ok(Self { reader: BufReader::with_capacity(BUFFER, decoded), line: Vec::new(), number: 0 })
    }

    fn next(&mut self) -> Result<Option<Step>> {
        self.line.clear();
        self.number += 1;
        (&mut self.reader).take(LINE).read_until(b'\n', &mut self.line).map_err(Error::io)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        if self.line.len() as u64 == LINE && !self.line.ends_with(b"\n") {
            return Err(Error::limit(format_args!("line {} has more than {LINE} bytes", self.number)));
        }
        step(&self.line).context(|| format!("line {}", self.number)).map(Some)
    }

    /// How many bytes the tar has. Reads to the end.
    pub(super) fn total(mut self) -> Result<u64> {
        let mut total = 0_u64;
        while let Some(step) = self.next()? {
            let more = match step {
                Step::Segment(range) => base64::decoded_len(&self.line[range]).ok_or_else(not_base64)? as u64,
                Step::File { size, .. } => size,
            };
            total = total.checked_add(more).filter(|total| i64::try_from(*total).is_ok()).ok_or_else(|| Error::limit("it is too large"))?;
        }
        Ok(total)
    }
}

fn step(line: &[u8]) -> Result<Step> {
    let parsed: Line<'_> =
        serde_json::from_slice(line).map_err(|error| Error::invalid(format_args!("it is no tar-split entry: {error}")))?;
    match parsed.kind {
        1 => {
            let size = u64::try_from(parsed.size).map_err(|_| Error::invalid("the size of a file is negative"))?;
            let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).map_err(|error| Error::invalid(error).frame("its name"));
            let name = match (parsed.name_raw, parsed.name) {
                // Most entries are directories and links: nobody asks for their names.
                _ if size == 0 => Vec::new(),
                (Some(raw), _) => {
                    let mut name = text(raw)?.into_bytes();
                    let len = base64::decode_in_place(&mut name).ok_or_else(not_base64)?;
                    name.truncate(len);
                    name
                }
                (None, Some(name)) => text(name)?.into_bytes(),
                (None, None) => return Err(Error::invalid("a file without a name")),
            };
            Ok(Step::File { name, size })
        }
        2 => {
            let Some(payload) = parsed.payload else { return Ok(Step::Segment(0..0)) };
            let payload = payload.get();
            let inner = payload.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(not_base64)?;
            let start = inner.as_ptr() as usize - line.as_ptr() as usize;
            Ok(Step::Segment(start..start + inner.len()))
        }
        other => Err(Error::invalid(format_args!("its type is {other}, expected 1, a file, or 2, bytes"))),
    }
}

fn not_base64() -> Error {
    Error::invalid("it is not in base64")
}

/// The tar of a layer, put together while it is read.
pub(super) struct Rebuilt<C: Contents> {
    lines: Lines<'static>,
    contents: C,
    now: Now<C::File>,
    /// Bytes that are still to be passed over.
    skip: u64,
    /// What it is, in front of every error.
    label: String,
    /// What helps whoever may not read a file.
    denied: &'static str,
}

/// Where the next bytes come from.
enum Now<F> {
    /// The beginning of the line, decoded.
    Segment(std::ops::Range<usize>),
    File {
        file: F,
        left: u64,
        name: Vec<u8>,
        size: u64,
    },
    End,
    /// Whoever asks again is told the same.
    Failed(ErrorKind, String),
}

impl<C: Contents> Rebuilt<C> {
    /// Begins `from` bytes into the tar.
    pub(super) fn new(lines: Lines<'static>, contents: C, from: u64, label: String, denied: &'static str) -> Self {
        Self { lines, contents, now: Now::Segment(0..0), skip: from, label, denied }
    }

    /// Goes on to the next line that has bytes to give.
    fn advance(&mut self) -> Result<()> {
        let Some(step) = self.lines.next().context(|| "tar-split")? else {
            self.now = Now::End;
            return Ok(());
        };
        self.now = match step {
            Step::Segment(range) => {
                let payload = &mut self.lines.line;
                payload.copy_within(range.clone(), 0);
                let len = base64::decode_in_place(&mut payload[..range.len()]).ok_or_else(|| not_base64().frame("tar-split"))?;
                let skipped = self.skip.min(len as u64);
                self.skip -= skipped;
                Now::Segment(usize::try_from(skipped).unwrap_or(len)..len)
            }
            Step::File { size, .. } if size <= self.skip => {
                self.skip -= size;
                Now::Segment(0..0)
            }
            Step::File { name, size } => {
                let (file, left) = self.file(&name, size).context(|| shown(&name))?;
                Now::File { file, left, name, size }
            }
        };
        Ok(())
    }

    fn file(&mut self, name: &[u8], size: u64) -> Result<(C::File, u64)> {
        let (mut file, found) = self.contents.open(name)?;
        if found != size {
            return Err(Error::mismatch(format_args!("it has {found} bytes, expected {size}: {CHANGED}")));
        }
        let skipped = std::mem::take(&mut self.skip);
        if skipped > 0 {
            file.seek(SeekFrom::Start(skipped)).map_err(Error::io)?;
        }
        Ok((file, size - skipped))
    }

    /// Gives some bytes; none only at the end.
    fn some(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match &mut self.now {
                Now::Segment(range) if range.start < range.end => {
                    let count = buf.len().min(range.len());
                    buf[..count].copy_from_slice(&self.lines.line[range.start..range.start + count]);
                    range.start += count;
                    return Ok(count);
                }
                Now::File { file, left, name, size } if *left > 0 => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                    let count = match file.read(&mut buf[..most]) {
                        Ok(0) => {
                            let found = *size - *left;
                            return Err(
                                Error::mismatch(format_args!("it ends after {found} bytes, expected {size}: {CHANGED}")).frame(shown(name))
                            );
                        }
                        Ok(count) => count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(Error::io(error).frame(shown(name))),
                    };
                    *left -= count as u64;
                    return Ok(count);
                }
                Now::End => return Ok(0),
                Now::Failed(kind, message) => return Err(Error::new(*kind, message.clone())),
                Now::Segment(_) | Now::File { .. } => self.advance()?,
            }
        }
    }
}

impl<C: Contents> Read for Rebuilt<C> {
    /// Fills all of `buf` but at the end: entries are small, and a reader asks for as much as it can take.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.some(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => {
                    self.now = Now::Failed(error.kind(), error.to_string());
                    return Err(disk::advise(error.frame(&self.label), self.denied).into());
                }
            }
        }
        Ok(filled)
    }
}

fn shown(name: &[u8]) -> String {
    format!("file `{}`", escape_bytes(name))
}

/// Reads whatever comes as a tar-split stream, plain: what it comes to is what was announced, in any steps and from any place.
pub fn fuzz_tar_split(data: &[u8]) {
    /// Files whose content is their name, over and over.
    struct Named(u64);

    impl Contents for Named {
        type File = Cursor<Vec<u8>>;

        fn open(&self, name: &[u8]) -> Result<(Self::File, u64)> {
            let bytes: Vec<u8> = name.iter().copied().cycle().take(usize::try_from(self.0).unwrap_or(0)).collect();
            Ok((Cursor::new(bytes), self.0))
        }
    }

    let [size, step, from, text @ ..] = data else { return };
    let lines = || {
        let reader: Box<dyn Read + Send> = Box::new(Cursor::new(text.to_vec()));
        Lines { reader: BufReader::with_capacity(BUFFER, reader), line: Vec::new(), number: 0 }
    };
    let rebuilt = |from: u64| Rebuilt::new(lines(), Named(u64::from(*size)), from, "fuzz".to_owned(), "");
    let total = lines().total();
    let mut whole = Vec::new();
    if rebuilt(0).read_to_end(&mut whole).is_err() {
        return;
    }
    assert_eq!(total.expect("it could be rebuilt"), whole.len() as u64);
    let from = usize::from(*from).min(whole.len());
    let mut rest = rebuilt(from as u64);
    let mut at = from;
    let mut buf = vec![0; usize::from(*step) + 1];
    loop {
        let count = rest.read(&mut buf).expect("it could be rebuilt from its beginning");
        assert_eq!(buf[..count], whole[at..at + count]);
        at += count;
        if count == 0 {
            break;
        }
    }
    assert_eq!(at, whole.len());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    use longshore_testkit::facts::Packing;
    use longshore_testkit::images::pack;
    use longshore_testkit::stores::tar_split;
    use longshore_testkit::tar::{Member, write};
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;
    use crate::stores::disk;

    fn members() -> Vec<Member> {
        let long = "long/".repeat(40) + "name";
        let mut pax = Member::file("pax", "with records");
        pax.about.xattrs.insert(b"user.a".to_vec(), b"b".to_vec());
        vec![
            Member::dir("./d/"),
            Member::file("./d/file", "bytes"),
            Member::file("/d/large", vec![b'x'; 700_000]),
            Member::file("d/empty", ""),
            Member::file("d/.wh.gone", ""),
            Member::file(b"d/\xff\xfe \"quoted\"".to_vec(), "odd"),
            Member::file(long, "deep"),
            Member::other(b'1', "d/hard", "d/file"),
            Member::other(b'2', "link", "d"),
            Member::file("link/below", "below a link"),
            pax,
        ]
    }

    /// A layer's folder, and the gzip'ed lines of its tar.
    fn unpacked(dir: &Path, members: &[Member]) -> (Vec<u8>, Vec<u8>) {
        let archive = write(members);
        let (lines, files) = tar_split(&archive);
        fs::create_dir_all(dir.join("d")).unwrap();
        std::os::unix::fs::symlink("d", dir.join("link")).unwrap();
        for (name, data) in files {
            let name = name.strip_prefix(b"/").unwrap_or(&name);
            let path = dir.join(std::ffi::OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }
        (archive, pack(&lines, Packing::Gzip))
    }

    fn rebuilt(dir: &Path, split: &[u8], from: u64) -> Result<Rebuilt<Arc<Folder>>> {
        let folder = Folder::new(disk::folder(dir)?);
        Ok(Rebuilt::new(lines(split)?, Arc::new(folder), from, "layer".to_owned(), "a hint"))
    }

    fn lines(split: &[u8]) -> Result<Lines<'static>> {
        Lines::new(Cursor::new(split.to_vec()), DecodeLimits::default())
    }

    fn read(dir: &Path, split: &[u8], from: u64, step: usize) -> Result<Vec<u8>> {
        let (mut reader, mut buf, mut all) = (rebuilt(dir, split, from)?, vec![0; step], Vec::new());
        loop {
            match reader.read(&mut buf).map_err(Error::io)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&buf[..count]),
            }
        }
    }

    #[test]
    fn the_tar_is_put_together_from_any_place_in_any_steps() {
        let dir = tempfile::tempdir().unwrap();
        let (archive, split) = unpacked(dir.path(), &members());
        assert_eq!(lines(&split).unwrap().total().unwrap(), archive.len() as u64);
        for step in [1 << 20, 4096, 777, 100_000] {
            assert!(read(dir.path(), &split, 0, step).unwrap() == archive, "{step}");
        }
        for from in (0..archive.len()).step_by(30_011).chain([1, 511, 512, 513, archive.len() - 1, archive.len(), archive.len() + 5]) {
            let expected = archive.get(from..).unwrap_or_default();
            assert!(read(dir.path(), &split, from as u64, 1 << 20).unwrap() == expected, "{from}");
        }
        // A whole buffer at once, but at the end.
        let mut buf = vec![0; 300_000];
        assert_eq!(rebuilt(dir.path(), &split, 0).unwrap().read(&mut buf).unwrap(), buf.len());
        assert!(read(dir.path(), &pack(b"", Packing::Gzip), 0, 10).unwrap().is_empty());
    }

    #[test]
    fn who_asks_again_after_a_failure_is_told_the_same() {
        struct Locked;
        impl Contents for Locked {
            type File = Cursor<Vec<u8>>;

            fn open(&self, _name: &[u8]) -> Result<(Self::File, u64)> {
                Err(Error::io(io::ErrorKind::PermissionDenied.into()))
            }
        }
        let (split, _) = tar_split(&write(&[Member::file("etc/shadow", "secret")]));
        let mut buf = [0; 4096];
        let mut reader = Rebuilt::new(lines(&pack(&split, Packing::Gzip)).unwrap(), Locked, 0, "layer".to_owned(), "a hint");
        for _ in 0..3 {
            let error = Error::io(reader.read(&mut buf).unwrap_err());
            assert_eq!(error.to_string(), "layer: file `etc/shadow`: permission denied");
            assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Denied, Some("a hint")));
        }
    }

    #[test]
    fn a_layer_that_was_changed_is_an_error_that_names_the_file() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "bytes").unwrap();
        type Change<'a> = (&'a str, &'a dyn Fn(&Path), &'a str);
        let changes: [Change<'_>; 9] = [
            ("missing", &|at| fs::remove_file(at.join("d/file")).unwrap(), "file `./d/file`: it is missing: the layer is being deleted"),
            ("folder", &|at| fs::remove_dir_all(at.join("d")).unwrap(), "file `./d/file`: it is missing"),
            (
                "longer",
                &|at| fs::write(at.join("d/file"), "bytes and more").unwrap(),
                "file `./d/file`: it has 14 bytes, expected 5: the layer",
            ),
            ("shorter", &|at| fs::write(at.join("d/file"), "").unwrap(), "file `./d/file`: it has 0 bytes, expected 5"),
            ("odd", &|at| fs::write(at.join("pax"), "").unwrap(), "file `pax`: it has 0 bytes"),
            (
                "link",
                &|at| {
                    fs::remove_file(at.join("d/file")).unwrap();
                    std::os::unix::fs::symlink(outside.path().join("file"), at.join("d/file")).unwrap();
                },
                "file `./d/file`: it is not a regular file",
            ),
            (
                "linked folder",
                &|at| {
                    fs::remove_dir_all(at.join("d")).unwrap();
                    std::os::unix::fs::symlink(outside.path(), at.join("d")).unwrap();
                },
                "file `./d/file`: it is missing",
            ),
            (
                "pipe",
                &|at| {
                    fs::remove_file(at.join("d/file")).unwrap();
                    rustix::fs::mkfifoat(rustix::fs::CWD, at.join("d/file"), rustix::fs::Mode::RWXU).unwrap();
                },
                "file `./d/file`: it is not a regular file",
            ),
            (
                "directory",
                &|at| {
                    fs::remove_file(at.join("d/file")).unwrap();
                    fs::create_dir(at.join("d/file")).unwrap();
                },
                "file `./d/file`: it is not a regular file",
            ),
        ];
        for (what, change, says) in changes {
            let dir = tempfile::tempdir().unwrap();
            let (_, split) = unpacked(dir.path(), &members());
            change(dir.path());
            let error = read(dir.path(), &split, 0, 1 << 20).unwrap_err();
            assert!(error.to_string().starts_with("layer: ") && error.to_string().contains(says), "{what}: {error}");
            let mut again = rebuilt(dir.path(), &split, 0).unwrap();
            assert!(again.read_to_end(&mut Vec::new()).is_err() && again.read(&mut [0]).is_err(), "{what}: it goes on after a failure");
        }
    }

    #[test]
    fn malformed_streams_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "bytes").unwrap();
        for (text, kind, says) in [
            ("x", ErrorKind::Invalid, "line 1: it is no tar-split entry"),
            ("{}", ErrorKind::Invalid, "missing field `type`"),
            ("{\"type\":2,\"payload\":\"QQ==\"}\n{\"type\":3}", ErrorKind::Invalid, "line 2: its type is 3"),
            ("{\"type\":2,\"payload\":\"Q\"}", ErrorKind::Invalid, "it is not in base64"),
            ("{\"type\":2,\"payload\":\"\\u0051Q==\"}", ErrorKind::Invalid, "it is not in base64"),
            ("{\"type\":2,\"payload\":7}", ErrorKind::Invalid, "it is not in base64"),
            ("{\"type\":1,\"name\":\"a\",\"size\":-1}", ErrorKind::Invalid, "negative"),
            ("{\"type\":1,\"size\":1}", ErrorKind::Invalid, "without a name"),
            ("{\"type\":1,\"name\":\"../a\",\"size\":1}", ErrorKind::Invalid, "contains `..`"),
            ("{\"type\":1,\"name\":\"a\\u0000\",\"size\":1}", ErrorKind::Invalid, "NUL"),
            ("{\"type\":1,\"name_raw\":\"?\",\"size\":1}", ErrorKind::Invalid, "base64"),
        ] {
            let error = read(dir.path(), &pack(text.as_bytes(), Packing::Gzip), 0, 100).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(says), "{text}: {error}");
            fuzz_tar_split(&[&[5, 3, 1][..], text.as_bytes()].concat());
        }
        let cut = pack(b"{\"type\":2}\n", Packing::Gzip);
        assert_eq!(read(dir.path(), &cut[..cut.len() - 4], 0, 100).unwrap_err().kind(), ErrorKind::Invalid);
        let huge = format!("{{\"type\":1,\"name\":\"a\",\"size\":{0}}}\n{{\"type\":1,\"name\":\"a\",\"size\":{0}}}\n", i64::MAX);
        assert_eq!(lines(&pack(huge.as_bytes(), Packing::Gzip)).unwrap().total().unwrap_err().kind(), ErrorKind::Limit);
        let long = pack(&vec![b' '; 17 << 20], Packing::Gzip);
        assert_eq!(lines(&long).unwrap().total().unwrap_err().kind(), ErrorKind::Limit);
        fuzz_tar_split(&[&[5, 3, 1][..], &tar_split(&write(&[Member::file("a", "bytes")])).0].concat());
    }

    #[test]
    fn without_openat2_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let members: Vec<_> = members().into_iter().filter(|member| !member.name.starts_with(b"link/")).collect();
        let (archive, split) = unpacked(dir.path(), &members);
        let folder = Folder { beneath: Beneath::Walk, ..Folder::new(disk::folder(dir.path()).unwrap()) };
        let mut all = Vec::new();
        Rebuilt::new(lines(&split).unwrap(), Arc::new(folder), 0, "layer".to_owned(), "a hint").read_to_end(&mut all).unwrap();
        assert!(all == archive);
    }

    proptest! {
        #[test]
        fn any_bytes_go_in(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            fuzz_tar_split(&data);
        }

        #[test]
        fn odd_lines_go_in(
            head in proptest::array::uniform3(any::<u8>()),
            lines in proptest::collection::vec(r#"\{"type":[123],?("name":"a",)?("name_raw":"YQ==",)?"size":[0-9],"payload":(null|"QUJD"|"QQ==")\}"#, 0..6),
        ) {
            fuzz_tar_split(&[&head[..], lines.join("\n").as_bytes()].concat());
        }
    }
}

//! Named bytes: the members of an archive or the files of a folder, behind one small trait, so that each format is read by one reader
//! wherever it lies.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{BlobId, Catalog};
use crate::compress::{Compression, SNIFF, sniff};
use crate::context::Context;
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, Result};
use crate::limits::Limits;
use crate::source::Source;
use crate::spec::Descriptor;
use crate::tar::{Entry, Kind, Parser, RootPath, Step, TarLimits, escape_bytes};
use crate::transport::{Archive, Section};
use crate::tree::{Role, Shelf};

/// Bytes by name.
pub(super) trait Files: Send + Sync {
    /// The size of the regular file `name`, following what links the format may use; `None` when nothing has that name.
    fn size(&self, name: &str) -> Result<Option<u64>>;

    /// Where its bytes are.
    fn open(&self, name: &str) -> Result<(Arc<File>, Range<u64>)>;

    /// Where all of it is, for messages.
    fn label(&self) -> &str;

    /// Bytes that were copied to a temporary file to get here.
    fn spooled(&self) -> u64;
}

impl dyn Files + '_ {
    /// Reads a whole document.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        self.size(name)?.ok_or_else(|| Error::not_found("it is missing").frame(name))?;
        // A writer may have put another file in its place since: what is open stays what it is.
        let (file, range) = self.open(name).context(|| name)?;
        let size = range.end - range.start;
        if size > limit {
            return Err(Error::limit(format_args!("it has {size} bytes, more than the limit of {limit}")).frame(name));
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Error::limit("it does not fit into memory").frame(name))?];
        file.read_exact_at(&mut bytes, range.start).context(|| name)?;
        Ok(bytes)
    }

    /// How the bytes of `name` are compressed.
    pub(super) fn compression(&self, name: &str) -> Result<Compression> {
        let (file, range) = self.open(name).context(|| name)?;
        let mut head = Vec::with_capacity(SNIFF);
        Section::new(file, range.start, range.end).take(SNIFF as u64).read_to_end(&mut head).context(|| name)?;
        sniff(&head).map_err(|e| Error::from(e).frame(name))
    }
}

/// Files that are called by the digests of what they hold.
pub(super) struct Named<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) naming: fn(Role, &Digest) -> String,
}

impl Shelf for Named<'_> {
    fn name(&self, role: Role, digest: &Digest) -> String {
        (self.naming)(role, digest)
    }

    fn size(&self, role: Role, descriptor: &Descriptor) -> Result<Option<u64>> {
        self.files.size(&self.name(role, &descriptor.digest))
    }

    fn read(&self, role: Role, descriptor: &Descriptor, limit: u64) -> Result<Option<Vec<u8>>> {
        self.files.read(&self.name(role, &descriptor.digest), limit).map(Some)
    }

    fn compression(&self, layer: &Descriptor, _diff_id: &DiffId) -> Result<Compression> {
        self.files.compression(&self.name(Role::Blob, &layer.digest))
    }
}

/// A source whose blobs are files of one [`Files`].
pub(super) struct FileSource {
    pub(super) files: Box<dyn Files>,
    /// The file of each blob, by [`BlobId`].
    pub(super) names: Vec<String>,
    pub(super) catalog: Catalog,
    pub(super) format: &'static str,
}

impl Source for FileSource {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        let (file, range) = self.files.open(&self.names[blob.0]).context(|| &self.names[blob.0])?;
        Ok(Box::new(Section::new(file, range.start.saturating_add(from).min(range.end), range.end)))
    }

    fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        self.files.open(&self.names[blob.0]).ok()
    }

    fn describe(&self) -> String {
        format!("{}:{}", self.format, self.files.label())
    }

    fn spooled(&self) -> u64 {
        self.files.spooled()
    }
}

/// The members of an archive, found by one scan of its headers.
pub(super) struct ArchiveFiles {
    archive: Archive,
    members: BTreeMap<Vec<u8>, Member>,
    /// Whether a member may be a link to another (docker before 25, podman), or not (OCI).
    links: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    Directory,
    File(Range<u64>),
    /// A link and the clean name that it leads to, or why it leads nowhere.
    Link(Result<Vec<u8>, &'static str>),
    Other(&'static str),
}

impl fmt::Debug for ArchiveFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveFiles").field("archive", &self.archive.label).finish_non_exhaustive()
    }
}

impl ArchiveFiles {
    /// Reads all headers of the archive.
    pub(super) fn scan(archive: Archive, ctx: &Context) -> Result<Self> {
        let mut members = BTreeMap::new();
        let mut names = 0_u64;
        let mut headers = Headers { archive: &archive, parser: Parser::new(TarLimits::default()), at: 0, any: false };
        while let Some(entry) = headers.next()? {
            ctx.cancel.poll()?;
            let path = match RootPath::parse_member(&entry.path) {
                Ok(path) => path,
                Err(error) => return Err(Error::invalid(error).frame(format_args!("member {}", escape_bytes(&entry.path)))),
            };
            let payload = headers.at..headers.at + entry.size;
            headers.skip(&entry)?;
            names += (path.as_bytes().len() + entry.link.len()) as u64;
            if members.len() >= ctx.limits.members || names > ctx.limits.names {
                let Limits { members, names, .. } = &ctx.limits;
                return Err(Error::limit(format_args!("the archive has more than {members} members, or {names} bytes of names"))
                    .hint("raise --limit members=NUMBER or --limit names=BYTES"));
            }
            let member = Member::new(&entry, &path, payload);
            match members.get(path.as_bytes()) {
                None => drop(members.insert(path.as_bytes().to_vec(), member)),
                Some(first) if same(first, &member, &archive)? => {}
                Some(_) => {
                    return Err(Error::invalid("it is there twice, with different content")
                        .frame(format_args!("member {}", escape_bytes(path.as_bytes()))));
                }
            }
        }
        Ok(Self { archive, members, links: true })
    }

    /// The same archive, for a format whose files are never links.
    pub(super) fn without_links(mut self) -> Self {
        self.links = false;
        self
    }

    /// Whether there is a member of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name.as_bytes())
    }

    /// The names of all top folders that hold a file `name`, sorted.
    pub(super) fn folders_with(&self, name: &str) -> impl Iterator<Item = String> {
        let end = format!("/{name}");
        self.members.keys().filter_map(move |path| {
            let folder = std::str::from_utf8(path.strip_suffix(end.as_bytes())?).ok()?;
            (!folder.contains('/')).then(|| folder.to_owned())
        })
    }

    /// The bytes of `name`, through one link at the most: what engines write never needs two.
    fn find(&self, name: &str) -> Result<Option<Range<u64>>> {
        let member = match self.members.get(name.as_bytes()) {
            Some(Member::Link(_)) if !self.links => return Err(Error::invalid("it is a link, and this format has none")),
            Some(Member::Link(Ok(target))) => {
                let shown = escape_bytes(target);
                match self.members.get(target) {
                    None => return Err(Error::not_found(format_args!("it is a link to {shown}, which is missing"))),
                    Some(Member::Link(_)) => return Err(Error::invalid(format_args!("it is a link to {shown}, another link"))),
                    found => found,
                }
            }
            found => found,
        };
        match member {
            None => Ok(None),
            Some(Member::File(range)) => Ok(Some(range.clone())),
            Some(Member::Directory) => Err(Error::invalid("it is a directory, not a file")),
            Some(Member::Other(kind)) => Err(Error::invalid(format_args!("it is {kind}, not a file"))),
            Some(Member::Link(Err(why))) => Err(Error::invalid(format_args!("it is a link {why}"))),
            Some(Member::Link(Ok(_))) => Err(Error::invalid("it is a link to another link")),
        }
    }
}

impl Member {
    fn new(entry: &Entry, path: &RootPath, payload: Range<u64>) -> Self {
        match entry.kind {
            _ if entry.sparse.is_some() => Self::Other("a sparse file"),
            Kind::File => Self::File(payload),
            Kind::Directory => Self::Directory,
            Kind::HardLink => Self::Link(RootPath::parse_member(&entry.link).map(|to| to.as_bytes().to_vec()).map_err(|_| OUTSIDE)),
            Kind::Symlink => Self::Link(resolve(path, &entry.link)),
            Kind::CharDevice | Kind::BlockDevice => Self::Other("a device"),
            Kind::Fifo => Self::Other("a named pipe"),
            Kind::Other(_) => Self::Other("a member of unknown type"),
        }
    }
}

const OUTSIDE: &str = "out of the archive";

/// Where a symlink of an archive leads, in names alone.
fn resolve(path: &RootPath, link: &[u8]) -> Result<Vec<u8>, &'static str> {
    if link.first() == Some(&b'/') {
        return Err("with an absolute target");
    }
    let mut stack: Vec<&[u8]> = path.as_bytes().split(|c| *c == b'/').collect();
    stack.pop();
    for part in link.split(|c| *c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(stack.pop().ok_or(OUTSIDE)?),
            part => stack.push(part),
        }
    }
    Ok(stack.join(&b'/'))
}

/// Whether two members of one name hold the same, as some writers repeat members.
fn same(one: &Member, other: &Member, archive: &Archive) -> Result<bool> {
    let (Member::File(one), Member::File(other)) = (one, other) else { return Ok(one == other) };
    if one.end - one.start != other.end - other.start {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut done = 0;
    while done < one.end - one.start {
        let step = usize::try_from(one.end - one.start - done).unwrap_or(usize::MAX).min(left.len());
        archive.file.read_exact_at(&mut left[..step], one.start + done).map_err(Error::io)?;
        archive.file.read_exact_at(&mut right[..step], other.start + done).map_err(Error::io)?;
        if left[..step] != right[..step] {
            return Ok(false);
        }
        done += step as u64;
    }
    Ok(true)
}

/// Walks the headers of an archive, stepping over what lies between.
struct Headers<'a> {
    archive: &'a Archive,
    parser: Parser,
    at: u64,
    /// Whether there was an entry: before that, what looks wrong is no tar at all.
    any: bool,
}

impl Headers<'_> {
    fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let want = self.parser.want();
            let left = self.archive.len - self.at;
            if left == 0 {
                return self.parser.finish().map(|()| None).map_err(|e| self.wrong(e));
            }
            if left < want as u64 {
                let mut rest = vec![0; usize::try_from(left).unwrap_or(want)];
                self.archive.file.read_exact_at(&mut rest, self.at).map_err(Error::io)?;
                // A part of the zeros that mark the end: nothing is missing.
                if self.any && rest.iter().all(|byte| *byte == 0) {
                    return self.parser.finish().map(|()| None).map_err(|e| self.wrong(e));
                }
                return Err(self.wrong("it is truncated in a header"));
            }
            let mut block = vec![0; want];
            self.archive.file.read_exact_at(&mut block, self.at).map_err(Error::io)?;
            let step = self.parser.take(&block).map_err(|e| self.wrong(e))?;
            self.at += want as u64;
            match step {
                Step::More => {}
                Step::End => return Ok(None),
                Step::Entry(entry) => {
                    self.any = true;
                    return Ok(Some(*entry));
                }
            }
        }
    }

    /// Steps over the payload of `entry` and its padding.
    fn skip(&mut self, entry: &Entry) -> Result<()> {
        let needed = entry.size.saturating_add(entry.padding());
        let left = self.archive.len - self.at;
        if needed > left {
            let size = entry.size;
            return Err(Error::invalid(format_args!("the archive is truncated: {size} bytes and padding expected, {left} bytes found"))
                .frame(format_args!("member {}", escape_bytes(&entry.path))));
        }
        self.at += needed;
        Ok(())
    }

    fn wrong(&self, error: impl fmt::Display) -> Error {
        if self.any {
            Error::invalid(error).frame(format_args!("tar header at byte {}", self.at))
        } else {
            Error::invalid(format_args!("it is not a tar archive: {error}"))
        }
    }
}

impl Files for ArchiveFiles {
    fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.find(name).context(|| format!("member {}", name.escape_debug()))?.map(|range| range.end - range.start))
    }

    fn open(&self, name: &str) -> Result<(Arc<File>, Range<u64>)> {
        let range = self.find(name)?.ok_or_else(|| Error::not_found("it is missing"))?;
        Ok((Arc::clone(&self.archive.file), range))
    }

    fn label(&self) -> &str {
        &self.archive.label
    }

    fn spooled(&self) -> u64 {
        self.archive.spooled
    }
}

/// The files of a folder.
#[derive(Debug)]
pub(super) struct DirFiles {
    dir: PathBuf,
    label: String,
}

impl DirFiles {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), label: dir.display().to_string() }
    }

    /// Whether there is anything of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.dir.join(name)).is_ok()
    }

    /// The path of a clean relative name. Folders on the way must be folders: a symlinked one could lead anywhere.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let clean = RootPath::parse_member(name.as_bytes()).map_err(Error::invalid)?;
        let mut path = self.dir.clone();
        let parts: Vec<_> = clean.as_bytes().split(|c| *c == b'/').collect();
        for (at, part) in parts.iter().enumerate() {
            use std::os::unix::ffi::OsStrExt as _;
            path.push(std::ffi::OsStr::from_bytes(part));
            if at + 1 < parts.len() && fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink()) {
                return Err(Error::invalid(format_args!("{} is a symlink, and may lead out of the layout", path.display())));
            }
        }
        Ok(path)
    }
}

impl Files for DirFiles {
    fn size(&self, name: &str) -> Result<Option<u64>> {
        let meta = match fs::symlink_metadata(self.path(name).context(|| name.escape_debug().to_string())?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| name)?,
        };
        if meta.is_file() {
            return Ok(Some(meta.len()));
        }
        let kind = if meta.is_dir() {
            "a directory"
        } else if meta.is_symlink() {
            "a symlink"
        } else {
            "a special file"
        };
        Err(Error::invalid(format_args!("it is {kind}, not a file")).frame(name))
    }

    fn open(&self, name: &str) -> Result<(Arc<File>, Range<u64>)> {
        // Never through a link, and never waiting for the other end of a named pipe.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(self.path(name)?).map_err(Error::io)?;
        let meta = file.metadata().map_err(Error::io)?;
        if !meta.is_file() {
            return Err(Error::invalid("it is not a regular file"));
        }
        Ok((Arc::new(file), 0..meta.len()))
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn spooled(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use longshore_testkit::tar::{self, Member as Entry};

    use super::*;
    use crate::error::ErrorKind;
    use crate::limits::Limits;
    use crate::testing::context;

    fn scan_bytes(bytes: &[u8], limits: Limits) -> Result<ArchiveFiles> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let archive = Archive { file: Arc::new(file), len: bytes.len() as u64, label: "test".to_owned(), spooled: 0 };
        ArchiveFiles::scan(archive, &Context { limits, ..context(Path::new(".")) })
    }

    fn scan(members: &[Entry]) -> Result<ArchiveFiles> {
        scan_bytes(&tar::write(members), Limits::default())
    }

    fn read(files: &dyn Files, name: &str) -> Result<String, String> {
        files.read(name, 1000).map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_document_that_is_replaced_is_read_as_one_or_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (path, next) = (dir.path().join("index.json"), dir.path().join("next"));
        let versions = [vec![b'a'; 10], vec![b'b'; 3000]];
        fs::write(&path, &versions[0]).unwrap();
        let files = DirFiles::new(dir.path());
        let files: &dyn Files = &files;
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..3000 {
                    fs::write(&next, &versions[at % 2]).unwrap();
                    fs::rename(&next, &path).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(versions.contains(&files.read("index.json", 4096).unwrap()));
            }
        });
    }

    #[test]
    fn members_are_found_under_clean_names_and_through_one_link() {
        let members = [
            Entry::dir("./d/"),
            Entry::file("./d/file", "bytes"),
            Entry::other(b'2', "d/link", "file"),
            Entry::other(b'2', "x/up", "../d/./file"),
            Entry::other(b'1', "hard", "d/file"),
            Entry::other(b'1', "hard-dotted", "./d/file"),
            Entry::other(b'2', "chain", "d/link"),
            Entry::other(b'2', "missing", "nothing"),
            Entry::other(b'2', "absolute", "/d/file"),
            Entry::other(b'2', "out", "../../d/file"),
            Entry::other(b'1', "hard-out", "../file"),
            Entry::other(b'2', "to-dir", "d"),
            Entry::other(b'6', "pipe", ""),
            Entry::other(b'3', "device", ""),
        ];
        let files = scan(&members).unwrap();
        for name in ["d/file", "d/link", "x/up", "hard", "hard-dotted"] {
            assert_eq!(read(&files, name).as_deref(), Ok("bytes"), "{name}");
        }
        for (name, says) in [
            ("chain", "it is a link to d/link, another link"),
            ("missing", "it is a link to nothing, which is missing"),
            ("absolute", "it is a link with an absolute target"),
            ("out", "it is a link out of the archive"),
            ("hard-out", "it is a link out of the archive"),
            ("to-dir", "it is a directory, not a file"),
            ("d", "it is a directory, not a file"),
            ("pipe", "it is a named pipe, not a file"),
            ("device", "it is a device, not a file"),
            ("nowhere", "nowhere: it is missing"),
        ] {
            let error = read(&files, name).unwrap_err();
            assert!(error.contains(says), "{name}: {error}");
        }
        assert!(files.has("chain") && !files.has("./d/file"));
        assert_eq!(files.size("nowhere").unwrap(), None);
        let error = files.without_links().size("hard").unwrap_err().to_string();
        assert!(error.contains("this format has none"), "{error}");
    }

    #[test]
    fn members_that_are_there_twice_must_be_the_same() {
        let twice =
            |one: Entry, other: Entry| scan(&[one, Entry::file("between", "x"), other]).map(drop).map_err(|error| error.to_string());
        let long = "x".repeat(200_000);
        assert_eq!(twice(Entry::file("a", "bytes"), Entry::file("./a", "bytes")), Ok(()));
        assert_eq!(twice(Entry::file("a", long.clone()), Entry::file("a", long.clone())), Ok(()));
        assert_eq!(twice(Entry::dir("a/"), Entry::dir("a")), Ok(()));
        assert_eq!(twice(Entry::other(b'2', "a", "b"), Entry::other(b'2', "a", "./b")), Ok(()));
        for (one, other) in [
            (Entry::file("a", "bytes"), Entry::file("a", "other")),
            (Entry::file("a", "bytes"), Entry::file("a", "bytes and more")),
            (Entry::file("a", long.clone() + "1"), Entry::file("a", long + "2")),
            (Entry::file("a", ""), Entry::dir("a/")),
            (Entry::other(b'2', "a", "b"), Entry::other(b'2', "a", "c")),
            (Entry::other(b'2', "a", "between"), Entry::file("a", "x")),
        ] {
            let error = twice(one, other).unwrap_err();
            assert_eq!(error, "member a: it is there twice, with different content");
        }
    }

    #[test]
    fn every_truncation_but_that_of_the_closing_zeros_is_seen() {
        let whole = tar::write(&[Entry::file("a", "bytes"), Entry::file("b", vec![1; 600])]);
        let content = whole.len() - 1024;
        for len in 1..=whole.len() {
            let scanned = scan_bytes(&whole[..len], Limits::default());
            // Between two members nothing tells that more was there; the reader of manifest.json does.
            let between = len == 1024;
            assert_eq!(scanned.is_ok(), len >= content || between, "{len} of {} bytes", whole.len());
            if let Err(error) = scanned {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            }
        }
    }

    #[test]
    fn names_that_lead_out_and_too_many_of_them_are_refused() {
        for name in ["../a", "a/../../b", "/a", "a/.."] {
            let error = scan(&[Entry::file(name, "")]).unwrap_err().to_string();
            assert!(error.starts_with("member "), "{name}: {error}");
        }
        let many: Vec<_> = (0..20).map(|at| Entry::file(format!("member-{at}"), "")).collect();
        let bytes = tar::write(&many);
        for limits in [Limits { members: 19, ..Limits::default() }, Limits { names: 100, ..Limits::default() }] {
            assert_eq!(scan_bytes(&bytes, limits).unwrap_err().kind(), ErrorKind::Limit);
        }
        assert!(scan_bytes(&bytes, Limits { members: 20, ..Limits::default() }).is_ok());
        let files = scan(&[Entry::file("large", vec![b'x'; 1001])]).unwrap();
        assert!(read(&files, "large").unwrap_err().contains("more than the limit of 1000"));
    }

    #[test]
    fn files_of_a_folder_are_never_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("real/below")).unwrap();
        fs::write(at("real/file"), "bytes").unwrap();
        std::os::unix::fs::symlink("real", at("linked")).unwrap();
        std::os::unix::fs::symlink("real/file", at("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RWXU).unwrap();
        let files = DirFiles::new(dir.path());
        assert_eq!(read(&files, "real/file").as_deref(), Ok("bytes"));
        assert!(files.has("link") && !files.has("none"));
        for (name, says) in [
            ("link", "it is a symlink, not a file"),
            ("linked/file", "is a symlink, and may lead out of the layout"),
            ("real", "it is a directory, not a file"),
            ("pipe", "it is a special file, not a file"),
            ("none", "it is missing"),
            ("../x", ".."),
        ] {
            let error = read(&files, name).unwrap_err();
            assert!(error.contains(says), "{name}: {error}");
        }
        for name in ["link", "real", "pipe", "linked/file"] {
            assert!(files.open(name).is_err(), "{name}");
        }
    }
}

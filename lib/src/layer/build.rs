//! A layer made of directories and files of this machine, the same bytes for the same files.
//!
//! [`Build::scan`] looks at everything once and keeps names and metadata, so that what is wrong is known before a byte is written;
//! [`Build::reader`] then streams the tar, with the contents of the files as they are at that time. A file that is no longer what the scan saw
//! is an error: a layer is never half of one version and half of another.
//!
//! | of the file | in the layer |
//! |---|---|
//! | name | bytes as they are, below the place that the mapping gives; directories end in `/`; sorted by these bytes, so that parents come first |
//! | owner, time | 0 and 0, [`BuildOptions::mtime`]; with [`BuildOptions::preserve`] those of the file, to the nanosecond |
//! | names of the owner | none: they belong to this machine |
//! | mode | permissions, with setuid, setgid and sticky bit |
//! | other names of a regular file | hard links to the first of them, when the file system says that it has several |
//! | symlink | as it is, never followed |
//! | extended attributes | `security.capability` and `user.*`; others (SELinux labels, ACLs by number) belong to this machine |
//! | device, fifo | as they are; sockets are left out, since a tar cannot hold them |
//!
//! A file named `.wh.…` becomes a whiteout, as in any layer. Nothing here writes to a file system.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::context::Cancel;
use crate::error::{Context as _, Error, Result};
use crate::tar::{END, Header, Kind, Record, RootPath, Time, escape_bytes, padding};

/// Permissions, setuid, setgid and sticky bit.
const MODE: u32 = 0o7777;

/// The prefix of PAX keys that hold extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The most bytes of a list of attribute names, and of the value of one: `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of Linux.
const MAX_XATTR: usize = 1 << 16;

/// A file or directory of this machine and where it goes in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// A directory, whose content is put at [`Mapping::to`], or anything else, which becomes `to`. A symlink counts as itself; `link/` is what
    /// it points to, as everywhere in Unix.
    pub from: PathBuf,
    /// An absolute or relative path in the image; `/` or nothing is the root. A file keeps its name in a `to` that ends in `/`.
    pub to: String,
}

/// How a layer is made of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// Whether owners and times stay as they are on this machine.
    pub preserve: bool,
    /// The time of every entry, in seconds since 1970, unless times are preserved.
    pub mtime: i64,
}

/// A layer that is ready to be read: everything but the contents of its files.
#[derive(Debug, Clone)]
pub struct Build {
    entries: Arc<[Entry]>,
    size: u64,
}

/// One entry of the layer.
#[derive(Debug)]
struct Entry {
    header: Header,
    /// Where the payload is, for a regular file that has one.
    payload: Option<Payload>,
}

#[derive(Debug)]
struct Payload {
    path: PathBuf,
    /// When it was last changed, so that a file that is written over between scan and read is noticed.
    changed: Time,
}

impl Build {
    /// Looks at everything that `mappings` name, and decides what the layer holds. Several directories that come to lie at one path are one
    /// directory with the content of all; parents of a [`Mapping::to`] are not made up, since engines create them.
    ///
    /// # Errors
    /// A file that cannot be looked at, a `to` with `..`, two different things for one path or one below a file, what no tar can hold, or a
    /// request to stop.
    pub fn scan(mappings: &[Mapping], options: &BuildOptions, cancel: &Cancel) -> Result<Self> {
        let mut scan = Scan { options: *options, cancel, found: BTreeMap::new(), list: vec![0; MAX_XATTR], value: vec![0; MAX_XATTR] };
        for mapping in mappings {
            scan.mapping(mapping)?;
        }
        scan.refuse_below_files()?;
        Self::order(scan.found, cancel)
    }

    /// Gives the bytes of the layer, from its first header to its two closing blocks; the same ones each time, or an error that names the
    /// file which has changed. Errors of this library travel inside the [`io::Error`]; [`Error::io`] takes them out.
    pub fn reader(&self) -> Box<dyn Read + Send> {
        Box::new(Reader { entries: Arc::clone(&self.entries), next: 0, blocks: Vec::new(), at: 0, file: None, ended: false })
    }

    /// Says how many bytes [`Build::reader`] gives.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Sorts by name, turns further names of a file into hard links, and sees to it that every header can be written.
    fn order(found: BTreeMap<Vec<u8>, Found>, cancel: &Cancel) -> Result<Self> {
        let mut found: Vec<Found> = found.into_values().collect();
        // By the names as written: `a-b` comes before the directory `a/`.
        found.sort_unstable_by(|a, b| a.header.path.cmp(&b.header.path));
        let mut first_names: HashMap<Inode, usize> = HashMap::new();
        let mut entries: Vec<Entry> = Vec::with_capacity(found.len());
        let mut size = END.len() as u64;
        for Found { mut header, from, inode, linked } in found {
            cancel.poll()?;
            if let Some(inode) = inode.filter(|_| linked) {
                let first = *first_names.entry(inode).or_insert(entries.len());
                if let Some(first) = entries.get(first) {
                    header.kind = Kind::HardLink;
                    header.link.clone_from(&first.header.path);
                    // Attributes stay: who unpacks sets the owner of a link, too, and the system drops capabilities then.
                    header.size = 0;
                }
            }
            let blocks = header.to_blocks().map_err(Error::from).path(&from.path)?;
            size = size.saturating_add(blocks.len() as u64).saturating_add(header.size).saturating_add(padding(header.size));
            let payload = (header.size > 0).then_some(from);
            entries.push(Entry { header, payload });
        }
        Ok(Self { entries: entries.into(), size })
    }
}

/// Device and number of an inode: what names of one file share.
type Inode = (u64, u64);

/// Something that the scan has seen.
struct Found {
    header: Header,
    from: Payload,
    /// Of a regular file.
    inode: Option<Inode>,
    /// Whether the file system says that the file has other names.
    linked: bool,
}

impl Found {
    /// Takes in what another mapping puts at the same path, if that is the same thing; says whether it is.
    fn merge(&mut self, other: &Self) -> bool {
        let newest = self.header.mtime.max(other.header.mtime);
        let is_directory = self.header.kind == Kind::Directory;
        let mut header = other.header.clone();
        if is_directory {
            // When something was last put into a directory says little where two become one.
            header.mtime = self.header.mtime;
        }
        // Two files without bytes hold the same.
        if header != self.header || (header.size > 0 && self.inode != other.inode) {
            return false;
        }
        if is_directory {
            self.header.mtime = newest;
        }
        true
    }
}

struct Scan<'a> {
    cancel: &'a Cancel,
    options: BuildOptions,
    /// By clean path, so that a file and a directory of one name meet.
    found: BTreeMap<Vec<u8>, Found>,
    /// Where the system writes names of attributes, and one of their values.
    list: Vec<u8>,
    value: Vec<u8>,
}

impl Scan<'_> {
    fn mapping(&mut self, mapping: &Mapping) -> Result<()> {
        let Mapping { from, to } = mapping;
        // The root has no name that could be parsed.
        let target = if to.is_empty() { Ok(RootPath::root()) } else { RootPath::parse_layer(to.as_bytes()) };
        let target = target.map_err(|problem| Error::invalid(format_args!("the path {to} in the image {problem}"))).path(from)?;
        let meta = fs::symlink_metadata(from).path(from)?;
        if meta.is_dir() {
            if !target.is_root() {
                self.add(target.as_bytes(), from.clone(), &meta)?;
            }
            return self.tree(from.clone(), target.as_bytes().to_vec());
        }
        if meta.file_type().is_socket() {
            return Err(Error::unsupported("it is a socket, which no layer can hold").frame(from.display()));
        }
        let mut path = target.as_bytes().to_vec();
        if target.is_root() || to.ends_with('/') {
            let name = from.file_name().ok_or_else(|| Error::invalid("it has no name to go by in the image").frame(from.display()))?;
            path = below(&path, name.as_bytes());
        }
        self.add(&path, from.clone(), &meta)
    }

    /// Adds what is in the directory `from`, however deep, below `to`.
    fn tree(&mut self, from: PathBuf, to: Vec<u8>) -> Result<()> {
        let mut folders = vec![(from, to)];
        while let Some((from, to)) = folders.pop() {
            for file in fs::read_dir(&from).path(&from)? {
                let file = file.path(&from)?;
                let (from, name) = (file.path(), file.file_name().into_vec());
                let meta = fs::symlink_metadata(&from).path(&from)?;
                if meta.file_type().is_socket() {
                    continue;
                }
                let to = below(&to, &name);
                self.add(&to, from.clone(), &meta)?;
                if meta.is_dir() {
                    folders.push((from, to));
                }
            }
        }
        Ok(())
    }

    /// Adds one thing by its clean path.
    fn add(&mut self, path: &[u8], from: PathBuf, meta: &Metadata) -> Result<()> {
        self.cancel.poll()?;
        let header = self.header(path, &from, meta).path(&from)?;
        let is_file = meta.is_file();
        let found = Found {
            header,
            inode: is_file.then(|| (meta.dev(), meta.ino())),
            linked: is_file && meta.nlink() > 1,
            from: Payload { path: from, changed: changed(meta) },
        };
        match self.found.get_mut(path) {
            None => {
                self.found.insert(path.to_vec(), found);
            }
            Some(first) => {
                if !first.merge(&found) {
                    return Err(conflict(path, &first.from.path, &found.from.path));
                }
            }
        }
        Ok(())
    }

    fn header(&mut self, path: &[u8], from: &Path, meta: &Metadata) -> Result<Header> {
        let kind = kind(meta.file_type()).ok_or_else(|| Error::unsupported("it is of a kind that no layer can hold"))?;
        let mut name = path.to_vec();
        if kind == Kind::Directory {
            name.push(b'/');
        }
        let link = if kind == Kind::Symlink { fs::read_link(from).map_err(Error::io)?.into_os_string().into_vec() } else { Vec::new() };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (rustix::fs::major(meta.rdev()).into(), rustix::fs::minor(meta.rdev()).into()),
            _ => (0, 0),
        };
        let (uid, gid, mtime) = match self.options {
            BuildOptions { preserve: true, .. } => (meta.uid().into(), meta.gid().into(), changed(meta)),
            BuildOptions { mtime, .. } => (0, 0, Time::from_secs(mtime)),
        };
        Ok(Header {
            path: name,
            link,
            kind,
            mode: meta.mode() & MODE,
            uid,
            gid,
            mtime,
            size: if kind == Kind::File { meta.len() } else { 0 },
            device,
            records: self.xattrs(from)?,
            ..Header::default()
        })
    }

    /// The attributes that belong to the file rather than to this machine, sorted; none where the file system has none.
    fn xattrs(&mut self, from: &Path) -> Result<Vec<Record>> {
        let listed = match rustix::fs::llistxattr(from, self.list.as_mut_slice()) {
            Ok(listed) => listed,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
            Err(error) => return Err(Error::io(error.into()).frame("its extended attributes")),
        };
        let mut records = Vec::new();
        for name in self.list[..listed].split(|byte| *byte == 0) {
            if name != b"security.capability" && !name.starts_with(b"user.") {
                continue;
            }
            match rustix::fs::lgetxattr(from, name, self.value.as_mut_slice()) {
                Ok(len) => records.push(([XATTR, name].concat(), self.value[..len].to_vec())),
                // It was removed since it was listed.
                Err(Errno::NODATA) => {}
                Err(error) => {
                    return Err(Error::io(error.into()).frame(format_args!("its extended attribute {}", escape_bytes(name))));
                }
            }
        }
        records.sort_unstable();
        Ok(records)
    }

    /// Refuses what one mapping puts below a path that another makes something else than a directory: engines disagree on what that means.
    fn refuse_below_files(&self) -> Result<()> {
        for (path, found) in &self.found {
            self.cancel.poll()?;
            for end in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at) {
                if let Some(above) = self.found.get(&path[..end]).filter(|above| above.header.kind != Kind::Directory) {
                    return Err(conflict(&path[..end], &above.from.path, &found.from.path));
                }
            }
        }
        Ok(())
    }
}

fn conflict(path: &[u8], first: &Path, second: &Path) -> Error {
    let (path, first, second) = (escape_bytes(path), first.display(), second.display());
    Error::invalid(format_args!(
        "{first} and {second} both come to lie at /{path} in the layer, expected one of them or two that are the same"
    ))
    .hint("directories are merged when their modes, attributes and preserved owners are equal")
}

fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// What a file is; nothing for what tar does not know.
fn kind(of: FileType) -> Option<Kind> {
    Some(match of {
        _ if of.is_file() => Kind::File,
        _ if of.is_dir() => Kind::Directory,
        _ if of.is_symlink() => Kind::Symlink,
        _ if of.is_char_device() => Kind::CharDevice,
        _ if of.is_block_device() => Kind::BlockDevice,
        _ if of.is_fifo() => Kind::Fifo,
        _ => return None,
    })
}

fn changed(meta: &Metadata) -> Time {
    // The system gives less than a second, rounded down, also before 1970.
    Time { secs: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0) }
}

/// Streams the tar: blocks that are at hand, then a file, then its padding, and so on.
struct Reader {
    entries: Arc<[Entry]>,
    /// The entry whose header comes next.
    next: usize,
    /// Headers, padding or the end, given up to `at`.
    blocks: Vec<u8>,
    at: usize,
    /// The payload that comes after `blocks`, its entry and how much of it is left.
    file: Option<(File, usize, u64)>,
    ended: bool,
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // Whatever fails leaves all as it is, so that it fails again: what is cut short never looks complete.
        while !out.is_empty() {
            if self.at < self.blocks.len() {
                let read = (&self.blocks[self.at..]).read(out)?;
                self.at += read;
                return Ok(read);
            }
            if let Some((file, entry, left)) = &mut self.file {
                let entry = &self.entries[*entry];
                let read = entry.read(file, *left, out)?;
                *left -= read as u64;
                if read > 0 {
                    return Ok(read);
                }
                self.file = None;
                self.give(vec![0; usize::try_from(padding(entry.header.size)).unwrap_or(0)]);
            } else if let Some(entry) = self.entries.get(self.next) {
                let file = entry.open()?;
                let blocks = entry.header.to_blocks().map_err(Error::from)?;
                self.file = file.map(|file| (file, self.next, entry.header.size));
                self.next += 1;
                self.give(blocks);
            } else if self.ended {
                break;
            } else {
                self.ended = true;
                self.give(END.to_vec());
            }
        }
        Ok(0)
    }
}

impl Reader {
    fn give(&mut self, blocks: Vec<u8>) {
        (self.blocks, self.at) = (blocks, 0);
    }
}

impl Entry {
    /// Opens the payload, if there is one.
    fn open(&self) -> Result<Option<File>> {
        let Some(payload) = &self.payload else { return Ok(None) };
        // Never through a link that has taken its place, and never waiting for the other end of a named pipe.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&payload.path).path(&payload.path)?;
        self.unchanged(&file)?;
        Ok(Some(file))
    }

    /// Reads on where `left` bytes are to come; nothing only at the end of a file that is still what it was.
    fn read(&self, file: &mut File, left: u64, out: &mut [u8]) -> Result<usize> {
        let len = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = loop {
            match file.read(&mut out[..len]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.frame(Error::io(error))),
                Ok(read) => break read,
            }
        };
        if read == 0 {
            self.unchanged(file)?;
            if left > 0 {
                return Err(self.frame(Error::invalid(format_args!("it ends {left} bytes before the {} that it had", self.header.size))));
            }
        }
        Ok(read)
    }

    /// Refuses a file that is not what the scan saw.
    fn unchanged(&self, file: &File) -> Result<()> {
        let meta = file.metadata().map_err(|error| self.frame(Error::io(error)))?;
        let (expected, found) = (self.header.size, meta.len());
        if !meta.is_file() || found != expected {
            let what = if meta.is_file() { format!("{found} bytes") } else { "no regular file".to_owned() };
            return Err(self
                .frame(Error::invalid(format_args!("it has changed while the layer was made, expected {expected} bytes, found {what}"))));
        }
        if self.payload.as_ref().is_some_and(|payload| payload.changed != changed(&meta)) {
            return Err(self.frame(Error::invalid("it has changed while the layer was made")));
        }
        Ok(())
    }

    fn frame(&self, error: Error) -> Error {
        match &self.payload {
            Some(payload) => error.frame(payload.path.display()),
            None => error,
        }
    }
}

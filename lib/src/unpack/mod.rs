//! A root file system as a tar becomes a directory of this machine, the reverse of [`layer::build`](crate::layer::build).
//!
//! The tar is one that layers make together: no whiteouts, each name once, directories before what is in them, hard links after their
//! targets. It need not be trusted. The choices:
//!
//! * **Names never lead out of the directory.** Symlinks are made and never followed: everything happens in a directory that was opened without
//!   following one (`folders.rs`), by a name without slashes. What another process changes meanwhile leads to an error, not outside.
//! * **Complete or absent.** A directory that is not there, or empty, is filled under another name and renamed. [`UnpackOptions::force`] alone
//!   works where things are already, and then a failure leaves what was unpacked so far.
//! * **Directories get their attributes last**, so that filling them neither changes their times nor needs permissions that they do not give.
//!
//! | of the entry | on this machine |
//! |---|---|
//! | owner | the same numbers; with [`UnpackOptions::rootless`] those of the caller, and other owners than 0:0 in `user.rootlesscontainers`, as umoci does |
//! | mode | the same, with setuid, setgid and sticky bit |
//! | time | the same, to the nanosecond and before 1970; it counts as the time of the last access, too |
//! | extended attributes | the same, where the file system has them; not `security.selinux` and `system.nfs4_acl`, which belong to the machine |
//! | hard link | another name of its target; it has no attributes of its own |
//! | device | the same; with `rootless` an empty file, as in umoci |
//! | parent without an entry | a directory of the caller with mode 0755 |
//! | sparse file | a file with holes |
//! | unknown type | left out and counted |

mod attributes;
mod folders;
mod remove;
mod target;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::{Beneath, HANDLE, LISTABLE};
use crate::context::Cancel;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::tar::{BySkimming, Entry, Kind, RawEntries, RootPath, TarLimits, escape_bytes};
use attributes::{On, Restore};
use folders::Folders;
use target::Target;

/// The longest name of one file, and the longest path that the system takes: `NAME_MAX` and `PATH_MAX` of Linux.
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4096;

/// How much is read and written at once.
const CHUNK: usize = 256 << 10;

/// What is said when something may not be kept.
const ROOTLESS_HINT: &str = "--rootless keeps what it may, and records the rest";

/// How a root file system is unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Keep what the system lets the caller keep, and record the rest: owners in attributes named `user.rootlesscontainers`, everything in
    /// [`Unpacked::left_out`]. Devices become empty files. This depends on the option alone, not on who the caller is. Without it, what
    /// cannot be kept is an error.
    pub rootless: bool,
    /// Unpack over a directory that is not empty. Directories that are there stay, with the attributes of the entry if there is one; anything
    /// else that is where an entry goes is removed first.
    pub force: bool,
}

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries that are there now.
    pub entries: u64,
    /// Bytes that were written to files, without holes.
    pub bytes: u64,
    /// What is not as in the tar.
    pub left_out: LeftOut,
}

/// What could not be kept, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Files that belong to the caller instead of their owner. Owner 0:0 does not count: the caller stands for root.
    pub owners: Left,
    /// Those of [`LeftOut::owners`] whose owner is not in an attribute either: symlinks, fifos, all on a file system without attributes.
    pub unrecorded: Left,
    /// Devices that are empty files.
    pub devices: Left,
    /// Extended attributes.
    pub xattrs: Left,
    /// Entries of a type that is not known, which are not there at all.
    pub unknown: Left,
}

/// One kind of what could not be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// How many.
    pub count: u64,
    /// The first [`Left::SHOWN`] of them, fit for a message.
    pub examples: Vec<String>,
}

impl Left {
    /// How many examples are kept.
    pub const SHOWN: usize = 10;

    /// Counts one more.
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < Self::SHOWN {
            self.examples.push(example());
        }
    }
}

impl LeftOut {
    /// Whether all is as in the tar.
    pub fn is_empty(&self) -> bool {
        [&self.owners, &self.unrecorded, &self.devices, &self.xattrs, &self.unknown].iter().all(|left| left.count == 0)
    }
}

/// Unpacks the root file system that `tar` gives into the directory `to`.
///
/// # Errors
/// [`ErrorKind::Exists`] for a directory that is not empty without [`UnpackOptions::force`], a malformed tar, names and links that mean
/// nothing, what the system refuses, or [`ErrorKind::Cancelled`]. Nothing is left then, unless there was something before.
pub fn unpack(tar: impl Read, to: &Path, options: &UnpackOptions, cancel: &Cancel) -> Result<Unpacked> {
    unpack_by(Beneath::detect, tar, to, options, cancel)
}

/// Refuses a directory that [`unpack`] would refuse to fill, for callers who want to know before they read anything.
///
/// # Errors
/// [`ErrorKind::Exists`], or what keeps the caller from looking.
pub fn expect_free(to: &Path, options: &UnpackOptions) -> Result<()> {
    target::look(to, options.force).map(|_| ()).context(|| into(to))
}

fn into(to: &Path) -> String {
    format!("unpacking into {}", to.display())
}

/// Unpacks with a given way to open directories.
fn unpack_by(opening: fn(&OwnedFd) -> Beneath, tar: impl Read, to: &Path, options: &UnpackOptions, cancel: &Cancel) -> Result<Unpacked> {
    let frame = || into(to);
    let (target, root) = Target::prepare(to, options.force).context(frame)?;
    let opening = opening(&root.fd);
    let mut unpacking = Unpacking {
        folders: Folders::new(root, opening, options.force).context(frame)?,
        restore: Restore::new(options.rootless),
        entries: 0,
        bytes: 0,
        buffer: vec![0; CHUNK],
        cancel,
    };
    match unpacking.run(tar) {
        Ok(()) => {
            let Unpacking { folders, restore, entries, bytes, .. } = unpacking;
            target.commit(folders).context(frame)?;
            Ok(Unpacked { entries, bytes, left_out: restore.left_out })
        }
        Err(error) => {
            target.abandon(unpacking.folders);
            Err(error.frame(frame()))
        }
    }
}

/// A failure of one entry: what the input says already names the entry.
enum Failure {
    Input(Error),
    Here(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Here(Error::io(error.into()))
    }
}

struct Unpacking<'a> {
    folders: Folders,
    restore: Restore,
    entries: u64,
    bytes: u64,
    buffer: Vec<u8>,
    cancel: &'a Cancel,
}

impl Unpacking<'_> {
    fn run(&mut self, tar: impl Read) -> Result<()> {
        let mut tar = RawEntries::new(BySkimming::new(BufReader::with_capacity(CHUNK, tar)), TarLimits::default());
        while let Some(entry) = tar.next_entry()? {
            self.cancel.poll()?;
            self.entry(&entry, &mut tar).map_err(|failure| match failure {
                Failure::Input(error) => error,
                Failure::Here(error) => error.frame(format_args!("entry `{}`", escape_bytes(&entry.path))),
            })?;
        }
        // What gives the tar may have checks of its own at its end.
        tar.drain()?;
        self.folders.finish(self.cancel)
    }

    fn entry(&mut self, entry: &Entry, payload: &mut impl Read) -> Result<(), Failure> {
        let path = clean(&entry.path, "its name")?;
        if matches!(entry.kind, Kind::Other(_)) {
            self.restore.left_out.unknown.add(|| path.to_string());
            return Ok(());
        }
        self.entries += 1;
        let Some(name) = path.file_name() else {
            if entry.kind != Kind::Directory {
                return Err(Error::invalid("it takes the place of the root, expected a directory").into());
            }
            return Ok(self.directory(folders::ROOT, false, entry, &path)?);
        };
        let above = &path.as_bytes()[..(path.as_bytes().len() - name.len()).saturating_sub(1)];
        let parent = self.folders.enter_path(above)?;
        if entry.kind == Kind::Directory {
            let (folder, is_new) = self.folders.enter(parent, name, true)?;
            return Ok(self.directory(folder, is_new, entry, &path)?);
        }
        match entry.kind {
            Kind::HardLink => Ok(self.hard_link(parent, name, entry, &path)?),
            Kind::Symlink => Ok(self.symlink(parent, name, entry, &path)?),
            Kind::CharDevice | Kind::BlockDevice if self.restore.rootless => {
                self.restore.left_out.devices.add(|| path.to_string());
                self.file(parent, name, entry, &path, payload)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => Ok(self.special(parent, name, entry, &path)?),
            Kind::Directory | Kind::File | Kind::Other(_) => self.file(parent, name, entry, &path, payload),
        }
    }

    fn directory(&mut self, folder: u32, is_new: bool, entry: &Entry, path: &RootPath) -> Result<()> {
        if self.restore.is_early(entry, is_new) {
            let fd = self.folders.open(folder, LISTABLE)?;
            self.restore.early(&On::Directory(fd.as_fd()), entry, path, is_new)?;
        }
        self.folders.end(folder, self.restore.late(entry)?)
    }

    fn file(&mut self, parent: u32, name: &[u8], entry: &Entry, path: &RootPath, payload: &mut impl Read) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.folders.create(parent, name, |at, name| rustix::fs::openat(at, name, flags, mode))?;
        let file = File::from(file);
        let done = self.fill(&file, entry, payload).and_then(|()| Ok(self.restore.all(&On::File(file.as_fd()), entry, path)?));
        if done.is_err() {
            // Half a file is worse than none. Nothing can be done about a failure here.
            let _ = rustix::fs::unlinkat(self.folders.here(), name, AtFlags::empty());
        }
        done
    }

    /// Writes the content, and leaves out holes.
    fn fill(&mut self, file: &File, entry: &Entry, payload: &mut impl Read) -> Result<(), Failure> {
        let here = |error: io::Error| Failure::Here(Error::io(error));
        let Some(sparse) = &entry.sparse else { return self.copy(file, 0, entry.size, payload) };
        for (offset, length) in &sparse.map {
            self.copy(file, *offset, *length, payload)?;
        }
        file.set_len(sparse.size).map_err(here)
    }

    fn copy(&mut self, file: &File, mut at: u64, length: u64, payload: &mut impl Read) -> Result<(), Failure> {
        let end = at + length;
        while at < end {
            self.cancel.poll()?;
            let step = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            // Truncation is an error of the input, of this library, that has travelled through `io::Error`.
            payload.read_exact(&mut self.buffer[..step]).map_err(|error| Failure::Input(Error::io(error)))?;
            file.write_all_at(&self.buffer[..step], at).map_err(|error| Failure::Here(Error::io(error)))?;
            at += step as u64;
            self.bytes += step as u64;
        }
        Ok(())
    }

    fn symlink(&mut self, parent: u32, name: &[u8], entry: &Entry, path: &RootPath) -> Result<()> {
        if entry.link.is_empty() {
            return Err(Error::invalid("it is a symlink without a target"));
        }
        self.folders.create(parent, name, |at, name| rustix::fs::symlinkat(entry.link.as_slice(), at, name))?;
        let node = attributes::pin(self.folders.here(), name, entry.kind)?;
        self.restore.all(&node.on(), entry, path)
    }

    fn special(&mut self, parent: u32, name: &[u8], entry: &Entry, path: &RootPath) -> Result<()> {
        let make = |at: &OwnedFd, name: &[u8]| attributes::make_special(at, name, entry);
        self.folders.create(parent, name, make).map_err(|error| match (entry.kind, error.kind()) {
            (Kind::CharDevice | Kind::BlockDevice, ErrorKind::Denied) => error.frame("making the device").hint(ROOTLESS_HINT),
            _ => error,
        })?;
        let node = attributes::pin(self.folders.here(), name, entry.kind)?;
        self.restore.all(&node.on(), entry, path)
    }

    fn hard_link(&mut self, parent: u32, name: &[u8], entry: &Entry, path: &RootPath) -> Result<()> {
        let target = clean(&entry.link, "the target of the hard link")?;
        let wrong = |what: &str| Error::invalid(format_args!("it is a hard link to `{target}`, {what}"));
        if target == *path {
            return Err(wrong("which is itself"));
        }
        let Some((above, target_name)) = target.parent().zip(target.file_name()) else { return Err(wrong("which is a directory")) };
        let Some(folder) = self.folders.find_path(above.as_bytes()) else { return Err(wrong("which is not there")) };
        if self.folders.find(folder, target_name).is_some() {
            return Err(wrong("which is a directory"));
        }
        let from = self.folders.open(folder, HANDLE)?;
        // Without a flag, the target itself is linked, also where it is a symlink.
        let link = |at: &OwnedFd, name: &[u8]| rustix::fs::linkat(&from, target_name, at, name, AtFlags::empty());
        self.folders.create(parent, name, link).map_err(|error| match rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => wrong("which is not there"),
            Ok(meta) if rustix::fs::FileType::from_raw_mode(meta.st_mode).is_dir() => wrong("which is a directory"),
            _ => error.frame(format_args!("linking it to `{target}`")),
        })
    }
}

/// Cleans a name, and refuses what the system cannot take.
fn clean(name: &[u8], what: &str) -> Result<RootPath> {
    let path = RootPath::parse_layer(name).map_err(|problem| Error::invalid(format_args!("{what} {problem}")))?;
    let found = path.as_bytes().len();
    if found > MAX_PATH {
        return Err(Error::limit(format_args!("{what} has {found} bytes, expected at most {MAX_PATH}")));
    }
    match path.components().map(<[u8]>::len).max() {
        Some(found) if found > MAX_NAME => {
            Err(Error::limit(format_args!("{what} has a component of {found} bytes, expected at most {MAX_NAME}")))
        }
        _ => Ok(path),
    }
}

//! The directories of a root file system while it is unpacked: opened without following a symlink, and given their attributes at the end.
//!
//! A directory is remembered once, by its parent and its name, under a random key, so that nobody can choose names that collide.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::os::fd::OwnedFd;

use hashbrown::HashTable;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Late, Pinned};
use super::remove;
use crate::beneath::{Beneath, HANDLE, LISTABLE};
use crate::context::Cancel;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::tar::escape_bytes;

/// The root's place among the directories.
pub(super) const ROOT: u32 = 0;

/// Mode of directories while they are filled: nobody else looks into what is not finished.
const FILLING: Mode = Mode::RWXU;

/// Mode of parents without an entry.
const PARENT: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);

/// How often something is removed that somebody else keeps putting where an entry goes.
const TRIES: usize = 16;

/// The directory to fill, and what becomes of itself.
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    /// Its mode at the end, unless an entry says otherwise; none leaves it as it is.
    pub(super) mode: Option<Mode>,
}

/// What a directory gets at the end.
enum End {
    /// Nothing: it was there, and no entry describes it.
    Stay,
    Mode(Mode),
    Attributes(Box<Late>),
}

struct Folder {
    parent: u32,
    name: Box<[u8]>,
    end: End,
}

/// All directories that were made or entered.
pub(super) struct Folders {
    root: OwnedFd,
    opening: Beneath,
    force: bool,
    /// Whether permissions matter.
    is_root: bool,
    /// Parents before their children.
    folders: Vec<Folder>,
    table: HashTable<u32>,
    key: RandomState,
    /// The directory that was worked in last.
    here: (u32, OwnedFd),
    /// The path that was entered last.
    last: (Vec<u8>, u32),
    /// Bytes of all attributes that wait for the end.
    waiting: usize,
}

/// Most bytes of attributes that may wait for the end. Only default access control lists do, of which real ones have 50 bytes.
const MAX_WAITING: usize = 16 << 20;

impl Folders {
    pub(super) fn new(root: Root, opening: Beneath, force: bool) -> Result<Self> {
        let here = rustix::io::fcntl_dupfd_cloexec(&root.fd, 0).map_err(|error| Error::io(error.into()))?;
        let end = root.mode.map_or(End::Stay, End::Mode);
        Ok(Self {
            root: root.fd,
            opening,
            force,
            is_root: rustix::process::geteuid().is_root(),
            folders: vec![Folder { parent: ROOT, name: Box::default(), end }],
            table: HashTable::new(),
            key: RandomState::new(),
            here: (ROOT, here),
            last: (Vec::new(), ROOT),
            waiting: 0,
        })
    }

    /// How directories are opened here.
    pub(super) fn opening(&self) -> Beneath {
        self.opening
    }

    /// The directory in which [`Folders::create`] has made something last.
    pub(super) fn here(&self) -> &OwnedFd {
        &self.here.1
    }

    /// Finds a directory that was made or entered.
    pub(super) fn find(&self, parent: u32, name: &[u8]) -> Option<u32> {
        self.table.find(self.fingerprint(parent, name), |at| self.is(*at, parent, name)).copied()
    }

    /// Finds a directory by its clean path.
    pub(super) fn find_path(&self, path: &[u8]) -> Option<u32> {
        parts(path).try_fold(ROOT, |folder, name| self.find(folder, name))
    }

    /// Enters a directory by its clean path, and makes what is missing.
    pub(super) fn enter_path(&mut self, path: &[u8]) -> Result<u32> {
        if self.last.0 != path {
            let folder = parts(path).try_fold(ROOT, |folder, name| Ok::<_, Error>(self.enter(folder, name, false)?.0))?;
            self.last.0.clear();
            self.last.0.extend_from_slice(path);
            self.last.1 = folder;
        }
        Ok(self.last.1)
    }

    /// Enters the directory `name` in `parent`, and makes it if it is not there; says whether it has. What is there instead gives way to an
    /// entry of its own, and to what is below it only by force.
    pub(super) fn enter(&mut self, parent: u32, name: &[u8], is_entry: bool) -> Result<(u32, bool)> {
        if let Some(known) = self.find(parent, name) {
            return Ok((known, false));
        }
        self.go(parent)?;
        for _ in 0..TRIES {
            match rustix::fs::mkdirat(self.here(), name, FILLING) {
                Ok(()) => {
                    let folder = self.add(parent, name, End::Mode(PARENT))?;
                    return Ok((folder, true));
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed(error, parent, name)),
            }
            match Pinned::open(self.here(), name) {
                Ok(there) if there.kind() == FileType::Directory => {
                    let end = self.permit(&there).map_err(|error| self.failed(error, parent, name))?;
                    return Ok((self.add(parent, name, end)?, false));
                }
                Ok(_) if is_entry || self.force => self.clear(parent, name)?,
                Ok(_) => {
                    let path = escape_bytes(&self.path_below(parent, name));
                    return Err(Error::invalid(format_args!("it lies below `{path}`, which is no directory")));
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(self.failed(error, parent, name)),
            }
        }
        Err(self.contested(parent, name))
    }

    /// Lets the caller work in a directory that was there, where it is the caller's own; says what is to be undone at the end.
    fn permit(&self, there: &Pinned<'_>) -> Result<End, Errno> {
        let mode = there.mode();
        if self.is_root || mode.contains(FILLING) || !there.is_own() {
            return Ok(End::Stay);
        }
        there.on().chmod(mode | FILLING)?;
        Ok(End::Mode(mode))
    }

    /// Makes something that is no directory in `parent`, which is [`Folders::here`] after that. What is there already is removed first.
    pub(super) fn create<T>(&mut self, parent: u32, name: &[u8], make: impl Fn(&OwnedFd, &[u8]) -> Result<T, Errno>) -> Result<T> {
        self.go(parent)?;
        for _ in 0..TRIES {
            match make(self.here(), name) {
                Ok(made) => return Ok(made),
                Err(Errno::EXIST) => self.clear(parent, name)?,
                Err(error) => return Err(Error::io(error.into())),
            }
        }
        Err(self.contested(parent, name))
    }

    /// Says what a directory gets at the end.
    pub(super) fn end(&mut self, folder: u32, late: Late) -> Result<()> {
        self.waiting += late.size();
        if self.waiting > MAX_WAITING {
            return Err(Error::limit(format_args!("all default access control lists together have over {MAX_WAITING} bytes")));
        }
        self.folders[folder as usize].end = End::Attributes(Box::new(late));
        Ok(())
    }

    /// Opens a directory that was made or entered.
    pub(super) fn open(&self, folder: u32, flags: OFlags) -> Result<OwnedFd> {
        let path = if folder == ROOT { b".".to_vec() } else { self.path(folder) };
        self.opening.open(&self.root, &path, flags).map_err(|error| match error {
            // It was there a moment ago.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
                Error::new(ErrorKind::Io, format!("the directory `{}` was moved away or replaced meanwhile", escape_bytes(&path)))
            }
            error => Error::io(error.into()).frame(format_args!("opening the directory `{}`", escape_bytes(&path))),
        })
    }

    /// Gives all directories their attributes, children first.
    pub(super) fn finish(&self, cancel: &Cancel) -> Result<()> {
        for folder in (0..self.folders.len()).rev() {
            cancel.poll()?;
            self.finish_one(folder).context(|| format!("directory `{}`", escape_bytes(&self.path(index(folder)))))?;
        }
        Ok(())
    }

    /// The same after a failure, as far as it goes: a directory that was there before must not stay closed.
    pub(super) fn finish_anyway(&self) {
        for folder in (0..self.folders.len()).rev() {
            let _ = self.finish_one(folder);
        }
    }

    fn finish_one(&self, folder: usize) -> Result<()> {
        let end = &self.folders[folder].end;
        if matches!(end, End::Stay) {
            return Ok(());
        }
        let fd = self.open(index(folder), LISTABLE)?;
        match end {
            End::Attributes(late) => late.apply(&fd),
            End::Mode(mode) => rustix::fs::fchmod(&fd, *mode).map_err(|error| Error::io(error.into())),
            End::Stay => Ok(()),
        }
    }

    /// Makes `folder` the one that is worked in.
    fn go(&mut self, folder: u32) -> Result<()> {
        if self.here.0 != folder {
            self.here = (folder, self.open(folder, HANDLE)?);
        }
        Ok(())
    }

    /// Removes what is where an entry goes.
    fn clear(&self, parent: u32, name: &[u8]) -> Result<()> {
        let error = match rustix::fs::unlinkat(self.here(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => error,
        };
        let is_directory = Pinned::open(self.here(), name).is_ok_and(|there| there.kind() == FileType::Directory);
        if !is_directory {
            return Err(self.failed(error, parent, name));
        }
        if self.find(parent, name).is_some() {
            return Err(Error::invalid("it takes the place of a directory that came earlier, expected each name once"));
        }
        if !self.force {
            return Err(Error::new(ErrorKind::Exists, "a directory was made in its place meanwhile"));
        }
        remove::tree(self.here(), name, self.opening)
            .map_err(|error| self.failed(error, parent, name))
            .context(|| "removing the directory in its place")
    }

    fn failed(&self, error: Errno, parent: u32, name: &[u8]) -> Error {
        Error::io(error.into()).frame(escape_bytes(&self.path_below(parent, name)))
    }

    fn contested(&self, parent: u32, name: &[u8]) -> Error {
        let path = escape_bytes(&self.path_below(parent, name));
        Error::new(ErrorKind::Exists, format!("somebody else keeps making `{path}`"))
    }

    fn add(&mut self, parent: u32, name: &[u8], end: End) -> Result<u32> {
        let folder = u32::try_from(self.folders.len()).map_err(|_| Error::limit("more than 4 billion directories"))?;
        let fingerprint = self.fingerprint(parent, name);
        self.folders.push(Folder { parent, name: name.into(), end });
        let (folders, key) = (&self.folders, &self.key);
        self.table.insert_unique(fingerprint, folder, |at| {
            let Folder { parent, name, .. } = &folders[*at as usize];
            fingerprint_of(key, *parent, name)
        });
        Ok(folder)
    }

    fn is(&self, folder: u32, parent: u32, name: &[u8]) -> bool {
        let folder = &self.folders[folder as usize];
        folder.parent == parent && *folder.name == *name
    }

    fn fingerprint(&self, parent: u32, name: &[u8]) -> u64 {
        fingerprint_of(&self.key, parent, name)
    }

    /// The path of a directory below the root; empty for the root.
    fn path(&self, mut folder: u32) -> Vec<u8> {
        let mut names = Vec::new();
        while folder != ROOT {
            let Folder { parent, name, .. } = &self.folders[folder as usize];
            names.push(&**name);
            folder = *parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    fn path_below(&self, folder: u32, name: &[u8]) -> Vec<u8> {
        let mut path = self.path(folder);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

fn fingerprint_of(key: &RandomState, parent: u32, name: &[u8]) -> u64 {
    let mut hasher = key.build_hasher();
    parent.hash(&mut hasher);
    hasher.write(name);
    hasher.finish()
}

/// The components of a clean path.
fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

fn index(folder: usize) -> u32 {
    u32::try_from(folder).expect("add has counted them in 32 bits")
}

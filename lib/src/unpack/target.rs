//! Where a root file system goes: beside its final name until it is complete, or right into a directory that cannot be exchanged.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::folders::{Folders, Root};
use super::remove;
use crate::error::{Error, ErrorKind, Result};
use crate::spool::{Temporary, parent};

/// A directory that is being filled.
pub(super) struct Target {
    root: File,
    place: Place,
}

enum Place {
    /// Under another name, to be renamed.
    Beside { temporary: Temporary, to: PathBuf, replace: bool },
    /// Where it stays, in a directory that was empty and had these permissions.
    Empty(Permissions),
    /// Where it stays, among what was there.
    Over,
}

impl Target {
    /// Looks at what is there, and makes or opens the directory to fill.
    pub(super) fn prepare(to: &Path, force: bool) -> Result<(Self, Root)> {
        let Some((meta, is_empty)) = look(to, force)? else { return Self::beside(to, None) };
        if is_empty
            && let Some(real) = replaceable(to, &meta)
            && let Ok(beside) = Self::beside(&real, Some(&meta))
        {
            return Ok(beside);
        }
        let root = File::open(to).map_err(Error::io)?;
        let fd = root.try_clone().map_err(Error::io)?.into();
        let place = if is_empty { Place::Empty(meta.permissions()) } else { Place::Over };
        Ok((Self { root, place }, Root { fd, mode: None }))
    }

    /// Makes a directory beside `to`, in the place of an empty one that is there.
    fn beside(to: &Path, replaced: Option<&Metadata>) -> Result<(Self, Root)> {
        let temporary = Temporary::dir(parent(to))?;
        let root = temporary.handle().try_clone().map_err(Error::io)?;
        let fd: OwnedFd = root.try_clone().map_err(Error::io)?.into();
        let made = root.metadata().map_err(Error::io)?;
        if let Some(replaced) = replaced.filter(|there| (there.uid(), there.gid()) != (made.uid(), made.gid())) {
            chown(temporary.path(), Some(replaced.uid()), Some(replaced.gid())).map_err(Error::io)?;
        }
        // Nobody else looks into what is not finished.
        root.set_permissions(Permissions::from_mode(0o700)).map_err(Error::io)?;
        let mode = rustix::fs::Mode::from_bits_truncate((replaced.unwrap_or(&made).mode() & 0o7777) as rustix::fs::RawMode);
        let place = Place::Beside { temporary, to: to.to_owned(), replace: replaced.is_some() };
        Ok((Self { root, place }, Root { fd, mode: Some(mode) }))
    }

    /// Makes all durable, and gives the directory its name.
    pub(super) fn commit(mut self, folders: Folders) -> Result<()> {
        let synced = sync(&self.root);
        let done = synced.and_then(|()| match &mut self.place {
            Place::Beside { temporary, to, replace } => temporary.persist(to, *replace),
            Place::Empty(_) | Place::Over => Ok(()),
        });
        if done.is_err() {
            self.abandon(folders);
        }
        done
    }

    /// Leaves nothing that was not there before, or as little as it can.
    pub(super) fn abandon(self, folders: Folders) {
        if matches!(self.place, Place::Over) {
            return folders.finish_anyway();
        }
        // Nothing can be done about a failure here. What is beside is removed by the next run then.
        let _ = self.root.set_permissions(Permissions::from_mode(0o700));
        if let Ok(root) = self.root.try_clone() {
            let _ = remove::content(root.into(), folders.opening());
        }
        if let Place::Empty(before) = self.place {
            let _ = self.root.set_permissions(before);
        }
    }
}

/// Looks at the directory that is there, if there is one, and refuses what may not be filled; says whether it is empty.
pub(super) fn look(to: &Path, force: bool) -> Result<Option<(Metadata, bool)>> {
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(error)),
        Ok(_) => {}
    }
    // Where the caller names a symlink, the caller means what it points to.
    let exists = |what: &str| Error::new(ErrorKind::Exists, what);
    let meta = match fs::metadata(to) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => return Err(exists("it is no directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(exists("it is a symlink to what is not there")),
        Err(error) => return Err(Error::io(error)),
    };
    let is_empty = fs::read_dir(to).map_err(Error::io)?.next().is_none();
    if !is_empty && !force {
        return Err(exists("the directory is not empty").hint("name a new or empty directory, or unpack over this one with --force"));
    }
    Ok(Some((meta, is_empty)))
}

/// Makes files durable, all at once instead of one by one. It also tells of what could not be written after all.
fn sync(root: &File) -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(root).map_err(|error| Error::io(error.into()))?;
    #[cfg(not(target_os = "linux"))]
    root.sync_all().map_err(Error::io)?;
    Ok(())
}

/// Gives the path at which an empty directory can be exchanged for another without anybody's notice: not one that something is mounted on, nor the
/// one that the caller is in.
fn replaceable(to: &Path, meta: &Metadata) -> Option<PathBuf> {
    let real = fs::canonicalize(to).ok()?;
    let inode = |meta: &Metadata| (meta.dev(), meta.ino());
    if fs::metadata(".").is_ok_and(|here| inode(&here) == inode(meta)) {
        return None;
    }
    if fs::metadata(parent(&real)).ok()?.dev() != meta.dev() || is_mounted(&real) {
        return None;
    }
    Some(real)
}

/// Whether something is mounted there that may be of the same file system as what is around it.
#[cfg(target_os = "linux")]
fn is_mounted(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|meta| meta.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mounted(_: &Path) -> bool {
    false
}

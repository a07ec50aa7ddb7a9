//! Removes trees of any depth, with one open directory at a time, and nothing outside of them whatever other processes do meanwhile.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Pinned;
use crate::beneath::{Beneath, LISTABLE};

/// Device and number: what tells one directory from another.
type Inode = (u64, u64);

/// Removes the directory `name` in `at`, with all that is in it.
pub(super) fn tree(at: &OwnedFd, name: &[u8], opening: Beneath) -> Result<(), Errno> {
    content(enter(at, name, opening)?, opening)?;
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// Removes all that is in the directory `here`.
pub(super) fn content(mut here: OwnedFd, opening: Beneath) -> Result<(), Errno> {
    let mut above: Vec<(Inode, Vec<u8>)> = Vec::new();
    loop {
        if let Some(name) = clear(&here)? {
            let below = enter(&here, &name, opening)?;
            above.push((inode(&here)?, name));
            here = below;
            continue;
        }
        let Some((expected, name)) = above.pop() else { return Ok(()) };
        // Somebody may have moved the directory away while it was emptied.
        let up = rustix::fs::openat(&here, c"..", LISTABLE, Mode::empty())?;
        if inode(&up)? != expected {
            return Err(Errno::BUSY);
        }
        match rustix::fs::unlinkat(&up, name.as_slice(), AtFlags::REMOVEDIR) {
            // What was put into it meanwhile is found by the next look.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => here = up,
            Err(error) => return Err(error),
        }
    }
}

/// Removes what is no directory or an empty one; gives the first directory that is not empty.
fn clear(here: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    for entry in Dir::read_from(here)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let mut is_directory = entry.file_type() == FileType::Directory;
        if !is_directory {
            match rustix::fs::unlinkat(here, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // The list may not say what it is.
                Err(error) => {
                    is_directory = Pinned::open(here, name.to_bytes()).is_ok_and(|there| there.kind() == FileType::Directory);
                    if !is_directory {
                        return Err(error);
                    }
                }
            }
        }
        match rustix::fs::unlinkat(here, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_bytes().to_vec())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Opens a directory to empty it, and permits the caller to do so where it is the caller's own.
fn enter(at: &OwnedFd, name: &[u8], opening: Beneath) -> Result<OwnedFd, Errno> {
    if !rustix::process::geteuid().is_root() {
        let there = Pinned::open(at, name)?;
        if there.kind() == FileType::Directory && there.is_own() && !there.mode().contains(Mode::RWXU) {
            there.on().chmod(there.mode() | Mode::RWXU)?;
        }
    }
    let below = open(at, name, opening)?;
    // What is mounted there belongs to somebody else.
    if inode(&below)?.0 == inode(at)?.0 { Ok(below) } else { Err(Errno::XDEV) }
}

fn open(at: &OwnedFd, name: &[u8], opening: Beneath) -> Result<OwnedFd, Errno> {
    let flags: OFlags = LISTABLE;
    match opening {
        #[cfg(target_os = "linux")]
        Beneath::Resolve => {
            use rustix::fs::ResolveFlags;
            rustix::fs::openat2(at, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV)
        }
        Beneath::Walk => rustix::fs::openat(at, name, flags, Mode::empty()),
    }
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "these numbers have other types on other systems")]
fn inode(fd: &OwnedFd) -> Result<Inode, Errno> {
    let meta = rustix::fs::fstat(fd)?;
    Ok((meta.st_dev as u64, meta.st_ino as u64))
}

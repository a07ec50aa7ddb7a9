//! Opens what lies below a directory, without ever leaving it.
//!
//! `openat2` of Linux 5.6 resolves a whole path below the root and refuses symlinks on the way. Where it is missing, each component is opened by
//! itself with `O_NOFOLLOW`, which means the same and takes longer.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Opens a directory to work in it.
#[cfg(target_os = "linux")]
pub(crate) const HANDLE: OFlags = OFlags::PATH.union(FOLDER);
#[cfg(not(target_os = "linux"))]
pub(crate) const HANDLE: OFlags = FOLDER;

/// Opens a directory to list it or to change its attributes.
pub(crate) const LISTABLE: OFlags = FOLDER;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a file to read it: never a symlink itself, never waiting for the other end of a named pipe.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// How a path below a root is opened without following symlinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beneath {
    /// In one step of the system.
    #[cfg(target_os = "linux")]
    Resolve,
    /// Component by component.
    Walk,
}

impl Beneath {
    /// Finds out what the system has. Filters of system calls in containers refuse `openat2` in more than one way.
    pub(crate) fn detect(root: &OwnedFd) -> Self {
        #[cfg(target_os = "linux")]
        if Self::Resolve.open(root, b".", HANDLE).is_ok() {
            return Self::Resolve;
        }
        let _ = root;
        Self::Walk
    }

    /// Opens `path`, a directory or something in one, below `root`; `.` is the root.
    pub(crate) fn open(self, root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Resolve => {
                use rustix::fs::ResolveFlags;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
            }
            Self::Walk => {
                let mut here = None;
                let mut parts = path.split(|byte| *byte == b'/').peekable();
                while let Some(part) = parts.next() {
                    let flags = if parts.peek().is_some() { HANDLE } else { flags };
                    let next = rustix::fs::openat(here.as_ref().unwrap_or(root), part, flags, Mode::empty())?;
                    here = Some(next);
                }
                here.ok_or(Errno::NOENT)
            }
        }
    }

    /// Opens a file below `root` to read it, as a process would whose root directory `root` is: symlinked directories on the way are followed
    /// within it. Without `openat2` they are refused.
    pub(crate) fn open_file_in_root(self, root: &OwnedFd, path: &[u8]) -> Result<File, Errno> {
        match self.open(root, path, FILE) {
            #[cfg(target_os = "linux")]
            Err(Errno::LOOP) if self == Self::Resolve => {
                use rustix::fs::ResolveFlags;
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(root, path, FILE, Mode::empty(), resolve).map(File::from)
            }
            opened => opened.map(File::from),
        }
    }
}

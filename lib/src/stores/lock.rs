//! The locks of containers/storage, taken as it takes them.
//!
//! `pkg/lockfile` of containers/storage locks the whole of a lock file with `fcntl` (`F_SETLKW`, a lock of the process), shared to read and
//! exclusive to write. Such a lock ends when the process closes the file anywhere, so that of two readers in one process the second may go
//! unprotected: [`Stamp`] shows what changed, with a lock or without.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::disk;
use crate::context::Cancel;
use crate::error::{Error, ErrorKind, Result};

/// How long each try to get a lock waits after the one before.
const STEP: Duration = Duration::from_millis(50);

/// How often a lock is tried: ten minutes. podman holds one while it unpacks a layer.
const TRIES: u32 = 12_000;

/// A lock file, locked to read until it is dropped.
#[derive(Debug)]
pub(super) struct Shared(#[expect(dead_code, reason = "closing it gives the lock back")] Option<File>);

impl Shared {
    /// Waits for the lock. Where there is no lock file, or it may not be opened, there is no lock either: nothing is made in a store.
    pub(super) fn take(path: &Path, cancel: &Cancel) -> Result<Self> {
        let file = match disk::open(path) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Self(None)),
            Err(error) if error.kind() == ErrorKind::Denied => return Ok(Self(None)),
            Err(error) => return Err(error),
        };
        for _ in 0..TRIES {
            match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => return Ok(Self(Some(file))),
                Err(Errno::AGAIN | Errno::ACCESS | Errno::INTR) => {}
                // A file system without locks.
                Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Self(None)),
                Err(error) => return Err(Error::io(error.into()).frame(path.display())),
            }
            cancel.poll()?;
            thread::sleep(STEP);
        }
        Err(Error::new(ErrorKind::Unavailable, "another program has kept it locked for ten minutes").frame(path.display()))
    }
}

/// Which version of some files is there: they are only ever replaced by renaming.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<(u64, i64, i64, u64)>>);

impl Stamp {
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let stamp = |path: &PathBuf| {
            let meta = fs::symlink_metadata(path).ok()?;
            Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
        };
        Self(paths.iter().map(stamp).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_locked_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.lock");
        Shared::take(&path, &Cancel::default()).unwrap();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        let _first = Shared::take(&path, &Cancel::default()).unwrap();
        let _second = Shared::take(&path, &Cancel::default()).unwrap();
    }

    #[test]
    fn stamps_differ_when_a_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().join("a"), dir.path().join("b")];
        let none = Stamp::of(&paths);
        fs::write(&paths[0], "x").unwrap();
        let one = Stamp::of(&paths);
        fs::write(&paths[1], "x").unwrap();
        fs::rename(&paths[1], &paths[0]).unwrap();
        let other = Stamp::of(&paths);
        assert!(none != one && one != other && other == Stamp::of(&paths));
    }
}

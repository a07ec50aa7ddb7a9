//! Temporary files: outputs that are not visible yet, and bytes that must be kept for a while.
//!
//! ```text
//! .longshore-0123456789abcdef.tmp      a file or folder beside the output, renamed to its final name at commit
//! (no name)                            a spool: bytes of a pipe, or a layer whose place is not known yet
//! ```
//!
//! Named ones are locked with `flock` while their owner lives. A process that was killed leaves one behind; the next run that writes into
//! the same folder finds it unlocked and removes it.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use rustix::fs::FlockOperation;

use crate::context::Cancel;
use crate::error::{Context as _, Error, ErrorKind, Result};

const PREFIX: &str = ".longshore-";
const SUFFIX: &str = ".tmp";

/// A file without a name, removed by the system when it is closed.
///
/// # Errors
/// When `dir` cannot be written.
pub fn anonymous(dir: &Path) -> Result<File> {
    tempfile::tempfile_in(dir).context(|| format!("making a temporary file in {}", dir.display()))
}

/// The folder that a file is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file or folder beside its final name. Dropped before [`Temporary::persist`], it is removed.
#[derive(Debug)]
pub struct Temporary {
    /// Holds the lock; for a file also what is written to.
    file: Arc<File>,
    path: PathBuf,
    persisted: bool,
}

impl Temporary {
    /// Makes a file in `dir`, and removes what killed runs left there.
    ///
    /// # Errors
    /// When `dir` cannot be written.
    pub fn file(dir: &Path) -> Result<Self> {
        sweep(dir);
        Self::create(dir, |path| OpenOptions::new().read(true).write(true).create_new(true).open(path))
    }

    /// Makes a folder in `dir`, and removes what killed runs left there.
    ///
    /// # Errors
    /// When `dir` cannot be written.
    pub fn dir(dir: &Path) -> Result<Self> {
        sweep(dir);
        Self::create(dir, |path| fs::create_dir(path).and_then(|()| File::open(path)))
    }

    fn create(dir: &Path, make: impl Fn(&Path) -> io::Result<File>) -> Result<Self> {
        for _ in 0..64 {
            let path = dir.join(format!("{PREFIX}{:016x}{SUFFIX}", random()));
            match make(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                // A folder is made and then opened, and another process may sweep in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => continue,
                Err(error) => return Err(Error::io(error).frame(format_args!("making a temporary file in {}", dir.display()))),
                // Another process may sweep between the creation and the lock; then this one is lost and the next try is not.
                Ok(file) if try_lock(&file) && still_there(&file, &path) => {
                    return Ok(Self { file: Arc::new(file), path, persisted: false });
                }
                Ok(_) => {}
            }
        }
        Err(Error::new(ErrorKind::Io, "no temporary name is free").frame(dir.display()))
    }

    /// The open file.
    pub fn handle(&self) -> &Arc<File> {
        &self.file
    }

    /// Where it is for now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it durable and gives it its name, replacing what is there only if `replace` says so.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when something is there, or what the system says.
    pub fn persist(&mut self, to: &Path, replace: bool) -> Result<()> {
        self.file.sync_all().path(to)?;
        if replace {
            fs::rename(&self.path, to).path(to)?;
        } else {
            rename_new(&self.path, to)?;
        }
        self.persisted = true;
        sync_dir(parent(to))
    }

    /// Makes a folder durable and puts it in the place of another, which is removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn exchange(&mut self, with: &Path) -> Result<()> {
        self.file.sync_all().path(with)?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            if renameat_with(CWD, &self.path, CWD, with, RenameFlags::EXCHANGE).is_ok() {
                // What is dropped with this is the old one now.
                return sync_dir(parent(with));
            }
        }
        fs::remove_dir_all(with).path(with)?;
        self.persist(with, false)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.persisted {
            // Nothing can be done about a failure here; the next run tries again.
            let _ = remove(&self.path);
        }
    }
}

/// Renames to a name that must be free.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some file systems (NFS, older FUSE) do not know the flag.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            done => return done.map_err(io::Error::from).path(to),
        }
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(Error::new(ErrorKind::Exists, "it exists").frame(to.display()));
    }
    fs::rename(from, to).path(to)
}

/// Makes renames in `dir` durable.
///
/// # Errors
/// What the system says.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|handle| handle.sync_all()).path(dir)
}

/// Copies `len` bytes between files at given places, in the kernel where it can.
///
/// # Errors
/// What the system says, or an early end of `from`.
pub fn copy_range(from: &File, mut at: u64, to: &File, mut to_at: u64, len: u64) -> io::Result<()> {
    let end = at + len;
    #[cfg(target_os = "linux")]
    while at < end {
        let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), step) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::NOSPC) => return Err(rustix::io::Errno::NOSPC.into()),
            // Not between these two: copy by hand.
            Err(_) => break,
        }
    }
    let mut buffer = vec![0; 256 << 10];
    while at < end {
        let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact_at(&mut buffer[..step], at)?;
        to.write_all_at(&buffer[..step], to_at)?;
        at += step as u64;
        to_at += step as u64;
    }
    Ok(())
}

/// Sends a file to the disk while it is being written, so that little is left to wait for once it is complete.
#[derive(Debug)]
pub struct Flusher {
    file: Arc<File>,
    written: AtomicU64,
    syncing: OnceLock<Syncing>,
}

#[derive(Debug)]
struct Syncing {
    wake: Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

/// Bytes that are written between two syncs of a [`Flusher`].
const FLUSH: u64 = 64 << 20;

impl Flusher {
    /// Begins with a file that is empty.
    pub fn new(file: &Arc<File>) -> Self {
        Self { file: Arc::clone(file), written: AtomicU64::new(0), syncing: OnceLock::new() }
    }

    /// Learns that so many bytes were written, wherever they are.
    pub fn wrote(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before / FLUSH != (before + bytes) / FLUSH {
            // One that is under way takes most of it, and the next the rest.
            let _ = self.syncing.get_or_init(|| Syncing::begin(&self.file)).wake.try_send(());
        }
    }

    /// Waits for the sync that is under way. The system tells of a failed write once: what was told here must not be lost.
    ///
    /// # Errors
    /// When the file could not be written.
    pub fn finish(self) -> io::Result<()> {
        let Some(Syncing { wake, thread }) = self.syncing.into_inner() else { return Ok(()) };
        drop(wake);
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread that syncs ended unexpectedly")))
    }
}

impl Syncing {
    fn begin(file: &Arc<File>) -> Self {
        let (wake, woken) = bounded(1);
        let file = Arc::clone(file);
        Self { wake, thread: std::thread::spawn(move || woken.iter().try_for_each(|()| file.sync_data())) }
    }
}

/// Takes the lock of a file or folder, waiting for others in slices, so that a request to stop is noticed.
///
/// # Errors
/// When the file system has no locks, or [`ErrorKind::Cancelled`].
pub fn lock(file: &impl AsFd, cancel: &Cancel) -> Result<()> {
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => cancel.poll()?,
            Err(error) => return Err(Error::io(error.into())),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn try_lock(file: &File) -> bool {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(rustix::io::Errno::WOULDBLOCK) => false,
        // No locks on this file system: nothing is swept there either.
        Err(_) => true,
    }
}

fn still_there(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Removes temporary files and folders whose owner is dead.
fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX))
            .is_some_and(|middle| middle.len() == 16 && middle.bytes().all(|c| c.is_ascii_hexdigit()));
        if !ours {
            continue;
        }
        let path = entry.path();
        // Never follow a link or wait on a pipe that somebody gave such a name.
        let Ok(kind) = entry.file_type() else { continue };
        if !(kind.is_file() || kind.is_dir()) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        if matches!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive), Ok(())) && still_there(&file, &path) {
            let _ = remove(&path);
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// A number that two processes do not share: std's hasher keys are random for each.
fn random() -> u64 {
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_swept_before_it_is_opened_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let tries = std::cell::Cell::new(0);
        let make = |path: &Path| {
            fs::create_dir(path)?;
            if tries.replace(tries.get() + 1) < 3 {
                fs::remove_dir(path)?;
            }
            File::open(path)
        };
        let made = Temporary::create(dir.path(), make).unwrap();
        assert!(made.path().is_dir() && tries.get() == 4);
        assert!(Temporary::dir(&dir.path().join("none")).is_err());
    }

    #[test]
    fn dropped_leaves_nothing_and_persisted_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        drop(Temporary::file(dir.path()).unwrap());
        assert!(names(dir.path()).is_empty());
        let mut file = Temporary::file(dir.path()).unwrap();
        file.handle().as_ref().write_all(b"x").unwrap();
        file.persist(&dir.path().join("out"), false).unwrap();
        assert_eq!(names(dir.path()), ["out"]);
        let second = Temporary::file(dir.path()).unwrap().persist(&dir.path().join("out"), false).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Exists);
        assert_eq!(fs::read(dir.path().join("out")).unwrap(), b"x");
    }

    #[test]
    fn leftovers_of_the_dead_go_and_files_of_the_living_stay() {
        let dir = tempfile::tempdir().unwrap();
        let living = Temporary::file(dir.path()).unwrap();
        fs::write(dir.path().join(".longshore-00000000000000aa.tmp"), b"left").unwrap();
        fs::create_dir_all(dir.path().join(".longshore-00000000000000bb.tmp/blobs")).unwrap();
        fs::write(dir.path().join(".longshore-mine.tmp"), b"not ours").unwrap();
        drop(Temporary::dir(dir.path()).unwrap());
        let kept = living.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = vec![kept, ".longshore-mine.tmp".to_owned()];
        expected.sort();
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn a_flusher_syncs_now_and_then_and_tells_of_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = Arc::new(File::create(&path).unwrap());
        let small = Flusher::new(&file);
        small.wrote(FLUSH - 1);
        assert!(small.syncing.get().is_none());
        small.wrote(1);
        assert!(small.syncing.get().is_some());
        small.finish().unwrap();
        // What cannot be synced stands for a disk that fails.
        let (read, _write) = io::pipe().unwrap();
        let broken = Flusher::new(&Arc::new(File::from(std::os::fd::OwnedFd::from(read))));
        broken.wrote(FLUSH);
        assert_eq!(broken.finish().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn ranges_are_copied_between_offsets() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (anonymous(dir.path()).unwrap(), anonymous(dir.path()).unwrap());
        from.write_all_at(b"0123456789", 0).unwrap();
        copy_range(&from, 2, &to, 5, 6).unwrap();
        let mut read = [0; 6];
        to.read_exact_at(&mut read, 5).unwrap();
        assert_eq!(&read, b"234567");
        assert!(copy_range(&from, 8, &to, 0, 9).is_err());
    }
}

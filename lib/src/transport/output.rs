//! Archives to write: a file that appears when it is complete, or a stream.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::event::PollFlags;

use super::input::wait;
use crate::compress::{Encoding, GzipLevel, ZstdLevel};
use crate::context::{Cancel, Context};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::pool::{Buffer, ParallelEncoder, Pool, lock};
use crate::spool::{self, Flusher, Temporary};

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file that is replaced only when asked to, compressed as a whole or not.
    File {
        /// Its final name.
        path: PathBuf,
        /// Whether one that exists may go.
        replace: bool,
        /// How the archive is compressed as a whole.
        encoding: Option<Encoding>,
    },
    /// Standard output.
    Stdout,
    /// A stream that somebody else has opened.
    Given(Given),
}

/// A stream that somebody else has opened: the input of a program, the body of a request. It is written once; dropped before it is finished, it
/// must not look complete to who reads it.
#[derive(Clone)]
pub struct Given {
    stream: Arc<Mutex<Option<Box<dyn FinishWrite>>>>,
    label: String,
}

impl Given {
    /// Hands in a stream and its name, for messages.
    pub fn new(stream: Box<dyn FinishWrite>, label: String) -> Self {
        Self { stream: Arc::new(Mutex::new(Some(stream))), label }
    }
}

impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stream, &other.stream)
    }
}

impl Eq for Given {}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("label", &self.label).finish_non_exhaustive()
    }
}

/// An archive being written. Dropped before [`Output::commit`], a file is not there.
#[derive(Debug)]
pub struct Output {
    /// What is written to.
    pub medium: Medium,
    /// Its name, for messages.
    pub label: String,
    /// Where temporary files of this output belong.
    pub temp: PathBuf,
    flusher: Option<Flusher>,
    file: Option<(Temporary, PathBuf, bool)>,
}

/// What an [`Output`] is written to.
pub enum Medium {
    /// A file that can be written at any place.
    File(Arc<File>),
    /// Bytes that leave in order.
    Stream(Mutex<Box<dyn FinishWrite>>),
}

/// A stream that has an end of its own.
pub trait FinishWrite: Write + Send {
    /// Writes what is still held back.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finish(&mut self) -> io::Result<()>;
}

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Stream(_) => "Stream",
        })
    }
}

impl Destination {
    /// The file at a path, compressed as a whole where its name says so, or standard output for `-`.
    pub fn at(path: &Path, replace: bool) -> Self {
        if path.as_os_str() == "-" {
            return Self::Stdout;
        }
        let encoding = match path.extension().and_then(OsStr::to_str) {
            Some("gz" | "tgz") => Some(Encoding::Gzip(GzipLevel::default())),
            Some("zst" | "tzst") => Some(Encoding::Zstd(ZstdLevel::default())),
            _ => None,
        };
        Self::File { path: path.to_owned(), replace, encoding }
    }
}

impl Output {
    /// Begins an output. Nothing is visible at the final name until [`Output::commit`].
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the file is there and may not be replaced, or what the system says.
    pub fn create(destination: &Destination, ctx: &Context) -> Result<Self> {
        match destination {
            Destination::Stdout => {
                let stdout = PollWrite::stdout(&ctx.cancel)?;
                let (medium, label) = (Medium::Stream(Mutex::new(Box::new(stdout))), "standard output".to_owned());
                Ok(Self { medium, label, temp: ctx.temp.clone(), flusher: None, file: None })
            }
            Destination::Given(given) => {
                let stream = lock(&given.stream).take();
                let stream = stream.ok_or_else(|| Error::invalid("it is being written already").frame(&given.label))?;
                let medium = Medium::Stream(Mutex::new(stream));
                Ok(Self { medium, label: given.label.clone(), temp: ctx.temp.clone(), flusher: None, file: None })
            }
            Destination::File { path, replace, encoding } => {
                check_free(path, *replace)?;
                let dir = spool::parent(path);
                let temporary = Temporary::file(dir).path(path)?;
                let file = Arc::clone(temporary.handle());
                let medium = match encoding {
                    None => Medium::File(file),
                    Some(encoding) => Medium::Stream(Mutex::new(Box::new(Compressed::new(file, *encoding, &ctx.pool)))),
                };
                let label = path.display().to_string();
                let flusher = Some(Flusher::new(temporary.handle()));
                Ok(Self { medium, label, temp: dir.to_owned(), flusher, file: Some((temporary, path.clone(), *replace)) })
            }
        }
    }

    /// Learns that so many bytes were written to the file.
    pub fn wrote(&self, bytes: usize) {
        if let Some(flusher) = &self.flusher {
            flusher.wrote(bytes as u64);
        }
    }

    /// Ends the output and makes it visible. Returns its size where it is a file.
    ///
    /// # Errors
    /// What the system says; then nothing is visible.
    pub fn commit(self) -> Result<Option<u64>> {
        if let Medium::Stream(stream) = &self.medium {
            lock(stream).finish().context(|| &self.label)?;
        }
        let Some((mut temporary, path, replace)) = self.file else { return Ok(None) };
        self.flusher.map_or(Ok(()), Flusher::finish).path(&path)?;
        let size = temporary.handle().metadata().path(&path)?.len();
        temporary.persist(&path, replace)?;
        Ok(Some(size))
    }
}

fn check_free(path: &Path, replace: bool) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if meta.is_dir() {
        return Err(Error::new(ErrorKind::Exists, "it is a directory, and an archive is a file").frame(path.display()));
    }
    // As root, renaming over /dev/null or /dev/stdout would work.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(Error::new(ErrorKind::Exists, "it is a device, pipe or the like, and an archive is a file")
            .frame(path.display())
            .hint("write to - and redirect standard output there"));
    }
    if replace {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Exists, "it exists already").frame(path.display()).hint("--force replaces it"))
}

/// A file that is compressed as a whole while it is written.
struct Compressed {
    file: Arc<File>,
    at: u64,
    encoder: ParallelEncoder,
    pool: Arc<Pool>,
    block: Buffer,
}

impl Compressed {
    fn new(file: Arc<File>, encoding: Encoding, pool: &Arc<Pool>) -> Self {
        let encoder = ParallelEncoder::new(pool, encoding);
        let block = pool.buffer(encoder.block_size());
        Self { file, at: 0, encoder, pool: Arc::clone(pool), block }
    }
}

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.encoder.block_size() - self.block.len();
        let step = room.min(bytes.len());
        self.block.data_mut().extend_from_slice(&bytes[..step]);
        if step == room {
            let full = std::mem::replace(&mut self.block, self.pool.buffer(self.encoder.block_size()));
            let (file, at) = (&self.file, &mut self.at);
            self.encoder.push(Arc::new(full), &mut |encoded| append(file, at, encoded))?;
        }
        Ok(step)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FinishWrite for Compressed {
    fn finish(&mut self) -> io::Result<()> {
        let last = std::mem::replace(&mut self.block, self.pool.buffer(0));
        let (file, at) = (&self.file, &mut self.at);
        Ok(self.encoder.finish(Arc::new(last), &mut |encoded| append(file, at, encoded))?)
    }
}

fn append(file: &File, at: &mut u64, bytes: Arc<Buffer>) -> Result<()> {
    file.write_all_at(&bytes, *at).map_err(Error::io)?;
    *at += bytes.len() as u64;
    Ok(())
}

/// Standard output, in slices of waiting where it is a pipe, so that a request to stop is noticed while nobody reads.
#[derive(Debug)]
pub struct PollWrite {
    file: File,
    cancel: Option<Cancel>,
}

impl PollWrite {
    /// Takes standard output.
    ///
    /// # Errors
    /// What the system says.
    pub fn stdout(cancel: &Cancel) -> Result<Self> {
        let stdout = io::stdout();
        let file = stdout.as_fd().try_clone_to_owned().map(File::from).context(|| "standard output")?;
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
            let pipe = file.metadata().is_ok_and(|meta| meta.file_type().is_fifo());
            // A description of our own of the same pipe: the shell's must not become non-blocking.
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let own = fs::OpenOptions::new().write(true).custom_flags(flags).open("/proc/self/fd/1");
            if let (true, Ok(own)) = (pipe, own) {
                // The default of 64 KiB makes two context switches of every buffer. Not everybody may have more.
                let _ = rustix::pipe::fcntl_setpipe_size(&own, 1 << 20);
                return Ok(Self { file: own, cancel: Some(cancel.clone()) });
            }
        }
        let _ = cancel;
        Ok(Self { file, cancel: None })
    }

    /// Writes, and waits until that can be done, or until `cancel` says so.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_unless(&mut self, bytes: &[u8], cancel: &Cancel) -> io::Result<usize> {
        write_waiting(&self.file, bytes, cancel)
    }

    /// Writes if that can be done at once.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::WouldBlock`] where it would have to wait.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// Takes the writing end of a pipe that nobody else has.
    ///
    /// # Errors
    /// What the system says.
    pub fn pipe(pipe: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true).map_err(|error| Error::io(error.into()))?;
        #[cfg(target_os = "linux")]
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, 1 << 20);
        Ok(Self { file: pipe.into(), cancel: None })
    }
}

fn write_waiting(mut file: &File, bytes: &[u8], cancel: &Cancel) -> io::Result<usize> {
    loop {
        match file.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(&file, PollFlags::OUT, cancel)?,
            done => return done,
        }
    }
}

impl Write for PollWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.cancel {
            Some(cancel) => write_waiting(&self.file, bytes, cancel),
            None => self.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl FinishWrite for PollWrite {
    fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use longshore_testkit::facts::unpack;
    use longshore_testkit::noise;

    use super::*;
    use crate::compress::{GzipLevel, ZstdLevel};
    use crate::testing::{context, names};

    fn to(path: &Path, replace: bool, encoding: Option<Encoding>) -> Destination {
        Destination::File { path: path.to_owned(), replace, encoding }
    }

    fn stream(output: &Output) -> &Mutex<Box<dyn FinishWrite>> {
        match &output.medium {
            Medium::Stream(stream) => stream,
            Medium::File(_) => panic!("a stream is expected"),
        }
    }

    #[test]
    fn a_file_appears_when_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ctx) = (dir.path().join("out"), context(dir.path()));
        drop(Output::create(&to(&path, false, None), &ctx).unwrap());
        assert!(names(dir.path()).is_empty());
        let output = Output::create(&to(&path, false, None), &ctx).unwrap();
        let Medium::File(file) = &output.medium else { panic!("a file") };
        file.write_all_at(b"bytes", 2).unwrap();
        assert!(!path.exists());
        assert_eq!(output.commit().unwrap(), Some(7));
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"\0\0bytes".to_vec(), vec!["out".to_owned()]));
    }

    #[test]
    fn what_exists_is_replaced_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ctx) = (dir.path().join("out"), context(dir.path()));
        fs::write(&path, b"old").unwrap();
        let error = Output::create(&to(&path, false, None), &ctx).unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Exists, Some("--force replaces it")));
        Output::create(&to(&path, true, None), &ctx).unwrap().commit().unwrap();
        assert!(fs::read(&path).unwrap().is_empty());
        assert_eq!(Output::create(&to(dir.path(), true, None), &ctx).unwrap_err().kind(), ErrorKind::Exists);
        assert_eq!(Output::create(&to(&dir.path().join("no/out"), true, None), &ctx).unwrap_err().kind(), ErrorKind::NotFound);
        // A link that leads nowhere is something too.
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        assert_eq!(Output::create(&to(&dir.path().join("link"), false, None), &ctx).unwrap_err().kind(), ErrorKind::Exists);
        // Somebody else was faster.
        let late = dir.path().join("late");
        let output = Output::create(&to(&late, false, None), &ctx).unwrap();
        fs::write(&late, b"theirs").unwrap();
        assert_eq!(output.commit().unwrap_err().kind(), ErrorKind::Exists);
        assert_eq!(
            (fs::read(&late).unwrap(), names(dir.path())),
            (b"theirs".to_vec(), ["late", "link", "out"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn whole_archives_are_compressed_the_same_however_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = [noise(1_500_000, 1), vec![7; 3_000_000], noise(5, 2)].concat();
        for (name, encoding) in [("gz", Encoding::Gzip(GzipLevel::default())), ("zst", Encoding::Zstd(ZstdLevel::default()))] {
            let mut first: Option<Vec<u8>> = None;
            for (threads, step) in [(1, 1 << 20), (2, 77_777), (8, bytes.len())] {
                let path = dir.path().join(format!("{name}-{threads}"));
                let output = Output::create(&to(&path, false, Some(encoding)), &Context::new(threads, dir.path().to_owned())).unwrap();
                bytes.chunks(step).for_each(|chunk| lock(stream(&output)).write_all(chunk).unwrap());
                let size = output.commit().unwrap();
                let made = fs::read(&path).unwrap();
                assert_eq!(size, Some(made.len() as u64));
                assert!(unpack(&made) == bytes, "{name} with {threads} threads");
                assert!(*first.get_or_insert_with(|| made.clone()) == made, "{name} with {threads} threads");
            }
            // Nothing is something: one empty stream.
            let path = dir.path().join(format!("{name}-empty"));
            Output::create(&to(&path, false, Some(encoding)), &context(dir.path())).unwrap().commit().unwrap();
            assert!(!fs::read(&path).unwrap().is_empty() && unpack(&fs::read(&path).unwrap()).is_empty());
            // A whole number of blocks.
            let path = dir.path().join(format!("{name}-blocks"));
            let output = Output::create(&to(&path, false, Some(encoding)), &context(dir.path())).unwrap();
            lock(stream(&output)).write_all(&vec![1; encoding.block_size() * 2]).unwrap();
            output.commit().unwrap();
            assert_eq!(unpack(&fs::read(&path).unwrap()).len(), encoding.block_size() * 2);
        }
    }

    #[test]
    fn names_say_how_an_archive_is_compressed() {
        for (name, kind) in [
            ("a.tar", None),
            ("a.tar.gz", Some("gzip")),
            ("a.tgz", Some("gzip")),
            ("a.zst", Some("zstd")),
            ("a.tzst", Some("zstd")),
            ("gz", None),
        ] {
            let Destination::File { encoding, .. } = Destination::at(Path::new(name), false) else { panic!("{name} is a file") };
            assert_eq!(encoding.map(|encoding| encoding.compression().to_string()).as_deref(), kind, "{name}");
        }
        assert_eq!(Destination::at(Path::new("-"), false), Destination::Stdout);
    }
}

//! Archives to read, as files that can be read at any place.
//!
//! What can be read only once (a pipe), and what is compressed as a whole, is first copied into a temporary file: most archives name their
//! members at the end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::compress::{Compression, SNIFF, decoder, sniff};
use crate::context::{Cancel, Context};
use crate::error::{Context as _, Error, Result};
use crate::spool;
use crate::tar::{BLOCK, Parser, TarLimits};

/// An archive that can be read at any place.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The file.
    pub file: Arc<File>,
    /// Its length in bytes.
    pub len: u64,
    /// Its name, for messages.
    pub label: String,
    /// Bytes that were copied to a temporary file to get here.
    pub spooled: u64,
}

/// Opens the archive at `path`, where `-` is standard input. `spool_dir` is where a copy goes when one is needed.
///
/// # Errors
/// When it cannot be read, is empty, a directory, compressed in a way that is not known, or larger than the spool limit.
pub fn open_archive(path: &Path, spool_dir: &Path, ctx: &Context) -> Result<Archive> {
    open_as(path, spool_dir, false, ctx)
}

/// Opens the file at `path` as it is stored, compressed or not, where `-` is standard input. `spool_dir` is where a copy goes of what can be
/// read only once.
///
/// # Errors
/// When it cannot be read, is a directory, or larger than the spool limit.
pub fn open_stored(path: &Path, spool_dir: &Path, ctx: &Context) -> Result<Archive> {
    open_as(path, spool_dir, true, ctx)
}

/// Reads a small file whole; a named pipe too, as `<(command)` of a shell gives one.
///
/// # Errors
/// When it cannot be read, is a directory, or has more than `most` bytes.
pub fn read_small(path: &Path, most: u64, cancel: &Cancel) -> Result<Vec<u8>> {
    let read = |file: File| {
        let mut bytes = Vec::new();
        PollRead { file, cancel: cancel.clone() }.take(most + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = open_waiting_for_nobody(path).and_then(read).path(path)?;
    if bytes.len() as u64 > most {
        return Err(Error::limit(format_args!("it has more than {most} bytes")).frame(path.display()));
    }
    Ok(bytes)
}

/// Reads a line of standard input, without its end, and nothing after it.
///
/// # Errors
/// When it cannot be read, or has more than `most` bytes.
pub fn read_line(most: u64, cancel: &Cancel) -> Result<Vec<u8>> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(Error::io)?;
    first_line(PollRead { file: stdin, cancel: cancel.clone() }, most)
}

fn first_line(mut from: impl Read, most: u64) -> Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while from.read(&mut byte).map_err(Error::io)? == 1 && byte[0] != b'\n' {
        if line.len() as u64 == most {
            return Err(Error::limit(format_args!("the line has more than {most} bytes")));
        }
        line.push(byte[0]);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// Opens what may be a named pipe: without a writer it would not even open; read with [`PollRead`], it is waited for in slices.
fn open_waiting_for_nobody(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn open_as(path: &Path, spool_dir: &Path, stored: bool, ctx: &Context) -> Result<Archive> {
    let open = |file, label: &str| if stored { keep_file(file, label, spool_dir, ctx) } else { open_file(file, label, spool_dir, ctx) };
    if path.as_os_str() == "-" {
        let stdin = io::stdin();
        let file = stdin.as_fd().try_clone_to_owned().map(File::from).context(|| "standard input")?;
        return open(file, "standard input").context(|| "standard input");
    }
    let label = path.display().to_string();
    let file = open_waiting_for_nobody(path);
    file.map_err(Error::io).and_then(|file| open(file, &label)).path(path)
}

/// What a file is: all of it is there, or it can be read only once.
fn whole(file: &File) -> Result<Option<u64>> {
    let meta = file.metadata().map_err(Error::io)?;
    if meta.is_dir() {
        return Err(Error::invalid("it is a directory, not an archive"));
    }
    let mut at = file;
    // Standard input may be a file of which somebody has read a part.
    Ok((meta.is_file() && at.stream_position().map_err(Error::io)? == 0).then_some(meta.len()))
}

fn keep_file(file: File, label: &str, spool_dir: &Path, ctx: &Context) -> Result<Archive> {
    match whole(&file)? {
        Some(len) => Ok(Archive { file: Arc::new(file), len, label: label.to_owned(), spooled: 0 }),
        None => keep(PollRead { file, cancel: ctx.cancel.clone() }, label, spool_dir, ctx),
    }
}

fn open_file(file: File, label: &str, spool_dir: &Path, ctx: &Context) -> Result<Archive> {
    let Some(len) = whole(&file)? else {
        let input = PollRead { file, cancel: ctx.cancel.clone() };
        return spool(input, label, spool_dir, ctx);
    };
    let mut head = [0; SNIFF];
    let filled = read_at_most(&file, &mut head, 0).map_err(Error::io)?;
    if filled == 0 {
        return Err(Error::invalid("it is empty"));
    }
    let file = Arc::new(file);
    if sniff(&head[..filled])? == Compression::None {
        return Ok(Archive { file, len, label: label.to_owned(), spooled: 0 });
    }
    spool(Section::new(file, 0, len), label, spool_dir, ctx)
}

/// Copies a stream into a temporary file, decompressing it on the way.
fn spool(mut input: impl Read + Send, label: &str, dir: &Path, ctx: &Context) -> Result<Archive> {
    let mut head = Vec::with_capacity(SNIFF);
    (&mut input).take(SNIFF as u64).read_to_end(&mut head).map_err(Error::io)?;
    if head.is_empty() {
        return Err(Error::invalid("it is empty"));
    }
    let kind = sniff(&head)?;
    let mut plain = decoder(kind, head.as_slice().chain(input), (&ctx.limits).into())?;
    let first = first_header(&mut plain)?;
    keep(first.as_slice().chain(plain), label, dir, ctx)
}

/// Copies a stream into a temporary file in `dir`, as it is.
///
/// # Errors
/// When it cannot be read, or is larger than the spool limit.
pub fn keep(mut input: impl Read, label: &str, dir: &Path, ctx: &Context) -> Result<Archive> {
    let mut file = spool::anonymous(dir)?;
    let mut buffer = vec![0; crate::pool::CHUNK];
    let mut len = 0;
    const TASK: usize = usize::MAX;
    ctx.progress.begin(TASK, &format!("reading {label}"), None);
    loop {
        ctx.cancel.poll()?;
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io(error)),
        };
        len += count as u64;
        if len > ctx.limits.spool {
            let limit = ctx.limits.spool;
            return Err(Error::limit(format_args!("it has more than {limit} bytes, and it would have to be kept in a temporary file"))
                .hint("raise the limit with --limit spool=BYTES, or give a plain file"));
        }
        file.write_all(&buffer[..count]).context(|| format!("keeping a copy in {}", dir.display()))?;
        ctx.progress.advance(TASK, count as u64);
    }
    ctx.progress.end(TASK);
    Ok(Archive { file: Arc::new(file), len, label: label.to_owned(), spooled: len })
}

/// Reads the first header, so that what is no tar at all (a device of zeros, the wrong end of a pipe) does not fill the disk first.
fn first_header(plain: &mut impl Read) -> Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    plain.take(BLOCK as u64).read_to_end(&mut block).map_err(Error::io)?;
    if block.iter().all(|byte| *byte == 0) {
        return Err(Error::invalid("it is not a tar archive: it begins with zeros, expected a header"));
    }
    if block.len() == BLOCK {
        let taken = Parser::new(TarLimits::default()).take(&block);
        taken.map_err(|error| Error::invalid(format_args!("it is not a tar archive: {error}")))?;
    }
    Ok(block)
}

/// Fills as much of `buffer` as the file has from `at` on.
pub(crate) fn read_at_most(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A part of a file, read from its beginning to its end with positional reads.
#[derive(Debug)]
pub struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Section {
    /// The bytes from `at` up to `end`.
    pub fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file, at, end }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..step], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Reads a pipe or socket in slices of waiting, so that a request to stop is noticed while nothing comes.
struct PollRead {
    file: File,
    cancel: Cancel,
}

impl Read for PollRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            wait(&self.file, PollFlags::IN, &self.cancel)?;
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

/// Waits until `file` is ready for `flags`.
pub(super) fn wait(file: &impl AsFd, flags: PollFlags, cancel: &Cancel) -> io::Result<()> {
    const SLICE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    loop {
        cancel.poll()?;
        match poll(&mut [PollFd::new(file, flags)], Some(&SLICE)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_nothing_after_it() {
        for (text, line) in [("u:p\nx", "u:p"), ("u:p\r\n", "u:p"), ("u:p", "u:p"), ("", ""), ("\nx", "")] {
            let mut from = text.as_bytes();
            assert_eq!(first_line(&mut from, 3 + 1).unwrap(), line.as_bytes(), "{text:?}");
        }
        let mut from = &b"a\nb"[..];
        assert_eq!((first_line(&mut from, 9).unwrap(), from), (b"a".to_vec(), &b"b"[..]));
        assert_eq!(first_line(&b"12345"[..], 4).unwrap_err().kind(), crate::ErrorKind::Limit);
    }
}

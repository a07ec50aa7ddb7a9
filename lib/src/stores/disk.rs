//! Files of a store: small ones read whole, and never anything that is no regular file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::beneath::LISTABLE;
use crate::error::{Context as _, Error, ErrorKind, Result};

/// What helps whoever may not read a store of the system.
pub(super) const ROOTS: &str = "it can be read by root";

/// Tells whoever may not read something what helps.
pub(super) fn advise(error: Error, denied: &str) -> Error {
    if error.kind() == ErrorKind::Denied { error.hint(denied) } else { error }
}

/// Opens a regular file; `None` when nothing is there.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    // Never through a link, and never waiting for the other end of a named pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(Error::io(error).frame(path.display())),
    };
    if !file.metadata().path(path)?.is_file() {
        return Err(Error::invalid("it is not a regular file").frame(path.display()));
    }
    Ok(Some(file))
}

/// Reads a file of at most `limit` bytes; `None` when nothing is there.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).path(path)?;
    if bytes.len() as u64 > limit {
        return Err(Error::limit(format_args!("it has more than the limit of {limit} bytes")).frame(path.display()));
    }
    Ok(Some(bytes))
}

/// Reads a file that must be there.
pub(super) fn need(path: &Path, limit: u64) -> Result<Vec<u8>> {
    read(path, limit)?.ok_or_else(|| Error::not_found("it is missing").frame(path.display()))
}

/// Reads a file of one line of text.
pub(super) fn line(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read(path, 4096)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid("it is not UTF-8").frame(path.display()))?;
    Ok(Some(text.trim_end().to_owned()))
}

/// Opens a folder.
pub(super) fn folder(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, LISTABLE, rustix::fs::Mode::empty()).map_err(io::Error::from).path(path)
}

/// The names in a folder, sorted; none when it is not there.
pub(super) fn list(path: &Path, limit: usize) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(error).frame(path.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        if names.len() >= limit {
            return Err(Error::limit(format_args!("it holds more than {limit} files")).frame(path.display()));
        }
        // What an engine writes has plain names.
        names.extend(entry.path(path)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Whether a text may be the name of a file that an engine made up: letters, digits, `-` and `_`.
pub(super) fn is_plain_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

//! Reads the [.xz file format](https://tukaani.org/xz/xz-file-format.txt): lzma-rust2 does, and its errors are told as ours.
//!
//! Many streams, stream padding and chains of filters are read. lzma-rust2's sans-I/O decoder keeps a record of every block of a stream,
//! so that memory would grow with the input; its reader, used here, does not.

use std::io::{self, ErrorKind, Read};

use lzma_rust2::XzReader;

use super::decode::{Stage, WINDOW};
use super::input::Input;
use crate::error::Error;

/// What lzma-rust2 counts for a dictionary of [`WINDOW`] bytes, in KiB: the dictionary, 40 for its tables, and a chunk of 64.
const MEMORY: u32 = (WINDOW >> 10) as u32 + 40 + 64;

/// The streams of one file.
pub(super) struct Xz<R: Read> {
    reader: XzReader<Input<R>>,
}

impl<R: Read> Xz<R> {
    pub(super) fn new(input: Input<R>) -> Self {
        Self { reader: XzReader::new_mem_limit(input, true, MEMORY) }
    }

    fn explain(&self, error: io::Error) -> io::Error {
        if self.reader.inner().failed() {
            return error;
        }
        let made = match error.kind() {
            ErrorKind::UnexpectedEof => Error::invalid("xz stream ends before its footer"),
            ErrorKind::OutOfMemory => Error::limit(format!("the xz dictionary is over the limit of {} MiB", WINDOW >> 20)),
            ErrorKind::Unsupported => Error::unsupported(format!("xz stream: {error}")),
            _ => Error::invalid(format!("bad xz stream: {error}")),
        };
        made.into()
    }
}

impl<R: Read + Send> Stage for Xz<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.reader.read(out).map_err(|error| self.explain(error))
    }

    fn consumed(&self) -> u64 {
        self.reader.inner().consumed()
    }
}

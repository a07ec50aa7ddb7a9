//! Reads [bzip2](https://sourceware.org/bzip2/): one stream after another, as pbzip2 and lbzip2 write them.

use std::io::{self, Read};

use bzip2::{Decompress, Status};

use super::decode::Stage;
use super::input::Input;
use crate::error::Error;

/// The streams of one file.
pub(super) struct Bzip2<R> {
    input: Input<R>,
    /// The stream being read.
    stream: Option<Decompress>,
}

impl<R: Read> Bzip2<R> {
    pub(super) fn new(input: Input<R>) -> Self {
        Self { input, stream: None }
    }

    /// Looks for the header of the next stream; `false` when there is none.
    fn start_stream(&mut self) -> io::Result<bool> {
        let first = self.input.consumed() == 0;
        match self.input.peek(4)? {
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => {}
            [] if !first => return Ok(false),
            [] | [b'B'] | [b'B', b'Z'] | [b'B', b'Z', b'h'] => return Err(truncated()),
            _ if first => return Err(Error::invalid("not a bzip2 stream").into()),
            _ => return Err(Error::invalid("bytes after the bzip2 stream that are no stream").into()),
        }
        self.stream = Some(Decompress::new(false));
        Ok(true)
    }
}

impl<R: Read + Send> Stage for Bzip2<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stream.is_none() && !self.start_stream()? {
                return Ok(0);
            }
            let Some(stream) = &mut self.stream else { return Ok(0) };
            let data = self.input.fill()?;
            let before = (stream.total_in(), stream.total_out());
            let status = stream.decompress(data, out).map_err(|_| Error::invalid("bad bzip2 block"))?;
            let taken = (stream.total_in() - before.0) as usize;
            let made = (stream.total_out() - before.1) as usize;
            self.input.consume(taken);
            match status {
                Status::StreamEnd => self.stream = None,
                Status::MemNeeded => return Err(Error::limit("no memory for a bzip2 block").into()),
                _ if taken == 0 && made == 0 => return Err(truncated()),
                _ => {}
            }
            if made > 0 {
                return Ok(made);
            }
        }
    }

    fn consumed(&self) -> u64 {
        self.input.consumed()
    }
}

fn truncated() -> io::Error {
    Error::invalid("bzip2 stream ends before its checksum").into()
}

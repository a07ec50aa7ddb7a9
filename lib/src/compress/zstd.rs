//! Reads Zstandard, [RFC 8878](https://www.rfc-editor.org/rfc/rfc8878): libzstd, one frame after another.
//!
//! The header of each frame is looked at before libzstd sees it, since libzstd does not say how large a window it refused, nor which
//! dictionary a frame wants. Skippable frames are skipped, wherever they are. (eStargz and zstd:chunked keep their tables in them.)

use std::io::{self, Read};

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::decode::{Stage, WINDOW};
use super::input::Input;
use crate::error::Error;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Magic, descriptor, window, dictionary ID, and content size: the longest header of a frame.
const HEADER: usize = 4 + 1 + 1 + 4 + 8;

/// The frames of one stream.
pub(super) struct Zstd<R> {
    input: Input<R>,
    decoder: Decoder<'static>,
    in_frame: bool,
}

impl<R: Read> Zstd<R> {
    pub(super) fn new(input: Input<R>) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW.ilog2()))?;
        Ok(Self { input, decoder, in_frame: false })
    }

    /// Looks at the header of the next frame; `false` when the stream is over.
    fn start_frame(&mut self) -> io::Result<bool> {
        let first = self.input.consumed() == 0;
        match self.input.peek(HEADER)? {
            [] if !first => return Ok(false),
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {}
            head if head.starts_with(&MAGIC) => check_header(&head[MAGIC.len()..])?,
            head if MAGIC.starts_with(head) => return Err(truncated()),
            _ if first => return Err(Error::invalid("not a zstd stream").into()),
            _ => return Err(Error::invalid("bytes after the zstd stream that are no frame").into()),
        }
        Ok(true)
    }
}

impl<R: Read + Send> Stage for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.start_frame()? {
                return Ok(0);
            }
            self.in_frame = true;
            let (mut from, mut to) = (InBuffer::around(self.input.fill()?), OutBuffer::around(&mut *out));
            let hint = self.decoder.run(&mut from, &mut to).map_err(bad_frame)?;
            let (taken, made) = (from.pos(), to.pos());
            self.input.consume(taken);
            self.in_frame = hint != 0;
            if made > 0 {
                return Ok(made);
            }
            if taken == 0 && self.in_frame {
                return Err(truncated());
            }
        }
    }

    fn consumed(&self) -> u64 {
        self.input.consumed()
    }
}

/// Refuses a frame that wants a large window or a dictionary. What is cut short here, libzstd finds to be.
fn check_header(header: &[u8]) -> Result<(), Error> {
    let Some((&descriptor, rest)) = header.split_first() else { return Ok(()) };
    let single_segment = descriptor & 0x20 != 0;
    let (window, rest) = match rest.split_first() {
        Some((&byte, rest)) if !single_segment => {
            let base = 1_u64 << (10 + (byte >> 3));
            (Some(base + base / 8 * u64::from(byte & 7)), rest)
        }
        _ => (None, rest),
    };
    let (dictionary, rest) = rest.split_at(rest.len().min([0, 1, 2, 4][usize::from(descriptor & 3)]));
    // Without a window of its own, a frame has one as large as its content, of which the size then is given.
    let content = rest.get(..[1, 2, 4, 8][usize::from(descriptor >> 6)]).map(little_endian);
    let window = if single_segment { content } else { window };
    if let Some(window) = window.filter(|&window| window > WINDOW) {
        return Err(Error::limit(format!("the zstd window of {} MiB is over the limit of {} MiB", window.div_ceil(1 << 20), WINDOW >> 20)));
    }
    match little_endian(dictionary) {
        0 => Ok(()),
        id => Err(Error::unsupported(format!("the zstd frame needs dictionary {id}, and layers have none"))),
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn truncated() -> io::Error {
    Error::invalid("zstd stream ends within a frame").into()
}

fn bad_frame(error: io::Error) -> io::Error {
    Error::invalid(format!("bad zstd frame: {}", error.to_string().to_lowercase())).into()
}

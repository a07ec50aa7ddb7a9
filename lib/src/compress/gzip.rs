//! Reads gzip, [RFC 1952](https://www.rfc-editor.org/rfc/rfc1952): the framing is ours, deflate is zlib-rs.
//!
//! flate2's own gzip readers stop quietly at bytes that are no member, and take a copy through a buffer; layers need neither.
//!
//! ```text
//! member   1f 8b  CM=8  FLG  MTIME(4)  XFL  OS  [XLEN(2) extra]  [name 0]  [comment 0]  [CRC16]  deflate  CRC32(4)  ISIZE(4)
//! stream   member+  00*
//! ```
//!
//! Zero bytes after the last member are padding, which tapes and block devices leave (gzip(1) takes it too); nothing may follow them.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Crc;

use super::decode::Stage;
use super::input::Input;
use crate::error::Error;

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
/// "must be zero": a set bit "could indicate the presence of a new field that would cause subsequent data to be interpreted incorrectly".
const RESERVED: u8 = 0b1110_0000;

/// The members of one gzip stream.
pub(super) struct Gzip<R> {
    input: Input<R>,
    inflate: Decompress,
    crc: Crc,
    /// Bytes of the member, modulo 2^32 as ISIZE is.
    size: u32,
    in_member: bool,
}

impl<R: Read> Gzip<R> {
    pub(super) fn new(input: Input<R>) -> Self {
        Self { input, inflate: Decompress::new(false), crc: Crc::new(), size: 0, in_member: false }
    }

    /// Reads the header of the next member; `false` when the stream is over.
    fn start_member(&mut self) -> io::Result<bool> {
        let first = self.input.consumed() == 0;
        match self.input.peek(2)? {
            [0x1f, 0x8b, ..] => {}
            [] if !first => return Ok(false),
            [] | [0x1f] => return Err(truncated("header")),
            [0x00, ..] if !first => return self.skip_padding(),
            _ if !first => return Err(trailing()),
            _ => return Err(Error::invalid("not a gzip stream").into()),
        }
        read_header(&mut self.input)?;
        self.inflate.reset(false);
        self.crc = Crc::new();
        self.size = 0;
        Ok(true)
    }

    fn skip_padding(&mut self) -> io::Result<bool> {
        loop {
            let data = self.input.fill()?;
            let count = data.len();
            if count == 0 {
                return Ok(false);
            }
            if data.iter().any(|&byte| byte != 0) {
                return Err(trailing());
            }
            self.input.consume(count);
        }
    }

    /// Compares what was inflated with what the member says of it.
    fn end_member(&mut self) -> io::Result<()> {
        let Some([c0, c1, c2, c3, s0, s1, s2, s3]) = self.input.array()? else { return Err(truncated("trailer")) };
        let (crc, size) = (u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([s0, s1, s2, s3]));
        if self.crc.sum() != crc {
            return Err(Error::invalid(format!("CRC-32 is {:08x}, expected {crc:08x}", self.crc.sum())).into());
        }
        if self.size != size {
            return Err(Error::invalid(format!("gzip member has {} bytes modulo 2^32, expected {size}", self.size)).into());
        }
        Ok(())
    }
}

impl<R: Read + Send> Stage for Gzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_member && !self.start_member()? {
                return Ok(0);
            }
            self.in_member = true;
            let data = self.input.fill()?;
            if data.is_empty() {
                return Err(truncated("trailer"));
            }
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(data, out, FlushDecompress::None);
            let status = result.map_err(|error| Error::invalid(format!("bad deflate data: {}", error.message().unwrap_or("corrupt"))))?;
            let taken = (self.inflate.total_in() - before.0) as usize;
            let made = (self.inflate.total_out() - before.1) as usize;
            self.input.consume(taken);
            self.crc.update(&out[..made]);
            self.size = self.size.wrapping_add(made as u32);
            if status == Status::StreamEnd {
                self.end_member()?;
                self.in_member = false;
            } else if taken == 0 && made == 0 {
                return Err(Error::invalid("bad deflate data: no end of block").into());
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

/// Takes one header, checking what there is to check and keeping none of it.
fn read_header<R: Read>(input: &mut Input<R>) -> io::Result<()> {
    let mut header = Header { input, crc: Crc::new() };
    let [_, _, method, flags, ..] = header.array::<10>()?;
    if method != 8 {
        return Err(Error::unsupported(format!("gzip compression method {method}, expected 8, deflate")).into());
    }
    if flags & RESERVED != 0 {
        return Err(Error::unsupported(format!("reserved gzip flags {:#04x}", flags & RESERVED)).into());
    }
    if flags & FEXTRA != 0 {
        let length = u16::from_le_bytes(header.array()?);
        for _ in 0..length {
            header.byte()?;
        }
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            while header.byte()? != 0 {}
        }
    }
    if flags & FHCRC != 0 {
        // "the two least significant bytes of the CRC32 for all bytes of the gzip header up to and not including the CRC16"
        let sum = header.crc.sum() & 0xffff;
        let expected = u32::from(u16::from_le_bytes(header.array()?));
        if sum != expected {
            return Err(Error::invalid(format!("CRC-16 of the gzip header is {sum:04x}, expected {expected:04x}")).into());
        }
    }
    Ok(())
}

/// The bytes of a header and their checksum.
struct Header<'a, R> {
    input: &'a mut Input<R>,
    crc: Crc,
}

impl<R: Read> Header<'_, R> {
    fn byte(&mut self) -> io::Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.input.array()?.ok_or_else(|| truncated("header"))?;
        self.crc.update(&bytes);
        Ok(bytes)
    }
}

fn truncated(before: &str) -> io::Error {
    Error::invalid(format!("gzip stream ends before its {before}")).into()
}

fn trailing() -> io::Error {
    Error::invalid("bytes after the gzip stream that are no member").into()
}

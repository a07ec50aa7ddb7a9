//! Compression of layers and archives: what a stream is, decoding it, and encoding in blocks.
//!
//! * [`sniff`]: which compression the first bytes of a stream show.
//! * [`decoder`]: a reader of the decompressed bytes that takes only what its specification allows: every check is verified, a stream that
//!   ends early or is followed by other bytes is an error, and memory is bounded by [`WINDOW`], whatever a header claims.
//! * [`Encoding`]: blocks of a fixed size, each of which becomes a stream of its own, so that blocks are encoded on as many threads as there
//!   are and the bytes do not depend on how many.
//! * [`Members`]: where the blocks of such an encoding lie, so that they can be decoded on many threads too.
//!
//! Nothing here opens a file, starts a thread or knows what a layer is.

mod bzip2;
mod claim;
mod decode;
mod encode;
mod gzip;
mod input;
mod members;
mod sniff;
#[cfg(test)]
mod tests;
mod xz;
mod zstd;

pub use claim::claimed_size;
pub(crate) use decode::sniffing_decoder;
pub use decode::{DecodeLimits, WINDOW, decoder, fuzz_decode};
pub use encode::{BlockEncoder, Encoding, GzipLevel, MEMBER_SIZE_ID, ZstdLevel};
pub use members::{Member, Members};
pub use sniff::{Compression, SNIFF, fuzz_sniff, sniff};

use crate::error::Error;

/// What is wrong with a compression that was named or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A level that this compression does not have.
    #[error("{name} has no level {level:?}, expected {min} to {max}")]
    Level {
        /// The compression.
        name: &'static str,
        /// What was asked for.
        level: String,
        /// Its lowest level.
        min: u8,
        /// Its highest level.
        max: u8,
    },
    /// A name that stands for no compression known here.
    #[error("{0:?} is no compression known here, expected {1}")]
    Name(String, &'static str),
    /// Bytes compressed in a way that is recognised and cannot be decoded.
    #[error("compressed with {kind}, which cannot be read; gzip, zstd, xz and bzip2 can")]
    Unknown {
        /// The name of the compression.
        kind: &'static str,
    },
}

impl From<CompressError> for Error {
    fn from(error: CompressError) -> Self {
        match error {
            CompressError::Unknown { .. } => Self::unsupported(error),
            CompressError::Level { .. } | CompressError::Name(..) => Self::invalid(error),
        }
    }
}

//! Tar, read and written without I/O, with the meaning that container engines give it.
//!
//! Every engine reads layers with Go's `archive/tar`, and people look at them with GNU tar, so those two decide what an archive means. Where
//! they differ from each other, or where the input is what no writer makes, the input is refused: two readings of one archive are how a file
//! is hidden. The deliberate choices:
//!
//! | input | Go | GNU tar | here |
//! |---|---|---|---|
//! | directory, link, device or fifo with a size | no payload | no payload | no payload |
//! | one zero block, then the end of the input | end | end, warns | end |
//! | one zero block, then a header | error | end, warns | error |
//! | two `x` (or `L`, or `K`) headers before one entry | last wins | last wins | error |
//! | `L` and PAX `path` that differ | `L` | `path` | error |
//! | global header (`g`) | has no effect | is a default for what follows | no effect; `path`, `linkpath`, `size` and sparse maps in one are an error |
//! | empty PAX value | header field counts | header field counts | header field counts |
//! | input ends in the padding of the last payload | end | error | error (by [`Entries`]) |
//! | ids over 32 bits | cut to 32 bits when applied | error | error |
//!
//! Parts: `header` is one 512-byte block, `pax` the records of an extended header, `sparse` the maps of sparse files, [`Parser`] puts them
//! together, [`RawEntries`] drives a parser over a reader, [`Entries`] gives the contents of files, [`Header`] writes, [`RootPath`] is a clean name, [`LayerChecker`] judges the names and
//! links of one layer. Nothing here may touch a file system, and nothing but [`RawEntries`] may read.
//!
//! Sources: POSIX.1-2017 `pax` (ustar and extended headers), the GNU tar manual ("Basic Tar Format", "Storing Sparse Files"), and the
//! documentation of Go's `archive/tar`.

mod entry;
mod error;
mod header;
mod name;
mod parse;
mod pax;
mod raw;
mod reader;
mod sparse;
mod structure;
mod write;

pub use entry::{Entry, Kind, Record, Sparse, Time};
pub use error::TarError;
pub use name::{NameError, RootPath, escape_bytes, fuzz_name};
pub use parse::{Parser, Step, TarLimits, fuzz_tar};
pub use raw::{BySkimming, RawEntries, Skip};
pub use reader::Entries;
pub use structure::{Finding, LayerChecker};
pub use write::{Header, HeaderFormat, HeaderStyle};

/// The unit of a tar archive: headers are one block, payloads are padded to whole blocks.
pub const BLOCK: usize = 512;

/// What a complete archive ends with: two blocks of zeros.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Says how many zero bytes follow a payload of `size` bytes, up to the next block.
pub const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_to_blocks() {
        for (size, expected) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (u64::MAX, 1)] {
            assert_eq!(padding(size), expected, "{size}");
        }
    }
}

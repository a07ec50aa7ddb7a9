//! One entry of an archive, as all its headers together describe it.

use std::collections::BTreeMap;

use super::padding;

/// A PAX record: key and value.
pub type Record = (Vec<u8>, Vec<u8>);

/// The prefix of PAX keys that hold extended attributes, as star introduced them and Go, GNU tar and Docker write them.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// One member of an archive. Its payload of [`Entry::size`] bytes follows its headers in the stream, then [`Entry::padding`] zero bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as it stands in the archive: not cleaned, perhaps empty, absolute or with `..`; without NUL.
    pub path: Vec<u8>,
    /// What a link points to, as it stands in the archive; mostly empty for other kinds.
    pub link: Vec<u8>,
    /// What the entry is.
    pub kind: Kind,
    /// Permission bits, and for some writers (Docker before 25) file type bits above them.
    pub mode: u32,
    /// Owner; at most 32 bits.
    pub uid: u64,
    /// Group; at most 32 bits.
    pub gid: u64,
    /// Time of the last change.
    pub mtime: Time,
    /// Bytes of payload that follow in the stream: 0 for kinds that have none, whatever the header states, and for a sparse file the bytes
    /// of its data without holes and map. [`Entry::content_size`] is the size of the file.
    pub size: u64,
    /// Owner's name, may be empty.
    pub user: Vec<u8>,
    /// Group's name, may be empty.
    pub group: Vec<u8>,
    /// Major and minor number; zeros for most kinds.
    pub device: (u64, u64),
    /// Records of the entry's own PAX header, as they came and in order. Their effect on the fields above is already applied.
    pub pax: Vec<Record>,
    /// Where the data of a sparse file belongs.
    pub sparse: Option<Sparse>,
}

impl Entry {
    /// Says how many zero bytes follow the payload, up to the next block.
    pub fn padding(&self) -> u64 {
        padding(self.size)
    }

    /// Says how many bytes the file has once holes are filled; equals [`Entry::size`] unless it is sparse.
    pub fn content_size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.size, |s| s.size)
    }

    /// Gives the extended attributes by name, without the `SCHILY.xattr.` of their records; the last record of a name counts. Attributes may
    /// be empty.
    pub fn xattrs(&self) -> BTreeMap<&[u8], &[u8]> {
        self.pax.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?, value.as_slice()))).collect()
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file (types `0`, NUL, `7`, and sparse files `S`).
    File,
    /// Another name of a file that came earlier (type `1`).
    HardLink,
    /// A symbolic link (type `2`).
    Symlink,
    /// A character device (type `3`).
    CharDevice,
    /// A block device (type `4`).
    BlockDevice,
    /// A directory (type `5`, or type NUL and a name that ends in `/`).
    Directory,
    /// A named pipe (type `6`).
    Fifo,
    /// A type that is not known here; a payload follows if its header states a size.
    Other(u8),
}

impl Kind {
    /// Says whether a payload follows the header. For the other kinds a stated size means nothing, as in Go and GNU tar.
    pub fn has_payload(self) -> bool {
        matches!(self, Self::File | Self::Other(_))
    }

    /// Reads the type byte of a header. `path` tells directories of old archives apart.
    pub(super) fn from_byte(byte: u8, path: &[u8]) -> Self {
        match byte {
            0 if path.ends_with(b"/") => Self::Directory,
            0 | b'0' | b'7' | b'S' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            other => Self::Other(other),
        }
    }

    /// The type byte that every writer uses for this kind.
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
            Self::Other(byte) => byte,
        }
    }
}

/// A point in time: seconds since 1970 rounded down, and nanoseconds on top of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z, negative before.
    pub secs: i64,
    /// Nanoseconds after that second, 0 to 999,999,999: half a second before 1970 is -1 s and 500,000,000 ns.
    pub nanos: u32,
}

impl Time {
    /// Makes a time of whole seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }
}

/// The layout of a sparse file: its pieces of data lie one after another in the payload, everything between them is zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// Bytes of the file with its holes.
    pub size: u64,
    /// Offset in the file and length of each piece of data: ascending, without overlap, within `size`, and together [`Entry::size`] long.
    pub map: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_their_byte() {
        for byte in 0..=255 {
            let kind = Kind::from_byte(byte, b"name");
            if ![0, b'7', b'S'].contains(&byte) {
                assert_eq!(kind.to_byte(), byte);
            }
        }
        assert_eq!(Kind::from_byte(0, b"old/"), Kind::Directory);
        assert_eq!(Kind::from_byte(b'0', b"old/"), Kind::File);
        assert!(!Kind::HardLink.has_payload() && Kind::Other(b'V').has_payload());
    }
}

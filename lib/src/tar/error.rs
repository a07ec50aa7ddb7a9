//! What can be wrong with a tar header, as one small enum: the sans-IO modules of [`tar`](crate::tar) have nothing else to report.

use crate::error::{Error, ErrorKind};

/// What is wrong with an archive, or with a header that was to be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// The sum over the header is neither the unsigned nor the signed one that it states.
    #[error("header checksum is {found}, expected {expected}")]
    Checksum {
        /// The stated sum.
        found: u64,
        /// The sum of the bytes, unsigned.
        expected: u64,
    },
    /// Two headers give one entry different names, and readers disagree on which counts.
    #[error("GNU long {field} differs from that of the PAX header, expected one of them or the same")]
    Conflict {
        /// `path` or `link`.
        field: &'static str,
    },
    /// A global header holds a record that would rename, resize or rearrange every following entry.
    #[error("global header holds `{key}`, expected it for single entries only")]
    Global {
        /// The key of the record.
        key: String,
    },
    /// More than [`TarLimits`](crate::tar::TarLimits) allows.
    #[error("{what} is {found}, expected at most {limit}")]
    Limit {
        /// What is counted, with its unit.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
    /// One block of zeros in front of a header: some readers stop there, some refuse, some go on.
    #[error("a single block of zeros is followed by a header, expected a second one or the end")]
    LoneZeroBlock,
    /// A NUL byte where it would cut a name short for some readers only.
    #[error("{field} contains a NUL byte")]
    Nul {
        /// Which name.
        field: &'static str,
    },
    /// A field that is no number, or one out of range.
    #[error("{field} is `{found}`, expected {expected}")]
    Number {
        /// Which field.
        field: &'static str,
        /// Its bytes, escaped.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// An extended header with no entry after it.
    #[error("{found} follows an extended header, expected the entry that it describes")]
    Orphan {
        /// What came instead.
        found: &'static str,
    },
    /// A malformed PAX record.
    #[error("PAX record at byte {at} of its header {problem}")]
    Record {
        /// Where it begins in the payload of its extended header.
        at: usize,
        /// What is wrong with it: expected and found.
        problem: &'static str,
    },
    /// Two extended headers of one kind for one entry.
    #[error("a second {kind} precedes one entry, expected one")]
    Repeated {
        /// Which kind of extended header.
        kind: &'static str,
    },
    /// A sparse file whose map is malformed or contradicts its sizes.
    #[error("map of a sparse file {0}")]
    Sparse(&'static str),
    /// Fewer bytes than the parser asked for.
    #[error("archive ends {found} bytes into a header of {expected} bytes")]
    Truncated {
        /// How many were asked for.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A value that the format to be written has no room for.
    #[error("{field} does not fit into a header of the format asked for")]
    Unfit {
        /// Which field.
        field: &'static str,
    },
}

impl From<TarError> for Error {
    fn from(error: TarError) -> Self {
        let kind = match error {
            TarError::Limit { .. } => ErrorKind::Limit,
            TarError::Unfit { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_clause_and_keeps_its_kind() {
        let error = TarError::Checksum { found: 1234, expected: 5678 };
        assert_eq!(error.to_string(), "header checksum is 1234, expected 5678");
        assert_eq!(Error::from(error).kind(), ErrorKind::Invalid);
        let limit = TarError::Limit { what: "length of a path in bytes", found: 600_000, limit: 65_536 };
        assert_eq!(limit.to_string(), "length of a path in bytes is 600000, expected at most 65536");
        assert_eq!(Error::from(limit).kind(), ErrorKind::Limit);
    }
}

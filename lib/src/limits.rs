//! How much of anything is taken from outside, in one place.

/// Bounds on what an input may make us hold or do. Exceeding one is [`ErrorKind::Limit`](crate::ErrorKind::Limit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one manifest or index. Registries refuse manifests over 4 MiB (distribution's `maxBodySize`).
    pub manifest: u64,
    /// Bytes of one config. Real ones stay below 100 KiB; labels and history make odd ones large.
    pub config: u64,
    /// Bytes of all manifests, indexes and configs of one source together, since all of them are kept.
    pub metadata: u64,
    /// Levels of nested arrays and objects in a JSON document. Real ones have under ten.
    pub json_depth: usize,
    /// Levels of nested indexes. Real ones have two.
    pub index_depth: usize,
    /// Manifests and indexes reached from one source.
    pub nodes: usize,
    /// Members of one archive, since their names and places are kept. Docker writes four a layer, and has 128 layers at the most.
    pub members: usize,
    /// Bytes of all member names and link targets of one archive together, since they are kept.
    pub names: u64,
    /// Layers of one image. Docker's overlay2 stops at 128; older drivers wrote up to 500.
    pub layers: usize,
    /// Bytes of an input that must be kept in a temporary file because it can be read only once.
    pub spool: u64,
    /// How many bytes one byte of compressed input may become, once over [`Limits::ratio_floor`]. Deflate cannot exceed 1,032.
    pub ratio: u64,
    /// Decompressed bytes below which [`Limits::ratio`] does not matter.
    pub ratio_floor: u64,
    /// Seconds in which nothing may happen on a connection; twice as many while a registry puts an upload away.
    pub idle: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest: 4 << 20,
            config: 8 << 20,
            metadata: 24 << 20,
            json_depth: 100,
            index_depth: 16,
            nodes: 10_000,
            members: 100_000,
            names: 16 << 20,
            layers: 10_000,
            spool: 256 << 30,
            ratio: 100_000,
            ratio_floor: 16 << 30,
            idle: 55,
        }
    }
}

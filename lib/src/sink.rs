//! Where images are written to.
//!
//! A run talks to a sink in three steps: [`Sink::begin`] says what will come, in order, as far as it is known; then each blob is put, from
//! any thread and in any order; then [`Sink::commit`] gets the sealed metadata and makes everything visible at once. A sink that is dropped
//! before that leaves nothing behind.

use std::sync::Arc;

use crate::catalog::{Known, Legacy, Lineage, Name};
use crate::compress::Compression;
use crate::context::Cancel;
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::spec::{Config, Descriptor, Index, Raw};

/// What happens to layers when the caller does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultCompress {
    /// Plain layers become gzip, compressed ones stay.
    GzipPlain,
    /// All stay.
    Keep,
    /// All become plain.
    None,
}

/// Which types a manifest has that must be made or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestTypes {
    /// Those of the source's manifest; Docker's where there is none.
    LikeSource,
    /// OCI's.
    Oci,
    /// None are written: the format knows configs and layers only.
    None,
}

/// Which names a format can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Any text.
    Any,
    /// None.
    None,
    /// References with a tag.
    Tagged,
}

/// What a format can hold and prefers. Operations see this, and never which format it is.
#[derive(Debug, Clone, Copy)]
pub struct Accepts {
    /// The format's name, for messages.
    pub format: &'static str,
    /// Whether it holds more than one image or index.
    pub several: bool,
    /// Whether it holds configs; otherwise it holds of them what the v1 JSON of layers has.
    pub configs: bool,
    /// Whether it holds indexes of platforms.
    pub indexes: bool,
    /// Whether it holds artifacts.
    pub artifacts: bool,
    /// Whether the readers of this format see annotations of manifests and indexes.
    pub annotations: bool,
    /// Which names it holds.
    pub names: Names,
    /// Which manifests it gets.
    pub manifests: ManifestTypes,
    /// How layers may be stored.
    pub compressions: &'static [Compression],
    /// How layers are stored when the caller does not say.
    pub default_compress: DefaultCompress,
    /// Whether it names layers by the digests that the source stores them under.
    pub stored_digests: bool,
    /// Whether configs must be known before layers are written, since they come first or name what does.
    pub configs_first: bool,
}

/// What will be put, as far as it is known before the run.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Every blob that will be put, in the order of the images; [`Sink::put`] counts these.
    pub blobs: Vec<ExpectedBlob>,
    /// Every image, in order.
    pub images: Vec<ExpectedImage>,
}

/// A blob that will come.
#[derive(Debug, Clone, Default)]
pub struct ExpectedBlob {
    /// What is known of the bytes that will be put.
    pub known: Known,
    /// How they will be compressed.
    pub compression: Compression,
}

/// An image that will come.
#[derive(Debug, Clone)]
pub struct ExpectedImage {
    /// Its config.
    pub config: Raw<Config>,
    /// Its layers, base first.
    pub layers: Vec<ExpectedLayer>,
    /// Its references, in order, each once.
    pub references: Vec<Reference>,
    /// The v1 JSON of its layers, where the source is an archive with nothing else.
    pub legacy: Option<Arc<Legacy>>,
    /// What it was built on.
    pub lineage: Option<Lineage>,
}

/// A layer that will come.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedLayer {
    /// Its position in [`Expected::blobs`], or none for a foreign layer.
    pub blob: Option<usize>,
    /// The digest of the bytes that the source stores, for formats that want it ([`Accepts::stored_digests`]).
    pub stored: Option<Digest>,
}

/// A blob as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Digest of the bytes as stored.
    pub digest: Digest,
    /// Bytes as stored.
    pub size: u64,
    /// Digest of the uncompressed tar, for a layer.
    pub diff_id: Option<DiffId>,
    /// How it is stored.
    pub compression: Compression,
}

impl Written {
    /// What a blob of stated size and digest will be.
    pub(crate) fn expected(size: u64, digest: Digest, blob: &ExpectedBlob) -> Self {
        Self { digest, size, diff_id: blob.known.diff_id, compression: blob.compression }
    }
}

/// Receives the bytes of one blob. Dropped before `finish`, the blob is not there.
pub trait BlobWriter: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// The blob is complete and verified.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn finish(self: Box<Self>, written: &Written) -> Result<()>;
}

/// A JSON document that is written: a config, manifest or index.
#[derive(Debug, Clone)]
pub struct SealedJson {
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// Their digest.
    pub digest: Digest,
}

/// One layer of a sealed image.
#[derive(Debug, Clone)]
pub struct SealedLayer {
    /// As the manifest lists it.
    pub descriptor: Descriptor,
    /// Its diff ID.
    pub diff_id: DiffId,
    /// Which blob it is; none for a foreign layer and for a missing one.
    pub blob: Option<usize>,
    /// Whether the receiver must have it: only its name is written.
    pub missing: bool,
}

impl SealedLayer {
    /// Whether its bytes are where its URLs say.
    pub fn is_foreign(&self) -> bool {
        self.blob.is_none() && !self.missing
    }
}

/// An image, all of it known.
#[derive(Debug, Clone)]
pub struct SealedImage {
    /// The config.
    pub config: Raw<Config>,
    /// The layers, base first.
    pub layers: Vec<SealedLayer>,
    /// Its references, in order, each once.
    pub references: Vec<Reference>,
}

/// What the output leads to: a descriptor and its name.
#[derive(Debug, Clone)]
pub struct SealedRoot {
    /// The manifest or index, with the annotations and unknown keys that it was listed with.
    pub descriptor: Descriptor,
    /// Its name.
    pub name: Option<Name>,
}

/// All metadata of an output, made by `seal`.
#[derive(Debug, Clone, Default)]
pub struct Sealed {
    /// The blobs that were put.
    pub blobs: Vec<Written>,
    /// Configs, manifests and indexes, each once, in order.
    pub documents: Vec<SealedJson>,
    /// The images, in order.
    pub images: Vec<SealedImage>,
    /// The names, in order.
    pub roots: Vec<SealedRoot>,
    /// The top-level index that the source had, for its annotations and unknown keys.
    pub index: Option<Raw<Index>>,
}

/// What a sink did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Bytes that went through a temporary file because their place was not known yet.
    pub spooled: u64,
    /// Bytes of the output, where that is one file.
    pub size: Option<u64>,
}

/// In which order a sink likes its blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Any: each is a file of its own.
    Any,
    /// Any, if the sizes of all are known before; a size that proves wrong means to begin again.
    AnyIfSized,
    /// That in which they lie: what was put cannot be taken back.
    InTurn,
}

/// Somewhere to write images.
pub trait Sink: Send + Sync {
    /// In which order it likes its blobs.
    fn order(&self) -> Order;

    /// Learns what will come, before anything is put, and when to stop waiting. Returns the order in which the blobs lie in the output. A
    /// second call begins anew, where [`Sink::order`] allows it.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn begin(&mut self, expected: Expected, cancel: &Cancel) -> Result<Vec<usize>>;

    /// What the destination has of blob number `blob` of [`Expected::blobs`] already, or can take over from the repository `origin` that it comes
    /// from. Asked before a blob is read: what is held is neither read nor put. Its digest and diff ID are those that the plan states; its
    /// size is 0 where nobody knows it.
    ///
    /// # Errors
    /// When the destination cannot be asked.
    fn held(&self, _blob: usize, _origin: Option<&Reference>) -> Result<Option<Written>> {
        Ok(None)
    }

    /// Learns that a blob failed, and waits until it makes sense to put it once more, from its beginning.
    ///
    /// # Errors
    /// The failure, where it makes none.
    fn again(&self, _blob: usize, error: Error) -> Result<()> {
        Err(error)
    }

    /// How many blobs are best written side by side, where it is not processors that whoever writes waits for.
    fn parallel(&self) -> usize {
        0
    }

    /// Begins blob number `blob` of [`Expected::blobs`]. May be called from any thread, once for each.
    ///
    /// # Errors
    /// When the output cannot be written.
    fn put(&self, blob: usize) -> Result<Box<dyn BlobWriter + '_>>;

    /// Writes the metadata and makes the output visible, all at once.
    ///
    /// # Errors
    /// When the output cannot be written; then nothing is visible.
    fn commit(self: Box<Self>, sealed: &Sealed) -> Result<Committed>;

    /// What it is and where, for messages.
    fn describe(&self) -> String;
}

//! Where images are read from.

mod composed;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use composed::Composed;
pub use composed::join;

use crate::catalog::{BlobId, Catalog, ImageId, best, list};
use crate::context::{Cancel, Context};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::spec::Platform;

/// Something to read images from. Opening it has read its metadata, once; what follows are pulls on blobs that the catalog names.
pub trait Source: Send + Sync {
    /// What it holds.
    fn catalog(&self) -> &Catalog;

    /// An owned reader of a blob's bytes as stored, beginning `from` bytes into it. Cheap, repeatable and concurrent.
    ///
    /// The reader may give more or fewer bytes than the catalog states: whoever reads verifies.
    ///
    /// # Errors
    /// When the blob cannot be opened.
    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>>;

    /// The same from the first byte, for a reader that may wait long for others and stops when `cancel` says so: a run ends its lanes at the first
    /// failure.
    ///
    /// # Errors
    /// When the blob cannot be opened.
    fn open_until(&self, blob: BlobId, _cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
        self.open(blob, 0)
    }

    /// Where the bytes lie in a file as they are, for positional reads.
    fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)>;

    /// What it is and where, for messages.
    fn describe(&self) -> String;

    /// The repository of a registry that a blob comes from: another of the same registry may take it over without moving a byte.
    fn repository(&self, _blob: BlobId) -> Option<&Reference> {
        None
    }

    /// Learns which blobs will be read more than once. A source to which that costs keeps them in a temporary file, verified.
    ///
    /// # Errors
    /// When they cannot be read, are not what was stated, or have more than the limit of a spool together.
    fn keep(&self, _blobs: &[BlobId], _ctx: &Context) -> Result<()> {
        Ok(())
    }

    /// How many blobs are best read side by side, where it is not processors that whoever reads waits for.
    fn parallel(&self) -> usize {
        0
    }

    /// Bytes that had to be kept in a temporary file, because the input can be read only once or is compressed as a whole.
    fn spooled(&self) -> u64 {
        0
    }
}

/// What the caller wants of a source: the `REF` of an IMAGE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// A name, in full or familiar form, or the exact text of an annotation.
    Name(String),
    /// The image at a position, from 0; names of one image count once.
    Position(usize),
    /// The image with this manifest digest, index digest or image ID.
    Digest(Digest),
}

impl Pick {
    /// Parses `REF`: `name[:tag]`, `@INDEX` or `@sha256:DIGEST`.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix('@') else {
            return if text.is_empty() { Err(Error::invalid("an empty image name")) } else { Ok(Self::Name(text.to_owned())) };
        };
        if let Ok(position) = rest.parse() {
            return Ok(Self::Position(position));
        }
        rest.parse().map(Self::Digest).map_err(|e| Error::invalid(e).hint("after @ comes a position from 0 or a digest"))
    }
}

/// The images of the one entry of a catalog, each once.
pub(crate) fn the_entry(catalog: &Catalog) -> Result<Vec<(ImageId, Platform)>> {
    let mut entries = catalog.entries();
    entries.retain(|roots| roots.iter().any(|root| !root.node.images().is_empty()));
    match entries.as_slice() {
        [] => Err(Error::not_found("it holds no image")),
        [roots] => {
            let mut images: Vec<(ImageId, Platform)> = Vec::new();
            for candidate in roots.iter().flat_map(|root| catalog.candidates(&root.node)) {
                if !images.iter().any(|(id, _)| *id == candidate.id) {
                    images.push((candidate.id, candidate.platform));
                }
            }
            Ok(images)
        }
        several => {
            let names: Vec<_> = several.iter().filter_map(|roots| roots.first()).map(ToString::to_string).collect();
            let error = Error::invalid(format_args!("it holds {} images, and one is needed", several.len()));
            Err(error.hint(format_args!("choose one with :REF; there are {}", names.join(", "))))
        }
    }
}

/// The image that is wanted of a source, of the one that it holds: without a wish its only platform, or else what runs on the host.
///
/// # Errors
/// When it holds none or several, or none for that platform.
pub fn one_image(source: &dyn Source, wanted: Option<&Platform>, host: &Platform) -> Result<ImageId> {
    let catalog = source.catalog();
    let pick = || {
        let unread: Vec<_> = catalog.roots.iter().flat_map(|root| Catalog::unread(&root.node)).collect();
        if catalog.images.is_empty() && !unread.is_empty() {
            return Err(absent(wanted.unwrap_or(host), unread.into_iter()));
        }
        if let ([(only, _)], None) = (the_entry(catalog)?.as_slice(), wanted) {
            return Ok(*only);
        }
        let wanted = wanted.unwrap_or(host);
        let candidates: Vec<_> = catalog.roots.iter().flat_map(|root| catalog.candidates(&root.node)).collect();
        let found = best(&candidates, wanted).map(|found| found.id);
        found.ok_or_else(|| absent(wanted, candidates.iter().map(|candidate| &candidate.platform).chain(unread)))
    };
    pick().map_err(|error: Error| error.frame(source.describe()))
}

pub(crate) fn absent<'a>(wanted: &Platform, known: impl Iterator<Item = &'a Platform>) -> Error {
    Error::not_found(format_args!("there is no image for {wanted}")).hint(format_args!("there are {}", list(known)))
}

//! A source whose layers are folders, each with what is left of its tar beside it: the stores of Docker and of containers/storage.
//!
//! A layer is its plain tar, whose digest is its diff ID. Nothing that a store says is believed: configs and manifests are verified when they
//! are read, and layers by whoever reads them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk;
use super::tar_split::{Folder, Lines, Rebuilt};
use crate::catalog::{Blob, BlobId, Catalog, Content, Image, ImageId, Known, Layer, Name, Node, Root};
use crate::compress::{Compression, DecodeLimits};
use crate::context::Context;
use crate::digest::{DiffId, Digest, Digester};
use crate::error::{Context as _, Error, Result};
use crate::limits::Limits;
use crate::source::Source;
use crate::spec::{Config, JsonLimits, Manifest, Raw};
use crate::tree::Opening;

/// Where a driver keeps the folder of a layer, of the store's folder and the layer's name.
pub(super) type FolderOf = fn(&Path, &str) -> PathBuf;

/// Where a layer lies.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The folder that it was unpacked to.
    pub(super) folder: PathBuf,
    /// What tar-split kept.
    pub(super) split: PathBuf,
    /// What it is called in messages.
    pub(super) label: String,
}

/// One image that was found.
pub(super) struct Found {
    pub(super) config: Raw<Config>,
    pub(super) manifest: Option<(String, Raw<Manifest>)>,
    /// Where its layers are, base first, one for each diff ID.
    pub(super) layers: Vec<Place>,
}

/// Images and layers on their way into a catalog.
pub(super) struct Builder<'a> {
    opening: &'a Opening<'a>,
    denied: &'static str,
    pub(super) catalog: Catalog,
    places: Vec<Place>,
    blobs: HashMap<DiffId, BlobId>,
    metadata: u64,
}

impl<'a> Builder<'a> {
    /// `denied` is what helps whoever may not read the store.
    pub(super) fn new(opening: &'a Opening<'a>, denied: &'static str) -> Self {
        Self { opening, denied, catalog: Catalog::default(), places: Vec::new(), blobs: HashMap::new(), metadata: 0 }
    }

    /// How much may be read.
    pub(super) fn limits(&self) -> &Limits {
        &self.opening.ctx.limits
    }

    /// Parses a config, and holds it to its digest.
    pub(super) fn config(&mut self, bytes: Vec<u8>, digest: &Digest) -> Result<Raw<Config>> {
        let bytes = self.verified(bytes, digest)?;
        let raw = Raw::<Config>::parse(bytes, &JsonLimits::config(&self.opening.ctx.limits))?;
        let (layers, limit) = (raw.rootfs.diff_ids.len(), self.opening.ctx.limits.layers);
        if layers > limit {
            return Err(Error::limit(format_args!("it has {layers} layers, more than {limit}")));
        }
        Ok(raw.with_digest_algorithm(digest.algorithm()))
    }

    /// Holds a document to its digest, and counts it: all that is kept has a budget.
    pub(super) fn verified(&mut self, bytes: Vec<u8>, digest: &Digest) -> Result<Vec<u8>> {
        self.metadata += bytes.len() as u64;
        let limit = self.opening.ctx.limits.metadata;
        if self.metadata > limit {
            return Err(Error::limit(format_args!("manifests and configs have more than {limit} bytes together"))
                .hint("choose an image, or raise --limit metadata=BYTES"));
        }
        let mut digester = Digester::new(digest.algorithm());
        digester.update(&bytes);
        let found = digester.finish();
        if found != *digest {
            return Err(Error::mismatch(format_args!("its digest is {found}, expected {digest}")));
        }
        Ok(bytes)
    }

    /// Adds an image under its names.
    pub(super) fn add(&mut self, found: Found, names: Vec<Name>) -> Result<()> {
        let node = Node { descriptor: None, content: Content::Image(self.image(found)) };
        self.root(node, names)
    }

    /// Adds an image to which something else leads.
    pub(super) fn image(&mut self, found: Found) -> ImageId {
        let Found { config, manifest, layers: places } = found;
        let listed = manifest.as_ref().map(|(_, raw)| raw.layers.clone()).unwrap_or_default();
        let mut descriptors = listed.into_iter();
        let mut layers = Vec::with_capacity(places.len());
        for (diff_id, place) in config.rootfs.diff_ids.iter().zip(places) {
            let blob = self.blob(*diff_id, place);
            layers.push(Layer { diff_id: *diff_id, blob: Some(blob), descriptor: descriptors.next(), missing: None });
        }
        self.catalog.add_image(Image { manifest, config, layers, legacy: None, lineage: None })
    }

    /// Adds what has names.
    pub(super) fn root(&mut self, node: Node, names: Vec<Name>) -> Result<()> {
        let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        let limit = self.opening.ctx.limits.nodes;
        if self.catalog.roots.len() + names.len() > limit {
            return Err(Error::limit(format_args!("there are more than {limit} names and images without a name"))
                .hint("choose an image, or raise --limit nodes=NUMBER"));
        }
        self.catalog.roots.extend(names.into_iter().map(|name| Root { name, node: node.clone() }));
        Ok(())
    }

    /// One diff ID is one blob, wherever stores keep it for whichever layer below it.
    fn blob(&mut self, diff_id: DiffId, place: Place) -> BlobId {
        if let Some(id) = self.blobs.get(&diff_id) {
            return *id;
        }
        let known = Known { size: None, digest: Some(diff_id.0), diff_id: Some(diff_id) };
        let id = self.catalog.add_blob(Blob { known, compression: Compression::None, place: format!("layer {}", place.label) });
        self.places.push(place);
        self.blobs.insert(diff_id, id);
        id
    }

    /// Finds out how large all layers are, and makes a source of it.
    pub(super) fn finish(mut self, description: String) -> Result<Arc<dyn Source>> {
        let (places, ctx) = (&self.places, self.opening.ctx);
        let sizes = ctx.pool.side_by_side(places.len(), |at| ctx.cancel.poll().and_then(|()| size(&places[at], ctx)));
        for (blob, size) in self.catalog.blobs.iter_mut().zip(sizes) {
            let size = size.context(|| blob.place.clone()).context(|| description.clone());
            blob.known.size = self.opening.tolerate(size, &mut self.catalog.findings)?;
        }
        let limits = DecodeLimits::from(&ctx.limits);
        Ok(Arc::new(FolderSource { catalog: self.catalog, places: self.places, limits, description, denied: self.denied }))
    }
}

/// How many bytes a layer's tar has. Its folder must be there.
fn size(place: &Place, ctx: &Context) -> Result<u64> {
    disk::folder(&place.folder)?;
    lines(place, DecodeLimits::from(&ctx.limits))?.total().path(&place.split)
}

fn lines(place: &Place, limits: DecodeLimits) -> Result<Lines<'static>> {
    let file = disk::open(&place.split)?.ok_or_else(|| {
        Error::not_found("it is missing")
            .frame(place.split.display())
            .hint("without it the layer cannot be rebuilt; the engine itself can save the image")
    })?;
    Lines::new(file, limits).path(&place.split)
}

struct FolderSource {
    catalog: Catalog,
    /// By [`BlobId`].
    places: Vec<Place>,
    limits: DecodeLimits,
    description: String,
    denied: &'static str,
}

impl Source for FolderSource {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        let place = &self.places[blob.0];
        let folder = Arc::new(Folder::new(disk::folder(&place.folder)?));
        Ok(Box::new(Rebuilt::new(lines(place, self.limits)?, folder, from, place.folder.display().to_string(), self.denied)))
    }

    fn file(&self, _blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        None
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

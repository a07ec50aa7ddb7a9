//! Sources that are made of others.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use super::Source;
use crate::catalog::{BlobId, Catalog, Content, ImageId, Layer, Node, Root};
use crate::context::{Cancel, Context};
use crate::error::Result;
use crate::reference::Reference;

/// A catalog of its own over the bytes of other sources.
#[derive(Default)]
pub(crate) struct Composed {
    sources: Vec<Arc<dyn Source>>,
    /// Which source each blob of the catalog comes from, and its number there.
    origins: Vec<(usize, BlobId)>,
    pub(crate) catalog: Catalog,
}

impl Composed {
    /// What another source holds.
    pub(crate) fn over(source: &Arc<dyn Source>) -> Self {
        let catalog = source.catalog().clone();
        let origins = (0..catalog.blobs.len()).map(|blob| (0, BlobId(blob))).collect();
        Self { sources: vec![Arc::clone(source)], origins, catalog }
    }

    /// Takes in layers of a source, and gives them as this catalog counts their blobs.
    pub(crate) fn take_layers(&mut self, source: &Arc<dyn Source>, layers: &[Layer]) -> Vec<Layer> {
        let at = self.sources.iter().position(|known| Arc::ptr_eq(known, source)).unwrap_or_else(|| {
            self.sources.push(Arc::clone(source));
            self.sources.len() - 1
        });
        let take = |layer: &Layer| {
            let blob = layer.blob.map(|blob| {
                self.origins.push((at, blob));
                self.catalog.add_blob(source.catalog().blob(blob).clone())
            });
            Layer { blob, ..layer.clone() }
        };
        layers.iter().map(take).collect()
    }

    pub(crate) fn take_warnings(&mut self, source: &dyn Source) {
        self.catalog.warnings.extend(source.catalog().warnings.iter().cloned());
    }

    /// Adds all that a source holds.
    fn append(&mut self, source: Arc<dyn Source>) {
        let one = source.catalog();
        self.origins.extend((0..one.blobs.len()).map(|blob| (self.sources.len(), BlobId(blob))));
        let all = &mut self.catalog;
        let (blobs, images) = (all.blobs.len(), all.images.len());
        all.blobs.extend(one.blobs.iter().cloned());
        all.images.extend(one.images.iter().cloned().map(|mut image| {
            for layer in &mut image.layers {
                layer.blob = layer.blob.map(|blob| BlobId(blob.0 + blobs));
            }
            image
        }));
        all.roots.extend(one.roots.iter().map(|root| Root { name: root.name.clone(), node: moved(&root.node, blobs, images) }));
        all.findings.extend(one.findings.iter().cloned());
        self.take_warnings(source.as_ref());
        self.sources.push(source);
    }

    fn locate(&self, blob: BlobId) -> (&dyn Source, BlobId) {
        let (source, blob) = self.origins[blob.0];
        (self.sources[source].as_ref(), blob)
    }
}

/// Several sources as one: all their images, in order. A single source is left as it is.
pub fn join(mut sources: Vec<Arc<dyn Source>>) -> Arc<dyn Source> {
    if sources.len() == 1 {
        return sources.remove(0);
    }
    let mut joined = Composed::default();
    for source in sources {
        let annotations = source.catalog().index.as_ref().map(|index| &index.annotations).filter(|annotations| !annotations.is_empty());
        let warning = annotations.map(|annotations| {
            let keys: Vec<_> = annotations.keys().map(|key| key.escape_debug().to_string()).collect();
            let (keys, place) = (keys.join(", "), source.describe());
            format!("annotations of the layout {place} ({keys}) are left out, since it is joined with others")
        });
        joined.append(source);
        joined.catalog.warnings.extend(warning);
    }
    find_missing(&mut joined.catalog);
    Arc::new(joined)
}

/// Takes layers that one source lacks from another.
fn find_missing(catalog: &mut Catalog) {
    let held = catalog.images.iter().flat_map(|image| &image.layers).filter_map(|layer| Some((layer.diff_id, layer.blob?)));
    let held: HashMap<_, _> = held.collect();
    for layer in catalog.images.iter_mut().flat_map(|image| &mut image.layers).filter(|layer| layer.missing.is_some()) {
        layer.blob = held.get(&layer.diff_id).copied();
        if layer.blob.is_some() {
            layer.missing = None;
        }
    }
}

/// A copy of a node whose blobs and images are numbered further on.
fn moved(node: &Node, blobs: usize, images: usize) -> Node {
    let content = match &node.content {
        Content::Image(id) => Content::Image(ImageId(id.0 + images)),
        Content::Index { raw, nodes } => {
            Content::Index { raw: raw.clone(), nodes: nodes.iter().map(|node| moved(node, blobs, images)).collect() }
        }
        Content::Artifact { manifest, blobs: own } => {
            Content::Artifact { manifest: manifest.clone(), blobs: own.iter().map(|blob| BlobId(blob.0 + blobs)).collect() }
        }
        Content::Unread => Content::Unread,
    };
    Node { descriptor: node.descriptor.clone(), content }
}

impl Source for Composed {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        let (source, blob) = self.locate(blob);
        source.open(blob, from)
    }

    fn open_until(&self, blob: BlobId, cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
        let (source, blob) = self.locate(blob);
        source.open_until(blob, cancel)
    }

    fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        let (source, blob) = self.locate(blob);
        source.file(blob)
    }

    fn repository(&self, blob: BlobId) -> Option<&Reference> {
        let (source, blob) = self.locate(blob);
        source.repository(blob)
    }

    fn keep(&self, blobs: &[BlobId], ctx: &Context) -> Result<()> {
        self.sources.iter().enumerate().try_for_each(|(at, source)| {
            let origins = blobs.iter().map(|blob| self.origins[blob.0]);
            let own: Vec<_> = origins.filter(|(origin, _)| *origin == at).map(|(_, blob)| blob).collect();
            source.keep(&own, ctx)
        })
    }

    fn parallel(&self) -> usize {
        self.sources.iter().map(|source| source.parallel()).max().unwrap_or(0)
    }

    fn describe(&self) -> String {
        self.sources.iter().map(|source| source.describe()).collect::<Vec<_>>().join(" + ")
    }

    fn spooled(&self) -> u64 {
        self.sources.iter().map(|source| source.spooled()).sum()
    }
}

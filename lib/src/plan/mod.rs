//! What will be done, decided before anything is: a pure function of catalog, accepts and options.
//!
//! `select` chooses images and platforms, `convert` decides for every layer whether it is copied or recoded, `squash` which become one.
//! `--dry-run` prints the result.

mod convert;
mod select;
mod squash;

use std::fmt;
use std::sync::Arc;

pub use convert::{Compress, ConvertOptions, NameChange, Platforms, convert};
pub use squash::{Keep, MergeInput, MergePlan, Squash};

use crate::catalog::{BlobId, Known, Legacy, Lineage, Name};
use crate::compress::{Compression, Encoding};
use crate::digest::{DiffId, Digest};
use crate::error::escaped;
use crate::reference::Reference;
use crate::sink::{Accepts, Expected, ExpectedBlob, ExpectedImage, ExpectedLayer};
use crate::spec::{Config, Descriptor, Index, LayerFamily, Manifest, Raw};

/// What happens to the bytes of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerPlan {
    /// They stay as they are.
    Copy,
    /// They are decoded, and encoded again if it says how.
    Recode(Option<Encoding>),
    /// There are none yet: they are made of those of several layers.
    Merge(Arc<MergePlan>),
}

/// One blob to write. Layers that are the same bytes are one blob.
#[derive(Debug, Clone)]
pub struct PlannedBlob {
    /// Where it comes from; of layers that are merged, the newest.
    pub blob: BlobId,
    /// What happens to it.
    pub action: LayerPlan,
    /// What is stated of the stored bytes.
    pub known: Known,
    /// How the stored bytes are compressed.
    pub compression: Compression,
    /// What it is and where, for messages.
    pub label: String,
}

impl PlannedBlob {
    /// How it will be compressed.
    pub fn compression_after(&self) -> Compression {
        let encoded = |encoding: Option<Encoding>| encoding.map_or(Compression::None, |encoding| encoding.compression());
        match &self.action {
            LayerPlan::Copy => self.compression,
            LayerPlan::Recode(encoding) => encoded(*encoding),
            LayerPlan::Merge(merge) => encoded(merge.encoding),
        }
    }

    /// What is known before the run of the bytes that will be written.
    fn expected(&self) -> ExpectedBlob {
        let known = match &self.action {
            LayerPlan::Copy | LayerPlan::Merge(_) => self.known.clone(),
            LayerPlan::Recode(None) => Known { size: None, digest: self.known.diff_id.map(|id| id.0), diff_id: self.known.diff_id },
            LayerPlan::Recode(Some(_)) => Known { size: None, digest: None, diff_id: self.known.diff_id },
        };
        ExpectedBlob { known, compression: self.compression_after() }
    }
}

/// One layer of an image to write.
#[derive(Debug, Clone)]
pub struct PlannedLayer {
    /// Which of [`Plan::blobs`]; none for a foreign layer.
    pub blob: Option<usize>,
    /// Its diff ID.
    pub diff_id: DiffId,
    /// How the source lists it.
    pub descriptor: Option<Descriptor>,
    /// Its bytes in the source, which may be other ones than those of [`PlannedBlob::blob`] with the same content.
    pub source: Option<BlobId>,
    /// The digest of those bytes, where it is stated.
    pub stored: Option<Digest>,
    /// Whether it is left out because no source has it.
    pub missing: bool,
}

/// One image to write.
#[derive(Debug, Clone)]
pub struct PlannedImage {
    /// The config, which no conversion changes; where it is not the manifest's, the manifest will say so.
    pub config: Raw<Config>,
    /// The manifest that the source has, with its media type.
    pub manifest: Option<(String, Raw<Manifest>)>,
    /// The types of a manifest that must be changed or made.
    pub family: LayerFamily,
    /// Whether the manifest gets them even if nothing else of it changes.
    pub retyped: bool,
    /// The layers, base first.
    pub layers: Vec<PlannedLayer>,
    /// What it is called, for formats that keep names with images.
    pub references: Vec<Reference>,
    /// The v1 JSON that the source has instead of a config.
    pub legacy: Option<Arc<Legacy>>,
    /// What it was built on.
    pub lineage: Option<Lineage>,
    /// Whether its last layer is merged of several, so that its config is open until that is written.
    pub merged: bool,
}

/// What a name leads to.
#[derive(Debug, Clone)]
pub enum PlannedNode {
    /// Bytes that stay as they are, with their blobs (positions in [`Plan::blobs`]).
    Artifact {
        /// The manifest, or none for a bare blob.
        manifest: Option<Raw<Manifest>>,
        /// As its parent lists it.
        descriptor: Descriptor,
    },
    /// One of [`Plan::images`].
    Image {
        /// Its position.
        image: usize,
        /// As its parent lists it.
        descriptor: Option<Descriptor>,
    },
    /// An index.
    Index {
        /// As it is.
        raw: Raw<Index>,
        /// As its parent lists it.
        descriptor: Descriptor,
        /// What it will list.
        nodes: Vec<Self>,
    },
}

/// A name and what it leads to.
#[derive(Debug, Clone)]
pub struct PlannedRoot {
    /// The name.
    pub name: Option<Name>,
    /// What it leads to.
    pub node: PlannedNode,
}

/// All that a run will do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The blobs, in the order in which they are written.
    pub blobs: Vec<PlannedBlob>,
    /// The images, in order.
    pub images: Vec<PlannedImage>,
    /// The names, in order.
    pub roots: Vec<PlannedRoot>,
    /// The top-level index that the source had.
    pub index: Option<Raw<Index>>,
    /// What the destination holds.
    pub accepts: Accepts,
    /// What the destination cannot hold, one line each.
    pub omitted: Vec<String>,
    /// What was chosen on the caller's behalf, and what was odd, one line each.
    pub notes: Vec<String>,
}

impl Plan {
    /// What a sink is told before the run.
    pub fn expected(&self) -> Expected {
        let image = |image: &PlannedImage| ExpectedImage {
            config: image.config.clone(),
            layers: image.layers.iter().map(|layer| ExpectedLayer { blob: layer.blob, stored: layer.stored }).collect(),
            references: image.references.clone(),
            legacy: image.legacy.clone(),
            lineage: image.lineage.clone(),
        };
        Expected { blobs: self.blobs.iter().map(PlannedBlob::expected).collect(), images: self.images.iter().map(image).collect() }
    }

    /// The names of an image, as people write them.
    pub fn names(&self, image: usize) -> Vec<String> {
        fn leads(node: &PlannedNode, wanted: usize) -> bool {
            match node {
                PlannedNode::Image { image, .. } => *image == wanted,
                PlannedNode::Index { nodes, .. } => nodes.iter().any(|node| leads(node, wanted)),
                PlannedNode::Artifact { .. } => false,
            }
        }
        self.roots.iter().filter(|root| leads(&root.node, image)).filter_map(|root| root.name.as_ref().map(Name::to_string)).collect()
    }
}

/// What `--dry-run` prints.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, image) in self.images.iter().enumerate() {
            let names = self.names(at);
            let names = if names.is_empty() { "(no name)".to_owned() } else { names.join(", ") };
            let id = if image.merged { "(new)".to_owned() } else { image.config.digest().to_string() };
            writeln!(f, "image {id} {} {names}", image.config.platform())?;
            for (position, layer) in image.layers.iter().enumerate() {
                match layer.blob {
                    Some(blob) => writeln!(f, "  layer {position}: {}", self.blobs[blob])?,
                    None if layer.missing => writeln!(f, "  layer {position}: {} is left to the receiver", layer.diff_id)?,
                    None => writeln!(f, "  layer {position}: {} is foreign and stays where its URLs say", layer.diff_id)?,
                }
            }
        }
        let is_artifact = |blob: &&PlannedBlob| blob.known.diff_id.is_none() && !matches!(blob.action, LayerPlan::Merge(_));
        let artifacts = self.blobs.iter().filter(is_artifact);
        for blob in artifacts {
            writeln!(f, "{blob}")?;
        }
        for line in &self.omitted {
            writeln!(f, "left out: {line}")?;
        }
        for line in &self.notes {
            writeln!(f, "note: {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlannedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.known.size.map_or_else(|| "unknown size".to_owned(), |size| format!("{size} bytes"));
        // The line has said that it is a layer.
        escaped(self.label.strip_prefix("layer ").unwrap_or(&self.label), f)?;
        write!(f, ", {size}, ")?;
        match &self.action {
            LayerPlan::Copy => write!(f, "copy ({})", self.compression),
            LayerPlan::Recode(_) => write!(f, "{} -> {}", self.compression, self.compression_after()),
            LayerPlan::Merge(merge) => {
                write!(f, "merge {} -> {}", squash::number(merge.layers.len() - merge.below), self.compression_after())
            }
        }
    }
}

/// The digest of what a planned node was in the source, for matching subjects.
fn source_digest(node: &PlannedNode) -> Option<Digest> {
    match node {
        PlannedNode::Artifact { descriptor, .. } | PlannedNode::Index { descriptor, .. } => Some(descriptor.digest),
        PlannedNode::Image { descriptor, .. } => descriptor.as_ref().map(|d| d.digest),
    }
}

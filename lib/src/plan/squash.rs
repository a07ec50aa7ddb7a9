//! Plans a squash: which layers become one, and what the config says of it.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{LayerPlan, Plan, PlannedImage, PlannedLayer};
use crate::catalog::{BlobId, Catalog, Image, Known, Name};
use crate::compress::{Compression, Encoding};
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, Result};
use crate::reference::Reference;
use crate::sink::Written;
use crate::spec::{Config, Json, JsonLimits, Object, Raw, SpecError};

/// Which layers stay as they are; those above become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// So many, from the base up; 0 merges all.
    First(usize),
    /// All but the newest so many.
    AllBut(usize),
    /// Those of a base image: the diff IDs of its layers, for each of its platforms.
    Base(Vec<Vec<DiffId>>),
}

/// How to squash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Squash {
    /// Which layers stay.
    pub keep: Keep,
    /// When the image was made; what it says itself when absent.
    pub created: Option<String>,
    /// What is added to every tag.
    pub suffix: Option<String>,
}

/// Layers that become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergePlan {
    /// All layers of the image, base first.
    pub layers: Vec<MergeInput>,
    /// How many of them stay as they are: they are read for what the others hide of them.
    pub below: usize,
    /// How the merged layer is compressed.
    pub encoding: Option<Encoding>,
}

/// One of several layers that become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeInput {
    /// Its bytes.
    pub blob: BlobId,
    /// What is stated of them.
    pub known: Known,
    /// How they are compressed.
    pub compression: Compression,
    /// What it is and where, for messages.
    pub label: String,
}

impl MergePlan {
    /// All layers of an image that a source holds.
    ///
    /// # Errors
    /// When the source does not hold one of them.
    pub fn of(catalog: &Catalog, image: &Image, below: usize, encoding: Option<Encoding>) -> Result<Self> {
        let layers = (0..image.layers.len()).map(|at| MergeInput::of(catalog, image, at)).collect::<Result<_>>()?;
        Ok(Self { layers, below, encoding })
    }

    /// Stored bytes of the layers that are merged, where all are stated.
    pub fn size(&self) -> Option<u64> {
        self.layers[self.below..].iter().map(|layer| layer.known.size).sum()
    }
}

impl MergeInput {
    /// One layer of an image, from the base up.
    ///
    /// # Errors
    /// When the source does not hold it.
    pub fn of(catalog: &Catalog, image: &Image, at: usize) -> Result<Self> {
        let layer = &image.layers[at];
        let Some(blob) = layer.blob else {
            let what = if layer.missing.is_some() { "missing" } else { "foreign, and its bytes are elsewhere" };
            return Err(Error::not_found(format_args!("layer {at} ({}) is {what}", layer.diff_id)));
        };
        let held = catalog.blob(blob);
        let known = Known { diff_id: Some(layer.diff_id), ..held.known.clone() };
        Ok(Self { blob, known, compression: held.compression, label: format!("layer {at} ({})", held.place) })
    }
}

impl Keep {
    /// How many layers of an image stay.
    pub(super) fn layers(&self, image: &Image) -> Result<usize> {
        let count = image.layers.len();
        match self {
            Self::First(0) => Ok(0),
            Self::First(kept) if *kept < count => Ok(*kept),
            Self::First(kept) => Err(Error::invalid(format_args!("it has {}, and nothing is left to merge above {kept}", number(count)))),
            Self::AllBut(merged) if *merged <= count => Ok(count - merged),
            Self::AllBut(merged) => Err(Error::invalid(format_args!("it has {}, not {merged} to merge", number(count)))),
            Self::Base(bases) => {
                let is_below =
                    |base: &&Vec<DiffId>| base.len() < count && base.iter().zip(&image.layers).all(|(id, layer)| *id == layer.diff_id);
                let longest = bases.iter().filter(is_below).map(Vec::len).max();
                longest.ok_or_else(|| Error::mismatch("it is not built on the base that --from names, with layers of its own"))
            }
        }
    }
}

/// A number of layers in words.
pub(super) fn number(count: usize) -> String {
    if count == 1 { "1 layer".to_owned() } else { format!("{count} layers") }
}

/// Which of `count` layers are those above the first `kept`, of which there is at least one.
pub(super) fn which(kept: usize, count: usize) -> String {
    if count - kept == 1 { format!("layer {kept}") } else { format!("layers {kept} to {}", count - 1) }
}

/// The config of an image whose layers from `kept` on are merged. The merged layer's diff ID is open: [`Plan::settle`] states it.
pub(super) fn config(image: &Image, kept: usize, squash: &Squash) -> Result<Raw<Config>> {
    let mut object = Object::parse(image.config.bytes())?;
    let count = image.layers.len();
    if let Some(created) = &squash.created {
        object.set("created", created);
    }
    let mut steps = Vec::new();
    if let Some(history) = object.get("history").map(Json::of).filter(|history| !history.is_null()) {
        let read = |step: Json<'_>| Ok((step.text().to_owned(), step.object()?.or_default("empty_layer", Json::bool)?));
        steps = history.list(read).map_err(|error: SpecError| Error::invalid(error).frame("history"))?;
    }
    // A history that does not tell of all layers tells of none for sure.
    let fits = steps.iter().filter(|(_, empty)| !empty).count() == count;
    let mut below = 0;
    let mut told = Vec::new();
    for (text, empty) in steps {
        let stays = fits && (empty || below < kept);
        below += usize::from(!empty);
        if stays {
            told.push(text);
        } else {
            let mut step = Object::parse(text.as_bytes())?;
            step.set("empty_layer", true);
            told.push(text_of(&step));
        }
    }
    if !fits {
        // Those that stay come first, so that a step without the mark is the layer that it means.
        told.splice(..0, std::iter::repeat_n("{}".to_owned(), kept));
    }
    let mut own = Object::new();
    if let Some(created) = object.get("created") {
        own.set_raw("created", created.to_owned());
    }
    let which = if kept == 0 && count > 1 { format!("all {count} layers") } else { which(kept, count) };
    own.set("created_by", "longshore squash").set("comment", format!("merges {which} of {}", image.id()));
    told.push(text_of(&own));
    let ids = image.layers[..kept].iter().map(|layer| layer.diff_id).chain([DiffId(open())]);
    object.set_raw("history", array(told)?);
    set_diff_ids(&mut object, ids)?;
    parse(object, &image.config)
}

/// What stands for a digest that is not known yet.
fn open() -> Digest {
    Digest::of(b"")
}

fn text_of(object: &Object) -> String {
    object.to_raw().get().to_owned()
}

fn array(texts: Vec<String>) -> Result<Box<RawValue>> {
    RawValue::from_string(format!("[{}]", texts.join(","))).map_err(Error::invalid)
}

fn set_diff_ids(config: &mut Object, ids: impl Iterator<Item = DiffId>) -> Result<()> {
    let mut rootfs = match config.get("rootfs") {
        Some(rootfs) => Object::parse(rootfs.get().as_bytes())?,
        None => Object::new(),
    };
    rootfs.set("diff_ids", ids.map(|id| id.to_string()).collect::<Vec<_>>());
    config.set_raw("rootfs", rootfs.to_raw());
    Ok(())
}

fn parse(config: Object, before: &Raw<Config>) -> Result<Raw<Config>> {
    let limits = JsonLimits { bytes: u64::MAX, depth: usize::MAX };
    let raw: Raw<Config> = Raw::parse(config.to_vec(), &limits).map_err(|error| Error::from(error).frame("the new config"))?;
    Ok(raw.with_digest_algorithm(before.digest().algorithm()))
}

/// The layers of an image of which the newest are merged into blob number `blob`.
pub(super) fn layers(mut below: Vec<PlannedLayer>, blob: usize) -> Vec<PlannedLayer> {
    let diff_id = DiffId(open());
    below.push(PlannedLayer { blob: Some(blob), diff_id, descriptor: None, source: None, stored: None, missing: false });
    below
}

impl Plan {
    /// Whether layers are merged.
    pub fn merges(&self) -> bool {
        self.blobs.iter().any(|blob| matches!(blob.action, LayerPlan::Merge(_)))
    }

    /// The plan with the diff IDs of merged layers, once these are written.
    ///
    /// # Errors
    /// When a config cannot be changed.
    pub fn settle(mut self, written: &[Option<Written>]) -> Result<Self> {
        for image in &mut self.images {
            settle(image, written).context(|| format!("image {}", image.config.digest()))?;
        }
        Ok(self)
    }
}

fn settle(image: &mut PlannedImage, written: &[Option<Written>]) -> Result<()> {
    let Some((diff_id, layer)) = image.layers.last_mut().filter(|_| image.merged).and_then(|layer| {
        let diff_id = written.get(layer.blob?)?.as_ref()?.diff_id?;
        Some((diff_id, layer))
    }) else {
        return Ok(());
    };
    (layer.diff_id, layer.stored) = (diff_id, Some(diff_id.0));
    let mut object = Object::parse(image.config.bytes())?;
    set_diff_ids(&mut object, image.layers.iter().map(|layer| layer.diff_id))?;
    image.config = parse(object, &image.config)?;
    Ok(())
}

/// A name with something added to its tag.
pub(super) fn suffixed(name: &Name, suffix: &str) -> Result<Name> {
    match name {
        Name::Reference(reference) => {
            Ok(Name::Reference(Reference::parse(&format!("{}{suffix}", reference.full())).map_err(Error::invalid)?))
        }
        Name::Text(text) => Ok(Name::Text(format!("{text}{suffix}"))),
    }
}

/// Where merged layers are known by what they are made of.
pub(super) fn key(plan: &MergePlan) -> Arc<[BlobId]> {
    plan.layers.iter().map(|layer| layer.blob).collect()
}

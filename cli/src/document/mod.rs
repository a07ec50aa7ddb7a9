//! What a source holds, as one document: `inspect --json` prints it, `inspect` shows it as text.
//!
//! The document is part of the contract with scripts and described in docs/JSON.md: keys are added, and never change their meaning under the
//! same `version`. What is not stated is absent.

mod history;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use longshore::catalog::{Catalog, Content, Image, ImageId, Name, Node, Root};
use longshore::compress::Compression;
use longshore::look::Waste;
use longshore::source::Source;
use longshore::spec::{Config, ContainerConfig, Descriptor, History, Platform};
use longshore::{DiffId, Digest};
use serde::Serialize;

pub(crate) use text::render;

type Texts = BTreeMap<String, String>;

/// The version of the document.
const VERSION: u32 = 1;

/// All that a source holds.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    version: u32,
    /// What the source is; not where, so that the same images are the same document.
    format: String,
    /// Images, indexes and artifacts, each once, in the order of the source.
    entries: Vec<Entry>,
    /// What was odd but harmless.
    warnings: Vec<String>,
}

/// An image, index or artifact, and all its names.
#[derive(Debug, Serialize)]
struct Entry {
    /// What `@0`, `@1`, … count.
    position: usize,
    names: Vec<Named>,
    #[serde(flatten)]
    node: Described,
}

#[derive(Debug, Serialize)]
struct Named {
    /// As people write it: `kitchen:1`.
    name: String,
    /// In full, where it is a reference: `docker.io/library/kitchen:1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// One node, with what its parent says of it.
#[derive(Debug, Serialize)]
struct Described {
    kind: &'static str,
    /// Of the manifest or index; absent for an image of an archive that has no manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// Bytes of the manifest or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os_version: Option<String>,
    /// Of the manifest or index.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: Texts,
    /// Of the entry that lists it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    descriptor_annotations: Texts,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    /// The manifest that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Box<ImageInfo>>,
    /// What an index lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<Vec<Self>>,
    /// Of an artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    blobs: Option<Vec<BlobInfo>>,
}

#[derive(Debug, Serialize)]
struct ImageInfo {
    /// The image ID, which is the digest of the config.
    id: Digest,
    config_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    config: Settings,
    /// Bytes of all layers as stored, one that is there twice counted once; absent if one is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    layers_size: Option<u64>,
    layers: Vec<LayerInfo>,
    history: Vec<Step>,
    /// Whether the history has one step for every layer; if not, it says nothing about them.
    history_matches: bool,
    /// What nobody sees of it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waste: Option<Waste>,
}

impl Document {
    /// Says of images, by their ID, what nobody sees of them.
    pub(crate) fn add_waste(&mut self, found: &BTreeMap<Digest, Waste>) {
        self.entries.iter_mut().for_each(|entry| entry.node.add_waste(found));
    }
}

impl Described {
    fn add_waste(&mut self, found: &BTreeMap<Digest, Waste>) {
        if let Some(image) = &mut self.image {
            image.waste = found.get(&image.id).cloned();
        }
        self.manifests.iter_mut().flatten().for_each(|below| below.add_waste(found));
    }
}

/// How the image is run.
#[derive(Debug, Default, Serialize)]
struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    exposed_ports: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    volumes: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: Texts,
}

/// One layer, base first.
#[derive(Debug, Serialize)]
struct LayerInfo {
    diff_id: DiffId,
    /// Of the bytes as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// What the bytes show; absent for a layer that is elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<String>,
    /// Where a layer is fetched from that is not in the source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    urls: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: Texts,
}

/// One step of the build.
#[derive(Debug, Serialize)]
struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    /// The position of the layer that it made, where the history matches the layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
}

#[derive(Debug, Serialize)]
struct BlobInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

/// Describes all that a source holds.
pub(crate) fn describe(source: &dyn Source) -> Document {
    let catalog = source.catalog();
    let entries = catalog.entries().into_iter().enumerate();
    let entries = entries.map(|(position, roots)| Entry {
        position,
        names: roots.iter().filter_map(|root| root.name.as_ref()).map(named).collect(),
        node: node(catalog, &first(&roots).node),
    });
    let place = source.describe();
    let format = place.split_once(':').map_or(place.as_str(), |(format, _)| format).to_owned();
    Document { version: VERSION, format, entries: entries.collect(), warnings: catalog.warnings.clone() }
}

fn first<'a>(roots: &[&'a Root]) -> &'a Root {
    roots.first().expect("an entry is made of at least one root")
}

fn named(name: &Name) -> Named {
    let reference = name.reference().map(|reference| reference.full());
    match name {
        Name::Reference(reference_of) => Named { name: reference_of.familiar(), reference },
        Name::Text(text) => Named { name: text.clone(), reference },
    }
}

fn node(catalog: &Catalog, node: &Node) -> Described {
    let listed = node.descriptor.as_ref();
    let mut described = Described {
        kind: "unread",
        digest: node.digest(catalog).copied(),
        media_type: listed.map(|descriptor| descriptor.media_type.clone()),
        size: listed.map(|descriptor| descriptor.size),
        platform: listed.and_then(|descriptor| descriptor.platform.as_ref()).map(Platform::to_string),
        os_version: listed.and_then(|descriptor| descriptor.platform.as_ref()?.os_version.clone()),
        annotations: Texts::new(),
        descriptor_annotations: listed.map(|descriptor| descriptor.annotations.clone()).unwrap_or_default(),
        artifact_type: listed.and_then(|descriptor| descriptor.artifact_type.clone()),
        subject: node.subject(catalog).copied(),
        image: None,
        manifests: None,
        blobs: None,
    };
    match &node.content {
        Content::Image(id) => describe_image(catalog, *id, &mut described),
        Content::Index { raw, nodes } => {
            described.kind = "index";
            described.size = Some(raw.size());
            described.media_type = described.media_type.or_else(|| raw.media_type.clone());
            described.annotations.clone_from(&raw.annotations);
            described.artifact_type = raw.artifact_type.clone().or(described.artifact_type);
            described.manifests = Some(nodes.iter().map(|below| self::node(catalog, below)).collect());
        }
        Content::Artifact { manifest, blobs } => {
            described.kind = "artifact";
            if let Some(raw) = manifest {
                described.size = Some(raw.size());
                described.media_type = described.media_type.or_else(|| raw.media_type.clone());
                described.annotations.clone_from(&raw.annotations);
                // The image-spec: without artifactType, the config's media type says what it is.
                let kind = raw.artifact_type.clone().or(described.artifact_type);
                described.artifact_type = kind.or_else(|| Some(raw.config.media_type.clone()));
            }
            let known = blobs.iter().map(|id| &catalog.blob(*id).known);
            described.blobs = Some(known.map(|known| BlobInfo { digest: known.digest, size: known.size }).collect());
        }
        Content::Unread => {}
    }
    described
}

fn describe_image(catalog: &Catalog, id: ImageId, described: &mut Described) {
    let image = catalog.image(id);
    let platform = image.platform();
    described.kind = "image";
    if let Some((media_type, raw)) = &image.manifest {
        described.media_type = Some(media_type.clone());
        described.size = Some(raw.size());
        described.annotations.clone_from(&raw.annotations);
    }
    described.platform = Some(platform.to_string()).filter(|_| !platform.os.is_empty() || !platform.architecture.is_empty());
    described.os_version = platform.os_version;
    described.image = Some(Box::new(image_info(catalog, image)));
}

fn image_info(catalog: &Catalog, image: &Image) -> ImageInfo {
    let config: &Config = image.config.view();
    let steps = history::layers_of(&config.history, image.layers.len());
    let layer_of = |at: usize| steps.as_ref().and_then(|steps| steps.get(at).copied().flatten());
    ImageInfo {
        id: *image.id(),
        config_size: image.config.size(),
        created: config.created.clone(),
        author: config.author.clone(),
        config: config.config.as_ref().map(settings).unwrap_or_default(),
        layers_size: layers_size(catalog, image),
        layers: image.layers.iter().map(|layer| layer_info(catalog, layer)).collect(),
        history: config.history.iter().enumerate().map(|(at, entry)| step(entry, layer_of(at))).collect(),
        history_matches: steps.is_some(),
        waste: None,
    }
}

fn settings(config: &ContainerConfig) -> Settings {
    Settings {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        volumes: config.volumes.clone(),
        stop_signal: config.stop_signal.clone(),
        labels: config.labels.clone(),
    }
}

fn layer_info(catalog: &Catalog, layer: &longshore::catalog::Layer) -> LayerInfo {
    let blob = layer.blob.map(|id| catalog.blob(id));
    let listed: Option<&Descriptor> = layer.descriptor.as_ref();
    let stored = listed.map(|descriptor| descriptor.digest).or_else(|| blob.and_then(|blob| blob.known.digest));
    // A plain layer is stored as the tar that its diff ID names.
    let plain = blob.filter(|blob| blob.compression == Compression::None).map(|_| layer.diff_id.0);
    LayerInfo {
        diff_id: layer.diff_id,
        digest: stored.or(plain),
        size: blob.and_then(|blob| blob.known.size).or_else(|| listed.map(|descriptor| descriptor.size)),
        media_type: listed.map(|descriptor| descriptor.media_type.clone()),
        compression: blob.map(|blob| blob.compression.to_string()),
        urls: listed.map(|descriptor| descriptor.urls.clone()).unwrap_or_default(),
        annotations: listed.map(|descriptor| descriptor.annotations.clone()).unwrap_or_default(),
    }
}

fn layers_size(catalog: &Catalog, image: &Image) -> Option<u64> {
    let held: BTreeSet<_> = image.layers.iter().filter_map(|layer| layer.blob).collect();
    held.into_iter().map(|id| catalog.blob(id).known.size).sum()
}

fn step(entry: &History, layer: Option<usize>) -> Step {
    Step {
        created: entry.created.clone(),
        created_by: entry.created_by.clone(),
        author: entry.author.clone(),
        comment: entry.comment.clone(),
        layer,
    }
}

#[cfg(test)]
mod tests;

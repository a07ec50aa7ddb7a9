//! What a source holds, as plain data: blobs, images, and the names that lead to them.
//!
//! A catalog is complete once its source is open: operations plan from it alone and go back to the source only for the bytes of a [`BlobId`].

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::compress::Compression;
use crate::digest::{DiffId, Digest};
use crate::reference::{Reference, is_bare_name};
use crate::spec::{Config, Descriptor, Index, Manifest, Platform, Raw};

/// The annotation in which containerd and Docker keep an image's full name.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// The annotation of the image-spec for a name; Docker and containerd write the tag alone, podman a full name, skopeo what it was told.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation with which BuildKit says what an attestation in the same index is about.
pub(crate) const ATTESTS: &str = "vnd.docker.reference.digest";

/// One blob of a [`Catalog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub usize);

/// One image of a [`Catalog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(pub usize);

/// What is known of a blob before it is read. Absent means "not stated".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Bytes as stored.
    pub size: Option<u64>,
    /// Digest of the bytes as stored.
    pub digest: Option<Digest>,
    /// Digest of the uncompressed tar, for a layer.
    pub diff_id: Option<DiffId>,
}

/// Bytes that a source can give.
#[derive(Debug, Clone)]
pub struct Blob {
    /// What is stated of them.
    pub known: Known,
    /// How they are compressed, found by looking at them.
    pub compression: Compression,
    /// Where they are, for messages: a member's name or a path in the directory.
    pub place: String,
}

/// One layer of an image, from the base up.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The digest of its uncompressed tar, from the config.
    pub diff_id: DiffId,
    /// Its bytes; `None` for a foreign layer that the source does not hold.
    pub blob: Option<BlobId>,
    /// How the manifest lists it, where there is a manifest.
    pub descriptor: Option<Descriptor>,
    /// The member that should hold it and is not there, and what names it: partial archives name the layers of their base.
    pub missing: Option<String>,
}

/// A config and its layers, for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest with its media type, where the format has one.
    pub manifest: Option<(String, Raw<Manifest>)>,
    /// The config; its digest is the image ID.
    pub config: Raw<Config>,
    /// The layers, base first.
    pub layers: Vec<Layer>,
    /// The v1 JSON of its layers, base first, where that is all that the source has: the config is made of it.
    pub legacy: Option<Arc<Legacy>>,
    /// What it was built on, where the source says it.
    pub lineage: Option<Lineage>,
}

/// What an image was built on and of, as Bazel's archives say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The image ID of the base, where there is one.
    pub parent: Option<String>,
    /// The folders of the layers of the base, base first; those of the image itself follow.
    pub folders: Vec<String>,
    /// What layers are called, base first, where that is not their diff ID.
    pub names: Vec<Option<String>>,
    /// The v1 JSON of the topmost layers, lowest first: an archive has these layers as members of 2013 too.
    pub legacy: Vec<LegacyLayer>,
}

/// What an archive of 2013 says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legacy {
    /// The ID of its top: the last layer's, or that of a step above it which made none and was left out.
    pub top: String,
    /// Its layers, base first.
    pub layers: Vec<LegacyLayer>,
}

/// What an archive of 2013 says of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyLayer {
    /// Its ID, which names its folder.
    pub id: String,
    /// The v1 JSON, as stored.
    pub json: Arc<[u8]>,
}

impl Image {
    /// The image ID.
    pub fn id(&self) -> &Digest {
        self.config.digest()
    }

    /// The platform that the config states.
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }
}

/// An image, an index, or something that is neither, and how its parent lists it.
#[derive(Debug, Clone)]
pub struct Node {
    /// As an index lists it, where one does.
    pub descriptor: Option<Descriptor>,
    /// What it is.
    pub content: Content,
}

/// What a [`Node`] is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A list of further nodes.
    Index {
        /// The index itself.
        raw: Raw<Index>,
        /// What it lists, in its order; shared, since an index may be listed many times.
        nodes: Arc<[Node]>,
    },
    /// An image.
    Image(ImageId),
    /// A signature, an SBOM, an attestation, a chart: kept as it is.
    Artifact {
        /// Its manifest, when it has one.
        manifest: Option<Raw<Manifest>>,
        /// All its blobs; the manifest, when there is one, is not among them.
        blobs: Arc<[BlobId]>,
    },
    /// Listed, but not in the source.
    Unread,
}

impl Node {
    /// The digest of the manifest, index or blob. `None` for an image that has no manifest yet.
    pub fn digest<'a>(&'a self, catalog: &'a Catalog) -> Option<&'a Digest> {
        match &self.content {
            Content::Index { raw, .. } => Some(raw.digest()),
            Content::Image(id) => catalog.image(*id).manifest.as_ref().map(|(_, raw)| raw.digest()),
            Content::Artifact { manifest: Some(raw), .. } => Some(raw.digest()),
            Content::Artifact { .. } | Content::Unread => self.descriptor.as_ref().map(|d| &d.digest),
        }
    }

    /// All images at or below this node, in order.
    pub fn images(&self) -> Vec<ImageId> {
        match &self.content {
            Content::Image(id) => vec![*id],
            Content::Index { nodes, .. } => nodes.iter().flat_map(Self::images).collect(),
            Content::Artifact { .. } | Content::Unread => Vec::new(),
        }
    }

    /// The manifest that this one refers to (its `subject`), for signatures and the like.
    pub fn subject<'a>(&'a self, catalog: &'a Catalog) -> Option<&'a Digest> {
        let subject = match &self.content {
            Content::Artifact { manifest: Some(raw), .. } => raw.subject.as_ref(),
            Content::Image(id) => catalog.image(*id).manifest.as_ref().and_then(|(_, raw)| raw.subject.as_ref()),
            Content::Index { raw, .. } => raw.subject.as_ref(),
            Content::Artifact { manifest: None, .. } | Content::Unread => None,
        };
        subject.map(|descriptor| &descriptor.digest)
    }
}

/// An image at or below a node, and the platform that is stated for it.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) id: ImageId,
    pub(crate) node: &'a Node,
    /// As the index states it, or else the config.
    pub(crate) platform: Platform,
}

/// The candidate that runs best on `wanted`; of several that run equally well, the first.
pub(crate) fn best<'a, 'b>(candidates: &'b [Candidate<'a>], wanted: &Platform) -> Option<&'b Candidate<'a>> {
    let scored = candidates.iter().rev().filter_map(|candidate| Some((candidate.platform.score(wanted)?, candidate)));
    scored.max_by_key(|(score, _)| *score).map(|(_, candidate)| candidate)
}

/// Keys of annotations, as a message lists them.
pub(crate) fn keys<'a>(keys: impl IntoIterator<Item = &'a String>) -> String {
    keys.into_iter().map(|key| key.escape_debug().to_string()).collect::<Vec<_>>().join(", ")
}

/// Platforms, as a message lists them.
pub(crate) fn list<'a>(platforms: impl IntoIterator<Item = &'a Platform>) -> String {
    platforms.into_iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}

/// Which platforms of an index are wanted. Sources to which every manifest is a round trip leave the others unread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    #[default]
    All,
    /// What runs best on this one.
    Best(Platform),
    /// What runs best on each of these, and what attests it.
    Each(Vec<Platform>),
}

impl Wanted {
    /// Which entries of an index are read: those that are wanted, and those that do not say their platform.
    pub(crate) fn of(&self, entries: &[Descriptor]) -> Vec<bool> {
        let wanted: &[Platform] = match self {
            Self::All => return vec![true; entries.len()],
            Self::Best(platform) => std::slice::from_ref(platform),
            Self::Each(platforms) => platforms,
        };
        let stated = |entry: &Descriptor| entry.platform.clone().filter(|platform| !platform.is_unknown());
        let mut read: Vec<bool> = entries.iter().map(|entry| entry.platform.is_none()).collect();
        for wanted in wanted {
            let scores = entries.iter().enumerate().rev().filter_map(|(at, entry)| Some((stated(entry)?.score(wanted)?, at)));
            if let Some((_, at)) = scores.max_by_key(|(score, _)| *score) {
                read[at] = true;
            }
            let exact = entries.iter().map(|entry| stated(entry).is_some_and(|platform| platform.matches(wanted)));
            exact.enumerate().filter(|(_, exact)| *exact).for_each(|(at, _)| read[at] = true);
        }
        // The only one is what is meant, unless a platform is asked for; then this is seen when it is chosen.
        if let ([only], false) = (images(entries).as_slice(), read.contains(&true)) {
            read[*only] = true;
        }
        if matches!(self, Self::Each(_)) {
            let chosen: Vec<_> = entries.iter().zip(&read).filter(|(_, read)| **read).map(|(entry, _)| entry.digest.to_string()).collect();
            for (entry, read) in entries.iter().zip(&mut read) {
                *read |= entry.annotation(ATTESTS).is_some_and(|attested| chosen.iter().any(|digest| digest == attested));
            }
        }
        read
    }
}

/// The entries of an index that state a platform to run on.
fn images(entries: &[Descriptor]) -> Vec<usize> {
    let is_image = |entry: &Descriptor| entry.platform.as_ref().is_some_and(|platform| !platform.is_unknown());
    entries.iter().enumerate().filter(|(_, entry)| is_image(entry)).map(|(at, _)| at).collect()
}

/// What an image is called in an archive or layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A full reference, `docker.io/library/kitchen:1`.
    Reference(Reference),
    /// Any other text of `org.opencontainers.image.ref.name`, such as the bare names of skopeo and umoci.
    Text(String),
}

impl Name {
    /// Reads the text of an annotation: a reference when it says at least a repository and more.
    pub fn from_annotation(text: &str) -> Self {
        if is_bare_name(text) {
            return Self::Text(text.to_owned());
        }
        Reference::parse(text).map_or_else(|_| Self::Text(text.to_owned()), |reference| Self::Reference(reference.with_default_tag()))
    }

    /// The reference that an archive manifest can name: a bare `kitchen` means `kitchen:latest`.
    pub fn reference(&self) -> Option<Reference> {
        match self {
            Self::Reference(reference) => Some(reference.clone()),
            Self::Text(text) if is_bare_name(text) => Reference::parse(text).ok().map(Reference::with_default_tag),
            Self::Text(_) => None,
        }
    }
}

/// As people write it: the familiar form of a reference.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => f.write_str(&reference.familiar()),
            Self::Text(text) => write!(f, "{}", text.escape_debug()),
        }
    }
}

/// A name, or none, and what it leads to. Several roots may share one image.
#[derive(Debug, Clone)]
pub struct Root {
    /// The name.
    pub name: Option<Name>,
    /// What it names.
    pub node: Node,
}

impl Root {
    /// Says which annotations of an index, and of its entry, do not come along with one of its images, if there are any.
    pub(crate) fn lost_annotations(&self) -> Option<String> {
        let Content::Index { raw, .. } = &self.node.content else { return None };
        let listed = self.node.descriptor.iter().flat_map(|descriptor| descriptor.annotations.keys());
        let keys: BTreeSet<_> =
            raw.annotations.keys().chain(listed).filter(|key| ![IMAGE_NAME, REF_NAME].contains(&key.as_str())).collect();
        (!keys.is_empty()).then(|| format!("{self}: annotations of the index ({}), of which one image is taken", self::keys(keys)))
    }
}

/// Its name, or else its digest.
impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.node.descriptor) {
            (Some(name), _) => name.fmt(f),
            (None, Some(descriptor)) => write!(f, "@{}", descriptor.digest),
            (None, None) => f.write_str("an image without a name"),
        }
    }
}

/// All that a source holds.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// The blobs, by [`BlobId`].
    pub blobs: Vec<Blob>,
    /// The images, by [`ImageId`].
    pub images: Vec<Image>,
    /// The names, in the order of the source.
    pub roots: Vec<Root>,
    /// The top-level index of a layout, for its annotations and unknown keys.
    pub index: Option<Raw<Index>>,
    /// The archive manifest of a docker-archive, as stored.
    pub archive_manifest: Option<Arc<[u8]>>,
    /// What was odd but harmless, one sentence each.
    pub warnings: Vec<String>,
    /// What is wrong, one sentence each: only where the caller asked to go on (`check`); elsewhere opening fails at the first.
    pub findings: Vec<String>,
}

impl Catalog {
    /// The blob of an ID that this catalog gave.
    pub fn blob(&self, id: BlobId) -> &Blob {
        &self.blobs[id.0]
    }

    /// The image of an ID that this catalog gave.
    pub fn image(&self, id: ImageId) -> &Image {
        &self.images[id.0]
    }

    /// Adds a blob.
    pub fn add_blob(&mut self, blob: Blob) -> BlobId {
        self.blobs.push(blob);
        BlobId(self.blobs.len() - 1)
    }

    /// Adds an image.
    pub fn add_image(&mut self, image: Image) -> ImageId {
        self.images.push(image);
        ImageId(self.images.len() - 1)
    }

    /// All images at or below a node, in order.
    pub(crate) fn candidates<'a>(&self, node: &'a Node) -> Vec<Candidate<'a>> {
        match &node.content {
            Content::Image(id) => {
                let stated = node.descriptor.as_ref().and_then(|descriptor| descriptor.platform.clone());
                let platform = stated.filter(|platform| !platform.is_unknown()).unwrap_or_else(|| self.image(*id).platform());
                vec![Candidate { id: *id, node, platform }]
            }
            Content::Index { nodes, .. } => nodes.iter().flat_map(|node| self.candidates(node)).collect(),
            Content::Artifact { .. } | Content::Unread => Vec::new(),
        }
    }

    /// The platforms that an index states for manifests that were not read.
    pub(crate) fn unread(node: &Node) -> Vec<&Platform> {
        match &node.content {
            Content::Index { nodes, .. } => nodes.iter().flat_map(Self::unread).collect(),
            Content::Unread => node.descriptor.iter().filter_map(|listed| listed.platform.as_ref()).filter(|p| !p.is_unknown()).collect(),
            Content::Artifact { .. } | Content::Image(_) => Vec::new(),
        }
    }

    /// Roots of the same image or index brought together, in order of first appearance: what `@0`, `@1`, … count.
    pub fn entries(&self) -> Vec<Vec<&Root>> {
        let mut entries: Vec<Vec<&Root>> = Vec::new();
        let mut positions = HashMap::new();
        for root in &self.roots {
            let Some(identity) = self.identity(&root.node) else { continue };
            let position = *positions.entry(identity).or_insert(entries.len());
            match entries.get_mut(position) {
                Some(roots) => roots.push(root),
                None => entries.push(vec![root]),
            }
        }
        entries
    }

    /// What makes two nodes the same: the digest of the manifest or index, or the image ID where there is no manifest.
    pub fn identity(&self, node: &Node) -> Option<Digest> {
        let image_id = match &node.content {
            Content::Image(id) => Some(*self.image(*id).id()),
            _ => None,
        };
        node.digest(self).copied().or(image_id)
    }
}

//! Plans a conversion: which layers are copied and which are recoded, and what the destination cannot hold.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::select::{Selected, images, select};
use super::squash::{self, Squash};
use super::{LayerPlan, MergePlan, Plan, PlannedBlob, PlannedImage, PlannedLayer, PlannedNode, PlannedRoot, source_digest};
use crate::catalog::{ATTESTS, BlobId, Catalog, Content, Image, ImageId, Known, Name, Node, Wanted, keys};
use crate::catalog::{IMAGE_NAME, REF_NAME};
use crate::compress::{Compression, Encoding};
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, Result};
use crate::reference::Reference;
use crate::sink::{Accepts, DefaultCompress, ManifestTypes, Names};
use crate::spec::{Config, History, LayerFamily, ManifestKind, Object, Platform, Raw};

impl ConvertOptions {
    /// Which platforms a plan for such a destination will want.
    pub fn wanted(&self, accepts: &Accepts) -> Wanted {
        match &self.platforms {
            Platforms::Only(wanted) if wanted.len() == 1 => Wanted::Best(wanted[0].clone()),
            Platforms::Only(wanted) => Wanted::Each(wanted.clone()),
            Platforms::Default if !accepts.indexes => Wanted::Best(self.host.clone()),
            Platforms::All | Platforms::Default => Wanted::All,
        }
    }
}

/// What happens to names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NameChange {
    /// They stay.
    #[default]
    Keep,
    /// The one image selected is called this instead.
    Replace(Vec<Reference>),
    /// The one image selected is also called this.
    Add(Vec<Reference>),
}

/// Which platforms of an index are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Platforms {
    /// All where the destination holds indexes, otherwise the one that runs here.
    #[default]
    Default,
    /// All, or an error.
    All,
    /// These.
    Only(Vec<Platform>),
}

/// How layers are to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// As they are.
    Keep,
    /// Plain.
    None,
    /// Compressed like this. With `always`, also where they are compressed in this way already, perhaps at another level.
    Encode {
        /// How.
        encoding: Encoding,
        /// Whether a level was asked for.
        always: bool,
    },
}

/// How to convert.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// What happens to names.
    pub names: NameChange,
    /// Which platforms are wanted.
    pub platforms: Platforms,
    /// How layers are stored; what the destination prefers when absent.
    pub compress: Option<Compress>,
    /// The types that all manifests get, where the caller wants certain ones.
    pub family: Option<LayerFamily>,
    /// Whether layers that no source has are named all the same, for a receiver that has them.
    pub allow_missing_layers: bool,
    /// Which layers become one, if any do.
    pub squash: Option<Squash>,
    /// The platform that is chosen where only one can be.
    pub host: Platform,
}

/// What makes two layers one blob.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    /// A copy of bytes with this digest.
    Bytes(Digest),
    /// A copy of bytes whose digest is not known, but what they decode to.
    Content(DiffId, Compression),
    /// A new encoding of this content.
    Encoded(DiffId, Compression),
    /// A copy of this very blob.
    Blob(BlobId),
    /// These merged, so many of them staying as they are.
    Merged(Arc<[BlobId]>, usize),
}

/// Plans to write what a catalog holds to a destination.
///
/// # Errors
/// When the destination cannot hold what was asked for: an error says what it can hold.
pub fn convert(catalog: &Catalog, accepts: &Accepts, options: &ConvertOptions) -> Result<Plan> {
    let Selected { roots, omitted, notes } = select(catalog, accepts, options)?;
    let plan = Plan {
        blobs: Vec::new(),
        images: Vec::new(),
        roots: Vec::new(),
        index: catalog.index.clone().filter(|_| accepts.names == Names::Any),
        accepts: *accepts,
        omitted,
        notes,
    };
    let mut planner = Planner { catalog, options, plan, keys: HashMap::new(), images: HashMap::new(), ids: Vec::new() };
    for id in images(&roots) {
        planner.image(id)?;
    }
    for root in &roots {
        let node = planner.node(&root.node)?;
        let suffix = options.squash.as_ref().and_then(|squash| squash.suffix.as_ref());
        let name = match (&root.name, suffix) {
            (Some(name), Some(suffix)) => Some(squash::suffixed(name, suffix)?),
            (name, _) => name.clone(),
        };
        planner.plan.roots.push(PlannedRoot { name, node });
    }
    planner.references();
    planner.say_what_is_lost();
    Ok(planner.plan)
}

struct Planner<'a> {
    catalog: &'a Catalog,
    options: &'a ConvertOptions,
    plan: Plan,
    keys: HashMap<Key, usize>,
    /// Positions of images that are planned.
    images: HashMap<ImageId, usize>,
    /// Their image IDs in the source.
    ids: Vec<Digest>,
}

impl Planner<'_> {
    fn image(&mut self, id: ImageId) -> Result<()> {
        let image = self.catalog.image(id);
        // Where nothing but config and layers is kept, two manifests of one image are one image.
        let twin = self.ids.iter().position(|planned| !self.plan.accepts.indexes && planned == image.id());
        if let Some(twin) = twin {
            self.images.insert(id, twin);
            return Ok(());
        }
        let frame = || format!("image {}", image.id());
        let squash = self.options.squash.as_ref().filter(|_| !image.layers.is_empty());
        let kept = squash.map(|squash| squash.keep.layers(image)).transpose().context(frame)?;
        let layers = (0..kept.unwrap_or(image.layers.len())).map(|position| self.layer(image, position)).collect::<Result<Vec<_>>>();
        let mut layers = layers.context(frame)?;
        let mut config = image.config.clone();
        if let (Some(squash), Some(kept)) = (squash, kept) {
            layers = squash::layers(layers, self.merged(image, kept).context(frame)?);
            config = squash::config(image, kept, squash).context(frame)?;
        }
        let family = self.family(image, &layers);
        let listed = image.manifest.as_ref().and_then(|(media_type, _)| ManifestKind::from_media_type(media_type));
        let retyped = self.options.family.is_some() && listed.is_some_and(|kind| kind.family() != family);
        self.ids.push(*image.id());
        self.plan.images.push(PlannedImage {
            config,
            manifest: image.manifest.clone(),
            family,
            retyped,
            layers,
            references: Vec::new(),
            legacy: image.legacy.clone().filter(|_| kept.is_none()),
            lineage: image.lineage.clone().filter(|_| kept.is_none()),
            merged: kept.is_some(),
        });
        self.images.insert(id, self.plan.images.len() - 1);
        Ok(())
    }

    /// The blob of the layers above `kept`, merged.
    fn merged(&mut self, image: &Image, kept: usize) -> Result<usize> {
        let mut plan = MergePlan::of(self.catalog, image, kept, None)?;
        let newest = plan.layers.last().ok_or_else(|| Error::invalid("it has no layers"))?;
        let (blob, stored) = (newest.blob, newest.compression);
        // Where layers are kept as they are, the merged one is as the newest of them is.
        let keep = matches!(
            (self.options.compress, self.plan.accepts.default_compress),
            (Some(Compress::Keep), _) | (None, DefaultCompress::Keep)
        );
        plan.encoding = match self.action(if keep { stored } else { Compression::None })? {
            LayerPlan::Recode(encoding) => encoding,
            _ if keep => Encoding::like(stored),
            _ => None,
        };
        let key = Key::Merged(squash::key(&plan), kept);
        let label = format!("the merged {}", squash::which(kept, plan.layers.len()));
        let planned =
            PlannedBlob { blob, action: LayerPlan::Merge(plan.into()), known: Known::default(), compression: Compression::None, label };
        let blobs = &mut self.plan.blobs;
        Ok(*self.keys.entry(key).or_insert_with(|| {
            blobs.push(planned);
            blobs.len() - 1
        }))
    }

    fn layer(&mut self, image: &Image, position: usize) -> Result<PlannedLayer> {
        let layer = &image.layers[position];
        let stored = match layer.blob.map(|id| self.catalog.blob(id)) {
            Some(blob) if blob.compression == Compression::None => Some(layer.diff_id.0),
            Some(blob) => blob.known.digest,
            None => layer.descriptor.as_ref().map(|listed| listed.digest),
        };
        let planned = |blob| PlannedLayer {
            blob,
            diff_id: layer.diff_id,
            descriptor: layer.descriptor.clone(),
            source: layer.blob,
            stored,
            missing: layer.missing.is_some(),
        };
        if let Some(member) = &layer.missing {
            self.refuse_missing(position, member)?;
        }
        let Some(id) = layer.blob else { return Ok(planned(None)) };
        let blob = self.catalog.blob(id);
        let action = self.action(blob.compression).context(|| format!("layer {position} ({})", blob.place))?;
        let held = blob.compression == Compression::None || self.plan.accepts.compressions.contains(&blob.compression);
        if let (None, LayerPlan::Recode(Some(encoding)), false) = (self.options.compress, &action, held) {
            let (is, becomes) = (blob.compression, encoding.compression());
            let why = match is {
                Compression::Xz | Compression::Bzip2 => format!("manifests have no media type for {is}"),
                _ => format!("{} holds no {is}", self.plan.accepts.format),
            };
            let note = format!("layers in {is} become {becomes}: {why}");
            if !self.plan.notes.contains(&note) {
                self.plan.notes.push(note);
            }
        }
        let known = Known { diff_id: Some(layer.diff_id), ..blob.known.clone() };
        let key = match (&action, known.digest) {
            (LayerPlan::Copy, Some(digest)) => Key::Bytes(digest),
            (LayerPlan::Copy, None) => Key::Content(layer.diff_id, blob.compression),
            (LayerPlan::Recode(None), _) => Key::Bytes(layer.diff_id.0),
            (LayerPlan::Recode(Some(encoding)), _) => Key::Encoded(layer.diff_id, encoding.compression()),
            (LayerPlan::Merge(_), _) => return Err(Error::invalid("a layer is merged with itself")),
        };
        Ok(planned(Some(self.blob(key, id, action, known))))
    }

    /// Whether a layer that no source has may be left to the receiver.
    fn refuse_missing(&self, position: usize, member: &str) -> Result<()> {
        let error = |what: &str| Error::not_found(what).frame(format_args!("layer {position}: member {}", member.escape_debug()));
        if !self.options.allow_missing_layers {
            let hint = "name the archive of its base as another source; --allow-missing-layers leaves it to a receiver that has it";
            return Err(error("it is missing").hint(hint));
        }
        if self.plan.accepts.manifests != ManifestTypes::None {
            let format = self.plan.accepts.format;
            return Err(error(&format!("it is missing, and {format} must state its size")).hint("--dialect classic needs no size"));
        }
        Ok(())
    }

    fn blob(&mut self, key: Key, id: BlobId, action: LayerPlan, known: Known) -> usize {
        let blob = self.catalog.blob(id);
        let blobs = &mut self.plan.blobs;
        *self.keys.entry(key).or_insert_with(|| {
            blobs.push(PlannedBlob { blob: id, action, known, compression: blob.compression, label: blob.place.clone() });
            blobs.len() - 1
        })
    }

    /// What happens to a layer that is stored like this.
    fn action(&self, stored: Compression) -> Result<LayerPlan> {
        let accepts = &self.plan.accepts;
        // Docker's manifests know no zstd.
        let docker = self.options.family == Some(LayerFamily::Docker);
        let holds = |compression| accepts.compressions.contains(&compression) && !(docker && compression == Compression::Zstd);
        let gzip = LayerPlan::Recode(Some(Encoding::default()));
        let plain = || if stored == Compression::None { LayerPlan::Copy } else { LayerPlan::Recode(None) };
        let action = match (self.options.compress, accepts.default_compress) {
            (Some(Compress::Keep), _) => LayerPlan::Copy,
            (Some(Compress::None), _) | (None, DefaultCompress::None) => plain(),
            (Some(Compress::Encode { encoding, always }), _) if always || stored != encoding.compression() => {
                LayerPlan::Recode(Some(encoding))
            }
            (Some(Compress::Encode { .. }), _) => LayerPlan::Copy,
            (None, DefaultCompress::GzipPlain) if stored == Compression::None || !holds(stored) => gzip,
            (None, DefaultCompress::Keep) if !holds(stored) => gzip,
            (None, DefaultCompress::GzipPlain | DefaultCompress::Keep) => LayerPlan::Copy,
        };
        let after = match &action {
            LayerPlan::Recode(encoding) => encoding.map_or(Compression::None, |encoding| encoding.compression()),
            _ => stored,
        };
        if holds(after) {
            return Ok(action);
        }
        let known: Vec<_> = accepts.compressions.iter().map(ToString::to_string).collect();
        Err(Error::unsupported(format_args!("{} holds no {after} layers", accepts.format))
            .hint(format_args!("--compress {}", known.join("|"))))
    }

    /// The types of a manifest that must be changed or made: Docker's know no zstd.
    fn family(&self, image: &Image, layers: &[PlannedLayer]) -> LayerFamily {
        let zstd = layers.iter().filter_map(|layer| layer.blob).any(|blob| self.plan.blobs[blob].compression_after() == Compression::Zstd);
        let docker = match &image.manifest {
            None => true,
            Some((media_type, _)) => ManifestKind::from_media_type(media_type).is_some_and(|kind| kind.family() == LayerFamily::Docker),
        };
        if let Some(family) = self.options.family {
            return family;
        }
        if zstd || !docker || self.plan.accepts.manifests == ManifestTypes::Oci { LayerFamily::Oci } else { LayerFamily::Docker }
    }

    fn node(&mut self, node: &Node) -> Result<PlannedNode> {
        let listed = || node.descriptor.clone().ok_or_else(|| Error::invalid("an index or artifact that nothing lists"));
        Ok(match &node.content {
            Content::Image(id) => PlannedNode::Image { image: self.images[id], descriptor: node.descriptor.clone() },
            Content::Index { raw, nodes } => {
                let nodes = nodes.iter().map(|node| self.node(node)).collect::<Result<Vec<_>>>()?;
                PlannedNode::Index { raw: raw.clone(), descriptor: listed()?, nodes }
            }
            Content::Artifact { manifest, blobs } => {
                for id in blobs.iter() {
                    let known = self.catalog.blob(*id).known.clone();
                    let key = known.digest.map_or(Key::Blob(*id), Key::Bytes);
                    self.blob(key, *id, LayerPlan::Copy, known);
                }
                PlannedNode::Artifact { manifest: manifest.clone(), descriptor: listed()? }
            }
            Content::Unread => return Err(Error::not_found("it is listed, but missing").frame(listed()?.digest)),
        })
    }

    /// Gives images the references of the roots that lead to them.
    fn references(&mut self) {
        let mut known = HashSet::new();
        for root in &self.plan.roots {
            let (PlannedNode::Image { image, .. }, Some(reference)) = (&root.node, root.name.as_ref().and_then(Name::reference)) else {
                continue;
            };
            if known.insert((*image, reference.clone())) {
                self.plan.images[*image].references.push(reference);
            }
        }
    }

    /// One line for each thing that does not survive.
    fn say_what_is_lost(&mut self) {
        let accepts = self.plan.accepts;
        let mut omitted = Vec::new();
        let mut notes = Vec::new();
        for (at, image) in self.plan.images.iter().enumerate() {
            let shown = self.plan.names(at).first().cloned().unwrap_or_else(|| format!("image {}", image.config.digest().short()));
            if !accepts.configs && image.legacy.is_none() {
                let lost = not_in_v1(&image.config);
                omitted.push(format!("{shown}: parts of the config ({lost}), which {} cannot hold: the image ID changes", accepts.format));
            }
            let Some((_, manifest)) = &image.manifest else { continue };
            let docker = manifest
                .media_type
                .as_deref()
                .and_then(ManifestKind::from_media_type)
                .is_some_and(|kind| kind.family() == LayerFamily::Docker);
            let stays = image.layers.iter().all(|layer| stays_listed(&self.plan, layer));
            if docker && !image.retyped && accepts.manifests == ManifestTypes::Oci && stays {
                notes.push(format!("{shown}: its manifest stays Docker's, so that its digest survives; umoci, and skopeo when asked by name, look for OCI's only"));
            }
            let of_layers: BTreeSet<_> = manifest.layers.iter().flat_map(|layer| layer.annotations.keys()).collect();
            if accepts.manifests == ManifestTypes::None && !of_layers.is_empty() {
                omitted.push(format!("{shown}: annotations of layers ({}), which {} cannot hold", keys(of_layers), accepts.format));
            }
            if manifest.annotations.is_empty() || accepts.annotations {
                continue;
            }
            let keys = keys(manifest.annotations.keys());
            match accepts.manifests {
                ManifestTypes::None => {
                    omitted.push(format!("{shown}: annotations of the manifest ({keys}), which {} cannot hold", accepts.format))
                }
                _ => notes.push(format!(
                    "{shown}: annotations of the manifest ({keys}) are only in the OCI part of the archive, which docker load leaves out"
                )),
            }
        }
        for root in &self.plan.roots {
            let PlannedNode::Image { descriptor: Some(listed), .. } = &root.node else { continue };
            let others: Vec<_> = listed.annotations.keys().filter(|key| ![IMAGE_NAME, REF_NAME].contains(&key.as_str())).collect();
            let in_layout = accepts.names == Names::Any || (accepts.names == Names::Tagged && accepts.manifests != ManifestTypes::None);
            if !others.is_empty() && !in_layout {
                omitted.push(format!("annotations of index.json ({}), which {} cannot hold", keys(others), accepts.format));
            }
        }
        if let (None, Some(index)) = (&self.plan.index, &self.catalog.index)
            && !index.annotations.is_empty()
        {
            omitted.push(format!("annotations of the layout ({}), which {} cannot hold", keys(index.annotations.keys()), accepts.format));
        }
        let changed = self.changed_subjects();
        if !changed.is_empty() {
            notes.push(format!(
                "the manifests of {} change, and what refers to them (signatures, attestations) still names the old digests",
                changed.join(", ")
            ));
        }
        self.plan.omitted.extend(omitted);
        self.plan.notes.extend(notes);
    }

    /// Manifests that others refer to and that do not stay as they are.
    fn changed_subjects(&self) -> Vec<String> {
        let mut subjects = HashSet::new();
        self.catalog.roots.iter().for_each(|root| collect_subjects(self.catalog, &root.node, &mut subjects));
        let mut changed = Vec::new();
        for root in &self.plan.roots {
            if let (Some(digest), true) = (source_digest(&root.node), changes_subject(&self.plan, &root.node, &subjects)) {
                changed.push(root.name.as_ref().map_or_else(|| digest.to_string(), Name::to_string));
            }
        }
        changed.dedup();
        changed
    }
}

/// What the nodes at and below `node` refer to: as their subject, or as BuildKit's attestations do.
fn collect_subjects(catalog: &Catalog, node: &Node, subjects: &mut HashSet<Digest>) {
    subjects.extend(node.subject(catalog));
    let attested = node.descriptor.as_ref().and_then(|descriptor| descriptor.annotation(ATTESTS));
    subjects.extend(attested.and_then(|digest| digest.parse::<Digest>().ok()));
    if let Content::Index { nodes, .. } = &node.content {
        nodes.iter().for_each(|node| collect_subjects(catalog, node, subjects));
    }
}

/// Whether a run gives another digest to something at or below a node that others refer to.
fn changes_subject(plan: &Plan, node: &PlannedNode, subjects: &HashSet<Digest>) -> bool {
    let own = source_digest(node).is_some_and(|digest| subjects.contains(&digest)) && changes(plan, node);
    own || matches!(node, PlannedNode::Index { nodes, .. } if nodes.iter().any(|node| changes_subject(plan, node, subjects)))
}

/// Whether a layer is written as its manifest lists it. What a store has unpacked is listed as it was pulled.
fn stays_listed(plan: &Plan, layer: &PlannedLayer) -> bool {
    let listed = layer.descriptor.as_ref().map(|listed| listed.digest);
    let another = listed.zip(layer.stored).is_some_and(|(listed, stored)| listed != stored && listed.algorithm() == stored.algorithm());
    !another && layer.blob.is_none_or(|blob| plan.blobs[blob].action == LayerPlan::Copy)
}

/// Whether a run gives a node another digest.
fn changes(plan: &Plan, node: &PlannedNode) -> bool {
    match node {
        PlannedNode::Artifact { .. } => false,
        PlannedNode::Image { image, .. } => {
            let image = &plan.images[*image];
            let edited = image.manifest.as_ref().is_some_and(|(_, raw)| raw.config.digest != *image.config.digest());
            edited || image.layers.iter().any(|layer| !stays_listed(plan, layer))
        }
        PlannedNode::Index { raw, nodes, .. } => nodes.len() != raw.manifests.len() || nodes.iter().any(|node| changes(plan, node)),
    }
}

/// What of a config the v1 JSON of its layers has no place for.
fn not_in_v1(config: &Raw<Config>) -> String {
    const OF_TOP: [&str; 7] = ["architecture", "config", "container", "container_config", "created", "docker_version", "os"];
    let object = Object::parse(config.bytes()).unwrap_or_default();
    // Where the history does not fit the layers, there is one step for each. The JSON of the last step has what is of the image; where that
    // step made no layer, it is left out with it.
    let fits = config.history.iter().filter(|step| !step.empty_layer).count() == config.diff_ids().len();
    let last = config.history.last().filter(|_| fits);
    let of_top: &[_] = if last.is_some_and(|step| step.empty_layer) { &[] } else { &OF_TOP };
    let lost = object.keys().filter(|key| !of_top.contains(key) && !["history", "rootfs"].contains(key));
    let mut lost: Vec<_> = lost.map(|key| key.escape_debug().to_string()).collect();
    let told = |step: &History| !step.empty_layer && (step.created_by.is_some() || step.author.is_some() || step.comment.is_some());
    if !fits && !config.history.is_empty() {
        lost.push("history".to_owned());
    } else if config.history.iter().any(|step| step.empty_layer) {
        lost.push("steps of the history without a layer".to_owned());
    }
    if last.is_some_and(told) {
        lost.push("the last step of the history".to_owned());
    }
    lost.push("diff IDs".to_owned());
    lost.join(", ")
}

#[cfg(test)]
mod tests {
    use longshore_testkit::facts::Packing;
    use longshore_testkit::fixture;
    use longshore_testkit::images::{Image as TestImage, Layer, Layout, docker_archive};

    use super::*;
    use crate::compress::{GzipLevel, ZstdLevel};
    use crate::format::{WriteOptions, by_name};
    use crate::testing::{accepts, app, layout, put, source};

    fn host() -> ConvertOptions {
        ConvertOptions { host: Platform::new("linux", "amd64"), ..ConvertOptions::default() }
    }

    /// Every kind of source to every destination, as `--dry-run` prints it.
    #[test]
    fn plans_of_real_archives() {
        for name in [
            "docker20-three-names.tar",
            "docker29-one.tar",
            "podman4-docker-dir",
            "podman4-oci-archive.tar",
            "skopeo-oci-multiplatform",
            "skopeo-oci-zstd",
            "umoci-oci",
            "crane-tarball.tar",
        ] {
            let opened = source(fixture(&format!("from/{name}")).to_str().unwrap()).unwrap();
            let mut text = String::new();
            let classic =
                WriteOptions { dialect: crate::format::DIALECTS.iter().copied().find(|dialect| dialect.name() == "classic").unwrap() };
            let mut destinations = vec![by_name("docker-archive").unwrap().accepts(&classic)];
            destinations.extend(["docker-archive", "oci", "oci-archive", "dir"].map(accepts));
            for accepts in destinations {
                let planned = convert(opened.catalog(), &accepts, &host());
                let shown =
                    planned.map_or_else(|error| format!("{error} ({})\n", error.hint_text().unwrap_or("no hint")), |plan| plan.to_string());
                text.push_str(&format!("== {}\n{shown}", accepts.format));
            }
            insta::assert_snapshot!(name, text);
        }
    }

    fn actions(stored: Packing, format: &str, compress: Option<Compress>) -> Result<(LayerPlan, LayerFamily)> {
        let dir = tempfile::tempdir().unwrap();
        let image = TestImage::new("a:1").with(Layer::new("a=1").packed(stored));
        let opened = source(&put(dir.path(), "in.tar", &docker_archive(&[image]))).unwrap();
        let plan = convert(opened.catalog(), &accepts(format), &ConvertOptions { compress, ..host() })?;
        Ok((plan.blobs[0].action.clone(), plan.images[0].family))
    }

    #[test]
    fn layers_are_recoded_as_the_format_likes_or_the_caller_wants() {
        use Packing::{Bzip2, Gzip, Plain, Xz, Zstd};
        let gzip = |level| Encoding::Gzip(GzipLevel::new(level).unwrap());
        let recode = |encoding| LayerPlan::Recode(Some(encoding));
        for (stored, format, compress, expected) in [
            (Plain, "docker-archive", None, LayerPlan::Copy),
            (Gzip, "docker-archive", None, LayerPlan::Recode(None)),
            (Xz, "docker-archive", None, LayerPlan::Recode(None)),
            (Plain, "oci", None, recode(Encoding::default())),
            (Gzip, "oci", None, LayerPlan::Copy),
            (Zstd, "oci", None, LayerPlan::Copy),
            (Bzip2, "oci", None, recode(Encoding::default())),
            (Plain, "dir", None, LayerPlan::Copy),
            (Xz, "dir", None, recode(Encoding::default())),
            (Gzip, "docker-archive", Some(Compress::Keep), LayerPlan::Copy),
            (Plain, "oci", Some(Compress::Keep), LayerPlan::Copy),
            (Gzip, "oci", Some(Compress::None), LayerPlan::Recode(None)),
            (Plain, "oci", Some(Compress::None), LayerPlan::Copy),
            (Gzip, "oci", Some(Compress::Encode { encoding: gzip(9), always: false }), LayerPlan::Copy),
            (Gzip, "oci", Some(Compress::Encode { encoding: gzip(9), always: true }), recode(gzip(9))),
            (Plain, "docker-archive", Some(Compress::Encode { encoding: gzip(9), always: false }), recode(gzip(9))),
        ] {
            let (action, _) = actions(stored, format, compress).unwrap();
            assert_eq!(action, expected, "{stored:?} to {format} with {compress:?}");
        }
        for (stored, format, compress) in [(Xz, "oci", Some(Compress::Keep)), (Bzip2, "docker-archive", Some(Compress::Keep))] {
            let error = actions(stored, format, compress).unwrap_err();
            assert!(error.to_string().contains("layer 0") && error.hint_text() == Some("--compress none|gzip|zstd"), "{error}");
        }
        let zstd = Some(Compress::Encode { encoding: Encoding::Zstd(ZstdLevel::default()), always: false });
        assert_eq!(actions(Plain, "dir", None).unwrap().1, LayerFamily::Docker);
        assert_eq!(actions(Plain, "dir", zstd).unwrap().1, LayerFamily::Oci, "Docker's manifests know no zstd");
        assert_eq!(actions(Plain, "oci", None).unwrap().1, LayerFamily::Oci);
    }

    #[test]
    fn the_same_layer_is_one_blob() {
        let dir = tempfile::tempdir().unwrap();
        let base = Layer::new("a=1");
        let gzip = base.clone().packed(Packing::Gzip);
        // Plain, and as gzip: two blobs that decode to one content.
        let images = [
            TestImage::new("a:1").with(base.clone()).with(gzip.clone()),
            TestImage::new("b:1").platform("linux/arm64").with(gzip).with(base),
        ];
        let opened = source(&put(dir.path(), "in.tar", &docker_archive(&images))).unwrap();
        for (format, blobs) in [("docker-archive", 1), ("oci", 2)] {
            let plan = convert(opened.catalog(), &accepts(format), &host()).unwrap();
            assert_eq!(plan.blobs.len(), blobs, "{format}");
            let first: Vec<_> = plan.images[0].layers.iter().map(|layer| layer.blob).collect();
            let mut second: Vec<_> = plan.images[1].layers.iter().map(|layer| layer.blob).collect();
            second.reverse();
            assert_eq!(first, second, "{format}");
        }
    }

    #[test]
    fn what_is_lost_or_changed_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut signed = Layout::new();
        let annotated = |manifest: &mut serde_json::Value| manifest["layers"][1]["annotations"] = serde_json::json!({ "layer": "1" });
        let mut image = signed.image(&app("").annotate("team", "kitchen").edit_manifest(annotated));
        let signature = signed.artifact("application/x", "s", Some(&image));
        image["annotations"] = serde_json::json!({ "listed": "1" });
        signed.root(image, Some("a:1"));
        signed.root(signature, None);
        let catalog = layout(dir.path(), "in", &signed).catalog().clone();
        let classic = WriteOptions { dialect: crate::format::DIALECTS[1] };
        let plan = convert(&catalog, &by_name("docker-archive").unwrap().accepts(&classic), &host()).unwrap();
        let all = plan.omitted.join("\n");
        assert_eq!(plan.omitted.len(), 4, "{all}");
        for part in
            ["an artifact", "annotations of the manifest (team)", "annotations of layers (layer)", "annotations of index.json (listed)"]
        {
            assert!(all.contains(part), "{all}");
        }
        let plan = convert(&catalog, &accepts("docker-archive"), &host()).unwrap();
        assert_eq!(plan.omitted.len(), 1, "{:?}", plan.omitted);
        assert!(plan.notes[0].contains("only in the OCI part"), "{:?}", plan.notes);
        // Plain layers become gzip, so that the signed manifest changes.
        let plan = convert(&catalog, &accepts("oci"), &host()).unwrap();
        assert!(plan.omitted.is_empty() && plan.notes[0].contains("the manifests of a:1 change"), "{:?} {:?}", plan.omitted, plan.notes);
        let keep = ConvertOptions { compress: Some(Compress::Keep), ..host() };
        assert!(convert(&catalog, &accepts("oci"), &keep).unwrap().notes.is_empty());
    }

    #[test]
    fn attestations_of_a_changed_image_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let mut attested = Layout::new();
        let image = attested.image(&app(""));
        let mut attestation = attested.artifact("application/vnd.in-toto+json", "x", None);
        attestation["annotations"] = serde_json::json!({ ATTESTS: image["digest"] });
        let index = attested.index(&[image, attestation]);
        attested.root(index, Some("a:1"));
        let catalog = layout(dir.path(), "in", &attested).catalog().clone();
        let plan = convert(&catalog, &accepts("oci"), &host()).unwrap();
        assert!(plan.notes.len() == 1 && plan.notes[0].contains("the manifests of a:1 change"), "{:?}", plan.notes);
        let keep = ConvertOptions { compress: Some(Compress::Keep), ..host() };
        assert!(convert(&catalog, &accepts("oci"), &keep).unwrap().notes.is_empty());
    }

    #[test]
    fn annotations_of_a_layout_are_kept_or_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let annotated = |name: &str| {
            let index = |index: &mut serde_json::Value| index["annotations"] = serde_json::json!({ "team": "kitchen" });
            Layout::of(&[app(name)]).archive().edit("index.json", index).write_dir(&dir.path().join(name));
            source(&format!("oci:{}", dir.path().join(name).display())).unwrap()
        };
        let (one, two) = (annotated("one"), annotated("two"));
        assert!(convert(one.catalog(), &accepts("oci"), &host()).unwrap().omitted.is_empty());
        for format in ["docker-archive", "dir"] {
            let omitted = convert(one.catalog(), &accepts(format), &host()).unwrap().omitted.join("\n");
            assert!(omitted.contains(&format!("annotations of the layout (team), which {format} cannot hold")), "{omitted}");
        }
        let joined = crate::source::join(vec![one, two]);
        let notes = convert(joined.catalog(), &accepts("oci"), &host()).unwrap().notes;
        assert_eq!(notes.iter().filter(|note| note.contains("(team) are left out, since it is joined")).count(), 2, "{notes:?}");
    }

    #[test]
    fn a_plan_is_text_for_a_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let odd = docker_archive(&[TestImage::new("a:1").layer("a=1")]);
        let name = odd.0.iter().find(|member| member.text().ends_with(".tar")).unwrap().text();
        let odd = odd.rename(|member| if member == name { "\u{1b}[31m\n.tar".to_owned() } else { member.to_owned() });
        let odd = odd.edit("manifest.json", |manifest| manifest[0]["Layers"][0] = "\u{1b}[31m\n.tar".into());
        let opened = source(&put(dir.path(), "in.tar", &odd)).unwrap();
        let plan = convert(opened.catalog(), &accepts("oci"), &host()).unwrap().to_string();
        assert!(plan.contains("layer 0: \\u{1b}[31m\\n.tar") && plan.lines().count() == 2, "{plan:?}");
    }

    #[test]
    fn foreign_layers_are_planned_without_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let image = TestImage::new("a:1").layer("a=1").with(Layer::new("b=2").foreign("https://example.com/b"));
        let opened = layout(dir.path(), "in", &Layout::of(&[image]));
        let plan = convert(opened.catalog(), &accepts("oci"), &host()).unwrap();
        assert_eq!(plan.images[0].layers.iter().map(|layer| layer.blob).collect::<Vec<_>>(), [Some(0), None]);
        assert!(plan.to_string().contains("is foreign and stays where its URLs say"), "{plan}");
        assert_eq!(plan.expected().images[0].layers.iter().map(|layer| layer.blob).collect::<Vec<_>>(), [Some(0), None]);
    }
}

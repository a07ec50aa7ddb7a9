//! Builds images out of others: layers on a base, changed configs, exchanged bases.
//!
//! Each operation gives a source whose catalog is edited and whose bytes are those of the sources that it was given. So
//! [`convert`](crate::plan::convert) and [`run`](crate::run::run) write the result like any other image, and verify every byte on the way.
//! Nothing is decided here about the destination, and no layer is changed.

mod change;
mod layers;
mod legacy;
mod value;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

pub use change::{Added, ConfigChange};
pub use layers::{LayerContent, LayerFiles, LayerInput};
pub use legacy::LegacyMembers;
pub use value::{NO_TIME, Stamps, expand, pair, port, time, words};

use crate::catalog::{Blob, BlobId, Catalog, Content, Image, ImageId, Layer, Lineage, Node, Root};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::limits::Limits;
use crate::source::Source;
use crate::spec::{Config, Descriptor, JsonLimits, Manifest, Object, Platform, Raw};

/// How images are chosen and made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The platform that is wanted of an index; the one that runs on `host` when absent.
    pub platform: Option<Platform>,
    /// The platform of images that say nothing else.
    pub host: Platform,
    /// What `assemble` says of the image to programs of 2013, where the destination is an archive of Bazel's.
    pub legacy: Option<LegacyMembers>,
    /// Limits of what is made.
    pub limits: Limits,
}

/// An image of its own: the layers of `base`, then those of `layers`, and the config of the base with changes. It has no name.
///
/// # Errors
/// When the base holds several images, or a config is malformed.
pub fn assemble(base: Option<Arc<dyn Source>>, layers: LayerFiles, change: &ConfigChange, options: &Options) -> Result<Arc<dyn Source>> {
    let added = layers.added();
    let layers = Arc::new(layers);
    let mut made = Composed::default();
    let (config, lineage) = match &base {
        None => (change.create(&options.host, &added)?, Lineage::default()),
        Some(base) => {
            let image = one_image(base.as_ref(), options)?;
            made.take_warnings(base.as_ref());
            let layers = image.layers.clone();
            made.add_layers(base, layers);
            (change.extend(image.config.bytes(), &added)?, lineage_of(image))
        }
    };
    let lower = made.layers.len();
    let as_source: Arc<dyn Source> = Arc::<LayerFiles>::clone(&layers);
    for (at, added) in added.iter().enumerate().filter(|(_, added)| !added.empty) {
        let layer = Layer { diff_id: added.diff_id, blob: Some(BlobId(at)), descriptor: None, missing: None };
        made.add_layers(&as_source, vec![layer]);
    }
    let own = (0..layers.len()).filter(|at| !added[*at].empty).map(|at| layers.id(at).cloned());
    let mut lineage = with_names(lineage, lower, own);
    if let Some(legacy) = &options.legacy {
        lineage.get_or_insert_default().legacy = legacy.of(&made.layers, lower)?;
    }
    made.finish(self::config(config, options)?, None, lineage, None)
}

/// The images of a source with changed configs: all platforms of one image.
///
/// # Errors
/// When there are several images to choose from, or a config is malformed.
pub fn edit(source: Arc<dyn Source>, change: &ConfigChange, options: &Options) -> Result<Arc<dyn Source>> {
    let mut catalog = source.catalog().clone();
    let images = the_entry(&catalog)?;
    let moves = change.architecture.is_some() || change.os.is_some() || change.variant.is_some();
    if moves && images.len() > 1 {
        let error = Error::unsupported(format_args!("it has {} platforms, and they would all become one", images.len()));
        return Err(error.hint("choose one of them: SRC:@sha256:DIGEST").frame(source.describe()));
    }
    for id in &images {
        let image = &mut catalog.images[id.0];
        let edited = change.edit(image.config.bytes()).and_then(|bytes| changed(&image.config, bytes, options));
        let edited = edited.context(|| format!("image {}", image.config.digest()))?;
        if edited != image.config {
            // The config was made of it, and is no longer so.
            image.legacy = None;
            image.lineage.iter_mut().for_each(|lineage| lineage.legacy = Vec::new());
            image.config = edited;
        }
    }
    if moves {
        for root in &mut catalog.roots {
            restate_platform(&mut root.node, &catalog.images)?;
        }
    }
    Ok(Arc::new(Composed { sources: vec![source], origins: Vec::new(), layers: Vec::new(), catalog }))
}

/// An image on another base: the layers of `new` in the place of those of `old`, and the rest of the image as it is.
///
/// # Errors
/// When the image is not built on `old`, or the platforms differ.
pub fn rebase(
    source: Arc<dyn Source>,
    old: &dyn Source,
    new: Arc<dyn Source>,
    change: &ConfigChange,
    options: &Options,
) -> Result<Arc<dyn Source>> {
    let image = one_image(source.as_ref(), options)?.clone();
    // The bases are those of the image's platform.
    let platform = image.platform();
    let options = Options { platform: options.platform.clone().or_else(|| Some(platform.clone())), ..options.clone() };
    let (old, base) = (one_image_like(old, &platform, &options)?, one_image_like(new.as_ref(), &platform, &options)?);
    refuse_other_base(&image, old).map_err(|error| error.frame(source.describe()))?;

    let rebased = match old.id() == base.id() {
        true => image.config.bytes().to_vec(),
        false => change::rebased(image.config.bytes(), old.config.bytes(), base.config.bytes())?,
    };
    let config = changed(&image.config, change.edit(&rebased)?, &options)?;
    let lineage = lineage_of(base);
    let own = image.lineage.as_ref().map(|lineage| lineage.names.clone()).unwrap_or_default();
    let above = old.layers.len();
    let mut made = Composed::default();
    made.take_warnings(source.as_ref());
    made.take_warnings(new.as_ref());
    made.add_layers(&new, base.layers.clone());
    let lower = made.layers.len();
    made.add_layers(&source, image.layers[above..].to_vec());
    let lineage = with_names(lineage, lower, (above..image.layers.len()).map(|at| own.get(at).cloned().flatten()));
    let roots = the_roots(source.catalog(), *image.id());
    let manifest = match image.manifest {
        Some((media_type, raw)) if old.id() != base.id() => Some((media_type, on_base(raw, new.catalog(), base, &options)?)),
        manifest => manifest,
    };
    made.finish(config, manifest, lineage, Some(roots))
}

/// A manifest whose annotations about its base, where it has any, are about this one.
fn on_base(manifest: Raw<Manifest>, catalog: &Catalog, base: &Image, options: &Options) -> Result<Raw<Manifest>> {
    const BASE: [&str; 2] = ["org.opencontainers.image.base.digest", "org.opencontainers.image.base.name"];
    let mut object = Object::parse(manifest.bytes())?;
    let listed = object.get("annotations").filter(|_| BASE.iter().any(|key| manifest.annotations.contains_key(*key)));
    let Some(mut annotations) = listed.map(|listed| Object::parse(listed.get().as_bytes())).transpose()? else { return Ok(manifest) };
    let digest = base.manifest.as_ref().map(|(_, raw)| raw.digest().to_string());
    let name = the_roots(catalog, *base.id()).into_iter().find_map(|root| root.name?.reference()).map(|name| name.full());
    for (key, value) in BASE.into_iter().zip([digest, name]).filter(|(key, _)| manifest.annotations.contains_key(*key)) {
        match value {
            Some(value) => {
                annotations.set(key, value);
            }
            None => {
                annotations.remove(key);
            }
        }
    }
    object.set_raw("annotations", annotations.to_raw());
    Raw::parse(object.to_vec(), &JsonLimits::manifest(&options.limits)).map_err(|error| Error::from(error).frame("the new manifest"))
}

/// Refuses an image that has other lower layers than its base.
fn refuse_other_base(image: &Image, old: &Image) -> Result<()> {
    for (at, below) in old.layers.iter().enumerate() {
        match image.layers.get(at) {
            Some(own) if own.diff_id == below.diff_id => {}
            Some(own) => {
                let (is, expected) = (own.diff_id, below.diff_id);
                return Err(Error::mismatch(format_args!("it is not built on the old base: layer {at} is {is}, expected {expected}")));
            }
            None => {
                let expected = below.diff_id;
                return Err(Error::mismatch(format_args!("it is not built on the old base: there is no layer {at}, expected {expected}")));
            }
        }
    }
    Ok(())
}

fn config(bytes: Vec<u8>, options: &Options) -> Result<Raw<Config>> {
    Raw::parse(bytes, &JsonLimits::config(&options.limits)).map_err(|error| Error::from(error).frame("the new config"))
}

/// A config after a change; byte for byte what it was, where nothing differs but the blanks between the keys at the top.
fn changed(before: &Raw<Config>, bytes: Vec<u8>, options: &Options) -> Result<Raw<Config>> {
    let same = Object::parse(before.bytes()).is_ok_and(|object| object.to_vec() == bytes);
    if same { Ok(before.clone()) } else { config(bytes, options) }
}

/// The images of the one entry of a catalog.
fn the_entry(catalog: &Catalog) -> Result<Vec<ImageId>> {
    let mut entries = catalog.entries();
    entries.retain(|roots| roots.iter().any(|root| !root.node.images().is_empty()));
    match entries.as_slice() {
        [] => Err(Error::not_found("it holds no image")),
        [roots] => {
            let mut images = Vec::new();
            for id in roots.iter().flat_map(|root| root.node.images()) {
                if !images.contains(&id) {
                    images.push(id);
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

/// The image that is wanted of a source.
fn one_image<'a>(source: &'a dyn Source, options: &Options) -> Result<&'a Image> {
    let catalog = source.catalog();
    let chosen = the_entry(catalog).and_then(|images| {
        let wanted = options.platform.as_ref().unwrap_or(&options.host);
        if let ([only], None) = (images.as_slice(), &options.platform) {
            return Ok(*only);
        }
        // Of several that run equally well, the first.
        let scored = images.iter().rev().filter_map(|id| Some((catalog.image(*id).platform().score(wanted)?, *id)));
        scored.max_by_key(|(score, _)| *score).map(|(_, id)| id).ok_or_else(|| {
            let known: Vec<_> = images.iter().map(|id| catalog.image(*id).platform().to_string()).collect();
            Error::not_found(format_args!("there is no image for {wanted}")).hint(format_args!("there are {}", known.join(", ")))
        })
    });
    chosen.map(|id| catalog.image(id)).map_err(|error| error.frame(source.describe()))
}

/// The image of a base, which must be for the same platform.
fn one_image_like<'a>(source: &'a dyn Source, platform: &Platform, options: &Options) -> Result<&'a Image> {
    let image = one_image(source, options)?;
    let is = image.platform();
    if (is.os.as_str(), is.normalized().architecture) != (platform.os.as_str(), platform.normalized().architecture) {
        return Err(Error::mismatch(format_args!("it is for {is}, and the image for {platform}")).frame(source.describe()));
    }
    Ok(image)
}

/// What an image that is built on this one was built on.
fn lineage_of(base: &Image) -> Lineage {
    let own = base.id().hex();
    let mut lineage = base.lineage.clone().unwrap_or_default();
    lineage.parent = Some(base.id().to_string());
    lineage.legacy = Vec::new();
    lineage.folders.resize(base.layers.len(), own);
    lineage
}

/// A lineage that names the layers from `lower` on.
fn with_names(mut lineage: Lineage, lower: usize, own: impl Iterator<Item = Option<String>>) -> Option<Lineage> {
    lineage.names.resize(lower, None);
    lineage.names.extend(own);
    (lineage.parent.is_some() || lineage.names.iter().any(Option::is_some)).then_some(lineage)
}

/// The roots that lead to an image, with nothing else below them.
fn the_roots(catalog: &Catalog, image: Digest) -> Vec<Root> {
    let leads = |root: &&Root| root.node.images().iter().any(|id| *catalog.image(*id).id() == image);
    catalog.roots.iter().filter(leads).cloned().collect()
}

/// Says the platform of the images in the descriptors that state one.
fn restate_platform(node: &mut Node, images: &[Image]) -> Result<()> {
    match (&mut node.content, &mut node.descriptor) {
        (Content::Index { nodes, .. }, _) => {
            let mut changed = nodes.to_vec();
            changed.iter_mut().try_for_each(|node| restate_platform(node, images))?;
            *nodes = changed.into();
        }
        (Content::Image(id), Some(descriptor)) if descriptor.platform.is_some() => {
            let mut object = descriptor.edit();
            object.set("platform", images[id.0].platform());
            *descriptor = Descriptor::try_from(&object)?;
        }
        _ => {}
    }
    Ok(())
}

/// A catalog of its own over the bytes of other sources.
#[derive(Default)]
struct Composed {
    sources: Vec<Arc<dyn Source>>,
    /// Which source each blob comes from, and its number there; the only source's where there are none.
    origins: Vec<(usize, BlobId)>,
    /// The layers so far.
    layers: Vec<Layer>,
    catalog: Catalog,
}

impl Composed {
    /// Adds layers of a source.
    fn add_layers(&mut self, source: &Arc<dyn Source>, layers: Vec<Layer>) {
        let at = self.sources.iter().position(|known| Arc::ptr_eq(known, source)).unwrap_or_else(|| {
            self.sources.push(Arc::clone(source));
            self.sources.len() - 1
        });
        for mut layer in layers {
            layer.blob = layer.blob.map(|blob| {
                let known: Blob = source.catalog().blob(blob).clone();
                self.origins.push((at, blob));
                self.catalog.add_blob(known)
            });
            self.layers.push(layer);
        }
    }

    fn take_warnings(&mut self, source: &dyn Source) {
        self.catalog.warnings.extend(source.catalog().warnings.iter().cloned());
    }

    /// The source of one image. Its names are those of `roots`.
    fn finish(
        mut self,
        config: Raw<Config>,
        manifest: Option<(String, Raw<Manifest>)>,
        lineage: Option<Lineage>,
        roots: Option<Vec<Root>>,
    ) -> Result<Arc<dyn Source>> {
        let image = Image { manifest, config, layers: std::mem::take(&mut self.layers), legacy: None, lineage };
        let id = self.catalog.add_image(image);
        let node = |listed: Option<Descriptor>| Node { descriptor: listed, content: Content::Image(id) };
        self.catalog.roots = match roots {
            None => vec![Root { name: None, node: node(None) }],
            Some(roots) => roots.into_iter().map(|root| Root { name: root.name, node: node(of_image(root.node)) }).collect(),
        };
        Ok(Arc::new(self))
    }

    fn locate(&self, blob: BlobId) -> (&dyn Source, BlobId) {
        let (source, blob) = self.origins.get(blob.0).copied().unwrap_or((0, blob));
        (self.sources[source].as_ref(), blob)
    }
}

/// How an image itself is listed: of an index, nothing is kept.
fn of_image(node: Node) -> Option<Descriptor> {
    node.descriptor.filter(|_| matches!(node.content, Content::Image(_)))
}

impl Source for Composed {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        let (source, blob) = self.locate(blob);
        source.open(blob, from)
    }

    fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        let (source, blob) = self.locate(blob);
        source.file(blob)
    }

    fn describe(&self) -> String {
        self.sources.iter().map(|source| source.describe()).collect::<Vec<_>>().join(" + ")
    }

    fn spooled(&self) -> u64 {
        self.sources.iter().map(|source| source.spooled()).sum()
    }
}

//! Builds images out of others: layers on a base, changed configs, exchanged bases.
//!
//! Each operation gives a source whose catalog is edited and whose bytes are those of the sources that it was given. So
//! [`convert`](crate::plan::convert) and [`run`](crate::run::run) write the result like any other image, and verify every byte on the way.
//! Nothing is decided here about the destination, and no layer is changed.

mod change;
mod choose;
mod layers;
mod legacy;
mod value;

use std::sync::Arc;

pub use change::{Added, ConfigChange};
pub use layers::{LayerContent, LayerFiles, LayerInput};
pub use legacy::LegacyMembers;
pub use value::{NO_TIME, Stamps, expand, pair, port, time, words};

use choose::{chosen, like, one_image};

use crate::catalog::{BlobId, Catalog, Content, Image, Layer, Lineage, Node, Root};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::limits::Limits;
use crate::source::{Composed, Source};
use crate::spec::{Config, Descriptor, JsonLimits, Manifest, Object, Platform, Raw};

/// How images are chosen and made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The platforms that are wanted of an index: for `edit` and `rebase` all when there are none; for the base of `assemble` the first, or
    /// else the one that runs on `host`.
    pub platforms: Vec<Platform>,
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
pub fn assemble(base: Option<Arc<dyn Source>>, files: LayerFiles, change: &ConfigChange, options: &Options) -> Result<Arc<dyn Source>> {
    let added = files.added();
    let files = Arc::new(files);
    let mut made = Composed::default();
    let mut layers = Vec::new();
    let (config, lineage) = match &base {
        None => (change.create(&options.host, &added)?, Lineage::default()),
        Some(base) => {
            let image = one_image(base.as_ref(), options.platforms.first(), options)?;
            made.take_warnings(base.as_ref());
            layers = made.take_layers(base, &image.layers);
            (change.extend(image.config.bytes(), &added)?, lineage_of(image))
        }
    };
    let lower = layers.len();
    made.catalog.warnings.extend(change.history_left_out(lower, &added)?);
    let own: Vec<_> = (0..added.len()).filter(|at| !added[*at].empty).collect();
    let on_top = |at: &usize| Layer { diff_id: added[*at].diff_id, blob: Some(BlobId(*at)), descriptor: None, missing: None };
    let as_source: Arc<dyn Source> = Arc::<LayerFiles>::clone(&files);
    layers.extend(made.take_layers(&as_source, &own.iter().map(on_top).collect::<Vec<_>>()));
    let mut lineage = with_names(lineage, lower, own.iter().map(|at| files.id(*at).cloned()));
    if let Some(legacy) = &options.legacy {
        lineage.get_or_insert_default().legacy = legacy.of(&layers, lower)?;
    }
    Ok(alone(made, Image { manifest: None, config: self::config(config, options)?, layers, legacy: None, lineage }))
}

/// The images of a source with changed configs: all platforms of one image, or the one that is wanted.
///
/// # Errors
/// When there are several images to choose from, or a config is malformed.
pub fn edit(source: Arc<dyn Source>, change: &ConfigChange, options: &Options) -> Result<Arc<dyn Source>> {
    let mut made = Composed::over(&source);
    let images = chosen(&mut made.catalog, options).map_err(|error| error.frame(source.describe()))?;
    let moves = change.architecture.is_some() || change.os.is_some() || change.variant.is_some();
    if moves && images.len() > 1 {
        let error = Error::unsupported(format_args!("it has {} platforms, and they would all become one", images.len()));
        return Err(error.hint("choose one of them with --platform").frame(source.describe()));
    }
    let catalog = &mut made.catalog;
    for (id, _) in &images {
        let image = &mut catalog.images[id.0];
        let edited = change.edit(image.config.bytes()).and_then(|bytes| changed(&image.config, bytes, options));
        let edited = edited.context(|| format!("image {}", image.config.digest()))?;
        if edited != image.config {
            // The config was made of it, and is no longer so.
            image.legacy = None;
            image.lineage.iter_mut().for_each(|lineage| lineage.legacy = Vec::new());
            catalog.warnings.extend(change.history_left_out(image.layers.len(), &[])?);
            image.config = edited;
        }
    }
    if moves {
        for root in &mut catalog.roots {
            restate_platform(&mut root.node, &catalog.images)?;
        }
    }
    Ok(Arc::new(made))
}

/// An image on another base: the layers of `new` in the place of those of `old`, and the rest of the image as it is. Of an index, each
/// platform moves to the base of that platform, or only the one that is wanted.
///
/// # Errors
/// When the image is not built on `old`, or a base has no image for its platform.
pub fn rebase(
    source: Arc<dyn Source>,
    old: &dyn Source,
    new: Arc<dyn Source>,
    change: &ConfigChange,
    options: &Options,
) -> Result<Arc<dyn Source>> {
    let mut made = Composed::over(&source);
    let images = chosen(&mut made.catalog, options).map_err(|error| error.frame(source.describe()))?;
    made.take_warnings(new.as_ref());
    for (id, platform) in &images {
        let hint = |error: Error| if images.len() > 1 { error.hint("choose what has both bases with --platform") } else { error };
        let bases = like(old, platform, options).and_then(|old| Ok((old, like(new.as_ref(), platform, options)?)));
        let (old, base) = bases.map_err(hint)?;
        let image = made.catalog.image(*id).clone();
        refuse_other_base(&image, old).map_err(|error| error.frame(source.describe()))?;
        let layers = made.take_layers(&new, &base.layers);
        made.catalog.images[id.0] = rebased(image, old, base, layers, new.catalog(), change, options)?;
    }
    Ok(Arc::new(made))
}

/// An image with the layers of `base`, which are `layers` here, in the place of those of `old`.
fn rebased(
    image: Image,
    old: &Image,
    base: &Image,
    mut layers: Vec<Layer>,
    bases: &Catalog,
    change: &ConfigChange,
    options: &Options,
) -> Result<Image> {
    let same = old.id() == base.id();
    let config =
        if same { image.config.bytes().to_vec() } else { change::rebased(image.config.bytes(), old.config.bytes(), base.config.bytes())? };
    let config = changed(&image.config, change.edit(&config)?, options)?;
    let names = image.lineage.map(|lineage| lineage.names).unwrap_or_default();
    let (lower, above) = (layers.len(), old.layers.len());
    let lineage = with_names(lineage_of(base), lower, (above..image.layers.len()).map(|at| names.get(at).cloned().flatten()));
    layers.extend_from_slice(&image.layers[above..]);
    let manifest = match image.manifest {
        Some((media_type, raw)) if !same => Some((media_type, on_base(raw, bases, base, options)?)),
        manifest => manifest,
    };
    Ok(Image { manifest, config, layers, legacy: None, lineage })
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

/// The source of one new image, without a name.
fn alone(mut made: Composed, image: Image) -> Arc<dyn Source> {
    let id = made.catalog.add_image(image);
    made.catalog.roots = vec![Root { name: None, node: Node { descriptor: None, content: Content::Image(id) } }];
    Arc::new(made)
}

//! Reads images out of containers/storage, where podman, buildah, skopeo and CRI-O keep them.
//!
//! ```text
//! overlay-images/images.json, images.lock       IDs, names, top layers, and what belongs to an image
//! overlay-images/<image ID>/<key>               the manifest, the config, signatures
//! overlay-layers/layers.json, layers.lock       IDs, parents, diff IDs
//! overlay-layers/<layer ID>.tar-split.gz
//! overlay/<layer ID>/diff/                      the layer's files
//! vfs/dir/<layer ID>/                           the files of the layer and of all below it (with the driver vfs)
//! ```
//!
//! `images.go`, `layers.go` and `store.go` of containers/storage write it. Several such folders are read as one: those of the image stores that
//! `storage.conf` adds may hold layers below those of the first.
//!
//! The manifest is the one that was pulled, and lists layers as the registry had them, mostly compressed. Here they are plain. The catalog has
//! the manifest nonetheless, with the plain layers in place: it is kept where its layers are plain too, and edited elsewhere, so that its annotations
//! survive, and the image is found by the digest that it was pulled by.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::choose::{self, Chosen, Listed, choose};
use super::disk;
use super::folders::{Builder, FolderOf, Found, Place};
use super::lock::{Shared, Stamp};
use crate::catalog::{Content, Name, Node};
use crate::context::Context;
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::source::Source;
use crate::spec::{Config, Descriptor, Fields, Index, Json, JsonLimits, Manifest, ManifestKind, Raw, SpecError};
use crate::tree::Opening;

/// The drivers whose layers are folders, in the order in which they are looked for, and where these are.
const DRIVERS: [(&str, FolderOf); 2] = [
    ("overlay", |root, layer| root.join("overlay").join(layer).join("diff")),
    ("vfs", |root, layer| root.join("vfs").join("dir").join(layer)),
];

/// How often lists are read again that were replaced while they were read.
const TRIES: usize = 16;

/// What helps whoever may not read a store.
const DENIED: &str = "files of a rootless store belong to other users: run it in `podman unshare`";

/// Where containers/storage keeps its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainersStorage {
    /// The folder of images and layers.
    pub graph_root: PathBuf,
    /// How layers are kept; what is there when absent.
    pub driver: Option<String>,
    /// Further folders with images, never written by anybody.
    pub image_stores: Vec<PathBuf>,
    /// Where podman keeps what does not outlive a boot; images are not there, but podman wants to be told.
    pub run_root: Option<PathBuf>,
}

impl ContainersStorage {
    /// The folder of root's images unless `storage.conf` says otherwise.
    pub const ROOT: &str = "/var/lib/containers/storage";

    /// The folder of other users' images below their home directory, unless `storage.conf` says otherwise.
    pub const ROOTLESS: &str = ".local/share/containers/storage";

    /// Reads what follows `containers-storage:` in an IMAGE, `[DRIVER@GRAPHROOT+RUNROOT:OPTIONS]REF` with all but GRAPHROOT left to the reader;
    /// gives the name of the image, too.
    ///
    /// # Errors
    /// When a bracket is not closed.
    pub fn parse(text: &str, default: &Self) -> Result<(Self, Option<String>)> {
        let (store, reference) = super::split_root(text)?;
        let Some(store) = store else { return Ok((default.clone(), reference)) };
        let (driver, rest) = store.split_once('@').map_or((None, store), |(driver, rest)| (Some(driver.to_owned()), rest));
        // Options do not change where images are.
        let roots = rest.split(':').next().unwrap_or_default();
        let (graph_root, run_root) = roots.split_once('+').map_or((roots, None), |(graph, run)| (graph, Some(run)));
        if graph_root.is_empty() {
            let driver = driver.or_else(|| default.driver.clone());
            return Ok((Self { driver, ..default.clone() }, reference));
        }
        Ok((
            Self {
                graph_root: graph_root.into(),
                driver: driver.filter(|driver| !driver.is_empty()),
                image_stores: Vec::new(),
                run_root: run_root.filter(|run| !run.is_empty()).map(PathBuf::from),
            },
            reference,
        ))
    }

    fn describe(&self) -> String {
        format!("containers-storage:[{}]", self.graph_root.display())
    }
}

/// Opens images of containers/storage: `reference` is `name[:tag]`, `name@digest`, an image ID or at least twelve digits of it; all images when
/// absent.
///
/// # Errors
/// When there is no store, no such image, or what is there is malformed.
pub fn open_containers_storage(store: &ContainersStorage, reference: Option<&str>, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    let read = || -> Result<Builder<'_>> {
        let lists = Lists::read(store, opening.ctx)?;
        let listed = lists.listed();
        let chosen = choose(&listed, reference)?;
        let mut builder = Builder::new(opening, DENIED);
        for Chosen { at, names } in chosen {
            opening.ctx.cancel.poll()?;
            let image = &lists.images[at];
            let added = lists.add(&mut builder, image, names, reference.is_some()).context(|| format!("image {}", image.id));
            opening.tolerate(added, &mut builder.catalog.findings)?;
        }
        Ok(builder)
    };
    let built = read().context(|| store.describe()).and_then(|builder| builder.finish(store.describe()));
    built.map_err(|error| disk::advise(error, DENIED))
}

/// The names of all images of containers/storage.
///
/// # Errors
/// When there is no store, or it is malformed.
pub fn containers_storage_names(store: &ContainersStorage, ctx: &Context) -> Result<Vec<String>> {
    let lists = Lists::read(store, ctx).context(|| store.describe())?;
    Ok(choose::names(&lists.listed()))
}

/// One entry of `images.json`.
struct ImageRecord {
    /// Its store, by number.
    store: usize,
    id: String,
    names: Vec<String>,
    /// The top layer.
    layer: Option<String>,
    /// What belongs to it, by key.
    data: BTreeMap<String, Digest>,
}

impl ImageRecord {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        let digest = |json: Json<'_>| json.parsed(str::parse::<Digest>);
        Ok(Self {
            store: 0,
            id: plain(&fields, "id")?.ok_or_else(|| SpecError::new("missing").at_key("id"))?,
            names: fields.or_default("names", |names| names.list(Json::string))?,
            layer: plain(&fields, "layer")?,
            data: fields.or_default("big-data-digests", |data| data.map(digest))?,
        })
    }

    /// The key of the manifest that counts, and of any that the image came with.
    fn manifests(&self) -> impl Iterator<Item = (&String, &Digest)> {
        self.data.iter().filter(|(key, _)| *key == "manifest" || key.starts_with("manifest-"))
    }
}

/// One entry of `layers.json`.
struct LayerRecord {
    store: usize,
    id: String,
    parent: Option<String>,
    diff: Option<Digest>,
}

impl LayerRecord {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        let diff = fields.text("diff-digest")?.map(|text| text.parse::<Digest>());
        Ok(Self {
            store: 0,
            id: plain(&fields, "id")?.ok_or_else(|| SpecError::new("missing").at_key("id"))?,
            parent: plain(&fields, "parent")?,
            diff: diff.transpose().map_err(|error| SpecError::new(error).at_key("diff-digest"))?,
        })
    }
}

/// An ID, which names files.
fn plain(fields: &Fields<'_>, key: &str) -> Result<Option<String>, SpecError> {
    match fields.text(key)? {
        Some(id) if !disk::is_plain_name(&id) => Err(SpecError::expected("an ID", format_args!("{id:?}")).at_key(key)),
        id => Ok(id),
    }
}

/// One folder with images.
struct Store {
    root: PathBuf,
    driver: &'static str,
    folder: FolderOf,
}

impl Store {
    /// Finds out which driver keeps a store; `None` when there is none.
    fn find(root: &Path, driver: Option<&str>) -> Result<Option<Self>> {
        if let Some(driver) = driver.filter(|driver| !DRIVERS.iter().any(|(known, _)| known == driver)) {
            let known: Vec<_> = DRIVERS.iter().map(|(driver, _)| *driver).collect();
            return Err(Error::unsupported(format_args!("the driver {} keeps no folders of layers", driver.escape_debug()))
                .hint(format_args!("images can be read of the drivers {}", known.join(" and "))));
        }
        let candidates = DRIVERS.iter().filter(|(known, _)| driver.is_none_or(|driver| driver == *known));
        for (driver, folder) in candidates {
            match std::fs::symlink_metadata(root.join(format!("{driver}-images"))) {
                Ok(_) => return Ok(Some(Self { root: root.to_owned(), driver, folder: *folder })),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(error).frame(root.display())),
            }
        }
        Ok(None)
    }

    fn images(&self) -> PathBuf {
        self.root.join(format!("{}-images", self.driver))
    }

    fn layers(&self) -> PathBuf {
        self.root.join(format!("{}-layers", self.driver))
    }

    /// Reads the lists of images and layers, as of one moment.
    fn lists(&self, ctx: &Context) -> Result<(Vec<ImageRecord>, Vec<LayerRecord>)> {
        let (images, layers) = (self.images(), self.layers());
        let files = [images.join("images.json"), layers.join("layers.json"), layers.join("volatile-layers.json")];
        for _ in 0..TRIES {
            // In the order of those who write, so that nobody waits for the other.
            let _layers = Shared::take(&layers.join("layers.lock"), &ctx.cancel)?;
            let _images = Shared::take(&images.join("images.lock"), &ctx.cancel)?;
            let before = Stamp::of(&files);
            let images = records(&files[0], ctx, ImageRecord::read)?;
            let mut layers = records(&files[1], ctx, LayerRecord::read)?;
            layers.extend(records(&files[2], ctx, LayerRecord::read)?);
            if Stamp::of(&files) == before {
                return Ok((images, layers));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "its lists of images are replaced all the time").frame(self.root.display()))
    }
}

fn records<T>(path: &Path, ctx: &Context, read: fn(Json<'_>) -> Result<T, SpecError>) -> Result<Vec<T>> {
    let json = JsonLimits { bytes: ctx.limits.metadata, depth: ctx.limits.json_depth };
    let Some(bytes) = disk::read(path, json.bytes)? else { return Ok(Vec::new()) };
    // Stores that never held anything have empty files.
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    super::parse(&bytes, &json, |list| if list.is_null() { Ok(Vec::new()) } else { list.list(read) }).path(path)
}

/// What is kept beside an image.
enum Document {
    /// The media type and the index of `podman manifest create`.
    Index(String, Raw<Index>),
    /// The media type and the manifest, where there is one.
    Image(Option<(String, Raw<Manifest>)>),
}

/// What all stores together hold.
struct Lists {
    stores: Vec<Store>,
    images: Vec<ImageRecord>,
    layers: HashMap<String, LayerRecord>,
}

impl Lists {
    fn read(store: &ContainersStorage, ctx: &Context) -> Result<Self> {
        let mut lists = Self { stores: Vec::new(), images: Vec::new(), layers: HashMap::new() };
        let mut seen = HashSet::new();
        for root in std::iter::once(&store.graph_root).chain(&store.image_stores) {
            let Some(found) = Store::find(root, store.driver.as_deref())? else { continue };
            let number = lists.stores.len();
            let (images, layers) = found.lists(ctx)?;
            // The first store wins, as with containers/storage.
            lists.images.extend(
                images.into_iter().filter(|image| seen.insert(image.id.clone())).map(|image| ImageRecord { store: number, ..image }),
            );
            for layer in layers {
                lists.layers.entry(layer.id.clone()).or_insert(LayerRecord { store: number, ..layer });
            }
            lists.stores.push(found);
        }
        if lists.stores.is_empty() {
            return Err(Error::not_found("there is no store of containers/storage"));
        }
        Ok(lists)
    }

    /// The images to choose from. One without a name that another is built on is only a step of a build.
    fn listed(&self) -> Vec<Listed> {
        let parent = |id: &String| self.layers.get(id).and_then(|layer| layer.parent.as_ref());
        let mut below = HashSet::new();
        for image in &self.images {
            let named = image.layer.as_ref().filter(|_| !image.names.is_empty());
            let mut next = named.or_else(|| image.layer.as_ref().and_then(parent));
            while let Some(layer) = next.filter(|layer| below.insert(*layer)) {
                next = parent(layer);
            }
        }
        let listed = |image: &ImageRecord| Listed {
            id: image.id.clone(),
            names: image.names.clone(),
            digests: image.manifests().map(|(_, digest)| *digest).collect(),
            hidden: image.names.is_empty() && image.layer.as_ref().is_some_and(|layer| below.contains(layer)),
        };
        self.images.iter().map(listed).collect()
    }

    /// Reads one image and adds it; or what `podman manifest create` makes, where it is what is `wanted`: its images are images of their own.
    fn add(&self, builder: &mut Builder<'_>, image: &ImageRecord, names: Vec<Name>, wanted: bool) -> Result<()> {
        match self.document(builder, image)? {
            Document::Index(_, raw) if !wanted => {
                builder.catalog.warnings.push(format!("image {}: it is a list of manifests; it is left out", raw.digest()));
                Ok(())
            }
            Document::Index(media_type, raw) => {
                let mut nodes = Vec::with_capacity(raw.manifests.len());
                for descriptor in &raw.manifests {
                    let part = self.images.iter().find(|image| image.manifests().any(|(_, digest)| *digest == descriptor.digest));
                    let content = match part {
                        Some(part) => match self.document(builder, part)? {
                            Document::Image(manifest) => {
                                let found = self.image(builder, part, manifest)?;
                                Content::Image(builder.image(found))
                            }
                            Document::Index(..) => Content::Unread,
                        },
                        None => Content::Unread,
                    };
                    nodes.push(Node { descriptor: Some(descriptor.clone()), content });
                }
                let descriptor = Descriptor::new(media_type, *raw.digest(), raw.bytes().len() as u64);
                builder.root(Node { descriptor: Some(descriptor), content: Content::Index { raw, nodes: nodes.into() } }, names)
            }
            Document::Image(manifest) => {
                let found = self.image(builder, image, manifest)?;
                builder.add(found, names)
            }
        }
    }

    /// Reads one image.
    fn image(&self, builder: &mut Builder<'_>, image: &ImageRecord, manifest: Option<(String, Raw<Manifest>)>) -> Result<Found> {
        let digest = match &manifest {
            Some((_, raw)) => raw.config.digest,
            None => format!("sha256:{}", image.id).parse().map_err(Error::invalid)?,
        };
        let path = self.data(image, &digest.to_string());
        let bytes = disk::need(&path, builder.limits().config)?;
        let config = builder.config(bytes, &digest).path(&path)?;
        let layers = self.layers(image, &config)?;
        let manifest = manifest.filter(|(_, raw)| raw.layers.len() == layers.len());
        Ok(Found { config, manifest, layers })
    }

    /// What an image came with.
    fn document(&self, builder: &mut Builder<'_>, image: &ImageRecord) -> Result<Document> {
        let Some((key, digest)) = image.data.get_key_value("manifest").or_else(|| image.manifests().next()) else {
            return Ok(Document::Image(None));
        };
        let path = self.data(image, key);
        let limit = builder.limits().manifest;
        let bytes = disk::need(&path, limit).and_then(|bytes| builder.verified(bytes, digest).path(&path))?;
        let json = JsonLimits::manifest(builder.limits());
        let (media_type, is_list) = super::parse(&bytes, &json, |json| {
            let fields = json.object()?;
            Ok((fields.text("mediaType")?, fields.has("manifests")))
        })
        .path(&path)?;
        let kind = media_type.as_deref().and_then(ManifestKind::from_media_type);
        if is_list || kind.is_some_and(ManifestKind::is_index) {
            let raw = Raw::<Index>::parse(bytes, &json).map_err(Error::from).path(&path)?;
            let media_type = media_type.unwrap_or_else(|| ManifestKind::OciIndex.media_type().to_owned());
            return Ok(Document::Index(media_type, raw.with_digest_algorithm(digest.algorithm())));
        }
        let raw = Raw::<Manifest>::parse(bytes, &json).map_err(Error::from).path(&path)?;
        let media_type = media_type.unwrap_or_else(|| ManifestKind::OciManifest.media_type().to_owned());
        Ok(Document::Image(Some((media_type, raw.with_digest_algorithm(digest.algorithm())))))
    }

    /// The file of something that belongs to an image.
    fn data(&self, image: &ImageRecord, key: &str) -> PathBuf {
        self.stores[image.store].images().join(&image.id).join(base_name(key))
    }

    /// Follows the layers from the top down, and holds them to the config.
    fn layers(&self, image: &ImageRecord, config: &Config) -> Result<Vec<Place>> {
        let mut layers = Vec::new();
        let mut next = image.layer.as_ref();
        let diff_ids = config.diff_ids();
        while let Some(id) = next {
            let record = self
                .layers
                .get(id)
                .ok_or_else(|| Error::not_found("it is missing: the image was removed").frame(format_args!("layer {id}")))?;
            let expected = diff_ids.len().checked_sub(layers.len() + 1).map(|at| diff_ids[at]);
            let place = self.layer(record, expected).context(|| format!("layer {id}"))?;
            layers.push(place);
            next = record.parent.as_ref();
        }
        if layers.len() != diff_ids.len() {
            let (found, expected) = (layers.len(), diff_ids.len());
            return Err(Error::invalid(format_args!("it has {found} layers, but its config has {expected} diff IDs")));
        }
        layers.reverse();
        Ok(layers)
    }

    fn layer(&self, record: &LayerRecord, expected: Option<DiffId>) -> Result<Place> {
        let DiffId(expected) = expected.ok_or_else(|| Error::invalid("the config has no diff ID for it"))?;
        if let Some(diff) = record.diff.filter(|diff| *diff != expected) {
            return Err(Error::mismatch(format_args!("its diff ID is {diff}, but the config says {expected}")));
        }
        let store = &self.stores[record.store];
        let folder = (store.folder)(&store.root, &record.id);
        if folder.with_file_name("composefs-data").exists() {
            return Err(Error::unsupported("its files are kept for composefs, by their digests").hint("podman save can save the image"));
        }
        let split = store.layers().join(format!("{}.tar-split.gz", record.id));
        Ok(Place { folder, split, label: expected.to_string() })
    }
}

/// The name of the file for a key: itself if it has nothing but lower-case letters, digits and dots, or else base64 after a `=`
/// (containers/storage, `makeBigDataBaseName`).
fn base_name(key: &str) -> String {
    if key.bytes().all(|byte| matches!(byte, b'.' | b'0'..=b'9' | b'a'..=b'z')) {
        key.to_owned()
    } else {
        format!("={}", STANDARD.encode(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_as_people_write_them() {
        let default = ContainersStorage { graph_root: "/default".into(), driver: None, image_stores: vec!["/more".into()], run_root: None };
        let store = |driver: Option<&str>, root: &str, run: Option<&str>| ContainersStorage {
            graph_root: root.into(),
            driver: driver.map(str::to_owned),
            image_stores: Vec::new(),
            run_root: run.map(PathBuf::from),
        };
        for (text, expected, reference) in [
            ("a:1", default.clone(), Some("a:1")),
            ("", default.clone(), None),
            ("[/x]a", store(None, "/x", None), Some("a")),
            ("[overlay@/x+/run/y]a", store(Some("overlay"), "/x", Some("/run/y")), Some("a")),
            ("[vfs@/x+/run/y:a=b,c=d]", store(Some("vfs"), "/x", Some("/run/y")), None),
            ("[vfs@]a", ContainersStorage { driver: Some("vfs".to_owned()), ..default.clone() }, Some("a")),
        ] {
            assert_eq!(ContainersStorage::parse(text, &default).unwrap(), (expected, reference.map(str::to_owned)), "{text}");
        }
        assert!(ContainersStorage::parse("[/x", &default).is_err());
    }

    #[test]
    fn keys_become_files() {
        for (key, expected) in [("manifest", "manifest"), ("a.1", "a.1"), ("A", "=QQ=="), ("sha256:0", "=c2hhMjU2OjA="), ("", "")] {
            assert_eq!(base_name(key), expected);
        }
    }
}

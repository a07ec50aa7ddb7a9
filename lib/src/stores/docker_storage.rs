//! Reads images out of the folder in which Docker keeps them, with its classic graph drivers.
//!
//! ```text
//! image/<driver>/repositories.json                          {"Repositories":{"kitchen":{"kitchen:1":"sha256:<image ID>"}}}
//! image/<driver>/imagedb/content/sha256/<image ID>          the config
//! image/<driver>/imagedb/metadata/sha256/<image ID>/parent  the image that it was built on
//! image/<driver>/layerdb/sha256/<chain ID>/diff             the diff ID
//!                                         /cache-id         the name of the folder
//!                                         /tar-split.json.gz
//! overlay2/<cache ID>/diff/                                 the layer's files
//! vfs/dir/<cache ID>/                                       the files of the layer and of all below it
//! ```
//!
//! Docker's `image/store.go`, `layer/filestore.go` and `reference/store.go` write it. Docker takes no lock there, so neither is there one to
//! take: what changes meanwhile shows as missing files or as wrong digests. Since version 29 Docker keeps new images in a containerd's store,
//! which may be of its own, below ROOT, or the system's.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::choose::{self, Chosen, Listed, choose};
use super::containerd::{self, Containerd};
use super::disk;
use super::folders::{Builder, FolderOf, Found, Place};
use crate::context::Context;
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::source::{Source, join};
use crate::spec::{Json, JsonLimits, Repositories};
use crate::tree::Opening;

/// The graph drivers whose layers are folders, in the order in which they are looked for, and where these are.
const DRIVERS: [(&str, FolderOf); 3] = [
    ("overlay2", |root, cache| root.join("overlay2").join(cache).join("diff")),
    ("fuse-overlayfs", |root, cache| root.join("fuse-overlayfs").join(cache).join("diff")),
    ("vfs", |root, cache| root.join("vfs").join("dir").join(cache)),
];

/// The containerd that dockerd starts keeps its data here, below the root.
const OWN_CONTAINERD: &str = "containerd/daemon";

/// The namespace of Docker's images in containerd.
const NAMESPACE: &str = "moby";

/// Where Docker keeps its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerStorage {
    /// Its data folder (`--data-root`).
    pub root: PathBuf,
    /// The data folder of the containerd that it uses, where that is not its own; `None` when only its own is looked at.
    pub containerd: Option<PathBuf>,
}

impl DockerStorage {
    /// The folder in which Docker keeps data unless told otherwise.
    pub const ROOT: &str = "/var/lib/docker";

    /// Reads what follows `docker-storage:` in an IMAGE, `[ROOT]REF`; gives the name of the image, too.
    ///
    /// # Errors
    /// When a bracket is not closed.
    pub fn parse(text: &str, default: &Self) -> Result<(Self, Option<String>)> {
        let (root, reference) = super::split_root(text)?;
        let storage = root.map_or_else(|| default.clone(), |root| Self { root: root.into(), containerd: None });
        Ok((storage, reference))
    }

    fn containerd_roots(&self) -> Vec<PathBuf> {
        let own = self.root.join(OWN_CONTAINERD);
        [Some(own), self.containerd.clone()].into_iter().flatten().filter(|root| containerd::database(root).exists()).collect()
    }
}

/// Opens images of Docker's without asking Docker: `reference` is `name[:tag]`, `name@digest`, an image ID or at least twelve digits of it; all
/// images when absent.
///
/// # Errors
/// When there is no store, no such image, or what is there is malformed.
pub fn open_docker_storage(storage: &DockerStorage, reference: Option<&str>, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    let mut sources = Vec::new();
    let mut missing = None;
    let graphs = Graph::all(&storage.root)?;
    let roots = storage.containerd_roots();
    let opened_graphs = graphs.iter().map(|graph| graph.open(reference, opening));
    let opened_contents = roots.iter().map(|root| {
        let store = Containerd { root: root.clone(), namespace: NAMESPACE.to_owned() };
        containerd::open_containerd(&store, reference, opening)
    });
    for opened in opened_graphs.chain(opened_contents) {
        match opened {
            Ok(source) if reference.is_some() => return Ok(source),
            Ok(source) => sources.push(source),
            // The first says best what there is.
            Err(error) if error.kind() == ErrorKind::NotFound => missing = missing.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    if graphs.is_empty() && roots.is_empty() {
        return Err(no_store(&storage.root));
    }
    sources.retain(|source| !source.catalog().roots.is_empty() || !source.catalog().findings.is_empty());
    match (sources.is_empty(), missing) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(Error::not_found("it holds no image").frame(describe(&storage.root))),
        (false, _) => Ok(join(sources)),
    }
}

/// The names of all images of Docker's.
///
/// # Errors
/// When there is no store, or it is malformed.
pub fn docker_storage_names(storage: &DockerStorage, ctx: &Context) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let graphs = Graph::all(&storage.root)?;
    for graph in &graphs {
        names.extend(choose::names(&graph.listed(ctx)?));
    }
    let roots = storage.containerd_roots();
    for root in &roots {
        let store = Containerd { root: root.clone(), namespace: NAMESPACE.to_owned() };
        match containerd::containerd_names(&store, ctx) {
            Ok(more) => names.extend(more),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // What is wrong with one of them is no reason not to look into the others.
            Err(error) if error.kind() == ErrorKind::NotFound || !names.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    if graphs.is_empty() && roots.is_empty() {
        return Err(no_store(&storage.root));
    }
    Ok(names)
}

fn describe(root: &Path) -> String {
    format!("docker-storage:{}", root.display())
}

fn no_store(root: &Path) -> Error {
    let drivers = disk::list(&root.join("image"), 100).unwrap_or_default();
    let error = match drivers.is_empty() {
        true => Error::not_found("there is no store of Docker's"),
        false => Error::unsupported(format_args!("its images are kept by the driver {}, whose layers are no folders", drivers.join(", "))),
    };
    // With userns-remap, what is in a folder named by two numbers is what Docker uses.
    let is_ids = |name: &str| name.split_once('.').is_some_and(|(uid, gid)| uid.parse::<u32>().is_ok() && gid.parse::<u32>().is_ok());
    let remapped = disk::list(root, 1000).unwrap_or_default().into_iter().find(|name| is_ids(name));
    let error = match remapped {
        Some(name) => error.hint(format_args!("with userns-remap its folder is {}", root.join(name).display())),
        None => error.hint("docker-daemon: asks the daemon"),
    };
    error.frame(describe(root))
}

/// The images of one graph driver.
struct Graph {
    root: PathBuf,
    driver: &'static str,
    folder: FolderOf,
}

impl Graph {
    /// Those that are there.
    fn all(root: &Path) -> Result<Vec<Self>> {
        // A folder that may not be looked into is said so, rather than that there is nothing.
        disk::list(&root.join("image"), 100).map_err(|error| disk::advise(error, disk::ROOTS)).context(|| describe(root))?;
        let graphs = DRIVERS.iter().map(|(driver, folder)| Self { root: root.to_owned(), driver, folder: *folder });
        Ok(graphs.filter(|graph| graph.path("imagedb/content/sha256").is_dir()).collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join("image").join(self.driver).join(name)
    }

    fn open(&self, reference: Option<&str>, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
        let read = || -> Result<Builder<'_>> {
            let listed = self.listed(opening.ctx)?;
            let chosen = choose(&listed, reference)?;
            let mut builder = Builder::new(opening, disk::ROOTS);
            for Chosen { at, names } in chosen {
                opening.ctx.cancel.poll()?;
                let added = self.image(&mut builder, &listed[at].id, names).context(|| format!("image {}", listed[at].id));
                opening.tolerate(added, &mut builder.catalog.findings)?;
            }
            Ok(builder)
        };
        read().context(|| describe(&self.root))?.finish(describe(&self.root))
    }

    /// All images, those with names first.
    fn listed(&self, ctx: &Context) -> Result<Vec<Listed>> {
        let names = self.repositories(ctx)?;
        let there = disk::list(&self.path("imagedb/content/sha256"), ctx.limits.members)?;
        let mut images: Vec<Listed> = Vec::new();
        let mut places = BTreeMap::new();
        for (name, id) in names {
            let at = *places.entry(id.hex()).or_insert_with_key(|id| {
                images.push(Listed { id: id.clone(), ..Listed::default() });
                images.len() - 1
            });
            images[at].names.push(name);
        }
        let mut parents = HashSet::new();
        for id in there.iter().filter(|id| id.len() == 64 && disk::is_plain_name(id)) {
            let parent = disk::line(&self.path("imagedb/metadata/sha256").join(id).join("parent"))?;
            parents.extend(parent.and_then(|parent| parent.strip_prefix("sha256:").map(str::to_owned)));
        }
        for id in there.into_iter().filter(|id| id.len() == 64 && disk::is_plain_name(id) && !places.contains_key(id)) {
            // A step on the way to another image, as the classic builder leaves them.
            let hidden = parents.contains(&id);
            images.push(Listed { id, hidden, ..Listed::default() });
        }
        Ok(images)
    }

    /// What `repositories.json` says: names and image IDs.
    fn repositories(&self, ctx: &Context) -> Result<Vec<(String, Digest)>> {
        let path = self.path("repositories.json");
        // It has an entry for every name, not for one image.
        let limit = ctx.limits.metadata;
        let Some(bytes) = disk::read(&path, limit)? else { return Ok(Vec::new()) };
        let json = JsonLimits { bytes: limit, depth: ctx.limits.json_depth };
        let read = |json: Json<'_>| json.object()?.or_default("Repositories", Repositories::read);
        let repositories = super::parse(&bytes, &json, read).path(&path)?;
        let mut names = Vec::new();
        for (name, id) in repositories.0.values().flatten() {
            names.push((name.clone(), id.parse().map_err(Error::invalid).path(&path)?));
        }
        Ok(names)
    }

    fn image(&self, builder: &mut Builder<'_>, id: &str, names: Vec<crate::catalog::Name>) -> Result<()> {
        let path = self.path("imagedb/content/sha256").join(id);
        let digest: Digest = format!("sha256:{id}").parse().map_err(Error::invalid)?;
        let limit = builder.limits().config;
        let config = disk::need(&path, limit).and_then(|bytes| builder.config(bytes, &digest).path(&path))?;
        let diff_ids = &config.rootfs.diff_ids;
        let chains = DiffId::chains(diff_ids);
        let place = |(position, (chain, diff_id))| self.layer(chain, diff_id).context(|| format!("layer {position}"));
        let layers = chains.iter().zip(diff_ids).enumerate().map(place).collect::<Result<Vec<_>>>()?;
        builder.add(Found { config, manifest: None, layers }, names)
    }

    fn layer(&self, chain: &Digest, diff_id: &DiffId) -> Result<Place> {
        let folder = self.path("layerdb").join(chain.algorithm().name()).join(chain.hex());
        let read = |name: &str| {
            let path = folder.join(name);
            disk::line(&path)?
                .ok_or_else(|| Error::not_found("it is missing: the image is being pulled, or was removed").frame(path.display()))
        };
        let stated = read("diff")?;
        if stated != diff_id.to_string() {
            return Err(
                Error::mismatch(format_args!("it says {}, expected {diff_id}", stated.escape_debug())).frame(folder.join("diff").display())
            );
        }
        let cache = read("cache-id")?;
        // `-init` marks what lies below a container.
        if !disk::is_plain_name(&cache) {
            return Err(
                Error::invalid(format_args!("it names no folder: {}", cache.escape_debug())).frame(folder.join("cache-id").display())
            );
        }
        Ok(Place { folder: (self.folder)(&self.root, &cache), split: folder.join("tar-split.json.gz"), label: diff_id.to_string() })
    }
}

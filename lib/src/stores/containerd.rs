//! Reads images out of containerd's content store.
//!
//! ```text
//! io.containerd.content.v1.content/blobs/sha256/<digest>     manifests, configs and layers, as they came from a registry
//! io.containerd.metadata.v1.bolt/meta.db                     v1 / <namespace> / images / <name> / target / digest, mediatype, size
//! ```
//!
//! containerd's `metadata/buckets.go` and `metadata/images.go` write it. Usually only the platforms that were pulled are there: a manifest without
//! its layers counts as one that is not there at all.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bolt::{self, Value};
use super::choose::{self, Chosen, Listed, choose};
use super::disk;
use crate::catalog::{BlobId, Catalog, Root, Wanted};
use crate::compress::{Compression, SNIFF, sniff};
use crate::context::Context;
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::source::{Pick, Source};
use crate::spec::media::parse_layer_media;
use crate::spec::{Descriptor, JsonLimits, Manifest, ManifestKind, Raw};
use crate::transport::Section;
use crate::tree::{Opening, Role, Shelf, TreeReader, narrow};

/// Where a containerd keeps its images, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// Its data folder (`root` of its configuration).
    pub root: PathBuf,
    /// The namespace: `default` for ctr and nerdctl, `k8s.io` for Kubernetes, `moby` for Docker.
    pub namespace: String,
}

impl Containerd {
    /// The folder in which containerd keeps data unless told otherwise.
    pub const ROOT: &str = "/var/lib/containerd";

    /// The namespace of tools that are not told otherwise.
    pub const NAMESPACE: &str = "default";

    /// Reads what follows `containerd:` in an IMAGE, `[ROOT]NAMESPACE/REF`; gives the name of the image, too. What holds a colon before the first
    /// slash is a REF alone.
    ///
    /// # Errors
    /// When a bracket is not closed.
    pub fn parse(text: &str, default: &Self) -> Result<(Self, Option<String>)> {
        let (root, rest) = super::split_root(text)?;
        let root = root.map_or_else(|| default.root.clone(), PathBuf::from);
        let rest = rest.unwrap_or_default();
        let (namespace, reference) = match rest.split_once('/') {
            Some((namespace, reference)) if !namespace.contains([':', '@']) => (namespace, reference),
            None if !rest.contains([':', '@']) => (rest.as_str(), ""),
            _ => ("", rest.as_str()),
        };
        let namespace = if namespace.is_empty() { &default.namespace } else { namespace }.to_owned();
        Ok((Self { root, namespace }, Some(reference.to_owned()).filter(|reference| !reference.is_empty())))
    }

    fn describe(&self) -> String {
        format!("containerd:[{}]{}", self.root.display(), self.namespace)
    }
}

/// The database of names of a containerd.
pub(super) fn database(root: &Path) -> PathBuf {
    root.join("io.containerd.metadata.v1.bolt").join("meta.db")
}

/// Opens images of a containerd without asking it: `reference` is `name[:tag]`, `name@digest`, or a digest or at least twelve digits of it; all
/// images of the namespace when absent.
///
/// # Errors
/// When there is no store, no such image, or what is there is malformed.
pub fn open_containerd(store: &Containerd, reference: Option<&str>, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    let read = || {
        let records = records(store, opening.ctx)?;
        let listed: Vec<_> = records.iter().map(|record| record.listed.clone()).collect();
        // An image ID in the sense of others is only known to manifests.
        let inner = reference.and_then(|wanted| wanted.trim_start_matches('@').parse::<Digest>().ok());
        let (chosen, pick) = match (choose(&listed, reference), inner) {
            (Err(error), Some(digest)) if error.kind() == ErrorKind::NotFound => (choose(&listed, None)?, Some(Pick::Digest(digest))),
            (chosen, _) => (chosen?, None),
        };
        let opening = Opening { pick: pick.as_ref(), wanted: &Wanted::All, ..*opening };
        contents(store, &records, chosen, &opening)
    };
    let (catalog, files) = read().context(|| store.describe())?;
    Ok(Arc::new(ContentSource { catalog, files, description: store.describe() }))
}

/// The names of all images in a namespace of a containerd.
///
/// # Errors
/// When there is no store or no such namespace, or it is malformed.
pub fn containerd_names(store: &Containerd, ctx: &Context) -> Result<Vec<String>> {
    let records = records(store, ctx).context(|| store.describe())?;
    let listed: Vec<_> = records.into_iter().map(|record| record.listed).collect();
    Ok(choose::names(&listed))
}

/// Reads the trees of the images that were chosen.
fn contents(store: &Containerd, records: &[Record], chosen: Vec<Chosen>, opening: &Opening<'_>) -> Result<(Catalog, Vec<PathBuf>)> {
    let tops = chosen.iter().map(|chosen| records[chosen.at].target.digest).collect();
    let blobs = store.root.join("io.containerd.content.v1.content").join("blobs");
    let shelf = Contents { blobs, tops, json_depth: opening.ctx.limits.json_depth };
    let mut tree = TreeReader::new(&shelf, opening);
    for Chosen { at, names } in chosen {
        opening.ctx.cancel.poll()?;
        let record = &records[at];
        let node = tree.node(&record.target, 0).context(|| record.shown());
        let Some(node) = tree.tolerate(node)? else { continue };
        let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        tree.catalog.roots.extend(names.into_iter().map(|name| Root { name, node: node.clone() }));
    }
    let (mut catalog, names) = (tree.catalog, tree.names);
    narrow(&mut catalog, opening, Vec::new())?;
    Ok((catalog, names.into_iter().map(|name| shelf.blobs.join(name)).collect()))
}

/// One image of the database.
struct Record {
    target: Descriptor,
    listed: Listed,
}

impl Record {
    fn shown(&self) -> String {
        self.listed.names.first().map_or_else(|| self.target.digest.to_string(), |name| name.escape_debug().to_string())
    }
}

/// Reads what the database says of images: their names, brought together by what they lead to.
fn records(store: &Containerd, ctx: &Context) -> Result<Vec<Record>> {
    let path = database(&store.root);
    let denied = |error| disk::advise(error, disk::ROOTS);
    let file =
        disk::open(&path).map_err(denied)?.ok_or_else(|| Error::not_found("there is no store of containerd's").frame(path.display()))?;
    let targets = bolt::read(&file, |database| {
        let Some(images) = database.bucket(&database.root(), &[b"v1", store.namespace.as_bytes(), b"images"])? else {
            return Err(no_namespace(database, &store.namespace)?);
        };
        let (mut targets, mut size) = (Vec::new(), 0);
        database.each(&images, &mut |name, value| {
            let Value::Bucket(image) = value else { return Ok(()) };
            ctx.cancel.poll()?;
            size += name.len() as u64;
            if targets.len() >= ctx.limits.nodes || size > ctx.limits.names {
                return Err(
                    Error::limit(format_args!("there are more than {} images", ctx.limits.nodes)).hint("raise --limit nodes=NUMBER")
                );
            }
            let name = String::from_utf8_lossy(name).into_owned();
            let target = target(database, &image).context(|| format!("image {}", name.escape_debug()))?;
            targets.push((name, target));
            Ok(())
        })?;
        Ok(targets)
    });
    let mut records: Vec<Record> = Vec::new();
    let mut places = BTreeMap::new();
    for (name, target) in targets.path(&path)? {
        let at = *places.entry(target.digest).or_insert_with_key(|digest| {
            let listed = Listed { id: digest.hex(), digests: vec![*digest], ..Listed::default() };
            records.push(Record { target, listed });
            records.len() - 1
        });
        records[at].listed.names.push(name);
    }
    Ok(records)
}

/// Says which namespaces there are instead.
fn no_namespace<B: bolt::Bytes + ?Sized>(database: &bolt::Bolt<'_, B>, wanted: &str) -> Result<Error> {
    let mut known = Vec::new();
    if let Some(all) = database.bucket(&database.root(), &[b"v1"])? {
        database.each(&all, &mut |name, value| {
            if matches!(value, Value::Bucket(_)) && known.len() < 20 {
                known.push(String::from_utf8_lossy(name).escape_debug().to_string());
            }
            Ok(())
        })?;
    }
    let error = Error::not_found(format_args!("there are no images in the namespace {}", wanted.escape_debug()));
    let known = known.join(", ");
    Ok(if known.is_empty() { error } else { error.hint(format_args!("containerd:NAMESPACE/NAME; there are the namespaces {known}")) })
}

/// What a name leads to.
fn target<B: bolt::Bytes + ?Sized>(database: &bolt::Bolt<'_, B>, image: &bolt::Bucket) -> Result<Descriptor> {
    let target = database.bucket(image, &[b"target"])?.ok_or_else(|| Error::invalid("it has no target"))?;
    let text = |key: &str| match database.get(&target, key.as_bytes())? {
        Some(Value::Bytes(bytes)) => String::from_utf8(bytes).map_err(|_| Error::invalid("it is not UTF-8").frame(key.to_owned())),
        _ => Err(Error::invalid(format_args!("it has no {key}"))),
    };
    let digest: Digest = text("digest")?.parse().map_err(Error::invalid)?;
    let size = match database.get(&target, b"size")? {
        Some(Value::Bytes(bytes)) => varint(&bytes).ok_or_else(|| Error::invalid("its size is no number"))?,
        _ => return Err(Error::invalid("it has no size")),
    };
    Ok(Descriptor::new(&text("mediatype")?, digest, size))
}

/// A number as Go's `binary.PutVarint` writes it: seven bits a byte, the lowest first, and the sign in the lowest.
fn varint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        value |= bits.checked_shl(u32::try_from(at).ok()? * 7).filter(|shifted| shifted >> (at * 7) == bits)?;
        if byte & 0x80 == 0 {
            return (value & 1 == 0 && at + 1 == bytes.len()).then_some(value >> 1);
        }
    }
    None
}

/// The blobs of a store.
struct Contents {
    blobs: PathBuf,
    /// What names lead to: these must be complete.
    tops: HashSet<Digest>,
    /// How deep manifests may be nested.
    json_depth: usize,
}

impl Contents {
    fn open(&self, digest: &Digest) -> Result<Option<File>> {
        disk::open(&self.blobs.join(place(digest)))
    }

    /// Whether all that a manifest lists is there.
    fn is_complete(&self, bytes: &[u8], limit: u64) -> Result<bool> {
        let json = JsonLimits { bytes: limit, depth: self.json_depth };
        let Ok(manifest) = Raw::<Manifest>::parse(bytes.to_vec(), &json) else { return Ok(true) };
        let foreign = |layer: &Descriptor| parse_layer_media(&layer.media_type).is_some_and(|media| media.foreign);
        for blob in [&manifest.config].into_iter().chain(&manifest.layers).filter(|blob| !foreign(blob)) {
            if self.open(&blob.digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn place(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm().name(), digest.hex())
}

impl Shelf for Contents {
    fn name(&self, _role: Role, digest: &Digest) -> String {
        place(digest)
    }

    fn size(&self, _role: Role, descriptor: &Descriptor) -> Result<Option<u64>> {
        let path = || self.blobs.join(place(&descriptor.digest)).display().to_string();
        self.open(&descriptor.digest)?.map(|file| Ok(file.metadata().context(path)?.len())).transpose()
    }

    fn read(&self, _role: Role, descriptor: &Descriptor, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = disk::read(&self.blobs.join(place(&descriptor.digest)), limit)? else { return Ok(None) };
        let is_image = ManifestKind::from_media_type(&descriptor.media_type).is_some_and(|kind| !kind.is_index());
        let is_there = !is_image || self.tops.contains(&descriptor.digest) || self.is_complete(&bytes, limit)?;
        Ok(Some(bytes).filter(|_| is_there))
    }

    fn compression(&self, layer: &Descriptor, _diff_id: &DiffId) -> Result<Compression> {
        let path = place(&layer.digest);
        let file = self.open(&layer.digest)?.ok_or_else(|| Error::not_found("it is missing").frame(&path))?;
        let mut head = Vec::with_capacity(SNIFF);
        file.take(SNIFF as u64).read_to_end(&mut head).context(|| &path)?;
        sniff(&head).map_err(|error| Error::from(error).frame(&path))
    }
}

/// A source whose blobs are files.
struct ContentSource {
    catalog: Catalog,
    /// By [`BlobId`].
    files: Vec<PathBuf>,
    description: String,
}

impl ContentSource {
    fn section(&self, blob: BlobId) -> Result<(Arc<File>, Range<u64>)> {
        let path = &self.files[blob.0];
        let file = disk::open(path)?.ok_or_else(|| Error::not_found("it is missing: the image was removed").frame(path.display()))?;
        let len = file.metadata().path(path)?.len();
        Ok((Arc::new(file), 0..len))
    }
}

impl Source for ContentSource {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        let (file, range) = self.section(blob)?;
        Ok(Box::new(Section::new(file, from.min(range.end), range.end)))
    }

    fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        self.section(blob).ok()
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_as_people_write_them() {
        let default = Containerd { root: "/default".into(), namespace: "ns".to_owned() };
        for (text, root, namespace, reference) in [
            ("", "/default", "ns", None),
            ("moby", "/default", "moby", None),
            ("moby/", "/default", "moby", None),
            ("k8s.io/docker.io/library/a:1", "/default", "k8s.io", Some("docker.io/library/a:1")),
            ("[/x]moby/a", "/x", "moby", Some("a")),
            ("[/x]a:1", "/x", "ns", Some("a:1")),
            ("[/x]", "/x", "ns", None),
            ("/a", "/default", "ns", Some("a")),
            ("localhost:5000/a", "/default", "ns", Some("localhost:5000/a")),
            ("@sha256:00/a", "/default", "ns", Some("@sha256:00/a")),
        ] {
            let expected = Containerd { root: root.into(), namespace: namespace.to_owned() };
            assert_eq!(Containerd::parse(text, &default).unwrap(), (expected, reference.map(str::to_owned)), "{text}");
        }
        assert!(Containerd::parse("[/x", &default).is_err());
    }

    #[test]
    fn how_deep_a_manifest_may_be_is_what_the_caller_says() {
        let dir = tempfile::tempdir().unwrap();
        let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
        let config = format!(r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}}"#, Digest::of(b"{}"));
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"deep":{deep}}}"#);
        let complete = |json_depth| {
            let contents = Contents { blobs: dir.path().to_owned(), tops: HashSet::new(), json_depth };
            contents.is_complete(manifest.as_bytes(), 1 << 20).unwrap()
        };
        // What cannot be read is told by who reads it; what can be, lacks its config.
        assert_eq!((complete(100), complete(200)), (true, false));
    }

    #[test]
    fn numbers() {
        for (bytes, expected) in [
            (&[0][..], Some(0)),
            (&[2], Some(1)),
            (&[0x80, 0x01], Some(64)),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(i64::MAX as u64)),
            (&[1], None),
            (&[], None),
            (&[0x80], None),
            (&[2, 2], None),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03], None),
            (&[0x80; 40], None),
        ] {
            assert_eq!(varint(bytes), expected, "{bytes:?}");
        }
    }
}

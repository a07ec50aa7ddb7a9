//! Reads a tree of indexes, manifests and configs, as OCI layouts, `dir:` folders, registries and containerd's store hold it.
//!
//! ```text
//! index.json ─ root ─┬─ manifest ─┬─ config
//!                    │            └─ layers
//!                    ├─ index ─┬─ manifest (linux/amd64) …
//!                    │         └─ manifest (not in this layout: Unread)
//!                    └─ artifact ─ blobs
//! ```
//!
//! Every document is verified (size, then digest) when it is read. Blobs are only looked at: present, of the stated size, and how they are
//! compressed, whatever their media type claims.

mod pick;

use std::collections::HashMap;

pub use pick::Opening;
pub(crate) use pick::{annotated_name, is_called, name_matches, narrow, not_found};

use crate::catalog::{Blob, BlobId, Catalog, Content, Image, Known, Layer, Node};
use crate::compress::Compression;
use crate::digest::{DiffId, Digest, Digester};
use crate::error::{Context as _, Error, Result};
use crate::spec::media::{is_schema1, parse_layer_media};
use crate::spec::{Config, Descriptor, Index, JsonLimits, Manifest, ManifestKind, Raw, Validate};

/// What something that a tree lists is: folders of the `dir` format and registries keep the two in different places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Blob,
    Manifest,
}

/// Where what a tree lists lies.
pub(crate) trait Shelf {
    /// What it is called there: how it is found again, and what messages say.
    fn name(&self, role: Role, digest: &Digest) -> String;

    /// How many bytes there are of it; `None` when it is not there. Where asking costs a round trip, what the descriptor says.
    fn size(&self, role: Role, descriptor: &Descriptor) -> Result<Option<u64>>;

    /// Reads a document of at most `limit` bytes; `None` when it is not there.
    fn read(&self, role: Role, descriptor: &Descriptor, limit: u64) -> Result<Option<Vec<u8>>>;

    /// How a layer is compressed.
    fn compression(&self, layer: &Descriptor, diff_id: &DiffId) -> Result<Compression>;
}

/// Reads one tree into a catalog.
pub(crate) struct TreeReader<'a> {
    shelf: &'a dyn Shelf,
    opening: &'a Opening<'a>,
    /// What has been read so far.
    pub(crate) catalog: Catalog,
    /// What each blob is called on the shelf.
    pub(crate) names: Vec<String>,
    blobs: HashMap<Digest, BlobId>,
    contents: HashMap<Digest, Content>,
    nodes: usize,
    metadata: u64,
}

impl<'a> TreeReader<'a> {
    pub(crate) fn new(shelf: &'a dyn Shelf, opening: &'a Opening<'a>) -> Self {
        Self {
            shelf,
            opening,
            catalog: Catalog::default(),
            names: Vec::new(),
            blobs: HashMap::new(),
            contents: HashMap::new(),
            nodes: 0,
            metadata: 0,
        }
    }

    /// Parses a document that no descriptor describes.
    pub(crate) fn root_document<T: Validate>(&mut self, name: &str, bytes: Vec<u8>) -> Result<Raw<T>> {
        let limit = self.opening.ctx.limits.manifest;
        self.count(bytes.len() as u64)?;
        Raw::parse(bytes, &self.json(limit)).map_err(|e| Error::from(e).frame(name))
    }

    /// Reads what a descriptor of an index describes. What is missing from an index is unread; what is missing at the top is an error.
    pub(crate) fn node(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Node> {
        let content = match self.contents.get(&descriptor.digest) {
            // A second descriptor must still tell the truth.
            Some(content) => {
                let content = content.clone();
                self.describes(Role::Manifest, descriptor)?;
                // A tree that is listed again counts again: a few small indexes that list each other would become any number of nodes.
                let (nodes, height) = extent(&content);
                self.enter(nodes, depth + height)?;
                content
            }
            None => {
                self.enter(1, depth)?;
                let content = self.content(descriptor, depth)?;
                self.contents.insert(descriptor.digest, content.clone());
                content
            }
        };
        if matches!(content, Content::Unread) && depth == 0 {
            return Err(Error::not_found("it is missing").frame(self.shelf.name(Role::Manifest, &descriptor.digest)));
        }
        Ok(Node { descriptor: Some(descriptor.clone()), content })
    }

    /// Counts nodes, and looks at how deep they are.
    fn enter(&mut self, nodes: usize, depth: usize) -> Result<()> {
        let limits = &self.opening.ctx.limits;
        self.nodes += nodes;
        if self.nodes > limits.nodes {
            return Err(Error::limit(format_args!("more than {} manifests and indexes", limits.nodes)));
        }
        if depth > limits.index_depth {
            return Err(Error::limit(format_args!("indexes are nested more than {} deep", limits.index_depth)));
        }
        Ok(())
    }

    fn content(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Content> {
        if is_schema1(&descriptor.media_type) {
            return Err(Error::unsupported("it is a Docker schema 1 manifest, which carries no config")
                .hint("pull and push the image with any tool of the last years to get a schema 2 manifest"));
        }
        let Some(kind) = ManifestKind::from_media_type(&descriptor.media_type) else {
            let blob = self.blob(descriptor, None)?.ok_or_else(|| self.missing(&descriptor.digest))?;
            return Ok(Content::Artifact { manifest: None, blobs: [blob].into() });
        };
        let Some(bytes) = self.document(Role::Manifest, descriptor, self.opening.ctx.limits.manifest)? else { return Ok(Content::Unread) };
        let name = self.shelf.name(Role::Manifest, &descriptor.digest);
        let json = self.json(self.opening.ctx.limits.manifest);
        if kind.is_index() {
            let raw = Raw::<Index>::parse(bytes, &json).map_err(|e| Error::from(e).frame(&name))?;
            raw.agrees_with(&descriptor.media_type).map_err(|e| Error::from(e).frame(&name))?;
            self.index(raw.with_digest_algorithm(descriptor.digest.algorithm()), depth)
        } else {
            let raw = Raw::<Manifest>::parse(bytes, &json).map_err(|e| Error::from(e).frame(&name))?;
            raw.agrees_with(&descriptor.media_type).map_err(|e| Error::from(e).frame(&name))?;
            self.manifest(&descriptor.media_type, raw.with_digest_algorithm(descriptor.digest.algorithm())).context(|| &name)
        }
    }

    /// Reads what an index lists.
    pub(crate) fn index(&mut self, raw: Raw<Index>, depth: usize) -> Result<Content> {
        let mut nodes = Vec::with_capacity(raw.manifests.len());
        for ((position, descriptor), read) in raw.manifests.iter().enumerate().zip(self.opening.wanted.of(&raw.manifests)) {
            if !read {
                nodes.push(Node { descriptor: Some(descriptor.clone()), content: Content::Unread });
                continue;
            }
            let node = self.node(descriptor, depth + 1).context(|| format!("manifests[{position}]"));
            if let Some(node) = self.tolerate(node)? {
                nodes.push(node);
            }
        }
        Ok(Content::Index { raw, nodes: nodes.into() })
    }

    /// Reads what a manifest names: an image when its config and all its layers are an image's, otherwise an artifact.
    pub(crate) fn manifest(&mut self, media_type: &str, raw: Raw<Manifest>) -> Result<Content> {
        if !raw.is_image() {
            let mut blobs = Vec::new();
            for descriptor in [&raw.config].into_iter().chain(&raw.layers) {
                blobs.push(self.blob(descriptor, None)?.ok_or_else(|| self.missing(&descriptor.digest))?);
            }
            return Ok(Content::Artifact { manifest: Some(raw), blobs: blobs.into() });
        }
        let limit = self.opening.ctx.limits.config;
        let bytes = self.document(Role::Blob, &raw.config, limit)?.ok_or_else(|| self.missing(&raw.config.digest))?;
        let name = self.shelf.name(Role::Blob, &raw.config.digest);
        let config = Raw::<Config>::parse(bytes, &self.json(limit)).map_err(|e| Error::from(e).frame(format_args!("config {name}")))?;
        let config = config.with_digest_algorithm(raw.config.digest.algorithm());
        if config.rootfs.diff_ids.len() != raw.layers.len() {
            let (layers, diff_ids) = (raw.layers.len(), config.rootfs.diff_ids.len());
            return Err(Error::invalid(format_args!("the manifest has {layers} layers, but config {name} has {diff_ids} diff IDs")));
        }
        if raw.layers.len() > self.opening.ctx.limits.layers {
            return Err(Error::limit(format_args!("it has {} layers, more than {}", raw.layers.len(), self.opening.ctx.limits.layers)));
        }
        let mut layers = Vec::with_capacity(raw.layers.len());
        for (position, (descriptor, diff_id)) in raw.layers.iter().zip(&config.rootfs.diff_ids).enumerate() {
            let blob = self.blob(descriptor, Some(*diff_id)).context(|| format!("layers[{position}]"))?;
            let foreign = parse_layer_media(&descriptor.media_type).is_some_and(|media| media.foreign);
            if blob.is_none() && !foreign {
                return Err(self.missing(&descriptor.digest).frame(format_args!("layers[{position}]")));
            }
            layers.push(Layer { diff_id: *diff_id, blob, descriptor: Some(descriptor.clone()), missing: None });
        }
        let image = Image { manifest: Some((media_type.to_owned(), raw)), config, layers, legacy: None, lineage: None };
        Ok(Content::Image(self.catalog.add_image(image)))
    }

    /// Looks at a blob, of an artifact or, with a diff ID, a layer: `None` when it is not there.
    fn blob(&mut self, descriptor: &Descriptor, diff_id: Option<DiffId>) -> Result<Option<BlobId>> {
        if !self.describes(Role::Blob, descriptor)? {
            return Ok(None);
        }
        let name = self.shelf.name(Role::Blob, &descriptor.digest);
        let id = match self.blobs.get(&descriptor.digest) {
            Some(id) => *id,
            None => {
                let known = Known { size: Some(descriptor.size), digest: Some(descriptor.digest), diff_id: None };
                let id = self.catalog.add_blob(Blob { known, compression: Compression::None, place: format!("blob {name}") });
                self.names.push(name.clone());
                self.blobs.insert(descriptor.digest, id);
                id
            }
        };
        if let Some(diff_id) = diff_id {
            self.layer(id, name, descriptor, diff_id)?;
        }
        Ok(Some(id))
    }

    /// Notes that a blob, perhaps an artifact's until now, is a layer.
    fn layer(&mut self, id: BlobId, name: String, descriptor: &Descriptor, diff_id: DiffId) -> Result<()> {
        let blob = &mut self.catalog.blobs[id.0];
        match blob.known.diff_id {
            Some(known) if known == diff_id => return Ok(()),
            // The same bytes cannot have two diff IDs; which claim is wrong is found out when they are decoded.
            Some(_) => return Err(Error::invalid("it is listed with two different diff IDs").frame(name)),
            None => {}
        }
        let compression = self.shelf.compression(descriptor, &diff_id)?;
        if let (Compression::None, Some(digest), DiffId(stated)) = (compression, blob.known.digest, diff_id)
            && stated.algorithm() == digest.algorithm()
            && stated != digest
        {
            return Err(
                Error::mismatch(format_args!("it is plain, so its digest would be its diff ID, but the config says {stated}")).frame(name)
            );
        }
        blob.known.diff_id = Some(diff_id);
        blob.compression = compression;
        blob.place = format!("layer {name}");
        Ok(())
    }

    /// Whether what a descriptor describes is there; an error when it has another size.
    fn describes(&self, role: Role, descriptor: &Descriptor) -> Result<bool> {
        let name = self.shelf.name(role, &descriptor.digest);
        match self.shelf.size(role, descriptor)? {
            None => Ok(false),
            Some(size) if size == descriptor.size => Ok(true),
            Some(size) => {
                let stated = descriptor.size;
                Err(Error::mismatch(format_args!("it has {size} bytes, but its descriptor says {stated}")).frame(name))
            }
        }
    }

    /// Reads and verifies a document; `None` when it is not there.
    fn document(&mut self, role: Role, descriptor: &Descriptor, limit: u64) -> Result<Option<Vec<u8>>> {
        if !self.describes(role, descriptor)? {
            return Ok(None);
        }
        let name = self.shelf.name(role, &descriptor.digest);
        let Some(bytes) = self.shelf.read(role, descriptor, limit)? else { return Ok(None) };
        self.count(bytes.len() as u64)?;
        let mut digester = Digester::new(descriptor.digest.algorithm());
        digester.update(&bytes);
        let found = digester.finish();
        if found != descriptor.digest {
            return Err(Error::mismatch(format_args!("its digest is {found}, expected {}", descriptor.digest)).frame(name));
        }
        Ok(Some(bytes))
    }

    /// All metadata together has a budget, since all of it is kept.
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.metadata += bytes;
        if self.metadata > self.opening.ctx.limits.metadata {
            let limit = self.opening.ctx.limits.metadata;
            return Err(Error::limit(format_args!("manifests, indexes and configs have more than {limit} bytes together"))
                .hint("choose an image, or raise --limit metadata=BYTES"));
        }
        Ok(())
    }

    fn json(&self, bytes: u64) -> JsonLimits {
        JsonLimits { bytes, depth: self.opening.ctx.limits.json_depth }
    }

    fn missing(&self, digest: &Digest) -> Error {
        Error::not_found("it is missing").frame(self.shelf.name(Role::Blob, digest))
    }

    /// Passes an error on, or notes it and goes on where the caller asked for that.
    pub(crate) fn tolerate<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        self.opening.tolerate(result, &mut self.catalog.findings)
    }
}

/// How many nodes a tree has, and how many levels below its top.
fn extent(content: &Content) -> (usize, usize) {
    let Content::Index { nodes, .. } = content else { return (1, 0) };
    nodes.iter().map(|node| extent(&node.content)).fold((1, 0), |(all, deepest), (nodes, height)| (all + nodes, deepest.max(height + 1)))
}

#[cfg(test)]
mod tests {
    use longshore_testkit::images::{Image, Layer as TestLayer, Layout};

    use super::*;
    use crate::error::ErrorKind;
    use crate::testing::{app, layout, source, tolerant};

    /// Indexes that list each other, `width` times at each of `height` levels, above one image.
    fn tower(width: usize, height: usize) -> Layout {
        let mut layout = Layout::new();
        let mut top = layout.image(&app(""));
        for _ in 0..height {
            top = layout.index(&vec![top; width]);
        }
        layout.root(top, Some("a:1"));
        layout
    }

    #[test]
    fn trees_that_are_listed_again_count_again() {
        let dir = tempfile::tempdir().unwrap();
        let opened = layout(dir.path(), "small", &tower(3, 3));
        assert_eq!(opened.catalog().roots[0].node.images().len(), 27);
        // 100^6 nodes, in some hundred kilobytes.
        tower(100, 6).archive().write_dir(&dir.path().join("wide"));
        let error = source(dir.path().join("wide").to_str().unwrap()).map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("more than 10000 manifests"), "{error}");
    }

    #[test]
    fn a_tree_that_is_known_already_is_as_deep_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        // Each level is read first by itself, so that the one above finds it known.
        let mut layout = Layout::new();
        let mut top = layout.image(&app(""));
        for _ in 0..20 {
            top = layout.index(&[top]);
            layout.root(top.clone(), None);
        }
        layout.archive().write_dir(&dir.path().join("deep"));
        let error = source(dir.path().join("deep").to_str().unwrap()).map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("nested more than 16 deep"), "{error}");
        assert!(error.to_string().contains("manifests[16]"), "{error}");
    }

    #[test]
    fn what_is_missing_below_an_index_is_unread_and_at_the_top_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut multi = Layout::new();
        let (here, missing) = (multi.image(&app("")), multi.image(&app("").platform("linux/arm64")));
        let index = multi.index(&[here, missing.clone()]);
        multi.root(index, Some("a:1"));
        let name = format!("blobs/{}", missing["digest"].as_str().unwrap().replace(':', "/"));
        multi.archive().without(&name).write_dir(&dir.path().join("below"));
        let opened = source(dir.path().join("below").to_str().unwrap()).unwrap();
        let Content::Index { nodes, .. } = &opened.catalog().roots[0].node.content else { panic!("an index") };
        assert!(matches!(nodes[1].content, Content::Unread));

        multi.root(missing, Some("b:1"));
        multi.archive().without(&name).write_dir(&dir.path().join("top"));
        let path = dir.path().join("top");
        let error = source(path.to_str().unwrap()).map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("manifests[1]"), "{error}");
        // What is picked is read, and nothing else.
        assert!(source(&format!("oci:{}:a:1", path.display())).is_ok());
        let opened = tolerant(path.to_str().unwrap()).unwrap();
        assert_eq!((opened.catalog().roots.len(), opened.catalog().findings.len()), (1, 1));
    }

    #[test]
    fn documents_are_verified_and_blobs_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let image =
            Image::new("a:1").with(TestLayer::new("a=1")).with(TestLayer::new("b=2").packed(longshore_testkit::facts::Packing::Zstd));
        let archive = Layout::of(std::slice::from_ref(&image)).archive();
        let blob = |digest: String| format!("blobs/{}", digest.replace(':', "/"));
        let config = blob(image.id());
        let plain = blob(image.layers[0].diff_id());
        let flipped = |name: &str| {
            let mut archive = archive.clone();
            archive.member(name).data[5] ^= 1;
            archive
        };
        let shorter = archive.clone().edit(&config, |config| config["os"] = "l".into());
        for (at, (broken, kind, says)) in [
            (flipped(&config), ErrorKind::Mismatch, "its digest is"),
            (shorter, ErrorKind::Mismatch, "but its descriptor says"),
            (archive.clone().without(&plain), ErrorKind::NotFound, "layers[0]"),
            (archive.clone().without(&config), ErrorKind::NotFound, "it is missing"),
            (archive.clone().without("oci-layout"), ErrorKind::NotFound, "oci-layout: it is missing"),
        ]
        .into_iter()
        .enumerate()
        {
            let path = dir.path().join(format!("broken-{at}"));
            broken.write_dir(&path);
            let error = source(&format!("oci:{}", path.display())).map(drop).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(says), "{error}");
        }
        // The bytes of a layer are nobody's business yet.
        flipped(&plain).write_dir(&dir.path().join("layer"));
        let opened = source(dir.path().join("layer").to_str().unwrap()).unwrap();
        assert_eq!(opened.catalog().blobs.iter().map(|blob| blob.compression).collect::<Vec<_>>(), [Compression::None, Compression::Zstd]);
    }

    #[test]
    fn a_layer_that_an_artifact_has_too_is_a_layer() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::new("").with(TestLayer::new("a=1").packed(longshore_testkit::facts::Packing::Gzip));
        let artifact = image.clone().edit_manifest(|manifest| manifest["config"]["mediaType"] = "application/x".into());
        for (name, order) in [("first", [&artifact, &image]), ("last", [&image, &artifact])] {
            let mut mixed = Layout::new();
            for image in order {
                let listed = mixed.image(image);
                mixed.root(listed, None);
            }
            let opened = layout(dir.path(), name, &mixed);
            let layers: Vec<_> = opened.catalog().blobs.iter().filter(|blob| blob.known.diff_id.is_some()).collect();
            assert_eq!(layers.len(), 1);
            assert_eq!(layers[0].compression, Compression::Gzip, "the artifact comes {name}");
            assert!(layers[0].place.starts_with("layer "), "{}", layers[0].place);
        }
    }

    #[test]
    fn a_plain_layer_under_another_digest_than_its_diff_id_is_seen_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::new("a:1").with(TestLayer::new("a=1").stored(TestLayer::new("a=2").tar));
        Layout::of(&[image]).archive().write_dir(&dir.path().join("in"));
        let error = source(dir.path().join("in").to_str().unwrap()).map(drop).unwrap_err();
        assert!(error.to_string().contains("its digest would be its diff ID"), "{error}");
    }
}

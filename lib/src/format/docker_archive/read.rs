//! Reads docker-archives of every dialect.
//!
//! The archive manifest says what the images are. Where there is an OCI layout beside it (Docker 25 and later), that is read too, since it
//! has what the archive manifest cannot hold: manifests, annotations, indexes, artifacts. The two are matched by image ID.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::NAME;
use crate::catalog::{Blob, BlobId, Catalog, Content, Image, Known, Layer, Lineage, Name, Node, Root};
use crate::compress::Compression;
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, Result};
use crate::format::files::{ArchiveFiles, FileSource, Files, Named};
use crate::format::oci_layout::{blob_name, check_version, read_index};
use crate::reference::Reference;
use crate::source::{Pick, Source};
use crate::spec::{ArchiveImage, ArchiveManifest, Config, Descriptor, JsonLimits, Raw};
use crate::tar::RootPath;
use crate::tree::{Opening, TreeReader, is_called, narrow, not_found};

pub(super) fn open(files: ArchiveFiles, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    let bytes = files_dyn(&files).read("manifest.json", opening.ctx.limits.manifest)?;
    let limits = JsonLimits { bytes: opening.ctx.limits.manifest, depth: opening.ctx.limits.json_depth };
    let manifest = Raw::<ArchiveManifest>::parse(bytes, &limits).map_err(|e| Error::from(e).frame("manifest.json"))?;

    let (catalog, names) = if files.has("index.json") && files.has("oci-layout") {
        let everything = Opening { pick: None, ..*opening };
        let shelf = Named { files: &files, naming: blob_name };
        let mut tree = TreeReader::new(&shelf, &everything);
        let read = check_version(&files, &opening.ctx.limits).and_then(|()| read_index(&files, &mut tree, &everything).map(drop));
        opening.tolerate(read, &mut tree.catalog.findings)?;
        let mut left_out = Vec::new();
        tree.catalog.roots.iter_mut().for_each(|root| forget_unread(&mut root.node, &mut left_out));
        if !left_out.is_empty() {
            let left_out = left_out.join(", ");
            tree.catalog
                .warnings
                .push(format!("an index lists what docker save left out of the archive, and so does the copy: {left_out}"));
        }
        (tree.catalog, tree.names)
    } else {
        (Catalog::default(), Vec::new())
    };

    let mut reader = Reader::new(&files, opening, catalog, names)?;
    for (position, entry) in manifest.iter().enumerate() {
        let read = reader.entry(entry).context(|| format!("manifest.json: image {position}"));
        opening.tolerate(read, &mut reader.catalog.findings)?;
    }
    reader.forget_unnamed_twins();
    reader.catalog.archive_manifest = Some(manifest.shared());
    let (mut catalog, names) = (reader.catalog, reader.names);
    let mut others = Vec::new();
    if let Some(Pick::Name(wanted)) = opening.pick {
        let called = |root: &Root| root.name.as_ref().is_some_and(|name| is_called(name, wanted));
        if !catalog.roots.iter().any(called) {
            return Err(not_found(&catalog.roots, wanted));
        }
        (catalog.roots, others) = std::mem::take(&mut catalog.roots).into_iter().partition(called);
    }
    narrow(&mut catalog, opening, others)?;
    Ok(Arc::new(FileSource { files: Box::new(files), names, catalog, format: NAME }))
}

/// Docker saves the whole index of an image, and of its manifests only those that it has: the rest is not missed.
fn forget_unread(node: &mut Node, left_out: &mut Vec<String>) {
    let Content::Index { nodes, .. } = &mut node.content else { return };
    let mut kept = Vec::with_capacity(nodes.len());
    for node in nodes.iter() {
        if matches!(node.content, Content::Unread) {
            let Some(descriptor) = &node.descriptor else { continue };
            left_out.push(descriptor.platform.as_ref().map_or_else(|| descriptor.digest.to_string(), ToString::to_string));
            continue;
        }
        let mut node = node.clone();
        forget_unread(&mut node, left_out);
        kept.push(node);
    }
    *nodes = kept.into();
}

/// What an image was built on: its base's layers lie in other folders than the one that is named as the config. Layers that are not called
/// by their diff IDs keep their names.
fn lineage(entry: &ArchiveImage, config_name: &str, config: &Config) -> Option<Lineage> {
    let own = config_name.strip_suffix(".json").unwrap_or(config_name);
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let members: Vec<_> = entry.layers.iter().filter_map(|layer| clean(layer).ok()).collect();
    let split: Vec<_> = members.iter().filter_map(|member| member.rsplit_once('/')).collect();
    let of_base = split.iter().take_while(|(folder, _)| *folder != own).count();
    // Other names could be those of other members.
    let bazels = split.len() == config.diff_ids().len()
        && split[..of_base].iter().all(|(folder, _)| is_id(folder))
        && split[of_base..].iter().all(|(folder, _)| *folder == own);
    let (mut folders, mut names) = (Vec::new(), Vec::new());
    if bazels {
        folders.extend(split[..of_base].iter().map(|(folder, _)| (*folder).to_owned()));
        names.extend(split.iter().map(|(_, name)| {
            let stem = name.strip_suffix(".tar").unwrap_or(name);
            (!stem.is_empty() && !is_id(stem)).then(|| stem.to_owned())
        }));
    }
    // Only Bazel names a folder as the config and puts layers of any name into it.
    let of_bazel = entry.parent.is_some() || (folders.is_empty() && names.iter().any(Option::is_some));
    of_bazel.then(|| Lineage { parent: entry.parent.clone(), folders, names, legacy: Vec::new() })
}

fn files_dyn(files: &ArchiveFiles) -> &dyn Files {
    files
}

struct Reader<'a> {
    files: &'a ArchiveFiles,
    opening: &'a Opening<'a>,
    /// Images that are there already, by image ID.
    images: HashMap<Digest, usize>,
    /// Blobs by where their bytes begin, so that a linked layer is one blob.
    blobs: BTreeMap<u64, BlobId>,
    /// The first node of each image that has one, and the names that lead to it.
    nodes: HashMap<usize, Node>,
    named: HashSet<(usize, Name)>,
    metadata: u64,
    catalog: Catalog,
    names: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Goes on from what the OCI layout of the archive holds.
    fn new(files: &'a ArchiveFiles, opening: &'a Opening<'a>, catalog: Catalog, names: Vec<String>) -> Result<Self> {
        let images = catalog.images.iter().enumerate().map(|(at, image)| (*image.id(), at)).collect();
        let (mut nodes, mut named) = (HashMap::new(), HashSet::new());
        for root in &catalog.roots {
            for id in root.node.images() {
                nodes.entry(id.0).or_insert_with(|| root.node.clone());
                named.extend(root.name.clone().map(|name| (id.0, name)));
            }
        }
        let mut blobs = BTreeMap::new();
        for (at, name) in names.iter().enumerate() {
            // An artifact's bytes are no layer.
            if catalog.blobs[at].known.diff_id.is_some() {
                blobs.insert(files.open(name).context(|| name)?.1.start, BlobId(at));
            }
        }
        Ok(Self { files, opening, images, blobs, nodes, named, metadata: 0, catalog, names })
    }

    /// Reads one image of the archive manifest, and gives it its names.
    fn entry(&mut self, entry: &ArchiveImage) -> Result<()> {
        let name = clean(&entry.config)?;
        let limits = &self.opening.ctx.limits;
        let bytes = files_dyn(self.files).read(&name, limits.config).context(|| "config")?;
        self.metadata += bytes.len() as u64;
        if self.metadata > limits.metadata {
            return Err(Error::limit(format_args!("configs have more than {} bytes together", limits.metadata)));
        }
        let json = JsonLimits { bytes: limits.config, depth: limits.json_depth };
        let config = Raw::<Config>::parse(bytes, &json).map_err(|e| Error::from(e).frame(format_args!("config {name}")))?;
        self.warn_of_misnamed(&name, config.digest());

        let layers = self.layers(entry, &name, &config)?;
        let at = match self.images.get(config.digest()) {
            Some(at) => *at,
            None => {
                let lineage = lineage(entry, &name, &config);
                let image = Image { manifest: None, config: config.clone(), layers, legacy: None, lineage };
                let at = self.catalog.add_image(image).0;
                self.images.insert(*config.digest(), at);
                at
            }
        };
        self.name(at, entry)
    }

    /// Finds the layers of an image, also where the OCI layout has the image: engines differ in which of the two they read, so both must hold.
    fn layers(&mut self, entry: &ArchiveImage, config_name: &str, config: &Raw<Config>) -> Result<Vec<Layer>> {
        let (listed, diff_ids) = (entry.layers.len(), config.rootfs.diff_ids.len());
        if listed != diff_ids {
            return Err(Error::invalid(format_args!("it lists {listed} layers, but config {config_name} has {diff_ids} diff IDs")));
        }
        if listed > self.opening.ctx.limits.layers {
            return Err(Error::limit(format_args!("it has {listed} layers, more than {}", self.opening.ctx.limits.layers)));
        }
        let mut layers = Vec::with_capacity(listed);
        for (position, (layer, diff_id)) in entry.layers.iter().zip(&config.rootfs.diff_ids).enumerate() {
            let source = entry.layer_sources.as_ref().and_then(|sources| sources.get(diff_id));
            let found = clean(layer).and_then(|name| Ok((self.files.size(&name)?, name))).context(|| format!("layer {position}"))?;
            let mut missing = None;
            let blob = match found {
                (Some(size), name) => Some(self.blob(&name, size, *diff_id).context(|| format!("layer {position}"))?),
                // Docker 25 and later lists a source for every layer; only a foreign one may be elsewhere.
                (None, _) if source.and_then(Descriptor::layer_media).is_some_and(|media| media.foreign) => None,
                (None, name) if self.opening.missing_layers && !name.is_empty() => {
                    missing = Some(format!("{name} of manifest.json"));
                    None
                }
                (None, name) => {
                    let hint = "of a partial archive: name that of its base as another source, or use --allow-missing-layers";
                    return Err(Error::not_found("it is missing").hint(hint).frame(format_args!("layer {position}: member {name}")));
                }
            };
            layers.push(Layer { diff_id: *diff_id, blob, descriptor: source.cloned(), missing });
        }
        Ok(layers)
    }

    fn blob(&mut self, name: &str, size: u64, diff_id: DiffId) -> Result<BlobId> {
        let (_, range) = self.files.open(name).context(|| name)?;
        if let Some(id) = self.blobs.get(&range.start) {
            if self.catalog.blob(*id).known.diff_id != Some(diff_id) {
                return Err(Error::invalid(format_args!("member {name} is listed with two different diff IDs")));
            }
            return Ok(*id);
        }
        let compression = files_dyn(self.files).compression(name)?;
        // A plain layer's digest is its diff ID; the digest of a compressed one is stated nowhere.
        let digest = (compression == Compression::None).then_some(diff_id.0);
        let known = Known { size: Some(size), digest, diff_id: Some(diff_id) };
        let id = self.catalog.add_blob(Blob { known, compression, place: format!("layer {name}") });
        self.names.push(name.to_owned());
        // Two empty files may begin at one place, and they are the same.
        self.blobs.insert(range.start, id);
        Ok(id)
    }

    /// Adds a root for each tag, unless the OCI layout has it already.
    fn name(&mut self, image: usize, entry: &ArchiveImage) -> Result<()> {
        let id = crate::catalog::ImageId(image);
        let held = self.nodes.get(&image).cloned();
        let node = held.clone().unwrap_or(Node { descriptor: None, content: Content::Image(id) });
        self.nodes.entry(image).or_insert_with(|| node.clone());
        let tags = entry.repo_tags.as_deref().unwrap_or_default();
        for tag in tags {
            let reference = Reference::parse(tag).map_err(|e| Error::invalid(e).frame("RepoTags"))?;
            if reference.digest().is_some() {
                return Err(Error::invalid(format_args!("{} has a digest where a tag belongs", tag.escape_debug())).frame("RepoTags"));
            }
            let name = Name::Reference(reference.with_default_tag());
            if self.named.insert((image, name.clone())) {
                self.root(Some(name), node.clone())?;
            }
        }
        if tags.is_empty() && held.is_none() {
            self.root(None, node)?;
        }
        Ok(())
    }

    fn root(&mut self, name: Option<Name>, node: Node) -> Result<()> {
        let limit = self.opening.ctx.limits.nodes;
        if self.catalog.roots.len() >= limit {
            return Err(Error::limit(format_args!("there are more than {limit} names and images without a name")));
        }
        self.catalog.roots.push(Root { name, node });
        Ok(())
    }

    /// Drops roots without a name of what also has one: an archive manifest and an index that tell of the same image.
    fn forget_unnamed_twins(&mut self) {
        let identity = |root: &Root| self.catalog.identity(&root.node);
        let named: HashSet<_> = self.catalog.roots.iter().filter(|root| root.name.is_some()).map(identity).collect();
        let keep: Vec<bool> = self.catalog.roots.iter().map(|root| root.name.is_some() || !named.contains(&identity(root))).collect();
        let mut keep = keep.into_iter();
        self.catalog.roots.retain(|_| keep.next().unwrap_or(true));
    }

    /// Writers name configs by their digest; another digest is odd, and harmless as long as nobody relies on it.
    fn warn_of_misnamed(&mut self, name: &str, digest: &Digest) {
        let stem = name.rsplit('/').next().unwrap_or(name);
        let stem = stem.strip_suffix(".json").or_else(|| stem.strip_prefix("sha256:")).unwrap_or(stem);
        if stem.len() == 64 && stem.bytes().all(|c| c.is_ascii_hexdigit()) && stem != digest.hex() {
            self.catalog.warnings.push(format!("config {name} is named like a digest, but its digest is {digest}"));
        }
    }
}

/// The clean name of a member that the archive manifest names.
fn clean(name: &str) -> Result<String> {
    let shown = || name.escape_debug().to_string();
    let path = RootPath::parse_member(name.as_bytes()).map_err(|e| Error::invalid(e).frame(shown()))?;
    String::from_utf8(path.as_bytes().to_vec()).map_err(|_| Error::invalid("it is not UTF-8").frame(shown()))
}

#[cfg(test)]
mod tests {
    use longshore_testkit::facts::Packing;
    use longshore_testkit::images::{self, Archive, Layer as TestLayer, Layout, docker_archive};
    use longshore_testkit::tar::Member;
    use serde_json::json;

    use super::*;
    use crate::testing::{app, put, source, tolerant};

    fn open(archive: &Archive, pick: &str) -> Result<Arc<dyn Source>> {
        let dir = tempfile::tempdir().unwrap();
        let path = put(dir.path(), "in.tar", archive);
        source(&format!("docker-archive:{path}{pick}"))
    }

    fn refused(archive: &Archive, pick: &str) -> String {
        let error = open(archive, pick).map(drop).unwrap_err();
        format!("{error}{}", error.hint_text().map_or_else(String::new, |hint| format!(" ({hint})")))
    }

    fn names(source: &dyn Source) -> Vec<String> {
        let shown = |root: &Root| root.name.as_ref().map_or_else(|| "-".to_owned(), Name::to_string);
        source.catalog().roots.iter().map(shown).collect()
    }

    #[test]
    fn images_names_and_layers() {
        let packed = |packing| TestLayer::new("a=b").packed(packing);
        let images = [
            app("a:1").name("example.com/x/a"),
            images::Image::new("").with(packed(Packing::Gzip)).with(packed(Packing::Zstd)),
            app("").platform("linux/arm64/v8").with(packed(Packing::Xz)).with(packed(Packing::Bzip2)),
        ];
        let source = open(&docker_archive(&images), "").unwrap();
        let catalog = source.catalog();
        assert_eq!(names(source.as_ref()), ["a:1", "example.com/x/a:latest", "-", "-"]);
        assert_eq!(catalog.entries().len(), 3);
        for (image, made) in catalog.images.iter().zip(&images) {
            assert_eq!(image.id().to_string(), made.id());
            assert_eq!(image.config.bytes(), made.config_bytes());
            assert_eq!(image.platform().to_string(), made.platform);
            assert!(image.manifest.is_none());
        }
        // The plain layers of the first and the third are the same members, and so the same blobs.
        assert_eq!(catalog.blobs.len(), 6);
        assert_eq!(catalog.images[0].layers[1].blob, catalog.images[2].layers[1].blob);
        let compressions: Vec<_> = catalog.blobs.iter().map(|blob| blob.compression.to_string()).collect();
        assert_eq!(compressions, ["none", "none", "gzip", "zstd", "xz", "bzip2"]);
        // A plain layer's digest is its diff ID; that of a compressed one is not known.
        assert!(catalog.blobs.iter().all(|blob| blob.known.digest.is_some() == (blob.compression == Compression::None)));
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut source.open(BlobId(0), 100).unwrap(), &mut bytes).unwrap();
        assert_eq!(bytes, images[0].layers[0].tar[100..]);
    }

    #[test]
    fn links_dots_and_layers_that_come_twice() {
        let image = app("a:1").with(app("").layers[0].clone());
        let archive = docker_archive(&[image]).rename(|name| format!("./{name}"));
        assert_eq!(open(&archive, "").unwrap().catalog().blobs.len(), 2);
        // Docker up to 24: the second of two equal layers is a symlink to the first.
        let layer = TestLayer::new("a=b");
        let config = images::Image::new("").with(layer.clone()).with(layer.clone()).config_bytes();
        let manifest = json!([{ "Config": "c.json", "RepoTags": ["a:1"], "Layers": ["one/layer.tar", "two/layer.tar"] }]);
        let archive = Archive(vec![
            Member::dir("one/"),
            Member::file("one/layer.tar", layer.tar),
            Member::other(b'2', "two/layer.tar", "../one/layer.tar"),
            Member::file("c.json", config),
            Member::file("manifest.json", manifest.to_string()),
        ]);
        let source = open(&archive, "").unwrap();
        assert_eq!(source.catalog().images[0].layers.iter().map(|layer| layer.blob).collect::<Vec<_>>(), [Some(BlobId(0)); 2]);
    }

    #[test]
    fn picks() {
        let archive = docker_archive(&[app("a:1").name("a:2"), app("b").platform("linux/arm64"), app("").platform("linux/s390x")]);
        let id = app("b").platform("linux/arm64").id();
        for (pick, expected) in [
            (":a:1", &["a:1"][..]),
            (":docker.io/library/a:2", &["a:2"]),
            (":b", &["b:latest"]),
            (":@0", &["a:1", "a:2"]),
            (":@2", &["-"]),
            (&format!(":@{id}"), &["b:latest"]),
        ] {
            assert_eq!(names(open(&archive, pick).unwrap().as_ref()), expected, "{pick}");
        }
        for (pick, says) in [
            (":a", "there is no image a (did you mean a:1 or a:2?)"),
            (":other", "there is no image other (there are a:1, a:2, b:latest, an image without a name)"),
            (":@3", "there is no image @3 (there are @0 to @2)"),
            (&format!(":@{}", Digest::of(b"")), "there is no image @sha256:e3b0"),
            (":", "an empty image name"),
            (":@x", "not a digest"),
        ] {
            let error = refused(&archive, pick);
            assert!(error.contains(says), "{pick}: {error}");
        }
    }

    #[test]
    fn a_layout_beside_the_archive_manifest_gives_manifests_and_more() {
        let image = app("a:1").annotate("k", "v");
        let mut layout = Layout::new();
        let descriptor = layout.image(&image);
        layout.artifact("application/x", "signed", Some(&descriptor));
        layout.root(descriptor.clone(), None);
        let signature = layout.artifact("application/x", "signed", Some(&descriptor));
        layout.root(signature, None);
        let blob = |bytes: &[u8]| format!("blobs/{}", longshore_testkit::digest(bytes).replace(':', "/"));
        let layers: Vec<_> = image.layers.iter().map(|layer| blob(&layer.bytes())).collect();
        let manifest = json!([{ "Config": blob(&image.config_bytes()), "RepoTags": ["a:1", "b:2"], "Layers": layers }]);
        let both = layout.archive().plus(Member::file("manifest.json", manifest.to_string()));
        let source = open(&both, "").unwrap();
        let catalog = source.catalog();
        assert_eq!((catalog.images.len(), catalog.blobs.len()), (1, 4));
        assert_eq!(catalog.images[0].manifest.as_ref().unwrap().1.annotations["k"], "v");
        // The nameless root of the layout is the same image, and the archive manifest has its names.
        assert_eq!(names(source.as_ref()), ["-", "a:1", "b:2"]);
        assert!(matches!(catalog.roots[0].node.content, Content::Artifact { .. }));
        // Where the two disagree, one of them is wrong.
        let error = refused(&both.clone().edit("manifest.json", |manifest| manifest[0]["Layers"] = json!([])), "");
        assert!(error.contains("it lists 0 layers"), "{error}");
        let broken = both.replace("index.json", "[]");
        assert!(refused(&broken, "").contains("index.json"));
        let dir = tempfile::tempdir().unwrap();
        let source = tolerant(&put(dir.path(), "in.tar", &broken)).unwrap();
        assert_eq!((source.catalog().findings.len(), names(source.as_ref())), (1, vec!["a:1".to_owned(), "b:2".to_owned()]));
    }

    #[test]
    fn foreign_layers_keep_their_descriptor() {
        let archive = docker_archive(&[app("a:1")]);
        let layer = format!("{}.tar", longshore_testkit::hex(&app("").layers[1].bytes()));
        let diff_id = app("").layers[1].diff_id();
        let source = json!({ "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar", "digest": diff_id, "size": 3, "urls": ["https://example.com"] });
        let archive = archive.without(&layer).edit("manifest.json", |manifest| manifest[0]["LayerSources"] = json!({ diff_id: source }));
        let opened = open(&archive, "").unwrap();
        let foreign = &opened.catalog().images[0].layers[1];
        assert_eq!((foreign.blob, foreign.descriptor.as_ref().unwrap().urls.len()), (None, 1));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let archive = docker_archive(&[app("a:1")]);
        let config = format!("{}.json", longshore_testkit::hex(&app("").config_bytes()));
        let layer = format!("{}.tar", longshore_testkit::hex(&app("").layers[0].bytes()));
        let edited = |key: &str, value: serde_json::Value| archive.clone().edit("manifest.json", |manifest| manifest[0][key] = value);
        for (broken, says) in [
            (archive.clone().without(&config), "manifest.json: image 0: config"),
            (archive.clone().without(&layer), "manifest.json: image 0: layer 0"),
            (archive.clone().replace(&config, "{"), "manifest.json: image 0: config"),
            (edited("RepoTags", json!(["A:1"])), "RepoTags: reference \"A:1\""),
            (edited("RepoTags", json!([format!("a@{}", Digest::of(b""))])), "has a digest where a tag belongs"),
            (edited("Layers", json!([layer])), "it lists 1 layers, but config"),
            (edited("Layers", json!([layer, layer])), "is listed with two different diff IDs"),
            (edited("Layers", json!([layer, "manifest.json/x"])), "layer 1"),
            (archive.clone().replace("manifest.json", "[]"), "manifest.json: expected at least one image"),
        ] {
            let error = refused(&broken, "");
            assert!(error.contains(says), "expected {says:?}, found {error:?}");
        }
        // `check` says all of it and goes on.
        let dir = tempfile::tempdir().unwrap();
        let two = docker_archive(&[app("a:1"), app("b:1").platform("linux/arm64")]).without(&config);
        let opened = tolerant(&put(dir.path(), "in.tar", &two)).unwrap();
        assert_eq!((opened.catalog().images.len(), opened.catalog().findings.len()), (1, 1));
    }

    #[test]
    fn a_config_under_a_foreign_digest_is_odd_but_taken() {
        let config = format!("{}.json", longshore_testkit::hex(&app("").config_bytes()));
        let archive = docker_archive(&[app("a:1")]);
        assert!(open(&archive, "").unwrap().catalog().warnings.is_empty());
        let other = format!("{}.json", "0".repeat(64));
        let renamed = archive.rename(|name| if name == config { other.clone() } else { name.to_owned() });
        let renamed = renamed.edit("manifest.json", |manifest| manifest[0]["Config"] = json!(other));
        assert!(open(&renamed, "").unwrap().catalog().warnings[0].contains("named like a digest"));
    }
}

//! Makes the metadata of an output from what was written: a pure function.
//!
//! A manifest or index stays byte for byte when nothing below it changed, so that its digest survives. Otherwise it is edited: what must
//! change changes, and every other key keeps its text. The config comes with the plan: it is the source's, or what an operation made of it.

use std::collections::HashSet;

use crate::catalog::Known;
use crate::compress::Compression;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::plan::{Plan, PlannedImage, PlannedLayer, PlannedNode};
use crate::sink::{ManifestTypes, Sealed, SealedImage, SealedJson, SealedLayer, SealedRoot, Written};
use crate::spec::media::{layer_media, parse_layer_media};
use crate::spec::{Descriptor, LayerFamily, Manifest, ManifestKind, Object};

/// Annotations of layers that tell of offsets in the compressed bytes: wrong once these are others.
const OFFSETS: [&str; 3] = ["containerd.io/snapshot/stargz/", "io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."];

/// Seals a plan whose blobs were written as `written` says.
///
/// # Errors
/// When a document cannot be edited, which means that it is malformed.
pub fn seal(plan: &Plan, written: &[Written]) -> Result<Sealed> {
    let mut sealer =
        Sealer { plan, written, sealed: Sealed { blobs: written.to_vec(), ..Sealed::default() }, seen: HashSet::new(), images: Vec::new() };
    for image in &plan.images {
        sealer.image(image)?;
    }
    for root in &plan.roots {
        let descriptor = sealer.node(&root.node)?;
        sealer.sealed.roots.push(SealedRoot { descriptor, name: root.name.clone() });
    }
    sealer.sealed.index = plan.index.clone();
    Ok(sealer.sealed)
}

struct Sealer<'a> {
    plan: &'a Plan,
    written: &'a [Written],
    sealed: Sealed,
    /// Documents that are there.
    seen: HashSet<Digest>,
    /// Media type, digest and size of each image's manifest.
    images: Vec<(String, Digest, u64)>,
}

impl Sealer<'_> {
    fn document(&mut self, digest: Digest, bytes: impl Into<std::sync::Arc<[u8]>>) {
        if self.seen.insert(digest) {
            self.sealed.documents.push(SealedJson { bytes: bytes.into(), digest });
        }
    }

    /// A config or manifest: its descriptor is all that the parent needs.
    fn image(&mut self, image: &PlannedImage) -> Result<()> {
        self.document(*image.config.digest(), image.config.shared());
        let kept = image.manifest.as_ref().filter(|(_, raw)| !image.retyped && self.unchanged(image, raw));
        let (media_type, bytes, digest) = match (kept, &image.manifest) {
            (Some((media_type, raw)), _) => (media_type.clone(), raw.shared(), *raw.digest()),
            (None, manifest) => {
                let layers = self.layers(image)?;
                let (media_type, bytes) = match manifest {
                    Some((_, raw)) => edited(image, Object::parse(raw.bytes())?, &layers),
                    None => edited(image, new_manifest(image), &layers),
                };
                let digest = Digest::of(&bytes);
                (media_type, bytes.into(), digest)
            }
        };
        let layers = match kept {
            Some((_, raw)) => raw.layers.clone(),
            None => self.layers(image)?,
        };
        self.images.push((media_type, digest, bytes.len() as u64));
        if self.plan.accepts.manifests != ManifestTypes::None {
            self.document(digest, bytes);
        }
        let layers = layers.into_iter().zip(&image.layers);
        let layers = layers
            .map(|(descriptor, layer)| SealedLayer { descriptor, diff_id: layer.diff_id, blob: layer.blob, missing: layer.missing })
            .collect();
        self.sealed.images.push(SealedImage { config: image.config.clone(), layers, references: image.references.clone() });
        Ok(())
    }

    /// Whether the config is the manifest's, and every layer was written as the manifest lists it.
    fn unchanged(&self, image: &PlannedImage, manifest: &Manifest) -> bool {
        let listed = |(layer, of_manifest): (&PlannedLayer, &Descriptor)| match (layer.blob, &layer.descriptor) {
            (Some(blob), Some(_)) => (self.written[blob].digest, self.written[blob].size) == (of_manifest.digest, of_manifest.size),
            (None, Some(listed)) => listed.digest == of_manifest.digest,
            (_, None) => false,
        };
        let layers = image.layers.len() == manifest.layers.len() && image.layers.iter().zip(&manifest.layers).all(listed);
        layers && manifest.config.digest == *image.config.digest()
    }

    /// The layers as the manifest will list them.
    fn layers(&self, image: &PlannedImage) -> Result<Vec<Descriptor>> {
        image.layers.iter().map(|layer| self.layer(layer, image.family)).collect()
    }

    fn layer(&self, layer: &PlannedLayer, family: LayerFamily) -> Result<Descriptor> {
        let listed_media = layer.descriptor.as_ref().and_then(|listed| parse_layer_media(&listed.media_type));
        let foreign = listed_media.is_some_and(|media| media.foreign);
        if layer.missing {
            let media = layer_media(family, "none", false).ok_or_else(|| Error::unsupported("no media type for plain layers"))?;
            return Ok(Descriptor::new(media, layer.diff_id.0, 0));
        }
        let (Some(blob), listed) = (layer.blob, &layer.descriptor) else {
            let listed = layer.descriptor.clone().ok_or_else(|| Error::invalid("a layer without bytes and without a descriptor"))?;
            let name = listed_media.map_or("none", |media| media.compression.name());
            return retyped(&listed, family, name, true);
        };
        let written = &self.written[blob];
        let name = match written.compression {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            other => return Err(Error::unsupported(format_args!("no manifest can say that a layer is {other}"))),
        };
        match listed {
            // Copied, also where its media type is wrong about the compression (podman's docker-dir): right it.
            Some(listed) if listed.digest == written.digest => retyped(listed, family, name, foreign),
            Some(listed) => {
                let mut object = retyped(listed, family, name, false)?.edit();
                object.set("digest", written.digest).set("size", written.size);
                object.remove("urls");
                object.remove("data");
                let mut annotations = listed.annotations.clone();
                annotations.retain(|key, _| !OFFSETS.iter().any(|prefix| key.starts_with(prefix)));
                if annotations.is_empty() {
                    object.remove("annotations");
                } else {
                    object.set("annotations", annotations);
                }
                Ok(Descriptor::try_from(&object)?)
            }
            None => {
                let media =
                    layer_media(family, name, false).ok_or_else(|| Error::unsupported(format_args!("no media type for {name} layers")))?;
                Ok(Descriptor::new(media, written.digest, written.size))
            }
        }
    }

    /// The descriptor of a node, as its parent will list it; documents on the way are kept.
    fn node(&mut self, node: &PlannedNode) -> Result<Descriptor> {
        match node {
            PlannedNode::Image { image, descriptor } => {
                let (media_type, digest, size) = self.images[*image].clone();
                match descriptor {
                    Some(listed) => described(listed, &media_type, digest, size),
                    None => Ok(Descriptor::new(media_type, digest, size)),
                }
            }
            PlannedNode::Artifact { manifest, descriptor } => {
                if let Some(raw) = manifest {
                    self.document(*raw.digest(), raw.shared());
                }
                Ok(descriptor.clone())
            }
            PlannedNode::Index { raw, descriptor, nodes } => {
                let listed = nodes.iter().map(|node| self.node(node)).collect::<Result<Vec<_>>>()?;
                if listed == raw.manifests {
                    self.document(*raw.digest(), raw.shared());
                    return Ok(descriptor.clone());
                }
                let mut object = Object::parse(raw.bytes())?;
                object.set("manifests", &listed);
                // A list of Docker's may only hold Docker's manifests.
                let oci = listed
                    .iter()
                    .any(|child| ManifestKind::from_media_type(&child.media_type).is_some_and(|kind| kind.family() == LayerFamily::Oci));
                let retyped = self.plan.images.iter().any(|image| image.retyped);
                let media_type = match (oci, retyped) {
                    (true, _) => LayerFamily::Oci.index().media_type(),
                    (false, true) => LayerFamily::Docker.index().media_type(),
                    (false, false) => descriptor.media_type.as_str(),
                };
                if object.contains("mediaType") || oci || retyped {
                    object.set("mediaType", media_type);
                }
                let bytes = object.to_vec();
                let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
                self.document(digest, bytes);
                described(descriptor, media_type, digest, size)
            }
        }
    }
}

/// A descriptor that describes something else now, with its annotations and unknown keys.
fn described(listed: &Descriptor, media_type: &str, digest: Digest, size: u64) -> Result<Descriptor> {
    if (listed.media_type.as_str(), listed.digest, listed.size) == (media_type, digest, size) {
        return Ok(listed.clone());
    }
    let mut object = listed.edit();
    object.set("mediaType", media_type).set("digest", digest).set("size", size);
    object.remove("data");
    Ok(Descriptor::try_from(&object)?)
}

/// A layer's descriptor with the media type of another family or compression.
fn retyped(listed: &Descriptor, family: LayerFamily, compression: &str, foreign: bool) -> Result<Descriptor> {
    let media = layer_media(family, compression, foreign)
        .ok_or_else(|| Error::unsupported(format_args!("no media type for {compression} layers like {}", listed.media_type)))?;
    described(listed, media, listed.digest, listed.size)
}

/// A manifest with nothing but what it must have.
fn new_manifest(image: &PlannedImage) -> Object {
    let mut object = Object::new();
    object.set("schemaVersion", 2).set("mediaType", manifest_type(image.family));
    object.set("config", Descriptor::new(image.family.config(), *image.config.digest(), image.config.size()));
    object
}

fn manifest_type(family: LayerFamily) -> &'static str {
    family.manifest().media_type()
}

/// A manifest with these layers, of the image's family.
fn edited(image: &PlannedImage, mut object: Object, layers: &[Descriptor]) -> (String, Vec<u8>) {
    let media_type = manifest_type(image.family);
    // OCI manifests may do without; Docker's may not.
    if object.contains("mediaType") || image.family == LayerFamily::Docker {
        object.set("mediaType", media_type);
    }
    if let Some((_, raw)) = &image.manifest {
        let mut config = raw.config.edit();
        config.set("mediaType", image.family.config());
        if raw.config.digest != *image.config.digest() {
            config.set("digest", image.config.digest()).set("size", image.config.size());
            config.remove("data");
        }
        object.set("config", config);
    }
    object.set("layers", layers);
    (media_type.to_owned(), object.to_vec())
}

/// What a written blob has to be.
pub(crate) fn agrees(known: &Known, digest: &Digest, size: u64) -> Result<()> {
    if let Some(expected) = known.size.filter(|expected| *expected != size) {
        return Err(Error::mismatch(format_args!("it has {size} bytes, expected {expected}")));
    }
    match &known.digest {
        Some(expected) if expected != digest => Err(Error::mismatch(format_args!("its digest is {digest}, expected {expected}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use longshore_testkit::facts::Packing;
    use longshore_testkit::images::{Image, Layer, Layout};
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::{Compress, ConvertOptions, LayerPlan, convert};
    use crate::spec::media::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
    use crate::testing::{accepts, layout};

    fn plan(dir: &Path, images: &Layout, format: &str, compress: Option<Compress>) -> Plan {
        let source = layout(dir, &format!("in-{}", crate::testing::names(dir).len()), images);
        convert(source.catalog(), &accepts(format), &ConvertOptions { compress, ..ConvertOptions::default() }).unwrap()
    }

    /// What a run would have written: copies as they were, and something new for what is recoded.
    fn written(plan: &Plan) -> Vec<Written> {
        let write = |(at, blob): (usize, &crate::plan::PlannedBlob)| match &blob.action {
            LayerPlan::Copy | LayerPlan::Merge(_) => Written {
                digest: blob.known.digest.unwrap(),
                size: blob.known.size.unwrap(),
                diff_id: blob.known.diff_id,
                compression: blob.compression,
            },
            LayerPlan::Recode(_) => Written {
                digest: Digest::of(&[at as u8]),
                size: 1000 + at as u64,
                diff_id: blob.known.diff_id,
                compression: blob.compression_after(),
            },
        };
        plan.blobs.iter().enumerate().map(write).collect()
    }

    fn sealed(plan: &Plan) -> Sealed {
        seal(plan, &written(plan)).unwrap()
    }

    fn document(sealed: &Sealed, digest: &Digest) -> String {
        let found = sealed.documents.iter().find(|document| document.digest == *digest).expect("it is among the documents");
        assert_eq!(Digest::of(&found.bytes), *digest);
        String::from_utf8(found.bytes.to_vec()).unwrap()
    }

    fn top(sealed: &Sealed) -> Value {
        serde_json::from_str(&document(sealed, &sealed.roots[0].descriptor.digest)).unwrap()
    }

    fn odd(name: &str) -> Image {
        let base = Image::new(name).layer("a=1").with(Layer::new("b=2").packed(Packing::Gzip));
        base.annotate("kept", "<&>").edit_manifest(|manifest| {
            manifest["x-unknown"] = json!({ "z": [1, 2.5] });
            manifest["layers"][0]["x-layer"] = json!("kept");
            manifest["layers"][0]["annotations"] = json!({
                "containerd.io/snapshot/stargz/toc.digest": "sha256:00",
                "io.github.containers.zstd-chunked.manifest-position": "1",
                "own": "kept",
            });
            manifest["layers"][1]["annotations"] = json!({ "containerd.io/snapshot/stargz/toc.digest": "kept" });
            manifest["config"]["x-config"] = json!("kept");
        })
    }

    #[test]
    fn what_does_not_change_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), &Layout::of(&[odd("a:1")]), "oci", Some(Compress::Keep));
        let sealed = sealed(&plan);
        let (_, raw) = plan.images[0].manifest.as_ref().unwrap();
        assert_eq!(document(&sealed, raw.digest()).as_bytes(), raw.bytes());
        assert_eq!(sealed.roots[0].descriptor.digest, *raw.digest());
        assert_eq!(document(&sealed, plan.images[0].config.digest()).as_bytes(), plan.images[0].config.bytes());
        assert_eq!(sealed.documents.len(), 2);
    }

    #[test]
    fn another_config_changes_its_descriptor_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(dir.path(), &Layout::of(&[odd("a:1")]), "oci", Some(Compress::Keep));
        let mut object = Object::parse(plan.images[0].config.bytes()).unwrap();
        object.set("author", "me");
        let limits = crate::spec::JsonLimits::config(&crate::limits::Limits::default());
        plan.images[0].config = crate::spec::Raw::parse(object.to_vec(), &limits).unwrap();
        let sealed = sealed(&plan);
        let (config, (_, raw)) = (&plan.images[0].config, plan.images[0].manifest.as_ref().unwrap());
        let mut expected: Value = serde_json::from_slice(raw.bytes()).unwrap();
        expected["config"]["digest"] = json!(config.digest());
        expected["config"]["size"] = json!(config.size());
        assert_eq!((top(&sealed), document(&sealed, config.digest()).as_bytes()), (expected, config.bytes()));
        assert_eq!(sealed.documents.len(), 2, "the old ones are not among them");
    }

    #[test]
    fn what_changes_keeps_all_other_keys_and_their_text() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), &Layout::of(&[odd("a:1")]), "oci", None);
        let sealed = sealed(&plan);
        let (_, raw) = plan.images[0].manifest.as_ref().unwrap();
        assert_ne!(sealed.roots[0].descriptor.digest, *raw.digest());
        let text = document(&sealed, &sealed.roots[0].descriptor.digest);
        assert!(text.contains(r#""x-unknown":{"z":[1,2.5]}"#), "{text}");
        let manifest = top(&sealed);
        let before: Value = serde_json::from_slice(raw.bytes()).unwrap();
        assert_eq!(
            (&manifest["annotations"], &manifest["config"], &manifest["layers"][1]),
            (&before["annotations"], &before["config"], &before["layers"][1])
        );
        assert_eq!(
            manifest["layers"][0],
            json!({ "mediaType": OCI_LAYER_GZIP, "digest": Digest::of(&[0]), "size": 1000, "x-layer": "kept", "annotations": { "own": "kept" } })
        );
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&manifest), keys(&before), "and their order");
        // The descriptor in the index is edited too: platform and all.
        let listed: Value = serde_json::from_str(sealed.roots[0].descriptor.raw().get()).unwrap();
        assert_eq!((&listed["platform"]["os"], listed["size"].as_u64()), (&json!("linux"), Some(text.len() as u64)));
    }

    fn docker(kind: &mut Value) {
        let text = kind.to_string().replace("vnd.oci.image.manifest.v1+json", "vnd.docker.distribution.manifest.v2+json");
        let text = text.replace("vnd.oci.image.config.v1+json", "vnd.docker.container.image.v1+json");
        let text = text.replace("vnd.oci.image.layer.v1.tar\"", "vnd.docker.image.rootfs.diff.tar\"");
        *kind = serde_json::from_str(&text.replace("vnd.oci.image.layer.v1.tar+gzip", "vnd.docker.image.rootfs.diff.tar.gzip")).unwrap();
    }

    /// A list of Docker's with two images: one whose layer changes in an OCI layout, one whose does not.
    fn docker_list() -> Layout {
        let mut layout = Layout::new();
        let plain = Image::new("").layer("a=1").edit_manifest(docker);
        let packed = Image::new("").platform("linux/arm64").with(Layer::new("a=1").packed(Packing::Gzip)).edit_manifest(docker);
        let mut manifests = vec![layout.image(&plain), layout.image(&packed)];
        manifests.iter_mut().for_each(docker);
        let list = json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "x": 1.5, "manifests": manifests });
        let descriptor = layout.blob(DOCKER_LIST, list.to_string().into_bytes());
        layout.root(descriptor, Some("a:1"));
        layout
    }

    #[test]
    fn a_list_of_dockers_is_ocis_once_one_manifest_is() {
        let dir = tempfile::tempdir().unwrap();
        let kept = sealed(&plan(dir.path(), &docker_list(), "oci", Some(Compress::Keep)));
        assert_eq!(kept.roots[0].descriptor.media_type, DOCKER_LIST);
        let changed = sealed(&plan(dir.path(), &docker_list(), "oci", None));
        assert_eq!(changed.roots[0].descriptor.media_type, OCI_INDEX);
        let index = top(&changed);
        assert_eq!((&index["mediaType"], &index["x"]), (&json!(OCI_INDEX), &json!(1.5)));
        let types: Vec<_> = index["manifests"].as_array().unwrap().iter().map(|entry| entry["mediaType"].clone()).collect();
        assert_eq!(types, [OCI_MANIFEST, DOCKER_MANIFEST], "the second does not change");
        assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
        let digest: Digest = index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
        let manifest: Value = serde_json::from_str(&document(&changed, &digest)).unwrap();
        assert_eq!((&manifest["mediaType"], &manifest["layers"][0]["mediaType"]), (&json!(OCI_MANIFEST), &json!(OCI_LAYER_GZIP)));
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
        // In a folder of containers/image, Docker's stay Docker's.
        let encode = Compress::Encode { encoding: Default::default(), always: true };
        let dockers = sealed(&plan(dir.path(), &docker_list(), "dir", Some(encode)));
        assert_eq!(dockers.roots[0].descriptor.media_type, DOCKER_LIST);
        assert_eq!(top(&dockers)["manifests"][0]["mediaType"], DOCKER_MANIFEST);
    }

    #[test]
    fn a_filtered_index_lists_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut multi = Layout::new();
        let manifests: Vec<_> =
            ["amd64", "arm64", "s390x"].map(|name| multi.image(&Image::new("").platform(&format!("linux/{name}")))).to_vec();
        let index = multi.index(&manifests);
        multi.root(index, Some("a:1"));
        let source = layout(dir.path(), "in", &multi);
        let platforms = ["linux/amd64", "linux/s390x"].map(|text| text.parse().unwrap()).to_vec();
        let options = ConvertOptions { platforms: crate::plan::Platforms::Only(platforms), ..ConvertOptions::default() };
        let sealed = sealed(&convert(source.catalog(), &accepts("oci"), &options).unwrap());
        assert_eq!(top(&sealed)["manifests"], json!([manifests[0], manifests[2]]));
        assert_eq!(sealed.documents.len(), 5, "two configs, two manifests and the index");
    }

    #[test]
    fn foreign_layers_stay_foreign_whatever_the_rest_becomes() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::new("a:1").layer("a=1").with(Layer::new("b=2").packed(Packing::Gzip).foreign("https://example.com/b"));
        for format in ["oci", "dir", "docker-archive"] {
            let plan = plan(dir.path(), &Layout::of(std::slice::from_ref(&image)), format, None);
            let sealed = sealed(&plan);
            let layer: Value = serde_json::from_str(sealed.images[0].layers[1].descriptor.raw().get()).unwrap();
            assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "{format}");
            assert_eq!((&layer["urls"], sealed.images[0].layers[1].blob), (&json!(["https://example.com/b"]), None), "{format}");
        }
    }

    #[test]
    fn a_media_type_that_lies_about_the_compression_is_righted() {
        let dir = tempfile::tempdir().unwrap();
        // podman's docker-dir says gzip of plain layers.
        let lying = Image::new("a:1").layer("a=1").layer("b=2").edit_manifest(|manifest| {
            docker(manifest);
            manifest["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
        });
        let mut images = Layout::new();
        let mut descriptor = images.image(&lying);
        docker(&mut descriptor);
        images.root(descriptor, Some("a:1"));
        let encode = Compress::Encode { encoding: Default::default(), always: false };
        let mut plan = plan(dir.path(), &images, "dir", Some(encode));
        // Another layer changes, so that the manifest is written anew.
        plan.blobs[0].action = LayerPlan::Copy;
        let manifest = top(&sealed(&plan));
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar");
        assert_eq!(manifest["layers"][1]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    }

    #[test]
    fn sizes_and_digests_must_agree() {
        let known = |size, digest: Option<&[u8]>| Known { size, digest: digest.map(Digest::of), diff_id: None };
        assert!(agrees(&Known::default(), &Digest::of(b"a"), 1).is_ok());
        assert!(agrees(&known(Some(1), Some(b"a")), &Digest::of(b"a"), 1).is_ok());
        let error = agrees(&known(Some(2), Some(b"b")), &Digest::of(b"a"), 1).unwrap_err();
        assert_eq!(error.to_string(), "it has 1 bytes, expected 2", "the size says more");
        assert!(agrees(&known(None, Some(b"b")), &Digest::of(b"a"), 1).unwrap_err().to_string().starts_with("its digest is sha256:ca97"));
    }
}

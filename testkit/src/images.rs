//! Images from text: docker-archives and OCI layouts with the layers, names and oddities that a test asks for, whole or broken.
//!
//! An archive is a list of [`Member`]s, so that a test breaks it by editing that list. What must stay consistent while it is odd (a
//! manifest of another schema version, with the right digest) is asked of the [`Image`] or the [`Layout`] instead.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

pub use crate::facts::Packing;
use crate::tar::{self, Member};

/// One layer: its tar and how it is stored.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The uncompressed tar.
    pub tar: Vec<u8>,
    /// How it is stored in an OCI layout, and in a docker-archive.
    pub packing: Packing,
    /// Where a foreign layer is to be had; its bytes are then left out.
    pub url: Option<String>,
    /// What is stored, when that is not the packed tar.
    pub stored: Option<Vec<u8>>,
}

impl Layer {
    /// Makes a layer from text, one entry a line: `dir/`, `file=content`, `link->target` (symbolic), `link=>target` (hard).
    pub fn new(text: &str) -> Self {
        Self::of_tar(tar::write(&entries(text)))
    }

    /// Makes a layer of a tar.
    pub fn of_tar(tar: Vec<u8>) -> Self {
        Self { tar, packing: Packing::Plain, url: None, stored: None }
    }

    /// Stores it compressed.
    #[must_use]
    pub fn packed(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Makes it a foreign layer, whose bytes are elsewhere.
    #[must_use]
    pub fn foreign(mut self, url: &str) -> Self {
        self.url = Some(url.to_owned());
        self
    }

    /// Stores other bytes than its own; digests and sizes of them are right.
    #[must_use]
    pub fn stored(mut self, bytes: Vec<u8>) -> Self {
        self.stored = Some(bytes);
        self
    }

    /// The digest of the tar.
    pub fn diff_id(&self) -> String {
        crate::digest(&self.tar)
    }

    /// The bytes as stored.
    pub fn bytes(&self) -> Vec<u8> {
        self.stored.clone().unwrap_or_else(|| pack(&self.tar, self.packing))
    }

    fn media_type(&self) -> String {
        let base = if self.url.is_some() {
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
        } else {
            "application/vnd.oci.image.layer.v1.tar"
        };
        let suffix = match self.packing {
            Packing::Plain => "",
            Packing::Gzip => "+gzip",
            Packing::Zstd => "+zstd",
            Packing::Xz => "+xz",
            Packing::Bzip2 => "+bzip2",
        };
        format!("{base}{suffix}")
    }
}

/// Compresses `bytes`.
pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        Packing::Xz => {
            let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// Tar entries from text; see [`Layer::new`].
pub fn entries(text: &str) -> Vec<Member> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            if let Some((name, target)) = line.split_once("->") {
                Member::other(b'2', name, target)
            } else if let Some((name, target)) = line.split_once("=>") {
                Member::other(b'1', name, target)
            } else if let Some((name, content)) = line.split_once('=') {
                Member::file(name, content)
            } else {
                assert!(line.ends_with('/'), "{line:?} is no entry: dir/, file=content, link->target or link=>target");
                Member::dir(line)
            }
        })
        .collect()
}

/// One image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its names.
    pub names: Vec<String>,
    /// OS, architecture and perhaps variant.
    pub platform: String,
    /// Its layers, base first.
    pub layers: Vec<Layer>,
    /// Annotations of its manifest.
    pub annotations: Map<String, Value>,
    /// Edits the config before it is digested.
    pub edit_config: Option<fn(&mut Value)>,
    /// Edits the manifest before it is digested.
    pub edit_manifest: Option<fn(&mut Value)>,
    /// The config, when it is not one made of the rest.
    pub config: Option<Vec<u8>>,
}

impl Image {
    /// Makes an image of linux/amd64 without layers; an empty name is none.
    pub fn new(name: &str) -> Self {
        Self {
            names: if name.is_empty() { Vec::new() } else { vec![name.to_owned()] },
            platform: "linux/amd64".to_owned(),
            layers: Vec::new(),
            annotations: Map::new(),
            edit_config: None,
            edit_manifest: None,
            config: None,
        }
    }

    /// Adds a layer from text; see [`Layer::new`].
    #[must_use]
    pub fn layer(self, text: &str) -> Self {
        self.with(Layer::new(text))
    }

    /// Adds a layer.
    #[must_use]
    pub fn with(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Adds a name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Sets the platform, `OS/ARCH[/VARIANT]`.
    #[must_use]
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = platform.to_owned();
        self
    }

    /// Annotates the manifest.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// Edits the config before it is digested.
    #[must_use]
    pub fn edit_config(mut self, edit: fn(&mut Value)) -> Self {
        self.edit_config = Some(edit);
        self
    }

    /// Edits the manifest before it is digested.
    #[must_use]
    pub fn edit_manifest(mut self, edit: fn(&mut Value)) -> Self {
        self.edit_manifest = Some(edit);
        self
    }

    /// Uses these bytes as config.
    #[must_use]
    pub fn config(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.config = Some(bytes.into());
        self
    }

    /// The config's bytes.
    pub fn config_bytes(&self) -> Vec<u8> {
        if let Some(bytes) = &self.config {
            return bytes.clone();
        }
        let platform = self.platform_json();
        let mut config = json!({
            "created": "2024-01-02T03:04:05Z",
            "architecture": platform["architecture"],
            "os": platform["os"],
            "config": { "Entrypoint": ["/bin/hello"], "Healthcheck": { "Test": ["NONE"] } },
            "rootfs": { "type": "layers", "diff_ids": self.layers.iter().map(Layer::diff_id).collect::<Vec<_>>() },
            "history": (0..self.layers.len()).map(|n| json!({ "created": "2024-01-02T03:04:05Z", "created_by": format!("ADD {n}") })).collect::<Vec<_>>(),
            "x-unknown": { "kept": [1, 2.50, "<&>"] },
        });
        if let Some(variant) = platform.get("variant") {
            config["variant"] = variant.clone();
        }
        if let Some(edit) = self.edit_config {
            edit(&mut config);
        }
        config.to_string().into_bytes()
    }

    /// The image ID.
    pub fn id(&self) -> String {
        crate::digest(&self.config_bytes())
    }

    fn platform_json(&self) -> Value {
        let mut parts = self.platform.split('/');
        let mut platform = json!({ "os": parts.next().unwrap(), "architecture": parts.next().unwrap() });
        if let Some(variant) = parts.next() {
            platform["variant"] = variant.into();
        }
        platform
    }
}

/// The members of an archive, in order.
#[derive(Debug, Clone)]
pub struct Archive(pub Vec<Member>);

impl Archive {
    /// The archive's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        tar::write(&self.0)
    }

    /// Where a member is. Panics when it is not.
    #[track_caller]
    pub fn position(&self, name: &str) -> usize {
        let found = self.0.iter().position(|member| member.text() == name);
        found.unwrap_or_else(|| panic!("no member {name:?} in {:?}", self.0.iter().map(Member::text).collect::<Vec<_>>()))
    }

    /// A member to edit.
    #[track_caller]
    pub fn member(&mut self, name: &str) -> &mut Member {
        let at = self.position(name);
        &mut self.0[at]
    }

    /// The first member whose name ends in `suffix`.
    #[track_caller]
    pub fn ending(&mut self, suffix: &str) -> &mut Member {
        self.0.iter_mut().find(|member| member.text().ends_with(suffix)).unwrap_or_else(|| panic!("no member ends in {suffix:?}"))
    }

    /// Replaces a member's bytes.
    #[must_use]
    #[track_caller]
    pub fn replace(mut self, name: &str, data: impl Into<Vec<u8>>) -> Self {
        self.member(name).data = data.into();
        self
    }

    /// Leaves a member out.
    #[must_use]
    #[track_caller]
    pub fn without(mut self, name: &str) -> Self {
        let at = self.position(name);
        self.0.remove(at);
        self
    }

    /// Adds a member at the end.
    #[must_use]
    pub fn plus(mut self, member: Member) -> Self {
        self.0.push(member);
        self
    }

    /// Edits a member that is JSON.
    #[must_use]
    #[track_caller]
    pub fn edit(mut self, name: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let member = self.member(name);
        let mut value = serde_json::from_slice(&member.data).unwrap();
        edit(&mut value);
        member.data = value.to_string().into_bytes();
        self
    }

    /// Edits every name, and what links point to.
    #[must_use]
    pub fn rename(mut self, edit: impl Fn(&str) -> String) -> Self {
        for member in &mut self.0 {
            member.name = edit(&member.text()).into_bytes();
        }
        self
    }

    /// Writes files and directories below `path`.
    pub fn write_dir(&self, path: &Path) {
        std::fs::create_dir_all(path).unwrap();
        for member in &self.0 {
            let at = path.join(member.text());
            if member.kind == b'5' {
                std::fs::create_dir_all(at).unwrap();
            } else {
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::fs::write(at, &member.data).unwrap();
            }
        }
    }
}

/// A docker-archive as simple as can be: `<hex>.json`, `<hex>.tar`, `manifest.json` last.
pub fn docker_archive(images: &[Image]) -> Archive {
    let mut members: Vec<Member> = Vec::new();
    let mut add = |name: String, data: Vec<u8>| {
        if !members.iter().any(|member| member.text() == name) {
            members.push(Member::file(name, data));
        }
    };
    let mut manifest = Vec::new();
    for image in images {
        let config = image.config_bytes();
        let config_name = format!("{}.json", crate::hex(&config));
        add(config_name.clone(), config);
        let mut layers = Vec::new();
        for layer in &image.layers {
            let bytes = layer.bytes();
            let name = format!("{}.tar", crate::hex(&bytes));
            layers.push(name.clone());
            add(name, bytes);
        }
        let names = if image.names.is_empty() { Value::Null } else { json!(image.names) };
        manifest.push(json!({ "Config": config_name, "RepoTags": names, "Layers": layers }));
    }
    add("manifest.json".to_owned(), Value::from(manifest).to_string().into_bytes());
    Archive(members)
}

/// An OCI layout in the making.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    blobs: Vec<(String, Vec<u8>)>,
    roots: Vec<Value>,
}

impl Layout {
    /// Makes an empty layout.
    pub fn new() -> Self {
        Self::default()
    }

    /// A layout of these images, each a root under each of its names.
    pub fn of(images: &[Image]) -> Self {
        let mut layout = Self::new();
        for image in images {
            let descriptor = layout.image(image);
            if image.names.is_empty() {
                layout.root(descriptor.clone(), None);
            }
            for name in &image.names {
                layout.root(descriptor.clone(), Some(name));
            }
        }
        layout
    }

    /// All blobs with their digests, manifests among them, in the order in which they were added.
    pub fn blobs(&self) -> &[(String, Vec<u8>)] {
        &self.blobs
    }

    /// Adds bytes and gives their descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = crate::digest(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        if !self.blobs.iter().any(|(known, _)| *known == digest) {
            self.blobs.push((digest, bytes));
        }
        descriptor
    }

    /// Adds an image and gives its descriptor, with its platform.
    pub fn image(&mut self, image: &Image) -> Value {
        let config = self.blob("application/vnd.oci.image.config.v1+json", image.config_bytes());
        let mut layers = Vec::new();
        for layer in &image.layers {
            let bytes = layer.bytes();
            if let Some(url) = &layer.url {
                layers
                    .push(json!({ "mediaType": layer.media_type(), "digest": crate::digest(&bytes), "size": bytes.len(), "urls": [url] }));
            } else {
                layers.push(self.blob(&layer.media_type(), bytes));
            }
        }
        let mut manifest =
            json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers });
        if !image.annotations.is_empty() {
            manifest["annotations"] = image.annotations.clone().into();
        }
        if let Some(edit) = image.edit_manifest {
            edit(&mut manifest);
        }
        let mut descriptor = self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes());
        descriptor["platform"] = image.platform_json();
        descriptor
    }

    /// Adds an index of these descriptors and gives its own.
    pub fn index(&mut self, manifests: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests });
        self.blob("application/vnd.oci.image.index.v1+json", index.to_string().into_bytes())
    }

    /// Adds an artifact (a signature, say) that refers to `subject`, and gives its descriptor.
    pub fn artifact(&mut self, kind: &str, payload: &str, subject: Option<&Value>) -> Value {
        let config = self.blob("application/vnd.oci.empty.v1+json", b"{}".to_vec());
        let layer = self.blob("text/plain", payload.as_bytes().to_vec());
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind, "config": config, "layers": [layer],
        });
        if let Some(subject) = subject {
            manifest["subject"] = json!({ "mediaType": subject["mediaType"], "digest": subject["digest"], "size": subject["size"] });
        }
        let mut descriptor = self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes());
        descriptor["artifactType"] = kind.into();
        descriptor
    }

    /// Names a descriptor in `index.json`, as skopeo does: the name as `ref.name`.
    pub fn root(&mut self, mut descriptor: Value, name: Option<&str>) {
        if let Some(name) = name {
            descriptor["annotations"]["org.opencontainers.image.ref.name"] = name.into();
        }
        self.roots.push(descriptor);
    }

    /// The layout as an archive: `oci-layout`, `index.json`, then the blobs.
    pub fn archive(&self) -> Archive {
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": self.roots });
        let mut members = vec![
            Member::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
            Member::file("index.json", index.to_string()),
            Member::dir("blobs/"),
            Member::dir("blobs/sha256/"),
        ];
        members.extend(self.blobs.iter().map(|(digest, bytes)| Member::file(format!("blobs/{}", digest.replace(':', "/")), bytes.clone())));
        Archive(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::archive;

    fn app() -> Image {
        let packed = |packing| Layer::new(&format!("etc/\netc/{packing:?}=text")).packed(packing);
        [Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2]
            .into_iter()
            .fold(Image::new("app:1").layer("bin/\nbin/sh->busybox"), |image, packing| image.with(packed(packing)))
    }

    #[test]
    fn builds_the_same_image_in_both_formats() {
        let (docker, oci) = (docker_archive(&[app()]).bytes(), Layout::of(&[app()]).archive().bytes());
        let (docker, oci) = (archive(&docker, "docker"), archive(&oci, "oci"));
        assert_eq!(docker.essence(), oci.essence());
        assert_eq!(docker.names(), oci.names());
        assert_eq!(oci.only().packing.len(), 5);
        assert_eq!(docker.images.keys().next(), Some(&app().id()));
    }

    #[test]
    #[should_panic(expected = "the diff IDs that the config states")]
    fn the_reader_sees_a_wrong_layer() {
        let image = Image::new("app:1").with(Layer::new("a=1").stored(Layer::new("a=2").tar));
        archive(&docker_archive(&[image]).bytes(), "broken");
    }
}

//! An independent reader of archives and directories: what is really in them, by decompressing and digesting everything.
//!
//! It holds all of an archive in memory, trusts nothing that is stated and panics where something does not fit. Two archives hold the same
//! images when their facts are equal, whatever their format.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::tar;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
}

/// What one archive, layout or `dir:` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The images by image ID, the digest of the config.
    pub images: BTreeMap<String, Image>,
    /// The digests of the nodes that `index.json` names, or of the manifest of a `dir:`, in order.
    pub roots: Vec<String>,
}

/// What is known of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its names, each in full: `docker.io/library/kitchen:1`.
    pub names: BTreeSet<String>,
    /// The config, byte for byte.
    pub config: Vec<u8>,
    /// The digests of the decompressed layers, computed.
    pub diff_ids: Vec<String>,
    /// How each layer is stored.
    pub packing: Vec<Packing>,
    /// The manifest, byte for byte, in formats that have one.
    pub manifest: Option<Vec<u8>>,
}

impl Image {
    /// OS and architecture as the config says.
    pub fn platform(&self) -> String {
        let config = json("config", &self.config);
        format!("{}/{}", config["os"].as_str().unwrap(), config["architecture"].as_str().unwrap())
    }

    /// The bytes of all that a conversion may never change: config and diff IDs.
    pub fn essence(&self) -> (Vec<u8>, Vec<String>) {
        (self.config.clone(), self.diff_ids.clone())
    }
}

impl Facts {
    /// Config bytes and diff IDs of all images, by image ID: what every conversion keeps.
    pub fn essence(&self) -> BTreeMap<String, (Vec<u8>, Vec<String>)> {
        self.images.iter().map(|(id, image)| (id.clone(), image.essence())).collect()
    }

    /// The names of all images, by image ID.
    pub fn names(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.images.iter().map(|(id, image)| (id.clone(), image.names.clone())).collect()
    }

    /// The manifests of all images, by image ID.
    pub fn manifests(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        self.images.iter().map(|(id, image)| (id.clone(), image.manifest.clone())).collect()
    }

    /// The only image.
    pub fn only(&self) -> &Image {
        assert_eq!(self.images.len(), 1, "one image is expected");
        self.images.values().next().unwrap()
    }
}

/// How `bytes` are compressed, by their first bytes.
pub fn sniff(bytes: &[u8]) -> Packing {
    match bytes {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
        _ => Packing::Plain,
    }
}

/// Decompresses `bytes`, whatever they are compressed with.
pub fn unpack(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match sniff(bytes) {
        Packing::Plain => return bytes.to_vec(),
        Packing::Gzip => {
            // Many members, and perhaps zeros behind them, as gzip itself takes them.
            let mut rest = bytes;
            while rest.iter().any(|&byte| byte != 0) {
                let mut member = flate2::bufread::GzDecoder::new(rest);
                member.read_to_end(&mut out).unwrap();
                rest = member.into_inner();
            }
            out.len()
        }
        Packing::Zstd => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
        Packing::Xz => lzma_rust2::XzReader::new(bytes, true).read_to_end(&mut out).unwrap(),
        Packing::Bzip2 => bzip2::read::MultiBzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
    };
    out
}

/// The facts of an archive, a layout directory or a `dir:`, found out by looking.
#[track_caller]
pub fn facts(path: &Path) -> Facts {
    if path.is_dir() {
        let files = Files { files: crate::tree(path), what: path.display().to_string() };
        return if files.has("oci-layout") { files.layout() } else { files.dir() };
    }
    archive(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())), &path.display().to_string())
}

/// The facts of an archive in memory: those of its archive manifest if it has one, else of its layout.
#[track_caller]
pub fn archive(bytes: &[u8], what: &str) -> Facts {
    let files = Files::of_archive(bytes, what);
    if files.has("manifest.json") { files.docker() } else { files.layout() }
}

/// The facts of the OCI layout inside an archive, also where there is an archive manifest.
#[track_caller]
pub fn layout_in_archive(path: &Path) -> Facts {
    Files::of_archive(&std::fs::read(path).unwrap(), &path.display().to_string()).layout()
}

/// The names of an archive's members, in order.
pub fn members(path: &Path) -> Vec<String> {
    tar::read(&unpack(&std::fs::read(path).unwrap())).iter().map(tar::Member::text).collect()
}

/// A name in full, as docker means it: `kitchen` is `docker.io/library/kitchen:latest`.
pub fn full_name(name: &str) -> String {
    let (host, rest) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let tagged = rest.rsplit('/').next().is_some_and(|last| last.contains(':'));
    format!("{host}/{rest}{}", if tagged { "" } else { ":latest" })
}

fn json(what: &str, bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{what} is not JSON: {e}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} should be a string")).to_owned()
}

struct Files {
    files: BTreeMap<String, Vec<u8>>,
    what: String,
}

impl Files {
    fn of_archive(bytes: &[u8], what: &str) -> Self {
        let members = tar::read(&unpack(bytes));
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let clean = |name: String| name.strip_prefix("./").map(str::to_owned).unwrap_or(name);
        for member in members.iter().filter(|member| member.kind == b'0') {
            let before = files.insert(clean(member.text()), member.data.clone());
            assert!(before.is_none_or(|bytes| bytes == member.data), "{what} holds two different {:?}", member.text());
        }
        for member in members.iter().filter(|member| matches!(member.kind, b'1' | b'2')) {
            let name = clean(member.text());
            let link = String::from_utf8(member.link.clone()).unwrap();
            let mut path: Vec<&str> = if member.kind == b'2' { name.split('/').collect() } else { vec![""] };
            path.pop();
            for part in link.split('/') {
                match part {
                    ".." => drop(path.pop()),
                    part => path.push(part),
                }
            }
            let target =
                files.get(&path.join("/")).unwrap_or_else(|| panic!("{what}: {name} points to {link}, which is not there")).clone();
            files.insert(name, target);
        }
        Self { files, what: what.to_owned() }
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    #[track_caller]
    fn get(&self, name: &str) -> &[u8] {
        self.files.get(name).unwrap_or_else(|| panic!("{} holds no {name}: {:?}", self.what, self.files.keys()))
    }

    fn blob(&self, digest: &str) -> &[u8] {
        let bytes = self.get(&format!("blobs/{}", digest.replace(':', "/")));
        assert_eq!(crate::digest(bytes), digest, "{}: the blob's digest", self.what);
        bytes
    }

    fn docker(&self) -> Facts {
        let mut facts = Facts { images: BTreeMap::new(), roots: Vec::new() };
        for entry in json("manifest.json", self.get("manifest.json")).as_array().unwrap() {
            let names = entry["RepoTags"].as_array().into_iter().flatten().map(|name| full_name(&text(name))).collect();
            let layers = entry["Layers"].as_array().unwrap().iter().map(|layer| self.get(&text(layer)).to_vec()).collect();
            facts.add(names, self.get(&text(&entry["Config"])).to_vec(), layers, None);
        }
        facts
    }

    fn layout(&self) -> Facts {
        assert_eq!(json("oci-layout", self.get("oci-layout"))["imageLayoutVersion"], "1.0.0");
        let mut facts = Facts { images: BTreeMap::new(), roots: Vec::new() };
        for descriptor in json("index.json", self.get("index.json"))["manifests"].as_array().unwrap() {
            facts.roots.push(text(&descriptor["digest"]));
            let said = |key: &str| descriptor["annotations"][key].as_str().map(full_name);
            let names = said("io.containerd.image.name").or_else(|| said("org.opencontainers.image.ref.name"));
            self.node(descriptor, &names.into_iter().collect(), &mut facts, &|digest| self.blob(digest));
        }
        facts
    }

    fn dir(&self) -> Facts {
        let manifest = self.get("manifest.json");
        let mut facts = Facts { images: BTreeMap::new(), roots: vec![crate::digest(manifest)] };
        let descriptor = serde_json::json!({ "digest": crate::digest(manifest), "size": manifest.len() });
        let blob = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").unwrap();
            let manifest_name = format!("{hex}.manifest.json");
            let bytes = if digest == facts_root(manifest) {
                manifest
            } else if self.has(&manifest_name) {
                self.get(&manifest_name)
            } else {
                self.get(hex)
            };
            assert_eq!(crate::digest(bytes), digest, "{}: the blob's digest", self.what);
            bytes
        };
        self.node(&descriptor, &BTreeSet::new(), &mut facts, &blob);
        facts
    }

    fn node<'a>(&'a self, descriptor: &Value, names: &BTreeSet<String>, facts: &mut Facts, blob: &dyn Fn(&str) -> &'a [u8]) {
        let bytes = blob(&text(&descriptor["digest"]));
        assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64), "{}: the size in {descriptor}", self.what);
        let node = json("manifest", bytes);
        if let Some(children) = node["manifests"].as_array() {
            for child in children {
                self.node(child, names, facts, blob);
            }
            return;
        }
        let kind = text(&node["config"]["mediaType"]);
        if !matches!(kind.as_str(), "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json") {
            return; // An artifact.
        }
        let mut layers = Vec::new();
        for layer in node["layers"].as_array().unwrap() {
            let bytes = blob(&text(&layer["digest"]));
            assert_eq!(layer["size"].as_u64(), Some(bytes.len() as u64), "{}: the size in {layer}", self.what);
            layers.push(bytes.to_vec());
        }
        facts.add(names.clone(), blob(&text(&node["config"]["digest"])).to_vec(), layers, Some(bytes.to_vec()));
    }
}

fn facts_root(manifest: &[u8]) -> String {
    crate::digest(manifest)
}

impl Facts {
    fn add(&mut self, names: BTreeSet<String>, config: Vec<u8>, layers: Vec<Vec<u8>>, manifest: Option<Vec<u8>>) {
        let packing = layers.iter().map(|bytes| sniff(bytes)).collect();
        let diff_ids: Vec<String> = layers.iter().map(|bytes| crate::digest(&unpack(bytes))).collect();
        let stated: Vec<String> = json("config", &config)["rootfs"]["diff_ids"].as_array().into_iter().flatten().map(text).collect();
        assert_eq!(diff_ids, stated, "the diff IDs that the config states");
        let image =
            self.images.entry(crate::digest(&config)).or_insert(Image { names: BTreeSet::new(), config, diff_ids, packing, manifest });
        image.names.extend(names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_one_image_through_every_format() {
        let docker = facts(&crate::fixture("from/docker20-one.tar"));
        assert_eq!(docker.essence(), facts(&crate::fixture("from/docker29-one.tar")).essence());
        assert_eq!(docker.essence(), facts(&crate::fixture("from/podman4-docker-dir")).essence());
        assert_eq!(docker.names(), layout_in_archive(&crate::fixture("from/docker29-one.tar")).names());
        let oci = facts(&crate::fixture("from/skopeo-oci"));
        assert_eq!(oci.only().diff_ids, docker.only().diff_ids);
        assert_eq!(oci.only().names, ["docker.io/library/kitchen:latest".to_owned()].into());
        assert_eq!(facts(&crate::fixture("from/umoci-oci")).images.len(), 2);
        assert_eq!(facts(&crate::fixture("from/skopeo-oci-multiplatform")).images.len(), 2);
        assert_eq!(facts(&crate::fixture("from/skopeo-oci-zstd")).only().packing[0], Packing::Zstd);
        assert_eq!(facts(&crate::fixture("from/docker20-three-names.tar")).names().values().map(BTreeSet::len).sum::<usize>(), 3);
    }

    #[test]
    fn names_are_those_of_docker() {
        for (name, full) in [
            ("kitchen", "docker.io/library/kitchen:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost/kitchen:1", "localhost/kitchen:1"),
            ("127.0.0.1:5001/team/kitchen", "127.0.0.1:5001/team/kitchen:latest"),
        ] {
            assert_eq!(full_name(name), full);
        }
    }
}

//! What Bazel's `create_image` and `join_layers` write: names begin with `./`, and every image has a folder for its layers.
//!
//! ```text
//! ./<image id>.json                     the config, image by image
//! ./<image id>/                         then its layers, by diff ID unless they were named; those of a base that the source names lie in the folder of the base
//! ./<image id>/<diff ID hex>.tar
//! ./top                                 where the image comes with v1 JSON: the v1 ID of its top layer, which lies here and nowhere else,
//! ./<v1 id>/                            and from the top down, as far as there is JSON,
//! ./<v1 id>/VERSION
//! ./<v1 id>/layer.tar
//! ./<v1 id>/json
//! ./manifest.json                       with Parent, the image ID of the base, unless docker would fail on it
//! ./repositories                        repository -> tag -> image ID, for the first name of each image
//! ```
//!
//! As of [Bazel 0.3](https://github.com/bazelbuild/bazel/blob/0.3.0/tools/build_defs/docker/create_image.py). Headers are Python's in GNU format.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{ACCEPTS, Dialect, config_name};
use crate::catalog::Lineage;
use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::format::Members;
use crate::format::archive_write::{Body, Layouter, Member};
use crate::reference::Reference;
use crate::sink::{Accepts, Expected, Sealed, SealedImage};
use crate::spec::Json;
use crate::spec::style::python;
use crate::tar::{Header, HeaderFormat, HeaderStyle, Kind};

/// The dialect.
#[derive(Debug)]
pub(super) struct Bazel;

impl Dialect for Bazel {
    fn name(&self) -> &'static str {
        "bazel"
    }

    fn about(&self) -> &'static str {
        "as Bazel's docker_build writes it: a folder for each image, Parent, names in ./"
    }

    fn accepts(&self) -> Accepts {
        Accepts { format: "docker-archive (bazel)", ..ACCEPTS }
    }

    fn members(&self) -> Members {
        &[
            ("./<image id>.json", "the config of an image"),
            ("./<image id>/<diff id>.tar", "its layers; those of its base lie in the folder of the base"),
            ("./top", "with `assemble --metadata`: the v1 ID of its top layer"),
            ("./<v1 id>/VERSION", "then: `1.0`; top layer first, as far as there is v1 JSON"),
            ("./<v1 id>/layer.tar", "then: the layer; the top one is here alone"),
            ("./<v1 id>/json", "then: the v1 JSON of 2013"),
            (
                "./manifest.json",
                "the archive manifest: config, names and layers of each image, and its `Parent`, left out where Docker 20.10 would fail on it",
            ),
            ("./repositories", "repository, tag and image ID of the first name of each image; absent where there is no name"),
        ]
    }

    fn layouter(&self) -> Box<dyn Layouter> {
        Box::new(Writer::default())
    }
}

#[derive(Debug, Default)]
struct Writer {
    /// The layers of each image, and the image ID of its base.
    images: Vec<(Vec<String>, Option<String>)>,
}

impl Layouter for Writer {
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
        let mut members = Listing::default();
        let mut placed: HashMap<usize, String> = HashMap::new();
        for image in &expected.images {
            let folder = image.config.digest().hex();
            members.file(format!("{folder}.json"), image.config.shared());
            let legacy = image.lineage.as_ref().map_or_else(Vec::new, |lineage| lineage.legacy.clone());
            let mut layers = Vec::with_capacity(image.layers.len());
            for (position, (layer, diff_id)) in image.layers.iter().zip(image.config.diff_ids()).enumerate() {
                if let (Some(top), true) = (legacy.last(), position + 1 == image.layers.len()) {
                    layers.push(format!("{}/layer.tar", top.id));
                    continue;
                }
                // Bytes that another image has placed already are named there.
                if let Some(name) = layer.blob.and_then(|blob| placed.get(&blob)) {
                    layers.push(name.clone());
                    continue;
                }
                let mut name = layer_name(image.lineage.as_ref(), &folder, position, *diff_id);
                if members.names.contains(&name) {
                    // A name that was given to two layers.
                    name = layer_name(None, &folder, position, *diff_id);
                }
                if let Some(blob) = layer.blob {
                    placed.insert(blob, name.clone());
                    members.put(name.clone(), Kind::File, Body::Blob(blob, None));
                }
                layers.push(name);
            }
            if let Some(top) = legacy.last() {
                members.file("top".to_owned(), top.id.as_bytes());
            }
            for (layer, step) in image.layers.iter().rev().zip(legacy.iter().rev()) {
                members.file(format!("{}/VERSION", step.id), *b"1.0");
                let name = format!("{}/layer.tar", step.id);
                match layer.blob {
                    Some(blob) if placed.contains_key(&blob) => members.put(name, Kind::File, Body::Again(blob)),
                    Some(blob) => {
                        placed.insert(blob, name.clone());
                        members.put(name, Kind::File, Body::Blob(blob, None));
                    }
                    None => {}
                }
                members.file(format!("{}/json", step.id), Arc::clone(&step.json));
            }
            self.images.push((layers, image.lineage.as_ref().and_then(|lineage| lineage.parent.clone())));
        }
        Ok(members.members)
    }

    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>> {
        let mut members = Listing::default();
        let entries = sealed.images.iter().zip(&self.images).map(|(image, (layers, parent))| {
            let tags: Vec<_> = image.references.iter().map(Reference::familiar).collect();
            let mut entry = serde_json::json!({ "Config": config_name(&image.config), "Layers": layers, "RepoTags": tags });
            if let Some(parent) = parent.as_ref().filter(|parent| docker_takes(image, parent, &sealed.images)) {
                entry["Parent"] = parent.as_str().into();
            }
            let foreign = image.layers.iter().filter(|layer| layer.is_foreign());
            let sources: BTreeMap<_, _> = foreign.map(|layer| (layer.diff_id.to_string(), &layer.descriptor)).collect();
            if !sources.is_empty() {
                entry["LayerSources"] = serde_json::to_value(&sources).map_err(Error::invalid)?;
            }
            python(Json::text_of(&entry.to_string())).map_err(Error::invalid)
        });
        members.file("manifest.json".to_owned(), format!("[{}]", entries.collect::<Result<Vec<_>>>()?.join(", ")).into_bytes());
        let mut repositories: BTreeMap<String, BTreeMap<&str, String>> = BTreeMap::new();
        for image in &sealed.images {
            if let Some((name, tag)) = image.references.first().and_then(|name| Some((name, name.tag()?))) {
                repositories.entry(name.familiar_repository()).or_default().insert(tag, image.config.digest().hex());
            }
        }
        if !repositories.is_empty() {
            // With two blanks, as `create_image` has it in a literal text.
            members.file("repositories".to_owned(), serde_json::to_vec_pretty(&repositories).map_err(Error::invalid)?);
        }
        Ok(members.members)
    }

    fn record(&self) -> u64 {
        20 * crate::tar::BLOCK as u64
    }
}

/// Members, each name once, after the folders that they lie in.
#[derive(Default)]
struct Listing {
    members: Vec<Member>,
    names: HashSet<String>,
}

impl Listing {
    fn file(&mut self, name: String, bytes: impl Into<Arc<[u8]>>) {
        self.put(name, Kind::File, Body::Bytes(bytes.into()));
    }

    fn put(&mut self, name: String, kind: Kind, body: Body) {
        if let Some((folder, _)) = name.trim_end_matches('/').rsplit_once('/') {
            self.put(format!("{folder}/"), Kind::Directory, Body::Empty);
        }
        if !self.names.insert(name.clone()) {
            return;
        }
        let size = if let Body::Bytes(bytes) = &body { bytes.len() as u64 } else { 0 };
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        let path = format!("./{name}").into_bytes();
        let header = Header { path, kind, mode, size, format: HeaderFormat::Gnu, style: HeaderStyle::Python, ..Header::default() };
        self.members.push(Member { header, body });
    }
}

/// Whether docker load would link an image to its parent: what is not in the archive it passes over, but where a parent is there and the image
/// has more or other history than its parent's and one step, Docker 20.10 fails once all is loaded
/// ([`checkValidParent`](https://github.com/moby/moby/blob/v20.10.24/image/tarexport/load.go)).
fn docker_takes(image: &SealedImage, parent: &str, all: &[SealedImage]) -> bool {
    let Some(parent) = all.iter().find(|other| other.config.digest().to_string() == parent) else { return true };
    let (own, base) = (&image.config.history, &parent.config.history);
    own.is_empty() && base.is_empty() || own.split_last().is_some_and(|(_, below)| below == base)
}

fn layer_name(lineage: Option<&Lineage>, own: &str, position: usize, diff_id: DiffId) -> String {
    let folder = lineage.and_then(|lineage| lineage.folders.get(position)).map_or(own, String::as_str);
    let name = lineage.and_then(|lineage| lineage.names.get(position)?.clone());
    format!("{folder}/{}.tar", name.unwrap_or_else(|| diff_id.0.hex()))
}

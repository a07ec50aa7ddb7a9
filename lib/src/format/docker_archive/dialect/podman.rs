//! What podman, skopeo and buildah write: layers by diff ID, and folders of 2013 whose layers are symlinks.
//!
//! ```text
//! <diff ID hex>.tar      plain; each layer once, then the config, image by image
//! <image id>.json
//! <v1 id>/layer.tar      -> ../<diff ID hex>.tar
//! <v1 id>/VERSION        1.0
//! <v1 id>/json           id, parent, and for the top layer the container config
//! manifest.json          names in full: docker.io/library/kitchen:1
//! repositories
//! ```
//!
//! As of [container-libs](https://github.com/containers/container-libs/blob/image/v5.36.0/image/docker/internal/tarfile/writer.go); podman 4.3
//! writes the same.

use std::collections::{BTreeMap, HashSet};

use super::{ACCEPTS, Dialect, Entries, archive_manifest, config_name};
use crate::digest::Digest;
use crate::error::Result;
use crate::format::Members;
use crate::format::archive_write::{Body, Layouter, Member};
use crate::format::layout_write::plain_header;
use crate::reference::Reference;
use crate::sink::{Accepts, Expected, Sealed};
use crate::spec::style::{go, go_string};
use crate::spec::{Config, Json, Object, Raw};
use crate::tar::{Header, Kind};

/// What the top layer's JSON takes from the config, or `null`.
const TOP: [&str; 7] = ["architecture", "config", "container", "container_config", "created", "docker_version", "os"];

#[derive(Debug)]
pub(super) struct Podman;

impl Dialect for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn about(&self) -> &'static str {
        "as podman, skopeo and buildah write it: layers by diff ID, names in full"
    }

    fn accepts(&self) -> Accepts {
        Accepts { format: "docker-archive (podman)", ..ACCEPTS }
    }

    fn members(&self) -> Members {
        &[
            ("<diff id>.tar", "the layers of an image, each once"),
            ("<image id>.json", "its config"),
            ("<v1 id>/layer.tar", "a symbolic link to the layer"),
            ("<v1 id>/VERSION", "`1.0`"),
            ("<v1 id>/json", "the v1 JSON of 2013: its ID, its parent's, and for the top layer the container settings"),
            ("manifest.json", "the archive manifest: config, names in full and layers of each image"),
            ("repositories", "repository, tag and top layer of each name"),
        ]
    }

    fn layouter(&self) -> Box<dyn Layouter> {
        Box::new(Self)
    }
}

impl Layouter for Podman {
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        let (mut blobs, mut names) = (HashSet::new(), HashSet::new());
        for image in &expected.images {
            for (layer, diff_id) in image.layers.iter().zip(image.config.diff_ids()) {
                if let Some(blob) = layer.blob
                    && blobs.insert(blob)
                {
                    members.push(Member { header: read_only(layer_name(&diff_id.0)), body: Body::Blob(blob, None) });
                }
            }
            let config = config_name(&image.config);
            if names.insert(config.clone()) {
                members.push(document(config, image.config.shared()));
            }
            for layer in legacy(&image.config)? {
                if names.insert(layer.id.clone()) {
                    let mut header = plain_header(format!("{}/layer.tar", layer.id), Kind::Symlink, 0);
                    header.link = format!("../{}", layer_name(&layer.diff_id)).into_bytes();
                    members.push(Member { header, body: Body::Empty });
                    members.push(document(format!("{}/VERSION", layer.id), *b"1.0"));
                    members.push(document(format!("{}/json", layer.id), layer.json.into_bytes()));
                }
            }
        }
        Ok(members)
    }

    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>> {
        let entries = Entries {
            name: Reference::full,
            empty_list: true,
            config: &|image| config_name(&image.config),
            layer: &|_, image, position| layer_name(&image.layers[position].diff_id.0),
        };
        let manifest = archive_manifest(&sealed.images, &entries)?;
        let mut repositories: BTreeMap<String, BTreeMap<&str, String>> = BTreeMap::new();
        for image in &sealed.images {
            let Some(top) = legacy(&image.config)?.pop() else { continue };
            for reference in &image.references {
                let Some(tag) = reference.tag() else { continue };
                repositories.entry(reference.repository()).or_default().insert(tag, top.id.clone());
            }
        }
        let repositories = serde_json::to_vec(&repositories).map_err(crate::Error::invalid)?;
        Ok(vec![document("manifest.json".to_owned(), manifest), document("repositories".to_owned(), repositories)])
    }
}

fn read_only(name: String) -> Header {
    plain_header(name, Kind::File, 0o444)
}

fn document(name: String, bytes: impl Into<std::sync::Arc<[u8]>>) -> Member {
    let bytes = bytes.into();
    Member { header: Header { size: bytes.len() as u64, ..read_only(name) }, body: Body::Bytes(bytes) }
}

fn layer_name(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

/// One layer as the archives of 2013 tell of it.
struct Legacy {
    id: String,
    diff_id: Digest,
    json: String,
}

/// The layers, base first. An ID is the digest of the JSON with the chain ID in the place of the ID.
fn legacy(config: &Raw<Config>) -> Result<Vec<Legacy>> {
    let object = Object::parse(config.bytes())?;
    let mut layers: Vec<Legacy> = Vec::with_capacity(config.diff_ids().len());
    let mut chain = String::new();
    for (position, diff_id) in config.diff_ids().iter().enumerate() {
        chain = match position {
            0 => diff_id.to_string(),
            _ => Digest::of(format!("{chain} {diff_id}").as_bytes()).to_string(),
        };
        let mut json: BTreeMap<&str, String> = BTreeMap::new();
        if let Some(parent) = layers.last() {
            json.insert("parent", go_string(&parent.id));
        }
        if position + 1 == config.diff_ids().len() {
            for key in TOP {
                json.insert(key, object.get(key).map_or_else(|| "null".to_owned(), |value| go(Json::of(value))));
            }
        }
        json.insert("layer_id", go_string(&chain));
        let id = Digest::of(sorted(&json).as_bytes()).hex();
        json.remove("layer_id");
        json.insert("id", go_string(&id));
        layers.push(Legacy { id, diff_id: diff_id.0, json: sorted(&json) });
    }
    Ok(layers)
}

fn sorted(json: &BTreeMap<&str, String>) -> String {
    let pairs: Vec<_> = json.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

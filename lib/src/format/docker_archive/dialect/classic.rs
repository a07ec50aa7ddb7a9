//! What Docker wrote up to version 24: a folder for each layer, with the v1 JSON of 2013 beside it.
//!
//! ```text
//! <v1 id>/VERSION            1.0
//! <v1 id>/json               id, parent, and for the top layer the container config
//! <v1 id>/layer.tar          plain; a symlink to another layer's where two have the same bytes
//! <image id>.json            the config            (all of the above sorted by name)
//! manifest.json
//! repositories               name -> tag -> v1 id of the top layer
//! ```
//!
//! The v1 IDs are ours: Docker's are digests of JSON that depends on its version. Nothing that reads `manifest.json` looks at them.

use std::collections::{BTreeMap, HashMap};

use super::{ACCEPTS, Dialect, Entries, archive_manifest, config_name};
use crate::digest::{DiffId, Digest};
use crate::error::Result;
use crate::format::Members;
use crate::format::archive_write::{Body, Layouter, Member};
use crate::format::layout_write::{file_member, plain_header};
use crate::reference::Reference;
use crate::sink::{Accepts, Expected, ExpectedImage, Sealed};
use crate::spec::{Config, Object, Raw};
use crate::tar::Kind;

#[derive(Debug)]
pub(super) struct Classic;

impl Dialect for Classic {
    fn name(&self) -> &'static str {
        "classic"
    }

    fn about(&self) -> &'static str {
        "as Docker up to 24 wrote it: a folder for each layer, manifest.json, repositories"
    }

    fn accepts(&self) -> Accepts {
        Accepts { format: "docker-archive (classic)", ..ACCEPTS }
    }

    fn members(&self) -> Members {
        &[
            ("<v1 id>/VERSION", "`1.0`"),
            ("<v1 id>/json", "the v1 JSON of 2013: its ID, its parent's, and for the top layer the container settings"),
            ("<v1 id>/layer.tar", "the layer; a symbolic link where another folder has the same bytes"),
            ("<image id>.json", "the config; sorted by name among the folders"),
            ("manifest.json", "the archive manifest: config, names and layers of each image"),
            ("repositories", "repository, tag and top layer of each name; absent where there is no name"),
        ]
    }

    fn layouter(&self) -> Box<dyn Layouter> {
        Box::new(Self)
    }
}

impl Layouter for Classic {
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
        let mut members = BTreeMap::new();
        // The folder that holds the bytes of each blob; every other layer with the same bytes links to it.
        let mut holders: HashMap<usize, String> = HashMap::new();
        for image in &expected.images {
            members.insert(config_name(&image.config), file_member(config_name(&image.config), image.config.shared()));
            let ids = v1_ids(&image.config);
            for (position, id) in ids.iter().enumerate() {
                if !members.contains_key(&format!("{id}/")) {
                    let folder = Member { header: plain_header(format!("{id}/"), Kind::Directory, 0o755), body: Body::Empty };
                    members.insert(format!("{id}/"), folder);
                    members.insert(format!("{id}/VERSION"), file_member(format!("{id}/VERSION"), *b"1.0"));
                    members.insert(format!("{id}/json"), file_member(format!("{id}/json"), v1_json(image, &ids, position)?));
                }
                // Of two images with the same layers below, one source may have had the bytes and the other only where to get them.
                let name = format!("{id}/layer.tar");
                let Some(blob) = image.layers[position].blob.filter(|_| !members.contains_key(&name)) else { continue };
                let member = match holders.get(&blob) {
                    Some(holder) => {
                        let mut header = plain_header(name.clone(), Kind::Symlink, 0o777);
                        header.link = format!("../{holder}/layer.tar").into_bytes();
                        Member { header, body: Body::Empty }
                    }
                    None => {
                        holders.insert(blob, id.clone());
                        Member { header: plain_header(name.clone(), Kind::File, 0o644), body: Body::Blob(blob, None) }
                    }
                };
                members.insert(name, member);
            }
        }
        Ok(members.into_values().collect())
    }

    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>> {
        let ids: Vec<_> = sealed.images.iter().map(|image| v1_ids(&image.config)).collect();
        let entries = Entries {
            name: Reference::familiar,
            empty_list: false,
            config: &|image| config_name(&image.config),
            layer: &|at, _, position| format!("{}/layer.tar", ids[at][position]),
        };
        let manifest = archive_manifest(&sealed.images, &entries)?;
        let mut members = vec![file_member("manifest.json".to_owned(), manifest)];

        let mut repositories: BTreeMap<String, BTreeMap<&str, &str>> = BTreeMap::new();
        for (image, ids) in sealed.images.iter().zip(&ids) {
            let Some(top) = ids.last() else { continue };
            for reference in &image.references {
                let Some(tag) = reference.tag() else { continue };
                repositories.entry(reference.familiar_repository()).or_default().insert(tag, top);
            }
        }
        if !repositories.is_empty() {
            let json = serde_json::to_vec(&repositories).map_err(crate::Error::invalid)?;
            members.push(file_member("repositories".to_owned(), json));
        }
        Ok(members)
    }
}

/// One ID a layer, base first: each depends on all layers below, and the top one on the config too.
fn v1_ids(config: &Raw<Config>) -> Vec<String> {
    let diff_ids: &[DiffId] = &config.rootfs.diff_ids;
    let mut ids: Vec<String> = Vec::with_capacity(diff_ids.len());
    for (position, diff_id) in diff_ids.iter().enumerate() {
        let parent = ids.last().map_or("", String::as_str);
        let top = if position + 1 == diff_ids.len() { config.digest().to_string() } else { String::new() };
        ids.push(Digest::of(format!("{diff_id} {parent} {top}").as_bytes()).hex());
    }
    ids
}

/// The v1 JSON: for the top layer with what the config says of containers.
fn v1_json(image: &ExpectedImage, ids: &[String], position: usize) -> Result<Vec<u8>> {
    let config = Object::parse(image.config.bytes())?;
    let mut json = Object::new();
    json.set("id", &ids[position]);
    if position > 0 {
        json.set("parent", &ids[position - 1]);
    }
    let top = position + 1 == ids.len();
    match config.get("created") {
        Some(created) if top => json.set_raw("created", created.to_owned()),
        _ => json.set("created", "1970-01-01T00:00:00Z"),
    };
    if top {
        for key in ["author", "config", "architecture"] {
            if let Some(value) = config.get(key) {
                json.set_raw(key, value.to_owned());
            }
        }
    }
    if let Some(os) = config.get("os") {
        json.set_raw("os", os.to_owned());
    }
    Ok(json.to_vec())
}

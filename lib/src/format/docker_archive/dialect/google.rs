//! What containerregistry, Google's Python library, and so Bazel's docker rules write: `v1`, and `google`, which adds what Docker 1.10 wanted.
//!
//! ```text
//! <image id>.json        (google) the config, once for each name of the image
//! <v1 id>/VERSION        1.0; layers top first
//! <v1 id>/layer.tar      plain
//! <v1 id>/json           id, parent, and for the top layer the container config
//! repositories           name -> tag -> v1 ID of the top layer
//! top                    (v1, one image) its v1 ID
//! manifest.json          (google) an entry for each name
//! ```
//!
//! As of the [last version](https://github.com/google/containerregistry/blob/0492daa2652d500ea618bebe66cdf2e3a80d030c/client/v2_2/save_.py).
//! Its archives have Python's headers, JSON and records of 20 blocks. Where history ends with an empty layer, `repositories` names a layer that
//! is not there, as with the original.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{ACCEPTS, Dialect, config_name};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::format::Members;
use crate::format::archive_write::{Body, Layouter, Member};
use crate::format::docker_archive::EMPTY_LAYER;
use crate::reference::Reference;
use crate::sink::{Accepts, Expected, ExpectedImage, Sealed, SealedImage};
use crate::spec::style::{python, python_string};
use crate::spec::{Fields, Json};
use crate::tar::{Header, HeaderStyle};

/// What the top layer's JSON takes from the config, where that has it.
const TOP: [&str; 7] = ["architecture", "config", "container", "container_config", "created", "docker_version", "os"];

/// What the JSON of another layer takes from its history.
const STEP: [&str; 3] = ["author", "comment", "created"];

/// One of the two dialects.
#[derive(Debug)]
pub(super) struct Google {
    name: &'static str,
    about: &'static str,
    /// Whether there are configs and `manifest.json`.
    configs: bool,
}

/// `--dialect google`.
pub(super) static GOOGLE: Google =
    Google { name: "google", about: "as containerregistry writes it: config, folders of 2013, manifest.json", configs: true };

/// `--dialect v1`.
pub(super) static V1: Google =
    Google { name: "v1", about: "as before Docker 1.10: folders with v1 JSON, top layer first, no config", configs: false };

impl Dialect for Google {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn accepts(&self) -> Accepts {
        Accepts {
            format: if self.configs { "docker-archive (google)" } else { "docker-archive (v1)" },
            configs: self.configs,
            stored_digests: true,
            ..ACCEPTS
        }
    }

    fn members(&self) -> Members {
        const ALL: Members = &[
            ("<image id>.json", "the config of an image, once for each of its names"),
            ("<v1 id>/VERSION", "`1.0`; top layer first"),
            ("<v1 id>/layer.tar", "the layer"),
            ("<v1 id>/json", "the v1 JSON of 2013: its ID, its parent's, and for the top layer the container settings"),
            ("repositories", "repository, tag and top layer of each name"),
            ("manifest.json", "the archive manifest: an entry for each name"),
        ];
        const OLD: Members = &[ALL[1], ALL[2], ALL[3], ALL[4], ("top", "the ID of the top layer, if there is one image")];
        if self.configs { ALL } else { OLD }
    }

    fn layouter(&self) -> Box<dyn Layouter> {
        Box::new(Writer { configs: self.configs, chains: Vec::new() })
    }
}

#[derive(Debug)]
struct Writer {
    configs: bool,
    /// What each image consists of; known once the images are.
    chains: Vec<Chain>,
}

impl Layouter for Writer {
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        let mut seen = HashSet::new();
        let mut blobs = HashSet::new();
        self.chains = expected.images.iter().map(Chain::of).collect::<Result<_>>()?;
        if !self.configs {
            self.refuse_what_nothing_leads_to(&expected.images)?;
        }
        if self.configs {
            for image in &expected.images {
                let config = || file(config_name(&image.config), image.config.shared());
                members.extend(image.references.iter().map(|_| config()));
                if image.references.is_empty() {
                    members.push(config());
                }
            }
        }
        for (chain, image) in self.chains.iter().zip(&expected.images) {
            for (layer, listed) in chain.layers.iter().zip(&image.layers).rev() {
                if !seen.insert(layer.id.clone()) {
                    continue;
                }
                members.push(file(format!("{}/VERSION", layer.id), *b"1.0"));
                match listed.blob {
                    Some(blob) => {
                        let body = if blobs.insert(blob) { Body::Blob(blob, None) } else { Body::Again(blob) };
                        members.push(Member { header: header(layer.member()), body });
                    }
                    None if self.configs => {}
                    None => {
                        return Err(Error::unsupported(format_args!(
                            "layer {} is foreign, and v1 archives cannot say where it is",
                            layer.id
                        ))
                        .frame(format_args!("image {}", image.config.digest())));
                    }
                }
                members.push(file(format!("{}/json", layer.id), Arc::clone(&layer.json)));
            }
        }
        Ok(members)
    }

    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>> {
        let mut repositories: BTreeMap<String, BTreeMap<&str, &str>> = BTreeMap::new();
        for (image, chain) in sealed.images.iter().zip(&self.chains) {
            for reference in &image.references {
                if let (Some(tag), false) = (reference.tag(), chain.top.is_empty()) {
                    repositories.entry(reference.familiar_repository()).or_default().insert(tag, &chain.top);
                }
            }
        }
        let repositories = serde_json::to_string(&repositories).map_err(Error::invalid)?;
        let mut members = vec![file("repositories".to_owned(), dumps(&repositories)?)];
        match &self.chains[..] {
            _ if self.configs => {
                let entries = sealed.images.iter().zip(&self.chains).flat_map(|(image, chain)| entries(image, chain));
                members
                    .push(file("manifest.json".to_owned(), format!("[{}]", entries.collect::<Result<Vec<_>>>()?.join(", ")).into_bytes()));
            }
            [chain] => members.push(file("top".to_owned(), chain.top.clone().into_bytes())),
            _ => {}
        }
        Ok(members)
    }

    fn record(&self) -> u64 {
        20 * crate::tar::BLOCK as u64
    }
}

impl Writer {
    /// In `v1`, only `repositories` and `top` lead to images, and only to layers: what they cannot name would be lost.
    fn refuse_what_nothing_leads_to(&self, images: &[ExpectedImage]) -> Result<()> {
        let mut hidden = HashSet::new();
        for (chain, image) in self.chains.iter().zip(images) {
            let last = chain.layers.last().map(|layer| layer.id.as_str());
            let problem = match last {
                None => "it has no layer, and v1 archives know an image by its top layer",
                Some(_) if images.len() > 1 && image.references.is_empty() => {
                    "it has no name, and v1 archives of several images know them by name"
                }
                // A reader can tell where one such name leads, since no other leads there.
                Some(last) if last != chain.top && hidden.insert(last) && hidden.len() > 1 => {
                    "its history ends with a step that made no layer, and so does another's, so that a v1 archive does not tell them apart"
                }
                Some(_) => continue,
            };
            let error = Error::unsupported(problem).frame(format_args!("image {}", image.config.digest()));
            return Err(error.hint("--dialect google is the same with configs; or write it to an archive of its own"));
        }
        Ok(())
    }
}

fn header(name: String) -> Header {
    Header { path: name.into_bytes(), style: HeaderStyle::Python, ..Header::default() }
}

fn file(name: String, bytes: impl Into<Arc<[u8]>>) -> Member {
    let bytes = bytes.into();
    Member { header: Header { size: bytes.len() as u64, ..header(name) }, body: Body::Bytes(bytes) }
}

fn dumps(json: &str) -> Result<Vec<u8>> {
    Ok(python(Json::text_of(json)).map_err(Error::invalid)?.into_bytes())
}

/// The entries of `manifest.json` for one image: one for each name.
fn entries(image: &SealedImage, chain: &Chain) -> Vec<Result<String>> {
    let layers: Vec<_> = chain.layers.iter().map(Layer::member).collect();
    let foreign = image.layers.iter().filter(|layer| layer.is_foreign());
    let sources: BTreeMap<_, _> = foreign.map(|layer| (layer.diff_id.to_string(), &layer.descriptor)).collect();
    let entry = |tags: Option<[String; 1]>| {
        let mut entry = serde_json::json!({ "Config": config_name(&image.config), "Layers": layers, "RepoTags": tags });
        if !sources.is_empty() {
            entry["LayerSources"] = serde_json::to_value(&sources).map_err(Error::invalid)?;
        }
        python(Json::text_of(&entry.to_string())).map_err(Error::invalid)
    };
    match &image.references[..] {
        [] => vec![entry(None)],
        references => references.iter().map(Reference::familiar).map(|tag| entry(Some([tag]))).collect(),
    }
}

/// The layers of an image as the archives of 2013 know them.
#[derive(Debug)]
struct Chain {
    /// Those with bytes, base first.
    layers: Vec<Layer>,
    /// The ID of the last of all, which may be none of them; empty where there is no layer.
    top: String,
}

#[derive(Debug)]
struct Layer {
    id: String,
    json: Arc<[u8]>,
}

impl Layer {
    fn member(&self) -> String {
        format!("{}/layer.tar", self.id)
    }
}

impl Chain {
    /// Makes the v1 JSON of every step of the history, or takes that which the source has.
    fn of(image: &ExpectedImage) -> Result<Self> {
        if let Some(legacy) = &image.legacy {
            let layers = legacy.layers.iter().map(|layer| Layer { id: layer.id.clone(), json: Arc::clone(&layer.json) }).collect();
            return Ok(Self { layers, top: legacy.top.clone() });
        }
        Self::made(image).context(|| format!("the v1 JSON of image {}", image.config.digest()))
    }

    fn made(image: &ExpectedImage) -> Result<Self> {
        let text = std::str::from_utf8(image.config.bytes()).map_err(Error::invalid)?;
        let config = Json::text_of(text.trim()).object().map_err(Error::invalid)?;
        let history = match config.value("history") {
            Some(history) if !history.is_null() => history.array().map_err(Error::invalid)?,
            _ => Vec::new(),
        };
        let empty: Vec<bool> = image.config.history.iter().map(|step| step.empty_layer).collect();
        // A history that does not fit is none: it is informative.
        let fits = empty.iter().filter(|empty| !**empty).count() == image.layers.len();
        let steps = if fits { history.into_iter().map(Some).zip(empty).collect() } else { vec![(None, false); image.layers.len()] };
        let mut stored = image.layers.iter().map(|layer| layer.stored);
        let (mut layers, mut top) = (Vec::new(), String::new());
        let last = steps.len().saturating_sub(1);
        for (position, (step, empty)) in steps.into_iter().enumerate() {
            let missing = || {
                let error = Error::not_found(format_args!("layer {} is missing, and v1 IDs are made of digests of layers", layers.len()));
                error.hint("name the archive of its base as another source, or use --dialect classic")
            };
            let blob = match empty {
                true => EMPTY_LAYER.to_owned(),
                false => stored.next().flatten().ok_or_else(missing)?.hex(),
            };
            let parent = std::mem::take(&mut top);
            let mut json = BTreeMap::new();
            if position == last {
                top = Digest::of(format!("{blob} {parent} {text}").as_bytes()).hex();
                take(&mut json, &config, &TOP)?;
            } else {
                top = Digest::of(format!("{blob} {parent}").as_bytes()).hex();
                if let Some(step) = step {
                    let step = step.object().map_err(Error::invalid)?;
                    take(&mut json, &step, &STEP)?;
                    if let Some(created_by) = present(&step, "created_by") {
                        let created_by = python(created_by).map_err(Error::invalid)?;
                        json.insert("container_config", format!("{{\"Cmd\": [{created_by}]}}"));
                    }
                }
            }
            json.insert("id", python_string(&top));
            if !parent.is_empty() {
                json.insert("parent", python_string(&parent));
            }
            if !empty {
                let pairs: Vec<_> = json.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                layers.push(Layer { id: top.clone(), json: format!("{{{}}}", pairs.join(", ")).into_bytes().into() });
            }
        }
        Ok(Self { layers, top })
    }
}

/// The value of `key`, also where it is `null`.
fn present<'a>(fields: &Fields<'a>, key: &str) -> Option<Json<'a>> {
    fields.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
}

fn take<'k>(json: &mut BTreeMap<&'k str, String>, from: &Fields<'_>, keys: &[&'k str]) -> Result<()> {
    for key in keys {
        if let Some(value) = present(from, key) {
            json.insert(key, python(value).map_err(Error::invalid)?);
        }
    }
    Ok(())
}

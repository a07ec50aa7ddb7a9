//! Archives from before Docker 1.10, and of tools that went on to write them: `repositories` and folders of layers, no config.
//!
//! ```text
//! repositories       {"kitchen":{"1":"<v1 id>"}}
//! top                the ID of the top layer, where there is one image
//! <v1 id>/json       {"id":…,"parent":…}, and for the top layer the container config
//! <v1 id>/layer.tar
//! ```
//!
//! The config is made of the v1 JSON, as Docker's migration made it
//! ([`MakeConfigFromV1Config`](https://github.com/moby/moby/blob/v24.0.9/image/v1/imagev1.go)). Its diff IDs are digests of the layers, so that
//! all of them are read when such an archive is opened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{EMPTY_LAYER, NAME};
use crate::catalog::{Blob, BlobId, Catalog, Content, Image, ImageId, Known, Layer, Legacy, LegacyLayer, Name, Node, Root};
use crate::compress::{Compression, decoder};
use crate::digest::{Algorithm, DiffId, Digest};
use crate::error::{Context as _, Error, Result};
use crate::format::files::{ArchiveFiles, FileSource, Files};
use crate::reference::Reference;
use crate::source::{Pick, Source};
use crate::spec::{Config, Json, JsonLimits, Object, Raw, Repositories};
use crate::transport::Section;
use crate::tree::{Opening, is_called, narrow, not_found};

/// How many steps that may have been left out are looked at: IDs go one way only, so that all have to be tried.
const LEFT_OUT: usize = 1 << 16;

/// Keys of v1 JSON that mean something here.
const KEYS: [&str; 7] = ["id", "parent", "created", "author", "comment", "container_config", "throwaway"];

/// What of the top layer's JSON is not of the config.
const NOT_OF_CONFIG: [&str; 8] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway", "rootfs", "history"];

pub(super) fn open(files: ArchiveFiles, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    let mut reader = Reader::new(&files, opening)?;
    let tops = reader.tops()?;
    let mut catalog = Catalog::default();
    let mut images: HashMap<String, ImageId> = HashMap::new();
    let mut chains: HashMap<String, Option<Vec<Step>>> = HashMap::new();
    let mut roots = Vec::new();
    for (top, name) in tops {
        let wanted = match (opening.pick, &name) {
            (Some(Pick::Name(wanted)), Some(name)) => is_called(name, wanted),
            (Some(Pick::Name(_)), None) => false,
            _ => true,
        };
        if wanted && !chains.contains_key(&top) {
            chains.insert(top.clone(), opening.tolerate(reader.chain(&top), &mut catalog.findings)?);
        }
        roots.push((top, name, wanted));
    }
    catalog.warnings = std::mem::take(&mut reader.warnings);
    let diff_ids = reader.diff_ids(&mut catalog)?;
    let mut others = Vec::new();
    for (top, name, wanted) in roots {
        let Some(chain) = chains.get(&top).and_then(Option::as_ref).filter(|_| wanted) else {
            others.push(Root { name, node: Node { descriptor: None, content: Content::Unread } });
            continue;
        };
        let known = images.get(&top).copied();
        let made = known.map_or_else(|| reader.image(chain, &diff_ids, &mut catalog).context(|| format!("image {top}")), Ok);
        if let Some(id) = opening.tolerate(made, &mut catalog.findings)? {
            images.insert(top, id);
            catalog.roots.push(Root { name, node: Node { descriptor: None, content: Content::Image(id) } });
        }
    }
    if let Some(Pick::Name(wanted)) = opening.pick
        && catalog.roots.is_empty()
    {
        return Err(not_found(&others, wanted));
    }
    narrow(&mut catalog, opening, Vec::new())?;
    let names = reader.names;
    Ok(Arc::new(FileSource { files: Box::new(files), names, catalog, format: NAME }))
}

/// A layer of an image, with its JSON.
#[derive(Clone)]
struct Step {
    id: String,
    json: Option<Arc<[u8]>>,
    /// Its bytes; none for a step that made no layer.
    blob: Option<BlobId>,
}

struct Reader<'a> {
    files: &'a ArchiveFiles,
    opening: &'a Opening<'a>,
    /// The layers that have a folder.
    ids: HashSet<String>,
    left_out: LeftOut,
    metadata: u64,
    blobs: BTreeMap<u64, BlobId>,
    found: Vec<Blob>,
    names: Vec<String>,
    /// Layers that `repositories` names.
    named: HashSet<String>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(files: &'a ArchiveFiles, opening: &'a Opening<'a>) -> Result<Self> {
        let ids: HashSet<String> = files.folders_with("json").collect();
        if ids.is_empty() {
            return Err(Error::not_found("it has neither manifest.json nor a folder with the JSON of a layer").frame("docker-archive"));
        }
        // Sorted, so that it is always the same that are tried.
        let mut known: Vec<String> = ids.iter().cloned().collect();
        known.push(String::new());
        known.sort();
        let left_out = LeftOut { parents: HashMap::new(), last: known };
        let (names, found, blobs) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (named, warnings) = (HashSet::new(), Vec::new());
        Ok(Self { files, opening, ids, left_out, metadata: 0, blobs, found, names, named, warnings })
    }

    fn document(&mut self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let files: &dyn Files = self.files;
        let bytes = files.read(name, limit)?;
        self.hold(bytes.len())?;
        Ok(bytes)
    }

    /// Counts JSON that is held in memory, read or made.
    fn hold(&mut self, bytes: usize) -> Result<()> {
        self.metadata += bytes as u64;
        let limit = self.opening.ctx.limits.metadata;
        if self.metadata > limit {
            return Err(Error::limit(format_args!("all JSON together has more than {limit} bytes")).hint("raise --limit metadata=BYTES"));
        }
        Ok(())
    }

    fn json_limits(&self) -> JsonLimits {
        let limits = &self.opening.ctx.limits;
        JsonLimits { bytes: limits.config, depth: limits.json_depth }
    }

    /// The top layers and their names.
    fn tops(&mut self) -> Result<Vec<(String, Option<Name>)>> {
        let mut tops = Vec::new();
        if self.files.has("repositories") {
            let bytes = self.document("repositories", self.opening.ctx.limits.manifest)?;
            let raw = Raw::<Repositories>::parse(bytes, &self.json_limits()).map_err(|e| Error::from(e).frame("repositories"))?;
            self.named = raw.0.values().flatten().map(|(_, id)| id.clone()).collect();
            for (repository, tags) in &raw.0 {
                for (tag, id) in tags {
                    let name = format!("{repository}:{tag}");
                    let reference = Reference::parse(&name).map_err(|e| Error::invalid(e).frame("repositories"))?;
                    if reference.digest().is_some() {
                        let what = format_args!("{} has a digest where a tag belongs", name.escape_debug());
                        return Err(Error::invalid(what).frame("repositories"));
                    }
                    tops.push((id.clone(), Some(Name::Reference(reference.with_default_tag()))));
                }
            }
        }
        if !tops.is_empty() {
            return Ok(tops);
        }
        if self.files.has("top") {
            let id = self.document("top", 1024)?;
            return Ok(vec![(String::from_utf8_lossy(&id).trim().to_owned(), None)]);
        }
        Ok(vec![(self.only_top()?, None)])
    }

    /// The layer below a top that is missing. Where the history ends with a step that made no layer, containerregistry names that step, which it
    /// left out: then it stands on whatever layer nothing else builds on, and no other name leads to.
    fn below(&mut self, id: &str) -> Result<String> {
        let missing = || Error::not_found(format_args!("layer {} is missing", id.escape_debug()));
        if format!("sha256:{id}").parse::<Digest>().is_err() {
            return Err(missing());
        }
        let top = self.only_top().map_err(|_| missing())?;
        let warning = format!("layer {id} is missing, and taken for a step that made none: {top} is the only layer that may be below it");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
        Ok(top)
    }

    /// The one layer that is no other's parent and that has no name.
    fn only_top(&mut self) -> Result<String> {
        let mut parents = HashSet::new();
        let mut ids: Vec<_> = self.ids.iter().cloned().collect();
        ids.sort();
        for id in &ids {
            let json = self.json(id)?.1;
            let mut parent = self.parent(&json)?;
            while let Some(known) = parent {
                parent = if self.ids.contains(&known) { None } else { self.left_out.parent(&known) };
                parents.insert(known);
            }
        }
        ids.retain(|id| !parents.contains(id) && !self.named.contains(id));
        match ids.as_slice() {
            [top] => Ok(top.clone()),
            others => Err(Error::invalid(format_args!("it names no image, and {} layers may be the top of one", others.len()))),
        }
    }

    fn json(&mut self, id: &str) -> Result<(Arc<[u8]>, Object)> {
        let name = format!("{id}/json");
        let bytes = self.document(&name, self.opening.ctx.limits.config)?;
        let limits = self.json_limits();
        crate::spec::json::check(&bytes, &limits).map_err(|e| Error::from(e).frame(&name))?;
        let text = std::str::from_utf8(&bytes).map_err(|e| Error::invalid(e).frame(&name))?;
        let exact = Json::text_of(text.trim()).object().and_then(|fields| fields.exact(&KEYS));
        exact.map_err(|e| Error::invalid(e).frame(&name))?;
        let object = Object::parse(&bytes).map_err(|e| Error::from(e).frame(&name))?;
        Ok((bytes.into(), object))
    }

    fn parent(&self, json: &Object) -> Result<Option<String>> {
        let Some(parent) = json.get("parent").map(Json::of).filter(|parent| !parent.is_null()) else { return Ok(None) };
        Ok(Some(parent.string().map_err(|e| Error::invalid(e).frame("parent"))?).filter(|parent| !parent.is_empty()))
    }

    /// The layers of an image, base first, and the steps that made none.
    fn chain(&mut self, top: &str) -> Result<Vec<Step>> {
        let mut chain = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(top.to_owned());
        while let Some(id) = next.take() {
            if chain.len() >= self.opening.ctx.limits.layers {
                return Err(Error::limit(format_args!("image {top} has more than {} layers", self.opening.ctx.limits.layers)));
            }
            if !seen.insert(id.clone()) {
                return Err(Error::invalid("its parents lead back to it").frame(format_args!("layer {}", id.escape_debug())));
            }
            if !self.ids.contains(&id) {
                let parent = match (self.left_out.parent(&id), chain.last()) {
                    (Some(parent), _) => parent,
                    (None, None) => self.below(&id)?,
                    (None, Some(Step { id: child, .. })) => {
                        let missing = Error::not_found(format_args!("its parent {} is missing", id.escape_debug()));
                        return Err(missing.frame(format_args!("layer {child}")));
                    }
                };
                next = Some(parent).filter(|parent| !parent.is_empty());
                chain.push(Step { id, json: None, blob: None });
                continue;
            }
            let (json, object) = self.json(&id)?;
            let stated = object
                .get("id")
                .map(|id| Json::of(id).string())
                .transpose()
                .map_err(|e| Error::invalid(e).frame(format_args!("{id}/json: id")))?;
            if let Some(stated) = stated.filter(|stated| *stated != id) {
                return Err(
                    Error::invalid(format_args!("it says that its ID is {}", stated.escape_debug())).frame(format_args!("{id}/json"))
                );
            }
            next = self.parent(&object).context(|| format!("{id}/json"))?;
            let blob = self.blob(&id, &object)?;
            chain.push(Step { id, json: Some(json), blob });
        }
        chain.reverse();
        Ok(chain)
    }

    fn blob(&mut self, id: &str, json: &Object) -> Result<Option<BlobId>> {
        let name = format!("{id}/layer.tar");
        let Some(size) = self.files.size(&name)? else {
            let throwaway = json.get("throwaway").is_some_and(|value| value.get() == "true");
            return if throwaway { Ok(None) } else { Err(Error::not_found("it is missing").frame(format_args!("member {name}"))) };
        };
        let at = self.files.open(&name).context(|| &name)?.1.start;
        if let Some(known) = self.blobs.get(&at) {
            return Ok(Some(*known));
        }
        let files: &dyn Files = self.files;
        let blob = BlobId(self.found.len());
        let known = Known { size: Some(size), ..Known::default() };
        self.found.push(Blob { known, compression: files.compression(&name)?, place: format!("layer {name}") });
        self.names.push(name);
        self.blobs.insert(at, blob);
        Ok(Some(blob))
    }

    /// Reads all layers, several at once, and adds them to the catalog.
    fn diff_ids(&mut self, catalog: &mut Catalog) -> Result<Vec<DiffId>> {
        let diff_id = |at: usize| self.diff_id(&self.names[at], self.found[at].compression);
        let found = self.opening.ctx.pool.side_by_side(self.found.len(), diff_id);
        let mut diff_ids = Vec::with_capacity(found.len());
        for ((at, mut blob), found) in std::mem::take(&mut self.found).into_iter().enumerate().zip(found) {
            let diff_id = found.context(|| format!("member {}", self.names[at]))?;
            blob.known.diff_id = Some(diff_id);
            if blob.compression == Compression::None {
                blob.known.digest = Some(diff_id.0);
            }
            catalog.blobs.push(blob);
            diff_ids.push(diff_id);
        }
        Ok(diff_ids)
    }

    fn diff_id(&self, name: &str, compression: Compression) -> Result<DiffId> {
        let ctx = self.opening.ctx;
        let (file, range) = self.files.open(name)?;
        let mut plain = decoder(compression, Section::new(file, range.start, range.end), (&ctx.limits).into())?;
        Ok(DiffId(ctx.digest(&mut plain, Algorithm::Sha256)?))
    }

    /// Makes the config of an image.
    fn image(&mut self, chain: &[Step], diff_ids: &[DiffId], catalog: &mut Catalog) -> Result<ImageId> {
        let with_bytes = || chain.iter().filter_map(|step| Some((step, step.blob?)));
        let layers =
            with_bytes().map(|(_, blob)| Layer { diff_id: diff_ids[blob.0], blob: Some(blob), descriptor: None, missing: None }).collect();
        let history = chain.iter().map(history).collect::<Result<Vec<_>>>()?;
        let top = chain.iter().rev().find_map(|step| step.json.as_ref());
        let mut config = top.map_or_else(|| Ok(Object::new()), |json| Object::parse(json))?;
        for key in NOT_OF_CONFIG {
            config.remove(key);
        }
        for (key, default) in [("architecture", "amd64"), ("os", "linux")] {
            if config.get(key).is_none_or(|value| matches!(value.get(), "null" | "\"\"")) {
                config.set(key, default);
            }
        }
        let listed: Vec<_> = with_bytes().map(|(_, blob)| diff_ids[blob.0]).collect();
        config.set("rootfs", serde_json::json!({ "type": "layers", "diff_ids": listed }));
        config.set("history", history);
        let config = config.to_vec();
        self.hold(config.len())?;
        let config = Raw::<Config>::parse(config, &self.json_limits()).map_err(|e| Error::from(e).frame("v1 JSON"))?;
        let v1 = with_bytes().filter_map(|(step, _)| Some(LegacyLayer { id: step.id.clone(), json: step.json.clone()? })).collect();
        let legacy = Legacy { top: chain.last().map(|step| step.id.clone()).unwrap_or_default(), layers: v1 };
        Ok(catalog.add_image(Image { manifest: None, config, layers, legacy: Some(Arc::new(legacy)), lineage: None }))
    }
}

/// Steps that made no layer, and that the writer left out between two layers: the ID of such a step is made of its parent's.
struct LeftOut {
    /// Of each that was looked at, the ID below.
    parents: HashMap<String, String>,
    /// What the next ones may stand on: first all layers, and nothing, then the steps found last.
    last: Vec<String>,
}

impl LeftOut {
    /// The ID below, if `id` is that of such a step.
    fn parent(&mut self, id: &str) -> Option<String> {
        loop {
            if let Some(parent) = self.parents.get(id) {
                return Some(parent.clone());
            }
            let room = LEFT_OUT - self.parents.len();
            if room == 0 {
                return None;
            }
            for parent in std::mem::take(&mut self.last).into_iter().take(room) {
                let id = Digest::of(format!("{EMPTY_LAYER} {parent}").as_bytes()).hex();
                self.last.push(id.clone());
                self.parents.insert(id, parent);
            }
        }
    }
}

/// What the JSON of a layer says of how it was made.
fn history(step: &Step) -> Result<Object> {
    let mut history = Object::new();
    if let Some(json) = &step.json {
        let json = Object::parse(json)?;
        for key in ["created", "author", "comment"] {
            if let Some(value) = json.get(key).filter(|value| !matches!(value.get(), "null" | "\"\"")) {
                history.set_raw(key, value.to_owned());
            }
        }
        if let Some(created_by) = created_by(&json).filter(|created_by| !created_by.is_empty()) {
            history.set("created_by", created_by);
        }
    }
    if step.blob.is_none() {
        history.set("empty_layer", true);
    }
    Ok(history)
}

/// The command of the container that a layer was committed from.
fn created_by(json: &Object) -> Option<String> {
    let container = Json::of(json.get("container_config")?).object().ok()?;
    let words = container.value("Cmd")?.list(Json::string).ok()?;
    Some(words.join(" "))
}

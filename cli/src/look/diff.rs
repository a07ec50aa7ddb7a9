//! What differs between two images, as lines and as JSON.

use longshore::Digest;
use longshore::catalog::Image;
use longshore::look::{Aspect, Difference, FileChange, FileChanges, Item, ItemKind, LayerSide, ValueChange};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::item::{ItemInfo, kind, minute, path};
use crate::text::{bytes, count, shortened, shown};

/// What `diff --json` prints.
#[derive(Serialize)]
pub(crate) struct Differing<'a> {
    version: u32,
    same: bool,
    before: ImageSide,
    after: ImageSide,
    names: Names<'a>,
    config: &'a [ValueChange],
    layers_in_common: usize,
    layers: Vec<Layers<'a>>,
    files: Files<'a>,
}

#[derive(Serialize)]
struct ImageSide {
    image: Digest,
    platform: String,
}

#[derive(Serialize)]
struct Names<'a> {
    removed: &'a [String],
    added: &'a [String],
}

#[derive(Serialize)]
struct Layers<'a> {
    position: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<LayerInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<LayerInfo>,
    files: Files<'a>,
}

#[derive(Serialize)]
struct LayerInfo {
    diff_id: longshore::DiffId,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

#[derive(Serialize)]
struct Files<'a> {
    added: usize,
    removed: usize,
    changed: usize,
    times_only: usize,
    bytes_before: u64,
    bytes_after: u64,
    #[serde(serialize_with = "one_by_one")]
    changes: &'a [FileChange],
}

#[derive(Serialize)]
struct Change<'a> {
    change: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differs_in: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<ItemInfo<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<ItemInfo<'a>>,
}

/// Makes each change when it is printed.
fn one_by_one<S: Serializer>(changes: &&[FileChange], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(changes.iter().map(|change| Change {
        change: match how(change) {
            How::Added => "added",
            How::Changed => "changed",
            How::Removed => "removed",
        },
        differs_in: change.aspects.iter().map(|aspect| name(*aspect)).collect(),
        before: change.before.as_ref().map(ItemInfo::from),
        after: change.after.as_ref().map(ItemInfo::from),
    }))
}

impl<'a> Differing<'a> {
    pub(crate) fn new(before: &Image, after: &Image, found: &'a Difference) -> Self {
        let side = |image: &Image| ImageSide { image: *image.id(), platform: image.platform().to_string() };
        let layer = |side: &LayerSide| LayerInfo { diff_id: side.diff_id, size: side.size };
        let layers = found.layers.iter().map(|change| Layers {
            position: change.position,
            before: change.before.as_ref().map(layer),
            after: change.after.as_ref().map(layer),
            files: Files::from(&change.files),
        });
        Self {
            version: 1,
            same: found.is_none(),
            before: side(before),
            after: side(after),
            names: Names { removed: &found.names_removed, added: &found.names_added },
            config: &found.config,
            layers_in_common: found.layers_in_common,
            layers: layers.collect(),
            files: Files::from(&found.files),
        }
    }
}

impl<'a> From<&'a FileChanges> for Files<'a> {
    fn from(files: &'a FileChanges) -> Self {
        let [added, removed, changed] = counts(files);
        let FileChanges { changes, times_only, bytes_before, bytes_after } = files;
        Self { added, removed, changed, times_only: *times_only, bytes_before: *bytes_before, bytes_after: *bytes_after, changes }
    }
}

/// Whether a name is new, gone or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Added,
    Changed,
    Removed,
}

fn how(change: &FileChange) -> How {
    match (&change.before, &change.after) {
        (None, _) => How::Added,
        (_, None) => How::Removed,
        _ => How::Changed,
    }
}

/// Added, removed, and changed in more than their time.
fn counts(files: &FileChanges) -> [usize; 3] {
    let of = |wanted: How| {
        let counted = |change: &&FileChange| how(change) == wanted && change.aspects != [Aspect::Mtime];
        files.changes.iter().filter(counted).count()
    };
    [of(How::Added), of(How::Removed), of(How::Changed)]
}

fn name(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Content => "content",
        Aspect::Device => "device",
        Aspect::Kind => "kind",
        Aspect::Link => "link",
        Aspect::Mode => "mode",
        Aspect::Mtime => "mtime",
        Aspect::Owner => "owner",
        Aspect::Xattrs => "xattrs",
    }
}

/// Characters of a value that are shown unless all are wanted.
const VALUE_WIDTH: usize = 160;

/// The lines, in parts; with `layers`, those for the files of each layer too. `whole` shows long values in full.
pub(crate) fn text_of<'a>(found: &'a Difference, layers: bool, whole: bool) -> impl Iterator<Item = String> + 'a {
    let mut head = String::new();
    if found.before != found.after {
        head += &format!("image {} -> {}\n", found.before, found.after);
    }
    let names = found.names_removed.iter().map(|name| ('D', name)).chain(found.names_added.iter().map(|name| ('A', name)));
    for (letter, name) in names {
        head += &format!("{letter} name {}\n", shown(name));
    }
    for change in &found.config {
        head += &value(change, whole);
    }
    let has_layers = !found.layers.is_empty();
    if has_layers {
        head += &format!("layers: {} in common\n", found.layers_in_common);
    }
    let of_layers = found.layers.iter().flat_map(move |change| {
        let mut text = String::new();
        for (letter, side) in [('D', &change.before), ('A', &change.after)] {
            let Some(side) = side else { continue };
            let size = side.size.map_or_else(|| "unknown size".to_owned(), bytes);
            text += &format!("{letter} layer {} {} {size}\n", change.position, side.diff_id);
        }
        text += &format!("  {}\n", summary(&change.files));
        std::iter::once(text).chain(change.files.changes.iter().filter(move |_| layers).map(|change| line("  ", change)))
    });
    let total = has_layers.then(|| format!("files: {}\n", summary(&found.files)));
    let files = found.files.changes.iter().map(|change| line("", change));
    in_parts(std::iter::once(head).chain(of_layers).chain(total).chain(files))
}

/// Puts lines together, so that each is not a write of its own.
fn in_parts(mut lines: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    const PART: usize = 64 << 10;
    std::iter::from_fn(move || {
        let mut part = lines.next()?;
        while part.len() < PART {
            let Some(line) = lines.next() else { break };
            part += &line;
        }
        Some(part)
    })
}

fn value(change: &ValueChange, whole: bool) -> String {
    let shown = |value: &Value| {
        let text = shown(&value.to_string());
        if whole { text } else { shortened(&text, VALUE_WIDTH) }
    };
    let path = crate::text::shown(&change.path);
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("C {path}: {} -> {}\n", shown(before), shown(after)),
        (Some(before), None) => format!("D {path}: {}\n", shown(before)),
        (None, Some(after)) => format!("A {path}: {}\n", shown(after)),
        (None, None) => String::new(),
    }
}

fn summary(files: &FileChanges) -> String {
    let [added, removed, changed] = counts(files);
    let times = if files.times_only > 0 { format!(", {} in time only", count(files.times_only, "file")) } else { String::new() };
    let (before, after) = (bytes(files.bytes_before), bytes(files.bytes_after));
    format!("{added} added, {removed} removed, {changed} changed{times}; {before} -> {after}")
}

fn line(indent: &str, change: &FileChange) -> String {
    let (letter, about) = match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            let aspects: Vec<_> = change.aspects.iter().map(|aspect| differs(*aspect, before, after)).collect();
            ('C', aspects.join(", "))
        }
        (Some(item), None) => ('D', what(item)),
        (None, Some(item)) => ('A', what(item)),
        (None, None) => return String::new(),
    };
    format!("{indent}{letter} {}: {about}\n", path(change.path()))
}

/// What a file is that only one has.
fn what(item: &Item) -> String {
    match item.kind {
        ItemKind::File => bytes(item.size),
        ItemKind::Symlink => format!("symlink -> {}", path(&item.link)),
        other => kind(other).replace('-', " "),
    }
}

fn differs(aspect: Aspect, before: &Item, after: &Item) -> String {
    let link = |item: &Item| path(item.hard_link.as_deref().unwrap_or(&item.link));
    let (name, [old, new]) = match aspect {
        Aspect::Content if before.size == after.size => return format!("content ({})", bytes(after.size)),
        Aspect::Content => return format!("content ({} -> {})", bytes(before.size), bytes(after.size)),
        Aspect::Device => ("device", [before, after].map(|item| format!("{}, {}", item.device.0, item.device.1))),
        Aspect::Kind => ("kind", [before, after].map(|item| kind(item.kind).replace('-', " "))),
        Aspect::Link => ("link", [before, after].map(link)),
        Aspect::Mode => ("mode", [before, after].map(|item| format!("{:04o}", item.mode))),
        Aspect::Mtime => ("time", [before, after].map(|item| minute(item.mtime))),
        Aspect::Owner => ("owner", [before, after].map(|item| format!("{}:{}", item.owner.uid, item.owner.gid))),
        Aspect::Xattrs => return format!("xattrs {}", xattrs(before, after)),
    };
    format!("{name} {old} -> {new}")
}

/// The names of attributes that differ.
fn xattrs(before: &Item, after: &Item) -> String {
    let has = |item: &Item, name: &[u8]| item.xattrs.iter().any(|(known, _)| known == name);
    let mut found = Vec::new();
    for (name, _) in before.xattrs.iter().filter(|(name, _)| !has(after, name)) {
        found.push(format!("-{}", path(name)));
    }
    for record in after.xattrs.iter().filter(|record| !before.xattrs.contains(record)) {
        let sign = if has(before, &record.0) { "" } else { "+" };
        found.push(format!("{sign}{}", path(&record.0)));
    }
    found.join(" ")
}

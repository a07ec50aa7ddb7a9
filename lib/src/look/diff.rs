//! What differs between two images: names, config, layers, and the files in them.
//!
//! Headers of both are read, and contents only of files of the same name and size that are not the same entry of the same layer: layers that
//! both images have are the same bytes, and so are their entries.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::iter::Peekable;

use serde_json::Value;

use super::config::{ValueChange, compare};
use super::content::{Contents, contents};
use super::item::{Item, ItemKind, in_order};
use super::{layers, list, plan_of};
use crate::catalog::{Image, ImageId};
use crate::context::Context;
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, Result};
use crate::layer::tree::EntryId;
use crate::plan::MergePlan;
use crate::run::layers::Layers;
use crate::source::Source;

/// What is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// Lists files that differ in nothing but their time too; they are counted anyway.
    pub times: bool,
}

/// What differs between two images, the first of which is called before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The image IDs.
    pub before: Digest,
    /// The same of the second.
    pub after: Digest,
    /// Names that only the first has.
    pub names_removed: Vec<String>,
    /// Names that only the second has.
    pub names_added: Vec<String>,
    /// Values of the config that differ. Diff IDs are not among them, since layers have their own place.
    pub config: Vec<ValueChange>,
    /// How many layers the two have in common, from the base up.
    pub layers_in_common: usize,
    /// The layers above, one beside the other.
    pub layers: Vec<LayerChange>,
    /// What differs in the merged trees.
    pub files: FileChanges,
}

/// A place among the layers where two images have not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerChange {
    /// The place, from the base up.
    pub position: usize,
    /// The first image's layer there.
    pub before: Option<LayerSide>,
    /// The second image's layer there.
    pub after: Option<LayerSide>,
    /// What differs between the two layers; all of it, where there is only one. Whiteouts are entries like others.
    pub files: FileChanges,
}

/// One layer of a [`LayerChange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSide {
    /// Its diff ID.
    pub diff_id: DiffId,
    /// Its bytes as stored, where they are known.
    pub size: Option<u64>,
}

/// Files that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileChanges {
    /// Each of them, in the order of a tree.
    pub changes: Vec<FileChange>,
    /// How many differ in nothing but their time.
    pub times_only: usize,
    /// Bytes of all files of the first, those with several names once. Not counted for layers in common, and so 0 where all are.
    pub bytes_before: u64,
    /// The same of the second.
    pub bytes_after: u64,
}

/// A name that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// What it is in the first; none for what is added.
    pub before: Option<Item>,
    /// What it is in the second; none for what is removed.
    pub after: Option<Item>,
    /// In what the two differ.
    pub aspects: Vec<Aspect>,
}

/// What of a file can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// File, directory, symlink and so on.
    Kind,
    /// What is in the file, and perhaps its size.
    Content,
    /// What a link points to.
    Link,
    /// Permission bits.
    Mode,
    /// The numbers of user and group.
    Owner,
    /// The numbers of a device.
    Device,
    /// Extended attributes.
    Xattrs,
    /// Time of the last change.
    Mtime,
}

impl Difference {
    /// Whether the images are the same, names included.
    pub fn is_none(&self) -> bool {
        self.before == self.after && self.names_removed.is_empty() && self.names_added.is_empty() && self.layers.is_empty()
    }
}

impl FileChange {
    /// Its path.
    pub fn path(&self) -> &[u8] {
        self.before.as_ref().or(self.after.as_ref()).map_or(b"", |item| &item.path)
    }
}

/// One of two images.
struct Side<'a> {
    source: &'a dyn Source,
    image: &'a Image,
    id: ImageId,
}

/// Compares two images. Hard links are compared as the files that they are; who owns a file, by number.
///
/// # Errors
/// Layers that are not there, cannot be read or cannot be merged, or a request to stop.
pub fn diff(before: (&dyn Source, ImageId), after: (&dyn Source, ImageId), options: DiffOptions, ctx: &Context) -> Result<Difference> {
    let sides = [before, after].map(|(source, id)| Side { source, image: source.catalog().image(id), id });
    let [a, b] = &sides;
    let [names_before, names_after] = [a, b].map(Side::names);
    let config = compare(&a.config()?, &b.config()?, "rootfs.diff_ids");
    let same = a.image.layers.iter().zip(&b.image.layers).take_while(|(a, b)| a.diff_id == b.diff_id).count();
    let mut found = Difference {
        before: *a.image.id(),
        after: *b.image.id(),
        names_removed: names_before.difference(&names_after).cloned().collect(),
        names_added: names_after.difference(&names_before).cloned().collect(),
        config,
        layers_in_common: same,
        layers: Vec::new(),
        files: FileChanges::default(),
    };
    let count = a.image.layers.len().max(b.image.layers.len());
    if same == count {
        return Ok(found);
    }

    let plans = [plan_of(a.source, a.id)?, plan_of(b.source, b.id)?];
    let [la, lb] = [layers(&plans[0], a.source, ctx), layers(&plans[1], b.source, ctx)];
    let read = |side: &Side<'_>, layers: &Layers<'_>, at: Option<usize>| match at {
        None => list::merged(layers).context(|| side.source.describe()),
        Some(at) if at >= layers.plan.layers.len() => Ok(Vec::new()),
        Some(at) => list::stored(layers, at, at).map(last_of_each).context(|| side.source.describe()),
    };
    // The merged trees, and then layer beside layer.
    let mut pairs = Vec::new();
    for at in std::iter::once(None).chain((same..count).map(Some)) {
        pairs.push((read(a, &la, at)?, read(b, &lb, at)?));
    }
    let same_entry = SameEntry::new(&plans);
    let (mut wanted_a, mut wanted_b) = (Vec::new(), Vec::new());
    for (before, after) in &pairs {
        for (before, after) in join(before.iter(), after.iter()) {
            let (Some(before), Some(after)) = (before, after) else { continue };
            if needs_content(before, after) && !same_entry.holds(before, after) {
                wanted_a.push(before.content);
                wanted_b.push(after.content);
            }
        }
    }
    let known = [contents(&la, wanted_a).context(|| a.source.describe())?, contents(&lb, wanted_b).context(|| b.source.describe())?];
    let mut all = pairs.into_iter().map(|(before, after)| changes(before, after, &same_entry, &known, options));
    found.files = all.next().unwrap_or_default();
    for (position, files) in (same..count).zip(all) {
        found.layers.push(LayerChange { position, before: a.layer(position), after: b.layer(position), files });
    }
    Ok(found)
}

impl Side<'_> {
    fn names(&self) -> BTreeSet<String> {
        let leads = |root: &&crate::catalog::Root| root.node.images().contains(&self.id);
        self.source.catalog().roots.iter().filter(leads).filter_map(|root| Some(root.name.as_ref()?.to_string())).collect()
    }

    fn config(&self) -> Result<Value> {
        serde_json::from_slice(self.image.config.bytes()).map_err(Error::invalid).context(|| "config").context(|| self.source.describe())
    }

    fn layer(&self, at: usize) -> Option<LayerSide> {
        let layer = self.image.layers.get(at)?;
        let held = layer.blob.and_then(|blob| self.source.catalog().blob(blob).known.size);
        let size = held.or_else(|| layer.descriptor.as_ref().map(|descriptor| descriptor.size));
        Some(LayerSide { diff_id: layer.diff_id, size })
    }
}

/// Which entries of two images are the same entry of the same layer.
struct SameEntry {
    /// A number for each diff ID, for the layers of each image.
    layers: [Vec<usize>; 2],
}

impl SameEntry {
    fn new(plans: &[MergePlan; 2]) -> Self {
        let mut numbers: HashMap<Option<DiffId>, usize> = HashMap::new();
        let layers = [0, 1].map(|side: usize| {
            let ids = plans[side].layers.iter().map(|layer| layer.known.diff_id);
            ids.map(|id| {
                let next = numbers.len();
                *numbers.entry(id).or_insert(next)
            })
            .collect()
        });
        Self { layers }
    }

    fn holds(&self, before: &Item, after: &Item) -> bool {
        let [a, b] = &self.layers;
        let of = |EntryId { layer, ordinal }: EntryId, layers: &[usize]| (layers.get(usize::from(layer)).copied(), ordinal);
        of(before.content, a) == of(after.content, b)
    }
}

/// Of several entries of one name in a layer, the last.
fn last_of_each(mut items: Vec<Item>) -> Vec<Item> {
    items.reverse();
    items.dedup_by(|later, earlier| later.path == earlier.path);
    items.reverse();
    items
}

/// Whether nothing but their contents can tell whether two files are the same.
fn needs_content(before: &Item, after: &Item) -> bool {
    before.kind == ItemKind::File && after.kind == ItemKind::File && before.size == after.size && before.size > 0
}

/// Goes over two listings side by side.
fn join<T: Borrow<Item>>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> Join<impl Iterator<Item = T>, impl Iterator<Item = T>> {
    Join { a: a.peekable(), b: b.peekable() }
}

struct Join<A: Iterator, B: Iterator> {
    a: Peekable<A>,
    b: Peekable<B>,
}

impl<T: Borrow<Item>, A: Iterator<Item = T>, B: Iterator<Item = T>> Iterator for Join<A, B> {
    type Item = (Option<T>, Option<T>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.a.peek(), self.b.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => in_order(&a.borrow().path, &b.borrow().path),
        };
        let a = if order.is_le() { self.a.next() } else { None };
        Some((a, if order.is_ge() { self.b.next() } else { None }))
    }
}

fn changes(before: Vec<Item>, after: Vec<Item>, same_entry: &SameEntry, known: &[Contents; 2], options: DiffOptions) -> FileChanges {
    let bytes = |items: &[Item]| items.iter().fold(0_u64, |sum, item| sum.saturating_add(item.own_bytes()));
    let mut found = FileChanges { bytes_before: bytes(&before), bytes_after: bytes(&after), ..FileChanges::default() };
    for (before, after) in join(before.into_iter(), after.into_iter()) {
        let aspects = match (&before, &after) {
            (Some(before), Some(after)) if same_entry.holds(before, after) => continue,
            (Some(before), Some(after)) => aspects(before, after, known),
            _ => Vec::new(),
        };
        let is_pair = before.is_some() && after.is_some();
        match aspects.as_slice() {
            [] if is_pair => continue,
            [Aspect::Mtime] => {
                found.times_only += 1;
                if !options.times {
                    continue;
                }
            }
            _ => {}
        }
        found.changes.push(FileChange { before, after, aspects });
    }
    found
}

fn aspects(before: &Item, after: &Item, [in_a, in_b]: &[Contents; 2]) -> Vec<Aspect> {
    let is_link = before.kind == ItemKind::Symlink && after.kind == ItemKind::Symlink;
    let is_same = |aspect: &Aspect| match aspect {
        Aspect::Kind => before.kind == after.kind,
        // Of a file and a directory, that says it all.
        Aspect::Content | Aspect::Link | Aspect::Device if before.kind != after.kind => true,
        Aspect::Content if needs_content(before, after) => in_a.get(&before.content) == in_b.get(&after.content),
        Aspect::Content => before.size == after.size,
        Aspect::Link => before.link == after.link && (before.kind != ItemKind::HardLink || before.hard_link == after.hard_link),
        // Nobody looks at a symlink's.
        Aspect::Mode => is_link || before.mode == after.mode,
        Aspect::Owner => (before.owner.uid, before.owner.gid) == (after.owner.uid, after.owner.gid),
        Aspect::Device => before.device == after.device,
        Aspect::Xattrs => before.xattrs == after.xattrs,
        Aspect::Mtime => before.mtime == after.mtime,
    };
    const ALL: [Aspect; 8] =
        [Aspect::Kind, Aspect::Content, Aspect::Link, Aspect::Mode, Aspect::Owner, Aspect::Device, Aspect::Xattrs, Aspect::Mtime];
    ALL.into_iter().filter(|aspect| !is_same(aspect)).collect()
}

#[cfg(test)]
mod tests {
    use longshore_testkit::images::{Image, Layer, Packing, docker_archive};
    use longshore_testkit::tar::{Member, write};
    use tempfile::tempdir;

    use super::*;
    use crate::testing::{context, put, source};

    fn compared(a: Image, b: Image) -> Difference {
        let dir = tempdir().unwrap();
        let [a, b] = [("a.tar", a), ("b.tar", b)].map(|(name, image)| source(&put(dir.path(), name, &docker_archive(&[image]))).unwrap());
        diff((a.as_ref(), ImageId(0)), (b.as_ref(), ImageId(0)), DiffOptions::default(), &context(dir.path())).unwrap()
    }

    fn shown(files: &FileChanges) -> Vec<String> {
        let line = |change: &FileChange| {
            let letter = match (&change.before, &change.after) {
                (None, _) => 'A',
                (_, None) => 'D',
                _ => 'C',
            };
            format!("{letter} {} {:?}", String::from_utf8_lossy(change.path()), change.aspects)
        };
        files.changes.iter().map(line).collect()
    }

    #[test]
    fn the_same_image_in_other_packing_is_the_same() {
        let image = |packing| Image::new("app:1").with(Layer::new("a=1").packed(packing)).layer(".wh.a=\nb=2");
        let found = compared(image(Packing::Plain), image(Packing::Gzip));
        assert!(found.is_none() && found.config.is_empty() && found.layers_in_common == 2, "{found:?}");
    }

    #[test]
    fn files_are_compared_by_what_is_in_them() {
        let base = "d/\nd/x=1\nlinked=>d/x\nkept=old";
        let a = Image::new("app:1").layer(base).layer("same=one\nother=abc\nlonger=1\ngone=1\nlink->a\nfile=1");
        let b = Image::new("app:2").layer(base).layer("same=one\nother=abd\nlonger=12\nnew=123\nlink->b\nfile/\nd/x=1");
        let found = compared(a, b);
        assert_eq!((found.names_removed, found.names_added), (vec!["app:1".to_owned()], vec!["app:2".to_owned()]));
        assert!(found.config.is_empty(), "diff IDs are no values of interest: {:?}", found.config);
        let expected = ["C file [Kind]", "D gone []", "C link [Link]", "C longer [Content]", "A new []", "C other [Content]"];
        assert_eq!(shown(&found.files), expected);
        assert_eq!((found.files.bytes_before, found.files.bytes_after), (4 + 9, 4 + 12));
        assert_eq!((found.layers_in_common, found.layers.len(), found.layers[0].position), (1, 1, 1));
        let own = ["A d/x []", "C file [Kind]", "D gone []", "C link [Link]", "C longer [Content]", "A new []", "C other [Content]"];
        assert_eq!(shown(&found.layers[0].files), own);
    }

    #[test]
    fn a_layer_that_only_one_has_is_all_new() {
        let a = Image::new("app:1").layer("a=1\nb=2");
        let b = Image::new("app:1").layer("a=1\nb=2").layer(".wh.a=\nc=3");
        let found = compared(a.clone(), b.clone());
        assert_eq!(shown(&found.files), ["D a []", "A c []"]);
        assert_eq!(shown(&found.layers[0].files), ["A .wh.a []", "A c []"]);
        assert!(found.layers[0].before.is_none() && found.layers[0].after.is_some());
        assert_eq!(found.config.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["history[1]"]);
        assert_eq!(shown(&compared(b, a).files), ["A a []", "D c []"]);
    }

    #[test]
    fn times_alone_are_counted() {
        let layer = |time: &[u8]| {
            let mut tar = write(&[Member::file("a", "1")]);
            tar[136..147].copy_from_slice(time);
            let block: &mut [u8; 512] = (&mut tar[..512]).try_into().unwrap();
            longshore_testkit::tar::fix_checksum(block);
            Image::new("app:1").with(Layer::of_tar(tar))
        };
        let found = compared(layer(b"00000000001"), layer(b"00000000002"));
        assert_eq!((shown(&found.files).len(), found.files.times_only, found.is_none()), (0, 1, false));
    }
}

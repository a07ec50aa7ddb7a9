//! What an image or one of its layers holds, in the order of a tree.

use std::cmp::Reverse;

use super::item::{Collected, Item, ItemKind, clean, in_order, is_within};
use super::{Numbers, layers, plan_of};
use crate::catalog::ImageId;
use crate::context::Context;
use crate::error::{Context as _, Error, Result};
use crate::layer::merge::Change;
use crate::layer::tree::EntryId;
use crate::near::distance;
use crate::plan::{MergeInput, MergePlan};
use crate::run::layers::{Fate, Layers};
use crate::source::Source;
use crate::tar::{Kind, escape_bytes};

/// How many symlinks one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;

/// How many names a hint lists.
const NEAR: usize = 5;

/// Items in the order of a tree: what is in a directory follows it at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    items: Vec<Item>,
}

/// Lists the merged tree of an image, or the entries of one layer as they stand in it, with its whiteouts.
///
/// A directory that no entry describes is not in it.
///
/// # Errors
/// Layers that are not there, cannot be read or cannot be merged, or a request to stop.
pub fn list(source: &dyn Source, image: ImageId, layer: Option<usize>, ctx: &Context) -> Result<Listing> {
    let items = match layer {
        None => merged(&layers(&plan_of(source, image)?, source, ctx)),
        Some(layer) => one(source, image, layer, ctx),
    };
    Ok(Listing { items: items.context(|| source.describe())? })
}

/// The merged tree.
pub(super) fn merged(layers: &Layers<'_>) -> Result<Vec<Item>> {
    let merge = layers.index()?;
    let (mut found, mut numbers) = (Collected::default(), Numbers::default());
    layers.visit(&merge, &mut |layer, entry, fate| {
        let id = numbers.next(layer)?;
        let Fate::Kept(change) = fate else { return Ok(()) };
        let change = change.unwrap_or_else(|| Change { path: clean(&entry.path), link: None });
        let link = change.link.or_else(|| (entry.kind == Kind::HardLink).then(|| clean(&entry.link)));
        found.add(id, entry, change.path, link)
    })?;
    Ok(found.finish())
}

/// The entries of one layer, for which the others need not be there.
fn one(source: &dyn Source, image: ImageId, layer: usize, ctx: &Context) -> Result<Vec<Item>> {
    let of = source.catalog().image(image);
    if layer >= of.layers.len() {
        let hint = match of.layers.len() {
            0 => "it has none".to_owned(),
            count => format!("it has {count}, 0 to {}", count - 1),
        };
        return Err(Error::not_found(format_args!("there is no layer {layer}")).hint(hint));
    }
    let plan = MergePlan { layers: vec![MergeInput::of(source.catalog(), of, layer)?], below: 0, encoding: None };
    stored(&layers(&plan, source, ctx), 0, layer)
}

/// The entries of the layer at `at` as they stand, numbered as those of `layer`.
pub(super) fn stored(layers: &Layers<'_>, at: usize, layer: usize) -> Result<Vec<Item>> {
    let mut found = Collected::default();
    let layer = u16::try_from(layer).map_err(Error::limit)?;
    let label = || layers.plan.layers[at].label.clone();
    let mut entries = layers.entries(at).context(label)?;
    let mut ordinal = 0;
    while let Some(entry) = entries.next_entry().context(label)? {
        layers.cancel.poll()?;
        let (path, link) = (clean(&entry.path), (entry.kind == Kind::HardLink).then(|| clean(&entry.link)));
        found.add(EntryId { layer, ordinal }, entry, path, link).context(label)?;
        ordinal += 1;
    }
    Ok(found.finish())
}

impl Listing {
    /// All of it.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What is at or below a path as [`Listing::resolve`] gives it.
    pub fn within(&self, directory: &[u8]) -> &[Item] {
        let first = self.items.partition_point(|item| in_order(&item.path, directory).is_lt());
        let rest = &self.items[first..];
        &rest[..rest.partition_point(|item| is_within(&item.path, directory))]
    }

    /// Where a path leads: symlinks on the way are followed, and one that it ends in when a slash follows.
    ///
    /// # Errors
    /// When there is nothing; the hint has names that are near.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut at = Vec::new();
        let mut links = 0;
        // What is still to be walked, last first.
        let mut parts: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
        while let Some(part) = parts.pop() {
            let above = at.len();
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                    continue;
                }
                name => {
                    if above > 0 {
                        at.push(b'/');
                    }
                    at.extend_from_slice(name);
                }
            }
            let here = self.within(&at);
            // Of several entries of one layer, the last counts.
            match here.iter().take_while(|item| *item.path == at).last() {
                _ if here.is_empty() => return Err(self.missing(&at, above)),
                Some(Item { kind: ItemKind::Symlink, link, .. }) if !parts.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        let shown = escape_bytes(path);
                        return Err(Error::invalid(format_args!("`{shown}` leads through more than {MAX_LINKS} symlinks")));
                    }
                    at.truncate(if link.first() == Some(&b'/') { 0 } else { above });
                    parts.extend(link.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                Some(item) if item.kind != ItemKind::Directory && parts.iter().any(|part| !part.is_empty()) => {
                    return Err(Error::not_found(format_args!("`{}` is no directory", escape_bytes(&at))));
                }
                _ => {}
            }
        }
        Ok(at)
    }

    /// Says that a name is not there, and which are near. What is above it has `above` bytes.
    fn missing(&self, path: &[u8], above: usize) -> Error {
        let (directory, name) = path.split_at(above);
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let skipped = if above == 0 { 0 } else { above + 1 };
        let mut near: Vec<(usize, &[u8])> = Vec::new();
        for item in self.within(directory).iter().filter(|item| item.path.len() > skipped) {
            let other = item.path[skipped..].split(|byte| *byte == b'/').next().unwrap_or_default();
            if near.last().is_none_or(|(_, last)| *last != other) {
                near.push((distance(name, other), other));
            }
        }
        near.retain(|(distance, _)| *distance <= 1 + name.len() / 3);
        near.sort_by_key(|(distance, name)| (*distance, Reverse(name.len())));
        near.truncate(NEAR);
        let error = Error::not_found(format_args!("`{}` is not there", escape_bytes(path)));
        if near.is_empty() {
            return error;
        }
        let slash: &[u8] = if above == 0 { b"" } else { b"/" };
        let names: Vec<_> = near.iter().map(|(_, name)| escape_bytes(&[directory, slash, name].concat())).collect();
        error.hint(format_args!("there is {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use longshore_testkit::images::{Image, Layer, docker_archive};
    use tempfile::tempdir;

    use super::*;
    use crate::testing::{context, put, source};

    fn listing(image: Image, layer: Option<usize>) -> Result<Listing> {
        let dir = tempdir().unwrap();
        let path = put(dir.path(), "app.tar", &docker_archive(&[image]));
        list(source(&path)?.as_ref(), ImageId(0), layer, &context(dir.path()))
    }

    fn shown(items: &[Item]) -> Vec<String> {
        let line =
            |item: &Item| format!("{}:{}:{:?}:{}:{}", String::from_utf8_lossy(&item.path), item.layer, item.kind, item.size, item.names);
        items.iter().map(line).collect()
    }

    fn image() -> Image {
        let base = "usr/\nusr/lib/\nusr/lib/x=abc\nlib->usr/lib\netc/\netc/passwd=one\netc/gone=1";
        Image::new("app:1").layer(base).layer("lib/y=>usr/lib/x\netc/\netc/.wh.gone=\netc/passwd=other").layer("n/o/entry=1")
    }

    #[test]
    fn the_merged_tree_is_in_order_and_links_are_what_they_lead_to() {
        let all = listing(image(), None).unwrap();
        let expected = [
            "etc:1:Directory:0:1",
            "etc/passwd:1:File:5:1",
            "lib:0:Symlink:0:1",
            "n/o/entry:2:File:1:1",
            "usr:0:Directory:0:1",
            "usr/lib:0:Directory:0:1",
            "usr/lib/x:0:File:3:2",
            "usr/lib/y:1:File:3:2",
        ];
        assert_eq!(shown(all.items()), expected);
        assert_eq!(all.items()[7].hard_link.as_deref(), Some(&b"usr/lib/x"[..]));
        assert_eq!(all.items()[6].hard_link, None);
    }

    #[test]
    fn paths_lead_through_symlinks() {
        let all = listing(image(), None).unwrap();
        let at = |path: &str| {
            all.resolve(path.as_bytes())
                .map(|at| all.within(&at).iter().map(|i| String::from_utf8_lossy(&i.path).into_owned()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(at("/lib/x").unwrap(), "usr/lib/x");
        assert_eq!(at("lib").unwrap(), "lib", "the link itself");
        assert_eq!(at("lib/").unwrap(), "usr/lib usr/lib/x usr/lib/y");
        assert_eq!(at("./usr/../etc//").unwrap(), "etc etc/passwd");
        assert_eq!(at("n/o").unwrap(), "n/o/entry", "a directory without an entry");
        assert_eq!(at("/").unwrap(), at("").unwrap());
        let error = at("etc/paswd").unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint_text()), ("`etc/paswd` is not there", Some("there is etc/passwd")));
        assert_eq!(at("ETC/x").unwrap_err().hint_text(), Some("there is etc"));
        assert_eq!(at("lib/nothing-like-it").unwrap_err().hint_text(), None);
        assert_eq!(at("etc/passwd/x").unwrap_err().to_string(), "`etc/passwd` is no directory");
        let round = listing(Image::new("app:1").layer("a->b\nb->a"), None).unwrap();
        assert!(round.resolve(b"a/x").unwrap_err().to_string().contains("more than 40 symlinks"));
    }

    #[test]
    fn a_layer_is_listed_as_it_stands() {
        let layer = "b=>a\nc=>b\na=22\nd/.wh..wh..opq=\n.wh.x=\nb=>a";
        let image = Image::new("app:1").layer("a=1").with(Layer::new(layer));
        let all = listing(image.clone(), Some(1)).unwrap();
        let expected =
            [".wh.x:1:Whiteout:0:1", "a:1:File:2:2", "b:1:HardLink:0:2", "b:1:File:2:2", "c:1:HardLink:0:2", "d/.wh..wh..opq:1:Opaque:0:1"];
        assert_eq!(shown(all.items()), expected);
        assert_eq!(all.items()[0].hides().as_deref(), Some(&b"x"[..]));
        assert_eq!(all.items()[5].hides().as_deref(), Some(&b"d"[..]));
        let error = listing(image, Some(2)).unwrap_err();
        assert_eq!(error.hint_text(), Some("it has 2, 0 to 1"));
    }
}

//! Which entries of which layers make up the merged layer, and in what order: decided from the [`Tree`] alone, before a content is read.
//!
//! ```text
//! marks     where layers stay below: whiteouts, opaque marks, and directories that take the place of something without an entry of their own
//! early     directories that a child in a newer layer needs before them
//! layers    newest first, each from front to back: what is kept of it; so a directory comes with its newest attributes, before its children
//! late      hard links of a newer layer than the file they lead to
//! ```
//!
//! Marks come first because docker's vfs and podman, at an opaque mark, remove directories that came without an entry of their own, and all that
//! this layer has put into them.
//!
//! Entries are passed on with the bytes of their headers, but where a name must change: an entry that a symlink led elsewhere, and a file whose
//! first name is gone, which gets the first of its others. New names are kept as places in the tree, since a name may be long.

use std::collections::BTreeMap;

use super::tree::{BELOW, DESCRIBED, EntryId, HIDES, MOVED, NONE, OPAQUE, ROOT, State, TO_FIRST, Tree, is_directory};
use crate::tar::{Header, Kind};

/// What is kept of layers that become one.
#[derive(Debug, Default)]
pub struct Merge {
    /// What the names are.
    tree: Tree,
    /// For each layer, base first, what is kept of it.
    pub layers: Vec<Kept>,
    /// What comes before everything else.
    marks: Vec<Mark>,
    /// Headers that come before all layers, parents first.
    pub early: Vec<Loose>,
    /// Headers that come after all layers.
    pub late: Vec<Loose>,
    /// How many entries there are in all.
    pub entries: u64,
}

/// What is kept of one layer.
#[derive(Debug, Default)]
pub struct Kept {
    /// A bit for each entry.
    bits: Vec<u64>,
    /// Of those kept, what is changed.
    changed: BTreeMap<u32, Rename>,
    is_any: bool,
}

/// What is to be hidden of the layers below.
#[derive(Debug, Clone, Copy)]
enum Mark {
    /// What is where a directory without an entry is now: it gets one, since docker's overlay2 puts nothing below a whiteout.
    Directory(u32),
    /// All that is in a directory.
    Opaque(u32),
    Whiteout(u32),
}

/// The node whose path is an entry's new name, and that which it links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rename {
    node: u32,
    link: u32,
}

/// A new name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The entry's path.
    pub path: Vec<u8>,
    /// What a hard link leads to.
    pub link: Option<Vec<u8>>,
}

/// An entry without content that does not stay in its layer's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loose {
    /// Where it is.
    pub entry: EntryId,
    /// What is changed.
    pub rename: Option<Rename>,
}

impl Merge {
    /// A whiteout, an opaque mark, or a directory that takes the place of something.
    pub fn mark(&self, at: usize) -> Option<Header> {
        let below = |node: u32, name: &[u8]| [&self.tree.path(node)[..], if node == ROOT { b"" } else { b"/" }, name].concat();
        Some(match *self.marks.get(at)? {
            Mark::Directory(node) => Header { path: below(node, b""), kind: Kind::Directory, mode: 0o755, ..Header::default() },
            Mark::Opaque(node) => Header { path: below(node, OPAQUE), ..Header::default() },
            Mark::Whiteout(node) => Header { path: whiteout(&self.tree.path(node)), ..Header::default() },
        })
    }

    /// The names that an entry gets.
    pub fn change(&self, rename: Rename) -> Change {
        let Rename { node, link } = rename;
        Change { path: self.tree.path(node), link: (link != NONE).then(|| self.tree.path(link)) }
    }
}

impl Kept {
    /// Whether anything of the layer is kept in its place.
    pub fn is_any(&self) -> bool {
        self.is_any
    }

    /// Whether the entry is kept.
    pub fn has(&self, ordinal: u32) -> bool {
        self.bits.get(ordinal as usize / 64).is_some_and(|word| word & (1 << (ordinal % 64)) != 0)
    }

    /// What is changed of an entry.
    pub fn rename(&self, ordinal: u32) -> Option<Rename> {
        self.changed.get(&ordinal).copied()
    }

    fn set(&mut self, ordinal: u32, kept: bool) {
        let bit = 1 << (ordinal % 64);
        let word = &mut self.bits[ordinal as usize / 64];
        *word = if kept { *word | bit } else { *word & !bit };
    }
}

/// Where an entry comes in the merged layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere: a layer below has it.
    Nowhere,
    /// In its layer's place, or that of the content.
    InTurn(EntryId),
    Late(EntryId),
}

impl Place {
    /// Whether it comes before another that is in its turn.
    fn is_before(self, other: Self) -> bool {
        match (self, other) {
            (Self::InTurn(a), Self::InTurn(b)) => (std::cmp::Reverse(a.layer), a.ordinal) < (std::cmp::Reverse(b.layer), b.ordinal),
            (_, other) => !matches!(other, Self::InTurn(_)),
        }
    }
}

impl From<Tree> for Merge {
    fn from(mut tree: Tree) -> Self {
        let layers = tree.entries.iter().map(|entries| Kept { bits: vec![0; *entries as usize / 64 + 1], ..Kept::default() });
        let mut builder = Builder { tree: &tree, merge: Self { layers: layers.collect(), ..Self::default() }, primary: Vec::new() };
        builder.choose_primaries();
        builder.place();
        builder.mark();
        for kept in &mut builder.merge.layers {
            kept.is_any = kept.bits.iter().any(|word| *word != 0);
        }
        let merge = builder.merge;
        tree.forget();
        Self { tree, ..merge }
    }
}

struct Builder<'a> {
    tree: &'a Tree,
    merge: Merge,
    /// The name under which the content of each inode is written.
    primary: Vec<u32>,
}

impl Builder<'_> {
    /// The first name, where that is left; else the first in the layer of the content, and else the first of any.
    fn choose_primaries(&mut self) {
        let tree = self.tree;
        self.primary = tree.inodes.iter().map(|inode| inode.first).collect();
        for (at, node) in (0..).zip(&tree.nodes).filter(|(_, node)| node.state == State::Linked) {
            let inode = &tree.inodes[node.data as usize];
            let primary = &mut self.primary[node.data as usize];
            // A name in a layer below serves as it is; a newer one that is first would hide content below.
            let rank = |node: u32| {
                let entry = tree.nodes[node as usize].entry;
                (entry != inode.entry, tree.is_merged(entry), entry.layer != inode.entry.layer, entry)
            };
            if *primary == NONE || rank(at) < rank(*primary) {
                *primary = at;
            }
        }
    }

    fn place_of(&self, node: u32) -> (Place, Option<Rename>) {
        let tree = self.tree;
        let is = tree.nodes[node as usize];
        let moved = is.flags & MOVED != 0;
        let change = |changed: bool, link: u32| changed.then_some(Rename { node, link });
        match is.state {
            State::Absent | State::Implied => (Place::Nowhere, None),
            _ if !tree.is_merged(is.entry) => (Place::Nowhere, None),
            State::Directory | State::Symlink | State::Leaf => (Place::InTurn(is.entry), change(moved, NONE)),
            State::Linked => {
                let (inode, primary) = (&tree.inodes[is.data as usize], self.primary[is.data as usize]);
                if primary == node {
                    return (Place::InTurn(inode.entry), change(moved || inode.first != node, NONE));
                }
                let right = !moved && is.flags & TO_FIRST != 0 && primary == inode.first;
                let place = if is.entry.layer == inode.entry.layer { Place::InTurn(is.entry) } else { Place::Late(is.entry) };
                (place, change(!right, primary))
            }
        }
    }

    fn place(&mut self) {
        let tree = self.tree;
        // The nearest directory above each node that has an entry in the merged layer.
        let mut above = vec![NONE; tree.nodes.len()];
        let mut early = vec![false; tree.nodes.len()];
        let written = |node: u32| {
            let node = tree.nodes[node as usize];
            node.state == State::Directory && tree.is_merged(node.entry)
        };
        for (at, node) in (0..).zip(&tree.nodes) {
            if at != ROOT {
                above[at as usize] = if written(node.parent) { node.parent } else { above[node.parent as usize] };
            }
            let (place, rename) = self.place_of(at);
            match place {
                Place::Nowhere => continue,
                Place::InTurn(entry) => {
                    let kept = &mut self.merge.layers[usize::from(entry.layer)];
                    kept.set(entry.ordinal, true);
                    kept.changed.extend(rename.map(|rename| (entry.ordinal, rename)));
                }
                Place::Late(entry) => self.merge.late.push(Loose { entry, rename }),
            }
            self.merge.entries += 1;
            let mut directory = above[at as usize];
            if directory != NONE && !Place::InTurn(tree.nodes[directory as usize].entry).is_before(place) {
                while directory != NONE && !std::mem::replace(&mut early[directory as usize], true) {
                    directory = above[directory as usize];
                }
            }
        }
        self.merge.late.sort_by_key(|loose| loose.entry);
        for (at, _) in (0..).zip(&early).filter(|(_, early)| **early) {
            let entry = tree.nodes[at as usize].entry;
            let kept = &mut self.merge.layers[usize::from(entry.layer)];
            kept.set(entry.ordinal, false);
            let rename = kept.changed.remove(&entry.ordinal);
            self.merge.early.push(Loose { entry, rename });
        }
    }

    /// Finds what layers below have and nobody shall see.
    fn mark(&mut self) {
        let tree = self.tree;
        let mut opaque = vec![false; tree.nodes.len()];
        // Whether all that layers below have in a directory is hidden already.
        let mut covered = vec![false; tree.nodes.len()];
        for (_, node) in (0_u32..).zip(&tree.nodes).filter(|(_, node)| node.flags & BELOW != 0 && node.state == State::Absent) {
            let parent = &tree.nodes[node.parent as usize];
            opaque[node.parent as usize] |= is_directory(parent.state) && parent.flags & HIDES != 0;
        }
        for (at, node) in (0_u32..).zip(&tree.nodes).filter(|(_, node)| node.flags & BELOW != 0) {
            let parent = node.parent as usize;
            let hidden = at != ROOT && (covered[parent] || opaque[parent] || !is_directory(tree.nodes[parent].state));
            covered[at as usize] = hidden;
            if hidden {
                continue;
            }
            if node.state == State::Absent {
                self.merge.marks.push(Mark::Whiteout(at));
                covered[at as usize] = true;
            }
            if node.state == State::Implied && node.flags & DESCRIBED != 0 {
                self.merge.marks.push(Mark::Directory(at));
            }
            if opaque[at as usize] {
                self.merge.marks.push(Mark::Opaque(at));
            }
        }
        self.merge.entries += self.merge.marks.len() as u64;
    }
}

/// The name of the whiteout of a path.
fn whiteout(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    [&path[..name], b".wh.", &path[name..]].concat()
}

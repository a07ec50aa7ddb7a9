//! The tree of files that layers make when one is put on another, as an engine would see it: names and who wrote them, no contents.
//!
//! [`Tree::apply`] takes the entries of each layer in order, base first. What an entry does is what docker 20.10 does with its vfs driver, and
//! umoci, which both write layers one over another:
//!
//! | entry | effect |
//! |---|---|
//! | `.wh.x`, `.wh..wh..opq` | remove what *lower* layers put there, wherever the mark stands in its own layer |
//! | below a symlink to a directory | goes where the link leads, within the root (overlay2, which unpacks a layer by itself, hides the link) |
//! | below what is not there | what is missing becomes a directory without an entry |
//! | below a file of a lower layer | the file becomes such a directory; of the same layer, an error |
//! | a directory where one is | new attributes, the same content |
//! | anything else where something is | takes its place |
//! | hard link | another name for the file that the target is at that time |
//! | below `.wh..wh.plnk` | AUFS's files for hard links: there while their layer is read |
//! | other `.wh..wh.*` | ignored |
//!
//! A name is kept once for each directory that it is in, and found by a table under a random key, so that nobody can choose names that collide.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::ops::Range;

use hashbrown::HashTable;

use crate::error::{Error, Result};
use crate::tar::{Finding, Kind, RootPath};

/// The root's place among the nodes.
pub(super) const ROOT: u32 = 0;
/// No node.
pub(super) const NONE: u32 = u32::MAX;

/// How many symlinks one path may lead through, as in Linux.
const MAX_LINKS: usize = 40;

/// How many bytes of names and targets are kept, and how many of targets are followed, and how many more for each entry: so what an entry may
/// ask for stays within bounds, however long names are and however often the longest is followed.
const BYTES: u64 = 64 << 20;
const BYTES_PER_ENTRY: u64 = 256;

const WHITEOUT: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
const PLNK: &[u8] = b".wh..wh.plnk";

/// Which entry of which layer: both count from 0, layers from the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The layer.
    pub layer: u16,
    /// The entry in it.
    pub ordinal: u32,
}

/// What a node is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not there any more.
    Absent,
    /// A directory that no entry describes.
    Implied,
    Directory,
    /// A symlink: where its target lies among the texts.
    Symlink,
    /// Anything else.
    Leaf,
    /// A name of an inode that has several, or had.
    Linked,
}

/// One name in one directory. Kept small: there may be millions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) parent: u32,
    /// Children, in no order; absent ones may be among them.
    first: u32,
    next: u32,
    name: u32,
    name_len: u16,
    pub(super) entry: EntryId,
    /// For a symlink its target's place, for a linked one its inode, for a directory the last layer that hid what lower ones have in it.
    pub(super) data: u32,
    pub(super) state: State,
    pub(super) flags: u8,
}

/// The entry is not where its own path says: a symlink led elsewhere.
pub(super) const MOVED: u8 = 1;
/// It was there before the layers that are merged.
pub(super) const BELOW: u8 = 2;
/// Of a directory: what lower layers have in it was hidden as a whole.
pub(super) const HIDES: u8 = 4;
/// Of a hard link: its own target is the name that the file had first.
pub(super) const TO_FIRST: u8 = 8;
/// Before the layers that are merged, an entry described it.
pub(super) const DESCRIBED: u8 = 16;
/// It hangs among its parent's children.
const HUNG: u8 = 32;
/// What stays whatever becomes of a node.
const KEPT: u8 = BELOW | DESCRIBED | HUNG;

/// A file with several names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    /// The entry with its content.
    pub(super) entry: EntryId,
    /// The name of that entry, as long as it is that.
    pub(super) first: u32,
    /// What all names are: a leaf or a symlink, with its target's place.
    is_symlink: bool,
    data: u32,
}

/// What layers have made so far.
#[derive(Debug)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) inodes: Vec<Inode>,
    /// Names and targets of symlinks.
    texts: Vec<u8>,
    table: HashTable<u32>,
    key: RandomState,
    layer: u16,
    /// How many layers there were when [`Tree::merge_from_here`] was called.
    pub(super) below: u16,
    next_ordinal: u32,
    /// Entries of all layers, and bytes of targets of symlinks that were followed for them.
    applied: u64,
    followed: u64,
    plnk: u32,
    pub(super) entries: Vec<u32>,
}

impl Default for Tree {
    fn default() -> Self {
        let entry = EntryId { layer: 0, ordinal: 0 };
        let (parent, first, next, name, name_len) = (ROOT, NONE, NONE, 0, 0);
        let root = Node { parent, first, next, name, name_len, entry, data: NONE, state: State::Implied, flags: HUNG };
        Self {
            nodes: vec![root],
            inodes: Vec::new(),
            texts: Vec::new(),
            table: HashTable::new(),
            key: RandomState::new(),
            layer: 0,
            below: 0,
            next_ordinal: 0,
            applied: 0,
            followed: 0,
            plnk: NONE,
            entries: Vec::new(),
        }
    }
}

/// What the tree needs to know of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its name as it stands in the archive.
    pub path: Vec<u8>,
    /// What a link points to, as it stands in the archive.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
}

impl Tree {
    /// Takes the next entry of the current layer.
    ///
    /// # Errors
    /// A name, whiteout or link that means nothing, or an entry below a file of its own layer.
    pub fn apply(&mut self, placed: &Placed) -> Result<()> {
        let entry = EntryId { layer: self.layer, ordinal: self.next_ordinal };
        self.next_ordinal = self.next_ordinal.checked_add(1).ok_or_else(|| Error::limit("more than 4 billion entries in a layer"))?;
        self.applied += 1;
        if matches!(placed.kind, Kind::Other(_)) {
            return Ok(());
        }
        let path = RootPath::parse_layer(&placed.path).map_err(|error| found(Finding::Name { path: placed.path.clone(), error }))?;
        let Some(name) = path.file_name() else { return self.root(placed, entry) };
        let above = &path.as_bytes()[..(path.as_bytes().len() - name.len()).saturating_sub(1)];
        let in_plnk = above == PLNK;
        if !in_plnk && path.components().any(|part| part.starts_with(META) && part != OPAQUE) {
            return Ok(());
        }
        if above.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) && !in_plnk {
            return Err(found(Finding::BelowWhiteout { path }));
        }
        if name == OPAQUE {
            if let Some(directory) = self.walk(above, None)?.0 {
                self.nodes[directory as usize].flags |= HIDES;
                self.clear(directory, false);
            }
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(found(Finding::Whiteout { path }));
            }
            let hidden = self.walk(above, None)?.0.and_then(|directory| self.child(directory, hidden));
            if let Some(hidden) = hidden {
                self.remove(hidden, false);
            }
            return Ok(());
        }
        if placed.kind == Kind::Symlink && placed.link.is_empty() {
            return Err(found(Finding::LinkToNothing { path }));
        }
        let target = if placed.kind == Kind::HardLink { Some(self.link_target(&path, &placed.link)?) } else { None };
        let (parent, moved) = self.walk(above, Some(&path))?;
        let parent = parent.expect("what is missing was made");
        let node = self.make(parent, name)?;
        self.place(node, &path, placed, entry, target)?;
        self.nodes[node as usize].flags |= if moved { MOVED } else { 0 };
        if in_plnk {
            self.plnk = parent;
        }
        Ok(())
    }

    /// The current layer is complete; entries that follow are of the next.
    ///
    /// # Errors
    /// When there are more layers than can be told apart.
    pub fn end_layer(&mut self) -> Result<()> {
        if self.plnk != NONE {
            let plnk = std::mem::replace(&mut self.plnk, NONE);
            self.remove(plnk, true);
        }
        self.entries.push(std::mem::take(&mut self.next_ordinal));
        self.layer = self.layer.checked_add(1).ok_or_else(|| Error::limit("more than 65,535 layers"))?;
        Ok(())
    }

    /// The layers so far stay as they are; those that follow are to be merged.
    pub fn merge_from_here(&mut self) {
        self.below = self.layer;
        for node in self.nodes.iter_mut().filter(|node| node.state != State::Absent) {
            node.flags = (node.flags & !HIDES) | BELOW | if node.state == State::Implied { 0 } else { DESCRIBED };
        }
    }

    /// Whether the layer of an entry is one of those that are merged.
    pub(super) fn is_merged(&self, entry: EntryId) -> bool {
        entry.layer >= self.below
    }

    /// The path of a node.
    pub(super) fn path(&self, mut node: u32) -> Vec<u8> {
        let mut names = Vec::new();
        while node != ROOT {
            names.push(self.name(node));
            node = self.nodes[node as usize].parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Frees what is needed for nothing but [`Self::apply`].
    pub(super) fn forget(&mut self) {
        self.table = HashTable::new();
    }

    fn root(&mut self, placed: &Placed, entry: EntryId) -> Result<()> {
        if placed.kind != Kind::Directory {
            return Err(found(Finding::Root { path: placed.path.clone() }));
        }
        let root = &mut self.nodes[ROOT as usize];
        (root.state, root.entry) = (State::Directory, entry);
        Ok(())
    }

    /// Puts an entry at its node.
    fn place(&mut self, node: u32, path: &RootPath, placed: &Placed, entry: EntryId, target: Option<u32>) -> Result<()> {
        let before = self.nodes[node as usize];
        if placed.kind == Kind::Directory {
            if !matches!(before.state, State::Directory | State::Implied) {
                self.fresh(node);
            }
            let node = &mut self.nodes[node as usize];
            (node.state, node.entry, node.flags) = (State::Directory, entry, node.flags & !MOVED);
            return Ok(());
        }
        if target == Some(node) {
            return Err(found(Finding::LinkToSelf { path: path.clone() }));
        }
        self.clear(node, true);
        let (state, data, flags) = match target {
            None if placed.kind == Kind::Symlink => (State::Symlink, self.text(&placed.link, true)?, 0),
            None => (State::Leaf, NONE, 0),
            Some(target) => {
                // What was there may be gone: what the link takes the place of is, and a file above it is a directory now.
                if matches!(self.nodes[target as usize].state, State::Absent | State::Implied) {
                    return Err(missing(path, &placed.link));
                }
                let inode = self.shared(target)?;
                let to_first = self.inodes[inode as usize].first == target
                    && RootPath::parse_layer(&placed.link).is_ok_and(|own| own.as_bytes() == self.path(target));
                (State::Linked, inode, if to_first { TO_FIRST } else { 0 })
            }
        };
        self.fresh(node);
        let node = &mut self.nodes[node as usize];
        (node.state, node.entry, node.data) = (state, entry, data);
        node.flags = (node.flags & KEPT) | flags;
        Ok(())
    }

    /// Makes a node what it is not yet, so that nothing of what it was stays.
    fn fresh(&mut self, at: u32) {
        let node = self.nodes[at as usize];
        if node.state == State::Linked && self.inodes[node.data as usize].first == at {
            self.inodes[node.data as usize].first = NONE;
        }
        let hides = if node.flags & BELOW == 0 { 0 } else { HIDES };
        let node = &mut self.nodes[at as usize];
        (node.state, node.data) = (State::Absent, NONE);
        node.flags = (node.flags & KEPT) | hides;
    }

    /// The file that a hard link leads to.
    fn link_target(&mut self, path: &RootPath, link: &[u8]) -> Result<u32> {
        let target = match RootPath::parse_layer(link) {
            Ok(target) => target,
            Err(error) => return Err(found(Finding::Target { path: path.clone(), target: link.to_vec(), error })),
        };
        let Some(name) = target.file_name() else { return Err(found(Finding::LinkToDirectory { path: path.clone(), target })) };
        let above = &target.as_bytes()[..(target.as_bytes().len() - name.len()).saturating_sub(1)];
        let node = self.walk(above, None)?.0.and_then(|directory| self.child(directory, name));
        match node.map(|node| (node, self.nodes[node as usize].state)) {
            None | Some((_, State::Absent)) => Err(missing(path, link)),
            Some((_, State::Directory | State::Implied)) => Err(found(Finding::LinkToDirectory { path: path.clone(), target })),
            Some((node, State::Leaf | State::Symlink | State::Linked)) => Ok(node),
        }
    }

    /// The inode of a file, which becomes one of several names.
    fn shared(&mut self, node: u32) -> Result<u32> {
        let Node { state, entry, data, .. } = self.nodes[node as usize];
        if state == State::Linked {
            return Ok(data);
        }
        let inode = u32::try_from(self.inodes.len()).map_err(Error::limit)?;
        self.inodes.push(Inode { entry, first: node, is_symlink: state == State::Symlink, data });
        let node = &mut self.nodes[node as usize];
        (node.state, node.data) = (State::Linked, inode);
        Ok(inode)
    }

    /// Goes down `path` through symlinks, and says whether there were any. For an entry, what is missing is made; without one, there is nothing
    /// to be found then.
    fn walk(&mut self, path: &[u8], entry: Option<&RootPath>) -> Result<(Option<u32>, bool)> {
        let mut at = ROOT;
        let mut own = path.split(|byte| *byte == b'/');
        // What is left of the targets of symlinks, which come before the rest of the path.
        let mut targets: Vec<Range<usize>> = Vec::new();
        let mut links = 0;
        loop {
            let of_target = targets.pop().map(|target| {
                let text = &self.texts[target.clone()];
                let end = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
                if end < text.len() {
                    targets.push(target.start + end + 1..target.end);
                }
                text[..end].to_vec()
            });
            let Some(part) = of_target.as_deref().or_else(|| own.next()) else { break };
            match part {
                b"" | b"." => continue,
                b".." => {
                    at = self.nodes[at as usize].parent;
                    continue;
                }
                _ => {}
            }
            let Some(entry) = entry else {
                let Some(child) = self.child(at, part) else { return Ok((None, links > 0)) };
                match self.followed(child) {
                    State::Absent | State::Leaf | State::Linked => return Ok((None, links > 0)),
                    State::Symlink => at = self.follow(child, at, &mut targets, &mut links)?,
                    State::Directory | State::Implied => at = child,
                }
                continue;
            };
            // Own parts were looked at before; a name that a symlink leads to would be a mark in the merged layer.
            if of_target.is_some() && part.starts_with(WHITEOUT) {
                return Err(found(Finding::BelowWhiteout { path: entry.clone() }));
            }
            let child = self.make(at, part)?;
            match self.followed(child) {
                State::Directory | State::Implied => at = child,
                State::Symlink => at = self.follow(child, at, &mut targets, &mut links)?,
                State::Leaf | State::Linked if self.nodes[child as usize].entry.layer == self.layer => {
                    let file = RootPath::parse_layer(&self.path(child)).expect("names of the tree are clean");
                    return Err(found(Finding::BelowFile { path: entry.clone(), file }));
                }
                State::Absent | State::Leaf | State::Linked => {
                    self.fresh(child);
                    let layer = self.layer;
                    let node = &mut self.nodes[child as usize];
                    (node.state, node.entry.layer) = (State::Implied, layer);
                    at = child;
                }
            }
        }
        Ok((Some(at), links > 0))
    }

    /// What a node is, whatever other names it has.
    fn followed(&self, node: u32) -> State {
        let Node { state, data, .. } = self.nodes[node as usize];
        match state {
            State::Linked if self.inodes[data as usize].is_symlink => State::Symlink,
            state => state,
        }
    }

    /// Puts the target of a symlink in front of what is still to be walked, and says where that walk begins.
    fn follow(&mut self, link: u32, parent: u32, targets: &mut Vec<Range<usize>>, links: &mut usize) -> Result<u32> {
        *links += 1;
        if *links > MAX_LINKS {
            let path = crate::tar::escape_bytes(&self.path(link));
            return Err(Error::invalid(format_args!("symlink `{path}` leads through more than {MAX_LINKS} others, expected a directory")));
        }
        let Node { state, data, .. } = self.nodes[link as usize];
        let data = if state == State::Linked { self.inodes[data as usize].data } else { data } as usize;
        let (length, text) = self.texts[data..].split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("four bytes were split off")) as usize;
        let is_absolute = text[..length].first() == Some(&b'/');
        targets.push(data + 4..data + 4 + length);
        self.followed += length as u64;
        if self.followed > self.allowed() {
            return Err(Error::limit(format_args!(
                "symlinks whose targets make {} bytes are followed, more than {}",
                self.followed,
                self.allowed()
            )));
        }
        Ok(if is_absolute { ROOT } else { parent })
    }

    /// Keeps a text, with its length in front where that is not kept elsewhere.
    fn text(&mut self, text: &[u8], with_length: bool) -> Result<u32> {
        let at = u32::try_from(self.texts.len()).map_err(Error::limit)?;
        let length = self.texts.len() as u64 + text.len() as u64;
        if length > self.allowed() {
            return Err(Error::limit(format_args!("names and targets of symlinks make {length} bytes, more than {}", self.allowed())));
        }
        if with_length {
            self.texts.extend_from_slice(&u32::try_from(text.len()).map_err(Error::limit)?.to_le_bytes());
        }
        self.texts.extend_from_slice(text);
        Ok(at)
    }

    /// How many bytes so many entries may ask for.
    fn allowed(&self) -> u64 {
        BYTES + self.applied * BYTES_PER_ENTRY
    }

    fn name(&self, node: u32) -> &[u8] {
        let Node { name, name_len, .. } = self.nodes[node as usize];
        &self.texts[name as usize..][..usize::from(name_len)]
    }

    fn hash(&self, parent: u32, name: &[u8]) -> u64 {
        let mut hasher = self.key.build_hasher();
        parent.hash(&mut hasher);
        hasher.write(name);
        hasher.finish()
    }

    fn child(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let same = |node: &u32| self.nodes[*node as usize].parent == parent && *node != ROOT && self.name(*node) == name;
        self.table.find(self.hash(parent, name), same).copied()
    }

    /// The node of a name in a directory, absent if it is new.
    fn make(&mut self, parent: u32, name: &[u8]) -> Result<u32> {
        if let Some(node) = self.child(parent, name) {
            self.hang(node);
            return Ok(node);
        }
        let node =
            u32::try_from(self.nodes.len()).ok().filter(|node| *node != NONE).ok_or_else(|| Error::limit("more than 4 billion names"))?;
        let name_len = u16::try_from(name.len()).map_err(|_| Error::limit("a name of more than 65,535 bytes"))?;
        let at = self.text(name, false)?;
        let entry = EntryId { layer: self.layer, ordinal: 0 };
        self.nodes.push(Node { parent, first: NONE, next: NONE, name: at, name_len, entry, data: NONE, state: State::Absent, flags: 0 });
        self.hang(node);
        let hash = self.hash(parent, name);
        // Moved out, since a table that grows asks for hashes of the rest of us.
        let mut table = std::mem::take(&mut self.table);
        table.insert_unique(hash, node, |node| self.hash(self.nodes[*node as usize].parent, self.name(*node)));
        self.table = table;
        Ok(node)
    }

    fn hang(&mut self, at: u32) {
        let node = self.nodes[at as usize];
        if node.flags & HUNG == 0 {
            let parent = &mut self.nodes[node.parent as usize];
            let next = std::mem::replace(&mut parent.first, at);
            let node = &mut self.nodes[at as usize];
            (node.next, node.flags) = (next, node.flags | HUNG);
        }
    }

    /// Removes a node and all below it; unless `all`, what the current layer has put there stays.
    fn remove(&mut self, node: u32, all: bool) {
        let stays = self.clear(node, all);
        let is = &mut self.nodes[node as usize];
        if !all && is.entry.layer == self.layer {
            is.flags |= HIDES;
        }
        if is.state == State::Absent || (!all && is.entry.layer == self.layer) {
            return;
        }
        self.fresh(node);
        if stays {
            let layer = self.layer;
            let node = &mut self.nodes[node as usize];
            (node.state, node.entry.layer) = (State::Implied, layer);
        }
    }

    /// Removes all below a node, but not the node; says whether something stays. Without recursion, since trees may be deep; and unless `all`,
    /// only once in a layer for each directory, since nothing of lower layers comes back.
    fn clear(&mut self, top: u32, all: bool) -> bool {
        let layer = self.layer;
        let is_done = |node: &Node| !all && is_directory(node.state) && node.data == u32::from(layer);
        if is_done(&self.nodes[top as usize]) {
            return self.nodes[top as usize].first != NONE;
        }
        // Directories on the way, the children of each that are still to be seen, and whether something of it stays.
        let mut path = vec![(top, std::mem::replace(&mut self.nodes[top as usize].first, NONE), false)];
        loop {
            let (directory, next, _) = *path.last().expect("the top is popped last");
            if next != NONE {
                let child = self.nodes[next as usize];
                path.last_mut().expect("as above").1 = child.next;
                // It hangs again if it stays, or comes back.
                self.nodes[next as usize].flags &= !HUNG;
                if is_done(&child) {
                    path.push((next, NONE, child.first != NONE));
                } else if child.state != State::Absent {
                    let below = std::mem::replace(&mut self.nodes[next as usize].first, NONE);
                    path.push((next, below, false));
                }
                continue;
            }
            let (_, _, below_stays) = path.pop().expect("as above");
            let node = self.nodes[directory as usize];
            let own = !all && node.entry.layer == layer;
            if let Some((_, _, stays)) = path.last_mut() {
                if own || below_stays {
                    *stays = true;
                    self.nodes[directory as usize].flags |= HIDES;
                    if !own {
                        self.fresh(directory);
                        let node = &mut self.nodes[directory as usize];
                        (node.state, node.entry.layer) = (State::Implied, layer);
                    }
                    self.hang(directory);
                } else {
                    self.fresh(directory);
                }
            }
            let node = &mut self.nodes[directory as usize];
            if !all && is_directory(node.state) {
                node.data = layer.into();
            }
            if path.is_empty() {
                return below_stays;
            }
        }
    }
}

pub(super) fn is_directory(state: State) -> bool {
    matches!(state, State::Directory | State::Implied)
}

fn found(finding: Finding) -> Error {
    Error::invalid(finding)
}

fn missing(path: &RootPath, target: &[u8]) -> Error {
    let target = crate::tar::escape_bytes(target);
    Error::invalid(format_args!("hard link `{path}` points to `{target}`, which is not there"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn placed(kind: Kind, path: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Placed {
        Placed { path: path.as_ref().to_vec(), link: link.as_ref().to_vec(), kind }
    }

    fn file(path: impl AsRef<[u8]>) -> Placed {
        placed(Kind::File, path, "")
    }

    /// The limit that is exceeded by so many entries after the first.
    fn limit(first: Placed, others: impl Iterator<Item = Placed>) -> String {
        let mut tree = Tree::default();
        tree.apply(&first).unwrap();
        let error = others.map(|placed| tree.apply(&placed)).find_map(Result::err).expect("there is a limit");
        assert_eq!(error.kind(), ErrorKind::Limit);
        error.to_string()
    }

    /// Which takes minutes where each mark looks at all that stays.
    #[test]
    fn marks_over_what_their_own_layer_has_cost_nothing() {
        for mark in ["d/.wh..wh..opq", ".wh.d", "d/.wh.e", "d/e/.wh..wh..opq"] {
            let mut tree = Tree::default();
            tree.apply(&file("d/e/old")).unwrap();
            tree.end_layer().unwrap();
            for at in 0..200_000 {
                tree.apply(&file(format!("d/e/{at}"))).unwrap();
            }
            for mark in (0..50_000).flat_map(|_| [".wh.d", mark]) {
                tree.apply(&file(mark)).unwrap();
            }
            let there = tree.nodes.iter().filter(|node| node.state == State::Leaf).count();
            assert_eq!(there, 200_000, "{mark}");
        }
    }

    #[test]
    fn a_long_target_is_not_followed_for_ever() {
        let link = placed(Kind::Symlink, "l", b"./".repeat(30_000));
        let says = limit(link, (0..10_000).map(|at| file(format!("l/{at}"))));
        assert!(says.contains("symlinks whose targets make"), "{says}");
    }

    #[test]
    fn names_and_targets_have_a_limit() {
        let name = |at: usize| [&b"n".repeat(60_000)[..], at.to_string().as_bytes()].concat();
        assert!(limit(file("a"), (0..2_000).map(|at| file(name(at)))).contains("names and targets"));
        assert!(limit(file("a"), (0..2_000).map(|at| placed(Kind::Symlink, "l", name(at)))).contains("names and targets"));
    }
}

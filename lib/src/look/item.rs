//! One name in a listing, and the order of names.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::layer::tree::EntryId;
use crate::tar::{Entry, Kind, Record, RootPath, Time};

/// Bytes of names and attributes that a listing may hold. They are what an input makes them: an attribute may have a megabyte.
const MOST_BYTES: usize = 1 << 30;

const WHITEOUT: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// One name in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its path from the root, without a slash at either end; empty for the root itself.
    pub path: Box<[u8]>,
    /// What it is; a hard link is what it leads to.
    pub kind: ItemKind,
    /// Permission bits, set-ID bits and the sticky bit.
    pub mode: u32,
    /// Who owns it.
    pub owner: Arc<Owner>,
    /// Bytes of a file with its holes; 0 for anything else.
    pub size: u64,
    /// Time of the last change.
    pub mtime: Time,
    /// What a symlink points to, as it stands in the layer.
    pub link: Box<[u8]>,
    /// The name with the content, for a hard link.
    pub hard_link: Option<Box<[u8]>>,
    /// Major and minor number of a device.
    pub device: (u64, u64),
    /// Extended attributes, by name.
    pub xattrs: Vec<Record>,
    /// The layer that it comes from, from the base up.
    pub layer: usize,
    /// How many names in the listing its file has.
    pub names: u32,
    /// The entry that it is.
    pub(super) id: EntryId,
    /// The entry with its content and attributes.
    pub(super) content: EntryId,
}

/// What an [`Item`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A regular file.
    File,
    /// A hard link to something in a lower layer; only in the listing of one layer.
    HardLink,
    /// A mark that hides all that lower layers have in its directory; only in the listing of one layer.
    Opaque,
    /// Something that engines do not know, with the type that its header states; only in the listing of one layer.
    Other(u8),
    /// A symbolic link.
    Symlink,
    /// A mark that hides what lower layers have under a name; only in the listing of one layer.
    Whiteout,
}

/// Who owns a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The user's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// The user's name, may be empty.
    pub user: Vec<u8>,
    /// The group's name, may be empty.
    pub group: Vec<u8>,
}

impl Item {
    /// What a whiteout hides, or the directory that an opaque mark is about.
    pub fn hides(&self) -> Option<Vec<u8>> {
        let (above, name) = match self.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.path[..slash], &self.path[slash + 1..]),
            None => (&self.path[..0], &self.path[..]),
        };
        match self.kind {
            ItemKind::Opaque => Some(above.to_vec()),
            ItemKind::Whiteout => {
                let slash: &[u8] = if above.is_empty() { b"" } else { b"/" };
                Some([above, slash, name.strip_prefix(WHITEOUT)?].concat())
            }
            _ => None,
        }
    }

    /// Whether it is a file that holds its bytes: a hard link does not.
    pub(super) fn own_bytes(&self) -> u64 {
        if self.hard_link.is_none() { self.size } else { 0 }
    }
}

/// A time as RFC 3339 writes it, in UTC; `None` for what is more than some thousand years away.
pub fn rfc3339(time: Time) -> Option<String> {
    let whole = jiff::Timestamp::from_second(time.secs).ok()?;
    let exact = whole.checked_add(jiff::SignedDuration::from_nanos(time.nanos.into())).ok()?;
    Some(exact.to_string())
}

/// Names in the order of a tree: what is in a directory follows it at once.
pub(super) fn in_order(a: &[u8], b: &[u8]) -> Ordering {
    let differ = a.iter().zip(b).find(|(a, b)| a != b);
    match differ {
        None => a.len().cmp(&b.len()),
        Some((b'/', _)) => Ordering::Less,
        Some((_, b'/')) => Ordering::Greater,
        Some((a, b)) => a.cmp(b),
    }
}

/// Whether a path is `directory` or below it.
pub(super) fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

/// What an entry of one layer is, as it stands there.
pub(super) fn kind_of(kind: Kind, path: &[u8]) -> ItemKind {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    match kind {
        _ if name == OPAQUE => ItemKind::Opaque,
        _ if name.starts_with(WHITEOUT) && !name.starts_with(META) => ItemKind::Whiteout,
        Kind::BlockDevice => ItemKind::BlockDevice,
        Kind::CharDevice => ItemKind::CharDevice,
        Kind::Directory => ItemKind::Directory,
        Kind::Fifo => ItemKind::Fifo,
        Kind::File => ItemKind::File,
        Kind::HardLink => ItemKind::HardLink,
        Kind::Other(byte) => ItemKind::Other(byte),
        Kind::Symlink => ItemKind::Symlink,
    }
}

/// A name without what says nothing; as it stands, where it is none.
pub(super) fn clean(name: &[u8]) -> Vec<u8> {
    RootPath::parse_layer(name).map_or_else(|_| name.to_vec(), |path| path.as_bytes().to_vec())
}

/// Takes entries, and makes a listing of them.
#[derive(Debug, Default)]
pub(super) struct Collected {
    items: Vec<Item>,
    /// Most files have the same few owners.
    owners: HashSet<Arc<Owner>>,
    bytes: usize,
}

impl Collected {
    /// Takes an entry under the name that it has; for a hard link, also the name that it leads to.
    pub(super) fn add(&mut self, id: EntryId, entry: Entry, path: Vec<u8>, hard_link: Option<Vec<u8>>) -> Result<()> {
        let xattrs: Vec<Record> = entry.xattrs().into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        self.bytes += path.len() + entry.link.len() + hard_link.as_ref().map_or(0, Vec::len);
        self.bytes += xattrs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let owner = Owner { uid: entry.uid, gid: entry.gid, user: entry.user.clone(), group: entry.group.clone() };
        let owner = match self.owners.get(&owner) {
            Some(known) => Arc::clone(known),
            None => {
                self.bytes += owner.user.len() + owner.group.len();
                let owner = Arc::new(owner);
                self.owners.insert(Arc::clone(&owner));
                owner
            }
        };
        if self.bytes > MOST_BYTES {
            return Err(Error::limit(format_args!("more than {} MiB of names and attributes", MOST_BYTES >> 20)));
        }
        let kind = kind_of(entry.kind, &path);
        self.items.push(Item {
            path: path.into(),
            kind,
            mode: entry.mode & 0o7777,
            owner,
            size: if kind == ItemKind::File { entry.content_size() } else { 0 },
            mtime: entry.mtime,
            link: if kind == ItemKind::Symlink { entry.link.into() } else { Box::default() },
            hard_link: hard_link.map(Vec::into_boxed_slice),
            device: if matches!(kind, ItemKind::BlockDevice | ItemKind::CharDevice) { entry.device } else { (0, 0) },
            xattrs,
            layer: id.layer.into(),
            names: 1,
            id,
            content: id,
        });
        Ok(())
    }

    /// All that was taken, in order, with hard links as what they lead to.
    pub(super) fn finish(self) -> Vec<Item> {
        let mut items = self.items;
        // Stable: of entries of one name in a layer, the last stays the last.
        items.sort_by(|a, b| in_order(&a.path, &b.path));
        let mut links: Vec<usize> = (0..items.len()).filter(|at| items[*at].hard_link.is_some()).collect();
        // A link may lead to another that comes before it.
        links.sort_by_key(|at| items[*at].id);
        let mut names: HashMap<EntryId, u32> = HashMap::new();
        for at in links {
            let Some(target) = target(&items, at).map(|found| items[found].clone()) else { continue };
            *names.entry(target.content).or_insert(1) += 1;
            let link = &mut items[at];
            let name = target.hard_link.unwrap_or(target.path);
            *link = Item { path: std::mem::take(&mut link.path), hard_link: Some(name), layer: link.layer, id: link.id, ..target };
        }
        for item in &mut items {
            item.names = names.get(&item.content).copied().unwrap_or(1);
        }
        items
    }
}

/// What a hard link leads to: the last entry of that name before it.
fn target(items: &[Item], link: usize) -> Option<usize> {
    let (name, id) = (items[link].hard_link.as_deref()?, items[link].id);
    let first = items.partition_point(|item| in_order(&item.path, name).is_lt());
    let named = items[first..].iter().take_while(|item| *item.path == *name);
    let before = (first..).zip(named).filter(|(_, item)| item.id < id);
    before.max_by_key(|(_, item)| item.id).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_followed_by_what_is_in_it() {
        let mut names = [&b"a-b"[..], b"a/c", b"a", b"", b"a/b/x", b"a/b-", b"b", b"a/b"];
        names.sort_by(|a, b| in_order(a, b));
        assert_eq!(names, [&b""[..], b"a", b"a/b", b"a/b/x", b"a/b-", b"a/c", b"a-b", b"b"]);
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"x", b"") && !is_within(b"a-b", b"a"));
    }

    #[test]
    fn times_of_any_age() {
        let text = |secs, nanos| rfc3339(Time { secs, nanos });
        assert_eq!(text(1_700_000_000, 0).as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(text(-1, 500_000_000).as_deref(), Some("1969-12-31T23:59:59.5Z"));
        assert_eq!((text(i64::MAX, 0), text(i64::MIN, 999_999_999)), (None, None));
    }

    #[test]
    fn marks_say_what_they_hide() {
        let kind = |path: &str| kind_of(Kind::File, path.as_bytes());
        assert_eq!(kind("a/.wh.b"), ItemKind::Whiteout);
        assert_eq!(kind("a/.wh..wh..opq"), ItemKind::Opaque);
        assert_eq!((kind("a/.wh..wh.aufs"), kind("a.wh.b")), (ItemKind::File, ItemKind::File));
    }
}

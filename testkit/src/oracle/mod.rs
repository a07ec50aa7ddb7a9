//! What layers mean: an in-memory file system that applies them one by one, to judge squash, export and unpacking by.
//!
//! Plain rather than fast, and nothing of the library in it. Entries are applied in the order of their layer, as an engine unpacks them;
//! what an engine leaves to the order of entries and the image-spec does not (a whiteout hides lower layers only) is as the spec has it.
//!
//! ```text
//! names    path -> inode, and the layer that put the name there; the root is ""
//! inodes   attributes and content; hard links are several names of one inode, which lives as long as any of them
//! implied  a directory that some path needs and no entry describes: lookups find it, a Tree does not show it
//! ```

mod random;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

pub use random::layers;

use crate::tar::{self, Attributes, Member};

/// How many symbolic links one lookup may follow, as in Linux.
const MOST_LINKS: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS keeps for itself; whiteouts of such names do not exist.
const META: &[u8] = b".wh..wh.";
/// Where AUFS keeps files with several names.
const PLINK: &[u8] = b".wh..wh.plnk";

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A block device, major and minor.
    Block(u32, u32),
    /// A character device, major and minor.
    Char(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A regular file and its bytes.
    File(Arc<[u8]>),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
}

/// One path of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Mode, owner, time, xattrs.
    pub about: Attributes,
    /// The kind, and what it holds.
    pub content: Content,
    /// All names of its inode, this one among them.
    pub names: BTreeSet<Vec<u8>>,
}

/// A root file system: what lies at each path. The root itself is `.`, and only there if it had an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<Vec<u8>, Node>);

impl Tree {
    /// The tree that layers make, the lowest first.
    ///
    /// # Errors
    ///
    /// Says which entry no engine could place.
    pub fn of_layers(layers: &[Vec<Member>]) -> Result<Self, String> {
        Ok(FileSystem::of_layers(layers)?.tree())
    }

    /// The tree in one plain tar, as export writes it. Panics where such a tar has a path twice, a whiteout, a path before its directory's
    /// own entry or below something else than a directory, a hard link before its target, or no end.
    pub fn of_tar(archive: &[u8]) -> Self {
        assert!(archive.ends_with(&[0; 1024]), "the tar has no two closing blocks");
        let mut files = FileSystem::default();
        let mut seen = BTreeSet::new();
        for member in tar::read(archive) {
            let name = shown(&member.name);
            let parts = clean(&member.name).unwrap();
            let path = parts.join(&b'/');
            assert!(parts.iter().all(|part| !part.starts_with(WHITEOUT)), "{name} is a whiteout");
            assert!(seen.insert(path.clone()), "{name} is there twice");
            for len in 0..parts.len() {
                let above = parts[..len].join(&b'/');
                let is_directory = files.at(&above).is_none_or(|inode| inode.content == Content::Directory);
                assert!(is_directory, "{name} lies below {}, which is no directory", shown(&above));
            }
            if member.kind == b'5' {
                let below = |other: &&Vec<u8>| **other != path && is_below(other, &path);
                assert_eq!(seen.iter().find(below).map(|other| shown(other)), None, "this comes before its directory {name}");
            }
            if member.kind == b'1' {
                let target = clean(&member.link).unwrap().join(&b'/');
                assert!(target != path && seen.contains(&target), "{name} links to {}, which is not there yet", shown(&target));
            }
            files.entry(&member).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        files.tree()
    }

    /// One line a path, as `list_rootfs.py` prints them:
    /// `path|type|mode|uid|gid|mtime|size|sha256 or link target or device|xattrs`. The root has none.
    pub fn rows(&self) -> String {
        let mut rows: Vec<_> = self.0.iter().filter(|(path, _)| *path != b".").map(|(path, node)| (python(path), node.row(path))).collect();
        rows.sort();
        rows.into_iter().map(|(_, row)| row + "\n").collect()
    }

    /// What differs, one line each: `-` is expected and missing, `+` is found and not expected. Empty when the trees are the same.
    pub fn difference(&self, expected: &Self) -> String {
        let mut out = String::new();
        for path in self.0.keys().chain(expected.0.keys()).collect::<BTreeSet<_>>() {
            let (found, wanted) = (self.0.get(path), expected.0.get(path));
            if found != wanted {
                for (sign, node) in [('-', wanted), ('+', found)] {
                    node.iter().for_each(|node| writeln!(out, "{sign} {}", node.line(path)).unwrap());
                }
            }
        }
        out
    }

    /// Asserts that this is the `expected` tree.
    #[track_caller]
    pub fn assert_is(&self, expected: &Self) {
        let difference = self.difference(expected);
        assert!(difference.is_empty(), "another tree than expected (-) was found (+):\n{difference}");
    }
}

impl Node {
    fn row(&self, path: &[u8]) -> String {
        let (kind, size, detail) = match &self.content {
            Content::Block(major, minor) => ('b', 0, format!("{major},{minor}")),
            Content::Char(major, minor) => ('c', 0, format!("{major},{minor}")),
            Content::Directory => ('d', 0, String::new()),
            Content::Fifo => ('p', 0, String::new()),
            Content::File(data) => ('f', data.len(), crate::hex(data)),
            Content::Symlink(target) => ('l', 0, String::from_utf8_lossy(target).into_owned()),
        };
        let Attributes { mode, uid, gid, mtime, xattrs, .. } = &self.about;
        // Python reads a time as a float and cuts it.
        let mtime = tar::time(*mtime).parse::<f64>().unwrap() as i64;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let xattrs: Vec<String> = xattrs.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
        format!("{}|{kind}|{mode:o}|{uid}|{gid}|{mtime}|{size}|{detail}|{}", ascii(path), xattrs.join(","))
    }

    /// The row and what it does not say.
    fn line(&self, path: &[u8]) -> String {
        let mut line = format!("{} time={}", self.row(path), tar::time(self.about.mtime));
        for (key, value) in &self.about.records {
            write!(line, " {}={}", shown(key), shown(value)).unwrap();
        }
        if self.names.len() > 1 {
            let names: Vec<String> = self.names.iter().map(|name| shown(name)).collect();
            write!(line, " names={}", names.join(",")).unwrap();
        }
        line
    }
}

/// Asserts that `merged`, put as one layer above the layers `below`, makes the tree `all`, and that none of its whiteouts hides nothing.
///
/// A directory that no entry describes may have one in `merged` where it takes the place of something.
#[track_caller]
pub fn check_partial(below: &[Vec<Member>], merged: &[u8], all: &Tree) {
    let merged = tar::read(merged);
    let lower = FileSystem::of_layers(below).unwrap();
    for member in &merged {
        let parts = clean(&member.name).unwrap();
        let Some((last, parents)) = parts.split_last().filter(|(last, _)| last.starts_with(WHITEOUT)) else { continue };
        let mut path = lower.resolve(parents).unwrap();
        let opaque = *last == OPAQUE;
        if !opaque {
            path.push(last[WHITEOUT.len()..].to_vec());
        }
        let path = path.join(&b'/');
        // Engines have a directory also where no entry describes it.
        let hides = |name: &Vec<u8>| is_below(name, &path) && !(opaque && *name == path);
        assert!(lower.names.keys().any(hides), "the whiteout {} hides nothing", shown(&member.name));
    }
    let described = lower.tree();
    let mut files = lower;
    files.apply(&merged).unwrap();
    let mut found = files.tree();
    let plain = Attributes { mode: 0o755, ..Attributes::default() };
    let is_made = |path: &Vec<u8>, node: &Node| {
        !all.0.contains_key(path) && described.0.contains_key(path) && node.content == Content::Directory && node.about == plain
    };
    found.0.retain(|path, node| !is_made(path, node));
    found.assert_is(all);
}

#[derive(Debug, Clone)]
struct Inode {
    about: Attributes,
    content: Content,
    implied: bool,
}

#[derive(Debug, Clone)]
struct Name {
    inode: usize,
    /// The layer that put it there.
    layer: usize,
}

#[derive(Debug, Clone)]
struct FileSystem {
    names: BTreeMap<Vec<u8>, Name>,
    inodes: Vec<Inode>,
    /// The layer at work, from 1.
    layer: usize,
    /// The files of AUFS, for hard links of the layer at work.
    plinks: BTreeMap<Vec<u8>, usize>,
}

impl Default for FileSystem {
    fn default() -> Self {
        let mut files = Self { names: BTreeMap::new(), inodes: Vec::new(), layer: 0, plinks: BTreeMap::new() };
        files.imply(Vec::new());
        files.begin_layer();
        files
    }
}

impl FileSystem {
    fn of_layers(layers: &[Vec<Member>]) -> Result<Self, String> {
        let mut files = Self::default();
        for (at, layer) in layers.iter().enumerate() {
            files.apply(layer).map_err(|why| format!("layer {at}: {why}"))?;
        }
        Ok(files)
    }

    fn apply(&mut self, layer: &[Member]) -> Result<(), String> {
        self.begin_layer();
        layer.iter().try_for_each(|member| self.entry(member).map_err(|why| format!("{}: {why}", shown(&member.name))))
    }

    fn begin_layer(&mut self) {
        self.layer += 1;
        self.plinks.clear();
    }

    /// Applies one entry. After an error the file system may be half changed.
    fn entry(&mut self, member: &Member) -> Result<(), String> {
        let path = clean(&member.name)?;
        let Some(at) = path.iter().position(|part| part.starts_with(WHITEOUT)) else { return self.place(&path, member) };
        let (parents, name, is_last) = (&path[..at], path[at], at + 1 == path.len());
        if name.starts_with(META) && name != OPAQUE {
            if name == PLINK && at == 0 && path.len() == 2 && member.kind == b'0' {
                let inode = self.inode(Content::File(member.data.clone().into()), &member.about);
                self.plinks.insert(path[1].to_vec(), inode);
            }
            return Ok(());
        }
        if !is_last {
            return Err("lies below a whiteout".to_owned());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err("is a whiteout of no name".to_owned());
        }
        let mut path = self.resolve(parents)?;
        for len in 1..=path.len() {
            if self.at(&path[..len].join(&b'/')).is_some_and(|inode| inode.content != Content::Directory) {
                return Err("is a whiteout below something else than a directory".to_owned());
            }
        }
        if name != OPAQUE {
            path.push(hidden.to_vec());
        }
        self.hide(&path.join(&b'/'), name == OPAQUE);
        Ok(())
    }

    /// Removes what lower layers have at `path` and below, or only below. A directory that still holds something becomes an implied one.
    fn hide(&mut self, path: &[u8], only_below: bool) {
        let lower = |name: &Name| name.layer < self.layer;
        let hidden = |(name, at): &(&Vec<u8>, &Name)| is_below(name, path) && lower(at) && !(only_below && *name == path);
        let hidden: Vec<Vec<u8>> = self.names.iter().filter(hidden).map(|(name, _)| name.clone()).collect();
        let kept = |path: &Vec<u8>| self.names.iter().any(|(name, at)| is_below(name, path) && !lower(at));
        let (kept, gone): (Vec<_>, Vec<_>) = hidden.into_iter().partition(kept);
        self.names.retain(|name, _| !gone.contains(name));
        kept.into_iter().for_each(|path| self.imply(path));
    }

    fn place(&mut self, path: &[&[u8]], member: &Member) -> Result<(), String> {
        let Some((last, parents)) = path.split_last() else {
            if member.kind != b'5' {
                return Err("the root is no directory".to_owned());
            }
            self.put(Vec::new(), Content::Directory, &member.about);
            return Ok(());
        };
        let mut path = self.resolve(parents)?;
        self.make_directories(&path)?;
        path.push(last.to_vec());
        let path = path.join(&b'/');
        if member.kind != b'5' || self.at(&path).is_some_and(|inode| inode.content != Content::Directory) {
            self.names.retain(|name, _| !is_below(name, &path));
        }
        let content = match member.kind {
            b'0' | b'7' => Content::File(member.data.clone().into()),
            b'1' => {
                let inode = self.link_target(&member.link)?;
                self.names.insert(path, Name { inode, layer: self.layer });
                return Ok(());
            }
            b'2' if member.link.is_empty() || member.link.contains(&0) => return Err("is a symbolic link to no name".to_owned()),
            b'2' => Content::Symlink(member.link.clone()),
            b'3' => Content::Char(member.device.0, member.device.1),
            b'4' => Content::Block(member.device.0, member.device.1),
            b'5' => Content::Directory,
            b'6' => Content::Fifo,
            other => return Err(format!("is of the unknown kind {other}")),
        };
        self.put(path, content, &member.about);
        Ok(())
    }

    /// The inode that a hard link shares. The name that the link itself takes is gone by now.
    fn link_target(&self, target: &[u8]) -> Result<usize, String> {
        let parts = clean(target)?;
        let missing = || format!("links to {}, which is not there", shown(target));
        let (last, parents) = parts.split_last().ok_or("links to the root")?;
        if parts[0] == PLINK && parts.len() == 2 {
            return self.plinks.get(*last).copied().ok_or_else(missing);
        }
        let mut path = self.resolve(parents)?;
        path.push(last.to_vec());
        let inode = self.names.get(&path.join(&b'/')).ok_or_else(missing)?.inode;
        if self.inodes[inode].content == Content::Directory {
            return Err(format!("links to the directory {}", shown(target)));
        }
        Ok(inode)
    }

    /// Follows symbolic links, the last part's too, to the path behind them, which need not exist. Nothing leads out of the root.
    fn resolve(&self, path: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
        let mut todo: VecDeque<Vec<u8>> = path.iter().map(|part| part.to_vec()).collect();
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(part) = todo.pop_front() {
            match part.as_slice() {
                b"" | b"." => {}
                b".." => {
                    at.pop();
                }
                _ => {
                    at.push(part);
                    let Some(Inode { content: Content::Symlink(target), .. }) = self.at(&at.join(&b'/')) else { continue };
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(format!("leads through more than {MOST_LINKS} symbolic links"));
                    }
                    at.pop();
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    target.split(|&byte| byte == b'/').rev().for_each(|part| todo.push_front(part.to_vec()));
                }
            }
        }
        Ok(at)
    }

    /// Makes what is missing of a path without symbolic links.
    fn make_directories(&mut self, path: &[Vec<u8>]) -> Result<(), String> {
        for len in 1..=path.len() {
            let path = path[..len].join(&b'/');
            match self.names.get(&path) {
                Some(name) if self.inodes[name.inode].content == Content::Directory => {}
                Some(name) if name.layer == self.layer => return Err(format!("lies below {}, no directory in this layer", shown(&path))),
                _ => self.imply(path),
            }
        }
        Ok(())
    }

    fn imply(&mut self, path: Vec<u8>) {
        let inode = self.inode(Content::Directory, &Attributes::default());
        self.inodes[inode].implied = true;
        self.names.insert(path, Name { inode, layer: self.layer });
    }

    fn put(&mut self, path: Vec<u8>, content: Content, about: &Attributes) {
        let inode = self.inode(content, about);
        self.names.insert(path, Name { inode, layer: self.layer });
    }

    fn inode(&mut self, content: Content, about: &Attributes) -> usize {
        self.inodes.push(Inode { about: about.clone(), content, implied: false });
        self.inodes.len() - 1
    }

    fn at(&self, path: &[u8]) -> Option<&Inode> {
        self.names.get(path).map(|name| &self.inodes[name.inode])
    }

    fn tree(&self) -> Tree {
        let shown = |path: &Vec<u8>| if path.is_empty() { b".".to_vec() } else { path.clone() };
        let mut names: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (path, name) in &self.names {
            names.entry(name.inode).or_default().insert(shown(path));
        }
        let node = |name: &Name| {
            let Inode { about, content, .. } = self.inodes[name.inode].clone();
            Node { about, content, names: names[&name.inode].clone() }
        };
        let explicit = self.names.iter().filter(|(_, name)| !self.inodes[name.inode].implied);
        Tree(explicit.map(|(path, name)| (shown(path), node(name))).collect())
    }
}

/// The parts of a name in a layer, none for the root.
fn clean(name: &[u8]) -> Result<Vec<&[u8]>, String> {
    let parts: Vec<_> = name.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if name.is_empty() || name.contains(&0) || parts.contains(&&b".."[..]) {
        return Err(format!("`{}` is no name in a layer", shown(name)));
    }
    Ok(parts)
}

/// Whether `path` is `directory` or lies below it.
fn is_below(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The characters of a name as Python decodes it: a byte that is not UTF-8 becomes a surrogate.
fn python(bytes: &[u8]) -> Vec<u32> {
    let chunks = bytes.utf8_chunks();
    chunks
        .flat_map(|chunk| chunk.valid().chars().map(u32::from).chain(chunk.invalid().iter().map(|&byte| 0xdc00 + u32::from(byte))))
        .collect()
}

/// A name as Python's `ascii` has it, without the quotes.
fn ascii(bytes: &[u8]) -> String {
    let quoted = bytes.contains(&b'\'') && bytes.contains(&b'"');
    let mut out = String::new();
    for character in python(bytes) {
        match character {
            0x27 if quoted => out.push_str("\\'"),
            0x5c => out.push_str("\\\\"),
            0x09 => out.push_str("\\t"),
            0x0a => out.push_str("\\n"),
            0x0d => out.push_str("\\r"),
            0x20..=0x7e => out.push(char::from_u32(character).unwrap()),
            0..=0xff => write!(out, "\\x{character:02x}").unwrap(),
            0x100..=0xffff => write!(out, "\\u{character:04x}").unwrap(),
            _ => write!(out, "\\U{character:08x}").unwrap(),
        }
    }
    out
}

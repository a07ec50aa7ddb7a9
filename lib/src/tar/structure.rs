//! What is wrong with a layer as a changeset, although it is a well-formed archive: names, whiteouts, links and placement.
//!
//! Judges one layer by itself, in the order of its entries. What needs the layers below is not judged here: a hard link to a name that this layer
//! does not have is legal, since the name may come from a lower layer, and the one who merges knows whether it does. For the same reason an
//! entry below a symlink is not judged.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;

use super::{Entry, Kind, NameError, RootPath, escape_bytes};

/// How many names are remembered: what a table of 2^21 places of nine bytes holds before it grows, about 19 MB.
const MAX_PATHS: usize = 1_835_008;

const WHITEOUT: &[u8] = b".wh.";
/// Names of AUFS's own in old layers, and the opaque whiteout: none of them removes a name.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// Judges the entries of one layer, one after another.
///
/// Remembers eight bytes a name (a digest under a random key, so that an input cannot choose names that collide) and at most about 1.8 million
/// names, 38 MB at worst. Beyond that, nothing more is remembered, and what only memory finds (entries below files, hard links to directories) goes
/// unnoticed; the one who merges must not rely on this alone.
#[derive(Debug, Default)]
pub struct LayerChecker {
    key: RandomState,
    /// What is now a directory.
    directories: HashSet<u64>,
    /// What is now neither a directory nor a symlink, so that nothing can be below it.
    leaves: HashSet<u64>,
}

/// What is wrong with an entry of a layer. Displayed as a sentence's clause that names the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It lies below what this layer makes a file.
    BelowFile {
        /// The entry.
        path: RootPath,
        /// The file.
        file: RootPath,
    },
    /// It lies below the name of a whiteout.
    BelowWhiteout {
        /// The entry.
        path: RootPath,
    },
    /// A hard link to what this layer makes a directory.
    LinkToDirectory {
        /// The entry.
        path: RootPath,
        /// Its target.
        target: RootPath,
    },
    /// A hard link to its own name.
    LinkToSelf {
        /// The entry.
        path: RootPath,
    },
    /// A symlink without a target, which no system can make.
    LinkToNothing {
        /// The entry.
        path: RootPath,
    },
    /// A name that cannot be cleaned.
    Name {
        /// The name as it stands in the archive.
        path: Vec<u8>,
        /// Why not.
        error: NameError,
    },
    /// The root as anything but a directory.
    Root {
        /// The name as it stands in the archive.
        path: Vec<u8>,
    },
    /// A hard link whose target cannot be cleaned: empty or out of the root.
    Target {
        /// The entry.
        path: RootPath,
        /// The target as it stands in the archive.
        target: Vec<u8>,
        /// Why not.
        error: NameError,
    },
    /// A whiteout that names nothing, or `.` or `..`.
    Whiteout {
        /// The entry.
        path: RootPath,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BelowFile { path, file } => write!(f, "entry `{path}` lies below `{file}`, expected a directory there, found a file"),
            Self::BelowWhiteout { path } => write!(f, "entry `{path}` lies below a whiteout, expected whiteouts to be files"),
            Self::LinkToDirectory { path, target } => write!(f, "hard link `{path}` points to the directory `{target}`, expected a file"),
            Self::LinkToNothing { path } => write!(f, "symlink `{path}` points to nothing, expected a target"),
            Self::LinkToSelf { path } => write!(f, "hard link `{path}` points to itself, expected another name"),
            Self::Name { path, error } => write!(f, "entry name `{}` {error}", escape_bytes(path)),
            Self::Root { path } => write!(f, "entry `{}` is the root of the layer, expected a directory", escape_bytes(path)),
            Self::Target { path, target, error } => write!(f, "target `{}` of hard link `{path}` {error}", escape_bytes(target)),
            Self::Whiteout { path } => write!(f, "whiteout `{path}` removes nothing, expected a name after `.wh.`"),
        }
    }
}

impl LayerChecker {
    /// Makes a checker for one layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges the next entry, and gives the first thing that is wrong with it. Entries of unknown types are let be.
    pub fn entry(&mut self, entry: &Entry) -> Option<Finding> {
        if matches!(entry.kind, Kind::Other(_)) {
            return None;
        }
        let path = match RootPath::parse_layer(&entry.path) {
            Ok(path) => path,
            Err(error) => return Some(Finding::Name { path: entry.path.clone(), error }),
        };
        if path.is_root() {
            return (entry.kind != Kind::Directory).then(|| Finding::Root { path: entry.path.clone() });
        }
        if let Some(finding) = whiteout(&path).or_else(|| self.below_file(&path)) {
            return Some(finding);
        }
        if entry.kind == Kind::HardLink
            && let Some(finding) = self.link(&path, &entry.link)
        {
            return Some(finding);
        }
        if entry.kind == Kind::Symlink && entry.link.is_empty() && !path.file_name().is_some_and(|name| name.starts_with(WHITEOUT)) {
            return Some(Finding::LinkToNothing { path });
        }
        self.remember(&path, entry.kind);
        None
    }

    fn below_file(&self, path: &RootPath) -> Option<Finding> {
        let file = path.ancestors().find(|above| self.leaves.contains(&self.key.hash_one(above)))?;
        let file = RootPath::parse_layer(file).expect("the beginning of a clean path is clean");
        Some(Finding::BelowFile { path: path.clone(), file })
    }

    fn link(&self, path: &RootPath, target: &[u8]) -> Option<Finding> {
        let path = path.clone();
        match RootPath::parse_layer(target) {
            Err(error) => Some(Finding::Target { path, target: target.to_vec(), error }),
            Ok(target) if target == path => Some(Finding::LinkToSelf { path }),
            Ok(target) if target.is_root() || self.directories.contains(&self.key.hash_one(target.as_bytes())) => {
                Some(Finding::LinkToDirectory { path, target })
            }
            Ok(_) => None,
        }
    }

    /// The last entry of a name counts. A file over a directory does not make us forget what was below the directory: what comes there later is
    /// found by the file, unless a directory replaces it once more, which no writer does.
    fn remember(&mut self, path: &RootPath, kind: Kind) {
        let digest = self.key.hash_one(path.as_bytes());
        self.directories.remove(&digest);
        self.leaves.remove(&digest);
        if self.directories.len() + self.leaves.len() < MAX_PATHS {
            match kind {
                Kind::Directory => _ = self.directories.insert(digest),
                Kind::Symlink => {}
                _ => _ = self.leaves.insert(digest),
            }
        }
    }
}

fn whiteout(path: &RootPath) -> Option<Finding> {
    let mut names = path.components();
    let last = names.next_back().filter(|name| !name.starts_with(WHITEOUT_META)).and_then(|name| name.strip_prefix(WHITEOUT));
    if matches!(last, Some(b"" | b"." | b"..")) {
        return Some(Finding::Whiteout { path: path.clone() });
    }
    let is_below = names.any(|name| name.starts_with(WHITEOUT) && !name.starts_with(WHITEOUT_META));
    is_below.then(|| Finding::BelowWhiteout { path: path.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Time;

    fn entry(kind: Kind, path: &str, link: &str) -> Entry {
        let (path, link) = (path.as_bytes().to_vec(), link.as_bytes().to_vec());
        let (user, group, pax) = (Vec::new(), Vec::new(), Vec::new());
        let mtime = Time::default();
        Entry { path, link, kind, mode: 0, uid: 0, gid: 0, mtime, size: 0, user, group, device: (0, 0), pax, sparse: None }
    }

    type Layer = [(Kind, &'static str, &'static str)];

    fn findings(entries: &Layer) -> Vec<String> {
        let mut checker = LayerChecker::new();
        entries.iter().filter_map(|(kind, path, link)| checker.entry(&entry(*kind, path, link))).map(|f| f.to_string()).collect()
    }

    #[test]
    fn accepts_what_engines_place() {
        use Kind::{Directory, File, HardLink, Other, Symlink};
        let layer = [
            (Directory, "./", ""),
            (Directory, "/", ""),
            (File, "no/parent", ""),
            (Symlink, "lib", "../../anywhere"),
            (File, "lib/below-symlink", ""),
            (HardLink, "a", "in/a/lower/layer"),
            (HardLink, "b", "/no/parent"),
            (File, ".wh.gone", ""),
            (Symlink, ".wh.link", "x"),
            (Symlink, ".wh.nothing", ""),
            (File, "gone", ""),
            (File, "d/.wh..wh..opq", ""),
            (Directory, ".wh..wh.plnk", ""),
            (File, ".wh..wh.plnk/12.34", ""),
            (File, "swap", ""),
            (Directory, "swap", ""),
            (File, "swap/below", ""),
            (File, "wh.", ""),
            (Other(b'V'), "../label", ""),
        ];
        assert_eq!(findings(&layer), Vec::<String>::new());
    }

    #[test]
    fn finds_each_fault() {
        use Kind::{Directory, Fifo, File, HardLink, Symlink};
        let cases: &[(&Layer, &str)] = &[
            (&[(File, ".wh.", "")], "whiteout `.wh.` removes nothing, expected a name after `.wh.`"),
            (&[(File, "a/.wh..", "")], "whiteout `a/.wh..` removes nothing, expected a name after `.wh.`"),
            (&[(File, ".wh...", "")], "whiteout `.wh...` removes nothing, expected a name after `.wh.`"),
            (&[(File, ".wh.a/b", "")], "entry `.wh.a/b` lies below a whiteout, expected whiteouts to be files"),
            (&[(Symlink, "d/a", "")], "symlink `d/a` points to nothing, expected a target"),
            (&[(HardLink, "a", "./a")], "hard link `a` points to itself, expected another name"),
            (&[(HardLink, "a", "../a")], "target `../a` of hard link `a` contains `..`, expected names below the root"),
            (&[(HardLink, "a", "")], "target `` of hard link `a` is empty"),
            (&[(HardLink, "a", "/")], "hard link `a` points to the directory `.`, expected a file"),
            (&[(Directory, "d/", ""), (HardLink, "a", "d")], "hard link `a` points to the directory `d`, expected a file"),
            (&[(File, "./", "")], "entry `./` is the root of the layer, expected a directory"),
            (&[(Symlink, "/", "x")], "entry `/` is the root of the layer, expected a directory"),
            (&[(File, "a/../b", "")], "entry name `a/../b` contains `..`, expected names below the root"),
            (&[(File, "", "")], "entry name `` is empty"),
            (&[(File, "a", ""), (File, "a/b/c", "")], "entry `a/b/c` lies below `a`, expected a directory there, found a file"),
            (
                &[(Directory, "a", ""), (Fifo, "a", ""), (File, "a/b", "")],
                "entry `a/b` lies below `a`, expected a directory there, found a file",
            ),
        ];
        for (layer, expected) in cases {
            assert_eq!(findings(layer), [*expected]);
        }
    }
}

//! Random layers in which everything that layers do to each other occurs often.
//!
//! What is drawn are wishes; names of what is there by then, and the attributes of hard links, are filled in while the layers are applied,
//! and an entry that could not be placed is left out. So every value is valid, shrunk ones too.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Content, FileSystem, OPAQUE, WHITEOUT, is_below};
use crate::tar::{Attributes, Member};

/// One to five layers, the lowest first, that [`Tree::of_layers`](super::Tree::of_layers) accepts.
///
/// The header of a hard link states mode, owner and time of its inode, since engines disagree about one that does not.
pub fn layers() -> impl Strategy<Value = Vec<Vec<Member>>> {
    let layer = (vec(wish(), 0..14), prop_oneof![7 => Just(None), 1 => any::<Index>().prop_map(Some)]);
    vec(layer, 1..6).prop_map(|wishes| {
        let (mut files, mut layers) = (FileSystem::default(), Vec::<Vec<Member>>::new());
        for (wishes, again) in wishes {
            files.begin_layer();
            let mut layer = Vec::new();
            if let Some(earlier) = again.filter(|_| !layers.is_empty()) {
                layers[earlier.index(layers.len())].iter().for_each(|member| add(&mut files, &mut layer, member.clone()));
            }
            for wish in wishes {
                wish.members(&files).into_iter().for_each(|member| add(&mut files, &mut layer, member));
            }
            layers.push(layer);
        }
        layers
    })
}

/// Applies `member` and adds it to `layer`, if it can be placed.
fn add(files: &mut FileSystem, layer: &mut Vec<Member>, mut member: Member) {
    let mut next = files.clone();
    if next.entry(&member).is_err() {
        return;
    }
    if let (b'1', Ok(inode)) = (member.kind, next.link_target(&member.link)) {
        member.about = Attributes { xattrs: BTreeMap::new(), records: BTreeMap::new(), ..next.inodes[inode].about.clone() };
    }
    *files = next;
    layer.push(member);
}

#[derive(Debug, Clone)]
struct Wish {
    what: What,
    place: Place,
    spelling: Spelling,
    about: Attributes,
}

#[derive(Debug, Clone)]
enum What {
    /// A hard link to a file of AUFS, which comes with it.
    Aufs(Vec<u8>),
    Device(u8, u32, u32),
    Directory,
    Fifo,
    File(Vec<u8>),
    HardLink(Place, Spelling),
    /// What AUFS leaves behind.
    Leftover,
    Opaque,
    OpaqueRoot,
    Root,
    Symlink(Vec<u8>),
    /// A whiteout: with data, or as a symbolic link.
    Whiteout(Vec<u8>, bool),
}

#[derive(Debug, Clone)]
enum Place {
    /// Below a name that is there.
    Below(Index, Vec<u8>),
    Existing(Index),
    New(Vec<Vec<u8>>),
    /// A name that is there, or a new one, through a symbolic link to a directory above it.
    Through(Index, Index, Option<Vec<u8>>),
}

#[derive(Debug, Clone, Copy)]
enum Spelling {
    Absolute,
    Bare,
    Dotted,
    Doubled,
}

impl Wish {
    fn members(&self, files: &FileSystem) -> Vec<Member> {
        let Some(path) = self.place.path(files) else { return Vec::new() };
        let name = self.spelling.of(&path);
        let mark = |hidden: &[u8]| self.spelling.of(&[&path[..path.len() - last(&path).len()], WHITEOUT, hidden].concat());
        let plink = |member: &Member| [b".wh..wh.plnk/", &crate::hex(&member.data).as_bytes()[..8]].concat();
        let mut members = match &self.what {
            What::Aufs(data) => {
                let file = Member::file("", data.as_slice());
                vec![Member { name: plink(&file), ..file.clone() }, Member::other(b'1', name, plink(&file))]
            }
            What::Device(kind, major, minor) => vec![Member { device: (*major, *minor), ..Member::other(*kind, name, "") }],
            What::Directory => {
                vec![Member::dir(if matches!(self.spelling, Spelling::Bare) { name } else { [name, b"/".to_vec()].concat() })]
            }
            What::Fifo => vec![Member::other(b'6', name, "")],
            What::File(data) => vec![Member::file(name, data.as_slice())],
            What::HardLink(target, spelling) => {
                target.path(files).map(|target| Member::other(b'1', name, spelling.of(&target))).into_iter().collect()
            }
            What::Leftover => vec![Member::dir(".wh..wh.orph/"), Member::file(".wh..wh.aufs", "")],
            What::Opaque => vec![Member::file([&name, &b"/"[..], OPAQUE].concat(), "")],
            What::OpaqueRoot => vec![Member::file(OPAQUE, "")],
            What::Root => vec![Member::dir("./")],
            What::Symlink(target) => vec![Member::other(b'2', name, target.as_slice())],
            What::Whiteout(data, false) => vec![Member::file(mark(last(&path)), data.as_slice())],
            What::Whiteout(_, true) => vec![Member::other(b'2', mark(last(&path)), "(overlay-whiteout)")],
        };
        for member in &mut members {
            member.about = self.about.clone();
            // Linux has them nowhere else, so that the layers can be unpacked to disk too.
            member.about.xattrs.retain(|key, _| member.kind == b'0' || member.kind == b'5' && key != CAPABILITY);
        }
        members
    }
}

impl Place {
    fn path(&self, files: &FileSystem) -> Option<Vec<u8>> {
        let names: Vec<_> = files.names.iter().filter(|(name, at)| !name.is_empty() && !files.inodes[at.inode].implied).collect();
        let pick = |index: &Index| (!names.is_empty()).then(|| names[index.index(names.len())].0);
        Some(match self {
            Self::New(parts) => parts.join(&b'/'),
            Self::Existing(name) => pick(name)?.clone(),
            Self::Below(name, part) => [pick(name)?, part.as_slice()].join(&b'/'),
            Self::Through(link, name, part) => {
                let mut ways = Vec::new();
                for (link, at) in &names {
                    if !matches!(files.inodes[at.inode].content, Content::Symlink(_)) {
                        continue;
                    }
                    let Ok(target) = files.resolve(&link.split(|&byte| byte == b'/').collect::<Vec<_>>()) else { continue };
                    let target = target.join(&b'/');
                    match part {
                        Some(part) => ways.push([link, part.as_slice()].join(&b'/')),
                        None => {
                            ways.extend(names.iter().filter(|(name, _)| is_below(name, &target) && **name != target).map(|(name, _)| {
                                let rest = name[target.len()..].strip_prefix(b"/").unwrap_or(&name[target.len()..]);
                                [link, rest].join(&b'/')
                            }))
                        }
                    }
                }
                // Both indexes, so that neither link nor name is always the same one.
                ways.get((link.index(1 << 16) ^ name.index(1 << 16)) % ways.len().max(1))?.clone()
            }
        })
    }
}

impl Spelling {
    fn of(self, path: &[u8]) -> Vec<u8> {
        match self {
            Self::Absolute => [b"/", path].concat(),
            Self::Bare => path.to_vec(),
            Self::Dotted => [b"./", path].concat(),
            Self::Doubled => path.split(|&byte| byte == b'/').collect::<Vec<_>>().join(&b"/.//"[..]),
        }
    }
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

fn wish() -> impl Strategy<Value = Wish> {
    (what(), place(), spelling(), about()).prop_map(|(what, place, spelling, about)| Wish { what, place, spelling, about })
}

fn what() -> impl Strategy<Value = What> {
    let data = || {
        let size = prop_oneof![4 => 0..20_usize, 1 => Just(512), 2 => 0..3_000_usize];
        (size, 0..1_000_u64).prop_map(|(size, seed)| crate::noise(size, seed))
    };
    prop_oneof![
        20 => data().prop_map(What::File),
        16 => Just(What::Directory),
        14 => (target(), spelling()).prop_map(|(place, spelling)| What::HardLink(place, spelling)),
        10 => link().prop_map(What::Symlink),
        7 => (data(), prop::bool::weighted(0.2)).prop_map(|(data, is_link)| What::Whiteout(data, is_link)),
        4 => Just(What::Opaque),
        1 => Just(What::Fifo),
        1 => (select(&b"34"[..]), 0..300_u32, 0..70_000_u32).prop_map(|(kind, major, minor)| What::Device(kind, major, minor)),
        1 => data().prop_map(What::Aufs),
        1 => Just(What::Leftover),
        1 => Just(What::OpaqueRoot),
        1 => Just(What::Root),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        5 => vec(part(), 1..4).prop_map(Place::New),
        4 => any::<Index>().prop_map(Place::Existing),
        4 => (any::<Index>(), part()).prop_map(|(name, part)| Place::Below(name, part)),
        2 => (any::<Index>(), any::<Index>(), prop::option::of(part())).prop_map(|(link, name, part)| Place::Through(link, name, part)),
    ]
}

/// What a hard link links to.
fn target() -> impl Strategy<Value = Place> {
    let through = (any::<Index>(), any::<Index>()).prop_map(|(link, name)| Place::Through(link, name, None));
    prop_oneof![6 => any::<Index>().prop_map(Place::Existing), 2 => through, 1 => vec(part(), 1..3).prop_map(Place::New)]
}

/// One part of a name. `a-` sorts between `a` and `a/b`; the long ones need more than the name field of ustar.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let odd = [vec![b'n'; 60], vec![b'm'; 120], b"\xff\x01".to_vec(), "ä".into(), b" '\"\\\n".to_vec(), b".whx".to_vec(), b"..a".to_vec()];
    prop_oneof![12 => select(&["a", "b", "c", "a-", "ab"][..]).prop_map(Into::into), 1 => select(odd.to_vec())]
}

/// The target of a symbolic link. `x/..` is left to the tables: engines differ where `x` is no directory.
fn link() -> impl Strategy<Value = Vec<u8>> {
    let front = select(&["", "", "", "/", "./", "../", "../../", "//"][..]);
    let named = (front, vec(part(), 1..3), prop::bool::weighted(0.1))
        .prop_map(|(front, parts, slash)| [front.as_bytes(), &parts.join(&b'/'), if slash { b"/" } else { b"" }].concat());
    prop_oneof![10 => named, 1 => select(&[".", "..", "/", "../.."][..]).prop_map(Into::into)]
}

fn spelling() -> impl Strategy<Value = Spelling> {
    prop_oneof![5 => Just(Spelling::Bare), 2 => Just(Spelling::Dotted), 1 => Just(Spelling::Absolute), 1 => Just(Spelling::Doubled)]
}

/// Only regular files have it.
const CAPABILITY: &[u8] = b"security.capability";
const XATTRS: [(&[u8], &[u8]); 4] =
    [(b"user.a", b"x"), (b"user.b", b""), (b"user.a", b"=\0\n\xff"), (CAPABILITY, b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")];
const RECORDS: [(&[u8], &[u8]); 2] = [(b"comment", b"text"), (b"VENDOR.key", b"\xfe=\n")];

/// Mostly none, sometimes one or two.
fn few(pairs: &'static [(&[u8], &[u8])]) -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    let some = vec(select(pairs), 1..3).prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect());
    prop_oneof![6 => Just(BTreeMap::new()), 1 => some]
}

fn about() -> impl Strategy<Value = Attributes> {
    let id = || prop_oneof![4 => Just(0), 2 => Just(1000), 1 => Just(4_000_000_000), 1 => Just(1 << 21)];
    let time = prop_oneof![
        3 => Just((1_700_000_000, 0)),
        1 => select(&[(0, 0), (-1, 0), (-2, 500_000_000), (1_700_000_000, 123_456_789), (1 << 33, 1), (-1, 999_999_999)][..]),
    ];
    (select(&[0o644, 0o755, 0o4755, 0o1777, 0o600, 0][..]), id(), id(), time, few(&XATTRS), few(&RECORDS))
        .prop_map(|(mode, uid, gid, mtime, xattrs, records)| Attributes { mode, uid, gid, mtime, xattrs, records })
}

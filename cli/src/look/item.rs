//! One file, as text and as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use longshore::look::{Item, ItemKind, rfc3339};
use longshore::tar::{Time, escape_bytes};
use serde::Serialize;

/// A file in a document.
#[derive(Debug, Serialize)]
pub(super) struct ItemInfo<'a> {
    path: Cow<'a, str>,
    /// Names are bytes: where they are no text, their digits say what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: &'static str,
    mode: String,
    uid: u64,
    gid: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: Cow<'a, str>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<String>,
    mtime_seconds: i64,
    #[serde(skip_serializing_if = "is_zero")]
    mtime_nanos: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link_hex: Option<String>,
    names: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<Cow<'a, str>, String>,
    layer: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    hides: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'a> From<&'a Item> for ItemInfo<'a> {
    fn from(item: &'a Item) -> Self {
        let link = (item.kind == ItemKind::Symlink).then_some(&*item.link);
        let hard_link = item.hard_link.as_deref();
        let text = |bytes: &'a [u8]| String::from_utf8_lossy(bytes);
        Self {
            path: text(&item.path),
            path_hex: unless_text(&item.path),
            kind: kind(item.kind),
            mode: format!("{:04o}", item.mode),
            uid: item.owner.uid,
            gid: item.owner.gid,
            user: text(&item.owner.user),
            group: text(&item.owner.group),
            size: item.size,
            mtime: rfc3339(item.mtime),
            mtime_seconds: item.mtime.secs,
            mtime_nanos: item.mtime.nanos,
            link: link.map(text),
            link_hex: link.and_then(unless_text),
            hard_link: hard_link.map(text),
            hard_link_hex: hard_link.and_then(unless_text),
            names: item.names,
            device: is_device(item).then_some(item.device.into()),
            xattrs: item.xattrs.iter().map(|(name, value)| (text(name), hex(value))).collect(),
            layer: item.layer,
            hides: item.hides().map(|path| String::from_utf8_lossy(&path).into_owned()),
        }
    }
}

fn unless_text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

pub(super) fn is_device(item: &Item) -> bool {
    matches!(item.kind, ItemKind::BlockDevice | ItemKind::CharDevice)
}

/// What it is, in a document.
pub(super) fn kind(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::BlockDevice => "block-device",
        ItemKind::CharDevice => "char-device",
        ItemKind::Directory => "directory",
        ItemKind::Fifo => "fifo",
        ItemKind::File => "file",
        ItemKind::HardLink => "hard-link",
        ItemKind::Opaque => "opaque",
        ItemKind::Other(_) => "other",
        ItemKind::Symlink => "symlink",
        ItemKind::Whiteout => "whiteout",
    }
}

/// A path on one line of a terminal; the root is a point.
pub(super) fn path(bytes: &[u8]) -> String {
    if bytes.is_empty() { ".".to_owned() } else { escape_bytes(bytes) }
}

/// Kind and mode as `ls -l` has them, and as BSD's has whiteouts.
pub(super) fn mode(item: &Item) -> String {
    let kind = match item.kind {
        ItemKind::BlockDevice => 'b',
        ItemKind::CharDevice => 'c',
        ItemKind::Directory => 'd',
        ItemKind::Fifo => 'p',
        ItemKind::File => '-',
        ItemKind::HardLink => 'h',
        ItemKind::Opaque | ItemKind::Whiteout => 'w',
        ItemKind::Other(_) => '?',
        ItemKind::Symlink => 'l',
    };
    let mut text = String::from(kind);
    // Each three bits, and the one that shows in the place of the last of them.
    for (shift, special, letters) in [(6, 0o4000, ['s', 'S']), (3, 0o2000, ['s', 'S']), (0, 0o1000, ['t', 'T'])] {
        let has = |bit: u32| item.mode >> shift & bit != 0;
        text.push(if has(4) { 'r' } else { '-' });
        text.push(if has(2) { 'w' } else { '-' });
        text.push(match (item.mode & special != 0, has(1)) {
            (true, runs) => letters[usize::from(!runs)],
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    if !item.xattrs.is_empty() {
        text.push('+');
    }
    text
}

/// `2023-11-14 22:13`, in UTC.
pub(super) fn minute(time: Time) -> String {
    let Some(text) = rfc3339(time) else { return format!("@{}", time.secs) };
    match text.split_once('T') {
        Some((day, clock)) => format!("{day} {}", clock.get(..5).unwrap_or(clock)),
        None => text,
    }
}

//! A listing, as `ls -l` shows one and as JSON.

use longshore::Digest;
use longshore::catalog::Image;
use longshore::look::{Item, ItemKind};
use longshore::tar::escape_bytes;
use serde::{Serialize, Serializer};

use super::item::{ItemInfo, is_device, minute, mode, path};

/// What `ls --json` prints.
#[derive(Serialize)]
pub(crate) struct Listed<'a> {
    version: u32,
    image: Digest,
    platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(serialize_with = "one_by_one")]
    entries: &'a [&'a Item],
}

/// Makes each entry when it is printed.
fn one_by_one<S: Serializer>(items: &&[&Item], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(|item| ItemInfo::from(*item)))
}

impl<'a> Listed<'a> {
    pub(crate) fn new(image: &Image, layer: Option<usize>, items: &'a [&'a Item]) -> Self {
        Self { version: 1, image: *image.id(), platform: image.platform().to_string(), layer, entries: items }
    }
}

/// How wide the columns of a listing are.
pub(crate) struct Rows {
    numeric: bool,
    with_layer: bool,
    widths: [usize; COLUMNS],
}

/// Columns before the path.
const COLUMNS: usize = 7;

/// Which of them begin at the left.
const LEFT: [bool; COLUMNS] = [false, true, false, true, true, false, true];

impl Rows {
    /// Looks at all that will be shown.
    pub(crate) fn new(items: &[&Item], numeric: bool, with_layer: bool) -> Self {
        let mut rows = Self { numeric, with_layer, widths: [0; COLUMNS] };
        for item in items {
            for (width, cell) in rows.cells(item).iter().enumerate() {
                rows.widths[width] = rows.widths[width].max(cell.chars().count());
            }
        }
        rows
    }

    /// The lines of some of it.
    pub(crate) fn text(&self, items: &[&Item]) -> String {
        let mut text = String::new();
        for item in items {
            for (at, cell) in self.cells(item).into_iter().enumerate().filter(|(at, _)| *at > 0 || self.with_layer) {
                let width = self.widths[at];
                text.push_str(&if LEFT[at] { format!("{cell:<width$} ") } else { format!("{cell:>width$} ") });
            }
            text.push_str(&path(&item.path));
            text.push_str(&leads_to(item));
            text.push('\n');
        }
        text
    }

    fn cells(&self, item: &Item) -> [String; COLUMNS] {
        let owner = |name: &[u8], number: u64| {
            if name.is_empty() || self.numeric { number.to_string() } else { escape_bytes(name) }
        };
        let (major, minor) = item.device;
        let size = if is_device(item) { format!("{major}, {minor}") } else { item.size.to_string() };
        let (user, group) = (owner(&item.owner.user, item.owner.uid), owner(&item.owner.group, item.owner.gid));
        [item.layer.to_string(), mode(item), item.names.to_string(), user, group, size, minute(item.mtime)]
    }
}

/// What follows the path.
fn leads_to(item: &Item) -> String {
    match (item.kind, &item.hard_link) {
        (ItemKind::Symlink, None) => format!(" -> {}", path(&item.link)),
        (_, Some(target)) => format!(" link to {}", path(target)),
        (ItemKind::Opaque, _) => format!(" (hides what lower layers have in {})", path(&item.hides().unwrap_or_default())),
        (ItemKind::Whiteout, _) => format!(" (hides {})", path(&item.hides().unwrap_or_default())),
        _ => String::new(),
    }
}

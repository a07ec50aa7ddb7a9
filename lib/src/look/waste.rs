//! What lower layers hold and nobody sees: files that newer layers remove or replace.

use serde::Serialize;

use super::item::clean;
use super::{layers, plan_of};
use crate::catalog::ImageId;
use crate::context::Context;
use crate::error::{Context as _, Result};
use crate::run::layers::Fate;
use crate::source::Source;

/// How many of the largest hidden files are named.
const LARGEST: usize = 10;

/// What of an image nobody sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Waste {
    /// Bytes of all files of all layers, without compression, and without headers.
    pub bytes: u64,
    /// Those of them that are in files that nobody sees.
    pub hidden_bytes: u64,
    /// How many files nobody sees.
    pub hidden_files: u64,
    /// The same for each layer, base first.
    pub layers: Vec<LayerWaste>,
    /// The largest hidden files, largest first.
    pub largest: Vec<HiddenFile>,
}

/// What of a layer nobody sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayerWaste {
    /// Bytes of its files.
    pub bytes: u64,
    /// Those of them that are in files that nobody sees.
    pub hidden_bytes: u64,
    /// How many of its files nobody sees.
    pub hidden_files: u64,
}

/// A file that nobody sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HiddenFile {
    /// Its bytes.
    pub bytes: u64,
    /// The layer that holds it.
    pub layer: usize,
    /// Its name in that layer, escaped where it is no text that prints.
    pub path: String,
}

impl Waste {
    /// How much of all bytes nobody sees, in tenths of a percent.
    pub fn per_mille(&self) -> u64 {
        let share = u128::from(self.hidden_bytes) * 1000 / u128::from(self.bytes.max(1));
        u64::try_from(share).unwrap_or(1000)
    }
}

/// Finds what of an image nobody sees. A file whose first name is gone and which has others counts as seen.
///
/// # Errors
/// Layers that are not there, cannot be read or cannot be merged, or a request to stop.
pub fn waste(source: &dyn Source, image: ImageId, ctx: &Context) -> Result<Waste> {
    let plan = plan_of(source, image)?;
    let layers = layers(&plan, source, ctx);
    let mut found = Waste { layers: vec![LayerWaste::default(); plan.layers.len()], ..Waste::default() };
    let mut largest: Vec<HiddenFile> = Vec::new();
    let read = layers.index().and_then(|merge| {
        layers.visit(&merge, &mut |layer, entry, fate| {
            let of = &mut found.layers[layer];
            of.bytes = of.bytes.saturating_add(entry.size);
            let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            // A mark is no file, whatever its entry says.
            if !matches!(fate, Fate::Hidden) || !entry.kind.has_payload() || name.starts_with(b".wh.") {
                return Ok(());
            }
            of.hidden_bytes = of.hidden_bytes.saturating_add(entry.size);
            of.hidden_files += 1;
            // Of the same size, the first stay.
            let place = largest.partition_point(|file| file.bytes >= entry.size);
            if place < LARGEST && entry.size > 0 {
                let path = crate::tar::escape_bytes(&clean(&entry.path));
                largest.insert(place, HiddenFile { bytes: entry.size, layer, path });
                largest.truncate(LARGEST);
            }
            Ok(())
        })
    });
    read.context(|| source.describe())?;
    for layer in &found.layers {
        found.bytes = found.bytes.saturating_add(layer.bytes);
        found.hidden_bytes = found.hidden_bytes.saturating_add(layer.hidden_bytes);
        found.hidden_files += layer.hidden_files;
    }
    found.largest = largest;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use longshore_testkit::images::{Image, docker_archive};
    use tempfile::tempdir;

    use super::*;
    use crate::testing::{context, put, source};

    #[test]
    fn files_that_are_removed_or_replaced_are_hidden() {
        let base = "d/\nd/a=12345\nd/b=123\nkept=1\nfirst=1234567\nsecond=>first";
        let image = Image::new("app:1").layer(base).layer("d/\nd/a=1\n.wh.first=").layer(".wh.d=\nempty=");
        let dir = tempdir().unwrap();
        let path = put(dir.path(), "app.tar", &docker_archive(&[image]));
        let found = waste(source(&path).unwrap().as_ref(), ImageId(0), &context(dir.path())).unwrap();
        let layer = |bytes, hidden_bytes, hidden_files| LayerWaste { bytes, hidden_bytes, hidden_files };
        assert_eq!(found.layers, [layer(16, 8, 2), layer(1, 1, 1), layer(0, 0, 0)]);
        assert_eq!((found.bytes, found.hidden_bytes, found.hidden_files, found.per_mille()), (17, 9, 3, 529));
        let largest: Vec<_> = found.largest.iter().map(|file| (file.bytes, file.layer, file.path.as_str())).collect();
        assert_eq!(largest, [(5, 0, "d/a"), (3, 0, "d/b"), (1, 1, "d/a")]);
    }
}

//! The file system that an image's layers make together: as one tar, without a name twice and without whiteouts, or unpacked.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::Serialize;

use crate::catalog::ImageId;
use crate::context::Context;
use crate::error::{Context as _, Result};
use crate::plan::MergePlan;
use crate::pool::{CHUNK, lock};
use crate::run::merge::with_merged;
use crate::run::transfer::Counts;
use crate::source::Source;
use crate::transport::{Medium, Output};
use crate::unpack::{UnpackOptions, Unpacked, unpack};

/// What an export did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Where it read from.
    pub source: String,
    /// Where it wrote to.
    pub destination: String,
    /// The image ID.
    pub image: String,
    /// Its platform.
    pub platform: String,
    /// How many layers it has.
    pub layers: usize,
    /// How many entries there are.
    pub entries: u64,
    /// Bytes of the tar, or of the files that were unpacked.
    pub bytes: u64,
    /// Bytes of the output, where that is a file.
    pub size: Option<u64>,
    /// Stored bytes read.
    pub bytes_read: u64,
    /// Digests of stored bytes that were found right.
    pub digests_verified: usize,
    /// Diff IDs that were found right.
    pub diff_ids_verified: usize,
}

/// Unpacks the merged layers of an image into a directory.
///
/// # Errors
/// Layers that cannot be read or merged or are not what was promised, what [`unpack`] refuses, or a request to stop.
pub fn export_to(source: &dyn Source, image: ImageId, to: &Path, options: &UnpackOptions, ctx: &Context) -> Result<(Exported, Unpacked)> {
    let plan = MergePlan::of(source.catalog(), source.catalog().image(image), 0, None).context(|| source.describe())?;
    let done = with_merged(&plan, source, ctx, |_, merged| unpack(merged, to, options, &ctx.cancel));
    let (unpacked, counts) = done.context(|| source.describe())?;
    let done = Exported {
        destination: to.display().to_string(),
        layers: plan.layers.len(),
        entries: unpacked.entries,
        bytes: unpacked.bytes,
        ..Exported::of(source, image, &counts)
    };
    Ok((done, unpacked))
}

/// Writes the merged layers of an image as a tar. The output is visible only when this returns without an error.
///
/// # Errors
/// Layers that cannot be read or merged or are not what was promised, an output that cannot be written, or a request to stop.
pub fn export(source: &dyn Source, image: ImageId, to: Output, ctx: &Context) -> Result<Exported> {
    let plan = MergePlan::of(source.catalog(), source.catalog().image(image), 0, None).context(|| source.describe())?;
    let mut bytes = 0;
    let destination = to.label.clone();
    let work = with_merged(&plan, source, ctx, |merge, merged| {
        loop {
            let chunk = ctx.pool.read(merged, CHUNK)?;
            if chunk.is_empty() {
                return Ok(merge.entries);
            }
            match &to.medium {
                Medium::File(file) => file.write_all_at(&chunk, bytes).context(|| &to.label)?,
                Medium::Stream(stream) => lock(stream).write_all(&chunk).context(|| &to.label)?,
            }
            bytes += chunk.len() as u64;
            to.wrote(chunk.len());
        }
    });
    let (entries, counts) = work.context(|| source.describe())?;
    ctx.cancel.poll()?;
    let size = to.commit().context(|| format!("writing {destination}"))?;
    Ok(Exported { destination, layers: plan.layers.len(), entries, bytes, size, ..Exported::of(source, image, &counts) })
}

impl Exported {
    /// What is said of any export.
    fn of(source: &dyn Source, image: ImageId, counts: &Counts) -> Self {
        let image = source.catalog().image(image);
        Self {
            source: source.describe(),
            image: image.id().to_string(),
            platform: image.platform().to_string(),
            bytes_read: counts.read,
            digests_verified: counts.digests,
            diff_ids_verified: counts.diff_ids,
            ..Self::default()
        }
    }
}

//! The file system that an image's layers make together: as one tar, without a name twice and without whiteouts.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use serde::Serialize;

use crate::catalog::ImageId;
use crate::context::Context;
use crate::error::{Context as _, Result};
use crate::plan::MergePlan;
use crate::pool::{CHUNK, lock};
use crate::run::merge::with_merged;
use crate::source::Source;
use crate::transport::{Medium, Output};

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
    /// How many entries the tar has.
    pub entries: u64,
    /// Bytes of the tar.
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

/// Writes the merged layers of an image as a tar. The output is visible only when this returns without an error.
///
/// # Errors
/// Layers that cannot be read or merged or are not what was promised, an output that cannot be written, or a request to stop.
pub fn export(source: &dyn Source, image: ImageId, to: Output, ctx: &Context) -> Result<Exported> {
    let catalog = source.catalog();
    let of = catalog.image(image);
    let plan = MergePlan::of(catalog, of, 0, None).context(|| source.describe())?;
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
    Ok(Exported {
        source: source.describe(),
        destination,
        image: of.id().to_string(),
        platform: of.platform().to_string(),
        layers: plan.layers.len(),
        entries,
        bytes,
        size,
        bytes_read: counts.read,
        digests_verified: counts.digests,
        diff_ids_verified: counts.diff_ids,
    })
}

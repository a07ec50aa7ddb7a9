//! Digests what a source stores where it does not state it, for a destination that names layers by these digests.

use std::collections::HashMap;

use crate::catalog::BlobId;
use crate::context::Context;
use crate::digest::Algorithm;
use crate::error::{Context as _, Result};
use crate::plan::{Plan, PlannedLayer};
use crate::sink::Expected;
use crate::source::Source;

/// Completes what a sink is told: reads every layer whose stored digest is wanted and not known.
pub(super) fn complete(expected: &mut Expected, plan: &Plan, source: &dyn Source, ctx: &Context) -> Result<()> {
    if !plan.accepts.stored_digests {
        return Ok(());
    }
    let unknown = |layer: &&PlannedLayer| layer.stored.is_none();
    let mut wanted: Vec<BlobId> =
        plan.images.iter().flat_map(|image| &image.layers).filter(unknown).filter_map(|layer| layer.source).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = ctx.pool.side_by_side(wanted.len(), |at| ctx.digest(&mut source.open(wanted[at], 0)?, Algorithm::Sha256));
    let mut known = HashMap::new();
    for (blob, found) in wanted.into_iter().zip(found) {
        known.insert(blob, found.context(|| source.catalog().blob(blob).place.clone()).context(|| source.describe())?);
    }
    for (image, planned) in expected.images.iter_mut().zip(&plan.images) {
        for (layer, planned) in image.layers.iter_mut().zip(&planned.layers) {
            layer.stored = layer.stored.or_else(|| planned.source.and_then(|blob| known.get(&blob).copied()));
        }
    }
    Ok(())
}

//! Digests what a source stores where it does not state it, for a destination that names layers by these digests.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::catalog::BlobId;
use crate::context::Context;
use crate::digest::{Algorithm, Digest};
use crate::error::{Context as _, Result};
use crate::plan::{Plan, PlannedLayer};
use crate::pool::{CHUNK, lock};
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
    let next = AtomicUsize::new(0);
    let found: Vec<Mutex<Option<Result<Digest>>>> = wanted.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for _ in 0..ctx.pool.threads().min(wanted.len()) {
            scope.spawn(|| {
                while let Some(blob) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = wanted.binary_search(blob).unwrap_or_default();
                    *lock(&found[at]) = Some(digest(source, *blob, ctx));
                }
            });
        }
    });
    let mut known = HashMap::new();
    for (blob, found) in wanted.into_iter().zip(found) {
        if let Some(digest) = lock(&found).take() {
            known.insert(blob, digest.context(|| source.catalog().blob(blob).place.clone()).context(|| source.describe())?);
        }
    }
    for (image, planned) in expected.images.iter_mut().zip(&plan.images) {
        for (layer, planned) in image.layers.iter_mut().zip(&planned.layers) {
            layer.stored = layer.stored.or_else(|| planned.source.and_then(|blob| known.get(&blob).copied()));
        }
    }
    Ok(())
}

fn digest(source: &dyn Source, blob: BlobId, ctx: &Context) -> Result<Digest> {
    let mut digest = ctx.pool.digest(Algorithm::Sha256);
    let mut reader = source.open(blob, 0)?;
    loop {
        ctx.cancel.poll()?;
        let chunk = ctx.pool.read(&mut reader, CHUNK)?;
        if chunk.is_empty() {
            return Ok(digest.finish());
        }
        digest.update(chunk.into());
    }
}

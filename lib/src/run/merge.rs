//! Makes one layer of several: what their names say is kept, newest layer first, each layer read once more from front to back and verified, also
//! where nothing of it is kept.

use std::io::{self, Read};
use std::sync::Arc;

use super::layers::{Fetched, Layers, renamed};
use super::transfer::Counts;
use super::verified::Verified;
use crate::catalog::Known;
use crate::compress::{Compression, Encoding};
use crate::context::Context;
use crate::digest::{Algorithm, DiffId};
use crate::error::{Context as _, Error, Result};
use crate::layer::merge::Merge;
use crate::plan::{LayerPlan, MergePlan, Plan};
use crate::pool::{Buffer, CHUNK, ParallelEncoder};
use crate::sink::Written;
use crate::source::Source;
use crate::tar::{END, RawEntries, TarLimits, padding};

/// Does `work` with layers merged: a plain tar, verified once its end was read.
pub(crate) fn with_merged<T>(
    plan: &MergePlan,
    source: &dyn Source,
    ctx: &Context,
    work: impl FnOnce(&Merge, &mut Merged<'_>) -> Result<T>,
) -> Result<(T, Counts)> {
    ctx.progress.begin(0, "the merged layers", plan.size());
    let layers = Layers { plan, source, ctx, cancel: &ctx.cancel, task: 0 };
    let merge = layers.index()?;
    let mut merged = Merged::new(layers, &merge)?;
    let done = work(&merge, &mut merged)?;
    ctx.progress.end(0);
    Ok((done, merged.counts))
}

/// A plan in which merged layers are known, where the destination needs that before they are written: they are merged once more for it.
pub(super) fn measure(plan: &Plan, source: &dyn Source, ctx: &Context) -> Result<Option<Plan>> {
    if !plan.accepts.configs_first || !plan.merges() {
        return Ok(None);
    }
    let mut plan = plan.clone();
    let mut written = vec![None; plan.blobs.len()];
    for (task, (blob, written)) in plan.blobs.iter_mut().zip(&mut written).enumerate() {
        let LayerPlan::Merge(merge) = &blob.action else { continue };
        let layers = Layers { plan: merge, source, ctx, cancel: &ctx.cancel, task };
        let found = layers.index().and_then(|kept| Merged::new(layers, &kept)?.write(None, &mut |_| Ok(())));
        let found = found.context(|| blob.label.clone()).context(|| source.describe())?;
        let stored = merge.encoding.is_none();
        blob.known = Known { size: stored.then_some(found.size), digest: stored.then_some(found.digest), diff_id: found.diff_id };
        *written = Some(found);
    }
    plan.settle(&written).map(Some)
}

/// The merged layer: a plain tar.
pub(crate) struct Merged<'a> {
    layers: Layers<'a>,
    merge: &'a Merge,
    early: Fetched,
    late: Fetched,
    step: Step,
    /// Bytes to give before anything else.
    ready: Vec<u8>,
    at: usize,
    /// The layer that is being read.
    reading: Option<Reading<'a>>,
    pub(crate) counts: Counts,
}

/// What comes next.
enum Step {
    Marks(usize),
    Early(usize),
    /// The layers up to this one, exclusively.
    Layers(usize),
    Late(usize),
    End,
}

struct Reading<'a> {
    entries: RawEntries<Verified<'a>>,
    layer: usize,
    ordinal: u32,
    /// Bytes of the current entry to pass on.
    passing: bool,
    /// Of a sparse file that becomes a plain one: where its content is.
    filling: Option<Filling>,
}

/// A sparse file on its way to become a plain one.
struct Filling {
    pieces: std::vec::IntoIter<(u64, u64)>,
    hole: u64,
    data: u64,
    at: u64,
    size: u64,
}

impl<'a> Merged<'a> {
    pub(crate) fn new(layers: Layers<'a>, merge: &'a Merge) -> Result<Self> {
        let (early, late) = (layers.fetch(merge, &merge.early)?, layers.fetch(merge, &merge.late)?);
        let counts = Counts::default();
        Ok(Self { layers, merge, early, late, step: Step::Marks(0), ready: Vec::new(), at: 0, reading: None, counts })
    }

    /// Reads all of it, and hands it on compressed as wanted.
    pub(crate) fn write(&mut self, encoding: Option<Encoding>, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Written> {
        let pool = &self.layers.ctx.pool;
        let mut diff = pool.digest(Algorithm::Sha256);
        let mut size = 0;
        let Some(encoding) = encoding else {
            loop {
                let chunk = Arc::new(pool.read(self, CHUNK)?);
                if chunk.is_empty() {
                    let digest = diff.finish();
                    return Ok(Written { digest, size, diff_id: Some(DiffId(digest)), compression: Compression::None });
                }
                diff.update(Arc::clone(&chunk));
                size += chunk.len() as u64;
                out(&chunk)?;
            }
        };
        let mut digest = pool.digest(Algorithm::Sha256);
        let mut encoder = ParallelEncoder::new(pool, encoding);
        let mut write = |block: Arc<Buffer>| {
            out(&block)?;
            size += block.len() as u64;
            digest.update(block);
            Ok(())
        };
        loop {
            let block = Arc::new(pool.read(self, encoder.block_size())?);
            diff.update(Arc::clone(&block));
            if block.len() < encoder.block_size() {
                encoder.finish(block, &mut write)?;
                break;
            }
            encoder.push(block, &mut write)?;
        }
        Ok(Written { digest: digest.finish(), size, diff_id: Some(DiffId(diff.finish())), compression: encoding.compression() })
    }

    /// Puts the next bytes into `ready`, or begins to pass on those of an entry; false at the end.
    fn advance(&mut self) -> Result<bool> {
        self.ready.clear();
        self.at = 0;
        match self.step {
            Step::Marks(at) => match self.merge.mark(at) {
                Some(header) => {
                    self.ready = header.to_blocks().map_err(Error::from)?;
                    self.step = Step::Marks(at + 1);
                }
                None => self.step = Step::Early(0),
            },
            Step::Early(at) => {
                self.step =
                    if self.early.load(at, &mut self.ready)? { Step::Early(at + 1) } else { Step::Layers(self.layers.plan.layers.len()) };
            }
            Step::Layers(0) if self.reading.is_none() => self.step = Step::Late(0),
            Step::Layers(below) => {
                if self.reading.is_none() {
                    self.step = Step::Layers(below - 1);
                    self.begin(below - 1)?;
                }
                self.next_entry()?;
            }
            Step::Late(at) => {
                if self.late.load(at, &mut self.ready)? {
                    self.step = Step::Late(at + 1);
                } else {
                    self.ready.extend_from_slice(&END);
                    self.step = Step::End;
                }
            }
            Step::End => return Ok(false),
        }
        Ok(true)
    }

    /// Opens a layer. One that stays below is opened only for what is taken out of it.
    fn begin(&mut self, layer: usize) -> Result<()> {
        if layer >= self.layers.plan.below || self.merge.layers[layer].is_any() {
            let verified = Verified::open(&self.layers, layer).context(|| self.layers.input(layer).label.clone())?;
            let entries = RawEntries::new(verified, TarLimits::default());
            self.reading = Some(Reading { entries, layer, ordinal: 0, passing: false, filling: None });
        }
        Ok(())
    }

    /// Goes on to the next entry that is kept, or to the end of the layer.
    fn next_entry(&mut self) -> Result<()> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let label = || self.layers.input(reading.layer).label.clone();
        let kept = &self.merge.layers[reading.layer];
        while let Some(entry) = reading.entries.next_entry().context(label)? {
            let ordinal = reading.ordinal;
            reading.ordinal += 1;
            if !kept.has(ordinal) {
                continue;
            }
            reading.passing = true;
            match kept.rename(ordinal) {
                None => self.ready.extend_from_slice(reading.entries.headers()),
                Some(rename) => {
                    self.ready = renamed(&entry, self.merge.change(rename)).context(label)?;
                    reading.filling =
                        entry.sparse.map(|sparse| Filling { pieces: sparse.map.into_iter(), hole: 0, data: 0, at: 0, size: sparse.size });
                }
            }
            return Ok(());
        }
        let Reading { entries, layer, .. } = self.reading.take().expect("it was there at the beginning");
        let label = || self.layers.input(layer).label.clone();
        let counts = entries.into_inner().finish().context(label)?;
        self.counts.add(&counts);
        Ok(())
    }
}

impl Read for Merged<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.at < self.ready.len() {
                let step = out.len().min(self.ready.len() - self.at);
                out[..step].copy_from_slice(&self.ready[self.at..self.at + step]);
                self.at += step;
                return Ok(step);
            }
            if let Some(reading) = self.reading.as_mut().filter(|reading| reading.passing) {
                // Holes are filled without a read that would notice.
                self.layers.cancel.poll()?;
                let label = || self.layers.input(reading.layer).label.clone();
                let read = match &mut reading.filling {
                    Some(filling) => filling.read(&mut reading.entries, out),
                    None => reading.entries.read(out),
                };
                match read {
                    Ok(0) => (reading.passing, reading.filling) = (false, None),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                    Err(error) => return Err(Error::io(error).frame(label()).into()),
                    Ok(read) => return Ok(read),
                }
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }
}

impl Filling {
    /// The content with its holes filled, and padded.
    fn read(&mut self, entries: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
        while self.hole == 0 && self.data == 0 && self.at < self.size + padding(self.size) {
            let (offset, len) = self.pieces.next().unwrap_or((self.size + padding(self.size), 0));
            (self.hole, self.data) = (offset - self.at, len);
            self.at = offset + len;
        }
        let at_most = |left: u64| usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        if self.hole > 0 {
            let zeros = at_most(self.hole);
            out[..zeros].fill(0);
            self.hole -= zeros as u64;
            return Ok(zeros);
        }
        let wanted = at_most(self.data);
        let read = if wanted > 0 { entries.read(&mut out[..wanted])? } else { 0 };
        self.data -= read as u64;
        Ok(read)
    }
}

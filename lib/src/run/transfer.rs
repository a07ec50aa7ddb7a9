//! Moves one blob from a source to a sink, verified on the way.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::layers::Layers;
use super::merge::Merged;
use crate::catalog::{BlobId, Known};
use crate::compress::{Compression, Encoding, SNIFF, sniff, sniffing_decoder};
use crate::context::{Cancel, Context, Progress};
use crate::digest::{Algorithm, DiffId, Digest};
use crate::error::{Error, Result};
use crate::plan::{LayerPlan, MergePlan, PlannedBlob};
use crate::pool::{Buffer, CHUNK, DigestStream, ParallelEncoder, Pool};
use crate::seal::agrees;
use crate::sink::{BlobWriter, Sink, Written};
use crate::source::Source;

/// What was read and found right.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) read: u64,
    pub(crate) digests: usize,
    pub(crate) diff_ids: usize,
    /// Blobs that the destination had already, and their bytes.
    pub(crate) held: usize,
    pub(crate) bytes_held: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.digests += other.digests;
        self.diff_ids += other.diff_ids;
        self.held += other.held;
        self.bytes_held += other.bytes_held;
    }
}

/// One blob of a plan on its way.
pub(crate) struct Transfer<'a> {
    pub(crate) planned: &'a PlannedBlob,
    pub(crate) source: &'a dyn Source,
    pub(crate) sink: &'a dyn Sink,
    /// The blob's number.
    pub(crate) task: usize,
    pub(crate) ctx: &'a Context,
    pub(crate) cancel: &'a Cancel,
    /// The size that the output made room for, where that is a guess, and what to tell when it proves wrong.
    pub(crate) guess: Option<(u64, &'a AtomicBool)>,
}

impl Transfer<'_> {
    pub(crate) fn run(&self) -> Result<(Written, Counts)> {
        loop {
            match self.attempt() {
                Err(error) => self.sink.again(self.task, error)?,
                done => return done,
            }
        }
    }

    fn attempt(&self) -> Result<(Written, Counts)> {
        let Self { planned, .. } = self;
        if let Some(done) = self.held()? {
            return Ok(done);
        }
        if let LayerPlan::Merge(plan) = &planned.action {
            return self.merge(plan);
        }
        self.ctx.progress.begin(self.task, &planned.label, planned.known.size);
        let stored = Stored::open(self.source, planned.blob, planned.known.clone(), self.task, self.ctx, self.cancel)?;
        let mut writer = self.sink.put(self.task)?;
        let done = match &planned.action {
            // Nothing vouches for these bytes but what they decode to.
            LayerPlan::Copy if planned.known.digest.is_none() && planned.compression != Compression::None => {
                self.copy_decoded(stored, writer.as_mut())
            }
            LayerPlan::Copy | LayerPlan::Merge(_) => self.copy(stored, writer.as_mut()),
            LayerPlan::Recode(None) => self.decode(stored, writer.as_mut()),
            LayerPlan::Recode(Some(encoding)) => self.encode(stored, *encoding, writer.as_mut()),
        };
        let (written, counts) = done?;
        writer.finish(&written)?;
        self.ctx.progress.end(self.task);
        Ok((written, counts))
    }

    /// What the destination has already.
    fn held(&self) -> Result<Option<(Written, Counts)>> {
        let origin = if self.planned.action == LayerPlan::Copy { self.source.repository(self.planned.blob) } else { None };
        let held = self.sink.held(self.task, origin)?;
        Ok(held.map(|held| {
            let counts = Counts { held: 1, bytes_held: held.size, ..Counts::default() };
            (held, counts)
        }))
    }

    /// Several layers as one.
    fn merge(&self, plan: &MergePlan) -> Result<(Written, Counts)> {
        self.ctx.progress.begin(self.task, &self.planned.label, plan.size());
        let layers = Layers { plan, source: self.source, ctx: self.ctx, cancel: self.cancel, task: self.task };
        let merge = layers.index()?;
        let mut merged = Merged::new(layers, &merge)?;
        let mut writer = self.sink.put(self.task)?;
        let written = merged.write(plan.encoding, &mut |bytes| writer.write(bytes))?;
        agrees(&self.planned.known, &written.digest, written.size)?;
        writer.finish(&written)?;
        self.ctx.progress.end(self.task);
        Ok((written, merged.counts))
    }

    /// As stored, verified by size and digest.
    fn copy(&self, mut stored: Stored<'_>, writer: &mut dyn BlobWriter) -> Result<(Written, Counts)> {
        while let Some(chunk) = stored.next_chunk()? {
            writer.write(&chunk)?;
        }
        let (digest, size, counts) = stored.finish()?;
        Ok((self.written(digest, size, self.planned.compression), counts))
    }

    /// As stored, verified by what it decodes to.
    fn copy_decoded(&self, stored: Stored<'_>, writer: &mut dyn BlobWriter) -> Result<(Written, Counts)> {
        let mut tee = Tee { stored, writer };
        let found = self.decoded(&mut tee, |_| Ok(()))?;
        let (digest, size, mut counts) = tee.stored.finish()?;
        counts.diff_ids += self.verify_diff_id(found)?;
        Ok((self.written(digest, size, self.planned.compression), counts))
    }

    /// Decoded, verified by both digests.
    fn decode(&self, mut stored: Stored<'_>, writer: &mut dyn BlobWriter) -> Result<(Written, Counts)> {
        let mut size = 0;
        let found = self.decoded(&mut stored, |chunk| {
            size += chunk.len() as u64;
            self.check_guess(|guess| size <= guess)?;
            writer.write(chunk)
        })?;
        let (_, _, mut counts) = stored.finish()?;
        counts.diff_ids += self.verify_diff_id(found)?;
        self.check_guess(|guess| size == guess)?;
        Ok((self.written(found.0, size, Compression::None), counts))
    }

    /// Decoded if need be, and encoded anew.
    fn encode(&self, mut stored: Stored<'_>, encoding: Encoding, writer: &mut dyn BlobWriter) -> Result<(Written, Counts)> {
        let pool = &self.ctx.pool;
        let mut digest = pool.digest(Algorithm::Sha256);
        let mut encoder = ParallelEncoder::new(pool, encoding);
        let mut size = 0;
        let mut out = |block: Arc<Buffer>| {
            writer.write(&block)?;
            size += block.len() as u64;
            digest.update(block);
            Ok(())
        };
        // Of what is stored plain, the digest is the diff ID: one of them is enough.
        let same = self.planned.compression == Compression::None && self.diff_id_algorithm() == stored.algorithm;
        let mut diff = (!same).then(|| pool.digest(self.diff_id_algorithm()));
        {
            let mut plain = sniffing_decoder(self.planned.compression, &mut stored, (&self.ctx.limits).into());
            let mut first = true;
            loop {
                let block = Arc::new(pool.read(&mut plain, encoder.block_size())?);
                if std::mem::take(&mut first) {
                    refuse_compressed(&block)?;
                }
                if let Some(diff) = &mut diff {
                    diff.update(Arc::clone(&block));
                }
                if block.len() < encoder.block_size() {
                    encoder.finish(block, &mut out)?;
                    break;
                }
                encoder.push(block, &mut out)?;
            }
        }
        let (read, _, mut counts) = stored.finish()?;
        counts.diff_ids += self.verify_diff_id(DiffId(diff.map_or(read, |diff| diff.finish())))?;
        Ok((self.written(digest.finish(), size, encoding.compression()), counts))
    }

    /// Decodes all of `stored`, and gives the digest of what came out.
    fn decoded<'r>(&self, stored: impl Read + Send + 'r, mut out: impl FnMut(&[u8]) -> Result<()>) -> Result<DiffId> {
        let pool = &self.ctx.pool;
        let mut digest = pool.digest(self.diff_id_algorithm());
        let mut plain = sniffing_decoder(self.planned.compression, stored, (&self.ctx.limits).into());
        let mut first = true;
        loop {
            let chunk = Arc::new(pool.read(&mut plain, CHUNK)?);
            if chunk.is_empty() {
                return Ok(DiffId(digest.finish()));
            }
            if std::mem::take(&mut first) {
                refuse_compressed(&chunk)?;
            }
            digest.update(Arc::clone(&chunk));
            out(&chunk)?;
        }
    }

    /// Gives up when there is another amount of bytes than room was made for.
    fn check_guess(&self, right: impl Fn(u64) -> bool) -> Result<()> {
        match self.guess {
            Some((guess, wrong)) if !right(guess) => {
                wrong.store(true, Ordering::Relaxed);
                Err(Error::cancelled())
            }
            _ => Ok(()),
        }
    }

    /// What the config digests its layers with.
    fn diff_id_algorithm(&self) -> Algorithm {
        self.planned.known.diff_id.map_or(Algorithm::Sha256, |id| id.0.algorithm())
    }

    fn verify_diff_id(&self, found: DiffId) -> Result<usize> {
        match self.planned.known.diff_id {
            Some(expected) if expected != found => {
                Err(Error::mismatch(format_args!("its uncompressed tar has diff ID {found}, expected {expected}")))
            }
            Some(_) => Ok(1),
            None => Ok(0),
        }
    }

    fn written(&self, digest: Digest, size: u64, compression: Compression) -> Written {
        Written { digest, size, diff_id: self.planned.known.diff_id, compression }
    }
}

/// Looks at the first bytes of a decoded layer. One that is compressed twice would not unpack anywhere.
pub(super) fn refuse_compressed(plain: &[u8]) -> Result<()> {
    match sniff(&plain[..plain.len().min(SNIFF)])? {
        Compression::None => Ok(()),
        again => Err(Error::invalid(format_args!("it is compressed twice: inside is {again} again"))),
    }
}

/// The stored bytes of a blob. Whoever reads them digests them; [`Stored::finish`] says whether they were right.
pub(crate) struct Stored<'a> {
    reader: Box<dyn Read + Send>,
    known: Known,
    algorithm: Algorithm,
    digest: Box<dyn DigestStream>,
    pool: &'a Arc<Pool>,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    task: usize,
    size: u64,
    rest: Rest,
}

impl<'a> Stored<'a> {
    pub(crate) fn open(source: &dyn Source, blob: BlobId, known: Known, task: usize, ctx: &'a Context, cancel: &'a Cancel) -> Result<Self> {
        let algorithm = known.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let (digest, pool) = (ctx.pool.digest(algorithm), &ctx.pool);
        let reader = source.open_until(blob, cancel)?;
        Ok(Self { reader, known, algorithm, digest, pool, progress: ctx.progress.as_ref(), cancel, task, size: 0, rest: Rest::default() })
    }

    /// What it is digested with.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The next bytes; none at the end.
    fn next_chunk(&mut self) -> Result<Option<Arc<Buffer>>> {
        self.cancel.poll()?;
        let chunk = self.pool.read(&mut self.reader, CHUNK)?;
        if chunk.is_empty() {
            return Ok(None);
        }
        self.size += chunk.len() as u64;
        if let Some(expected) = self.known.size.filter(|expected| self.size > *expected) {
            return Err(Error::mismatch(format_args!("it has more than the {expected} bytes that were stated")));
        }
        self.progress.advance(self.task, chunk.len() as u64);
        let chunk = Arc::new(chunk);
        self.digest.update(Arc::clone(&chunk));
        Ok(Some(chunk))
    }

    /// Reads what a decoder left, and compares size and digest with what was stated.
    pub(crate) fn finish(mut self) -> Result<(Digest, u64, Counts)> {
        while self.next_chunk()?.is_some() {}
        let digest = self.digest.finish();
        agrees(&self.known, &digest, self.size)?;
        let counts = Counts { read: self.size, digests: usize::from(self.known.digest.is_some()), ..Counts::default() };
        Ok((digest, self.size, counts))
    }
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = std::mem::take(&mut self.rest);
        let count = rest.read(buffer, || self.next_chunk());
        self.rest = rest;
        count
    }
}

/// What a reader of few bytes has not taken yet of a chunk.
#[derive(Default)]
pub(crate) struct Rest(Option<(Arc<Buffer>, usize)>);

impl Rest {
    /// Gives bytes of the chunk at hand, or else of the next.
    pub(crate) fn read(&mut self, buffer: &mut [u8], next: impl FnOnce() -> Result<Option<Arc<Buffer>>>) -> io::Result<usize> {
        let (chunk, at) = match self.0.take() {
            Some(rest) => rest,
            None => match next()? {
                Some(chunk) => (chunk, 0),
                None => return Ok(0),
            },
        };
        let step = buffer.len().min(chunk.len() - at);
        buffer[..step].copy_from_slice(&chunk[at..at + step]);
        if at + step < chunk.len() {
            self.0 = Some((chunk, at + step));
        }
        Ok(step)
    }
}

impl Rest {
    /// Leaves out bytes of the chunk at hand, or else of the next, and says how many.
    pub(crate) fn skip(&mut self, bytes: u64, next: impl FnOnce() -> Result<Option<Arc<Buffer>>>) -> io::Result<u64> {
        let (chunk, at) = match self.0.take() {
            Some(rest) => rest,
            None => match next()? {
                Some(chunk) => (chunk, 0),
                None => return Ok(0),
            },
        };
        let left = chunk.len() - at;
        let step = usize::try_from(bytes).map_or(left, |bytes| bytes.min(left));
        if step < left {
            self.0 = Some((chunk, at + step));
        }
        Ok(step as u64)
    }
}

/// Stored bytes that are written as they are while a decoder reads them.
struct Tee<'a, 'b> {
    stored: Stored<'a>,
    writer: &'b mut dyn BlobWriter,
}

impl Read for Tee<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stored.read(buffer)?;
        self.writer.write(&buffer[..count])?;
        Ok(count)
    }
}

//! The plain tar of one layer, verified by size, digest and diff ID once it was read to its end.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use super::layers::Layers;
use super::transfer::{Counts, Rest, Stored, refuse_compressed};
use crate::catalog::Known;
use crate::compress::{Compression, sniffing_decoder};
use crate::digest::{Algorithm, DiffId};
use crate::error::{Error, Result};
use crate::pool::{Buffer, CHUNK, DigestStream, Pool, lock};
use crate::tar::Skip;

/// The stored bytes of a layer, which its decoder reads and somebody else finishes.
type SharedStored<'a> = Arc<Mutex<Option<Stored<'a>>>>;

struct Through<'a>(SharedStored<'a>);

impl Read for Through<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        lock(&self.0).as_mut().map_or(Ok(0), |stored| stored.read(buffer))
    }
}

/// The plain tar of a layer, digested on the way. It is right once [`Verified::finish`] says so.
pub(super) struct Verified<'a> {
    known: Known,
    stored: SharedStored<'a>,
    plain: Box<dyn Read + Send + 'a>,
    /// None where the stored bytes are the plain ones, which are digested already.
    diff: Option<Box<dyn DigestStream>>,
    pool: &'a Arc<Pool>,
    rest: Rest,
    first: bool,
}

impl<'a> Verified<'a> {
    pub(super) fn open(layers: &Layers<'a>, layer: usize) -> Result<Self> {
        let (input, ctx) = (layers.input(layer), layers.ctx);
        let stored = Stored::open(layers.source, input.blob, input.known.clone(), layers.task, ctx, layers.cancel)?;
        let algorithm = input.known.diff_id.map_or(Algorithm::Sha256, |id| id.0.algorithm());
        let same = input.compression == Compression::None && algorithm == stored.algorithm();
        let stored = Arc::new(Mutex::new(Some(stored)));
        let plain = sniffing_decoder(input.compression, Through(Arc::clone(&stored)), (&ctx.limits).into());
        let diff = (!same).then(|| ctx.pool.digest(algorithm));
        Ok(Self { known: input.known.clone(), stored, plain, diff, pool: &ctx.pool, rest: Rest::default(), first: true })
    }

    fn next_chunk(&mut self) -> Result<Option<Arc<Buffer>>> {
        let chunk = Arc::new(self.pool.read(&mut self.plain, CHUNK)?);
        if std::mem::take(&mut self.first) {
            refuse_compressed(&chunk)?;
        }
        if chunk.is_empty() {
            return Ok(None);
        }
        if let Some(diff) = &mut self.diff {
            diff.update(Arc::clone(&chunk));
        }
        Ok(Some(chunk))
    }

    /// Reads what is left, and compares size, digest and diff ID with what was stated.
    pub(super) fn finish(mut self) -> Result<Counts> {
        while self.next_chunk()?.is_some() {}
        let Self { known, stored, plain, diff, .. } = self;
        drop(plain);
        let stored = lock(&stored).take().ok_or_else(|| Error::invalid("a layer is finished twice"))?;
        let (digest, _, mut counts) = stored.finish()?;
        let found = DiffId(diff.map_or(digest, |diff| diff.finish()));
        match known.diff_id {
            Some(expected) if expected != found => {
                Err(Error::mismatch(format_args!("its uncompressed tar has diff ID {found}, expected {expected}")))
            }
            stated => {
                counts.diff_ids += usize::from(stated.is_some());
                Ok(counts)
            }
        }
    }
}

impl Read for Verified<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = std::mem::take(&mut self.rest);
        let count = rest.read(buffer, || self.next_chunk());
        self.rest = rest;
        count
    }
}

impl Skip for Verified<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let mut done = 0;
        while done < bytes {
            let mut rest = std::mem::take(&mut self.rest);
            let count = rest.skip(bytes - done, || self.next_chunk());
            self.rest = rest;
            match count? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }
}

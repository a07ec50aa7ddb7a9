//! What is in files, where nothing else tells whether two of them are the same.

use std::collections::HashMap;
use std::io::Read;

use crate::digest::{Algorithm, Digest, Digester};
use crate::error::{Context as _, Error, Result};
use crate::layer::tree::EntryId;
use crate::run::layers::Layers;
use crate::tar::Entry;

/// The unit in which zeros are left out.
const UNIT: usize = 4096;

/// Digests of what is in files. Only for comparing: zeros are counted, not digested, since the holes of a sparse file may be huge.
pub(super) type Contents = HashMap<EntryId, Digest>;

/// Reads the layers that hold files that are wanted, several side by side.
pub(super) fn contents(layers: &Layers<'_>, mut wanted: Vec<EntryId>) -> Result<Contents> {
    wanted.sort_unstable();
    wanted.dedup();
    let parts: Vec<&[EntryId]> = wanted.chunk_by(|a, b| a.layer == b.layer).collect();
    let read = layers.ctx.pool.side_by_side(parts.len(), |at| {
        let label = || layers.plan.layers[usize::from(parts[at][0].layer)].label.clone();
        of_layer(layers, parts[at]).context(label)
    });
    let mut all = Contents::with_capacity(wanted.len());
    for found in read {
        all.extend(found?);
    }
    Ok(all)
}

/// Reads files of one layer, in its order.
fn of_layer(layers: &Layers<'_>, wanted: &[EntryId]) -> Result<Vec<(EntryId, Digest)>> {
    let mut found = Vec::with_capacity(wanted.len());
    let mut entries = layers.entries(wanted[0].layer.into())?;
    let mut ordinal = 0;
    for id in wanted {
        let entry = loop {
            layers.cancel.poll()?;
            let entry = entries.next_entry()?.ok_or_else(|| Error::invalid("it has changed while it was read"))?;
            ordinal += 1;
            if ordinal > id.ordinal {
                break entry;
            }
        };
        found.push((*id, content(&entry, &mut entries, layers)?));
    }
    Ok(found)
}

fn content(entry: &Entry, payload: &mut impl Read, layers: &Layers<'_>) -> Result<Digest> {
    let mut sparse = Filled::default();
    let whole = [(0, entry.size)];
    let pieces = entry.sparse.as_ref().map_or(whole.as_slice(), |sparse| sparse.map.as_slice());
    let mut buffer = vec![0; 64 << 10];
    for (offset, length) in pieces {
        sparse.zeros(offset - sparse.at);
        let mut left = *length;
        while left > 0 {
            layers.cancel.poll()?;
            let step = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            payload.read_exact(&mut buffer[..step]).map_err(Error::io)?;
            sparse.take(&buffer[..step]);
            left -= step as u64;
        }
    }
    sparse.zeros(entry.content_size() - sparse.at);
    Ok(sparse.finish())
}

/// A digest over the units of a file that are not all zeros, each with its place. So it does not matter how holes are written down.
struct Filled {
    digest: Digester,
    /// Bytes so far.
    at: u64,
    /// Those of a unit that is not complete.
    unit: Vec<u8>,
}

impl Default for Filled {
    fn default() -> Self {
        Self { digest: Digester::new(Algorithm::Sha256), at: 0, unit: Vec::with_capacity(UNIT) }
    }
}

impl Filled {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(UNIT - self.unit.len()));
            self.unit.extend_from_slice(now);
            self.at += now.len() as u64;
            bytes = rest;
            if self.unit.len() == UNIT {
                self.end_unit();
            }
        }
    }

    fn zeros(&mut self, mut count: u64) {
        const ZEROS: [u8; UNIT] = [0; UNIT];
        while count > 0 {
            if self.unit.is_empty() {
                // Whole units of zeros are their length alone.
                let units = count - count % UNIT as u64;
                self.at += units;
                count -= units;
            }
            let step = usize::try_from(count).map_or(UNIT, |count| count.min(UNIT)).min(UNIT - self.unit.len());
            self.take(&ZEROS[..step]);
            count -= step as u64;
        }
    }

    fn end_unit(&mut self) {
        if self.unit.iter().any(|byte| *byte != 0) {
            self.digest.update(&(self.at - self.unit.len() as u64).to_le_bytes());
            self.digest.update(&self.unit);
        }
        self.unit.clear();
    }

    fn finish(mut self) -> Digest {
        self.end_unit();
        self.digest.update(&self.at.to_le_bytes());
        self.digest.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_zeros_however_they_are_written_down() {
        let text = [&[1; 5000][..], &[0; 20_000], &[2; 10], &[0; 7000]].concat();
        let digest = |fill: &dyn Fn(&mut Filled)| {
            let mut filled = Filled::default();
            fill(&mut filled);
            (filled.at, filled.finish())
        };
        let whole = digest(&|filled| filled.take(&text));
        assert_eq!(whole.0, 32_010);
        assert_eq!(digest(&|filled| text.chunks(7).for_each(|chunk| filled.take(chunk))), whole);
        let holes = digest(&|filled| {
            filled.take(&[1; 5000]);
            filled.zeros(19_999);
            filled.take(&[0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
            filled.zeros(7000);
        });
        assert_eq!(holes, whole);
        let huge = digest(&|filled| filled.zeros(u64::MAX));
        assert_eq!(huge.0, u64::MAX);
        assert_ne!(digest(&|filled| filled.zeros(1 << 20)).1, huge.1, "the length counts");
        assert_ne!(digest(&|filled| filled.take(&[0, 1])).1, digest(&|filled| filled.take(&[1, 0])).1);
    }
}

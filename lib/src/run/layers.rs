//! The layers that are merged, read for their names: contents are skipped where the file allows it, and otherwise several layers are decoded
//! side by side. Nothing is verified here: `merge` does that to what is written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::transfer::refuse_compressed;
use crate::compress::{Compression, sniffing_decoder};
use crate::context::{Cancel, Context};
use crate::error::{Context as _, Error, Result};
use crate::layer::merge::{Change, Loose, Merge, Rename};
use crate::layer::tree::{EntryId, Placed, Tree};
use crate::plan::{MergeInput, MergePlan};
use crate::pool::{CHUNK, lock};
use crate::source::Source;
use crate::spool;
use crate::tar::{BySkimming, Entry, Header, Kind, RawEntries, Skip, TarLimits};

/// Entries that a reader of names hands over at once, and how many such batches may wait.
const BATCH: usize = 256;
const BATCHES: usize = 64;

/// How often a reader that waits looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a first reader of a file keeps in memory.
const WINDOW: usize = 32 << 10;

/// What layers are merged from, and who may stop it.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'a> {
    pub(crate) plan: &'a MergePlan,
    pub(crate) source: &'a dyn Source,
    pub(crate) ctx: &'a Context,
    pub(crate) cancel: &'a Cancel,
    /// What progress is told of.
    pub(crate) task: usize,
}

impl<'a> Layers<'a> {
    pub(super) fn input(&self, layer: usize) -> &'a MergeInput {
        &self.plan.layers[layer]
    }

    /// Decides what is kept: reads the names of all layers.
    pub(crate) fn index(&self) -> Result<Merge> {
        let blobs: Vec<_> = self.plan.layers.iter().map(|layer| layer.blob).collect();
        self.source.keep(&blobs, self.ctx)?;
        let mut tree = Tree::default();
        let count = self.plan.layers.len();
        let cancel = self.cancel.child();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| bounded(BATCHES)).unzip();
        let senders: Vec<Mutex<Option<Sender<_>>>> = senders.into_iter().map(|sender| Mutex::new(Some(sender))).collect();
        let (next, ahead) = (AtomicUsize::new(0), Ahead::default());
        std::thread::scope(|scope| {
            for _ in 0..self.ctx.pool.threads().min(count) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(sender) = senders.get(at).and_then(|sender| lock(sender).take()) else { break };
                        if let Err(error) = self.names(at, &sender, &ahead, &cancel) {
                            // Nobody waits for it any more where this fails.
                            let _ = sender.send(Err(error));
                        }
                    }
                });
            }
            let result = self.grow(&mut tree, receivers, &ahead);
            // Those who still read stop at once.
            cancel.cancel();
            result
        })?;
        Ok(Merge::from(tree))
    }

    /// Applies all layers to a tree, as their names come.
    fn grow(&self, tree: &mut Tree, receivers: Vec<Receiver<Result<Vec<Placed>>>>, ahead: &Ahead) -> Result<()> {
        for (at, receiver) in receivers.into_iter().enumerate() {
            if at == self.plan.below {
                tree.merge_from_here();
            }
            let label = || self.input(at).label.clone();
            ahead.begin(at);
            for batch in receiver {
                self.cancel.poll()?;
                ahead.took();
                batch.and_then(|batch| batch.iter().try_for_each(|placed| tree.apply(placed))).context(label)?;
            }
            tree.end_layer().context(label)?;
        }
        if self.plan.below == self.plan.layers.len() {
            tree.merge_from_here();
        }
        Ok(())
    }

    /// Reads the names of one layer.
    fn names(&self, layer: usize, to: &Sender<Result<Vec<Placed>>>, ahead: &Ahead, cancel: &Cancel) -> Result<()> {
        let mut entries = RawEntries::new(self.unverified(layer, cancel)?, TarLimits::default());
        loop {
            cancel.poll()?;
            let mut batch = Vec::with_capacity(BATCH);
            let mut bytes = 0;
            while batch.len() < BATCH && bytes < BATCH * 256 {
                let Some(Entry { path, link, kind, .. }) = entries.next_entry()? else { break };
                bytes += path.len() + link.len();
                batch.push(Placed { path, link, kind });
            }
            if batch.is_empty() {
                return Ok(());
            }
            ahead.wait(layer, cancel)?;
            if to.send(Ok(batch)).is_err() {
                return Ok(());
            }
        }
    }

    /// The entries of a layer, as they are: nothing is verified.
    pub(crate) fn entries(&self, layer: usize) -> Result<RawEntries<Box<dyn Skip + Send + 'a>>> {
        Ok(RawEntries::new(self.unverified(layer, self.cancel)?, TarLimits::default()))
    }

    /// The plain tar of a layer, as it is: the second pass verifies it.
    fn unverified<'r>(&self, layer: usize, cancel: &'r Cancel) -> Result<Box<dyn Skip + Send + 'r>>
    where
        'a: 'r,
    {
        let input = self.input(layer);
        match self.source.file(input.blob) {
            Some((file, range)) if input.compression == Compression::None => Ok(Box::new(Window::new(file, range.start, range.end))),
            _ => {
                let stored = Polling { input: self.source.open_until(input.blob, cancel)?, cancel };
                let mut plain = BufReader::with_capacity(CHUNK, sniffing_decoder(input.compression, stored, (&self.ctx.limits).into()));
                refuse_compressed(plain.fill_buf().map_err(Error::io)?)?;
                Ok(Box::new(BySkimming::new(plain)))
            }
        }
    }

    /// Looks at every entry of every layer, base first, without its content: the layer, the entry, and whether it is part of the merged layer,
    /// perhaps with another name.
    pub(crate) fn visit(&self, merge: &Merge, see: &mut dyn FnMut(usize, Entry, Fate) -> Result<()>) -> Result<()> {
        let loose: HashMap<EntryId, Option<Rename>> =
            merge.early.iter().chain(&merge.late).map(|loose| (loose.entry, loose.rename)).collect();
        let fate = |rename: Option<Rename>| Fate::Kept(rename.map(|rename| merge.change(rename)));
        for (layer, kept) in (0..).zip(&merge.layers) {
            let label = || self.input(usize::from(layer)).label.clone();
            let mut entries = self.entries(usize::from(layer))?;
            let mut ordinal = 0;
            while let Some(entry) = entries.next_entry().context(label)? {
                self.cancel.poll()?;
                let fate = match loose.get(&EntryId { layer, ordinal }) {
                    Some(rename) => fate(*rename),
                    None if kept.has(ordinal) => fate(kept.rename(ordinal)),
                    None => Fate::Hidden,
                };
                see(usize::from(layer), entry, fate)?;
                ordinal += 1;
            }
        }
        Ok(())
    }

    /// Copies headers that are not written in their layer's place into a temporary file, in the order in which they are wanted.
    pub(super) fn fetch(&self, merge: &Merge, wanted: &[Loose]) -> Result<Fetched> {
        if wanted.is_empty() {
            return Ok(Fetched::default());
        }
        let mut file = spool::anonymous(&self.ctx.temp)?;
        let mut spans = vec![(0, 0); wanted.len()];
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| wanted[*at].entry);
        let mut order = order.into_iter().peekable();
        let mut at = 0;
        while let Some(layer) = order.peek().map(|first| usize::from(wanted[*first].entry.layer)) {
            let mut entries = self.entries(layer)?;
            let mut ordinal = 0;
            while let Some(position) = order.next_if(|next| usize::from(wanted[*next].entry.layer) == layer) {
                let entry = loop {
                    let entry = entries.next_entry()?.ok_or_else(|| changed(&self.input(layer).label))?;
                    ordinal += 1;
                    if ordinal > wanted[position].entry.ordinal {
                        break entry;
                    }
                };
                self.cancel.poll()?;
                let blocks = match wanted[position].rename {
                    Some(rename) => renamed(&entry, merge.change(rename))?,
                    None => entries.headers().to_vec(),
                };
                file.write_all(&blocks).context(|| "keeping headers in a temporary file")?;
                spans[position] = (at, blocks.len() as u64);
                at += blocks.len() as u64;
            }
        }
        Ok(Fetched { file: Some(file), spans })
    }
}

/// Keeps readers from running far ahead of the layer that is applied: as many batches of all others may wait as of that one.
#[derive(Debug, Default)]
struct Ahead {
    /// The layer that is applied, and how many batches wait.
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Ahead {
    /// A layer's turn has come.
    fn begin(&self, layer: usize) {
        lock(&self.state).0 = layer;
        self.changed.notify_all();
    }

    /// A batch waits no more.
    fn took(&self) {
        let mut state = lock(&self.state);
        state.1 = state.1.saturating_sub(1);
        self.changed.notify_all();
    }

    /// Waits until a layer may hand over a batch.
    fn wait(&self, layer: usize, cancel: &Cancel) -> Result<()> {
        let mut state = lock(&self.state);
        while state.0 != layer && state.1 >= BATCHES {
            cancel.poll()?;
            state = self.changed.wait_timeout(state, PATIENCE).map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
        state.1 += 1;
        Ok(())
    }
}

/// Headers in a temporary file, and where each begins and how long it is.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    file: Option<File>,
    spans: Vec<(u64, u64)>,
}

impl Fetched {
    /// Reads the headers at a position; false after the last.
    pub(super) fn load(&self, at: usize, into: &mut Vec<u8>) -> Result<bool> {
        let Some((file, (offset, len))) = self.file.as_ref().zip(self.spans.get(at)) else { return Ok(false) };
        into.resize(usize::try_from(*len).map_err(Error::limit)?, 0);
        file.read_exact_at(into, *offset).context(|| "reading a temporary file")?;
        Ok(true)
    }
}

/// What becomes of an entry.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It is part of the merged layer, perhaps with another name.
    Kept(Option<Change>),
    /// A newer layer hides it, or it is a mark itself.
    Hidden,
}

/// The headers of an entry under another name. A sparse file becomes a plain one, since its map may lie among its headers.
pub(super) fn renamed(entry: &Entry, change: Change) -> Result<Vec<u8>> {
    let mut header = Header::from(entry);
    header.path = change.path;
    if entry.kind == Kind::Directory {
        header.path.push(b'/');
    }
    match change.link {
        Some(link) => (header.link, header.kind) = (link, Kind::HardLink),
        None if entry.kind == Kind::HardLink => return Err(Error::invalid("a hard link without a target")),
        None => {}
    }
    header.to_blocks().map_err(Error::from).context(|| crate::tar::escape_bytes(&entry.path))
}

fn changed(label: &str) -> Error {
    Error::invalid("it has changed while it was read").frame(label)
}

/// Notices a request to stop.
struct Polling<'a, R> {
    input: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Polling<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.cancel.poll()?;
        self.input.read(out)
    }
}

/// A part of a file, read in windows, so that what is skipped is not read.
struct Window {
    file: Arc<File>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Window {
    fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file, at, end, buffer: Vec::new(), used: 0 }
    }
}

impl Read for Window {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.used == self.buffer.len() {
            let step = usize::try_from(self.end - self.at).map_or(WINDOW, |left| left.min(WINDOW));
            self.buffer.resize(step, 0);
            self.used = 0;
            let read = self.file.read_at(&mut self.buffer, self.at);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            self.at += read? as u64;
        }
        let step = out.len().min(self.buffer.len() - self.used);
        out[..step].copy_from_slice(&self.buffer[self.used..self.used + step]);
        self.used += step;
        Ok(step)
    }
}

impl Skip for Window {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let held = (self.buffer.len() - self.used) as u64;
        if bytes <= held {
            self.used += usize::try_from(bytes).unwrap_or(0);
            return Ok(bytes);
        }
        let further = (bytes - held).min(self.end - self.at);
        (self.used, self.at) = (self.buffer.len(), self.at + further);
        Ok(held + further)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_later_layers_wait_and_the_first_never_does() {
        let (ahead, cancel) = (Ahead::default(), Cancel::default());
        cancel.cancel();
        (0..BATCHES).for_each(|_| ahead.wait(1, &cancel).unwrap());
        assert!(ahead.wait(2, &cancel).is_err(), "it would wait, and is told to stop");
        ahead.wait(0, &cancel).unwrap();
        (0..2).for_each(|_| ahead.took());
        ahead.wait(2, &cancel).unwrap();
        ahead.begin(1);
        ahead.wait(1, &cancel).unwrap();
    }
}

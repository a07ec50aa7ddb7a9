//! Reads layers twice to make one of them: once for names, to decide what is kept, and once for what is written, newest layer first.
//!
//! The first pass skips contents where the file allows it, and otherwise decodes several layers side by side. The second verifies every layer by
//! size, digest and diff ID, as any other run does, also where nothing of it is kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::transfer::{Counts, Rest, Stored, refuse_compressed};
use crate::catalog::Known;
use crate::compress::{Compression, Encoding, decoder};
use crate::context::{Cancel, Context};
use crate::digest::{Algorithm, DiffId};
use crate::error::{Context as _, Error, Result};
use crate::layer::merge::{Change, Loose, Merge};
use crate::layer::tree::{EntryId, Placed, Tree};
use crate::plan::{LayerPlan, MergeInput, MergePlan, Plan};
use crate::pool::{Buffer, CHUNK, DigestStream, ParallelEncoder, Pool, lock};
use crate::sink::Written;
use crate::source::Source;
use crate::tar::{BySkimming, END, Entry, Header, Kind, RawEntries, Skip, TarLimits, padding};

/// Entries that a reader of names hands over at once, and how many such batches may wait.
const BATCH: usize = 256;
const BATCHES: usize = 64;

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
    fn input(&self, layer: usize) -> &'a MergeInput {
        &self.plan.layers[layer]
    }

    /// Decides what is kept: reads the names of all layers.
    pub(crate) fn index(&self) -> Result<Merge> {
        let mut tree = Tree::default();
        let count = self.plan.layers.len();
        let cancel = self.cancel.child();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| bounded(BATCHES)).unzip();
        let senders: Vec<Mutex<Option<Sender<_>>>> = senders.into_iter().map(|sender| Mutex::new(Some(sender))).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.ctx.pool.threads().min(count) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(sender) = senders.get(at).and_then(|sender| lock(sender).take()) else { break };
                        if let Err(error) = self.names(at, &sender, &cancel) {
                            // Nobody waits for it any more where this fails.
                            let _ = sender.send(Err(error));
                        }
                    }
                });
            }
            let result = self.grow(&mut tree, receivers);
            // Those who still read stop at once.
            cancel.cancel();
            result
        })?;
        Ok(Merge::from(&tree))
    }

    /// Applies all layers to a tree, as their names come.
    fn grow(&self, tree: &mut Tree, receivers: Vec<Receiver<Result<Vec<Placed>>>>) -> Result<()> {
        for (at, receiver) in receivers.into_iter().enumerate() {
            if at == self.plan.below {
                tree.merge_from_here();
            }
            let label = || self.input(at).label.clone();
            for batch in receiver {
                self.cancel.poll()?;
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
    fn names(&self, layer: usize, to: &Sender<Result<Vec<Placed>>>, cancel: &Cancel) -> Result<()> {
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
            if batch.is_empty() || to.send(Ok(batch)).is_err() {
                return Ok(());
            }
        }
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
                let stored = Polling { input: self.source.open(input.blob, 0)?, cancel };
                let plain = decoder(input.compression, stored, (&self.ctx.limits).into())?;
                Ok(Box::new(BySkimming::new(BufReader::with_capacity(CHUNK, plain))))
            }
        }
    }

    /// Looks at every entry of every layer, base first, without its content: the layer, the entry, and whether it is part of the merged layer,
    /// perhaps with another name.
    pub(crate) fn visit(&self, merge: &Merge, see: &mut dyn FnMut(usize, Entry, Fate<'_>) -> Result<()>) -> Result<()> {
        let loose: HashMap<EntryId, Option<&Change>> =
            merge.early.iter().chain(&merge.late).map(|loose| (loose.entry, loose.change.as_ref())).collect();
        for (layer, kept) in (0..).zip(&merge.layers) {
            let label = || self.input(usize::from(layer)).label.clone();
            let mut entries = RawEntries::new(self.unverified(usize::from(layer), self.cancel)?, TarLimits::default());
            let mut ordinal = 0;
            while let Some(entry) = entries.next_entry().context(label)? {
                self.cancel.poll()?;
                let fate = match loose.get(&EntryId { layer, ordinal }) {
                    Some(change) => Fate::Kept(*change),
                    None if kept.has(ordinal) => Fate::Kept(kept.change(ordinal)),
                    None => Fate::Hidden,
                };
                see(usize::from(layer), entry, fate)?;
                ordinal += 1;
            }
        }
        Ok(())
    }

    /// Copies headers that are not written in their layer's place into a temporary file, in the order in which they are wanted.
    fn fetch(&self, wanted: &[Loose]) -> Result<Option<(File, Vec<(u64, u64)>)>> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut file = crate::spool::anonymous(&self.ctx.temp)?;
        let mut spans = vec![(0, 0); wanted.len()];
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| wanted[*at].entry);
        let mut order = order.into_iter().peekable();
        let mut at = 0;
        while let Some(layer) = order.peek().map(|first| usize::from(wanted[*first].entry.layer)) {
            let mut entries = RawEntries::new(self.unverified(layer, self.cancel)?, TarLimits::default());
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
                let blocks = match &wanted[position].change {
                    Some(change) => renamed(&entry, change)?,
                    None => entries.headers().to_vec(),
                };
                file.write_all(&blocks).context(|| "keeping headers in a temporary file")?;
                spans[position] = (at, blocks.len() as u64);
                at += blocks.len() as u64;
            }
        }
        Ok(Some((file, spans)))
    }
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate<'a> {
    /// It is part of the merged layer, perhaps with another name.
    Kept(Option<&'a Change>),
    /// A newer layer hides it, or it is a mark itself.
    Hidden,
}

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

/// The headers of an entry under another name. A sparse file becomes a plain one, since its map may lie among its headers.
fn renamed(entry: &Entry, change: &Change) -> Result<Vec<u8>> {
    let mut header = Header::from(entry);
    header.path.clone_from(&change.path);
    if entry.kind == Kind::Directory {
        header.path.push(b'/');
    }
    match &change.link {
        Some(link) => (header.link, header.kind) = (link.clone(), Kind::HardLink),
        None if entry.kind == Kind::HardLink => return Err(Error::invalid("a hard link without a target")),
        None => {}
    }
    header.to_blocks().map_err(Error::from).context(|| crate::tar::escape_bytes(&entry.path))
}

fn changed(label: &str) -> Error {
    Error::invalid("it has changed while it was read").frame(label)
}

/// The merged layer: a plain tar.
pub(crate) struct Merged<'a> {
    layers: Layers<'a>,
    merge: &'a Merge,
    early: Option<(File, Vec<(u64, u64)>)>,
    late: Option<(File, Vec<(u64, u64)>)>,
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
    First(usize),
    Early(usize),
    /// The layers up to this one, exclusively.
    Layers(usize),
    Late(usize),
    Marks(usize),
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
        let (early, late) = (layers.fetch(&merge.early)?, layers.fetch(&merge.late)?);
        let counts = Counts::default();
        Ok(Self { layers, merge, early, late, step: Step::First(0), ready: Vec::new(), at: 0, reading: None, counts })
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
            Step::First(at) => {
                self.step = if self.mark(self.merge.first.get(at))? { Step::First(at + 1) } else { Step::Early(0) };
            }
            Step::Early(at) => {
                self.step = if load(self.early.as_ref(), at, &mut self.ready)? {
                    Step::Early(at + 1)
                } else {
                    Step::Layers(self.layers.plan.layers.len())
                };
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
                self.step = if load(self.late.as_ref(), at, &mut self.ready)? { Step::Late(at + 1) } else { Step::Marks(0) };
            }
            Step::Marks(at) => {
                if self.mark(self.merge.marks.get(at))? {
                    self.step = Step::Marks(at + 1);
                } else {
                    self.ready.extend_from_slice(&END);
                    self.step = Step::End;
                }
            }
            Step::End => return Ok(false),
        }
        Ok(true)
    }

    /// Readies a whiteout or opaque mark; false where there is none.
    fn mark(&mut self, name: Option<&Vec<u8>>) -> Result<bool> {
        let Some(name) = name else { return Ok(false) };
        self.ready = Header { path: name.clone(), ..Header::default() }.to_blocks().map_err(Error::from)?;
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
            match kept.change(ordinal) {
                None => self.ready.extend_from_slice(reading.entries.headers()),
                Some(change) => {
                    self.ready = renamed(&entry, change).context(label)?;
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

/// Reads the headers at a place in a temporary file; false after the last.
fn load(loose: Option<&(File, Vec<(u64, u64)>)>, at: usize, into: &mut Vec<u8>) -> Result<bool> {
    let Some((file, (offset, len))) = loose.and_then(|(file, spans)| Some((file, *spans.get(at)?))) else { return Ok(false) };
    into.resize(usize::try_from(len).map_err(Error::limit)?, 0);
    file.read_exact_at(into, offset).context(|| "reading a temporary file")?;
    Ok(true)
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

/// The stored bytes of a layer, which its decoder reads and somebody else finishes.
type SharedStored<'a> = Arc<Mutex<Option<Stored<'a>>>>;

struct Through<'a>(SharedStored<'a>);

impl Read for Through<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        lock(&self.0).as_mut().map_or(Ok(0), |stored| stored.read(buffer))
    }
}

/// The plain tar of a layer, digested on the way. It is right once [`Verified::finish`] says so.
struct Verified<'a> {
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
    fn open(layers: &Layers<'a>, layer: usize) -> Result<Self> {
        let (input, ctx) = (layers.input(layer), layers.ctx);
        let stored = Stored::open(layers.source, input.blob, input.known.clone(), layers.task, ctx, layers.cancel)?;
        let algorithm = input.known.diff_id.map_or(Algorithm::Sha256, |id| id.0.algorithm());
        let same = input.compression == Compression::None && algorithm == stored.algorithm();
        let stored = Arc::new(Mutex::new(Some(stored)));
        let plain = decoder(input.compression, Through(Arc::clone(&stored)), (&ctx.limits).into())?;
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
    fn finish(mut self) -> Result<Counts> {
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

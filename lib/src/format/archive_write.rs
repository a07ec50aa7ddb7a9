//! Writes an archive whose members are known in order before their bytes are.
//!
//! Layers are put from several threads at once. Each goes straight to its place when that is known: when the sizes of all members before it
//! are. Otherwise it goes to a file beside the output and is copied once its turn comes. The order of members, and so every byte, depends on
//! the images alone.
//!
//! ```text
//! file    | header | blob 0 (size known) | pad | header | blob 1 (being written, size open) …        blob 2 in a spool
//! stream  | header | blob 0 (its turn)   | pad |                                blob 1 (size open) and blob 2 in spools
//! ```

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Target;
use super::layout_write::readable;
use crate::context::{Cancel, Context};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::limits::Limits;
use crate::pool::lock;
use crate::reference::Reference;
use crate::sink::{BlobWriter, Committed, Expected, ExpectedBlob, Order, Sealed, Sink, Written};
use crate::spool;
use crate::tar::{END, Header, HeaderFormat, padding};
use crate::transport::{Medium, Output};

/// Sizes from here on do not fit into the octal digits of a header.
const OCTAL: u64 = 8 << 30;

/// One member to write.
#[derive(Debug)]
pub struct Member {
    /// Its header; for a blob, name and size are filled in when they are known.
    pub header: Header,
    /// What follows it.
    pub body: Body,
}

/// The bytes of a [`Member`].
#[derive(Debug)]
pub enum Body {
    /// These.
    Bytes(Arc<[u8]>),
    /// Blob number so of [`Expected::blobs`], and how its digest names it where the header does not.
    Blob(usize, Option<fn(&Written) -> String>),
    /// Once more the bytes of a blob that is a member before.
    Again(usize),
    /// None.
    Empty,
}

/// Decides which members an archive has.
pub trait Layouter: Send + Sync + fmt::Debug {
    /// The members up to the last blob.
    ///
    /// # Errors
    /// When a member cannot be made.
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>>;

    /// Which layers the receiver has already; they have no members.
    fn unpacked(&self, expected: &Expected) -> Vec<Option<Written>> {
        vec![None; expected.blobs.len()]
    }

    /// The members after the last blob.
    ///
    /// # Errors
    /// When a member cannot be made.
    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>>;

    /// The archive is filled with zeros to a multiple of so many bytes: Python's `tarfile` writes records of 20 blocks.
    fn record(&self) -> u64 {
        crate::tar::BLOCK as u64
    }
}

/// Writes images into an archive.
#[derive(Debug)]
pub(super) struct ArchiveSink {
    layouter: Box<dyn Layouter>,
    label: String,
    output: Output,
    expected: Vec<ExpectedBlob>,
    /// What the receiver has already of each blob.
    held: Vec<Option<Written>>,
    members: Vec<Member>,
    /// The member of each blob.
    places: Vec<usize>,
    /// Bytes of each blob's header: one block, or more where a digest makes a long name.
    headers: Vec<u64>,
    /// The further members with the bytes of each blob.
    repeats: Vec<Vec<usize>>,
    cancel: Cancel,
    limits: Limits,
    state: Mutex<State>,
    /// Told whenever a member is placed.
    placed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The first member without a place.
    next: usize,
    /// Where its header goes.
    at: u64,
    blobs: Vec<BlobState>,
    /// Where the bytes of each blob begin, once that is known.
    offsets: Vec<u64>,
    /// Places made for members that repeat a blob which is not complete yet.
    reserved_repeats: HashMap<usize, u64>,
    spooled: u64,
}

#[derive(Debug, Default)]
enum BlobState {
    /// Not begun.
    #[default]
    Open,
    /// Its place is reserved, whether begun or not.
    Reserved,
    /// Begun before it had a place: it will be copied there.
    Spooling,
    /// Being written at its place, size open; nothing behind it has a place yet.
    Growing,
    /// Complete, in a spool.
    Spooled(File, Written),
    /// At its place, with so many bytes; and in a spool where it will be needed again and cannot be read back.
    Done(u64, Option<File>),
}

impl ArchiveSink {
    pub(super) fn create(target: &Target, format: &str, layouter: Box<dyn Layouter>, ctx: &Context) -> Result<Box<dyn Sink>> {
        let Target::Archive(destination) = target else {
            return Err(Error::unsupported(format_args!("{format} is a file or stream, not a directory")));
        };
        let output = Output::create(destination, ctx)?;
        Ok(Box::new(Self {
            layouter,
            label: format!("{format}:{}", output.label),
            output,
            expected: Vec::new(),
            held: Vec::new(),
            members: Vec::new(),
            places: Vec::new(),
            headers: Vec::new(),
            repeats: Vec::new(),
            cancel: ctx.cancel.clone(),
            limits: ctx.limits.clone(),
            state: Mutex::default(),
            placed: Condvar::new(),
        }))
    }

    /// Gives places to members as far as possible.
    fn advance(&self, state: &mut State) -> Result<()> {
        let from = state.next;
        while let Some(member) = self.members.get(state.next) {
            match &member.body {
                Body::Empty => self.append(state, &member.header, &[])?,
                Body::Bytes(bytes) => self.append(state, &member.header, bytes)?,
                Body::Blob(blob, name) => match std::mem::take(&mut state.blobs[*blob]) {
                    BlobState::Spooled(file, written) => {
                        let header = named(member, *name, &written);
                        let header_len = header.to_blocks().map_err(Error::invalid)?.len() as u64;
                        state.offsets[*blob] = state.at + header_len;
                        self.append_from(state, &header, &file, 0, written.size)?;
                        state.spooled += written.size;
                        let again = !self.repeats[*blob].is_empty() && matches!(self.output.medium, Medium::Stream(_));
                        state.blobs[*blob] = BlobState::Done(written.size, again.then_some(file));
                    }
                    // A file lets us go on behind what will come here.
                    BlobState::Open => match (&self.output.medium, self.expected[*blob].known.size) {
                        (Medium::File(_), Some(size)) => {
                            state.blobs[*blob] = BlobState::Reserved;
                            state.offsets[*blob] = state.at + self.headers[*blob];
                            state.at = state.offsets[*blob] + size + padding(size);
                        }
                        _ => break,
                    },
                    other => {
                        state.blobs[*blob] = other;
                        break;
                    }
                },
                Body::Again(blob) => match std::mem::take(&mut state.blobs[*blob]) {
                    BlobState::Done(size, spool) => {
                        self.append_again(state, &member.header, state.offsets[*blob], size, spool.as_ref())?;
                        state.blobs[*blob] = BlobState::Done(size, spool);
                    }
                    BlobState::Reserved => {
                        let size = self.expected[*blob].known.size.unwrap_or(0);
                        state.blobs[*blob] = BlobState::Reserved;
                        state.reserved_repeats.insert(state.next, state.at);
                        state.at += sized(&member.header, size).to_blocks().map_err(Error::invalid)?.len() as u64 + size + padding(size);
                    }
                    other => {
                        state.blobs[*blob] = other;
                        break;
                    }
                },
            }
            state.next += 1;
        }
        if state.next > from {
            self.placed.notify_all();
        }
        Ok(())
    }

    /// Writes a whole member at the end of what has a place.
    fn append(&self, state: &mut State, header: &Header, bytes: &[u8]) -> Result<()> {
        let mut blocks = header.to_blocks().map_err(Error::invalid)?;
        blocks.extend_from_slice(bytes);
        blocks.resize(blocks.len() + padding(bytes.len() as u64) as usize, 0);
        self.write_at(state, &blocks)
    }

    /// Writes a member whose bytes lie in a file, at the end of what has a place.
    fn append_from(&self, state: &mut State, header: &Header, from: &File, offset: u64, size: u64) -> Result<()> {
        self.write_at(state, &header.to_blocks().map_err(Error::invalid)?)?;
        match &self.output.medium {
            Medium::File(file) => {
                spool::copy_range(from, offset, file, state.at, size).context(|| &self.output.label)?;
                state.at += size;
            }
            Medium::Stream(_) => {
                let mut buffer = vec![0; crate::pool::CHUNK];
                let mut done = 0;
                while done < size {
                    self.cancel.poll()?;
                    let step = usize::try_from(size - done).unwrap_or(usize::MAX).min(buffer.len());
                    from.read_exact_at(&mut buffer[..step], offset + done).context(|| "reading a temporary file")?;
                    self.write_at(state, &buffer[..step])?;
                    done += step as u64;
                }
            }
        }
        self.write_at(state, &END[..padding(size) as usize])
    }

    /// Writes the bytes of a blob once more: from where they are in the output, or from the spool of a stream.
    fn append_again(&self, state: &mut State, header: &Header, offset: u64, size: u64, spool: Option<&File>) -> Result<()> {
        let header = sized(header, size);
        match (&self.output.medium, spool) {
            (Medium::File(file), _) => self.append_from(state, &header, &Arc::clone(file), offset, size),
            (Medium::Stream(_), Some(spool)) => self.append_from(state, &header, spool, 0, size),
            (Medium::Stream(_), None) => Err(Error::invalid("a blob that comes twice was not kept")),
        }
    }

    /// Fills the places that were made for repeats of a blob before it was complete.
    fn fill_repeats(&self, state: &mut State, blob: usize, size: u64) -> Result<()> {
        for member in &self.repeats[blob] {
            let Some(at) = state.reserved_repeats.remove(member) else { continue };
            let mut apart = State { at, ..State::default() };
            self.append_again(&mut apart, &self.members[*member].header, state.offsets[blob], size, None)?;
        }
        Ok(())
    }

    /// Writes at the end of what has a place. Only who holds the state may.
    fn write_at(&self, state: &mut State, bytes: &[u8]) -> Result<()> {
        match &self.output.medium {
            Medium::File(file) => file.write_all_at(bytes, state.at).context(|| &self.output.label)?,
            Medium::Stream(stream) => lock(stream).write_all(bytes).context(|| &self.output.label)?,
        }
        state.at += bytes.len() as u64;
        Ok(())
    }

    /// Waits on a stream until everything before `member` has left.
    fn wait_for_turn<'a>(&'a self, mut state: MutexGuard<'a, State>, member: usize) -> Result<MutexGuard<'a, State>> {
        while state.next < member {
            self.cancel.poll()?;
            state = self.placed.wait_timeout(state, Duration::from_millis(50)).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state)
    }
}

/// The header of a blob, complete.
fn named(member: &Member, name: Option<fn(&Written) -> String>, written: &Written) -> Header {
    let mut header = sized(&member.header, written.size);
    if let Some(name) = name {
        header.path = name(written).into_bytes();
    }
    header
}

fn sized(header: &Header, size: u64) -> Header {
    let mut header = Header { size, ..header.clone() };
    if size >= OCTAL {
        // One block, as for any other size, so that room can be made before the size is known.
        header.format = HeaderFormat::Gnu;
    }
    header
}

/// How many bytes the header of a blob will have. A digest that is not known yet will be of SHA-256.
fn header_len(member: &Member, name: Option<fn(&Written) -> String>, blob: &ExpectedBlob) -> Result<u64> {
    let written = Written::expected(blob.known.size.unwrap_or(0), blob.known.digest.unwrap_or_else(|| Digest::of(b"")), blob);
    Ok(named(member, name, &written).to_blocks().map_err(Error::invalid)?.len() as u64)
}

impl Sink for ArchiveSink {
    fn order(&self) -> Order {
        match self.output.medium {
            Medium::File(_) => Order::AnyIfSized,
            Medium::Stream(_) => Order::InTurn,
        }
    }

    fn begin(&mut self, expected: Expected, cancel: &Cancel) -> Result<Vec<usize>> {
        self.cancel = cancel.clone();
        if let Medium::File(file) = &self.output.medium {
            file.set_len(0).context(|| &self.output.label)?;
        }
        self.members = self.layouter.before(&expected)?;
        self.places = vec![usize::MAX; expected.blobs.len()];
        self.headers = vec![0; expected.blobs.len()];
        self.repeats = vec![Vec::new(); expected.blobs.len()];
        let mut order = Vec::with_capacity(expected.blobs.len());
        for (at, member) in self.members.iter().enumerate() {
            match member.body {
                Body::Blob(blob, name) => {
                    self.places[blob] = at;
                    self.headers[blob] = header_len(member, name, &expected.blobs[blob])?;
                    order.push(blob);
                }
                Body::Again(blob) => self.repeats[blob].push(at),
                Body::Bytes(_) | Body::Empty => {}
            }
        }
        self.held = self.layouter.unpacked(&expected);
        order.extend((0..self.held.len()).filter(|blob| self.held[*blob].is_some()));
        let placed = |(blob, place): (usize, &usize)| *place != usize::MAX || self.held[blob].is_some();
        if let Some(blob) = self.places.iter().enumerate().position(|place| !placed(place)) {
            return Err(Error::unsupported(format_args!("blob {blob} has no place in the archive")).frame(&self.label));
        }
        self.expected = expected.blobs;
        let state_of = |held: &Option<Written>| if held.is_some() { BlobState::Done(0, None) } else { BlobState::Open };
        let blobs: Vec<_> = self.held.iter().map(state_of).collect();
        let mut state = State { offsets: vec![0; blobs.len()], blobs, ..State::default() };
        self.advance(&mut state)?;
        self.state = Mutex::new(state);
        Ok(order)
    }

    fn held(&self, blob: usize, _origin: Option<&Reference>) -> Result<Option<Written>> {
        Ok(self.held.get(blob).cloned().flatten())
    }

    fn put(&self, blob: usize) -> Result<Box<dyn BlobWriter + '_>> {
        let (member, expected) = (self.places[blob], &self.expected[blob]);
        let known = &expected.known;
        let mut state = lock(&self.state);
        let place = match (&self.output.medium, known.size.zip(known.digest)) {
            (Medium::File(file), _) if state.next > member => {
                Place::Reserved { file: Arc::clone(file), at: state.offsets[blob], size: known.size.unwrap_or(0) }
            }
            (Medium::File(file), _) if state.next == member => {
                state.blobs[blob] = BlobState::Growing;
                Place::Growing { file: Arc::clone(file), at: state.at + self.headers[blob] }
            }
            (Medium::Stream(_), Some((size, digest))) if self.repeats[blob].is_empty() => {
                state = self.wait_for_turn(state, member)?;
                let written = Written::expected(size, digest, expected);
                let Body::Blob(_, name) = self.members[member].body else { return Err(Error::invalid("a member that is no blob")) };
                let header = named(&self.members[member], name, &written).to_blocks().map_err(Error::invalid)?;
                self.write_at(&mut state, &header)?;
                state.blobs[blob] = BlobState::Growing;
                Place::Streaming
            }
            _ => {
                state.blobs[blob] = BlobState::Spooling;
                Place::Spool(spool::anonymous(&self.output.temp)?)
            }
        };
        Ok(Box::new(Putting { sink: self, blob, place, len: 0 }))
    }

    fn commit(self: Box<Self>, sealed: &Sealed) -> Result<Committed> {
        let mut state = std::mem::take(&mut *lock(&self.state));
        self.advance(&mut state)?;
        if state.next != self.members.len() || !state.blobs.iter().all(|blob| matches!(blob, BlobState::Done(..))) {
            return Err(Error::invalid("a layer was never written").frame(&self.label));
        }
        for member in self.layouter.after(sealed)? {
            match &member.body {
                Body::Bytes(bytes) => {
                    // Configs may be larger; these two grow with the number of images.
                    if let name @ ("index.json" | "manifest.json") = String::from_utf8_lossy(&member.header.path).as_ref() {
                        readable(name, bytes, &self.limits).context(|| &self.label)?;
                    }
                    self.append(&mut state, &member.header, bytes)?;
                }
                _ => self.append(&mut state, &member.header, &[])?,
            }
        }
        self.write_at(&mut state, &END)?;
        let fill = state.at.next_multiple_of(self.layouter.record()) - state.at;
        self.write_at(&mut state, &vec![0; usize::try_from(fill).unwrap_or(0)])?;
        let spooled = state.spooled;
        Ok(Committed { spooled, size: self.output.commit()? })
    }

    fn describe(&self) -> String {
        self.label.clone()
    }
}

/// Where the bytes of one blob go.
enum Place {
    Growing { file: Arc<File>, at: u64 },
    Reserved { file: Arc<File>, at: u64, size: u64 },
    Spool(File),
    Streaming,
}

/// One blob on its way.
struct Putting<'a> {
    sink: &'a ArchiveSink,
    blob: usize,
    place: Place,
    len: u64,
}

impl BlobWriter for Putting<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let label = || &self.sink.output.label;
        match &self.place {
            Place::Growing { file, at } => file.write_all_at(bytes, at + self.len).context(label)?,
            Place::Reserved { file, at, size } => {
                if self.len + bytes.len() as u64 > *size {
                    return Err(Error::mismatch(format_args!("it has more than the {size} bytes that were stated")));
                }
                file.write_all_at(bytes, at + self.len).context(label)?;
            }
            Place::Spool(file) => {
                file.write_all_at(bytes, self.len).context(|| format!("writing a temporary file in {}", self.sink.output.temp.display()))?
            }
            Place::Streaming => self.sink.write_at(&mut lock(&self.sink.state), bytes)?,
        }
        self.len += bytes.len() as u64;
        self.sink.output.wrote(bytes.len());
        Ok(())
    }

    fn finish(self: Box<Self>, written: &Written) -> Result<()> {
        let Self { sink, blob, place, len } = *self;
        if len != written.size {
            return Err(Error::mismatch(format_args!("{len} bytes were written, expected {}", written.size)));
        }
        let member = &sink.members[sink.places[blob]];
        let Body::Blob(_, name) = member.body else { return Err(Error::invalid("a member that is no blob")) };
        let header = named(member, name, written).to_blocks().map_err(Error::invalid)?;
        let room = sink.headers[blob];
        if header.len() as u64 != room && matches!(place, Place::Reserved { .. } | Place::Growing { .. }) {
            let name = String::from_utf8_lossy(&member.header.path).into_owned();
            return Err(Error::unsupported(format_args!("its header needs {} bytes, expected {room}", header.len())).frame(name));
        }
        let mut state = lock(&sink.state);
        match place {
            Place::Reserved { file, at, size } => {
                if size != len {
                    return Err(Error::mismatch(format_args!("it has {len} bytes, expected {size}")));
                }
                // The padding is a hole of the new file, and so zeros.
                file.write_all_at(&header, at - room).context(|| &sink.output.label)?;
                state.blobs[blob] = BlobState::Done(len, None);
                return sink.fill_repeats(&mut state, blob, len);
            }
            Place::Growing { file, .. } => {
                file.write_all_at(&header, state.at).context(|| &sink.output.label)?;
                state.offsets[blob] = state.at + room;
                state.at += room + len + padding(len);
            }
            Place::Streaming => sink.write_at(&mut state, &END[..padding(len) as usize])?,
            Place::Spool(file) => {
                state.blobs[blob] = BlobState::Spooled(file, written.clone());
                return sink.advance(&mut state);
            }
        }
        state.blobs[blob] = BlobState::Done(len, None);
        state.next += 1;
        sink.placed.notify_all();
        sink.advance(&mut state)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use longshore_testkit::facts::unpack;
    use longshore_testkit::noise;

    use super::*;
    use crate::catalog::Known;
    use crate::compress::{Compression, Encoding};
    use crate::error::ErrorKind;
    use crate::format::layout_write::{file_member, plain_header};
    use crate::tar::Kind;
    use crate::testing::{context, names};
    use crate::transport::Destination;

    /// `first`, the blobs with a file before each but the first and the blob before it once more, and `last`.
    #[derive(Debug)]
    struct Rows;

    impl Layouter for Rows {
        fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
            let mut members = vec![file_member("first".to_owned(), *b"1")];
            for at in 0..expected.blobs.len() {
                // The odd ones are named by their digest, the even ones in advance.
                let by_digest: Option<fn(&Written) -> String> = (at % 2 == 1).then_some(|written| written.digest.hex());
                if at > 0 {
                    members.push(file_member(format!("before {at}"), vec![7; at * 300]));
                    members
                        .push(Member { header: plain_header(format!("again {}", at - 1), Kind::File, 0o644), body: Body::Again(at - 1) });
                }
                let header = plain_header(if at % 2 == 1 { String::new() } else { format!("blob {at}") }, Kind::File, 0o644);
                members.push(Member { header, body: Body::Blob(at, by_digest) });
            }
            Ok(members)
        }

        fn after(&self, _sealed: &Sealed) -> Result<Vec<Member>> {
            Ok(vec![
                file_member("last".to_owned(), *b"9"),
                Member { header: plain_header("d/".to_owned(), Kind::Directory, 0o755), body: Body::Empty },
            ])
        }
    }

    /// Of a block and a part, of no bytes, of whole blocks, and of more than fits into one write.
    fn blobs() -> Vec<Vec<u8>> {
        vec![noise(700, 1), Vec::new(), noise(1024, 2), noise(70_001, 3)]
    }

    fn written(bytes: &[u8]) -> Written {
        Written { digest: Digest::of(bytes), size: bytes.len() as u64, diff_id: None, compression: Compression::None }
    }

    /// What is said before of the blobs in `mask`: size and digest.
    fn expected(blobs: &[Vec<u8>], mask: usize) -> Expected {
        let known = |(at, bytes): (usize, &Vec<u8>)| match mask >> at & 1 {
            1 => Known { size: Some(bytes.len() as u64), digest: Some(Digest::of(bytes)), diff_id: None },
            _ => Known::default(),
        };
        let known = |blob| ExpectedBlob { known: known(blob), compression: Compression::None };
        Expected { blobs: blobs.iter().enumerate().map(known).collect(), images: Vec::new() }
    }

    fn sink(dir: &Path, encoding: Option<Encoding>) -> Box<dyn Sink> {
        let destination = Destination::File { path: dir.join("out"), replace: true, encoding };
        ArchiveSink::create(&Target::Archive(destination), "test", Box::new(Rows), &context(dir)).unwrap()
    }

    /// Commits, and gives the archive as it is when it is not compressed.
    fn committed(dir: &Path, sink: Box<dyn Sink>) -> Vec<u8> {
        sink.commit(&Sealed::default()).unwrap();
        let bytes = unpack(&std::fs::read(dir.join("out")).unwrap());
        assert_eq!(names(dir), ["out"]);
        bytes
    }

    /// Puts one blob in several writes.
    fn put(sink: &dyn Sink, at: usize, bytes: &[u8]) {
        let mut writer = sink.put(at).unwrap();
        bytes.chunks(997).for_each(|chunk| writer.write(chunk).unwrap());
        writer.finish(&written(bytes)).unwrap();
    }

    /// What every way of writing must give.
    fn plain(dir: &Path) -> Vec<u8> {
        let mut sink = sink(dir, None);
        sink.begin(expected(&blobs(), 0b1111), &Cancel::default()).unwrap();
        blobs().iter().enumerate().for_each(|(at, bytes)| put(sink.as_ref(), at, bytes));
        committed(dir, sink)
    }

    fn orders(count: usize) -> Vec<Vec<usize>> {
        if count == 0 {
            return vec![Vec::new()];
        }
        let shorter = orders(count - 1);
        shorter.iter().flat_map(|order| (0..count).map(move |at| [&order[..at], &[count - 1], &order[at..]].concat())).collect()
    }

    #[test]
    fn the_archive_is_what_the_layouter_says() {
        let dir = tempfile::tempdir().unwrap();
        let members = longshore_testkit::tar::read(&plain(dir.path()));
        let hex = |at: usize| Digest::of(&blobs()[at]).hex();
        let names: Vec<_> = members.iter().map(longshore_testkit::tar::Member::text).collect();
        let (one, three) = (hex(1), hex(3));
        let [first, second, third] = [
            ["first", "blob 0", "before 1", "again 0"],
            [one.as_str(), "before 2", "again 1", "blob 2"],
            ["before 3", "again 2", three.as_str(), "last"],
        ];
        assert_eq!(names, [&first[..], &second, &third, &["d/"]].concat());
        for (at, member) in [(0, 1), (0, 3), (1, 4), (1, 6), (2, 7), (2, 9), (3, 10)] {
            assert_eq!(members[member].data, blobs()[at], "blob {at}");
        }
    }

    /// Sized or not, begun in any order and finished in any order: a blob that is begun before it has a place waits beside the output and is
    /// not lost.
    #[test]
    fn the_order_of_puts_never_matters_on_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let right = plain(dir.path());
        let blobs = &blobs()[..];
        for mask in 0..16 {
            let crossed = orders(4).into_iter().zip(orders(4).into_iter().rev());
            let straight = orders(4).into_iter().map(|order| (order.clone(), order));
            // Each mask with a third of the orders, each order with a third of the masks: every commit waits for the disk.
            for (begin, finish) in crossed.chain(straight).skip(mask % 3).step_by(3) {
                let mut sink = sink(dir.path(), None);
                assert_eq!(sink.begin(expected(blobs, mask), &Cancel::default()).unwrap(), [0, 1, 2, 3]);
                {
                    let mut writers: Vec<_> = (0..4).map(|_| None).collect();
                    for at in &begin {
                        writers[*at] = Some(sink.put(*at).unwrap());
                    }
                    for at in &finish {
                        let mut writer = writers[*at].take().unwrap();
                        blobs[*at].chunks(9999).for_each(|chunk| writer.write(chunk).unwrap());
                        writer.finish(&written(&blobs[*at])).unwrap();
                    }
                }
                let bytes = committed(dir.path(), sink);
                assert!(bytes == right, "sizes of {mask:04b} known, begun {begin:?}, finished {finish:?}");
            }
        }
    }

    #[test]
    fn threads_never_matter() {
        let dir = tempfile::tempdir().unwrap();
        let right = plain(dir.path());
        for encoding in [None, Some(Encoding::default())] {
            for mask in 0..16 {
                for order in orders(4).into_iter().step_by(5) {
                    let mut sink = sink(dir.path(), encoding);
                    sink.begin(expected(&blobs(), mask), &Cancel::default()).unwrap();
                    std::thread::scope(|scope| {
                        for at in &order {
                            let sink = sink.as_ref();
                            scope.spawn(move || put(sink, *at, &blobs()[*at]));
                        }
                    });
                    let bytes = committed(dir.path(), sink);
                    assert!(bytes == right, "sizes of {mask:04b} known, begun {order:?}, {encoding:?}");
                }
            }
        }
    }

    #[test]
    fn beginning_again_leaves_nothing_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let right = plain(dir.path());
        let mut sink = sink(dir.path(), None);
        let mut wrong = expected(&blobs(), 0b1111);
        wrong.blobs[0].known.size = Some(500_000);
        sink.begin(wrong, &Cancel::default()).unwrap();
        sink.put(0).unwrap().write(&[0xff; 200_000]).unwrap();
        put(sink.as_ref(), 3, &blobs()[3]);
        sink.begin(expected(&blobs(), 0), &Cancel::default()).unwrap();
        blobs().iter().enumerate().for_each(|(at, bytes)| put(sink.as_ref(), at, bytes));
        assert!(committed(dir.path(), sink) == right);
    }

    #[test]
    fn what_was_spooled_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (mask, order, spooled) in
            [(0b1111, [3, 2, 1, 0], 0), (0b0000, [0, 1, 2, 3], 0), (0b1110, [3, 0, 1, 2], 70_001), (0, [3, 2, 1, 0], 71_025)]
        {
            let mut sink = sink(dir.path(), None);
            sink.begin(expected(&blobs(), mask), &Cancel::default()).unwrap();
            order.iter().for_each(|at| put(sink.as_ref(), *at, &blobs()[*at]));
            let committed = sink.commit(&Sealed::default()).unwrap();
            assert_eq!(committed.spooled, spooled, "{mask:04b} {order:?}");
            assert_eq!(committed.size, Some(std::fs::metadata(dir.path().join("out")).unwrap().len()));
        }
    }

    #[test]
    fn a_wrong_size_or_a_missing_blob_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for (size, bytes, says) in [(3, 4, "more than the 3 bytes"), (5, 4, "it has 4 bytes, expected 5")] {
            let mut sink = sink(dir.path(), None);
            sink.begin(
                Expected {
                    blobs: vec![ExpectedBlob { known: Known { size: Some(size), ..Known::default() }, ..ExpectedBlob::default() }],
                    images: Vec::new(),
                },
                &Cancel::default(),
            )
            .unwrap();
            let mut writer = sink.put(0).unwrap();
            let error = writer.write(&vec![0; bytes]).and_then(|()| writer.finish(&written(&vec![0; bytes]))).unwrap_err();
            assert!(error.kind() == ErrorKind::Mismatch && error.to_string().contains(says), "{error}");
            let error = sink.commit(&Sealed::default()).unwrap_err();
            assert!(error.to_string().contains("never written"), "{error}");
            assert!(names(dir.path()).is_empty());
        }
        for encoding in [None, Some(Encoding::default())] {
            let mut sink = sink(dir.path(), encoding);
            sink.begin(expected(&blobs(), 0), &Cancel::default()).unwrap();
            put(sink.as_ref(), 3, &blobs()[3]);
            // Dropped in the middle of a blob, and then itself.
            let mut writer = sink.put(0).unwrap();
            writer.write(b"half").unwrap();
            drop(writer);
            assert_eq!(names(dir.path()).len(), 1);
            drop(sink);
            assert!(names(dir.path()).is_empty());
        }
    }

    #[test]
    fn a_header_has_one_block_whatever_the_size_and_more_for_a_long_digest() {
        let by_digest: fn(&Written) -> String = |written| format!("blobs/{}/{}", written.digest.algorithm().name(), written.digest.hex());
        let member = Member { header: plain_header(String::new(), Kind::File, 0o644), body: Body::Blob(0, Some(by_digest)) };
        for size in [0, OCTAL - 1, OCTAL, 1 << 45] {
            let blocks = named(&member, Some(by_digest), &Written { size, ..written(b"") }).to_blocks().unwrap();
            assert_eq!(blocks.len(), crate::tar::BLOCK, "{size}");
            let mut parser = crate::tar::Parser::new(crate::tar::TarLimits::default());
            let Ok(crate::tar::Step::Entry(entry)) = parser.take(&blocks) else { panic!("an entry") };
            assert_eq!(entry.size, size);
        }
        let mut digester = crate::digest::Digester::new(crate::digest::Algorithm::Sha512);
        digester.update(b"bytes");
        let known = Known { size: Some(5), digest: Some(digester.finish()), diff_id: None };
        let known = ExpectedBlob { known, compression: Compression::None };
        assert_eq!(header_len(&member, Some(by_digest), &known).unwrap(), 3 * crate::tar::BLOCK as u64);
        assert_eq!(header_len(&member, Some(by_digest), &ExpectedBlob::default()).unwrap(), crate::tar::BLOCK as u64);
    }

    #[test]
    fn who_waits_for_a_turn_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = sink(dir.path(), Some(Encoding::default()));
        let cancel = Cancel::default();
        assert_eq!(sink.order(), Order::InTurn);
        sink.begin(expected(&blobs(), 0b1111), &cancel).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| sink.put(3).map(drop).unwrap_err().kind());
            std::thread::sleep(Duration::from_millis(20));
            cancel.cancel();
            assert_eq!(waiting.join().unwrap(), ErrorKind::Cancelled);
        });
    }
}

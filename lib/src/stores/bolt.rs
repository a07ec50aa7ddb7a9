//! A small reader of bbolt databases, in which containerd keeps names.
//!
//! ```text
//! file     page 0: meta   page 1: meta   pages…                          the meta page with the higher transaction counts
//! page     id(8) flags(2) count(2) overflow(4)  elements…  data          overflow: further pages that belong to it
//! meta     magic(4) version(4) page size(4) flags(4) root{page(8) sequence(8)} freelist(8) high water(8) transaction(8) FNV-1a(8)
//! branch   position(4) key size(4) page(8)                               position: from the element on
//! leaf     flags(4) position(4) key size(4) value size(4)                flags: 1 for a bucket
//! bucket   page(8) sequence(8)  [a page, where page is 0]                the value of a bucket: small ones lie in it
//! ```
//!
//! All numbers are in the order of the machine that wrote them, which is ours. ([bbolt], `page.go`, `bucket.go`, `db.go`)
//!
//! A running containerd has the file locked exclusively, so no lock is taken. bbolt never writes into a page that the last transaction can see: as
//! long as that is the one that was read, what was read holds together. So the reader looks at the meta pages again afterwards ([`read`]), and starts over
//! when there is a newer one. Whatever a page says is bounded by the file and by its page, and the number of pages that are read has a limit.
//!
//! [bbolt]: https://github.com/etcd-io/bbolt/tree/v1.3.6

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::error::{Error, ErrorKind, Result};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
/// The flag of a leaf's element that is a bucket.
const BUCKET: u32 = 0x01;

/// Bytes of a page's header.
const HEADER: usize = 16;
/// Bytes of a meta page up to its checksum.
const CHECKED: usize = 56;
/// Bytes of an element of a branch or leaf.
const ELEMENT: usize = 16;

/// Bytes of a page with all that overflows. Values are names, digests, labels.
const PAGE: u64 = 16 << 20;
/// Levels of a tree of pages. Four billion entries have eight.
const DEPTH: usize = 32;
/// How often a database that changes is read again.
const TRIES: usize = 32;

/// Where the bytes of a database are.
pub(super) trait Bytes {
    /// Fills `buf` from the byte `at` on.
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()>;

    /// How many there are.
    fn len(&self) -> Result<u64>;
}

impl Bytes for File {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.read_exact_at(buf, at).map_err(Error::io)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.metadata().map_err(Error::io)?.len())
    }
}

impl Bytes for [u8] {
    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let found = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..buf.len()));
        buf.copy_from_slice(found.ok_or_else(|| Error::invalid("the database ends within a page"))?);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(Self::len(self) as u64)
    }
}

/// Reads from a database that may be written meanwhile: `work` is done again until it has seen one transaction alone.
pub(super) fn read<B: Bytes + ?Sized, T>(bytes: &B, mut work: impl FnMut(&Bolt<'_, B>) -> Result<T>) -> Result<T> {
    for _ in 0..TRIES {
        let bolt = Bolt::open(bytes)?;
        let done = work(&bolt);
        // What was read while somebody wrote over it may look malformed.
        if Bolt::open(bytes)?.transaction == bolt.transaction {
            return done;
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "the database is changed all the time"))
}

/// A database as of one transaction.
pub(super) struct Bolt<'a, B: ?Sized> {
    bytes: &'a B,
    len: u64,
    page_size: u64,
    /// The page of the root bucket.
    root: u64,
    transaction: u64,
    /// How many pages may still be read: in a walk of a tree each is visited once, and few are looked up besides.
    budget: Cell<u64>,
}

/// A bucket: a page that is the top of its tree, or what lies within its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bucket {
    Page(u64),
    Inline(Vec<u8>),
}

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bucket(Bucket),
    Bytes(Vec<u8>),
}

struct Meta {
    page_size: u64,
    root: u64,
    transaction: u64,
}

impl<'a, B: Bytes + ?Sized> Bolt<'a, B> {
    fn open(bytes: &'a B) -> Result<Self> {
        let len = bytes.len()?;
        // The second meta page is found by the size of a page, which the first says; bbolt tries all sizes where the first is broken.
        let first = meta(bytes, 0);
        let sizes = (9..=24).map(|shift| 1_u64 << shift);
        let second = match &first {
            Some(first) => meta(bytes, first.page_size),
            None => sizes.clone().find_map(|size| meta(bytes, size).filter(|found| found.page_size == size)),
        };
        let newest = [first, second].into_iter().flatten().max_by_key(|meta| meta.transaction);
        let Meta { page_size, root, transaction } = newest.ok_or_else(|| Error::invalid("it is not a bbolt database"))?;
        if !sizes.clone().any(|size| size == page_size) {
            return Err(Error::invalid(format_args!("its pages have {page_size} bytes, expected a power of 2 from 512")));
        }
        Ok(Self { bytes, len, page_size, root, transaction, budget: Cell::new((len / page_size).saturating_mul(8).saturating_add(1024)) })
    }

    /// The bucket that holds all others.
    pub(super) fn root(&self) -> Bucket {
        Bucket::Page(self.root)
    }

    /// The bucket below `bucket` that these names lead to.
    pub(super) fn bucket(&self, bucket: &Bucket, path: &[&[u8]]) -> Result<Option<Bucket>> {
        let mut here = bucket.clone();
        for name in path {
            match self.get(&here, name)? {
                Some(Value::Bucket(next)) => here = next,
                _ => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// What a key of a bucket leads to.
    pub(super) fn get(&self, bucket: &Bucket, key: &[u8]) -> Result<Option<Value>> {
        let mut page = self.top(bucket)?;
        for _ in 0..DEPTH {
            let elements = page.elements()?;
            match page.flags {
                LEAF => {
                    for at in 0..elements {
                        let (flags, found, value) = page.leaf(at)?;
                        if found == key {
                            return value_of(flags, value).map(Some);
                        }
                    }
                    return Ok(None);
                }
                BRANCH => {
                    // The last child whose first key is not above ours.
                    let mut child = None;
                    for at in 0..elements {
                        let (first, id) = page.branch(at)?;
                        if at > 0 && first > key {
                            break;
                        }
                        child = Some(id);
                    }
                    let Some(child) = child else { return Ok(None) };
                    page = self.page(child)?;
                }
                other => return Err(wrong_kind(other)),
            }
        }
        Err(too_deep())
    }

    /// Visits all keys of a bucket, in their order.
    pub(super) fn each(&self, bucket: &Bucket, visit: &mut dyn FnMut(&[u8], Value) -> Result<()>) -> Result<()> {
        let mut open = vec![(self.top(bucket)?, 0)];
        while let Some((page, at)) = open.last_mut() {
            if *at >= page.elements()? {
                open.pop();
                continue;
            }
            let here = *at;
            *at += 1;
            match page.flags {
                LEAF => {
                    let (flags, key, value) = page.leaf(here)?;
                    visit(key, value_of(flags, value)?)?;
                }
                BRANCH => {
                    let (_, id) = page.branch(here)?;
                    let child = self.page(id)?;
                    if open.len() >= DEPTH {
                        return Err(too_deep());
                    }
                    open.push((child, 0));
                }
                other => return Err(wrong_kind(other)),
            }
        }
        Ok(())
    }

    fn top(&self, bucket: &Bucket) -> Result<Page> {
        match bucket {
            Bucket::Page(id) => self.page(*id),
            Bucket::Inline(bytes) => Page::new(bytes.clone()),
        }
    }

    fn page(&self, id: u64) -> Result<Page> {
        let budget = self.budget.get().checked_sub(1).ok_or_else(|| Error::invalid("the database leads in circles"))?;
        self.budget.set(budget);
        let pages = self.len / self.page_size;
        let at = Some(id).filter(|id| *id >= 2 && *id < pages).map(|id| id * self.page_size);
        let at = at.ok_or_else(|| Error::invalid(format_args!("the database has no page {id}")))?;
        let mut header = [0; HEADER];
        self.bytes.read_at(&mut header, at)?;
        let (stated, overflow) = (u64_at(&header, 0), u32_at(&header, 12));
        if stated != Some(id) {
            return Err(Error::invalid(format_args!("page {id} of the database is another")));
        }
        let size = u64::from(overflow.unwrap_or(0)).saturating_add(1).saturating_mul(self.page_size);
        if size > PAGE.max(self.page_size) || size > self.len - at {
            return Err(Error::invalid(format_args!("page {id} of the database has {size} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Error::limit("a page that does not fit into memory"))?];
        self.bytes.read_at(&mut bytes, at)?;
        Page::new(bytes)
    }
}

/// A page, with all that overflows.
struct Page {
    bytes: Vec<u8>,
    flags: u16,
    count: usize,
}

impl Page {
    fn new(bytes: Vec<u8>) -> Result<Self> {
        let (Some(flags), Some(count)) = (u16_at(&bytes, 8), u16_at(&bytes, 10)) else { return Err(out_of_page()) };
        Ok(Self { bytes, flags, count: usize::from(count) })
    }

    fn elements(&self) -> Result<usize> {
        let end = HEADER + self.count * ELEMENT;
        if end > self.bytes.len() { Err(out_of_page()) } else { Ok(self.count) }
    }

    fn element(&self, at: usize) -> Result<(usize, [u32; 4])> {
        let start = HEADER + at * ELEMENT;
        let word = |at| u32_at(&self.bytes, start + at).ok_or_else(out_of_page);
        Ok((start, [word(0)?, word(4)?, word(8)?, word(12)?]))
    }

    /// Flags, key and value of a leaf's element.
    fn leaf(&self, at: usize) -> Result<(u32, &[u8], &[u8])> {
        let (start, [flags, position, key, value]) = self.element(at)?;
        let (key_at, key, value) = (start as u64 + u64::from(position), u64::from(key), u64::from(value));
        Ok((flags, self.part(key_at, key)?, self.part(key_at + key, value)?))
    }

    /// First key and page of a branch's element.
    fn branch(&self, at: usize) -> Result<(&[u8], u64)> {
        let (start, [position, key, ..]) = self.element(at)?;
        let page = u64_at(&self.bytes, start + 8).ok_or_else(out_of_page)?;
        Ok((self.part(start as u64 + u64::from(position), u64::from(key))?, page))
    }

    fn part(&self, start: u64, len: u64) -> Result<&[u8]> {
        let range = usize::try_from(start).ok().zip(usize::try_from(start + len).ok());
        range.and_then(|(start, end)| self.bytes.get(start..end)).ok_or_else(out_of_page)
    }
}

fn value_of(flags: u32, value: &[u8]) -> Result<Value> {
    if flags & BUCKET == 0 {
        return Ok(Value::Bytes(value.to_vec()));
    }
    let root = u64_at(value, 0).ok_or_else(out_of_page)?;
    Ok(Value::Bucket(match (root, value.get(16..)) {
        (0, Some(inline)) => Bucket::Inline(inline.to_vec()),
        (0, None) => return Err(out_of_page()),
        (page, _) => Bucket::Page(page),
    }))
}

/// The meta page at a place, if it is one and complete.
fn meta<B: Bytes + ?Sized>(bytes: &B, at: u64) -> Option<Meta> {
    let mut page = [0; HEADER + CHECKED + 8];
    bytes.read_at(&mut page, at).ok()?;
    let meta = &page[HEADER..];
    let good = u16_at(&page, 8)? & META != 0
        && u32_at(meta, 0)? == MAGIC
        && u32_at(meta, 4)? == VERSION
        && u64_at(meta, CHECKED)? == fnv1a(&meta[..CHECKED]);
    good.then_some(Meta { page_size: u64::from(u32_at(meta, 8)?), root: u64_at(meta, 16)?, transaction: u64_at(meta, 48)? })
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

fn out_of_page() -> Error {
    Error::invalid("a page of the database is malformed")
}

fn wrong_kind(flags: u16) -> Error {
    Error::invalid(format_args!("a page of the database is of kind {flags:#x}, expected a branch or a leaf"))
}

fn too_deep() -> Error {
    Error::invalid(format_args!("the database is more than {DEPTH} pages deep"))
}

/// Reads whatever comes as a database: every key that is visited is found.
pub fn fuzz_bolt(data: &[u8]) {
    fn walk(bolt: &Bolt<'_, [u8]>, bucket: &Bucket, depth: usize, left: &mut usize) -> Result<()> {
        let mut buckets = Vec::new();
        bolt.each(bucket, &mut |key, value| {
            if let Value::Bucket(inner) = value {
                buckets.push((key.to_vec(), inner));
            }
            *left = left.checked_sub(1).ok_or_else(|| Error::limit("enough"))?;
            Ok(())
        })?;
        for (key, inner) in buckets.into_iter().filter(|_| depth < 8) {
            let _ = bolt.get(bucket, &key)?;
            walk(bolt, &inner, depth + 1, left)?;
        }
        Ok(())
    }
    let _ = read(data, |bolt| walk(bolt, &bolt.root(), 0, &mut 10_000));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use longshore_testkit::stores::{Bolt as Writer, Item, bucket, bytes as value};
    use proptest::prelude::*;

    use super::*;

    fn items() -> Vec<(Vec<u8>, Item)> {
        let image =
            |name: &str| bucket(name, vec![value("createdat", [1, 2]), bucket("target", vec![value("digest", "d"), value("size", [2])])]);
        let images = (0..40).map(|at| image(&format!("image-{at:02}"))).collect();
        vec![
            bucket("empty", Vec::new()),
            value("large", vec![b'x'; 3000]),
            bucket("v1", vec![bucket("default", vec![bucket("images", images)])]),
        ]
    }

    const WRITERS: [Writer; 4] = [
        Writer { page: 4096, fan: 100, inline: 1000 },
        Writer { page: 512, fan: 3, inline: 0 },
        Writer { page: 1024, fan: 2, inline: 100 },
        Writer { page: 65536, fan: 7, inline: 50 },
    ];

    /// All that a bucket holds, as it was written.
    fn all<B: Bytes + ?Sized>(bolt: &Bolt<'_, B>, bucket: &Bucket) -> Result<Vec<(Vec<u8>, Item)>> {
        let mut found = Vec::new();
        bolt.each(bucket, &mut |key, value| {
            found.push((
                key.to_vec(),
                match value {
                    Value::Bytes(bytes) => Item::Bytes(bytes),
                    Value::Bucket(bucket) => Item::Bucket(all(bolt, &bucket)?),
                },
            ));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn everything_is_found_however_it_is_laid_out() {
        for writer in WRITERS {
            let file = writer.write(&items());
            let found = read(&file[..], |bolt| all(bolt, &bolt.root())).unwrap();
            assert_eq!(found, items(), "{writer:?}");
            fuzz_bolt(&file);
            let get = |path: &[&[u8]], key: &[u8]| {
                read(&file[..], |bolt| match bolt.bucket(&bolt.root(), path)? {
                    Some(bucket) => bolt.get(&bucket, key),
                    None => Ok(None),
                })
                .unwrap()
            };
            assert_eq!(
                get(&[b"v1", b"default", b"images", b"image-17", b"target"], b"digest"),
                Some(Value::Bytes(b"d".to_vec())),
                "{writer:?}"
            );
            assert_eq!(get(&[b"v1", b"default", b"images"], b"image-170"), None);
            assert_eq!(get(&[b"v1", b"default", b"images"], b""), None);
            assert_eq!(get(&[b"empty"], b"x"), None);
            assert_eq!(get(&[b"large"], b"x"), None, "it is no bucket");
            assert_eq!(get(&[], b"large"), Some(Value::Bytes(vec![b'x'; 3000])));
        }
    }

    #[test]
    fn the_newer_meta_page_counts_and_a_broken_one_does_not() {
        let whole = WRITERS[0].write(&items());
        let found = |file: &[u8]| read(file, |bolt| all(bolt, &bolt.root())).map_err(|error| error.to_string());
        // Transaction 6 leads to no page.
        let mut second = whole.clone();
        second[4096 + 30] ^= 1;
        assert!(found(&second).unwrap_err().contains("has no page"), "{:?}", found(&second));
        let mut first = whole.clone();
        first[30] ^= 1;
        assert_eq!(found(&first).unwrap(), items());
        first[4096 + 30] ^= 1;
        assert_eq!(found(&first).unwrap_err(), "it is not a bbolt database");
        assert_eq!(found(b"").unwrap_err(), "it is not a bbolt database");
        for len in (0..whole.len()).step_by(509) {
            let _ = found(&whole[..len]);
        }
    }

    #[test]
    fn circles_and_lies_end() {
        let file = Writer { page: 512, fan: 2, inline: 0 }.write(&items());
        let pages = file.len() / 512;
        // Every page becomes every kind of page, and leads to every other.
        for page in 2..pages {
            for (at, with) in
                [(8, 1), (8, 2), (8, 4), (10, 255), (12, 1), (12, 255), (16, 255), (20, 255), (24, 3), (24, page as u8), (24, 4)]
            {
                let mut broken = file.clone();
                broken[page * 512 + at] = with;
                let _ = read(&broken[..], |bolt| all(bolt, &bolt.root()));
                fuzz_bolt(&broken);
            }
        }
    }

    /// A database that somebody commits to, now and then.
    struct Changing {
        versions: Vec<Vec<u8>>,
        reads: AtomicUsize,
        every: usize,
    }

    impl Bytes for Changing {
        fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
            let version = self.reads.fetch_add(1, Ordering::Relaxed) / self.every;
            self.versions[version.min(self.versions.len() - 1)].read_at(buf, at)
        }

        fn len(&self) -> Result<u64> {
            Ok(self.versions[0].len() as u64)
        }
    }

    impl Bytes for Vec<u8> {
        fn read_at(&self, buf: &mut [u8], at: u64) -> Result<()> {
            self[..].read_at(buf, at)
        }

        fn len(&self) -> Result<u64> {
            Ok(self[..].len() as u64)
        }
    }

    #[test]
    fn a_commit_meanwhile_is_seen() {
        let writer = &WRITERS[2];
        let versions = |count: u8| {
            let version = |number: u8| {
                let mut file = writer.write(&[value("a", vec![number; 700]), value("b", vec![number; 700])]);
                // The transaction, and its checksum.
                file[1024 + 16 + 48] = 7 + number;
                let sum = fnv1a(&file[1024 + 16..1024 + 16 + CHECKED]);
                file[1024 + 16 + CHECKED..1024 + 16 + CHECKED + 8].copy_from_slice(&sum.to_ne_bytes());
                file
            };
            (0..count).map(version).collect::<Vec<_>>()
        };
        for every in 1..40 {
            let changing = Changing { versions: versions(5), reads: AtomicUsize::new(0), every };
            let found = read(&changing, |bolt| all(bolt, &bolt.root())).unwrap();
            let [(_, Item::Bytes(a)), (_, Item::Bytes(b))] = &found[..] else { panic!("{found:?}") };
            assert_eq!(a, b, "{every}");
        }
        let always = Changing { versions: versions(248), reads: AtomicUsize::new(0), every: 3 };
        assert_eq!(read(&always, |bolt| all(bolt, &bolt.root())).unwrap_err().kind(), ErrorKind::Unavailable);
    }

    proptest! {
        #[test]
        fn any_bytes_go_in(data in proptest::collection::vec(any::<u8>(), 0..256), at in 0_usize..8000) {
            fuzz_bolt(&data);
            let mut file = WRITERS[2].write(&items());
            let at = at.min(file.len() - data.len());
            file[at..at + data.len()].copy_from_slice(&data);
            fuzz_bolt(&file);
        }
    }
}

//! Carries out a plan: moves the bytes of every blob, seals, commits.
//!
//! Each lane, a thread, takes one blob at a time and moves it from the source to the sink (`transfer`); digesting and compressing happen on
//! the pool meanwhile. Everything between is bounded: a lane holds a few buffers, a digest stream four, an encoder one block a thread.
//!
//! ```text
//! lane    read ─ verify size ─┬─ decode ─┬─ fill blocks ──────┬─ write ─ finish
//! pool                     digest     digest (diff ID)     encode ─ digest
//! ```

pub(crate) mod layers;
pub(crate) mod merge;
mod stored;
pub(crate) mod transfer;
mod verified;

use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::compress::claimed_size;
use crate::context::Context;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::plan::{LayerPlan, Plan, PlannedBlob};
use crate::pool::lock;
use crate::seal::seal;
use crate::sink::{Expected, Order, Sink, Written};
use crate::source::Source;
use transfer::{Counts, Transfer};

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where it read from.
    pub source: String,
    /// Where it wrote to.
    pub destination: String,
    /// The images written, in order.
    pub images: Vec<ReportedImage>,
    /// The digests of what the names lead to: manifests and indexes, in order.
    pub manifests: Vec<String>,
    /// Layers and other blobs written; the same bytes count once.
    pub blobs: usize,
    /// Stored bytes read.
    pub bytes_read: u64,
    /// Stored bytes written for layers and other blobs.
    pub bytes_written: u64,
    /// Blobs that the destination had already, or took over from elsewhere: they were neither read nor written.
    pub blobs_held: usize,
    /// Bytes of the output, where that is one file.
    pub size: Option<u64>,
    /// Digests of stored bytes that were found right.
    pub digests_verified: usize,
    /// Diff IDs that were found right.
    pub diff_ids_verified: usize,
    /// Bytes that went through a temporary file: an input that can be read only once, or layers whose place was not known yet.
    pub bytes_spooled: u64,
    /// What the destination could not hold.
    pub omitted: Vec<String>,
    /// What was chosen, and what was odd.
    pub notes: Vec<String>,
}

/// An image of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportedImage {
    /// The image ID.
    pub id: String,
    /// Its platform.
    pub platform: String,
    /// Its names.
    pub names: Vec<String>,
    /// The diff IDs of its layers, base first.
    pub layers: Vec<String>,
}

/// Carries out `plan`. The output is visible only when this returns without an error.
///
/// # Errors
/// The first failure in the order of the plan: bytes that cannot be read or are not what was promised, an output that cannot be written, or
/// [`ErrorKind::Cancelled`].
pub fn run(plan: &Plan, source: &dyn Source, mut sink: Box<dyn Sink>, ctx: &Context) -> Result<Report> {
    let measured = merge::measure(plan, source, ctx)?;
    let plan = measured.as_ref().unwrap_or(plan);
    let destination = sink.describe();
    let writing = || format!("writing {destination}");
    let mut expected = plan.expected();
    stored::complete(&mut expected, plan, source, ctx)?;
    let guesses = if sink.order() == Order::AnyIfSized { guess_sizes(plan, source, ctx) } else { vec![None; plan.blobs.len()] };
    let moved = match move_blobs(plan, source, sink.as_mut(), &expected, &guesses, ctx)? {
        Moved::Done(written, counts) => (written, counts),
        // Somebody's trailer lies about the size: again, without believing any.
        Moved::GuessedWrong => match move_blobs(plan, source, sink.as_mut(), &expected, &vec![None; plan.blobs.len()], ctx)? {
            Moved::Done(written, counts) => (written, counts),
            Moved::GuessedWrong => return Err(Error::invalid("a size was guessed where none may be")),
        },
    };
    let (written, counts) = moved;
    ctx.cancel.poll()?;
    let settled = if plan.merges() { Some(plan.clone().settle(&written.iter().cloned().map(Some).collect::<Vec<_>>())?) } else { None };
    let plan = settled.as_ref().unwrap_or(plan);
    let sealed = seal(plan, &written).context(|| source.describe())?;
    let committed = sink.commit(&sealed).context(writing)?;
    let images = plan.images.iter().enumerate().map(|(at, image)| ReportedImage {
        id: image.config.digest().to_string(),
        platform: image.config.platform().to_string(),
        names: plan.names(at),
        layers: image.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
    });
    Ok(Report {
        source: source.describe(),
        destination,
        images: images.collect(),
        manifests: sealed.roots.iter().map(|root| root.descriptor.digest.to_string()).collect(),
        blobs: written.len(),
        bytes_read: counts.read,
        bytes_written: written.iter().map(|blob| blob.size).sum::<u64>() - counts.bytes_held,
        blobs_held: counts.held,
        size: committed.size,
        digests_verified: counts.digests,
        diff_ids_verified: counts.diff_ids,
        bytes_spooled: source.spooled() + committed.spooled,
        omitted: plan.omitted.clone(),
        notes: plan.notes.clone(),
    })
}

/// What became of one blob.
type BlobResult = Result<(Written, Counts)>;

/// What became of all blobs.
enum Moved {
    Done(Vec<Written>, Counts),
    /// The output made room by a size that proved wrong.
    GuessedWrong,
}

/// What each blob that will be decoded claims to become: with it, every blob has a place in an archive before it is written.
fn guess_sizes(plan: &Plan, source: &dyn Source, ctx: &Context) -> Vec<Option<u64>> {
    let guess = |planned: &PlannedBlob| {
        let (file, range) = (planned.action == LayerPlan::Recode(None)).then(|| source.file(planned.blob)).flatten()?;
        claimed_size(planned.compression, range.end - range.start, |at, buffer| {
            ctx.cancel.poll()?;
            file.read_exact_at(buffer, range.start + at)
        })
    };
    plan.blobs.iter().map(guess).collect()
}

/// Moves every blob, several at once.
fn move_blobs(
    plan: &Plan,
    source: &dyn Source,
    sink: &mut dyn Sink,
    expected: &Expected,
    guesses: &[Option<u64>],
    ctx: &Context,
) -> Result<Moved> {
    let cancel = ctx.cancel.child();
    let mut expected = expected.clone();
    for (blob, guess) in expected.blobs.iter_mut().zip(guesses) {
        blob.known.size = blob.known.size.or(*guess);
    }
    let sized = expected.blobs.iter().all(|blob| blob.known.size.is_some());
    let destination = sink.describe();
    let as_laid_out = sink.begin(expected, &cancel).context(|| format!("writing {destination}"))?;

    let sink = &*sink;
    let lanes = match source.parallel().max(sink.parallel()) {
        0 => lanes(plan, sink.order(), sized, ctx.pool.threads()),
        parallel => parallel,
    };
    let order = order(plan, sink.order(), sized, as_laid_out);
    let next = AtomicUsize::new(0);
    let guessed_wrong = AtomicBool::new(false);
    let results: Vec<Mutex<Option<BlobResult>>> = plan.blobs.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..lanes.min(plan.blobs.len()) {
            scope.spawn(|| {
                while let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let guess = guesses[*at].map(|guess| (guess, &guessed_wrong));
                    let transfer = Transfer { planned: &plan.blobs[*at], source, sink, task: *at, ctx, cancel: &cancel, guess };
                    let result = cancel.poll().and_then(|()| transfer.run());
                    if result.is_err() {
                        cancel.cancel();
                    }
                    *lock(&results[*at]) = Some(result);
                }
            });
        }
    });
    let results: Vec<_> = results.into_iter().map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
    let failed = |result: &Option<Result<_>>| matches!(result, Some(Err(error)) if error.kind() != ErrorKind::Cancelled);
    if guessed_wrong.into_inner() && !results.iter().any(failed) {
        return Ok(Moved::GuessedWrong);
    }
    collect(plan, source, results)
}

/// How many blobs the pool keeps on their way at once. One that is encoded keeps two threads busy by itself, and those behind one whose size is
/// open would only wait in spools, and be copied while nobody encodes any more.
fn lanes(plan: &Plan, wanted: Order, sized: bool, threads: usize) -> usize {
    let encodes = plan.blobs.iter().any(|blob| matches!(blob.action, LayerPlan::Recode(Some(_))));
    if wanted == Order::AnyIfSized && !sized && encodes { threads.div_ceil(2) } else { threads }
}

/// The order in which lanes take blobs: the largest first where that is allowed, so that no lane is left alone with one at the end.
fn order(plan: &Plan, wanted: Order, sized: bool, mut order: Vec<usize>) -> Vec<usize> {
    if wanted == Order::Any || (wanted == Order::AnyIfSized && sized) {
        order.sort_by_key(|at| std::cmp::Reverse(plan.blobs[*at].known.size));
    }
    order
}

/// All results, or the failure that the others follow from.
fn collect(plan: &Plan, source: &dyn Source, results: Vec<Option<BlobResult>>) -> Result<Moved> {
    let mut written = Vec::with_capacity(plan.blobs.len());
    let mut counts = Counts::default();
    let mut failure: Option<Error> = None;
    for (result, planned) in results.into_iter().zip(&plan.blobs) {
        let error = match result {
            Some(Ok((blob, count))) => {
                written.push(blob);
                counts.add(&count);
                continue;
            }
            Some(Err(error)) => error.frame(&planned.label).frame(source.describe()),
            None => Error::cancelled(),
        };
        // Others stop because one failed; that one is what there is to say.
        if failure.as_ref().is_none_or(|known| known.kind() == ErrorKind::Cancelled && error.kind() != ErrorKind::Cancelled) {
            failure = Some(error);
        }
    }
    failure.map_or(Ok(Moved::Done(written, counts)), Err)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{self, Read};
    use std::ops::Range;
    use std::sync::Arc;

    use longshore_testkit::facts::{Packing, facts};
    use longshore_testkit::images::{Image, Layer, Layout, docker_archive, pack};

    use super::*;
    use crate::catalog::{BlobId, Catalog, Known};
    use crate::compress::Encoding;
    use crate::digest::{Algorithm, Digester};
    use crate::format::WriteOptions;
    use crate::location::Location;
    use crate::plan::{Compress, ConvertOptions, convert};
    use crate::testing::{app, context, copy, layout, names, put, source};

    type Open = Box<dyn Fn() -> Result<Box<dyn Read + Send>> + Send + Sync>;

    /// A source that counts what is opened, and gives other bytes where it is told to.
    struct Odd {
        inner: Arc<dyn Source>,
        catalog: Catalog,
        opened: AtomicUsize,
        instead: Vec<(usize, Open)>,
    }

    impl Odd {
        fn new(inner: Arc<dyn Source>) -> Self {
            Self { catalog: inner.catalog().clone(), inner, opened: AtomicUsize::new(0), instead: Vec::new() }
        }

        fn instead(mut self, blob: usize, open: impl Fn() -> Result<Box<dyn Read + Send>> + Send + Sync + 'static) -> Self {
            self.instead.push((blob, Box::new(open)));
            self
        }
    }

    impl Source for Odd {
        fn catalog(&self) -> &Catalog {
            &self.catalog
        }

        fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            match self.instead.iter().find(|(at, _)| *at == blob.0) {
                Some((_, open)) => open(),
                None => self.inner.open(blob, from),
            }
        }

        fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
            self.inner.file(blob)
        }

        fn describe(&self) -> String {
            self.inner.describe()
        }
    }

    /// Three layers, packed as told.
    fn image(second: &Layer) -> Image {
        let noise = |seed| {
            Layer::of_tar(longshore_testkit::tar::write(&[longshore_testkit::tar::Member::file("n", longshore_testkit::noise(5000, seed))]))
        };
        Image::new("a:1").with(noise(1)).with(second.clone()).with(noise(2).packed(Packing::Gzip))
    }

    #[test]
    fn a_wrong_guess_means_to_begin_again() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = context(dir.path());
        let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let plain = Layer::new("etc/\netc/one=a text\netc/two=another text");
        let halves = plain.tar.split_at(1000);
        let members = [pack(halves.0, Packing::Gzip), pack(halves.1, Packing::Gzip)].concat();
        let right = source(&put(dir.path(), "right.tar", &docker_archive(&[image(&plain.clone().packed(Packing::Gzip))]))).unwrap();
        let right = Odd::new(right);
        copy(&right, &out("right"), &ctx).unwrap();
        assert_eq!(right.opened.load(Ordering::Relaxed), 3, "the guesses were right");
        // The size that gzip ends with is that of the last member alone: that is too little, and where the last is empty, nothing.
        let empty_last = [pack(&plain.tar, Packing::Gzip), pack(b"", Packing::Gzip)].concat();
        for (at, stored) in [members, empty_last].into_iter().enumerate() {
            let lying = source(&put(
                dir.path(),
                &format!("in-{at}.tar"),
                &docker_archive(&[image(&plain.clone().packed(Packing::Gzip).stored(stored))]),
            ))
            .unwrap();
            let lying = Odd::new(lying);
            let report = copy(&lying, &out("out"), &ctx).unwrap();
            assert!(lying.opened.load(Ordering::Relaxed) > 3, "a second pass");
            assert_eq!(fs::read(out("out")).unwrap(), fs::read(out("right")).unwrap());
            assert_eq!((report.blobs, report.diff_ids_verified), (3, 2));
        }
    }

    #[test]
    fn what_failed_is_reported_and_not_who_was_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        // Two lanes also where layers are encoded.
        let ctx = Context::new(4, dir.path().to_owned());
        let inner = layout(dir.path(), "in", &Layout::of(&[image(&Layer::new("a=1"))]));
        let mut odd = Odd::new(inner)
            .instead(0, || Ok(Box::new(io::repeat(0))))
            .instead(1, || Err(Error::new(ErrorKind::Unavailable, "the line is dead")));
        // Nothing says where the first ends, so that it ends when it is cancelled.
        odd.catalog.blobs[0].known = Known { size: None, digest: None, ..odd.catalog.blobs[0].known.clone() };
        for to in ["oci-archive", "oci"] {
            let error = copy(&odd, &format!("{to}:{}", dir.path().join("out").display()), &ctx).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains(&odd.catalog.blobs[1].place) && error.to_string().ends_with("the line is dead"), "{error}");
            assert_eq!(names(dir.path()), ["in"]);
            assert!(!ctx.cancel.is_cancelled());
        }
    }

    #[test]
    fn every_byte_is_verified() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = context(dir.path());
        let bytes = |of: &Layer| of.bytes();
        let layer = Layer::new("a=1").packed(Packing::Gzip);
        let inner = layout(dir.path(), "in", &Layout::of(&[image(&layer)]));
        let stored = bytes(&layer);
        let mut flipped = stored.clone();
        flipped[20] ^= 1;
        for (instead, says) in [
            ([&stored[..], &[0]].concat(), format!("more than the {} bytes", stored.len())),
            (stored[..stored.len() - 1].to_vec(), String::new()),
            (flipped, String::new()),
            (bytes(&Layer::new("a=2").packed(Packing::Gzip)), "its digest is".to_owned()),
        ] {
            let odd = Odd::new(Arc::clone(&inner)).instead(1, move || Ok(Box::new(io::Cursor::new(instead.clone()))));
            for to in ["docker-archive", "oci-archive", "oci", "dir"] {
                let error = copy(&odd, &format!("{to}:{}", dir.path().join("out").display()), &ctx).unwrap_err();
                let text = error.to_string();
                assert!(text.contains(&inner.catalog().blobs[1].place) && text.contains(&says), "{to}: {text}");
                assert_ne!(error.kind(), ErrorKind::Cancelled, "{to}: {text}");
                assert_eq!(names(dir.path()), ["in"]);
            }
        }
    }

    #[test]
    fn compressed_layers_without_a_digest_are_verified_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = context(dir.path());
        let wrong = Layer::new("a=1").packed(Packing::Gzip).stored(pack(&Layer::new("a=2").tar, Packing::Gzip));
        let opened = source(&put(dir.path(), "in.tar", &docker_archive(&[image(&wrong)]))).unwrap();
        for to in ["docker-archive", "oci", "dir"] {
            let error = copy(opened.as_ref(), &format!("{to}:{}", dir.path().join("out").display()), &ctx).unwrap_err();
            assert!(error.kind() == ErrorKind::Mismatch && error.to_string().contains("has diff ID"), "{to}: {error}");
            assert_eq!(names(dir.path()), ["in.tar"]);
        }
    }

    #[test]
    fn a_request_to_stop_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = context(dir.path());
        let inner = layout(dir.path(), "in", &Layout::of(&[image(&Layer::new("a=1"))]));
        let cancel = ctx.cancel.clone();
        let odd = Odd::new(inner).instead(2, move || {
            cancel.cancel();
            Ok(Box::new(io::repeat(0)))
        });
        for to in ["oci-archive", "oci", "dir", "docker-archive"] {
            let error = copy(&odd, &format!("{to}:{}", dir.path().join("out").display()), &ctx).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            assert_eq!(names(dir.path()), ["in"]);
        }
    }

    #[test]
    fn layers_that_are_encoded_take_turns_where_two_threads_are_all() {
        let dir = tempfile::tempdir().unwrap();
        let inner = layout(dir.path(), "in", &Layout::of(&[image(&Layer::new("a=1"))]));
        let recode = |compress| {
            let options = ConvertOptions { compress: Some(compress), ..ConvertOptions::default() };
            let accepts = Location::parse_destination("oci-archive:out").unwrap().accepts(&WriteOptions::default()).unwrap();
            convert(inner.catalog(), &accepts, &options).unwrap()
        };
        let encoded = recode(Compress::Encode { encoding: Encoding::default(), always: true });
        let copied = recode(Compress::Keep);
        let lanes = |plan, sized| [1, 2, 3, 8].map(|threads| lanes(plan, Order::AnyIfSized, sized, threads));
        assert_eq!((lanes(&encoded, false), lanes(&copied, false)), ([1, 1, 2, 4], [1, 2, 3, 8]));
        assert_eq!(self::lanes(&encoded, Order::Any, false, 2), 2, "files of their own wait for nobody");
        assert_eq!(self::lanes(&encoded, Order::InTurn, false, 2), 2, "one goes out while the next is encoded");
    }

    #[test]
    fn a_report_adds_up() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = context(dir.path());
        let inner = layout(dir.path(), "in", &Layout::of(&[app("a:1").name("a:2"), app("").platform("linux/arm64")]));
        let out = dir.path().join("out.tar");
        let report = copy(inner.as_ref(), &format!("oci-archive:{}", out.display()), &ctx).unwrap();
        let stored: u64 = inner.catalog().blobs.iter().map(|blob| blob.known.size.unwrap()).sum();
        assert_eq!((report.blobs, report.bytes_read, report.digests_verified, report.diff_ids_verified), (2, stored, 2, 2));
        assert_eq!(report.size, Some(fs::metadata(&out).unwrap().len()));
        assert_eq!(report.images.iter().map(|image| image.names.len()).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(report.manifests.len(), 3, "one for each name");
        let written = source(out.to_str().unwrap()).unwrap();
        assert_eq!(report.bytes_written, written.catalog().blobs.iter().map(|blob| blob.known.size.unwrap()).sum::<u64>());
        assert_eq!(facts(&out).essence(), facts(&dir.path().join("in")).essence());
    }

    #[test]
    fn diff_ids_of_another_algorithm_are_verified_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = context(dir.path());
        let sha512 = |bytes: &[u8]| {
            let mut digester = Digester::new(Algorithm::Sha512);
            digester.update(bytes);
            digester.finish().to_string()
        };
        let (layer, other) = (Layer::new("a=1"), Layer::new("b=2").packed(Packing::Gzip));
        let base = Image::new("a:1").with(layer.clone()).with(other.clone());
        let config = String::from_utf8(base.config_bytes()).unwrap();
        let config = config.replace(&layer.diff_id(), &sha512(&layer.tar)).replace(&other.diff_id(), &sha512(&other.tar));
        let opened = source(&put(dir.path(), "in.tar", &docker_archive(&[base.clone().config(config.clone())]))).unwrap();
        for to in ["oci", "docker-archive", "dir"] {
            let out = format!("{to}:{}", dir.path().join(format!("out-{to}")).display());
            let report = copy(opened.as_ref(), &out, &ctx).unwrap_or_else(|error| panic!("{to}: {error}"));
            assert!(report.diff_ids_verified > 0);
            let again = source(&out).unwrap();
            assert!(crate::validate::check(again.as_ref(), &ctx).unwrap().is_empty(), "{to}");
        }
        let wrong = config.replace(&sha512(&other.tar), &sha512(b"something else"));
        let opened = source(&put(dir.path(), "wrong.tar", &docker_archive(&[base.config(wrong)]))).unwrap();
        let error = copy(opened.as_ref(), &format!("oci:{}", dir.path().join("wrong").display()), &ctx).unwrap_err();
        assert!(error.to_string().contains("diff ID sha512:"), "{error}");
    }
}

//! Layers out of files: tars as they are, plain or compressed, and tars that are made of folders.
//!
//! Each is read once when it is opened, several at a time, for its digests; a run reads it again, and verifies that it is still the same.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::change::Added;
use crate::catalog::{Blob, BlobId, Catalog, Known};
use crate::compress::{Compression, SNIFF, decoder, sniff};
use crate::context::Context;
use crate::digest::{Algorithm, DiffId};
use crate::error::{Context as _, Error, Result};
use crate::layer::build::{Build, BuildOptions, Mapping};
use crate::pool::{Buffer, CHUNK, DigestStream};
use crate::source::Source;
use crate::tar::{BLOCK, Parser, TarLimits};
use crate::transport::{Section, open_stored};

/// A layer to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInput {
    /// What a Bazel archive calls it; its diff ID when absent.
    pub id: Option<String>,
    /// What it holds.
    pub content: LayerContent,
}

/// What a layer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerContent {
    /// A tar, plain or compressed; `-` is standard input.
    File(PathBuf),
    /// Files and folders, of which a tar is made.
    Files(Vec<Mapping>),
}

impl LayerInput {
    /// Reads `FILE`, `DIR`, `ID=FILE`, or `FROM=TO` where `FROM` is there and `TO` begins with `/`.
    ///
    /// # Errors
    /// When it is nothing, or the ID cannot name a member of an archive.
    pub fn parse(text: &str) -> Result<Self> {
        let there = |path: &str| Path::new(path).symlink_metadata().is_ok();
        // With a slash at its end, a link to a directory is the directory.
        let folder = |path: &str| if path.ends_with('/') { path.into() } else { format!("{path}/").into() };
        let content = |path: &str| match Path::new(path).is_dir() {
            true => LayerContent::Files(vec![Mapping { from: folder(path), to: "/".to_owned() }]),
            false => LayerContent::File(path.into()),
        };
        // What is there under all of that name is meant, equals signs and all.
        let split = if there(text) { None } else { text.split_once('=') };
        match split {
            _ if text.is_empty() => Err(Error::invalid("an empty path of a layer")),
            None => Ok(Self { id: None, content: content(text) }),
            Some((from, to)) if to.starts_with('/') && there(from) => {
                Ok(Self { id: None, content: LayerContent::Files(vec![Mapping { from: from.into(), to: to.to_owned() }]) })
            }
            Some((from, to)) if to.starts_with('/') && !there(to) => {
                let error = Error::invalid(format_args!("neither {from} nor {to} is there"));
                Err(error.hint("expected FILE, DIR, ID=FILE or FROM=/TO"))
            }
            Some((id, path)) if is_member_name(id) && !path.is_empty() => Ok(Self { id: Some(id.to_owned()), content: content(path) }),
            Some(_) => {
                let error = Error::invalid(format_args!("{text} is neither a layer nor a name and a layer"));
                Err(error.hint("expected FILE, DIR, ID=FILE or FROM=/TO, with an ID without slashes"))
            }
        }
    }

    /// What it is, for messages.
    pub fn label(&self) -> String {
        match &self.content {
            LayerContent::File(path) if path.as_os_str() == "-" => "standard input".to_owned(),
            LayerContent::File(path) => path.display().to_string(),
            LayerContent::Files(mappings) => {
                mappings.iter().map(|mapping| mapping.from.display().to_string()).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// Whether a layer may be called so in a folder of an archive.
pub(super) fn is_member_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && !text.contains(|c: char| c == '/' || c.is_control())
}

/// Layers that are open, with their digests.
pub struct LayerFiles {
    /// Its blobs are the layers, in order; it has no images.
    catalog: Catalog,
    bytes: Vec<Bytes>,
    ids: Vec<Option<String>>,
    spooled: u64,
}

impl fmt::Debug for LayerFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerFiles").field("blobs", &self.catalog.blobs).finish_non_exhaustive()
    }
}

/// Where the bytes of a layer come from.
enum Bytes {
    File(Arc<File>, u64),
    Made(Build),
}

impl Bytes {
    fn open(&self) -> Box<dyn Read + Send> {
        match self {
            Self::File(file, len) => Box::new(Section::new(Arc::clone(file), 0, *len)),
            Self::Made(build) => build.reader(),
        }
    }
}

impl LayerFiles {
    /// Opens layers and reads them for their digests. What can be read only once is copied into `spool_dir`.
    ///
    /// # Errors
    /// When one cannot be read, is no tar, or two different ones have one ID.
    pub fn open(inputs: &[LayerInput], build: &BuildOptions, spool_dir: &Path, ctx: &Context) -> Result<Self> {
        let mut files = Self { catalog: Catalog::default(), bytes: Vec::new(), ids: Vec::new(), spooled: 0 };
        for input in inputs {
            let bytes = match &input.content {
                LayerContent::File(path) => {
                    let archive = open_stored(path, spool_dir, ctx)?;
                    files.spooled += archive.spooled;
                    Bytes::File(archive.file, archive.len)
                }
                LayerContent::Files(mappings) => Bytes::Made(Build::scan(mappings, build, &ctx.cancel)?),
            };
            files.bytes.push(bytes);
            files.ids.push(input.id.clone());
        }
        let examined = examine_all(&files.bytes, ctx);
        for (input, examined) in inputs.iter().zip(examined) {
            let (known, compression) = examined.context(|| format!("layer {}", input.label()))?;
            files.catalog.add_blob(Blob { known, compression, place: format!("layer {}", input.label()) });
        }
        files.refuse_one_id_for_two()?;
        Ok(files)
    }

    /// What a config is told of them.
    pub fn added(&self) -> Vec<Added> {
        let diff_id = |blob: &Blob| blob.known.diff_id.expect("every layer was digested when it was opened");
        self.catalog.blobs.iter().map(|blob| Added { diff_id: diff_id(blob), empty: blob.known.size == Some(0) }).collect()
    }

    /// The ID that the caller gave to a layer.
    pub(super) fn id(&self, layer: usize) -> Option<&String> {
        self.ids[layer].as_ref()
    }

    fn refuse_one_id_for_two(&self) -> Result<()> {
        let mut known = HashMap::new();
        for (id, blob) in self.ids.iter().zip(&self.catalog.blobs).filter_map(|(id, blob)| Some((id.as_ref()?, blob))) {
            let first = *known.entry(id).or_insert(blob.known.diff_id);
            if first != blob.known.diff_id {
                return Err(Error::invalid(format_args!("two different layers have the ID {id}")));
            }
        }
        Ok(())
    }
}

/// Digests layers, several at once.
fn examine_all(all: &[Bytes], ctx: &Context) -> Vec<Result<(Known, Compression)>> {
    ctx.pool.side_by_side(all.len(), |at| examine(&all[at], ctx))
}

/// Reads a layer for its size, its digest and its diff ID.
fn examine(bytes: &Bytes, ctx: &Context) -> Result<(Known, Compression)> {
    let mut head = Vec::with_capacity(SNIFF);
    bytes.open().take(SNIFF as u64).read_to_end(&mut head).map_err(Error::io)?;
    let compression = sniff(&head)?;
    let mut stored = Digesting { input: bytes.open(), ctx, digest: None, size: 0, rest: None };
    // Of what is stored plain, the digest is the diff ID: one of them is enough.
    if compression != Compression::None {
        stored.digest = Some(ctx.pool.digest(Algorithm::Sha256));
    }
    let mut diff = ctx.pool.digest(Algorithm::Sha256);
    let mut first = true;
    {
        let mut plain = decoder(compression, &mut stored, (&ctx.limits).into())?;
        loop {
            let chunk = ctx.pool.read(&mut plain, CHUNK)?;
            if std::mem::take(&mut first) {
                refuse_other_than_tar(&chunk)?;
            }
            if chunk.is_empty() {
                break;
            }
            diff.update(Arc::new(chunk));
        }
    }
    // A decoder may leave bytes that it has no use for.
    while stored.next_chunk()?.is_some() {}
    let diff_id = DiffId(diff.finish());
    let digest = stored.digest.take().map_or(diff_id.0, |digest| digest.finish());
    Ok((Known { size: Some(stored.size), digest: Some(digest), diff_id: Some(diff_id) }, compression))
}

/// Looks at the first bytes of a layer: a header, or the zeros of a tar without one, or nothing at all.
fn refuse_other_than_tar(plain: &[u8]) -> Result<()> {
    let head = &plain[..plain.len().min(BLOCK)];
    if head.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let taken = Parser::new(TarLimits::default()).take(head);
    taken.map(drop).map_err(|error| Error::invalid(format_args!("it is not a tar archive: {error}")))
}

/// Digests what is read through it.
struct Digesting<'a> {
    input: Box<dyn Read + Send>,
    ctx: &'a Context,
    digest: Option<Box<dyn DigestStream>>,
    size: u64,
    /// What was read and not taken yet.
    rest: Option<(Arc<Buffer>, usize)>,
}

impl Digesting<'_> {
    fn next_chunk(&mut self) -> Result<Option<Arc<Buffer>>> {
        self.ctx.cancel.poll()?;
        let chunk = Arc::new(self.ctx.pool.read(&mut self.input, CHUNK)?);
        if chunk.is_empty() {
            return Ok(None);
        }
        self.size += chunk.len() as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(Arc::clone(&chunk));
        }
        Ok(Some(chunk))
    }
}

impl Read for Digesting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (chunk, at) = match self.rest.take() {
            Some(rest) => rest,
            None => match self.next_chunk()? {
                Some(chunk) => (chunk, 0),
                None => return Ok(0),
            },
        };
        let step = buffer.len().min(chunk.len() - at);
        buffer[..step].copy_from_slice(&chunk[at..at + step]);
        if at + step < chunk.len() {
            self.rest = Some((chunk, at + step));
        }
        Ok(step)
    }
}

impl Source for LayerFiles {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        match &self.bytes[blob.0] {
            Bytes::File(file, len) => Ok(Box::new(Section::new(Arc::clone(file), from.min(*len), *len))),
            Bytes::Made(build) => {
                let mut reader = build.reader();
                io::copy(&mut (&mut reader).take(from), &mut io::sink()).map_err(Error::io)?;
                Ok(reader)
            }
        }
    }

    fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        match &self.bytes[blob.0] {
            Bytes::File(file, len) => Some((Arc::clone(file), 0..*len)),
            Bytes::Made(_) => None,
        }
    }

    fn describe(&self) -> String {
        match self.catalog.blobs.as_slice() {
            [only] => only.place.clone(),
            several => format!("{} layers", several.len()),
        }
    }

    fn spooled(&self) -> u64 {
        self.spooled
    }
}

#[cfg(test)]
mod tests {
    use longshore_testkit::facts::Packing;
    use longshore_testkit::images::Layer;

    use super::*;

    #[test]
    fn layers_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for name in ["a.tar", "x=y.tar"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink(".", at("link")).unwrap();
        let file = |id: Option<&str>, name: &str| LayerInput { id: id.map(str::to_owned), content: LayerContent::File(name.into()) };
        let files = |id: Option<&str>, from: &str, to: &str| {
            let mapping = Mapping { from: from.into(), to: to.to_owned() };
            LayerInput { id: id.map(str::to_owned), content: LayerContent::Files(vec![mapping]) }
        };
        for (text, expected) in [
            (at("a.tar"), file(None, &at("a.tar"))),
            (at("x=y.tar"), file(None, &at("x=y.tar"))),
            ("absent.tar".to_owned(), file(None, "absent.tar")),
            ("-".to_owned(), file(None, "-")),
            (at(""), files(None, &at(""), "/")),
            (at("link"), files(None, &format!("{}/", at("link")), "/")),
            (format!("{}=/etc/a", at("a.tar")), files(None, &at("a.tar"), "/etc/a")),
            (format!("base={}", at("a.tar")), file(Some("base"), &at("a.tar"))),
            (format!("base={}", at("")), files(Some("base"), &at(""), "/")),
            ("a=b=c".to_owned(), file(Some("a"), "b=c")),
        ] {
            assert_eq!(LayerInput::parse(&text).unwrap(), expected, "{text}");
        }
        for bad in ["", "=a.tar", "a=", "a/b=c", "..=c", "/absent=/etc", "absent=/absent"] {
            assert!(LayerInput::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn layers_are_digested_as_stored_and_as_they_decode() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = crate::testing::context(dir.path());
        let packings = [Packing::Plain, Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2];
        let layers = packings.map(|packing| Layer::new("a=1\nb=2").packed(packing));
        let inputs: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(at, layer)| {
                let path = dir.path().join(at.to_string());
                std::fs::write(&path, layer.bytes()).unwrap();
                LayerInput::parse(path.to_str().unwrap()).unwrap()
            })
            .collect();
        let files = LayerFiles::open(&inputs, &BuildOptions::default(), dir.path(), &ctx).unwrap();
        for (at, (layer, blob)) in layers.iter().zip(&files.catalog().blobs).enumerate() {
            let stored = layer.bytes();
            assert_eq!(blob.known.size, Some(stored.len() as u64));
            assert_eq!(blob.known.digest.unwrap().to_string(), longshore_testkit::digest(&stored));
            assert_eq!(blob.known.diff_id.unwrap().to_string(), layer.diff_id());
            let mut read = Vec::new();
            files.open(BlobId(at), 3).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, stored[3..]);
        }
    }

    #[test]
    fn what_is_no_layer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = crate::testing::context(dir.path());
        let open = |name: &str, bytes: &[u8]| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            let input = LayerInput::parse(dir.path().join(name).to_str().unwrap()).unwrap();
            LayerFiles::open(&[input], &BuildOptions::default(), dir.path(), &ctx).map(|files| files.added())
        };
        assert!(open("text", b"hello").unwrap_err().to_string().contains("/text: it is not a tar archive"));
        assert!(open("zip", b"PK\x03\x04 and more").unwrap_err().to_string().contains("zip"));
        let tar = Layer::new("a=1").bytes();
        let twice = longshore_testkit::images::pack(&longshore_testkit::images::pack(&tar, Packing::Gzip), Packing::Gzip);
        assert!(open("twice", &twice).is_err());
        assert!(open("none", b"").unwrap()[0].empty && !open("zeros", &[0; 1024]).unwrap()[0].empty);
        // One name for two.
        std::fs::write(dir.path().join("a"), &tar).unwrap();
        let inputs = ["x=a", "x=zeros"].map(|text| LayerInput::parse(&text.replace('=', &format!("={}/", dir.path().display()))).unwrap());
        let error = LayerFiles::open(&inputs, &BuildOptions::default(), dir.path(), &ctx).unwrap_err();
        assert_eq!(error.to_string(), "two different layers have the ID x");
    }
}

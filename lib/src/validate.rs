//! Checks everything that can be checked of what a source holds.
//!
//! Opening a source with [`keep_going`](crate::location::OpenOptions::keep_going) has looked at all metadata already: JSON and its schema,
//! digests and sizes of documents, layer counts, missing files. Here the bytes of every blob are read: size, digest, diff ID, and the
//! structure of each layer's tar.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::{BlobId, Catalog};
use crate::compress::sniffing_decoder;
use crate::context::{Cancel, Context};
use crate::digest::Algorithm;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{LayerPlan, PlannedBlob};
use crate::pool::{CHUNK, DigestStream, Pool};
use crate::run::transfer::{Rest, Stored};
use crate::source::Source;
use crate::tar::{Entries, LayerChecker, TarLimits};

/// Entries of one layer that are listed as wrong; of more there is only the number, since all that is listed is held in memory.
const LISTED: usize = 20;

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where: a file or member.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.place, self.what) }
    }
}

/// Checks all images of a source. Nothing found means that every size, digest and diff ID is right and every layer is a sound tar.
///
/// # Errors
/// Only when the check itself cannot go on: what is wrong with the images is a finding.
pub fn check(source: &dyn Source, ctx: &Context) -> Result<Vec<Finding>> {
    let catalog = source.catalog();
    let mut findings: Vec<Finding> = catalog.findings.iter().map(|what| Finding { place: String::new(), what: what.clone() }).collect();
    findings.extend(ambiguous_names(catalog));
    let cancel = ctx.cancel.child();
    let check = |at| if cancel.is_cancelled() { Vec::new() } else { check_blob(source, catalog, at, ctx, &cancel) };
    let found = ctx.pool.side_by_side(catalog.blobs.len(), check);
    ctx.cancel.poll()?;
    findings.extend(found.into_iter().flatten());
    Ok(findings)
}

/// Names that lead to two different images: which of them a reader takes depends on the reader.
fn ambiguous_names(catalog: &Catalog) -> Vec<Finding> {
    let mut known = HashMap::new();
    let mut findings = Vec::new();
    for root in &catalog.roots {
        let (Some(name), identity) = (&root.name, catalog.identity(&root.node)) else { continue };
        if *known.entry(name).or_insert(identity) != identity {
            findings.push(Finding { place: String::new(), what: format!("two different images are called {name}") });
        }
    }
    findings
}

fn check_blob(source: &dyn Source, catalog: &Catalog, at: usize, ctx: &Context, cancel: &Cancel) -> Vec<Finding> {
    let blob = &catalog.blobs[at];
    let finding = |what: String| Finding { place: blob.place.clone(), what };
    let planned = PlannedBlob {
        blob: BlobId(at),
        action: LayerPlan::Copy,
        known: blob.known.clone(),
        compression: blob.compression,
        label: blob.place.clone(),
    };
    ctx.progress.begin(at, &blob.place, blob.known.size);
    let mut findings = Vec::new();
    let result = Stored::open(source, BlobId(at), planned.known.clone(), at, ctx, cancel).and_then(|mut stored| {
        let content = if blob.known.diff_id.is_some() { check_layer(&mut stored, &planned, ctx, &mut findings) } else { Ok(()) };
        // A wrong digest says more than what is wrong with the bytes, and comes first.
        stored.finish().and(content)
    });
    if let Err(error) = result
        && error.kind() != ErrorKind::Cancelled
    {
        findings.insert(0, finding(error.to_string()));
    }
    ctx.progress.end(at);
    findings
}

/// Reads a layer's tar to its end.
fn check_layer(stored: &mut Stored<'_>, planned: &PlannedBlob, ctx: &Context, findings: &mut Vec<Finding>) -> Result<()> {
    let plain = sniffing_decoder(planned.compression, stored, (&ctx.limits).into());
    let algorithm = planned.known.diff_id.map_or(Algorithm::Sha256, |id| id.0.algorithm());
    let mut digested = Digested { inner: plain, digest: ctx.pool.digest(algorithm), pool: &ctx.pool, rest: Rest::default() };
    let structure = check_tar(&mut digested, planned, findings);
    if let Err(error) = io::copy(&mut digested, &mut io::sink()) {
        // A stream that has failed once says no more why.
        return structure.and(Err(Error::io(error)));
    }
    if let Err(error) = structure {
        findings.push(Finding { place: planned.label.clone(), what: error.to_string() });
    }
    let found = digested.digest.finish();
    if let Some(expected) = planned.known.diff_id.filter(|expected| expected.0 != found) {
        return Err(Error::mismatch(format_args!("its uncompressed tar has diff ID {found}, expected {expected}")));
    }
    Ok(())
}

fn check_tar(plain: &mut impl Read, planned: &PlannedBlob, findings: &mut Vec<Finding>) -> Result<()> {
    let mut plain = plain;
    let mut first = [0];
    // Docker writes an archive of no bytes at all for a layer that changes nothing (scratch images of old).
    if plain.read(&mut first).map_err(Error::io)? == 0 {
        return Ok(());
    }
    let mut entries = Entries::new((&first[..]).chain(&mut plain), TarLimits::default());
    let mut checker = LayerChecker::new();
    let mut found = 0;
    let mut find = |what: String| findings.push(Finding { place: planned.label.clone(), what });
    let read = loop {
        match entries.next_entry() {
            Ok(Some(entry)) => {
                let Some(problem) = checker.entry(&entry) else { continue };
                found += 1;
                if found <= LISTED {
                    find(problem.to_string());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if found > LISTED {
        find(format!("{} more entries are wrong", found - LISTED));
    }
    read
}

/// Digests what is read through it, in chunks: headers are read in blocks, and a job for each block would cost more than its digest.
struct Digested<'a, R> {
    inner: R,
    digest: Box<dyn DigestStream>,
    pool: &'a Pool,
    rest: Rest,
}

impl<R: Read> Read for Digested<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { inner, digest, pool, rest } = self;
        rest.read(buffer, || {
            let chunk = Arc::new(pool.read(inner, CHUNK)?);
            digest.update(Arc::clone(&chunk));
            Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
        })
    }
}

#[cfg(test)]
mod tests {
    use longshore_testkit::facts::Packing;
    use longshore_testkit::images::{Archive, Image, Layer, Layout, docker_archive, pack};
    use longshore_testkit::tar::{self, Member};

    use super::*;
    use crate::testing::{app, context, put, tolerant};

    /// What `check` says of an archive.
    fn findings(archive: &Archive) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let source = tolerant(&put(dir.path(), "in.tar", archive)).unwrap();
        check(source.as_ref(), &context(dir.path())).unwrap().iter().map(Finding::to_string).collect()
    }

    fn image(layer: Layer) -> Archive {
        docker_archive(&[Image::new("a:1").layer("first=1").with(layer)])
    }

    #[test]
    fn sound_images_have_none() {
        let packed = [Packing::Plain, Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2];
        let all = packed.iter().fold(app("a:1"), |image, packing| image.with(Layer::new("a=1\nb=>a").packed(*packing)));
        assert!(findings(&docker_archive(std::slice::from_ref(&all))).is_empty());
        // Layers in xz and bzip2 have no media type in OCI.
        let all = Image { layers: all.layers[..5].to_vec(), ..all };
        assert!(findings(&Layout::of(&[all]).archive()).is_empty());
        assert!(findings(&image(Layer::of_tar(Vec::new()))).is_empty(), "a layer of no bytes is what old engines wrote for nothing");
        let large = Layer::of_tar(tar::write(&[Member::file("n", longshore_testkit::noise(1_500_000, 1)), Member::file("m", "x")]));
        assert!(findings(&image(large.packed(Packing::Gzip))).is_empty());
    }

    #[test]
    fn wrong_bytes_are_found_with_their_place() {
        let layer = Layer::new("a=1");
        let name = format!("layer {}.tar: ", longshore_testkit::hex(&layer.tar));
        let mut archive = image(layer.clone());
        archive.member(&format!("{}.tar", longshore_testkit::hex(&layer.tar))).data[512] ^= 1;
        let found = findings(&archive);
        assert!(found.len() == 1 && found[0].starts_with(&name) && found[0].contains("its digest is"), "{found:?}");

        // Compressed, where nothing but the diff ID vouches for it.
        let other = layer.clone().packed(Packing::Zstd).stored(pack(&Layer::new("a=2").tar, Packing::Zstd));
        let found = findings(&image(other));
        assert!(found.len() == 1 && found[0].contains("its uncompressed tar has diff ID"), "{found:?}");

        let cut = pack(&layer.tar, Packing::Gzip);
        let found = findings(&image(layer.packed(Packing::Gzip).stored(cut[..cut.len() - 9].to_vec())));
        assert!(found.len() == 1 && found[0].contains("gzip"), "{found:?}");
    }

    #[test]
    fn blobs_of_a_layout_are_digested_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::of(&[Image::new("a:1").with(Layer::new("a=1").packed(Packing::Gzip))]);
        let artifact = layout.artifact("application/x", "signature", None);
        layout.root(artifact, None);
        let mut archive = layout.archive();
        let payload = format!("blobs/{}", longshore_testkit::digest(b"signature").replace(':', "/"));
        archive.member(&payload).data[0] ^= 1;
        let source = tolerant(&put(dir.path(), "in.tar", &archive)).unwrap();
        let found = check(source.as_ref(), &context(dir.path())).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].place.contains(&payload) && found[0].what.contains("its digest is"), "{found:?}");
    }

    #[test]
    fn layers_are_judged_as_tars() {
        let members = [
            Member::file("../out", ""),
            Member::file("file", ""),
            Member::file("file/below", ""),
            Member::other(b'1', "self", "self"),
            Member::file(".wh.", ""),
        ];
        let found = findings(&image(Layer::of_tar(tar::write(&members)).packed(Packing::Gzip)));
        for part in ["../out", "lies below `file`", "points to itself", "whiteout `.wh.` removes nothing"] {
            assert!(found.iter().any(|finding| finding.contains(part)), "{part} is not in {found:?}");
        }
        assert_eq!(found.len(), 4, "{found:?}");
        let many: Vec<_> = (0..50).map(|at| Member::file(format!("../{at}"), "")).collect();
        let found = findings(&image(Layer::of_tar(tar::write(&many))));
        assert!(found.len() == LISTED + 1 && found[LISTED].ends_with("30 more entries are wrong"), "{found:?}");
        // A size that reaches beyond the end, and no tar at all.
        let mut lying = Member::file("a", "text");
        lying.size_field = Some(*b"00000777777\0");
        for bytes in [tar::write(&[lying]), vec![b'x'; 2000]] {
            let found = findings(&image(Layer::of_tar(bytes)));
            assert!(found.len() == 1 && !found[0].contains("digest"), "{found:?}");
        }
    }

    #[test]
    fn what_opening_found_comes_first_and_the_rest_is_checked() {
        let first = Image::new("a:1").layer("a=1");
        let second = Image::new("b:1").with(Layer::new("b=1").packed(Packing::Gzip).stored(pack(&Layer::new("b=2").tar, Packing::Gzip)));
        let archive = docker_archive(&[first.clone(), second]).without(&format!("{}.json", first.id().replace("sha256:", "")));
        let found = findings(&archive);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("manifest.json: image 0: config") && found[1].contains("diff ID"), "{found:?}");
    }

    #[test]
    fn a_check_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let source = tolerant(&put(dir.path(), "in.tar", &docker_archive(&[app("a:1")]))).unwrap();
        let ctx = context(dir.path());
        ctx.cancel.cancel();
        assert_eq!(check(source.as_ref(), &ctx).unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

//! Fuzz entry points of the readers: whole archives, and trees of documents.
//!
//! Whatever comes in, a reader gives a catalog that holds together or an error that is one line; and `check`, which goes on after what is
//! wrong, never finds less than what an ordinary reader stops at.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::files::{ArchiveFiles, Files};
use super::{FORMATS, by_name};
use super::{Format, Held, Holding, Place, dir, google_dir, oci_layout};
use crate::catalog::{BlobId, Catalog, Content, Node, Wanted};
use crate::context::Context;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::source::{Pick, Source};
use crate::spec::layout::CONTENT;
use crate::transport::Archive;
use crate::tree::Opening;

/// Bytes of one blob that are read.
const READ: u64 = 64 << 10;

/// Small limits, so that what is in their way is met.
fn context() -> &'static Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let limits =
            Limits { nodes: 200, members: 500, names: 64 << 10, layers: 100, index_depth: 6, metadata: 1 << 20, ..Limits::default() };
        Context { limits, ..Context::new(1, PathBuf::from(".")) }
    })
}

/// A file without a name that holds `bytes`.
fn file_of(bytes: &[u8]) -> Option<Arc<File>> {
    let mut file = tempfile::tempfile().ok()?;
    file.write_all(bytes).ok()?;
    Some(Arc::new(file))
}

/// Reads `data` as an archive: in the format that is found in it, and in the others.
pub fn fuzz_archive(data: &[u8]) {
    let Some(file) = file_of(data) else { return };
    let scan = || {
        let archive = Archive { file: Arc::clone(&file), len: data.len() as u64, label: "fuzz".to_owned(), spooled: 0 };
        ArchiveFiles::scan(archive, context())
    };
    match scan() {
        Err(error) => one_line(&error),
        Ok(_) => {
            for format in FORMATS.iter().copied().filter(|format| format.place() == Place::Archive) {
                read_both_ways(&|opening| format.open(Held(Holding::Archive(scan()?)), opening));
            }
        }
    }
}

/// Reads `data` as an OCI layout: pieces between lines of `--`, the first of which is `index.json`, and the others blobs.
///
/// In a piece, `$N` stands for the digest of piece number N and `#N` for its size, where that comes later: so digests are right whatever
/// a fuzzer does, and what they guard is reached.
pub fn fuzz_layout(data: &[u8]) {
    let Some(pieces) = Pieces::new(data, "index.json", |digest| oci_layout::blob_name(crate::tree::Role::Blob, digest)) else { return };
    read_both_ways(&|opening| oci_layout::read_layout("oci", Box::new(pieces.clone()), opening));
}

/// Reads `data` as a `dir:` folder: pieces as for [`fuzz_layout`], the first of which is `manifest.json`.
pub fn fuzz_dir(data: &[u8]) {
    let Some(pieces) = Pieces::new(data, "manifest.json", |digest| digest.hex()) else { return };
    read_both_ways(&|opening| dir::read(Box::new(pieces.clone()), opening));
}

/// Reads the members of an archive as the files of a `google-dir:` folder.
pub fn fuzz_google_dir(data: &[u8]) {
    let Some(file) = file_of(data) else { return };
    let scan = || {
        let archive = Archive { file: Arc::clone(&file), len: data.len() as u64, label: "fuzz".to_owned(), spooled: 0 };
        ArchiveFiles::scan(archive, context())
    };
    if scan().is_ok() {
        read_both_ways(&|opening| google_dir::read(Box::new(scan()?), opening));
    }
}

fn read_both_ways(open: &dyn Fn(&Opening<'_>) -> Result<Arc<dyn Source>>) {
    let read = |keep_going| {
        open(&Opening { pick: None, wanted: &Wanted::All, referrers: false, missing_layers: false, keep_going, ctx: context() })
    };
    let picking = |pick: &Pick| {
        open(&Opening {
            pick: Some(pick),
            wanted: &Wanted::All,
            referrers: false,
            missing_layers: false,
            keep_going: false,
            ctx: context(),
        })
    };
    let (strict, tolerant) = (read(false), read(true));
    match (&strict, &tolerant) {
        (Ok(source), Ok(tolerant)) => {
            assert!(source.catalog().findings.is_empty() && tolerant.catalog().findings.is_empty(), "a sound source has findings");
            holds_together(source.as_ref());
            assert_eq!(source.catalog().images.len(), tolerant.catalog().images.len());
        }
        (Err(error), Ok(tolerant)) => {
            one_line(error);
            assert!(!tolerant.catalog().findings.is_empty(), "check finds nothing, but reading says: {error}");
            tolerant.catalog().findings.iter().for_each(|finding| assert!(!finding.contains('\n'), "{finding:?}"));
            holds_together(tolerant.as_ref());
        }
        (Err(error), Err(_)) => one_line(error),
        (Ok(_), Err(error)) => panic!("check refuses what reading takes: {error}"),
    }
    let Ok(source) = strict else { return };
    // Whatever is there can be picked, and nothing else comes with it.
    let entries = source.catalog().entries();
    for (position, entry) in entries.iter().enumerate().take(3) {
        let picked = picking(&Pick::Position(position)).unwrap_or_else(|error| panic!("@{position}: {error}"));
        assert_eq!(picked.catalog().entries().len(), 1);
        let identity = source.catalog().identity(&entry[0].node);
        assert_eq!(picked.catalog().identity(&picked.catalog().roots[0].node), identity);
        if let Some(digest) = identity {
            assert!(picking(&Pick::Digest(digest)).is_ok(), "@{digest}");
        }
    }
    assert!(picking(&Pick::Position(entries.len())).is_err());
}

/// Every number in a catalog leads somewhere, and what it says of one thing agrees with the rest.
fn holds_together(source: &dyn Source) {
    let catalog = source.catalog();
    for image in &catalog.images {
        assert_eq!(image.layers.len(), image.config.rootfs.diff_ids.len());
        if let Some((_, manifest)) = &image.manifest {
            assert_eq!(manifest.layers.len(), image.layers.len());
        }
        for layer in &image.layers {
            match layer.blob {
                Some(blob) => assert_eq!(catalog.blob(blob).known.diff_id, Some(layer.diff_id)),
                None => assert!(layer.descriptor.is_some(), "a layer that is nowhere"),
            }
        }
    }
    catalog.roots.iter().for_each(|root| node_holds(catalog, &root.node));
    for (at, blob) in catalog.blobs.iter().enumerate() {
        let size = blob.known.size.expect("archives and folders know the sizes of all files");
        let mut bytes = Vec::new();
        let mut reader = source.open(BlobId(at), 0).expect("it was looked at when the source was opened");
        reader.by_ref().take(READ).read_to_end(&mut bytes).expect("a file can be read");
        assert_eq!(bytes.len() as u64, size.min(READ), "{}", blob.place);
        let half = size / 2;
        let mut rest = Vec::new();
        source.open(BlobId(at), half).expect("as before").take(READ - half.min(READ)).read_to_end(&mut rest).expect("as before");
        assert_eq!(
            rest.get(..16),
            bytes.get(usize::try_from(half).unwrap_or(usize::MAX)..).and_then(|tail| tail.get(..16)).filter(|_| rest.len() >= 16)
        );
    }
}

fn node_holds(catalog: &Catalog, node: &Node) {
    match &node.content {
        Content::Image(id) => assert!(id.0 < catalog.images.len()),
        Content::Artifact { blobs, .. } => blobs.iter().for_each(|blob| assert!(blob.0 < catalog.blobs.len())),
        Content::Index { nodes, .. } => nodes.iter().for_each(|node| node_holds(catalog, node)),
        Content::Unread => assert!(node.descriptor.is_some()),
    }
}

fn one_line(error: &Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() < 16 << 10 && !text.contains(char::is_control), "{text:?}");
}

/// Named bytes in one file.
#[derive(Clone)]
struct Pieces {
    file: Arc<File>,
    names: BTreeMap<String, Range<u64>>,
}

impl Pieces {
    fn new(data: &[u8], first: &str, name: impl Fn(&Digest) -> String) -> Option<Self> {
        const MOST: usize = 16;
        let text = String::from_utf8_lossy(data);
        let pieces: Vec<&str> = text.split("\n--\n").take(MOST).collect();
        let mut done: Vec<(usize, Digest, Vec<u8>)> = Vec::new();
        for (at, piece) in pieces.iter().enumerate().rev() {
            let mut piece = (*piece).to_owned();
            for (number, digest, bytes) in &done {
                // Two digits first, or "$1" would be found in "$10".
                piece = piece
                    .replace(&format!("${number:02}"), &digest.to_string())
                    .replace(&format!("#{number:02}"), &bytes.len().to_string());
            }
            done.push((at, Digest::of(piece.as_bytes()), piece.into_bytes()));
        }
        let (mut names, mut all) = (BTreeMap::new(), Vec::new());
        let mut add = |name: String, bytes: &[u8]| {
            let start = all.len() as u64;
            all.extend_from_slice(bytes);
            names.insert(name, start..all.len() as u64);
        };
        add("oci-layout".to_owned(), CONTENT);
        for (at, digest, bytes) in &done {
            let name = if *at == 0 { first.to_owned() } else { name(digest) };
            // Where folders keep manifests apart, each piece may be either.
            add(format!("{}.manifest.json", digest.hex()), bytes);
            add(name, bytes);
        }
        Some(Self { file: file_of(&all)?, names })
    }
}

impl Files for Pieces {
    fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.names.get(name).map(|range| range.end - range.start))
    }

    fn open(&self, name: &str) -> Result<(Arc<File>, Range<u64>)> {
        let range = self.names.get(name).cloned().ok_or_else(|| Error::not_found("it is missing"))?;
        Ok((Arc::clone(&self.file), range))
    }

    fn label(&self) -> &str {
        "fuzz"
    }

    fn spooled(&self) -> u64 {
        0
    }
}

/// Parses `data` as an IMAGE, as a source and as a destination.
pub fn fuzz_location(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for parsed in [super::FileLocation::parse_source(text), super::FileLocation::parse_destination(text)] {
        match parsed {
            Err(error) => one_line(&error),
            Ok(location) => {
                assert!(!location.path.as_os_str().is_empty(), "{text:?} has no path");
                let path = location.path.to_str().expect("it is a part of a text");
                // Nothing is lost: the parts make the whole again.
                let format = text
                    .split_once(':')
                    .map(|(prefix, _)| prefix)
                    .and_then(by_name)
                    .filter(|format| location.format.is_some_and(|found| found.name() == format.name()) && text.len() > path.len());
                let mut whole = format.map_or_else(String::new, |format: &dyn Format| format!("{}:", format.name()));
                whole.push_str(path);
                if let Some(reference) = &location.reference {
                    whole = format!("{whole}:{reference}");
                    let _ = Pick::parse(reference).map_err(|error| one_line(&error));
                }
                assert_eq!(whole, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: &str = concat!(
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"$01","size":#01}]}"#,
        "\n--\n",
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$02","size":#02}]}"#,
        "\n--\n",
        r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$03","size":#03},"#,
        r#""layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"$04","size":#04}]}"#,
        "\n--\n",
        r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["$04"]}}"#,
        "\n--\nlayer",
    );

    fn images(data: &str) -> usize {
        let pieces = Pieces::new(data.as_bytes(), "index.json", |digest| oci_layout::blob_name(crate::tree::Role::Blob, digest));
        let source = oci_layout::read_layout(
            "oci",
            Box::new(pieces.unwrap()),
            &Opening { pick: None, wanted: &Wanted::All, referrers: false, missing_layers: false, keep_going: false, ctx: context() },
        );
        source.unwrap().catalog().images.len()
    }

    #[test]
    fn pieces_make_a_layout() {
        assert_eq!(images(LAYOUT), 1);
        fuzz_layout(LAYOUT.as_bytes());
        fuzz_dir(LAYOUT.split_once("\n--\n").unwrap().1.replace("$02", "$01").as_bytes());
    }

    #[test]
    fn odd_inputs() {
        for data in ["", "\n--\n", "{}", "\n--\n\n--\n", "-", ":", "oci:", "oci::", "oci::x", "docker-archive::a", "dir:a:b:c", "./a:b"] {
            fuzz_archive(data.as_bytes());
            fuzz_layout(data.as_bytes());
            fuzz_dir(data.as_bytes());
            fuzz_location(data.as_bytes());
        }
    }
}

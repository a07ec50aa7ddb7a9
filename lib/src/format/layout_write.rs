//! Writes OCI layouts into a folder, new or existing, and the parts of one that archives share.
//!
//! Everything is written into a temporary folder first. A new layout becomes visible by one rename of that folder. In one that exists, blobs
//! come first (nobody sees them), and then one rename of `index.json`, under a lock of the folder: two processes at once lose no name.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive_write::{Body, Member};
use super::files::{DirFiles, Files};
use super::oci_layout::{blob_name, check_version};
use super::{IMAGE_NAME, REF_NAME};
use crate::catalog::Name;
use crate::context::{Cancel, Context};
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::sink::{BlobWriter, Committed, Expected, Order, Sealed, SealedRoot, Sink, Written};
use crate::spec::layout::CONTENT;
use crate::spec::media::OCI_INDEX;
use crate::spec::{Descriptor, Index, JsonLimits, Object, Raw};
use crate::spool::{self, Temporary};
use crate::tar::{Header, Kind};
use crate::tree::{Role, annotated_name};

/// An index of nothing.
const EMPTY_INDEX: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// Bytes of an `index.json` that is added to.
const INDEX_LIMIT: u64 = 64 << 20;

/// Writes images into a layout in a folder.
#[derive(Debug)]
pub(super) struct LayoutSink {
    path: PathBuf,
    temporary: Temporary,
    cancel: Cancel,
    limits: Limits,
}

impl LayoutSink {
    pub(super) fn create(path: &Path, ctx: &Context) -> Result<Self> {
        let exists = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::io(error).frame(path.display())),
            Ok(_) if !path.is_dir() => {
                return Err(Error::new(ErrorKind::Exists, "it is a file, and an OCI layout is a directory").frame(path.display()));
            }
            Ok(_) => true,
        };
        if exists && !path.join("oci-layout").exists() && fs::read_dir(path).path(path)?.flatten().any(|entry| !is_begun(&entry)) {
            return Err(Error::new(ErrorKind::Exists, "it is a directory with other things in it, not an OCI layout")
                .frame(path.display())
                .hint("name a new or empty directory"));
        }
        if exists && let Some(old) = old_index(path, &ctx.limits)? {
            // What cannot be added to is known before the work.
            index_json(&Sealed::default(), Some(&old)).path(&path.join("index.json"))?;
        }
        let temporary = if exists { Temporary::dir(path) } else { Temporary::dir(spool::parent(path)) }.path(path)?;
        Ok(Self { path: path.to_owned(), temporary, cancel: ctx.cancel.clone(), limits: ctx.limits.clone() })
    }

    fn blob_path(&self, digest: &Digest) -> Result<PathBuf> {
        let path = self.temporary.path().join(blob_name(Role::Blob, digest));
        fs::create_dir_all(spool::parent(&path)).path(&path)?;
        Ok(path)
    }

    /// Moves everything into a layout that exists, and only then changes its index.
    fn merge(&self, sealed: &Sealed) -> Result<()> {
        let dir = File::open(&self.path).path(&self.path)?;
        spool::lock(&dir, &self.cancel).path(&self.path)?;
        let (layout, index) = (self.path.join("oci-layout"), self.path.join("index.json"));
        let old = old_index(&self.path, &self.limits)?;
        let new = index_json(sealed, old.as_deref()).and_then(|new| readable("index.json", new, &self.limits)).path(&self.path)?;
        if !layout.exists() {
            // In an empty folder: first what makes it a layout, of no image yet.
            if !index.exists() {
                let first = self.temporary.path().join("first");
                write_durably(&first, EMPTY_INDEX)?;
                fs::rename(&first, &index).path(&index)?;
            }
            fs::rename(self.temporary.path().join("oci-layout"), &layout).path(&layout)?;
        }
        for digest in sealed.blobs.iter().map(|blob| &blob.digest).chain(sealed.documents.iter().map(|document| &document.digest)) {
            let (from, to) = (self.temporary.path().join(blob_name(Role::Blob, digest)), self.path.join(blob_name(Role::Blob, digest)));
            fs::create_dir_all(spool::parent(&to)).path(&to)?;
            match fs::rename(&from, &to) {
                // Two layers may have come out as the same bytes, and the first has moved.
                Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => {}
                done => done.path(&to)?,
            }
        }
        for algorithm in fs::read_dir(self.path.join("blobs")).path(&self.path)?.flatten() {
            spool::sync_dir(&algorithm.path())?;
        }
        let replacement = self.temporary.path().join("index.json");
        write_durably(&replacement, &new)?;
        fs::rename(&replacement, &index).path(&index)?;
        spool::sync_dir(&self.path)
    }
}

/// Whether it is what a run that was killed may leave in an empty folder.
fn is_begun(entry: &fs::DirEntry) -> bool {
    let is_small_file = || entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == EMPTY_INDEX.len() as u64);
    let is_empty_index = || is_small_file() && fs::read(entry.path()).is_ok_and(|bytes| bytes == EMPTY_INDEX);
    entry.file_name().to_str().is_some_and(|name| name.starts_with(".longshore-") || (name == "index.json" && is_empty_index()))
}

/// The index of a layout that is added to, where it has one.
fn old_index(path: &Path, limits: &Limits) -> Result<Option<Vec<u8>>> {
    let files = DirFiles::new(path);
    let files: &dyn Files = &files;
    if files.size("oci-layout").path(path)?.is_some() {
        check_version(files, limits).path(path)?;
    }
    // Whether or not this one is there: it is refused to look for it behind a symlink, where no reader would find what we write.
    files.size(&blob_name(Role::Blob, &Digest::of(CONTENT))).path(path)?;
    files.size("index.json").path(path)?.map(|_| files.read("index.json", INDEX_LIMIT).path(path)).transpose()
}

/// Passes on a document that is written, unless it is larger than what is taken when it is read.
pub(super) fn readable<B: AsRef<[u8]>>(name: &str, bytes: B, limits: &Limits) -> Result<B> {
    let (size, limit) = (bytes.as_ref().len() as u64, limits.manifest);
    if size > limit {
        let error = Error::limit(format_args!("it would have {size} bytes, and readers take no more than {limit}")).frame(name);
        return Err(error.hint("write fewer images into one output"));
    }
    Ok(bytes)
}

impl Sink for LayoutSink {
    fn order(&self) -> Order {
        Order::Any
    }

    fn begin(&mut self, expected: Expected, _cancel: &Cancel) -> Result<Vec<usize>> {
        Ok((0..expected.blobs.len()).collect())
    }

    fn put(&self, blob: usize) -> Result<Box<dyn BlobWriter + '_>> {
        DirBlob::create(self.temporary.path().join(format!("blob-{blob}")), |written| self.blob_path(&written.digest))
    }

    fn commit(mut self: Box<Self>, sealed: &Sealed) -> Result<Committed> {
        for document in &sealed.documents {
            write_durably(&self.blob_path(&document.digest)?, &document.bytes)?;
        }
        let root = self.temporary.path();
        write_durably(&root.join("oci-layout"), CONTENT)?;
        fs::create_dir_all(root.join("blobs/sha256")).path(&self.path)?;
        if !self.path.exists() {
            let index = index_json(sealed, None).and_then(|new| readable("index.json", new, &self.limits)).path(&self.path)?;
            write_durably(&root.join("index.json"), &index)?;
            for algorithm in fs::read_dir(root.join("blobs")).path(root)?.flatten() {
                spool::sync_dir(&algorithm.path())?;
            }
            spool::sync_dir(&root.join("blobs"))?;
            match self.temporary.persist(&self.path, false) {
                // Another process was faster: what it made is added to.
                Err(error) if error.kind() == ErrorKind::Exists => {}
                done => return done.map(|()| Committed::default()),
            }
        }
        self.merge(sealed)?;
        Ok(Committed::default())
    }

    fn describe(&self) -> String {
        format!("oci:{}", self.path.display())
    }
}

/// A blob that is a file of its own.
pub(super) struct DirBlob<F> {
    file: File,
    path: PathBuf,
    len: u64,
    final_path: F,
}

impl<'a, F: Fn(&Written) -> Result<PathBuf> + Send + 'a> DirBlob<F> {
    /// Begins one at `path`, which gets another name when its digest is known.
    pub(super) fn create(path: PathBuf, final_path: F) -> Result<Box<dyn BlobWriter + 'a>> {
        let file = File::create_new(&path).path(&path)?;
        Ok(Box::new(Self { file, path, len: 0, final_path }))
    }
}

impl<F: Fn(&Written) -> Result<PathBuf> + Send> BlobWriter for DirBlob<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.len).path(&self.path)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>, written: &Written) -> Result<()> {
        self.file.sync_all().path(&self.path)?;
        let to = (self.final_path)(written)?;
        fs::rename(&self.path, &to).path(&to)
    }
}

/// Writes a small file and waits for the disk.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = File::create(path).path(path)?;
    file.write_all_at(bytes, 0).path(path)?;
    file.sync_all().path(path)
}

/// The index of a layout: what is there stays, names that come again move.
pub(super) fn index_json(sealed: &Sealed, old: Option<&[u8]>) -> Result<Vec<u8>> {
    let limits = JsonLimits { bytes: INDEX_LIMIT, depth: 100 };
    let old = old.map(|bytes| Raw::<Index>::parse(bytes.to_vec(), &limits)).transpose().map_err(Error::from)?;
    // A name leads to one image, and the last one given; an image without a name is listed once.
    let mut names: HashSet<_> = sealed.roots.iter().filter_map(|root| root.name.clone()).collect();
    let mut unnamed: HashSet<_> = sealed.roots.iter().filter(|root| root.name.is_none()).map(|root| root.descriptor.digest).collect();
    let mut entries = old.as_ref().map_or_else(|| Ok(Vec::new()), |old| left_of(old, &names, sealed))?;
    let mut added = Vec::with_capacity(sealed.roots.len());
    for root in sealed.roots.iter().rev() {
        if root.name.as_ref().map_or_else(|| unnamed.remove(&root.descriptor.digest), |name| names.remove(name)) {
            added.push(named_descriptor(root)?);
        }
    }
    entries.extend(added.into_iter().rev());
    let kept = old.as_ref().or(sealed.index.as_ref());
    let mut index = match kept {
        Some(kept) => Object::parse(kept.bytes())?,
        None => {
            let mut index = Object::new();
            index.set("schemaVersion", 2);
            index.set("mediaType", OCI_INDEX);
            index
        }
    };
    index.set("manifests", &entries);
    Ok(index.to_vec())
}

/// What stays of an index. An image whose name moves stays without it, as with skopeo, unless it is listed elsewhere.
fn left_of(old: &Index, names: &HashSet<Name>, sealed: &Sealed) -> Result<Vec<Descriptor>> {
    let moves = |entry: &Descriptor| annotated_name(&entry.annotations).is_some_and(|name| names.contains(&name));
    let new: HashSet<_> = sealed.roots.iter().map(|root| root.descriptor.digest).collect();
    let mut listed = new.clone();
    listed.extend(old.manifests.iter().filter(|entry| !moves(entry)).map(|entry| entry.digest));
    let mut entries = Vec::with_capacity(old.manifests.len());
    for entry in &old.manifests {
        if !moves(entry) {
            let again = annotated_name(&entry.annotations).is_none() && new.contains(&entry.digest);
            entries.extend((!again).then(|| entry.clone()));
        } else if listed.insert(entry.digest) {
            entries.push(named_descriptor(&SealedRoot { descriptor: entry.clone(), name: None })?);
        }
    }
    Ok(entries)
}

/// The descriptor of a root with the annotations that name it: the full name for containerd, Docker and podman, and the tag alone as Docker
/// writes it, unless it came with a ref.name that says the same.
fn named_descriptor(root: &SealedRoot) -> Result<Descriptor> {
    let mut annotations: BTreeMap<String, String> = root.descriptor.annotations.clone();
    let already = annotated_name(&annotations);
    match &root.name {
        None => {
            annotations.remove(IMAGE_NAME);
            annotations.remove(REF_NAME);
        }
        Some(Name::Text(text)) => {
            annotations.remove(IMAGE_NAME);
            annotations.insert(REF_NAME.to_owned(), text.clone());
        }
        Some(Name::Reference(reference)) => {
            if already.as_ref() != root.name.as_ref() || !annotations.contains_key(REF_NAME) {
                let tag = reference.tag().map_or_else(|| reference.full(), str::to_owned);
                annotations.insert(REF_NAME.to_owned(), tag);
            }
            annotations.insert(IMAGE_NAME.to_owned(), reference.full());
        }
    }
    if annotations == root.descriptor.annotations {
        return Ok(root.descriptor.clone());
    }
    let mut object = root.descriptor.edit();
    if annotations.is_empty() {
        object.remove("annotations");
    } else {
        object.set("annotations", &annotations);
    }
    Ok(Descriptor::try_from(&object)?)
}

/// A file of an archive: mode 0644, owner root, time 0, so that bytes depend on content alone.
pub(super) fn file_member(name: String, bytes: impl Into<Arc<[u8]>>) -> Member {
    let bytes = bytes.into();
    Member { header: Header { size: bytes.len() as u64, ..plain_header(name, Kind::File, 0o644) }, body: Body::Bytes(bytes) }
}

/// A header with the fields that we always write the same.
pub(super) fn plain_header(name: String, kind: Kind, mode: u32) -> Header {
    Header { path: name.into_bytes(), kind, mode, ..Header::default() }
}

/// The folders and blobs of a layout in an archive.
pub(super) fn blob_members(expected: &Expected) -> Vec<Member> {
    let dir = |name: &str| Member { header: plain_header(name.to_owned(), Kind::Directory, 0o755), body: Body::Empty };
    let name = |written: &Written| blob_name(Role::Blob, &written.digest);
    let blob = |at| Member { header: plain_header(String::new(), Kind::File, 0o644), body: Body::Blob(at, Some(name)) };
    [dir("blobs/"), dir("blobs/sha256/")].into_iter().chain((0..expected.blobs.len()).map(blob)).collect()
}

/// The documents of a layout in an archive, its version and its index.
pub(super) fn metadata_members(sealed: &Sealed) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for document in &sealed.documents {
        members.push(file_member(blob_name(Role::Manifest, &document.digest), Arc::clone(&document.bytes)));
    }
    members.push(file_member("oci-layout".to_owned(), CONTENT));
    members.push(file_member("index.json".to_owned(), index_json(sealed, None)?));
    Ok(members)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::reference::Reference;
    use crate::spec::media::OCI_MANIFEST;
    use crate::testing::{context, names};

    fn reference(text: &str) -> Name {
        Name::Reference(Reference::parse(text).unwrap())
    }

    fn listed(annotations: Value) -> Descriptor {
        let text =
            json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of(b"a").to_string(), "size": 1, "annotations": annotations, "x": [1.5] });
        serde_json::from_value(text).unwrap()
    }

    fn root(content: &[u8], name: Option<Name>) -> SealedRoot {
        SealedRoot { descriptor: Descriptor::new(OCI_MANIFEST, Digest::of(content), content.len() as u64), name }
    }

    fn sealed(roots: Vec<SealedRoot>) -> Sealed {
        Sealed { roots, ..Sealed::default() }
    }

    /// Full name, ref.name and digest of all that an index lists.
    fn entries(index: &[u8]) -> Vec<(String, String, Digest)> {
        let index: Value = serde_json::from_slice(index).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let entry = |entry: &Value| {
            let said = &entry["annotations"];
            (text(&said[IMAGE_NAME]), text(&said[REF_NAME]), text(&entry["digest"]).parse().unwrap())
        };
        index["manifests"].as_array().unwrap().iter().map(entry).collect()
    }

    #[test]
    fn names_become_annotations_and_what_was_there_stays() {
        let annotations = |annotations: Value, name: Option<Name>| -> Value {
            let descriptor = named_descriptor(&SealedRoot { descriptor: listed(annotations), name }).unwrap();
            assert!(descriptor.raw().get().ends_with(r#","x":[1.5]}"#), "{descriptor:?}");
            let descriptor: Value = serde_json::from_str(descriptor.raw().get()).unwrap();
            descriptor["annotations"].clone()
        };
        let full = |name: &str, reference: &str| json!({ IMAGE_NAME: name, REF_NAME: reference });
        assert_eq!(annotations(json!({}), Some(reference("a/b:1"))), full("docker.io/a/b:1", "1"));
        // Docker's and containerd's own stay as they are, text and all.
        let dockers = full("docker.io/a/b:1", "1");
        assert_eq!(annotations(dockers.clone(), Some(reference("a/b:1"))), dockers);
        // podman's full ref.name says the same, and stays beside the full name.
        assert_eq!(
            annotations(json!({ REF_NAME: "localhost/a:1" }), Some(reference("localhost/a:1"))),
            full("localhost/a:1", "localhost/a:1")
        );
        // Another name replaces both.
        assert_eq!(annotations(dockers.clone(), Some(reference("c:2"))), full("docker.io/library/c:2", "2"));
        let digested = reference(&format!("c@{}", Digest::of(b"")));
        assert_eq!(annotations(json!({}), Some(digested.clone()))[REF_NAME], digested.reference().unwrap().full());
        // skopeo's bare names are no references.
        assert_eq!(annotations(json!({ REF_NAME: "kitchen" }), Some(Name::Text("kitchen".to_owned()))), json!({ REF_NAME: "kitchen" }));
        assert_eq!(annotations(dockers, Some(Name::Text("v1 beta".to_owned()))), json!({ REF_NAME: "v1 beta" }));
        assert_eq!(annotations(json!({ REF_NAME: "a", "b": "c" }), None), json!({ "b": "c" }));
        assert_eq!(annotations(json!({ REF_NAME: "a" }), None), Value::Null);
    }

    #[test]
    fn a_new_index_is_small_and_one_of_the_source_is_kept() {
        let new = index_json(&sealed(vec![root(b"a", None)]), None).unwrap();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":1}}]}}"#,
            Digest::of(b"a")
        );
        assert_eq!(String::from_utf8(new).unwrap(), text);
        let kept = br#"{"annotations":{"a":"\u003c"},"schemaVersion":2,"manifests":[],"x":1.0}"#;
        let limits = JsonLimits { bytes: 1000, depth: 10 };
        let source = Sealed { index: Some(Raw::parse(&kept[..], &limits).unwrap()), ..sealed(vec![root(b"a", None)]) };
        let text = String::from_utf8(index_json(&source, None).unwrap()).unwrap();
        assert!(
            text.starts_with(r#"{"annotations":{"a":"\u003c"},"schemaVersion":2,"manifests":[{"#) && text.ends_with(r#"],"x":1.0}"#),
            "{text}"
        );
    }

    #[test]
    fn a_merge_keeps_what_is_there_and_moves_names() {
        let old = index_json(
            &sealed(vec![
                root(b"one", Some(reference("a:1"))),
                root(b"one", Some(Name::Text("bare".to_owned()))),
                root(b"two", Some(reference("b:1"))),
                root(b"three", None),
            ]),
            None,
        )
        .unwrap();
        let old = String::from_utf8(old).unwrap().replacen('{', r#"{"annotations":{"kept":"1"},"unknown":[1.50],"#, 1).into_bytes();
        let (one, two, three, four) = (Digest::of(b"one"), Digest::of(b"two"), Digest::of(b"three"), Digest::of(b"four"));
        let roots = vec![root(b"four", Some(reference("a:1"))), root(b"three", None), root(b"two", Some(reference("c:1")))];
        let new = index_json(&sealed(roots.clone()), Some(&old)).unwrap();
        let name = |name: &str, tag: &str, digest: Digest| (name.to_owned(), tag.to_owned(), digest);
        let expected = [
            name("-", "bare", one),
            name("docker.io/library/b:1", "1", two),
            name("docker.io/library/a:1", "1", four),
            name("-", "-", three),
            name("docker.io/library/c:1", "1", two),
        ];
        assert_eq!(entries(&new), expected);
        assert!(new.starts_with(br#"{"annotations":{"kept":"1"},"unknown":[1.50],"schemaVersion":2"#));
        // Once more changes nothing but the order of what came again.
        assert_eq!(entries(&index_json(&sealed(roots), Some(&new)).unwrap()).len(), 5);
        // An annotation that says the same in another form is the same name.
        let podman = br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"DIGEST","size":3,"annotations":{"org.opencontainers.image.ref.name":"docker.io/library/a:1"}}]}"#;
        let podman = String::from_utf8_lossy(podman).replace("DIGEST", &one.to_string());
        let moved = index_json(&sealed(vec![root(b"two", Some(reference("a:1")))]), Some(podman.as_bytes())).unwrap();
        assert_eq!(
            entries(&moved),
            [name("-", "-", one), name("docker.io/library/a:1", "1", two)],
            "the old image stays, without the name"
        );
        let again = index_json(&sealed(vec![root(b"one", Some(reference("a:1")))]), Some(&moved)).unwrap();
        assert_eq!(entries(&again), [name("-", "-", two), name("docker.io/library/a:1", "1", one)]);
        assert!(index_json(&sealed(Vec::new()), Some(b"{}")).is_err());
    }

    fn write(path: &Path, content: &[u8], name: &str) -> Result<Committed> {
        let mut sink: Box<dyn Sink> = Box::new(LayoutSink::create(path, &context(path))?);
        sink.begin(Expected { blobs: vec![Default::default()], images: Vec::new() }, &Cancel::default())?;
        let mut writer = sink.put(0)?;
        writer.write(content)?;
        let written = Written {
            digest: Digest::of(content),
            size: content.len() as u64,
            diff_id: None,
            compression: crate::compress::Compression::None,
        };
        writer.finish(&written)?;
        sink.commit(&Sealed { blobs: vec![written], ..sealed(vec![root(content, Some(reference(name)))]) })
    }

    #[test]
    fn a_layout_is_made_added_to_and_never_left_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layout");
        drop(LayoutSink::create(&path, &context(&path)).unwrap());
        assert!(names(dir.path()).is_empty());
        write(&path, b"one", "a:1").unwrap();
        write(&path, b"two", "b:1").unwrap();
        // The same blob again, and a writer that gives up.
        write(&path, b"two", "b:2").unwrap();
        drop(LayoutSink::create(&path, &context(&path)).unwrap());
        assert_eq!(names(&path), ["blobs", "index.json", "oci-layout"]);
        assert_eq!(names(dir.path()), ["layout"]);
        let mut blobs = [Digest::of(b"one").hex(), Digest::of(b"two").hex()];
        blobs.sort();
        assert_eq!(names(&path.join("blobs/sha256")), blobs);
        assert_eq!(entries(&fs::read(path.join("index.json")).unwrap()).len(), 3);
        // An empty folder becomes a layout; one with other things does not.
        fs::create_dir(dir.path().join("empty")).unwrap();
        write(&dir.path().join("empty"), b"one", "a:1").unwrap();
        assert_eq!(names(&dir.path().join("empty")), ["blobs", "index.json", "oci-layout"]);
        // So does one in which a run was killed just after it began.
        fs::create_dir(dir.path().join("begun")).unwrap();
        fs::write(dir.path().join("begun/index.json"), EMPTY_INDEX).unwrap();
        write(&dir.path().join("begun"), b"one", "a:1").unwrap();
        assert_eq!(entries(&fs::read(dir.path().join("begun/index.json")).unwrap()).len(), 1);
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("other/file"), b"").unwrap();
        for other in ["other", "other/file"] {
            let error = LayoutSink::create(&dir.path().join(other), &context(dir.path())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
        }
        assert_eq!(names(&dir.path().join("other")), ["file"]);
    }

    #[test]
    fn a_malformed_index_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), b"one", "a:1").unwrap();
        fs::write(dir.path().join("index.json"), b"[]").unwrap();
        let error = write(dir.path(), b"two", "b:1").unwrap_err();
        assert!(error.to_string().contains("index.json: expected an object"), "{error}");
        assert_eq!(fs::read(dir.path().join("index.json")).unwrap(), b"[]");
        assert_eq!(names(dir.path()), ["blobs", "index.json", "oci-layout"]);
    }

    #[test]
    fn two_writers_that_both_find_nothing_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layout");
        let sinks: Vec<Box<dyn Sink>> =
            (0..4).map(|_| Box::new(LayoutSink::create(&path, &context(&path)).unwrap()) as Box<dyn Sink>).collect();
        std::thread::scope(|scope| {
            for (at, sink) in sinks.into_iter().enumerate() {
                let content = [at as u8];
                scope.spawn(move || sink.commit(&sealed(vec![root(&content, Some(reference(&format!("a:{at}"))))])).unwrap());
            }
        });
        assert_eq!(entries(&fs::read(path.join("index.json")).unwrap()).len(), 4);
        assert_eq!(names(dir.path()), ["layout"]);
    }
}

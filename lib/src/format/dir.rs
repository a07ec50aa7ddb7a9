//! `dir:` folders of containers/image (skopeo, podman): one image or index, every blob a file named by its digest.
//!
//! ```text
//! version                Directory Transport Version: 1.1
//! manifest.json          the manifest or index
//! <hex>.manifest.json    manifests that an index lists
//! <hex>                  configs and layers
//! signature-N            signatures of containers/image; not kept
//! ```
//!
//! Follows `directory_transport.go` and `directory_dest.go` of containers/image 5.

use std::fs;
use std::sync::Arc;

use super::files::{FileSource, Files, Named};
use super::folder::Folder;
use super::layout_write::write_durably;
use super::{Format, Held, Members, Place, Target, WriteOptions};
use crate::catalog::{Node, Root};
use crate::compress::Compression;
use crate::context::{Cancel, Context};
use crate::digest::{Algorithm, Digest};
use crate::error::{Context as _, Error, Result};
use crate::sink::{Accepts, BlobWriter, Committed, DefaultCompress, Expected, ManifestTypes, Names, Order, Sealed, Sink};
use crate::source::{Pick, Source};
use crate::spec::media::{OCI_INDEX, OCI_MANIFEST};
use crate::spec::{Descriptor, Index, Manifest, Object};
use crate::tree::{Opening, Role, TreeReader, narrow};

/// The format.
#[derive(Debug)]
pub(super) struct Dir;

const NAME: &str = "dir";
const VERSION: &str = "Directory Transport Version: 1.1\n";
/// What newer versions write when a digest is not SHA-256.
const VERSION_ANY_DIGEST: &str = "Directory Transport Version: 1.2\n";

impl Format for Dir {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "what skopeo calls dir: and podman docker-dir; one image or index, no name"
    }

    fn place(&self) -> Place {
        Place::Directory
    }

    fn detect(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("manifest.json")
    }

    fn open(&self, held: Held, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
        read(Box::new(held.directory()?), opening)
    }

    fn accepts(&self, _options: &WriteOptions) -> Accepts {
        Accepts {
            format: NAME,
            several: false,
            configs: true,
            indexes: true,
            artifacts: true,
            annotations: true,
            names: Names::None,
            manifests: ManifestTypes::LikeSource,
            compressions: &[Compression::None, Compression::Gzip, Compression::Zstd],
            default_compress: DefaultCompress::Keep,
            stored_digests: false,
            configs_first: false,
        }
    }

    fn members(&self, _options: &WriteOptions) -> Members {
        &[
            ("version", "`Directory Transport Version: 1.1`, or 1.2 where a digest is not SHA-256"),
            ("manifest.json", "the manifest or index"),
            ("<hex>.manifest.json", "manifests that an index lists"),
            ("<hex>", "configs and layers"),
        ]
    }

    fn create(&self, target: &Target, _options: &WriteOptions, _ctx: &Context) -> Result<Box<dyn Sink>> {
        match target {
            Target::Directory { path, replace } => Ok(Box::new(DirSink(Folder::create(path, *replace, &["version", "manifest.json"])?))),
            Target::Archive(_) => Err(Error::unsupported("dir is a directory, not a file or stream")),
        }
    }
}

fn file_name(role: Role, digest: &Digest) -> String {
    let hex = match digest.algorithm() {
        Algorithm::Sha256 => digest.hex(),
        other => format!("{}-{}", other.name(), digest.hex()),
    };
    match role {
        Role::Blob => hex,
        Role::Manifest => format!("{hex}.manifest.json"),
    }
}

pub(super) fn read(files: Box<dyn Files>, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    if files.size("version")?.is_some() {
        let version = files.read("version", 1024)?;
        if ![VERSION, VERSION_ANY_DIGEST].iter().any(|known| known.trim_end().as_bytes() == version.trim_ascii_end()) {
            let found = String::from_utf8_lossy(&version).trim_end().escape_debug().to_string();
            return Err(Error::unsupported(format_args!("it says {found:?}, expected version 1.1 or 1.2")).frame("version"));
        }
    }
    let bytes = files.read("manifest.json", opening.ctx.limits.manifest)?;
    let object = Object::parse(&bytes).map_err(|e| Error::from(e).frame("manifest.json"))?;
    let is_index = object.get("manifests").is_some();
    let stated: Option<String> = object.get("mediaType").and_then(|text| serde_json::from_str(text.get()).ok());
    let media_type = stated.unwrap_or_else(|| if is_index { OCI_INDEX } else { OCI_MANIFEST }.to_owned());

    let shelf = Named { files: files.as_ref(), naming: file_name };
    let mut reader = TreeReader::new(&shelf, opening);
    let content = if is_index {
        let raw = reader.root_document::<Index>("manifest.json", bytes.clone())?;
        raw.agrees_with(&media_type).map_err(|e| Error::from(e).frame("manifest.json"))?;
        reader.index(raw, 0).context(|| "manifest.json")?
    } else {
        let raw = reader.root_document::<Manifest>("manifest.json", bytes.clone())?;
        raw.agrees_with(&media_type).map_err(|e| Error::from(e).frame("manifest.json"))?;
        reader.manifest(&media_type, raw).context(|| "manifest.json")?
    };
    let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
    let (mut catalog, names) = (reader.catalog, reader.names);
    catalog.roots.push(Root { name: None, node: Node { descriptor: Some(descriptor), content } });
    if files.size("signature-1")?.is_some() {
        catalog
            .warnings
            .push("signatures of containers/image (signature-1 …) are left out: they belong to this kind of folder alone".to_owned());
    }
    if let Some(Pick::Name(wanted)) = opening.pick {
        return Err(Error::not_found(format_args!("there is no image {}, since dir: holds no names", wanted.escape_debug())));
    }
    narrow(&mut catalog, opening, Vec::new())?;
    Ok(Arc::new(FileSource { files, names, catalog, format: NAME }))
}

/// Writes one image or index into a folder.
#[derive(Debug)]
struct DirSink(Folder);

impl Sink for DirSink {
    fn order(&self) -> Order {
        Order::Any
    }

    fn begin(&mut self, expected: Expected, _cancel: &Cancel) -> Result<Vec<usize>> {
        Ok((0..expected.blobs.len()).collect())
    }

    fn put(&self, blob: usize) -> Result<Box<dyn BlobWriter + '_>> {
        self.0.put(blob)
    }

    fn commit(self: Box<Self>, sealed: &Sealed) -> Result<Committed> {
        let root = self.0.work();
        let [top] = sealed.roots.as_slice() else {
            return Err(
                Error::unsupported(format_args!("it holds one image or index, not {}", sealed.roots.len())).frame(self.0.path().display())
            );
        };
        for (at, blob) in sealed.blobs.iter().enumerate() {
            let to = root.join(file_name(Role::Blob, &blob.digest));
            fs::rename(self.0.blob(at), &to).path(&to)?;
        }
        let configs: Vec<_> = sealed.images.iter().map(|image| image.config.digest()).collect();
        let mut any_other = false;
        for document in &sealed.documents {
            any_other |= document.digest.algorithm() != Algorithm::Sha256;
            let name = if document.digest == top.descriptor.digest {
                "manifest.json".to_owned()
            } else {
                let role = if configs.contains(&&document.digest) { Role::Blob } else { Role::Manifest };
                file_name(role, &document.digest)
            };
            write_durably(&root.join(name), &document.bytes)?;
        }
        any_other |= sealed.blobs.iter().any(|blob| blob.digest.algorithm() != Algorithm::Sha256);
        write_durably(&root.join("version"), if any_other { VERSION_ANY_DIGEST } else { VERSION }.as_bytes())?;
        self.0.make_visible()?;
        Ok(Committed::default())
    }

    fn describe(&self) -> String {
        format!("{NAME}:{}", self.0.path().display())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use longshore_testkit::images::{Image, Layer, Layout};

    use super::*;
    use crate::error::ErrorKind;
    use crate::testing::{app, context, copy, layout, names, source};

    fn folder(dir: &Path, name: &str, images: &[Image]) -> PathBuf {
        let from = layout(dir, &format!("{name}-layout"), &Layout::of(images));
        let path = dir.join(name);
        copy(from.as_ref(), &format!("dir:{}", path.display()), &context(dir)).unwrap();
        path
    }

    fn begin(path: &Path, replace: bool) -> Result<()> {
        Dir.create(&Target::Directory { path: path.to_owned(), replace }, &WriteOptions::default(), &context(Path::new("."))).map(drop)
    }

    fn opened(path: &Path) -> Result<Arc<dyn Source>> {
        source(&format!("dir:{}", path.display()))
    }

    #[test]
    fn one_image_is_a_file_for_each_blob() {
        let dir = tempfile::tempdir().unwrap();
        let path = folder(dir.path(), "out", &[app("a:1")]);
        let mut expected: Vec<String> =
            [app("").id(), app("").layers[0].diff_id(), app("").layers[1].diff_id()].map(|id| id.replace("sha256:", "")).to_vec();
        expected.extend(["manifest.json".to_owned(), "version".to_owned()]);
        expected.sort();
        assert_eq!(names(&path), expected);
        assert_eq!(fs::read_to_string(path.join("version")).unwrap(), VERSION);
        let read = opened(&path).unwrap();
        assert_eq!(read.catalog().images[0].id().to_string(), app("").id());
        assert!(read.catalog().roots[0].name.is_none());
    }

    #[test]
    fn an_index_keeps_its_manifests_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut multi = Layout::new();
        let manifests = [multi.image(&app("")), multi.image(&app("").platform("linux/arm64"))];
        let index = multi.index(&manifests);
        multi.root(index, Some("a:1"));
        let from = layout(dir.path(), "in", &multi);
        let path = dir.path().join("out");
        let report = copy(from.as_ref(), &format!("dir:{}", path.display()), &context(dir.path())).unwrap();
        assert!(report.omitted[0].contains("the name a:1"), "{:?}", report.omitted);
        for manifest in &manifests {
            let hex = manifest["digest"].as_str().unwrap().replace("sha256:", "");
            assert!(path.join(format!("{hex}.manifest.json")).is_file());
        }
        let read = opened(&path).unwrap();
        assert_eq!(read.catalog().images.len(), 2);
        assert_eq!(read.catalog().roots[0].node.digest(read.catalog()), from.catalog().roots[0].node.digest(from.catalog()));
    }

    #[test]
    fn versions_signatures_and_picks() {
        let dir = tempfile::tempdir().unwrap();
        let path = folder(dir.path(), "out", &[app("a:1")]);
        for (version, fine) in [
            (VERSION, true),
            (VERSION_ANY_DIGEST, true),
            ("Directory Transport Version: 1.1", true),
            ("Directory Transport Version: 2.0\n", false),
            ("", false),
        ] {
            fs::write(path.join("version"), version).unwrap();
            assert_eq!(opened(&path).is_ok(), fine, "{version:?}");
        }
        fs::remove_file(path.join("version")).unwrap();
        assert!(opened(&path).unwrap().catalog().warnings.is_empty());
        fs::write(path.join("signature-1"), b"x").unwrap();
        assert!(opened(&path).unwrap().catalog().warnings[0].contains("signature-1"));
        let pick = |pick: &str| source(&format!("dir:{}:{pick}", path.display())).map(drop).map_err(|error| error.to_string());
        assert!(pick("a:1").unwrap_err().contains("dir: holds no names"));
        assert_eq!(pick("@0"), Ok(()));
        assert_eq!(pick(&format!("@{}", app("").id())), Ok(()));
        assert!(pick("@1").is_err());
    }

    #[test]
    fn missing_and_wrong_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::new("a:1").with(Layer::new("a=1"));
        let path = folder(dir.path(), "out", std::slice::from_ref(&image));
        let hex = |digest: String| digest.replace("sha256:", "");
        for name in [hex(image.id()), hex(image.layers[0].diff_id())] {
            let bytes = fs::read(path.join(&name)).unwrap();
            fs::remove_file(path.join(&name)).unwrap();
            let error = opened(&path).map(drop).unwrap_err();
            assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains(&name), "{error}");
            fs::write(path.join(&name), &bytes[1..]).unwrap();
            let error = opened(&path).map(drop).unwrap_err();
            assert!(error.kind() == ErrorKind::Mismatch && error.to_string().contains(&name), "{error}");
            fs::write(path.join(&name), bytes).unwrap();
        }
        assert!(opened(&path).is_ok());
        fs::write(path.join("manifest.json"), b"{}").unwrap();
        assert!(opened(&path).map(drop).unwrap_err().to_string().contains("manifest.json: schemaVersion: missing"));
    }

    #[test]
    fn what_is_there_is_replaced_whole_and_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = folder(dir.path(), "out", &[app("a:1")]);
        let before = names(&path);
        let error = begin(&path, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        begin(&path, true).unwrap();
        assert_eq!(names(&path), before);
        fs::write(path.join("leftover"), b"").unwrap();
        folder(dir.path(), "out", &[Image::new("b:1")]);
        assert_eq!(names(&path).len(), 3, "{:?}", names(&path));
        assert_eq!(names(dir.path()), ["out", "out-layout"]);
        // An empty folder is no folder of somebody's; one with other things is.
        fs::create_dir(dir.path().join("empty")).unwrap();
        folder(dir.path(), "empty", &[app("a:1")]);
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("other/file"), b"").unwrap();
        for replace in [false, true] {
            assert!(begin(&dir.path().join("other"), replace).unwrap_err().to_string().contains("other things in it"));
        }
    }
}

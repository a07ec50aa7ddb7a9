//! The folder of containerregistry's `save.fast`, which Bazel's old docker rules pulled images into.
//!
//! ```text
//! config.json       the config
//! manifest.json     the manifest; its size of the config counts characters, not bytes
//! digest            the digest of the manifest
//! NNN.tar.gz        a layer; 000 is the base
//! NNN.sha256        its digest in hex, without an algorithm
//! ```
//!
//! `save.uncompressed` writes `NNN.tar` instead, with its diff ID, and neither manifest nor digest. As of the
//! [last version](https://github.com/google/containerregistry/blob/0492daa2652d500ea618bebe66cdf2e3a80d030c/client/v2_2/save_.py).

use std::fs;
use std::sync::Arc;

use super::files::{FileSource, Files};
use super::folder::Folder;
use super::layout_write::write_durably;
use super::{Format, Held, Members, Place, Target, WriteOptions};
use crate::catalog::{Blob, Catalog, Content, Image, Known, Layer, Node, Root};
use crate::compress::Compression;
use crate::context::{Cancel, Context};
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, Result};
use crate::sink::{Accepts, BlobWriter, Committed, DefaultCompress, Expected, ManifestTypes, Names, Order, Sealed, Sink};
use crate::source::{Pick, Source};
use crate::spec::media::{DOCKER_MANIFEST, parse_layer_media};
use crate::spec::{Config, Descriptor, JsonLimits, Manifest, Raw};
use crate::tree::{Opening, narrow};

/// The format.
#[derive(Debug)]
pub(super) struct GoogleDir;

const NAME: &str = "google-dir";

impl Format for GoogleDir {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "what containerregistry's fast puller writes; one image, no name"
    }

    fn place(&self) -> Place {
        Place::Directory
    }

    fn detect(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("config.json") && ["digest", "000.sha256"].iter().any(|name| has(name))
    }

    fn open(&self, held: Held, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
        read(Box::new(held.directory()?), opening)
    }

    fn accepts(&self, _options: &WriteOptions) -> Accepts {
        Accepts {
            format: NAME,
            several: false,
            configs: true,
            indexes: false,
            artifacts: false,
            annotations: true,
            names: Names::None,
            manifests: ManifestTypes::LikeSource,
            compressions: &[Compression::Gzip],
            default_compress: DefaultCompress::GzipPlain,
            stored_digests: false,
            configs_first: false,
        }
    }

    fn members(&self, _options: &WriteOptions) -> Members {
        &[
            ("config.json", "the config"),
            ("manifest.json", "the manifest"),
            ("digest", "the digest of the manifest"),
            ("<NNN>.tar.gz", "the layers; 000 is the base"),
            ("<NNN>.sha256", "the digest of each, in hex"),
        ]
    }

    fn create(&self, target: &Target, _options: &WriteOptions, _ctx: &Context) -> Result<Box<dyn Sink>> {
        match target {
            Target::Directory { path, replace } => {
                Ok(Box::new(GoogleSink(Folder::create(path, *replace, &["config.json", "manifest.json", "digest"])?)))
            }
            Target::Archive(_) => Err(Error::unsupported("google-dir is a directory, not a file or stream")),
        }
    }
}

/// Reads the image whose files these are.
pub(super) fn read(files: Box<dyn Files>, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    if let Some(Pick::Name(wanted)) = opening.pick {
        return Err(Error::not_found(format_args!("there is no image {}, since {NAME}: holds no names", wanted.escape_debug())));
    }
    let mut reader = Reader { files: files.as_ref(), opening, catalog: Catalog::default(), names: Vec::new() };
    reader.image()?;
    let Reader { mut catalog, names, .. } = reader;
    narrow(&mut catalog, opening, Vec::new())?;
    Ok(Arc::new(FileSource { files, names, catalog, format: NAME }))
}

struct Reader<'a> {
    files: &'a dyn Files,
    opening: &'a Opening<'a>,
    catalog: Catalog,
    names: Vec<String>,
}

impl Reader<'_> {
    fn image(&mut self) -> Result<()> {
        let limits = &self.opening.ctx.limits;
        let json = |bytes| JsonLimits { bytes, depth: limits.json_depth };
        let bytes = self.files.read("config.json", limits.config)?;
        let config = Raw::<Config>::parse(bytes, &json(limits.config)).map_err(|e| Error::from(e).frame("config.json"))?;
        let manifest = match self.files.size("manifest.json")? {
            None => None,
            Some(_) => {
                let bytes = self.files.read("manifest.json", limits.manifest)?;
                let raw = Raw::<Manifest>::parse(bytes, &json(limits.manifest)).map_err(|e| Error::from(e).frame("manifest.json"))?;
                self.check_manifest(&raw, &config)?;
                Some(raw)
            }
        };
        let mut layers = Vec::with_capacity(config.diff_ids().len());
        for (position, diff_id) in config.diff_ids().iter().enumerate() {
            let listed = manifest.as_ref().map(|raw| &raw.layers[position]);
            layers.push(self.layer(position, *diff_id, listed)?);
        }
        // A manifest that is wrong about a size would be refused elsewhere: then a new one is made.
        let sized = |raw: &Raw<Manifest>| {
            raw.layers.iter().zip(&layers).all(|(listed, layer)| layer.descriptor.as_ref().is_none_or(|known| known.size == listed.size))
        };
        let manifest = manifest.filter(|raw| raw.config.size == config.size() && sized(raw));
        let manifest = manifest.map(|raw| (raw.media_type.clone().unwrap_or_else(|| DOCKER_MANIFEST.to_owned()), raw));
        let descriptor =
            manifest.as_ref().map(|(media_type, raw)| Descriptor::new(media_type.clone(), *raw.digest(), raw.bytes().len() as u64));
        let id = self.catalog.add_image(Image { manifest, config, layers, legacy: None, lineage: None });
        self.catalog.roots.push(Root { name: None, node: Node { descriptor, content: Content::Image(id) } });
        Ok(())
    }

    /// Compares the manifest with what is beside it.
    fn check_manifest(&mut self, raw: &Raw<Manifest>, config: &Raw<Config>) -> Result<()> {
        if self.files.size("digest")?.is_some() {
            let digest = self.files.read("digest", 1024)?;
            let stated = String::from_utf8_lossy(&digest).trim().to_owned();
            if stated != raw.digest().to_string() {
                let stated = stated.escape_debug();
                return Err(
                    Error::mismatch(format_args!("its digest is {}, but digest says {stated}", raw.digest())).frame("manifest.json")
                );
            }
        }
        if raw.config.digest != *config.digest() {
            let expected = raw.config.digest;
            return Err(
                Error::mismatch(format_args!("its digest is {}, but manifest.json says {expected}", config.digest())).frame("config.json")
            );
        }
        if raw.config.size != config.size() {
            let (stated, size) = (raw.config.size, config.size());
            self.catalog
                .warnings
                .push(format!("manifest.json says that the config has {stated} bytes, and it has {size}: a new manifest is made"));
        }
        let (listed, expected) = (raw.layers.len(), config.diff_ids().len());
        if listed != expected {
            let what = format_args!("it lists {listed} layers, but config.json has {expected} diff IDs");
            return Err(Error::invalid(what).frame("manifest.json"));
        }
        Ok(())
    }

    fn layer(&mut self, position: usize, diff_id: DiffId, listed: Option<&Descriptor>) -> Result<Layer> {
        let names = [format!("{position:03}.tar.gz"), format!("{position:03}.tar")];
        let mut found = None;
        for name in names {
            if let Some(size) = self.files.size(&name)? {
                found = Some((name, size));
                break;
            }
        }
        let Some((name, size)) = found else {
            let foreign = listed.and_then(|listed| parse_layer_media(&listed.media_type)).is_some_and(|media| media.foreign);
            let remote = Layer { diff_id, blob: None, descriptor: listed.cloned(), missing: None };
            return if foreign { Ok(remote) } else { Err(Error::not_found("it is missing").frame(format_args!("{position:03}.tar.gz"))) };
        };
        let compression = self.files.compression(&name)?;
        let beside = self.digest_beside(position)?;
        let digest = match (listed.map(|listed| listed.digest), beside) {
            (Some(listed), Some(beside)) if listed != beside => {
                let what = format_args!("it says {beside}, but manifest.json says {listed}");
                return Err(Error::mismatch(what).frame(format_args!("{position:03}.sha256")));
            }
            (listed, beside) => listed.or(beside),
        };
        if compression == Compression::None && digest.is_some_and(|digest| digest != diff_id.0) {
            return Err(Error::mismatch(format_args!("it is plain, but its digest is not diff ID {diff_id} of config.json")).frame(name));
        }
        let mut descriptor = listed.cloned();
        if let Some(descriptor) = descriptor.as_mut().filter(|descriptor| descriptor.size != size) {
            let stated = std::mem::replace(&mut descriptor.size, size);
            self.catalog
                .warnings
                .push(format!("manifest.json says that {name} has {stated} bytes, and it has {size}: a new manifest is made"));
        }
        let known = Known { size: Some(size), digest, diff_id: Some(diff_id) };
        let blob = self.catalog.add_blob(Blob { known, compression, place: format!("layer {name}") });
        self.names.push(name);
        Ok(Layer { diff_id, blob: Some(blob), descriptor, missing: None })
    }

    /// The digest in the file beside a layer.
    fn digest_beside(&self, position: usize) -> Result<Option<Digest>> {
        let name = format!("{position:03}.sha256");
        if self.files.size(&name)?.is_none() {
            return Ok(None);
        }
        let text = self.files.read(&name, 1024)?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        let text = if text.contains(':') { text } else { format!("sha256:{text}") };
        text.parse().map(Some).map_err(|e| Error::invalid(e).frame(name))
    }
}

/// Writes one image into a folder.
#[derive(Debug)]
struct GoogleSink(Folder);

impl Sink for GoogleSink {
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
        let (root, [image], [top]) = (self.0.work(), sealed.images.as_slice(), sealed.roots.as_slice()) else {
            let count = sealed.images.len();
            return Err(Error::unsupported(format_args!("it holds one image, not {count}")).frame(self.0.path().display()));
        };
        for (position, layer) in image.layers.iter().enumerate() {
            write_durably(&root.join(format!("{position:03}.sha256")), layer.descriptor.digest.hex().as_bytes())?;
            let Some(blob) = layer.blob else { continue };
            let (from, to) = (self.0.blob(blob), root.join(format!("{position:03}.tar.gz")));
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).path(&to)?;
        }
        for blob in 0..sealed.blobs.len() {
            let path = self.0.blob(blob);
            fs::remove_file(&path).path(&path)?;
        }
        write_durably(&root.join("config.json"), image.config.bytes())?;
        if let Some(manifest) = sealed.documents.iter().find(|document| document.digest == top.descriptor.digest) {
            write_durably(&root.join("manifest.json"), &manifest.bytes)?;
        }
        write_durably(&root.join("digest"), top.descriptor.digest.to_string().as_bytes())?;
        self.0.make_visible()?;
        Ok(Committed::default())
    }

    fn describe(&self) -> String {
        format!("{NAME}:{}", self.0.path().display())
    }
}

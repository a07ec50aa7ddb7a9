//! A repository of a registry as a source: its manifests and configs are read when it is opened, its blobs when they are asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::client::Client;
use super::download::BlobReader;
use super::manifests::{Fetched, fetch, fetch_if_there};
use super::{Access, referrers};
use crate::catalog::{Blob, BlobId, Catalog, Name, Root};
use crate::compress::{Compression, SNIFF, sniff};
use crate::context::{Cancel, Context};
use crate::digest::{Algorithm, DiffId, Digest};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::pool::{lock, side_by_side};
use crate::reference::Reference;
use crate::source::Source;
use crate::spec::Descriptor;
use crate::spec::media::{LayerCompression, LayerMedia, parse_layer_media};
use crate::spool;
use crate::transport::Section;
use crate::tree::{Opening, Role, Shelf, TreeReader};

/// Opens the image or index that a reference leads to.
///
/// `spool_dir` is where layers are kept that must be read more than once.
pub(crate) fn open(reference: &Reference, access: &Arc<Access>, opening: &Opening<'_>, spool_dir: &Path) -> Result<Arc<dyn Source>> {
    let reference = reference.clone().with_default_tag();
    let client = Arc::new(Client::new(&reference, access, opening.ctx));
    let place = format!("docker://{}", reference.familiar());
    read(client, &reference, access, opening, spool_dir).map(|source| Arc::new(source) as Arc<dyn Source>).context(|| place)
}

fn read(
    client: Arc<Client>,
    reference: &Reference,
    access: &Arc<Access>,
    opening: &Opening<'_>,
    spool_dir: &Path,
) -> Result<RegistrySource> {
    let repository = reference.path();
    let wanted = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    };
    let top = fetch(&client, repository, &wanted, opening.ctx.limits.manifest)?;
    let descriptor = Descriptor::new(top.media_type.clone(), top.digest, top.bytes.len() as u64);
    let shelf = RepositoryShelf { client: &client, repository, top: Some(top) };
    let mut reader = TreeReader::new(&shelf, opening);
    let node = reader.node(&descriptor, 0)?;
    let name = reference.tag().map(|_| Name::Reference(reference.without_digest()));
    reader.catalog.roots.push(Root { name, node });
    if opening.referrers {
        referrers::add(&client, reference, &mut reader, opening)?;
    }
    let catalog = reader.catalog;
    let (parallel, reference) = (access.parallel, reference.clone());
    Ok(RegistrySource { client, reference, catalog, parallel, spool_dir: spool_dir.to_owned(), kept: Mutex::default() })
}

/// The documents and blobs of one repository.
pub(super) struct RepositoryShelf<'a> {
    client: &'a Arc<Client>,
    repository: &'a str,
    /// What was fetched to begin with.
    top: Option<Fetched>,
}

impl Shelf for RepositoryShelf<'_> {
    fn name(&self, role: Role, digest: &Digest) -> String {
        match role {
            Role::Blob => digest.to_string(),
            Role::Manifest => format!("manifest {digest}"),
        }
    }

    fn size(&self, _role: Role, descriptor: &Descriptor) -> Result<Option<u64>> {
        // Foreign layers are where their URLs say.
        let foreign = parse_layer_media(&descriptor.media_type).is_some_and(|media| media.foreign);
        Ok((!foreign).then_some(descriptor.size))
    }

    fn read(&self, role: Role, descriptor: &Descriptor, limit: u64) -> Result<Option<Vec<u8>>> {
        if descriptor.size > limit {
            let size = descriptor.size;
            return Err(Error::limit(format_args!("it has {size} bytes, more than the limit of {limit}")).frame(descriptor.digest));
        }
        if let Some(top) = self.top.as_ref().filter(|top| top.digest == descriptor.digest) {
            return Ok(Some(top.bytes.clone()));
        }
        if role == Role::Manifest {
            // Not a byte more than was stated.
            let Descriptor { digest, size, .. } = descriptor;
            let fetched = fetch_if_there(self.client, self.repository, &digest.to_string(), limit.min(*size))?;
            return match fetched {
                Some(fetched) if fetched.bytes.len() as u64 != *size => {
                    let found = fetched.bytes.len();
                    Err(Error::mismatch(format_args!("it has {found} bytes, but its descriptor says {size}")).frame(digest))
                }
                fetched => Ok(fetched.map(|fetched| fetched.bytes)),
            };
        }
        let Descriptor { digest, size, .. } = descriptor;
        let mut bytes = Vec::new();
        BlobReader::new(Arc::clone(self.client), self.repository, digest, *size, 0).read_to_end(&mut bytes).map_err(Error::io)?;
        Ok(Some(bytes))
    }

    fn compression(&self, layer: &Descriptor, diff_id: &DiffId) -> Result<Compression> {
        match parse_layer_media(&layer.media_type) {
            Some(LayerMedia { compression: LayerCompression::Gzip, .. }) => Ok(Compression::Gzip),
            Some(LayerMedia { compression: LayerCompression::Zstd, .. }) => Ok(Compression::Zstd),
            Some(_) if layer.digest == diff_id.0 => Ok(Compression::None),
            // A plain layer is its own diff ID. Where it is said to be plain and is not, or nothing is said, its first bytes tell.
            media => {
                let mut head = Vec::with_capacity(SNIFF);
                let reader = BlobReader::new(Arc::clone(self.client), self.repository, &layer.digest, layer.size, 0);
                match reader.take(SNIFF as u64).read_to_end(&mut head).map_err(Error::io) {
                    Err(error) if error.kind() == ErrorKind::NotFound && media.is_some_and(|media| media.foreign) => {}
                    read => drop(read.context(|| layer.digest)?),
                }
                sniff(&head).map_err(|error| Error::from(error).frame(layer.digest))
            }
        }
    }
}

/// One image, index or artifact of a repository, and what refers to it.
struct RegistrySource {
    client: Arc<Client>,
    reference: Reference,
    catalog: Catalog,
    parallel: usize,
    /// Where blobs are kept that will be read again.
    spool_dir: PathBuf,
    kept: Mutex<HashMap<BlobId, (Arc<File>, u64)>>,
}

impl RegistrySource {
    fn download(&self, client: &Arc<Client>, blob: BlobId, from: u64) -> Result<BlobReader> {
        let known = &self.catalog.blob(blob).known;
        let (Some(digest), Some(size)) = (known.digest, known.size) else {
            return Err(Error::invalid("a blob of a registry has no digest"));
        };
        Ok(BlobReader::new(Arc::clone(client), self.reference.path(), &digest, size, from))
    }

    /// Downloads a blob into a file without a name.
    fn keep_one(&self, blob: BlobId, ctx: &Context) -> Result<()> {
        let Blob { known, place, .. } = self.catalog.blob(blob);
        let file = Arc::new(spool::anonymous(&self.spool_dir)?);
        let mut from = Copying { from: self.download(&self.client, blob, 0)?, to: &file, dir: &self.spool_dir, size: 0 };
        let algorithm = known.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let found = ctx.digest(&mut from, algorithm).context(|| place.clone())?;
        let size = from.size;
        if known.size != Some(size) || known.digest != Some(found) {
            let expected = known.digest.map(|digest| digest.to_string()).unwrap_or_default();
            return Err(Error::mismatch(format_args!("its digest is {found}, expected {expected}")).frame(place));
        }
        lock(&self.kept).insert(blob, (file, size));
        Ok(())
    }
}

/// What is read, and written to a file on the way.
struct Copying<'a, R> {
    from: R,
    to: &'a File,
    /// Where that is.
    dir: &'a Path,
    size: u64,
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let written = self.to.write_all_at(&buffer[..count], self.size);
        written.map_err(|error| Error::io(error).frame(format_args!("writing a temporary file in {}", self.dir.display())))?;
        self.size += count as u64;
        Ok(count)
    }
}

impl Source for RegistrySource {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        match self.file(blob) {
            Some((file, range)) => Ok(Box::new(Section::new(file, from.min(range.end), range.end))),
            None => Ok(Box::new(self.download(&self.client, blob, from)?)),
        }
    }

    fn open_until(&self, blob: BlobId, cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
        match self.file(blob) {
            Some(_) => self.open(blob, 0),
            None => Ok(Box::new(self.download(&Arc::new(self.client.until(cancel)), blob, 0)?)),
        }
    }

    fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        lock(&self.kept).get(&blob).map(|(file, size)| (Arc::clone(file), 0..*size))
    }

    fn keep(&self, blobs: &[BlobId], ctx: &Context) -> Result<()> {
        let mut missing: Vec<BlobId> = blobs.iter().copied().filter(|blob| !lock(&self.kept).contains_key(blob)).collect();
        missing.sort_unstable();
        missing.dedup();
        let size: u64 = missing.iter().filter_map(|blob| self.catalog.blob(*blob).known.size).sum();
        let limit = ctx.limits.spool;
        if self.spooled().saturating_add(size) > limit {
            return Err(Error::limit(format_args!(
                "its layers have more than {limit} bytes, and they would have to be kept in a temporary file"
            ))
            .hint("raise the limit with --limit spool=BYTES"));
        }
        side_by_side(self.parallel, missing.len(), |at| self.keep_one(missing[at], ctx)).into_iter().collect()
    }

    fn spooled(&self) -> u64 {
        lock(&self.kept).values().map(|(_, size)| size).sum()
    }

    fn describe(&self) -> String {
        format!("docker://{}", self.reference.familiar())
    }

    fn repository(&self, _blob: BlobId) -> Option<&Reference> {
        Some(&self.reference)
    }

    fn parallel(&self) -> usize {
        self.parallel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_where() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut from = Copying { from: &b"bytes"[..], to: &full, dir: Path::new("spool"), size: 0 };
        let error = Error::io(from.read(&mut [0; 9]).unwrap_err());
        assert_eq!(error.to_string(), "writing a temporary file in spool: No space left on device");
    }
}

//! A repository of a registry as a sink: blobs first, manifests last, and the tag with the very last of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::client::Client;
use super::retry::Backoff;
use super::upload::{CHUNK, Chunks, Failure, Remedy, Stream, Uploads};
use super::{Access, manifests, referrers};
use crate::catalog::{Known, Name};
use crate::compress::Compression;
use crate::context::{Cancel, Context};
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::http::Url;
use crate::limits::Limits;
use crate::pool::lock;
use crate::reference::Reference;
use crate::sink::{
    Accepts, BlobWriter, Committed, DefaultCompress, Expected, ExpectedBlob, ManifestTypes, Names, Order, Sealed, SealedRoot, Sink, Written,
};

/// What a registry can hold.
pub(crate) fn accepts() -> Accepts {
    Accepts {
        format: "docker://",
        several: true,
        configs: true,
        indexes: true,
        artifacts: true,
        annotations: true,
        names: Names::Tagged,
        manifests: ManifestTypes::Oci,
        compressions: &[Compression::None, Compression::Gzip, Compression::Zstd],
        default_compress: DefaultCompress::GzipPlain,
        stored_digests: false,
        configs_first: false,
    }
}

/// A blob that failed.
struct Failed {
    backoff: Backoff,
    /// Whether a token was replaced for it.
    replaced: bool,
    /// What its writer says that may help. A failure of the source, or of another question to the registry, says nothing.
    remedy: Remedy,
}

/// What a registry has of a blob.
enum Looked {
    Held(Written),
    /// Not the blob, but an upload of it that was begun.
    Begun(Url),
    Missing,
}

/// Writes into one repository.
pub(crate) struct RegistrySink {
    client: Arc<Client>,
    uploads: Uploads,
    reference: Reference,
    parallel: usize,
    limits: Limits,
    expected: Vec<ExpectedBlob>,
    /// Uploads that a registry began where it was asked to mount, by blob.
    begun: Mutex<HashMap<usize, Url>>,
    /// Blobs that failed, and what was said of the last time.
    failed: Mutex<HashMap<usize, Failed>>,
    /// Where the blobs come from, and so perhaps their configs.
    origin: Mutex<Option<Reference>>,
}

impl RegistrySink {
    pub(crate) fn create(reference: &Reference, access: &Arc<Access>, ctx: &Context) -> Self {
        let client = Arc::new(Client::new(reference, access, ctx));
        Self {
            uploads: Uploads::new(Arc::clone(&client), reference.path()),
            client,
            reference: reference.clone(),
            parallel: access.parallel,
            limits: ctx.limits.clone(),
            expected: Vec::new(),
            begun: Mutex::default(),
            failed: Mutex::default(),
            origin: Mutex::default(),
        }
    }

    /// Asks for what is known before it is sent: the registry may have it here, or in the repository that it comes from.
    fn look_for(&self, expected: &ExpectedBlob, origin: Option<&Reference>) -> Result<Looked> {
        let (Some(digest), Some(size)) = (expected.known.digest, expected.known.size) else { return Ok(Looked::Missing) };
        let here = Looked::Held(Written::expected(size, digest, expected));
        if self.uploads.has(&digest, size)? {
            return Ok(here);
        }
        let other = origin.filter(|origin| origin.domain() == self.reference.domain() && origin.path() != self.reference.path());
        let Some(other) = other else { return Ok(Looked::Missing) };
        Ok(self.uploads.mount(&digest, other.path())?.map_or(here, Looked::Begun))
    }

    /// Puts a config where the registry lacks it.
    fn put_config(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        let known = Known { digest: Some(*digest), size: Some(bytes.len() as u64), diff_id: None };
        let known = ExpectedBlob { known, ..ExpectedBlob::default() };
        let origin = lock(&self.origin).clone();
        match self.look_for(&known, origin.as_ref())? {
            Looked::Held(_) => Ok(()),
            Looked::Begun(url) => self.uploads.put(digest, bytes, Some(url)),
            Looked::Missing => self.uploads.put(digest, bytes, None),
        }
    }

    /// The tag that a root gets; one that has none goes by its digest. Names of other repositories say nothing here, but for the tags that lead from
    /// an image to what refers to it.
    fn tag<'a>(&self, root: &'a SealedRoot) -> Option<&'a str> {
        let Some(Name::Reference(name)) = &root.name else { return None };
        let ours = self.reference.digest().is_none() && name.repository() == self.reference.repository();
        name.tag().filter(|_| ours).or_else(|| referrers::tag(name))
    }

    fn put_manifest(&self, reference: &str, bytes: &[u8], digest: &Digest) -> Result<()> {
        let repository = self.reference.path();
        let noted = manifests::put(&self.client, repository, reference, bytes, digest)?;
        if !noted {
            referrers::note(&self.client, repository, bytes, digest, &self.limits)?;
        }
        Ok(())
    }

    fn put_documents(&self, sealed: &Sealed) -> Result<()> {
        let configs: Vec<&Digest> = sealed.images.iter().map(|image| image.config.digest()).collect();
        let (configs, manifests): (Vec<_>, Vec<_>) = sealed.documents.iter().partition(|document| configs.contains(&&document.digest));
        for config in configs {
            self.put_config(&config.bytes, &config.digest).context(|| format!("config {}", config.digest))?;
        }
        for root in &sealed.roots {
            let digest = &root.descriptor.digest;
            if !manifests.iter().any(|manifest| manifest.digest == *digest) {
                return Err(Error::unsupported("a registry holds no blob without a manifest").frame(digest));
            }
        }
        if let (Some(wanted), Some(root)) = (self.reference.digest(), sealed.roots.first())
            && sealed.roots.iter().all(|root| root.descriptor.digest != *wanted)
        {
            let digest = root.descriptor.digest;
            return Err(Error::mismatch(format_args!("the manifest has digest {digest}, and the destination says {wanted}")));
        }
        // What others list comes before them; tags come when all that they lead to is there.
        for manifest in &manifests {
            let tags: Vec<_> =
                sealed.roots.iter().filter(|root| root.descriptor.digest == manifest.digest).filter_map(|root| self.tag(root)).collect();
            let by_digest = manifest.digest.to_string();
            let references = if tags.is_empty() { vec![by_digest.as_str()] } else { tags };
            for reference in references {
                self.put_manifest(reference, &manifest.bytes, &manifest.digest).context(|| format!("manifest {reference}"))?;
            }
        }
        Ok(())
    }
}

impl Sink for RegistrySink {
    fn order(&self) -> Order {
        Order::Any
    }

    fn begin(&mut self, expected: Expected, cancel: &Cancel) -> Result<Vec<usize>> {
        // A lane that fails stops the others wherever they wait.
        self.client = Arc::new(self.client.until(cancel));
        self.uploads = self.uploads.until(cancel);
        self.expected = expected.blobs;
        Ok((0..self.expected.len()).collect())
    }

    fn held(&self, blob: usize, origin: Option<&Reference>) -> Result<Option<Written>> {
        let Some(expected) = self.expected.get(blob) else { return Ok(None) };
        if let Some(origin) = origin {
            *lock(&self.origin) = Some(origin.clone());
        }
        match self.look_for(expected, origin)? {
            Looked::Held(written) => Ok(Some(written)),
            Looked::Begun(url) => {
                lock(&self.begun).insert(blob, url);
                Ok(None)
            }
            Looked::Missing => Ok(None),
        }
    }

    fn put(&self, blob: usize) -> Result<Box<dyn BlobWriter + '_>> {
        let begun = lock(&self.begun).remove(&blob);
        let way = match self.expected.get(blob).map(|blob| (blob.known.digest, blob.known.size)) {
            Some((Some(digest), Some(size))) if size > CHUNK as u64 => Way::Stream(Stream::new(&self.uploads, begun, digest, size)?),
            Some((Some(_), Some(_))) => Way::Chunks(Chunks::missing(&self.uploads, begun)),
            _ => Way::Chunks(Chunks::new(&self.uploads)),
        };
        Ok(Box::new(RegistryBlob { sink: self, blob, way }))
    }

    fn again(&self, blob: usize, error: Error) -> Result<()> {
        // Whoever waits holds no lock: other lanes fail, too.
        let Some(mut failed) = lock(&self.failed).remove(&blob) else { return Err(error) };
        let done = match std::mem::replace(&mut failed.remedy, Remedy::None) {
            Remedy::Anew(asked) => failed.backoff.wait(error, asked),
            Remedy::Token if !std::mem::replace(&mut failed.replaced, true) => Ok(()),
            Remedy::Token | Remedy::None => Err(error),
        };
        lock(&self.failed).insert(blob, failed);
        done
    }

    fn commit(self: Box<Self>, sealed: &Sealed) -> Result<Committed> {
        self.put_documents(sealed)?;
        Ok(Committed::default())
    }

    fn describe(&self) -> String {
        format!("docker://{}", self.reference.familiar())
    }

    fn parallel(&self) -> usize {
        self.parallel
    }
}

/// One blob on its way.
struct RegistryBlob<'a> {
    sink: &'a RegistrySink,
    blob: usize,
    way: Way<'a>,
}

enum Way<'a> {
    Chunks(Chunks<'a>),
    Stream(Stream),
}

impl RegistryBlob<'_> {
    /// Notes what became of it: only where it was the registry that failed, it makes sense to read the source once more.
    fn note(sink: &RegistrySink, blob: usize, done: Result<(), Failure>) -> Result<()> {
        let Err(Failure { error, remedy }) = done else { return Ok(()) };
        let new = || Failed { backoff: sink.client.backoff().of_work(), replaced: false, remedy };
        lock(&sink.failed).entry(blob).or_insert_with(new).remedy = remedy;
        Err(error.frame("sending it"))
    }
}

impl BlobWriter for RegistryBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match &mut self.way {
            Way::Chunks(chunks) => chunks.write(bytes),
            Way::Stream(stream) => stream.write(bytes),
        };
        Self::note(self.sink, self.blob, done)
    }

    fn finish(self: Box<Self>, written: &Written) -> Result<()> {
        let done = match self.way {
            Way::Chunks(chunks) => chunks.finish(&written.digest, written.size),
            Way::Stream(stream) => stream.finish(),
        };
        Self::note(self.sink, self.blob, done)
    }
}

//! What a registry holds: blobs, manifests, tags and unfinished uploads, by repository, in memory.
//!
//! A blob belongs to a repository, as it does in the registries of the world: what another repository has must be mounted or sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

/// Bytes that answers share.
pub(super) type Bytes = Arc<Vec<u8>>;

/// All repositories by name.
#[derive(Debug, Default)]
pub(super) struct Store {
    repositories: BTreeMap<String, Repository>,
    uploads: u64,
}

/// One repository.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) blobs: BTreeMap<String, Bytes>,
    pub(super) manifests: BTreeMap<String, Manifest>,
    pub(super) tags: BTreeMap<String, String>,
    uploads: BTreeMap<String, Vec<u8>>,
}

/// A manifest or index with the media type that it was put with.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

/// Why something is not taken: an error code of the distribution specification, and a sentence.
pub(super) type Refusal = (u16, &'static str, String);

impl Store {
    pub(super) fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Repository> {
        self.repositories.get(name)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.repositories.keys().cloned().collect()
    }

    /// Begins an upload and gives its ID.
    pub(super) fn begin(&mut self, name: &str) -> String {
        self.uploads += 1;
        let id = format!("{:08x}-0000-4000-8000-000000000000", self.uploads);
        self.repository(name).uploads.insert(id.clone(), Vec::new());
        id
    }
}

impl Repository {
    pub(super) fn upload(&mut self, id: &str) -> Option<&mut Vec<u8>> {
        self.uploads.get_mut(id)
    }

    pub(super) fn forget(&mut self, id: &str) -> Option<Vec<u8>> {
        self.uploads.remove(id)
    }

    pub(super) fn unfinished(&self) -> usize {
        self.uploads.len()
    }

    /// Keeps a blob if it is what its digest says.
    pub(super) fn put_blob(&mut self, digest: &str, bytes: Vec<u8>) -> Result<(), Refusal> {
        let found = crate::digest(&bytes);
        if found != digest {
            return Err((400, "DIGEST_INVALID", format!("provided digest {digest} did not match uploaded content {found}")));
        }
        self.blobs.insert(found, bytes.into());
        Ok(())
    }

    /// Keeps a manifest by tag or digest, if all that it names is there; gives its digest and that of its subject.
    pub(super) fn put_manifest(&mut self, reference: &str, media_type: &str, bytes: Vec<u8>) -> Result<(String, Option<String>), Refusal> {
        let digest = crate::digest(&bytes);
        let bad = |code, why: String| Err((400, code, why));
        if reference.contains(':') && reference != digest {
            return bad("DIGEST_INVALID", format!("provided digest {reference} did not match uploaded content {digest}"));
        }
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { return bad("MANIFEST_INVALID", "it is not JSON".to_owned()) };
        if value["mediaType"].as_str().is_some_and(|stated| stated != media_type) {
            return bad("MANIFEST_INVALID", format!("mediaType in manifest should be '{media_type}' not '{}'", value["mediaType"]));
        }
        let listed = |key: &str| value[key].as_array().cloned().unwrap_or_default();
        for descriptor in listed("layers").iter().chain(Some(&value["config"]).filter(|config| config.is_object())) {
            let foreign = descriptor["urls"].as_array().is_some_and(|urls| !urls.is_empty());
            let wanted = descriptor["digest"].as_str().unwrap_or_default();
            if !foreign && !self.blobs.contains_key(wanted) {
                return bad("MANIFEST_BLOB_UNKNOWN", format!("blob unknown to registry: {wanted}"));
            }
        }
        for descriptor in listed("manifests") {
            let wanted = descriptor["digest"].as_str().unwrap_or_default();
            if !self.manifests.contains_key(wanted) {
                return bad("MANIFEST_BLOB_UNKNOWN", format!("manifest unknown to registry: {wanted}"));
            }
        }
        self.manifests.insert(digest.clone(), Manifest { media_type: media_type.to_owned(), bytes: bytes.into() });
        if !reference.contains(':') {
            self.tags.insert(reference.to_owned(), digest.clone());
        }
        Ok((digest, value["subject"]["digest"].as_str().map(str::to_owned)))
    }

    /// The digest behind a tag or a digest, and the manifest.
    pub(super) fn manifest(&self, reference: &str) -> Option<(String, Manifest)> {
        let digest = if reference.contains(':') { reference.to_owned() } else { self.tags.get(reference)?.clone() };
        let manifest = self.manifests.get(&digest)?.clone();
        Some((digest, manifest))
    }

    /// The index of what refers to `subject`, as the referrers API gives it.
    pub(super) fn referrers(&self, subject: &str, kind: Option<&str>) -> Value {
        let mut manifests = Vec::new();
        for (digest, manifest) in &self.manifests {
            let Ok(value) = serde_json::from_slice::<Value>(&manifest.bytes) else { continue };
            let artifact = value["artifactType"].as_str().or(value["config"]["mediaType"].as_str());
            if value["subject"]["digest"].as_str() != Some(subject) || kind.is_some_and(|kind| artifact != Some(kind)) {
                continue;
            }
            let mut descriptor = json!({ "mediaType": manifest.media_type, "digest": digest, "size": manifest.bytes.len() });
            if let Some(artifact) = artifact {
                descriptor["artifactType"] = artifact.into();
            }
            if value["annotations"].is_object() {
                descriptor["annotations"] = value["annotations"].clone();
            }
            manifests.push(descriptor);
        }
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests })
    }
}

//! Manifests and indexes by tag or digest.

use super::auth::Scope;
use super::client::{Answer, Call, Client, To};
use super::upload::same_digest;
use crate::digest::{Algorithm, Digest, Digester};
use crate::error::{Error, ErrorKind, Result};
use crate::http::Method;
use crate::spec::Object;
use crate::spec::media::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

/// A manifest or index, as it came.
pub(super) struct Fetched {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
}

/// Fetches what a tag or digest leads to.
///
/// By digest, the bytes are verified. By tag there is only what the registry says of them, which then must be true.
pub(super) fn fetch(client: &Client, repository: &str, reference: &str, limit: u64) -> Result<Fetched> {
    let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
    let (path, scope) = (format!("/v2/{repository}/manifests/{reference}"), Scope::pull(repository));
    let answer = client.ask(&Call::get(&path, &scope).headers(&[("accept", &accept)]), limit)?;
    if answer.status() == 404 && !answer.bytes.windows(12).any(|word| word == b"NAME_UNKNOWN") {
        let refusal = client.refusal(&answer);
        return Err(refusal.hint(format_args!("longshore tags {} lists the tags", client.repository().familiar_repository())));
    }
    if answer.status() != 200 {
        return Err(client.refusal(&answer));
    }
    let stated = answer.head.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
    let expected = reference.parse::<Digest>().ok().or(stated);
    let algorithm = expected.map_or(Algorithm::Sha256, |digest| digest.algorithm());
    let mut digester = Digester::new(algorithm);
    digester.update(&answer.bytes);
    let digest = digester.finish();
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        let registry = client.registry();
        return Err(Error::mismatch(format_args!("the manifest that {registry} gives has digest {digest}, expected {expected}")));
    }
    Ok(Fetched { media_type: media_type(&answer), digest, bytes: answer.bytes })
}

/// What the registry says that it is, or else the document.
fn media_type(answer: &Answer) -> String {
    let stated = answer.head.header("content-type").map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match stated {
        Some(stated) if stated.starts_with("application/vnd.") => stated,
        _ => media_type_of(&answer.bytes),
    }
}

/// The type of a manifest or index by its own words; what says nothing is OCI's, or of Docker's first schema.
pub(super) fn media_type_of(bytes: &[u8]) -> String {
    let Ok(object) = Object::parse(bytes) else { return OCI_MANIFEST.to_owned() };
    let own = object.get("mediaType").and_then(|text| serde_json::from_str::<String>(text.get()).ok());
    own.unwrap_or_else(|| {
        let known = if object.contains("manifests") {
            OCI_INDEX
        } else if object.contains("fsLayers") {
            "application/vnd.docker.distribution.manifest.v1+json"
        } else {
            OCI_MANIFEST
        };
        known.to_owned()
    })
}

/// Puts a manifest or index under a tag, or under its digest. Says whether the registry noted that it refers to another.
pub(super) fn put(client: &Client, repository: &str, reference: &str, bytes: &[u8], digest: &Digest) -> Result<bool> {
    let (path, scope) = (format!("/v2/{repository}/manifests/{reference}"), Scope::push(repository));
    let media_type = media_type_of(bytes);
    let headers = [("content-type", media_type.as_str())];
    let answer = client.ask(&Call::new(Method::Put, To::Path(&path), &scope).headers(&headers).body(bytes), 64 << 10)?;
    match answer.status() {
        200..=202 => {
            same_digest(client.registry(), &answer, digest)?;
            Ok(answer.head.header("oci-subject").is_some())
        }
        _ => Err(client.refusal(&answer)),
    }
}

/// The same, where that something is not there is no failure.
pub(super) fn fetch_if_there(client: &Client, repository: &str, reference: &str, limit: u64) -> Result<Option<Fetched>> {
    match fetch(client, repository, reference, limit) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

//! The protocol: OCI distribution 1.1, which is Docker's v2 with referrers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::auth::Scope;
use super::server::{Body, Request, Response};
use super::store::{Bytes, Refusal, Store};
use super::{Listener, Shared};

/// What a path of the protocol names.
enum Route<'a> {
    Base,
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Uploads(&'a str),
    Upload(&'a str, &'a str),
    Tags(&'a str),
    Referrers(&'a str, &'a str),
}

fn route(path: &str) -> Option<Route<'_>> {
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return Some(Route::Base);
    }
    let split = |middle: &str| rest.rsplit_once(middle).filter(|(name, _)| !name.is_empty());
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some(Route::Tags(name));
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads/").or(rest.strip_suffix("/blobs/uploads")) {
        return Some(Route::Uploads(name));
    }
    if let Some((name, id)) = split("/blobs/uploads/") {
        return Some(Route::Upload(name, id));
    }
    split("/blobs/")
        .map(|(name, digest)| Route::Blob(name, digest))
        .or_else(|| split("/manifests/").map(|(name, reference)| Route::Manifest(name, reference)))
        .or_else(|| split("/referrers/").map(|(name, digest)| Route::Referrers(name, digest)))
}

fn refused((status, code, why): Refusal) -> Response {
    Response::error(status, code, &why)
}

/// The right answer to a request, and what it does to the store.
pub(super) fn answer(shared: &Arc<Shared>, kind: Listener, request: &Request, body: Body) -> Response {
    if request.path == "/token" {
        return shared.gate.lock().unwrap().token(request, &body.bytes);
    }
    let Some(route) = route(&request.path) else { return Response::error(404, "NOT_FOUND", "there is no such path") };
    if kind == Listener::Main {
        let refused = shared.gate.lock().unwrap().refuse(request, &scopes(&route, request), &shared.realm());
        if let Some(response) = refused {
            return response;
        }
    }
    let mut store = shared.store.lock().unwrap();
    match (request.method.as_str(), route) {
        ("GET" | "HEAD", Route::Base) => Response::json(200, "application/json", "{}".to_owned()),
        ("GET" | "HEAD", Route::Manifest(name, reference)) => get_manifest(&store, name, reference),
        ("PUT", Route::Manifest(name, reference)) if body.complete => {
            put_manifest(&mut store, name, reference, request, body.bytes, shared.referrers.load(Ordering::Relaxed))
        }
        ("GET" | "HEAD", Route::Blob(name, digest)) => get_blob(&store, name, digest, request),
        ("POST", Route::Uploads(name)) => begin(&mut store, name, request, body),
        ("PATCH", Route::Upload(name, id)) => patch(&mut store, name, id, request, &body.bytes),
        ("PUT", Route::Upload(name, id)) => finish(&mut store, name, id, request, &body),
        ("GET", Route::Upload(name, id)) => status(&mut store, name, id),
        ("DELETE", Route::Upload(name, id)) => match store.repository(name).forget(id) {
            Some(_) => Response::new(204),
            None => unknown_upload(),
        },
        ("GET", Route::Tags(name)) => tags(&store, name, request),
        ("GET", Route::Referrers(name, digest)) if shared.referrers.load(Ordering::Relaxed) => {
            let kind = request.parameter("artifactType");
            let index = store.get(name).map(|repository| repository.referrers(digest, kind));
            let index = index.unwrap_or_else(|| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }));
            let mut response = Response::json(200, INDEX, index.to_string());
            if kind.is_some() {
                response.set("OCI-Filters-Applied", "artifactType".to_owned());
            }
            response
        }
        (_, Route::Referrers(..)) => Response::error(404, "NOT_FOUND", "this registry has no referrers API"),
        _ => Response::error(405, "UNSUPPORTED", "the operation is unsupported"),
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Forgets the upload that a request means to go on with.
pub(super) fn forget(shared: &Arc<Shared>, request: &Request) {
    if let Some(Route::Upload(name, id)) = route(&request.path) {
        shared.store.lock().unwrap().repository(name).forget(id);
    }
}

/// What a request must be allowed to do.
fn scopes(route: &Route<'_>, request: &Request) -> Vec<Scope> {
    let name = match route {
        Route::Base => return Vec::new(),
        Route::Uploads(name) | Route::Tags(name) => name,
        Route::Manifest(name, _) | Route::Blob(name, _) | Route::Upload(name, _) | Route::Referrers(name, _) => name,
    };
    let mut scopes = vec![((*name).to_owned(), "pull")];
    if !matches!(request.method.as_str(), "GET" | "HEAD") || matches!(route, Route::Upload(..)) {
        scopes.push(((*name).to_owned(), "push"));
    }
    if let (Route::Uploads(_), Some(from)) = (route, request.parameter("from")) {
        scopes.push((from.to_owned(), "pull"));
    }
    scopes
}

fn get_manifest(store: &Store, name: &str, reference: &str) -> Response {
    let Some(repository) = store.get(name) else {
        return Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    };
    let Some((digest, manifest)) = repository.manifest(reference) else {
        return Response::error(404, "MANIFEST_UNKNOWN", &format!("manifest unknown: {reference}"));
    };
    let mut response = Response::with(200, &manifest.media_type, manifest.bytes);
    response.set("Docker-Content-Digest", digest);
    response
}

fn put_manifest(store: &mut Store, name: &str, reference: &str, request: &Request, bytes: Vec<u8>, referrers: bool) -> Response {
    let media_type = request.header("content-type").unwrap_or_default();
    match store.repository(name).put_manifest(reference, media_type, bytes) {
        Err(why) => refused(why),
        Ok((digest, subject)) => {
            let mut response = Response::new(201);
            response.set("Location", format!("/v2/{name}/manifests/{digest}"));
            response.set("Docker-Content-Digest", digest);
            if let Some(subject) = subject.filter(|_| referrers) {
                response.set("OCI-Subject", subject);
            }
            response
        }
    }
}

fn get_blob(store: &Store, name: &str, digest: &str, request: &Request) -> Response {
    let Some(bytes) = store.get(name).and_then(|repository| repository.blobs.get(digest)) else {
        return Response::error(404, "BLOB_UNKNOWN", &format!("blob unknown to registry: {digest}"));
    };
    let mut response = Response::with(200, "application/octet-stream", Bytes::clone(bytes));
    response.set("Docker-Content-Digest", digest.to_owned());
    response.set("Accept-Ranges", "bytes".to_owned());
    let Some((first, last)) = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return response;
    };
    let (Ok(first), last) = (first.parse::<usize>(), last.parse().unwrap_or(usize::MAX)) else { return response };
    if first >= bytes.len() || last < first {
        let mut response = Response::error(416, "RANGE_INVALID", "invalid content range");
        response.set("Content-Range", format!("bytes */{}", bytes.len()));
        return response;
    }
    response.range = first..last.saturating_add(1).min(bytes.len());
    response.status = 206;
    response.set("Content-Range", format!("bytes {first}-{}/{}", response.range.end - 1, bytes.len()));
    response
}

fn begin(store: &mut Store, name: &str, request: &Request, body: Body) -> Response {
    if let (Some(digest), Some(from)) = (request.parameter("mount"), request.parameter("from")) {
        let bytes = store.get(from).and_then(|repository| repository.blobs.get(digest)).cloned();
        if let Some(bytes) = bytes {
            store.repository(name).blobs.insert(digest.to_owned(), bytes);
            return created(name, digest);
        }
    }
    if let Some(digest) = request.parameter("digest").filter(|_| body.complete) {
        return match store.repository(name).put_blob(digest, body.bytes) {
            Ok(()) => created(name, digest),
            Err(why) => refused(why),
        };
    }
    let id = store.begin(name);
    accepted(name, &id, 0)
}

fn created(name: &str, digest: &str) -> Response {
    let mut response = Response::new(201);
    response.set("Location", format!("http://{{host}}/v2/{name}/blobs/{digest}"));
    response.set("Docker-Content-Digest", digest.to_owned());
    response
}

/// As Distribution does, the Location names how far the upload is, and is good for that alone.
fn accepted(name: &str, id: &str, len: usize) -> Response {
    let mut response = Response::new(202);
    response.set("Location", format!("http://{{host}}/v2/{name}/blobs/uploads/{id}?_state=at-{len}"));
    response.set("Docker-Upload-UUID", id.to_owned());
    response.set("Range", format!("0-{}", len.saturating_sub(1)));
    response
}

fn unknown_upload() -> Response {
    Response::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

/// What is wrong with the state or the range of a request that goes on with an upload.
fn out_of_step(name: &str, id: &str, len: usize, request: &Request) -> Option<Response> {
    if request.parameter("_state") != Some(&format!("at-{len}")) {
        return Some(Response::error(404, "BLOB_UPLOAD_INVALID", "blob upload invalid: the state is not that of the last answer"));
    }
    let from = request.header("content-range").map(|range| range.trim_start_matches("bytes ").split('-').next().unwrap_or_default());
    if from.is_some_and(|from| from.parse() != Ok(len)) {
        return Some(Response { status: 416, ..accepted(name, id, len) });
    }
    None
}

fn patch(store: &mut Store, name: &str, id: &str, request: &Request, bytes: &[u8]) -> Response {
    let Some(upload) = store.repository(name).upload(id) else { return unknown_upload() };
    if let Some(response) = out_of_step(name, id, upload.len(), request) {
        return response;
    }
    upload.extend(bytes);
    accepted(name, id, upload.len())
}

fn finish(store: &mut Store, name: &str, id: &str, request: &Request, body: &Body) -> Response {
    let Some(upload) = store.repository(name).upload(id) else { return unknown_upload() };
    if let Some(response) = out_of_step(name, id, upload.len(), request) {
        return response;
    }
    upload.extend(&body.bytes);
    let Some(digest) = request.parameter("digest").filter(|_| body.complete) else {
        return Response::error(400, "DIGEST_INVALID", "digest missing");
    };
    let repository = store.repository(name);
    let bytes = repository.forget(id).unwrap_or_default();
    match repository.put_blob(digest, bytes) {
        Ok(()) => created(name, digest),
        Err(why) => refused(why),
    }
}

fn status(store: &mut Store, name: &str, id: &str) -> Response {
    match store.repository(name).upload(id) {
        Some(upload) => Response { status: 204, ..accepted(name, id, upload.len()) },
        None => unknown_upload(),
    }
}

/// A page of tags: `n` of them, those after `last`.
fn tags(store: &Store, name: &str, request: &Request) -> Response {
    let Some(repository) = store.get(name) else {
        return Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
    };
    let last = request.parameter("last").unwrap_or_default();
    let all: Vec<&String> = repository.tags.keys().filter(|tag| tag.as_str() > last).collect();
    let n = request.parameter("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX).min(PAGE);
    let page = &all[..all.len().min(n)];
    let mut response = Response::json(200, "application/json", json!({ "name": name, "tags": page }).to_string());
    if let Some(last) = page.last().filter(|_| page.len() < all.len()) {
        response.set("Link", format!("</v2/{name}/tags/list?last={last}&n={n}>; rel=\"next\""));
    }
    response
}

/// The most tags in one answer, whatever is asked for.
const PAGE: usize = 100;

//! A registry in this process, which is as faulty as a test wants it: HTTP/1.1 by hand on threads, everything in memory.
//!
//! It speaks the OCI distribution specification 1.1 and thereby Docker's v2, strictly: an upload's `Location` is good for one request, a
//! manifest is only taken when all that it names is there, a token is good for its scopes alone. Whatever it is asked goes into a log, and
//! what goes wrong is said by [`Fault`]s. It stops when it is dropped.
//!
//! | file | holds |
//! |---|---|
//! | `server` | connections, requests and answers, byte for byte |
//! | `serve` | one request: its faults, its right answer, its entry in the log |
//! | `routes` | the protocol |
//! | `store` | blobs, manifests, tags, uploads |
//! | `auth` | Basic, Bearer and the token service |
//! | `fault` | what can go wrong |

pub mod auth;
pub mod fault;
mod routes;
mod serve;
mod server;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use auth::{Auth, Bearer};
pub use fault::{Fault, Framing, What};
use serde_json::Value;
use server::{Request, Response};

use crate::images::{Image, Layout};

/// Which of a registry's ports was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The registry itself.
    Main,
    /// Another host, which serves and takes the same blobs, and asks for no authorization.
    Elsewhere,
    /// The token service, where it is on a port of its own.
    Tokens,
}

/// A request, and what became of it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header lines.
    pub headers: Vec<(String, String)>,
    /// The port.
    pub listener: Listener,
    /// The number of the connection.
    pub connection: usize,
    /// Bytes of the request's body that were read.
    pub received: u64,
    /// The status of the answer; 0 is none.
    pub status: u16,
    /// Of a 206, the bytes from, and up to, which there should be.
    pub range: Option<(u64, u64)>,
    /// Bytes of the answer's body that the system took. Up to some hundred kilobytes may not have reached the client.
    pub sent: u64,
    /// Whether something went wrong on purpose.
    pub struck: bool,
    /// When it came.
    pub began: Instant,
    /// When the answer was out, or the client gone.
    pub ended: Option<Instant>,
}

impl Asked {
    /// A header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Method and target, as faults name them.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// Whether it is what `when` says; see [`Fault::when`].
    pub fn is(&self, when: &str) -> bool {
        Fault::on(when, What::Close).strikes(&self.method, &self.target)
    }
}

/// What all threads of a registry share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    store: Mutex<store::Store>,
    gate: Mutex<auth::Gate>,
    faults: Mutex<Vec<Fault>>,
    log: Mutex<Vec<Asked>>,
    hosts: Mutex<BTreeMap<&'static str, String>>,
    referrers: AtomicBool,
    connections: AtomicUsize,
    stop: AtomicBool,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const MAIN: &str = "main";
const ELSEWHERE: &str = "elsewhere";
const TOKENS: &str = "tokens";

impl Shared {
    fn begin(&self, asked: Asked) -> usize {
        let mut log = self.log.lock().unwrap();
        log.push(asked);
        log.len() - 1
    }

    fn note(&self, entry: usize, change: impl FnOnce(&mut Asked)) {
        if let Some(asked) = self.log.lock().unwrap().get_mut(entry) {
            change(asked);
        }
    }

    fn host(&self, which: &str) -> String {
        self.hosts.lock().unwrap().get(which).cloned().unwrap_or_default()
    }

    /// The address of the token service.
    fn realm(&self) -> String {
        let tokens = self.host(TOKENS);
        format!("http://{}/token", if tokens.is_empty() { self.host(MAIN) } else { tokens })
    }

    /// Adds what every answer has and what faults add, and puts hosts and paths in their places.
    fn fill_in(&self, response: &mut Response, request: &Request, kind: Listener, faults: &[What]) {
        response.set("Docker-Distribution-Api-Version", "registry/2.0".to_owned());
        let host = self.host(if kind == Listener::Elsewhere { ELSEWHERE } else { MAIN });
        let location = response.header("location").unwrap_or_default().replace("{host}", &host);
        // The path of the right Location, where there is one.
        let path = location.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| rest[at..].to_owned()));
        let path = path.filter(|_| (201..300).contains(&response.status)).unwrap_or_else(|| request.target.clone());
        for what in faults {
            if let What::Header(name, value) = what {
                response.set(name, value.clone());
            }
        }
        for (_, value) in &mut response.headers {
            *value = value.replace("{host}", &host).replace("{elsewhere}", &self.host(ELSEWHERE)).replace("{path}", &path);
        }
    }
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl Registry {
    /// Starts one on a free port of 127.0.0.1, which everybody may use.
    pub fn start() -> Self {
        let registry = Self { shared: Arc::default() };
        registry.shared.referrers.store(true, Ordering::Relaxed);
        registry.listen(MAIN, "127.0.0.1", Listener::Main);
        registry
    }

    fn listen(&self, name: &'static str, address: &str, kind: Listener) -> String {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        self.shared.hosts.lock().unwrap().insert(name, host.clone());
        server::listen(listener, kind, self.shared.clone());
        host
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        self.shared.host(MAIN)
    }

    /// Opens the second port, on an address of this machine such as 127.0.0.2, and gives its host and port.
    pub fn elsewhere(&self, address: &str) -> String {
        self.listen(ELSEWHERE, address, Listener::Elsewhere)
    }

    /// Wants to be convinced in this way, by `user` with `password`.
    pub fn auth(&self, auth: Auth, user: &str, password: &str) {
        if matches!(&auth, Auth::Bearer(bearer) if bearer.elsewhere) {
            self.listen(TOKENS, "127.0.0.1", Listener::Tokens);
        }
        let mut gate = self.shared.gate.lock().unwrap();
        gate.auth = auth;
        gate.users = [(user.to_owned(), password.to_owned())].into();
    }

    /// How many tokens were given.
    pub fn tokens(&self) -> usize {
        self.shared.gate.lock().unwrap().given()
    }

    /// Refuses all tokens given so far.
    pub fn revoke_tokens(&self) {
        self.shared.gate.lock().unwrap().revoke();
    }

    /// Switches the referrers API on or off.
    pub fn referrers(&self, on: bool) {
        self.shared.referrers.store(on, Ordering::Relaxed);
    }

    /// Adds something that goes wrong.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults.lock().unwrap().push(fault);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Puts an image there and gives the digest of its manifest.
    pub fn push_image(&self, image: &Image, repository: &str, tag: &str) -> String {
        let mut layout = Layout::new();
        let descriptor = layout.image(image);
        self.push_layout(&layout, &descriptor, repository, tag)
    }

    /// Puts all blobs of a layout there, those that are manifests as manifests, and tags one.
    pub fn push_layout(&self, layout: &Layout, top: &Value, repository: &str, tag: &str) -> String {
        let digest = top["digest"].as_str().unwrap().to_owned();
        let mut store = self.shared.store.lock().unwrap();
        let into = store.repository(repository);
        for (digest, bytes) in layout.blobs() {
            let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let kind = if value["manifests"].is_array() { "application/vnd.oci.image.index.v1+json" } else { MANIFEST };
            match Some(value["mediaType"].as_str().unwrap_or(kind)).filter(|_| value["schemaVersion"] == 2) {
                Some(media_type) => {
                    let manifest = store::Manifest { media_type: media_type.to_owned(), bytes: bytes.clone().into() };
                    into.manifests.insert(digest.clone(), manifest);
                }
                None => drop(into.blobs.insert(digest.clone(), bytes.clone().into())),
            }
        }
        into.tags.insert(tag.to_owned(), digest.clone());
        digest
    }

    /// Tags a manifest that is there.
    pub fn tag(&self, repository: &str, tag: &str, digest: &str) {
        self.shared.store.lock().unwrap().repository(repository).tags.insert(tag.to_owned(), digest.to_owned());
    }

    /// Removes a blob, as a careless garbage collection does.
    pub fn lose_blob(&self, repository: &str, digest: &str) {
        self.shared.store.lock().unwrap().repository(repository).blobs.remove(digest);
    }

    /// A blob's bytes.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        Some(self.shared.store.lock().unwrap().get(repository)?.blobs.get(digest)?.to_vec())
    }

    /// The digests of a repository's blobs.
    pub fn blobs(&self, repository: &str) -> Vec<String> {
        self.shared.store.lock().unwrap().get(repository).map(|there| there.blobs.keys().cloned().collect()).unwrap_or_default()
    }

    /// The media type and bytes of a manifest, by tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Vec<u8>)> {
        let (_, manifest) = self.shared.store.lock().unwrap().get(repository)?.manifest(reference)?;
        Some((manifest.media_type, manifest.bytes.to_vec()))
    }

    /// The digest of a manifest, by tag or digest, if it is there.
    pub fn digest(&self, repository: &str, reference: &str) -> Option<String> {
        Some(self.shared.store.lock().unwrap().get(repository)?.manifest(reference)?.0)
    }

    /// The tags of a repository.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        self.shared.store.lock().unwrap().get(repository).map(|there| there.tags.keys().cloned().collect()).unwrap_or_default()
    }

    /// How many uploads were begun and neither finished nor given up.
    pub fn unfinished_uploads(&self) -> usize {
        let store = self.shared.store.lock().unwrap();
        store.names().iter().filter_map(|name| store.get(name)).map(store::Repository::unfinished).sum()
    }

    /// All requests so far, in order, once those in progress are answered or three seconds have passed.
    pub fn log(&self) -> Vec<Asked> {
        let start = Instant::now();
        loop {
            let log = self.shared.log.lock().unwrap().clone();
            if log.iter().all(|asked| asked.ended.is_some()) || start.elapsed() > Duration::from_secs(3) {
                return log;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Forgets the requests so far.
    pub fn forget_log(&self) {
        self.log();
        self.shared.log.lock().unwrap().clear();
    }

    /// The requests that are what `when` says; see [`Fault::when`].
    pub fn asked(&self, when: &str) -> Vec<Asked> {
        self.log().into_iter().filter(|asked| asked.is(when)).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for host in self.shared.hosts.lock().unwrap().values() {
            // It wakes the listener, which sees that it is to stop.
            drop(TcpStream::connect(host));
        }
    }
}

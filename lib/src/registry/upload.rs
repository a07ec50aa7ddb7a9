//! A blob as it goes to a registry.
//!
//! | what is known of it | how it goes |
//! |---|---|
//! | all bytes, since they are few | one `POST`, one `PUT` |
//! | size and digest | one `POST`, and one `PUT` whose body follows the source |
//! | nothing, since it is compressed on the way | a `POST`, a `PATCH` for each chunk, an empty `PUT` that names the digest |
//!
//! A chunk stays in memory until it is acknowledged, so that one that is lost is sent again from where the registry says it is. A stream
//! that is lost, and an upload that the registry forgot, begin anew ([`Remedy::Anew`]).

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::auth::{Scope, encode};
use super::client::{Answer, Call, Client, To};
use super::retry::{Attempt, asked_to_wait, is_busy};
use crate::context::{Cancel, SLICE};
use crate::digest::Digest;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::http::{Method, Url};

/// Bytes of a chunk. Several are in memory at once; some registries refuse smaller ones than they ask for.
pub(super) const CHUNK: usize = 2 << 20;
/// The largest chunk that a registry may ask for.
const LARGEST: usize = 16 << 20;
/// Bytes of an answer to an upload.
const ANSWER: u64 = 64 << 10;
/// Buffers that wait for a stream.
const WAITING: usize = 4;

/// Why a blob did not arrive, and what may help.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) remedy: Remedy,
}

/// What may help a blob that did not arrive.
#[derive(Debug, Clone, Copy)]
pub(super) enum Remedy {
    /// Nothing, or it was tried often enough.
    None,
    /// To begin anew, after as long as the registry asks for.
    Anew(Option<Duration>),
    /// To begin anew with another token: the one at hand was refused.
    Token,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, remedy: Remedy::None }
    }
}

/// One repository that is written to.
#[derive(Clone)]
pub(super) struct Uploads {
    pub(super) client: Arc<Client>,
    pub(super) repository: String,
    pub(super) scope: Scope,
    /// Whether one of the lanes has a chunk that is larger than those of the others.
    large: Arc<AtomicBool>,
}

impl Uploads {
    pub(super) fn new(client: Arc<Client>, repository: &str) -> Self {
        Self { client, repository: repository.to_owned(), scope: Scope::push(repository), large: Arc::default() }
    }

    /// The same for somebody who stops waiting when `cancel` says so.
    pub(super) fn until(&self, cancel: &Cancel) -> Self {
        Self { client: Arc::new(self.client.until(cancel)), ..self.clone() }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v2/{}/blobs/{rest}", self.repository)
    }

    /// Whether the repository has a blob of this digest and size.
    pub(super) fn has(&self, digest: &Digest, size: u64) -> Result<bool> {
        let path = self.path(&digest.to_string());
        // Its length is that of the blob.
        let answer = self.client.ask(&Call::new(Method::Head, To::Path(&path), &self.scope), u64::MAX - 1)?;
        match answer.status() {
            200 => match answer.head.content_length {
                // Some say so of everything that has no body in their answer.
                Some(0) if size > 0 => Ok(false),
                Some(found) if found != size => {
                    Err(Error::mismatch(format_args!("{} says that it has {found} bytes, expected {size}", self.client.registry())))
                }
                _ => Ok(true),
            },
            // The answer to a HEAD has no body that could say why. If the upload is refused too, its answer has.
            401 | 403 | 404 | 405 => Ok(false),
            _ => Err(self.client.refusal(&answer)),
        }
    }

    /// Asks to take a blob over from another repository of the registry: `None` when it did, else where the blob can be sent to.
    pub(super) fn mount(&self, digest: &Digest, from: &str) -> Result<Option<Url>> {
        let query = encode(&[("mount", &digest.to_string()), ("from", from)]);
        let path = self.path(&format!("uploads/?{query}"));
        let scope = self.scope.clone().and_pull(from);
        match self.client.ask(&Call::new(Method::Post, To::Path(&path), &scope), ANSWER) {
            Ok(answer) if answer.status() == 201 => Ok(None),
            Ok(answer) if answer.status() == 202 => location(&answer).map(Some),
            Err(error) if error.kind() != ErrorKind::Unavailable || error.is_silence() => Err(error),
            // Who may not read the other repository, or mount at all, may still write to this one.
            _ => self.start().map(|(url, _)| Some(url)),
        }
    }

    /// Begins an upload: where it goes, and the smallest chunk that the registry takes.
    fn start(&self) -> Result<(Url, usize)> {
        let path = self.path("uploads/");
        let answer = self.client.ask(&Call::new(Method::Post, To::Path(&path), &self.scope), ANSWER)?;
        if answer.status() != 202 {
            return Err(self.client.refusal(&answer));
        }
        let least = answer.head.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if least > LARGEST {
            return Err(Error::unsupported(format_args!("{} takes no chunks below {least} bytes", self.client.registry())));
        }
        Ok((location(&answer)?, least))
    }

    /// Sends a small blob, where an upload was begun already at `begun`, and once more from the start where that failed.
    pub(super) fn put(&self, digest: &Digest, bytes: &[u8], begun: Option<Url>) -> Result<()> {
        let mut begun = begun;
        self.client.patiently(|| {
            // What fails here was tried often enough.
            let url = match begun.take().map_or_else(|| self.start().map(|(url, _)| url), Ok) {
                Ok(url) => with_digest(&url, digest)?,
                Err(error) => return Ok(Attempt::Done(Err(error))),
            };
            let headers = [("content-type", "application/octet-stream")];
            let answer = self.once(&Call::new(Method::Put, To::Url(&url), &self.scope).headers(&headers).body(bytes))?;
            match answer.status() {
                201 => Ok(Attempt::Done(self.accepted(&answer, digest))),
                status if is_busy(status) || is_forgotten(&answer) => Ok(self.client.lost(&answer)),
                _ => Err(self.client.refusal(&answer)),
            }
        })?
    }

    /// Sends what comes in one request.
    fn stream(&self, url: Option<Url>, digest: &Digest, mut body: Inbox, size: u64) -> Result<(), Failure> {
        let url = url.map_or_else(|| self.start().map(|(url, _)| url), Ok)?;
        let sent = self.client.stream(Method::Put, &with_digest(&url, digest)?, &self.scope, &mut body, size);
        match sent {
            Ok((answer, _)) if answer.status() == 201 => Ok(self.accepted(&answer, digest)?),
            Ok((answer, _)) if is_busy(answer.status()) || is_forgotten(&answer) => Err(self.lost(&answer)),
            Ok((answer, true)) => Err(Failure { error: self.client.refusal(&answer), remedy: Remedy::Token }),
            Ok((answer, false)) => Err(self.client.refusal(&answer).into()),
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(Failure { error, remedy: Remedy::Anew(None) }),
            Err(error) => Err(error.into()),
        }
    }

    fn once(&self, call: &Call<'_>) -> Result<Answer> {
        let (mut head, url) = self.client.once(call)?;
        let mut bytes = Vec::new();
        (&mut head.body).take(ANSWER).read_to_end(&mut bytes).map_err(Error::io)?;
        Ok(Answer { head, bytes, url })
    }

    /// The registry may say what it took, and it must be what was sent.
    fn accepted(&self, answer: &Answer, digest: &Digest) -> Result<()> {
        same_digest(self.client.registry(), answer, digest)
    }

    fn lost(&self, answer: &Answer) -> Failure {
        Failure { error: self.client.refusal(answer), remedy: Remedy::Anew(asked_to_wait(&answer.head)) }
    }

    /// Waits until no other lane has a large chunk: several of them would be more memory than a program may have.
    fn room(&self) -> Result<Room<'_>> {
        while self.large.swap(true, Ordering::Acquire) {
            self.client.cancel().sleep(SLICE)?;
        }
        Ok(Room(&self.large))
    }
}

/// The right to a large chunk.
struct Room<'a>(&'a AtomicBool);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What a registry says that it took must be what was sent.
pub(super) fn same_digest(registry: &str, answer: &Answer, digest: &Digest) -> Result<()> {
    match answer.head.header("docker-content-digest").map(|text| (text, text.parse::<Digest>())) {
        Some((_, Ok(stated))) if stated.algorithm() == digest.algorithm() && stated != *digest => {
            Err(Error::mismatch(format_args!("{registry} says that it stored {stated}, expected {digest}")))
        }
        Some((text, Err(_))) => Err(Error::mismatch(format_args!("{registry} says that it stored {text:?}, expected {digest}"))),
        _ => Ok(()),
    }
}

fn location(answer: &Answer) -> Result<Url> {
    let text = answer.head.header("location");
    let text = text.ok_or_else(|| Error::invalid("it does not say where the blob can be sent to").frame(answer.url.authority()))?;
    answer.url.join(text).context(|| format!("the location that {} names", answer.url.authority()))
}

fn with_digest(url: &Url, digest: &Digest) -> Result<Url> {
    let joint = if url.path_and_query().contains('?') { '&' } else { '?' };
    url.with_path(&format!("{}{joint}{}", url.path_and_query(), encode(&[("digest", &digest.to_string())])))
}

/// Whether the registry knows nothing of the upload any more.
fn is_forgotten(answer: &Answer) -> bool {
    answer.status() == 404 || answer.bytes.windows(19).any(|word| word == b"BLOB_UPLOAD_UNKNOWN")
}

/// Sends chunks as they come, and says at the end what they are.
pub(super) struct Chunks<'a> {
    uploads: &'a Uploads,
    /// Where an upload was begun for a blob of which it is known that it is not there.
    begun: Option<Url>,
    missing: bool,
    /// Where the next chunk goes; nowhere yet while the first is not full.
    url: Option<Url>,
    chunk: Vec<u8>,
    size: usize,
    room: Option<Room<'a>>,
    /// Where the chunk begins in the blob.
    start: u64,
}

impl<'a> Chunks<'a> {
    /// Begins a blob of which nothing is known.
    pub(super) fn new(uploads: &'a Uploads) -> Self {
        Self { uploads, begun: None, missing: false, url: None, chunk: Vec::new(), size: CHUNK, room: None, start: 0 }
    }

    /// Begins a blob of one chunk that the registry does not have, where an upload was begun already at `url`.
    pub(super) fn missing(uploads: &'a Uploads, url: Option<Url>) -> Self {
        Self { begun: url, missing: true, ..Self::new(uploads) }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            self.chunk.reserve_exact(self.size - self.chunk.len());
            // One that is full is sent when there is more: a blob of one chunk goes whole.
            if self.chunk.len() == self.size {
                self.send()?;
            }
            let step = bytes.len().min(self.size - self.chunk.len());
            self.chunk.extend_from_slice(&bytes[..step]);
            bytes = &bytes[step..];
        }
        Ok(())
    }

    pub(super) fn finish(mut self, digest: &Digest, size: u64) -> Result<(), Failure> {
        let Some(begun) = self.url.clone() else {
            let held = !self.missing && self.uploads.has(digest, size)?;
            return if held { Ok(()) } else { Ok(self.uploads.put(digest, &self.chunk, self.begun)?) };
        };
        let url = with_digest(&if self.chunk.is_empty() { begun } else { self.send()? }, digest)?;
        let mut backoff = self.uploads.client.backoff();
        loop {
            let (error, asked) = match self.uploads.once(&Call::new(Method::Put, To::Url(&url), &self.uploads.scope)) {
                Ok(answer) if answer.status() == 201 => return Ok(self.uploads.accepted(&answer, digest)?),
                // The answer before may have been lost, and not the blob.
                Ok(answer) if is_forgotten(&answer) => {
                    return if self.uploads.has(digest, size)? { Ok(()) } else { Err(self.uploads.lost(&answer)) };
                }
                Ok(answer) if is_busy(answer.status()) => (self.uploads.client.refusal(&answer), asked_to_wait(&answer.head)),
                Ok(answer) => return Err(self.uploads.client.refusal(&answer).into()),
                Err(error) if error.kind() == ErrorKind::Unavailable => (error, None),
                Err(error) => return Err(error.into()),
            };
            backoff.wait(error, asked)?;
            if self.uploads.has(digest, size)? {
                return Ok(());
            }
        }
    }

    /// Sends the chunk, and what the registry lacks of it again. Returns where the next goes.
    fn send(&mut self) -> Result<Url, Failure> {
        let uploads = self.uploads;
        let mut url = match self.url.take() {
            Some(url) => url,
            None => {
                let (url, least) = uploads.start()?;
                if least > self.chunk.len() {
                    // It wants larger ones: this one is filled up first.
                    self.room = Some(uploads.room()?);
                    (self.url, self.size) = (Some(url.clone()), least);
                    return Ok(url);
                }
                url
            }
        };
        let end = self.start + self.chunk.len() as u64;
        let mut at = self.start;
        let mut backoff = uploads.client.backoff();
        while at < end {
            let part = &self.chunk[usize::try_from(at - self.start).unwrap_or(usize::MAX)..];
            let range = format!("{at}-{}", end - 1);
            let headers = [("content-type", "application/octet-stream"), ("content-range", range.as_str())];
            let call = Call::new(Method::Patch, To::Url(&url), &uploads.scope).headers(&headers).body(part);
            let (error, asked) = match uploads.once(&call) {
                Ok(answer) if answer.status() == 202 => {
                    at = acknowledged(&answer).unwrap_or(end);
                    if at > end || at < self.start {
                        let registry = uploads.client.registry();
                        return Err(Error::mismatch(format_args!("{registry} says that it has {at} bytes, expected {end}")).into());
                    }
                    if answer.head.header("location").is_some() {
                        url = location(&answer)?;
                    }
                    backoff.reset();
                    continue;
                }
                Ok(answer) if is_forgotten(&answer) => return Err(uploads.lost(&answer)),
                Ok(answer) if answer.status() == 416 || is_busy(answer.status()) => {
                    let error = Error::new(ErrorKind::Unavailable, uploads.client.refusal(&answer).to_string());
                    (error, asked_to_wait(&answer.head))
                }
                Ok(answer) => return Err(uploads.client.refusal(&answer).into()),
                Err(error) if error.kind() == ErrorKind::Unavailable => (error, None),
                Err(error) => return Err(error.into()),
            };
            backoff.wait(error, asked)?;
            let before = at;
            (at, url) = self.resume(&url)?;
            if at > before {
                backoff.reset();
            }
        }
        self.start = end;
        self.chunk.clear();
        self.url = Some(url.clone());
        Ok(url)
    }

    /// Asks how much the registry has, and where the rest goes.
    fn resume(&self, url: &Url) -> Result<(u64, Url), Failure> {
        let answer = self.uploads.client.ask(&Call::new(Method::Get, To::Url(url), &self.uploads.scope), ANSWER)?;
        if !matches!(answer.status(), 200 | 202 | 204) {
            return Err(self.uploads.lost(&answer));
        }
        let end = self.start + self.chunk.len() as u64;
        // "0-0" is one byte or none, and no registry says which.
        let held = acknowledged(&answer).filter(|held| *held != 1 && (self.start..=end).contains(held));
        let held = held.ok_or_else(|| {
            let registry = self.uploads.client.registry();
            let error = Error::new(ErrorKind::Unavailable, format!("{registry} lost a part of the upload"));
            Failure { error, remedy: Remedy::Anew(None) }
        })?;
        Ok((held, location(&answer).unwrap_or_else(|_| url.clone())))
    }
}

/// How many bytes an answer says that it has: `Range: 0-1023`, with or without `bytes=`.
fn acknowledged(answer: &Answer) -> Option<u64> {
    let range = answer.head.header("range")?.trim().trim_start_matches("bytes=");
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    if first.trim() == "0" { last.checked_add(1) } else { None }
}

/// Sends a blob of known size and digest in one request, on a thread of its own that waits for its bytes.
pub(super) struct Stream {
    buffers: Option<Sender<Vec<u8>>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
    cancel: Cancel,
}

impl Stream {
    /// Begins it, where an upload was begun already at `url`.
    pub(super) fn new(uploads: &Uploads, url: Option<Url>, digest: Digest, size: u64) -> Result<Self> {
        let (buffers, inbox) = bounded(WAITING);
        let cancel = uploads.client.cancel().child();
        let (uploads, body) = (uploads.until(&cancel), Inbox { inbox, cancel: cancel.clone(), rest: Vec::new(), at: 0 });
        let thread = thread::Builder::new().name("upload".to_owned()).spawn(move || uploads.stream(url, &digest, body, size));
        Ok(Self { buffers: Some(buffers), thread: Some(thread.map_err(Error::io)?), cancel })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut buffer = bytes.to_vec();
        loop {
            self.cancel.poll()?;
            let Some(buffers) = &self.buffers else { return self.join() };
            match buffers.send_timeout(buffer, SLICE) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(again)) => buffer = again,
                // It ended before it had all: it says why.
                Err(SendTimeoutError::Disconnected(_)) => {
                    self.join()?;
                    return Err(Error::invalid("the registry took the blob before it was complete").into());
                }
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.buffers = None;
        self.join()
    }

    fn join(&mut self) -> Result<(), Failure> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(Error::invalid("the thread of an upload ended").into()))
    }
}

/// What is left unfinished is broken off: nobody may take it for complete.
impl Drop for Stream {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.buffers = None;
        let _ = self.join();
    }
}

/// The bytes of a stream, as they come.
struct Inbox {
    inbox: Receiver<Vec<u8>>,
    cancel: Cancel,
    rest: Vec<u8>,
    at: usize,
}

impl Read for Inbox {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() {
            self.cancel.poll()?;
            match self.inbox.recv_timeout(SLICE) {
                Ok(next) => (self.rest, self.at) = (next, 0),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
        let step = buffer.len().min(self.rest.len() - self.at);
        buffer[..step].copy_from_slice(&self.rest[self.at..self.at + step]);
        self.at += step;
        Ok(step)
    }
}

//! A blob as it goes to a registry.
//!
//! | what is known of it | how it goes |
//! |---|---|
//! | all bytes, since they are few | one `POST`, one `PUT` |
//! | size and digest | one `POST`, and one `PUT` whose body follows the source |
//! | nothing, since it is compressed on the way | a `POST`, a `PATCH` for each chunk, an empty `PUT` that names the digest |
//!
//! A chunk stays in memory until it is acknowledged, so that one that is lost is sent again from where the registry says it is. A stream
//! that is lost, and an upload that the registry forgot, begin anew ([`Sink::again`](crate::sink::Sink::again)).

use std::io::{self, Read};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::auth::{Scope, encode};
use super::client::{Answer, Call, Client, To};
use super::retry::{asked_to_wait, is_busy};
use crate::context::Cancel;
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
/// How often whoever waits looks whether it shall stop.
const SLICE: Duration = Duration::from_millis(50);

/// One repository that is written to.
#[derive(Clone)]
pub(super) struct Uploads {
    pub(super) client: Arc<Client>,
    pub(super) repository: String,
    pub(super) scope: Scope,
}

impl Uploads {
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
                Some(found) if found != size => {
                    Err(Error::mismatch(format_args!("{} says that it has {found} bytes, expected {size}", self.client.registry())))
                }
                _ => Ok(true),
            },
            // A refusal of this has no words. If the upload is refused too, that has.
            401 | 403 | 404 | 405 => Ok(false),
            _ => Err(self.client.refusal(&answer)),
        }
    }

    /// Asks to take a blob over from another repository of the registry: `None` when it did, else where the blob can be sent to.
    pub(super) fn mount(&self, digest: &Digest, from: &str) -> Result<Option<Url>> {
        let query = encode(&[("mount", &digest.to_string()), ("from", from)]);
        let path = self.path(&format!("uploads/?{query}"));
        let scope = self.scope.clone().and_pull(from);
        let answer = self.client.ask(&Call::new(Method::Post, To::Path(&path), &scope), ANSWER)?;
        match answer.status() {
            201 => Ok(None),
            202 => location(&answer).map(Some),
            // Who may not read the other repository may still write to this one.
            401 | 403 | 404 => self.start().map(|(url, _)| Some(url)),
            _ => Err(self.client.refusal(&answer)),
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

    /// Sends a small blob, and once more from the start where that failed.
    pub(super) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let mut backoff = self.client.backoff();
        loop {
            let (url, _) = self.start()?;
            let url = with_digest(&url, digest)?;
            let headers = [("content-type", "application/octet-stream")];
            let call = Call::new(Method::Put, To::Url(&url), &self.scope).headers(&headers).body(bytes);
            let (error, asked) = match self.once(&call) {
                Ok(answer) if answer.status() == 201 => return self.accepted(&answer, digest),
                Ok(answer) if is_busy(answer.status()) || is_forgotten(&answer) => (self.lost(&answer), asked_to_wait(&answer.head)),
                Ok(answer) => return Err(self.client.refusal(&answer)),
                Err(error) if error.kind() == ErrorKind::Unavailable => (error, None),
                Err(error) => return Err(error),
            };
            backoff.wait(error, asked)?;
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

    /// A refusal after which it makes sense to begin anew.
    fn lost(&self, answer: &Answer) -> Error {
        Error::new(ErrorKind::Unavailable, self.client.refusal(answer).to_string())
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
    /// Where the next chunk goes; nowhere yet while the first is not full.
    url: Option<Url>,
    chunk: Vec<u8>,
    size: usize,
    /// Where the chunk begins in the blob.
    start: u64,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(uploads: &'a Uploads) -> Self {
        Self { uploads, url: None, chunk: Vec::new(), size: CHUNK, start: 0 }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
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

    pub(super) fn finish(mut self, digest: &Digest, size: u64) -> Result<()> {
        let Some(begun) = &self.url else {
            return if self.uploads.has(digest, size)? { Ok(()) } else { self.uploads.put(digest, &self.chunk) };
        };
        let mut url = begun.clone();
        if !self.chunk.is_empty() {
            url = self.send()?;
        }
        let url = with_digest(&url, digest)?;
        let answer = self.uploads.once(&Call::new(Method::Put, To::Url(&url), &self.uploads.scope));
        match answer {
            Ok(answer) if answer.status() == 201 => self.uploads.accepted(&answer, digest),
            Ok(answer) if !is_busy(answer.status()) && !is_forgotten(&answer) => Err(self.uploads.client.refusal(&answer)),
            Err(error) if error.kind() != ErrorKind::Unavailable => Err(error),
            // The answer may have been lost, and not the blob.
            failed => match self.uploads.has(digest, size)? {
                true => Ok(()),
                false => Err(failed.map_or_else(|error| error, |answer| self.uploads.lost(&answer))),
            },
        }
    }

    /// Sends the chunk, and what the registry lacks of it again. Returns where the next goes.
    fn send(&mut self) -> Result<Url> {
        let uploads = self.uploads;
        let mut url = match self.url.take() {
            Some(url) => url,
            None => {
                let (url, least) = uploads.start()?;
                if least > self.chunk.len() {
                    // It wants larger ones: this one is filled up first.
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
                        return Err(Error::mismatch(format_args!(
                            "{} says that it has {at} bytes, expected {end}",
                            uploads.client.registry()
                        )));
                    }
                    url = location(&answer)?;
                    backoff.reset();
                    continue;
                }
                Ok(answer) if is_forgotten(&answer) => return Err(uploads.lost(&answer)),
                Ok(answer) if answer.status() == 416 || is_busy(answer.status()) => (uploads.lost(&answer), asked_to_wait(&answer.head)),
                Ok(answer) => return Err(uploads.client.refusal(&answer)),
                Err(error) if error.kind() == ErrorKind::Unavailable => (error, None),
                Err(error) => return Err(error),
            };
            backoff.wait(error, asked)?;
            (at, url) = self.resume(&url)?;
        }
        self.start = end;
        self.chunk.clear();
        self.url = Some(url.clone());
        Ok(url)
    }

    /// Asks how much the registry has, and where the rest goes.
    fn resume(&self, url: &Url) -> Result<(u64, Url)> {
        let answer = self.uploads.client.ask(&Call::new(Method::Get, To::Url(url), &self.uploads.scope), ANSWER)?;
        if !matches!(answer.status(), 200 | 202 | 204) {
            return Err(self.uploads.lost(&answer));
        }
        let end = self.start + self.chunk.len() as u64;
        // "0-0" is one byte or none, and no registry says which.
        let held = acknowledged(&answer).filter(|held| *held != 1 && (self.start..=end).contains(held));
        let held = held.ok_or_else(|| {
            let registry = self.uploads.client.registry();
            Error::new(ErrorKind::Unavailable, format!("{registry} lost a part of the upload"))
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
    thread: Option<JoinHandle<Result<()>>>,
    cancel: Cancel,
}

impl Stream {
    /// Begins it, where an upload was begun already at `url`.
    pub(super) fn new(uploads: &Arc<Uploads>, url: Option<Url>, digest: Digest, size: u64) -> Self {
        let (buffers, inbox) = bounded(WAITING);
        let (uploads, cancel) = (Arc::clone(uploads), uploads.client.cancel().child());
        let mut body = Inbox { inbox, cancel: cancel.clone(), rest: Vec::new(), at: 0 };
        let thread = std::thread::spawn(move || {
            let url = url.map_or_else(|| uploads.start().map(|(url, _)| url), Ok)?;
            let url = with_digest(&url, &digest)?;
            let answer = uploads.client.stream(Method::Put, &url, &uploads.scope, &mut body, size)?;
            match answer.status() {
                201 => uploads.accepted(&answer, &digest),
                status if is_busy(status) || is_forgotten(&answer) => Err(uploads.lost(&answer)),
                _ => Err(uploads.client.refusal(&answer)),
            }
        });
        Self { buffers: Some(buffers), thread: Some(thread), cancel }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
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
                    return Err(Error::invalid("the registry took the blob before it was complete"));
                }
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.buffers = None;
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(Error::invalid("the thread of an upload ended")))
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

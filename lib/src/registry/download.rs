//! A blob as it comes from a registry: resumed where the connection breaks, and never read past its stated size.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::auth::Scope;
use super::client::{Call, Client, refused};
use super::retry::{Attempt, Backoff, is_busy};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::http::Response;

/// With this much since the last failure, the connection is as good as new.
const PROGRESS: u64 = 1 << 10;

/// Reads one blob. Whoever reads it compares the digest.
pub(super) struct BlobReader {
    client: Arc<Client>,
    path: String,
    scope: Scope,
    size: u64,
    at: u64,
    body: Option<Response>,
    /// Whether the registry gives parts of a blob, as far as is known.
    ranges: bool,
    backoff: Backoff,
    /// Where the last failure was.
    failed_at: u64,
}

impl BlobReader {
    /// A reader of a blob of `size` bytes, beginning `from` bytes into it.
    pub(super) fn new(client: Arc<Client>, repository: &str, digest: &Digest, size: u64, from: u64) -> Self {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let (scope, at, backoff) = (Scope::pull(repository), from.min(size), client.backoff());
        Self { client, path, scope, size, at, body: None, ranges: true, backoff, failed_at: at }
    }

    /// Asks for what is left.
    fn ask(&mut self) -> Result<Attempt<Response>> {
        let from = if self.ranges { self.at } else { 0 };
        let range = format!("bytes={from}-");
        let headers: &[(&'static str, &str)] = if from > 0 { &[("range", &range)] } else { &[] };
        let (mut response, url) = self.client.once(&Call::get(&self.path, &self.scope).headers(headers))?;
        let length = response.content_length;
        match response.status {
            200 => {
                self.expect_length(length, self.size)?;
                // Who ignores the range gives what we had once more.
                self.skip(&mut response, self.at)?;
                Ok(Attempt::Done(response))
            }
            206 if from > 0 && response.header("content-range").is_some_and(|range| is_range(range, from, self.size)) => {
                self.expect_length(length, self.size - from)?;
                Ok(Attempt::Done(response))
            }
            206 | 416 if from > 0 => {
                // Another range than asked for. All of it, then.
                self.ranges = false;
                Err(Error::new(ErrorKind::Unavailable, format!("{} answers with another range than asked for", url.authority())))
            }
            status => {
                let answer = refused(response, url);
                if is_busy(status) { Ok(self.client.lost(&answer)) } else { Err(self.client.refusal(&answer)) }
            }
        }
    }

    fn expect_length(&self, stated: Option<u64>, expected: u64) -> Result<()> {
        match stated {
            Some(stated) if stated != expected => {
                let registry = self.client.registry();
                Err(Error::mismatch(format_args!("{registry} says that it has {stated} bytes, expected {expected}")))
            }
            _ => Ok(()),
        }
    }

    fn skip(&self, response: &mut Response, bytes: u64) -> Result<()> {
        let skipped = io::copy(&mut (&mut response.body).take(bytes), &mut io::sink()).map_err(Error::io)?;
        if skipped < bytes { Err(self.broken(skipped)) } else { Ok(()) }
    }

    fn broken(&self, at: u64) -> Error {
        let (registry, size) = (self.client.registry(), self.size);
        Error::new(ErrorKind::Unavailable, format!("{registry} ended the answer after {at} of {size} bytes"))
    }

    /// Waits after a failure: it is borne as long as there is progress between one and the next.
    fn failed(&mut self, error: Error, asked: Option<Duration>) -> Result<()> {
        if error.kind() != ErrorKind::Unavailable {
            return Err(error);
        }
        if self.at - self.failed_at >= PROGRESS {
            self.backoff.reset();
        }
        self.failed_at = self.at;
        let (at, size) = (self.at, self.size);
        self.backoff.wait(error, asked).map_err(|error| match error.kind() {
            ErrorKind::Unavailable if at > 0 => error.frame(format_args!("at byte {at} of {size}")),
            _ => error,
        })
    }
}

/// Whether `bytes 5-9/10` begins where it was asked to, and is of a blob of that size.
fn is_range(header: &str, from: u64, size: u64) -> bool {
    let parsed = header.trim().strip_prefix("bytes").map(str::trim_start).and_then(|rest| rest.split_once('/'));
    let Some((range, total)) = parsed else { return false };
    let Some((first, last)) = range.split_once('-') else { return false };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    number(first) == Some(from) && number(last) == Some(size - 1) && (total.trim() == "*" || number(total) == Some(size))
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        if left == 0 || buffer.is_empty() {
            // The end of an answer that says how long it is leaves its connection to the next; no other is read past its size.
            if let Some(mut body) = self.body.take().filter(|body| body.content_length.is_some()) {
                let _ = body.body.read(&mut [0]);
            }
            return Ok(0);
        }
        let step = left.min(buffer.len());
        // That the registry cannot be reached was tried often enough, and is no failure of this blob.
        self.client.base()?;
        loop {
            let asked = match self.body.take() {
                Some(body) => Ok(Attempt::Done(body)),
                None => self.ask(),
            };
            let (failure, wait) = match asked {
                Ok(Attempt::Done(mut body)) => match body.body.read(&mut buffer[..step]) {
                    Ok(0) => (self.broken(self.at), None),
                    Ok(count) => {
                        self.at += count as u64;
                        self.body = Some(body);
                        return Ok(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        self.body = Some(body);
                        continue;
                    }
                    Err(error) => (Error::io(error), None),
                },
                Ok(Attempt::Lost(error, wait)) => (error, wait),
                Err(error) => (error, None),
            };
            self.failed(failure, wait)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_must_be_the_ones_asked_for() {
        for (header, fine) in [
            ("bytes 5-9/10", true),
            ("bytes 5-9/*", true),
            ("bytes=5-9/10", false),
            ("bytes 4-9/10", false),
            ("bytes 5-8/10", false),
            ("bytes 5-9/11", false),
            ("bytes */10", false),
            ("5-9/10", false),
            ("", false),
        ] {
            assert_eq!(is_range(header, 5, 10), fine, "{header}");
        }
    }
}

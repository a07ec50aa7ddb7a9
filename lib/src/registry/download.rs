//! A blob as it comes from a registry: resumed where the connection breaks, and never read past its stated size.

use std::io::{self, Read};
use std::sync::Arc;

use super::auth::Scope;
use super::client::{Answer, Call, Client};
use super::retry::{asked_to_wait, is_busy};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::http::Response;

/// With this much since the last failure, the connection is as good as new.
const PROGRESS: u64 = 64 << 10;

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
    failures: u32,
    /// Where the last failure was.
    failed_at: u64,
}

impl BlobReader {
    /// A reader of a blob of `size` bytes, beginning `from` bytes into it.
    pub(super) fn new(client: Arc<Client>, repository: &str, digest: &Digest, size: u64, from: u64) -> Self {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let (scope, at) = (Scope::pull(repository), from.min(size));
        Self { client, path, scope, size, at, body: None, ranges: true, failures: 0, failed_at: 0 }
    }

    /// Asks for what is left, and tries again as long as that may help.
    fn begin(&mut self) -> Result<Response> {
        let client = Arc::clone(&self.client);
        client.base()?;
        let mut backoff = client.backoff();
        loop {
            let (error, asked) = match self.ask() {
                Ok(Asked::Body(body)) => return Ok(*body),
                Ok(Asked::Busy(answer)) => (self.client.refusal(&answer), asked_to_wait(&answer.head)),
                Err(error) if error.kind() == ErrorKind::Unavailable => (error, None),
                Err(error) => return Err(error),
            };
            backoff.wait(error, asked)?;
        }
    }

    fn ask(&mut self) -> Result<Asked> {
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
                Ok(Asked::Body(Box::new(response)))
            }
            206 if from > 0 && response.header("content-range").is_some_and(|range| is_range(range, from, self.size)) => {
                self.expect_length(length, self.size - from)?;
                Ok(Asked::Body(Box::new(response)))
            }
            206 | 416 if from > 0 => {
                // Another range than asked for. All of it, then.
                self.ranges = false;
                Err(Error::new(ErrorKind::Unavailable, format!("{} answers with another range than asked for", url.authority())))
            }
            status => {
                let mut bytes = Vec::new();
                let _ = (&mut response.body).take(64 << 10).read_to_end(&mut bytes);
                let answer = Answer { head: response, bytes, url };
                if is_busy(status) { Ok(Asked::Busy(Box::new(answer))) } else { Err(self.client.refusal(&answer)) }
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

    /// Counts a failure in the middle: it is borne as long as there is progress between one and the next.
    fn failed(&mut self, error: Error) -> Result<()> {
        const IN_A_ROW: u32 = 5;
        self.body = None;
        if error.kind() != ErrorKind::Unavailable {
            return Err(error);
        }
        self.failures = if self.at - self.failed_at >= PROGRESS { 1 } else { self.failures + 1 };
        self.failed_at = self.at;
        if self.failures > IN_A_ROW {
            let (at, size) = (self.at, self.size);
            return Err(error.frame(format_args!("after {} attempts, at byte {at} of {size}", self.failures)));
        }
        if self.failures > 1 {
            let client = Arc::clone(&self.client);
            client.backoff().wait(error, None)?;
        }
        Ok(())
    }
}

enum Asked {
    Body(Box<Response>),
    Busy(Box<Answer>),
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
        loop {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.begin()?,
            };
            let failure = match body.body.read(&mut buffer[..step]) {
                Ok(0) => self.broken(self.at),
                Ok(count) => {
                    self.at += count as u64;
                    self.body = Some(body);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.body = Some(body);
                    continue;
                }
                Err(error) => Error::io(error),
            };
            self.failed(failure)?;
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

//! The body of a request that is written by somebody else: an archive on its way into an engine.
//!
//! A thread sends the request and reads the answer; what is written goes to it in pieces. A writer that is dropped before its end breaks the
//! request off without the last chunk, so that nobody can take what was sent for complete.

use std::io::{self, Read, Write};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use serde::Deserialize;

use crate::context::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Body, Client, Method, Request, Url};
use crate::transport::FinishWrite;

use super::Late;
use super::api::{Advice, WORKING, answered};

const SLICE: Duration = Duration::from_millis(50);
/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces on their way.
const PIECES: usize = 4;
/// The longest answer: a line for each image.
const ANSWER: u64 = 16 << 20;

enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// Images being loaded.
pub(super) struct Load {
    give: Option<Sender<Piece>>,
    thread: Option<JoinHandle<Result<()>>>,
    piece: Vec<u8>,
    /// Ends the request.
    own: Cancel,
    late: Late,
}

impl Load {
    /// Begins a `POST` to `url`.
    pub(super) fn begin(client: &Client, url: Url, advice: Advice, cancel: &Cancel, late: Late) -> Result<Self> {
        let (give, take) = bounded(PIECES);
        let (client, own) = (client.clone(), cancel.child());
        let pieces = Pieces { take, piece: Vec::new(), at: 0, ended: false, cancel: own.clone() };
        let thread =
            std::thread::Builder::new().name("load".to_owned()).spawn(move || send(&client, &url, advice, pieces)).map_err(Error::io)?;
        Ok(Self { give: Some(give), thread: Some(thread), piece: Vec::with_capacity(PIECE), own, late })
    }

    fn pass(&mut self, mut piece: Piece) -> Result<()> {
        loop {
            self.late.get().unwrap_or(&self.own).poll()?;
            let give = self.give.as_ref().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the engine takes no more"))?;
            match give.send_timeout(piece, SLICE) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) => piece = back,
                // The request ended before its body did.
                Err(SendTimeoutError::Disconnected(_)) => {
                    self.end()?;
                    return Err(Error::new(ErrorKind::Unavailable, "the engine did not take all of it"));
                }
            }
        }
    }

    /// Waits for the answer.
    fn end(&mut self) -> Result<()> {
        self.give = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Err(Error::new(ErrorKind::Unavailable, "the engine takes no more")),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::new(ErrorKind::Io, "the thread that talks to the engine ended")),
        }
    }
}

impl Write for Load {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let step = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..step]);
        if self.piece.len() == PIECE {
            let full = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
            self.pass(Piece::Bytes(full))?;
        }
        Ok(step)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FinishWrite for Load {
    fn finish(&mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.piece);
        if !last.is_empty() {
            self.pass(Piece::Bytes(last))?;
        }
        self.pass(Piece::End)?;
        Ok(self.end()?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Without an end the request is broken off, whatever the engine is doing; nobody is told why.
        self.own.cancel();
        let _ = self.end();
    }
}

/// What is written, as the request reads it.
struct Pieces {
    take: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    cancel: Cancel,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.ended {
            self.cancel.poll()?;
            match self.take.recv_timeout(SLICE) {
                Ok(Piece::Bytes(bytes)) => (self.piece, self.at) = (bytes, 0),
                Ok(Piece::End) => self.ended = true,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::cancelled().into()),
            }
        }
        let step = buffer.len().min(self.piece.len() - self.at);
        buffer[..step].copy_from_slice(&self.piece[self.at..self.at + step]);
        self.at += step;
        Ok(step)
    }
}

fn send(client: &Client, url: &Url, advice: Advice, mut pieces: Pieces) -> Result<()> {
    let cancel = pieces.cancel.clone();
    let request = Request::new(Method::Post, url).header("Content-Type", "application/x-tar").patience(WORKING).cancel(&cancel);
    let response = client.send(request.body(Body::Stream { reader: &mut pieces, size: None })).map_err(|error| advice.give(error))?;
    let said = answered(response)?.bytes(ANSWER)?;
    failure(&said)?;
    if pieces.ended { Ok(()) } else { Err(Error::new(ErrorKind::Unavailable, "the engine did not take all of it")) }
}

/// The failure that an answer tells of: docker says 200 before it begins, and later what went wrong (moby, `pkg/jsonmessage`).
fn failure(said: &[u8]) -> Result<()> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Line {
        error: Option<String>,
        #[serde(rename = "errorDetail")]
        detail: Option<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        message: String,
    }
    for line in serde_json::Deserializer::from_slice(said).into_iter::<Line>() {
        let line = line.map_err(|error| Error::invalid(format_args!("the answer is not what docker gives: {error}")))?;
        if let Some(message) = line.detail.map(|detail| detail.message).or(line.error) {
            return Err(Error::invalid(format_args!("the engine does not take it: {}", message.trim())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADVICE: Advice = Advice { unavailable: "is it running?", denied: None };

    #[test]
    fn an_engine_that_is_gone_is_asked_after() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::unix(dir.path().join("none"), crate::http::Settings::default(), &Cancel::default());
        let url = Url::parse("http://localhost/").unwrap();
        let mut load = Load::begin(&client, url, ADVICE, &Cancel::default(), Late::default()).unwrap();
        let error = Error::io(load.finish().unwrap_err());
        assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Unavailable, Some("is it running?")));
    }

    #[test]
    fn answers() {
        failure(b"").unwrap();
        failure(b"{\"stream\":\"Loaded image: kitchen:1\\n\"}\r\n{\"stream\":\"Loaded image: a:1\\n\"}\n").unwrap();
        for said in [
            &b"{\"stream\":\"x\"}\r\n{\"errorDetail\":{\"message\":\"unexpected EOF\"},\"error\":\"unexpected EOF\"}\r\n"[..],
            b"{\"error\":\"unexpected EOF\\n\"}",
        ] {
            assert_eq!(failure(said).unwrap_err().to_string(), "the engine does not take it: unexpected EOF");
        }
        assert!(failure(b"<html>").is_err());
    }

    #[test]
    fn an_engine_that_takes_nothing_holds_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let _stream = listener.accept();
            std::thread::sleep(Duration::from_secs(10));
        });
        let client = Client::unix(path, crate::http::Settings::default(), &Cancel::default());
        let (late, cancel) = (Late::default(), Cancel::default());
        let url = Url::parse("http://localhost/").unwrap();
        let mut load = Load::begin(&client, url, ADVICE, &Cancel::default(), late.clone()).unwrap();
        late.set(cancel.clone()).unwrap();
        let start = std::time::Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            cancel.cancel();
        });
        let error = Error::io(load.write_all(&[0; 16 << 20]).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        drop(load);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

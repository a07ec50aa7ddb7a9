//! HTTP/1.1 by hand, one thread a connection: reads requests, and writes answers as well or as badly as they are meant to be.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::sockopt;
use serde_json::json;

use super::auth::parse_query;
use super::store::Bytes;
use super::{Listener, Shared};

/// How long a thread waits before it looks whether the registry has stopped.
const SLICE: Duration = Duration::from_millis(20);
/// What is written at once.
const PIECE: usize = 16 << 10;
/// A client that takes all of this from an endless answer will not stop.
pub(super) const ENDLESS: u64 = 256 << 20;

/// A request without its body.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query as they came.
    pub(super) target: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let headers = lines.filter_map(|line| line.split_once(':')).map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        Some(Self { method, path: path.to_owned(), query: parse_query(query), headers: headers.collect(), target })
    }
}

/// A body as far as it came.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) complete: bool,
}

/// The right answer.
#[derive(Debug, Clone)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// The part of the body that is sent.
    pub(super) range: std::ops::Range<usize>,
}

impl Response {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::default(), range: 0..0 }
    }

    pub(super) fn with(status: u16, media_type: &str, body: Bytes) -> Self {
        let mut response = Self { range: 0..body.len(), body, ..Self::new(status) };
        response.set("Content-Type", media_type.to_owned());
        response
    }

    pub(super) fn json(status: u16, media_type: &str, text: String) -> Self {
        Self::with(status, media_type, Arc::new(text.into_bytes()))
    }

    /// An error as the distribution specification has it.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, "application/json", json!({ "errors": [{ "code": code, "message": message, "detail": null }] }).to_string())
    }

    pub(super) fn set(&mut self, name: &str, value: String) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value));
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// How an answer is sent: the right bytes up to some point, and what comes then.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Bytes of the body that are right.
    pub(super) right: u64,
    /// What Content-Length says; `None` is chunked, or until the end if `unframed`.
    pub(super) length: Option<u64>,
    pub(super) unframed: bool,
    /// Bytes of noise behind the right ones.
    pub(super) noise: u64,
    pub(super) drip: Option<(usize, Duration)>,
    pub(super) end: End,
}

/// What happens after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The next request.
    Next,
    Close,
    Reset,
    /// Nothing more, until the client leaves.
    Silence,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

impl Conn {
    fn new(stream: TcpStream, shared: Arc<Shared>) -> io::Result<Self> {
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
        stream.set_nodelay(true)?;
        // What the log says was sent is then near to what the client took.
        sockopt::set_socket_send_buffer_size(&stream, 64 << 10)?;
        Ok(Self { stream, buffer: Vec::new(), shared })
    }

    /// Waits for more bytes; 0 is the end.
    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; PIECE];
        loop {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(gone());
            }
            match self.stream.read(&mut piece) {
                Ok(read) => {
                    self.buffer.extend(&piece[..read]);
                    return Ok(read);
                }
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next request, or the end of the connection.
    fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(Request::parse(&String::from_utf8_lossy(&head[..end])));
            }
            // Clients that try TLS first begin with another byte, and go on without it once they are refused.
            if self.buffer.first().is_some_and(|first| !first.is_ascii_uppercase()) {
                self.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
                return Ok(None);
            }
            if self.buffer.len() > 1 << 20 || self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The body of a request, or `most` bytes of it.
    pub(super) fn body(&mut self, request: &Request, most: u64) -> Body {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if request.header("expect").is_some() && self.write(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
            return Body { bytes: Vec::new(), complete: false };
        }
        let mut bytes = Vec::new();
        let chunked = request.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let complete = if chunked {
            self.chunks(&mut bytes, most).unwrap_or(false)
        } else {
            let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            self.take(&mut bytes, length, most).unwrap_or(false)
        };
        Body { bytes, complete }
    }

    /// Moves `length` bytes, unless there are `most` before; says whether all came.
    fn take(&mut self, bytes: &mut Vec<u8>, length: usize, most: usize) -> io::Result<bool> {
        let mut left = length;
        while left > 0 && bytes.len() < most {
            if self.buffer.is_empty() && self.fill()? == 0 {
                return Ok(false);
            }
            let len = left.min(self.buffer.len()).min(most - bytes.len());
            bytes.extend(self.buffer.drain(..len));
            left -= len;
        }
        Ok(left == 0)
    }

    fn chunks(&mut self, bytes: &mut Vec<u8>, most: usize) -> io::Result<bool> {
        loop {
            let line = loop {
                if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                    let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                    break String::from_utf8_lossy(&line[..end]).into_owned();
                }
                if self.fill()? == 0 {
                    return Ok(false);
                }
            };
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).map_err(|_| gone())?;
            if !self.take(bytes, size, most)? {
                return Ok(false);
            }
            self.take(&mut Vec::new(), 2, usize::MAX)?;
            if size == 0 {
                return Ok(true);
            }
        }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(gone());
            }
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends an answer; `sent` is told what of the body went out.
    pub(super) fn send(&mut self, response: &Response, how: &Delivery, head_only: bool, mut sent: impl FnMut(u64)) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
        for (name, value) in &response.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match how.length {
            // The length of no body at all must not be stated.
            _ if matches!(response.status, 100..200 | 204 | 304) => {}
            Some(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            None if how.unframed => head.push_str("Connection: close\r\n"),
            None => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        self.write(format!("{head}\r\n").as_bytes())?;
        if head_only {
            return Ok(());
        }
        let body = &response.body[response.range.clone()];
        let right = &body[..usize::try_from(how.right).map_or(body.len(), |right| right.min(body.len()))];
        let chunked = how.length.is_none() && !how.unframed;
        for piece in right.chunks(how.drip.map_or(PIECE, |(bytes, _)| bytes)) {
            if let Some((_, pause)) = how.drip {
                self.pause(pause)?;
            }
            self.piece(piece, chunked)?;
            sent(piece.len() as u64);
        }
        let noise = crate::noise(PIECE, 99);
        let mut left = how.noise;
        while left > 0 {
            let piece = &noise[..usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
            self.piece(piece, chunked)?;
            sent(piece.len() as u64);
            left -= piece.len() as u64;
        }
        if chunked && how.end == End::Next {
            self.write(b"0\r\n\r\n")?;
        }
        Ok(())
    }

    fn piece(&mut self, bytes: &[u8], chunked: bool) -> io::Result<()> {
        if chunked {
            self.write(format!("{:x}\r\n", bytes.len()).as_bytes())?;
            self.write(bytes)?;
            return self.write(b"\r\n");
        }
        self.write(bytes)
    }

    /// Header lines until the client has enough of them.
    pub(super) fn endless_header(&mut self, mut sent: impl FnMut(u64)) -> io::Result<()> {
        self.write(b"HTTP/1.1 200 OK\r\n")?;
        let line = format!("X-Noise: {}\r\n", "n".repeat(1000));
        for _ in 0..ENDLESS / line.len() as u64 {
            self.write(line.as_bytes())?;
            sent(line.len() as u64);
        }
        Ok(())
    }

    /// Waits, unless the registry stops.
    pub(super) fn pause(&self, pause: Duration) -> io::Result<()> {
        let end = std::time::Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(std::time::Instant::now()).filter(|left| !left.is_zero()) {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(gone());
            }
            std::thread::sleep(left.min(SLICE));
        }
        Ok(())
    }

    /// Ends what is not to go on.
    pub(super) fn end(&mut self, end: End) {
        match end {
            End::Next => {}
            End::Close => drop(self.stream.shutdown(Shutdown::Write)),
            End::Reset => {
                // Closing with a linger time of 0 sends RST and throws away what is still to be sent, which is to arrive.
                std::thread::sleep(Duration::from_millis(100));
                let _ = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
            }
            End::Silence => while self.fill().is_ok_and(|read| read > 0) {},
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// Accepts connections until the registry stops.
pub(super) fn listen(listener: TcpListener, kind: Listener, shared: Arc<Shared>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if shared.stop.load(Ordering::Relaxed) {
                break;
            }
            let (shared, number) = (shared.clone(), shared.connections.fetch_add(1, Ordering::Relaxed));
            let Ok(mut conn) = stream.and_then(|stream| Conn::new(stream, shared.clone())) else { continue };
            std::thread::spawn(move || {
                while let Ok(Some(request)) = conn.request() {
                    if super::serve::serve(&mut conn, &shared, kind, number, &request) != End::Next {
                        break;
                    }
                }
            });
        }
    });
}

//! A small, careful HTTP/1.1 client, for registries and for the sockets of engines.
//!
//! ureq speaks the protocol. What it is told, and what is below it, is ours: no redirect is followed, no status is an error, credentials go
//! nowhere by themselves, and nobody waits for ever. A connection on which nothing happens for [`Settings::idle_timeout`] ends in an error,
//! however long the whole takes; whoever waits looks every 50 ms whether he shall stop.
//!
//! Failures are [`ErrorKind::Unavailable`] where trying again may help: no connection, no answer, an answer that breaks off. They are
//! [`ErrorKind::Denied`], [`ErrorKind::Unsupported`], [`ErrorKind::Invalid`] or [`ErrorKind::Limit`] where it does not: a certificate that is
//! not believed, a proxy that refuses, something that is not HTTP, headers without end.

mod link;
mod proxy;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod url;

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::http::header::{CONTENT_LENGTH, HeaderMap};
use ureq::{Agent, BodyReader, SendBody, http};

pub use proxy::Proxies;
pub(crate) use proxy::is_local;
pub use tls::TlsSettings;
pub use url::{Scheme, Url};

use crate::context::Cancel;
use crate::error::{Error, ErrorKind, Result};

use link::{Dialer, Lane, NoResolver, Shared};
use tls::{broken, closed};

/// The longest headers of an answer.
const HEADERS: usize = 64 << 10;
/// Connections that are kept for later requests.
const KEPT: usize = 16;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long connecting may take, all addresses of a host together, and its name's resolution.
    pub connect_timeout: Duration,
    /// How long nothing may happen on a connection; until an answer begins, as many times as long as a request says.
    pub idle_timeout: Duration,
    /// Whom to trust, and who we are. Read at the first request over TLS.
    pub tls: TlsSettings,
    /// What requests go through.
    pub proxies: Proxies,
    /// What we call ourselves.
    pub user_agent: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            tls: TlsSettings::default(),
            proxies: Proxies::default(),
            user_agent: concat!("longshore/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Remove it.
    Delete,
    /// Give it.
    Get,
    /// Say what it is, without giving it.
    Head,
    /// Change it.
    Patch,
    /// Take this.
    Post,
    /// Be this.
    Put,
}

impl Method {
    fn name(self) -> http::Method {
        match self {
            Self::Delete => http::Method::DELETE,
            Self::Get => http::Method::GET,
            Self::Head => http::Method::HEAD,
            Self::Patch => http::Method::PATCH,
            Self::Post => http::Method::POST,
            Self::Put => http::Method::PUT,
        }
    }

    /// Whether it may be sent twice (RFC 9110, 9.2.2).
    fn is_idempotent(self) -> bool {
        !matches!(self, Self::Patch | Self::Post)
    }

    fn has_body(self) -> bool {
        matches!(self, Self::Patch | Self::Post | Self::Put)
    }
}

/// What is sent along.
#[derive(Default)]
pub enum Body<'a> {
    /// Nothing.
    #[default]
    Empty,
    /// These bytes.
    Bytes(&'a [u8]),
    /// What a reader gives: `size` bytes, or in chunks as long as it gives any.
    Stream {
        /// Read while it is sent. An error of it, and too few bytes, break the request off, so that nobody can take it for complete.
        reader: &'a mut (dyn Read + Send),
        /// How many bytes there are.
        size: Option<u64>,
    },
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream { size, .. } => write!(f, "Stream({size:?})"),
        }
    }
}

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// What to do.
    pub method: Method,
    /// With what.
    pub url: &'a Url,
    /// More headers. Those that frame the message are made here.
    pub headers: Vec<(&'a str, String)>,
    /// What is sent along.
    pub body: Body<'a>,
    /// When to stop waiting for this request and its answer, instead of what the client was told: the run that it belongs to has failed.
    pub cancel: Option<&'a Cancel>,
    /// How many times as long as otherwise the other side may be silent before its answer begins, since it has work to do.
    pub patience: u32,
}

impl<'a> Request<'a> {
    /// A request for what is at `url`.
    pub fn get(url: &'a Url) -> Self {
        Self::new(Method::Get, url)
    }

    /// A request without headers and body.
    pub fn new(method: Method, url: &'a Url) -> Self {
        Self { method, url, headers: Vec::new(), body: Body::Empty, cancel: None, patience: 1 }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Stops waiting when `cancel` says so, until the body of the answer is read.
    #[must_use]
    pub fn cancel(mut self, cancel: &'a Cancel) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Lets the other side be silent for so many times as long before its answer begins.
    #[must_use]
    pub fn patience(mut self, patience: u32) -> Self {
        self.patience = patience;
        self
    }

    /// Sends `body` along.
    #[must_use]
    pub fn body(mut self, body: Body<'a>) -> Self {
        self.body = body;
        self
    }
}

/// A client: connections that are kept, and how new ones are made. Cheap to clone; used by many threads at once.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    kept: Mutex<Vec<Track>>,
}

/// A lane, the agent that drives on it, and which origin it leads to.
#[derive(Debug)]
struct Track {
    origin: String,
    agent: Agent,
    lane: Arc<Lane>,
}

impl Client {
    /// A client that reaches hosts by TCP.
    pub fn new(settings: Settings, cancel: &Cancel) -> Self {
        Self::make(Shared::new(settings, cancel, None))
    }

    /// A client whose requests all go to the Unix socket at `path`, whatever host they name.
    pub fn unix(path: PathBuf, settings: Settings, cancel: &Cancel) -> Self {
        Self::make(Shared::new(settings, cancel, Some(path)))
    }

    fn make(shared: Shared) -> Self {
        Self(Arc::new(Inner { shared: Arc::new(shared), kept: Mutex::default() }))
    }

    /// Sends a request, and gives the answer when its headers are there. Whatever the status is, it is an answer.
    ///
    /// # Errors
    /// When there is none; the module says of which kind. What a body's reader fails with comes out as it is.
    pub fn send(&self, mut request: Request<'_>) -> Result<Response> {
        let label = match &self.0.shared.socket {
            Some(path) => path.display().to_string(),
            None => request.url.authority(),
        };
        let kept = self.0.take(&request.url.origin());
        let again = kept.is_some() && request.method.is_idempotent() && !matches!(request.body, Body::Stream { .. });
        let track = kept.unwrap_or_else(|| Track::new(&self.0.shared, request.url));
        let lane = track.lane.clone();
        let answer = self.exchange(track, &mut request);
        // A connection that was kept may have been closed by the other side just when we used it.
        let unlucky =
            |error: &Error| again && error.kind() == ErrorKind::Unavailable && lane.exchange().received == 0 && lane.exchange().closed;
        let answer = match answer {
            Err(error) if unlucky(&error) => self.exchange(Track::new(&self.0.shared, request.url), &mut request),
            answer => answer,
        };
        answer.map_err(|error| if error.kind() == ErrorKind::Cancelled { error } else { error.frame(label) })
    }

    fn exchange(&self, track: Track, request: &mut Request<'_>) -> Result<Response> {
        let cancel = request.cancel.unwrap_or(&self.0.shared.cancel);
        cancel.poll()?;
        let target = Some(request.url.clone());
        let patience = request.patience;
        *track.lane.exchange() = link::Exchange { target, patience, cancel: cancel.clone(), ..link::Exchange::default() };
        let mut upload = match &mut request.body {
            Body::Empty if request.method.has_body() => Some(Upload::new(Give::Bytes(&[]), Some(0), &track.lane)),
            Body::Empty => None,
            Body::Bytes(bytes) => Some(Upload::new(Give::Bytes(bytes), Some(bytes.len() as u64), &track.lane)),
            Body::Stream { reader, size } => Some(Upload::new(Give::Reader(*reader), *size, &track.lane)),
        };
        let mut made = http::Request::builder().method(request.method.name()).uri(request.url.to_string());
        for (name, value) in &request.headers {
            made = made.header(*name, value);
        }
        if let Some(size) = upload.as_ref().and_then(|upload| upload.left) {
            made = made.header(CONTENT_LENGTH, size);
        }
        let answer = match &mut upload {
            None => made.body(SendBody::none()).map_err(ureq::Error::Http).and_then(|made| track.agent.run(made)),
            Some(upload) => made.body(SendBody::from_reader(upload)).map_err(ureq::Error::Http).and_then(|made| track.agent.run(made)),
        };
        let answer = answer.map_err(|error| explain(error, "the connection was closed before there was an answer"))?;
        track.lane.exchange().head_done = true;
        let (parts, body) = answer.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        let content_length = text(&headers, "content-length").and_then(|value| value.parse().ok());
        let reader = body.into_with_config().limit(u64::MAX).reader();
        let mut body = ResponseBody { reader, home: Some((self.0.clone(), track)) };
        if request.method == Method::Head || matches!(status, 204 | 304) || content_length == Some(0) {
            body.keep();
        }
        Ok(Response { status, headers, content_length, body })
    }
}

impl Inner {
    /// A connection to `origin` that was kept.
    fn take(&self, origin: &str) -> Option<Track> {
        let mut kept = self.kept();
        let at = kept.iter().rposition(|track| track.origin == origin)?;
        Some(kept.remove(at))
    }

    fn keep(&self, track: Track) {
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(track);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Track>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    fn new(shared: &Arc<Shared>, url: &Url) -> Self {
        let lane = Arc::new(Lane::new(shared.clone()));
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(HEADERS)
            .max_idle_connections(1)
            .user_agent(&*shared.settings.user_agent)
            .accept_encoding("")
            .build();
        let agent = Agent::with_parts(config, Dialer(lane.clone()), NoResolver);
        Self { origin: url.origin(), agent, lane }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Its status: 200, 404.
    pub status: u16,
    headers: HeaderMap,
    /// How many bytes of body it states.
    pub content_length: Option<u64>,
    /// Its body.
    pub body: ResponseBody,
}

impl Response {
    /// The value of a header, the first one if there are several. One that is not ASCII is none.
    pub fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }

    /// All values of a header.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it has more than `most` bytes, or breaks off.
    pub fn bytes(mut self, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.body).take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io)?;
        if bytes.len() as u64 > most {
            return Err(Error::limit(format_args!("the answer has more than {most} bytes")));
        }
        Ok(bytes)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The body of an answer. One that ends too early is an error; one that is read to its end leaves its connection to later requests, and dropped
/// before that, it closes the connection.
pub struct ResponseBody {
    reader: BodyReader<'static>,
    home: Option<(Arc<Inner>, Track)>,
}

impl ResponseBody {
    /// There is no more to come: the connection may be used again, if it can be.
    fn keep(&mut self) {
        // ureq gives the connection back when it is asked for more.
        if let Some((client, track)) = self.home.take().filter(|_| matches!(self.reader.read(&mut [0]), Ok(0))) {
            client.keep(track);
        }
    }
}

impl Read for ResponseBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let done = self.reader.read(buffer);
        match done {
            Ok(0) => {
                if let Some((client, track)) = self.home.take() {
                    client.keep(track);
                }
                Ok(0)
            }
            Ok(count) => {
                if let Some((_, track)) = &self.home {
                    track.lane.exchange().beside = 0;
                }
                Ok(count)
            }
            Err(error) => {
                self.home = None;
                Err(explain(ureq::Error::from(error), "the connection was closed in the middle of the answer").into())
            }
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

/// What ureq reads the body of a request from.
struct Upload<'a> {
    give: Give<'a>,
    left: Option<u64>,
    lane: Arc<Lane>,
}

enum Give<'a> {
    Bytes(&'a [u8]),
    Reader(&'a mut (dyn Read + Send)),
}

impl<'a> Upload<'a> {
    fn new(give: Give<'a>, left: Option<u64>, lane: &Arc<Lane>) -> Self {
        Self { give, left, lane: lane.clone() }
    }
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = self.left.map_or(buffer.len(), |left| usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len()));
        let answered = {
            let mut exchange = self.lane.exchange();
            exchange.body = true;
            exchange.answered
        };
        let count = if answered {
            // Nothing of it is sent any more; ureq only wants to come to the end.
            if self.left.is_some() { step } else { 0 }
        } else {
            match &mut self.give {
                Give::Bytes(bytes) => bytes.read(&mut buffer[..step])?,
                // An error of the reader is its own, not one of the connection.
                Give::Reader(reader) => read_retrying(reader, &mut buffer[..step]).map_err(|error| io::Error::from(Error::io(error)))?,
            }
        };
        if let Some(left) = &mut self.left {
            if count == 0 && *left > 0 {
                return Err(Error::mismatch(format_args!("what is to be sent ends {left} bytes too early")).into());
            }
            *left -= count as u64;
        }
        Ok(count)
    }
}

fn read_retrying(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What went wrong, for people; `end` is said where the connection ended.
fn explain(error: ureq::Error, end: &str) -> Error {
    match error {
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => closed(end),
        ureq::Error::Io(error) => broken(error),
        ureq::Error::LargeResponseHeader(..) => Error::limit(format_args!("the headers of the answer have more than {HEADERS} bytes")),
        ureq::Error::Protocol(error) => Error::invalid(format_args!("the answer is not HTTP: {error}")),
        other => Error::invalid(format_args!("the request failed: {other}")),
    }
}

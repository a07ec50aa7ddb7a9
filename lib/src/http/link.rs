//! Connections as ureq wants them: its `Connector` and `Transport` over our sockets.
//!
//! ureq speaks HTTP and keeps connections; below it everything is ours, because three things cannot be had otherwise: waiting in slices,
//! noticing an answer that comes while the request is still being sent, and requests in absolute form for proxies.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::ClientConfig;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use crate::context::Cancel;
use crate::error::{Error, ErrorKind, Result};

use super::Settings;
use super::proxy::Proxy;
use super::socket::{Early, Socket};
use super::tls::{Stream, broken, closed};
use super::url::{Scheme, Url};

/// Bytes that are read and written at once.
const BUFFER: usize = 128 << 10;
/// How much may come before the headers of an answer are complete, those of interim answers included.
const HEAD: u64 = 512 << 10;
/// The longest answer of a proxy to CONNECT.
const PROXY_HEAD: usize = 16 << 10;

/// What all connections of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) cancel: Cancel,
    /// The Unix socket that all requests go to.
    pub(super) socket: Option<PathBuf>,
    /// Read at the first request that needs it: reading the system's certificates takes some milliseconds.
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Shared {
    pub(super) fn new(settings: Settings, cancel: &Cancel, socket: Option<PathBuf>) -> Self {
        Self { settings, cancel: cancel.clone(), socket, tls: OnceLock::new() }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = self.settings.tls.config()?;
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

/// One request and its answer, as far as the connection and the client must tell each other.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Where it goes.
    pub(super) target: Option<Url>,
    /// When to stop waiting.
    pub(super) cancel: Cancel,
    /// How many times as long it may take until an answer begins.
    pub(super) patience: u32,
    /// Something of the request was sent.
    pub(super) begun: bool,
    /// The body is being sent.
    pub(super) body: bool,
    /// The answer is there, or the connection is gone: what is left of the body is not wanted.
    pub(super) answered: bool,
    /// The headers of the answer are complete.
    pub(super) head_done: bool,
    /// Bytes that came.
    pub(super) received: u64,
    /// Bytes that came since the last one of the body was given on: chunk sizes with their extensions, and trailers.
    pub(super) beside: u64,
    /// The other side closed the connection.
    pub(super) closed: bool,
}

/// A place for one exchange at a time.
#[derive(Debug)]
pub(super) struct Lane {
    shared: Arc<Shared>,
    exchange: Mutex<Exchange>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, exchange: Mutex::default() }
    }

    pub(super) fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Dialer(pub(super) Arc<Lane>);

impl Connector for Dialer {
    type Out = Link;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Link>, ureq::Error> {
        self.dial().map(Some).map_err(into_ureq)
    }
}

impl Dialer {
    fn dial(&self) -> Result<Link> {
        let Shared { settings, socket, .. } = &*self.0.shared;
        let (url, cancel) = {
            let exchange = self.0.exchange();
            (exchange.target.clone().ok_or_else(|| Error::invalid("a request without an address"))?, exchange.cancel.clone())
        };
        let cancel = &cancel;
        let (limit, idle) = (settings.connect_timeout, settings.idle_timeout);
        if let Some(path) = socket {
            return Ok(self.link(Stream::Plain(Socket::connect_unix(path, limit, idle, cancel)?), None));
        }
        let proxy = settings.proxies.of(&url)?;
        let secure = url.scheme() == Scheme::Https;
        let Some(proxy) = proxy else {
            let stream = Stream::Plain(Socket::connect(&url, limit, idle, cancel)?);
            return Ok(self.link(if secure { stream.secure(self.0.shared.tls()?, &url)? } else { stream }, None));
        };
        let stream = self
            .dial_proxy(&proxy, secure.then_some(&url), cancel)
            .map_err(|error| error.frame(format_args!("the proxy {}", proxy.url.authority())))?;
        if secure { Ok(self.link(stream.secure(self.0.shared.tls()?, &url)?, None)) } else { Ok(self.link(stream, Some(proxy))) }
    }

    /// Connects to a proxy, and through it to the host of `tunnel`.
    fn dial_proxy(&self, proxy: &Proxy, tunnel: Option<&Url>, cancel: &Cancel) -> Result<Stream> {
        let settings = &self.0.shared.settings;
        let mut stream = Stream::Plain(Socket::connect(&proxy.url, settings.connect_timeout, settings.idle_timeout, cancel)?);
        if proxy.url.scheme() == Scheme::Https {
            stream = stream.secure(self.0.shared.tls()?, &proxy.url)?;
        }
        if let Some(url) = tunnel {
            open_tunnel(&mut stream, proxy, url, settings)?;
        }
        Ok(stream)
    }

    fn link(&self, stream: Stream, via: Option<Proxy>) -> Link {
        Link { stream, buffers: LazyBuffers::new(BUFFER, BUFFER), lane: self.0.clone(), via, ahead: Vec::new(), spent: false }
    }
}

/// Asks a proxy for a connection to the host of `url` (RFC 9110, 9.3.6).
fn open_tunnel(stream: &mut Stream, proxy: &Proxy, url: &Url, settings: &Settings) -> Result<()> {
    let host = format!("{}:{}", url.host(), url.port());
    let authorization = proxy.authorization.as_ref().map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
    let request = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}\r\n{authorization}\r\n", settings.user_agent);
    stream.write_all(request.as_bytes()).map_err(broken)?;
    let mut head = Vec::new();
    // What follows the head belongs to the tunnel, so that nothing more is read.
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if head.len() == PROXY_HEAD || stream.read(&mut byte, settings.idle_timeout).map_err(broken)? == 0 {
            return Err(closed("the answer to CONNECT has no end"));
        }
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|status| status.parse::<u16>().ok());
    let refused = |kind| Err(Error::new(kind, format!("it does not connect to {host}: {}", line.get(9..).unwrap_or(&line))));
    match status {
        Some(200..=299) => Ok(()),
        Some(400..=499) => refused(ErrorKind::Denied),
        _ => refused(ErrorKind::Unavailable),
    }
}

/// A connection.
pub(super) struct Link {
    stream: Stream,
    buffers: LazyBuffers,
    lane: Arc<Lane>,
    /// The proxy that requests in clear go through.
    via: Option<Proxy>,
    /// What was read of an answer while the request was sent.
    ahead: Vec<u8>,
    /// It must not be used again.
    spent: bool,
}

impl Link {
    /// Sends `amount` bytes of the buffer, unless nobody wants them any more.
    fn transmit(&mut self, amount: usize) -> io::Result<()> {
        let (first, body) = {
            let mut exchange = self.lane.exchange();
            if exchange.answered {
                return Ok(());
            }
            (!std::mem::replace(&mut exchange.begun, true), exchange.body)
        };
        if first {
            let cancel = self.lane.exchange().cancel.clone();
            self.stream.obey(cancel);
        }
        self.stream.watch(body);
        if body && self.stream.is_answered()? && self.look_ahead()? {
            return Ok(());
        }
        let rewritten = self.via.as_ref().filter(|_| first).map(|proxy| absolute(&self.buffers.output()[..amount], proxy, &self.lane));
        let mut bytes = rewritten.as_deref().unwrap_or(&self.buffers.output()[..amount]);
        while let Err(error) = write_some(&mut self.stream, &mut bytes) {
            if !body || !(Early::is(&error) || is_gone(&error)) {
                return Err(error);
            }
            if is_gone(&error) || look_ahead(&mut self.stream, &mut self.ahead)? {
                self.spent = true;
                self.lane.exchange().answered = true;
                return Ok(());
            }
        }
        Ok(())
    }

    fn look_ahead(&mut self) -> io::Result<bool> {
        let answered = look_ahead(&mut self.stream, &mut self.ahead)?;
        if answered {
            self.spent = true;
            self.lane.exchange().answered = true;
        }
        Ok(answered)
    }

    fn receive(&mut self, timeout: &NextTimeout) -> io::Result<usize> {
        self.stream.watch(false);
        let patience = {
            let exchange = self.lane.exchange();
            if exchange.head_done { 1 } else { exchange.patience.max(1) }
        };
        let idle = self.stream.idle() * patience;
        let limit = if timeout.after.is_zero() || timeout.after.is_not_happening() { idle } else { idle.min(*timeout.after) };
        let buffer = self.buffers.input_append_buf();
        let count = if self.ahead.is_empty() {
            self.stream.read(buffer, limit)?
        } else {
            let count = self.ahead.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.ahead[..count]);
            self.ahead.drain(..count);
            count
        };
        self.buffers.input_appended(count);
        let mut exchange = self.lane.exchange();
        exchange.received += count as u64;
        exchange.beside += count as u64;
        exchange.closed |= count == 0;
        if !exchange.head_done && exchange.received > HEAD {
            return Err(Error::limit(format_args!("the headers of the answer have more than {HEAD} bytes")).into());
        }
        // A buffer may be full of the body; what is more than that is none of it.
        if exchange.head_done && exchange.beside > HEAD + BUFFER as u64 {
            return Err(Error::limit(format_args!("what follows the body of the answer has more than {HEAD} bytes")).into());
        }
        Ok(count)
    }
}

/// Writes, and forgets what is written.
fn write_some(stream: &mut Stream, bytes: &mut &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = stream.write(bytes)?;
        *bytes = &bytes[count..];
    }
    stream.flush()
}

/// Reads what came while the request is sent; says whether it is an answer. Interim ones (100, 102, 103) are none.
fn look_ahead(stream: &mut Stream, ahead: &mut Vec<u8>) -> io::Result<bool> {
    const INTERIM: usize = b"HTTP/1.1 1".len();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece, stream.idle())?;
        ahead.extend_from_slice(&piece[..count]);
        let interim = ahead.len() < INTERIM || (ahead.starts_with(b"HTTP/1.") && ahead[INTERIM - 1] == b'1');
        if count == 0 || !interim || ahead.len() > PROXY_HEAD {
            return Ok(true);
        }
        if let Some(end) = ahead.windows(4).position(|four| four == b"\r\n\r\n") {
            ahead.drain(..end + 4);
        }
        if ahead.is_empty() {
            return Ok(false);
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
}

/// The head of a request in absolute form, as proxies want it (RFC 9112, 3.2.2), with the proxy's credentials.
fn absolute(head: &[u8], proxy: &Proxy, lane: &Lane) -> Vec<u8> {
    let target = lane.exchange().target.as_ref().map(|url| format!("http://{}", url.authority())).unwrap_or_default();
    let space = head.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
    let line = head.windows(2).position(|two| two == b"\r\n").map_or(head.len(), |at| at + 2);
    let authorization = proxy.authorization.as_ref().map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
    [&head[..space], target.as_bytes(), &head[space..line], authorization.as_bytes(), &head[line..]].concat()
}

/// Our errors travel through ureq as what they are.
fn into_ureq(error: Error) -> ureq::Error {
    ureq::Error::Io(error.into())
}

impl Transport for Link {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        self.transmit(amount).map_err(|error| {
            self.lane.exchange().closed |= is_gone(&error);
            into_ureq(broken(error))
        })
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let waits_for_100 = matches!(timeout.reason, ureq::Timeout::Await100);
        match self.receive(&timeout) {
            Ok(count) => Ok(count > 0),
            Err(_) if waits_for_100 && self.lane.exchange().cancel.poll().is_ok() => Err(ureq::Error::Timeout(timeout.reason)),
            Err(error) => {
                self.lane.exchange().closed |= is_gone(&error) || error.kind() == io::ErrorKind::UnexpectedEof;
                Err(into_ureq(broken(error)))
            }
        }
    }

    fn is_open(&mut self) -> bool {
        !self.spent && self.ahead.is_empty() && matches!(self.stream.is_answered(), Ok(false))
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Names are resolved where connections are made.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

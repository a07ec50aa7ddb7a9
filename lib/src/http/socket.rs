//! Sockets that are waited for in slices, so that a request to stop is noticed, and an idle one ends in an error.

use std::fmt;
use std::io::{self, ErrorKind as Io, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, sockopt};

use crate::context::{Cancel, SLICE};
use crate::error::{Context as _, Error, ErrorKind, Result};

use super::url::Url;

/// A connected socket.
pub(super) struct Socket {
    stream: Stream,
    /// When to stop waiting.
    pub(super) cancel: Cancel,
    /// How long nothing may happen.
    pub(super) idle: Duration,
    /// A request is being sent, and what comes back meanwhile ends it.
    pub(super) watch: bool,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Says that an answer began to come while the request was still being sent.
#[derive(Debug, thiserror::Error)]
#[error("an answer came early")]
pub(super) struct Early;

impl Early {
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl Socket {
    /// Connects to the host of `url`, all of its addresses in turn, within `limit` in all.
    pub(super) fn connect(url: &Url, limit: Duration, idle: Duration, cancel: &Cancel) -> Result<Self> {
        let end = Instant::now() + limit;
        let addresses = resolve(url, end, cancel)?;
        let mut failure = None;
        for (at, address) in addresses.iter().enumerate() {
            // What is left is shared, so that one address that never answers leaves time for the next.
            let share = end.saturating_duration_since(Instant::now()) / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
            match connect_to(*address, share, cancel) {
                Ok(stream) => return Ok(Self { stream: Stream::Tcp(stream), cancel: cancel.clone(), idle, watch: false }),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| unresolved("")))
    }

    /// Connects to the Unix socket at `path`.
    pub(super) fn connect_unix(path: &Path, limit: Duration, idle: Duration, cancel: &Cancel) -> Result<Self> {
        let end = Instant::now() + limit;
        let fd = socket(AddressFamily::UNIX).map_err(unavailable)?;
        let address = SocketAddrUnix::new(path).map_err(|error| Error::io(error.into())).path(path)?;
        loop {
            match rustix::net::connect(&fd, &address) {
                Ok(()) => return Ok(Self { stream: Stream::Unix(fd.into()), cancel: cancel.clone(), idle, watch: false }),
                // Too many wait already to be accepted (unix(7)).
                Err(Errno::AGAIN) if Instant::now() < end => {
                    cancel.sleep(SLICE)?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOENT) => return Err(Error::new(ErrorKind::Unavailable, "there is no such socket").frame(path.display())),
                Err(Errno::ACCESS | Errno::PERM) => return Err(Error::io(Errno::ACCESS.into()).frame(path.display())),
                Err(error) => return Err(unavailable(error).frame(path.display())),
            }
        }
    }

    /// Reads what there is; waits until there is something, up to `limit`.
    pub(super) fn read(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        self.cancel.poll()?;
        loop {
            let done = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(buffer),
                Stream::Unix(stream) => stream.read(buffer),
            };
            match done {
                Err(error) if error.kind() == Io::WouldBlock => {
                    if self.wait(PollFlags::IN, limit)?.is_none() {
                        return Err(idle(limit, "no answer for"));
                    }
                }
                Err(error) if error.kind() == Io::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Writes a part; waits until that can be done.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.poll()?;
        loop {
            let done = match &mut self.stream {
                Stream::Tcp(stream) => stream.write(bytes),
                Stream::Unix(stream) => stream.write(bytes),
            };
            match done {
                Err(error) if error.kind() == Io::WouldBlock => {
                    let flags = if self.watch { PollFlags::OUT | PollFlags::IN } else { PollFlags::OUT };
                    match self.wait(flags, self.idle)? {
                        None => return Err(idle(self.idle, "nothing of the request is taken for")),
                        Some(ready) if ready.contains(PollFlags::IN) && !ready.contains(PollFlags::OUT) => {
                            return Err(io::Error::other(Early));
                        }
                        Some(_) => {}
                    }
                }
                Err(error) if error.kind() == Io::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Whether there is something to read, be it the end.
    pub(super) fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        !matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }

    fn wait(&self, flags: PollFlags, limit: Duration) -> io::Result<Option<PollFlags>> {
        wait(self, flags, Instant::now() + limit, &self.cancel)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// Waits in slices until `end`; says for what the socket is ready.
fn wait(fd: &impl AsFd, flags: PollFlags, end: Instant, cancel: &Cancel) -> io::Result<Option<PollFlags>> {
    loop {
        cancel.poll()?;
        let left = end.saturating_duration_since(Instant::now());
        let slice = left.min(SLICE);
        let slice = Timespec { tv_sec: 0, tv_nsec: slice.subsec_nanos().into() };
        let mut fds = [PollFd::new(fd, flags)];
        match poll(&mut fds, Some(&slice)) {
            Ok(0) if left.is_zero() => return Ok(None),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(Some(fds[0].revents())),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The error of a wait that was too long.
fn idle(limit: Duration, what: &str) -> io::Error {
    Error::silence(format_args!("{what} {}", spoken(limit))).into()
}

/// `60 seconds`.
pub(super) fn spoken(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} milliseconds", time.as_millis()),
        1 => "a second".to_owned(),
        seconds => format!("{seconds} seconds"),
    }
}

fn unresolved(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the name cannot be resolved{why}"))
}

/// What the system says of a connection that could not be made.
fn unavailable(error: Errno) -> Error {
    let text = match error {
        Errno::CONNREFUSED => "connection refused".to_owned(),
        Errno::TIMEDOUT => "no connection: nobody answers".to_owned(),
        Errno::NETUNREACH | Errno::HOSTUNREACH => "it cannot be reached: no route to it".to_owned(),
        other => Error::io(other.into()).to_string(),
    };
    Error::new(ErrorKind::Unavailable, text)
}

/// The addresses of the host. The system's resolver cannot be interrupted, so that it works on a thread of its own, which is left alone if it
/// takes too long.
fn resolve(url: &Url, end: Instant, cancel: &Cancel) -> Result<Vec<SocketAddr>> {
    let host = url.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port();
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (give, take) = mpsc::channel();
    let look = move || {
        // Nobody may be waiting any more.
        let _ = give.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    };
    thread::Builder::new().name("resolver".to_owned()).spawn(look).map_err(Error::io)?;
    loop {
        cancel.poll()?;
        match take.recv_timeout(SLICE) {
            Ok(Ok(addresses)) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(unresolved("")),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= end => {
                return Err(unresolved(": no answer"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    let fd = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(fd)
}

fn connect_to(address: SocketAddr, limit: Duration, cancel: &Cancel) -> Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket(family).map_err(unavailable)?;
    match rustix::net::connect(&fd, &SocketAddrAny::from(address)) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            if wait(&fd, PollFlags::OUT, Instant::now() + limit, cancel).map_err(Error::io)?.is_none() {
                return Err(Error::new(ErrorKind::Unavailable, format!("no connection within {}", spoken(limit))));
            }
            match sockopt::socket_error(&fd).map_err(unavailable)? {
                Ok(()) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(error) => return Err(unavailable(error)),
    }
    // Small requests are whole; waiting for more to send would only delay them.
    let _ = sockopt::set_tcp_nodelay(&fd, true);
    Ok(fd.into())
}

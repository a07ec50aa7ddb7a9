//! Decoding: one reader for every compression, that ends well or says why not.

use std::io::{self, Read};

use super::bzip2::Bzip2;
use super::gzip::Gzip;
use super::input::Input;
use super::xz::Xz;
use super::zstd::Zstd;
use super::{Compression, SNIFF, sniff};
use crate::error::{Error, Result};
use crate::limits::Limits;

/// The largest zstd window or xz dictionary, in bytes. zstd(1) takes no more without `--long`, and xz(1) makes 64 MiB at `-9`.
pub const WINDOW: u64 = 128 << 20;

/// How far a stream may expand; see [`Limits::ratio`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// How many bytes one compressed byte may become, once over [`DecodeLimits::ratio_floor`].
    pub ratio: u64,
    /// Decompressed bytes below which [`DecodeLimits::ratio`] does not matter.
    pub ratio_floor: u64,
}

impl From<&Limits> for DecodeLimits {
    fn from(limits: &Limits) -> Self {
        Self { ratio: limits.ratio, ratio_floor: limits.ratio_floor }
    }
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

/// Makes a reader of what `input`, compressed as `kind`, decompresses to.
///
/// Decompressed bytes go straight into the caller's buffer, so callers do well to bring a large one. The end is reported only after every
/// checksum was right and nothing followed the stream. Its errors carry a [`crate::Error`] of kind
/// [`Invalid`](crate::ErrorKind::Invalid), [`Limit`](crate::ErrorKind::Limit) or [`Unsupported`](crate::ErrorKind::Unsupported); those of
/// `input` pass through as they are, but for interrupted reads, which are repeated. After an error, every later read fails too.
///
/// ```
/// use std::io::Read as _;
/// use longshore::compress::{Compression, DecodeLimits, Encoding, decoder};
///
/// let mut stored = Vec::new();
/// Encoding::default().encoder().encode(b"some layer", &mut stored)?;
/// let mut text = String::new();
/// decoder(Compression::Gzip, &stored[..], DecodeLimits::default())?.read_to_string(&mut text).map_err(longshore::Error::io)?;
/// assert_eq!(text, "some layer");
/// # Ok::<(), longshore::Error>(())
/// ```
pub fn decoder<'a, R: Read + Send + 'a>(kind: Compression, input: R, limits: DecodeLimits) -> Result<Box<dyn Read + Send + 'a>> {
    Ok(match kind {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(Guard::new(Gzip::new(Input::new(input)), limits)),
        Compression::Zstd => Box::new(Guard::new(Zstd::new(Input::new(input)).map_err(Error::io)?, limits)),
        Compression::Xz => Box::new(Guard::new(Xz::new(Input::new(input)), limits)),
        Compression::Bzip2 => Box::new(Guard::new(Bzip2::new(Input::new(input)), limits)),
    })
}

/// The same for a stream that somebody says to be compressed as `stated`, where that is worth nothing: its first bytes say what it is, also that it
/// is not compressed at all. What is said to be plain stays as it is. Nothing is read before the caller reads.
pub(crate) fn sniffing_decoder<'a, R: Read + Send + 'a>(stated: Compression, input: R, limits: DecodeLimits) -> Box<dyn Read + Send + 'a> {
    match stated {
        Compression::None => Box::new(input),
        _ => Box::new(Sniffing::Unread(Some(input), limits)),
    }
}

/// A decoder that is chosen by what it reads first.
enum Sniffing<'a, R> {
    /// The input, until it was looked at.
    Unread(Option<R>, DecodeLimits),
    Known(Box<dyn Read + Send + 'a>),
}

impl<'a, R: Read + Send + 'a> Read for Sniffing<'a, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Self::Unread(input, limits) = self {
            let mut input = input.take().ok_or_else(|| Error::invalid("the compressed stream has failed before"))?;
            let mut head = Vec::with_capacity(SNIFF);
            (&mut input).take(SNIFF as u64).read_to_end(&mut head)?;
            let kind = sniff(&head).map_err(Error::from)?;
            *self = Self::Known(decoder(kind, Begun { head, input }, *limits)?);
        }
        match self {
            Self::Known(plain) => plain.read(buf),
            Self::Unread(..) => Ok(0),
        }
    }
}

/// An input with the first bytes that were taken of it, given together with what follows: a decoder that gets few bytes gives few, and whoever
/// looks at the first of them wants more.
struct Begun<R> {
    head: Vec<u8>,
    input: R,
}

impl<R: Read> Read for Begun<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = buf.len().min(self.head.len());
        buf[..count].copy_from_slice(&self.head[..count]);
        self.head.drain(..count);
        match self.input.read(&mut buf[count..]) {
            Err(error) if count > 0 && error.kind() == io::ErrorKind::Interrupted => Ok(count),
            more => more.map(|more| count + more),
        }
    }
}

/// One format's decoder. [`Guard`] calls it with room in `out`, and never again after an end or an error.
pub(super) trait Stage: Send {
    /// Decompresses into `out` and says how much; 0 at the end of a complete and correct stream.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize>;

    /// How many compressed bytes have been taken so far.
    fn consumed(&self) -> u64;
}

/// Keeps a stage within its ratio, and at its end once it has come to one.
struct Guard<S> {
    stage: S,
    limits: DecodeLimits,
    made: u64,
    state: State,
}

enum State {
    Ended,
    Failed,
    Running,
}

impl<S: Stage> Guard<S> {
    fn new(stage: S, limits: DecodeLimits) -> Self {
        Self { stage, limits, made: 0, state: State::Running }
    }

    fn advance(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.stage.read(buf)?;
        self.made += count as u64;
        if self.made > self.limits.ratio_floor && self.made / self.stage.consumed().max(1) > self.limits.ratio {
            return Err(Error::limit(format!("decompresses to over {} times its size", self.limits.ratio)).into());
        }
        Ok(count)
    }
}

impl<S: Stage> Read for Guard<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.state {
            _ if buf.is_empty() => return Ok(0),
            State::Ended => return Ok(0),
            State::Failed => return Err(Error::invalid("the compressed stream has failed before").into()),
            State::Running => {}
        }
        let result = self.advance(buf);
        match result {
            Ok(0) => self.state = State::Ended,
            Ok(_) => {}
            Err(_) => self.state = State::Failed,
        }
        result
    }
}

/// Decodes `data` for a fuzzer: the first byte picks the compression, the second how the rest is cut. The cuts must not matter.
pub fn fuzz_decode(data: &[u8]) {
    const MOST: usize = 1 << 20;
    let [kind, cut, stream @ ..] = data else { return };
    let kind = [Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2, Compression::None][usize::from(kind % 5)];
    let run = |cut: usize| {
        let mut made = Vec::new();
        // Where the ratio is looked at does depend on the cuts.
        let limits = DecodeLimits { ratio: u64::MAX, ..DecodeLimits::default() };
        let Ok(decoder) = decoder(kind, Cut { data: stream, cut }, limits) else { return (made, false) };
        let ended = Cut { data: decoder.take(MOST as u64), cut }.read_to_end(&mut made).is_ok();
        (made, ended)
    };
    let (whole, cut) = (run(usize::MAX), run(usize::from(*cut) + 1));
    if whole.0.len() < MOST && cut.0.len() < MOST {
        assert_eq!(whole.1, cut.1, "whether {kind} is good depends on how it is read");
        assert!(!whole.1 || whole.0 == cut.0, "what {kind} holds depends on how it is read");
    }
}

/// A reader that gives at most `cut` bytes at once.
pub(super) struct Cut<R> {
    pub(super) data: R,
    pub(super) cut: usize,
}

impl<R: Read> Read for Cut<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = buf.len().min(self.cut);
        self.data.read(&mut buf[..count])
    }
}

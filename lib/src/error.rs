//! The one error type of the library: what kind of failure, where it happened, and what to do about it.
//!
//! An [`Error`] reads as one sentence. Code near the bytes says what is wrong (`expected …, found …`); every caller that knows more adds a
//! frame in front: the file, the member of an archive, the layer, the thing being done. Sans-IO modules have small error enums of their own
//! and convert at their border.

use std::fmt;
use std::io;
use std::path::Path;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked to stop.
    Cancelled,
    /// Permission was refused, by the system or a remote side.
    Denied,
    /// Something that must not be replaced is already there.
    Exists,
    /// The input is malformed, or contradicts itself.
    Invalid,
    /// The system could not read or write.
    Io,
    /// A limit of [`Limits`](crate::limits::Limits) was exceeded.
    Limit,
    /// Bytes are not those that a digest or a size promised.
    Mismatch,
    /// What was named is not there.
    NotFound,
    /// The other side cannot be reached, or gave up.
    Unavailable,
    /// It is well-formed, but this operation or format cannot do it.
    Unsupported,
}

/// A failure: kind, sentence, hint and cause.
///
/// Shown, it is one line that a terminal can be given: names come from the input, so control characters in them are escaped.
///
/// Boxed inside, so that a [`Result`] stays one word wide on the paths that succeed.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    /// Where it happened, innermost first.
    frames: Vec<String>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind` that says `message`: a clause without a capital or a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), frames: Vec::new(), hint: None, source: None }))
    }

    /// Malformed input.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Invalid, message.to_string())
    }

    /// Bytes that are not those promised.
    pub fn mismatch(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Mismatch, message.to_string())
    }

    /// Something that was named and is not there.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, message.to_string())
    }

    /// Something that this operation or format cannot do.
    pub fn unsupported(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unsupported, message.to_string())
    }

    /// A limit that was exceeded.
    pub fn limit(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Limit, message.to_string())
    }

    /// Nothing happened for too long on a connection.
    pub(crate) fn silence(message: impl fmt::Display) -> Self {
        let mut made = Self::new(ErrorKind::Unavailable, message.to_string());
        made.0.source = Some(Box::new(io::Error::from(io::ErrorKind::TimedOut)));
        made
    }

    /// The caller asked to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// A failed system call. An error of this library that travelled through an [`io::Error`] comes out as it went in.
    pub fn io(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Invalid,
            _ => ErrorKind::Io,
        };
        if error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            let inner = error.into_inner().expect("get_ref has just shown an inner error");
            return *inner.downcast::<Self>().expect("is::<Self> has just held");
        }
        let mut message = error.to_string();
        // "No such file or directory (os error 2)": the number says nothing to a reader.
        if let Some(at) = message.find(" (os error ") {
            message.truncate(at);
        }
        let mut made = Self::new(kind, message);
        made.0.source = Some(Box::new(error));
        made
    }

    /// Says where: the thing being done, a path, a member. The outermost frame is read first. What is said already is not said twice, nor
    /// `app:1` behind `docker://app:1`.
    #[must_use]
    pub fn frame(mut self, frame: impl fmt::Display) -> Self {
        let frame = frame.to_string();
        let says = |known: &String| frame.strip_suffix(known.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with("://"));
        self.0.frames.pop_if(|known| says(known));
        self.0.frames.push(frame);
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint = Some(hint.to_string());
        self
    }

    /// What a caller can act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What helps, when something does.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether it comes from a reader that closed its end of a pipe.
    pub fn is_broken_pipe(&self) -> bool {
        self.comes_from(io::ErrorKind::BrokenPipe)
    }

    /// Whether somebody was silent for too long.
    pub(crate) fn is_silence(&self) -> bool {
        self.0.kind == ErrorKind::Unavailable && self.comes_from(io::ErrorKind::TimedOut)
    }

    fn comes_from(&self, kind: io::ErrorKind) -> bool {
        let source = self.0.source.as_deref().and_then(|e| e.downcast_ref::<io::Error>());
        source.is_some_and(|e| e.kind() == kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for frame in self.0.frames.iter().rev() {
            shortened(frame, f)?;
            f.write_str(": ")?;
        }
        shortened(&self.0.message, f)
    }
}

/// Bytes of a frame or message that are shown of its beginning and of its end. Names in it may be as long as an input makes them.
const SHOWN: (usize, usize) = (400, 100);

fn shortened(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (head, tail) = SHOWN;
    if text.len() <= head + tail {
        return escaped(text, f);
    }
    let boundary = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    escaped(&text[..boundary(head)], f)?;
    f.write_str("…")?;
    escaped(&text[boundary(text.len() - tail)..], f)
}

/// Writes a text that may come from the input on one line, with its control characters escaped.
pub(crate) fn escaped(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for part in text.split_inclusive(char::is_control) {
        match part.char_indices().next_back() {
            Some((at, control)) if control.is_control() => write!(f, "{}{}", &part[..at], control.escape_debug())?,
            _ => f.write_str(part)?,
        }
    }
    Ok(())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// Carries an error through an interface that speaks [`io::Error`]; [`Error::io`] takes it out again.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// Adds frames to results on their way up.
pub trait Context<T> {
    /// Says where: what was being done, lazily.
    fn context<D: fmt::Display>(self, frame: impl FnOnce() -> D) -> Result<T>;

    /// Says which file.
    fn path(self, path: &Path) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, frame: impl FnOnce() -> D) -> Self {
        self.map_err(|e| e.frame(frame()))
    }

    fn path(self, path: &Path) -> Self {
        self.map_err(|e| e.frame(path.display()))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context<D: fmt::Display>(self, frame: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Error::io(e).frame(frame()))
    }

    fn path(self, path: &Path) -> Result<T> {
        self.map_err(|e| Error::io(e).frame(path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_one_sentence_outermost_first() {
        let error = Error::mismatch("expected 3 bytes, found 2").frame("layer 1").frame("app.tar");
        assert_eq!(error.to_string(), "app.tar: layer 1: expected 3 bytes, found 2");
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        for (inner, outer, text) in [
            ("a.sock", "a.sock", "a.sock: no"),
            ("a/app:1", "docker://a/app:1", "docker://a/app:1: no"),
            ("app:1", "docker://a/app:1", "docker://a/app:1: app:1: no"),
            ("docker://app:1", "app:1", "app:1: docker://app:1: no"),
        ] {
            assert_eq!(Error::invalid("no").frame(inner).frame(outer).to_string(), text);
        }
    }

    #[test]
    fn stays_on_one_line_whatever_names_are_in_it() {
        let error = Error::invalid("a\tb\u{7f}").frame("new\nline\u{1b}[31m").frame("é ok \\ \u{85}");
        assert_eq!(error.to_string(), r"é ok \ \u{85}: new\nline\u{1b}[31m: a\tb\u{7f}");
    }

    #[test]
    fn stays_a_sentence_however_long_names_are() {
        let text = Error::invalid(format!("a link to {}, which is missing", "é".repeat(10_000))).frame("n".repeat(10_000)).to_string();
        assert!(text.len() < 1_100 && text.starts_with("nnn") && text.ends_with("é, which is missing"), "{text}");
        let exact = "x".repeat(500);
        assert_eq!(Error::invalid(&exact).to_string(), exact);
    }

    #[test]
    fn survives_a_trip_through_io_error() {
        let error = Error::io(io::Error::from(Error::cancelled().frame("inner"))).frame("outer");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(error.to_string(), "outer: inner: cancelled");
    }

    #[test]
    fn system_errors_lose_their_number_and_keep_their_kind() {
        let error = Error::io(io::Error::from_raw_os_error(2));
        assert_eq!(error.to_string(), "No such file or directory");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(Error::io(io::Error::from_raw_os_error(32)).is_broken_pipe());
    }
}

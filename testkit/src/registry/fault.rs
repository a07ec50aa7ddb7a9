//! Faults as data: which request, how many times, and what goes wrong with it.

use std::time::Duration;

/// One thing that goes wrong, at the registry or at its token service; the other host does well. Made by [`Fault::on`].
#[derive(Debug, Clone)]
pub struct Fault {
    /// The methods, `GET` or `GET|HEAD`, a space, and the path with its query, in which `*` stands for anything.
    pub when: String,
    /// How many matching requests go well before.
    pub skip: usize,
    /// How many go wrong.
    pub times: usize,
    /// What happens to them.
    pub what: What,
}

/// What goes wrong. In texts `{path}` stands for the path and query of the request (in a `Location`, those of the right one), `{host}` for
/// the host and port that was asked, and `{elsewhere}` for the second listener.
#[derive(Debug, Clone)]
pub enum What {
    /// Answers this instead.
    Answer {
        /// The status.
        status: u16,
        /// Headers beside Content-Length.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Closes the connection instead of an answer.
    Close,
    /// States the right Content-Length, sends this many bytes of the body, and closes.
    Cut(u64),
    /// Waits before it answers.
    Delay(Duration),
    /// Sends the right answer in small pieces, each after a pause.
    Drip {
        /// Bytes a piece.
        bytes: usize,
        /// The pause.
        every: Duration,
    },
    /// Sends noise without end.
    Endless(Framing),
    /// Sends header lines without end.
    EndlessHeader,
    /// The upload of this path is forgotten before it is looked for.
    ForgetUpload,
    /// Adds or replaces a header of the right answer.
    Header(&'static str, String),
    /// Answers a request for a range as if it had asked for everything.
    IgnoreRange,
    /// States a Content-Length that is this much more, or less, than what is sent; then closes.
    Length(i64),
    /// Sends this many bytes of noise behind the right body, and counts them in Content-Length.
    Longer(u64),
    /// Reads this much of the body of an upload, keeps so much of it, and resets the connection.
    LoseUpload {
        /// Bytes read.
        after: u64,
        /// Bytes kept.
        kept: u64,
    },
    /// Sends as many bytes as there should be, and other ones.
    Noise,
    /// Does what is asked, and closes the connection instead of saying so.
    Mute,
    /// Writes these bytes instead of an answer, and closes.
    Raw(Vec<u8>),
    /// Does not mount: answers with an upload, 202.
    RefuseMount,
    /// Resets the connection instead of an answer.
    Reset,
    /// Sends this many bytes of the right body, and resets the connection.
    ResetAfter(u64),
    /// Reads the request and never answers.
    Silence,
    /// Sends this many bytes of the right body, and then nothing more.
    SilenceAfter(u64),
    /// Answers a request for a range with the one that begins so much later, or earlier, and says so.
    WrongRange(i64),
}

/// How a body without a stated length ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// When the connection is closed.
    Close,
}

impl Fault {
    /// Something that goes wrong the first time. `when` is such as `GET /v2/*/blobs/*`.
    pub fn on(when: &str, what: What) -> Self {
        Self { when: when.to_owned(), skip: 0, times: 1, what }
    }

    /// So many matching requests go well first.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// It goes wrong so many times.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// It goes wrong every time.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Whether this request goes wrong; counts it.
    pub(super) fn strikes(&mut self, method: &str, target: &str) -> bool {
        let (methods, path) = self.when.split_once(' ').expect("a method, a space and a path");
        if !(methods == "*" || methods.split('|').any(|one| one == method)) || !glob(path, target) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let strikes = self.times > 0;
        self.times = self.times.saturating_sub(usize::from(self.times != usize::MAX));
        strikes
    }
}

impl What {
    /// Answers with a status and no body.
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    /// Answers with a status and an error as the distribution specification has it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message, "detail": { "of": "the fault" } }] });
        Self::Answer { status, headers: vec![("Content-Type", "application/json".to_owned())], body: body.to_string().into_bytes() }
    }

    /// Answers with a status and a `Retry-After`, in seconds or as a date.
    pub fn retry_after(status: u16, when: &str) -> Self {
        Self::Answer { status, headers: vec![("Retry-After", when.to_owned())], body: Vec::new() }
    }

    /// Answers with a status and a page for people.
    pub fn page(status: u16, text: &str) -> Self {
        let body = format!("<!DOCTYPE html><html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>");
        Self::Answer { status, headers: vec![("Content-Type", "text/html".to_owned())], body: body.into_bytes() }
    }

    /// Answers 200 with this body.
    pub fn body(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer { status: 200, headers: vec![("Content-Type", media_type.to_owned())], body: body.into() }
    }

    /// Sends the client to another address.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::Answer { status, headers: vec![("Location", location.to_owned())], body: Vec::new() }
    }
}

/// Whether `text` is what `pattern` says, where `*` is any text.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(first) else { return false };
    if rest.is_empty() {
        return true;
    }
    (0..=text.len()).filter(|&at| text.is_char_boundary(at)).any(|at| glob(rest, &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, matches) in [
            ("/v2/", "/v2/", true),
            ("/v2/", "/v2/a", false),
            ("/v2/*/blobs/*", "/v2/a/b/blobs/sha256:1", true),
            ("/v2/*/blobs/*", "/v2/a/manifests/1", false),
            ("*", "", true),
            ("*b", "abab", true),
            ("*b", "aba", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_says() {
        let mut fault = Fault::on("GET|HEAD /v2/*", What::Close).after(1).times(2);
        let struck: Vec<bool> = ["GET", "HEAD", "PUT", "GET", "GET"].iter().map(|method| fault.strikes(method, "/v2/a")).collect();
        assert_eq!(struck, [false, true, false, true, false]);
        let mut fault = Fault::on("* *", What::Close).always();
        assert!((0..100).all(|_| fault.strikes("PUT", "/")));
    }
}

//! Requests to one registry: where it is reached, who asks, what is tried again, and what its refusals say.
//!
//! ```text
//! ask        an answer with a small body; tried again while the registry is busy or the connection breaks
//! └ once     one request: with credentials for the registry alone, redirects followed, a refused token replaced once
//! ```
//!
//! Follows the [distribution-spec] 1.1 and Docker's registry API v2, from which it came.
//!
//! [distribution-spec]: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md

use std::borrow::Cow;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ureq::http::StatusCode;

use super::auth::{Challenge, Known, Scope, TokenRequest, basic};
use super::retry::{Attempt, Backoff, asked_to_wait, is_busy};
use super::{Access, Credential};
use crate::context::{Cancel, Context};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::http::{self, Body, Method, Request, Response, Scheme, Url, is_local};
use crate::pool::lock;
use crate::reference::Reference;
use crate::spec::Object;

/// Redirects that are followed. Registries need one, to their storage.
const REDIRECTS: usize = 5;
/// Bytes of a refusal that are read for its message.
const REFUSAL: u64 = 64 << 10;
/// Characters of a message of the other side that are shown.
const SHOWN: usize = 300;
/// Bytes of a token's answer.
const TOKEN: u64 = 1 << 20;

/// One registry, for one caller.
pub(crate) struct Client {
    http: http::Client,
    /// Whose credentials are looked for.
    repository: Reference,
    access: Arc<Access>,
    cancel: Cancel,
    idle: Duration,
    learned: Arc<Learned>,
}

/// What is found out once, for all who talk to the registry.
#[derive(Default)]
struct Learned {
    /// Where it is reached.
    base: Mutex<Option<Url>>,
    known: Mutex<Known>,
    /// Looked up when they are asked for.
    credential: Mutex<Option<Option<Credential>>>,
}

/// What is asked of a registry.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) to: To<'a>,
    pub(crate) scope: &'a Scope,
    pub(crate) headers: &'a [(&'static str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// Where a call goes.
#[derive(Clone, Copy)]
pub(crate) enum To<'a> {
    /// Below the registry's root.
    Path(&'a str),
    /// Where the registry said.
    Url(&'a Url),
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, to: To<'a>, scope: &'a Scope) -> Self {
        Self { method, to, scope, headers: &[], body: &[] }
    }

    pub(crate) fn get(path: &'a str, scope: &'a Scope) -> Self {
        Self::new(Method::Get, To::Path(path), scope)
    }

    pub(crate) fn headers(self, headers: &'a [(&'static str, &'a str)]) -> Self {
        Self { headers, ..self }
    }

    pub(crate) fn body(self, body: &'a [u8]) -> Self {
        Self { body, ..self }
    }
}

/// An answer whose body was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Response,
    pub(crate) bytes: Vec<u8>,
    /// Where it came from, redirects followed.
    pub(crate) url: Url,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }
}

impl Client {
    /// A client of the registry that a repository is in.
    pub(crate) fn new(repository: &Reference, access: &Arc<Access>, ctx: &Context) -> Self {
        let idle = Duration::from_secs(ctx.limits.idle);
        let settings = http::Settings { idle_timeout: idle, ..access.http.clone() };
        Self {
            http: http::Client::new(settings, &ctx.cancel),
            repository: repository.clone(),
            access: Arc::clone(access),
            cancel: ctx.cancel.clone(),
            idle,
            learned: Arc::default(),
        }
    }

    /// The same client for somebody who stops waiting when `cancel` says so.
    pub(crate) fn until(&self, cancel: &Cancel) -> Self {
        Self {
            http: self.http.clone(),
            repository: self.repository.clone(),
            access: Arc::clone(&self.access),
            cancel: cancel.clone(),
            idle: self.idle,
            learned: Arc::clone(&self.learned),
        }
    }

    /// The registry, as references name it.
    pub(crate) fn registry(&self) -> &str {
        self.repository.domain()
    }

    /// The repository that it was made for.
    pub(crate) fn repository(&self) -> &Reference {
        &self.repository
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(&self.cancel, self.idle)
    }

    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Makes a call, and again while the registry is busy or the connection breaks. Of an answer of 2xx at most `most` bytes are taken.
    pub(crate) fn ask(&self, call: &Call<'_>, most: u64) -> Result<Answer> {
        // That the registry cannot be reached was tried often enough, and is no failure of this call.
        self.base()?;
        self.patiently(|| self.once(call).and_then(|(response, url)| read(response, url, most)).map(|answer| self.unless_busy(answer)))
    }

    /// Does it again while it may pass, or the connection breaks.
    pub(super) fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<Attempt<T>>) -> Result<T> {
        let mut backoff = self.backoff();
        loop {
            let (error, asked) = match attempt() {
                Ok(Attempt::Done(done)) => return Ok(done),
                Ok(Attempt::Lost(error, asked)) => (error, asked),
                Err(error) if error.kind() == ErrorKind::Unavailable => (error, None),
                Err(error) => return Err(error),
            };
            backoff.wait(error, asked)?;
        }
    }

    fn unless_busy(&self, answer: Answer) -> Attempt<Answer> {
        if is_busy(answer.status()) { self.lost(&answer) } else { Attempt::Done(answer) }
    }

    /// A refusal that may pass.
    pub(super) fn lost<T>(&self, answer: &Answer) -> Attempt<T> {
        Attempt::Lost(self.refusal(answer), asked_to_wait(&answer.head))
    }

    /// Makes a call once. Credentials go to the registry and to nobody else, whatever redirects and locations say.
    pub(crate) fn once(&self, call: &Call<'_>) -> Result<(Response, Url)> {
        let base = self.base()?;
        let mut url = match call.to {
            To::Path(path) => base.with_path(path)?,
            To::Url(url) => url.clone(),
        };
        // Who was sent elsewhere comes back as nobody: that other host chose the way.
        let mut ours = true;
        for _ in 0..=REDIRECTS {
            self.allowed(&url)?;
            ours &= url.origin() == base.origin();
            let response = self.authorized(call, &url, ours.then_some(&base))?;
            let location = match response.status {
                301 | 302 | 303 | 307 | 308 if matches!(call.method, Method::Get | Method::Head) => response.header("location"),
                _ => None,
            };
            let Some(location) = location else { return Ok((response, url)) };
            url = url.join(location).context(|| format!("a redirect of {}", url.authority()))?;
        }
        Err(Error::invalid(format_args!("it redirects more than {REDIRECTS} times")).frame(base.authority()))
    }

    /// Sends a call to one place; to the registry itself, at `base`, with credentials. A token that it refuses is replaced once.
    fn authorized(&self, call: &Call<'_>, url: &Url, base: Option<&Url>) -> Result<Response> {
        for fresh in [false, true] {
            let mut request = Request::new(call.method, url);
            if let Some(base) = base
                && let Some(proof) = self.authorization(call.scope, base)?
            {
                request = request.header("authorization", proof);
            }
            for (name, value) in call.headers {
                request = request.header(name, *value);
            }
            if !call.body.is_empty() {
                request = request.body(Body::Bytes(call.body));
            }
            let response = self.send(request)?;
            if response.status != 401 || base.is_none() || fresh || !self.learn(&response, call.scope) {
                return Ok(response);
            }
        }
        Err(Error::invalid("a request was answered neither the first nor the second time"))
    }

    /// Sends a stream once, to where the registry said that it wants it. Says whether it was refused by a 401 after
    /// which another token may be taken.
    pub(crate) fn stream(
        &self,
        method: Method,
        url: &Url,
        scope: &Scope,
        reader: &mut (dyn std::io::Read + Send),
        size: u64,
    ) -> Result<(Answer, bool)> {
        let base = self.base()?;
        self.allowed(url)?;
        let ours = url.origin() == base.origin();
        let mut request = Request::new(method, url).header("content-type", "application/octet-stream");
        if ours && let Some(proof) = self.authorization(scope, &base)? {
            request = request.header("authorization", proof);
        }
        let response = self.send(request.body(Body::Stream { reader, size: Some(size) }))?;
        let learned = response.status == 401 && ours && self.learn(&response, scope);
        Ok((read(response, url.clone(), REFUSAL)?, learned))
    }

    fn send<'a>(&'a self, request: Request<'a>) -> Result<Response> {
        // A registry puts away what it was given, which takes its time.
        let patience = if request.method == Method::Put { 2 } else { 1 };
        self.http.send(request.cancel(&self.cancel).patience(patience))
    }

    /// Whether a place may be talked to: over TLS, on this machine, or where the caller takes any risk.
    fn allowed(&self, url: &Url) -> Result<()> {
        if url.scheme() == Scheme::Https || self.access.insecure || is_local(url.host()) {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Denied, "it leads to a server without TLS").frame(url.authority());
        Err(error.hint("--insecure allows that"))
    }

    /// Where the registry is reached: found out with its first answer, which also says how it wants to be told who asks.
    pub(super) fn base(&self) -> Result<Url> {
        let mut base = lock(&self.learned.base);
        if let Some(base) = &*base {
            return Ok(base.clone());
        }
        let host = if self.registry() == "docker.io" { "registry-1.docker.io" } else { self.registry() };
        let local = is_local(Url::new(Scheme::Https, host, "/v2/")?.host());
        let schemes: &[Scheme] =
            match (self.access.insecure, local && self.access.http.tls.ca.is_none() && self.access.http.tls.identity.is_none()) {
                (true, false) => &[Scheme::Https, Scheme::Http],
                (_, true) => &[Scheme::Http, Scheme::Https],
                (false, false) => &[Scheme::Https],
            };
        let found = self.first_answer(host, schemes)?;
        *base = Some(found.clone());
        Ok(found)
    }

    fn first_answer(&self, host: &str, schemes: &[Scheme]) -> Result<Url> {
        let mut backoff = self.backoff();
        loop {
            let mut failure: Option<(Error, Option<Duration>)> = None;
            for scheme in schemes {
                let url = Url::new(*scheme, host, "/v2/")?;
                let tried = self.send(Request::get(&url)).and_then(|response| read(response, url.clone(), REFUSAL));
                match tried {
                    Ok(answer) if is_busy(answer.status()) => {
                        failure = Some((self.refusal(&answer), asked_to_wait(&answer.head)));
                        break;
                    }
                    // Go's servers say so to whoever speaks plainly to a port of TLS.
                    Ok(answer) if answer.status() == 400 && answer.bytes.windows(5).any(|word| word == b"HTTPS") => {
                        failure = Some((self.refusal(&answer), None));
                        continue;
                    }
                    Ok(answer) => {
                        lock(&self.learned.known).challenge = Challenge::parse(answer.head.headers("www-authenticate"));
                        return Ok(url);
                    }
                    Err(error) if error.kind() == ErrorKind::Cancelled || error.is_silence() => return Err(error),
                    Err(error) if failure.as_ref().is_none_or(|(known, _)| says(&error) > says(known)) => failure = Some((error, None)),
                    Err(_) => {}
                }
            }
            let (error, asked) = failure.unwrap_or_else(|| (Error::invalid("no way to reach it is known"), None));
            if error.kind() != ErrorKind::Unavailable {
                return Err(error);
            }
            backoff.wait(error, asked)?;
        }
    }

    /// Who asks, in the words that the registry wants.
    fn authorization(&self, scope: &Scope, base: &Url) -> Result<Option<String>> {
        // Others who need a token wait here for the one that is fetched.
        let mut known = lock(&self.learned.known);
        let (realm, service) = match known.challenge.clone() {
            None => return Ok(None),
            Some(Challenge::Basic) => return Ok(self.credential()?.as_ref().and_then(basic)),
            Some(Challenge::Bearer { realm, service }) => (realm, service),
        };
        if let Some(token) = known.token(scope) {
            return Ok(Some(token));
        }
        let credential = self.credential()?;
        let request = TokenRequest::new(&realm, service.as_deref(), scope, credential.as_ref());
        let answer = self.fetch_token(&request, base).map_err(tried).context(|| format!("asking for a token of {}", self.registry()))?;
        if !known.keep(scope, &answer) {
            return Err(Error::invalid("the answer has no token").frame(format_args!("asking for a token of {}", self.registry())));
        }
        Ok(known.token(scope))
    }

    fn fetch_token(&self, request: &TokenRequest, base: &Url) -> Result<Vec<u8>> {
        let url = base.join(&request.url)?;
        self.allowed(&url)?;
        let answer = self.patiently(|| {
            let mut sent = Request::get(&url);
            if let Some(form) = &request.form {
                sent = Request::new(Method::Post, &url).header("content-type", "application/x-www-form-urlencoded");
                sent = sent.body(Body::Bytes(form.as_bytes()));
            }
            if let Some(proof) = &request.authorization {
                sent = sent.header("authorization", proof.as_str());
            }
            self.send(sent).and_then(|response| read(response, url.clone(), TOKEN)).map(|answer| self.unless_busy(answer))
        })?;
        match answer.status() {
            200 => Ok(answer.bytes),
            401 => Err(self.not_logged_in(self.refusal(&answer))),
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Learns from an answer of 401 how to ask, and says whether asking again makes sense.
    fn learn(&self, response: &Response, scope: &Scope) -> bool {
        let mut known = lock(&self.learned.known);
        let before = known.challenge.clone();
        let Some(challenge) = Challenge::parse(response.headers("www-authenticate")) else { return false };
        known.forget(scope);
        let same = before.as_ref() == Some(&challenge);
        known.challenge = Some(challenge.clone());
        // A password does not become right by being sent again; a token may have ended.
        !(same && challenge == Challenge::Basic)
    }

    fn credential(&self) -> Result<Option<Credential>> {
        let mut found = lock(&self.learned.credential);
        if found.is_none() {
            let looked_up = match &self.access.credential {
                Some(given) => Some(given.clone()),
                None => self.access.files.find(&self.repository, &self.cancel)?,
            };
            *found = Some(looked_up);
        }
        Ok(found.clone().flatten())
    }

    /// A message of the other side, which may repeat what it was sent, without what nobody else may know.
    fn without_secrets<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(credential) = lock(&self.learned.credential).clone().flatten() else { return bytes.into() };
        let proof = basic(&credential).unwrap_or_default();
        let secret = match &credential {
            Credential::Password { password, .. } => password,
            Credential::IdentityToken(token) => token,
        };
        let secrets = [proof.trim_start_matches("Basic "), secret].into_iter().filter(|secret| !secret.is_empty());
        match std::str::from_utf8(bytes) {
            Ok(text) => secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "[…]")).into_bytes().into(),
            Err(_) => bytes.into(),
        }
    }

    /// What an answer that is not what was hoped for says.
    pub(crate) fn refusal(&self, answer: &Answer) -> Error {
        let status = answer.status();
        let kind = match status {
            401 | 403 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            405 | 406 | 415 | 501 | 505 => ErrorKind::Unsupported,
            _ if is_busy(status) => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        };
        let said = message(&self.without_secrets(&answer.bytes)).map(|said| format!(": {said}")).unwrap_or_default();
        let reason = StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .map(|reason| format!(" {reason}"))
            .unwrap_or_default();
        let error = Error::new(kind, format!("{} answers {status}{reason}{said}", answer.url.authority()));
        // Elsewhere nobody was told who asks.
        let is_ours = || lock(&self.learned.base).as_ref().is_none_or(|base| base.origin() == answer.url.origin());
        if status == 401 && is_ours() { self.not_logged_in(error) } else { error }
    }

    /// Says what helps whoever is not known to the registry.
    fn not_logged_in(&self, error: Error) -> Error {
        match lock(&self.learned.credential).as_ref().is_some_and(Option::is_some) {
            true => error.hint(format_args!("the credentials for {0} are refused; longshore login {0} takes others", self.registry())),
            false => error.hint(format_args!("longshore login {}, or --creds USER:PASSWORD", self.registry())),
        }
    }
}

/// A failure after which nothing is tried again: it was.
fn tried(error: Error) -> Error {
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    let known = Error::new(ErrorKind::Denied, error.to_string());
    match error.hint_text() {
        Some(hint) => known.hint(hint),
        None => known,
    }
}

/// How much a failure says of a registry that was tried with TLS and without: that its certificate is not believed, more than that there is
/// no connection, and that more than that the other side does not speak like that.
fn says(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Denied => 2,
        ErrorKind::Unavailable => 1,
        _ => 0,
    }
}

/// Reads as much of a refusal as a message may have.
pub(super) fn refused(mut head: Response, url: Url) -> Answer {
    let mut bytes = Vec::new();
    // That it breaks off changes nothing.
    let _ = (&mut head.body).take(REFUSAL).read_to_end(&mut bytes);
    Answer { head, bytes, url }
}

/// Reads the body of an answer: all of it where it is good, and otherwise as much as a message may have.
fn read(mut head: Response, url: Url, most: u64) -> Result<Answer> {
    if !(200..300).contains(&head.status) {
        return Ok(refused(head, url));
    }
    let mut bytes = Vec::new();
    let too_long = || Error::limit(format_args!("the answer has more than {most} bytes")).frame(url.authority());
    if head.content_length.is_some_and(|length| length > most) {
        return Err(too_long());
    }
    (&mut head.body).take(most + 1).read_to_end(&mut bytes).map_err(Error::io)?;
    if bytes.len() as u64 > most {
        return Err(too_long());
    }
    Ok(Answer { head, bytes, url })
}

/// What a registry says: `{"errors":[{"code":…,"message":…,"detail":…}]}`, the `details` or `message` of a token service, or plain text.
fn message(body: &[u8]) -> Option<String> {
    let text = |object: &Object, key: &str| object.get(key).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let shown = |text: &str| {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut: String = line.chars().take(SHOWN).collect();
        (!cut.is_empty()).then_some(if cut.len() < line.len() { format!("{cut} …") } else { cut })
    };
    if let Ok(object) = Object::parse(body) {
        let errors =
            object.get("errors").and_then(|raw| serde_json::from_str::<Vec<serde_json::Value>>(raw.get()).ok()).unwrap_or_default();
        let errors: Vec<String> = errors
            .iter()
            .filter_map(|error| {
                let field = |key: &str| error.get(key).and_then(|value| value.as_str()).filter(|text| !text.is_empty());
                let said = field("message").or(field("code"))?;
                Some(field("detail").map_or_else(|| said.to_owned(), |detail| format!("{said} ({detail})")))
            })
            .collect();
        if !errors.is_empty() {
            return shown(&errors.join("; "));
        }
        let said = ["details", "message", "error_description", "error"].iter().find_map(|key| text(&object, key));
        return said.and_then(|said| shown(&said));
    }
    let plain = std::str::from_utf8(body).ok().filter(|text| !text.trim_start().starts_with('<'))?;
    shown(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_registries() {
        for (body, expected) in [
            (r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#, Some("manifest unknown")),
            (r#"{"errors":[{"code":"DENIED"},{"message":"two","detail":"why"}]}"#, Some("DENIED; two (why)")),
            (r#"{"details":"incorrect username or password"}"#, Some("incorrect username or password")),
            (r#"{"errors":[]}"#, None),
            ("<html><body>Bad Gateway</body></html>", None),
            ("  plain\n text ", Some("plain text")),
            ("", None),
        ] {
            assert_eq!(message(body.as_bytes()).as_deref(), expected, "{body}");
        }
        assert_eq!(message("x".repeat(1000).as_bytes()).unwrap().chars().count(), SHOWN + 2);
        assert_eq!(message(b"\xff\xfe"), None);
    }

    #[test]
    fn this_machine() {
        for local in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert!(is_local(local), "{local}");
        }
        for other in ["localhost.example.com", "128.0.0.1", "0.0.0.0", "::2", "example.com", ""] {
            assert!(!is_local(other), "{other}");
        }
    }
}

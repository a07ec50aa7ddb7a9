//! Who may do what: nobody asks, Basic, or Bearer with tokens of our own.
//!
//! The token service speaks both dialects: `GET` with Basic, as Docker's token specification has it, and `POST` with a form, as OAuth 2 has
//! it (Distribution, `docs/spec/auth/oauth.md`), for identity tokens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::server::{Request, Response};

/// How a registry wants to be convinced.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everybody may do everything.
    #[default]
    None,
    /// User and password with each request.
    Basic,
    /// A token of a token service.
    Bearer(Bearer),
}

/// What the token service is like.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// Whether it listens on another port.
    pub elsewhere: bool,
    /// Whether everybody gets tokens to pull.
    pub anonymous: bool,
    /// What `expires_in` says, in seconds; a token is refused after that time.
    pub expires_in: Option<u64>,
    /// How many requests a token is good for.
    pub uses: Option<usize>,
    /// Whether the token is called `access_token` alone.
    pub access_token: bool,
    /// Whether it takes `POST`; without, 405 as older services say.
    pub oauth2: bool,
}

impl Default for Bearer {
    fn default() -> Self {
        Self { elsewhere: false, anonymous: false, expires_in: Some(300), uses: None, access_token: false, oauth2: true }
    }
}

/// The identity token that a `POST` with the right password gets, and that is taken in its place.
pub const IDENTITY: &str = "identity-of-the-user";

/// Users, and tokens that were given.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) auth: Auth,
    pub(super) users: BTreeMap<String, String>,
    tokens: BTreeMap<String, Token>,
    given: usize,
}

#[derive(Debug)]
struct Token {
    scopes: Vec<Scope>,
    until: Instant,
    uses: usize,
}

/// A repository and what may be done with it, `pull` or `push`.
pub(super) type Scope = (String, &'static str);

impl Gate {
    /// How many tokens were given.
    pub(super) fn given(&self) -> usize {
        self.given
    }

    /// Refuses all tokens given so far.
    pub(super) fn revoke(&mut self) {
        self.tokens.clear();
    }

    /// Why a request may not do what it wants; `realm` is the address of the token service.
    pub(super) fn refuse(&mut self, request: &Request, wanted: &[Scope], realm: &str) -> Option<Response> {
        let stated = request.header("authorization").unwrap_or_default().to_owned();
        match &self.auth {
            Auth::None => None,
            Auth::Basic => {
                let known = stated.strip_prefix("Basic ").is_some_and(|text| self.knows(text));
                (!known).then(|| unauthorized(r#"Basic realm="the testkit""#.to_owned()))
            }
            Auth::Bearer(_) => {
                let problem = match stated.strip_prefix("Bearer ") {
                    None => Some(""),
                    Some(token) => self.refuse_token(token, wanted),
                };
                problem.map(|problem| {
                    let scope = if wanted.is_empty() { String::new() } else { format!(r#",scope="{}""#, show(wanted)) };
                    let error = if problem.is_empty() { String::new() } else { format!(r#",error="{problem}""#) };
                    unauthorized(format!(r#"Bearer realm="{realm}",service="testkit"{scope}{error}"#))
                })
            }
        }
    }

    fn refuse_token(&mut self, token: &str, wanted: &[Scope]) -> Option<&'static str> {
        let Some(known) = self.tokens.get_mut(token) else { return Some("invalid_token") };
        if known.until < Instant::now() || known.uses == 0 {
            return Some("invalid_token");
        }
        known.uses = known.uses.saturating_sub(1);
        let missing = wanted.iter().any(|scope| !known.scopes.contains(scope));
        missing.then_some("insufficient_scope")
    }

    fn knows(&self, basic: &str) -> bool {
        let text = unbase64(basic).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        text.split_once(':').is_some_and(|(user, password)| self.is_right(user, password))
    }

    fn is_right(&self, user: &str, password: &str) -> bool {
        self.users.get(user).is_some_and(|right| right == password)
    }

    /// The token service.
    pub(super) fn token(&mut self, request: &Request, body: &[u8]) -> Response {
        let Auth::Bearer(how) = self.auth.clone() else { return Response::error(404, "UNKNOWN", "there is no token service") };
        let form = parse_query(&String::from_utf8_lossy(body));
        let (asked, known) = if request.method == "POST" {
            if !how.oauth2 {
                return Response::error(405, "UNSUPPORTED", "the token service takes GET");
            }
            let field = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
            let known = match field("grant_type") {
                "password" => self.is_right(field("username"), field("password")),
                "refresh_token" => field("refresh_token") == IDENTITY,
                _ => false,
            };
            (form, Some(known))
        } else {
            let known = request.header("authorization").map(|stated| stated.strip_prefix("Basic ").is_some_and(|text| self.knows(text)));
            (request.query.clone(), known)
        };
        if known == Some(false) || (known.is_none() && !how.anonymous) {
            let mut refused = Response::error(401, "UNAUTHORIZED", "incorrect username or password");
            refused.set("WWW-Authenticate", r#"Basic realm="the token service""#.to_owned());
            return refused;
        }
        let scopes = asked.iter().filter(|(key, _)| key == "scope").flat_map(|(_, value)| parse_scopes(value));
        let scopes: Vec<Scope> = scopes.filter(|(_, action)| known == Some(true) || *action == "pull").collect();
        self.given += 1;
        // As long as tokens of the world are: a few kilobytes.
        let token = format!("{}.{}", self.given, "t".repeat(2000));
        let until = Instant::now() + Duration::from_secs(how.expires_in.unwrap_or(60));
        self.tokens.insert(token.clone(), Token { scopes, until, uses: how.uses.unwrap_or(usize::MAX) });
        let mut answer = json!({ "access_token": token });
        if !how.access_token && request.method != "POST" {
            answer["token"] = token.into();
        }
        if let Some(seconds) = how.expires_in {
            answer["expires_in"] = seconds.into();
        }
        if request.method == "POST" {
            answer["refresh_token"] = IDENTITY.into();
        }
        Response::json(200, "application/json", answer.to_string())
    }
}

fn unauthorized(challenge: String) -> Response {
    let mut response = Response::error(401, "UNAUTHORIZED", "authentication required");
    response.set("WWW-Authenticate", challenge);
    response
}

/// The scopes as a challenge states them: `repository:app:pull,push repository:base:pull`.
fn show(scopes: &[Scope]) -> String {
    let mut shown: Vec<(String, String)> = Vec::new();
    for (name, action) in scopes {
        match shown.iter_mut().find(|(known, _)| known == name) {
            Some((_, actions)) => *actions = format!("{actions},{action}"),
            None => shown.push((name.clone(), (*action).to_owned())),
        }
    }
    shown.iter().map(|(name, actions)| format!("repository:{name}:{actions}")).collect::<Vec<_>>().join(" ")
}

fn parse_scopes(text: &str) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for scope in text.split(' ') {
        let Some((name, actions)) = scope.strip_prefix("repository:").and_then(|rest| rest.rsplit_once(':')) else { continue };
        let actions: Vec<&str> = actions.split(',').collect();
        scopes.extend(
            ["pull", "push"].into_iter().filter(|action| actions.iter().any(|a| a == action || *a == "*")).map(|a| (name.to_owned(), a)),
        );
    }
    scopes
}

/// The pairs of a query or a form, decoded.
pub(super) fn parse_query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(key), unescape(value))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| u8::from_str_radix(two, 16).ok());
        let (byte, used) = match (first, code) {
            (b'%', Some(code)) => (code, 2),
            (b'+', _) => (b' ', 0),
            (byte, _) => (*byte, 0),
        };
        bytes.push(byte);
        rest = &tail[used..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes as base64, with padding.
pub fn base64(bytes: &[u8]) -> String {
    let digit = |bits: u32, at: u32| char::from(BASE64[(bits >> at & 63) as usize]);
    bytes
        .chunks(3)
        .map(|chunk| {
            let bits = chunk.iter().enumerate().fold(0, |bits, (at, &byte)| bits | u32::from(byte) << (16 - 8 * at));
            let mut four: String = [18, 12, 6, 0].into_iter().map(|at| digit(bits, at)).collect();
            four.truncate(chunk.len() + 1);
            format!("{four:=<4}")
        })
        .collect()
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for byte in text.trim_end_matches('=').bytes() {
        let value = BASE64.iter().position(|&known| known == byte)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_goes_both_ways() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("user:secret", "dXNlcjpzZWNyZXQ=")] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn scopes_and_queries_are_read() {
        let scopes = parse_scopes("repository:a/b:pull,push repository:c:pull registry:catalog:*");
        assert_eq!(scopes, [("a/b".to_owned(), "pull"), ("a/b".to_owned(), "push"), ("c".to_owned(), "pull")]);
        assert_eq!(show(&scopes), "repository:a/b:pull,push repository:c:pull");
        assert_eq!(parse_query("a=b%3Ac+d&e"), [("a".to_owned(), "b:c d".to_owned()), ("e".to_owned(), String::new())]);
    }
}

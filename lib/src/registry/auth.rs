//! Proving to a registry who the caller is: challenges, Basic, and tokens with their scopes and times.
//!
//! Follows RFC 7235 for challenges, the [token specification] of distribution, and its [OAuth 2] variant for identity tokens.
//!
//! [token specification]: https://distribution.github.io/distribution/spec/auth/token/
//! [OAuth 2]: https://distribution.github.io/distribution/spec/auth/oauth/

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Credential;
use crate::spec::Object;

/// How long a token is good for when nobody says: "For compatibility with older clients, a token should never be returned with less than 60
/// seconds to live."
const TOKEN_LIFE: u64 = 60;

/// A token is not used any more this long before its end.
const SPARE: Duration = Duration::from_secs(10);

/// What is to be done, and to which repositories.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Scope(Vec<String>);

impl Scope {
    /// Reading a repository.
    pub(crate) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// Reading and writing a repository.
    pub(crate) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// The same, and reading another.
    pub(crate) fn and_pull(mut self, repository: &str) -> Self {
        self.0.extend(Self::pull(repository).0);
        self
    }
}

/// How a registry wants to be told who the caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The best of the challenges of an answer's `WWW-Authenticate` headers.
    pub(crate) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut found = None;
        for (scheme, parameters) in headers.into_iter().flat_map(challenges) {
            let parameter = |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Self::Bearer { realm, service: parameter("service") });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                found = Some(Self::Basic);
            }
        }
        found
    }
}

type Parameters = Vec<(String, String)>;

/// Splits `Bearer realm="…",service="…", Basic realm="…"`: a word that no `=` follows begins another challenge.
fn challenges(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix('=') else {
            found.push((word.to_owned(), Parameters::new()));
            rest = after.trim_start_matches([' ', ',', '\t']);
            continue;
        };
        let value = value.trim_start_matches([' ', '\t']);
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find([' ', ',', '\t']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((word.to_owned(), value));
        }
        rest = after.trim_start_matches([' ', ',', '\t']);
    }
    found
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter => value.push(letter),
        }
    }
    (value, "")
}

/// A request for a token: where, and either a query or a form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenRequest {
    pub(crate) url: String,
    pub(crate) authorization: Option<String>,
    /// The form of OAuth 2, which is posted.
    pub(crate) form: Option<String>,
}

impl TokenRequest {
    pub(crate) fn new(realm: &str, service: Option<&str>, scope: &Scope, credential: Option<&Credential>) -> Self {
        // A fragment stays with whoever names it (RFC 9110, 4.2.5); behind one there would be no query.
        let realm = realm.split('#').next().unwrap_or(realm);
        let mut parameters: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        if let Some(Credential::IdentityToken(token)) = credential {
            let scopes = scope.0.join(" ");
            parameters.extend([("client_id", "longshore"), ("grant_type", "refresh_token"), ("refresh_token", token.as_str())]);
            parameters.push(("scope", &scopes));
            return Self { url: realm.to_owned(), authorization: None, form: Some(encode(&parameters)) };
        }
        parameters.extend(scope.0.iter().map(|scope| ("scope", scope.as_str())));
        let query = encode(&parameters);
        let joint = if realm.contains('?') { '&' } else { '?' };
        let url = if query.is_empty() { realm.to_owned() } else { format!("{realm}{joint}{query}") };
        Self { url, authorization: credential.and_then(basic), form: None }
    }
}

/// `Basic …` for a password.
pub(crate) fn basic(credential: &Credential) -> Option<String> {
    match credential {
        Credential::Password { user, password } => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
        Credential::IdentityToken(_) => None,
    }
}

/// `a=b&c=d`, with everything escaped that could mean something.
pub(crate) fn encode(parameters: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in parameters {
        let joint = if text.is_empty() { "" } else { "&" };
        write!(text, "{joint}{key}=").expect("writing to a String cannot fail");
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                _ => write!(text, "%{byte:02X}").expect("writing to a String cannot fail"),
            }
        }
    }
    text
}

/// A token and when it ends.
#[derive(Clone)]
struct Token {
    value: String,
    end: Instant,
}

/// What a registry said of itself, and the tokens that are good.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) challenge: Option<Challenge>,
    tokens: HashMap<Scope, Token>,
}

impl Known {
    /// The `Authorization` of a token that is still good.
    pub(crate) fn token(&self, scope: &Scope) -> Option<String> {
        let token = self.tokens.get(scope).filter(|token| token.end > Instant::now())?;
        Some(format!("Bearer {}", token.value))
    }

    /// Forgets a token that was refused.
    pub(crate) fn forget(&mut self, scope: &Scope) {
        self.tokens.remove(scope);
    }

    /// Keeps the token of an answer, `{"token":…,"access_token":…,"expires_in":…}`, and says whether there was one.
    pub(crate) fn keep(&mut self, scope: &Scope, answer: &[u8]) -> bool {
        let Ok(object) = Object::parse(answer) else { return false };
        let text = |key: &str| object.get(key).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).filter(|text| is_token(text));
        let Some(value) = text("token").or_else(|| text("access_token")) else { return false };
        let seconds = object.get("expires_in").and_then(|raw| raw.get().parse().ok()).unwrap_or(TOKEN_LIFE);
        let life = Duration::from_secs(seconds.min(24 * 3600)).max(SPARE * 2) - SPARE;
        self.tokens.insert(scope.clone(), Token { value, end: Instant::now() + life });
        true
    }
}

/// What a header may carry.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn challenges_are_understood() {
        for (headers, expected) in [
            (vec![r#"Basic realm="x""#], Some(Challenge::Basic)),
            (vec![r#"basic"#], Some(Challenge::Basic)),
            (vec![r#"Bearer realm="https://a/t",service="s",scope="repository:a:pull,push""#], bearer("https://a/t", Some("s"))),
            (vec![r#"Bearer realm = "https://a/t" , error="invalid_token""#], bearer("https://a/t", None)),
            (vec![r#"Basic realm="a, b=c", Bearer realm=https://a/t"#], bearer("https://a/t", None)),
            (vec!["Negotiate", r#"Basic realm="x""#, r#"BEARER service="s\"q",realm="r""#], bearer("r", Some("s\"q"))),
            (vec!["Bearer service=x"], None),
            (vec!["Digest x=y"], None),
            (vec!["", ",,", "=", "\"", "Bearer realm=\"no end"], bearer("no end", None)),
            (vec![], None),
        ] {
            assert_eq!(Challenge::parse(headers.clone()), expected, "{headers:?}");
        }
    }

    #[test]
    fn requests_for_tokens() {
        let scope = Scope::push("a/b").and_pull("c");
        let password = Credential::Password { user: "u".to_owned(), password: "p w".to_owned() };
        let request = TokenRequest::new("https://auth/t", Some("a b"), &scope, Some(&password));
        assert_eq!(request.url, "https://auth/t?service=a%20b&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull");
        assert_eq!((request.authorization.as_deref(), request.form), (Some("Basic dTpwIHc="), None));
        let request = TokenRequest::new("https://auth/t#x", None, &Scope::pull("a"), None);
        assert_eq!(request.url, "https://auth/t?scope=repository%3Aa%3Apull");
        let request = TokenRequest::new("https://auth/t?x=y", None, &Scope::pull("a"), None);
        assert_eq!((request.url.as_str(), request.authorization), ("https://auth/t?x=y&scope=repository%3Aa%3Apull", None));
        let request = TokenRequest::new("https://auth/t", Some("s"), &scope, Some(&Credential::IdentityToken("t&".to_owned())));
        assert_eq!((request.url.as_str(), &request.authorization), ("https://auth/t", &None));
        assert_eq!(
            request.form.unwrap(),
            "service=s&client_id=longshore&grant_type=refresh_token&refresh_token=t%26&scope=repository%3Aa%2Fb%3Apull%2Cpush%20repository%3Ac%3Apull"
        );
    }

    #[test]
    fn tokens_end() {
        let (mut known, scope) = (Known::default(), Scope::pull("a"));
        for nothing in ["", "[]", "{}", r#"{"token":""}"#, r#"{"token":7}"#, r#"{"token":"a\nb"}"#] {
            assert!(!known.keep(&scope, nothing.as_bytes()), "{nothing}");
        }
        for (answer, token) in
            [(r#"{"token":"a"}"#, "a"), (r#"{"access_token":"b","expires_in":1}"#, "b"), (r#"{"token":"c","access_token":"d"}"#, "c")]
        {
            assert!(known.keep(&scope, answer.as_bytes()));
            assert_eq!(known.token(&scope), Some(format!("Bearer {token}")));
        }
        assert_eq!(known.token(&Scope::push("a")), None);
        known.tokens.get_mut(&scope).unwrap().end = Instant::now();
        assert_eq!(known.token(&scope), None);
        assert!(known.keep(&scope, br#"{"token":"a","expires_in":18446744073709551615}"#));
        known.forget(&scope);
        assert_eq!(known.token(&scope), None);
    }
}

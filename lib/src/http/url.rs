//! Addresses of the web, as far as registries and engines need them.
//!
//! What is kept is what goes over the wire: no user names, no fragments, nothing that could end a line of a request. An address may come from
//! a registry (`Location`, `realm`), so that it is as untrusted as any input.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The longest address that is taken. Signed addresses of stores have some thousand bytes.
const MAX: usize = 16 << 10;

/// The two ways to speak HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// Its name, as addresses have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An absolute `http` or `https` address without user name and fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    /// In lower case; an IPv6 address has its brackets.
    host: String,
    port: u16,
    /// Begins with `/`, and has printable ASCII only.
    path_and_query: String,
}

impl Url {
    /// Puts an address together from what it is made of: `host` may have a port, `path_and_query` begins with `/`.
    ///
    /// # Errors
    /// When a part is not what an address may have.
    pub fn new(scheme: Scheme, host: &str, path_and_query: &str) -> Result<Self> {
        Self::parse(&format!("{}://{host}{path_and_query}", scheme.name()))
    }

    /// Parses an absolute address.
    ///
    /// # Errors
    /// When it is none, of another scheme, too long, or has control characters or a user name in it.
    pub fn parse(text: &str) -> Result<Self> {
        bounded(text)?;
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong(text, "expected http:// or https:// and a host"))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(wrong(text, "expected http:// or https://")),
        };
        Self::after_scheme(scheme, rest).map_err(|what| wrong(text, what))
    }

    /// The address that a `Location` header names in an answer to this one: absolute, `//host/path`, `/path`, `?query` or relative.
    ///
    /// # Errors
    /// As with [`parse`](Self::parse).
    pub fn join(&self, location: &str) -> Result<Self> {
        let location = location.trim();
        bounded(location)?;
        if has_scheme(location) {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::after_scheme(self.scheme, rest).map_err(|what| wrong(location, what));
        }
        let (own_path, _) = split(&self.path_and_query);
        let (path, query) = split(without_fragment(location));
        let path = match path {
            "" => own_path.to_owned(),
            absolute if absolute.starts_with('/') => without_dots(absolute),
            relative => without_dots(&format!("{}/{relative}", own_path.rsplit_once('/').map_or("", |(folder, _)| folder))),
        };
        Ok(Self { path_and_query: printable(&format!("{path}{query}")), ..self.clone() })
    }

    /// The same place with another path and query, which begins with `/`.
    ///
    /// # Errors
    /// As with [`parse`](Self::parse).
    pub fn with_path(&self, path_and_query: &str) -> Result<Self> {
        Self::new(self.scheme, &self.authority(), path_and_query)
    }

    fn after_scheme(scheme: Scheme, rest: &str) -> Result<Self, &'static str> {
        let rest = without_fragment(rest);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a user name in an address is not taken");
        }
        let (host, port) = host_and_port(authority)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path_and_query = printable(&format!("{slash}{path}"));
        Ok(Self { scheme, host, port: port.unwrap_or(scheme.default_port()), path_and_query })
    }

    /// How it is spoken.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host in lower case; an IPv6 address has its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where the address does not say it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// Host, and the port where it is not that of the scheme.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Scheme, host and port: whoever gets credentials of one origin gives them to no other.
    pub fn origin(&self) -> String {
        format!("{}://{}:{}", self.scheme.name(), self.host, self.port)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority(), self.path_and_query)
    }
}

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// Takes `host`, `host:port`, `[v6]` and `[v6]:port` apart.
pub(super) fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("a [ without its ]")?;
            let address: Ipv6Addr = address.parse().map_err(|_| "what is in brackets is no IPv6 address")?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("text after the ]")?) };
            (format!("[{address}]"), port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (authority.to_ascii_lowercase(), None),
        },
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !host.starts_with('[') && (host.is_empty() || host.len() > 253 || !host.bytes().all(known)) {
        return Err("it has no host, or one that is no name");
    }
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>()) {
        Some(Ok(port)) if port > 0 => Ok(port),
        _ => Err("its port is no number from 1 to 65535"),
    };
    // "host:" is allowed, and means no port (RFC 3986, 3.2.3).
    Ok((host, port.filter(|text| !text.is_empty()).map(number).transpose()?))
}

fn bounded(text: &str) -> Result<()> {
    if text.len() > MAX {
        return Err(Error::limit(format_args!("an address has more than {MAX} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong(text, "it has control characters"));
    }
    Ok(())
}

fn wrong(text: &str, what: &str) -> Error {
    Error::invalid(format_args!("{:?} is no address: {what}", without_secrets(text)))
}

/// An address for a message: passwords are in front of the host, and signatures in the query.
fn without_secrets(text: &str) -> String {
    let (address, query) = text.split_once('?').map_or((text, ""), |(address, _)| (address, "?…"));
    let (scheme, rest) = address.split_once("//").map_or(("", address), |(scheme, rest)| (&address[..scheme.len() + 2], rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("…@{host}"));
    format!("{scheme}{host}{path}{query}")
}

/// Whether a scheme begins it (RFC 3986, 3.1): letters and a colon, before any slash.
fn has_scheme(text: &str) -> bool {
    let scheme = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    };
    text.split_once(':').is_some_and(|(name, _)| scheme(name))
}

fn without_fragment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before)
}

/// Path, and query with its `?`.
fn split(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()))
}

/// Resolves `.` and `..` (RFC 3986, 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                if at + 1 == segments.len() {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Escapes what a request line cannot have.
fn printable(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => made.push_str(&format!("%{byte:02X}")),
            0x21..=0x7e => made.push(byte.into()),
            _ => made.push_str(&format!("%{byte:02X}")),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_shows() {
        for (text, shown) in [
            ("http://a", "http://a/"),
            ("HTTPS://Registry.Example:443/v2/?x=1#top", "https://registry.example/v2/?x=1"),
            ("http://a:5000?q", "http://a:5000/?q"),
            ("http://a:/x", "http://a/x"),
            ("https://[::1]:5000/v2/", "https://[::1]:5000/v2/"),
            ("http://[2001:DB8::1]", "http://[2001:db8::1]/"),
            ("http://a/b c/é{}", "http://a/b%20c/%C3%A9%7B%7D"),
            ("http://a/%2f?q=%20&u=http://b/", "http://a/%2f?q=%20&u=http://b/"),
            ("http://127.0.0.1:80", "http://127.0.0.1/"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn refuses() {
        let long = format!("http://a/{}", "x".repeat(MAX));
        for text in [
            "",
            "a",
            "/v2/",
            "ftp://a",
            "http:/a",
            "http://",
            "http:///x",
            "http://a:0",
            "http://a:65536",
            "http://a:-1",
            "http://a:+1",
            "http://a b/",
            "http://[::1",
            "http://[::1]x",
            "http://[::g]",
            "http://u:p@a/",
            "http://a/\r\nX: y",
            "http://a/\0",
            "http://a%41/",
            "http://a:1:2/",
            &long,
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn messages_have_no_secrets() {
        for (text, shown) in [
            ("https://user:pass@word@h/p?X-Sig=secret", "https://…@h/p?…"),
            ("//user:secret@h", "//…@h"),
            ("ftp://h/a@b?", "ftp://h/a@b?…"),
            ("user:secret@h/x", "…@h/x"),
            ("/path", "/path"),
        ] {
            let said = wrong(text, "why").to_string();
            assert_eq!(said, format!("{shown:?} is no address: why"), "{text}");
        }
    }

    #[test]
    fn joins_locations() {
        let base = Url::parse("https://a:5000/v2/app/blobs/uploads/?x=1").unwrap();
        for (location, joined) in [
            ("http://b/x", "http://b/x"),
            ("HTTP://b:80/x", "http://b/x"),
            ("//b/x", "https://b/x"),
            ("/y?z=2", "https://a:5000/y?z=2"),
            ("123?state=a:b", "https://a:5000/v2/app/blobs/uploads/123?state=a:b"),
            ("?y", "https://a:5000/v2/app/blobs/uploads/?y"),
            ("", "https://a:5000/v2/app/blobs/uploads/"),
            ("../../x/./y/..", "https://a:5000/v2/app/x/"),
            ("../../../../../../x", "https://a:5000/x"),
            (" /padded ", "https://a:5000/padded"),
            ("/x#part", "https://a:5000/x"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), joined, "{location}");
        }
        for location in ["ftp://b/", "http://", "//", "//u@b/", "/a\nb", "javascript:x"] {
            assert!(base.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn origins_have_their_port() {
        assert_eq!(Url::parse("https://A/x").unwrap().origin(), "https://a:443");
        assert_eq!(Url::parse("http://[::1]:5000/x").unwrap().origin(), "http://[::1]:5000");
    }
}

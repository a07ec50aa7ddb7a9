//! Which requests go through a proxy: what curl and Go programs read from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
//!
//! The rules are those of Go's `golang.org/x/net/http/httpproxy`, which docker, skopeo and crane follow.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::error::{Error, Result};

use super::url::{Scheme, Url, host_and_port};

/// The proxies of a machine, as its environment names them.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// `HTTP_PROXY`: for addresses that begin with `http://`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`: for addresses that begin with `https://`.
    pub https: Option<String>,
    /// `NO_PROXY`: who is reached without one, separated by commas: names (with all below them), `.suffix`, addresses, networks, each but the
    /// last with a port if wanted, or `*`.
    pub no_proxy: Option<String>,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    /// Where it is; the path says nothing.
    pub(super) url: Url,
    /// The value of `Proxy-Authorization`, which nobody else gets.
    pub(super) authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Proxies {
    /// The proxy for a request to `url`. Nobody reaches this machine through one.
    pub(super) fn of(&self, url: &Url) -> Result<Option<Proxy>> {
        let (name, text) = match url.scheme() {
            Scheme::Http => ("HTTP_PROXY", &self.http),
            Scheme::Https => ("HTTPS_PROXY", &self.https),
        };
        let Some(text) = text.as_deref().map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
        if is_local(url.host()) || excluded(self.no_proxy.as_deref().unwrap_or(""), url) {
            return Ok(None);
        }
        parse(text).map(Some).map_err(|error| error.frame(name))
    }
}

/// `[scheme://][user[:password]@]host[:port]`. Passwords are never shown.
fn parse(text: &str) -> Result<Proxy> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    if !matches!(scheme, "http" | "https") {
        return Err(Error::unsupported(format_args!("a proxy of kind {scheme} is not supported")).hint("http:// and https:// are"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let url = Url::parse(&format!("{scheme}://{host}/"))?;
    let basic = |user: &str| {
        let user = if user.contains(':') { unescaped(user) } else { [&*unescaped(user), b":"].concat() };
        format!("Basic {}", BASE64_STANDARD.encode(user))
    };
    Ok(Proxy { url, authorization: user.map(basic) })
}

/// Resolves `%XX`.
fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut made = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                made.push(value);
                at += 3;
            }
            None => {
                made.push(byte);
                at += 1;
            }
        }
    }
    made
}

/// Whether a host is this machine: `localhost`, 127.0.0.0/8 and ::1.
pub(crate) fn is_local(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|address| address.is_loopback())
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether `NO_PROXY` names the host of `url`.
fn excluded(list: &str, url: &Url) -> bool {
    let ip = address(url.host());
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return ip.is_some_and(|ip| in_network(ip, network, bits));
        }
        if let Ok(named) = entry.parse::<IpAddr>() {
            return ip == Some(named);
        }
        let entry = entry.strip_prefix('*').unwrap_or(&entry);
        let (below, name) = entry.strip_prefix('.').map_or((false, entry), |name| (true, name));
        let Ok((name, port)) = host_and_port(name) else { return false };
        if port.is_some_and(|port| port != url.port()) {
            return false;
        }
        match address(&name) {
            Some(named) => ip == Some(named),
            None => (!below && url.host() == name) || url.host().strip_suffix(&*name).is_some_and(|rest| rest.ends_with('.')),
        }
    })
}

fn in_network(ip: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) if bits <= 32 => (ip.to_bits() ^ network.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(ip), IpAddr::V6(network)) if bits <= 128 => (ip.to_bits() ^ network.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_those_reached_directly() {
        // (list, address, directly)
        for (list, address, directly) in [
            ("", "http://a.example/", false),
            ("*", "http://a.example/", true),
            ("a.example", "http://a.example/", true),
            ("A.Example", "http://a.example/", true),
            ("example", "http://a.example/", true),
            ("xample", "http://a.example/", false),
            (".example", "http://a.example/", true),
            ("*.example", "http://a.example/", true),
            (".a.example", "http://a.example/", false),
            ("a.example:80", "http://a.example/", true),
            ("a.example:443", "https://a.example/", true),
            ("a.example:8080", "http://a.example/", false),
            ("b , a.example", "http://a.example/", true),
            (",,", "http://a.example/", false),
            ("10.1.2.3", "http://10.1.2.3/", true),
            ("10.1.2.3:80", "http://10.1.2.3/", true),
            ("10.1.2.3:81", "http://10.1.2.3/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://11.1.2.3/", true),
            ("10.0.0.0/33", "http://10.1.2.3/", false),
            ("10.0.0.0/8", "http://a.example/", false),
            ("2001:db8::/32", "http://[2001:db8::1]/", true),
            ("2001:db8::1", "http://[2001:db8::1]/", true),
            ("[2001:db8::1]:80", "http://[2001:db8::1]/", true),
            ("[2001:db8::1]:81", "http://[2001:db8::1]/", false),
            // This machine never goes through a proxy.
            ("", "http://localhost:5000/", true),
            ("", "http://127.1.2.3/", true),
            ("", "https://[::1]/", true),
        ] {
            let proxies = Proxies { http: Some("p:1".into()), https: Some("p:1".into()), no_proxy: Some(list.into()) };
            assert_eq!(proxies.of(&Url::parse(address).unwrap()).unwrap().is_none(), directly, "{list} {address}");
        }
    }

    #[test]
    fn proxies_and_their_credentials() {
        for (text, url, authorization) in [
            ("p:3128", "http://p:3128/", None),
            ("http://p", "http://p/", None),
            ("https://p:1/x", "https://p:1/", None),
            ("http://u:p%40ss@p:1", "http://p:1/", Some("Basic dTpwQHNz")),
            ("u@p:1", "http://p:1/", Some("Basic dTo=")),
        ] {
            let proxy = parse(text).unwrap();
            assert_eq!((proxy.url.to_string().as_str(), proxy.authorization.as_deref()), (url, authorization), "{text}");
        }
        for text in ["socks5://p:1", "http://", "p:x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_scheme_has_its_own() {
        let proxies = Proxies { https: Some("p:1".into()), ..Proxies::default() };
        assert!(proxies.of(&Url::parse("http://a/").unwrap()).unwrap().is_none());
        assert!(proxies.of(&Url::parse("https://a/").unwrap()).unwrap().is_some());
    }
}

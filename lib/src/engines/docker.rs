//! Where docker's daemon is: `DOCKER_HOST`, contexts, the sockets of the system and of the user.
//!
//! The rules are those of docker's own client: `DOCKER_HOST` beats `DOCKER_CONTEXT`, which beats the context that `docker context use` has
//! left in `config.json`; without any it is `/var/run/docker.sock`, or where that is missing the socket of a daemon without root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::context::Cancel;
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::http::{TlsSettings, Url};
use crate::transport::read_small;

use super::Engine;

/// Where docker listens if nobody says otherwise.
const SOCKET: &str = "/var/run/docker.sock";
/// The longest file of docker's client that is read.
const FILE: u64 = 4 << 20;

/// What docker's client reads from its environment and from the home directory.
#[derive(Debug, Clone, Default)]
pub struct DockerSettings {
    /// `DOCKER_HOST`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` has any text.
    pub tls_verify: bool,
    /// `DOCKER_CERT_PATH`.
    pub cert_path: Option<PathBuf>,
    /// `DOCKER_CONFIG`, or else `.docker` in the home directory.
    pub config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, where daemons without root have their socket.
    pub runtime_dir: Option<PathBuf>,
}

/// Where a daemon is, and how it is spoken to.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Socket(PathBuf),
    Tcp(Url, TlsSettings),
}

/// Finds docker's daemon. It is not spoken to before it is asked for something.
///
/// # Errors
/// When what is set is wrong, or leads to something that is not supported: ssh.
pub fn docker(settings: &DockerSettings, cancel: &Cancel) -> Result<Engine> {
    let place = place(settings, Path::new(SOCKET), cancel)?;
    Ok(Engine::docker(place, cancel))
}

/// The same, where the system's socket is `system`.
fn place(settings: &DockerSettings, system: &Path, cancel: &Cancel) -> Result<Place> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(host) = given(&settings.host) {
        return of_host(&host, of_environment(settings, cancel)?).context(|| "DOCKER_HOST");
    }
    let context = match given(&settings.context) {
        Some(name) => Some(name),
        None => current_context(settings, cancel)?,
    };
    match context.filter(|name| name != "default") {
        Some(name) => of_context(settings, &name, system, cancel).context(|| format!("docker's context {name}")),
        None => Ok(Place::Socket(default_socket(settings, system))),
    }
}

/// The system's socket, or that of a daemon without root where only that is there.
fn default_socket(settings: &DockerSettings, system: &Path) -> PathBuf {
    let own = settings.runtime_dir.as_ref().map(|dir| dir.join("docker.sock"));
    match own {
        Some(own) if !system.exists() && own.exists() => own,
        _ => system.to_owned(),
    }
}

/// `unix://PATH`, `tcp://HOST[:PORT]`, `http://…` and `https://…`.
pub(super) fn of_host(host: &str, tls: Option<TlsSettings>) -> Result<Place> {
    let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
    let secure = tls.is_some();
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Place::Socket(PathBuf::from(rest))),
        "unix" => Err(Error::invalid(format_args!("{} is no path of a socket", rest.escape_debug()))),
        "tcp" => {
            let rest = rest.trim_end_matches('/');
            let has_port = rest.rsplit(']').next().is_some_and(|after| after.contains(':'));
            let port = match (has_port, secure) {
                (true, _) => "",
                (false, true) => ":2376",
                (false, false) => ":2375",
            };
            let scheme = if secure { "https" } else { "http" };
            Ok(Place::Tcp(Url::parse(&format!("{scheme}://{rest}{port}"))?, tls.unwrap_or_default()))
        }
        "http" | "https" => Ok(Place::Tcp(Url::parse(host)?, tls.unwrap_or_default())),
        "ssh" => Err(Error::unsupported(format_args!("{host} would go through ssh, which is not supported"))
            .hint("forward the socket (ssh -L ./docker.sock:/var/run/docker.sock HOST) and set DOCKER_HOST=unix://$PWD/docker.sock")),
        other => Err(Error::unsupported(format_args!("{}:// is not supported", other.escape_debug()))
            .hint("unix://, tcp://, http:// and https:// are")),
    }
}

/// TLS as `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` ask for it: the first verifies the daemon, the second alone only shows who we are.
fn of_environment(settings: &DockerSettings, cancel: &Cancel) -> Result<Option<TlsSettings>> {
    let folder = match (&settings.cert_path, settings.tls_verify) {
        (Some(path), _) if !path.as_os_str().is_empty() => path,
        (_, true) => match &settings.config {
            Some(config) => config,
            None => return Ok(Some(TlsSettings::default())),
        },
        _ => return Ok(None),
    };
    Ok(Some(TlsSettings { insecure: !settings.tls_verify, ..of_folder(folder, cancel)?.unwrap_or_default() }))
}

/// `ca.pem`, `cert.pem` and `key.pem` of a folder; none where there are none.
fn of_folder(folder: &Path, cancel: &Cancel) -> Result<Option<TlsSettings>> {
    let read = |name: &str| {
        let path = folder.join(name);
        if path.exists() { read_small(&path, FILE, cancel).map(Some) } else { Ok(None) }
    };
    let (ca, cert, key) = (read("ca.pem")?, read("cert.pem")?, read("key.pem")?);
    if ca.is_none() && cert.is_none() && key.is_none() {
        return Ok(None);
    }
    Ok(Some(TlsSettings { only_ca: ca.is_some(), ca, identity: cert.zip(key), insecure: false }))
}

fn current_context(settings: &DockerSettings, cancel: &Cancel) -> Result<Option<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ConfigFile {
        current_context: Option<String>,
    }
    let Some(path) = settings.config.as_ref().map(|dir| dir.join("config.json")).filter(|path| path.exists()) else { return Ok(None) };
    let file: ConfigFile = parse(&path, cancel)?;
    Ok(file.current_context.filter(|name| !name.is_empty()))
}

/// A context, as docker's client stores it: folders are called by the SHA-256 of its name (docker/cli, `cli/context/store`).
fn of_context(settings: &DockerSettings, name: &str, system: &Path, cancel: &Cancel) -> Result<Place> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        endpoints: BTreeMap<String, Endpoint>,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        #[serde(rename = "Host")]
        host: Option<String>,
        #[serde(rename = "SkipTLSVerify", default)]
        skip_tls_verify: bool,
    }
    let contexts = settings.config.as_ref().map(|dir| dir.join("contexts"));
    let id = Digest::of(name.as_bytes()).hex();
    let missing = || {
        let error = Error::not_found("there is no such context");
        let known = contexts.as_deref().map(known_contexts).unwrap_or_default();
        if known.is_empty() { error } else { error.hint(format_args!("there are {}", known.join(", "))) }
    };
    let contexts = contexts.as_ref().ok_or_else(missing)?;
    let path = contexts.join("meta").join(&id).join("meta.json");
    if !path.exists() {
        return Err(missing());
    }
    let mut meta: Meta = parse(&path, cancel)?;
    let endpoint = meta.endpoints.remove("docker").ok_or_else(|| Error::invalid("it says nothing of docker").frame(path.display()))?;
    let host = endpoint.host.filter(|host| !host.is_empty());
    let Some(host) = host else { return Ok(Place::Socket(default_socket(settings, system))) };
    let mut tls = of_folder(&contexts.join("tls").join(&id).join("docker"), cancel)?;
    if endpoint.skip_tls_verify {
        tls.get_or_insert_with(TlsSettings::default).insecure = true;
    }
    of_host(&host, tls)
}

fn known_contexts(contexts: &Path) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        name: String,
    }
    let folders = fs::read_dir(contexts.join("meta")).into_iter().flatten().flatten().take(100);
    let name = |path: PathBuf| parse::<Meta>(&path, &Cancel::default()).ok().map(|meta| meta.name);
    let mut names: Vec<_> = folders.filter_map(|folder| name(folder.path().join("meta.json"))).collect();
    names.sort();
    names
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, cancel: &Cancel) -> Result<T> {
    let bytes = read_small(path, FILE, cancel)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format_args!("it is not what docker writes there: {error}")).frame(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(settings: &DockerSettings) -> Result<String> {
        found_beside(settings, Path::new(SOCKET))
    }

    fn found_beside(settings: &DockerSettings, system: &Path) -> Result<String> {
        place(settings, system, &Cancel::default()).map(|place| match place {
            Place::Socket(path) => path.display().to_string(),
            Place::Tcp(url, tls) => format!("{url} {}{}{}", tls.ca.is_some(), tls.identity.is_some(), tls.insecure),
        })
    }

    fn host(host: &str) -> DockerSettings {
        DockerSettings { host: Some(host.to_owned()), ..DockerSettings::default() }
    }

    #[test]
    fn hosts() {
        for (text, at) in [
            ("unix:///run/x.sock", "/run/x.sock"),
            ("tcp://h", "http://h:2375/ falsefalsefalse"),
            ("tcp://h:1/", "http://h:1/ falsefalsefalse"),
            ("tcp://[::1]", "http://[::1]:2375/ falsefalsefalse"),
            ("tcp://[::1]:9", "http://[::1]:9/ falsefalsefalse"),
            ("h:1", "http://h:1/ falsefalsefalse"),
            ("https://h/prefix", "https://h/prefix falsefalsefalse"),
        ] {
            assert_eq!(found(&host(text)).unwrap(), at, "{text}");
        }
        for (text, says) in [
            ("unix://x", "x is no path of a socket"),
            ("ssh://me@h", "would go through ssh"),
            ("npipe:////./pipe/x", "npipe:// is not supported"),
            ("tcp://h:x", "port"),
        ] {
            let error = found(&host(text)).unwrap_err().to_string();
            assert!(error.starts_with("DOCKER_HOST: ") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn tls_of_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let at = |cert_path: bool, tls_verify| DockerSettings {
            cert_path: cert_path.then(|| dir.path().to_owned()),
            tls_verify,
            config: Some(dir.path().to_owned()),
            ..host("tcp://h")
        };
        assert_eq!(found(&at(false, false)).unwrap(), "http://h:2375/ falsefalsefalse");
        assert_eq!(found(&at(true, false)).unwrap(), "https://h:2376/ truetruetrue");
        assert_eq!(found(&at(true, true)).unwrap(), "https://h:2376/ truetruefalse");
        assert_eq!(found(&at(false, true)).unwrap(), "https://h:2376/ truetruefalse");
        let nothing = DockerSettings { config: None, cert_path: None, ..at(false, true) };
        assert_eq!(found(&nothing).unwrap(), "https://h:2376/ falsefalsefalse");
    }

    #[test]
    fn contexts() {
        let dir = tempfile::tempdir().unwrap();
        let context = |name: &str, json: &str| {
            let id = Digest::of(name.as_bytes()).hex();
            let meta = dir.path().join("contexts/meta").join(&id);
            fs::create_dir_all(&meta).unwrap();
            fs::write(meta.join("meta.json"), json).unwrap();
            dir.path().join("contexts/tls").join(id).join("docker")
        };
        let far = context("far", r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://far:2376","SkipTLSVerify":false}}}"#);
        fs::create_dir_all(&far).unwrap();
        fs::write(far.join("ca.pem"), "ca").unwrap();
        context("loose", r#"{"Name":"loose","Endpoints":{"docker":{"Host":"tcp://loose","SkipTLSVerify":true}}}"#);
        context("near", r#"{"Name":"near","Endpoints":{"docker":{"Host":"unix:///run/near.sock"}}}"#);
        context("broken", r#"{"Name":"broken","Endpoints":{"kubernetes":{}}}"#);
        let settings = |context: Option<&str>| DockerSettings {
            context: context.map(str::to_owned),
            config: Some(dir.path().to_owned()),
            ..DockerSettings::default()
        };
        assert_eq!(found(&settings(None)).unwrap(), SOCKET);
        assert_eq!(found(&settings(Some("far"))).unwrap(), "https://far:2376/ truefalsefalse");
        assert_eq!(found(&settings(Some("loose"))).unwrap(), "https://loose:2376/ falsefalsetrue");
        fs::write(dir.path().join("config.json"), r#"{"auths":{},"currentContext":"near"}"#).unwrap();
        assert_eq!(found(&settings(None)).unwrap(), "/run/near.sock");
        assert_eq!(found(&settings(Some("default"))).unwrap(), SOCKET);
        assert_eq!(found(&DockerSettings { host: Some("unix:///x".into()), ..settings(Some("far")) }).unwrap(), "/x");
        let error = found(&settings(Some("none"))).unwrap_err();
        assert_eq!(error.to_string(), "docker's context none: there is no such context");
        assert_eq!(error.hint_text(), Some("there are broken, far, loose, near"));
        assert!(found(&settings(Some("broken"))).unwrap_err().to_string().contains("it says nothing of docker"));
    }

    #[test]
    fn the_socket_of_a_daemon_without_root() {
        let dir = tempfile::tempdir().unwrap();
        let (system, own) = (dir.path().join("system.sock"), dir.path().join("docker.sock"));
        let settings = DockerSettings { runtime_dir: Some(dir.path().to_owned()), ..DockerSettings::default() };
        let found = || PathBuf::from(found_beside(&settings, &system).unwrap());
        assert_eq!(found(), system);
        fs::write(&own, "").unwrap();
        assert_eq!(found(), own);
        fs::write(&system, "").unwrap();
        assert_eq!(found(), system);
    }
}

//! Who the caller is, as Docker and containers/image keep it: `config.json`, `auth.json` and programs that know passwords.
//!
//! ```text
//! { "auths": { "HOST": { "auth": base64("USER:PASSWORD"), "identitytoken": "…" } },     docker login, podman login
//!   "credsStore": "NAME",                          docker-credential-NAME knows all passwords
//!   "credHelpers": { "HOST": "NAME" } }            docker-credential-NAME knows this one
//! ```
//!
//! Follows `cli/config` of docker/cli 20.10 and containers-auth.json(5), whose keys may also be repositories: `HOST/NAMESPACE/REPOSITORY`.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::value::RawValue;

use super::helper;
use crate::context::Cancel;
use crate::error::{Context as _, Error, Result};
use crate::reference::Reference;
use crate::spec::Object;
use crate::spool::{self, Temporary};
use crate::transport::read_small;

/// The key of Docker Hub in every file of credentials.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a helper gives as the name of the user when the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// The largest file of credentials that is read, in bytes.
const MOST: u64 = 8 << 20;

/// What proves who the caller is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token of OAuth 2, which Docker calls an identity token.
    IdentityToken(String),
}

impl Credential {
    /// Parses `USER:PASSWORD`.
    ///
    /// # Errors
    /// When there is no colon, or no name.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(Self::Password { user: user.to_owned(), password: password.to_owned() }),
            _ => Err(Error::invalid("expected USER:PASSWORD")),
        }
    }
}

/// Never the secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "the password of {user}"),
            Self::IdentityToken(_) => f.write_str("an identity token"),
        }
    }
}

/// Where credentials are kept.
#[derive(Debug, Clone, Default)]
pub struct CredentialFiles {
    /// Files that are looked into, in order; the first that knows a registry is believed. Those that are not there are passed over.
    pub read: Vec<PathBuf>,
    /// The file that a login changes.
    pub write: Option<PathBuf>,
}

impl CredentialFiles {
    /// What is known for a repository.
    ///
    /// # Errors
    /// When a file is there and cannot be read, or a helper fails.
    pub fn find(&self, repository: &Reference, cancel: &Cancel) -> Result<Option<Credential>> {
        for path in &self.read {
            let Some(config) = read(path, cancel)? else { continue };
            if let Some(found) = look_up(&config, repository, cancel).path(path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps credentials of a registry: with the helper that the file names for it, or else in the file.
    ///
    /// # Errors
    /// When no file is known, or it cannot be written, or the helper fails.
    pub fn store(&self, registry: &str, credential: &Credential, cancel: &Cancel) -> Result<Kept> {
        let (path, mut config) = self.writable(cancel)?;
        let key = key(registry);
        if let Some(helper) = helper(&config, registry) {
            let (user, secret) = match credential {
                Credential::Password { user, password } => (user.as_str(), password.as_str()),
                Credential::IdentityToken(token) => (TOKEN_USER, token.as_str()),
            };
            let request = serde_json::json!({ "ServerURL": key, "Username": user, "Secret": secret });
            helper::ask(&helper, "store", &request.to_string(), cancel)?;
            return Ok(Kept::Helper(helper));
        }
        let entry = match credential {
            Credential::Password { user, password } => {
                serde_json::json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
            }
            Credential::IdentityToken(token) => {
                serde_json::json!({ "auth": STANDARD.encode(format!("{TOKEN_USER}:")), "identitytoken": token })
            }
        };
        let mut auths = section(&config, "auths").path(path)?.unwrap_or_default();
        auths.set(key, entry);
        config.set("auths", auths.to_raw());
        write(path, &config)?;
        Ok(Kept::File(path.to_owned()))
    }

    /// Forgets what is kept of a registry, and says whether anything was.
    ///
    /// # Errors
    /// When no file is known, or it cannot be written, or the helper fails.
    pub fn remove(&self, registry: &str, cancel: &Cancel) -> Result<bool> {
        let (path, mut config) = self.writable(cancel)?;
        let mut found = false;
        if let Some(helper) = helper(&config, registry) {
            found |= helper::ask(&helper, "get", key(registry), cancel).is_ok();
            helper::ask(&helper, "erase", key(registry), cancel)?;
        }
        let mut auths = section(&config, "auths").path(path)?.unwrap_or_default();
        let known: Vec<String> = auths.keys().filter(|known| matches_registry(known, registry)).map(str::to_owned).collect();
        if !known.is_empty() {
            found = true;
            known.iter().for_each(|known| drop(auths.remove(known)));
            config.set("auths", auths.to_raw());
            write(path, &config)?;
        }
        Ok(found)
    }

    fn writable(&self, cancel: &Cancel) -> Result<(&Path, Object)> {
        let path = self.write.as_deref();
        let path = path.ok_or_else(|| Error::not_found("there is no home directory to keep credentials in").hint("set DOCKER_CONFIG"))?;
        Ok((path, read(path, cancel)?.unwrap_or_default()))
    }
}

/// Where a login went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Into this file, where it can be read.
    File(PathBuf),
    /// To the program `docker-credential-` and this.
    Helper(String),
}

fn read(path: &Path, cancel: &Cancel) -> Result<Option<Object>> {
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(Error::io(error).frame(path.display())),
    }
    let bytes = read_small(path, MOST, cancel)?;
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    Object::parse(&bytes).map(Some).map_err(|error| Error::from(error).frame(path.display()))
}

fn write(path: &Path, config: &Object) -> Result<()> {
    // What a link points to is what is meant; a rename would replace the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    fs::create_dir_all(spool::parent(path)).path(path)?;
    let mut file = Temporary::file(spool::parent(path)).path(path)?;
    let mode = fs::metadata(path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
    file.handle().set_permissions(fs::Permissions::from_mode(mode)).path(path)?;
    let text = serde_json::from_slice::<serde_json::Value>(&config.to_vec()).map_err(Error::invalid)?;
    let mut text = serde_json::to_string_pretty(&text).map_err(Error::invalid)?;
    text.push('\n');
    file.handle().as_ref().write_all(text.as_bytes()).path(path)?;
    file.persist(path, true)
}

fn section(config: &Object, key: &str) -> Result<Option<Object>> {
    let parse = |raw: &RawValue| Object::parse(raw.get().as_bytes()).map_err(|error| Error::from(error).frame(key));
    config.get(key).filter(|raw| raw.get() != "null").map(parse).transpose()
}

fn text(object: &Object, key: &str) -> Option<String> {
    object.get(key).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).filter(|text| !text.is_empty())
}

/// What one file knows of a repository: a helper of its own first, then the file, then the helper of all, as docker does.
fn look_up(config: &Object, repository: &Reference, cancel: &Cancel) -> Result<Option<Credential>> {
    let registry = repository.domain();
    let own = section(config, "credHelpers")?.and_then(|helpers| helper_of(&helpers, registry));
    if let Some(name) = own {
        return get(&name, registry, cancel);
    }
    if let Some(auths) = section(config, "auths")?
        && let Some(found) = of_file(&auths, repository)?
    {
        return Ok(Some(found));
    }
    text(config, "credsStore").map_or(Ok(None), |name| get(&name, registry, cancel))
}

/// The most special entry: a repository, then what it is in, then the registry.
fn of_file(auths: &Object, repository: &Reference) -> Result<Option<Credential>> {
    let full = repository.repository();
    let mut prefix = full.as_str();
    while let Some((shorter, _)) = prefix.rsplit_once('/') {
        if auths.contains(prefix) {
            return entry(auths, prefix);
        }
        prefix = shorter;
    }
    let known = auths.keys().find(|known| matches_registry(known, repository.domain())).map(str::to_owned);
    known.map_or(Ok(None), |known| entry(auths, &known))
}

fn entry(auths: &Object, key: &str) -> Result<Option<Credential>> {
    let Some(found) = section(auths, key)? else { return Ok(None) };
    if let Some(token) = text(&found, "identitytoken") {
        return Ok(Some(Credential::IdentityToken(token)));
    }
    if let Some(auth) = text(&found, "auth") {
        let decoded = STANDARD_NO_PAD.decode(auth.trim().trim_end_matches('=')).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or_else(|| Error::invalid("auth is not base64").frame(key.escape_debug()))?;
        // Docker fills passwords up with NUL.
        return Credential::parse(decoded.trim_end_matches('\0')).map(Some).context(|| format!("auth of {}", key.escape_debug()));
    }
    Ok(text(&found, "username").zip(text(&found, "password")).map(|(user, password)| Credential::Password { user, password }))
}

/// How a registry is called in files, and to helpers.
fn key(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

/// Whether a key of a file is the registry: older versions wrote URLs.
fn matches_registry(key: &str, registry: &str) -> bool {
    let host = key.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split_once('/').map_or(host, |(host, path)| if path.starts_with('v') || path.is_empty() { host } else { key });
    host == registry || (registry == "docker.io" && matches!(host, "index.docker.io" | "registry-1.docker.io"))
}

fn helper(config: &Object, registry: &str) -> Option<String> {
    let own = section(config, "credHelpers").ok().flatten().and_then(|helpers| helper_of(&helpers, registry));
    own.or_else(|| text(config, "credsStore"))
}

fn helper_of(helpers: &Object, registry: &str) -> Option<String> {
    let known = helpers.keys().find(|known| matches_registry(known, registry))?.to_owned();
    text(helpers, &known)
}

/// Asks a helper, which says so when it knows nothing.
fn get(helper: &str, registry: &str, cancel: &Cancel) -> Result<Option<Credential>> {
    let Some(answer) = helper::ask(helper, "get", key(registry), cancel)? else { return Ok(None) };
    let object = Object::parse(answer.as_bytes()).map_err(|error| Error::from(error).frame(helper::program(helper)))?;
    let secret = text(&object, "Secret");
    Ok(match (text(&object, "Username"), secret) {
        (Some(user), Some(token)) if user == TOKEN_USER => Some(Credential::IdentityToken(token)),
        (Some(user), Some(password)) => Some(Credential::Password { user, password }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, name: &str) -> Result<Option<Credential>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, json).unwrap();
        let files = CredentialFiles { read: vec![dir.path().join("none"), path], write: None };
        files.find(&Reference::parse(name).unwrap(), &Cancel::default())
    }

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn entries_of_files() {
        // "u:p:q" and "v:w".
        let auths = r#"{"auths":{"example.com":{"auth":"dTpwOnE="},"example.com/team":{"auth":"djp3"},
            "https://index.docker.io/v1/":{"identitytoken":"t","auth":"PHRva2VuPjo="},"https://old.example.com/v2/":{"auth":"djp3"},
            "empty.example.com":{},"plain.example.com":{"username":"a","password":"b"}}}"#;
        for (name, expected) in [
            ("example.com/app:1", Some(password("u", "p:q"))),
            ("example.com/team/app", Some(password("v", "w"))),
            ("example.com/teams/app", Some(password("u", "p:q"))),
            ("app", Some(Credential::IdentityToken("t".to_owned()))),
            ("old.example.com/a", Some(password("v", "w"))),
            ("empty.example.com/a", None),
            ("plain.example.com/a", Some(password("a", "b"))),
            ("other.example.com/a", None),
            ("example.com:5000/a", None),
        ] {
            assert_eq!(find(auths, name).unwrap(), expected, "{name}");
        }
        for nothing in ["", "{}", r#"{"auths":null}"#, r#"{"auths":{}}"#] {
            assert_eq!(find(nothing, "a").unwrap(), None, "{nothing:?}");
        }
        for (wrong, says) in [
            ("[]", "config.json"),
            (r#"{"auths":{"docker.io":{"auth":"%%"}}}"#, "is not base64"),
            (r#"{"auths":{"docker.io":{"auth":"dXU="}}}"#, "USER:PASSWORD"),
            (r#"{"credsStore":"of-nobody-at-all"}"#, "docker-credential-of-nobody-at-all"),
            (r#"{"credHelpers":{"docker.io":"../x"}}"#, "a name, not a path"),
        ] {
            let error = find(wrong, "a").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_login_is_kept_and_forgotten_and_nothing_else_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let files = CredentialFiles { read: vec![path.clone()], write: Some(path.clone()) };
        let (app, never) = (Reference::parse("app").unwrap(), &Cancel::default());
        assert_eq!(files.store("docker.io", &password("u", "p"), never).unwrap(), Kept::File(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(files.find(&app, never).unwrap(), Some(password("u", "p")));
        fs::write(&path, r#"{"psFormat":"x","auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"a.b":{"auth":"djp3"}}}"#).unwrap();
        files.store("docker.io", &Credential::IdentityToken("t".to_owned()), never).unwrap();
        assert_eq!(files.find(&app, never).unwrap(), Some(Credential::IdentityToken("t".to_owned())));
        assert!(files.remove("docker.io", never).unwrap() && !files.remove("docker.io", never).unwrap());
        assert_eq!(files.find(&app, never).unwrap(), None);
        let left: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(left, serde_json::json!({ "psFormat": "x", "auths": { "a.b": { "auth": "djp3" } } }));
    }

    #[test]
    fn a_file_that_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", path("endless")).unwrap();
        std::os::unix::fs::symlink("nothing", path("dangling")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RWXU).unwrap();
        let cancel = Cancel::default();
        let find = |name: &str| {
            let files = CredentialFiles { read: vec![path(name)], write: None };
            files.find(&Reference::parse("app").unwrap(), &cancel)
        };
        assert_eq!(find("dangling").unwrap(), None);
        assert_eq!(find("endless").unwrap_err().kind(), crate::ErrorKind::Limit);
        assert!(find("folder").is_err());
        let stop = cancel.clone();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            stop.cancel();
        });
        assert_eq!(find("pipe").unwrap_err().kind(), crate::ErrorKind::Cancelled);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(
            format!("{:?} {:?}", password("u", "secret"), Credential::IdentityToken("secret".to_owned())),
            "the password of u an identity token"
        );
    }
}

//! Who the caller is, as Docker and containers/image keep it: `config.json`, `auth.json` and programs that know passwords.
//!
//! ```text
//! { "auths": { "HOST": { "auth": base64("USER:PASSWORD"), "identitytoken": "…" } },     docker login, podman login
//!   "credsStore": "NAME",                          docker-credential-NAME knows all passwords
//!   "credHelpers": { "HOST": "NAME" } }            docker-credential-NAME knows this one
//! ```
//!
//! Follows `cli/config` of docker/cli 20.10 and containers-auth.json(5), whose keys may also be repositories: `HOST/NAMESPACE/REPOSITORY`.

use std::fmt;
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
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    /// The file that a login goes to when none of those knows the registry.
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

    /// Keeps credentials of a registry: in the first file, in the order of reading, that knows the registry, so that no older login beats this
    /// one; in [`write`](Self::write) if none does. Where the file names a helper for the registry, the helper gets them.
    ///
    /// # Errors
    /// When no file is known, or it cannot be written, or the helper fails.
    pub fn store(&self, registry: &str, credential: &Credential, cancel: &Cancel) -> Result<Kept> {
        let (path, mut config) = self.place(registry, cancel)?;
        let mut auths = section(&config, "auths").path(path)?.unwrap_or_default();
        let known = known(&auths, registry);
        if let Some(name) = helper_for(&config, registry).path(path)? {
            hand_over(&name, registry, credential, cancel)?;
            // What the file has itself would beat the helper. An empty entry stays, as docker leaves one.
            let old: Vec<&String> = known.iter().filter(|known| holds(&auths, known)).collect();
            for old in &old {
                auths.set(old, Object::new());
            }
            if !old.is_empty() {
                config.set_raw("auths", auths.to_raw());
                write(path, &config)?;
            }
            return Ok(Kept::Helper(name));
        }
        for old in known.iter().filter(|known| *known != key(registry)) {
            auths.remove(old);
        }
        auths.set(key(registry), written(credential));
        config.set_raw("auths", auths.to_raw());
        write(path, &config)?;
        Ok(Kept::File(path.to_owned()))
    }

    /// Forgets what is kept of a registry, in all files and by the helpers that they name, and says where there was something.
    ///
    /// # Errors
    /// When a file cannot be read or written, or a helper fails.
    pub fn remove(&self, registry: &str, cancel: &Cancel) -> Result<Vec<Kept>> {
        let mut from = Vec::new();
        for path in self.read.iter().chain(self.write.iter().filter(|path| !self.read.contains(path))) {
            let Some(mut config) = read(path, cancel)? else { continue };
            let mut auths = section(&config, "auths").path(path)?.unwrap_or_default();
            let (helper, known) = (helper_for(&config, registry).path(path)?, known(&auths, registry));
            if !known.is_empty() {
                let held = known.iter().any(|known| holds(&auths, known));
                for known in &known {
                    auths.remove(known);
                }
                config.set_raw("auths", auths.to_raw());
                write(path, &config)?;
                from.extend(held.then(|| Kept::File(path.clone())));
            }
            // Some helpers fail to erase what they do not have.
            if let Some(name) = helper
                && get(&name, registry, cancel)?.is_some()
            {
                helper::ask(&name, "erase", key(registry), cancel)?;
                from.push(Kept::Helper(name));
            }
        }
        Ok(from)
    }

    /// The file that a login changes, and what is in it.
    fn place(&self, registry: &str, cancel: &Cancel) -> Result<(&Path, Object)> {
        for path in &self.read {
            let Some(config) = read(path, cancel)? else { continue };
            if knows(&config, registry).path(path)? {
                return Ok((path, config));
            }
            // The helper of all that a file names is believed before the files that follow.
            if let Some(name) = text(&config, "credsStore").filter(|_| self.write.as_ref() != Some(path))
                && get(&name, registry, cancel)?.is_some()
            {
                return Ok((path, config));
            }
        }
        let path = self.write.as_deref();
        let path = path.ok_or_else(|| Error::not_found("there is no home directory to keep credentials in").hint("set DOCKER_CONFIG"))?;
        Ok((path, read(path, cancel)?.unwrap_or_default()))
    }
}

/// Where a login is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this file, where it can be read.
    File(PathBuf),
    /// With the program `docker-credential-` and this.
    Helper(String),
}

/// The path of the file, or the program.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Helper(name) => f.write_str(&helper::program(name)),
        }
    }
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
    known(auths, repository.domain()).first().map_or(Ok(None), |known| entry(auths, known))
}

/// An entry of `auths`.
fn written(credential: &Credential) -> serde_json::Value {
    match credential {
        Credential::Password { user, password } => serde_json::json!({ "auth": STANDARD.encode(format!("{user}:{password}")) }),
        Credential::IdentityToken(token) => {
            serde_json::json!({ "auth": STANDARD.encode(format!("{TOKEN_USER}:")), "identitytoken": token })
        }
    }
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
    let host = match host.split_once('/') {
        Some((host, path)) if matches!(path.trim_end_matches('/'), "" | "v1" | "v2") => host,
        // A namespace, which is not all of the registry.
        Some(_) => return false,
        None => host,
    };
    host == registry || (registry == "docker.io" && matches!(host, "index.docker.io" | "registry-1.docker.io"))
}

/// The keys of a file's `auths` that mean a registry.
fn known(auths: &Object, registry: &str) -> Vec<String> {
    auths.keys().filter(|known| matches_registry(known, registry)).map(str::to_owned).collect()
}

/// Whether an entry says who the caller is, or tries to; docker leaves empty ones where a helper does.
fn holds(auths: &Object, key: &str) -> bool {
    !matches!(entry(auths, key), Ok(None))
}

/// Whether a file names a registry: with credentials, or with a helper of its own.
fn knows(config: &Object, registry: &str) -> Result<bool> {
    let names = |section: Option<Object>| section.is_some_and(|section| !known(&section, registry).is_empty());
    Ok(names(section(config, "auths")?) || names(section(config, "credHelpers")?))
}

/// The helper that a file names for a registry, or for all.
fn helper_for(config: &Object, registry: &str) -> Result<Option<String>> {
    let own = section(config, "credHelpers")?.and_then(|helpers| helper_of(&helpers, registry));
    Ok(own.or_else(|| text(config, "credsStore")))
}

fn helper_of(helpers: &Object, registry: &str) -> Option<String> {
    text(helpers, known(helpers, registry).first()?)
}

/// Gives a helper credentials to keep.
fn hand_over(helper: &str, registry: &str, credential: &Credential, cancel: &Cancel) -> Result<()> {
    let (user, secret) = match credential {
        Credential::Password { user, password } => (user.as_str(), password.as_str()),
        Credential::IdentityToken(token) => (TOKEN_USER, token.as_str()),
    };
    let request = serde_json::json!({ "ServerURL": key(registry), "Username": user, "Secret": secret });
    helper::ask(helper, "store", &request.to_string(), cancel).map(drop)
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
            "empty.example.com":{},"space.example.com/vendor":{"auth":"djp3"},"plain.example.com":{"username":"a","password":"b"}}}"#;
        for (name, expected) in [
            ("example.com/app:1", Some(password("u", "p:q"))),
            ("example.com/team/app", Some(password("v", "w"))),
            ("example.com/teams/app", Some(password("u", "p:q"))),
            ("app", Some(Credential::IdentityToken("t".to_owned()))),
            ("old.example.com/a", Some(password("v", "w"))),
            ("empty.example.com/a", None),
            ("space.example.com/vendor/a", Some(password("v", "w"))),
            ("space.example.com/a", None),
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
        assert_eq!(files.remove("docker.io", never).unwrap(), [Kept::File(path.clone())]);
        assert_eq!(files.remove("docker.io", never).unwrap(), []);
        assert_eq!(files.find(&app, never).unwrap(), None);
        let left: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(left, serde_json::json!({ "psFormat": "x", "auths": { "a.b": { "auth": "djp3" } } }));
    }

    #[test]
    fn a_login_goes_to_the_file_that_would_beat_it() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second, last] = ["first", "second", "last"].map(|name| dir.path().join(name));
        let (app, never) = (Reference::parse("a.b/app").unwrap(), &Cancel::default());
        let files = CredentialFiles { read: vec![first.clone(), second.clone(), last.clone()], write: Some(last.clone()) };
        let old = r#"{"auths":{"a.b/team":{"auth":"djp3"},"https://a.b/v1/":{"auth":"djp3"},"a.b":{"auth":"djp3"},"c.d":{"auth":"djp3"}}}"#;
        let other = r#"{"auths":{"c.d":{"auth":"djp3"}},"credHelpers":{"c.d":"x"}}"#;
        for (texts, expected) in [([Some(old), Some(old)], &first), ([Some(other), Some(old)], &second), ([None, Some(other)], &last)] {
            let _ = fs::remove_file(&first);
            fs::write(&last, old).unwrap();
            for (path, text) in [&first, &second].into_iter().zip(texts) {
                text.iter().for_each(|text| fs::write(path, text).unwrap());
            }
            assert_eq!(files.store("a.b", &password("u", "p"), never).unwrap(), Kept::File(expected.clone()));
            assert_eq!(files.find(&app, never).unwrap(), Some(password("u", "p")));
            for (path, text) in [&first, &second].into_iter().zip(texts).filter(|(path, _)| *path != expected) {
                assert_eq!(fs::read_to_string(path).ok().as_deref(), text, "what is not changed is not written");
            }
            let from: Vec<Kept> = texts
                .iter()
                .zip([&first, &second])
                .filter(|(text, _)| **text == Some(old))
                .map(|(_, path)| Kept::File(path.clone()))
                .collect();
            assert_eq!(files.remove("a.b", never).unwrap(), [from, vec![Kept::File(last.clone())]].concat());
            assert_eq!(files.find(&app, never).unwrap(), None);
            assert_eq!(files.remove("a.b", never).unwrap(), []);
        }
        let left: serde_json::Value = serde_json::from_slice(&fs::read(&last).unwrap()).unwrap();
        assert_eq!(left, serde_json::json!({ "auths": { "a.b/team": { "auth": "djp3" }, "c.d": { "auth": "djp3" } } }));
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

//! What docker's API is asked for. podman's service answers the same requests.
//!
//! Paths have no version: every version of docker since 1.0 takes them so, as its newest API, and nothing that is asked for has changed. The
//! oldest API that docker takes changes, however: 29 refuses what 19 had as its newest.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::context::{Cancel, Context};
use crate::digest::{DiffId, Digest};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::format::{self, WriteOptions};
use crate::http::{Client, Request, Response, Settings, TlsSettings, Url};
use crate::near;
use crate::reference::Reference;
use crate::sink::{Accepts, Sink};
use crate::source::Source;
use crate::transport::{Destination, Given, keep};
use crate::tree::Opening;

use super::docker::Place;
use super::load::Load;
use super::{FromEngine, Late, ToEngine};

/// How long it may think about a question.
const THINKING: Duration = Duration::from_secs(60);
/// How long nothing of an image may come or go. Disks that are busy take their time.
const STALLED: Duration = Duration::from_secs(120);
/// How many times as long an engine may work on an image before it says anything: docker unpacks a whole archive before.
pub(super) const WORKING: u32 = 30;
/// The longest answer in JSON. It is held whole while it is parsed, within what the program may take in all; a list of images has some hundred
/// bytes for each, so that it may name tens of thousands.
const JSON: u64 = 16 << 20;
/// The longest message of a failure.
const MESSAGE: u64 = 64 << 10;
/// How many images are asked for their layers. Those that are left out are sent whole.
const ASKED: usize = 1000;

/// An engine that speaks docker's API.
#[derive(Debug, Clone)]
pub struct Engine {
    /// For images, in and out.
    client: Client,
    /// For questions.
    quick: Client,
    /// In front of every path.
    base: Url,
    /// What it is called in IMAGEs: `docker-daemon`.
    name: &'static str,
    /// Where it is, for messages.
    at: String,
    /// What helps when it is not there.
    advice: Advice,
}

/// What helps when an engine is not there: whose it is and how it is reached decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Advice {
    /// Where nobody answers.
    pub(super) unavailable: &'static str,
    /// Where we are not let in.
    pub(super) denied: Option<&'static str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "RootFS", default)]
    root_fs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RootFs {
    layers: Option<Vec<String>>,
}

impl Engine {
    /// Docker's daemon.
    pub(super) fn docker(place: Place, cancel: &Cancel) -> Self {
        let advice = Advice {
            unavailable: "is docker running? DOCKER_HOST says where it is",
            denied: match place {
                Place::Socket(_) => Some(Advice::SOCKET),
                Place::Tcp(..) => Some("ca.pem, cert.pem and key.pem are taken from DOCKER_CERT_PATH, or from docker's context"),
            },
        };
        Self::new(place, "docker-daemon", advice, cancel)
    }

    /// podman's service.
    pub(super) fn podman_at(place: Place, cancel: &Cancel) -> Self {
        let advice = Advice {
            unavailable: "is podman's service running? CONTAINER_HOST says where it is",
            denied: match place {
                Place::Socket(_) => Some(Advice::SOCKET),
                Place::Tcp(..) => None,
            },
        };
        Self::new(place, "podman", advice, cancel)
    }

    fn new(place: Place, name: &'static str, advice: Advice, cancel: &Cancel) -> Self {
        let settings = |idle_timeout, tls| Settings { idle_timeout, tls, ..Settings::default() };
        match place {
            Place::Socket(path) => {
                let client = |idle| Client::unix(path.clone(), settings(idle, TlsSettings::default()), cancel);
                let base = Url::parse("http://localhost/").expect("it is an address");
                Self { client: client(STALLED), quick: client(THINKING), base, name, at: path.display().to_string(), advice }
            }
            Place::Tcp(base, tls) => {
                let client = |idle| Client::new(settings(idle, tls.clone()), cancel);
                let at = base.to_string().trim_end_matches('/').to_owned();
                Self { client: client(STALLED), quick: client(THINKING), base, name, at, advice }
            }
        }
    }

    /// The engine behind the socket that podman's service listens on.
    pub fn podman(socket: PathBuf, cancel: &Cancel) -> Self {
        Self::podman_at(Place::Socket(socket), cancel)
    }

    /// What it is called in IMAGEs.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is: a path or an address.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// What it takes.
    pub fn accepts(&self, options: &WriteOptions) -> Accepts {
        Accepts { format: self.name, ..options.dialect.accepts() }
    }

    /// Whether somebody answers.
    ///
    /// # Errors
    /// When nobody does.
    pub fn ping(&self) -> Result<()> {
        self.get(&self.quick, "/_ping", 1)?.bytes(MESSAGE).map(drop)
    }

    /// The names of all images.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn names(&self) -> Result<Vec<String>> {
        let listed: Vec<Listed> = self.json("/images/json")?;
        let mut names: Vec<_> =
            listed.into_iter().filter_map(|image| image.repo_tags).flatten().filter(|name| name != "<none>:<none>").collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Whether it has an image of that name or ID.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn has(&self, wanted: &str) -> Result<bool> {
        match self.inspect(wanted) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens an image: the engine saves it, and what it gives is kept in a temporary file.
    ///
    /// # Errors
    /// When the engine does not have it, or does not give it whole.
    pub fn open(&self, wanted: &str, opening: &Opening<'_>, spool_dir: Option<&Path>) -> Result<Arc<dyn Source>> {
        let label = format!("{}:{wanted}", self.name);
        let open = || {
            let image = self.inspect(wanted).map_err(|error| match error.kind() {
                // Docker says it twice in one message.
                ErrorKind::NotFound => near::no_image(wanted, &self.names().unwrap_or_default()),
                _ => error,
            })?;
            let response = self.get(&self.client, &format!("/images/get?names={}", escape(&image.saved_as(wanted), false)), WORKING)?;
            let archive = keep(response.body, &label, spool_dir.unwrap_or(&opening.ctx.temp), opening.ctx)?;
            // There is nothing else in it.
            format::open_archive(archive, &Opening { pick: None, ..*opening })
        };
        let archive = open().context(|| &label)?;
        Ok(Arc::new(FromEngine { archive, label }))
    }

    /// Begins to load images: what is written goes to the engine at once, and is visible there when it is complete.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn create(&self, options: &WriteOptions, ctx: &Context) -> Result<Box<dyn Sink>> {
        // One that does not answer, or lets nobody in, is found before anything is read.
        let held = self.held().context(|| self.name)?;
        let late = Late::default();
        let load = Load::begin(&self.client, self.url("/images/load?quiet=1")?, self.advice, &ctx.cancel, late.clone())?;
        let given = Destination::Given(Given::new(Box::new(load), self.at.clone()));
        let archive = format::create_for_engine(given, held, options, ctx)?;
        Ok(Box::new(ToEngine { archive, late, name: self.name }))
    }

    fn inspect(&self, wanted: &str) -> Result<Inspected> {
        let image = wanted.strip_prefix('@').unwrap_or(wanted);
        self.json(&format!("/images/{}/json", escape(image, true)))
    }

    /// The chains of layers that the engine has, where it can be given an archive without them: `None` where it cannot.
    ///
    /// Docker's graph drivers keep layers by chain ID, and loading looks there before it opens the member of a layer (moby,
    /// `image/tarexport/load.go`). containerd's image store wants blobs, and podman looks into every member.
    fn held(&self) -> Result<Option<HashSet<Digest>>> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "PascalCase", default)]
        struct Version {
            components: Vec<Component>,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "PascalCase", default)]
        struct Component {
            name: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "PascalCase", default)]
        struct Info {
            driver_status: Option<Vec<Vec<String>>>,
        }
        let version: Version = self.json("/version")?;
        if !version.components.iter().any(|component| component.name == "Engine") {
            return Ok(None);
        }
        let info: Info = self.json("/info")?;
        if info.driver_status.iter().flatten().flatten().any(|text| text.starts_with("io.containerd.snapshotter")) {
            return Ok(None);
        }
        let listed: Vec<Listed> = self.json("/images/json?all=1")?;
        let mut held = HashSet::new();
        for image in listed.iter().take(ASKED) {
            let image: Inspected = match self.json(&format!("/images/{}/json", escape(&image.id, true))) {
                Ok(image) => image,
                // One that was removed meanwhile is not held.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let layers: Vec<_> =
                image.root_fs.layers.iter().flatten().map_while(|layer| layer.parse::<Digest>().ok()).map(DiffId).collect();
            held.extend(DiffId::chains(&layers));
        }
        Ok(Some(held))
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.base.with_path(&format!("{}{path}", self.base.path_and_query().trim_end_matches('/')))
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T> {
        let bytes = self.get(&self.quick, path, 1)?.bytes(JSON)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::invalid(format_args!("{path}: the answer is not what docker gives: {error}")))
    }

    fn get(&self, client: &Client, path: &str, patience: u32) -> Result<Response> {
        let response = client.send(Request::get(&self.url(path)?).patience(patience)).map_err(|error| self.advice.give(error))?;
        answered(response)
    }
}

impl Inspected {
    /// What to save it as: the name that is wanted, so that the archive has that alone, or else its ID.
    fn saved_as(&self, wanted: &str) -> String {
        let name = Reference::parse(wanted).ok().filter(|name| name.digest().is_none()).map(|name| name.with_default_tag());
        let tags = self.repo_tags.iter().flatten();
        let is_it = |tag: &&String| Reference::parse(tag).is_ok_and(|tag| name.as_ref() == Some(&tag));
        // podman finds `kitchen` as `localhost/kitchen`.
        let ends = |tag: &&String| name.as_ref().is_some_and(|name| **tag == format!("localhost/{}", name.familiar()));
        tags.clone().find(is_it).or_else(|| tags.clone().find(ends)).cloned().unwrap_or_else(|| self.id.clone())
    }
}

impl Advice {
    /// For a socket that is not ours.
    const SOCKET: &str = "its socket is root's, and often that of a group, such as docker";

    /// Says what helps, where nothing is said yet.
    pub(super) fn give(self, error: Error) -> Error {
        let hint = match (error.kind(), error.hint_text()) {
            (ErrorKind::Unavailable, None) => Some(self.unavailable),
            (ErrorKind::Denied, None) => self.denied,
            _ => None,
        };
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Makes an error of an answer that is one.
pub(super) fn answered(response: Response) -> Result<Response> {
    #[derive(Deserialize)]
    struct Failure {
        message: String,
    }
    let status = response.status;
    if (200..300).contains(&status) {
        return Ok(response);
    }
    let bytes = response.bytes(MESSAGE).unwrap_or_default();
    let message = serde_json::from_slice::<Failure>(&bytes).map(|failure| failure.message);
    let message = message.unwrap_or_else(|_| format!("the engine answers with status {status}"));
    let kind = match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        500.. => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    };
    Err(Error::new(kind, message.trim().trim_end_matches('.')))
}

/// A name as a part of a path, where `slashes` may stay, or of a query.
fn escape(name: &str, slashes: bool) -> String {
    let mut made = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => made.push(byte.into()),
            b'/' | b'@' if slashes => made.push(byte.into()),
            _ => made.push_str(&format!("%{byte:02X}")),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Docker behind a socket, as far as `answers` goes: a path begins an answer, status and body. `asked` hears of every question first.
    fn fake(socket: &Path, answers: &'static [(&str, u16, &str)], asked: impl Fn(&str) + Send + 'static) {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default();
                asked(path);
                let (status, body) =
                    answers.iter().find(|(known, ..)| path.starts_with(known)).map_or((404, "{}"), |(_, status, body)| (*status, *body));
                let len = body.len();
                let _ = write!(stream, "HTTP/1.1 {status} OK\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}");
            }
        });
    }

    const ONE: &str = r#"{"Id":"one","RootFS":{"Layers":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    const ANSWERS: [(&str, u16, &str); 3] = [
        ("/version", 200, r#"{"Components":[{"Name":"Engine"}]}"#),
        ("/info", 200, "{}"),
        ("/images/json", 200, r#"[{"Id":"gone"},{"Id":"one"},{"Id":"two"}]"#),
    ];

    #[test]
    fn what_it_has_is_known_or_not() {
        const SOME: [(&str, u16, &str); 4] = [ANSWERS[0], ANSWERS[1], ANSWERS[2], ("/images/one/json", 200, ONE)];
        const TROUBLE: [(&str, u16, &str); 5] =
            [SOME[0], SOME[1], SOME[2], SOME[3], ("/images/two/json", 503, r#"{"message":"it is ill"}"#)];
        let dir = tempfile::tempdir().unwrap();
        let engine = |name: &str, cancel: &Cancel| Engine::docker(Place::Socket(dir.path().join(name)), cancel);
        // One that was removed meanwhile is not held.
        fake(&dir.path().join("some"), &SOME, |_| ());
        assert_eq!(engine("some", &Cancel::default()).held().unwrap().unwrap().len(), 1);
        fake(&dir.path().join("trouble"), &TROUBLE, |_| ());
        let error = engine("trouble", &Cancel::default()).held().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, "it is ill"));
        let cancel = Cancel::default();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (stop, heard) = (cancel.clone(), Arc::clone(&asked));
        fake(&dir.path().join("stopped"), &SOME, move |path| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
            if path.starts_with("/images/gone") {
                stop.cancel();
                // The answer would come too late.
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        assert_eq!(engine("stopped", &cancel).held().unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(asked.lock().unwrap().last().unwrap(), "/images/gone/json");
    }

    #[test]
    fn what_helps() {
        let socket = || Place::Socket("/x".into());
        let tcp = || Place::Tcp(Url::parse("https://h/").unwrap(), TlsSettings::default());
        let (docker, podman) = (|place| Engine::docker(place, &Cancel::default()), |place| Engine::podman_at(place, &Cancel::default()));
        let hint = |engine: &Engine, kind| engine.advice.give(Error::new(kind, "x")).hint_text().unwrap_or_default().to_owned();
        for (engine, unavailable, denied) in [
            (docker(socket()), "DOCKER_HOST", "its socket is root's"),
            (docker(tcp()), "DOCKER_HOST", "DOCKER_CERT_PATH"),
            (podman(socket()), "CONTAINER_HOST", "its socket is root's"),
            (podman(tcp()), "CONTAINER_HOST", ""),
        ] {
            assert!(hint(&engine, ErrorKind::Unavailable).contains(unavailable), "{engine:?}");
            let told = hint(&engine, ErrorKind::Denied);
            assert!(told.contains(denied) && told.is_empty() == denied.is_empty(), "{told} {engine:?}");
            assert_eq!(hint(&engine, ErrorKind::Invalid), "");
            assert_eq!(engine.advice.give(Error::new(ErrorKind::Unavailable, "x").hint("known")).hint_text(), Some("known"));
        }
    }

    #[test]
    fn names_in_addresses() {
        assert_eq!(escape("example.com:5000/a/b:1", true), "example.com:5000/a/b:1");
        assert_eq!(escape("a/b?c#d%é", false), "a%2Fb%3Fc%23d%25%C3%A9");
    }

    #[test]
    fn what_an_image_is_saved_as() {
        let image = Inspected {
            id: "sha256:00".into(),
            repo_tags: Some(vec!["kitchen:1".into(), "localhost/oven:2".into()]),
            root_fs: RootFs::default(),
        };
        for (wanted, name) in [
            ("kitchen:1", "kitchen:1"),
            ("docker.io/library/kitchen:1", "kitchen:1"),
            ("oven:2", "localhost/oven:2"),
            ("0123456789ab", "sha256:00"),
            ("@sha256:00", "sha256:00"),
        ] {
            assert_eq!(image.saved_as(wanted), name, "{wanted}");
        }
    }
}

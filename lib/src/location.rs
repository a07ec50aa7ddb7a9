//! IMAGE: where an image is or goes, as people write it, and how it is opened and created.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Wanted;
use crate::context::Context;
use crate::engines::Program;
use crate::engines::docker::{DockerSettings, docker};
use crate::engines::podman::{PodmanSettings, podman};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, FileLocation, WriteOptions};
use crate::near;
use crate::reference::Reference;
use crate::registry;
use crate::sink::{Accepts, Sink};
use crate::source::{Pick, Source};
use crate::stores::{self, Containerd, ContainersStorage, DockerStorage};
use crate::tree::Opening;

/// Where an image is or goes.
#[derive(Debug, Clone)]
pub enum Location {
    /// A file, folder or stream: `[FORMAT:]PATH[:REF]`.
    File(FileLocation),
    /// A repository of a registry: `docker://REFERENCE`.
    Registry(Reference),
    /// An engine's daemon, or its store: `docker-daemon:REF`, `containers-storage:[…]REF`.
    Engine {
        /// Which.
        kind: EngineKind,
        /// What follows the colon.
        rest: String,
    },
}

/// The engines, and how their images are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// containerd: its store, and `ctr` to load.
    Containerd,
    /// containers/storage of podman and buildah: the store, and podman to load.
    ContainersStorage,
    /// Docker's daemon.
    DockerDaemon,
    /// Docker's store.
    DockerStorage,
}

impl EngineKind {
    /// All of them, in the order in which a name is looked for.
    pub const ALL: [Self; 4] = [Self::DockerDaemon, Self::DockerStorage, Self::ContainersStorage, Self::Containerd];

    /// What stands before the colon of an IMAGE.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::ContainersStorage => "containers-storage",
            Self::DockerDaemon => "docker-daemon",
            Self::DockerStorage => "docker-storage",
        }
    }
}

/// How what is not a file is reached. It comes from the environment and the command line, so that the caller hands it in.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Registries.
    pub registry: Arc<registry::Access>,
    /// Engines.
    pub engines: Arc<Engines>,
}

/// Where engines are, and where they keep images.
#[derive(Debug, Clone)]
pub struct Engines {
    /// Docker's daemon.
    pub docker: DockerSettings,
    /// Docker's store.
    pub docker_storage: DockerStorage,
    /// podman.
    pub podman: PodmanSettings,
    /// The store of podman and buildah.
    pub containers_storage: ContainersStorage,
    /// containerd's store.
    pub containerd: Containerd,
    /// The socket of containerd (`CONTAINERD_ADDRESS`), for ctr.
    pub containerd_address: Option<String>,
}

/// The places of engines that nobody has configured, for root.
impl Default for Engines {
    fn default() -> Self {
        let containerd = Containerd { root: Containerd::ROOT.into(), namespace: Containerd::NAMESPACE.to_owned() };
        Self {
            docker: DockerSettings::default(),
            docker_storage: DockerStorage { root: DockerStorage::ROOT.into(), containerd: Some(Containerd::ROOT.into()) },
            podman: PodmanSettings::default(),
            containers_storage: ContainersStorage {
                graph_root: ContainersStorage::ROOT.into(),
                driver: None,
                image_stores: Vec::new(),
                run_root: None,
            },
            containerd,
            containerd_address: None,
        }
    }
}

/// How sources are opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Whether to note what is wrong and go on, as `check` does.
    pub keep_going: bool,
    /// Whether layers that an archive names and does not hold are left to the caller: another source may have them.
    pub missing_layers: bool,
    /// Whether what refers to the wanted image comes along: signatures, SBOMs, attestations.
    pub referrers: bool,
    /// Which platforms of an index are wanted, where reading one costs a round trip.
    pub wanted: Wanted,
    /// Where a copy goes of what can be read only once; the temporary folder of the context when absent.
    pub spool_dir: Option<PathBuf>,
    /// How what is not a file is reached.
    pub access: Access,
}

/// What stands before a reference to a registry.
const REGISTRY: &str = "docker://";

impl Location {
    /// Parses a source. A path without a format is detected when it is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the format is unknown.
    pub fn parse_source(text: &str) -> Result<Self> {
        match parse_remote(text)? {
            Some(remote) => Ok(remote),
            None => FileLocation::parse_source(text).map(Self::File),
        }
    }

    /// Parses a destination: `-` and bare paths are docker-archives, unless a folder is there or the name ends in `/`: then an OCI layout.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the format is unknown.
    pub fn parse_destination(text: &str) -> Result<Self> {
        match parse_remote(text)? {
            Some(Self::Registry(reference)) if reference.tag().is_some() && reference.digest().is_some() => {
                Err(Error::invalid("a destination has a tag or a digest, not both").frame(text.escape_debug()))
            }
            Some(remote) => Ok(remote),
            None => FileLocation::parse_destination(text).map(Self::File),
        }
    }

    /// The file or folder, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(file) if !file.is_stdio() => Some(&file.path),
            Self::File(_) | Self::Registry(_) | Self::Engine { .. } => None,
        }
    }

    /// Whether it is a standard stream.
    pub fn is_stdio(&self) -> bool {
        matches!(self, Self::File(file) if file.is_stdio())
    }

    /// What it is called before the colon, where that is known.
    pub fn format(&self) -> Option<&'static str> {
        match self {
            Self::File(file) => file.format.map(|format| format.name()),
            Self::Registry(_) => Some(REGISTRY),
            Self::Engine { kind, .. } => Some(kind.name()),
        }
    }

    /// The name of an image in it, or to give to it, as it was written.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::File(file) => file.reference.as_deref(),
            Self::Registry(_) | Self::Engine { .. } => None,
        }
    }

    /// The name that a destination gives to the image.
    ///
    /// # Errors
    /// When what follows the path of an output is no name.
    pub fn name(&self) -> Result<Option<Reference>> {
        let text = match self {
            Self::File(file) => file.reference.clone(),
            Self::Registry(reference) => return Ok(reference.digest().is_none().then(|| reference.clone().with_default_tag())),
            Self::Engine { kind, rest } => {
                let engines = Engines::default();
                match kind {
                    EngineKind::Containerd => Containerd::parse(rest, &engines.containerd)?.1,
                    EngineKind::ContainersStorage => ContainersStorage::parse(rest, &engines.containers_storage)?.1,
                    EngineKind::DockerDaemon => Some(rest.clone()).filter(|rest| !rest.is_empty()),
                    EngineKind::DockerStorage => DockerStorage::parse(rest, &engines.docker_storage)?.1,
                }
            }
        };
        let Some(text) = text else { return Ok(None) };
        let reference = Reference::parse(&text)?;
        match reference.digest() {
            Some(_) => Err(Error::invalid("a new name has a tag, not a digest: NAME:TAG")),
            None => Ok(Some(reference.with_default_tag())),
        }
    }

    /// What a destination can hold.
    ///
    /// # Errors
    /// When it has no format, which [`Location::parse_destination`] rules out.
    pub fn accepts(&self, options: &WriteOptions) -> Result<Accepts> {
        match self {
            // An engine is given a docker-archive.
            Self::Engine { kind, .. } => Ok(Accepts { format: kind.name(), ..options.dialect.accepts() }),
            Self::File(file) => file.accepts(options),
            Self::Registry(_) => Ok(registry::accepts()),
        }
    }
}

/// Parses what is not a file.
fn parse_remote(text: &str) -> Result<Option<Location>> {
    let engine = |kind: EngineKind| Some((kind, text.strip_prefix(kind.name())?.strip_prefix(':')?));
    if let Some((kind, rest)) = EngineKind::ALL.into_iter().find_map(engine) {
        let location = Location::Engine { kind, rest: rest.to_owned() };
        if rest.starts_with('[') && !rest.contains(']') {
            return Err(Error::invalid("expected a ] after the folder of the store").frame(text.escape_debug()));
        }
        return Ok(Some(location));
    }
    let Some(reference) = text.strip_prefix(REGISTRY) else { return Ok(None) };
    // A digest has no slash. What is in front of it is not repeated.
    if reference.split_once('@').is_some_and(|(_, rest)| rest.contains('/')) {
        return Err(Error::invalid("a reference has no user or password")
            .frame(REGISTRY)
            .hint("longshore login, or --creds USER:PASSWORD"));
    }
    let reference = Reference::parse(reference).map_err(|error| Error::from(error).frame(text.escape_debug()))?;
    Ok(Some(Location::Registry(reference)))
}

/// As people write it, without the name of an image.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.path.display()),
            Self::Registry(reference) => write!(f, "{REGISTRY}{}", reference.familiar()),
            Self::Engine { kind, rest } if rest.is_empty() => f.write_str(kind.name()),
            Self::Engine { kind, rest } => write!(f, "{}:{}", kind.name(), rest.escape_debug()),
        }
    }
}

/// Opens a source: finds out what it is where the caller does not say, and reads its metadata.
///
/// # Errors
/// When it cannot be read, is malformed, or does not hold what is wanted.
pub fn open(location: &Location, options: &OpenOptions, ctx: &Context) -> Result<Arc<dyn Source>> {
    let pick = |reference: Option<&str>| reference.map(Pick::parse).transpose();
    let opening = |pick, wanted| Opening {
        pick,
        wanted,
        referrers: options.referrers,
        missing_layers: options.missing_layers,
        keep_going: options.keep_going,
        ctx,
    };
    match location {
        Location::File(file) => {
            let pick = pick(file.reference.as_deref())?;
            // All of it is at hand.
            format::open(file, &opening(pick.as_ref(), &Wanted::All), options.spool_dir.as_deref())
        }
        Location::Registry(reference) => {
            let spool_dir = options.spool_dir.as_deref().unwrap_or(&ctx.temp);
            registry::open(reference, &options.access.registry, &opening(None, &options.wanted), spool_dir)
        }
        Location::Engine { kind, rest } => open_engine(*kind, rest, options, &opening(None, &Wanted::All)),
    }
}

/// Begins an output at a destination. Nothing is visible until it is committed.
///
/// # Errors
/// [`ErrorKind::Exists`] when something is there that may not be replaced, or what the system says.
pub fn create(location: &Location, options: &WriteOptions, replace: bool, access: &Access, ctx: &Context) -> Result<Box<dyn Sink>> {
    match location {
        Location::File(file) => format::create(file, options, replace, ctx),
        Location::Registry(reference) => Ok(Box::new(registry::RegistrySink::create(reference, &access.registry, ctx))),
        Location::Engine { kind, rest } => create_engine(*kind, rest, options, &access.engines, ctx),
    }
}

/// Opens what an engine has.
fn open_engine(kind: EngineKind, rest: &str, options: &OpenOptions, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    let engines = &options.access.engines;
    let spool_dir = options.spool_dir.as_deref();
    match kind {
        EngineKind::Containerd => {
            let (store, wanted) = Containerd::parse(rest, &engines.containerd)?;
            stores::open_containerd(&store, wanted.as_deref(), opening)
        }
        EngineKind::ContainersStorage => {
            let (store, wanted) = ContainersStorage::parse(rest, &engines.containers_storage)?;
            stores::open_containers_storage(&store, wanted.as_deref(), opening)
        }
        EngineKind::DockerDaemon if rest.is_empty() => {
            Err(Error::invalid("it is said nowhere which image is wanted").frame("docker-daemon:").hint("docker-daemon:NAME[:TAG]"))
        }
        EngineKind::DockerDaemon => docker(&engines.docker, &opening.ctx.cancel)?.open(rest, opening, spool_dir),
        EngineKind::DockerStorage => {
            let (store, wanted) = DockerStorage::parse(rest, &engines.docker_storage)?;
            stores::open_docker_storage(&store, wanted.as_deref(), opening)
        }
    }
}

/// Begins to load images into an engine, which does it itself: nobody else writes into a store.
fn create_engine(kind: EngineKind, rest: &str, options: &WriteOptions, engines: &Engines, ctx: &Context) -> Result<Box<dyn Sink>> {
    match kind {
        EngineKind::Containerd => {
            let (store, _) = Containerd::parse(rest, &engines.containerd)?;
            let address = engines.containerd_address.iter().flat_map(|address| ["--address".into(), address.into()]);
            Program::containerd("ctr".into(), address, &store.namespace).create(options, ctx)
        }
        EngineKind::ContainersStorage => {
            let mut settings = engines.podman.clone();
            let (store, _) = ContainersStorage::parse(rest, &engines.containers_storage)?;
            if rest.starts_with('[') {
                // Another store than podman's service has.
                settings.options.extend(["--root".into(), store.graph_root.clone().into_os_string()]);
                settings.options.extend(store.run_root.iter().flat_map(|root| ["--runroot".into(), root.clone().into_os_string()]));
                settings.options.extend(store.driver.iter().flat_map(|driver| ["--storage-driver".into(), driver.into()]));
                let program = settings.program.unwrap_or_else(|| "podman".into());
                return Program::podman(program, settings.options).create(options, ctx);
            }
            podman(&settings, &ctx.cancel)?.create(options, ctx)
        }
        EngineKind::DockerDaemon => docker(&engines.docker, &ctx.cancel)?.create(options, ctx),
        EngineKind::DockerStorage => {
            Err(Error::unsupported("nobody but docker writes into its store").frame("docker-storage").hint("load into docker-daemon:"))
        }
    }
}

/// Where an image was found that was named alone.
#[derive(Debug, Clone)]
pub struct Found {
    /// The image.
    pub location: Location,
    /// The engine, for people.
    pub place: String,
}

/// Looks for an image that is named alone: in docker (its daemon, or where that is not there its store), in the store of podman and buildah, and in
/// containerd's, in this order.
///
/// # Errors
/// [`ErrorKind::NotFound`] when no engine has it, with names that are like it.
pub fn find(name: &str, access: &Access, ctx: &Context) -> Result<Found> {
    let engines = &access.engines;
    let mut looked = Vec::new();
    let mut names = Vec::new();
    // One that is nowhere, since what says where it is makes no sense, is like one that does not answer.
    let by_daemon = docker(&engines.docker, &ctx.cancel).and_then(|daemon| Ok((daemon.has(name)?, daemon)));
    let daemon_answers = by_daemon.is_ok();
    match by_daemon {
        Ok((true, daemon)) => return Ok(found(EngineKind::DockerDaemon, name, format!("docker ({})", daemon.at()))),
        Ok((false, daemon)) => {
            looked.push(format!("docker ({})", daemon.at()));
            names.extend(daemon.names().unwrap_or_default());
        }
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
        // Where nobody said that there is a daemon, it is no news that there is none.
        Err(error) if error.kind() == ErrorKind::Unavailable && engines.docker.host.is_none() && engines.docker.context.is_none() => {}
        Err(error) => looked.push(format!("docker, which cannot be asked: {error}")),
    }
    // In containerd, names are full.
    let full = Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.with_default_tag().full());
    for kind in EngineKind::ALL {
        let (known, place) = match kind {
            // Its daemon has said what there is.
            EngineKind::DockerStorage if daemon_answers => continue,
            EngineKind::DockerDaemon => continue,
            EngineKind::DockerStorage => {
                let store = &engines.docker_storage;
                (stores::docker_storage_names(store, ctx), store.root.display().to_string())
            }
            EngineKind::ContainersStorage => {
                let store = &engines.containers_storage;
                (stores::containers_storage_names(store, ctx), store.graph_root.display().to_string())
            }
            EngineKind::Containerd => {
                let store = &engines.containerd;
                (stores::containerd_names(store, ctx), format!("{}, namespace {}", store.root.display(), store.namespace))
            }
        };
        let place = format!("{} ({place})", kind.name());
        match known {
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // There is none, or it is not for us.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound) => {}
            Err(error) => looked.push(format!("{place}, which cannot be read: {error}")),
            Ok(known) => {
                let options = OpenOptions { access: access.clone(), ..OpenOptions::default() };
                let candidates = if full == name { vec![name] } else { vec![name, full.as_str()] };
                for candidate in candidates {
                    let here = found(kind, candidate, place.clone());
                    match open(&here.location, &options, ctx) {
                        Ok(_) => return Ok(here),
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
                looked.push(place);
                names.extend(known);
            }
        }
    }
    let error = near::no_image(name, &[]);
    let near = near::names(name, names.iter().map(String::as_str));
    Err(match (looked.is_empty(), near.is_empty()) {
        (true, _) => error.hint("there is no engine on this machine; name an archive or directory, or docker://NAME for a registry"),
        (false, true) => error.hint(format_args!("looked in {}", looked.join(", "))),
        (false, false) => error.hint(format_args!("did you mean {}? Looked in {}", near.join(" or "), looked.join(", "))),
    })
}

fn found(kind: EngineKind, name: &str, place: String) -> Found {
    let rest = if kind == EngineKind::Containerd { format!("/{name}") } else { name.to_owned() };
    Found { location: Location::Engine { kind, rest }, place }
}

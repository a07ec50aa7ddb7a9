//! IMAGE: where an image is or goes, as people write it, and how it is opened and created.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Wanted;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::{self, FileLocation, WriteOptions};
use crate::reference::Reference;
use crate::registry;
use crate::sink::{Accepts, Sink};
use crate::source::{Pick, Source};
use crate::tree::Opening;

/// Where an image is or goes.
#[derive(Debug, Clone)]
pub enum Location {
    /// A file, folder or stream: `[FORMAT:]PATH[:REF]`.
    File(FileLocation),
    /// A repository of a registry: `docker://REFERENCE`.
    Registry(Reference),
}

/// How what is not a file is reached. It comes from the environment and the command line, so that the caller hands it in.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Registries.
    pub registry: Arc<registry::Access>,
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
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the format is unknown.
    pub fn parse_source(text: &str) -> Result<Self> {
        match parse_remote(text)? {
            Some(remote) => Ok(remote),
            None => FileLocation::parse_source(text).map(Self::File),
        }
    }

    /// Parses a destination: `-` and bare paths are docker-archives, unless a folder is there or the name ends in `/`: then an OCI layout.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the format is unknown.
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
            Self::File(_) | Self::Registry(_) => None,
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
        }
    }

    /// The name of an image in it, or to give to it, as it was written.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::File(file) => file.reference.as_deref(),
            Self::Registry(_) => None,
        }
    }

    /// The name that a destination gives to the image.
    ///
    /// # Errors
    /// When what follows the path of an output is no name.
    pub fn name(&self) -> Result<Option<Reference>> {
        match self {
            Self::File(file) => {
                let Some(text) = file.reference.as_deref() else { return Ok(None) };
                let reference = Reference::parse(text)?;
                match reference.digest() {
                    Some(_) => Err(Error::invalid("a new name has a tag, not a digest: NAME:TAG")),
                    None => Ok(Some(reference.with_default_tag())),
                }
            }
            Self::Registry(reference) => Ok(reference.digest().is_none().then(|| reference.clone().with_default_tag())),
        }
    }

    /// What a destination can hold.
    ///
    /// # Errors
    /// When it has no format, which [`Location::parse_destination`] rules out.
    pub fn accepts(&self, options: &WriteOptions) -> Result<Accepts> {
        match self {
            Self::File(file) => file.accepts(options),
            Self::Registry(_) => Ok(registry::accepts()),
        }
    }
}

/// Parses what is not a file.
fn parse_remote(text: &str) -> Result<Option<Location>> {
    let Some(reference) = text.strip_prefix(REGISTRY) else { return Ok(None) };
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
    let opening = |pick| Opening {
        pick,
        wanted: &options.wanted,
        referrers: options.referrers,
        missing_layers: options.missing_layers,
        keep_going: options.keep_going,
        ctx,
    };
    match location {
        Location::File(file) => {
            let pick = pick(file.reference.as_deref())?;
            format::open(file, &opening(pick.as_ref()), options.spool_dir.as_deref())
        }
        Location::Registry(reference) => {
            let spool_dir = options.spool_dir.as_deref().unwrap_or(&ctx.temp);
            registry::open(reference, &options.access.registry, &opening(None), spool_dir)
        }
    }
}

/// Begins an output at a destination. Nothing is visible until it is committed.
///
/// # Errors
/// [`ErrorKind::Exists`](crate::ErrorKind::Exists) when something is there that may not be replaced, or what the system says.
pub fn create(location: &Location, options: &WriteOptions, replace: bool, access: &Access, ctx: &Context) -> Result<Box<dyn Sink>> {
    match location {
        Location::File(file) => format::create(file, options, replace, ctx),
        Location::Registry(reference) => Ok(Box::new(registry::RegistrySink::create(reference, &access.registry, ctx))),
    }
}

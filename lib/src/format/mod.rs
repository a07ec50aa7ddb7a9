//! Formats: what the bytes of an archive or folder mean.
//!
//! A format is one file and one line in [`FORMATS`]. Command values, detection, completion and the generated table of formats are loops over
//! that slice; no other place lists formats.

mod archive_write;
mod dir;
pub mod docker_archive;
mod file_location;
mod files;
mod folder;
mod fuzz;
mod google_dir;
mod layout_write;
mod oci_archive;
mod oci_layout;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use docker_archive::dialect::{DIALECTS, Dialect};
pub use file_location::{FileLocation, create, open};
pub use fuzz::{fuzz_archive, fuzz_dir, fuzz_google_dir, fuzz_layout, fuzz_location};

pub use crate::catalog::{IMAGE_NAME, REF_NAME};
use crate::context::Context;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::sink::{Accepts, Sink};
use crate::source::Source;
use crate::transport::{Archive, Destination};
use crate::tree::Opening;
use files::{ArchiveFiles, DirFiles, Files as _};

/// Every format, in the order in which they are tried when the caller does not say.
pub static FORMATS: &[&dyn Format] =
    &[&docker_archive::DockerArchive, &oci_archive::OciArchive, &oci_layout::OciLayout, &google_dir::GoogleDir, &dir::Dir];

/// What kind of thing a format is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One file or stream.
    Archive,
    /// A folder.
    Directory,
}

/// The files of an output in the order in which an archive has them: a name in which `<…>` stands for digits, and what it holds.
pub type Members = &'static [(&'static str, &'static str)];

/// What the bytes of an archive or folder mean.
pub trait Format: Sync {
    /// The name before the colon of an IMAGE.
    fn name(&self) -> &'static str;

    /// One line about it, for `longshore formats`.
    fn about(&self) -> &'static str;

    /// What it is kept in.
    fn place(&self) -> Place;

    /// Whether something with these files is of this format. `*/NAME` is a file NAME in any top folder of an archive.
    fn detect(&self, has: &dyn Fn(&str) -> bool) -> bool;

    /// Reads the metadata of an archive or folder.
    ///
    /// # Errors
    /// When it is malformed, or does not hold what was picked.
    fn open(&self, held: Held, opening: &Opening<'_>) -> Result<Arc<dyn Source>>;

    /// What it can hold.
    fn accepts(&self, options: &WriteOptions) -> Accepts;

    /// Which files an output has, for `longshore formats`.
    fn members(&self, options: &WriteOptions) -> Members;

    /// Begins an output. Nothing is visible until it is committed.
    ///
    /// # Errors
    /// When something is there that may not be replaced, or the place cannot be written.
    fn create(&self, target: &Target, options: &WriteOptions, ctx: &Context) -> Result<Box<dyn Sink>>;
}

impl std::fmt::Debug for dyn Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Finds a format by its name.
pub fn by_name(name: &str) -> Option<&'static dyn Format> {
    FORMATS.iter().copied().find(|format| format.name() == name)
}

/// An archive or folder that is open, and whose format is known or wanted.
#[derive(Debug)]
pub struct Held(Holding);

#[derive(Debug)]
enum Holding {
    Archive(ArchiveFiles),
    Directory(PathBuf),
}

impl Held {
    /// Whether a file of that name is in it.
    fn has(&self, name: &str) -> bool {
        match &self.0 {
            Holding::Archive(files) => match name.strip_prefix("*/") {
                Some(name) => files.folders_with(name).next().is_some(),
                None => files.has(name),
            },
            Holding::Directory(dir) => DirFiles::new(dir).has(name),
        }
    }

    fn archive(self) -> Result<ArchiveFiles> {
        match self.0 {
            Holding::Archive(files) => Ok(files),
            Holding::Directory(dir) => Err(Error::invalid("it is a directory, not an archive").frame(dir.display())),
        }
    }

    fn directory(self) -> Result<DirFiles> {
        match self.0 {
            Holding::Directory(dir) => Ok(DirFiles::new(&dir)),
            Holding::Archive(files) => Err(Error::invalid("it is not a directory").frame(files.label())),
        }
    }
}

/// Where an output goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// An archive.
    Archive(Destination),
    /// A folder, replaced or added to.
    Directory {
        /// The folder.
        path: PathBuf,
        /// Whether one that exists may be replaced, where the format cannot add to it.
        replace: bool,
    },
}

/// How an output is written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// The layout of a docker-archive.
    pub dialect: &'static dyn Dialect,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { dialect: DIALECTS[0] }
    }
}

/// Opens an archive that is at hand already, of whatever format it is.
///
/// # Errors
/// When it is malformed, of no known format, or does not hold what is wanted.
pub fn open_archive(archive: Archive, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    file_location::open_held(Held(Holding::Archive(ArchiveFiles::scan(archive, opening.ctx)?)), opening)
}

/// Begins a docker-archive for an engine that has the layers of these chains already, where it says so: what it has is left out.
///
/// # Errors
/// When the destination cannot be written.
pub fn create_for_engine(
    destination: Destination,
    held: Option<HashSet<Digest>>,
    options: &WriteOptions,
    ctx: &Context,
) -> Result<Box<dyn Sink>> {
    docker_archive::create_for_engine(&Target::Archive(destination), held, options, ctx)
}

/// The folder or file of a path, as it is shown.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

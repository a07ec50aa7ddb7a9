//! Formats: what the bytes of an archive or folder mean.
//!
//! A format is one file and one line in [`FORMATS`]. Command values, detection, completion and the generated table of formats are loops over
//! that slice; no other place lists formats.

mod archive_write;
mod dir;
pub mod docker_archive;
mod files;
mod folder;
mod fuzz;
mod google_dir;
mod layout_write;
mod location;
mod oci_archive;
mod oci_layout;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use docker_archive::dialect::{DIALECTS, Dialect};
pub use fuzz::{fuzz_archive, fuzz_dir, fuzz_google_dir, fuzz_layout, fuzz_location};
pub use location::{Location, OpenOptions, create, open};

use crate::catalog::{Catalog, Content, Name, Node, Root};
pub use crate::catalog::{IMAGE_NAME, REF_NAME};
use crate::context::Context;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::sink::{Accepts, Sink};
use crate::source::{Pick, Source};
use crate::transport::Destination;
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

/// How something is opened.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Which image is wanted; all when absent.
    pub pick: Option<&'a Pick>,
    /// Whether what refers to the wanted image (signatures, SBOMs, attestations) comes along.
    pub referrers: bool,
    /// Whether layers that an archive names and does not hold are left to the caller: another source may have them.
    pub missing_layers: bool,
    /// Whether to note what is wrong in [`Catalog::findings`] and go on, as far as that makes sense.
    pub keep_going: bool,
    /// The outside world.
    pub ctx: &'a Context,
}

impl Opening<'_> {
    /// Passes an error on, or notes it and goes on.
    fn tolerate<T>(&self, result: Result<T>, findings: &mut Vec<String>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.keep_going && error.kind() != crate::ErrorKind::Cancelled => {
                findings.push(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
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

/// Whether `name` is what the caller calls `wanted`: the same reference, whichever form it is written in.
fn is_called(name: &Name, wanted: &str) -> bool {
    if let Name::Text(text) = name
        && text == wanted
    {
        return true;
    }
    match (name.reference(), Reference::parse(wanted)) {
        (Some(reference), Ok(wanted)) => reference == wanted.with_default_tag(),
        _ => false,
    }
}

/// Reduces the roots to what was picked and, if wanted, what refers to it; says what there is when that is nothing. `others` are roots that
/// were dropped already.
fn narrow(catalog: &mut Catalog, opening: &Opening<'_>, mut others: Vec<Root>) -> Result<()> {
    let all = catalog.roots.clone();
    pick(catalog, opening.pick)?;
    if opening.referrers && opening.pick.is_some() {
        let kept: Vec<_> = catalog.roots.iter().map(|root| (root.name.clone(), catalog.identity(&root.node))).collect();
        others.extend(all.into_iter().filter(|root| !kept.contains(&(root.name.clone(), catalog.identity(&root.node)))));
        add_referrers(catalog, others);
    }
    Ok(())
}

/// Adds those of `others` that refer to what is there, by subject or by a tag that begins with the digest (`sha256-<hex>`, as the
/// distribution-spec's fallback has it, or `sha256-<hex>.sig` and the like, as cosign does).
fn add_referrers(catalog: &mut Catalog, mut others: Vec<Root>) {
    loop {
        let mut digests = Vec::new();
        catalog.roots.iter().for_each(|root| collect_digests(catalog, &root.node, &mut digests));
        let tags: Vec<_> = digests.iter().map(|digest| digest.to_string().replace(':', "-")).collect();
        let refers = |root: &Root| {
            let by_tag = |name: &Name| {
                let tag = match name {
                    Name::Text(text) => Some(text.as_str()),
                    Name::Reference(reference) => reference.tag(),
                };
                tag.is_some_and(|tag| {
                    tags.iter().any(|known| tag.strip_prefix(known.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
                })
            };
            root.node.subject(catalog).is_some_and(|subject| digests.contains(subject)) || root.name.as_ref().is_some_and(by_tag)
        };
        let (found, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(refers);
        if found.is_empty() {
            return;
        }
        catalog.roots.extend(found);
        others = rest;
    }
}

fn collect_digests(catalog: &Catalog, node: &Node, digests: &mut Vec<Digest>) {
    digests.extend(node.digest(catalog).copied());
    if let Content::Index { nodes, .. } = &node.content {
        nodes.iter().for_each(|node| collect_digests(catalog, node, digests));
    }
}

/// Reduces the roots to what was picked.
fn pick(catalog: &mut Catalog, pick: Option<&Pick>) -> Result<()> {
    match pick {
        None => {}
        // Readers keep what matches; nothing left means that nothing matched.
        Some(Pick::Name(wanted)) => {
            if catalog.roots.is_empty() {
                return Err(not_found(&[], &wanted.escape_debug().to_string()));
            }
            let entries = catalog.entries().len();
            if entries > 1 {
                let digests = catalog.roots.iter().filter_map(|root| catalog.identity(&root.node)).map(|d| format!("@{d}"));
                let known = digests.collect::<Vec<_>>().join(", ");
                return Err(Error::invalid(format_args!("{entries} images are called {}", wanted.escape_debug()))
                    .hint(format_args!("choose one by its digest: {known}")));
            }
        }
        Some(Pick::Position(position)) => {
            let entries = catalog.entries();
            let Some(entry) = entries.get(*position) else {
                let error = not_found(&catalog.roots, &format!("@{position}"));
                return Err(if entries.is_empty() { error } else { error.hint(format_args!("there are @0 to @{}", entries.len() - 1)) });
            };
            catalog.roots = entry.iter().map(|root| (*root).clone()).collect();
        }
        Some(Pick::Digest(digest)) => {
            let mut kept: Vec<Root> = Vec::new();
            for root in &catalog.roots {
                if root.node.digest(catalog) == Some(digest) {
                    kept.push(root.clone());
                } else if let Some(node) = find(catalog, &root.node, digest) {
                    kept.push(Root { name: root.name.clone(), node });
                }
            }
            if kept.is_empty() {
                return Err(not_found(&catalog.roots, &format!("@{digest}")));
            }
            catalog.roots = kept;
        }
    }
    Ok(())
}

/// Says that an image is not there, and what is.
fn not_found(roots: &[Root], what: &str) -> Error {
    const SHOWN: usize = 20;
    let mut names: Vec<_> = roots.iter().map(Root::to_string).collect();
    names.dedup();
    let error = Error::not_found(format_args!("there is no image {what}"));
    match names.len() {
        0 => error,
        more if more > SHOWN => error.hint(format_args!("there are {} and {} more", names[..SHOWN].join(", "), more - SHOWN)),
        _ => error.hint(format_args!("there are {}", names.join(", "))),
    }
}

/// The node at or below `node` with this digest or image ID.
fn find(catalog: &Catalog, node: &Node, digest: &Digest) -> Option<Node> {
    let own = match &node.content {
        Content::Image(id) => catalog.image(*id).id() == digest,
        _ => false,
    };
    if own || node.digest(catalog) == Some(digest) {
        return Some(node.clone());
    }
    match &node.content {
        Content::Index { nodes, .. } => nodes.iter().find_map(|node| find(catalog, node, digest)),
        _ => None,
    }
}

/// The folder or file of a path, as it is shown.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

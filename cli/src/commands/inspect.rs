//! `longshore inspect`: what a source holds, as text, as one JSON document, or the bytes of one document of its own.

use std::collections::BTreeMap;

use longshore::catalog::{Catalog, Content, ImageId, Node};
use longshore::look::waste;
use longshore::source::Source;
use longshore::{Error, ErrorKind, location};

use super::{Job, reading};
use crate::args::InspectArgs;
use crate::{console, document, options};

pub(super) fn run(job: &Job<'_>, args: &InspectArgs) -> anyhow::Result<()> {
    let location = options::source(&args.source)?;
    let source = location::open(&location, &reading(job, false), &job.context)?;
    if args.raw {
        let bytes = raw(source.catalog(), args.config).map_err(|error| error.frame(source.describe()))?;
        console::print_bytes(bytes)?;
        return Ok(());
    }
    let mut document = document::describe(source.as_ref());
    if args.waste {
        add_waste(job, source.as_ref(), &mut document)?;
    }
    if args.json {
        return console::print_json(&document);
    }
    console::print(&document::render(&document, job.console.is_verbose()))?;
    for warning in &source.catalog().warnings {
        job.console.note("note", warning);
    }
    Ok(())
}

/// Says of every image what nobody sees of it.
fn add_waste(job: &Job<'_>, source: &dyn Source, document: &mut document::Document) -> anyhow::Result<()> {
    let mut found = BTreeMap::new();
    for (at, image) in source.catalog().images.iter().enumerate() {
        if found.contains_key(image.id()) {
            continue;
        }
        if image.layers.iter().any(|layer| layer.blob.is_none()) {
            job.console.note("note", format_args!("image {} has layers that are elsewhere, so its waste is not known", image.id()));
            continue;
        }
        found.insert(*image.id(), waste(source, ImageId(at), &job.context)?);
    }
    document.add_waste(&found);
    Ok(())
}

/// The bytes of the one manifest or index that was selected, or of the one config below it.
fn raw(catalog: &Catalog, config: bool) -> Result<&[u8], Error> {
    let entries = catalog.entries();
    let [entry] = entries.as_slice() else {
        return Err(several(entries.len(), "entries"));
    };
    let node = &entry.first().ok_or_else(|| several(0, "entries"))?.node;
    if config { config_bytes(catalog, node) } else { manifest_bytes(catalog, node) }
}

fn config_bytes<'a>(catalog: &'a Catalog, node: &Node) -> Result<&'a [u8], Error> {
    match node.images().as_slice() {
        [id] => Ok(catalog.image(*id).config.bytes()),
        images => Err(several(images.len(), "images")),
    }
}

fn manifest_bytes<'a>(catalog: &'a Catalog, node: &'a Node) -> Result<&'a [u8], Error> {
    match &node.content {
        Content::Artifact { manifest: Some(raw), .. } => Ok(raw.bytes()),
        Content::Image(id) => match &catalog.image(*id).manifest {
            Some((_, raw)) => Ok(raw.bytes()),
            // A docker-archive of old has one manifest, that of the archive.
            None => catalog.archive_manifest.as_deref().ok_or_else(|| Error::new(ErrorKind::NotFound, "it holds no manifests")),
        },
        Content::Index { raw, .. } => Ok(raw.bytes()),
        Content::Artifact { manifest: None, .. } => Err(Error::new(ErrorKind::NotFound, "this is a blob without a manifest")),
        Content::Unread => Err(Error::new(ErrorKind::NotFound, "the manifest is listed, but not in this source")),
    }
}

fn several(found: usize, what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("--raw prints one document, and there are {found} {what} to choose from"))
        .hint("name one: FORMAT:PATH:NAME, FORMAT:PATH:@0 or FORMAT:PATH:@sha256:DIGEST")
}

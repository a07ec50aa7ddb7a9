//! Docker's archive: what `docker save` writes and `docker load` reads, in every layout that real tools give it.
//!
//! ```text
//! manifest.json                 which config, layers and tags make each image (the archive manifest)
//! <any name>                    configs and layers, plain or compressed, files or links to one another
//! repositories, <id>/json …     left from 2013, written by some dialects, needed by none
//! index.json, oci-layout …      Docker 25 and later: the same images as an OCI layout, with their manifests and annotations
//! ```
//!
//! One reader takes all of them; each layout that we write is a [dialect].

pub mod dialect;
mod incremental;
mod legacy;
mod read;

use std::collections::HashSet;
use std::sync::Arc;

use super::archive_write::ArchiveSink;
use super::{Format, Held, Members, Place, Target, WriteOptions};
use crate::context::Context;
use crate::digest::Digest;
use crate::error::Result;
use crate::sink::{Accepts, Sink};
use crate::source::Source;
use crate::tree::Opening;

/// The format.
#[derive(Debug)]
pub struct DockerArchive;

const NAME: &str = "docker-archive";

/// The digest, in hex, of 1024 zeros as Docker compressed them: in v1 IDs it stands for a step of a build that made no layer.
const EMPTY_LAYER: &str = "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";

/// Begins an archive for an engine: without the layers that it has, where it says which and nobody asks for another dialect than the default.
pub(super) fn create_for_engine(
    target: &Target,
    held: Option<HashSet<Digest>>,
    options: &WriteOptions,
    ctx: &Context,
) -> Result<Box<dyn Sink>> {
    match held {
        Some(held) if options.dialect.name() == dialect::DIALECTS[0].name() => {
            ArchiveSink::create(target, NAME, Box::new(incremental::Incremental { held }), ctx)
        }
        _ => DockerArchive.create(target, options, ctx),
    }
}

impl Format for DockerArchive {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "what docker save writes and docker load reads; several images, one platform each"
    }

    fn place(&self) -> Place {
        Place::Archive
    }

    fn detect(&self, has: &dyn Fn(&str) -> bool) -> bool {
        // An image that was saved by its ID before Docker 1.10 has folders of layers and nothing else.
        ["manifest.json", "repositories", "top"].iter().any(|name| has(name)) || (has("*/layer.tar") && !has("oci-layout"))
    }

    fn open(&self, held: Held, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
        let files = held.archive()?;
        if files.has("manifest.json") || files.folders_with("json").next().is_none() {
            return read::open(files, opening);
        }
        legacy::open(files, opening)
    }

    fn accepts(&self, options: &WriteOptions) -> Accepts {
        options.dialect.accepts()
    }

    fn members(&self, options: &WriteOptions) -> Members {
        options.dialect.members()
    }

    fn create(&self, target: &Target, options: &WriteOptions, ctx: &Context) -> Result<Box<dyn Sink>> {
        ArchiveSink::create(target, NAME, options.dialect.layouter(), ctx)
    }
}

//! OCI image layouts in a tar archive, as `podman save --format oci-archive`, skopeo and buildx write them.
//!
//! The members are those of an [OCI layout](super::oci_layout). We write blobs first, in the order of the images, then `oci-layout` and
//! `index.json`.

use std::sync::Arc;

use super::archive_write::{ArchiveSink, Layouter};
use super::files::Files;
use super::oci_layout::{self, read_layout};
use super::{Format, Held, Members, Place, Target, WriteOptions};
use crate::context::Context;
use crate::error::Result;
use crate::sink::{Accepts, Expected, Sealed, Sink};
use crate::source::Source;
use crate::tree::Opening;

use super::archive_write::Member;

/// The format.
#[derive(Debug)]
pub(super) struct OciArchive;

impl Format for OciArchive {
    fn name(&self) -> &'static str {
        "oci-archive"
    }

    fn about(&self) -> &'static str {
        "OCI image layout in a tar archive; several images, indexes and artifacts"
    }

    fn place(&self) -> Place {
        Place::Archive
    }

    fn detect(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("oci-layout") || has("index.json")
    }

    fn open(&self, held: Held, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
        let files: Box<dyn Files> = Box::new(held.archive()?.without_links());
        read_layout(self.name(), files, opening)
    }

    fn accepts(&self, _options: &WriteOptions) -> Accepts {
        Accepts { format: self.name(), ..oci_layout::ACCEPTS }
    }

    fn members(&self, _options: &WriteOptions) -> Members {
        &[
            ("blobs/<algorithm>/<hex>", "layers, then configs, manifests and indexes, named by their digest"),
            ("oci-layout", "the version of the layout"),
            ("index.json", "an index of the manifests; names as annotations"),
        ]
    }

    fn create(&self, target: &Target, _options: &WriteOptions, ctx: &Context) -> Result<Box<dyn Sink>> {
        ArchiveSink::create(target, self.name(), Box::new(Blobs), ctx)
    }
}

/// The members of a layout in an archive.
#[derive(Debug)]
struct Blobs;

impl Layouter for Blobs {
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
        Ok(super::layout_write::blob_members(expected))
    }

    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>> {
        super::layout_write::metadata_members(sealed)
    }
}

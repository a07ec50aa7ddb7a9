//! OCI image layouts in a folder.
//!
//! ```text
//! oci-layout                   {"imageLayoutVersion":"1.0.0"}
//! index.json                   an index: names and the manifests or indexes that they lead to
//! blobs/sha256/<hex>           manifests, configs, layers
//! ```
//!
//! Follows the [image-layout] of the OCI image-spec.
//!
//! [image-layout]: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md

use std::sync::Arc;

use super::files::{FileSource, Files};
use super::layout_write::LayoutSink;
use super::tree::{Role, TreeReader};
use super::{Format, Held, Members, Opening, Place, Target, WriteOptions, narrow};
use crate::compress::Compression;
use crate::context::Context;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::sink::{Accepts, DefaultCompress, ManifestTypes, Names, Sink};
use crate::source::Source;
use crate::spec::{JsonLimits, OciLayout as LayoutFile, Raw};

/// The format.
#[derive(Debug)]
pub(super) struct OciLayout;

pub(super) const ACCEPTS: Accepts = Accepts {
    format: "oci",
    several: true,
    configs: true,
    indexes: true,
    artifacts: true,
    annotations: true,
    names: Names::Any,
    manifests: ManifestTypes::Oci,
    compressions: &[Compression::None, Compression::Gzip, Compression::Zstd],
    default_compress: DefaultCompress::GzipPlain,
    stored_digests: false,
    configs_first: false,
};

impl Format for OciLayout {
    fn name(&self) -> &'static str {
        "oci"
    }

    fn about(&self) -> &'static str {
        "OCI image layout in a directory; several images, indexes and artifacts; writing adds to it"
    }

    fn place(&self) -> Place {
        Place::Directory
    }

    fn detect(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("oci-layout") || has("index.json")
    }

    fn open(&self, held: Held, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
        read_layout(self.name(), Box::new(held.directory()?), opening)
    }

    fn accepts(&self, _options: &WriteOptions) -> Accepts {
        ACCEPTS
    }

    fn members(&self, _options: &WriteOptions) -> Members {
        &[
            ("oci-layout", "the version of the layout"),
            ("index.json", "an index of the manifests; names as annotations"),
            ("blobs/<algorithm>/<hex>", "layers, configs, manifests and indexes, named by their digest"),
        ]
    }

    fn create(&self, target: &Target, _options: &WriteOptions, ctx: &Context) -> Result<Box<dyn Sink>> {
        match target {
            Target::Directory { path, .. } => Ok(Box::new(LayoutSink::create(path, ctx)?)),
            Target::Archive(_) => Err(Error::unsupported("an OCI layout is a directory").hint("use oci-archive: for a file or stream")),
        }
    }
}

/// Where a layout keeps things.
pub(super) fn blob_name(_role: Role, digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Reads a layout from a folder or an archive.
pub(super) fn read_layout(format: &'static str, files: Box<dyn Files>, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    check_version(files.as_ref(), &opening.ctx.limits)?;
    let mut reader = TreeReader::new(files.as_ref(), blob_name, opening);
    reader.layout()?;
    let (mut catalog, names, others) = (reader.catalog, reader.names, reader.others);
    narrow(&mut catalog, opening, others)?;
    Ok(Arc::new(FileSource { files, names, catalog, format }))
}

pub(super) fn check_version(files: &dyn Files, limits: &Limits) -> Result<()> {
    let bytes = files.read("oci-layout", limits.manifest)?;
    Raw::<LayoutFile>::parse(bytes, &JsonLimits::manifest(limits)).map(drop).map_err(|e| Error::from(e).frame("oci-layout"))
}

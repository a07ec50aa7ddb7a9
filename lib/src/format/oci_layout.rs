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

use super::files::{FileSource, Files, Named};
use super::layout_write::LayoutSink;
use super::{Format, Held, Members, Place, Target, WriteOptions};
use crate::catalog::{Content, Node, Root};
use crate::compress::Compression;
use crate::context::Context;
use crate::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::limits::Limits;
use crate::sink::{Accepts, DefaultCompress, ManifestTypes, Names, Sink};
use crate::source::{Pick, Source};
use crate::spec::{Index, JsonLimits, OciLayout as LayoutFile, Raw};
use crate::tree::{Opening, Role, TreeReader, annotated_name, name_matches, narrow, not_found};

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
    let shelf = Named { files: files.as_ref(), naming: blob_name };
    let mut reader = TreeReader::new(&shelf, opening);
    let others = read_index(files.as_ref(), &mut reader, opening)?;
    let (mut catalog, names) = (reader.catalog, reader.names);
    narrow(&mut catalog, opening, others)?;
    Ok(Arc::new(FileSource { files, names, catalog, format }))
}

/// Reads `index.json` of a layout and all that the opening picks. Returns roots with another name than the wanted one: referrers may be among
/// them.
pub(super) fn read_index(files: &dyn Files, reader: &mut TreeReader<'_>, opening: &Opening<'_>) -> Result<Vec<Root>> {
    let raw = reader.root_document::<Index>("index.json", files.read("index.json", opening.ctx.limits.manifest)?)?;
    let (mut passed, mut others) = (Vec::new(), Vec::new());
    for (position, descriptor) in raw.manifests.iter().enumerate() {
        let name = annotated_name(&descriptor.annotations);
        let wanted = match opening.pick {
            Some(Pick::Name(wanted)) => name_matches(wanted, name.as_ref(), &descriptor.annotations),
            _ => true,
        };
        if !wanted {
            let unread = Node { descriptor: Some(descriptor.clone()), content: Content::Unread };
            passed.push(Root { name: name.clone(), node: unread });
        }
        if !wanted && !opening.referrers {
            continue;
        }
        let node = reader.node(descriptor, 0).context(|| format!("index.json: manifests[{position}]"));
        if let Some(node) = reader.tolerate(node)? {
            let roots = if wanted { &mut reader.catalog.roots } else { &mut others };
            roots.push(Root { name, node });
        }
    }
    if let Some(Pick::Name(wanted)) = opening.pick.filter(|_| passed.len() == raw.manifests.len()) {
        return Err(not_found(&passed, wanted));
    }
    reader.catalog.index = Some(raw);
    Ok(others)
}

pub(super) fn check_version(files: &dyn Files, limits: &Limits) -> Result<()> {
    let bytes = files.read("oci-layout", limits.manifest)?;
    Raw::<LayoutFile>::parse(bytes, &JsonLimits::manifest(limits)).map(drop).map_err(|e| Error::from(e).frame("oci-layout"))
}

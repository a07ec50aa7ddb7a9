//! The default: an OCI layout and an archive manifest in one tar, as Docker 25 and later write it. Docker of any age, podman, skopeo, crane
//! and containerd load it.
//!
//! ```text
//! blobs/sha256/<hex>     layers (plain unless asked otherwise), then configs and manifests
//! oci-layout
//! index.json             names as annotations
//! manifest.json          names as RepoTags, paths into blobs/
//! ```

use super::{ACCEPTS, Dialect, Entries, archive_manifest};
use crate::compress::Compression;
use crate::digest::Digest;
use crate::error::Result;
use crate::format::Members;
use crate::format::archive_write::{Layouter, Member};
use crate::format::layout_write::{blob_members, file_member, metadata_members};
use crate::format::oci_layout::blob_name;
use crate::reference::Reference;
use crate::sink::{Accepts, Expected, ManifestTypes, Sealed};
use crate::tree::Role;

#[derive(Debug)]
pub(super) struct Docker;

impl Dialect for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn about(&self) -> &'static str {
        "as Docker 25 and later write it: manifest.json and an OCI layout in one"
    }

    fn accepts(&self) -> Accepts {
        Accepts {
            manifests: ManifestTypes::LikeSource,
            compressions: &[Compression::None, Compression::Gzip, Compression::Zstd],
            configs_first: false,
            ..ACCEPTS
        }
    }

    fn members(&self) -> Members {
        &[
            ("blobs/sha256/<hex>", "layers, then configs and manifests, named by their digest"),
            ("oci-layout", "the version of the layout"),
            ("index.json", "an index of the manifests; names as annotations"),
            ("manifest.json", "the archive manifest: config, names and layers of each image"),
        ]
    }

    fn layouter(&self) -> Box<dyn Layouter> {
        Box::new(Self)
    }
}

impl Layouter for Docker {
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
        Ok(blob_members(expected))
    }

    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>> {
        let mut members = metadata_members(sealed)?;
        let path = |digest: &Digest| blob_name(Role::Blob, digest);
        let entries = Entries {
            name: Reference::familiar,
            empty_list: false,
            config: &|image| path(image.config.digest()),
            layer: &|_, image, position| path(&image.layers[position].descriptor.digest),
        };
        let manifest = archive_manifest(&sealed.images, &entries)?;
        members.push(file_member("manifest.json".to_owned(), manifest));
        Ok(members)
    }
}

//! What an engine is given that has some of the layers: the archive without them.
//!
//! Docker with a graph driver looks for a layer by its chain ID before it opens the member that holds it (moby, `image/tarexport/load.go`), so
//! that the member of a layer that is found need not be there. It reads `manifest.json` alone: an OCI layout would name blobs that are missing.
//!
//! ```text
//! blobs/sha256/<hex>     layers that the engine lacks, then configs
//! manifest.json          with paths of all layers
//! ```

use std::collections::HashSet;

use super::dialect::{Entries, archive_manifest};
use crate::compress::Compression;
use crate::digest::{DiffId, Digest};
use crate::error::Result;
use crate::format::archive_write::{Body, Layouter, Member};
use crate::format::layout_write::{blob_members, file_member};
use crate::format::oci_layout::blob_name;
use crate::reference::Reference;
use crate::sink::{Expected, Sealed, Written};
use crate::tree::Role;

#[derive(Debug)]
pub(super) struct Incremental {
    /// The chain IDs of the layers that the engine has.
    pub(super) held: HashSet<Digest>,
}

impl Layouter for Incremental {
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
        let held = self.unpacked(expected);
        let mut members = blob_members(expected);
        members.retain(|member| !matches!(member.body, Body::Blob(blob, _) if held[blob].is_some()));
        Ok(members)
    }

    /// A blob is held where the engine has all layers that it is, each upon those below it. Of a layer that is yet to be made nobody knows the
    /// diff ID, and so of none above it the chain.
    fn unpacked(&self, expected: &Expected) -> Vec<Option<Written>> {
        let mut uses = vec![(0, 0); expected.blobs.len()];
        for image in &expected.images {
            let diff_id = |blob: usize| expected.blobs[blob].known.diff_id;
            let listed = image.layers.iter().zip(image.config.diff_ids());
            let known =
                |(layer, listed): &(&crate::sink::ExpectedLayer, &DiffId)| layer.blob.is_none_or(|blob| diff_id(blob) == Some(**listed));
            let sure = listed.clone().take_while(known).count();
            let chains = DiffId::chains(&image.config.diff_ids()[..sure]);
            for (at, (layer, _)) in listed.enumerate() {
                let Some(blob) = layer.blob else { continue };
                uses[blob].0 += 1;
                uses[blob].1 += usize::from(chains.get(at).is_some_and(|chain| self.held.contains(chain)));
            }
        }
        let held = |(blob, (uses, held)): (usize, (usize, usize))| {
            let known = &expected.blobs[blob].known;
            let diff_id = known.diff_id.filter(|_| uses > 0 && uses == held)?;
            let plain = known.digest == Some(diff_id.0);
            let size = known.size.filter(|_| plain).unwrap_or(0);
            Some(Written { digest: diff_id.0, size, diff_id: Some(diff_id), compression: Compression::None })
        };
        uses.into_iter().enumerate().map(held).collect()
    }

    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>> {
        let path = |digest: &Digest| blob_name(Role::Blob, digest);
        let mut seen = HashSet::new();
        let configs = sealed.images.iter().map(|image| &image.config).filter(|config| seen.insert(*config.digest()));
        let mut members: Vec<_> = configs.map(|config| file_member(path(config.digest()), config.shared())).collect();
        let entries = Entries {
            name: Reference::familiar,
            empty_list: false,
            config: &|image| path(image.config.digest()),
            layer: &|_, image, position| path(&image.layers[position].descriptor.digest),
        };
        members.push(file_member("manifest.json".to_owned(), archive_manifest(&sealed.images, &entries)?));
        Ok(members)
    }
}

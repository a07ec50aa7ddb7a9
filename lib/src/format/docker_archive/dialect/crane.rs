//! What go-containerregistry's `tarball` and so `crane pull` write: layers as the registry stores them.
//!
//! ```text
//! sha256:<hex>           the config, image by image, then its layers
//! <digest hex>.tar.gz    each layer once; .tar.zst and .tar for other compressions
//! manifest.json          sorted by names
//! ```
//!
//! As of [v0.20](https://github.com/google/go-containerregistry/blob/v0.20.2/pkg/v1/tarball/write.go), which leaves the order of several images
//! to chance: here it is that of the source.

use std::collections::HashSet;

use super::{ACCEPTS, Dialect, Entries, archive_manifest};
use crate::compress::Compression;
use crate::digest::Digest;
use crate::error::Result;
use crate::format::Members;
use crate::format::archive_write::{Body, Layouter, Member};
use crate::format::layout_write::{file_member, plain_header};
use crate::reference::Reference;
use crate::sink::{Accepts, DefaultCompress, Expected, Sealed, SealedImage, SealedLayer, Written};
use crate::spec::media::parse_layer_media;
use crate::tar::Kind;

#[derive(Debug)]
pub(super) struct Crane;

impl Dialect for Crane {
    fn name(&self) -> &'static str {
        "crane"
    }

    fn about(&self) -> &'static str {
        "as crane and go-containerregistry write it: layers as they are stored, by digest"
    }

    fn accepts(&self) -> Accepts {
        Accepts {
            format: "docker-archive (crane)",
            compressions: &[Compression::None, Compression::Gzip, Compression::Zstd],
            default_compress: DefaultCompress::Keep,
            ..ACCEPTS
        }
    }

    fn members(&self) -> Members {
        &[
            ("sha256:<image id>", "the config of an image"),
            ("<digest>.tar.gz", "its layers, each once; `.tar.zst` and `.tar` where they are stored so"),
            ("manifest.json", "the archive manifest: config, names and layers of each image, sorted by names"),
        ]
    }

    fn layouter(&self) -> Box<dyn Layouter> {
        Box::new(Self)
    }
}

impl Layouter for Crane {
    fn before(&mut self, expected: &Expected) -> Result<Vec<Member>> {
        let (mut members, mut blobs, mut configs) = (Vec::new(), HashSet::new(), HashSet::new());
        let name = |written: &Written| layer_name(&written.digest, written.compression);
        for image in &expected.images {
            if configs.insert(*image.config.digest()) {
                members.push(file_member(image.config.digest().to_string(), image.config.shared()));
            }
            for blob in image.layers.iter().filter_map(|layer| layer.blob) {
                if blobs.insert(blob) {
                    members.push(Member { header: plain_header(String::new(), Kind::File, 0o644), body: Body::Blob(blob, Some(name)) });
                }
            }
        }
        Ok(members)
    }

    fn after(&self, sealed: &Sealed) -> Result<Vec<Member>> {
        let mut images = sealed.images.clone();
        images.sort_by_key(|image| image.references.iter().map(Reference::familiar).collect::<Vec<_>>().join(","));
        let entries = Entries {
            name: Reference::familiar,
            empty_list: false,
            config: &|image| image.config.digest().to_string(),
            layer: &|_, image: &SealedImage, position| {
                let layer = &image.layers[position];
                layer_name(&layer.descriptor.digest, compression(sealed, layer))
            },
        };
        let manifest = archive_manifest(&images, &entries)?;
        Ok(vec![file_member("manifest.json".to_owned(), manifest)])
    }
}

/// How a layer is stored; of a foreign one its media type says it.
fn compression(sealed: &Sealed, layer: &SealedLayer) -> Compression {
    let listed = || parse_layer_media(&layer.descriptor.media_type).and_then(|media| media.compression.name().parse().ok());
    layer.blob.map(|blob| sealed.blobs[blob].compression).or_else(listed).unwrap_or(Compression::Gzip)
}

fn layer_name(digest: &Digest, compression: Compression) -> String {
    let end = match compression {
        Compression::None => "tar",
        Compression::Zstd => "tar.zst",
        _ => "tar.gz",
    };
    format!("{}.{end}", digest.hex())
}

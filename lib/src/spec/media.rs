//! Media types: their names, and what they say of the bytes behind a descriptor.
//!
//! OCI's are in [its list], Docker's in [schema 2]; what is in neither is an artifact's, and is kept without being looked into.
//!
//! [its list]: https://github.com/opencontainers/image-spec/blob/v1.1.1/media-types.md
//! [schema 2]: https://github.com/distribution/distribution/blob/v2.8.3/docs/spec/manifest-v2-2.md

/// An OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A plain OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An OCI layer in gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An OCI layer in zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// A plain OCI layer that must not be distributed; deprecated, but still read.
pub const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// The same in gzip.
pub const OCI_FOREIGN_LAYER_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
/// The same in zstd.
pub const OCI_FOREIGN_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
/// The config of an artifact that has none: the two bytes `{}`.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// A Docker manifest of schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A Docker config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A plain Docker layer, as Docker 25 and later save it.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A Docker layer in gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A Docker layer in zstd, which BuildKit writes when asked for.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// A plain Docker layer that must not be distributed.
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
/// The same in gzip, as Windows base images have it.
pub const DOCKER_FOREIGN_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// A Docker manifest of schema 1.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// The same, signed.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// What kind of document a media type promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManifestKind {
    /// Docker's manifest list.
    DockerList,
    /// Docker's manifest, schema 2.
    DockerManifest,
    /// OCI's index.
    OciIndex,
    /// OCI's manifest.
    OciManifest,
}

impl ManifestKind {
    /// The kind that `media_type` names, if it is a manifest's or an index's.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            DOCKER_LIST => Self::DockerList,
            DOCKER_MANIFEST => Self::DockerManifest,
            OCI_INDEX => Self::OciIndex,
            OCI_MANIFEST => Self::OciManifest,
            _ => return None,
        })
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::DockerList => DOCKER_LIST,
            Self::DockerManifest => DOCKER_MANIFEST,
            Self::OciIndex => OCI_INDEX,
            Self::OciManifest => OCI_MANIFEST,
        }
    }

    /// Whether it lists manifests.
    pub fn is_index(self) -> bool {
        matches!(self, Self::DockerList | Self::OciIndex)
    }

    /// Whose it is.
    pub fn family(self) -> LayerFamily {
        match self {
            Self::DockerList | Self::DockerManifest => LayerFamily::Docker,
            Self::OciIndex | Self::OciManifest => LayerFamily::Oci,
        }
    }
}

/// Whether `media_type` is a manifest of Docker's schema 1, which has no config.
pub fn is_schema1(media_type: &str) -> bool {
    matches!(media_type, DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED)
}

/// Whether `media_type` is an image's config.
pub fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whose media type it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerFamily {
    /// Docker's.
    Docker,
    /// OCI's.
    Oci,
}

impl LayerFamily {
    /// The media type of its configs.
    pub fn config(self) -> &'static str {
        match self {
            Self::Docker => DOCKER_CONFIG,
            Self::Oci => OCI_CONFIG,
        }
    }

    /// The kind of its manifests.
    pub fn manifest(self) -> ManifestKind {
        match self {
            Self::Docker => ManifestKind::DockerManifest,
            Self::Oci => ManifestKind::OciManifest,
        }
    }

    /// The kind of its indexes.
    pub fn index(self) -> ManifestKind {
        match self {
            Self::Docker => ManifestKind::DockerList,
            Self::Oci => ManifestKind::OciIndex,
        }
    }
}

/// How a layer is compressed, as its media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl LayerCompression {
    /// Its name: `none`, `gzip` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// What a layer's media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerMedia {
    /// Whose it is.
    pub family: LayerFamily,
    /// How the bytes are compressed. Not to be relied upon: Docker stores gzip under plain types too.
    pub compression: LayerCompression,
    /// Whether it "should not be uploaded", and may be had only from the descriptor's URLs.
    pub foreign: bool,
}

/// All layer types.
const LAYERS: [(&str, LayerFamily, LayerCompression, bool); 11] = {
    use LayerCompression::{Gzip, None, Zstd};
    use LayerFamily::{Docker, Oci};
    [
        (OCI_LAYER, Oci, None, false),
        (OCI_LAYER_GZIP, Oci, Gzip, false),
        (OCI_LAYER_ZSTD, Oci, Zstd, false),
        (OCI_FOREIGN_LAYER, Oci, None, true),
        (OCI_FOREIGN_LAYER_GZIP, Oci, Gzip, true),
        (OCI_FOREIGN_LAYER_ZSTD, Oci, Zstd, true),
        (DOCKER_LAYER, Docker, None, false),
        (DOCKER_LAYER_GZIP, Docker, Gzip, false),
        (DOCKER_LAYER_ZSTD, Docker, Zstd, false),
        (DOCKER_FOREIGN_LAYER, Docker, None, true),
        (DOCKER_FOREIGN_LAYER_GZIP, Docker, Gzip, true),
    ]
};

/// What `media_type` says, if it is a layer's. Encrypted layers (`+encrypted`) are not ours to read: their manifest is an artifact.
pub fn parse_layer_media(media_type: &str) -> Option<LayerMedia> {
    let found = LAYERS.iter().find(|(name, ..)| *name == media_type)?;
    Some(LayerMedia { family: found.1, compression: found.2, foreign: found.3 })
}

/// Whether `media_type` is that of a layer, also one that no standard has (`+xz`): how a layer is compressed is seen in its bytes.
pub fn is_layer(media_type: &str) -> bool {
    let known = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    known.iter().any(|prefix| media_type.starts_with(prefix)) && !media_type.ends_with("+encrypted")
}

/// The media type of such a layer: `compression` is `none`, `gzip` or `zstd`. Docker has none for a foreign layer in zstd.
pub fn layer_media(family: LayerFamily, compression: &str, foreign: bool) -> Option<&'static str> {
    let found = LAYERS.iter().find(|layer| layer.1 == family && layer.2.name() == compression && layer.3 == foreign)?;
    Some(found.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_both_ways() {
        for (name, ..) in LAYERS {
            let media = parse_layer_media(name).unwrap();
            assert_eq!(layer_media(media.family, media.compression.name(), media.foreign), Some(name));
        }
        assert_eq!(layer_media(LayerFamily::Docker, "zstd", true), None);
        assert_eq!(layer_media(LayerFamily::Oci, "xz", false), None);
        for other in [
            "",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.in-toto+json",
            "APPLICATION/vnd.oci.image.layer.v1.tar",
        ] {
            assert_eq!(parse_layer_media(other), None, "{other}");
            assert!(!is_layer(other), "{other}");
        }
        assert!(is_layer("application/vnd.oci.image.layer.v1.tar+xz"));
    }

    #[test]
    fn kinds_both_ways() {
        for family in [LayerFamily::Docker, LayerFamily::Oci] {
            for kind in [family.manifest(), family.index()] {
                assert_eq!(ManifestKind::from_media_type(kind.media_type()), Some(kind));
                assert_eq!(kind.family(), family);
                assert_eq!(kind.is_index(), kind == family.index());
            }
            assert!(is_image_config(family.config()));
        }
        assert_eq!(ManifestKind::from_media_type(DOCKER_SCHEMA1_SIGNED), None);
        assert!(is_schema1(DOCKER_SCHEMA1) && is_schema1(DOCKER_SCHEMA1_SIGNED) && !is_schema1(DOCKER_MANIFEST));
        assert!(!is_image_config(OCI_EMPTY));
    }
}

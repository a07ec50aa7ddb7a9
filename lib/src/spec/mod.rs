//! The JSON that images are described with: OCI's and Docker's manifests, indexes, configs and archive files.
//!
//! Every document is checked as JSON once ([`json::check`]), kept as the bytes it came in ([`Raw`]), and looked at through a typed view that
//! holds what longshore acts on. A view is never written back: what has to change is changed in an [`Object`], which keeps all other keys as
//! they were. So nothing that we do not know is lost, and a document that nobody edits keeps its digest.
//!
//! Views are read by hand from [`Json`] values, so that an error names the place (`layers[2].size: expected a number, found a string`), and
//! with the tolerance that Go's encoding/json has, since Go wrote nearly all of these documents: `null` is the same as absent.
//! In one point they are stricter: a key that differs from a known one only in case is refused, since Go would take it and others would not.

pub mod archive;
pub mod config;
pub mod descriptor;
pub mod edit;
mod fuzz;
pub mod json;
pub mod layout;
pub mod manifest;
pub mod media;
pub mod platform;
pub mod raw;
pub mod style;
pub mod view;

pub use archive::{ArchiveImage, ArchiveManifest, Repositories};
pub use config::{Config, ContainerConfig, History, Rootfs};
pub use descriptor::Descriptor;
pub use edit::Object;
pub use fuzz::fuzz_spec;
pub use json::{JsonError, JsonLimits};
pub use layout::OciLayout;
pub use manifest::{Index, Manifest};
pub use media::{LayerCompression, LayerFamily, LayerMedia, ManifestKind};
pub use platform::Platform;
pub use raw::{Raw, Validate};
pub use view::{Fields, Json, SpecError};

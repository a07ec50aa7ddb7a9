//! The stores of engines, read as they lie on disk and without any daemon: Docker's, containers/storage (podman, buildah, skopeo, CRI-O), containerd's.
//!
//! Nothing in a store is ever changed. An engine may change it meanwhile: whatever is read is verified, so that a layer that is being deleted is
//! an error and never a wrong image.
//!
//! * [`DockerStorage`] and [`ContainersStorage`] keep a layer as a folder: its tar is put together while it is read.
//! * [`Containerd`] keeps blobs as they came from a registry, and names in a database.
//!
//! Paths are handed in: where a store is depends on the user, the environment and files in `/etc`.

mod base64;
mod bolt;
mod choose;
mod containerd;
mod containers_storage;
mod disk;
mod docker_storage;
mod folders;
mod lock;
mod storage_conf;
mod tar_split;

pub use bolt::fuzz_bolt;
pub use containerd::{Containerd, containerd_names, open_containerd};
pub use containers_storage::{ContainersStorage, containers_storage_names, open_containers_storage};
pub use docker_storage::{DockerStorage, docker_storage_names, open_docker_storage};
pub use storage_conf::StorageConf;
pub use tar_split::fuzz_tar_split;

use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::spec::{Json, JsonLimits, SpecError, json};

/// Reads a document of a store.
fn parse<T>(bytes: &[u8], limits: &JsonLimits, read: impl FnOnce(Json<'_>) -> Result<T, SpecError>) -> Result<T> {
    json::check(bytes, limits)?;
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(Error::invalid)?;
    Ok(read(Json::of(raw))?)
}

/// Splits `[ROOT]REST`; both may be absent.
fn split_root(text: &str) -> Result<(Option<&str>, Option<String>)> {
    let (root, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (root, rest) = text.split_once(']').ok_or_else(|| Error::invalid("expected a ] after the folder of the store"))?;
            (Some(root).filter(|root| !root.is_empty()), rest)
        }
        None => (None, text),
    };
    Ok((root, Some(rest.to_owned()).filter(|rest| !rest.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::split_root;

    #[test]
    fn roots_in_brackets() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(split_root("[/a/b]c:1").unwrap(), (Some("/a/b"), some("c:1")));
        assert_eq!(split_root("[/a/b]").unwrap(), (Some("/a/b"), None));
        assert_eq!(split_root("[]c").unwrap(), (None, some("c")));
        assert_eq!(split_root("c[d]").unwrap(), (None, some("c[d]")));
        assert_eq!(split_root("").unwrap(), (None, None));
        assert!(split_root("[/a").is_err());
    }
}

//! Test support for longshore: fixtures, images built from text, an independent reader to compare with, and the tools of others.
//!
//! Nothing here uses the library, so that a mistake in it cannot hide in what checks it. Everything panics on failure: it is for tests only.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "this crate is for tests")]

pub mod env;
pub mod facts;
pub mod faulty;
pub mod images;
pub mod oracle;
pub mod peers;
pub mod registry;
pub mod stores;
pub mod tar;

use std::path::{Path, PathBuf};

pub use env::{Ran, TestEnv};

/// The folder of fixtures, `testkit/fixtures`.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// One fixture by its name below `testkit/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    let path = fixtures().join(name);
    assert!(path.exists(), "there is no fixture {name}");
    path
}

/// The SHA-256 digest of `bytes`, `sha256:…`.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// The digits of the SHA-256 digest of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not compress, the same in every run: xorshift from `seed`.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Copies a file or a directory tree, with writable modes.
pub fn copy_tree(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy_tree(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
    }
}

/// Every file below `root` with its bytes, by relative name; one entry named `""` when `root` is a file.
pub fn tree(root: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    fn walk(path: &Path, name: &str, files: &mut std::collections::BTreeMap<String, Vec<u8>>) {
        if path.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                let leaf = entry.file_name().to_string_lossy().into_owned();
                walk(&entry.path(), &if name.is_empty() { leaf } else { format!("{name}/{leaf}") }, files);
            }
        } else {
            files.insert(name.to_owned(), std::fs::read(path).unwrap());
        }
    }
    let mut files = std::collections::BTreeMap::new();
    walk(root, "", &mut files);
    files
}

/// Asserts that two files or directory trees hold the same bytes, naming the first file that differs.
pub fn assert_same_bytes(a: &Path, b: &Path, why: &str) {
    let (left, right) = (tree(a), tree(b));
    let names = |files: &std::collections::BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&left), names(&right), "{why}: {} and {} do not hold the same files", a.display(), b.display());
    for (name, bytes) in &left {
        let other = &right[name];
        let at = bytes.iter().zip(other).position(|(x, y)| x != y).unwrap_or(bytes.len().min(other.len()));
        assert!(
            bytes == other,
            "{why}: {} and {} differ in {name:?} at byte {at} ({} and {} bytes)",
            a.display(),
            b.display(),
            bytes.len(),
            other.len()
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_fixture_is_described() {
        let readme = std::fs::read_to_string(super::fixture("README.md")).unwrap();
        for entry in std::fs::read_dir(super::fixture("from")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let family = name.split('-').next().unwrap();
            assert!(
                readme.contains(&format!("`from/{name}")) || readme.contains(&format!("`from/{family}-*")),
                "fixtures/README.md is silent about {name}"
            );
        }
    }
}

//! Layers as changesets: what is in the tar of one, beyond its bytes.
//!
//! `build` makes a layer out of files of this machine; `tree` is what layers make together, and `merge` what of them makes one layer.

pub mod build;
pub mod merge;
pub mod tree;

pub use build::{Build, BuildOptions, Mapping};

#[cfg(test)]
mod tests;

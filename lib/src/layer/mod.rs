//! Layers as changesets: what is in the tar of one, beyond its bytes.
//!
//! `build` makes a layer out of files of this machine.

pub mod build;

pub use build::{Build, BuildOptions, Mapping};

#[cfg(test)]
mod tests;

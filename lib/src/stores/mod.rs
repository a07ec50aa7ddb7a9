//! The stores of engines, read as they lie on disk, without any daemon.
mod base64;
mod tar_split;
pub use tar_split::fuzz_tar_split;

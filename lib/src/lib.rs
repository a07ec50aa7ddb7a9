//! Save, load, convert and check container images as archives, without a daemon.
//!
//! Bytes flow one way: source → catalog → plan → run → seal → sink. Catalog, plan and seal are plain data or pure functions; only source, run
//! and sink do I/O.

pub mod compress;
pub mod digest;
pub mod error;
pub mod limits;
pub mod reference;
pub mod spec;
pub mod tar;

pub use digest::{DiffId, Digest};
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;

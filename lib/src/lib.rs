//! Save, load, convert and check container images as archives, without a daemon.
//!
//! Bytes flow one way: source → catalog → plan → run → seal → sink. Catalog, plan and seal are plain data or pure functions; only source, run
//! and sink do I/O.

pub mod catalog;
pub mod compress;
pub mod context;
pub mod digest;
pub mod error;
pub mod format;
pub mod limits;
pub mod pool;
pub mod reference;
pub mod sink;
pub mod source;
pub mod spec;
pub mod spool;
pub mod tar;
pub mod transport;

pub use digest::{DiffId, Digest};
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;

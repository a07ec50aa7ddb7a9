//! Save, load, convert and check container images as archives, without a daemon.
//!
//! Bytes flow one way: source → catalog → plan → run → seal → sink. Catalog, plan and seal are plain data or pure functions; only source, run
//! and sink do I/O.
//!
//! ```no_run
//! use longshore::context::Context;
//! use longshore::format::WriteOptions;
//! use longshore::location::{self, Access, Location, OpenOptions};
//! use longshore::plan::{ConvertOptions, convert};
//!
//! let ctx = Context::new(2, std::env::temp_dir());
//! let to = Location::parse_destination("oci-archive:app.oci.tar")?;
//! let options = WriteOptions::default();
//! let sink = location::create(&to, &options, false, &Access::default(), &ctx)?;
//! let source = location::open(&Location::parse_source("app.tar")?, &OpenOptions::default(), &ctx)?;
//! let plan = convert(source.catalog(), &to.accepts(&options)?, &ConvertOptions::default())?;
//! let report = longshore::run::run(&plan, source.as_ref(), sink, &ctx)?;
//! println!("{} images, {} bytes read", report.images.len(), report.bytes_read);
//! # Ok::<(), longshore::Error>(())
//! ```

pub mod assemble;
mod beneath;
pub mod catalog;
pub mod compress;
pub mod context;
pub mod digest;
pub mod engines;
pub mod error;
pub mod export;
pub mod format;
pub mod http;
pub mod layer;
pub mod limits;
pub mod location;
pub mod look;
mod near;
pub mod plan;
pub mod pool;
pub mod reference;
pub mod registry;
pub mod run;
pub mod seal;
pub mod sink;
pub mod source;
pub mod spec;
pub mod spool;
pub mod stores;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod tree;
pub mod unpack;
pub mod validate;

pub use digest::{DiffId, Digest};
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;

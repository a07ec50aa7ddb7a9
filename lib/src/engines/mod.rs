//! Engines that run on the machine: docker's and podman's daemons over their sockets, podman's and containerd's programs.
//!
//! Whatever they are, an archive goes in and out: a source is the archive that the engine saves, kept beside the output, and a sink is an
//! archive that is written while the engine reads it. Nothing of an image is visible in an engine before the whole archive has arrived.
//!
//! ```text
//! docker-daemon:REF   GET  /images/get?names=REF   -> spool -> docker-archive
//! docker-daemon:      POST /images/load            <- docker-archive, as it is written
//! podman, containerd  podman load, ctr import      <- an archive on standard input, as it is written
//! ```

mod api;
pub mod docker;
mod load;
pub mod podman;
mod program;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub use api::Engine;
pub use program::Program;

use crate::catalog::{BlobId, Catalog};
use crate::context::Cancel;
use crate::error::Result;
use crate::reference::Reference;
use crate::sink::{BlobWriter, Committed, Expected, Order, Sealed, Sink, Written};
use crate::source::Source;

/// The archive that an engine gave, under the engine's name.
struct FromEngine {
    archive: Arc<dyn Source>,
    label: String,
}

impl Source for FromEngine {
    fn catalog(&self) -> &Catalog {
        self.archive.catalog()
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        self.archive.open(blob, from)
    }

    fn file(&self, blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        self.archive.file(blob)
    }

    fn describe(&self) -> String {
        self.label.clone()
    }

    fn spooled(&self) -> u64 {
        self.archive.spooled()
    }
}

/// When a run wants to stop: it says so after its sink was made.
type Late = Arc<OnceLock<Cancel>>;

/// The archive that an engine gets, under the engine's name.
struct ToEngine {
    archive: Box<dyn Sink>,
    late: Late,
    name: &'static str,
}

impl Sink for ToEngine {
    fn order(&self) -> Order {
        self.archive.order()
    }

    fn begin(&mut self, expected: Expected, cancel: &Cancel) -> Result<Vec<usize>> {
        // Who writes waits no longer than the run does.
        let _ = self.late.set(cancel.clone());
        self.archive.begin(expected, cancel)
    }

    fn held(&self, blob: usize, origin: Option<&Reference>) -> Result<Option<Written>> {
        self.archive.held(blob, origin)
    }

    fn put(&self, blob: usize) -> Result<Box<dyn BlobWriter + '_>> {
        self.archive.put(blob)
    }

    fn commit(self: Box<Self>, sealed: &Sealed) -> Result<Committed> {
        self.archive.commit(sealed)
    }

    fn describe(&self) -> String {
        self.name.to_owned()
    }
}

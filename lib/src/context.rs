//! What the caller hands in from the outside world: when to stop, where temporary files go, how to show progress.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pool::{CHUNK, Pool};

/// A request to stop, shared by everybody who may wait.
///
/// A child stops with its parent, and can be stopped alone: a run cancels its own lanes at the first failure.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    parents: Vec<Arc<AtomicBool>>,
}

impl Cancel {
    /// Follows a flag that somebody else sets, such as one that a signal sets.
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self { own: flag, parents: Vec::new() }
    }

    /// One that is also cancelled whenever `self` is.
    #[must_use]
    pub fn child(&self) -> Self {
        let parents = self.parents.iter().chain([&self.own]).cloned().collect();
        Self { own: Arc::default(), parents }
    }

    /// Asks everybody to stop.
    pub fn cancel(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.own.load(Ordering::Relaxed) || self.parents.iter().any(|flag| flag.load(Ordering::Relaxed))
    }

    /// An error once somebody asked to stop; called wherever a thread may spend long.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn poll(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Waits, and looks all the while whether somebody asked to stop.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.poll()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

/// How often whoever waits looks whether to stop: not noticed by people, and nothing for a processor.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// Is told how far the work is. Called from several threads; every call must return at once.
pub trait Progress: Send + Sync {
    /// Work on `task` begins: what it is, and how many bytes it reads if that is known.
    fn begin(&self, _task: usize, _label: &str, _total: Option<u64>) {}
    /// `task` has read `bytes` more.
    fn advance(&self, _task: usize, _bytes: u64) {}
    /// `task` is done.
    fn end(&self, _task: usize) {}
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// The outside world of an operation.
pub struct Context {
    /// How much is taken from outside.
    pub limits: Limits,
    /// Where temporary files go when the output is no place for them.
    pub temp: PathBuf,
    /// When to stop.
    pub cancel: Cancel,
    /// The threads that digest and compress, shared by all runs of the process.
    pub pool: Arc<Pool>,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl Context {
    /// A context with `threads` threads that keeps temporary files in `temp`, with default limits and nobody watching.
    pub fn new(threads: usize, temp: PathBuf) -> Self {
        Self { limits: Limits::default(), temp, cancel: Cancel::default(), pool: Arc::new(Pool::new(threads)), progress: Arc::new(Silent) }
    }

    /// The digest of all that `from` gives; a request to stop is noticed between its chunks.
    pub(crate) fn digest(&self, from: &mut impl Read, algorithm: Algorithm) -> Result<Digest> {
        let mut digest = self.pool.digest(algorithm);
        loop {
            self.cancel.poll()?;
            let chunk = self.pool.read(from, CHUNK)?;
            if chunk.is_empty() {
                return Ok(digest.finish());
            }
            digest.update(Arc::new(chunk));
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("limits", &self.limits).field("temp", &self.temp).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stops_with_its_parent_but_not_the_reverse() {
        let parent = Cancel::default();
        let child = parent.child();
        child.cancel();
        assert!(child.is_cancelled() && !parent.is_cancelled());
        let other = parent.child().child();
        parent.cancel();
        assert!(other.poll().is_err());
    }
}

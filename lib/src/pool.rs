//! The threads that digest and compress: one pool for all runs of a process.
//!
//! Whoever moves bytes (a lane of a run, an archive that is compressed as a whole) owns the waiting: it reads, decodes and writes on its own
//! thread and hands full buffers here. A job of the pool never waits for anything but the processor, so the pool cannot deadlock, and what
//! is in flight is bounded by those who wait.
//!
//! SHA-256 is serial within a stream. A [`DigestStream`] therefore is a queue of shared buffers that at most one worker drains at a time;
//! several streams are drained side by side. That the buffers are owned and queued is what allows one worker to take several streams into
//! SIMD lanes.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::compress::{BlockEncoder, Encoding};
use crate::digest::{Algorithm, Digest, Digester};
use crate::error::{Error, Result};

/// Bytes of a buffer that carries stored or decoded bytes: large enough to make a job worth its switch, small enough for the caches.
pub const CHUNK: usize = 256 << 10;

/// Bytes that wait in one digest stream before its feeder has to.
const DIGEST_QUEUE: usize = 1 << 20;

/// Bytes of free buffers that are kept. Fresh ones cost page faults, at 1 GB/s as much as digesting.
const KEPT: usize = 16 << 20;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;
type FreeList = Arc<Mutex<Vec<Vec<u8>>>>;

/// Does `work` for every number below `count` on so many threads, and gives what came out in order.
pub(crate) fn side_by_side<T: Send>(threads: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1).min(count) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(place) = done.get(at) else { break };
                    let made = work(at);
                    *lock(place) = Some(made);
                }
            });
        }
    });
    let done = done.into_iter().map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner));
    done.map(|made| made.expect("every number was taken, and the scope has waited")).collect()
}

/// What one thread of the pool keeps between jobs.
#[derive(Default)]
struct Worker {
    encoders: Vec<(Encoding, BlockEncoder)>,
}

/// Threads, and buffers that are used again.
pub struct Pool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    free: FreeList,
    /// Held by every block that is being compressed, to count them.
    encoding: Arc<()>,
}

impl Pool {
    /// Starts `threads` threads, at least one.
    pub fn new(threads: usize) -> Self {
        let (jobs, inbox) = unbounded::<Job>();
        let threads = (0..threads.max(1))
            .map(|_| {
                let inbox: Receiver<Job> = inbox.clone();
                std::thread::spawn(move || {
                    let mut worker = Worker::default();
                    for job in inbox {
                        job(&mut worker);
                    }
                })
            })
            .collect();
        Self { jobs: Some(jobs), threads, free: FreeList::default(), encoding: Arc::default() }
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// An empty buffer with room for exactly `capacity` bytes.
    pub fn buffer(&self, capacity: usize) -> Buffer {
        let mut buffer = self.used_or_new(capacity);
        buffer.data.clear();
        buffer
    }

    /// A buffer with the next `capacity` bytes of `from`, or all up to its end.
    ///
    /// # Errors
    /// Those of `from`, but for interrupted reads, which are repeated.
    pub fn read(&self, from: &mut impl Read, capacity: usize) -> Result<Buffer> {
        let mut buffer = self.used_or_new(capacity);
        // What a buffer held before is as good as zeros: only a new one is filled with them.
        buffer.data.resize(capacity, 0);
        let mut filled = 0;
        while filled < capacity {
            match from.read(&mut buffer.data[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(error)),
            }
        }
        buffer.data.truncate(filled);
        Ok(buffer)
    }

    fn used_or_new(&self, capacity: usize) -> Buffer {
        let mut free = lock(&self.free);
        let at = free.iter().rposition(|data| data.capacity() == capacity);
        let data = at.map(|at| free.swap_remove(at));
        drop(free);
        Buffer { data: data.unwrap_or_else(|| Vec::with_capacity(capacity)), home: Arc::clone(&self.free) }
    }

    /// Does `work` for every number below `count`, on as many threads as the pool has and apart from them, and gives what came out in order.
    pub(crate) fn side_by_side<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        side_by_side(self.threads(), count, work)
    }

    /// Begins a digest.
    pub fn digest(self: &Arc<Self>, algorithm: Algorithm) -> Box<dyn DigestStream> {
        let queue = Queue { waiting: VecDeque::new(), draining: false, digester: Some(Digester::new(algorithm)) };
        Box::new(PooledDigest { shared: Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() }), pool: Arc::clone(self) })
    }

    /// Compresses one block in the background.
    pub fn encode(&self, encoding: Encoding, block: Arc<Buffer>) -> Pending {
        let (done, result) = bounded(1);
        // Room for what does not compress, so that it never grows.
        let mut out = self.buffer(encoding.block_size() + encoding.block_size() / 64 + 1024);
        self.spawn(Box::new(move |worker| {
            let encoded = worker.encode(encoding, &block, &mut out.data).map(|()| out);
            // Nobody waits any more when the run was cancelled.
            let _ = done.send(encoded);
        }));
        Pending { result, _counted: Arc::clone(&self.encoding) }
    }

    /// Whether more blocks are being compressed than two streams need to keep all threads busy.
    fn is_crowded(&self) -> bool {
        Arc::strong_count(&self.encoding) > 2 * (self.threads() + 1) + 1
    }

    fn spawn(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("the sender is taken only when the pool is dropped");
        assert!(jobs.send(job).is_ok(), "the workers run as long as the pool holds its sender");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner may be a job, and then this is a worker: it cannot wait for itself.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Worker {
    fn encode(&mut self, encoding: Encoding, block: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let at = match self.encoders.iter().position(|(kept, _)| *kept == encoding) {
            Some(at) => at,
            None => {
                // A process compresses one way at a time; keeping more would only hold memory.
                self.encoders.clear();
                self.encoders.push((encoding, encoding.encoder()));
                0
            }
        };
        self.encoders[at].1.encode(block, out)
    }
}

/// Bytes in a buffer that returns to its pool when nobody needs it any more.
pub struct Buffer {
    data: Vec<u8>,
    home: FreeList,
}

impl Buffer {
    /// The bytes, to be filled.
    pub fn data_mut(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = lock(&self.home);
        if free.iter().map(Vec::capacity).sum::<usize>() < KEPT {
            free.push(std::mem::take(&mut self.data));
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.data.len())
    }
}

/// A block that is being compressed.
#[derive(Debug)]
pub struct Pending {
    result: Receiver<Result<Buffer>>,
    _counted: Arc<()>,
}

impl Pending {
    /// Waits for the compressed block.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn wait(self) -> Result<Buffer> {
        self.result.recv().unwrap_or_else(|_| Err(Error::new(crate::ErrorKind::Io, "a compressing thread ended unexpectedly")))
    }
}

/// Compresses a stream block by block on the pool, in order.
#[derive(Debug)]
pub struct ParallelEncoder {
    pool: Arc<Pool>,
    encoding: Encoding,
    pending: VecDeque<Pending>,
    any: bool,
}

impl ParallelEncoder {
    /// Begins a stream.
    pub fn new(pool: &Arc<Pool>, encoding: Encoding) -> Self {
        Self { pool: Arc::clone(pool), encoding, pending: VecDeque::new(), any: false }
    }

    /// Bytes that every block but the last must have: the output depends on them and on nothing else.
    pub fn block_size(&self) -> usize {
        self.encoding.block_size()
    }

    /// Takes the next block, and gives what is ready to `out`.
    ///
    /// # Errors
    /// Those of the encoder and of `out`.
    pub fn push(&mut self, block: Arc<Buffer>, out: &mut dyn FnMut(Arc<Buffer>) -> Result<()>) -> Result<()> {
        self.any = true;
        self.pending.push_back(self.pool.encode(self.encoding, block));
        // One block for each thread, and one that is ready when a thread gets free. Of many streams each has fewer: memory counts them all.
        while self.pending.len() > self.pool.threads() + 1 || (self.pending.len() > 1 && self.pool.is_crowded()) {
            self.pop(out)?;
        }
        Ok(())
    }

    /// Takes the last block, which may be empty, and gives all that is left to `out`.
    ///
    /// # Errors
    /// Those of the encoder and of `out`.
    pub fn finish(&mut self, last: Arc<Buffer>, out: &mut dyn FnMut(Arc<Buffer>) -> Result<()>) -> Result<()> {
        // A stream of no bytes is one empty block, not nothing.
        if !last.is_empty() || !self.any {
            self.push(last, out)?;
        }
        while !self.pending.is_empty() {
            self.pop(out)?;
        }
        Ok(())
    }

    fn pop(&mut self, out: &mut dyn FnMut(Arc<Buffer>) -> Result<()>) -> Result<()> {
        match self.pending.pop_front() {
            Some(block) => out(Arc::new(block.wait()?)),
            None => Ok(()),
        }
    }
}

/// A digest over buffers that come one by one and are owned together with others.
pub trait DigestStream: Send {
    /// Takes the next bytes; waits while too many wait already.
    fn update(&mut self, bytes: Arc<Buffer>);
    /// Waits for the digest of all bytes taken.
    fn finish(self: Box<Self>) -> Digest;
}

impl fmt::Debug for dyn DigestStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestStream")
    }
}

struct PooledDigest {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    waiting: VecDeque<Arc<Buffer>>,
    /// Whether a job of the pool drains this queue, or will.
    draining: bool,
    /// Out while it is being fed.
    digester: Option<Digester>,
}

impl DigestStream for PooledDigest {
    fn update(&mut self, bytes: Arc<Buffer>) {
        if bytes.is_empty() {
            return;
        }
        let mut queue = lock(&self.shared.queue);
        while queue.waiting.iter().map(|waiting| waiting.len()).sum::<usize>() >= DIGEST_QUEUE {
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.waiting.push_back(bytes);
        if !queue.draining {
            queue.draining = true;
            let shared = Arc::clone(&self.shared);
            self.pool.spawn(Box::new(move |_| shared.drain()));
        }
    }

    fn finish(self: Box<Self>) -> Digest {
        let mut queue = lock(&self.shared.queue);
        while queue.draining {
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.digester.take().expect("it is back whenever nobody drains").finish()
    }
}

impl Shared {
    fn drain(&self) {
        let mut queue = lock(&self.queue);
        let mut digester = queue.digester.take().expect("one job at a time drains a queue");
        while let Some(bytes) = queue.waiting.pop_front() {
            drop(queue);
            self.changed.notify_one();
            digester.update(&bytes);
            drop(bytes);
            queue = lock(&self.queue);
        }
        queue.digester = Some(digester);
        queue.draining = false;
        drop(queue);
        self.changed.notify_one();
    }
}

/// Locks, also after a panic elsewhere: what the mutexes of this crate guard is valid between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(pool: &Pool, bytes: &[u8]) -> Arc<Buffer> {
        let mut buffer = pool.buffer(bytes.len());
        buffer.data_mut().extend_from_slice(bytes);
        Arc::new(buffer)
    }

    #[test]
    fn streams_side_by_side_give_each_its_own_digest() {
        let pool = Arc::new(Pool::new(2));
        let mut streams: Vec<_> = (0..8).map(|_| pool.digest(Algorithm::Sha256)).collect();
        let mut all = vec![Vec::new(); streams.len()];
        for round in 0..50_usize {
            for (at, stream) in streams.iter_mut().enumerate() {
                let bytes = vec![(round * 7 + at) as u8; round * 11 + at];
                all[at].extend_from_slice(&bytes);
                stream.update(buffer(&pool, &bytes));
            }
        }
        for (stream, bytes) in streams.into_iter().zip(all) {
            assert_eq!(stream.finish(), Digest::of(&bytes));
        }
    }

    #[test]
    fn work_side_by_side_comes_out_in_order() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            assert_eq!(pool.side_by_side(50, |at| at * at), (0..50).map(|at| at * at).collect::<Vec<_>>());
            assert!(pool.side_by_side(0, |at| at).is_empty());
        }
    }

    #[test]
    fn buffers_come_back() {
        let pool = Pool::new(1);
        let first = buffer(&pool, &[1; 1000]);
        let address = first.as_ptr();
        drop(first);
        let again = pool.buffer(1000);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
    }

    fn encoded(threads: usize, encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let pool = Arc::new(Pool::new(threads));
        let mut encoder = ParallelEncoder::new(&pool, encoding);
        let mut made = Vec::new();
        let mut out = |block: Arc<Buffer>| {
            made.extend_from_slice(&block);
            Ok(())
        };
        let size = encoder.block_size();
        let whole = bytes.len() / size * size;
        for block in bytes[..whole].chunks(size) {
            encoder.push(buffer(&pool, block), &mut out).unwrap();
        }
        encoder.finish(buffer(&pool, &bytes[whole..]), &mut out).unwrap();
        made
    }

    #[test]
    fn threads_do_not_show_in_what_is_encoded() {
        let size = Encoding::default().block_size();
        let all = [longshore_testkit::noise(size * 3 + 77, 1), vec![3; size * 3]].concat();
        for text in ["gzip", "gzip:9", "zstd", "zstd:7"] {
            let encoding: Encoding = text.parse().unwrap();
            for bytes in [&all[..], &all[..size], &all[..0], &all[..1], &all[..encoding.block_size() * 2]] {
                let one = encoded(1, encoding, bytes);
                assert!(longshore_testkit::facts::unpack(&one) == bytes, "{text} of {} bytes", bytes.len());
                for threads in [2, 8] {
                    assert!(encoded(threads, encoding, bytes) == one, "{text} of {} bytes with {threads} threads", bytes.len());
                }
            }
        }
    }

    #[test]
    fn a_failing_writer_ends_a_stream() {
        let pool = Arc::new(Pool::new(2));
        let mut encoder = ParallelEncoder::new(&pool, Encoding::default());
        let error = encoder.finish(buffer(&pool, b"x"), &mut |_| Err(Error::cancelled())).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
    }

    #[test]
    fn digests_of_nothing_and_of_much() {
        let pool = Arc::new(Pool::new(1));
        assert_eq!(pool.digest(Algorithm::Sha256).finish(), Digest::of(b""));
        let mut stream = pool.digest(Algorithm::Sha512);
        let chunk = buffer(&pool, &[1; 100_000]);
        (0..50).for_each(|_| stream.update(Arc::clone(&chunk)));
        let mut digester = Digester::new(Algorithm::Sha512);
        digester.update(&vec![1; 5_000_000]);
        assert_eq!(stream.finish(), digester.finish());
    }
}

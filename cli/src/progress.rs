//! Progress on standard error: bars for people, a line now and then for logs, JSON lines for programs.
//!
//! All three take calls from several threads and return at once; nothing here decides anything.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use longshore::catalog::Known;
use longshore::context::Progress;
use serde::Serialize;

use crate::text;

/// How often a log gets a line.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// How often a program hears of one task.
const EVENT_EVERY: Duration = Duration::from_millis(100);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere is no reason to stop showing progress.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that will be done, as far as it is known before.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// How many tasks.
    pub(crate) tasks: usize,
    /// How many bytes they read together, if all say so.
    pub(crate) bytes: Option<u64>,
}

impl Work {
    /// Adds up what is known of blobs.
    pub(crate) fn of<'a>(blobs: impl ExactSizeIterator<Item = &'a Known>) -> Self {
        Self { tasks: blobs.len(), bytes: blobs.map(|known| known.size).sum() }
    }
}

/// A bar for every task at work and one for all, gone at the end.
pub(crate) struct Bars {
    multi: MultiProgress,
    all: ProgressBar,
    tasks: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl Bars {
    pub(crate) fn new(work: Work) -> Self {
        let multi = MultiProgress::new();
        let all = multi.add(ProgressBar::new(work.bytes.unwrap_or(0)).with_style(style(work.bytes.is_some())));
        all.set_message("total");
        Self { multi, all, tasks: Mutex::default() }
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{msg:28!} {wide_bar} {decimal_bytes:>10} / {decimal_total_bytes:<10} {decimal_bytes_per_sec:>12} {eta:>4}"
    } else {
        "{msg:28!} {spinner} {decimal_bytes:>10} {decimal_bytes_per_sec:>12}"
    };
    // A template that does not parse shows as the default bar; the test below keeps it from coming to that.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// A label that fits beside a bar: of every digest only as much as engines show.
fn brief(label: &str) -> String {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let mut brief = String::new();
    let mut rest = label;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_hex(c)).unwrap_or(rest.len()));
        brief.push_str(if word.len() >= 32 { &word[..12] } else { word });
        let (other, after) = after.split_at(after.find(is_hex).unwrap_or(after.len()));
        brief.push_str(other);
        rest = after;
    }
    text::shown(brief.strip_suffix("/layer.tar").unwrap_or(&brief)).replace("blobs/sha256/", "")
}

impl Progress for Bars {
    fn begin(&self, task: usize, label: &str, total: Option<u64>) {
        let bar = ProgressBar::new(total.unwrap_or(0)).with_style(style(total.is_some())).with_message(brief(label));
        let bar = self.multi.insert_before(&self.all, bar);
        if let Some(old) = lock(&self.tasks).insert(task, bar) {
            old.finish_and_clear();
        }
    }

    fn advance(&self, task: usize, bytes: u64) {
        if let Some(bar) = lock(&self.tasks).get(&task) {
            bar.inc(bytes);
            self.all.inc(bytes);
        }
    }

    fn end(&self, task: usize) {
        if let Some(bar) = lock(&self.tasks).remove(&task) {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for bar in lock(&self.tasks).values() {
            bar.finish_and_clear();
        }
        self.all.finish_and_clear();
    }
}

/// A line every few seconds, for logs.
pub(crate) struct Plain<W>(Mutex<PlainState<W>>);

struct PlainState<W> {
    out: W,
    started: Instant,
    last: Instant,
    work: Work,
    ended: usize,
    bytes: u64,
}

impl<W: Write + Send> Plain<W> {
    pub(crate) fn new(out: W, work: Work) -> Self {
        let now = Instant::now();
        Self(Mutex::new(PlainState { out, started: now, last: now, work, ended: 0, bytes: 0 }))
    }
}

impl<W: Write + Send> PlainState<W> {
    fn line(&mut self, now: Instant) {
        self.last = now;
        let rate = text::rate(self.bytes, now - self.started).map(|rate| format!(" ({rate})")).unwrap_or_default();
        let all = self.work.bytes.map(|bytes| format!(" of {}", text::bytes(bytes))).unwrap_or_default();
        let line =
            format!("read {}{all}{rate}, {} of {} done\n", text::bytes(self.bytes), self.ended, text::count(self.work.tasks, "blob"));
        // Nobody can be told that standard error is gone.
        let _ = self.out.write_all(line.as_bytes());
    }
}

impl<W: Write + Send> Progress for Plain<W> {
    fn advance(&self, _task: usize, bytes: u64) {
        let mut state = lock(&self.0);
        state.bytes += bytes;
        let now = Instant::now();
        if now - state.last >= LINE_EVERY {
            state.line(now);
        }
    }

    fn end(&self, _task: usize) {
        lock(&self.0).ended += 1;
    }
}

/// One JSON document a line, for programs. The documents are described in docs/JSON.md.
pub(crate) struct JsonLines<W>(Mutex<JsonState<W>>);

struct JsonState<W> {
    out: W,
    tasks: BTreeMap<usize, Task>,
}

struct Task {
    label: String,
    total: Option<u64>,
    bytes: u64,
    last: Instant,
}

#[derive(Serialize)]
struct Event<'a> {
    event: &'a str,
    task: usize,
    label: &'a str,
    bytes: u64,
    total: Option<u64>,
}

impl<W: Write + Send> JsonLines<W> {
    pub(crate) fn new(out: W) -> Self {
        Self(Mutex::new(JsonState { out, tasks: BTreeMap::new() }))
    }
}

fn emit(out: &mut impl Write, event: &str, task: usize, of: &Task) {
    let event = Event { event, task, label: &of.label, bytes: of.bytes, total: of.total };
    let mut line = serde_json::to_vec(&event).expect("a struct of numbers and texts is JSON");
    line.push(b'\n');
    let _ = out.write_all(&line);
}

impl<W: Write + Send> Progress for JsonLines<W> {
    fn begin(&self, task: usize, label: &str, total: Option<u64>) {
        let state = &mut *lock(&self.0);
        let new = Task { label: label.to_owned(), total, bytes: 0, last: Instant::now() };
        emit(&mut state.out, "begin", task, &new);
        state.tasks.insert(task, new);
    }

    fn advance(&self, task: usize, bytes: u64) {
        let state = &mut *lock(&self.0);
        let Some(known) = state.tasks.get_mut(&task) else { return };
        known.bytes += bytes;
        if known.last.elapsed() >= EVENT_EVERY {
            known.last = Instant::now();
            emit(&mut state.out, "advance", task, known);
        }
    }

    fn end(&self, task: usize) {
        let state = &mut *lock(&self.0);
        if let Some(done) = state.tasks.remove(&task) {
            emit(&mut state.out, "end", task, &done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse() {
        for known in [true, false] {
            let _ = style(known);
        }
        assert!(
            ProgressStyle::with_template("{msg:28!} {wide_bar} {decimal_bytes:>10} {decimal_bytes_per_sec:>12} {eta:>4} {spinner}").is_ok()
        );
    }

    #[test]
    fn labels_fit_beside_a_bar() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(brief(&format!("layer {hex}/layer.tar")), "layer 0123456789ab");
        assert_eq!(brief(&format!("layer blobs/sha256/{hex}")), "layer 0123456789ab");
        assert_eq!(brief("layer é/deadbeef.tar"), "layer é/deadbeef.tar");
        assert_eq!(brief(""), "");
    }

    #[test]
    fn programs_hear_of_begin_and_end_with_exact_bytes() {
        let lines = JsonLines::new(Vec::new());
        lines.begin(3, "layer \"1\"", Some(10));
        for _ in 0..10 {
            lines.advance(3, 1);
        }
        lines.end(3);
        lines.end(3);
        lines.advance(4, 1);
        let text = String::from_utf8(lock(&lines.0).out.clone()).unwrap();
        assert_eq!(
            text,
            "{\"event\":\"begin\",\"task\":3,\"label\":\"layer \\\"1\\\"\",\"bytes\":0,\"total\":10}\n\
             {\"event\":\"end\",\"task\":3,\"label\":\"layer \\\"1\\\"\",\"bytes\":10,\"total\":10}\n"
        );
    }

    #[test]
    fn logs_get_a_line_only_now_and_then() {
        let plain = Plain::new(Vec::new(), Work { tasks: 3, bytes: Some(2_000_000) });
        plain.begin(0, "layer", None);
        plain.advance(0, 1_500_000);
        assert!(lock(&plain.0).out.is_empty());
        let mut state = lock(&plain.0);
        let later = state.started + LINE_EVERY;
        state.line(later);
        assert_eq!(String::from_utf8(state.out.clone()).unwrap(), "read 1.5 MB of 2.0 MB (500.0 kB/s), 0 of 3 blobs done\n");
    }

    #[test]
    fn bars_survive_any_order_of_calls() {
        let bars = Bars::new(Work::default());
        bars.multi.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        bars.advance(1, 5);
        bars.begin(1, "a", Some(5));
        bars.begin(1, "again", None);
        bars.advance(1, 5);
        bars.end(1);
        bars.end(1);
    }
}

//! How long to wait before something is tried again, and when to give up.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::context::Cancel;
use crate::error::{Error, Result};
use crate::http::Response;

/// How often something is tried.
const ATTEMPTS: u32 = 6;
/// The first wait; each is twice the one before, more or less.
const FIRST: Duration = Duration::from_millis(300);
/// The longest that a registry may ask to wait; with more, whoever waits should know.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether an answer says that another try may help: "too many requests", time-outs and failures of the server, or of what stands before it.
pub(super) fn is_busy(status: u16) -> bool {
    // That it cannot do something (501), or not in this version of HTTP (505), will stay so.
    matches!(status, 408 | 429 | 500..=599) && !matches!(status, 501 | 505)
}

/// What came of an attempt.
pub(super) enum Attempt<T> {
    /// It went well.
    Done(T),
    /// It failed in a way that may pass; how long the other side asks to wait.
    Lost(Error, Option<Duration>),
}

/// How long an answer asks to wait (RFC 9110, 10.2.3): seconds, or a date, which is held against the date of the answer.
pub(super) fn asked_to_wait(response: &Response) -> Option<Duration> {
    let text = response.header("retry-after")?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp().as_second());
    let seconds = date(text)? - date(response.header("date")?)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Counts failures in a row, and waits after each.
pub(super) struct Backoff {
    cancel: Cancel,
    /// How long failures in a row may take, from the first to the last: half of what silence alone may take.
    patience: Duration,
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    /// Whether something went well since the last failure.
    progress: bool,
}

impl Backoff {
    pub(super) fn new(cancel: &Cancel, idle: Duration) -> Self {
        Self { cancel: cancel.clone(), patience: idle / 2, failures: 0, since: None, progress: false }
    }

    /// For attempts that have much to do before they fail: how long they take says nothing.
    pub(super) fn of_work(self) -> Self {
        Self { patience: Duration::MAX, ..self }
    }

    /// Begins to count anew: something went well.
    pub(super) fn reset(&mut self) {
        (self.failures, self.since, self.progress) = (0, None, true);
    }

    /// Waits after a failure, as long as the other side asked for or else longer each time. Gives the failure back when it was the last that
    /// is borne. Silence is waited for once, and once more where something had come before it.
    pub(super) fn wait(&mut self, error: Error, asked: Option<Duration>) -> Result<()> {
        self.failures += 1;
        let now = Instant::now();
        let too_long = now - *self.since.get_or_insert(now) >= self.patience && self.failures > 1;
        let too_silent = error.is_silence() && !self.progress;
        self.progress = false;
        if self.failures >= ATTEMPTS || too_long || too_silent {
            return Err(if self.failures > 1 { error.frame(format_args!("after {} attempts", self.failures)) } else { error });
        }
        if let Some(asked) = asked.filter(|asked| *asked > LONGEST) {
            return Err(error.hint(format_args!("it asks to be left alone for {} seconds", asked.as_secs())));
        }
        let own = FIRST * 2_u32.pow(self.failures - 1);
        let wait = asked.unwrap_or_default().max(jitter(own));
        // Only what the other side takes counts.
        self.since = self.since.map(|since| since + wait);
        self.cancel.sleep(wait)
    }
}

/// Between half as long and as long, so that those who failed together do not come back together.
fn jitter(wait: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    wait / 2 + wait / 2 * u32::try_from(random % 1000).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn busy() -> Error {
        Error::new(ErrorKind::Unavailable, "busy")
    }

    #[test]
    fn it_gives_up_after_some_attempts() {
        let cancel = Cancel::default();
        let mut backoff = Backoff::new(&cancel, Duration::from_secs(60));
        backoff.wait(busy(), None).unwrap();
        backoff.failures = ATTEMPTS - 1;
        assert_eq!(backoff.wait(busy(), None).unwrap_err().to_string(), "after 6 attempts: busy");
        backoff.reset();
        let error = backoff.wait(busy(), Some(Duration::from_secs(3600))).unwrap_err();
        assert_eq!(error.hint_text(), Some("it asks to be left alone for 3600 seconds"));
        cancel.cancel();
        backoff.reset();
        assert_eq!(backoff.wait(busy(), None).unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn silence_is_borne_once_more_only_where_something_came_before_it() {
        let silence = || Error::silence("no answer for a second");
        let mut backoff = Backoff::new(&Cancel::default(), Duration::from_secs(60));
        assert_eq!(backoff.wait(silence(), None).unwrap_err().to_string(), "no answer for a second");
        backoff.reset();
        backoff.wait(silence(), None).unwrap();
        assert_eq!(backoff.wait(silence(), None).unwrap_err().to_string(), "after 2 attempts: no answer for a second");
    }

    #[test]
    fn failures_that_take_their_time_are_fewer() {
        let mut backoff = Backoff::new(&Cancel::default(), Duration::from_millis(300));
        // However long the first took: nobody knows how much of it was work.
        backoff.wait(busy(), None).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(backoff.wait(busy(), None).unwrap_err().to_string(), "after 2 attempts: busy");
        // What was asked for, and what we wait by ourselves, does not count.
        backoff.reset();
        backoff.wait(busy(), Some(Duration::from_millis(500))).unwrap();
        backoff.wait(busy(), None).unwrap();
    }

    #[test]
    fn what_may_pass() {
        let busy: Vec<u16> = (100..1000).filter(|status| is_busy(*status)).collect();
        assert_eq!(busy.len(), 100);
        assert!([408, 429, 500, 503, 507, 520, 599].iter().all(|status| busy.contains(status)), "{busy:?}");
    }

    #[test]
    fn what_is_asked_for_is_waited() {
        let cancel = Cancel::default();
        let started = Instant::now();
        let asked = Duration::from_millis(700);
        Backoff::new(&cancel, Duration::from_millis(100)).wait(busy(), Some(asked)).unwrap();
        assert!(started.elapsed() >= asked);
        for _ in 0..100 {
            let wait = jitter(FIRST);
            assert!(wait >= FIRST / 2 && wait <= FIRST, "{wait:?}");
        }
    }
}

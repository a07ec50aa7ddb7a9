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
/// How often a request to stop is looked for.
const SLICE: Duration = Duration::from_millis(50);

/// Whether an answer says that another try may help: "too many requests", time-outs and failures of the server.
pub(super) fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
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
pub(super) struct Backoff<'a> {
    cancel: &'a Cancel,
    /// A silence this long is not waited for again.
    idle: Duration,
    failures: u32,
    since: Instant,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(cancel: &'a Cancel, idle: Duration) -> Self {
        Self { cancel, idle, failures: 0, since: Instant::now() }
    }

    /// Begins to count anew: something went well.
    pub(super) fn reset(&mut self) {
        (self.failures, self.since) = (0, Instant::now());
    }

    /// Waits after a failure, as long as the other side asked for or else longer each time. Gives the failure back when it was the last that
    /// is borne.
    pub(super) fn wait(&mut self, error: Error, asked: Option<Duration>) -> Result<()> {
        self.failures += 1;
        // Silence was borne once already: twice would be minutes.
        if self.failures >= ATTEMPTS || self.since.elapsed() >= self.idle {
            return Err(if self.failures > 1 { error.frame(format_args!("after {} attempts", self.failures)) } else { error });
        }
        if let Some(asked) = asked.filter(|asked| *asked > LONGEST) {
            return Err(error.hint(format_args!("it asks to be left alone for {} seconds", asked.as_secs())));
        }
        let own = FIRST * 2_u32.pow(self.failures - 1);
        let until = Instant::now() + asked.unwrap_or_default().max(jitter(own));
        // The time that was asked for is nobody's silence.
        self.since += asked.unwrap_or_default();
        while Instant::now() < until {
            self.cancel.poll()?;
            std::thread::sleep(SLICE.min(until.saturating_duration_since(Instant::now())));
        }
        self.cancel.poll()
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
    fn it_gives_up_after_some_attempts_or_a_long_silence() {
        let cancel = Cancel::default();
        let mut backoff = Backoff::new(&cancel, Duration::from_secs(60));
        backoff.wait(busy(), None).unwrap();
        backoff.failures = ATTEMPTS - 1;
        assert_eq!(backoff.wait(busy(), None).unwrap_err().to_string(), "after 6 attempts: busy");
        backoff.reset();
        let error = backoff.wait(busy(), Some(Duration::from_secs(3600))).unwrap_err();
        assert_eq!(error.hint_text(), Some("it asks to be left alone for 3600 seconds"));
        let mut silent = Backoff::new(&cancel, Duration::ZERO);
        assert_eq!(silent.wait(busy(), None).unwrap_err().to_string(), "busy");
        cancel.cancel();
        backoff.reset();
        assert_eq!(backoff.wait(busy(), None).unwrap_err().kind(), ErrorKind::Cancelled);
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

//! SIGINT and SIGTERM: the first asks everybody to stop and leave nothing behind, the second ends the process at once.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use longshore::context::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What the signals set.
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    code: Arc<AtomicUsize>,
}

/// A signal stopped the operation; holds the exit code.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) u8);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

impl Signals {
    /// Takes over both signals.
    pub(crate) fn install() -> io::Result<Self> {
        let signals = Self { stop: Arc::default(), code: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            let code = 128 + signal;
            // In this order: the first signal finds the flag unset and sets it, the second finds it set.
            flag::register_conditional_shutdown(signal, code, Arc::clone(&signals.stop))?;
            flag::register_usize(signal, Arc::clone(&signals.code), code.unsigned_abs() as usize)?;
            flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// What the library polls.
    pub(crate) fn cancel(&self) -> Cancel {
        Cancel::from_flag(Arc::clone(&self.stop))
    }

    /// The exit code, once a signal came.
    pub(crate) fn code(&self) -> Option<u8> {
        match self.code.load(Ordering::SeqCst) {
            0 => None,
            code => u8::try_from(code).ok(),
        }
    }
}

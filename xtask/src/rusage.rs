//! What one child used: elapsed time and peak memory, from the kernel's own accounting when it ends.
#![allow(unsafe_code, reason = "wait4 is the only call that gives one child's peak memory")]

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::tools::show;

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// From start to end.
    pub(crate) time: Duration,
    /// The peak of its resident memory, in bytes.
    pub(crate) peak: u64,
}

/// Runs a command to its end and measures it.
pub(crate) fn measure(command: &mut Command) -> anyhow::Result<Used> {
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot run `{}`", show(command)))?;
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: rusage is plain data for which zeros are valid; wait4 writes to the two places that it is given and keeps neither. The child
    // is ours and is not waited for anywhere else: dropping `Child` does not wait.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut status, 0, &raw mut usage), usage)
    };
    let time = start.elapsed();
    if waited != pid {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("waiting for `{}`", show(command)));
    }
    if status != 0 {
        bail!("`{}` failed (wait status {status})", show(command));
    }
    // Linux counts in KiB, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Ok(Used { time, peak: u64::try_from(usage.ru_maxrss)? * unit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_a_child_and_sees_it_fail() {
        let used = measure(Command::new("sh").args(["-c", "sleep 0.05"])).unwrap();
        assert!(used.time >= Duration::from_millis(50) && used.peak > 100_000, "{used:?}");
        assert!(measure(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }
}

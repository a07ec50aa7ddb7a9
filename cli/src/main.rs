//! The `longshore` program: arguments, resolved options, a command, an exit code.
//!
//! All that is done to images is in the library; what is here reads the command line and the environment, shows progress, and prints. Data
//! goes to standard output and everything else to standard error. Exit codes are part of the contract with scripts:
//!
//! ```text
//! 0  done; also when the reader of standard output went away
//! 1  the operation failed, `check` found something, or `diff` a difference
//! 2  the command line is wrong
//! 130, 143  stopped by SIGINT or SIGTERM
//! ```

mod access;
mod args;
mod change;
mod commands;
mod console;
mod document;
mod formats;
mod limits;
mod look;
mod options;
mod progress;
mod report;
mod signals;
mod text;

use std::io;
use std::process::ExitCode;

use clap::Parser as _;

use args::Args;
use console::Console;
use signals::Signals;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All is well.
    Done,
    /// `check` found something, or `diff` a difference.
    Found,
}

/// A command line that parses and still cannot be: exit code 2.
#[derive(Debug)]
struct Usage {
    sentence: String,
    hint: Option<String>,
}

impl Usage {
    fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    // clap prints help and errors before there are parsed arguments that say how.
    console::choose_color(args::color_of(std::env::args_os()));
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // A reader of the help that went away is no error, and neither is anything else here worth one.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let console = Console::new(&args.global);
    let result = Signals::install().map_err(anyhow::Error::from).and_then(|signals| {
        let result = commands::run(&args, &console, &signals);
        match (result, signals.code()) {
            // Whatever failed after the signal failed because of it.
            (Err(_), Some(code)) => Err(anyhow::Error::new(signals::Interrupted(code))),
            (result, _) => result,
        }
    });
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::FAILURE,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            console.error(&error, hint_of(&error));
            ExitCode::from(code_of(&error))
        }
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<signals::Interrupted>() {
        Some(interrupted) => interrupted.0,
        None if error.is::<Usage>() => 2,
        None => 1,
    }
}

fn hint_of(error: &anyhow::Error) -> Option<&str> {
    let usage = error.downcast_ref::<Usage>().and_then(|usage| usage.hint.as_deref());
    usage.or_else(|| error.downcast_ref::<longshore::Error>().and_then(longshore::Error::hint_text))
}

/// Whether the reader of standard output went away: `longshore inspect x.tar | head -1` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let ours = error.downcast_ref::<longshore::Error>().is_some_and(longshore::Error::is_broken_pipe);
    ours || error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_code() {
        let usage = anyhow::Error::new(Usage::new("no").hint("yes"));
        assert_eq!((code_of(&usage), hint_of(&usage)), (2, Some("yes")));
        let failed = anyhow::Error::new(longshore::Error::invalid("no").hint("look"));
        assert_eq!((code_of(&failed), hint_of(&failed)), (1, Some("look")));
        assert_eq!(code_of(&anyhow::Error::new(signals::Interrupted(143))), 143);
        assert_eq!(code_of(&anyhow::Error::new(io::Error::other("no"))), 1);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let pipe = || io::Error::from_raw_os_error(32);
        assert!(is_broken_pipe(&anyhow::Error::new(pipe())));
        assert!(is_broken_pipe(&anyhow::Error::new(longshore::Error::io(pipe()).frame("standard output"))));
        assert!(!is_broken_pipe(&anyhow::Error::new(io::Error::from_raw_os_error(28))));
    }
}

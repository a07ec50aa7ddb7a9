//! What people read: notes and errors on standard error, in colour where that is a terminal. Names of files and members are in most of them,
//! so whatever a terminal would obey is escaped here, once for all.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use anstream::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use longshore::Result;
use longshore::error::Context as _;
use serde::Serialize;

use crate::args::{Color, Global, ProgressKind};
use crate::text::shown;

const BAD: Style = AnsiColor::Red.on_default().bold();
const STDOUT: &str = "writing to standard output";
const NOTE: Style = AnsiColor::Cyan.on_default();

/// Standard error as the caller wants it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    quiet: bool,
    verbose: bool,
    /// Whether a program reads standard error: then every line is a JSON document.
    json: bool,
}

/// What a program reads instead of a line of text.
#[derive(Serialize)]
struct Message<'a> {
    event: &'a str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// Decides for the whole process whether there is colour; `auto` heeds NO_COLOR and looks whether the stream is a terminal.
pub(crate) fn choose_color(color: Color) {
    let choice = match color {
        Color::Always => ColorChoice::Always,
        Color::Auto => ColorChoice::Auto,
        Color::Never => ColorChoice::Never,
    };
    choice.write_global();
}

/// Whether standard output is a terminal, where an archive has no business.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Writes text to standard output, all of it: styles leave with the colours, and a full disk is an error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context(|| STDOUT)
}

/// Writes a JSON document to standard output, indented, with a line end.
///
/// It goes out as it is made: one that lists the files of an image may be long.
pub(crate) fn print_json(document: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from).context(|| STDOUT)?;
    out.write_all(b"\n").and_then(|()| out.flush()).context(|| STDOUT)?;
    Ok(())
}

/// Writes bytes to standard output as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context(|| STDOUT)
}

impl Console {
    pub(crate) fn new(global: &Global) -> Self {
        Self { quiet: global.quiet, verbose: global.verbose, json: global.progress == ProgressKind::Json && !global.quiet }
    }

    pub(crate) fn is_verbose(self) -> bool {
        self.verbose
    }

    /// One line that says what was done.
    pub(crate) fn say(self, line: impl fmt::Display) {
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => message("message", &line, None),
            (false, false) => line_to_stderr(format_args!("{}", shown(&line.to_string()))),
        }
    }

    /// One line that says what is worth knowing: `note: …`, `left out: …`.
    pub(crate) fn note(self, label: &str, line: impl fmt::Display) {
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => message(label, &line, None),
            (false, false) => line_to_stderr(format_args!("{NOTE}{label}:{NOTE:#} {}", shown(&line.to_string()))),
        }
    }

    /// Why it failed, and what helps. Shown however quiet.
    pub(crate) fn error(self, error: &anyhow::Error, hint: Option<&str>) {
        if self.json {
            return message("error", error, hint);
        }
        line_to_stderr(format_args!("{BAD}longshore:{BAD:#} {}", shown(&error.to_string())));
        if let Some(hint) = hint {
            line_to_stderr(format_args!("{NOTE}hint:{NOTE:#} {}", shown(hint)));
        }
    }
}

fn message(event: &str, text: &dyn fmt::Display, hint: Option<&str>) {
    let message = Message { event, text: text.to_string(), hint };
    // A struct of texts is always JSON.
    if let Ok(line) = serde_json::to_string(&message) {
        line_to_stderr(format_args!("{line}"));
    }
}

fn line_to_stderr(line: fmt::Arguments<'_>) {
    // One write a line, so that lines of several processes do not mix. Nobody can be told that standard error is gone.
    let text = format!("{line}\n");
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

//! What the arguments and the environment come to: values that the library takes.

use std::env;
use std::io::{self, IsTerminal as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use longshore::compress::Encoding;
use longshore::context::{Context, Progress, Silent};
use longshore::format::{DIALECTS, WriteOptions};
use longshore::location::{Location, OpenOptions};
use longshore::plan::{Compress, ConvertOptions, NameChange, Platforms};
use longshore::reference::Reference;
use longshore::source::Pick;
use longshore::spec::Platform;
use longshore::spool;

use crate::Usage;
use crate::args::{ConvertArgs, Global, ProgressKind};
use crate::console;
use crate::limits;
use crate::progress::{self, Work};
use crate::signals::Signals;

/// Parses `keep`, `none`, `gzip[:LEVEL]` or `zstd[:LEVEL]`.
pub(crate) fn parse_compress(text: &str) -> Result<Compress, String> {
    match text {
        "keep" => Ok(Compress::Keep),
        "none" => Ok(Compress::None),
        _ if !text.starts_with("gzip") && !text.starts_with("zstd") => {
            Err("expected keep, none, gzip, gzip:LEVEL, zstd or zstd:LEVEL".to_owned())
        }
        _ => text
            .parse::<Encoding>()
            .map(|encoding| Compress::Encode { encoding, always: text.contains(':') })
            .map_err(|error| error.to_string()),
    }
}

/// Parses `NAME[:TAG]`; without a tag it means latest.
pub(crate) fn parse_tag(text: &str) -> Result<Reference, String> {
    let reference = Reference::parse(text).map_err(|error| error.to_string())?;
    match reference.digest() {
        Some(_) => Err("a new name has a tag, not a digest: NAME:TAG".to_owned()),
        None => Ok(reference.with_default_tag()),
    }
}

/// The outside world of the operation.
pub(crate) fn context(global: &Global, signals: &Signals) -> Result<Context, Usage> {
    let threads = global.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let mut context = Context::new(threads, env::temp_dir());
    context.limits = limits::resolve(&global.limits).map_err(Usage::new)?;
    context.cancel = signals.cancel();
    Ok(context)
}

/// Who watches work of this size: nobody when quiet, bars only where somebody sees them.
pub(crate) fn progress(global: &Global, work: Work) -> Arc<dyn Progress> {
    match global.progress {
        _ if global.quiet => Arc::new(Silent),
        ProgressKind::Auto if io::stderr().is_terminal() => Arc::new(progress::Bars::new(work)),
        ProgressKind::Auto | ProgressKind::None => Arc::new(Silent),
        ProgressKind::Json => Arc::new(progress::JsonLines::new(io::stderr())),
        ProgressKind::Plain => Arc::new(progress::Plain::new(io::stderr(), work)),
    }
}

/// Reads an IMAGE to read from.
pub(crate) fn source(text: &str) -> Result<Location, Usage> {
    let location = Location::parse_source(text).map_err(wrong)?;
    if let Some(reference) = location.reference() {
        Pick::parse(reference).map_err(|error| wrong(error.frame(text)))?;
    }
    Ok(location)
}

/// Reads an IMAGE to write to, and the name that it gives.
pub(crate) fn destination(text: &str, dry_run: bool) -> Result<(Location, Option<Reference>), Usage> {
    let location = Location::parse_destination(text).map_err(wrong)?;
    if location.is_stdio() && !dry_run {
        refuse_terminal("name a file, or redirect standard output")?;
    }
    let name = location.name();
    let name = name.map_err(|error| Usage::new(format!("{text}: {error}")).hint("what follows the path of an output is its new name"))?;
    Ok((location, name))
}

/// Refuses to write an archive to a terminal.
pub(crate) fn refuse_terminal(hint: &str) -> Result<(), Usage> {
    if console::stdout_is_terminal() {
        Err(Usage::new("standard output is a terminal, and an archive is no text").hint(hint))
    } else {
        Ok(())
    }
}

/// An IMAGE that cannot be read as one is a wrong command line.
pub(crate) fn wrong(error: longshore::Error) -> Usage {
    let usage = Usage::new(error.to_string());
    match error.hint_text() {
        Some(hint) => usage.hint(hint),
        None => usage,
    }
}

/// What the options of a conversion come to.
pub(crate) fn convert(args: &ConvertArgs, names: NameChange) -> ConvertOptions {
    let platforms = match args.platform.as_slice() {
        [] if args.all_platforms => Platforms::All,
        [] => Platforms::Default,
        only => Platforms::Only(only.to_vec()),
    };
    ConvertOptions {
        names,
        platforms,
        compress: args.compress,
        family: None,
        allow_missing_layers: args.allow_missing_layers,
        squash: None,
        host: Platform::host(),
    }
}

/// How the output is written.
pub(crate) fn write(args: &ConvertArgs, to: &Location) -> Result<WriteOptions, Usage> {
    let Some(name) = &args.dialect else { return Ok(WriteOptions::default()) };
    if let Some(format) = to.format().filter(|format| *format != "docker-archive") {
        return Err(Usage::new(format!("--dialect is for docker-archive outputs, and this one is {format}")));
    }
    let dialect = DIALECTS.iter().copied().find(|dialect| dialect.name() == name);
    let dialect = dialect.ok_or_else(|| Usage::new(format!("there is no dialect {name}")))?;
    Ok(WriteOptions { dialect })
}

/// How sources are read: what must be kept of a pipe is kept beside the output.
pub(crate) fn open(args: &ConvertArgs, from: &[Location], to: &Location) -> OpenOptions {
    let spool_dir = to.path().map(|path| spool::parent(path).to_owned());
    // Another source may have them.
    let missing_layers = from.len() > 1 || args.allow_missing_layers;
    OpenOptions { spool_dir, referrers: args.referrers, missing_layers, ..OpenOptions::default() }
}

/// Checks SOURCE_DATE_EPOCH: "an ASCII representation of an integer with no fractional component".
///
/// Conversions invent no times, and have no use for it; but a wrong one is found now and not in the one build that uses it.
pub(crate) fn check_epoch(value: Option<&str>) -> Result<(), Usage> {
    let fine = |text: &str| text.is_empty() || (text.bytes().all(|c| c.is_ascii_digit()) && text.parse::<i64>().is_ok());
    match value {
        Some(text) if !fine(text) => {
            Err(Usage::new(format!("SOURCE_DATE_EPOCH is {text:?}, expected seconds since 1970 as a whole number")))
        }
        _ => Ok(()),
    }
}

/// The time that SOURCE_DATE_EPOCH gives to what has none of its own.
pub(crate) fn epoch_seconds() -> Result<Option<i64>, Usage> {
    let text = epoch();
    check_epoch(text.as_deref())?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// The environment's SOURCE_DATE_EPOCH.
pub(crate) fn epoch() -> Option<String> {
    env::var_os("SOURCE_DATE_EPOCH").map(|value| value.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_have_levels() {
        assert!(matches!(parse_compress("keep"), Ok(Compress::Keep)));
        assert!(matches!(parse_compress("none"), Ok(Compress::None)));
        assert!(matches!(parse_compress("gzip"), Ok(Compress::Encode { encoding: Encoding::Gzip(_), always: false })));
        assert!(matches!(parse_compress("zstd:19"), Ok(Compress::Encode { encoding: Encoding::Zstd(_), always: true })));
        for bad in ["", "none:1", "keep:", "gzip:", "gzip:0", "gzip:13", "zstd:20", "zstd:-1", "xz", "GZIP", "gzip:1:2"] {
            assert!(parse_compress(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_whole_references() {
        assert_eq!(parse_tag("app").unwrap().full(), "docker.io/library/app:latest");
        assert_eq!(parse_tag("localhost:5000/a/b:1").unwrap().familiar(), "localhost:5000/a/b:1");
        let digest = format!("app@sha256:{}", "0".repeat(64));
        assert!(parse_tag(&digest).is_err() && parse_tag("App").is_err() && parse_tag("").is_err());
    }

    #[test]
    fn the_epoch_is_seconds() {
        for fine in [None, Some(""), Some("0"), Some("1700000000")] {
            assert!(check_epoch(fine).is_ok(), "{fine:?}");
        }
        for bad in ["now", "-1", "1.5", "+1", " 1", "99999999999999999999"] {
            assert_eq!(
                check_epoch(Some(bad)).unwrap_err().to_string(),
                format!("SOURCE_DATE_EPOCH is {bad:?}, expected seconds since 1970 as a whole number")
            );
        }
    }
}

//! What a client of Quay's squash endpoint wants: `curl … | quay_squash DESTINATION`.
//!
//! Quay sends a gzip stream with `repositories` and one folder of 2013, which engines of today no longer load. This makes a proper image of it,
//! with a config, under its own name (`<tag>.squash`), in any format: `oci:app`, `app.tar`, …

use longshore::context::Context;
use longshore::format::WriteOptions;
use longshore::location::{self, Access, Location, OpenOptions};
use longshore::plan::{ConvertOptions, convert};
use longshore::run::{Report, run};
use longshore::{Error, Result};

/// Converts the squashed image `from` (`-` is standard input) to `to`.
///
/// # Errors
/// When the stream is malformed or cut, or the destination cannot be written.
pub fn unsquash(from: &str, to: &str, ctx: &Context) -> Result<Report> {
    let to = Location::parse_destination(to)?;
    let how = WriteOptions::default();
    let sink = location::create(&to, &how, false, &Access::default(), ctx)?;
    let source = location::open(&Location::parse_source(from)?, &OpenOptions::default(), ctx)?;
    let plan = convert(source.catalog(), &to.accepts(&how)?, &ConvertOptions::default())?;
    run(&plan, source.as_ref(), sink, ctx)
}

#[allow(dead_code, reason = "the tests call `unsquash`")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [to] = arguments.as_slice() else { return Err(Error::invalid("give a destination, and the archive on standard input")) };
    unsquash("-", to, &Context::new(2, std::env::temp_dir())).map(drop)
}

//! What go-containerregistry's `tarball.MultiWriteToFile` does: `ggcr_tarball OUT.tar SOURCE...`.
//!
//! Layers stay as they are stored, each once across all images. Members are in the order of the command line in every run, where that library
//! leaves it to chance.

use longshore::context::Context;
use longshore::format::{DIALECTS, WriteOptions};
use longshore::location::{self, Access, Location, OpenOptions};
use longshore::plan::{ConvertOptions, NameChange, convert};
use longshore::reference::Reference;
use longshore::run::{Report, run};
use longshore::source::join;
use longshore::{Error, Result};

/// Writes the images of all sources into one archive; with `tag`, the one image under that name.
///
/// # Errors
/// When a source is malformed, a tag is given for several images, or the archive cannot be written.
pub fn write(to: &str, from: &[&str], tag: Option<&str>, ctx: &Context) -> Result<Report> {
    let to = Location::parse_destination(&format!("docker-archive:{to}"))?;
    let dialect = DIALECTS.iter().copied().find(|known| known.name() == "crane");
    let how = WriteOptions { dialect: dialect.ok_or_else(|| Error::invalid("there is no such dialect"))? };
    let names = match tag {
        None => NameChange::Keep,
        Some(tag) => NameChange::Replace(vec![Reference::parse(tag).map_err(Error::invalid)?.with_default_tag()]),
    };

    let sink = location::create(&to, &how, true, &Access::default(), ctx)?;
    let sources = from.iter().map(|from| location::open(&Location::parse_source(from)?, &OpenOptions::default(), ctx));
    let source = join(sources.collect::<Result<_>>()?);
    let plan = convert(source.catalog(), &to.accepts(&how)?, &ConvertOptions { names, ..ConvertOptions::default() })?;
    run(&plan, source.as_ref(), sink, ctx)
}

#[allow(dead_code, reason = "the tests call `write`")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [to, from @ ..] = arguments.as_slice() else { return Err(Error::invalid("give an archive to write, and sources")) };
    write(to, from, None, &Context::new(2, std::env::temp_dir())).map(drop)
}

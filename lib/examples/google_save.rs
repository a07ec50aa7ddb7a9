//! What containerregistry's `save.tarball` does: `google_save SOURCE TAG OUT.tar [v1]`.
//!
//! Writes one image under one tag as that library lays it out: config, folders of 2013 and `manifest.json`, or with `v1` the folders alone. The
//! source may be anything that longshore reads, such as the folder of its `fast` puller.

use longshore::context::Context;
use longshore::format::{DIALECTS, WriteOptions};
use longshore::location::{self, Access, Location, OpenOptions};
use longshore::plan::{ConvertOptions, NameChange, convert};
use longshore::reference::Reference;
use longshore::run::{Report, run};
use longshore::{Error, Result};

/// Saves the image `from` as `tag` to the archive `to`.
///
/// # Errors
/// When the source is malformed, or the archive cannot be written.
pub fn save(from: &str, tag: &str, to: &str, dialect: &str, ctx: &Context) -> Result<Report> {
    let to = Location::parse_destination(&format!("docker-archive:{to}"))?;
    let dialect = DIALECTS.iter().copied().find(|known| known.name() == dialect);
    let how = WriteOptions { dialect: dialect.ok_or_else(|| Error::invalid("there is no such dialect"))? };
    let tag = Reference::parse(tag).map_err(Error::invalid)?.with_default_tag();

    let sink = location::create(&to, &how, true, &Access::default(), ctx)?;
    let source = location::open(&Location::parse_source(from)?, &OpenOptions::default(), ctx)?;
    let options = ConvertOptions { names: NameChange::Replace(vec![tag]), ..ConvertOptions::default() };
    let plan = convert(source.catalog(), &to.accepts(&how)?, &options)?;
    run(&plan, source.as_ref(), sink, ctx)
}

#[allow(dead_code, reason = "the tests call `save`")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (from, tag, to, dialect) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [from, tag, to] => (from, tag, to, "google"),
        [from, tag, to, "v1"] => (from, tag, to, "v1"),
        _ => return Err(Error::invalid("give a source, a tag, an archive to write, and perhaps v1")),
    };
    save(from, tag, to, dialect, &Context::new(2, std::env::temp_dir())).map(drop)
}

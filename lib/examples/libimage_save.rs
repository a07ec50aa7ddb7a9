//! What libimage's `Save` and so `podman save` does: `libimage_save FORMAT OUT SOURCE...`.
//!
//! Images come in the order of the command line, each once; names of the same image become names of one entry. Where libimage takes several
//! images in docker-archive alone, oci-archive and oci-dir take them here too.

use longshore::context::Context;
use longshore::format::{DIALECTS, WriteOptions};
use longshore::location::{self, Access, Location, OpenOptions};
use longshore::plan::{ConvertOptions, NameChange, convert};
use longshore::reference::Reference;
use longshore::run::{Report, run};
use longshore::source::join;
use longshore::spec::LayerFamily;
use longshore::{Error, Result};

/// Saves the images of all sources; `tags` are further names of the one image.
///
/// # Errors
/// When the format is unknown, a source is malformed, tags are given for several images, or the output cannot be written.
pub fn save(form: &str, to: &str, from: &[&str], tags: &[&str], ctx: &Context) -> Result<Report> {
    // libimage's directories have manifests of one kind each.
    let (transport, family) = match form {
        "docker-archive" => ("docker-archive", None),
        "docker-dir" => ("dir", Some(LayerFamily::Docker)),
        "oci-archive" => ("oci-archive", None),
        "oci-dir" => ("oci", Some(LayerFamily::Oci)),
        other => return Err(Error::unsupported(format_args!("unsupported format {other:?} for saving images"))),
    };
    let to = Location::parse_destination(&format!("{transport}:{to}"))?;
    let dialect = DIALECTS.iter().copied().find(|known| known.name() == "podman");
    let how = WriteOptions { dialect: dialect.ok_or_else(|| Error::invalid("there is no such dialect"))? };
    let parse = |tag: &&str| Ok(Reference::parse(tag).map_err(Error::invalid)?.with_default_tag());
    let tags = tags.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let names = if tags.is_empty() { NameChange::Keep } else { NameChange::Add(tags) };

    let sink = location::create(&to, &how, true, &Access::default(), ctx)?;
    let sources = from.iter().map(|from| location::open(&Location::parse_source(from)?, &OpenOptions::default(), ctx));
    let source = join(sources.collect::<Result<_>>()?);
    let plan = convert(source.catalog(), &to.accepts(&how)?, &ConvertOptions { names, family, ..ConvertOptions::default() })?;
    run(&plan, source.as_ref(), sink, ctx)
}

#[allow(dead_code, reason = "the tests call `save`")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [form, to, from @ ..] = arguments.as_slice() else { return Err(Error::invalid("give a format, an output, and sources")) };
    save(form, to, from, &[], &Context::new(2, std::env::temp_dir())).map(drop)
}

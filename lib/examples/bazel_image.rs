//! What Bazel's `create_image` and `join_layers` do: `bazel_image OUT.tar TAG BASE LAYER...`.
//!
//! Builds an image of layers on a base, as `docker_build` does, and writes it as Bazel lays it out, but whole: the layers of the base are in it.

use std::path::Path;

use longshore::assemble::{ConfigChange, LayerFiles, LayerInput, Options, assemble};
use longshore::context::Context;
use longshore::format::{DIALECTS, WriteOptions};
use longshore::layer::build::BuildOptions;
use longshore::location::{self, Access, Location, OpenOptions};
use longshore::plan::{ConvertOptions, NameChange, convert};
use longshore::reference::Reference;
use longshore::run::{Report, run};
use longshore::{Error, Result};

/// Builds an image and writes it as `tag`.
///
/// # Errors
/// When the base or a layer is malformed, or the archive cannot be written.
pub fn create(to: &str, tag: &str, base: &str, layers: &[&str], change: &ConfigChange, ctx: &Context) -> Result<Report> {
    let to = Location::parse_destination(&format!("docker-archive:{to}"))?;
    let dialect = DIALECTS.iter().copied().find(|known| known.name() == "bazel");
    let how = WriteOptions { dialect: dialect.ok_or_else(|| Error::invalid("there is no such dialect"))? };
    let tag = Reference::parse(tag).map_err(Error::invalid)?.with_default_tag();

    let sink = location::create(&to, &how, true, &Access::default(), ctx)?;
    let base = location::open(&Location::parse_source(base)?, &OpenOptions::default(), ctx)?;
    let layers = layers.iter().map(|layer| LayerInput::parse(layer)).collect::<Result<Vec<_>>>()?;
    let layers = LayerFiles::open(&layers, &BuildOptions::default(), Path::new(&ctx.temp), ctx)?;
    let source = assemble(Some(base), layers, change, &Options::default())?;
    let options = ConvertOptions { names: NameChange::Replace(vec![tag]), ..ConvertOptions::default() };
    let plan = convert(source.catalog(), &to.accepts(&how)?, &options)?;
    run(&plan, source.as_ref(), sink, ctx)
}

#[allow(dead_code, reason = "the tests call `create`")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [to, tag, base, layers @ ..] = arguments.as_slice() else {
        return Err(Error::invalid("give an archive to write, a tag, a base and layers"));
    };
    create(to, tag, base, layers, &ConfigChange::default(), &Context::new(2, std::env::temp_dir())).map(drop)
}

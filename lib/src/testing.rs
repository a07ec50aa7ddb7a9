//! What the unit tests share: images from testkit, opened and written through the library.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use longshore_testkit::images::{Archive, Image, Layer, Layout};

use crate::context::Context;
use crate::error::Result;
use crate::format::WriteOptions;
use crate::location::{Access, Location, OpenOptions, create, open};
use crate::plan::{ConvertOptions, Plan, convert};
use crate::run::{Report, run};
use crate::sink::Accepts;
use crate::source::Source;

/// Two threads, and temporary files in `dir`.
pub(crate) fn context(dir: &Path) -> Context {
    Context::new(2, dir.to_owned())
}

/// An image of two plain layers.
pub(crate) fn app(name: &str) -> Image {
    Image::new(name).layer("etc/\netc/one=1").with(Layer::new("etc/\netc/.wh.one="))
}

/// The bytes of an archive, written below `dir`; gives the path.
pub(crate) fn put(dir: &Path, name: &str, archive: &Archive) -> String {
    let path = dir.join(name);
    fs::write(&path, archive.bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A source of a path, perhaps with a format in front.
pub(crate) fn source(image: &str) -> Result<Arc<dyn Source>> {
    open(&Location::parse_source(image)?, &OpenOptions::default(), &context(Path::new(".")))
}

/// The same as `check` opens it.
pub(crate) fn tolerant(image: &str) -> Result<Arc<dyn Source>> {
    let options = OpenOptions { keep_going: true, ..OpenOptions::default() };
    open(&Location::parse_source(image)?, &options, &context(Path::new(".")))
}

/// A layout in a folder of its own below `dir`.
pub(crate) fn layout(dir: &Path, name: &str, layout: &Layout) -> Arc<dyn Source> {
    layout.archive().write_dir(&dir.join(name));
    source(&format!("oci:{}", dir.join(name).display())).unwrap()
}

/// What a format accepts, by its name.
pub(crate) fn accepts(format: &str) -> Accepts {
    crate::format::by_name(format).unwrap().accepts(&WriteOptions::default())
}

/// Converts a source to a destination as the command line would.
pub(crate) fn copy(source: &dyn Source, to: &str, ctx: &Context) -> Result<Report> {
    copy_as(source, to, &ConvertOptions::default(), ctx)
}

/// Converts with options.
pub(crate) fn copy_as(source: &dyn Source, to: &str, options: &ConvertOptions, ctx: &Context) -> Result<Report> {
    let to = Location::parse_destination(to)?;
    let sink = create(&to, &WriteOptions::default(), true, &Access::default(), ctx)?;
    let plan: Plan = convert(source.catalog(), &to.accepts(&WriteOptions::default())?, options)?;
    run(&plan, source, sink, ctx)
}

/// The names in a folder, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

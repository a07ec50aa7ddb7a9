//! Converts an archive or layout: `convert SOURCE DESTINATION`, for example `convert app.tar oci:app`.
#![allow(clippy::print_stdout)]

use longshore::Result;
use longshore::context::Context;
use longshore::format::WriteOptions;
use longshore::location::{self, Access, Location, OpenOptions};
use longshore::plan::{ConvertOptions, convert};
use longshore::run::run;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, from, to] = arguments.as_slice() else { return Err(longshore::Error::invalid("give a source and a destination")) };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let ctx = Context::new(threads, std::env::temp_dir());

    let destination = Location::parse_destination(to)?;
    let options = WriteOptions::default();
    let sink = location::create(&destination, &options, false, &Access::default(), &ctx)?;
    let source = location::open(&Location::parse_source(from)?, &OpenOptions::default(), &ctx)?;
    let plan = convert(source.catalog(), &destination.accepts(&options)?, &ConvertOptions::default())?;
    let report = run(&plan, source.as_ref(), sink, &ctx)?;
    println!("{} images, {} bytes read, {} bytes written", report.images.len(), report.bytes_read, report.bytes_written);
    Ok(())
}

//! `longshore load`: images into an engine, with the words of `docker load`.

use longshore::plan::NameChange;

use super::Job;
use crate::args::LoadArgs;
use crate::{Usage, console, options};

pub(super) fn run(job: Job<'_>, args: &LoadArgs) -> anyhow::Result<()> {
    let from = args.input.as_deref().unwrap_or("-");
    if from == "-" && console::stdin_is_terminal() {
        return Err(Usage::new("standard input is a terminal, and an archive is no text").hint("name a file with -i FILE").into());
    }
    let (to, name) = options::destination(args.destination.as_deref().unwrap_or("docker-daemon:"), args.convert.dry_run)?;
    let names = name.map_or(NameChange::Keep, |name| NameChange::Replace(vec![name]));
    let how = options::convert(&args.convert, names);
    let loaded = super::convert(job, &args.convert, &[options::source(from)?], &to, &how)?;
    let lines = loaded.iter().flat_map(|report| &report.images).map(|image| match image.names.as_slice() {
        [] => format!("Loaded image ID: {}\n", image.id),
        names => names.iter().map(|name| format!("Loaded image: {name}\n")).collect(),
    });
    console::print(&lines.collect::<String>())?;
    Ok(())
}

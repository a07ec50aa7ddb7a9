//! `longshore assemble`: an image out of layers, on a base or from nothing.

use longshore::assemble::{self, LayerContent, LayerFiles, LayerInput, LegacyMembers};
use longshore::context::Context;
use longshore::error::Context as _;
use longshore::format::FileLocation;
use longshore::layer::build::BuildOptions;
use longshore::location::{self, Location};

use super::Job;
use crate::args::AssembleArgs;
use crate::{Usage, change, options};

pub(super) fn run(job: Job<'_>, args: &AssembleArgs) -> anyhow::Result<()> {
    let stamps = change::stamps(&args.config, &job.context)?;
    let changes = change::change(&args.config, &stamps, &job.context)?;
    let (to, name) = options::destination(&args.destination, args.convert.dry_run)?;
    let names = change::names(&args.tags, &stamps, &job.context, name)?;
    change::refuse_several(&args.convert)?;
    let mut choose = change::choosing(&args.convert, &job.context);
    let legacy_base = args.legacy_base.as_deref().map(options::source).transpose()?;
    let base = args.base.as_deref().map(options::source).transpose()?.or_else(|| legacy_base.clone());
    if args.metadata.is_some() && args.convert.dialect.as_deref() != Some("bazel") {
        return Err(Usage::new("--metadata is for archives of Bazel's").hint("add --dialect bazel").into());
    }
    let layers = args.layers.iter().map(|text| layer(text, &stamps, &job.context)).collect::<anyhow::Result<Vec<_>>>()?;
    let build = BuildOptions { preserve: args.preserve, mtime: options::epoch_seconds()?.unwrap_or(0) };

    let files = layers.iter().filter_map(|layer| match &layer.content {
        LayerContent::File(path) => Some(Location::File(FileLocation { format: None, path: path.clone(), reference: None })),
        LayerContent::Files(_) => None,
    });
    let read: Vec<_> = base.iter().chain(&legacy_base).cloned().chain(files).collect();
    let how = change::converting(&args.convert, names);
    super::write(job, &args.convert, &read, &to, &how, |job, opening| {
        if let Some(path) = &args.metadata {
            let below = legacy_base.as_ref().map(|base| location::open(base, opening, &job.context)).transpose()?;
            let json = change::json(path, "--metadata", &job.context)?;
            let made = LegacyMembers::new(json, below.as_deref(), &choose).path(path);
            choose.legacy = Some(made.map_err(|error| error.frame("--metadata"))?);
        }
        let base = base.as_ref().map(|base| location::open(base, opening, &job.context)).transpose()?;
        let spool = opening.spool_dir.as_deref().unwrap_or(&job.context.temp);
        let layers = LayerFiles::open(&layers, &build, spool, &job.context)?;
        Ok(assemble::assemble(base, layers, &changes, &choose)?)
    })?;
    Ok(())
}

/// A layer, whose ID may be in a file, as Bazel has it.
fn layer(text: &str, stamps: &assemble::Stamps, ctx: &Context) -> anyhow::Result<LayerInput> {
    let read = match text.strip_prefix('@').and_then(|rest| rest.split_once('=')) {
        Some((file, path)) => format!("{}={path}", stamps.value(&format!("@{file}"), ctx)?.trim_end()),
        None => text.to_owned(),
    };
    Ok(LayerInput::parse(&read).map_err(|error| options::wrong(error.frame("--layer")))?)
}

//! `longshore squash`: layers as one.

use longshore::assemble::time;
use longshore::digest::DiffId;
use longshore::location::{self, OpenOptions};
use longshore::plan::{Keep, NameChange, Squash};

use super::Job;
use crate::Usage;
use crate::args::SquashArgs;
use crate::options;

pub(super) fn run(job: Job<'_>, args: &SquashArgs) -> anyhow::Result<()> {
    let from = options::source(&args.source)?;
    let (to, name) = options::destination(&args.destination, args.convert.dry_run)?;
    let names = match (name, args.tags.as_slice()) {
        (Some(name), _) => NameChange::Replace(vec![name]),
        (None, []) => NameChange::Keep,
        (None, tags) => NameChange::Replace(tags.to_vec()),
    };
    let created = args.created.as_deref().map(time).transpose().map_err(|error| Usage::new(format!("--created: {error}")))?;
    let suffix = args.squash_tag_suffix.then(|| ".squash".to_owned());
    let mut how = options::convert(&args.convert, names);
    how.squash = Some(Squash { keep: keep(&job, args)?, created, suffix });
    super::convert(job, &args.convert, &[from], &to, &how)?;
    Ok(())
}

/// Which layers stay.
fn keep(job: &Job<'_>, args: &SquashArgs) -> anyhow::Result<Keep> {
    let Some(from) = &args.from else {
        return Ok(args.last.map_or(Keep::First(0), |last| Keep::AllBut(last.into())));
    };
    if let Ok(count) = from.parse() {
        return Ok(Keep::First(count));
    }
    let location = options::source(from)?;
    let opening = OpenOptions { missing_layers: true, access: job.access.clone(), ..OpenOptions::default() };
    let base = location::open(&location, &opening, &job.context).map_err(|error| error.frame("--from"))?;
    let images = base.catalog().images.iter();
    let layers: Vec<Vec<DiffId>> = images.map(|image| image.layers.iter().map(|layer| layer.diff_id).collect()).collect();
    Ok(Keep::Base(layers))
}

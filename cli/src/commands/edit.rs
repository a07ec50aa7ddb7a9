//! `longshore edit`: an image with another config and the same layers.

use longshore::assemble::{self, Options};
use longshore::format;
use longshore::spec::Platform;

use super::Job;
use crate::args::EditArgs;
use crate::{change, options};

pub(super) fn run(job: Job<'_>, args: &EditArgs) -> anyhow::Result<()> {
    let stamps = change::stamps(&args.config)?;
    let changes = change::change(&args.config, &stamps)?;
    let from = options::source(&args.source)?;
    let (to, name) = options::destination(&args.destination, args.convert.dry_run)?;
    let names = change::names(&args.tags, &stamps, name)?;
    let choose = Options { host: Platform::host(), limits: job.context.limits.clone(), ..Options::default() };
    let how = options::convert(&args.convert, names);
    super::write(job, &args.convert, std::slice::from_ref(&from), &to, &how, |job, opening| {
        Ok(assemble::edit(format::open(&from, opening, &job.context)?, &changes, &choose)?)
    })
}

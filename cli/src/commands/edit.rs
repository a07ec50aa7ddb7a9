//! `longshore edit`: an image with another config and the same layers.

use longshore::assemble;
use longshore::location;

use super::Job;
use crate::args::EditArgs;
use crate::{change, options};

pub(super) fn run(job: Job<'_>, args: &EditArgs) -> anyhow::Result<()> {
    let stamps = change::stamps(&args.config, &job.context)?;
    let changes = change::change(&args.config, &stamps, &job.context)?;
    let from = options::source(&args.source)?;
    let (to, name) = options::destination(&args.destination, args.convert.dry_run)?;
    let names = change::names(&args.tags, &stamps, &job.context, name)?;
    let choose = change::choosing(&args.convert, &job.context);
    let how = change::converting(&args.convert, names);
    super::write(job, &args.convert, std::slice::from_ref(&from), &to, &how, |job, opening| {
        Ok(assemble::edit(location::open(&from, opening, &job.context)?, &changes, &choose)?)
    })?;
    Ok(())
}

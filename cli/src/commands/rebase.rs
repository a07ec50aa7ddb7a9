//! `longshore rebase`: an image on another base.

use longshore::assemble::{self, ConfigChange, Stamps};
use longshore::location;

use super::Job;
use crate::args::RebaseArgs;
use crate::{change, options};

pub(super) fn run(job: Job<'_>, args: &RebaseArgs) -> anyhow::Result<()> {
    let from = [&args.source, &args.old_base, &args.new_base].map(|text| options::source(text));
    let [source, old, new] = from;
    let from = [source?, old?, new?];
    let (to, name) = options::destination(&args.destination, args.convert.dry_run)?;
    let names = change::names(&args.tags, &Stamps::default(), &job.context, name)?;
    let choose = change::choosing(&args.convert, &job.context);
    let changes = ConfigChange { canonical: args.canonical, ..ConfigChange::default() };
    let how = change::converting(&args.convert, names);
    super::write(job, &args.convert, &from, &to, &how, |job, opening| {
        let open = |at: usize| location::open(&from[at], opening, &job.context);
        let (source, old, new) = (open(0)?, open(1)?, open(2)?);
        Ok(assemble::rebase(source, old.as_ref(), new, &changes, &choose)?)
    })?;
    Ok(())
}

//! `longshore copy`: any format in, any format out.

use longshore::plan::NameChange;

use super::Job;
use crate::args::CopyArgs;
use crate::options;

pub(super) fn run(job: Job<'_>, args: &CopyArgs) -> anyhow::Result<()> {
    let (sources, destination) = args.ends()?;
    let from = sources.iter().map(|text| options::source(text)).collect::<Result<Vec<_>, _>>()?;
    let (to, name) = options::destination(destination, args.convert.dry_run)?;
    let names = match (name, args.tags.as_slice()) {
        (Some(name), _) => NameChange::Replace(vec![name]),
        (None, []) => NameChange::Keep,
        (None, tags) => NameChange::Replace(tags.to_vec()),
    };
    super::convert(job, &args.convert, &from, &to, &options::convert(&args.convert, names))?;
    Ok(())
}

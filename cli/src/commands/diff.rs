//! `longshore diff`: what differs between two images.

use longshore::look::{DiffOptions, diff};

use super::{Job, looked_into};
use crate::args::DiffArgs;
use crate::look::{Differing, text_of};
use crate::{Outcome, console};

pub(super) fn run(job: &Job<'_>, args: &DiffArgs) -> anyhow::Result<Outcome> {
    let (a, before) = looked_into(job, &args.before, args.platform.as_ref())?;
    let (b, after) = looked_into(job, &args.after, args.platform.as_ref())?;
    let options = DiffOptions { times: args.times };
    let found = diff((a.as_ref(), before), (b.as_ref(), after), options, &job.context)?;
    if args.json {
        console::print_json(&Differing::new(a.catalog().image(before), b.catalog().image(after), &found))?;
    } else if !job.global.quiet {
        for part in text_of(&found, args.layers, job.console.is_verbose()) {
            console::print(&part)?;
        }
    }
    Ok(if found.is_none() { Outcome::Done } else { Outcome::Found })
}

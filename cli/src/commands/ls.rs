//! `longshore ls`: the files of an image or of one layer.

use std::os::unix::ffi::OsStrExt as _;

use longshore::error::Context as _;
use longshore::look::list;

use super::{Job, looked_into};
use crate::args::LsArgs;
use crate::console;
use crate::look::{Listed, Rows};

pub(super) fn run(job: &Job<'_>, args: &LsArgs) -> anyhow::Result<()> {
    let (source, id) = looked_into(job, &args.source, args.platform.as_ref())?;
    let listing = list(source.as_ref(), id, args.layer, &job.context)?;
    let path = args.path.as_deref().unwrap_or_default().as_bytes();
    let at = listing.resolve(path).context(|| source.describe())?;
    let depth = |path: &[u8]| path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).count();
    let deepest = args.depth.map_or(usize::MAX, |below| depth(&at).saturating_add(below));
    let items: Vec<_> = listing.within(&at).iter().filter(|item| depth(&item.path) <= deepest).collect();
    if args.json {
        return console::print_json(&Listed::new(source.catalog().image(id), args.layer, &items));
    }
    // In parts, so that the first lines of a long listing are there at once, and a reader that goes away ends it.
    const PART: usize = 1000;
    let rows = Rows::new(&items, args.numeric, job.console.is_verbose());
    for part in items.chunks(PART) {
        console::print(&rows.text(part))?;
    }
    Ok(())
}

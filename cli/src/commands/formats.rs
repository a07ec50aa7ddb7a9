//! `longshore formats`: what can be read and written.

use crate::args::FormatsArgs;
use crate::{console, formats};

pub(super) fn run(args: &FormatsArgs) -> anyhow::Result<()> {
    let document = formats::document();
    if args.json {
        return console::print_json(&document);
    }
    console::print(&if args.markdown { formats::markdown(&document) } else { formats::text(&document) })?;
    Ok(())
}

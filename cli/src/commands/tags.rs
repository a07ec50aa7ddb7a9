//! `longshore tags`: which tags a repository of a registry has.

use longshore::registry;
use serde::Serialize;

use super::Job;
use crate::args::TagsArgs;
use crate::{console, text};

#[derive(Serialize)]
struct Document {
    version: u32,
    repository: String,
    tags: Vec<String>,
}

pub(super) fn run(job: &Job<'_>, args: &TagsArgs) -> anyhow::Result<()> {
    let tags = registry::tags(&args.repository, &job.access.registry, &job.context)?;
    if args.json {
        return console::print_json(&Document { version: 1, repository: args.repository.repository(), tags });
    }
    console::print(&tags.iter().map(|tag| format!("{}\n", text::shown(tag))).collect::<String>())?;
    Ok(())
}

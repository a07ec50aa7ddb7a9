//! `longshore check`: all that is wrong, each with its place.

use std::path::Path;
use std::sync::Arc;

use longshore::context::Silent;
use longshore::location::{self, Location};
use longshore::validate::{self, Finding};
use longshore::{Error, ErrorKind};
use serde::Serialize;

use super::{Job, reading};
use crate::args::CheckArgs;
use crate::progress::Work;
use crate::{Outcome, console, options, text};

/// What `--json` prints; described in docs/JSON.md.
#[derive(Serialize)]
struct Document {
    version: u32,
    sources: Vec<Checked>,
}

#[derive(Serialize)]
struct Checked {
    source: String,
    images: usize,
    findings: Vec<Finding>,
}

pub(super) fn run(mut job: Job<'_>, args: &CheckArgs) -> anyhow::Result<Outcome> {
    let locations = args.sources.iter().map(|text| options::source(text)).collect::<Result<Vec<_>, _>>()?;
    let mut sources = Vec::new();
    for (location, name) in locations.iter().zip(&args.sources) {
        let checked = check(&mut job, location, name)?;
        if !args.json {
            // As grep does: the file is named where there are several.
            let file = if args.sources.len() > 1 { format!("{name}: ") } else { String::new() };
            let lines = checked.findings.iter().map(|finding| format!("{}\n", text::shown(&format!("{file}{finding}"))));
            console::print(&lines.collect::<String>())?;
        }
        let result = if checked.findings.is_empty() { "nothing wrong".to_owned() } else { text::count(checked.findings.len(), "finding") };
        job.console.say(format_args!("checked {}: {}, {result}", checked.source, text::count(checked.images, "image")));
        sources.push(checked);
    }
    let found = sources.iter().any(|checked| !checked.findings.is_empty());
    if args.json {
        console::print_json(&Document { version: 1, sources })?;
    }
    Ok(if found { Outcome::Found } else { Outcome::Done })
}

fn check(job: &mut Job<'_>, location: &Location, name: &str) -> anyhow::Result<Checked> {
    let source = match location::open(location, &reading(job, true), &job.context) {
        Ok(source) => source,
        Err(error) if is_finding(&error, location) => {
            let (text, file) = (error.to_string(), format!("{location}: "));
            let finding = Finding { place: String::new(), what: text.strip_prefix(&file).unwrap_or(&text).to_owned() };
            return Ok(Checked { source: name.to_owned(), images: 0, findings: vec![finding] });
        }
        Err(error) => return Err(error.into()),
    };
    let catalog = source.catalog();
    job.context.progress = options::progress(job.global, Work::of(catalog.blobs.iter().map(|blob| &blob.known)));
    let findings = validate::check(source.as_ref(), &job.context);
    job.context.progress = Arc::new(Silent);
    let findings = findings?;
    for warning in &catalog.warnings {
        job.console.note("note", text::shown(warning));
    }
    Ok(Checked { source: source.describe(), images: catalog.images.len(), findings })
}

/// Whether the source is there, and so wrong that nothing else can be said of it: a file that it must have is missing, for one.
fn is_finding(error: &Error, location: &Location) -> bool {
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::Limit | ErrorKind::Mismatch | ErrorKind::Unsupported => true,
        // With a REF, that may be what is not there.
        ErrorKind::NotFound => location.reference().is_none() && (location.is_stdio() || location.path().is_some_and(Path::exists)),
        _ => false,
    }
}

//! `longshore save`: images to one archive, with the words of `docker save` and `podman save`.

use std::path::{Path, PathBuf};

use longshore::format::{self, FileLocation};
use longshore::location::{self, EngineKind, Location};
use longshore::plan::{ConvertOptions, NameChange};

use super::Job;
use crate::args::SaveArgs;
use crate::{Usage, options};

pub(super) fn run(job: Job<'_>, args: &SaveArgs) -> anyhow::Result<()> {
    let to = output(args)?;
    let from = args.names.iter().map(|text| source(&job, text)).collect::<anyhow::Result<Vec<_>>>()?;
    let names = if args.tags.is_empty() { NameChange::Keep } else { NameChange::Add(args.tags.clone()) };
    let how = ConvertOptions { family: args.format.family(), ..options::convert(&args.convert, names) };
    super::convert(job, &args.convert, &from, &to, &how)?;
    Ok(())
}

fn output(args: &SaveArgs) -> Result<Location, Usage> {
    let path = args.output.clone().filter(|path| path != Path::new("-"));
    if path.is_none() {
        if !args.format.is_archive() {
            return Err(
                Usage::new(format!("{} is a directory, and standard output is none", args.format.name())).hint("name one with -o DIR")
            );
        }
        if !args.convert.dry_run {
            options::refuse_terminal("use -o FILE, or redirect standard output")?;
        }
    }
    let path = path.unwrap_or_else(|| PathBuf::from("-"));
    Ok(Location::File(FileLocation { format: format::by_name(args.format.name()), path, reference: None }))
}

/// An IMAGE; a name alone is looked for in engines.
fn source(job: &Job<'_>, text: &str) -> anyhow::Result<Location> {
    if !is_engine_name(text) {
        return Ok(options::source(text)?);
    }
    let found = location::find(text, &job.access, &job.context)?;
    job.console.note("note", format_args!("{text} is in {}", found.place));
    Ok(found.location)
}

/// Whether it can only be the name of an image in an engine: a reference, no file, and no format before a colon.
fn is_engine_name(text: &str) -> bool {
    let is_path = text == "-" || text.starts_with(['/', '.']) || Path::new(text).symlink_metadata().is_ok();
    let known = |prefix: &str| format::by_name(prefix).is_some() || EngineKind::ALL.iter().any(|kind| kind.name() == prefix);
    let has_format = text.starts_with("docker://") || text.split_once(':').is_some_and(|(prefix, _)| known(prefix));
    // No name has the form of a whole image ID.
    let is_id = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    !is_path && !has_format && (is_id || longshore::reference::Reference::parse(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths_and_formats() {
        for name in ["app", "app:1", "localhost:5000/team/app:1", "app.tar", &"5a".repeat(32)] {
            assert!(is_engine_name(name), "{name}");
        }
        for other in [
            "-",
            "./app",
            "/app",
            "../app",
            "docker-archive:app.tar",
            "oci:app",
            "docker-daemon:app",
            "containerd:app",
            "docker://app",
            "src",
            "No Such File",
            "",
        ] {
            assert!(!is_engine_name(other), "{other}");
        }
    }
}

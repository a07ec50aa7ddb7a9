//! The commands, one file each. A command reads its arguments, calls the library, and prints.

mod assemble;
mod check;
mod completions;
mod copy;
mod diff;
mod edit;
mod export;
mod formats;
mod inspect;
mod load;
mod login;
mod ls;
mod man;
mod rebase;
mod save;
mod squash;
mod tags;

use std::sync::Arc;
use std::time::Instant;

use longshore::catalog::{ImageId, Wanted};
use longshore::context::{Context, Silent};
use longshore::location::{self, Access, Location, OpenOptions};
use longshore::plan::{self, Compress, ConvertOptions, NameChange};
use longshore::run::{self, Report};
use longshore::source::{Source, join, one_image};
use longshore::spec::Platform;

use crate::args::{Args, Command, ConvertArgs, Global};
use crate::console::{self, Console};
use crate::progress::Work;
use crate::report::{self, ReportFile, Summary};
use crate::signals::Signals;
use crate::{Outcome, access, options};

/// What every command gets.
struct Job<'a> {
    global: &'a Global,
    console: Console,
    context: Context,
    access: Access,
}

/// Does what the command line says.
pub(crate) fn run(args: &Args, console: &Console, signals: &Signals) -> anyhow::Result<Outcome> {
    let context = options::context(&args.global, signals)?;
    let access = access::resolve(args, &context)?;
    let job = Job { global: &args.global, console: *console, context, access };
    match &args.command {
        Command::Assemble(assemble) => assemble::run(job, assemble)?,
        Command::Check(check) => return check::run(job, check),
        Command::Completions(completions) => completions::run(completions)?,
        Command::Copy(copy) => copy::run(job, copy)?,
        Command::Diff(diff) => return diff::run(&job, diff),
        Command::Edit(edit) => edit::run(job, edit)?,
        Command::Export(export) => export::run(job, export)?,
        Command::Formats(formats) => formats::run(formats)?,
        Command::Inspect(inspect) => inspect::run(&job, inspect)?,
        Command::Load(load) => load::run(job, load)?,
        Command::Login(login) => login::login(&job, login)?,
        Command::Logout(logout) => login::logout(&job, logout)?,
        Command::Ls(ls) => ls::run(&job, ls)?,
        Command::Man(man) => man::run(man)?,
        Command::Rebase(rebase) => rebase::run(job, rebase)?,
        Command::Save(save) => save::run(job, save)?,
        Command::Squash(squash) => squash::run(job, squash)?,
        Command::Tags(tags) => tags::run(&job, tags)?,
    }
    Ok(Outcome::Done)
}

/// Writes the images of `from` to `to`: what `copy` and `save` both do once they know where.
fn convert(job: Job<'_>, args: &ConvertArgs, from: &[Location], to: &Location, how: &ConvertOptions) -> anyhow::Result<Option<Report>> {
    let mut how = how.clone();
    // From registry to registry nothing is changed that nobody asks for: signatures name the digest of the manifest.
    if [to].into_iter().chain(from).all(|location| matches!(location, Location::Registry(_))) {
        how.compress = how.compress.or(Some(Compress::Keep));
    }
    write(job, args, from, to, &how, |job, opening| {
        Ok(join(from.iter().map(|location| location::open(location, opening, &job.context)).collect::<Result<_, _>>()?))
    })
}

/// Writes the images of a source that `open` makes of what is at `from`. Returns what was done; nothing with `--dry-run`.
fn write(
    mut job: Job<'_>,
    args: &ConvertArgs,
    from: &[Location],
    to: &Location,
    how: &ConvertOptions,
    open: impl FnOnce(&Job<'_>, &OpenOptions) -> anyhow::Result<Arc<dyn Source>>,
) -> anyhow::Result<Option<Report>> {
    let started = Instant::now();
    options::check_epoch(options::epoch().as_deref())?;
    let write = options::write(args, to)?;
    let report_path = args.report.as_deref().filter(|_| !args.dry_run);
    let report_file = report_path.map(|path| ReportFile::create(path, from.iter().chain([to]))).transpose()?;

    // Before anything is read: an output that exists, or cannot be, fails at once.
    let sink = if args.dry_run { None } else { Some(location::create(to, &write, args.force, &job.access, &job.context)?) };
    let accepts = to.accepts(&write)?;
    let opening = OpenOptions {
        access: job.access.clone(),
        wanted: options::convert(args, NameChange::Keep).wanted(&accepts),
        ..options::open(args, from, to)
    };
    // What can be read only once is copied first, and that may take long.
    job.context.progress = options::progress(job.global, Work { tasks: from.len(), bytes: None });
    let source = open(&job, &opening)?;
    job.context.progress = Arc::new(Silent);

    let plan = plan::convert(source.catalog(), &accepts, how);
    let plan = plan.map_err(|error| error.frame(source.describe()))?;
    let Some(sink) = sink else {
        console::print(&plan.to_string())?;
        return Ok(None);
    };
    if job.console.is_verbose() {
        plan.to_string().lines().for_each(|line| job.console.say(line));
    } else {
        report::notes(job.console, &plan);
    }

    // The bars go when the last holder does, and before the summary is printed.
    let work = Work::of(plan.blobs.iter().map(|blob| &blob.known));
    job.context.progress = options::progress(job.global, work);
    let done = run::run(&plan, source.as_ref(), sink, &job.context);
    job.context.progress = Arc::new(Silent);
    let done = done?;

    let summary = Summary::new(&plan, to, &done, started.elapsed());
    if let Some(file) = report_file {
        file.write(&summary)?;
    }
    for line in summary.lines() {
        job.console.say(line);
    }
    Ok(Some(done))
}

/// The image of a source that is looked into.
fn looked_into(job: &Job<'_>, text: &str, platform: Option<&Platform>) -> anyhow::Result<(Arc<dyn Source>, ImageId)> {
    let wanted = Wanted::Best(platform.cloned().unwrap_or_else(Platform::host));
    let opening = OpenOptions { wanted, ..reading(job, false) };
    let source = location::open(&options::source(text)?, &opening, &job.context)?;
    let image = one_image(source.as_ref(), platform, &Platform::host())?;
    Ok((source, image))
}

/// How `inspect` and `check` open.
fn reading(job: &Job<'_>, keep_going: bool) -> OpenOptions {
    OpenOptions { keep_going, missing_layers: !keep_going, access: job.access.clone(), ..OpenOptions::default() }
}

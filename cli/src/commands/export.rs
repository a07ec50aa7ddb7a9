//! `longshore export`: the root file system, as a tar or unpacked.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore::catalog::Wanted;
use longshore::context::Silent;
use longshore::export::{Exported, export, export_to};
use longshore::location::{self, OpenOptions};
use longshore::source::{Source, one_image};
use longshore::spec::Platform;
use longshore::spool;
use longshore::transport::{Destination, Output};
use longshore::unpack::{Left, LeftOut, UnpackOptions, expect_free};

use super::Job;
use crate::args::ExportArgs;
use crate::console::Console;
use crate::options;
use crate::progress::Work;
use crate::text::{bytes, count, rate, seconds};

pub(super) fn run(mut job: Job<'_>, args: &ExportArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    if let Some(to) = &args.to {
        let options = UnpackOptions { rootless: args.rootless, force: args.force };
        expect_free(to, &options)?;
        let source = open(&mut job, args, Some(spool::parent(to)))?;
        let image = one_image(source.as_ref(), args.platform.as_ref(), &Platform::host())?;
        let done = export_to(source.as_ref(), image, to, &options, &job.context);
        job.context.progress = Arc::new(Silent);
        let (done, unpacked) = done?;
        left_out(job.console, &unpacked.left_out);
        say(job.console, &done, started.elapsed());
        return Ok(());
    }
    let path = args.output.as_deref().unwrap_or(Path::new("-"));
    let destination = Destination::at(path, args.force);
    if destination == Destination::Stdout {
        options::refuse_terminal("name a file with -o or a directory with --to, or redirect standard output")?;
    }
    let output = Output::create(&destination, &job.context)?;
    let source = open(&mut job, args, (destination != Destination::Stdout).then(|| spool::parent(path)))?;
    let image = one_image(source.as_ref(), args.platform.as_ref(), &Platform::host())?;
    let done = export(source.as_ref(), image, output, &job.context);
    job.context.progress = Arc::new(Silent);
    say(job.console, &done?, started.elapsed());
    Ok(())
}

/// Opens the image; what can be read only once is kept beside the output.
fn open(job: &mut Job<'_>, args: &ExportArgs, spool_dir: Option<&Path>) -> anyhow::Result<Arc<dyn Source>> {
    let from = options::source(&args.source)?;
    job.context.progress = options::progress(job.global, Work { tasks: 1, bytes: None });
    let wanted = Wanted::Best(args.platform.clone().unwrap_or_else(Platform::host));
    let opening = OpenOptions { spool_dir: spool_dir.map(Path::to_owned), wanted, access: job.access.clone(), ..OpenOptions::default() };
    Ok(location::open(&from, &opening, &job.context)?)
}

fn say(console: Console, done: &Exported, time: Duration) {
    let (entries, layers) = (count(done.entries, "entry"), count(done.layers, "layer"));
    let size = bytes(done.size.unwrap_or(done.bytes));
    console.say(format_args!("wrote {}: {entries} of {layers} ({}), {size}", done.destination, done.platform));
    let rate = rate(done.bytes_read, time).map(|rate| format!(" ({rate})")).unwrap_or_default();
    let verified = count(done.digests_verified + done.diff_ids_verified, "digest");
    let (read, time) = (bytes(done.bytes_read), seconds(time));
    console.say(format_args!("read {read} from {} in {time}{rate}; {verified} verified", done.source));
}

/// What is not in the directory as it is in the image.
fn left_out(console: Console, left: &LeftOut) {
    let note = |what: &Left, means: &str| {
        if what.count > 0 {
            let more = if what.count > what.examples.len() as u64 { ", …" } else { "" };
            console.note("left out", format!("{means} of {}: {}{more}", count(what.count, "entry"), what.examples.join(", ")));
        }
    };
    note(&left.owners, "owners, which are recorded in attributes,");
    note(&left.unrecorded, "the record of owners");
    note(&left.devices, "devices, which are empty files,");
    note(&left.xattrs, "extended attributes");
    note(&left.unknown, "all, since its type is not known,");
}

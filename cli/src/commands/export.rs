//! `longshore export`: the root file system as a tar.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use longshore::assemble::{Options, one_image};
use longshore::context::Silent;
use longshore::export::export;
use longshore::format::{self, OpenOptions};
use longshore::spec::Platform;
use longshore::spool;
use longshore::transport::{Destination, Output};

use super::Job;
use crate::args::ExportArgs;
use crate::options;
use crate::progress::Work;
use crate::text::{bytes, count, rate, seconds};

pub(super) fn run(mut job: Job<'_>, args: &ExportArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let from = options::source(&args.source)?;
    let path = args.output.as_deref().unwrap_or(Path::new("-"));
    let destination = Destination::at(path, args.force);
    if destination == Destination::Stdout {
        options::refuse_terminal("name a file with -o, or redirect standard output")?;
    }
    let output = Output::create(&destination, &job.context)?;

    let spool_dir = (destination != Destination::Stdout).then(|| spool::parent(path).to_owned());
    job.context.progress = options::progress(job.global, Work { tasks: 1, bytes: None });
    let source = format::open(&from, &OpenOptions { spool_dir, ..OpenOptions::default() }, &job.context)?;
    let choose = Options { platform: args.platform.clone(), host: Platform::host(), ..Options::default() };
    let image = one_image(source.as_ref(), &choose)?;
    let done = export(source.as_ref(), image, output, &job.context);
    job.context.progress = Arc::new(Silent);
    let done = done?;

    let (entries, layers) = (count(done.entries, "entry"), count(done.layers, "layer"));
    let size = bytes(done.size.unwrap_or(done.bytes));
    job.console.say(format_args!("wrote {}: {entries} of {layers} ({}), {size}", done.destination, done.platform));
    let rate = rate(done.bytes_read, started.elapsed()).map(|rate| format!(" ({rate})")).unwrap_or_default();
    let verified = count(done.digests_verified + done.diff_ids_verified, "digest");
    let (read, time) = (bytes(done.bytes_read), seconds(started.elapsed()));
    job.console.say(format_args!("read {read} from {} in {time}{rate}; {verified} verified", done.source));
    Ok(())
}

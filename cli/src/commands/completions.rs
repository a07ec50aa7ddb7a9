//! `longshore completions`: a script that completes commands, options and their values.

use clap::CommandFactory as _;

use crate::args::{Args, CompletionsArgs};
use crate::console;

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    // Into memory first: clap_complete would panic on a pipe that nobody reads.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "longshore", &mut script);
    console::print_bytes(&script)?;
    Ok(())
}

//! The project's own tasks: `cargo xtask demo | test | bench | docs`.
//!
//! Rust, not shell, so that they run wherever the project builds. Each task is a file; what they share (the workspace, cargo, running and
//! timing commands) is in [`tools`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tasks talk to whoever runs them")]

mod bench;
mod demo;
mod docs;
mod engines;
mod fresh;
mod rusage;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "\
usage: cargo xtask TASK

  demo                     build, and run the main job on a real fixture
  test [--fuzz SECONDS]    everything that CI runs
  bench [--image APP.tar] [--only WORDS]
                           compare speed, size and memory with skopeo, umoci, docker-squash and cp
  docs [--check]           write the generated pages below docs/, or check that they are up to date";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a task; `false` is a task that ran and found something wrong.
fn run(args: &[String]) -> anyhow::Result<bool> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["demo"] => demo::run().map(|()| true),
        ["test"] => test::run(test::FUZZ_SECONDS),
        ["test", "--fuzz", seconds] => test::run(seconds.parse()?),
        ["bench"] => bench::run(None, "").map(|()| true),
        ["bench", "--image", image] => bench::run(Some(image), "").map(|()| true),
        ["bench", "--only", words] => bench::run(None, words).map(|()| true),
        ["bench", "--image", image, "--only", words] => bench::run(Some(image), words).map(|()| true),
        ["docs"] => docs::run(false),
        ["docs", "--check"] => docs::run(true),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(true)
        }
        _ => bail!("what is {words:?}?\n\n{USAGE}"),
    }
}

//! `cargo xtask test`: everything that CI runs, in order, each step with a header and its duration.
//!
//! A step that fails does not stop the others, so that one run shows all that is wrong. The last lines are the totals of all test programs
//! and the names of the suites that were skipped; with CI=true nothing is skipped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use crate::fresh::Fresh;
use crate::tools::{cargo, check, find, root, shown};
use crate::{docs, tools};

/// How long all fuzz targets together run.
pub(crate) const FUZZ_SECONDS: u64 = 180;

/// Programs that the interop tests run, and Debian's packages that hold them.
const PEERS: [(&str, &str); 8] = [
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("podman", "podman"),
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("iptables", "iptables"),
    ("script", "bsdutils"),
];

/// What all test programs said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Totals {
    /// Adds what a line says, if it is the closing line of a test program.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(Ok(count)), Some(word)) = (words.next().map(str::parse::<u64>), words.next()) {
                match word {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    "ignored" => self.skipped += count,
                    _ => {}
                }
            }
        }
    }
}

struct Suite {
    failed: Vec<String>,
    times: Vec<String>,
    totals: Totals,
}

impl Suite {
    fn step(&mut self, name: &str, run: impl FnOnce(&mut Self) -> anyhow::Result<bool>) {
        println!("\n=== {name}");
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        let good = run(self).unwrap_or_else(|error| {
            println!("{error:#}");
            false
        });
        let line = format!("{name}: {} ({})", if good { "ok" } else { "FAILED" }, shown(start.elapsed()));
        println!("--- {line}");
        self.times.push(line);
        if !good {
            self.failed.push(name.to_owned());
        }
    }
}

pub(crate) fn run(fuzz_seconds: u64) -> anyhow::Result<bool> {
    let start = Instant::now();
    let fresh = Fresh::below(&std::env::temp_dir(), "longshore-test")?;
    let skips = fresh.path().join("skips");
    let mut suite = Suite { failed: Vec::new(), times: Vec::new(), totals: Totals::default() };

    suite.step("packages", |_| install());
    suite.step("fmt", |_| ran(cargo().args(["fmt", "--all", "--check"])));
    suite.step("clippy", |_| ran(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])));
    suite.step("tests", |suite| tests(&mut suite.totals, &skips));
    suite.step("fuzz", |_| fuzz(fuzz_seconds));
    suite.step("docs", |_| docs::run(true));
    suite.step("rustdoc", |_| ran(cargo().args(["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")));
    if find("cargo-deny").is_some() {
        suite.step("deny", |_| ran(cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"])));
    }

    println!("\n=== summary ({})", shown(start.elapsed()));
    for line in &suite.times {
        println!("{line}");
    }
    let skipped = std::fs::read_to_string(&skips).unwrap_or_default();
    for line in skipped.lines() {
        println!("skipped suite: {line}");
    }
    if !suite.failed.is_empty() {
        println!("FAILED: {}", suite.failed.join(", "));
    }
    // A step that failed without a test (fmt, clippy, ...) counts as one.
    let outside = suite.failed.iter().filter(|name| *name != "tests" || suite.totals.failed == 0).count() as u64;
    let Totals { passed, failed, skipped } = suite.totals;
    let tail = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    println!("{passed} passed, {} failed{tail}", failed + outside);
    Ok(suite.failed.is_empty() && passed > 0)
}

fn ran(command: &mut Command) -> anyhow::Result<bool> {
    println!("$ {}", tools::show(command));
    Ok(command.status().with_context(|| tools::show(command))?.success())
}

/// Installs what the interop tests need, where that is possible: as root, with apt. Elsewhere those tests say what they miss.
fn install() -> anyhow::Result<bool> {
    let mut missing: Vec<&str> = PEERS
        .iter()
        .filter(|(program, _)| !Path::new("/usr/bin").join(program).exists() && find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        println!("every package is there");
        return Ok(true);
    }
    let root_user = tools::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if find("apt-get").is_none() || !root_user {
        println!("not installed, and not to be installed here (that needs root and apt): {}", missing.join(", "));
        return Ok(true);
    }
    println!("installing {}", missing.join(", "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        // No service is to start: the tests run engines of their own.
        command.env("RUNLEVEL", "1");
        command
    };
    check(&mut apt(&["-qq", "update"]))?;
    let mut args = vec!["-qq", "-y", "--no-install-recommends", "install"];
    args.extend(&missing);
    check(&mut apt(&args))?;
    Ok(true)
}

/// Runs every test of the workspace, shows what it prints as it comes, and adds up its totals.
fn tests(totals: &mut Totals, skips: &Path) -> anyhow::Result<bool> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).env("LONGSHORE_SKIPS", skips).stdout(Stdio::piped());
    println!("$ {}", tools::show(&command));
    let mut child = command.spawn().context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("the output is piped")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        // The hundreds of lines of tests that pass say nothing.
        let passes = line.starts_with("test ") && line.ends_with(" ... ok");
        if !passes && !line.is_empty() {
            println!("{line}");
        }
        totals.add(&line);
    }
    Ok(child.wait()?.success())
}

fn fuzz(seconds: u64) -> anyhow::Result<bool> {
    let artifacts = tools::built("fuzz")?;
    let seconds = seconds.to_string();
    // In CI a change is judged by what it changes, so that all get the same inputs; elsewhere every run has others.
    let seed: &[&str] = if std::env::var("CI").as_deref() == Ok("true") { &["--seed", "20"] } else { &[] };
    let good = ran(cargo()
        .args(["run", "--quiet", "--release", "--package", "longshore-fuzz", "--", "--seconds", &seconds])
        .args(seed)
        .arg("--artifacts")
        .arg(&artifacts)
        .current_dir(root()))?;
    if !good {
        println!("the failing input lies in {}", artifacts.display());
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_from_closing_lines_only() {
        let mut totals = Totals::default();
        totals.add("test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.08s");
        totals.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.99s");
        totals.add("99 passed; 99 failed");
        assert_eq!(totals, Totals { passed: 13, failed: 2, skipped: 3 });
    }
}

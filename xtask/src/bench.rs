//! `cargo xtask bench`: longshore beside skopeo on a real application image, as a table in Markdown.
//!
//! The two run in turn, so that whatever else the machine does hits both; of three runs the median counts. Outputs are removed before each
//! run, and the source is read once beforehand, so that no run pays for a cold cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::fresh::Fresh;
use crate::rusage::{Used, measure};
use crate::tools::{check, find, longshore, output, root};

const RUNS: usize = 3;
const MIB: f64 = (1 << 20) as f64;

/// One row: a conversion, and what it must reach.
struct Row {
    name: &'static str,
    /// The source as a transport and a file of the folder.
    from: &'static str,
    /// The destination, the same way.
    to: &'static str,
    /// How many times as fast as skopeo.
    speed: f64,
    /// The largest output in percent of skopeo's.
    size: Option<f64>,
}

const ROWS: [Row; 3] = [
    Row { name: "docker-archive -> oci (gzip)", from: "docker-archive:app.tar", to: "oci:out", speed: 1.5, size: Some(103.0) },
    Row { name: "oci (gzip) -> docker-archive", from: "oci:layout", to: "docker-archive:out", speed: 2.5, size: None },
    Row { name: "oci -> oci-archive", from: "oci:layout", to: "oci-archive:out", speed: 3.0, size: None },
];

/// Peak memory that no row may exceed, at two threads.
const PEAK_MIB: f64 = 64.0;

pub(crate) fn run(image: Option<&str>) -> anyhow::Result<()> {
    let work = std::env::temp_dir().join("longshore-app");
    let image = match image {
        Some(image) => PathBuf::from(image),
        None => make_image(&work)?,
    };
    let image = image.canonicalize().with_context(|| format!("{}", image.display()))?;
    let skopeo = find("skopeo").context("skopeo is not installed: apt-get install skopeo")?;
    let longshore = longshore(true)?;
    std::fs::create_dir_all(&work)?;
    let fresh = Fresh::below(&work, "bench")?;
    let folder = fresh.path();
    std::os::unix::fs::symlink(&image, folder.join("app.tar"))?;
    // skopeo makes the layout that both then read.
    eprintln!("preparing ...");
    let theirs = |from: &str, to: &str| {
        let mut command = Command::new(&skopeo);
        command.args(["--insecure-policy", "copy", "--quiet", from, to]).current_dir(folder).stdout(Stdio::null());
        command
    };
    let ours = |from: &str, to: &str| {
        let mut command = Command::new(&longshore);
        command.args(["--quiet", "--threads", "2", "copy", from, to]).current_dir(folder).stdout(Stdio::null());
        command
    };
    check(&mut theirs("docker-archive:app.tar", "oci:layout:app"))?;

    println!("app.tar, {} MiB; {}; median of {RUNS} runs, in turn\n", mib(size(&image)?), version(&skopeo)?);
    println!("| conversion | longshore | skopeo | times as fast | size | of skopeo's | peak | skopeo's peak | goal |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|---|");
    let mut missed = Vec::new();
    for row in &ROWS {
        let (mut our_runs, mut their_runs, mut our_size, mut their_size) = (Vec::new(), Vec::new(), 0, 0);
        for run in 1..=RUNS {
            eprintln!("{}: run {run} of {RUNS}", row.name);
            let source = |name: &str| if row.from.starts_with("oci:") { format!("{name}:app") } else { name.to_owned() };
            their_runs.push(measure(&mut theirs(&source(row.from), &format!("{}:app:1", row.to)))?);
            their_size = take(&folder.join("out"))?;
            our_runs.push(measure(&mut ours(row.from, row.to))?);
            our_size = take(&folder.join("out"))?;
        }
        let (we, they) = (median(our_runs), median(their_runs));
        let speed = they.time.as_secs_f64() / we.time.as_secs_f64();
        let percent = our_size as f64 / their_size as f64 * 100.0;
        let mut goals = vec![(speed >= row.speed, format!("{:.1}x", row.speed))];
        goals.extend(row.size.map(|most| (percent <= most, format!("{most:.0} %"))));
        goals.push((we.peak as f64 / MIB <= PEAK_MIB, format!("{PEAK_MIB:.0} MiB")));
        let verdicts: Vec<String> = goals.iter().map(|(met, goal)| format!("{goal} {}", if *met { "met" } else { "MISSED" })).collect();
        missed.extend(goals.iter().filter(|(met, _)| !met).map(|(_, goal)| format!("{}: {goal}", row.name)));
        println!(
            "| {} | {} | {} | {speed:.2} | {} MiB | {percent:.1} % | {} MiB | {} MiB | {} |",
            row.name,
            seconds(we.time),
            seconds(they.time),
            mib(our_size),
            mib(we.peak),
            mib(they.peak),
            verdicts.join(", ")
        );
    }
    ensure!(missed.is_empty(), "goals missed: {}", missed.join("; "));
    println!("\nAll goals are met.");
    Ok(())
}

/// The application image, made once by the script beside this file.
fn make_image(work: &Path) -> anyhow::Result<PathBuf> {
    let image = work.join("app.tar");
    if !image.exists() {
        eprintln!("building the image (once; some minutes) ...");
        check(Command::new("bash").arg(root().join("xtask/bench/make_app.sh")).arg(&image).env("WORK", work))?;
    }
    Ok(image)
}

fn version(program: &Path) -> anyhow::Result<String> {
    Ok(output(Command::new(program).arg("--version"))?.trim().to_owned())
}

fn median(mut runs: Vec<Used>) -> Used {
    let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default();
    runs.sort_by_key(|run| run.time);
    Used { peak, ..runs[runs.len() / 2] }
}

/// The size of an output, which is then removed.
fn take(path: &Path) -> anyhow::Result<u64> {
    let bytes = size(path)?;
    if path.is_dir() {
        std::fs::remove_dir_all(path)?;
    } else {
        std::fs::remove_file(path)?;
    }
    Ok(bytes)
}

fn size(path: &Path) -> anyhow::Result<u64> {
    if path.is_dir() {
        return std::fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum();
    }
    Ok(path.metadata().with_context(|| format!("{}", path.display()))?.len())
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}

//! `cargo xtask bench`: longshore beside its peers on a real application image, as a table in Markdown.
//!
//! The two run in turn, so that whatever else the machine does hits both; of three runs the median counts. Outputs are removed before each
//! run, and the source is read once beforehand, so that no run pays for a cold cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::engines::Engines;
use crate::fresh::Fresh;
use crate::rusage::{Used, measure};
use crate::tools::{built, check, find, longshore, output, root};

const RUNS: usize = 3;
const MIB: f64 = (1 << 20) as f64;

/// One row: a job, and what it must reach. Every command leaves `out` in the folder it runs in, or something in the registry, where `app.tar` and `layout`, the same image
/// with gzip layers, are.
struct Row {
    name: &'static str,
    /// The arguments of longshore.
    ours: &'static str,
    /// What the peer runs, one command after the other; the first word of the first names it.
    theirs: &'static [&'static str],
    /// How many times as fast as the peer.
    speed: f64,
    /// The largest output in percent of the peer's.
    size: Option<f64>,
}

const ROWS: [Row; 12] = [
    Row {
        name: "docker-archive -> oci (gzip)",
        ours: "copy docker-archive:app.tar oci:out",
        theirs: &["skopeo --insecure-policy copy --quiet docker-archive:app.tar oci:out:app:1"],
        speed: 1.5,
        size: Some(103.0),
    },
    Row {
        name: "oci (gzip) -> docker-archive",
        ours: "copy oci:layout docker-archive:out",
        theirs: &["skopeo --insecure-policy copy --quiet oci:layout:app docker-archive:out:app:1"],
        speed: 2.5,
        size: None,
    },
    Row {
        name: "oci -> oci-archive",
        ours: "copy oci:layout oci-archive:out",
        theirs: &["skopeo --insecure-policy copy --quiet oci:layout:app oci-archive:out:app:1"],
        speed: 3.0,
        size: None,
    },
    Row {
        name: "docker-archive -> squashed docker-archive",
        ours: "squash docker-archive:app.tar docker-archive:out",
        theirs: &["docker-squash app.tar out"],
        speed: 10.0,
        size: None,
    },
    // umoci only unpacks.
    Row {
        name: "oci (gzip) -> squashed oci (gzip)",
        ours: "squash oci:layout:app oci:out",
        theirs: &["umoci unpack --image layout:app out"],
        speed: 2.0,
        size: None,
    },
    // Memory-copy speed: twice a copy of what is written, and once the digests of what is read.
    Row {
        name: "docker-archive -> root file system",
        ours: "export docker-archive:app.tar -o out",
        theirs: &["cp --reflink=never rootfs.tar out", "cp --reflink=never rootfs.tar out", "openssl dgst -sha256 app.tar"],
        speed: 1.0,
        size: None,
    },
    Row {
        name: "registry -> docker-archive",
        ours: "copy docker://{registry}/app:1 docker-archive:out",
        theirs: &["skopeo --insecure-policy copy --quiet --src-tls-verify=false docker://{registry}/app:1 docker-archive:out:app:1"],
        speed: 2.5,
        size: None,
    },
    Row {
        name: "registry -> oci",
        ours: "copy docker://{registry}/app:1 oci:out",
        theirs: &["skopeo --insecure-policy copy --quiet --src-tls-verify=false docker://{registry}/app:1 oci:out:app:1"],
        speed: 1.5,
        size: None,
    },
    Row {
        name: "docker-archive -> registry",
        ours: "copy docker-archive:app.tar docker://{empty}/app:1",
        theirs: &["skopeo --insecure-policy copy --quiet --dest-tls-verify=false docker-archive:app.tar docker://{empty}/app:1"],
        speed: 1.5,
        size: None,
    },
    Row {
        name: "docker's overlay2 store -> docker-archive",
        ours: "copy docker-storage:[{docker}]{image} docker-archive:out",
        theirs: &["docker save {image} --output out"],
        speed: 4.0,
        size: None,
    },
    Row {
        name: "podman's overlay store -> docker-archive",
        ours: "copy containers-storage:[overlay@{podman-root}]{image} docker-archive:out",
        theirs: &["podman {podman} save --quiet {image} --output out"],
        speed: 3.0,
        size: None,
    },
    Row {
        name: "podman's overlay store -> oci-archive (gzip)",
        ours: "copy containers-storage:[overlay@{podman-root}]{image} oci-archive:out",
        theirs: &["podman {podman} save --quiet --format oci-archive {image} --output out"],
        speed: 3.0,
        size: Some(103.0),
    },
];

/// Peak memory that no row may exceed, at two threads.
const PEAK_MIB: f64 = 64.0;

/// docker-squash as the bench installs it.
const DOCKER_SQUASH: &str = "docker-squash==1.2.2";

pub(crate) fn run(image: Option<&str>, only: &str) -> anyhow::Result<()> {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| row.name.contains(only) || row.ours.contains(only)).collect();
    ensure!(!rows.is_empty(), "no row is called {only}");
    let work = std::env::temp_dir().join("longshore-app");
    let image = match image {
        Some(image) => PathBuf::from(image),
        None => make_image(&work)?,
    };
    let image = image.canonicalize().with_context(|| format!("{}", image.display()))?;
    let ours = Programs { longshore: longshore(true)?, docker_squash: built("bench")?.join("docker-squash") };
    std::fs::create_dir_all(&work)?;
    let fresh = Fresh::below(&work, "bench")?;
    let folder = fresh.path();
    std::os::unix::fs::symlink(&image, folder.join("app.tar"))?;
    // skopeo makes the layout that both then read.
    eprintln!("preparing ...");
    let command = |line: &str| ours.command(line, folder);
    let prepares = |what: &str| rows.iter().any(|row| row.theirs.iter().any(|theirs| theirs.contains(what)));
    check(&mut command("skopeo --insecure-policy copy --quiet docker-archive:app.tar oci:layout:app")?)?;
    if prepares("docker-squash") {
        ours.install()?;
    }
    if prepares("rootfs.tar") {
        check(&mut command("longshore export docker-archive:app.tar -o rootfs.tar")?)?;
    }

    let lines: Vec<&str> = rows.iter().flat_map(|row| row.theirs.iter().chain([&row.ours])).copied().collect();
    let mut engines = Engines::start(&lines, folder)?;
    let mut command = |line: &str| -> anyhow::Result<Command> {
        let mut command = command(&engines.fill(line)?)?;
        engines.prepare(&mut command);
        Ok(command)
    };

    println!("app.tar, {} MiB; median of {RUNS} runs, in turn", mib(size(&image)?));
    for program in ["skopeo", "umoci", "docker", "podman"] {
        println!("{}", output(command(&format!("{program} --version"))?.stdout(Stdio::piped()))?.trim());
    }
    println!("{DOCKER_SQUASH}, fed the archive where it would ask a daemon to save the image\n");
    println!("| job | longshore | peer | its time | times as fast | size | of the peer's | peak | peer's peak | goal |");
    println!("|---|--:|---|--:|--:|--:|--:|--:|--:|---|");
    let mut missed = Vec::new();
    for row in rows {
        let (mut our_runs, mut their_runs, mut our_size, mut their_size) = (Vec::new(), Vec::new(), 0, 0);
        for run in 1..=RUNS {
            eprintln!("{}: run {run} of {RUNS}", row.name);
            let mut sum = Used { time: Duration::ZERO, peak: 0 };
            for line in row.theirs {
                let used = measure(&mut command(line)?)?;
                sum = Used { time: sum.time + used.time, peak: sum.peak.max(used.peak) };
                their_size = take(&folder.join("out"))?.unwrap_or(their_size);
            }
            their_runs.push(sum);
            our_runs.push(measure(&mut command(&format!("longshore --quiet --threads 2 {}", row.ours))?)?);
            let out = take(&folder.join("out"))?;
            ensure!(out.is_some() || row.is_push(), "`{}` wrote nothing", row.ours);
            our_size = out.unwrap_or(0);
        }
        let (we, they) = (median(our_runs), median(their_runs));
        let speed = they.time.as_secs_f64() / we.time.as_secs_f64();
        let percent = our_size as f64 / their_size as f64 * 100.0;
        let sizes = if row.is_push() { "- | -".to_owned() } else { format!("{} MiB | {percent:.1} %", mib(our_size)) };
        let mut goals = vec![(speed >= row.speed, format!("{:.1}x", row.speed))];
        goals.extend(row.size.map(|most| (percent <= most, format!("{most:.0} %"))));
        goals.push((we.peak as f64 / MIB <= PEAK_MIB, format!("{PEAK_MIB:.0} MiB")));
        let verdicts: Vec<String> = goals.iter().map(|(met, goal)| format!("{goal} {}", if *met { "met" } else { "MISSED" })).collect();
        missed.extend(goals.iter().filter(|(met, _)| !met).map(|(_, goal)| format!("{}: {goal}", row.name)));
        println!(
            "| {} | {} | {} | {} | {speed:.2} | {sizes} | {} MiB | {} MiB | {} |",
            row.name,
            seconds(we.time),
            row.peer(),
            seconds(they.time),
            mib(we.peak),
            mib(they.peak),
            verdicts.join(", ")
        );
    }
    ensure!(missed.is_empty(), "goals missed: {}", missed.join("; "));
    println!("\nAll goals are met.");
    Ok(())
}

impl Row {
    /// Whether what is written goes to the registry.
    fn is_push(&self) -> bool {
        self.ours.split_whitespace().last().is_some_and(|to| to.starts_with("docker://"))
    }

    /// The programs of the peer: `2 cp + openssl`.
    fn peer(&self) -> String {
        let mut programs: Vec<(&str, usize)> = Vec::new();
        for line in self.theirs {
            let program = line.split_whitespace().next().unwrap_or_default();
            match programs.iter_mut().find(|(known, _)| *known == program) {
                Some((_, times)) => *times += 1,
                None => programs.push((program, 1)),
            }
        }
        let shown = programs.iter().map(|(program, times)| if *times == 1 { (*program).to_owned() } else { format!("{times} {program}") });
        shown.collect::<Vec<_>>().join(" + ")
    }
}

/// Where programs are that are not found on the path.
struct Programs {
    longshore: PathBuf,
    /// A Python environment of its own.
    docker_squash: PathBuf,
}

impl Programs {
    /// A command line as a command, to be run in `folder`.
    fn command(&self, line: &str, folder: &Path) -> anyhow::Result<Command> {
        let mut words = line.split_whitespace();
        let mut command = match words.next() {
            Some("longshore") => Command::new(&self.longshore),
            Some("docker-squash") => {
                let mut command = Command::new(self.docker_squash.join("bin/python"));
                command.arg(root().join("xtask/bench/squash_archive.py")).stderr(Stdio::null());
                command
            }
            Some(program) => Command::new(find(program).with_context(|| format!("{program} is not installed"))?),
            None => bail!("an empty command line"),
        };
        command.args(words).current_dir(folder).env("TMPDIR", folder).stdout(Stdio::null());
        Ok(command)
    }

    /// Installs docker-squash, once.
    fn install(&self) -> anyhow::Result<()> {
        let python = self.docker_squash.join("bin/python");
        if !self.docker_squash.join("bin/docker-squash").exists() {
            eprintln!("installing {DOCKER_SQUASH} ...");
            check(Command::new("python3").args(["-m", "venv"]).arg(&self.docker_squash))?;
            check(Command::new(python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", DOCKER_SQUASH]))?;
        }
        Ok(())
    }
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

fn median(mut runs: Vec<Used>) -> Used {
    let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default();
    runs.sort_by_key(|run| run.time);
    Used { peak, ..runs[runs.len() / 2] }
}

/// The size of an output, which is then removed; `None` when there is none.
fn take(path: &Path) -> anyhow::Result<Option<u64>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = size(path)?;
    if path.is_dir() {
        std::fs::remove_dir_all(path)?;
    } else {
        std::fs::remove_file(path)?;
    }
    Ok(Some(bytes))
}

/// What lies below `path`, in bytes. Links are not followed: an unpacked image is full of them.
fn size(path: &Path) -> anyhow::Result<u64> {
    let about = path.symlink_metadata().with_context(|| format!("{}", path.display()))?;
    if about.is_dir() {
        return std::fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum();
    }
    Ok(about.len())
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_apart_and_name_their_peer() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..at].iter().all(|other| other.name != row.name), "{} is there twice", row.name);
        }
        let peers: Vec<String> = ROWS.iter().map(Row::peer).collect();
        let files = ["skopeo", "skopeo", "skopeo", "docker-squash", "umoci", "2 cp + openssl"];
        assert_eq!(peers, [&files[..], &["skopeo", "skopeo", "skopeo", "docker", "podman", "podman"]].concat());
    }
}

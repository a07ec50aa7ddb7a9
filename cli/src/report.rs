//! What was done: two lines for people, a JSON file for programs.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore::error::Context as _;
use longshore::location::Location;
use longshore::plan::Plan;
use longshore::run::Report;
use longshore::spool::{self, Temporary};
use longshore::{Error, Result};
use serde::Serialize;

use crate::console::Console;
use crate::text::{bytes, count, rate, seconds};

/// What the plan leaves out and what it chose, before it is run.
pub(crate) fn notes(console: Console, plan: &Plan) {
    for line in &plan.omitted {
        console.note("left out", line);
    }
    for line in &plan.notes {
        console.note("note", line);
    }
}

/// What a run did and how long it took.
pub(crate) struct Summary<'a> {
    output: String,
    format: &'static str,
    done: &'a Report,
    time: Duration,
}

impl<'a> Summary<'a> {
    pub(crate) fn new(plan: &Plan, to: &Location, done: &'a Report, time: Duration) -> Self {
        let output = if to.is_stdio() { "standard output".to_owned() } else { to.to_string() };
        Self { output, format: plan.accepts.format, done, time }
    }

    /// `wrote app.tar: …` and `read 795.0 MB from …`.
    pub(crate) fn lines(&self) -> [String; 2] {
        let done = self.done;
        let platforms: BTreeSet<_> = done.images.iter().map(|image| image.platform.as_str()).collect();
        let platforms: Vec<_> = platforms.into_iter().collect();
        let platforms = if platforms.is_empty() { String::new() } else { format!(" ({})", platforms.join(", ")) };
        let all: usize = done.images.iter().map(|image| image.layers.len()).sum();
        let stored = if done.blobs < all { format!(" ({} stored)", done.blobs) } else { String::new() };
        let what = match done.images.len() {
            // An artifact has no config and no layers that a container could have.
            0 => format!("{}, {}", count(done.manifests.len(), "manifest"), count(done.blobs, "blob")),
            images => format!("{}{platforms}, {}{stored}", count(images, "image"), count(all, "layer")),
        };
        let size = bytes(done.size.unwrap_or(done.bytes_written));
        let wrote = format!("wrote {}: {what}, {size}, {}", self.output, self.format);

        let rate = rate(done.bytes_read, self.time).map(|rate| format!(" ({rate})")).unwrap_or_default();
        let verified = count(done.digests_verified + done.diff_ids_verified, "digest");
        let (amount, time) = (bytes(done.bytes_read), seconds(self.time));
        let spooled = if done.bytes_spooled > 0 { format!("; {} spooled", bytes(done.bytes_spooled)) } else { String::new() };
        let held = if done.blobs_held > 0 { format!("; {} there already", count(done.blobs_held, "blob")) } else { String::new() };
        [wrote + &held, format!("read {amount} from {} in {time}{rate}; {verified} verified{spooled}", done.source)]
    }
}

/// The file of `--report`: there when it is complete, and not before.
pub(crate) struct ReportFile {
    file: Temporary,
    path: PathBuf,
}

/// What `--report` writes; described in docs/JSON.md.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    format: &'a str,
    seconds: f64,
    #[serde(flatten)]
    done: &'a Report,
}

impl ReportFile {
    /// Begins it, so that a place that cannot be written is known before the work. `images` are what is read and written, and stay what they are.
    pub(crate) fn create<'a>(path: &Path, mut images: impl Iterator<Item = &'a Location>) -> Result<Self> {
        let refuse = |why: &str| Err(Error::new(longshore::ErrorKind::Exists, why.to_owned()).frame(path.display()));
        if path.is_dir() {
            return refuse("it is a directory, and a report is a file");
        }
        // A rename would put a file in the place of /dev/null or of somebody's pipe.
        if path.metadata().is_ok_and(|meta| !meta.is_file()) {
            return refuse("it is a device, pipe or the like, and a report is a file");
        }
        if images.any(|image| image.path().is_some_and(|image| same_file(image, path))) {
            return refuse("the report would replace an image that is read or written");
        }
        let file = Temporary::file(spool::parent(path)).context(|| format!("writing the report {}", path.display()))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes it and gives it its name.
    pub(crate) fn write(mut self, summary: &Summary<'_>) -> Result<()> {
        let document = Document { version: 1, format: summary.format, seconds: summary.time.as_secs_f64(), done: summary.done };
        let mut text = serde_json::to_vec_pretty(&document).map_err(std::io::Error::from).path(&self.path)?;
        text.push(b'\n');
        self.file.handle().as_ref().write_all(&text).path(&self.path)?;
        self.file.persist(&self.path, true)
    }
}

/// Whether two paths are or will be one file.
fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    match (identity(one), identity(other)) {
        (None, None) => one.file_name() == other.file_name() && identity(spool::parent(one)) == identity(spool::parent(other)),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use longshore::run::ReportedImage;

    use super::*;

    fn report() -> Report {
        let image =
            ReportedImage { id: "sha256:0".to_owned(), platform: "linux/amd64".to_owned(), names: vec![], layers: vec![String::new(); 7] };
        Report {
            source: "docker-archive:x.tar".to_owned(),
            destination: "app.tar".to_owned(),
            images: vec![image],
            blobs: 7,
            bytes_read: 795_000_000,
            bytes_written: 281_300_000,
            size: Some(281_400_000),
            digests_verified: 7,
            diff_ids_verified: 7,
            ..Report::default()
        }
    }

    fn lines(done: &Report) -> [String; 2] {
        Summary { output: "app.tar".to_owned(), format: "docker-archive", done, time: Duration::from_millis(2100) }.lines()
    }

    #[test]
    fn two_lines_say_what_was_done() {
        let [wrote, read] = lines(&report());
        assert_eq!(wrote, "wrote app.tar: 1 image (linux/amd64), 7 layers, 281.4 MB, docker-archive");
        assert_eq!(read, "read 795.0 MB from docker-archive:x.tar in 2.1 s (378.6 MB/s); 14 digests verified");
        let [wrote, read] = lines(&Report { bytes_spooled: 120_000_000, blobs: 5, size: None, ..report() });
        assert_eq!(wrote, "wrote app.tar: 1 image (linux/amd64), 7 layers (5 stored), 281.3 MB, docker-archive");
        assert!(read.ends_with("; 14 digests verified; 120.0 MB spooled"));
    }

    #[test]
    fn a_report_appears_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let file = ReportFile::create(&path, [].iter()).unwrap();
        assert!(!path.exists());
        file.write(&Summary { output: "app".to_owned(), format: "oci", done: &report(), time: Duration::from_secs(1) }).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["version"], &value["bytes_read"], &value["blobs"]), (&1.into(), &795_000_000.into(), &7.into()));
    }

    #[test]
    fn a_report_that_cannot_be_is_known_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let create = |name: &str, images: &[Location]| ReportFile::create(&dir.path().join(name), images.iter());
        assert!(create("no/report.json", &[]).is_err());
        assert!(create("", &[]).is_err());
        assert!(ReportFile::create(Path::new("/dev/null"), [].iter()).is_err_and(|error| error.to_string().contains("a device")));
        // What is read is there, what is written is not yet.
        std::fs::write(dir.path().join("in.tar"), b"").unwrap();
        let at = |path: &str| Location::parse_destination(dir.path().join(path).to_str().unwrap()).unwrap();
        let images = [at("in.tar"), at("out.tar"), at("./folder/../in.tar"), Location::parse_destination("-").unwrap()];
        for name in ["in.tar", "out.tar", "./out.tar"] {
            let error = create(name, &images).map(drop).unwrap_err();
            assert!(error.to_string().contains("would replace an image"), "{error}");
        }
        drop(create("report.json", &images).unwrap());
        std::fs::remove_file(dir.path().join("in.tar")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

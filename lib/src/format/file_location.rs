//! Where an image is in a file, folder or stream, as people write it, and how it is opened and created.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::ArchiveFiles;
use super::{FORMATS, Format, Held, Holding, Place, Target, WriteOptions, by_name};
use crate::context::Context;
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::sink::{Accepts, Sink};
use crate::source::Source;
use crate::transport::{Destination, open_archive};
use crate::tree::Opening;

/// Where an image is or goes: `[FORMAT:]PATH[:REF]`.
#[derive(Debug, Clone)]
pub struct FileLocation {
    /// The format, where the text names one or a destination implies it.
    pub format: Option<&'static dyn Format>,
    /// The file or folder; `-` is a standard stream.
    pub path: PathBuf,
    /// The text after the path.
    pub reference: Option<String>,
}

impl FileLocation {
    /// Parses a source. A path without a format is detected when it is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the format is unknown.
    pub fn parse_source(text: &str) -> Result<Self> {
        Self::parse(text)
    }

    /// Parses a destination: `-` and bare paths are docker-archives, unless a folder is there or the name ends in `/`: then an OCI layout.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the format is unknown.
    pub fn parse_destination(text: &str) -> Result<Self> {
        let mut location = Self::parse(text)?;
        if location.format.is_none() {
            let directory = text.ends_with('/') || (text != "-" && location.path.is_dir());
            location.format = by_name(if directory { "oci" } else { "docker-archive" });
        }
        Ok(location)
    }

    fn parse(text: &str) -> Result<Self> {
        let is_path = text == "-" || text.starts_with(['/', '.']);
        let prefix = text.split_once(':').filter(|(prefix, _)| !is_path && !prefix.contains('/'));
        match prefix.map(|(prefix, rest)| (by_name(prefix), prefix, rest)) {
            Some((Some(format), _, rest)) => {
                let (path, reference) = split_reference(rest);
                if path.as_os_str().is_empty() {
                    return Err(Error::invalid("there is no path after the format").frame(text.escape_debug()));
                }
                Ok(Self { format: Some(format), path, reference })
            }
            // A file may well be called app:1.tar.
            Some((None, prefix, _)) if fs::symlink_metadata(text).is_err() => {
                if let (path, Some(_)) = split_reference(text)
                    && fs::symlink_metadata(&path).is_ok()
                {
                    let format = if path.is_dir() { "oci" } else { "docker-archive" };
                    return Err(Error::not_found("there is no such file, and a REF after a path needs the format before it")
                        .frame(text.escape_debug())
                        .hint(format_args!("{format}:{}, for example", text.escape_debug())));
                }
                let known: Vec<_> = FORMATS.iter().map(|format| format.name()).collect();
                Err(Error::unsupported(format_args!("{} is neither a file nor a format", prefix.escape_debug()))
                    .frame(text.escape_debug())
                    .hint(format_args!("formats are {}; a path may begin with ./", known.join(", "))))
            }
            _ if text.is_empty() => Err(Error::invalid("an empty path")),
            _ => Ok(Self { format: None, path: PathBuf::from(text), reference: None }),
        }
    }

    /// Whether it is a standard stream.
    pub fn is_stdio(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// What a destination can hold.
    ///
    /// # Errors
    /// When it has no format, which [`FileLocation::parse_destination`] rules out.
    pub fn accepts(&self, options: &WriteOptions) -> Result<Accepts> {
        Ok(self.known_format()?.accepts(options))
    }

    fn known_format(&self) -> Result<&'static dyn Format> {
        self.format.ok_or_else(|| Error::unsupported("a destination needs a format").frame(self.path.display()))
    }
}

/// Separates `PATH:REF`. Paths with colons work as long as they exist; a REF has no `/` before its first `:` unless it is a repository.
fn split_reference(rest: &str) -> (PathBuf, Option<String>) {
    let whole = PathBuf::from(rest);
    if fs::symlink_metadata(&whole).is_ok() {
        return (whole, None);
    }
    // The longest part before a colon that exists is the path; otherwise what is before the first colon.
    let colons: Vec<usize> = rest.match_indices(':').map(|(at, _)| at).collect();
    let existing = colons.iter().rev().find(|at| fs::symlink_metadata(&rest[..**at]).is_ok());
    match existing.or(colons.first()) {
        // What is yet to be made may hold colons nowhere but before its REF.
        Some(at) => (PathBuf::from(&rest[..*at]), Some(rest[at + 1..].to_owned())),
        None => (whole, None),
    }
}

/// Opens a source: finds out what it is where the caller does not say, and reads its metadata.
///
/// # Errors
/// When it cannot be read, is malformed, or does not hold what is wanted.
pub fn open(location: &FileLocation, opening: &Opening<'_>, spool_dir: Option<&Path>) -> Result<Arc<dyn Source>> {
    let ctx = opening.ctx;
    let path = &location.path;
    let directory = !location.is_stdio() && path.is_dir();
    let held = if directory {
        Held(Holding::Directory(path.clone()))
    } else {
        let archive = open_archive(path, spool_dir.unwrap_or(&ctx.temp), ctx)?;
        let label = archive.label.clone();
        Held(Holding::Archive(ArchiveFiles::scan(archive, ctx).context(|| label)?))
    };
    let format = match location.format {
        Some(format) => format,
        None => detect(&held, directory).context(|| shown(path))?,
    };
    let wanted = if directory { Place::Directory } else { Place::Archive };
    if format.place() != wanted {
        let (is, needs) = if directory { ("a directory", "a file") } else { ("a file", "a directory") };
        let error = Error::invalid(format_args!("it is {is}, and {} is kept in {needs}", format.name())).frame(shown(path));
        return Err(error.hint("leave the format out, and it is detected"));
    }
    format.open(held, opening).context(|| shown(path))
}

/// Opens what is at hand, of whatever format it is.
pub(super) fn open_held(held: Held, opening: &Opening<'_>) -> Result<Arc<dyn Source>> {
    detect(&held, false)?.open(held, opening)
}

fn shown(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_owned() } else { super::shown(path) }
}

fn detect(held: &Held, directory: bool) -> Result<&'static dyn Format> {
    let place = if directory { Place::Directory } else { Place::Archive };
    let found = FORMATS.iter().copied().find(|format| format.place() == place && format.detect(&|name| held.has(name)));
    found.ok_or_else(|| {
        let wanted =
            if directory { "neither index.json (an OCI layout) nor manifest.json (dir)" } else { "neither manifest.json nor index.json" };
        Error::invalid(format_args!("it has {wanted}, so it holds no image of a known format"))
    })
}

/// Begins an output at a destination. Nothing is visible until it is committed.
///
/// # Errors
/// [`ErrorKind::Exists`] when something is there that may not be replaced, or what the system says.
pub fn create(location: &FileLocation, options: &WriteOptions, replace: bool, ctx: &Context) -> Result<Box<dyn Sink>> {
    let format = location.known_format()?;
    let path = location.path.clone();
    let target = match format.place() {
        Place::Directory if location.is_stdio() => {
            return Err(Error::new(ErrorKind::Unsupported, format!("{} is a directory and cannot be a stream", format.name())));
        }
        Place::Directory => Target::Directory { path, replace },
        Place::Archive => Target::Archive(Destination::at(&path, replace)),
    };
    format.create(&target, options, ctx)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, String, String) {
        let location = FileLocation::parse_source(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let format = location.format.map_or("-", |format| format.name());
        (format.to_owned(), location.path.to_str().unwrap().to_owned(), location.reference.unwrap_or_else(|| "none".to_owned()))
    }

    #[test]
    fn sources() {
        for format in FORMATS {
            let name = format.name();
            for (rest, path, reference) in [
                ("missing.tar", "missing.tar", "none"),
                ("missing.tar:kitchen", "missing.tar", "kitchen"),
                ("missing:kitchen:1", "missing", "kitchen:1"),
                ("missing:localhost:5000/a/b:1", "missing", "localhost:5000/a/b:1"),
                ("/missing/a.tar:@0", "/missing/a.tar", "@0"),
                ("./missing:@sha256:00", "./missing", "@sha256:00"),
                ("missing:", "missing", ""),
                ("-", "-", "none"),
                ("-:a:1", "-", "a:1"),
            ] {
                assert_eq!(parsed(&format!("{name}:{rest}")), (name.to_owned(), path.to_owned(), reference.to_owned()));
            }
            for bad in ["", ":", ":kitchen"] {
                let error = FileLocation::parse_source(&format!("{name}:{bad}")).unwrap_err();
                assert!(error.to_string().contains("no path"), "{error}");
            }
        }
        for path in ["missing.tar", "./x:y", "../x:y", "/x:y", "-", ".", "a/b:c", "./oci:x", "/docker-archive:x"] {
            assert_eq!(parsed(path), ("-".to_owned(), path.to_owned(), "none".to_owned()));
        }
        for (text, says) in [("", "an empty path"), ("nothing:x", "nothing is neither a file nor a format"), ("OCI:x", "OCI is neither")] {
            let error = FileLocation::parse_source(text).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn what_exists_decides_about_colons() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for name in ["a:b", "a:b:c", "x"] {
            fs::write(at(name), b"").unwrap();
        }
        let expect = |text: &str, path: &str, reference: &str| {
            assert_eq!(parsed(&format!("oci-archive:{}", at(text))), ("oci-archive".to_owned(), at(path), reference.to_owned()));
        };
        expect("a:b", "a:b", "none");
        expect("a:b:c", "a:b:c", "none");
        expect("a:b:c:d", "a:b:c", "d");
        expect("a:b:d", "a:b", "d");
        expect("a:d", "a", "d");
        expect("x:@1", "x", "@1");
    }

    #[test]
    fn a_name_after_a_bare_path_is_told_what_it_lacks() {
        // Tests run in the folder of the crate.
        for (text, hint) in [("Cargo.toml:app:1", "docker-archive:Cargo.toml:app:1"), ("src:app:1", "oci:src:app:1")] {
            let error = FileLocation::parse_source(text).unwrap_err();
            assert!(error.to_string().contains("a REF after a path needs the format before it"), "{error}");
            assert!(error.hint_text().unwrap().starts_with(hint), "{error}");
        }
    }

    #[test]
    fn destinations() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        for (text, format) in [
            ("-", "docker-archive"),
            ("missing.tar", "docker-archive"),
            ("missing/", "oci"),
            (folder, "oci"),
            ("dir:missing", "dir"),
            ("oci-archive:-", "oci-archive"),
        ] {
            assert_eq!(FileLocation::parse_destination(text).unwrap().format.unwrap().name(), format, "{text}");
        }
        assert!(FileLocation::parse_destination("-").unwrap().is_stdio() && !FileLocation::parse_destination("./-").unwrap().is_stdio());
        let ctx = crate::testing::context(dir.path());
        for text in ["oci:-", "dir:-"] {
            let error =
                create(&FileLocation::parse_destination(text).unwrap(), &WriteOptions::default(), false, &ctx).map(drop).unwrap_err();
            assert!(error.to_string().contains("cannot be a stream"), "{error}");
        }
        assert!(FileLocation::parse_source("x").unwrap().accepts(&WriteOptions::default()).is_err());
    }

    #[test]
    fn what_is_opened_must_be_of_its_format() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().display();
        fs::write(dir.path().join("file"), b"text that is no archive").unwrap();
        fs::write(dir.path().join("tar"), longshore_testkit::tar::write(&[longshore_testkit::tar::Member::file("a", "b")])).unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        for (text, says) in [
            (format!("docker-archive:{folder}/empty"), "it is a directory, and docker-archive is kept in a file"),
            (format!("oci:{folder}/tar"), "it is a file, and oci is kept in a directory"),
            (format!("{folder}/file"), "it is not a tar archive"),
            (format!("{folder}/tar"), "it has neither manifest.json nor index.json"),
            (format!("{folder}/empty"), "it has neither index.json (an OCI layout) nor manifest.json (dir)"),
            (format!("{folder}/none"), "No such file"),
            (format!("docker-archive:{folder}/tar:@x"), "@x"),
        ] {
            let error = crate::testing::source(&text).map(drop).unwrap_err().to_string();
            assert!(error.contains(says) || text.ends_with("@x"), "{text}: {error}");
            assert!(!error.contains('\n') && error.contains(&folder.to_string()) || text.ends_with("@x"), "{text}: {error}");
        }
    }
}

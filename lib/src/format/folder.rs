//! A folder that is replaced as a whole, for formats that hold one image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::sink::BlobWriter;
use crate::spool::{self, Temporary};

use super::layout_write::DirBlob;

/// A folder on its way: everything is written beside it, and then takes its place.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    temporary: Temporary,
    replace: bool,
}

impl Folder {
    /// Begins a folder at `path`. One that exists must be empty, or hold all of `files` and be allowed to be replaced.
    pub(super) fn create(path: &Path, replace: bool, files: &[&str]) -> Result<Self> {
        let exists = |what: &str, hint: &str| Err(Error::new(ErrorKind::Exists, what).frame(path.display()).hint(hint));
        match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(error).frame(path.display())),
            Ok(mut entries) => {
                let empty = entries.next().is_none();
                let ours = files.iter().all(|name| path.join(name).is_file());
                if !empty && !ours {
                    return exists("it is a directory with other things in it, not one of this format", "name a new or empty directory");
                }
                if !empty && !replace {
                    return exists("it holds an image already", "--force replaces it");
                }
            }
        }
        Ok(Self { path: path.to_owned(), temporary: Temporary::dir(spool::parent(path)).path(path)?, replace })
    }

    /// Where it will be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where files are written meanwhile.
    pub(super) fn work(&self) -> &Path {
        self.temporary.path()
    }

    /// Begins blob number `blob`, which gets its name when that is known.
    pub(super) fn put(&self, blob: usize) -> Result<Box<dyn BlobWriter + '_>> {
        let path = self.blob(blob);
        DirBlob::create(self.work().join(format!("part-{blob}")), move |_| Ok(path.clone()))
    }

    /// The file of blob number `blob`, before it has a name.
    pub(super) fn blob(&self, blob: usize) -> PathBuf {
        self.work().join(format!("blob-{blob}"))
    }

    /// Puts it in its place, in one step.
    pub(super) fn make_visible(mut self) -> Result<()> {
        // One rename replaces nothing, or an empty folder.
        if !self.path.exists() || fs::remove_dir(&self.path).is_ok() || !self.replace {
            return self.temporary.persist(&self.path, false);
        }
        self.temporary.exchange(&self.path)
    }
}

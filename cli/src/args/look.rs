//! The arguments of the commands that look into layers: `ls` and `diff`.

use std::ffi::OsString;

use clap::ValueHint;
use longshore::spec::Platform;

use super::IMAGE_HELP;

const LS_HELP: &str = "\
Examples:
  longshore ls app.tar                     the files that its layers make together
  longshore ls app.tar etc --depth 1       what is in one directory
  longshore ls oci:app:1.0 usr/bin/env -v  with the layer that it comes from
  longshore ls app.tar --layer 2           the entries of a layer, whiteouts too
  longshore ls app.tar --json

Columns are those of ls -l: kind and mode, names of the file, user, group, size (or
numbers of a device), time in UTC, path. A w in front is a whiteout, an h a hard link to
something in a lower layer, a + after the mode stands for extended attributes.

";

/// Options of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{LS_HELP}{IMAGE_HELP}"))]
pub(crate) struct LsArgs {
    /// The archive or directory to look into, or one image of it (IMAGE below)
    #[arg(value_name = "SRC", value_hint = ValueHint::AnyPath)]
    pub(crate) source: String,
    /// List what is at or below this path of the image; symlinks on the way are followed [default: all]
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<OsString>,
    /// List the entries of this layer as they stand in it, from 0, the base
    #[arg(long, value_name = "N")]
    pub(crate) layer: Option<usize>,
    /// Go at most N levels below PATH: 0 is PATH itself, 1 what is directly in it
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<usize>,
    /// Show numbers of users and groups, not names
    #[arg(short, long)]
    pub(crate) numeric: bool,
    /// Take this platform of an index [default: the one that runs here]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

const DIFF_HELP: &str = "\
Examples:
  longshore diff old.tar new.tar
  longshore diff docker-archive:both.tar:app:1 docker-archive:both.tar:app:2
  longshore diff old.tar new.tar --layers        and the files of layers that differ
  longshore diff old.tar new.tar --json
  longshore diff -q old.tar new.tar && echo same

A line begins with A (added), D (removed) or C (changed). Images that are the same give no
line. Exit code 0 if they are, 1 if not, or when the comparison failed; then standard
error says why.

";

/// Options of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{DIFF_HELP}{IMAGE_HELP}"))]
pub(crate) struct DiffArgs {
    /// The first image (IMAGE below)
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    pub(crate) before: String,
    /// The second image, which may be in the same place
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    pub(crate) after: String,
    /// Also list the files of layers that differ, layer beside layer
    #[arg(long)]
    pub(crate) layers: bool,
    /// Also list files that differ in nothing but their time
    #[arg(long)]
    pub(crate) times: bool,
    /// Take this platform of indexes [default: the one that runs here]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

//! The arguments of the commands that merge layers: `squash` and `export`.

use std::path::PathBuf;

use clap::{ArgAction, ValueHint};
use longshore::reference::Reference;
use longshore::spec::Platform;

use super::{ConvertArgs, IMAGE_HELP};
use crate::options;

const SQUASH_HELP: &str = "\
Examples:
  longshore squash app.tar small.tar                      all layers as one
  longshore squash app.tar - | docker load
  longshore squash oci:app:1.0 oci:small --from base.tar  keep the layers of the base
  longshore squash app.tar small.tar --last 3             merge the newest three
  longshore squash app.tar old.tar --dialect v1           for programs of 2013

";

/// Options of `squash`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{SQUASH_HELP}{IMAGE_HELP}"))]
pub(crate) struct SquashArgs {
    /// The archive or directory to read, or one image of it (IMAGE below)
    #[arg(value_name = "SRC", value_hint = ValueHint::AnyPath)]
    pub(crate) source: String,
    /// Where to write it
    #[arg(value_name = "DST", value_hint = ValueHint::AnyPath)]
    pub(crate) destination: String,
    /// Keep the lowest N layers, or the layers of this base image, and merge those above [default: merge all]
    #[arg(long, value_name = "N|IMAGE", conflicts_with = "last", value_hint = ValueHint::AnyPath)]
    pub(crate) from: Option<String>,
    /// Merge the newest N layers, and keep those below
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) last: Option<u16>,
    /// Say that the image was made at this time: RFC 3339 or seconds since 1970 [default: what it says itself]
    #[arg(long, value_name = "TIME")]
    pub(crate) created: Option<String>,
    /// Add .squash to every tag, as Quay does
    #[arg(long)]
    pub(crate) squash_tag_suffix: bool,
    /// Give the image this name and no other; may be repeated for more names, and a REF on DST beats it
    #[arg(long = "tag", value_name = "NAME:TAG", value_parser = options::parse_tag, action = ArgAction::Append)]
    pub(crate) tags: Vec<Reference>,
    #[command(flatten)]
    pub(crate) convert: ConvertArgs,
}

const EXPORT_HELP: &str = "\
Examples:
  longshore export app.tar -o rootfs.tar
  longshore export oci:app:1.0 | tar x -C rootfs
  longshore export app.tar --platform linux/arm64 -o rootfs.tar.zst
  longshore export app.tar --to rootfs                    unpacked, as root with owners and devices
  longshore export app.tar --to rootfs --rootless

";

/// Options of `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXPORT_HELP}{IMAGE_HELP}"))]
pub(crate) struct ExportArgs {
    /// The archive or directory to read, or one image of it (IMAGE below)
    #[arg(value_name = "SRC", value_hint = ValueHint::AnyPath)]
    pub(crate) source: String,
    /// Write to this file instead of standard output; one whose name ends in .gz or .zst is compressed
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Unpack into this directory, which is made, or empty
    #[arg(long, value_name = "DIR", conflicts_with = "output", value_hint = ValueHint::DirPath)]
    pub(crate) to: Option<PathBuf>,
    /// With --to: keep the owners, devices and attributes that the system lets you keep, and record the rest, as umoci does
    #[arg(long, requires = "to")]
    pub(crate) rootless: bool,
    /// Take this platform of an index [default: the one that runs here]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,
    /// Replace a file that exists; with --to, unpack over a directory that is not empty
    #[arg(long)]
    pub(crate) force: bool,
}

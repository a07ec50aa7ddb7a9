//! The arguments of the commands that build images: `assemble`, `edit` and `rebase`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, ValueHint};

use super::{ConvertArgs, IMAGE_HELP};

const VALUES_HELP: &str = "\
Values of config flags may be @FILE for what the file holds (@@ for an @), and hold {KEY} for what a stamp file says of KEY.
Names lose newlines at the end of a file; labels, variables, words and history keep them.
Times default to SOURCE_DATE_EPOCH, and without it to 1970.

";

const ASSEMBLE_HELP: &str = "\
Examples:
  longshore assemble app.tar --layer rootfs.tar.gz --cmd /bin/app --tag app:1
  longshore assemble app.tar --base base.tar --layer app-layer.tar --env 'PATH=/app:$PATH'
  longshore assemble oci:app --base oci:base:3 --layer ./bin=/usr/bin --entrypoint '[\"/usr/bin/app\",\"-v\"]'
  longshore assemble app.tar --config config.json --layer a.tar --layer b.tar
  longshore assemble app.tar --base base.tar --layer app=app.tar --dialect bazel

";

/// Options of `assemble`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{ASSEMBLE_HELP}{VALUES_HELP}{IMAGE_HELP}"))]
pub(crate) struct AssembleArgs {
    /// Where to write the image
    #[arg(value_name = "DST", value_hint = ValueHint::AnyPath)]
    pub(crate) destination: String,
    /// Build on this image; of an index, --platform chooses
    #[arg(long, value_name = "SRC", value_hint = ValueHint::AnyPath)]
    pub(crate) base: Option<String>,
    /// Add a layer, from the lowest up: a tar, plain or compressed, or a directory, or FROM=/TO for a file or directory at a path; ID=FILE
    /// also says what a Bazel archive calls it
    #[arg(long = "layer", value_name = "[ID=]FILE|DIR|FROM=TO", required_unless_present_any = ["base", "legacy_base"], value_hint = ValueHint::AnyPath, action = ArgAction::Append)]
    pub(crate) layers: Vec<String>,
    /// Keep owners and times of files in layers that are made of directories and files
    #[arg(long)]
    pub(crate) preserve: bool,
    /// For --dialect bazel: also write the layer with this v1 JSON, as programs of 2013 read it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) metadata: Option<PathBuf>,
    /// With --metadata, the same for the layers of this v1 archive, which is also the base where there is no other
    #[arg(long, value_name = "IMAGE", requires = "metadata", value_hint = ValueHint::AnyPath)]
    pub(crate) legacy_base: Option<String>,
    /// Give the image this name; may be repeated for more names, and a REF on DST beats it
    #[arg(long = "tag", value_name = "NAME:TAG", action = ArgAction::Append)]
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) convert: ConvertArgs,
}

const EDIT_HELP: &str = "\
Examples:
  longshore edit app.tar new.tar --label version=2 --user 1000
  longshore edit app.tar new.tar --null-entrypoint --cmd /bin/sh --cmd -c --cmd 'exec app'
  longshore edit oci:app:1.0 oci:app --canonical --tag app:1.0
  longshore edit oci:multi armv7.tar --platform linux/arm --variant v7

";

/// Options of `edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EDIT_HELP}{VALUES_HELP}{IMAGE_HELP}"))]
pub(crate) struct EditArgs {
    /// The image to change; of an index, all its platforms change, or the one of --platform, which is then all that is written
    #[arg(value_name = "SRC", value_hint = ValueHint::AnyPath)]
    pub(crate) source: String,
    /// Where to write the image
    #[arg(value_name = "DST", value_hint = ValueHint::AnyPath)]
    pub(crate) destination: String,
    /// Give the image this name and no other; may be repeated for more names, and a REF on DST beats it
    #[arg(long = "tag", value_name = "NAME:TAG", action = ArgAction::Append)]
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) convert: ConvertArgs,
}

const REBASE_HELP: &str = "\
Examples:
  longshore rebase app.tar patched.tar --old-base base-1.tar --new-base base-2.tar
  longshore rebase oci:app:1 oci:app --old-base oci:base:1 --new-base oci:base:2 --tag app:1-patched

";

/// Options of `rebase`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{REBASE_HELP}{IMAGE_HELP}"))]
pub(crate) struct RebaseArgs {
    /// The image to put on another base; of an index, each platform moves to the base of that platform, or only that of --platform
    #[arg(value_name = "SRC", value_hint = ValueHint::AnyPath)]
    pub(crate) source: String,
    /// Where to write the image
    #[arg(value_name = "DST", value_hint = ValueHint::AnyPath)]
    pub(crate) destination: String,
    /// The image that it is built on
    #[arg(long, value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    pub(crate) old_base: String,
    /// The image that it will be built on
    #[arg(long, value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    pub(crate) new_base: String,
    /// Drop what varies between builds from the config: container, host name, Docker's version, times
    #[arg(long)]
    pub(crate) canonical: bool,
    /// Give the image this name and no other; may be repeated for more names, and a REF on DST beats it
    #[arg(long = "tag", value_name = "NAME:TAG", action = ArgAction::Append)]
    pub(crate) tags: Vec<String>,
    #[command(flatten)]
    pub(crate) convert: ConvertArgs,
}

/// What changes in a config.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Config")]
pub(crate) struct ConfigArgs {
    /// Merge this JSON config below the other flags; its layers are not taken from it, and its history where it fits those of the image
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Begin with this command: a word, repeated for more, or one JSON array
    #[arg(long, value_name = "WORD", allow_hyphen_values = true, action = ArgAction::Append)]
    pub(crate) entrypoint: Vec<String>,
    /// Begin with no command of the image's
    #[arg(long, conflicts_with = "entrypoint")]
    pub(crate) null_entrypoint: bool,
    /// Arguments of the entrypoint, or else the command: a word, repeated for more, or one JSON array
    #[arg(long, value_name = "WORD", allow_hyphen_values = true, action = ArgAction::Append)]
    pub(crate) cmd: Vec<String>,
    /// Begin without arguments of the image's
    #[arg(long, conflicts_with = "cmd")]
    pub(crate) null_cmd: bool,
    /// Set a variable, in which $NAME is what the base has; may be repeated
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(crate) env: Vec<String>,
    /// Set a label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(crate) label: Vec<String>,
    /// Run as this user: name or number, with :GROUP if wanted
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Run in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Say that the image listens on this port, of TCP unless it says otherwise; may be repeated
    #[arg(long, value_name = "PORT[/PROTOCOL]", action = ArgAction::Append)]
    pub(crate) expose: Vec<String>,
    /// Say that the image keeps data in this directory; may be repeated
    #[arg(long, value_name = "DIR", action = ArgAction::Append)]
    pub(crate) volume: Vec<String>,
    /// Stop containers with this signal
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Say which processor the image is for [default: the base's, or else this machine's]
    #[arg(long, value_name = "ARCH", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) architecture: Option<String>,
    /// Say which operating system the image is for [default: the base's, or else linux]
    #[arg(long, value_name = "OS", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) os: Option<String>,
    /// Say which variant of the processor the image is for; nothing for none
    #[arg(long, value_name = "VARIANT")]
    pub(crate) variant: Option<String>,
    /// Say who made the image
    #[arg(long, value_name = "NAME")]
    pub(crate) author: Option<String>,
    /// Say when the image was made: as in RFC 3339, or in seconds or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(crate) created: Option<String>,
    /// Say how a layer was made, from the first that is added up; may be repeated, and what is more are steps without a layer
    #[arg(long, value_name = "TEXT", action = ArgAction::Append)]
    pub(crate) history: Vec<String>,
    /// Read lines of KEY VALUE from this file; may be repeated, and the last value of a key wins
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, action = ArgAction::Append)]
    pub(crate) stamp_info: Vec<PathBuf>,
    /// Drop what varies between builds from the config: container, host name, Docker's version, times
    #[arg(long)]
    pub(crate) canonical: bool,
}

//! The command line as it is typed. Help is written in the imperative, without full stops.

mod build;
mod layers;
mod look;
mod registry;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Parser, Subcommand, ValueEnum, ValueHint};
use longshore::format::{DIALECTS, FORMATS, Place};
use longshore::plan::Compress;
use longshore::reference::Reference;
use longshore::spec::{LayerFamily, Platform};

pub(crate) use build::{AssembleArgs, ConfigArgs, EditArgs, RebaseArgs};
pub(crate) use layers::{ExportArgs, SquashArgs};
pub(crate) use look::{DiffArgs, LsArgs};
pub(crate) use registry::{LoginArgs, LogoutArgs, RegistryArgs, TagsArgs};

use crate::limits::{self, Setting};
use crate::{Usage, options};

const IMAGE_HELP: &str = "\
IMAGE is FORMAT:PATH or FORMAT:PATH:REF, or a path alone:
  docker-archive:FILE[:REF]  oci-archive:FILE[:REF]  oci:DIR[:REF]  dir:DIR
  docker://REFERENCE (a registry)
  docker-daemon:REF  docker-storage:[ROOT]REF  containerd:[ROOT]NAMESPACE/REF
  containers-storage:[overlay@GRAPHROOT+RUNROOT]REF (podman, buildah)
  FILE may be - for standard input or output
  REF is name[:tag], @INDEX (from 0) or @sha256:DIGEST, and keeps only that image
  A path alone is detected when read; written, it is a docker-archive, or an oci
  layout if it is a directory or ends in /
  An archive to write whose name ends in .gz or .zst is compressed as a whole";

/// Save, convert, join, split, build, squash, export, compare and check container images as archives, without a daemon
#[derive(Debug, Parser)]
#[command(name = "longshore", version, arg_required_else_help = true, max_term_width = 110)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn after_help() -> String {
    format!(
        "\
Examples:
  longshore copy app.tar oci:app                  convert
  longshore copy docker://alpine:3 alpine.tar     from a registry
  longshore save app.tar base.tar -o both.tar     join
  longshore assemble app.tar --layer rootfs.tar   build
  longshore squash app.tar small.tar              all layers as one
  longshore export app.tar -o rootfs.tar          the root file system
  longshore inspect app.tar                       look into it
  longshore diff app.tar new.tar                  what has changed
  longshore check app.tar                         verify it

Limits, for --limit NAME=VALUE with values such as 100, 64M or 8MiB:
  {}

Exit codes: 0 done, 1 failed (or check and diff found something), 2 wrong command line, 130 or 143 interrupted",
        limits::NAMES.join(", ")
    )
}

/// Options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more: the plan before it is run, and in inspect the commands in full
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Show progress on standard error: auto, plain, json or none; auto means bars on a terminal, else nothing
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW", hide_possible_values = true, hide_default_value = true)]
    pub(crate) progress: ProgressKind,
    /// Digest and compress with N threads; the output does not depend on it [default: one for each processor]
    #[arg(long, global = true, value_name = "N", value_parser = parse_threads)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Colour messages: auto, always or never; auto heeds NO_COLOR
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", hide_possible_values = true, hide_default_value = true)]
    pub(crate) color: Color,
    /// Change a limit on what is taken from inputs, such as spool=1GiB; may be repeated
    #[arg(long = "limit", global = true, value_name = "NAME=VALUE", value_parser = limits::parse, action = ArgAction::Append)]
    pub(crate) limits: Vec<Setting>,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressKind {
    /// Bars on a terminal, nothing elsewhere
    #[default]
    Auto,
    /// One JSON document a line
    Json,
    /// Nothing
    None,
    /// A line every few seconds
    Plain,
}

/// When there is colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// Always
    Always,
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Convert images: any format in, any format out; several sources are joined, a REF splits
    Copy(CopyArgs),
    /// Save images to one archive, as docker save does
    Save(SaveArgs),
    /// Load images into docker, or into podman or containerd
    Load(LoadArgs),
    /// Merge layers into one
    Squash(SquashArgs),
    /// Write the root file system that the layers make together, as a tar or unpacked
    Export(ExportArgs),
    /// Build an image out of layers, on a base or from nothing
    Assemble(Box<AssembleArgs>),
    /// Change the config of an image, and no layer
    Edit(Box<EditArgs>),
    /// Put an image on another base
    Rebase(RebaseArgs),
    /// Show names, digests, platforms, sizes, layers and settings
    Inspect(InspectArgs),
    /// List the files of an image, or of one of its layers
    Ls(LsArgs),
    /// Say what differs between two images: names, config, layers and files
    Diff(DiffArgs),
    /// List the tags of a repository in a registry
    Tags(TagsArgs),
    /// Log in to a registry, and keep that where docker login keeps it
    Login(LoginArgs),
    /// Forget the login to a registry
    Logout(LogoutArgs),
    /// Verify every size, digest, diff ID and tar, and list all that is wrong
    Check(CheckArgs),
    /// List the formats, and the dialects of docker-archive
    Formats(FormatsArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write a page for every command
    Man(ManArgs),
}

/// Options of the commands that write images.
#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    /// Take this platform of an index; may be repeated where the output holds indexes
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms", action = ArgAction::Append)]
    pub(crate) platform: Vec<Platform>,
    /// Keep all platforms of an index [default for oci, oci-archive and dir]
    #[arg(long)]
    pub(crate) all_platforms: bool,
    /// Store layers as they are (keep), plain (none), as gzip[:1-12] or as zstd[:1-19] [default: what suits the output; see longshore formats --markdown]
    #[arg(long, value_name = "HOW", value_parser = options::parse_compress)]
    pub(crate) compress: Option<Compress>,
    /// Lay out a docker-archive in this way; see longshore formats
    #[arg(long, value_name = "DIALECT", value_parser = PossibleValuesParser::new(DIALECTS.iter().map(|dialect| dialect.name())))]
    pub(crate) dialect: Option<String>,
    /// Replace an output that exists; an oci directory is added to instead
    #[arg(long)]
    pub(crate) force: bool,
    /// With a REF, or from a registry, also take what refers to the image: signatures, SBOMs, attestations
    #[arg(long)]
    pub(crate) referrers: bool,
    /// Name layers that no source holds all the same, for a receiver that has them
    #[arg(long)]
    pub(crate) allow_missing_layers: bool,
    /// Print what would be done to every layer, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also write what was done to a JSON file
    #[arg(long, value_name = "FILE.json", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,
}

const COPY_HELP: &str = "\
Examples:
  longshore copy app.tar oci:app                          from docker save to an OCI layout
  longshore copy oci:app:1.0 app.tar                      one image of a layout, for docker load
  longshore copy a.tar b.tar both.tar                     join
  longshore copy docker-archive:both.tar:app:1.0 app.tar  split
  longshore copy --tag app:2 app.tar app2.tar             rename
  longshore copy --compress zstd:9 app.tar oci:small
  longshore copy docker://alpine:3 alpine.tar             from a registry
  longshore copy app.tar docker://registry.example.com/team/app:1
  curl -s https://example.com/app.tar | longshore copy - - | docker load

";

/// Options of `copy`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "longshore copy [OPTIONS] <SRC>... <DST>", after_help = format!("{COPY_HELP}{IMAGE_HELP}"))]
pub(crate) struct CopyArgs {
    /// One or more images to read, and last the place to write them to
    // One list, since clap would give an option between SRC and DST a say in which is which.
    #[arg(required = true, value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    pub(crate) images: Vec<String>,
    /// Give the image this name and no other; may be repeated for more names, and a REF on DST beats it
    #[arg(long = "tag", value_name = "NAME:TAG", value_parser = options::parse_tag, action = ArgAction::Append)]
    pub(crate) tags: Vec<Reference>,
    #[command(flatten)]
    pub(crate) convert: ConvertArgs,
}

impl CopyArgs {
    /// What is read, and where it goes.
    pub(crate) fn ends(&self) -> Result<(&[String], &str), Usage> {
        match self.images.as_slice() {
            [sources @ .., destination] if !sources.is_empty() => Ok((sources, destination)),
            _ => Err(Usage::new("a copy needs a source and a destination").hint("longshore copy SRC... DST")),
        }
    }
}

const LOAD_HELP: &str = "\
Examples:
  longshore load -i app.tar                          into docker
  longshore load < app.oci.tar                       any format
  longshore load -i oci:app containers-storage:      into podman
  longshore load -i app.tar containerd:k8s.io/       into containerd, for Kubernetes

";

/// Options of `load`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{LOAD_HELP}{IMAGE_HELP}"))]
pub(crate) struct LoadArgs {
    /// Archive, directory or other IMAGE to load, instead of standard input
    #[arg(short, long, value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    pub(crate) input: Option<String>,
    /// Engine to load into: docker-daemon:, containers-storage: or containerd: [default: docker-daemon:]
    #[arg(value_name = "DST")]
    pub(crate) destination: Option<String>,
    #[command(flatten)]
    pub(crate) convert: ConvertArgs,
}

const SAVE_HELP: &str = "\
Examples:
  longshore save app:1.0 -o app.tar               from docker, podman or containerd
  longshore save oci:app:1.0 -o app.tar
  longshore save app.tar base.tar -o both.tar     several images in one archive
  longshore save oci:app:1.0 | docker load
  longshore save app.tar --format oci-dir -o app

";

/// Options of `save`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{SAVE_HELP}{IMAGE_HELP}"))]
pub(crate) struct SaveArgs {
    /// Names of images in docker, podman or containerd (looked for in this order), or IMAGEs as below
    #[arg(required = true, value_name = "NAME", value_hint = ValueHint::AnyPath)]
    pub(crate) names: Vec<String>,
    /// Write to this file or directory instead of standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) output: Option<PathBuf>,
    /// Write this format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: SaveFormat,
    /// Give the image this name besides those it has; may be repeated
    #[arg(long = "tag", value_name = "NAME:TAG", value_parser = options::parse_tag, action = ArgAction::Append)]
    pub(crate) tags: Vec<Reference>,
    #[command(flatten)]
    pub(crate) convert: ConvertArgs,
}

/// The formats of `save`, by podman's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SaveFormat {
    #[default]
    DockerArchive,
    DockerDir,
    OciArchive,
    OciDir,
}

impl SaveFormat {
    /// The name in [`FORMATS`].
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DockerArchive => "docker-archive",
            Self::DockerDir => "dir",
            Self::OciArchive => "oci-archive",
            Self::OciDir => "oci",
        }
    }

    /// The types of manifests that podman writes into it.
    pub(crate) fn family(self) -> Option<LayerFamily> {
        match self {
            Self::DockerDir => Some(LayerFamily::Docker),
            Self::OciDir => Some(LayerFamily::Oci),
            Self::DockerArchive | Self::OciArchive => None,
        }
    }

    /// Whether it can go to standard output.
    pub(crate) fn is_archive(self) -> bool {
        FORMATS.iter().any(|format| format.name() == self.name() && format.place() == Place::Archive)
    }
}

const INSPECT_HELP: &str = "\
Examples:
  longshore inspect app.tar
  longshore inspect oci:app:1.0 --json
  longshore inspect oci:app:1.0 --raw | sha256sum     the manifest digest
  longshore inspect app.tar --waste                   bytes that nobody sees
  docker save app:1.0 | longshore inspect -

";

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{INSPECT_HELP}{IMAGE_HELP}"))]
pub(crate) struct InspectArgs {
    /// The archive or directory to look into, or one image of it (IMAGE below)
    #[arg(value_name = "SRC", value_hint = ValueHint::AnyPath)]
    pub(crate) source: String,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the manifest or index of one image, byte for byte as it is stored
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// With --raw, print the config instead of the manifest
    #[arg(long, requires = "raw")]
    pub(crate) config: bool,
    /// Also say what lower layers hold that nobody sees, since newer ones remove or replace it
    #[arg(long, conflicts_with = "raw")]
    pub(crate) waste: bool,
}

const CHECK_HELP: &str = "\
Examples:
  longshore check app.tar
  longshore check oci:app dir:other --json
  docker save app:1.0 | longshore check -

";

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{CHECK_HELP}{IMAGE_HELP}"))]
pub(crate) struct CheckArgs {
    /// Archives and directories to check, or one image of them each (IMAGE below)
    #[arg(required = true, value_name = "SRC", value_hint = ValueHint::AnyPath)]
    pub(crate) sources: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `formats`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  longshore formats\n  longshore formats --json")]
pub(crate) struct FormatsArgs {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a page of Markdown with all that a format holds
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
}

const COMPLETIONS_HELP: &str = "\
Examples:
  longshore completions bash > /etc/bash_completion.d/longshore
  longshore completions zsh > ~/.zfunc/_longshore
  longshore completions fish > ~/.config/fish/completions/longshore.fish";

/// Options of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete in
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  longshore man | man -l -\n  longshore man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write longshore.1 and a page for every command into this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    const MOST: usize = 1024;
    let threads = text.parse::<NonZeroUsize>().ok().filter(|threads| threads.get() <= MOST);
    threads.ok_or_else(|| format!("expected a number from 1 to {MOST}"))
}

/// The colour that a command line asks for, before it is parsed; nonsense is left to the parser.
pub(crate) fn color_of(args: impl Iterator<Item = OsString>) -> Color {
    let args: Vec<_> = args.take_while(|arg| arg != "--").map(|arg| arg.to_string_lossy().into_owned()).collect();
    let value = |(at, arg): (usize, &String)| match arg.strip_prefix("--color") {
        Some("") => args.get(at + 1).cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    };
    let asked = args.iter().enumerate().rev().find_map(value);
    asked.and_then(|text| Color::from_str(&text, false).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_and_help_without_periods() {
        for command in Args::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  "), "{}", command.get_name());
            let about = command.get_about().unwrap().to_string();
            assert!(!about.ends_with('.'), "{about}");
            for arg in command.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty() && !help.ends_with('.') && help.starts_with(char::is_uppercase), "{}: {help}", arg.get_id());
            }
        }
    }

    #[test]
    fn a_copy_takes_its_last_argument_as_the_output() {
        let args = Args::try_parse_from(["longshore", "copy", "a.tar", "b.tar", "--threads", "3", "-", "--tag", "x", "-q"]).unwrap();
        let Command::Copy(copy) = args.command else { panic!("not a copy") };
        assert_eq!(copy.ends().unwrap(), (["a.tar".to_owned(), "b.tar".to_owned()].as_slice(), "-"));
        assert_eq!(
            (copy.tags[0].familiar().as_str(), args.global.threads.map(NonZeroUsize::get), args.global.quiet),
            ("x:latest", Some(3), true)
        );
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        let Command::Copy(copy) = Args::try_parse_from(["longshore", "copy", "a"]).unwrap().command else { panic!("not a copy") };
        assert!(copy.ends().is_err());
        for line in [
            "copy",
            "copy a b --compress gzip:13",
            "copy a b --compress lz4",
            "copy a b --platform linux",
            "copy a b --platform linux/amd64 --all-platforms",
            "copy a b --dialect nobody",
            "copy a b --tag UPPER",
            "copy a b --threads 0",
            "copy a b --limit colour=1",
            "copy a b -q -v",
            "save",
            "assemble a.tar",
            "assemble a.tar --layer a --cmd x --null-cmd",
            "assemble --layer a",
            "edit a",
            "edit a b --architecture=",
            "edit a b --layer c",
            "rebase a b --old-base c",
            "save a --format rar",
            "inspect a --json --raw",
            "inspect a --config",
            "inspect a b",
            "inspect a --raw --waste",
            "ls",
            "ls a b c",
            "ls a --layer -1",
            "diff a",
            "diff a b c",
            "completions tcsh",
        ] {
            let words = std::iter::once("longshore").chain(line.split(' '));
            let error = Args::try_parse_from(words).expect_err(line);
            assert!(error.use_stderr(), "{line}");
        }
    }

    #[test]
    fn color_is_known_before_parsing() {
        let color = |line: &str| color_of(line.split(' ').map(OsString::from));
        assert_eq!(color("longshore --color never copy"), Color::Never);
        assert_eq!(color("longshore --color never --color=always"), Color::Always);
        assert_eq!(color("longshore copy -- --color never"), Color::Auto);
        assert_eq!(color("longshore --color"), Color::Auto);
        assert_eq!(color("longshore --colors=never"), Color::Auto);
    }
}

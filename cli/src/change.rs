//! What the config flags come to: a change of a config, and names.

use std::path::Path;

use longshore::assemble::{ConfigChange, Options, Stamps, pair, port, time, words};
use longshore::context::Context;
use longshore::plan::{ConvertOptions, NameChange, Platforms};
use longshore::reference::Reference;
use longshore::spec::{Object, Platform};
use longshore::transport::read_small;
use longshore::{Error, ErrorKind};

use crate::Usage;
use crate::args::{ConfigArgs, ConvertArgs};
use crate::options;

/// The stamps of the files that are named.
pub(crate) fn stamps(args: &ConfigArgs, ctx: &Context) -> anyhow::Result<Stamps> {
    let mut stamps = Stamps::default();
    for path in &args.stamp_info {
        stamps.read(path, ctx).map_err(|error| error.frame("--stamp-info"))?;
    }
    Ok(stamps)
}

/// What changes in a config.
pub(crate) fn change(args: &ConfigArgs, stamps: &Stamps, ctx: &Context) -> anyhow::Result<ConfigChange> {
    let epoch = options::epoch_seconds()?;
    let read = Reader { stamps, ctx };
    let command = |null: bool, texts: &[String], flag: &str| -> anyhow::Result<_> {
        let texts = read.all(texts, flag)?;
        Ok(if null { Some(None) } else { (!texts.is_empty()).then(|| Some(words(&texts))) })
    };
    let names = |texts: &[String], flag: &str| -> anyhow::Result<Vec<String>> {
        texts.iter().filter_map(|text| read.some(Some(text), flag).transpose()).collect()
    };
    let ports = names(&args.expose, "--expose")?;
    let ports = ports.iter().map(|text| port(text).map_err(|error| wrong("--expose", error)));
    let created = read.one(args.created.as_ref(), "--created")?;
    let created = created.map(|text| time(&text).map_err(|error| wrong("--created", error))).transpose()?;
    Ok(ConfigChange {
        config: args.config.as_ref().map(|path| config(path, ctx)).transpose()?,
        entrypoint: command(args.null_entrypoint, &args.entrypoint, "--entrypoint")?,
        cmd: command(args.null_cmd, &args.cmd, "--cmd")?,
        env: read.pairs(&args.env, "--env")?,
        labels: read.pairs(&args.label, "--label")?,
        user: read.name(args.user.as_ref(), "--user")?,
        workdir: read.name(args.workdir.as_ref(), "--workdir")?,
        expose: ports.collect::<Result<_, _>>()?,
        volumes: names(&args.volume, "--volume")?,
        stop_signal: read.name(args.stop_signal.as_ref(), "--stop-signal")?,
        architecture: read.some(args.architecture.as_ref(), "--architecture")?,
        os: read.some(args.os.as_ref(), "--os")?,
        variant: read.name(args.variant.as_ref(), "--variant")?,
        author: read.one(args.author.as_ref(), "--author")?,
        created,
        history: read.all(&args.history, "--history")?,
        time: epoch.map(|seconds| time(&seconds.to_string())).transpose()?,
        canonical: args.canonical,
    })
}

/// A config to merge; what is no JSON object is said to be in this file.
fn config(path: &Path, ctx: &Context) -> Result<Vec<u8>, Error> {
    let bytes = json(path, "--config", ctx)?;
    Object::parse(&bytes).map_err(|error| Error::from(error).frame(path.display()).frame("--config"))?;
    Ok(bytes)
}

/// A file with JSON, which the library parses.
pub(crate) fn json(path: &Path, flag: &str, ctx: &Context) -> Result<Vec<u8>, Error> {
    read_small(path, ctx.limits.config, &ctx.cancel).map_err(|error| error.frame(flag))
}

/// What an image is called: what follows the path of the destination beats `--tag`.
pub(crate) fn names(tags: &[String], stamps: &Stamps, ctx: &Context, on_destination: Option<Reference>) -> anyhow::Result<NameChange> {
    if let Some(name) = on_destination {
        return Ok(NameChange::Replace(vec![name]));
    }
    let tag = |text: &String| -> anyhow::Result<Reference> {
        let text = stamps.value(text, ctx).map_err(|error| wrong("--tag", error))?;
        Ok(options::parse_tag(text.trim_end()).map_err(|error| Usage::new(format!("--tag {text}: {error}")))?)
    };
    let tags = tags.iter().map(tag).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(if tags.is_empty() { NameChange::Keep } else { NameChange::Replace(tags) })
}

/// How images are chosen and made.
pub(crate) fn choosing(args: &ConvertArgs, ctx: &Context) -> Options {
    Options { platforms: args.platform.clone(), host: Platform::host(), legacy: None, limits: ctx.limits.clone() }
}

/// How they are written. One platform is chosen before it changes, and nothing is left to choose.
pub(crate) fn converting(args: &ConvertArgs, names: NameChange) -> ConvertOptions {
    let how = options::convert(args, names);
    if args.platform.len() == 1 { ConvertOptions { platforms: Platforms::Default, ..how } } else { how }
}

/// Refuses what asks for several images where one is made.
pub(crate) fn refuse_several(args: &ConvertArgs) -> Result<(), Usage> {
    if args.platform.len() > 1 || args.all_platforms {
        return Err(Usage::new("one image is made, and it is for one platform").hint("give --platform once"));
    }
    Ok(())
}

/// A value that cannot be is a wrong command line; a file that cannot be read is not.
fn wrong(flag: &str, error: Error) -> anyhow::Error {
    let error = error.frame(flag);
    match error.kind() {
        ErrorKind::Invalid => options::wrong(error).into(),
        _ => error.into(),
    }
}

/// Reads values.
struct Reader<'a> {
    stamps: &'a Stamps,
    ctx: &'a Context,
}

impl Reader<'_> {
    fn value(&self, text: &str, flag: &str) -> anyhow::Result<String> {
        self.stamps.value(text, self.ctx).map_err(|error| wrong(flag, error))
    }

    fn one(&self, text: Option<&String>, flag: &str) -> anyhow::Result<Option<String>> {
        text.map(|text| self.value(text, flag)).transpose()
    }

    /// One that is a name, and so has no newline at its end, though the file may that it comes from.
    fn name(&self, text: Option<&String>, flag: &str) -> anyhow::Result<Option<String>> {
        Ok(self.one(text, flag)?.map(|value| value.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// A name that is not empty.
    fn some(&self, text: Option<&String>, flag: &str) -> anyhow::Result<Option<String>> {
        let value = self.name(text, flag)?;
        if value.as_deref() == Some("") { Err(wrong(flag, Error::invalid("an empty value"))) } else { Ok(value) }
    }

    fn all(&self, texts: &[String], flag: &str) -> anyhow::Result<Vec<String>> {
        texts.iter().map(|text| self.value(text, flag)).collect()
    }

    fn pairs(&self, texts: &[String], flag: &str) -> anyhow::Result<Vec<(String, String)>> {
        let read = |text: &String| {
            let (key, value) = pair(text).map_err(|error| wrong(flag, error))?;
            Ok((key, self.value(&value, flag)?))
        };
        texts.iter().map(read).collect()
    }
}

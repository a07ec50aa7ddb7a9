//! What the config flags come to: a change of a config, and names.

use std::fs;

use longshore::assemble::{ConfigChange, Options, Stamps, pair, port, time, words};
use longshore::error::Context as _;
use longshore::plan::NameChange;
use longshore::reference::Reference;
use longshore::spec::Platform;
use longshore::{Error, ErrorKind, Limits};

use crate::Usage;
use crate::args::{ConfigArgs, ConvertArgs};
use crate::options;

/// The stamps of the files that are named.
pub(crate) fn stamps(args: &ConfigArgs) -> anyhow::Result<Stamps> {
    let mut stamps = Stamps::default();
    for path in &args.stamp_info {
        stamps.read(path).map_err(|error| error.frame("--stamp-info"))?;
    }
    Ok(stamps)
}

/// What changes in a config.
pub(crate) fn change(args: &ConfigArgs, stamps: &Stamps) -> anyhow::Result<ConfigChange> {
    let epoch = options::epoch_seconds()?;
    let read = Reader { stamps };
    let command = |null: bool, texts: &[String], flag: &str| -> anyhow::Result<_> {
        let texts = read.all(texts, flag)?;
        Ok(if null { Some(None) } else { (!texts.is_empty()).then(|| Some(words(&texts))) })
    };
    let ports = read.all(&args.expose, "--expose")?;
    let ports = ports.iter().map(|text| port(text).map_err(|error| wrong("--expose", error)));
    let created = read.one(args.created.as_ref(), "--created")?;
    let created = created.map(|text| time(&text).map_err(|error| wrong("--created", error))).transpose()?;
    let config = args.config.as_ref().map(|path| fs::read(path).path(path)).transpose();
    Ok(ConfigChange {
        config: config.map_err(|error| error.frame("--config"))?,
        entrypoint: command(args.null_entrypoint, &args.entrypoint, "--entrypoint")?,
        cmd: command(args.null_cmd, &args.cmd, "--cmd")?,
        env: read.pairs(&args.env, "--env")?,
        labels: read.pairs(&args.label, "--label")?,
        user: read.one(args.user.as_ref(), "--user")?,
        workdir: read.one(args.workdir.as_ref(), "--workdir")?,
        expose: ports.collect::<Result<_, _>>()?,
        volumes: read.all(&args.volume, "--volume")?,
        stop_signal: read.one(args.stop_signal.as_ref(), "--stop-signal")?,
        architecture: read.one(args.architecture.as_ref(), "--architecture")?,
        os: read.one(args.os.as_ref(), "--os")?,
        variant: read.one(args.variant.as_ref(), "--variant")?,
        author: read.one(args.author.as_ref(), "--author")?,
        created,
        history: read.all(&args.history, "--history")?,
        time: epoch.map(|seconds| time(&seconds.to_string())).transpose()?,
        canonical: args.canonical,
    })
}

/// What an image is called: what follows the path of the destination beats `--tag`.
pub(crate) fn names(tags: &[String], stamps: &Stamps, on_destination: Option<Reference>) -> anyhow::Result<NameChange> {
    if let Some(name) = on_destination {
        return Ok(NameChange::Replace(vec![name]));
    }
    let tag = |text: &String| -> anyhow::Result<Reference> {
        let text = stamps.value(text).map_err(|error| wrong("--tag", error))?;
        Ok(options::parse_tag(text.trim_end()).map_err(|error| Usage::new(format!("--tag {text}: {error}")))?)
    };
    let tags = tags.iter().map(tag).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(if tags.is_empty() { NameChange::Keep } else { NameChange::Replace(tags) })
}

/// How images are chosen and made.
pub(crate) fn assembling(args: &ConvertArgs, limits: &Limits) -> Result<Options, Usage> {
    let platform = match args.platform.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        _ => return Err(Usage::new("one image is made, and it is for one platform").hint("give --platform once")),
    };
    Ok(Options { platform, host: Platform::host(), legacy: None, limits: limits.clone() })
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
}

impl Reader<'_> {
    fn value(&self, text: &str, flag: &str) -> anyhow::Result<String> {
        self.stamps.value(text).map_err(|error| wrong(flag, error))
    }

    fn one(&self, text: Option<&String>, flag: &str) -> anyhow::Result<Option<String>> {
        text.map(|text| self.value(text, flag)).transpose()
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

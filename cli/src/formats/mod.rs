//! What can be read and written, from the library's own lists: `formats --json` prints the document, `formats` and docs/FORMATS.md show it.

mod markdown;

use longshore::format::{DIALECTS, FORMATS, Members, Place, WriteOptions};
use longshore::sink::{Accepts, DefaultCompress, ManifestTypes, Names};
use serde::Serialize;

pub(crate) use markdown::page as markdown;

use crate::text::{Align, table};

/// What `--json` prints; described in docs/JSON.md.
#[derive(Serialize)]
pub(crate) struct Document {
    version: u32,
    formats: Vec<FormatInfo>,
    dialects: Vec<DialectInfo>,
}

#[derive(Serialize)]
struct FormatInfo {
    name: &'static str,
    kept_in: &'static str,
    read: bool,
    write: bool,
    about: &'static str,
    holds: Holds,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct DialectInfo {
    name: &'static str,
    default: bool,
    about: &'static str,
    holds: Holds,
    members: Vec<Member>,
}

/// What an output can hold: [`Accepts`] in words.
#[derive(Serialize)]
struct Holds {
    several: bool,
    configs: bool,
    indexes: bool,
    artifacts: bool,
    annotations: bool,
    names: &'static str,
    manifests: &'static str,
    layers: Vec<String>,
    layers_by_default: &'static str,
}

#[derive(Serialize)]
struct Member {
    name: &'static str,
    about: &'static str,
}

/// Lists all formats and dialects.
pub(crate) fn document() -> Document {
    let kept_in = |place| match place {
        Place::Archive => "a file",
        Place::Directory => "a directory",
    };
    let options = WriteOptions::default();
    let formats = FORMATS.iter().map(|format| FormatInfo {
        name: format.name(),
        kept_in: kept_in(format.place()),
        // The trait has both `open` and `create`, and no format refuses either.
        read: true,
        write: true,
        about: format.about(),
        holds: Holds::from(format.accepts(&options)),
        members: members(format.members(&options)),
    });
    let dialects = DIALECTS.iter().enumerate().map(|(at, dialect)| DialectInfo {
        name: dialect.name(),
        default: at == 0,
        about: dialect.about(),
        holds: Holds::from(dialect.accepts()),
        members: members(dialect.members()),
    });
    Document { version: 1, formats: formats.collect(), dialects: dialects.collect() }
}

fn members(members: Members) -> Vec<Member> {
    members.iter().map(|(name, about)| Member { name, about }).collect()
}

impl From<Accepts> for Holds {
    fn from(accepts: Accepts) -> Self {
        Self {
            several: accepts.several,
            configs: accepts.configs,
            indexes: accepts.indexes,
            artifacts: accepts.artifacts,
            annotations: accepts.annotations,
            names: match accepts.names {
                Names::Any => "any",
                Names::None => "none",
                Names::Tagged => "tagged",
            },
            manifests: match accepts.manifests {
                ManifestTypes::LikeSource => "as in the source",
                ManifestTypes::Oci => "oci",
                ManifestTypes::None => "none",
            },
            layers: accepts.compressions.iter().map(ToString::to_string).collect(),
            layers_by_default: match accepts.default_compress {
                DefaultCompress::GzipPlain => "gzip",
                DefaultCompress::Keep => "keep",
                DefaultCompress::None => "none",
            },
        }
    }
}

fn use_of(format: &FormatInfo) -> &'static str {
    match (format.read, format.write) {
        (true, true) => "read, write",
        (true, false) => "read",
        (false, true) => "write",
        (false, false) => "neither",
    }
}

/// The document as two tables.
pub(crate) fn text(document: &Document) -> String {
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let mut formats = vec![row(["format", "kept in", "use", "about"])];
    formats.extend(document.formats.iter().map(|format| row([format.name, format.kept_in, use_of(format), format.about])));
    let mut dialects = vec![vec!["dialect".to_owned(), "of docker-archive".to_owned()]];
    dialects.extend(document.dialects.iter().map(|dialect| {
        let about = if dialect.default { format!("{} (default)", dialect.about) } else { dialect.about.to_owned() };
        vec![dialect.name.to_owned(), about]
    }));
    format!("{}\n{}", table("", &[Align::Left; 4], &formats), table("", &[Align::Left; 2], &dialects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_and_dialect_is_listed_in_every_form() {
        let document = document();
        let json = serde_json::to_string(&document).unwrap();
        for page in [text(&document), markdown(&document), json] {
            for name in FORMATS.iter().map(|format| format.name()).chain(DIALECTS.iter().map(|dialect| dialect.name())) {
                assert!(page.contains(name), "{name} is not in\n{page}");
            }
        }
    }
}

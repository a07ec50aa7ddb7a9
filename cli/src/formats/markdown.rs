//! The page docs/FORMATS.md: the document in words, with all that each format holds.

use super::{DialectInfo, Document, FormatInfo, Holds, Member, use_of};

impl Holds {
    fn images(&self) -> &'static str {
        match (self.several, self.indexes) {
            (true, true) => "several images and indexes of platforms",
            (true, false) => "several images, one platform each",
            (false, true) => "one image, or one index of platforms",
            (false, false) => "one image of one platform",
        }
    }

    fn configs_in_words(&self) -> &'static str {
        if self.configs {
            "as they are, so that image IDs stay"
        } else {
            "what the v1 JSON of layers has of them, so that image IDs change"
        }
    }

    fn others(&self) -> &'static str {
        if self.artifacts { "kept: signatures, attestations, SBOMs and other referrers" } else { "left out, with a line that says so" }
    }

    fn names_in_words(&self) -> &'static str {
        match self.names {
            "any" => {
                "any text; a reference is kept in full as `io.containerd.image.name`, and its tag as `org.opencontainers.image.ref.name`"
            }
            "tagged" => "references with a tag, such as `team/app:1`",
            _ => "none",
        }
    }

    fn manifests_in_words(&self) -> &'static str {
        match (self.manifests, self.annotations) {
            ("none", _) => "none: configs, layers and names only",
            ("oci", _) => "kept byte for byte where no layer changes; new or edited ones have OCI types",
            (_, true) => "kept byte for byte where no layer changes; edited ones keep their types, new ones have Docker's",
            (_, false) => "kept byte for byte where no layer changes, in the layout beside the archive manifest",
        }
    }

    fn layers_in_words(&self) -> String {
        let default = match self.layers_by_default {
            "gzip" => "plain ones become gzip, compressed ones stay as they are",
            "keep" => "all stay as they are",
            _ => "all become plain",
        };
        format!("{default}; `--compress` chooses among {}", self.layers.join(", "))
    }
}

const HEAD: &str = "\
# Formats

Made of the program's own lists by `cargo xtask docs`; do not edit.

";

const READING: &str = r"
An output that cannot hold something says so in one line (`left out: …`), or refuses with a sentence where leaving it out would lose an image.

## Reading

* A path alone is enough: the format is detected from the files in it. `FORMAT:PATH` says it, and `FORMAT:PATH:REF` picks one image:
  `name[:tag]`, `@0` (the first) or `@sha256:…` (a manifest digest or an image ID).
* How a layer is compressed is seen from its bytes, never believed: plain, gzip, zstd, xz and bzip2 are read.
* An archive may come from a pipe (`-`) and may be compressed as a whole (gzip, zstd, xz, bzip2). Then it is kept in a temporary file first.
* docker-archive covers what docker, podman, skopeo, crane and others write: with v1 folders or an OCI layout beside `manifest.json`, layers
  as files or links, names with a leading `./`.

## Writing

| option | holds for | does |
|---|---|---|
| `--compress keep\|none\|gzip[:LEVEL]\|zstd[:LEVEL]` | all | stores layers so, whatever the default of the format is |
| `--platform OS/ARCH[/VARIANT]` | indexes | takes that platform; where the output holds indexes, several may be named |
| `--all-platforms` | indexes | takes all, or fails where the output holds one platform an image |
| `--tag NAME:TAG` | formats with names | names the one image so |
| `--dialect NAME` | docker-archive | lays the archive out as that tool does |
| `--force` | files and `dir` | replaces an output that exists; an `oci` directory is added to instead |
| a name ending in `.gz` or `.zst` | archives | compresses the archive as a whole |
";

/// Renders the page.
pub(crate) fn page(document: &Document) -> String {
    let mut page = HEAD.to_owned();
    let mut line = |text: String| {
        page.push_str(&text);
        page.push('\n');
    };
    line("| format | kept in | use | holds | names | layers by default |\n|---|---|---|---|---|---|".to_owned());
    for format in &document.formats {
        let FormatInfo { name, kept_in, holds, .. } = format;
        let (used, images, names, layers) = (use_of(format), holds.images(), holds.names, holds.layers_by_default);
        line(format!("| `{name}` | {kept_in} | {used} | {images} | {names} | {layers} |"));
    }
    line(READING.trim_end().to_owned());
    for format in &document.formats {
        line(format!("\n## `{}`\n\n{}.", format.name, capital(format.about)));
        let dialects: &[DialectInfo] = if format.name == "docker-archive" { &document.dialects } else { &[] };
        if dialects.is_empty() {
            line(format!("\n{}\n{}", facts(&format.holds), files(&format.members)));
        }
        for DialectInfo { name, default, about, holds, members } in dialects {
            let default = if *default { " (default)" } else { "" };
            line(format!("\n### Dialect `{name}`{default}\n\n{}.\n\n{}\n{}", capital(about), facts(holds), files(members)));
        }
    }
    page
}

fn facts(holds: &Holds) -> String {
    let lines = [
        format!("* Holds: {}.", holds.images()),
        format!("* Configs: {}.", holds.configs_in_words()),
        format!("* Artifacts: {}.", holds.others()),
        format!("* Names: {}.", holds.names_in_words()),
        format!("* Manifests: {}.", holds.manifests_in_words()),
        format!("* Layers, by default: {}.", holds.layers_in_words()),
    ];
    lines.join("\n") + "\n"
}

fn files(members: &[Member]) -> String {
    let rows = members.iter().map(|Member { name, about }| format!("| `{name}` | {} |", about.replace('|', "\\|")));
    std::iter::once("| file | holds |\n|---|---|".to_owned()).chain(rows).collect::<Vec<_>>().join("\n")
}

/// A clause as the beginning of a sentence, unless it begins with a name in code.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

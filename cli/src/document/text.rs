//! The document as text that people read: aligned, short digests except for those that name the image, nothing from outside unescaped.

use std::fmt::Write as _;

use clap::builder::styling::Style;
use longshore::Digest;
use longshore::catalog::{IMAGE_NAME, REF_NAME};
use longshore::look::Waste;

use super::history::command;
use super::{Described, Document, Entry, ImageInfo, LayerInfo, Settings, Texts};
use crate::text::{Align, bytes, count, shortened, shown, table};

/// Characters of a command that are shown unless all are wanted.
const COMMAND_WIDTH: usize = 80;

const HEADING: Style = Style::new().bold();

/// Renders the document; `whole` shows long commands in full.
pub(crate) fn render(document: &Document, whole: bool) -> String {
    let mut page = Page { text: String::new(), indent: String::new(), whole };
    let total = document.entries.len();
    if total == 0 {
        page.line("no images");
    }
    for (at, entry) in document.entries.iter().enumerate() {
        if at > 0 {
            page.text.push('\n');
        }
        page.heading(&heading(entry, total));
        page.node(&entry.node);
    }
    page.text
}

fn heading(entry: &Entry, total: usize) -> String {
    let names: Vec<_> = entry.names.iter().map(|named| shown(&named.name)).collect();
    match (names.is_empty(), total) {
        (true, _) => format!("@{} (no name)", entry.position),
        (false, 1) => names.join(", "),
        (false, _) => format!("{} (@{})", names.join(", "), entry.position),
    }
}

struct Page {
    text: String,
    indent: String,
    whole: bool,
}

impl Page {
    fn line(&mut self, line: &str) {
        let line = format!("{}{line}", self.indent);
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.line(&format!("{HEADING}{heading}{HEADING:#}"));
    }

    /// A labelled value; those that follow stand below the first.
    fn field(&mut self, label: &str, values: impl IntoIterator<Item = String>) {
        let mut label = label;
        for value in values {
            self.line(&format!("  {label:<13}{value}"));
            label = "";
        }
    }

    fn pairs(&mut self, label: &str, pairs: &Texts) {
        self.field(label, pairs.iter().map(|(key, value)| format!("{}={}", shown(key), shown(value))));
    }

    fn node(&mut self, node: &Described) {
        match (&node.image, &node.manifests) {
            (Some(image), _) => self.image(node, image),
            (None, Some(manifests)) => self.index(node, manifests),
            (None, None) => self.other(node),
        }
    }

    fn image(&mut self, node: &Described, image: &ImageInfo) {
        self.field("manifest", node.digest.map(|digest| digest.to_string()));
        self.field("image ID", [image.id.to_string()]);
        self.field("platform", platform(node));
        self.field("created", image.created.as_deref().map(shown));
        self.field("author", image.author.as_deref().map(shown));
        let stored = image.layers_size.map_or_else(|| "unknown".to_owned(), bytes);
        self.field("size", [format!("{stored} in {}", count(image.layers.len(), "layer"))]);
        self.settings(&image.config);
        self.annotations(node);
        self.layers(image);
        if let Some(waste) = &image.waste {
            self.waste(waste);
        }
    }

    /// What nobody sees, of each layer, and in which files most of it is.
    fn waste(&mut self, waste: &Waste) {
        let (hidden, all, share) = (bytes(waste.hidden_bytes), bytes(waste.bytes), waste.per_mille());
        let files = count(waste.hidden_files, "file");
        self.text.push('\n');
        self.line(&format!("  hidden by newer layers: {hidden} of {all} ({}.{} %), {files}", share / 10, share % 10));
        if waste.hidden_files == 0 {
            return;
        }
        let mut rows = vec![["layer", "in files", "hidden", "hidden files"].map(str::to_owned).to_vec()];
        for (at, layer) in waste.layers.iter().enumerate() {
            rows.push(vec![at.to_string(), bytes(layer.bytes), bytes(layer.hidden_bytes), layer.hidden_files.to_string()]);
        }
        self.text.push_str(&table(&format!("{}  ", self.indent), &[Align::Right; 4], &rows));
        if waste.largest.is_empty() {
            return;
        }
        let mut rows = vec![["layer", "size", "largest hidden files"].map(str::to_owned).to_vec()];
        rows.extend(waste.largest.iter().map(|file| vec![file.layer.to_string(), bytes(file.bytes), shown(&file.path)]));
        self.text.push('\n');
        self.text.push_str(&table(&format!("{}  ", self.indent), &[Align::Right, Align::Right, Align::Left], &rows));
    }

    fn settings(&mut self, config: &Settings) {
        let command = |words: &Option<Vec<String>>| words.as_ref().filter(|words| !words.is_empty()).map(|words| exec_form(words));
        self.field("entrypoint", command(&config.entrypoint));
        self.field("cmd", command(&config.cmd));
        self.field("env", config.env.iter().map(|entry| shown(entry)));
        self.field("workdir", config.working_dir.as_deref().map(shown));
        self.field("user", config.user.as_deref().map(shown));
        let list = |set: &std::collections::BTreeSet<String>| {
            Some(set.iter().map(|item| shown(item)).collect::<Vec<_>>().join(", ")).filter(|_| !set.is_empty())
        };
        self.field("ports", list(&config.exposed_ports));
        self.field("volumes", list(&config.volumes));
        self.field("stop signal", config.stop_signal.as_deref().map(shown));
        self.pairs("labels", &config.labels);
    }

    fn annotations(&mut self, node: &Described) {
        self.pairs("annotations", &node.annotations);
        // The names are in the heading.
        let mut listed = node.descriptor_annotations.clone();
        listed.retain(|key, _| key != IMAGE_NAME && key != REF_NAME);
        self.pairs("listed with", &listed);
    }

    /// The steps of the build in order, with the layers that they made.
    fn layers(&mut self, image: &ImageInfo) {
        // Archives without manifests do not state what compressed layers digest to: then all show what is always known.
        let stored = image.layers.iter().all(|layer| layer.digest.is_some());
        let mut rows = Vec::new();
        if image.history_matches {
            for step in &image.history {
                let made = step.layer.and_then(|at| Some((at, image.layers.get(at)?)));
                let command = step.created_by.as_deref().map(command).or_else(|| step.comment.clone()).unwrap_or_default();
                rows.push(self.row(made, stored, &command));
            }
        } else {
            rows.extend(image.layers.iter().enumerate().map(|layer| self.row(Some(layer), stored, "")));
        }
        if rows.is_empty() {
            return;
        }
        let header = ["layer", if stored { "digest" } else { "diff ID" }, "size", "stored as", "made by"].map(str::to_owned).to_vec();
        rows.insert(0, header);
        let columns = [Align::Right, Align::Left, Align::Right, Align::Left, Align::Left];
        self.text.push('\n');
        self.text.push_str(&table(&format!("{}  ", self.indent), &columns, &rows));
        if !image.history_matches && !image.history.is_empty() {
            let said = count(image.history.len(), "step");
            self.line(&format!("  the history has {said} and does not match the layers"));
        }
    }

    fn row(&self, layer: Option<(usize, &LayerInfo)>, by_digest: bool, command: &str) -> Vec<String> {
        let command = shown(command);
        let command = if self.whole { command } else { shortened(&command, COMMAND_WIDTH) };
        let Some((at, layer)) = layer else {
            return vec!["-".to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned(), command];
        };
        let stored = match &layer.compression {
            Some(compression) if compression == "none" => "plain".to_owned(),
            Some(compression) => compression.clone(),
            None => "elsewhere".to_owned(),
        };
        let size = layer.size.map_or_else(|| "unknown".to_owned(), bytes);
        let digest = layer.digest.filter(|_| by_digest).unwrap_or(layer.diff_id.0);
        vec![at.to_string(), digest.short(), size, stored, command]
    }

    fn index(&mut self, node: &Described, manifests: &[Described]) {
        self.field("index", node.digest.map(|digest| digest.to_string()));
        let platforms: Vec<_> = manifests.iter().filter_map(platform).collect();
        self.field("platforms", Some(platforms.join(", ")).filter(|list| !list.is_empty()));
        self.about(node);
        self.annotations(node);
        self.indent.push_str("  ");
        for below in manifests {
            self.text.push('\n');
            self.heading(&platform(below).unwrap_or_else(|| below.kind.to_owned()));
            self.node(below);
        }
        self.indent.truncate(self.indent.len() - 2);
    }

    /// An artifact, or what is listed and not there.
    fn other(&mut self, node: &Described) {
        let absent = if node.kind == "unread" { " (not in this source)" } else { "" };
        let label = if node.kind == "unread" { "manifest" } else { node.kind };
        self.field(label, node.digest.map(|digest| format!("{digest}{absent}")));
        self.field("media type", node.media_type.as_deref().map(shown));
        self.about(node);
        if let Some(blobs) = &node.blobs {
            let size = blobs.iter().map(|blob| blob.size).sum::<Option<u64>>().map_or_else(|| "unknown".to_owned(), bytes);
            self.field("size", [format!("{size} in {}", count(blobs.len(), "blob"))]);
        }
        self.annotations(node);
    }

    fn about(&mut self, node: &Described) {
        self.field("type", node.artifact_type.as_deref().map(shown));
        self.field("subject", node.subject.as_ref().map(Digest::to_string));
    }
}

fn platform(node: &Described) -> Option<String> {
    let platform = node.platform.as_deref()?;
    Some(match &node.os_version {
        Some(version) => format!("{platform} {}", shown(version)),
        None => platform.to_owned(),
    })
}

/// `["/bin/sh", "-c"]`, as a Dockerfile has it.
fn exec_form(words: &[String]) -> String {
    let mut text = String::from("[");
    for (at, word) in words.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        write!(text, "{comma}\"{}\"", shown(&word.replace('\\', "\\\\").replace('"', "\\\""))).expect("writing to a String cannot fail");
    }
    text + "]"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_as_in_a_dockerfile() {
        assert_eq!(exec_form(&["a b".to_owned(), "\"\\\n".to_owned()]), r#"["a b", "\"\\\n"]"#);
        assert_eq!(exec_form(&[]), "[]");
    }
}

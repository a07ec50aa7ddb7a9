//! What `storage.conf` says of where containers/storage keeps its images.
//!
//! The file is TOML, of which it takes little: tables, strings, and lists of strings. All else is passed over.

use std::path::PathBuf;

/// The parts of `storage.conf` that lead to images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageConf {
    /// `driver`: how layers are kept.
    pub driver: Option<String>,
    /// `graphroot`: where root's images are.
    pub graph_root: Option<PathBuf>,
    /// `runroot`: where what does not outlive a boot is.
    pub run_root: Option<PathBuf>,
    /// `rootless_storage_path`: where the images of other users are.
    pub rootless_storage_path: Option<PathBuf>,
    /// `imagestore` and `additionalimagestores`: further places of images.
    pub image_stores: Vec<PathBuf>,
}

impl StorageConf {
    /// Reads the text of `storage.conf`; `variable` gives the environment (`$HOME`, `$UID`) that paths are written with.
    pub fn parse(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut conf = Self::default();
        let mut table = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[') {
                table = header.split(']').next().unwrap_or_default().trim().to_owned();
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
            let mut value = value.trim().to_owned();
            if value.starts_with('[') {
                while !without_comment(&value).ends_with(']') {
                    let Some(next) = lines.next() else { break };
                    value = format!("{} {}", without_comment(&value), next.trim());
                }
            }
            conf.set(&table, key.trim().trim_matches('"'), &value, variable);
        }
        conf
    }

    fn set(&mut self, table: &str, key: &str, value: &str, variable: &dyn Fn(&str) -> Option<String>) {
        let strings = strings(value);
        let paths = || strings.iter().map(|text| expand(text, variable)).filter(|text| !text.is_empty()).map(PathBuf::from);
        match (table, key) {
            ("storage", "driver") => self.driver = strings.into_iter().next().filter(|driver| !driver.is_empty()),
            ("storage", "graphroot") => self.graph_root = paths().next(),
            ("storage", "runroot") => self.run_root = paths().next(),
            ("storage", "rootless_storage_path") => self.rootless_storage_path = paths().next(),
            ("storage", "imagestore") | ("storage.options", "additionalimagestores") => self.image_stores.extend(paths()),
            _ => {}
        }
    }
}

/// The strings of a value, one or a list.
fn strings(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '#' => break,
            '\'' => found.push(letters.by_ref().take_while(|letter| *letter != '\'').collect()),
            '"' => {
                let mut text = String::new();
                while let Some(letter) = letters.next() {
                    match letter {
                        '"' => break,
                        '\\' => text.extend(letters.next()),
                        letter => text.push(letter),
                    }
                }
                found.push(text);
            }
            _ => {}
        }
    }
    found
}

fn without_comment(value: &str) -> &str {
    let mut quote = None;
    for (at, letter) in value.char_indices() {
        match (letter, quote) {
            ('#', None) => return value[..at].trim_end(),
            ('"' | '\'', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            _ => {}
        }
    }
    value.trim_end()
}

/// Puts variables in, `$NAME` and `${NAME}`.
fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, next) = match after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        out.push_str(&variable(name).unwrap_or_default());
        rest = next;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_distributions_write() {
        let text = r#"
# a comment = "x"
[storage]
driver = "overlay" # the default
runroot = "/run/containers/storage"
graphroot = '/var/lib/containers/storage'
rootless_storage_path = "$HOME/.local/${SHARE}/containers"
imagestore = ""
[storage.options]
# additionalimagestores = ["/no"]
additionalimagestores = [
  "/usr/lib/a", # with "quotes"
  '/usr/lib/#b',
]
pull_options = {enable_partial_images = "false", use_hard_links = "false", ostree_repos=""}
[storage.options.overlay]
driver = "no"
mountopt = "nodev,metacopy=on"
"#;
        let variable = |name: &str| match name {
            "HOME" => Some("/home/me".to_owned()),
            "SHARE" => Some("share".to_owned()),
            _ => None,
        };
        let expected = StorageConf {
            driver: Some("overlay".to_owned()),
            graph_root: Some("/var/lib/containers/storage".into()),
            run_root: Some("/run/containers/storage".into()),
            rootless_storage_path: Some("/home/me/.local/share/containers".into()),
            image_stores: vec!["/usr/lib/a".into(), "/usr/lib/#b".into()],
        };
        assert_eq!(StorageConf::parse(text, &variable), expected);
    }

    #[test]
    fn odd_files_say_nothing() {
        for text in
            ["", "[storage", "graphroot = \"/x\"", "[storage]\ngraphroot\n=\ndriver =", "[storage.options]\nadditionalimagestores = ["]
        {
            assert_eq!(StorageConf::parse(text, &|_| None), StorageConf::default(), "{text:?}");
        }
    }
}

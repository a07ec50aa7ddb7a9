//! What docs/ARCHITECTURE.md names is there.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/ARCHITECTURE.md");

/// The code spans of the page, outside of its blocks.
fn spans() -> Vec<&'static str> {
    let outside = PAGE.split("```").step_by(2);
    outside.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn files_and_what_is_in_them_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut checked = 0;
    for span in spans() {
        let (file, name) = span.split_once(": ").unwrap_or((span, ""));
        if !file.ends_with(".rs") {
            continue;
        }
        let path = if file.starts_with("cli/") || file.starts_with("lib/") { root.join(file) } else { root.join("lib/src").join(file) };
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("`{span}`: {}: {error}", path.display()));
        let defined = ["fn", "struct", "enum", "trait"].iter().any(|kind| {
            let start = format!("{kind} {name}");
            text.match_indices(&start).any(|(at, _)| !text[at + start.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        });
        assert!(name.is_empty() || defined, "`{span}`: there is no {name} in {file}");
        checked += 1;
    }
    assert!(checked > 30, "the page has lost its references");
}

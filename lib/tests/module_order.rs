//! What the modules of the library may know of each other, and what none of them may do: read from the sources themselves.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/ARCHITECTURE.md");

/// Every module, and those that it uses; the order in which they are listed is the order of the layers.
fn order() -> Vec<(&'static str, BTreeSet<&'static str>)> {
    let (_, rest) = PAGE.split_once("```module-order\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let line = |line: &'static str| {
        let (module, uses) = line.split_once(':').unwrap();
        (module, uses.split(',').map(str::trim).filter(|used| !used.is_empty()).collect())
    };
    block.lines().map(line).collect()
}

/// Most lines of one file, its tests aside.
const LINES: usize = 800;

/// One file of the library.
struct Source {
    path: PathBuf,
    /// The module at the top that it belongs to; none for the root.
    module: Option<String>,
    /// Its code: no comments, no tests.
    code: String,
    lines: usize,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let below = path.strip_prefix(root).unwrap();
        let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = Some(first.trim_end_matches(".rs").to_owned()).filter(|module| module != "lib" && module != "testing");
        let text = fs::read_to_string(path).unwrap();
        let (code, lines) = without_tests(&text);
        Self { path: below.to_owned(), module, code, lines }
    }

    /// The modules that it names: in `crate::x::…`, `crate::{x::…, y}`, and for an item at the root of the crate, the one it comes from.
    fn uses(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            let rest = &self.code[at + "crate::".len()..];
            let names = if rest.starts_with('{') { first_of_each(rest) } else { vec![identifier(rest)] };
            found.extend(names.into_iter().map(module_of));
        }
        found
    }
}

/// Where an item that is exported at the root of the crate lives.
fn module_of(name: &str) -> String {
    match name {
        "Error" | "ErrorKind" | "Result" => "error",
        "DiffId" | "Digest" => "digest",
        "Limits" => "limits",
        other => other,
    }
    .to_owned()
}

fn identifier(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The first names of the parts of `{a::b, c::{d, e}}`.
fn first_of_each(group: &str) -> Vec<&str> {
    let (mut depth, mut names) = (0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 1 && matches!(c, '{' | ',') {
            names.push(identifier(group[at + 1..].trim_start()));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The lines before the tests at the bottom, without comments, and how many there are with them.
fn without_tests(text: &str) -> (String, usize) {
    let mut code = String::new();
    let mut lines = 0;
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") {
            // A module in another file has nothing below it; one in this file is the rest of it.
            if text[text.find(line).unwrap()..].lines().nth(1).is_some_and(|next| next.ends_with('{')) {
                break;
            }
            continue;
        }
        lines += 1;
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    (code, lines)
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
                && !path.ends_with("testing.rs")
            {
                sources.push(Source::read(&root, &path));
            }
        }
    }
    assert!(sources.len() > 30, "the sources are elsewhere");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

#[test]
fn the_page_gives_an_order_of_all_modules() {
    let mut known = BTreeSet::new();
    for (module, uses) in order() {
        let later: Vec<_> = uses.difference(&known).collect();
        assert!(later.is_empty(), "{module} uses {later:?}, which come later");
        assert!(known.insert(module), "{module} is there twice");
    }
    let there: BTreeSet<String> = sources().into_iter().filter_map(|source| source.module).collect();
    assert_eq!(there, known.into_iter().map(str::to_owned).collect());
}

#[test]
fn modules_use_what_the_page_says_and_nothing_else() {
    let sources = sources();
    for (module, uses) in order() {
        let of_module = sources.iter().filter(|source| source.module.as_deref() == Some(module));
        let mut found: BTreeSet<String> = of_module.flat_map(Source::uses).collect();
        found.remove(module);
        assert_eq!(found, uses.into_iter().map(str::to_owned).collect(), "{module}");
    }
}

#[test]
fn pure_modules_stay_pure_and_the_library_is_silent() {
    let mut wrong = Vec::new();
    for source in sources() {
        let mut forbid = |words: &[&str]| {
            for word in words.iter().filter(|word| source.code.contains(**word)) {
                wrong.push(format!("{} mentions {word}", source.path.display()));
            }
        };
        match source.module.as_deref() {
            Some("plan" | "seal") => forbid(&["std::fs", "std::thread", "transport", "crate::format", "format::"]),
            Some("format") => forbid(&["crate::plan", "plan::"]),
            Some("tar" | "spec" | "catalog" | "reference" | "digest") => forbid(&["std::fs", "std::thread"]),
            _ => {}
        }
        forbid(&["println!", "eprintln!", "print!(", "eprint!(", "dbg!(", "process::exit", "env::var", "env::temp_dir", "env::home_dir"]);
        forbid(&["SystemTime::now", "Timestamp::now"]);
        // The name of the processor is a constant of the build.
        if source.code.replace("std::env::consts::", "").contains("std::env") {
            wrong.push(format!("{} mentions std::env", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short() {
    let long: Vec<_> = sources().into_iter().filter(|source| source.lines > LINES).map(|source| source.path).collect();
    assert!(long.is_empty(), "over {LINES} lines without their tests: {long:?}");
}

#[test]
fn the_reader_of_this_test_sees_what_it_should() {
    let text = "//! crate::run\nuse crate::{plan::{a, b}, seal, Error};\nfn f() { crate::tar::x(); }\n#[cfg(test)]\nmod tests {\nuse crate::format;\n}\n";
    let (code, lines) = without_tests(text);
    assert_eq!(lines, 3);
    let source = Source { path: PathBuf::new(), module: None, code, lines };
    assert_eq!(source.uses(), ["error", "plan", "seal", "tar"].map(str::to_owned).into());
}

//! `cargo xtask docs`: the pages below docs/ that are made of the program itself.

use std::process::Command;

use anyhow::Context as _;

use crate::tools::{longshore, output, root};

const PAGE: &str = "docs/FORMATS.md";

/// Writes the pages, or says which of them is not what the program would write.
pub(crate) fn run(check: bool) -> anyhow::Result<bool> {
    let made = output(Command::new(longshore(false)?).args(["formats", "--markdown"]))?;
    let path = root().join(PAGE);
    if !check {
        std::fs::create_dir_all(root().join("docs"))?;
        std::fs::write(&path, made).with_context(|| PAGE)?;
        println!("wrote {PAGE}");
        return Ok(true);
    }
    let there = std::fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
    if there == made {
        println!("{PAGE} is up to date");
        return Ok(true);
    }
    let line = there.lines().zip(made.lines()).position(|(a, b)| a != b).unwrap_or_else(|| there.lines().count().min(made.lines().count()));
    println!("{PAGE} is out of date from line {}; run `cargo xtask docs`", line + 1);
    Ok(false)
}

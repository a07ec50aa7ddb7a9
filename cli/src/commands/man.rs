//! `longshore man`: the manual, made from the definitions of the arguments.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use longshore::error::Context as _;

use crate::args::{Args, ManArgs};
use crate::console;

pub(super) fn run(args: &ManArgs) -> anyhow::Result<()> {
    match &args.dir {
        None => console::print_bytes(&page(Args::command())?)?,
        Some(dir) => write_all(dir)?,
    }
    Ok(())
}

fn write_all(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).path(dir)?;
    let mut command = Args::command();
    // Commands show the global options only once they are built.
    command.build();
    let mut pages = vec![("longshore.1".to_owned(), page(command.clone())?)];
    for below in command.get_subcommands().filter(|below| below.get_name() != "help").cloned() {
        let full = format!("longshore-{}", below.get_name());
        pages.push((format!("{full}.1"), page(below.display_name(full))?));
    }
    for (name, bytes) in pages {
        let path = dir.join(name);
        fs::write(&path, bytes).path(&path)?;
    }
    Ok(())
}

fn page(command: clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command).render(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path()).unwrap();
        let page = fs::read_to_string(dir.path().join("longshore-copy.1")).unwrap();
        assert!(page.contains("longshore\\-copy") && page.contains("Examples"), "{page}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1 + Args::command().get_subcommands().count());
    }
}

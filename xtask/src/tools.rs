//! What the tasks share: where things are, and how to run them.

use std::env;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// cargo, the one that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds for `profile`: `debug` or `release`.
pub(crate) fn built(profile: &str) -> anyhow::Result<PathBuf> {
    let out = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let (_, rest) = out.split_once("\"target_directory\":\"").context("cargo metadata names no target directory")?;
    let (folder, _) = rest.split_once('"').context("cargo metadata is cut")?;
    Ok(Path::new(&folder.replace("\\\\", "\\")).join(profile))
}

/// Builds the binary and gives its path.
pub(crate) fn longshore(release: bool) -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "longshore-cli"]);
    // Whoever watches a first build of minutes wants to see it move.
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    if release {
        command.arg("--release");
    }
    check(&mut command)?;
    Ok(built(if release { "release" } else { "debug" })?.join(format!("longshore{}", env::consts::EXE_SUFFIX)))
}

/// The command line as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(program).chain(command.get_args().map(|arg| arg.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

/// Runs a command, its output shown, and fails when it does.
pub(crate) fn check(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a command and gives its standard output.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run `{}`", show(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}\n{}", show(command), output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether a program is installed. Debian's own comes first.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let first = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().map(PathBuf::from);
    first.chain(env::split_paths(&path)).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A duration as people say it.
pub(crate) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1} s") } else { format!("{} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0) }
}

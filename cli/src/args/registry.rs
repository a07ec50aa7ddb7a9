//! Options for registries.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueHint;
use longshore::reference::Reference;

/// How registries are reached, and as whom.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Registry options")]
pub(crate) struct RegistryArgs {
    /// Log in with this name and password instead of what docker login or podman login keep, where a command names one registry
    #[arg(long, global = true, value_name = "USER:PASSWORD", conflicts_with = "creds_stdin", hide_short_help = true)]
    pub(crate) creds: Option<Secret>,
    /// Read USER:PASSWORD from the first line of standard input
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) creds_stdin: bool,
    /// Also talk to registries without TLS, or with a certificate that nobody vouches for
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) insecure: bool,
    /// Trust the authorities in this PEM file besides those of the system
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Show registries this certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "key", hide_short_help = true)]
    pub(crate) cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "cert", hide_short_help = true)]
    pub(crate) key: Option<PathBuf>,
    /// Move N blobs side by side from or to registries [default: 4]
    #[arg(long, global = true, value_name = "N", hide_short_help = true)]
    pub(crate) parallel: Option<NonZeroUsize>,
}

const TAGS_HELP: &str = "\
Examples:
  longshore tags registry.example.com/team/app
  longshore tags alpine --json";

/// Options of `tags`.
#[derive(Debug, clap::Args)]
#[command(after_help = TAGS_HELP)]
pub(crate) struct TagsArgs {
    /// Repository to list, with or without docker:// in front
    #[arg(value_name = "REPOSITORY", value_parser = repository)]
    pub(crate) repository: Reference,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

const LOGIN_HELP: &str = "\
Examples:
  longshore login registry.example.com -u me --password-stdin < password
  longshore login --creds me:secret registry.example.com";

/// Options of `login`.
#[derive(Debug, clap::Args)]
#[command(after_help = LOGIN_HELP)]
pub(crate) struct LoginArgs {
    /// Registry to log in to [default: docker.io]
    #[arg(value_name = "REGISTRY", value_parser = registry, default_value = "docker.io", hide_default_value = true)]
    pub(crate) registry: Reference,
    /// Name of the user
    #[arg(short, long, value_name = "USER", conflicts_with_all = ["creds", "creds_stdin"])]
    pub(crate) username: Option<String>,
    /// Read the password from the first line of standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
}

/// Options of `logout`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  longshore logout registry.example.com")]
pub(crate) struct LogoutArgs {
    /// Registry to forget the login of [default: docker.io]
    #[arg(value_name = "REGISTRY", value_parser = registry, default_value = "docker.io", hide_default_value = true)]
    pub(crate) registry: Reference,
}

/// A password as it was given, which no message repeats: clap would, of a value that it refuses.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A repository without a tag.
fn repository(text: &str) -> Result<Reference, String> {
    let reference = Reference::parse(text.strip_prefix("docker://").unwrap_or(text)).map_err(|error| error.to_string())?;
    match (reference.tag(), reference.digest()) {
        (None, None) => Ok(reference),
        _ => Err(format!("expected a repository without a tag, such as {}", reference.familiar_repository())),
    }
}

/// A registry, as a reference to some repository in it.
fn registry(text: &str) -> Result<Reference, String> {
    let host = text.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let host = if matches!(host, "index.docker.io/v1" | "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    let wrong = || format!("{host:?} is not a registry: expected HOST or HOST:PORT");
    let reference = Reference::parse(&format!("{host}/any/repository")).map_err(|_| wrong())?;
    if reference.domain() == host { Ok(reference) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_and_repositories() {
        for (text, host) in [
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("a.example:5000", "a.example:5000"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(registry(text).unwrap().domain(), host);
        }
        for wrong in ["", "host", "a.example/b", "A B"] {
            assert!(registry(wrong).is_err(), "{wrong}");
        }
        assert_eq!(repository("docker://alpine").unwrap().path(), "library/alpine");
        assert!(repository("alpine:3").unwrap_err().contains("such as alpine"));
    }
}

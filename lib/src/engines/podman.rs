//! Where podman is: its service on a socket, or else its program.
//!
//! podman needs no daemon, so that the service is there on few machines; what the service does, `podman load` does, too.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::context::{Cancel, Context};
use crate::error::{Context as _, Result};
use crate::format::WriteOptions;
use crate::sink::{Accepts, Sink};

use super::docker::of_host;
use super::{Engine, Program};

/// Where the service of root listens.
const SOCKET: &str = "/run/podman/podman.sock";

/// What podman reads from its environment.
#[derive(Debug, Clone, Default)]
pub struct PodmanSettings {
    /// `CONTAINER_HOST`.
    pub host: Option<String>,
    /// `XDG_RUNTIME_DIR`, where a user's service has its socket.
    pub runtime_dir: Option<PathBuf>,
    /// The program; looked for on the path when absent.
    pub program: Option<PathBuf>,
    /// Options of podman's own for the program: `--root`, `--connection`.
    pub options: Vec<OsString>,
}

/// Something that loads images: a service, or a program.
#[derive(Debug, Clone)]
pub enum Loader {
    /// A service behind a socket.
    Service(Engine),
    /// A program that reads an archive.
    Program(Program),
}

/// Finds podman: the service that `CONTAINER_HOST` names, else that of the user, else that of root where we may talk to it, else the program.
///
/// # Errors
/// When `CONTAINER_HOST` is wrong, or leads to something that is not supported.
pub fn podman(settings: &PodmanSettings, cancel: &Cancel) -> Result<Loader> {
    loader(settings, Path::new(SOCKET), cancel)
}

/// The same, where root's service listens on `system`.
fn loader(settings: &PodmanSettings, system: &Path, cancel: &Cancel) -> Result<Loader> {
    if let Some(host) = settings.host.as_deref().filter(|host| !host.is_empty()) {
        let place = of_host(host, None).context(|| "CONTAINER_HOST")?;
        return Ok(Loader::Service(Engine::podman_at(place, cancel)));
    }
    let own = settings.runtime_dir.as_ref().map(|dir| dir.join("podman/podman.sock"));
    let usable = |socket: &PathBuf| access(socket, Access::READ_OK | Access::WRITE_OK).is_ok();
    if let Some(socket) = own.into_iter().chain([system.to_owned()]).find(usable) {
        return Ok(Loader::Service(Engine::podman(socket, cancel)));
    }
    let program = settings.program.clone().unwrap_or_else(|| PathBuf::from("podman"));
    Ok(Loader::Program(Program::podman(program, settings.options.iter().cloned())))
}

impl Loader {
    /// What it takes.
    pub fn accepts(&self, options: &WriteOptions) -> Accepts {
        match self {
            Self::Service(engine) => engine.accepts(options),
            Self::Program(program) => program.accepts(options),
        }
    }

    /// Begins to load images.
    ///
    /// # Errors
    /// When it does not answer, or is not there.
    pub fn create(&self, options: &WriteOptions, ctx: &Context) -> Result<Box<dyn Sink>> {
        match self {
            Self::Service(engine) => engine.create(options, ctx),
            Self::Program(program) => program.create(options, ctx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(settings: &PodmanSettings, system: &Path) -> String {
        match loader(settings, system, &Cancel::default()) {
            Ok(Loader::Service(engine)) => engine.at().to_owned(),
            Ok(Loader::Program(program)) => format!("{} {:?}", program.program.display(), program.args),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn service_or_program() {
        let dir = tempfile::tempdir().unwrap();
        let settings = |host: Option<&str>| PodmanSettings {
            host: host.map(str::to_owned),
            runtime_dir: Some(dir.path().to_owned()),
            options: vec!["--root".into(), "/r".into()],
            ..PodmanSettings::default()
        };
        let system = dir.path().join("system.sock");
        let found = |host| found(&settings(host), &system);
        assert_eq!(found(Some("unix:///run/x")), "/run/x");
        assert_eq!(found(Some("tcp://h:1")), "http://h:1");
        assert!(found(Some("ssh://h/x")).starts_with("CONTAINER_HOST: "));
        assert_eq!(found(None), r#"podman ["--root", "/r", "load"]"#);
        std::fs::write(&system, "").unwrap();
        assert_eq!(found(None), system.display().to_string());
        let own = dir.path().join("podman/podman.sock");
        std::fs::create_dir(dir.path().join("podman")).unwrap();
        std::fs::write(&own, "").unwrap();
        assert_eq!(found(None), own.display().to_string());
    }
}

//! The engines and the registry that the bench compares with: started when a row names them, with the image in them, and ended afterwards.
//!
//! A command line names them by words in braces: `{registry}` is its host, `{docker}` docker's data folder, `{podman}` its store, `{n}` a number
//! that no other run has.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::tools::{check, find};

/// The name of the application image.
const IMAGE: &str = "lab/app:1";

/// What was started.
pub(crate) struct Engines {
    folder: PathBuf,
    registry: Option<(Child, String)>,
    docker: Option<Child>,
}

impl Engines {
    /// Starts what `lines` name, below `folder`, where `app.tar` and `layout` are.
    pub(crate) fn start(lines: &[&str], folder: &Path) -> anyhow::Result<Self> {
        let mut engines = Self { folder: folder.to_owned(), registry: None, docker: None };
        let named = |what: &str| lines.iter().any(|line| line.contains(what));
        if named("{registry}") {
            engines.start_registry()?;
        }
        if named("{docker}") {
            engines.start_docker()?;
        }
        if named("{podman}") {
            let load = engines.fill("podman {podman} load --quiet --input app.tar", 0);
            engines.run(&load)?;
        }
        Ok(engines)
    }

    fn start_registry(&mut self) -> anyhow::Result<()> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let host = format!("127.0.0.1:{port}");
        let data = self.folder.join("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: {host}}}\n",
            data.display()
        );
        std::fs::write(self.folder.join("registry.yml"), config)?;
        let mut command = Command::new(find("docker-registry").context("docker-registry is not installed")?);
        let child = command.arg("serve").arg(self.folder.join("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.registry = Some((child, host.clone()));
        wait("docker-registry", || std::net::TcpStream::connect(&host).is_ok())?;
        self.run(&format!("skopeo --insecure-policy copy --quiet --dest-tls-verify=false oci:layout:app docker://{host}/app:1"))
    }

    fn start_docker(&mut self) -> anyhow::Result<()> {
        let at = |name: &str| self.folder.join(name);
        let mut command = Command::new(find("dockerd").context("dockerd is not installed")?);
        command.arg("--data-root").arg(at("docker")).arg("--exec-root").arg(at("docker-exec")).arg("--pidfile").arg(at("docker-pid"));
        command.arg("-H").arg(self.docker_host()).args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.args(["--storage-driver", "overlay2"]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        self.docker = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        wait("dockerd", || self.command("docker info").is_ok_and(|mut info| info.status().is_ok_and(|status| status.success())))?;
        self.run("docker load --quiet --input app.tar")
    }

    fn docker_host(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    /// The line with the words in braces replaced.
    pub(crate) fn fill(&self, line: &str, n: usize) -> String {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let podman = format!("--root {} --runroot {} --storage-driver overlay", at("podman"), at("podman-run"));
        let line = line.replace("{docker}", &at("docker")).replace("{podman-root}", &at("podman")).replace("{podman}", &podman);
        let registry = self.registry.as_ref().map_or("", |(_, host)| host.as_str());
        line.replace("{registry}", registry).replace("{image}", IMAGE).replace("{n}", &n.to_string())
    }

    /// What a command line needs to find them.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command.env("DOCKER_HOST", self.docker_host());
    }

    fn command(&self, line: &str) -> anyhow::Result<Command> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        let mut command = Command::new(find(program).with_context(|| format!("{program} is not installed"))?);
        command.args(words).current_dir(&self.folder).stdout(Stdio::null()).stderr(Stdio::null());
        self.prepare(&mut command);
        Ok(command)
    }

    fn run(&self, line: &str) -> anyhow::Result<()> {
        check(&mut self.command(line)?)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        for child in self.docker.iter_mut().chain(self.registry.iter_mut().map(|(child, _)| child)) {
            // dockerd unmounts what it has mounted when it is asked to end.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
        // What podman has mounted on its own folder would keep that.
        let _ = Command::new("umount").arg(self.folder.join("podman/overlay")).stderr(Stdio::null()).status();
    }
}

/// Waits until somebody answers.
fn wait(name: &str, answers: impl Fn() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !answers() {
        if start.elapsed() > Duration::from_secs(60) {
            bail!("{name} does not start");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

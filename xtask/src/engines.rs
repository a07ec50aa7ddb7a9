//! The engines and the registry that the bench compares with: started when a row names them, with the image in them, and ended afterwards.
//!
//! A command line names them by words in braces: `{registry}` is the host of one that has the image, `{empty}` of one that nobody has pushed to yet
//! (skopeo remembers where it has pushed a layer), `{docker}` docker's data folder, `{podman}` the options of its store.

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
    registry: Option<Registry>,
    empty: Option<Registry>,
    docker: Option<Child>,
}

/// A registry. It ends when this is dropped.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// Starts one with nothing in it, in a folder of its own below `folder`.
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (host, config) = (format!("127.0.0.1:{port}"), folder.join(format!("registry-{port}.yml")));
        let data = folder.join(format!("registry-{port}"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: {host}}}\n",
            data.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(find("docker-registry").context("docker-registry is not installed")?);
        let child = command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let registry = Self { child, host };
        wait("docker-registry", || std::net::TcpStream::connect(&registry.host).is_ok())?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Engines {
    /// Starts what `lines` name, below `folder`, where `app.tar` and `layout` are.
    pub(crate) fn start(lines: &[&str], folder: &Path) -> anyhow::Result<Self> {
        let mut engines = Self { folder: folder.to_owned(), registry: None, empty: None, docker: None };
        let named = |what: &str| lines.iter().any(|line| line.contains(what));
        if named("{registry}") {
            let registry = Registry::start(folder)?;
            let host = registry.host.clone();
            engines.registry = Some(registry);
            engines.run(&format!("skopeo --insecure-policy copy --quiet --dest-tls-verify=false oci:layout:app docker://{host}/app:1"))?;
        }
        if named("{docker}") {
            engines.start_docker()?;
        }
        if named("{podman}") {
            let load = engines.fill("podman {podman} load --quiet --input app.tar")?;
            engines.run(&load)?;
        }
        Ok(engines)
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
    pub(crate) fn fill(&mut self, line: &str) -> anyhow::Result<String> {
        if line.contains("{empty}") {
            self.empty = Some(Registry::start(&self.folder)?);
        }
        let at = |name: &str| self.folder.join(name).display().to_string();
        let podman = format!("--root {} --runroot {} --storage-driver overlay", at("podman"), at("podman-run"));
        let line = line.replace("{docker}", &at("docker")).replace("{podman-root}", &at("podman")).replace("{podman}", &podman);
        let host = |registry: &Option<Registry>| registry.as_ref().map_or_else(String::new, |registry| registry.host.clone());
        let line = line.replace("{registry}", &host(&self.registry)).replace("{empty}", &host(&self.empty));
        Ok(line.replace("{image}", IMAGE))
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
        if let Some(child) = &mut self.docker {
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

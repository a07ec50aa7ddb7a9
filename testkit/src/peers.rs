//! The tools of others, found and run: docker, podman, containerd, docker-registry, skopeo and umoci.
//!
//! Each works in a private folder: a dockerd of our own on a socket there, podman with its own storage. A tool that is not installed, or
//! that this machine does not let work (podman and dockerd need root), is reported by [`skipped`].

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::env::{Ran, TERM, finish, show, signal};

/// Where Debian's packages put programs, before anything that was installed by hand.
const FOLDERS: [&str; 5] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];

/// Finds a program: Debian's own first, then on the path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = FOLDERS.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Says that a suite is skipped, on standard error and in the file that `LONGSHORE_SKIPS` names. With CI=true it is a failure instead.
pub fn skipped(suite: &str, why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{suite}: {why}; in CI nothing is skipped");
    eprintln!("SKIPPED {suite}: {why}");
    if let Some(file) = std::env::var_os("LONGSHORE_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{suite}: {why}").unwrap();
    }
}

/// Whether the tests are run by root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(mut command: Command) -> Ran {
    command.stdin(Stdio::null());
    finish(command, Vec::new())
}

#[track_caller]
fn ok(command: Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "`{}` failed:\n{}{}", ran.command, String::from_utf8_lossy(&ran.stdout), ran.stderr);
    format!("{}{}", ran.text(), ran.stderr)
}

/// A dockerd of our own. It ends when this is dropped.
#[derive(Debug)]
pub struct Dockerd {
    client: PathBuf,
    child: Child,
    folder: TempDir,
}

impl Dockerd {
    /// Starts one, or says why that is impossible here.
    ///
    /// # Errors
    ///
    /// When a program is missing, we are not root, or dockerd does not answer within a minute.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// Starts one with more arguments.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(args: &[&str]) -> Result<Self, String> {
        let client = find("docker").ok_or("docker is not installed")?;
        let server = find("dockerd").ok_or("dockerd is not installed")?;
        if !is_root() {
            return Err("dockerd needs root".to_owned());
        }
        // The socket's path must stay below 108 bytes.
        let folder = tempfile::Builder::new().prefix("dockerd").tempdir_in("/tmp").map_err(|e| e.to_string())?;
        let at = |name: &str| folder.path().join(name);
        let log = std::fs::File::create(at("log")).map_err(|e| e.to_string())?;
        let mut command = Command::new(&server);
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec")).arg("--pidfile").arg(at("pid"));
        command.arg("-H").arg(format!("unix://{}", at("socket").display()));
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]).args(args);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log);
        // The private containerd that dockerd starts is found on the path.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let child = command.spawn().map_err(|e| e.to_string())?;
        let mut engine = Self { client, child, folder };
        let start = Instant::now();
        loop {
            if run(engine.command(&["info"])).code == Some(0) {
                return Ok(engine);
            }
            let ended = engine.child.try_wait().map_err(|e| e.to_string())?.is_some();
            if ended || start.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(engine.folder.path().join("log")).unwrap_or_default();
                let last =
                    log.lines().rev().find(|line| line.contains("level=error") || line.contains("failed")).unwrap_or("it said nothing");
                return Err(format!("dockerd does not start: {last}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Where it keeps everything.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // It makes a mount of its folder, which would keep that from being removed.
        let _ = Command::new("umount").arg(self.data()).stderr(Stdio::null()).status();
    }

    /// A client's command on this dockerd.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display())).env("HOME", self.folder.path()).args(args);
        command
    }

    /// Runs a client's command that must succeed, and gives what it printed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        ok(self.command(args))
    }

    /// Loads an archive and gives the names, or the image ID where there is no name, that docker says it loaded.
    #[track_caller]
    pub fn load(&self, archive: &Path) -> Vec<String> {
        loaded(&self.ok(&["load", "-i", archive.to_str().unwrap()]))
    }

    /// The image ID behind a name.
    #[track_caller]
    pub fn id(&self, name: &str) -> String {
        self.ok(&["image", "inspect", "--format", "{{.Id}}", name]).trim().to_owned()
    }

    /// Removes every image, so that the next load starts afresh.
    pub fn clear(&self) {
        self.ok(&["image", "prune", "--all", "--force"]);
        for id in self.ok(&["images", "--all", "--quiet", "--no-trunc"]).split_whitespace() {
            run(self.command(&["image", "rm", "--force", id]));
        }
    }

    /// Runs an image without a network and gives what it printed.
    #[track_caller]
    pub fn run(&self, image: &str) -> String {
        self.ok(&["run", "--rm", "--network", "none", image])
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

fn loaded(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| line.split_once("Loaded image").map(|(_, rest)| rest));
    let mut names: Vec<String> = lines
        .flat_map(|rest| rest.trim_start_matches("(s)").trim_start_matches(" ID").trim_start_matches(':').split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names
}

/// podman with storage of its own.
#[derive(Debug)]
pub struct Podman {
    program: PathBuf,
    folder: TempDir,
    driver: &'static str,
}

impl Podman {
    /// Finds it and tries it.
    ///
    /// # Errors
    ///
    /// When it is missing, or does not work here.
    pub fn find() -> Result<Self, String> {
        Self::with_driver("vfs")
    }

    /// The same with another storage driver.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn with_driver(driver: &'static str) -> Result<Self, String> {
        let podman = Self {
            program: find("podman").ok_or("podman is not installed")?,
            folder: tempfile::Builder::new().prefix("podman").tempdir().unwrap(),
            driver,
        };
        if !is_root() {
            return Err("podman with storage of its own needs root".to_owned());
        }
        let tried = run(podman.command(&["info"]));
        if tried.code == Some(0) { Ok(podman) } else { Err(format!("podman does not work: {}", tried.stderr.trim())) }
    }

    /// The folder in which it keeps images.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A folder that goes away with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The options that make it work on the private storage.
    pub fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = vec!["--root".into(), self.folder.path().join("root").into()];
        options.extend(["--runroot".into(), self.folder.path().join("run").into()]);
        options.extend(["--storage-driver", self.driver, "--events-backend", "none"].map(OsString::from));
        options
    }

    /// A command on the private storage.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.options()).args(args).env("HOME", self.folder.path());
        command
    }

    /// Runs a command that must succeed, and gives what it printed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        ok(self.command(args))
    }

    /// Loads an archive or a directory and gives the names that podman says it loaded.
    #[track_caller]
    pub fn load(&self, archive: &Path) -> Vec<String> {
        loaded(&self.ok(&["load", "-i", archive.to_str().unwrap()]))
    }

    /// The image ID behind a name.
    #[track_caller]
    pub fn id(&self, name: &str) -> String {
        format!("sha256:{}", self.ok(&["image", "inspect", "--format", "{{.Id}}", name]).trim().trim_start_matches("sha256:"))
    }

    /// Removes every image.
    pub fn clear(&self) {
        self.ok(&["rmi", "--all", "--force"]);
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Mounts that podman makes on its own storage would keep the folder from being removed.
        for name in ["root/vfs", "root/overlay"] {
            let _ = Command::new("umount").arg(self.folder.path().join(name)).stderr(Stdio::null()).status();
        }
    }
}

/// A containerd of our own. It ends when this is dropped.
#[derive(Debug)]
pub struct Containerd {
    ctr: PathBuf,
    child: Child,
    folder: TempDir,
    root: Option<PathBuf>,
}

impl Containerd {
    /// Starts one, or says why that is impossible here.
    ///
    /// # Errors
    ///
    /// When a program is missing, we are not root, or containerd does not answer within a minute.
    pub fn start() -> Result<Self, String> {
        Self::start_at(None)
    }

    /// Starts one that keeps its images in a folder of the caller's, which stays when it has ended.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_at(root: Option<PathBuf>) -> Result<Self, String> {
        let ctr = find("ctr").ok_or("ctr is not installed")?;
        let server = find("containerd").ok_or("containerd is not installed")?;
        if !is_root() {
            return Err("containerd needs root".to_owned());
        }
        let folder = tempfile::Builder::new().prefix("containerd").tempdir_in("/tmp").map_err(|e| e.to_string())?;
        let at = |name: &str| folder.path().join(name);
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n";
        std::fs::write(at("config.toml"), config).map_err(|e| e.to_string())?;
        let log = std::fs::File::create(at("log")).map_err(|e| e.to_string())?;
        let mut command = Command::new(&server);
        command
            .arg("--config")
            .arg(at("config.toml"))
            .arg("--root")
            .arg(root.clone().unwrap_or_else(|| at("root")))
            .arg("--state")
            .arg(at("state"));
        command.arg("--address").arg(at("socket"));
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log);
        let child = command.spawn().map_err(|e| e.to_string())?;
        let mut engine = Self { ctr, child, folder, root };
        let start = Instant::now();
        while run(engine.command(&["version"])).code != Some(0) {
            let ended = engine.child.try_wait().map_err(|e| e.to_string())?.is_some();
            if ended || start.elapsed() > Duration::from_secs(60) {
                return Err(format!(
                    "containerd does not start: {}",
                    std::fs::read_to_string(engine.folder.path().join("log")).unwrap_or_default()
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(engine)
    }

    /// The folder in which it keeps images.
    pub fn root(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| self.folder.path().join("root"))
    }

    /// ctr's path.
    pub fn ctr(&self) -> &Path {
        &self.ctr
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// ctr's command on this containerd.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.ctr);
        command.arg("--address").arg(self.socket()).args(args);
        command
    }

    /// Runs a ctr command that must succeed, and gives what it printed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        ok(self.command(args))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Asks a daemon to end, and waits for that.
fn stop(child: &mut Child) {
    if child.try_wait().is_ok_and(|status| status.is_none()) {
        signal(child, TERM);
        let start = Instant::now();
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if start.elapsed() > Duration::from_secs(20) {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A tool without a daemon or storage.
#[derive(Debug)]
pub struct Tool {
    program: PathBuf,
    first: &'static [&'static str],
}

impl Tool {
    /// skopeo, which trusts every image.
    ///
    /// # Errors
    ///
    /// When it is missing.
    pub fn skopeo() -> Result<Self, String> {
        Ok(Self { program: find("skopeo").ok_or("skopeo is not installed")?, first: &["--insecure-policy"] })
    }

    /// umoci.
    ///
    /// # Errors
    ///
    /// When it is missing.
    pub fn umoci() -> Result<Self, String> {
        Ok(Self { program: find("umoci").ok_or("umoci is not installed")?, first: &[] })
    }

    /// Runs it.
    pub fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(&self.program);
        command.args(self.first).args(args);
        run(command)
    }

    /// Runs it, asserts that it succeeds and gives what it printed on standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "`{}` failed:\n{}{}", ran.command, String::from_utf8_lossy(&ran.stdout), ran.stderr);
        ran.text()
    }

    /// The command line of `args`, for messages.
    pub fn show(&self, args: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.args(self.first).args(args);
        show(&command)
    }
}

/// Debian's docker-registry on a private port and folder. It ends when this is dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    folder: TempDir,
    host: String,
}

/// What a [`DockerRegistry`] asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegistryOptions {
    /// It knows `user` with the password `secret` alone.
    pub password: bool,
    /// It speaks TLS, with a certificate for 127.0.0.1 that is in [`DockerRegistry::certificate`].
    pub tls: bool,
    /// The certificate is one of an authority, which is what `openssl req -x509` makes by default, and so does who follows Docker's
    /// documentation.
    pub authority: bool,
    /// It talks to those alone who show the certificate in [`DockerRegistry::client`].
    pub client: bool,
}

impl DockerRegistry {
    /// The password of `user`, as bcrypt has it (`crypt` of Python's standard library made it).
    const HTPASSWD: &str = "user:$2b$05$zV5a2d.Q79cr61W6wEuzIOnv2.JLZZw0RYKH8N0R1zDpEmnqvPfC.\n";

    /// Starts one, or says why that is impossible here.
    ///
    /// # Errors
    ///
    /// When a program is missing, or the registry does not answer within half a minute.
    pub fn start(options: RegistryOptions) -> Result<Self, String> {
        let server = find("docker-registry").ok_or("docker-registry is not installed")?;
        let folder = tempfile::Builder::new().prefix("registry").tempdir_in("/tmp").map_err(|e| e.to_string())?;
        let at = |name: &str| folder.path().join(name);
        // A free port, which nobody else takes in the moment between.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(|e| e.to_string())?.port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            at("data").display()
        );
        if options.tls {
            certify(&at("key.pem"), &at("cert.pem"), options.authority)?;
            config += &format!("  tls:\n    certificate: {}\n    key: {}\n", at("cert.pem").display(), at("key.pem").display());
            if options.client {
                certify(&at("client-key.pem"), &at("client.pem"), false)?;
                config += &format!("    clientcas:\n      - {}\n", at("client.pem").display());
            }
        }
        if options.password {
            std::fs::write(at("htpasswd"), Self::HTPASSWD).map_err(|e| e.to_string())?;
            config += &format!("auth:\n  htpasswd:\n    realm: private\n    path: {}\n", at("htpasswd").display());
        }
        std::fs::write(at("config.yml"), config).map_err(|e| e.to_string())?;
        let log = std::fs::File::create(at("log")).map_err(|e| e.to_string())?;
        let mut command = Command::new(server);
        command.arg("serve").arg(at("config.yml")).env_clear().stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log);
        let child = command.spawn().map_err(|e| e.to_string())?;
        let mut registry = Self { child, folder, host };
        let start = Instant::now();
        while std::net::TcpStream::connect(&registry.host).is_err() {
            let ended = registry.child.try_wait().map_err(|e| e.to_string())?.is_some();
            if ended || start.elapsed() > Duration::from_secs(30) {
                return Err(format!("docker-registry does not start: {}", registry.log().lines().last().unwrap_or("it said nothing")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Its host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where its certificate is, which nobody else has signed.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Where the certificate and the key of its clients are.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("client.pem"), self.folder.path().join("client-key.pem"))
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The requests so far that it has answered, `METHOD PATH STATUS`, in the order of the answers.
    pub fn requests(&self) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| line.split_once("] \"").map(|(_, rest)| rest));
        lines
            .filter_map(|rest| {
                let (request, rest) = rest.split_once('"')?;
                Some(format!("{} {}", request.rsplit_once(' ')?.0, rest.split_whitespace().next()?))
            })
            .collect()
    }

    /// The manifest or index behind a name, as it is stored.
    pub fn manifest(&self, repository: &str, tag: &str) -> Option<Vec<u8>> {
        let root = self.folder.path().join("data/docker/registry/v2");
        let link = root.join(format!("repositories/{repository}/_manifests/tags/{tag}/current/link"));
        let digest = std::fs::read_to_string(link).ok()?;
        let hex = digest.trim().strip_prefix("sha256:")?;
        std::fs::read(root.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]))).ok()
    }

    /// The digests of the blobs that a repository may serve.
    pub fn blobs(&self, repository: &str) -> Vec<String> {
        let folder = self.folder.path().join(format!("data/docker/registry/v2/repositories/{repository}/_layers/sha256"));
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| format!("sha256:{}", entry.file_name().to_string_lossy()))
            .collect();
        names.sort();
        names
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a key and a certificate for 127.0.0.1 that signs itself.
///
/// # Errors
///
/// When openssl is missing or fails.
pub fn certify(key: &Path, certificate: &Path, authority: bool) -> Result<(), String> {
    let openssl = find("openssl").ok_or("openssl is not installed")?;
    let mut command = Command::new(openssl);
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=testkit",
    ]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout"]).arg(key).arg("-out").arg(certificate);
    command.args(["-addext", if authority { "basicConstraints=critical,CA:TRUE" } else { "basicConstraints=critical,CA:FALSE" }]);
    let ran = run(command);
    if ran.code == Some(0) { Ok(()) } else { Err(format!("openssl makes no certificate: {}", ran.stderr.trim())) }
}

#[cfg(test)]
mod tests {
    use super::{DockerRegistry, RegistryOptions, Tool, loaded, skipped};

    #[test]
    fn reads_what_engines_say_they_loaded() {
        assert_eq!(loaded("Loaded image: kitchen:1\nLoaded image: a:2\n"), ["a:2", "kitchen:1"]);
        assert_eq!(loaded("Loaded image ID: sha256:82a6\n"), ["sha256:82a6"]);
        assert_eq!(
            loaded("Getting image source\nLoaded image(s): localhost/kitchen:1,example.com/a:b\n"),
            ["example.com/a:b", "localhost/kitchen:1"]
        );
    }

    #[test]
    fn a_registry_of_debian_starts_with_and_without_password_and_tls() {
        let skopeo = match Tool::skopeo() {
            Ok(skopeo) => skopeo,
            Err(why) => return skipped("testkit: docker-registry", &why),
        };
        let archive = format!("docker-archive:{}", crate::fixture("from/docker20-one.tar").display());
        for (password, tls) in [(false, false), (true, false), (false, true), (true, true)] {
            let registry = match DockerRegistry::start(RegistryOptions { password, tls, ..RegistryOptions::default() }) {
                Ok(registry) => registry,
                Err(why) => return skipped("testkit: docker-registry", &why),
            };
            let name = format!("docker://{}/team/kitchen:1", registry.host());
            let mut args = vec!["copy", "--dest-tls-verify=false", &archive, &name];
            assert_eq!(skopeo.run(&args).code == Some(0), !password, "{password} {tls}: {}", registry.log());
            args.insert(1, "--dest-creds=user:secret");
            skopeo.ok(&args);
            let digest = crate::digest(&registry.manifest("team/kitchen", "1").unwrap());
            assert!(
                registry.requests().iter().any(|line| line == "PUT /v2/team/kitchen/manifests/1 201"),
                "{:?} {digest}",
                registry.requests()
            );
            assert!(registry.blobs("team/kitchen").len() > 1);
            assert!(registry.certificate().exists() == tls);
        }
    }
}

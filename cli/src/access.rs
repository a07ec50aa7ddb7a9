//! How registries and engines are reached: what the command line says of it, and what the environment does.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore::context::{Cancel, Context};
use longshore::engines::docker::DockerSettings;
use longshore::engines::podman::PodmanSettings;
use longshore::error::Context as _;
use longshore::http::{Proxies, Settings, TlsSettings};
use longshore::location::{Access, Engines, Location};
use longshore::registry::{self, Credential, CredentialFiles};
use longshore::stores::{Containerd, ContainersStorage, DockerStorage, StorageConf};
use longshore::transport::{read_line, read_small};

use crate::Usage;
use crate::args::{Args, Command, RegistryArgs};

/// Bytes of a file of certificates, or of a password.
const MOST: u64 = 1 << 20;

/// What the arguments and the environment come to.
pub(crate) fn resolve(args: &Args, ctx: &Context) -> anyhow::Result<Access> {
    let Args { registry: args, command, .. } = args;
    expect_one_registry(args, command)?;
    let read = |option: &str, path: &PathBuf| {
        read_small(path, MOST, &ctx.cancel).map_err(|error| error.frame(option.to_owned())).map_err(anyhow::Error::from)
    };
    let ca = args.ca.as_ref().map(|path| read("--ca", path)).transpose()?;
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some((read("--cert", cert)?, read("--key", key)?)),
        _ => None,
    };
    let tls = TlsSettings { ca, identity, insecure: args.insecure, ..TlsSettings::default() };
    let http = Settings { tls, proxies: proxies(), ..Settings::default() };
    let credential = match &args.creds {
        Some(given) => Some(Credential::parse(&given.0).map_err(|error| Usage::new(format!("--creds: {error}")))?),
        None if args.creds_stdin => {
            Some(Credential::parse(&one_line(&ctx.cancel)?).map_err(|error| Usage::new(format!("--creds-stdin: {error}")))?)
        }
        None => None,
    };
    let parallel = args.parallel.map_or_else(|| registry::Access::default().parallel, std::num::NonZeroUsize::get);
    let registry = registry::Access { http, insecure: args.insecure, credential, files: credential_files(), parallel };
    Ok(Access { registry: Arc::new(registry), engines: Arc::new(engines(&ctx.cancel)) })
}

/// Refuses to show one password to several registries: it is meant for one of them, and nobody says which.
fn expect_one_registry(args: &RegistryArgs, command: &Command) -> Result<(), Usage> {
    let option = match &args.creds {
        Some(_) => "--creds",
        None if args.creds_stdin => "--creds-stdin",
        None => return Ok(()),
    };
    let mut hosts: Vec<String> = Vec::new();
    for text in images(command) {
        // What is no IMAGE is the command's to refuse, and goes to no registry.
        if let Ok(Location::Registry(reference)) = Location::parse_source(text)
            && !hosts.iter().any(|known| known == reference.domain())
        {
            hosts.push(reference.domain().to_owned());
        }
    }
    let [first, others @ .., last] = hosts.as_slice() else { return Ok(()) };
    let all = others.iter().fold(first.clone(), |all, host| format!("{all}, {host}"));
    Err(Usage::new(format!("{option} is for one registry, and would be shown to {all} and {last}"))
        .hint("leave it out, and keep a login for each: longshore login HOST"))
}

/// The IMAGEs that a command line names, to read and to write.
fn images(command: &Command) -> Vec<&str> {
    let (several, others): (&[String], Vec<Option<&String>>) = match command {
        Command::Assemble(args) => (&[], vec![args.base.as_ref(), args.legacy_base.as_ref(), Some(&args.destination)]),
        Command::Check(args) => (&args.sources, Vec::new()),
        Command::Copy(args) => (&args.images, Vec::new()),
        Command::Diff(args) => (&[], vec![Some(&args.before), Some(&args.after)]),
        Command::Edit(args) => (&[], vec![Some(&args.source), Some(&args.destination)]),
        Command::Export(args) => (&[], vec![Some(&args.source)]),
        Command::Inspect(args) => (&[], vec![Some(&args.source)]),
        Command::Load(args) => (&[], vec![args.input.as_ref(), args.destination.as_ref()]),
        Command::Ls(args) => (&[], vec![Some(&args.source)]),
        Command::Rebase(args) => (&[], vec![Some(&args.source), Some(&args.old_base), Some(&args.new_base), Some(&args.destination)]),
        Command::Save(args) => (&args.names, Vec::new()),
        Command::Squash(args) => (&[], vec![Some(&args.source), args.from.as_ref(), Some(&args.destination)]),
        Command::Completions(_) | Command::Formats(_) | Command::Login(_) | Command::Logout(_) | Command::Man(_) | Command::Tags(_) => {
            (&[], Vec::new())
        }
    };
    several.iter().chain(others.into_iter().flatten()).map(String::as_str).collect()
}

/// Where engines are, as their own tools find them.
fn engines(cancel: &Cancel) -> Engines {
    let text = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    let (home, runtime_dir) = (variable("HOME"), variable("XDG_RUNTIME_DIR"));
    let docker = DockerSettings {
        host: text("DOCKER_HOST"),
        context: text("DOCKER_CONTEXT"),
        tls_verify: text("DOCKER_TLS_VERIFY").is_some(),
        cert_path: variable("DOCKER_CERT_PATH"),
        config: docker_config(),
        runtime_dir: runtime_dir.clone(),
    };
    let podman = PodmanSettings { host: text("CONTAINER_HOST"), runtime_dir, ..PodmanSettings::default() };
    let default = Engines::default();
    let namespace = text("CONTAINERD_NAMESPACE").unwrap_or_else(|| Containerd::NAMESPACE.to_owned());
    Engines {
        docker,
        podman,
        containers_storage: containers_storage(home.as_deref(), cancel),
        containerd: Containerd { namespace, ..default.containerd },
        containerd_address: text("CONTAINERD_ADDRESS"),
        docker_storage: docker_storage(default.docker_storage, cancel),
    }
}

/// Docker's data folder, as its daemon is told in its file.
fn docker_storage(default: DockerStorage, cancel: &Cancel) -> DockerStorage {
    #[derive(serde::Deserialize)]
    struct Daemon {
        #[serde(rename = "data-root", alias = "graph")]
        data_root: Option<PathBuf>,
    }
    let text = read_small(Path::new("/etc/docker/daemon.json"), MOST, cancel).ok();
    let told = text.and_then(|text| serde_json::from_slice::<Daemon>(&text).ok()).and_then(|daemon| daemon.data_root);
    told.map(|root| DockerStorage { root, ..default.clone() }).unwrap_or(default)
}

/// The store of podman and buildah: the user's, or root's, as `storage.conf` has it.
fn containers_storage(home: Option<&Path>, cancel: &Cancel) -> ContainersStorage {
    // In `podman unshare` everybody is root, and podman says who it was.
    let was_root = env::var("_CONTAINERS_ROOTLESS_UID").map_or(true, |uid| uid.is_empty() || uid == "0");
    let is_root = rustix::process::geteuid().is_root() && was_root;
    let own = home.map(|home| variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")).join("containers/storage.conf"));
    let system = ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"].map(PathBuf::from);
    let ours = variable("CONTAINERS_STORAGE_CONF").into_iter().chain(own.filter(|_| !is_root)).map(|path| (path, true));
    let read = |(path, ours): (PathBuf, bool)| {
        let text = read_small(&path, MOST, cancel).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
        Some((text, ours))
    };
    let (conf, ours) = ours.chain(system.map(|path| (path, false))).find_map(read).unwrap_or_default();
    let conf = StorageConf::parse(&conf, &|name| env::var(name).ok());
    let default = Engines::default().containers_storage;
    // What the system's file says of these is for root.
    let applies = is_root || ours;
    let rootless = || conf.rootless_storage_path.clone().or_else(|| home.map(|home| home.join(ContainersStorage::ROOTLESS)));
    let graph_root = conf.graph_root.clone().filter(|_| applies).or_else(|| if is_root { None } else { rootless() });
    ContainersStorage {
        // podman sets both in `podman unshare`, where it may have been told of another store.
        graph_root: variable("CONTAINERS_GRAPHROOT").or(graph_root).unwrap_or(default.graph_root),
        driver: conf.driver.filter(|_| applies),
        image_stores: conf.image_stores,
        run_root: variable("CONTAINERS_RUNROOT").or_else(|| conf.run_root.filter(|_| applies)),
    }
}

/// The folder of docker's client.
fn docker_config() -> Option<PathBuf> {
    variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")))
}

/// The first line of standard input.
pub(crate) fn one_line(cancel: &Cancel) -> anyhow::Result<String> {
    let line = read_line(MOST, cancel).context(|| "standard input")?;
    Ok(String::from_utf8(line).map_err(longshore::Error::invalid).context(|| "standard input")?)
}

/// The proxies that curl and Go programs heed; lower case beats upper case, as with curl.
fn proxies() -> Proxies {
    let value = |name: &str| {
        let text = env::var(name.to_lowercase()).ok().filter(|text| !text.is_empty());
        text.or_else(|| env::var(name).ok().filter(|text| !text.is_empty()))
    };
    Proxies { http: value("HTTP_PROXY"), https: value("HTTPS_PROXY"), no_proxy: value("NO_PROXY") }
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where docker, podman and skopeo keep logins; new ones go to docker's file, which all of them read. `$REGISTRY_AUTH_FILE` beats them all, as
/// with podman.
fn credential_files() -> CredentialFiles {
    if let Some(only) = variable("REGISTRY_AUTH_FILE") {
        return CredentialFiles { read: vec![only.clone()], write: Some(only) };
    }
    let home = variable("HOME");
    let docker = docker_config().map(|folder| folder.join("config.json"));
    let below = |folder: &Path| folder.join("containers/auth.json");
    let config = variable("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let read = [variable("XDG_RUNTIME_DIR").as_deref().map(below), config.as_deref().map(below), docker.clone()];
    CredentialFiles { read: read.into_iter().flatten().collect(), write: docker }
}

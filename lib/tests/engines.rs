//! Images into engines and out of them: docker's daemon over its socket and over TLS, podman's service and program, containerd's.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore::catalog::Wanted;
use longshore::context::{Cancel, Context};
use longshore::engines::docker::{DockerSettings, docker};
use longshore::engines::{Engine, Program};
use longshore::error::ErrorKind;
use longshore::format::WriteOptions;
use longshore::location::{Access, Engines, Location, OpenOptions, create, find, open};
use longshore::plan::{ConvertOptions, convert};
use longshore::run::{Report, run};
use longshore::sink::{Accepts, Sink};
use longshore::source::Source;
use longshore::stores::{Containerd as ContainerdStore, ContainersStorage, DockerStorage};
use longshore::tree::Opening;
use longshore::{Digest, Result};
use longshore_testkit::facts::{Packing, facts, full_name};
use longshore_testkit::images::{Image, Layer, docker_archive};
use longshore_testkit::peers::{Containerd, Dockerd, Podman, skipped};
use longshore_testkit::tar::{self, Member};
use longshore_testkit::{fixture, noise};

fn context(dir: &Path) -> Context {
    Context::new(2, dir.to_owned())
}

/// A source of a file.
fn file(path: &Path) -> Arc<dyn Source> {
    open(&Location::parse_source(path.to_str().unwrap()).unwrap(), &OpenOptions::default(), &context(Path::new("/tmp"))).unwrap()
}

fn written(dir: &Path, name: &str, images: &[Image]) -> Arc<dyn Source> {
    let path = dir.join(name);
    fs::write(&path, docker_archive(images).bytes()).unwrap();
    file(&path)
}

fn load(source: &dyn Source, accepts: Accepts, sink: Result<Box<dyn Sink>>, ctx: &Context) -> Result<Report> {
    run(&convert(source.catalog(), &accepts, &ConvertOptions::default())?, source, sink?, ctx)
}

fn into(engine: &Engine, source: &dyn Source, ctx: &Context) -> Result<Report> {
    let options = WriteOptions::default();
    load(source, engine.accepts(&options), engine.create(&options, ctx), ctx)
}

fn through(program: &Program, source: &dyn Source, ctx: &Context) -> Result<Report> {
    let options = WriteOptions::default();
    load(source, program.accepts(&options), program.create(&options, ctx), ctx)
}

fn from(engine: &Engine, name: &str, ctx: &Context) -> Result<Arc<dyn Source>> {
    let opening = Opening { pick: None, wanted: &Wanted::All, referrers: false, missing_layers: false, keep_going: false, ctx };
    engine.open(name, &opening, None)
}

/// What an engine has under a name, as an archive whose facts can be looked at.
fn saved(engine: &Engine, name: &str, dir: &Path, ctx: &Context) {
    let source = from(engine, name, ctx).unwrap();
    assert_eq!(source.describe(), format!("{}:{name}", engine.name()));
    assert!(source.spooled() > 0);
    let to = Location::parse_destination(&format!("docker-archive:{}", dir.join("saved.tar").display())).unwrap();
    let options = WriteOptions::default();
    load(source.as_ref(), to.accepts(&options).unwrap(), create(&to, &options, true, &Access::default(), ctx), ctx).unwrap();
}

fn at(socket: &Path) -> DockerSettings {
    DockerSettings { host: Some(format!("unix://{}", socket.display())), ..DockerSettings::default() }
}

/// Layers of noise: of so many bytes each, plain.
fn noisy(name: &str, seeds: &[u64], len: usize) -> Image {
    seeds.iter().fold(Image::new(name), |image, seed| {
        image.with(Layer::of_tar(tar::write(&[Member::file(format!("noise-{seed}"), noise(len, *seed))])))
    })
}

#[test]
fn docker_over_its_socket() {
    let mut daemon = match Dockerd::start() {
        Ok(daemon) => daemon,
        Err(why) => return skipped("engines: docker", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let ctx = context(dir.path());
    let engine = docker(&at(&daemon.socket()), &ctx.cancel).unwrap();
    engine.ping().unwrap();
    both_ways(&daemon, &engine, dir.path(), &ctx);
    names_that_are_wrong(&engine, &ctx);
    what_it_has_is_not_sent(&daemon, &engine, dir.path(), &ctx);
    what_breaks_off_is_not_loaded(&daemon, &engine, dir.path(), &ctx);
    what_it_refuses(&engine, dir.path(), &ctx);
    // Last, since it does not come back.
    it_dies_in_the_middle(&mut daemon, &engine, dir.path(), &ctx);
    let error = from(&engine, "kitchen:1", &ctx).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.hint_text().unwrap().contains("DOCKER_HOST"), "{error}");
}

fn both_ways(daemon: &Dockerd, engine: &Engine, dir: &Path, ctx: &Context) {
    for kitchen in ["kitchen.tar", "from/docker20-three-names.tar", "from/skopeo-oci", "from/docker29-one.tar"] {
        daemon.clear();
        let kitchen = fixture(kitchen);
        into(engine, file(&kitchen).as_ref(), ctx).unwrap();
        let was = facts(&kitchen);
        let mut names = engine.names().unwrap();
        assert!(!names.is_empty());
        for (id, image) in &was.images {
            let own: Vec<_> = names.extract_if(.., |name| image.names.contains(&full_name(name))).collect();
            assert_eq!(own.len(), image.names.len());
            let id_forms = [id.clone(), id["sha256:".len()..][..12].to_owned(), format!("@{id}")];
            for wanted in own.iter().cloned().chain(own.iter().map(|name| full_name(name))).chain(id_forms) {
                assert!(engine.has(&wanted).unwrap(), "{wanted}");
                saved(engine, &wanted, dir, ctx);
                let saved = facts(&dir.join("saved.tar"));
                assert!(saved.only().essence() == image.essence() && saved.images.contains_key(id), "{wanted}");
                let names: Vec<_> = saved.only().names.iter().map(|name| full_name(name)).collect();
                assert!(names.iter().all(|name| *name == full_name(&wanted)), "{wanted}: {names:?}");
            }
            own.iter().for_each(|name| assert_eq!(daemon.id(name), *id));
        }
        assert!(names.is_empty(), "{names:?}");
    }
}

fn names_that_are_wrong(engine: &Engine, ctx: &Context) {
    let error = from(engine, "kitchn:7", ctx).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "docker-daemon:kitchn:7: there is no image kitchn:7");
    assert!(error.hint_text().unwrap().starts_with("did you mean kitchen:"), "{error:?}");
    assert!(!engine.has("kitchn:7").unwrap());
    for bad in ["UPPER", "a b", "../x", "", "a?b", "%00"] {
        assert!(from(engine, bad, ctx).is_err(), "{bad}");
    }
}

/// How many bytes of layers went into the engine.
fn sent(report: &Report) -> u64 {
    report.bytes_read
}

fn what_it_has_is_not_sent(daemon: &Dockerd, engine: &Engine, dir: &Path, ctx: &Context) {
    const LEN: usize = 1 << 20;
    daemon.clear();
    let base = written(dir, "base.tar", &[noisy("base:1", &[1, 2], LEN)]);
    assert!(sent(&into(engine, base.as_ref(), ctx).unwrap()) > 2 << 20);
    assert_eq!(sent(&into(engine, base.as_ref(), ctx).unwrap()), 0, "all of it is there");
    // On top of what is there, and compressed, so that nobody knows how large the layers are.
    let app = noisy("app:1", &[1, 2], LEN).with(Layer::new("app=1").packed(Packing::Gzip));
    let report = into(engine, written(dir, "app.tar", std::slice::from_ref(&app)).as_ref(), ctx).unwrap();
    assert!((1..10_000).contains(&sent(&report)), "{}", sent(&report));
    assert_eq!(daemon.id("app:1"), app.id());
    // The same layers in another order are other layers to an engine.
    let other = noisy("other:1", &[2, 1], LEN);
    assert!(sent(&into(engine, written(dir, "other.tar", std::slice::from_ref(&other)).as_ref(), ctx).unwrap()) > 2 << 20);
    assert_eq!(daemon.id("other:1"), other.id());
    // One layer that is there in one image and not in the other: it is sent.
    daemon.clear();
    into(engine, base.as_ref(), ctx).unwrap();
    let pair = [noisy("left:1", &[1, 3], LEN), noisy("right:1", &[3, 1], LEN)];
    let report = into(engine, written(dir, "pair.tar", &pair).as_ref(), ctx).unwrap();
    assert!(sent(&report) > 2 << 20);
    for (name, image) in [("left:1", &pair[0]), ("right:1", &pair[1]), ("base:1", &noisy("base:1", &[1, 2], LEN))] {
        assert_eq!(daemon.id(name), image.id());
        saved(engine, name, dir, ctx);
        assert!(facts(&dir.join("saved.tar")).images.contains_key(&image.id()), "{name}");
    }
    // A layer that is yet to be made is not known, and so nothing above it; what is below it is.
    let tall = written(dir, "tall.tar", &[noisy("tall:1", &[1, 2, 5, 6], LEN)]);
    let squash = longshore::plan::Squash { keep: longshore::plan::Keep::First(2), created: None, suffix: None };
    let options = ConvertOptions { squash: Some(squash), ..ConvertOptions::default() };
    let plan = convert(tall.catalog(), &engine.accepts(&WriteOptions::default()), &options).unwrap();
    let report = run(&plan, tall.as_ref(), engine.create(&WriteOptions::default(), ctx).unwrap(), ctx).unwrap();
    assert!((2 << 20..3 << 20).contains(&sent(&report)), "{}", sent(&report));
    saved(engine, "tall:1", dir, ctx);
    assert_eq!(facts(&dir.join("saved.tar")).only().diff_ids.len(), 3);
    // Another dialect is given whole.
    let classic =
        WriteOptions { dialect: longshore::format::DIALECTS.iter().copied().find(|dialect| dialect.name() == "classic").unwrap() };
    let report = load(base.as_ref(), engine.accepts(&classic), engine.create(&classic, ctx), ctx).unwrap();
    assert!(sent(&report) > 2 << 20);
}

/// A source of one large layer that does something when so many bytes of it were read.
struct Interrupted<F> {
    inner: Arc<dyn Source>,
    after: usize,
    then: F,
}

struct Watched<'a, F> {
    bytes: Box<dyn Read + Send>,
    left: usize,
    then: &'a F,
}

impl<F: Fn() -> Result<()> + Send + Sync> Read for Watched<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        if self.left > 0 && count >= self.left {
            (self.then)()?;
        }
        self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}

impl<F: Fn() -> Result<()> + Send + Sync + Clone + 'static> Source for Interrupted<F> {
    fn catalog(&self) -> &longshore::catalog::Catalog {
        self.inner.catalog()
    }

    fn open(&self, blob: longshore::catalog::BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        let then: &'static F = Box::leak(Box::new(self.then.clone()));
        Ok(Box::new(Watched { bytes: self.inner.open(blob, from)?, left: self.after, then }))
    }

    fn file(&self, _: longshore::catalog::BlobId) -> Option<(Arc<fs::File>, std::ops::Range<u64>)> {
        None
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// A large image, of which half is there when `then` is called.
fn half(dir: &Path, then: impl Fn() -> Result<()> + Send + Sync + Clone + 'static) -> impl Source {
    let inner = written(dir, "large.tar", &[noisy("large:1", &[9], 24 << 20)]);
    Interrupted { inner, after: 12 << 20, then }
}

fn what_breaks_off_is_not_loaded(daemon: &Dockerd, engine: &Engine, dir: &Path, ctx: &Context) {
    daemon.clear();
    let broken = || Err(longshore::Error::mismatch("the wrong bytes"));
    let error = into(engine, &half(dir, broken), ctx).unwrap_err();
    assert!(error.kind() == ErrorKind::Mismatch && error.to_string().ends_with("the wrong bytes"), "{error}");
    let cancelled = context(dir);
    let cancel: Cancel = cancelled.cancel.clone();
    let stop = move || {
        cancel.cancel();
        Ok(())
    };
    let start = Instant::now();
    let error = into(&docker(&at(&daemon.socket()), &cancelled.cancel).unwrap(), &half(dir, stop), &cancelled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
    // Begun, and dropped.
    drop(engine.create(&WriteOptions::default(), ctx).unwrap());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(daemon.ok(&["images", "--all", "--quiet"]), "");
    let temporary = fs::read_dir(daemon.data().join("tmp")).unwrap().count();
    assert_eq!(temporary, 0, "the daemon has tidied up");
}

fn what_it_refuses(engine: &Engine, dir: &Path, ctx: &Context) {
    // An image for another operating system.
    let odd = written(dir, "odd.tar", &[Image::new("odd:1").layer("a=1").platform("windows/amd64")]);
    let error = into(engine, odd.as_ref(), ctx).unwrap_err();
    assert!(
        error.to_string().starts_with("writing docker-daemon: /") && error.to_string().contains("the engine does not take it: "),
        "{error}"
    );
    assert!(error.to_string().contains("windows"), "{error}");
}

fn it_dies_in_the_middle(daemon: &mut Dockerd, engine: &Engine, dir: &Path, ctx: &Context) {
    let shared = Arc::new(std::sync::Mutex::new(None));
    let (die, died) = std::sync::mpsc::channel::<()>();
    let (dead, is_dead) = std::sync::mpsc::channel::<()>();
    let is_dead = Arc::new(std::sync::Mutex::new(is_dead));
    let then = {
        let shared = shared.clone();
        move || {
            die.send(()).unwrap();
            is_dead.lock().unwrap().recv().unwrap();
            *shared.lock().unwrap() = Some(Instant::now());
            Ok(())
        }
    };
    let error = std::thread::scope(|scope| {
        let loading = scope.spawn(|| into(engine, &half(dir, then), ctx).unwrap_err());
        died.recv().unwrap();
        daemon.kill();
        dead.send(()).unwrap();
        loading.join().unwrap()
    });
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("the connection was closed"), "{error}");
    assert!(shared.lock().unwrap().unwrap().elapsed() < Duration::from_secs(5));
}

/// Certificates as `docker` wants them: an authority, a server and a client, as files of `dir`.
fn certificates(dir: &Path) {
    let key = || rcgen::KeyPair::generate().unwrap();
    let authority_key = key();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(dir.join("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    for (stem, name, usage) in
        [("server-", "127.0.0.1", rcgen::ExtendedKeyUsagePurpose::ServerAuth), ("", "client", rcgen::ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let key = key();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        fs::write(dir.join(format!("{stem}cert.pem")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(dir.join(format!("{stem}key.pem")), key.serialize_pem()).unwrap();
    }
}

#[test]
fn docker_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("tcp://127.0.0.1:{port}");
    let (ca, cert, key) = (at("ca.pem"), at("server-cert.pem"), at("server-key.pem"));
    let args = ["-H", &host, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    let daemon = match Dockerd::start_with(&args) {
        Ok(daemon) => daemon,
        Err(why) => return skipped("engines: docker over TLS", &why),
    };
    let ctx = context(dir.path());
    let settings =
        DockerSettings { host: Some(host.clone()), tls_verify: true, cert_path: Some(dir.path().to_owned()), ..Default::default() };
    // A context says the same.
    let id = Digest::of(b"far").hex();
    let (meta, tls) = (dir.path().join("contexts/meta").join(&id), dir.path().join("contexts/tls").join(&id).join("docker"));
    fs::create_dir_all(&meta).unwrap();
    fs::create_dir_all(&tls).unwrap();
    fs::write(meta.join("meta.json"), format!(r#"{{"Name":"far","Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#)).unwrap();
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(dir.path().join(name), tls.join(name)).unwrap();
    }
    let context = DockerSettings { context: Some("far".into()), config: Some(dir.path().to_owned()), ..Default::default() };
    for settings in [&settings, &context] {
        daemon.clear();
        let engine = docker(settings, &ctx.cancel).unwrap();
        into(&engine, file(&fixture("kitchen.tar")).as_ref(), &ctx).unwrap();
        saved(&engine, &engine.names().unwrap()[0], dir.path(), &ctx);
        assert_eq!(facts(&dir.path().join("saved.tar")).essence(), facts(&fixture("kitchen.tar")).essence());
    }
    // Without a certificate of ours, and in clear.
    fs::remove_file(dir.path().join("key.pem")).unwrap();
    let error = docker(&settings, &ctx.cancel).unwrap().ping().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.hint_text().unwrap().contains("DOCKER_CERT_PATH"), "{error:?}");
    let clear = DockerSettings { tls_verify: false, cert_path: None, ..settings };
    assert!(docker(&clear, &ctx.cancel).unwrap().ping().is_err());
}

/// podman's service on a socket. It ends when this is dropped.
struct Service(Child);

impl Service {
    fn start(podman: &Podman) -> (Self, std::path::PathBuf) {
        let socket = podman.folder().join("socket");
        let mut command = podman.command(&["system", "service", "--time=0", &format!("unix://{}", socket.display())]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < Duration::from_secs(30), "podman's service does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        (Self(child), socket)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn podman_by_service_and_program() {
    let podman = match Podman::find() {
        Ok(podman) => podman,
        Err(why) => return skipped("engines: podman", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let ctx = context(dir.path());
    let kitchen = fixture("kitchen.tar");
    let id = facts(&kitchen).images.keys().next().unwrap().clone();
    let program = Program::podman(podman.program().to_owned(), podman.options());
    through(&program, file(&kitchen).as_ref(), &ctx).unwrap();
    let name = "localhost/kitchen:1".to_owned();
    assert_eq!(podman.id(&name), id);
    podman.clear();
    let error = through(&program, &half(dir.path(), || Err(longshore::Error::mismatch("the wrong bytes"))), &ctx).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    assert_eq!(podman.ok(&["images", "--all", "--quiet"]), "");

    let (_service, socket) = Service::start(&podman);
    let engine = Engine::podman(socket, &ctx.cancel);
    engine.ping().unwrap();
    into(&engine, file(&kitchen).as_ref(), &ctx).unwrap();
    assert_eq!(podman.id(&name), id);
    for wanted in [name.as_str(), name.trim_start_matches("localhost/"), &id] {
        saved(&engine, wanted, dir.path(), &ctx);
        assert_eq!(facts(&dir.path().join("saved.tar")).essence(), facts(&kitchen).essence(), "{wanted}");
    }
    let error = from(&engine, "kitchn:7", &ctx).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    podman.clear();
    let error = into(&engine, &half(dir.path(), || Err(longshore::Error::mismatch("the wrong bytes"))), &ctx).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(podman.ok(&["images", "--all", "--quiet"]), "");
}

/// Engines of which none is there: all their places are below `dir`.
fn nowhere(dir: &Path) -> Engines {
    let at = |name: &str| dir.join(name);
    Engines {
        docker: at_socket_of_nobody(dir),
        docker_storage: DockerStorage { root: at("no-docker"), containerd: None },
        containers_storage: ContainersStorage { graph_root: at("no-podman"), driver: None, image_stores: Vec::new(), run_root: None },
        containerd: ContainerdStore { root: at("no-containerd"), namespace: "default".to_owned() },
        ..Engines::default()
    }
}

fn at_socket_of_nobody(dir: &Path) -> DockerSettings {
    at(&dir.join("no-docker.sock"))
}

/// Where a name is found, or the hint why it is not.
fn place(name: &str, engines: &Engines, ctx: &Context) -> Result<String, longshore::Error> {
    let access = Access { engines: Arc::new(engines.clone()), ..Access::default() };
    let found = find(name, &access, ctx)?;
    // What is found can be read.
    open(&found.location, &OpenOptions { access, ..OpenOptions::default() }, ctx)?;
    Ok(found.place)
}

#[test]
fn a_name_alone_is_looked_for_in_order() {
    let (mut daemon, podman, containerd) = match (Dockerd::start(), Podman::find(), Containerd::start()) {
        (Ok(daemon), Ok(podman), Ok(containerd)) => (daemon, podman, containerd),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return skipped("engines: a name alone", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let ctx = context(dir.path());
    let archive = fixture("from/docker20-one.tar");
    daemon.load(&archive);
    podman.load(&archive);
    podman.ok(&["tag", "localhost/kitchen:1", "docker.io/library/kitchen:1"]);
    containerd.ok(&["images", "import", "--no-unpack", fixture("from/docker29-one.tar").to_str().unwrap()]);
    let none = nowhere(dir.path());
    let all = Engines {
        docker: at(&daemon.socket()),
        docker_storage: DockerStorage { root: daemon.data(), containerd: None },
        containers_storage: ContainersStorage { graph_root: podman.root(), ..none.containers_storage.clone() },
        containerd: ContainerdStore { root: containerd.root(), namespace: "default".to_owned() },
        ..none.clone()
    };
    let is_in = |engines: &Engines, place: &str, at: &Path| {
        for name in ["kitchen:1", "docker.io/library/kitchen:1"] {
            let (found, at) = (self::place(name, engines, &ctx), at.display().to_string());
            assert!(found.as_ref().is_ok_and(|found| found.starts_with(place) && found.contains(&at)), "{name} {place}: {found:?}");
        }
    };
    is_in(&all, "docker (", &daemon.socket());
    daemon.kill();
    is_in(&all, "docker-storage (", &daemon.data());
    let rest = Engines { docker_storage: none.docker_storage.clone(), ..all.clone() };
    // Docker's words are wrong: the others are asked all the same.
    let wrong = Engines { docker: DockerSettings { host: Some("ssh://x".to_owned()), ..DockerSettings::default() }, ..rest.clone() };
    for engines in [rest, wrong] {
        is_in(&engines, "containers-storage (", &podman.root());
        let rest = Engines { containers_storage: none.containers_storage.clone(), ..engines };
        is_in(&rest, "containerd (", &containerd.root());
    }
    podman.clear();
    is_in(&Engines { docker_storage: none.docker_storage, ..all }, "containerd (", &containerd.root());
}

#[test]
fn a_docker_that_cannot_be_asked_does_not_end_the_search() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = context(dir.path());
    let none = nowhere(dir.path());
    let at_host = |host: &str| DockerSettings { host: Some(host.to_owned()), ..DockerSettings::default() };
    let of_context = DockerSettings { context: Some("far".to_owned()), config: Some(dir.path().to_owned()), ..DockerSettings::default() };
    for (docker, says) in [
        (at_host("ssh://x"), "looked in docker, which cannot be asked: DOCKER_HOST: ssh://x would go through ssh"),
        (of_context, "looked in docker, which cannot be asked: docker's context far: there is no such context"),
        (at_socket_of_nobody(dir.path()), "looked in docker, which cannot be asked: "),
    ] {
        let engines = Engines { docker, ..none.clone() };
        let error = place("kitchen:1", &engines, &ctx).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "there is no image kitchen:1"));
        assert!(error.hint_text().is_some_and(|hint| hint.starts_with(says)), "{error:?}");
    }
    ctx.cancel.cancel();
    assert_eq!(place("kitchen:1", &none, &ctx).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn containerd_by_ctr() {
    let containerd = match Containerd::start() {
        Ok(containerd) => containerd,
        Err(why) => return skipped("engines: containerd", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let ctx = context(dir.path());
    let address = ["--address".into(), containerd.socket().into()];
    let program = Program::containerd(containerd.ctr().to_owned(), address, "kitchens");
    through(&program, file(&fixture("kitchen.tar")).as_ref(), &ctx).unwrap();
    let listed = || containerd.ok(&["--namespace", "kitchens", "images", "list", "--quiet"]);
    assert_eq!(listed().lines().collect::<Vec<_>>(), ["docker.io/library/kitchen:1", "example.com/team/kitchen:latest"]);
    let name = "docker.io/library/kitchen:1";
    let out = dir.path().join("out.tar");
    containerd.ok(&["--namespace", "kitchens", "images", "export", out.to_str().unwrap(), name]);
    assert_eq!(facts(&out).essence(), facts(&fixture("kitchen.tar")).essence());
    containerd.ok(&["--namespace", "kitchens", "images", "remove", name, "example.com/team/kitchen:latest"]);
    let error = through(&program, &half(dir.path(), || Err(longshore::Error::mismatch("the wrong bytes"))), &ctx).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    assert_eq!(listed(), "");
    let nobody =
        Program::containerd(containerd.ctr().to_owned(), ["--address".into(), "/nowhere".into(), "--timeout".into(), "1s".into()], "x");
    let error = through(&nobody, file(&fixture("kitchen.tar")).as_ref(), &ctx).unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("/nowhere"), "{error}");
}

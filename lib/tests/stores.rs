//! Stores that real engines have made are read without asking the engines: docker, podman and containerd, each with data of its own.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore::catalog::{BlobId, Content, Wanted};
use longshore::context::{Cancel, Context};
use longshore::format::WriteOptions;
use longshore::location::{Access, Location, OpenOptions, create};
use longshore::plan::{Compress, ConvertOptions, convert};
use longshore::source::Source;
use longshore::stores::{
    Containerd as ContainerdStore, ContainersStorage, DockerStorage, containerd_names, containers_storage_names, docker_storage_names,
    open_containerd, open_containers_storage, open_docker_storage,
};
use longshore::tree::Opening;
use longshore::{ErrorKind, Result};
use longshore_testkit::facts::{Packing, facts};
use longshore_testkit::images::{Image, Layer, Layout, docker_archive};
use longshore_testkit::peers::{Containerd, Dockerd, Podman, Tool, find, skipped};
use longshore_testkit::tar::{Member, write};
use longshore_testkit::{digest, fixture};

fn opening<'a>(ctx: &'a Context, wanted: &'a Wanted) -> Opening<'a> {
    Opening { pick: None, wanted, referrers: false, missing_layers: false, keep_going: false, ctx }
}

fn context() -> Context {
    Context::new(2, std::env::temp_dir())
}

/// Where images are.
#[derive(Debug)]
enum Store {
    Docker(DockerStorage),
    Podman(ContainersStorage),
    Containerd(ContainerdStore),
}

impl Store {
    fn open_by(&self, reference: Option<&str>, ctx: &Context) -> Result<Arc<dyn Source>> {
        let wanted = Wanted::All;
        let opening = opening(ctx, &wanted);
        match self {
            Self::Docker(store) => open_docker_storage(store, reference, &opening),
            Self::Podman(store) => open_containers_storage(store, reference, &opening),
            Self::Containerd(store) => open_containerd(store, reference, &opening),
        }
    }

    #[track_caller]
    fn open(&self, reference: &str) -> Arc<dyn Source> {
        self.open_by(Some(reference).filter(|reference| !reference.is_empty()), &context())
            .unwrap_or_else(|error| panic!("{reference}: {error}"))
    }

    fn refused(&self, reference: &str) -> longshore::Error {
        self.open_by(Some(reference), &context()).map(drop).unwrap_err()
    }

    fn names(&self) -> Vec<String> {
        let ctx = context();
        let mut names = match self {
            Self::Docker(store) => docker_storage_names(store, &ctx),
            Self::Podman(store) => containers_storage_names(store, &ctx),
            Self::Containerd(store) => containerd_names(store, &ctx),
        }
        .unwrap_or_else(|error| panic!("{error}"));
        names.sort();
        names
    }
}

/// Reads every blob of a source, and holds it to what is stated; also from places within.
#[track_caller]
fn verify(source: &dyn Source) {
    for (at, blob) in source.catalog().blobs.iter().enumerate() {
        let read = |from: u64| {
            let mut bytes = Vec::new();
            source.open(BlobId(at), from).unwrap().read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{}: {error}", blob.place));
            bytes
        };
        let whole = read(0);
        assert_eq!(blob.known.size, Some(whole.len() as u64), "{}", blob.place);
        assert_eq!(blob.known.digest.unwrap().to_string(), digest(&whole), "{}", blob.place);
        for from in [1, 511, 512, 1300, whole.len() / 2, whole.len(), whole.len() + 1] {
            assert!(read(from as u64) == whole.get(from..).unwrap_or_default(), "{} from {from}", blob.place);
        }
    }
}

/// Copies a source, and checks what was written by reading it anew.
fn copy(source: &dyn Source, to: &Path, format: &str, options: &ConvertOptions) -> longshore_testkit::facts::Facts {
    let _ = fs::remove_dir_all(to);
    let _ = fs::remove_file(to);
    let (ctx, write) = (context(), WriteOptions::default());
    let to = Location::parse_destination(&format!("{format}:{}", to.display())).unwrap();
    let plan = convert(source.catalog(), &to.accepts(&write).unwrap(), options).unwrap();
    longshore::run::run(&plan, source, create(&to, &write, true, &Access::default(), &ctx).unwrap(), &ctx)
        .unwrap_or_else(|error| panic!("{error}"));
    facts(to.path().unwrap())
}

/// What is known of files by their paths: mode, number, size, time of the last change, links.
type Snapshot = BTreeMap<PathBuf, (u32, u64, u64, i64, i64, u64)>;

/// Everything below a folder but times of access: nothing may change.
fn snapshot(root: &Path) -> Snapshot {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.insert(path, (meta.mode(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec(), meta.nlink()));
    }
    all
}

/// The same once the engine itself has finished: containerd collects garbage a little later.
fn settled(root: &Path) -> Snapshot {
    loop {
        let before = snapshot(root);
        std::thread::sleep(Duration::from_secs(1));
        if snapshot(root) == before {
            return before;
        }
    }
}

/// Names what has changed since, if anything has.
#[track_caller]
fn assert_unchanged(before: &Snapshot, root: &Path) {
    let after = snapshot(root);
    let changed: Vec<_> = before.iter().filter(|(path, about)| after.get(*path) != Some(about)).map(|(path, _)| path).collect();
    let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(changed.is_empty() && new.is_empty(), "changed: {changed:?}, new: {new:?}");
}

/// Layers with all that is odd, in one image.
fn odd() -> Image {
    let mut pax = Member::file("opt/pax", "with records");
    pax.about.xattrs.insert(b"user.a".to_vec(), b"b".to_vec());
    pax.about.mtime = (1_700_000_000, 123_456_789);
    let mut setuid = Member::file("opt/setuid", "x");
    setuid.about.mode = 0o4755;
    let mut closed = Member::file("opt/closed", "nobody may read this");
    closed.about.mode = 0;
    let mut owned = Member::file("opt/owned", "by another");
    (owned.about.uid, owned.about.gid) = (1234, 5678);
    let mut device = Member::other(b'3', "opt/null", "");
    device.device = (1, 3);
    let first = vec![
        Member::dir("opt/"),
        pax,
        setuid,
        closed,
        owned,
        device,
        Member::other(b'6', "opt/pipe", ""),
        Member::file("opt/one", vec![b'1'; 1000]),
        Member::other(b'1', "opt/hard", "opt/one"),
        Member::other(b'2', "opt/soft", "one"),
        Member::other(b'2', "opt/absolute", "/opt/one"),
        Member::file(b"opt/\xff\xfe".to_vec(), "not UTF-8"),
        Member::file("opt/\"quoted\"\n<&>\\", "quoted"),
        Member::file("opt/".to_owned() + &"long".repeat(40), "long"),
        Member::file("opt/".to_owned() + &"deep/".repeat(60) + "name", "deep"),
        Member::file("./opt/./dotted", "dotted"),
        Member::file("/opt/slashed", "slashed"),
        Member::file("opt/empty", ""),
        Member::dir("usr/"),
        Member::dir("usr/lib/"),
        Member::other(b'2', "lib", "usr/lib"),
        Member::other(b'2', "usr/absolute", "/usr/lib"),
        Member::file("lib/below", "below a link"),
        Member::file("usr/absolute/below2", "below an absolute link"),
    ];
    let second = vec![
        Member::file("opt/.wh.one", ""),
        Member::dir("opt/deep/"),
        Member::file("opt/deep/.wh..wh..opq", ""),
        Member::file("opt/deep/new", "new"),
        Member::file("opt/large", longshore_testkit::noise(3_000_000, 7)),
    ];
    let mut padded = write(&[Member::file("padded", "p")]);
    padded.resize(padded.len() + 10_240, 0);
    let mut bare = write(&[Member::file("bare", "b")]);
    bare.truncate(bare.len() - 1024);
    let again = Layer::new("again/\nagain/one=1");
    Image::new("odd:1")
        .with(Layer::of_tar(write(&first)))
        .with(again.clone())
        .with(Layer::of_tar(write(&second)))
        .with(Layer::of_tar(write(&[])))
        .with(again)
        .with(Layer::of_tar(padded))
        .with(Layer::of_tar(bare))
        .with(Layer::new("again/.wh.one="))
}

fn put(dir: &Path, image: &Image) -> PathBuf {
    let path = dir.join("odd.tar");
    fs::write(&path, docker_archive(std::slice::from_ref(image)).bytes()).unwrap();
    path
}

#[test]
fn dockers_store() {
    for driver in ["overlay2", "vfs"] {
        let engine = match Dockerd::start_with(&["--storage-driver", driver]) {
            Ok(engine) => engine,
            Err(why) => return skipped("stores: docker", &why),
        };
        let dir = tempfile::tempdir().unwrap();
        let archives = [fixture("from/docker20-three-names.tar"), fixture("from/docker20-one.tar"), put(dir.path(), &odd())];
        archives.iter().for_each(|archive| drop(engine.load(archive)));
        let store = Store::Docker(DockerStorage { root: engine.data(), containerd: None });
        let before = settled(&engine.data());

        let all = store.open("");
        verify(all.as_ref());
        assert_eq!(all.catalog().images.len(), 3, "{driver}");
        let mut loaded: Vec<_> = archives.iter().flat_map(|archive| facts(archive).essence()).collect();
        loaded.sort();
        loaded.dedup();
        for format in ["docker-archive", "oci"] {
            let written = copy(all.as_ref(), &dir.path().join("out"), format, &ConvertOptions::default());
            assert!(written.essence().into_iter().eq(loaded.iter().cloned()), "{driver} {format}");
        }
        let mut shown: Vec<_> = engine.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().map(str::to_owned).collect();
        shown.sort();
        assert_eq!(store.names(), shown);
        let id = engine.id("odd:1");
        for reference in ["odd:1", "docker.io/library/odd:1", &id, id.trim_start_matches("sha256:"), &id[7..19], &format!("@{id}")] {
            let source = store.open(reference);
            assert_eq!(source.catalog().images.len(), 1);
            assert_eq!((source.catalog().images[0].id().to_string(), source.catalog().roots.len()), (id.clone(), 1), "{reference}");
            assert_eq!(source.catalog().roots[0].to_string(), "odd:1");
        }
        let error = store.refused("od:1");
        assert!(error.kind() == ErrorKind::NotFound && error.hint_text().unwrap().contains("did you mean odd:1?"), "{error}");
        assert_unchanged(&before, &engine.data());
        removed_meanwhile(&store, &engine.data().join(driver), &id);
    }
}

/// A layer's folder is removed, as an engine does, while a source is open: an error that says which file is missing.
fn removed_meanwhile(store: &Store, folders: &Path, id: &str) {
    let source = store.open(id);
    let large = source.catalog().images[0].layers[2].blob.unwrap();
    let mut reader = source.open(large, 0).unwrap();
    let mut buf = vec![0; 1000];
    reader.read_exact(&mut buf).unwrap();
    let found = Command::new("find").arg(folders).args(["-path", "*/opt/large"]).output().unwrap();
    for path in found.stdout.split(|byte| *byte == b'\n').filter(|path| !path.is_empty()) {
        fs::remove_file(std::ffi::OsStr::from_bytes(path)).unwrap();
    }
    // Docker renames it first, podman removes file by file.
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("file `opt/large`: it is missing: the layer is being deleted or was changed"), "{error}");
    let to = tempfile::tempdir().unwrap();
    let (ctx, write) = (context(), WriteOptions::default());
    let to = Location::parse_destination(&format!("docker-archive:{}/out.tar", to.path().display())).unwrap();
    let plan = convert(source.catalog(), &to.accepts(&write).unwrap(), &ConvertOptions::default()).unwrap();
    let error = longshore::run::run(&plan, source.as_ref(), create(&to, &write, true, &Access::default(), &ctx).unwrap(), &ctx)
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("opt/large"), "{error}");
    assert!(!to.path().unwrap().exists());
}

#[test]
fn dockers_steps_are_no_images_of_their_own() {
    let engine = match Dockerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped("stores: docker's steps", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /one\nCOPY Dockerfile /two\nENV A=1\n").unwrap();
    let mut build = engine.command(&["build", "-t", "built:1", dir.path().to_str().unwrap()]);
    build.env("DOCKER_BUILDKIT", "0");
    assert!(build.output().unwrap().status.success());
    let store = Store::Docker(DockerStorage { root: engine.data(), containerd: None });
    assert!(fs::read_dir(engine.data().join("image/overlay2/imagedb/content/sha256")).unwrap().count() > 1);
    let all = store.open("");
    assert_eq!(all.catalog().roots.iter().map(ToString::to_string).collect::<Vec<_>>(), ["built:1"]);
    verify(all.as_ref());
    // Without its name it is still there; what it is made of is found by its ID.
    let parent = engine.ok(&["image", "inspect", "--format", "{{.Parent}}", "built:1"]);
    assert_eq!(store.open(parent.trim()).catalog().roots[0].name, None);
    let id = engine.id("built:1");
    engine.ok(&["tag", "built:1", "other:1"]);
    engine.ok(&["rmi", "--no-prune", "built:1"]);
    assert_eq!(store.open(&id).catalog().roots[0].to_string(), "other:1");
    let nothing = Store::Docker(DockerStorage { root: dir.path().to_owned(), containerd: None });
    assert_eq!(nothing.refused("a").kind(), ErrorKind::NotFound);
}

/// An image in an OCI layout, with compressed layers and annotations, as a registry would have it.
fn pulled(dir: &Path) -> Image {
    let packed = |text: &str, packing| Layer::new(text).packed(packing);
    let image = Image::new("pulled:1").with(packed("a=1", Packing::Gzip)).with(packed("b=2", Packing::Gzip)).annotate("team", "kitchen");
    Layout::of(std::slice::from_ref(&image)).archive().write_dir(&dir.join("layout"));
    image
}

#[test]
fn podmans_store() {
    for driver in ["overlay", "vfs"] {
        let podman = match Podman::with_driver(driver) {
            Ok(podman) => podman,
            Err(why) => return skipped("stores: podman", &why),
        };
        // podman takes the folder of a layout for a name, and names have lower case.
        let dir = tempfile::Builder::new().prefix(&format!("stores-{}-{driver}", std::process::id())).rand_bytes(0).tempdir().unwrap();
        let archives = [fixture("from/docker20-three-names.tar"), fixture("from/docker20-one.tar"), put(dir.path(), &odd())];
        archives.iter().for_each(|archive| drop(podman.load(archive)));
        fs::write(dir.path().join("Containerfile"), "FROM localhost/odd:1\nCOPY Containerfile /opt/\nLABEL a=b\n").unwrap();
        podman.ok(&["build", "--annotation", "made=here", "-t", "built:1", "-f", "Containerfile", dir.path().to_str().unwrap()]);
        let image = pulled(dir.path());
        podman.ok(&["pull", &format!("oci:{}", dir.path().join("layout").display())]);
        let (built, pulled) = (podman.id("built:1"), image.id());
        podman.ok(&["tag", pulled.trim_start_matches("sha256:"), "example.com/pulled:1"]);
        let folder = ContainersStorage { graph_root: podman.root(), driver: None, image_stores: Vec::new(), run_root: None };
        let store = Store::Podman(folder.clone());
        let mut shown: Vec<_> = podman.ok(&["images", "--quiet", "--no-trunc"]).lines().map(str::to_owned).collect();
        shown.sort();
        shown.dedup();
        let mut names: Vec<_> = podman.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().map(str::to_owned).collect();
        names.retain(|name| !name.contains("<none>"));
        names.sort();
        let id = podman.id("odd:1");
        let manifest = podman.ok(&["image", "inspect", "--format", "{{.Digest}}", "odd:1"]);
        let before = snapshot(&podman.root());

        let all = store.open("");
        verify(all.as_ref());
        let mut ids: Vec<_> = all.catalog().images.iter().map(|image| image.id().to_string()).collect();
        ids.sort();
        assert_eq!(ids, shown, "{driver}");
        for (format, compress) in [("docker-archive", None), ("oci", None), ("oci", Some(Compress::None)), ("oci-archive", None)] {
            let options = ConvertOptions { compress, ..ConvertOptions::default() };
            let written = copy(all.as_ref(), &dir.path().join("out"), format, &options);
            for archive in &archives {
                for (id, essence) in facts(archive).essence() {
                    assert!(written.essence()[&id] == essence, "{driver} {format} {id}");
                }
            }
            if format == "oci" {
                // Annotations survive, and the built image's manifest where its layers stay as they are.
                let manifest = |id: &str| written.images[id].manifest.clone().unwrap();
                assert!(String::from_utf8_lossy(&manifest(&built)).contains("\"made\":\"here\""));
                assert!(String::from_utf8_lossy(&manifest(&pulled)).contains("\"team\":\"kitchen\""));
                let before = all.catalog().images.iter().find(|image| image.id().to_string() == built).unwrap();
                assert_eq!(before.manifest.as_ref().unwrap().1.bytes() == manifest(&built), compress == Some(Compress::None));
            }
        }
        assert_eq!(store.names(), names.iter().map(|name| name.trim_start_matches("docker.io/library/")).collect::<Vec<_>>());
        let by_digest = format!("localhost/odd@{}", manifest.trim());
        for reference in
            ["odd:1", "localhost/odd:1", &id, &id[7..19], manifest.trim(), &by_digest, &format!("localhost/odd:1@{}", &id[7..])]
        {
            let source = store.open(reference);
            assert_eq!(source.catalog().images.len(), 1);
            assert_eq!(source.catalog().images[0].id().to_string(), id, "{reference}");
        }
        assert_eq!(store.open("pulled:1").catalog().roots[0].to_string(), "example.com/pulled:1");
        // The same as a further store of another one, which is empty.
        let further =
            ContainersStorage { graph_root: dir.path().join("none"), driver: None, image_stores: vec![podman.root()], run_root: None };
        assert_eq!(Store::Podman(further).names(), store.names());
        let other = ContainersStorage { driver: Some("btrfs".to_owned()), ..folder.clone() };
        assert_eq!(Store::Podman(other).refused("odd:1").kind(), ErrorKind::Unsupported);
        let nothing = ContainersStorage { graph_root: dir.path().to_owned(), ..folder };
        assert_eq!(Store::Podman(nothing).refused("odd:1").kind(), ErrorKind::NotFound);
        assert_unchanged(&before, &podman.root());

        // A list of manifests leads to images of their own; among all images it is left out.
        podman.ok(&["manifest", "create", "listed:1"]);
        podman.ok(&["manifest", "add", "listed:1", "containers-storage:localhost/odd:1"]);
        let listed = store.open("listed:1");
        assert_eq!(listed.catalog().images.iter().map(|image| image.id().to_string()).collect::<Vec<_>>(), [id.as_str()]);
        verify(listed.as_ref());
        let written = copy(listed.as_ref(), &dir.path().join("listed"), "oci", &ConvertOptions::default());
        assert_eq!(written.essence()[&id], facts(&archives[2]).essence()[&id]);
        assert_eq!(store.open("").catalog().warnings.len(), 1);
        removed_meanwhile(&store, &podman.root().join(driver), &id);
    }
}

#[test]
fn podmans_locks_are_waited_for() {
    let podman = match Podman::with_driver("vfs") {
        Ok(podman) => podman,
        Err(why) => return skipped("stores: podman's locks", &why),
    };
    let Some(python) = find("python3") else { return skipped("stores: podman's locks", "python3 is not installed") };
    podman.load(&fixture("from/docker20-one.tar"));
    let folder = ContainersStorage { graph_root: podman.root(), driver: None, image_stores: Vec::new(), run_root: None };
    let store = Store::Podman(folder);
    // As containers/storage locks to write: fcntl, exclusive, the whole file.
    let script =
        "import fcntl,sys,time\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('locked',flush=True)\ntime.sleep(60)";
    for lock in ["vfs-images/images.lock", "vfs-layers/layers.lock"] {
        let mut holder = Command::new(&python).args(["-c", script]).arg(podman.root().join(lock)).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 6];
        holder.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let ctx = Context { cancel: Cancel::default(), ..context() };
        std::thread::scope(|scope| {
            let start = Instant::now();
            let cancel = ctx.cancel.clone();
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(400));
                cancel.cancel();
            });
            assert_eq!(store.open_by(None, &ctx).map(drop).unwrap_err().kind(), ErrorKind::Cancelled, "{lock}");
            assert!(start.elapsed() >= Duration::from_millis(350) && start.elapsed() < Duration::from_secs(20), "{lock}");
        });
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.open_by(None, &context()).map(drop));
            std::thread::sleep(Duration::from_millis(300));
            assert!(!waiting.is_finished(), "{lock} was not waited for");
            holder.kill().unwrap();
            holder.wait().unwrap();
            waiting.join().unwrap().unwrap();
        });
    }
}

#[test]
fn containerds_store() {
    let engine = match Containerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped("stores: containerd", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let docker = fixture("from/docker29-one.tar");
    engine.ok(&["images", "import", docker.to_str().unwrap()]);
    let packed = |text: &str, packing| Layer::new(text).packed(packing);
    let mut multi = Layout::new();
    let here = multi.image(&Image::new("").with(packed("a=1", Packing::Gzip)).with(packed("b=1", Packing::Zstd)));
    let there = multi.image(&Image::new("").platform("linux/arm64").with(packed("a=2", Packing::Gzip)));
    let index = multi.index(&[here, there.clone()]);
    let mut whole = multi;
    whole.root(index, Some("example.com/multi:1"));
    let archive = dir.path().join("multi.tar");
    fs::write(&archive, whole.archive().bytes()).unwrap();
    engine.ok(&["images", "import", "--all-platforms", "--no-unpack", archive.to_str().unwrap()]);
    engine.ok(&["--namespace", "moby", "images", "import", "--all-platforms", "--no-unpack", archive.to_str().unwrap()]);
    engine.ok(&["images", "tag", "example.com/multi:1", "example.com/other/multi:2"]);
    let store = Store::Containerd(ContainerdStore { root: engine.root(), namespace: "default".to_owned() });
    let before = settled(&engine.root());

    let all = store.open("");
    verify(all.as_ref());
    assert!(all.catalog().blobs.iter().enumerate().all(|(at, _)| all.file(BlobId(at)).is_some()));
    let names = ["example.com/multi:1", "example.com/other/multi:2", "kitchen:1"];
    assert_eq!(store.names(), names);
    let written = copy(store.open("kitchen:1").as_ref(), &dir.path().join("out"), "docker-archive", &ConvertOptions::default());
    assert!(written.essence() == facts(&docker).essence());
    let written = copy(store.open("other/multi:2").as_ref(), &dir.path().join("out"), "oci", &ConvertOptions::default());
    assert_eq!((&written.roots, written.images.len()), (&facts(&archive).roots, 2));
    let id = all.catalog().images[0].id().to_string();
    assert_eq!(store.open(&id).catalog().images[0].id().to_string(), id, "by the ID of its config");
    let error = store.refused("kichen:1");
    assert!(error.hint_text().unwrap().contains("did you mean kitchen:1?"), "{error}");
    let other = Store::Containerd(ContainerdStore { root: engine.root(), namespace: "k8s.io".to_owned() });
    let error = other.refused("a:1");
    assert!(error.kind() == ErrorKind::NotFound && error.hint_text().unwrap().contains("default, moby"), "{error}");
    // A Docker that keeps its images in containerd.
    let docker = Store::Docker(DockerStorage { root: dir.path().join("none"), containerd: Some(engine.root()) });
    assert_eq!(docker.names(), ["example.com/multi:1"]);
    assert_eq!(docker.open("multi:1").catalog().images.len(), 2);
    assert_eq!(docker.open("").catalog().images.len(), 2);
    assert_eq!(docker.refused("kitchen:1").kind(), ErrorKind::NotFound);
    assert_unchanged(&before, &engine.root());

    // Of the other platform, nothing but the manifest is there.
    let blobs = engine.root().join("io.containerd.content.v1.content/blobs");
    let layer = all.catalog().images.iter().find(|image| image.platform().architecture == "arm64").unwrap();
    fs::remove_file(blobs.join(layer.layers[0].descriptor.as_ref().unwrap().digest.to_string().replace(':', "/"))).unwrap();
    let sparse = store.open("other/multi:2");
    let Content::Index { nodes, .. } = &sparse.catalog().roots[0].node.content else { panic!("an index") };
    assert!(matches!(nodes[1].content, Content::Unread) && matches!(nodes[0].content, Content::Image(_)));
}

#[test]
fn dockers_own_containerd() {
    let dir = tempfile::tempdir().unwrap();
    // Where Docker 29 has its containerd keep images.
    let engine = match Containerd::start_at(Some(dir.path().join("containerd/daemon"))) {
        Ok(engine) => engine,
        Err(why) => return skipped("stores: docker's own containerd", &why),
    };
    // As it is pulled: compressed.
    let archive = dir.path().join("kitchen.tar");
    let packed = |text: &str| Layer::new(text).packed(Packing::Gzip);
    let image = Image::new("docker.io/library/kitchen:1").with(packed("a=1")).with(packed("b=2")).annotate("team", "kitchen");
    fs::write(&archive, Layout::of(std::slice::from_ref(&image)).archive().bytes()).unwrap();
    engine.ok(&["--namespace", "moby", "images", "import", "--no-unpack", archive.to_str().unwrap()]);
    engine.ok(&["--namespace", "moby", "images", "tag", "docker.io/library/kitchen:1", "example.com/team/kitchen:2"]);
    let (storage, _) =
        DockerStorage::parse(&format!("[{}]", dir.path().display()), &DockerStorage { root: "/none".into(), containerd: None }).unwrap();
    assert_eq!(Store::Docker(storage).names(), ["example.com/team/kitchen:2", "kitchen:1"]);
    let saved = || {
        for (name, called) in [("kitchen:1", "docker.io/library/kitchen:1"), ("team/kitchen:2", "example.com/team/kitchen:2")] {
            let from = Location::parse_source(&format!("docker-storage:[{}]{name}", dir.path().display())).unwrap();
            let source = longshore::location::open(&from, &OpenOptions::default(), &context()).unwrap_or_else(|error| panic!("{error}"));
            verify(source.as_ref());
            let written = copy(source.as_ref(), &dir.path().join("out"), "oci", &ConvertOptions::default());
            let was = facts(&archive);
            // The manifest names the layers as they are stored.
            assert_eq!((&written.roots, written.only()), (&was.roots, &named(was.only(), called)), "{name}");
        }
    };
    let before = settled(&engine.root());
    saved();
    assert_unchanged(&before, &engine.root());
    // Nor does it matter whether it runs.
    drop(engine);
    saved();
}

/// The same image under another name alone.
fn named(image: &longshore_testkit::facts::Image, name: &str) -> longshore_testkit::facts::Image {
    longshore_testkit::facts::Image { names: [name.to_owned()].into(), ..image.clone() }
}

#[test]
fn containerds_names_while_they_change() {
    let engine = match Containerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped("stores: containerd's names", &why),
    };
    engine.ok(&["images", "import", "--no-unpack", fixture("from/docker29-one.tar").to_str().unwrap()]);
    let store = Store::Containerd(ContainerdStore { root: engine.root(), namespace: "default".to_owned() });
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..60 {
                engine.ok(&["images", "tag", "docker.io/library/kitchen:1", &format!("docker.io/library/kitchen:tag-{at:02}")]);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut seen = 1;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let names = store.names();
            assert!(names.len() >= seen && names[0] == "kitchen:1", "{names:?}");
            // They come one by one, each is there from then on, and none is half there.
            assert!(names[1..].iter().enumerate().all(|(at, name)| *name == format!("kitchen:tag-{at:02}")), "{names:?}");
            seen = names.len();
        }
    });
    assert_eq!(store.names().len(), 61);
}

#[test]
fn skopeo_reads_the_same() {
    let (podman, skopeo) = match (Podman::with_driver("overlay"), Tool::skopeo()) {
        (Ok(podman), Ok(skopeo)) => (podman, skopeo),
        (Err(why), _) | (_, Err(why)) => return skipped("stores: skopeo", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    podman.load(&fixture("from/docker20-one.tar"));
    let run = podman.root().parent().unwrap().join("run");
    let image = format!("containers-storage:[overlay@{}+{}]localhost/kitchen:1", podman.root().display(), run.display());
    skopeo.ok(&["copy", &image, &format!("docker-archive:{}:kitchen:1", dir.path().join("theirs.tar").display())]);
    let default = ContainersStorage { graph_root: "/nowhere".into(), driver: None, image_stores: Vec::new(), run_root: None };
    let (storage, reference) = ContainersStorage::parse(image.strip_prefix("containers-storage:").unwrap(), &default).unwrap();
    let source = Store::Podman(storage).open(&reference.unwrap());
    let ours = copy(source.as_ref(), &dir.path().join("out"), "docker-archive", &ConvertOptions::default());
    assert_eq!(ours.only().diff_ids, facts(&dir.path().join("theirs.tar")).only().diff_ids);
}

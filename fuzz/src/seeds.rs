//! Inputs to start from: the archives that real tools wrote, taken apart, and small ones that testkit builds.

use std::path::Path;

use longshore_testkit::facts::{Packing, unpack};
use longshore_testkit::images::{Image, Layer, Layout, docker_archive, pack};
use longshore_testkit::stores::{Bolt, bucket, bytes, tar_split};
use longshore_testkit::{fixtures, tar, tree};

/// Kinds of seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seeds {
    /// Whole image archives.
    Archives,
    /// Compressed streams of every kind.
    Compressed,
    /// bbolt databases.
    Databases,
    /// `dir:` folders, in pieces.
    Dirs,
    /// `google-dir:` folders, as archives of their files.
    GoogleDirs,
    /// JSON documents: manifests, indexes, configs.
    Json,
    /// Tars of layers.
    Layers,
    /// OCI layouts, in pieces.
    Layouts,
    /// Where an image is: format, path and REF.
    Locations,
    /// Member names and link targets.
    Names,
    /// References, tags and digests.
    References,
    /// Compressed streams behind two bytes, which say how and in which steps they are read.
    Streams,
    /// tar-split streams behind three bytes: the size of files, steps, where reading begins.
    TarSplits,
}

/// Above this a seed makes every run slow, and hides the few bytes that matter.
const LARGE: usize = 200_000;

impl Seeds {
    /// The seeds, in an order that is always the same.
    pub(crate) fn collect(self) -> Vec<Vec<u8>> {
        let mut seeds = match self {
            Self::Archives => [small_archives(), whole_archives()].concat(),
            Self::Compressed => compressed(),
            Self::Databases => databases(),
            Self::Dirs => trees().into_iter().map(|tree| tree.split_once(NEXT).expect("it has pieces").1.to_owned().into_bytes()).collect(),
            Self::GoogleDirs => google_dirs(),
            Self::Json => json(),
            Self::Layers => [vec![Layer::new("etc/\netc/one=1\nlink->etc/one\nhard=>etc/one").tar], layers()].concat(),
            Self::Layouts => trees().into_iter().map(String::into_bytes).collect(),
            Self::Locations => locations(),
            Self::Names => names(),
            Self::References => references(),
            Self::Streams => streams(),
            Self::TarSplits => tar_splits(),
        };
        seeds.retain(|seed| seed.len() <= LARGE);
        seeds.sort();
        seeds.dedup();
        assert!(!seeds.is_empty(), "no seeds of {self:?}");
        seeds
    }
}

fn app() -> Image {
    let layer = |text: &str, packing| Layer::new(text).packed(packing);
    Image::new("app:1").with(layer("etc/\netc/one=1", Packing::Gzip)).with(layer("etc/.wh.one=", Packing::Zstd)).annotate("key", "value")
}

fn small_archives() -> Vec<Vec<u8>> {
    vec![docker_archive(&[app()]).bytes(), Layout::of(&[app()]).archive().bytes()]
}

fn fixture_files() -> Vec<(String, Vec<u8>)> {
    tree(Path::new(&fixtures())).into_iter().collect()
}

/// The archives that tools wrote: among them those of v1 folders alone, `gcr-v1.tar`, `bazel-legacy.tar` and `quay-squash.tar`.
fn whole_archives() -> Vec<Vec<u8>> {
    let archives: Vec<_> = fixture_files().into_iter().filter(|(name, _)| name.ends_with(".tar")).collect();
    for needed in ["from/gcr-v1.tar", "from/bazel-legacy.tar", "from/quay-squash.tar"] {
        assert!(archives.iter().any(|(name, bytes)| name == needed && bytes.len() <= LARGE), "{needed} is no seed");
    }
    archives.into_iter().map(|(_, bytes)| bytes).collect()
}

/// The folder that containerregistry wrote, and what is left of it without the digests that guard it.
fn google_dirs() -> Vec<Vec<u8>> {
    let files = tree(&longshore_testkit::fixture("from/gcr-fast"));
    let with = |keep: &dyn Fn(&str) -> bool| {
        let kept = files.iter().filter(|(name, _)| keep(name));
        tar::write(&kept.map(|(name, bytes)| tar::Member::file(name.as_str(), bytes.as_slice())).collect::<Vec<_>>())
    };
    vec![
        with(&|_| true),
        with(&|name| name != "digest"),
        with(&|name| !matches!(name, "digest" | "manifest.json")),
        with(&|name| name != "digest" && !name.ends_with(".sha256")),
    ]
}

/// Every file and every member of every fixture.
fn pieces() -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    for (name, bytes) in fixture_files() {
        if name.ends_with(".tar") {
            pieces.extend(tar::read(&bytes).into_iter().map(|member| member.data));
        } else {
            pieces.push(bytes);
        }
    }
    pieces
}

fn json() -> Vec<Vec<u8>> {
    let mut json = pieces();
    json.retain(|bytes| matches!(bytes.first(), Some(b'{' | b'[')) && bytes.len() < 10_000);
    json
}

fn layers() -> Vec<Vec<u8>> {
    let unpacked = pieces().into_iter().map(|bytes| unpack(&bytes));
    unpacked
        .filter(|bytes| {
            bytes.len() >= 1024 && bytes.len() % 512 == 0 && (bytes[257..262] == *b"ustar" || bytes.iter().all(|&byte| byte == 0))
        })
        .collect()
}

fn databases() -> Vec<Vec<u8>> {
    let image = |name: &str| bucket(name, vec![bytes("createdat", "1"), bucket("target", vec![bytes("digest", "d"), bytes("size", "2")])]);
    let images: Vec<_> = ["a:1", "b:1", "c:1", "d:1", "e:1"].map(image).into();
    let items = [bytes("large", vec![b'x'; 900]), bucket("v1", vec![bucket("default", vec![bucket("images", images)])])];
    [(512, 2, 0), (512, 3, 100), (1024, 100, 1000)].map(|(page, fan, inline)| Bolt { page, fan, inline }.write(&items)).into()
}

fn tar_splits() -> Vec<Vec<u8>> {
    let layers = [vec![Layer::new("etc/\netc/one=1\nlink->etc/one\nhard=>etc/one").tar], layers()].concat();
    let split = |layer: Vec<u8>| [&[1, 100, 7][..], &tar_split(&layer).0].concat();
    layers.into_iter().filter(|layer| layer.len() < 20_000).map(split).collect()
}

fn compressed() -> Vec<Vec<u8>> {
    let layer = Layer::new("etc/\netc/one=a line that compresses well well well well").tar;
    let mut streams: Vec<Vec<u8>> =
        [Packing::Plain, Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2].iter().map(|&packing| pack(&layer, packing)).collect();
    streams.push([pack(b"one", Packing::Gzip), pack(b"two", Packing::Gzip)].concat());
    streams.push([b"\x50\x2a\x4d\x18\x02\0\0\0ab".to_vec(), pack(b"one", Packing::Zstd)].concat());
    streams.extend(pieces().into_iter().filter(|bytes| bytes.starts_with(b"\x1f\x8b") || bytes.starts_with(b"\x28\xb5\x2f\xfd")));
    streams
}

fn names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = ["", ".", "..", "/", "./a", "a/../b", "a//b", ".wh.a", ".wh..wh..opq", "a/.wh.b/", "\u{e9}/\u{2713}"]
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    for layer in layers() {
        names.extend(tar::read(&layer).into_iter().flat_map(|member| [member.name, member.link]));
    }
    names
}

fn references() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "0f".repeat(32));
    let mut all: Vec<String> = [
        "kitchen",
        "kitchen:1",
        "example.com/team/kitchen:latest",
        "localhost:5000/a/b_c.d-e:T.1",
        "[::1]:5000/a",
        "a/b",
        "library/a",
        "index.docker.io/a",
        "A",
        "a:",
        ":a",
        "a@b",
    ]
    .iter()
    .map(|&text| text.to_owned())
    .collect();
    all.extend([digest.clone(), format!("app@{digest}"), format!("app:1@{digest}"), format!("sha512:{}", "0f".repeat(64))]);
    all.into_iter().map(String::into_bytes).collect()
}

/// What is between two pieces of a layout.
const NEXT: &str = "\n--\n";

/// Layouts in pieces (see `fuzz_layout`): an image, two platforms with an attestation, indexes in indexes, artifacts, a foreign layer.
fn trees() -> Vec<String> {
    const OCI: &str = "application/vnd.oci.image.";
    const DOCKER: &str = "application/vnd.docker.";
    let descriptor = |kind: &str, at: usize, more: &str| format!(r#"{{"mediaType":"{kind}","digest":"${at:02}","size":#{at:02}{more}}}"#);
    let index = |nodes: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, nodes.join(","));
    let manifest = |config: String, layers: &[String], more: &str| {
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]{more}}}"#, layers.join(","))
    };
    let config = |architecture: &str, layers: &[usize]| {
        let ids: Vec<_> = layers.iter().map(|at| format!(r#""${at:02}""#)).collect();
        format!(r#"{{"os":"linux","architecture":"{architecture}","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, ids.join(","))
    };
    let (oci_index, oci_manifest) = (format!("{OCI}index.v1+json"), format!("{OCI}manifest.v1+json"));
    let (oci_config, oci_layer) = (format!("{OCI}config.v1+json"), format!("{OCI}layer.v1.tar"));
    let named = r#","annotations":{"org.opencontainers.image.ref.name":"1","io.containerd.image.name":"docker.io/library/app:1"}"#;
    let layer = "etc/one".to_owned();
    let image = |at: usize| manifest(descriptor(&oci_config, at, ""), &[descriptor(&oci_layer, at + 1, "")], r#","annotations":{"a":"b"}"#);

    let one = [
        index(&[descriptor(&oci_manifest, 2, named)]),
        index(&[descriptor(&oci_manifest, 2, "")]),
        image(3),
        config("amd64", &[4]),
        layer.clone(),
    ];
    let attests = r#","platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.digest":"$02"}"#;
    let two = [
        index(&[descriptor(&oci_index, 1, named), descriptor(&oci_index, 1, "")]),
        index(&[
            descriptor(&oci_manifest, 2, r#","platform":{"os":"linux","architecture":"amd64"}"#),
            descriptor(&oci_manifest, 3, r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#),
            descriptor(&oci_manifest, 4, attests),
        ]),
        manifest(descriptor(&oci_config, 5, ""), &[descriptor(&oci_layer, 7, "")], ""),
        manifest(descriptor(&oci_config, 6, ""), &[descriptor(&oci_layer, 7, "")], ""),
        manifest(descriptor(&oci_config, 8, ""), &[descriptor("application/vnd.in-toto+json", 8, "")], ""),
        config("amd64", &[7]),
        config("arm64", &[7]),
        layer.clone(),
        "{}".to_owned(),
    ];
    let nested = [
        index(&[descriptor(&oci_index, 1, ""), descriptor(&oci_index, 2, named)]),
        index(&[descriptor(&oci_index, 2, ""), descriptor(&oci_index, 2, "")]),
        index(&[descriptor(&oci_index, 3, ""), descriptor(&oci_index, 3, "")]),
        index(&[descriptor(&oci_manifest, 4, "")]),
        manifest(descriptor(&oci_config, 5, ""), &[], ""),
        config("amd64", &[]),
    ];
    let docker = [
        index(&[descriptor(&format!("{DOCKER}distribution.manifest.list.v2+json"), 1, named)]),
        index(&[descriptor(&format!("{DOCKER}distribution.manifest.v2+json"), 2, "")]),
        manifest(
            descriptor(&format!("{DOCKER}container.image.v1+json"), 3, ""),
            &[
                descriptor(&format!("{DOCKER}image.rootfs.diff.tar.gzip"), 4, ""),
                descriptor(&format!("{DOCKER}image.rootfs.foreign.diff.tar"), 5, r#","urls":["https://example.com/a"]"#),
            ],
            "",
        ),
        config("amd64", &[4, 5]),
        layer,
    ];
    let artifact = [
        index(&[descriptor(&oci_manifest, 1, r#","artifactType":"a/b""#), descriptor("text/plain", 2, "")]),
        manifest(
            descriptor("application/vnd.oci.empty.v1+json", 3, ""),
            &[descriptor("text/plain", 2, "")],
            &format!(r#","artifactType":"a/b","subject":{}"#, descriptor(&oci_manifest, 3, "")),
        ),
        "signature".to_owned(),
        "{}".to_owned(),
    ];
    [&one[..], &two, &nested, &docker, &artifact].iter().map(|pieces| pieces.join(NEXT)).collect()
}

fn locations() -> Vec<Vec<u8>> {
    let mut all: Vec<String> = Vec::new();
    for format in longshore::format::FORMATS {
        for rest in ["a.tar", "a:b:1", "/a/b:c", "-", "-:app:1", "a:@0", "a:", ":a", ""] {
            all.push(format!("{}:{rest}", format.name()));
        }
    }
    all.extend(["app.tar", "./a:b", "/a:b", "-", "a/b:c", "nothing:a", "", "."].map(str::to_owned));
    all.into_iter().map(String::into_bytes).collect()
}

fn streams() -> Vec<Vec<u8>> {
    let kind = |bytes: &[u8]| match longshore_testkit::facts::sniff(bytes) {
        Packing::Gzip => 0,
        Packing::Zstd => 1,
        Packing::Xz => 2,
        Packing::Bzip2 => 3,
        Packing::Plain => 4,
    };
    compressed().iter().map(|bytes| [&[kind(bytes), 6][..], bytes].concat()).collect()
}

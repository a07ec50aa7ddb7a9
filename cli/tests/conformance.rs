//! Every archive that a real tool wrote, to every format that we write, and back: the same images, byte for byte where it counts.

use std::collections::BTreeSet;

use longshore_testkit::facts::{Facts, Packing, facts, layout_in_archive, sniff, unpack};
use longshore_testkit::images::{Image, Layer, Layout, docker_archive, pack};
use longshore_testkit::{TestEnv, assert_same_bytes, fixture, fixtures};

use crate::env;

/// Tools whose archives must convert; the others' are read in their own dialects.
const TOOLS: [&str; 5] = ["docker", "podman", "skopeo", "umoci", "crane"];

/// Something that we write: a transport, and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    name: &'static str,
    transport: &'static str,
    flags: &'static str,
}

const TARGETS: [Target; 5] = [
    Target { name: "docker", transport: "docker-archive", flags: "" },
    Target { name: "classic", transport: "docker-archive", flags: "--dialect classic" },
    Target { name: "oci-archive", transport: "oci-archive", flags: "" },
    Target { name: "oci", transport: "oci", flags: "" },
    Target { name: "dir", transport: "dir", flags: "" },
];

impl Target {
    fn is_archive(self) -> bool {
        self.transport.ends_with("-archive")
    }

    /// Where it is written in the test's folder.
    fn file(self, stem: &str) -> String {
        if self.is_archive() { format!("{stem}-{}.tar", self.name) } else { format!("{stem}-{}", self.name) }
    }

    /// The IMAGE argument for it.
    fn image(self, stem: &str) -> String {
        format!("{}:{}", self.transport, self.file(stem))
    }

    /// Whether it can hold what a source holds: `dir` holds one image or index.
    fn holds(self, source: &Source) -> bool {
        self.transport != "dir" || source.roots() == 1
    }
}

/// An input, in the test's folder under its own name.
struct Source {
    name: String,
    transport: &'static str,
    facts: Facts,
}

impl Source {
    fn new(env: &TestEnv, name: &str) -> Self {
        let path = env.path(name);
        let facts = facts(&path);
        let transport = match (path.is_dir(), path.join("oci-layout").exists()) {
            (true, true) => "oci",
            (true, false) => "dir",
            (false, _)
                if longshore_testkit::facts::members(&path).iter().any(|member| member.trim_start_matches("./") == "manifest.json") =>
            {
                "docker-archive"
            }
            (false, _) => "oci-archive",
        };
        Self { name: name.to_owned(), transport, facts }
    }

    fn image(&self) -> String {
        format!("{}:{}", self.transport, self.name)
    }

    fn stem(&self) -> &str {
        self.name.trim_end_matches(".tar")
    }

    /// How many different things its names lead to.
    fn roots(&self) -> usize {
        if self.facts.roots.is_empty() { self.facts.images.len() } else { self.facts.roots.iter().collect::<BTreeSet<_>>().len() }
    }

    /// What a target must hold after a copy: all images, or of an index the one of this machine's platform.
    fn expected(&self, target: Target) -> Facts {
        let mut facts = self.facts.clone();
        if target.transport == "docker-archive" && self.is_multiplatform() {
            facts.images.retain(|_, image| image.platform() == platform_here());
        }
        facts
    }

    fn is_multiplatform(&self) -> bool {
        self.facts.images.values().map(|image| image.platform()).collect::<BTreeSet<_>>().len() > 1
    }
}

pub(crate) fn platform_here() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// The real archives, and some that we make because no tool at hand writes them.
fn sources(env: &TestEnv) -> Vec<Source> {
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(fixtures().join("from")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if TOOLS.iter().any(|tool| name.starts_with(tool)) {
            env.fixture(&format!("from/{name}"), &name);
            names.push(name);
        }
    }
    names.sort();
    assert!(names.len() >= 16, "fixtures are missing: {names:?}");
    for name in ["kitchen.tar", "kitchen-and-pantry.tar"] {
        env.fixture(name, name);
        names.push(name.to_owned());
    }
    let packings = [Packing::Plain, Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2];
    let mixed = packings
        .iter()
        .fold(Image::new("mixed:1"), |image, &packing| image.with(Layer::new(&format!("etc/\netc/{packing:?}=text")).packed(packing)));
    let dotted = docker_archive(std::slice::from_ref(&mixed)).rename(|name| format!("./{name}"));
    env.write("dotted.tar", dotted.bytes());
    env.write("mixed.tar", Layout::of(&[mixed.annotate("note", "kept <&>")]).archive().bytes());
    names.extend(["dotted.tar".to_owned(), "mixed.tar".to_owned()]);
    names.iter().map(|name| Source::new(env, name)).collect()
}

/// Everything that must hold for one target, over all sources.
fn conforms(target: Target) {
    let env = env();
    for source in sources(&env) {
        let why = format!("{} to {}", source.name, target.name);
        let out = target.image(source.stem());
        let copy = |flags: &str, from: &str, to: &str| format!("copy {flags} {} {from} {to}", target.flags);
        if !target.holds(&source) {
            env.fails(1, &copy("", &source.image(), &out)).says(&["dir"]);
            assert!(!env.path(&target.file(source.stem())).exists(), "{why}: a refused copy left its output");
            continue;
        }
        let ran = env.ok(&copy("", &source.image(), &out));
        let expected = source.expected(target);
        if expected.images.len() < source.facts.images.len() {
            ran.says(&[&platform_here()]);
        }
        let path = env.path(&target.file(source.stem()));
        let made = facts(&path);
        assert_eq!(made.essence(), expected.essence(), "{why}: image IDs, configs and diff IDs");
        if target.transport != "dir" {
            assert_eq!(made.names(), expected.names(), "{why}: names");
        }
        packed_as_it_should(target, &source, &made, &why);
        env.ok(&format!("check {out}"));

        // A second time, with other numbers of threads, and under another name: the same bytes.
        for threads in [1, 4] {
            let again = format!("again{threads}-{}", source.stem());
            env.ok(&copy(&format!("--threads {threads}"), &source.image(), &target.image(&again)));
            assert_same_bytes(&path, &env.path(&target.file(&again)), &format!("{why} with {threads} threads"));
        }
        // Without naming the format that it is read in.
        let detected = format!("detected-{}", source.stem());
        env.ok(&copy("", &format!("./{}", source.name), &target.image(&detected)));
        assert_same_bytes(&path, &env.path(&target.file(&detected)), &format!("{why}, detected"));

        // And back.
        let back = format!("back-{}-{}", target.name, source.name);
        let flags = if source.transport == "docker-archive" && source.is_multiplatform() {
            format!("--platform {}", platform_here())
        } else {
            String::new()
        };
        env.ok(&format!("copy {flags} {out} {}:{back}", source.transport));
        let returned = facts(&env.path(&back));
        assert_eq!(returned.essence(), expected.essence(), "{why} and back: image IDs, configs and diff IDs");
        if target.transport != "dir" && source.transport != "dir" {
            assert_eq!(returned.names(), expected.names(), "{why} and back: names");
        }
    }
}

/// Layers by the table of formats, and manifests kept where no layer changes.
fn packed_as_it_should(target: Target, source: &Source, made: &Facts, why: &str) {
    for (id, image) in &made.images {
        let before = &source.facts.images[id];
        // No manifest has a media type for xz and bzip2, so a reader would be lied to.
        let named = |packing| if matches!(packing, Packing::Xz | Packing::Bzip2) { Packing::Gzip } else { packing };
        let expected: Vec<Packing> = match target.transport {
            "docker-archive" => before.packing.iter().map(|_| Packing::Plain).collect(),
            "oci" | "oci-archive" => {
                before.packing.iter().map(|&packing| if packing == Packing::Plain { Packing::Gzip } else { named(packing) }).collect()
            }
            _ => before.packing.iter().copied().map(named).collect(),
        };
        assert_eq!(image.packing, expected, "{why}: how the layers are compressed");
        if before.manifest.is_some() && image.manifest.is_some() && expected == before.packing {
            assert_eq!(image.manifest, before.manifest, "{why}: no layer changes, so the manifest must not");
        }
    }
}

#[test]
fn docker_archive_conforms() {
    conforms(TARGETS[0]);
}

#[test]
fn docker_archive_classic_conforms() {
    conforms(TARGETS[1]);
}

#[test]
fn oci_archive_conforms() {
    conforms(TARGETS[2]);
}

#[test]
fn oci_conforms() {
    conforms(TARGETS[3]);
}

#[test]
fn dir_conforms() {
    conforms(TARGETS[4]);
}

#[test]
fn the_docker_dialect_is_an_oci_layout_too() {
    let env = env();
    for source in sources(&env).iter().filter(|source| !source.is_multiplatform()) {
        env.ok(&format!("copy {} docker-archive:both-{}.tar", source.image(), source.stem()));
        let path = env.path(&format!("both-{}.tar", source.stem()));
        let (docker, oci) = (facts(&path), layout_in_archive(&path));
        assert_eq!(docker.essence(), oci.essence(), "{}: both views", source.name);
        assert_eq!(docker.names(), oci.names(), "{}: names in both views", source.name);
        env.ok(&format!("copy {} --dialect classic docker-archive:classic-{}.tar", source.image(), source.stem()));
        let members = longshore_testkit::facts::members(&env.path(&format!("classic-{}.tar", source.stem())));
        assert!(
            !members.iter().any(|name| name == "oci-layout"),
            "{}: classic is what Docker wrote before there was a layout in it",
            source.name
        );
        assert!(members.iter().any(|name| name.ends_with("/layer.tar")), "{}: classic has v1 directories", source.name);
    }
}

#[test]
fn what_docker_29_wrote_keeps_its_manifest() {
    let env = env();
    env.fixture("from/docker29-one.tar", "in.tar");
    let before = layout_in_archive(&env.path("in.tar"));
    env.ok("copy docker-archive:in.tar docker-archive:out.tar");
    assert_eq!(layout_in_archive(&env.path("out.tar")).manifests(), before.manifests());
    env.ok("copy docker-archive:in.tar dir:out");
    assert_eq!(facts(&env.path("out")).manifests(), before.manifests());
}

#[test]
fn a_pipe_gives_the_same_bytes_as_a_file() {
    let env = env();
    for source in sources(&env).iter().filter(|source| !env.path(&source.name).is_dir()) {
        let bytes = env.read(&source.name);
        for target in TARGETS.iter().filter(|target| target.holds(source)) {
            let file = format!("file-{}", source.stem());
            env.ok(&format!("copy {} {} {}", target.flags, source.image(), target.image(&file)));
            for (stem, stdin) in [("pipe", format!("{}:-", source.transport)), ("bare", "-".to_owned())] {
                let stem = format!("{stem}-{}", source.stem());
                env.run_with_input(&format!("copy {} {stdin} {}", target.flags, target.image(&stem)), &bytes).exited(0);
                assert_same_bytes(
                    &env.path(&target.file(&file)),
                    &env.path(&target.file(&stem)),
                    &format!("{} to {} from {stdin}", source.name, target.name),
                );
            }
            if target.is_archive() {
                let ran = env.ok(&format!("copy {} {} {}:-", target.flags, source.image(), target.transport));
                assert!(ran.stdout == env.read(&target.file(&file)), "{} to {} on standard output", source.name, target.name);
            }
        }
    }
    env.assert_no_leftovers();
}

#[test]
fn whole_archives_may_be_compressed() {
    let env = env();
    for source in sources(&env).iter().filter(|source| !env.path(&source.name).is_dir()) {
        let plain = env.read(&source.name);
        env.ok(&format!("copy {} oci:plain-{}", source.image(), source.stem()));
        for packing in [Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2] {
            // Sniffed, never believed: the name says nothing.
            env.write("packed.bin", pack(&plain, packing));
            let out = format!("{packing:?}-{}", source.stem());
            env.ok(&format!("copy {}:packed.bin oci:{out}", source.transport));
            assert_same_bytes(&env.path(&format!("plain-{}", source.stem())), &env.path(&out), &format!("{} in {packing:?}", source.name));
            env.ok(&format!("check {}:packed.bin", source.transport));
        }
    }
    env.fixture("from/docker20-three-names.tar", "in.tar");
    for transport in ["docker-archive", "oci-archive"] {
        env.ok(&format!("copy docker-archive:in.tar {transport}:{transport}.tar"));
        for (suffix, packing) in [("gz", Packing::Gzip), ("zst", Packing::Zstd)] {
            let out = format!("{transport}.tar.{suffix}");
            env.ok(&format!("copy docker-archive:in.tar {transport}:{out}"));
            let bytes = env.read(&out);
            assert_eq!(sniff(&bytes), packing, "{out}");
            assert!(unpack(&bytes) == env.read(&format!("{transport}.tar")), "{out} decompresses to what {transport}.tar holds");
            env.ok(&format!("copy --threads 1 docker-archive:in.tar {transport}:one-{out}"));
            assert!(bytes == env.read(&format!("one-{out}")), "{out} with one thread");
            env.ok(&format!("check {transport}:{out}"));
        }
    }
}

#[test]
fn the_other_engines_names_are_the_same() {
    let env = env();
    for (fixture, names) in [
        (
            "from/docker20-three-names.tar",
            vec!["docker.io/library/kitchen:1", "example.com/team/kitchen:latest", "docker.io/library/pantry:2"],
        ),
        ("from/skopeo-oci", vec!["docker.io/library/kitchen:latest"]),
        ("from/podman4-oci-archive.tar", vec!["localhost/kitchen:1"]),
        ("from/crane-tarball.tar", vec!["127.0.0.1:5001/team/kitchen:1"]),
        ("from/docker20-by-id.tar", vec![]),
        ("from/crane-oci", vec![]),
    ] {
        let name = fixture.trim_start_matches("from/").trim_end_matches(".tar").to_owned();
        env.fixture(fixture, &name);
        for target in &TARGETS[..4] {
            env.ok(&format!("copy {} ./{name} {}", target.flags, target.image(&name)));
            let found: BTreeSet<String> = facts(&env.path(&target.file(&name))).names().into_values().flatten().collect();
            assert_eq!(found, names.iter().map(|&name| name.to_owned()).collect(), "{fixture} to {}", target.name);
        }
    }
    // A bare ref.name stays as it was.
    let index = String::from_utf8(env.read("skopeo-oci-oci/index.json")).unwrap();
    assert!(index.contains(r#""org.opencontainers.image.ref.name":"kitchen""#), "{index}");
    assert!(fixture("from/skopeo-oci").is_dir());
}

#[test]
fn two_platforms_need_a_choice_where_one_fits() {
    let env = env();
    env.fixture("from/skopeo-oci-multiplatform", "in");
    let whole = facts(&env.path("in"));
    env.fails(1, "copy --all-platforms oci:in docker-archive:out.tar").says(&["docker-archive"]);
    assert!(!env.path("out.tar").exists());
    for platform in ["linux/amd64", "linux/arm64"] {
        for target in TARGETS {
            let stem = platform.replace('/', "-");
            env.ok(&format!("copy {} --platform {platform} oci:in {}", target.flags, target.image(&stem)));
            let made = facts(&env.path(&target.file(&stem)));
            assert_eq!(made.only().platform(), platform, "{}", target.name);
            assert_eq!(
                made.essence().into_iter().next(),
                whole.essence().into_iter().find(|(id, _)| made.images.contains_key(id)),
                "{}",
                target.name
            );
        }
    }
    env.fails(1, "copy --platform linux/s390x oci:in oci:none").says(&["linux/s390x"]);
    assert!(!env.path("none").exists());
}

#[test]
fn formats_lists_every_target() {
    let listed = env().ok("formats").text();
    for name in ["docker-archive", "oci-archive", "oci", "dir", "docker", "classic"] {
        assert!(listed.contains(name), "`longshore formats` is silent about {name}:\n{listed}");
    }
}

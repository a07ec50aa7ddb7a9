//! docker, podman, skopeo and umoci take what we write, and see in it what they would see in the source.

use longshore_testkit::TestEnv;
use longshore_testkit::facts::{facts, full_name};
use longshore_testkit::peers::{Dockerd, Podman, Tool, skipped};

use crate::env;

const HELLO: &str = "hello from the image";

/// Archives of one or more images, each with what docker shows after loading it.
const SOURCES: [&str; 14] = [
    "docker20-by-id.tar",
    "docker20-one.tar",
    "docker20-three-names.tar",
    "docker29-one.tar",
    "podman4-docker-archive.tar",
    "podman4-docker-dir",
    "podman4-oci-archive.tar",
    "podman4-oci-dir",
    "skopeo-docker-archive.tar",
    "skopeo-oci",
    "skopeo-oci-archive.tar",
    "skopeo-oci-zstd",
    "umoci-oci",
    "crane-tarball.tar",
];

/// Converts a fixture, which keeps its name in the folder, to `image`.
fn convert(env: &TestEnv, fixture: &str, flags: &str, image: &str) {
    if !env.path(fixture).exists() {
        env.fixture(&format!("from/{fixture}"), fixture);
    }
    env.ok(&format!("copy {flags} ./{fixture} {image}"));
}

/// The names that docker must show for a source: those of its own load, in full.
fn names_and_ids(env: &TestEnv, source: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (id, image) in facts(&env.path(source)).images {
        all.extend(image.names.iter().map(|name| (name.clone(), id.clone())));
    }
    all.sort();
    all
}

#[test]
fn docker_loads_and_runs_it() {
    let engine = match Dockerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped("interop: docker", &why),
    };
    let env = env();
    for source in SOURCES {
        for (flags, stem) in [("", "docker"), ("--dialect classic", "classic"), ("", "packed")] {
            let archive = format!("{stem}-{source}{}", if stem == "packed" { ".tar.gz" } else { "" });
            convert(&env, source, flags, &format!("docker-archive:{archive}"));
            engine.clear();
            let loaded: Vec<String> = engine
                .load(&env.path(&archive))
                .iter()
                .map(|name| if name.starts_with("sha256:") { name.clone() } else { full_name(name) })
                .collect();
            let expected = names_and_ids(&env, source);
            if expected.is_empty() {
                let id = facts(&env.path(source)).images.keys().next().unwrap().clone();
                assert_eq!(loaded, std::slice::from_ref(&id), "{archive}: no name, so docker shows the image ID");
                assert_eq!(engine.run(&id).trim(), HELLO, "{archive}");
                continue;
            }
            let mut names: Vec<&String> = expected.iter().map(|(name, _)| name).collect();
            names.sort();
            let mut loaded: Vec<&String> = loaded.iter().collect();
            loaded.sort();
            assert_eq!(loaded, names, "{archive}: the names that docker loaded");
            for (name, id) in &expected {
                assert_eq!(engine.id(name), *id, "{archive}: the image ID of {name}");
                assert_eq!(engine.run(name).trim(), HELLO, "{archive}: what {name} prints");
            }
        }
    }
    // What docker says of the source and of our output is the same, for sources that it can load itself.
    for source in [
        "docker20-by-id.tar",
        "docker20-one.tar",
        "docker20-three-names.tar",
        "docker29-one.tar",
        "podman4-docker-archive.tar",
        "skopeo-docker-archive.tar",
        "crane-tarball.tar",
    ] {
        engine.clear();
        let theirs = engine.load(&env.path(source));
        let inspected = |names: &[String]| {
            names
                .iter()
                .map(|name| engine.ok(&["image", "inspect", "--format", "{{.Id}} {{.RepoTags}} {{.Config}} {{.RootFS}}", name]))
                .collect::<Vec<_>>()
        };
        let before = inspected(&theirs);
        engine.clear();
        let ours = engine.load(&env.path(&format!("docker-{source}")));
        assert_eq!(theirs, ours, "{source}: what docker says it loaded");
        assert_eq!(before, inspected(&ours), "{source}: what docker knows of it");
    }
    // A pipe into docker.
    engine.clear();
    let archive = env.ok("copy ./docker20-one.tar -").stdout;
    let mut load = engine.command(&["load"]);
    load.stdin(std::process::Stdio::piped());
    let ran = longshore_testkit::env::finish(load, archive).exited(0);
    assert!(ran.text().contains("kitchen:1"), "{}", ran.text());
}

#[test]
fn podman_loads_it() {
    let podman = match Podman::find() {
        Ok(podman) => podman,
        Err(why) => return skipped("interop: podman", &why),
    };
    let env = env();
    for source in [
        "docker20-one.tar",
        "docker20-three-names.tar",
        "docker29-one.tar",
        "podman4-oci-dir",
        "skopeo-oci-archive.tar",
        "crane-tarball.tar",
    ] {
        for (flags, transport, out) in [
            ("", "docker-archive", format!("docker-{source}")),
            ("--dialect classic", "docker-archive", format!("classic-{source}")),
            ("", "oci-archive", format!("oci-{source}")),
            ("", "oci", format!("layout-{source}")),
        ] {
            if source == "docker20-three-names.tar" && transport != "docker-archive" {
                continue; // podman takes one image from a layout.
            }
            convert(&env, source, flags, &format!("{transport}:{out}"));
            podman.clear();
            let loaded = podman.load(&env.path(&out));
            let expected = names_and_ids(&env, source);
            if transport == "oci" {
                // podman names a directory by its path.
                assert_eq!(podman.id(&loaded[0]), expected[0].1, "{out}: the image ID");
                continue;
            }
            for (name, id) in &expected {
                // To podman a familiar name in a docker-archive is its own, and in a layout it is docker.io's.
                let local = format!("localhost/{}", name.trim_start_matches("docker.io/library/"));
                let shown = [name.clone(), local];
                let found = shown.iter().find(|name| loaded.contains(name));
                let found = found.unwrap_or_else(|| panic!("{out}: podman loaded {loaded:?}, not {name}"));
                assert_eq!(podman.id(found), *id, "{out}: the image ID of {found}");
            }
            assert_eq!(loaded.len(), expected.len(), "{out}: {loaded:?}");
        }
    }
}

#[test]
fn skopeo_inspects_and_copies_it() {
    let skopeo = match Tool::skopeo() {
        Ok(skopeo) => skopeo,
        Err(why) => return skipped("interop: skopeo", &why),
    };
    let env = env();
    let at = |name: &str| env.path(name).to_str().unwrap().to_owned();
    for source in [
        "docker20-one.tar",
        "docker20-by-id.tar",
        "docker29-one.tar",
        "podman4-docker-archive.tar",
        "podman4-docker-dir",
        "podman4-oci-dir",
        "skopeo-oci",
        "skopeo-oci-archive.tar",
        "crane-tarball.tar",
        "crane-oci",
    ] {
        for (flags, transport) in
            [("", "docker-archive"), ("--dialect classic", "docker-archive"), ("", "oci-archive"), ("", "oci"), ("", "dir")]
        {
            let out = format!("{transport}{}-{source}", flags.replace(' ', "")).replace(".tar", "");
            convert(&env, source, flags, &format!("{transport}:{out}"));
            let ours = facts(&env.path(&out));
            let image = format!("{transport}:{}", at(&out));
            let config = skopeo.ok(&["inspect", "--config", "--raw", &image]);
            assert_eq!(config.as_bytes(), ours.only().config, "{out}: the config");
            let inspected: serde_json::Value = serde_json::from_str(&skopeo.ok(&["inspect", &image])).unwrap();
            assert_eq!(inspected["Layers"].as_array().unwrap().len(), ours.only().diff_ids.len(), "{out}: {inspected}");
            let copied = format!("copied-{out}");
            skopeo.ok(&["copy", "--quiet", &image, &format!("dir:{}", at(&copied))]);
            // skopeo decompresses and digests every layer of a docker-archive; here the independent reader does, for all.
            let copied = facts(&env.path(&copied));
            assert_eq!(copied.only().diff_ids, ours.only().diff_ids, "{out}: after skopeo copied it");
        }
    }
    // Several images in one archive are found by their names.
    convert(&env, "docker20-three-names.tar", "", "docker-archive:three.tar");
    for name in ["kitchen:1", "example.com/team/kitchen:latest", "pantry:2"] {
        skopeo.ok(&["inspect", &format!("docker-archive:{}:{name}", at("three.tar"))]);
    }
    // Two platforms stay an index.
    convert(&env, "skopeo-oci-multiplatform", "", "oci-archive:multi.tar");
    convert(&env, "skopeo-oci-multiplatform", "", "dir:multi");
    for image in [format!("oci-archive:{}", at("multi.tar")), format!("dir:{}", at("multi"))] {
        let raw: serde_json::Value = serde_json::from_str(&skopeo.ok(&["inspect", "--raw", &image])).unwrap();
        assert_eq!(raw["manifests"].as_array().unwrap().len(), 2, "{image}: {raw}");
        let all = format!("dir:{}", at("multi-copied"));
        skopeo.ok(&["copy", "--quiet", "--all", &image, &all]);
        assert_eq!(facts(&env.path("multi-copied")).essence(), facts(&env.path("skopeo-oci-multiplatform")).essence());
        std::fs::remove_dir_all(env.path("multi-copied")).unwrap();
    }
}

#[test]
fn umoci_reads_it() {
    let umoci = match Tool::umoci() {
        Ok(umoci) => umoci,
        Err(why) => return skipped("interop: umoci", &why),
    };
    let env = env();
    for (source, tags) in [
        ("docker20-one.tar", vec!["1"]),
        ("umoci-oci", vec!["edited", "kitchen", "tagged"]),
        ("skopeo-oci-zstd", vec!["kitchen"]),
        ("podman4-docker-archive.tar", vec!["1"]),
    ] {
        let out = format!("oci-{source}").replace(".tar", "");
        convert(&env, source, "", &format!("oci:{out}"));
        let layout = env.path(&out).to_str().unwrap().to_owned();
        let mut listed: Vec<String> = umoci.ok(&["ls", "--layout", &layout]).lines().map(str::to_owned).collect();
        listed.sort();
        assert_eq!(listed, tags, "{out}: umoci ls");
        for tag in tags {
            let image = format!("{layout}:{tag}");
            let stat: serde_json::Value = serde_json::from_str(&umoci.ok(&["stat", "--json", "--image", &image])).unwrap();
            let layers = stat["history"].as_array().unwrap().iter().filter(|entry| entry["empty_layer"] != true).count();
            assert!(layers >= 5, "{out}: {stat}");
            if source == "skopeo-oci-zstd" {
                continue; // umoci 0.4 does not decompress zstd.
            }
            let bundle = env.path(&format!("bundle-{out}-{tag}"));
            umoci.ok(&["unpack", "--rootless", "--image", &image, bundle.to_str().unwrap()]);
            assert_eq!(std::fs::read(bundle.join("rootfs/etc/added")).unwrap(), b"by layer 1\n", "{out}: unpacked");
            assert!(!bundle.join("rootfs/etc/gone").exists(), "{out}: whiteouts");
        }
    }
}

//! The dialects of docker-archive and google-dir: what other tools wrote, byte for byte, and what they no longer read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use longshore_testkit::facts::{Facts, facts, full_name, members};
use longshore_testkit::images::{Archive, Image, docker_archive};
use longshore_testkit::peers::{Dockerd, Tool, skipped};
use longshore_testkit::tar::{self, Member};
use longshore_testkit::{TestEnv, digest, fixture, fixtures, hex};
use serde_json::{Value, json};

use crate::env;

pub(crate) const DIALECTS: [&str; 7] = ["docker", "classic", "podman", "crane", "bazel", "google", "v1"];

const KITCHEN: &str = "example.com/team/kitchen:latest";

/// All fixtures, in the folder under their own names.
fn sources(env: &TestEnv) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(fixtures().join("from")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 22, "fixtures are missing: {names:?}");
    for name in &names {
        env.fixture(&format!("from/{name}"), name);
    }
    names
}

/// The arguments that read a fixture: the child of a base needs it.
fn arguments(name: &str) -> String {
    if name == "bazel-child.tar" { "./bazel-base.tar ./bazel-child.tar".to_owned() } else { format!("./{name}") }
}

/// What the independent reader sees in a fixture, by way of a layout where the fixture is none of the formats that it knows.
fn facts_of(env: &TestEnv, name: &str) -> Facts {
    let known = match name {
        "bazel-child.tar" | "gcr-fast" => false,
        _ if env.path(name).is_dir() => true,
        _ => members(&env.path(name)).iter().any(|member| matches!(member.trim_start_matches("./"), "manifest.json" | "index.json")),
    };
    if known {
        return facts(&env.path(name));
    }
    env.ok(&format!("copy {} oci:as-layout-{name}", arguments(name)));
    facts(&env.path(&format!("as-layout-{name}")))
}

/// The files of an archive, by name.
fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    tar::read(bytes).into_iter().map(|member| (member.text(), member.data)).collect()
}

#[track_caller]
fn same(found: &[u8], expected: &[u8], why: &str) {
    let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    assert!(found == expected, "{why}: differs at byte {at} ({} and {} bytes)", found.len(), expected.len());
}

#[test]
fn archives_equal_those_of_the_tools_byte_for_byte() {
    let env = env();
    let rows: [(&str, &str, &str, &str); 8] = [
        ("v1", "google-dir:gcr-fast", "--tag example.com/team/kitchen:latest", "gcr-v1.tar"),
        ("v1", "docker-archive:gcr-v1.tar", "", "gcr-v1.tar"),
        ("google", "google-dir:gcr-fast", "--tag example.com/team/kitchen:latest", "gcr-v22.tar"),
        ("crane", "oci:skopeo-oci", "--tag 127.0.0.1:5001/team/kitchen:1", "crane-tarball.tar"),
        ("crane", "docker-archive:crane-tarball.tar", "", "crane-tarball.tar"),
        ("podman", "docker-archive:docker20-one.tar", "--tag localhost/kitchen:1", "podman4-docker-archive.tar"),
        ("bazel", "docker-archive:bazel-base.tar", "", "bazel-base.tar"),
        ("bazel", "docker-archive:bazel-child.tar", "--allow-missing-layers", "bazel-child.tar"),
    ];
    sources(&env);
    for (dialect, source, flags, expected) in rows {
        let theirs = std::fs::read(fixture(&format!("from/{expected}"))).unwrap();
        for threads in [1, 4] {
            let why = format!("{source} in {dialect} with {threads} threads");
            let copy = format!("copy --threads {threads} --force --dialect {dialect} {flags} {source}");
            env.ok(&format!("{copy} docker-archive:out.tar"));
            same(&env.read("out.tar"), &theirs, &why);
            same(&env.ok(&format!("{copy} docker-archive:-")).stdout, &theirs, &format!("{why}, on standard output"));
        }
    }
    // From a pipe as well, where the format can come through one.
    for (dialect, _, flags, expected) in rows.iter().filter(|(_, source, _, expected)| source.ends_with(expected)) {
        let theirs = env.read(expected);
        let ran = env.run_with_input(&format!("copy --dialect {dialect} {flags} - docker-archive:-"), &theirs).exited(0);
        same(&ran.stdout, &theirs, &format!("{expected} through pipes"));
    }
}

#[test]
fn podman_is_what_skopeo_writes() {
    let skopeo = match Tool::skopeo() {
        Ok(skopeo) => skopeo,
        Err(why) => return skipped("dialects: skopeo", &why),
    };
    let env = env();
    sources(&env);
    env.fixture("kitchen-and-pantry.tar", "kitchen-and-pantry.tar");
    let at = |name: &str| env.path(name).to_str().unwrap().to_owned();
    let name = "example.com/x/y:7";
    let mut rows: Vec<(&str, &str, &str)> = [
        "docker20-one.tar",
        "docker20-by-id.tar",
        "docker29-one.tar",
        "podman4-docker-archive.tar",
        "skopeo-docker-archive.tar",
        "crane-tarball.tar",
        "bazel-base.tar",
        "gcr-v22.tar",
    ]
    .map(|source| (source, "", name))
    .to_vec();
    rows.extend([
        ("docker20-three-names.tar", ":kitchen:1", "kitchen:1"),
        ("docker20-three-names.tar", ":pantry:2", "localhost:5000/deep/er/pantry:2"),
        ("kitchen-and-pantry.tar", ":@1", "pantry"),
        ("docker20-by-id.tar", "", ""),
    ]);
    for (source, reference, name) in rows {
        let why = format!("{source}{reference} as {name:?}");
        let (theirs, ours) = (at("theirs.tar"), at("ours.tar"));
        let destination = if name.is_empty() { theirs.clone() } else { format!("{theirs}:{name}") };
        let ran = skopeo.run(&[
            "copy",
            "--quiet",
            &format!("docker-archive:{}{reference}", at(source)),
            &format!("docker-archive:{destination}"),
        ]);
        assert_eq!(ran.code, Some(0), "{why}: {}", ran.stderr);
        let tag = if name.is_empty() { String::new() } else { format!("--tag {name}") };
        env.ok(&format!("copy --dialect podman {tag} docker-archive:{source}{reference} docker-archive:{ours}"));
        same(&env.read("ours.tar"), &env.read("theirs.tar"), &why);
        std::fs::remove_file(theirs).unwrap();
        std::fs::remove_file(ours).unwrap();
    }
}

#[test]
fn every_fixture_goes_through_every_dialect() {
    let env = env();
    for name in sources(&env) {
        let source = facts_of(&env, &name);
        let is_index = source.images.values().map(|image| image.platform()).collect::<BTreeSet<_>>().len() > 1;
        let mut expected = source.clone();
        if is_index {
            expected.images.retain(|_, image| image.platform() == crate::conformance::platform_here());
        }
        for dialect in DIALECTS {
            let why = format!("{name} in {dialect}");
            let out = format!("{dialect}-{name}");
            let copy =
                |threads: usize, to: &str| format!("copy --threads {threads} --dialect {dialect} {} docker-archive:{to}", arguments(&name));
            env.ok(&copy(2, &out));
            env.ok(&copy(1, &format!("again-{out}")));
            same(&env.read(&format!("again-{out}")), &env.read(&out), &format!("{why}, a second time"));
            let checked = env.run(&format!("check docker-archive:{out}"));
            // Quay's merge leaves what was below a directory that became a file, as the next issue's must not.
            if name == "quay-squash.tar" {
                checked.exited(1).says(&[]);
            } else {
                assert_eq!(checked.code, Some(0), "{why}: {}{}", checked.text(), checked.stderr);
            }
            // The classic folders and the names of layers are for the dialect's own readers; here all is read back.
            env.ok(&format!("copy ./{out} oci:back-{out}"));
            let back = facts(&env.path(&format!("back-{out}")));
            if dialect == "v1" {
                let diff_ids = |facts: &Facts| facts.images.values().map(|image| image.diff_ids.clone()).collect::<BTreeSet<_>>();
                assert_eq!(diff_ids(&back), diff_ids(&expected), "{why} and back: diff IDs");
                let all = |facts: &Facts| facts.names().into_values().flatten().collect::<BTreeSet<_>>();
                assert_eq!(all(&back), all(&expected), "{why} and back: names");
                let layers: BTreeSet<String> = files(&env.read(&out))
                    .iter()
                    .filter(|(name, _)| name.ends_with("/layer.tar"))
                    .map(|(_, bytes)| digest(bytes))
                    .collect();
                assert_eq!(layers, expected.images.values().flat_map(|image| image.diff_ids.clone()).collect(), "{why}: layers");
            } else {
                assert_eq!(back.essence(), expected.essence(), "{why} and back: configs and diff IDs");
                assert_eq!(back.names(), expected.names(), "{why} and back: names");
                let found = facts(&env.path(&out));
                assert_eq!(found.essence(), expected.essence(), "{why}, by the independent reader");
                assert_eq!(found.names(), expected.names(), "{why}: names, by the independent reader");
            }
        }
        if source.images.len() == 1 {
            let out = format!("google-dir-{}", name.trim_end_matches(".tar"));
            env.ok(&format!("copy {} google-dir:{out}", arguments(&name)));
            let checked = env.run(&format!("check google-dir:{out}"));
            assert_eq!(checked.code, Some(i32::from(name == "quay-squash.tar")), "{out}: {}{}", checked.text(), checked.stderr);
            env.ok(&format!("copy google-dir:{out} oci:back-{out}"));
            assert_eq!(facts(&env.path(&format!("back-{out}"))).essence(), source.essence(), "{name} to google-dir and back");
        }
    }
}

#[test]
fn crane_keeps_layers_as_they_are() {
    let env = env();
    sources(&env);
    env.ok("copy --dialect crane oci:skopeo-oci-zstd docker-archive:zstd.tar");
    let names = members(&env.path("zstd.tar"));
    assert!(names[0].starts_with("sha256:") && names.last().unwrap() == "manifest.json", "{names:?}");
    assert!(names[1..names.len() - 1].iter().all(|name| name.ends_with(".tar.zst")), "{names:?}");
    let stored: BTreeSet<String> = files(&env.read("zstd.tar")).values().map(|bytes| hex(bytes)).collect();
    for entry in std::fs::read_dir(env.path("skopeo-oci-zstd/blobs/sha256")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_manifest = String::from_utf8_lossy(&env.read(&format!("skopeo-oci-zstd/blobs/sha256/{name}"))).contains("\"layers\"");
        assert!(is_manifest || stored.contains(&name), "blob {name} is not in the archive");
    }
}

// --- what others no longer read -----------------------------------------------------------------------------------------

/// The config of the only image of an archive, converted.
fn config(env: &TestEnv, archive: &str) -> Value {
    let layout = format!("config-{archive}");
    env.ok(&format!("copy docker-archive:{archive} oci:{layout}"));
    serde_json::from_slice(&facts(&env.path(&layout)).only().config).unwrap()
}

#[test]
fn archives_without_configs_become_images() {
    let env = env();
    sources(&env);
    for (archive, name) in [
        ("bazel-legacy.tar", "docker.io/bazel/legacy:kitchen"),
        ("quay-squash.tar", "quay.example/team/kitchen:1.squash"),
        ("gcr-v1.tar", KITCHEN),
    ] {
        let made = facts_of(&env, archive);
        assert_eq!(made.only().names, [name.to_owned()].into(), "{archive}");
        let listed: BTreeSet<String> =
            files(&env.read(archive)).iter().filter(|(name, _)| name.ends_with("/layer.tar")).map(|(_, bytes)| digest(bytes)).collect();
        assert_eq!(made.only().diff_ids.iter().cloned().collect::<BTreeSet<_>>(), listed, "{archive}: layers");
        // Always the same image, from a pipe as well.
        let ran = env.run_with_input("copy - docker-archive:-", &env.read(archive)).exited(0);
        let piped = longshore_testkit::facts::archive(&ran.stdout, archive);
        assert_eq!(piped.essence(), made.essence(), "{archive} from a pipe");
    }
    // The order, the history and the config are those of the image that containerregistry took them from.
    let (v1, whole) = (facts_of(&env, "gcr-v1.tar"), facts_of(&env, "gcr-v22.tar"));
    assert_eq!(v1.only().diff_ids, whole.only().diff_ids);
    let (v1, whole): (Value, Value) =
        (serde_json::from_slice(&v1.only().config).unwrap(), serde_json::from_slice(&whole.only().config).unwrap());
    for key in ["architecture", "os", "created", "config", "rootfs"] {
        assert_eq!(v1[key], whole[key], "gcr-v1.tar: {key}");
    }
    let steps = |config: &Value| config["history"].as_array().unwrap().iter().map(|step| step["empty_layer"] == true).collect::<Vec<_>>();
    assert_eq!(steps(&v1), steps(&whole), "the step that made no layer is back");
    assert!(steps(&v1).contains(&true));
    let (v1, whole) = (v1["history"].as_array().unwrap(), whole["history"].as_array().unwrap());
    for (step, of_whole) in v1.iter().zip(whole).take(v1.len() - 1).filter(|(step, _)| step["empty_layer"] != true) {
        assert_eq!(step["created_by"], of_whole["created_by"]);
        assert_eq!(step["created"], of_whole["created"]);
    }
    // Of the others: what their JSON says.
    let legacy = config(&env, "bazel-legacy.tar");
    assert_eq!(legacy["config"]["Entrypoint"], json!(["/bin/hello"]));
    assert_eq!((&legacy["architecture"], &legacy["os"]), (&json!("amd64"), &json!("linux")));
    let squashed = config(&env, "quay-squash.tar");
    assert_eq!(squashed["config"]["Entrypoint"], json!(["/bin/hello"]));
    for config in [&legacy, &squashed] {
        assert!(config.get("id").is_none() && config.get("parent").is_none() && config.get("Size").is_none(), "{config}");
    }
}

#[test]
fn a_child_needs_its_base() {
    let env = env();
    sources(&env);
    let layer = "db937e2a79cd879e1379ed28829ca02d9ef22037f7f804ba15ee3870146748c3/a12e86156783739f43068ac453708b569572062c4127137b2a109b1c7f32b607.tar";
    for to in ["docker-archive:out.tar", "oci:out", "docker-archive:out.tar --dialect bazel"] {
        env.fails(1, &format!("copy docker-archive:bazel-child.tar {to}")).says(&["bazel-child.tar", layer, "--allow-missing-layers"]);
    }
    assert!(!env.path("out.tar").exists() && !env.path("out").exists());
    env.fails(1, "check docker-archive:bazel-child.tar");
    let child = |facts: &Facts| {
        let (_, image) = facts.images.iter().find(|(_, image)| image.names.contains("docker.io/bazel/child:kitchen")).unwrap();
        image.clone()
    };
    for sources in ["bazel-base.tar docker-archive:bazel-child.tar", "bazel-child.tar docker-archive:bazel-base.tar"] {
        for dialect in DIALECTS.iter().filter(|dialect| **dialect != "v1") {
            let out = format!("{dialect}.tar");
            env.ok(&format!("copy --force --dialect {dialect} docker-archive:{sources} docker-archive:{out}"));
            let made = facts(&env.path(&out));
            assert_eq!(made.images.len(), 2, "{dialect}");
            assert_eq!(child(&made).diff_ids.len(), 3, "{dialect}");
            env.ok(&format!("check docker-archive:{out}"));
        }
    }
    // Docker 20.10 fails on a parent in the archive whose history is not one step shorter.
    let parents = |archive: &str| {
        let manifest: Value = serde_json::from_slice(&files(&env.read(archive))["./manifest.json"]).unwrap();
        manifest.as_array().unwrap().iter().map(|image| image["Parent"].is_string()).collect::<Vec<_>>()
    };
    assert_eq!(parents("bazel.tar").into_iter().collect::<BTreeSet<_>>(), [false].into());
    assert_eq!(parents("bazel-child.tar"), [true]);
    // Out of the joined archive the child alone is whole.
    env.ok("copy docker-archive:bazel.tar:bazel/child:kitchen oci:alone");
    assert_eq!(child(&facts(&env.path("alone"))).diff_ids.len(), 3);
    // Any source that has the layer will do, under whatever name; one that has not does not help.
    env.ok("copy docker-archive:gcr-v22.tar docker-archive:bazel-child.tar oci:other");
    assert_eq!(child(&facts(&env.path("other"))).diff_ids.len(), 3);
    env.fails(1, "copy docker-archive:quay-squash.tar docker-archive:bazel-child.tar oci:none").says(&["bazel-child.tar", layer]);
}

/// What the child needs of its base, by dialect.
#[test]
fn a_partial_archive_stays_one_where_the_dialect_can() {
    let env = env();
    sources(&env);
    for dialect in ["classic", "podman", "crane", "bazel"] {
        env.ok(&format!("copy --dialect {dialect} --allow-missing-layers bazel-child.tar docker-archive:{dialect}.tar"));
        env.ok(&format!("copy bazel-base.tar {dialect}.tar oci:{dialect}"));
    }
    // Of the digest of a layer that is not there, nothing is made.
    for dialect in ["google", "v1"] {
        let ran = env.fails(1, &format!("copy --dialect {dialect} --allow-missing-layers bazel-child.tar docker-archive:{dialect}.tar"));
        ran.says(&["layer 0 is missing", "--dialect classic"]);
    }
}

/// containerregistry writes a config and an entry for each name, and Bazel's `repositories` has a repository once.
#[test]
fn names_of_one_image_and_of_one_repository() {
    let env = env();
    let (one, two) = (Image::new("x/app:1").name("x/app:latest").layer("a=1"), Image::new("x/app:2").layer("b=2"));
    env.write("in.tar", docker_archive(&[one.clone(), two.clone()]).bytes());
    env.ok("copy in.tar google.tar --dialect google");
    let [one, two] = [one, two].map(|image| image.id().replace("sha256:", ""));
    let names = members(&env.path("google.tar"));
    assert_eq!(names[..3], [format!("{one}.json"), format!("{one}.json"), format!("{two}.json")]);
    env.ok("check google.tar");
    env.ok("copy in.tar bazel.tar --dialect bazel");
    let repositories = env.ok("copy in.tar - --dialect bazel").stdout;
    let repositories = String::from_utf8(files(&repositories)["./repositories"].clone()).unwrap();
    let expected = format!("{{\n  \"x/app\": {{\n    \"1\": \"{one}\",\n    \"2\": \"{two}\"\n  }}\n}}");
    assert_eq!(repositories, expected);
}

/// A parent may come with layers in folders of any name, which may be names of other members.
#[test]
fn bazel_takes_names_of_layers_where_they_are_free() {
    let env = env();
    let image = Image::new("app:1").layer("a=1").layer("b=2").layer("c=3");
    let (id, one) = (image.id().replace("sha256:", ""), "1".repeat(64));
    let of_second = image.layers[1].diff_id().replace("sha256:", "");
    for layers in [
        ["p/1.tar", "z/1.tar", "q/1.tar"].map(str::to_owned),
        ["p/1.tar", "p/1.tar/x.tar", "q/1.tar"].map(str::to_owned),
        ["top/x", "repositories/y", "manifest.json/z"].map(str::to_owned),
        [format!("{one}/1"), format!("{one}/1.tar"), format!("{one}/.tar")],
        [format!("{one}/{of_second}.tar"), format!("{id}/x.tar"), format!("{id}/x")],
    ] {
        let entry = json!({ "Config": format!("{id}.json"), "Layers": layers, "RepoTags": ["app:1"], "Parent": format!("sha256:{one}") });
        let mut archive = Archive(vec![Member::file(format!("{id}.json"), image.config_bytes())]);
        archive.0.extend(layers.iter().zip(&image.layers).map(|(name, layer)| Member::file(name.as_str(), layer.bytes())));
        let archive = archive.plus(Member::file("manifest.json", json!([entry]).to_string()));
        env.write("in.tar", archive.bytes());
        env.ok("copy docker-archive:in.tar out.tar --dialect bazel --force");
        env.ok("check out.tar");
        assert_eq!(facts(&env.path("out.tar")).only().diff_ids, image.layers.iter().map(|layer| layer.diff_id()).collect::<Vec<_>>());
    }
}

#[test]
fn v1_says_what_it_leaves_out() {
    type Edit = fn(&mut Value);
    let env = env();
    let rows: [(Edit, &str); 5] = [
        (|config| config["history"] = json!([{ "created_by": "ADD" }]), "(x-unknown, the last step of the history, diff IDs)"),
        (|config| config["history"] = json!([{}]), "(x-unknown, diff IDs)"),
        (
            |config| config["history"] = json!([{ "created_by": "ENV", "empty_layer": true }, {}]),
            "(x-unknown, steps of the history without a layer, diff IDs)",
        ),
        // The settings of the image go with the step that has them.
        (
            |config| config["history"] = json!([{}, { "created_by": "CMD", "empty_layer": true }]),
            "config, x-unknown, steps of the history without",
        ),
        (|config| config["history"] = json!([{}, { "created_by": "ADD" }]), "(x-unknown, history, diff IDs)"),
    ];
    for (edit, says) in rows {
        let image = Image::new("app:1").layer("a=1").edit_config(edit);
        env.write("in.tar", docker_archive(&[image]).bytes());
        env.ok("copy in.tar v1.tar --dialect v1 --force").says(&[says]);
    }
}

/// A v1 archive: folders with a layer each, given by their ID and what their JSON holds besides.
fn v1(layers: &[(&str, Value)], repositories: Option<Value>) -> Archive {
    let mut archive = Archive(Vec::new());
    for (n, (id, more)) in layers.iter().enumerate() {
        let mut json = json!({ "id": id, "created": "2014-01-02T03:04:05Z" });
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        archive = archive
            .plus(Member::dir(format!("{id}/")))
            .plus(Member::file(format!("{id}/VERSION"), "1.0"))
            .plus(Member::file(format!("{id}/json"), json.to_string()))
            .plus(Member::file(format!("{id}/layer.tar"), tar::write(&[Member::file(format!("file{n}"), "text")])));
    }
    match repositories {
        Some(repositories) => archive.plus(Member::file("repositories", repositories.to_string())),
        None => archive,
    }
}

/// containerregistry leaves a last step without a layer out, and names it all the same.
#[test]
fn v1_keeps_the_name_of_a_top_that_it_leaves_out() {
    let env = env();
    env.write("file", b"text");
    env.ok("assemble app.tar --layer file=/etc/file --history one --history two --tag app:1");
    env.ok("copy app.tar docker-archive:one.tar --dialect v1");
    env.ok("copy one.tar docker-archive:two.tar --dialect v1");
    assert_eq!(env.read("one.tar"), env.read("two.tar"));
    assert_eq!(env.ok("inspect --json one.tar").json()["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn v1_archives_are_judged() {
    let id = |c: char| c.to_string().repeat(64);
    let (a, b, c) = (id('a'), id('b'), id('c'));
    let named = |top: &str| Some(json!({ "app": { "1": top } }));
    let parent = |id: &str| json!({ "parent": id });
    // The ID of a step without a layer that containerregistry leaves out.
    let left_out = |parent: &str| hex(format!("a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4 {parent}").as_bytes());
    let twice = left_out(&left_out(&a));
    let often = (0..300).fold(a.clone(), |id, _| left_out(&id));
    let (first, none) = (left_out(""), json!({}));
    let two = [(&a[..], none.clone()), (&b[..], parent(&a))];
    for (why, archive, steps) in [
        ("named", v1(&two, named(&b)), 2),
        ("no name and no top", v1(&two, None), 2),
        ("empty repositories", v1(&two, Some(json!({}))), 2),
        ("top", v1(&two, None).plus(Member::file("top", b.clone())), 2),
        ("no VERSION", v1(&two, named(&b)).without(&format!("{a}/VERSION")).without(&format!("{b}/VERSION")), 2),
        ("an empty parent", v1(&[(&a, json!({ "parent": "" })), (&b, parent(&a))], named(&b)), 2),
        ("a null parent", v1(&[(&a, json!({ "parent": null })), (&b, parent(&a))], named(&b)), 2),
        ("steps left out between", v1(&[(&a, none.clone()), (&b, parent(&twice))], named(&b)), 4),
        ("many steps left out between", v1(&[(&a, none.clone()), (&b, parent(&often))], named(&b)), 302),
        ("a step left out below all", v1(&[(&a, parent(&first)), (&b, parent(&a))], named(&b)), 3),
        ("a step left out on top", v1(&two, named(&left_out(&b))), 3),
        ("a name of a step that was left out on top", v1(&two, named(&id('d'))), 3),
        ("a top that was left out", v1(&two, None).plus(Member::file("top", id('d'))), 3),
        ("only one of the layers", v1(&[two[0].clone(), two[1].clone(), (&c, none.clone())], named(&b)), 2),
        ("names in dots", v1(&two, named(&b)).rename(|name| format!("./{name}")), 2),
    ] {
        let env = env();
        env.write("in.tar", archive.bytes());
        let ran = env.run("copy docker-archive:in.tar oci:out");
        assert_eq!(ran.code, Some(0), "{why}: {}", ran.stderr);
        let made = facts(&env.path("out"));
        assert_eq!(made.only().diff_ids.len(), 2, "{why}");
        let config: Value = serde_json::from_slice(&made.only().config).unwrap();
        assert_eq!(config["history"].as_array().unwrap().len(), steps, "{why}: {config}");
        env.ok("check docker-archive:in.tar");
        env.ok("check in.tar");
        env.ok("copy docker-archive:in.tar - --dialect v1");
    }
    let absent = id('d');
    for (why, archive, mentions) in [
        ("an absent parent", v1(&[(&b, parent(&absent))], named(&b)), vec![&absent[..], &b]),
        ("an absent parent without a name", v1(&[(&b, parent(&absent))], None), vec![&absent, &b]),
        ("its own parent", v1(&[(&a, parent(&a))], named(&a)), vec![&a]),
        ("a cycle", v1(&[(&a, parent(&b)), (&b, parent(&a))], named(&b)), vec!["lead back"]),
        ("a cycle without a name", v1(&[(&a, parent(&b)), (&b, parent(&a))], None), vec!["in.tar"]),
        ("two tops without a name", v1(&[(&a, json!({})), (&b, json!({}))], None), vec!["2 layers"]),
        ("two names of nothing", v1(&[two[0].clone(), two[1].clone(), (&c, none.clone())], named(&absent)), vec![&absent]),
        ("a top of nothing", v1(&[(&a, none.clone()), (&b, none.clone())], None).plus(Member::file("top", absent.clone())), vec![&absent]),
        ("a name that leads to no ID", v1(&two, named("../x")), vec!["../x"]),
        ("a parent in another case", v1(&[(&a, none.clone()), (&b, json!({ "Parent": a }))], named(&b)), vec!["\"Parent\""]),
        ("a digest in a tag", v1(&two, Some(json!({ "app": { (format!("1@sha256:{a}")): b } }))), vec!["where a tag belongs"]),
        ("no layer", v1(&two, named(&b)).without(&format!("{a}/layer.tar")), vec![&a]),
        ("another ID in the JSON", v1(&[(&a, json!({ "id": absent }))], named(&a)), vec![&a, &absent]),
        ("a parent that is no text", v1(&[(&a, json!({ "parent": 7 }))], named(&a)), vec![&a]),
        ("no JSON", v1(&two, named(&b)).replace(&format!("{b}/json"), "{"), vec![&b]),
        ("names that are no list", v1(&two, Some(json!(["app"]))), vec!["repositories"]),
        ("a name that is none", v1(&two, Some(json!({ "App": { "1": b } }))), vec!["repositories"]),
    ] {
        let env = env();
        env.write("in.tar", archive.bytes());
        for command in ["copy docker-archive:in.tar oci:out", "copy docker-archive:in.tar docker-archive:out.tar"] {
            let ran = env.run(command);
            assert_eq!(ran.code, Some(1), "{why}: `{command}` said {}", ran.stderr);
            assert!(matches!(ran.stderr.lines().count(), 1..=2) && ran.stderr.contains("in.tar"), "{why}: {}", ran.stderr);
            for mention in &mentions {
                assert!(ran.stderr.contains(mention), "{why}: no {mention} in {}", ran.stderr);
            }
        }
        assert!(!env.path("out").exists() && !env.path("out.tar").exists(), "{why}");
        env.fails(1, "check docker-archive:in.tar");
    }
}

/// An ID that is not there may be that of a step that was left out, above any layer: that is looked for within bounds.
#[test]
fn a_missing_parent_among_many_layers_is_found_missing_soon() {
    let env = env();
    let named = (0..49_000).map(|n| hex(format!("{n}").as_bytes()));
    let mut archive = Archive(named.map(|id| Member::file(format!("{id}/json"), "{}")).collect());
    let child = v1(&[(&"a".repeat(64), json!({ "parent": "d".repeat(64) }))], Some(json!({ "app": { "1": "a".repeat(64) } })));
    archive.0.extend(child.0);
    env.write("in.tar", archive.bytes());
    let begun = Instant::now();
    env.fails(1, "copy in.tar oci:out").says(&["its parent", "is missing"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
}

/// Many names of one image, whose JSON is read once.
#[test]
fn names_of_a_v1_image_cost_little() {
    let env = env();
    let tags: serde_json::Map<String, Value> = (0..500).map(|n| (format!("t{n}"), "a".repeat(64).into())).collect();
    let long = json!({ "comment": "c".repeat(100_000) });
    env.write("in.tar", v1(&[(&"a".repeat(64), long)], Some(json!({ "app": tags }))).bytes());
    env.ok("copy in.tar oci:out");
    assert_eq!(facts(&env.path("out")).only().names.len(), 500);
}

#[test]
fn v1_holds_no_image_that_nothing_leads_to() {
    let env = env();
    sources(&env);
    env.fails(1, "copy --dialect v1 ./docker20-by-id.tar ./bazel-base.tar docker-archive:out.tar").says(&["has no name", "out.tar"]);
    assert!(!env.path("out.tar").exists());
    env.ok("copy --dialect google ./docker20-by-id.tar ./bazel-base.tar docker-archive:out.tar");
    assert_eq!(facts(&env.path("out.tar")).images.len(), 2);
    // Two whose history ends with a step without a layer; of one such, and one other, each is found.
    let image = |name: &str, layer: &str| {
        Image::new(name).layer(layer).edit_config(|config| {
            config["history"] = json!([{ "created_by": "ADD" }, { "created_by": "CMD", "empty_layer": true }]);
        })
    };
    let (one, two, plain) = (image("one:1", "a=1"), image("two:2", "b=2"), Image::new("three:3").layer("c=3"));
    env.write("hidden.tar", docker_archive(&[one.clone(), two]).bytes());
    env.fails(1, "copy --dialect v1 ./hidden.tar docker-archive:out.v1.tar").says(&["made no layer", "out.v1.tar", "--dialect google"]);
    env.write("told.tar", docker_archive(&[one.clone(), plain.clone()]).bytes());
    env.ok("copy --dialect v1 ./told.tar docker-archive:told.v1.tar");
    env.ok("copy ./told.v1.tar oci:told").says(&["made none"]);
    let told = facts(&env.path("told"));
    for image in [one, plain] {
        let found = told.images.values().find(|found| found.names.contains(&full_name(&image.names[0]))).unwrap();
        assert_eq!(found.diff_ids, [image.layers[0].diff_id()]);
    }
    env.write("bare.tar", docker_archive(&[Image::new("bare:1")]).bytes());
    env.fails(1, "copy --dialect v1 ./bare.tar docker-archive:out.v1.tar").says(&["no layer"]);
    env.ok("copy --dialect v1 ./docker20-by-id.tar docker-archive:alone.tar");
    assert!(members(&env.path("alone.tar")).contains(&"top".to_owned()));
}

#[test]
fn google_dirs_are_judged() {
    let env = env();
    sources(&env);
    let changed = |name: &str, file: &str, bytes: &[u8]| {
        env.fixture("from/gcr-fast", name);
        assert_ne!(env.read(&format!("{name}/{file}")), bytes, "{name}: nothing changes");
        env.write(&format!("{name}/{file}"), bytes);
        format!("google-dir:{name}")
    };
    let text = |file: &str| String::from_utf8(env.read(&format!("gcr-fast/{file}"))).unwrap();
    let other = "0".repeat(64);
    let (manifest, config) = (text("manifest.json"), text("config.json"));
    let layers = text("000.sha256");
    let mut flipped = env.read("gcr-fast/001.tar.gz");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let rewritten = manifest.replace(layers.trim(), &other);
    for (name, file, bytes) in [
        ("wrong-digest", "digest", format!("sha256:{other}").into_bytes()),
        ("wrong-manifest", "manifest.json", format!("{manifest} ").into_bytes()),
        ("wrong-config", "config.json", config.replacen("linux", "Linux", 1).into_bytes()),
        ("wrong-beside", "000.sha256", other.clone().into_bytes()),
        ("no-digest", "000.sha256", b"none".to_vec()),
        ("wrong-layer", "001.tar.gz", flipped),
        ("cut-layer", "000.tar.gz", env.read("gcr-fast/000.tar.gz")[..500].to_vec()),
    ] {
        let image = changed(name, file, &bytes);
        for to in ["oci:out", "docker-archive:out.tar"] {
            let ran = env.fails(1, &format!("copy {image} {to}"));
            assert!(ran.stderr.contains(name) && matches!(ran.stderr.lines().count(), 1..=3), "{name}: {}", ran.stderr);
        }
        assert!(!env.path("out").exists() && !env.path("out.tar").exists(), "{name}");
        env.fails(1, &format!("check {image}"));
    }
    // A manifest that is consistent with its digest, and lists another layer than there is.
    let image = changed("other-layer", "manifest.json", rewritten.as_bytes());
    env.write("other-layer/digest", digest(rewritten.as_bytes()));
    env.fails(1, &format!("copy {image} oci:out")).says(&["000.sha256"]);
    // The fixture itself is off in the size of its config, and a layer's may be off, too: that is said, and no more.
    env.ok("copy google-dir:gcr-fast oci:fixture").says(&["manifest.json", "1543"]);
    env.ok("check google-dir:gcr-fast");
    let size = env.read("gcr-fast/000.tar.gz").len();
    let off = manifest.replace(&format!("\"size\": {size}"), "\"size\": 7").replace(&format!("\"size\":{size}"), "\"size\":7");
    let image = changed("off", "manifest.json", off.as_bytes());
    env.write("off/digest", digest(off.as_bytes()));
    env.ok(&format!("copy {image} oci:off-copied")).says(&["000.tar.gz", "7"]);
    assert_eq!(facts(&env.path("off-copied")).essence(), facts(&env.path("fixture")).essence());
    env.fails(1, "copy google-dir:gcr-fast:app:1 oci:named");
    // And written: what that tool's own reader expects.
    env.ok("copy google-dir:gcr-fast google-dir:made");
    let names: BTreeSet<String> = longshore_testkit::tree(&env.path("made")).into_keys().collect();
    assert_eq!(names, longshore_testkit::tree(&env.path("gcr-fast")).into_keys().collect());
    for name in names.iter().filter(|name| !matches!(name.as_str(), "manifest.json" | "digest")) {
        same(&env.read(&format!("made/{name}")), &env.read(&format!("gcr-fast/{name}")), name);
    }
    assert_eq!(text("digest").len(), env.read("made/digest").len());
    assert_eq!(digest(&env.read("made/manifest.json")).into_bytes(), env.read("made/digest"));
}

// --- docker -------------------------------------------------------------------------------------------------------------

#[test]
fn docker_loads_and_runs_every_dialect() {
    let engine = match Dockerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped("dialects: docker", &why),
    };
    let env = env();
    sources(&env);
    for source in
        ["docker20-three-names.tar", "docker20-by-id.tar", "skopeo-oci", "gcr-v22.tar", "gcr-v1.tar", "bazel-child.tar", "podman4-oci-dir"]
    {
        let expected = facts_of(&env, source);
        // Not v1: docker wants the JSON of steps that containerregistry leaves out.
        for dialect in DIALECTS.iter().filter(|dialect| **dialect != "v1") {
            let why = format!("{source} in {dialect}");
            let out = format!("{dialect}-{source}");
            env.ok(&format!("copy --dialect {dialect} {} docker-archive:{out}", arguments(source)));
            engine.clear();
            let loaded: BTreeSet<String> = engine
                .load(&env.path(&out))
                .iter()
                .map(|name| if name.starts_with("sha256:") { name.clone() } else { full_name(name) })
                .collect();
            let names: BTreeSet<String> = expected.names().into_values().flatten().collect();
            if names.is_empty() {
                assert_eq!(loaded, expected.images.keys().cloned().collect(), "{why}");
                assert_eq!(engine.run(expected.images.keys().next().unwrap()).trim(), "hello from the image", "{why}");
                continue;
            }
            assert_eq!(loaded, names, "{why}: the names that docker loaded");
            for (id, image) in &expected.images {
                for name in &image.names {
                    assert_eq!(engine.id(name), *id, "{why}: the image ID of {name}");
                    let layers = engine.ok(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", name]);
                    assert_eq!(serde_json::from_str::<Vec<String>>(layers.trim()).unwrap(), image.diff_ids, "{why}: {name}");
                    assert_eq!(engine.run(name).trim(), "hello from the image", "{why}: what {name} prints");
                }
            }
        }
    }
}

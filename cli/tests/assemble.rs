//! Building: `assemble`, `edit`, `rebase`, and what their flags do.

use longshore_testkit::facts::{Image as Facts, facts, full_name};
use longshore_testkit::images::{Image, Layer, Layout, Packing, docker_archive, pack};
use longshore_testkit::peers::{Dockerd, skipped};
use longshore_testkit::tar::{self, Member};
use longshore_testkit::{TestEnv, assert_same_bytes};
use serde_json::{Value, json};

use crate::env;

/// The config of the only image of an output.
fn config(env: &TestEnv, path: &str) -> Value {
    serde_json::from_slice(&only(env, path).config).unwrap()
}

fn only(env: &TestEnv, path: &str) -> Facts {
    facts(&env.path(path)).only().clone()
}

/// Runs the binary with words that may hold blanks.
#[track_caller]
fn ok(env: &TestEnv, args: &[&str]) {
    let done = env.command(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    env.assert_no_leftovers();
}

/// Writes the layers of `kitchen` as files, each compressed in another way, and gives their names, base first.
fn kitchen_layers(env: &TestEnv) -> Vec<String> {
    let members = tar::read(&std::fs::read(longshore_testkit::fixture("kitchen.tar")).unwrap());
    let data = |name: &str| members.iter().find(|member| member.text() == name).unwrap().data.clone();
    let manifest: Value = serde_json::from_slice(&data("manifest.json")).unwrap();
    env.write("config.json", data(manifest[0]["Config"].as_str().unwrap()));
    let layers = manifest[0]["Layers"].as_array().unwrap();
    let packings = [Packing::Plain, Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2];
    let write = |(at, (layer, packing)): (usize, (&Value, Packing))| {
        let name = format!("layer-{at}");
        env.write(&name, pack(&data(layer.as_str().unwrap()), packing));
        name
    };
    layers.iter().zip(packings).enumerate().map(write).collect()
}

const KITCHEN: [&str; 29] = [
    "--entrypoint",
    "/bin/hello",
    "--null-cmd",
    "--env",
    "PATH=/bin",
    "--env",
    "KEEP=<&>",
    "--user",
    "0:0",
    "--workdir",
    "/app",
    "--label",
    "z.last=1",
    "--label",
    "a.first=ünï",
    "--expose",
    "80",
    "--volume",
    "/data",
    "--stop-signal",
    "SIGINT",
    "--architecture",
    "amd64",
    "--os",
    "linux",
    "--author",
    "kitchen",
    "--created",
    "2024-01-02T03:04:05.678901234Z",
];

fn assemble_kitchen<'a>(destination: &'a str, layers: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let layers = layers.iter().flat_map(|layer| ["--layer", layer.as_str()]);
    ["assemble", destination].into_iter().chain(layers).chain(KITCHEN).chain(more.iter().copied()).collect()
}

#[test]
fn kitchen_is_made_of_its_layers_and_flags() {
    let env = env();
    let layers = kitchen_layers(&env);
    env.fixture("kitchen.tar", "kitchen.tar");
    let kitchen = facts(&env.path("kitchen.tar")).only().clone();
    let before: Value = serde_json::from_slice(&kitchen.config).unwrap();
    for to in ["docker-archive:a.tar", "oci:a", "dir:d", "oci-archive:a-oci.tar"] {
        ok(&env, &assemble_kitchen(to, &layers, &["--tag", "kitchen:1", "--history", "ADD base"]));
        let path = to.split_once(':').unwrap().1;
        let made = only(&env, path);
        assert_eq!(made.diff_ids, kitchen.diff_ids, "{to}");
        let config = config(&env, path);
        for key in ["architecture", "os", "author", "created"] {
            assert_eq!(config[key], before[key], "{to}: {key}");
        }
        for key in ["User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal"] {
            assert_eq!(config["config"][key], before["config"][key], "{to}: {key}");
        }
        let step = |text: &str| json!({ "created": before["created"], "created_by": text, "author": "kitchen" });
        let made = "longshore assemble";
        assert_eq!(config["history"], json!(["ADD base", made, made, made, made].map(step)));
        env.ok(&format!("check {to}"));
    }
    // The whole config from a file: then nothing differs, but the blanks between the keys.
    let flags: Vec<_> = layers.iter().flat_map(|layer| ["--layer", layer.as_str()]).collect();
    ok(&env, &[&["assemble", "b.tar", "--config", "config.json"], flags.as_slice()].concat());
    assert_eq!(config(&env, "b.tar"), before);
}

#[test]
fn docker_runs_what_is_assembled() {
    let engine = match Dockerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped("assemble: docker", &why),
    };
    let env = env();
    let layers = kitchen_layers(&env);
    ok(&env, &assemble_kitchen("a.tar", &layers, &["--tag", "kitchen:made"]));
    assert_eq!(engine.load(&env.path("a.tar")), ["kitchen:made"]);
    assert_eq!(engine.run("kitchen:made").trim(), "hello from the image");
}

/// A folder with `base.tar` (two layers, variables and a label), `app.tar` on it, and `more.tar`, a layer.
fn with_images() -> TestEnv {
    let env = env();
    let base = || Image::new("base:1").layer("etc/\netc/one=1").with(Layer::new("two=2").packed(Packing::Gzip));
    let set = |config: &mut Value| {
        config["config"]["Env"] = json!(["PATH=/bin", "LANG=C"]);
        config["config"]["Labels"] = json!({ "of": "base" });
    };
    env.write("base.tar", docker_archive(&[base().edit_config(set)]).bytes());
    let app = |config: &mut Value| config["config"]["Cmd"] = json!(["/app"]);
    env.write("app.tar", docker_archive(&[Image { names: vec!["app:1".to_owned()], ..base() }.layer("app=3").edit_config(app)]).bytes());
    env.write("new.tar", docker_archive(&[Image::new("base:2").layer("etc/\netc/one=9")]).bytes());
    env.write("more.tar", tar::write(&[Member::file("more", "4")]));
    env
}

#[test]
fn layers_are_put_on_a_base() {
    let env = with_images();
    let base = only(&env, "base.tar");
    let before: Value = serde_json::from_slice(&base.config).unwrap();
    env.ok("assemble out.tar --base base.tar --layer more.tar --env PATH=/app:$PATH --env NEW=${LANG}$NO --label of=app --label app=1 --tag app:2 --tag app:3");
    let made = only(&env, "out.tar");
    assert_eq!(made.names, ["app:2", "app:3"].map(full_name).into());
    let more = longshore_testkit::digest(&env.read("more.tar"));
    assert_eq!(made.diff_ids, [base.diff_ids, vec![more]].concat());
    let config = config(&env, "out.tar");
    assert_eq!(config["config"]["Env"], json!(["PATH=/app:/bin", "LANG=C", "NEW=C$NO"]));
    assert_eq!(config["config"]["Labels"], json!({ "of": "app", "app": "1" }));
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
    let steps = config["history"].as_array().unwrap();
    assert_eq!(steps[..steps.len() - 1], before["history"].as_array().unwrap()[..]);
    assert_eq!(steps.last().unwrap(), &json!({ "created": "1970-01-01T00:00:00Z", "created_by": "longshore assemble" }));
    assert_eq!(config["config"]["Healthcheck"], before["config"]["Healthcheck"], "what we do not know stays");
    // It is not called as its base.
    env.ok("assemble nameless.tar --base base.tar --layer more.tar");
    assert!(only(&env, "nameless.tar").names.is_empty());
    // From a pipe, into a pipe.
    let piped = env.run_with_input("assemble - --base base.tar --layer -", &env.read("more.tar")).exited(0);
    assert_eq!(piped.stdout, env.read("nameless.tar"));
}

#[test]
fn an_index_gives_the_base_of_one_platform() {
    let env = env();
    env.fixture("from/skopeo-oci-multiplatform", "multi");
    env.write("more.tar", tar::write(&[Member::file("more", "4")]));
    env.ok("assemble amd64.tar --base oci:multi --platform linux/amd64 --layer more.tar");
    env.ok("assemble arm64.tar --base oci:multi --platform linux/arm64 --layer more.tar");
    assert_eq!([config(&env, "amd64.tar")["architecture"].clone(), config(&env, "arm64.tar")["architecture"].clone()], ["amd64", "arm64"]);
    env.fails(1, "assemble s390x.tar --base oci:multi --platform linux/s390x --layer more.tar").says(&["linux/s390x", "linux/amd64"]);
}

#[test]
fn times_come_from_the_flag_the_environment_or_1970() {
    let env = with_images();
    let made = |name: &str, epoch: &str, args: &[&str]| {
        let words = [&["assemble", name, "--layer", "more.tar"], args].concat();
        let done = env.command(words).env("SOURCE_DATE_EPOCH", epoch).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let config = config(&env, name);
        assert_eq!(config["created"], config["history"][0]["created"]);
        config["created"].as_str().unwrap().to_owned()
    };
    assert_eq!(made("a.tar", "", &[]), "1970-01-01T00:00:00Z");
    assert_eq!(made("b.tar", "1700000000", &[]), "2023-11-14T22:13:20Z");
    assert_eq!(made("c.tar", "1700000000", &["--created", "1"]), "1970-01-01T00:00:01Z");
    assert_eq!(made("d.tar", "", &["--created", "1700000000500"]), "2023-11-14T22:13:20.5Z");
    assert_eq!(made("e.tar", "", &["--created", "2024-01-02T03:04:05Z"]), "2024-01-02T03:04:05Z");
}

#[test]
fn values_come_from_files_and_stamps() {
    let env = with_images();
    env.write("text", "from a file {VERSION}");
    env.write("stable", "VERSION 1\nUSER me\n");
    env.write("volatile", "VERSION 2\n");
    env.ok("assemble out.tar --layer more.tar --stamp-info stable --stamp-info volatile --label a=@text --label b={USER}{NO} --author @@me --tag app:{VERSION}");
    assert_eq!(only(&env, "out.tar").names, [full_name("app:2")].into());
    let config = config(&env, "out.tar");
    assert_eq!(config["config"]["Labels"], json!({ "a": "from a file 2", "b": "me{NO}" }));
    assert_eq!(config["author"], "@me");
    env.fails(1, "assemble no.tar --layer more.tar --user @absent").says(&["--user", "absent"]);
    env.fails(1, "assemble no.tar --layer more.tar --stamp-info absent").says(&["--stamp-info", "absent"]);
}

#[test]
fn names_in_files_have_no_newline_and_texts_keep_theirs() {
    let env = with_images();
    for (name, text) in [("user", "me\n"), ("dir", "/app\r\n"), ("text", "a\n"), ("none", "\n")] {
        env.write(name, text);
    }
    env.ok("assemble out.tar --layer more.tar --user @user --workdir @dir --volume @dir --label a=@text --cmd @text --variant @none");
    let config = config(&env, "out.tar");
    assert_eq!((&config["config"]["User"], &config["config"]["WorkingDir"]), (&json!("me"), &json!("/app")));
    assert_eq!(config["config"]["Volumes"], json!({ "/app": {} }));
    assert_eq!((&config["config"]["Labels"]["a"], &config["config"]["Cmd"]), (&json!("a\n"), &json!(["a\n"])));
    assert_eq!(config.get("variant"), None);
    env.fails(2, "assemble no.tar --layer more.tar --architecture @none").says(&["--architecture", "empty"]);
    std::fs::File::create(env.path("huge")).unwrap().set_len(1 << 32).unwrap();
    for flags in ["--label a=@huge", "--config huge", "--stamp-info huge", "--dialect bazel --metadata huge"] {
        env.fails(1, &format!("assemble no.tar --layer more.tar {flags}")).says(&["huge", "more than"]);
    }
}

#[test]
fn values_come_from_named_pipes_and_nobody_waits_for_them_in_vain() {
    let env = with_images();
    let pipe = env.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, r#"{"author":"piped"}"#).unwrap()
    });
    env.ok("assemble out.tar --layer more.tar --config pipe");
    writer.join().unwrap();
    assert_eq!(config(&env, "out.tar")["author"], "piped");
    for flags in [["--config", "pipe"], ["--user", "@pipe"], ["--stamp-info", "pipe"]] {
        let words = ["assemble", "no.tar", "--layer", "more.tar"].iter().chain(&flags);
        let child = env.command(words).stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        longshore_testkit::env::interrupt(&child);
        longshore_testkit::env::wait(child, flags.join(" ")).exited(130);
    }
}

#[test]
fn a_merged_config_gives_its_history_where_it_fits() {
    let env = with_images();
    let history = |name: &str| -> Vec<String> {
        let steps = config(&env, name)["history"].as_array().cloned().unwrap_or_default();
        steps.iter().map(|step| step["created_by"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let write = |steps: &[&str]| {
        let steps: Vec<_> = steps.iter().map(|text| json!({ "created_by": text, "empty_layer": text.starts_with("no ") })).collect();
        env.write("config.json", json!({ "history": steps, "os": null }).to_string());
    };
    let assemble = |to: &str| env.ok(&format!("assemble {to} --base base.tar --layer more.tar --config config.json"));
    let base = history("base.tar");
    write(&["a", "no b"]);
    assert!(!assemble("added.tar").stderr.contains("history"));
    assert_eq!(history("added.tar"), [base.clone(), vec!["a".to_owned(), "no b".to_owned()]].concat());
    assert_eq!(config(&env, "added.tar")["os"], "linux", "null says nothing");
    write(&["a", "b", "no c", "d"]);
    assert!(!assemble("all.tar").stderr.contains("history"));
    assert_eq!(history("all.tar"), ["a", "b", "no c", "d"]);
    write(&["a", "b"]);
    assert!(assemble("neither.tar").says(&["history", "2 layers", "left out"]).stderr.contains("3"));
    assert_eq!(history("neither.tar"), [base, vec!["longshore assemble".to_owned()]].concat());
    env.ok("edit base.tar edited.tar --config config.json");
    assert_eq!(history("edited.tar"), ["a", "b"]);
    env.write("config.json", "[1]");
    env.fails(1, "edit base.tar no.tar --config config.json").says(&["config.json", "array"]);
}

#[test]
fn a_link_to_a_directory_is_the_directory() {
    let env = env();
    std::fs::create_dir(env.path("dir")).unwrap();
    env.write("dir/file", "x");
    std::os::unix::fs::symlink("dir", env.path("link")).unwrap();
    env.ok("assemble dir.tar --layer dir");
    env.ok("assemble link.tar --layer link");
    assert_same_bytes(&env.path("dir.tar"), &env.path("link.tar"), "a link is what it points to");
}

#[test]
fn bazel_archives_name_layers_and_parents() {
    let env = with_images();
    env.write("id", "from-a-file\n");
    env.ok("assemble out.tar --base base.tar --layer mine=more.tar --layer @id=more.tar --dialect bazel --tag app:1");
    let members = tar::read(&env.read("out.tar"));
    let manifest = &members.iter().find(|member| member.text() == "./manifest.json").unwrap().data;
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let base = facts(&env.path("base.tar")).images.keys().next().unwrap().clone();
    assert_eq!(manifest[0]["Parent"], base);
    let layers: Vec<_> = manifest[0]["Layers"].as_array().unwrap().iter().map(|layer| layer.as_str().unwrap()).collect();
    let (folder, own) = (base.replace("sha256:", ""), manifest[0]["Config"].as_str().unwrap().replace(".json", ""));
    assert!(layers[0].starts_with(&folder) && layers[1].starts_with(&folder), "{layers:?}");
    assert_eq!(layers[2..], [format!("{own}/mine.tar"), format!("{own}/mine.tar")], "the same bytes are there once");
    // Read and written again, it is the same.
    env.ok("copy out.tar again.tar --dialect bazel");
    assert_same_bytes(&env.path("out.tar"), &env.path("again.tar"), "names and parent stay");
    env.ok("assemble alone.tar --layer mine=more.tar --dialect bazel");
    assert!(tar::read(&env.read("alone.tar")).iter().any(|member| member.text().ends_with("/mine.tar")));
    env.ok("copy alone.tar alone-again.tar --dialect bazel");
    assert_same_bytes(&env.path("alone.tar"), &env.path("alone-again.tar"), "names stay");
}

#[test]
fn bazel_archives_have_members_of_2013_on_demand() {
    let env = with_images();
    env.ok("copy base.tar v1.tar --dialect v1");
    let chain = tar::read(&env.read("v1.tar"));
    let top = chain[0].text().split('/').next().unwrap().to_owned();
    env.write("metadata.json", json!({ "id": "0a", "parent": top, "config": {} }).to_string());
    env.ok("assemble out.tar --base base.tar --legacy-base v1.tar --metadata metadata.json --layer more.tar --dialect bazel --tag app:1");
    let members = tar::read(&env.read("out.tar"));
    let names: Vec<_> = members.iter().map(Member::text).collect();
    let at = names.iter().position(|name| name == "./top").unwrap();
    assert_eq!(members[at].data, b"0a");
    let expected = ["0a", top.as_str()].map(|id| ["", "VERSION", "layer.tar", "json"].map(|name| format!("./{id}/{name}"))).concat();
    assert_eq!(names[at + 1..at + 9], expected);
    assert_eq!(members[at + 3].data, env.read("more.tar"));
    assert_eq!(members[at + 4].data, env.read("metadata.json"));
    for (ours, theirs) in members[at + 5..].iter().filter(|member| member.kind == b'0').zip(&chain).take(6) {
        assert_eq!((ours.text(), &ours.data), (format!("./{}", theirs.text()), &theirs.data));
    }
    let manifest: Value = serde_json::from_slice(&members.iter().find(|member| member.text() == "./manifest.json").unwrap().data).unwrap();
    assert_eq!(manifest[0]["Layers"][2], "0a/layer.tar");
    env.ok("check out.tar");
    // Alone.
    env.ok("assemble alone.tar --metadata metadata.json --layer more.tar --dialect bazel");
    let names: Vec<_> = tar::read(&env.read("alone.tar")).iter().map(Member::text).collect();
    assert_eq!(names[1..], ["./top", "./0a/", "./0a/VERSION", "./0a/layer.tar", "./0a/json", "./manifest.json"].map(str::to_owned));
    env.fails(2, "assemble no.tar --metadata metadata.json --layer more.tar");
    env.fails(1, "assemble no.tar --metadata metadata.json --layer more.tar --layer more.tar --dialect bazel").says(&["one layer"]);
    env.fails(1, "assemble no.tar --metadata metadata.json --legacy-base base.tar --layer more.tar --dialect bazel").says(&["v1 JSON"]);
    env.write("other.json", r#"{"id":"0a","parent":"0b"}"#);
    env.fails(1, "assemble no.tar --metadata other.json --legacy-base v1.tar --layer more.tar --dialect bazel").says(&["0b", &top]);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let env = env();
    let layers = kitchen_layers(&env);
    for (at, threads) in [(0, "1"), (1, "1"), (2, "4")] {
        for to in ["docker-archive:{}.tar", "oci:{}-oci", "dir:{}-dir"] {
            let to = to.replace("{}", &at.to_string());
            ok(&env, &assemble_kitchen(&to, &layers, &["--threads", threads, "--tag", "a:1", "--compress", "gzip"]));
        }
    }
    for at in ["1", "2"] {
        for kind in [".tar", "-oci", "-dir"] {
            assert_same_bytes(&env.path(&format!("0{kind}")), &env.path(&format!("{at}{kind}")), "two runs");
        }
    }
}

#[test]
fn what_cannot_be_a_layer_is_refused() {
    let env = with_images();
    env.write("text", "no tar");
    env.write("none", "");
    env.fails(1, "assemble no.tar --layer text").says(&["text", "not a tar archive"]);
    env.fails(1, "assemble no.tar --layer absent.tar").says(&["absent.tar"]);
    assert!(!env.path("no.tar").exists());
    // No bytes are a step without a layer.
    env.ok("assemble out.tar --layer none --layer more.tar");
    let config = config(&env, "out.tar");
    assert_eq!(only(&env, "out.tar").diff_ids.len(), 1);
    let empty: Vec<_> = config["history"].as_array().unwrap().iter().map(|step| step["empty_layer"].clone()).collect();
    assert_eq!(empty, [json!(true), Value::Null]);
    env.ok("check out.tar");
}

// --- edit -----------------------------------------------------------------------------------------------------------

#[test]
fn an_edit_keeps_layers_and_all_that_is_not_named() {
    let env = env();
    for (fixture, image) in [
        ("from/skopeo-oci", "oci:in"),
        ("from/skopeo-oci-zstd", "oci:zstd"),
        ("from/docker29-one.tar", "docker-archive:docker29.tar"),
        ("from/podman4-docker-dir", "dir:podman"),
    ] {
        let path = image.split_once(':').unwrap().1;
        env.fixture(fixture, path);
        let before = only(&env, path);
        env.ok(&format!("edit {image} oci:out-{path} --label new=1 --null-entrypoint --cmd /bin/sh --cmd -c --compress keep"));
        let (after, config) = (only(&env, &format!("out-{path}")), config(&env, &format!("out-{path}")));
        assert_eq!((&after.diff_ids, &after.names, &after.packing), (&before.diff_ids, &before.names, &before.packing), "{fixture}");
        let mut expected: Value = serde_json::from_slice(&before.config).unwrap();
        expected["config"]["Labels"]["new"] = json!("1");
        expected["config"]["Entrypoint"] = Value::Null;
        expected["config"]["Cmd"] = json!(["/bin/sh", "-c"]);
        assert_eq!(config, expected, "{fixture}");
        if let Some(manifest) = &before.manifest {
            let (old, new): (Value, Value) =
                (serde_json::from_slice(manifest).unwrap(), serde_json::from_slice(&after.manifest.unwrap()).unwrap());
            let digests =
                |manifest: &Value| manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].clone()).collect::<Vec<_>>();
            assert_eq!(digests(&new), digests(&old), "{fixture}");
            assert_eq!(new["config"]["digest"], longshore_testkit::digest(&after.config), "{fixture}");
        }
        env.ok(&format!("check oci:out-{path}"));
    }
}

#[test]
fn an_edit_keeps_annotations_and_unknown_keys_of_every_platform() {
    let env = env();
    let mut layout = Layout::new();
    let image = |platform: &str| {
        Image::new("").platform(platform).layer("a=1").annotate("kept", "yes").edit_manifest(|manifest| manifest["x-own"] = json!(1.5))
    };
    let manifests = [layout.image(&image("linux/amd64")), layout.image(&image("linux/arm64"))];
    let index = layout.index(&manifests);
    layout.root(index, Some("a:1"));
    layout.archive().write_dir(&env.path("in"));
    env.ok("edit oci:in oci:out --user 1000 --compress keep");
    let after = facts(&env.path("out"));
    assert_eq!(after.images.len(), 2);
    for image in after.images.values() {
        let config: Value = serde_json::from_slice(&image.config).unwrap();
        let manifest: Value = serde_json::from_slice(image.manifest.as_ref().unwrap()).unwrap();
        assert_eq!(
            (&config["config"]["User"], &manifest["annotations"], &manifest["x-own"]),
            (&json!("1000"), &json!({ "kept": "yes" }), &json!(1.5))
        );
    }
    env.fails(1, "edit oci:in oci:no --architecture s390x").says(&["2 platforms", "--platform"]);
    // One that is chosen becomes what is said, and the others stay behind.
    for to in ["oci:moved", "docker-archive:moved.tar"] {
        env.ok(&format!("edit oci:in {to} --platform linux/arm64 --architecture s390x --compress keep"));
        let path = to.split_once(':').unwrap().1;
        let moved: Value = serde_json::from_slice(&only(&env, path).config).unwrap();
        assert_eq!(moved["architecture"], "s390x", "{to}");
    }
    env.ok("check oci:moved");
    env.fails(1, "edit oci:in oci:no --platform linux/s390x --user 1").says(&["linux/s390x", "linux/amd64, linux/arm64"]);
    // Where nothing changes, not even the digest does.
    env.ok("edit oci:in oci:same --compress keep");
    assert_eq!(facts(&env.path("in")).roots, facts(&env.path("same")).roots);
    // What says the platform says the new one.
    env.ok("edit oci:in oci:one --platform linux/arm64 --user 1");
    assert_eq!(config(&env, "one")["architecture"], "arm64");
}

#[test]
fn an_edit_of_a_v1_archive_is_in_its_v1_json() {
    let env = env();
    env.fixture("from/gcr-v1.tar", "in.tar");
    env.ok("copy in.tar oci:in");
    env.ok("edit in.tar edited.tar --user 1000 --dialect v1");
    env.ok("copy edited.tar oci:out");
    assert_eq!(only(&env, "out").diff_ids, only(&env, "in").diff_ids);
    assert_eq!((&config(&env, "in")["config"]["User"], &config(&env, "out")["config"]["User"]), (&json!("0:0"), &json!("1000")));
}

#[test]
fn canonical_configs_do_not_vary() {
    let env = env();
    for (stem, host) in [("a", "one"), ("b", "two")] {
        let image = match host {
            "one" => Image::new("a:1").layer("a=1").edit_config(|config| vary(config, "one", "2024-01-02T03:04:05Z")),
            _ => Image::new("a:1").layer("a=1").edit_config(|config| vary(config, "two", "2025-01-02T03:04:05Z")),
        };
        env.write(&format!("{stem}.tar"), docker_archive(&[image]).bytes());
        env.ok(&format!("edit {stem}.tar {stem}-out.tar --canonical"));
    }
    assert_same_bytes(&env.path("a-out.tar"), &env.path("b-out.tar"), "two builds");
    let config = config(&env, "a-out.tar");
    assert_eq!((config.get("container"), &config["created"]), (None, &json!("1970-01-01T00:00:00Z")));
}

fn vary(config: &mut Value, host: &str, time: &str) {
    config["container"] = json!(host);
    config["docker_version"] = json!(host);
    config["container_config"] = json!({ "Hostname": host });
    config["config"]["Hostname"] = json!(host);
    config["created"] = json!(time);
    config["history"] = json!([{ "created": time, "created_by": "ADD" }]);
}

#[test]
fn one_image_is_edited() {
    let env = env();
    env.fixture("from/docker20-three-names.tar", "in.tar");
    env.fails(1, "edit in.tar out.tar --user 1").says(&["2 images", "pantry:2"]);
    env.ok("edit docker-archive:in.tar:pantry:2 docker-archive:out.tar:other:1 --user 1");
    assert_eq!(only(&env, "out.tar").names, [full_name("other:1")].into());
}

// --- rebase ---------------------------------------------------------------------------------------------------------

#[test]
fn an_image_moves_to_another_base() {
    let env = with_images();
    let (app, new) = (only(&env, "app.tar"), only(&env, "new.tar"));
    env.ok("rebase app.tar out.tar --old-base base.tar --new-base new.tar");
    let made = only(&env, "out.tar");
    assert_eq!(made.diff_ids, [&new.diff_ids[..], &app.diff_ids[2..]].concat());
    assert_eq!(made.names, app.names);
    let [config, app, new]: [Value; 3] = [&made.config, &app.config, &new.config].map(|bytes| serde_json::from_slice(bytes).unwrap());
    assert_eq!(config["config"], app["config"]);
    let steps = |config: &Value| config["history"].as_array().cloned().unwrap_or_default();
    assert_eq!(steps(&config), [steps(&new), steps(&app).split_off(steps(&app).len() - 1)].concat());
    env.ok("check out.tar");
    // And back.
    env.ok("rebase out.tar back.tar --old-base new.tar --new-base base.tar");
    assert_eq!(only(&env, "back.tar").diff_ids, only(&env, "app.tar").diff_ids);
    env.ok("rebase app.tar same.tar --old-base base.tar --new-base base.tar");
    assert_eq!(only(&env, "same.tar").config, only(&env, "app.tar").config);
}

#[test]
fn annotations_about_the_base_are_about_the_new_one() {
    let env = env();
    let base = |name: &str| Image::new(name).layer("a=1");
    let app = base("app:1").layer("b=2").annotate("org.opencontainers.image.base.digest", "sha256:0");
    let app = app.annotate("org.opencontainers.image.base.name", "docker.io/library/base:1").annotate("own", "kept");
    for (name, image) in [("base", base("base:1")), ("app", app), ("new", Image::new("base:2").layer("a=3"))] {
        Layout::of(&[image]).archive().write_dir(&env.path(name));
    }
    env.ok("rebase oci:app oci:out --old-base oci:base --new-base oci:new");
    let manifest: Value = serde_json::from_slice(only(&env, "out").manifest.as_ref().unwrap()).unwrap();
    let expected = json!({
        "org.opencontainers.image.base.digest": facts(&env.path("new")).roots[0],
        "org.opencontainers.image.base.name": "docker.io/library/base:2",
        "own": "kept",
    });
    assert_eq!(manifest["annotations"], expected);
    env.ok("check oci:out");
}

/// A layout with an index of an image for each platform.
fn write_index(env: &TestEnv, name: &str, platforms: &[&str], image: impl Fn() -> Image) {
    let mut layout = Layout::new();
    let manifests: Vec<_> =
        platforms.iter().map(|platform| layout.image(&image().platform(platform).layer(&format!("of={platform}")))).collect();
    let index = layout.index(&manifests);
    layout.root(index, Some("a:1"));
    layout.archive().write_dir(&env.path(name));
}

#[test]
fn every_platform_of_an_index_moves_to_the_base_of_that_platform() {
    let env = env();
    let (amd64, arm64) = ("linux/amd64", "linux/arm64");
    let app = |mut layout: Layout| {
        let of = |platform: &str| Image::new("").platform(platform).layer(&format!("of={platform}")).layer("app=1");
        let manifests = [amd64, arm64].map(|platform| layout.image(&of(platform)));
        let index = layout.index(&manifests);
        layout.root(index, Some("app:1"));
        layout.archive().write_dir(&env.path("app"));
    };
    app(Layout::new());
    write_index(&env, "old", &[amd64, arm64], || Image::new(""));
    // In another order.
    write_index(&env, "new", &[arm64, amd64], || Image::new("").layer("new=1"));
    env.ok("rebase oci:app oci:out --old-base oci:old --new-base oci:new");
    env.ok("check oci:out");
    let by_platform = |path: &str| -> std::collections::BTreeMap<String, Vec<String>> {
        let platform = |image: &Facts| serde_json::from_slice::<Value>(&image.config).unwrap()["architecture"].to_string();
        facts(&env.path(path)).images.values().map(|image| (platform(image), image.diff_ids.clone())).collect()
    };
    let (app, new, out) = (by_platform("app"), by_platform("new"), by_platform("out"));
    assert_eq!(out.len(), 2);
    for (platform, ids) in &out {
        assert_eq!(ids[..], [&new[platform][..], &app[platform][1..]].concat(), "{platform}");
    }
    // One of them, and from there to a format without indexes.
    env.ok("rebase oci:app one.tar --old-base oci:old --new-base oci:new --platform linux/arm64");
    assert_eq!(config(&env, "one.tar")["architecture"], "arm64");
    // A base that lacks a platform.
    write_index(&env, "less", &[arm64], || Image::new("").layer("less=1"));
    env.fails(1, "rebase oci:app oci:no --old-base oci:old --new-base oci:less").says(&["less", amd64, "--platform"]);
    env.ok("rebase oci:app oci:less-out --old-base oci:old --new-base oci:less --platform linux/arm64");
    env.ok("check oci:less-out");
}

#[test]
fn a_base_that_is_not_below_is_refused() {
    let env = with_images();
    let ran = env.fails(1, "rebase app.tar out.tar --old-base new.tar --new-base base.tar");
    let ran = ran.says(&["app.tar", "layer 0", &only(&env, "app.tar").diff_ids[0], &only(&env, "new.tar").diff_ids[0]]);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    env.fails(1, "rebase base.tar out.tar --old-base app.tar --new-base new.tar").says(&["there is no layer 2"]);
    env.write("arm.tar", docker_archive(&[Image::new("base:3").platform("linux/arm64").layer("a=1")]).bytes());
    env.fails(1, "rebase app.tar out.tar --old-base base.tar --new-base arm.tar").says(&["arm64"]);
    assert!(!env.path("out.tar").exists());
}

#[test]
fn wrong_command_lines_exit_with_2() {
    let env = with_images();
    for bad in [
        "assemble out.tar",
        "assemble out.tar --layer more.tar --env NOTHING",
        "assemble out.tar --layer more.tar --label =x",
        "assemble out.tar --layer more.tar --expose http",
        "assemble out.tar --layer more.tar --created yesterday",
        "assemble out.tar --layer more.tar --tag UPPER",
        "assemble out.tar --layer a/b=more.tar",
        "assemble out.tar --layer more.tar --cmd a --null-cmd",
        "assemble out.tar --base base.tar --platform linux/amd64 --platform linux/arm64",
        "assemble out.tar --base base.tar --all-platforms",
        "assemble out.tar --layer more.tar --volume=",
        "assemble out.tar --layer absent=/absent",
        "edit base.tar",
        "edit base.tar out.tar --tag a:{NO}",
        "rebase app.tar out.tar --old-base base.tar",
    ] {
        env.fails(2, bad);
    }
    let done = env.command(["assemble", "out.tar", "--layer", "more.tar"]).env("SOURCE_DATE_EPOCH", "soon").output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(!env.path("out.tar").exists());
}

#[test]
fn a_dry_run_and_a_report_say_what_is_made() {
    let env = with_images();
    let plan = env.ok("assemble out.tar --base base.tar --layer more.tar --dry-run").text();
    assert!(plan.contains("layer 2: more.tar, ") && !env.path("out.tar").exists(), "{plan}");
    env.ok("assemble out.tar --base base.tar --layer more.tar --report report.json");
    let report: Value = serde_json::from_slice(&env.read("report.json")).unwrap();
    assert_eq!(report["images"][0]["layers"].as_array().unwrap().len(), 3);
    env.fails(1, "assemble out.tar --layer more.tar").says(&["--force"]);
    env.fails(1, "assemble new-out.tar --layer more.tar --report more.tar").says(&["would replace"]);
}

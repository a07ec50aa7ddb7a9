//! JSON documents, and what they say of each other.

use super::*;

#[test]
fn the_archive_manifest() {
    let mut cases: Vec<Case> = not_json(&docker().member("manifest.json").data)
        .into_iter()
        .map(|(why, bytes)| manifest_bytes(&format!("manifest.json: {why}"), bytes))
        .collect();
    for text in ["[]", "{}", "[null]", "[[]]", "[42]", "[{}]", r#"[{"Config":null,"Layers":[]}]"#] {
        cases.push(manifest_bytes(&format!("manifest.json is {text}"), text));
    }
    let large = format!("{}{}", String::from_utf8(docker().member("manifest.json").data.clone()).unwrap(), " ".repeat(5 << 20));
    cases.push(manifest_bytes("manifest.json of 5 MiB", large));
    cases.extend([
        manifest("no Config", |entry| drop(entry.as_object_mut().unwrap().remove("Config")), &[]),
        manifest("Config is a number", |entry| entry["Config"] = 1.into(), &[]),
        manifest("no Layers", |entry| drop(entry.as_object_mut().unwrap().remove("Layers")), &[]),
        manifest("Layers is a string", |entry| entry["Layers"] = "a".into(), &[]),
        manifest("Layers holds a number", |entry| entry["Layers"][0] = 1.into(), &[]),
        manifest("Layers holds null", |entry| entry["Layers"][0] = Value::Null, &[]),
        manifest("RepoTags is a string", |entry| entry["RepoTags"] = "app:1".into(), &[]),
        manifest(
            "keys in lower case",
            |entry| *entry = json!({ "config": entry["Config"], "layers": entry["Layers"], "repotags": ["app:1"] }),
            &[],
        ),
    ]);
    for name in [
        "App:1",
        "",
        ":1",
        "app:",
        "app:1:2",
        "app\u{7}:1",
        "app@sha256:abc",
        "app:-x",
        "/app:1",
        "app//b:1",
        "a b:1",
        &format!("{}:1", "a".repeat(256)),
        &format!("app:{}", "t".repeat(129)),
    ] {
        cases.push(manifest(&format!("RepoTags holds {name:?}"), |entry| entry["RepoTags"] = json!([name]), &[]));
    }
    for (why, count) in [("one layer fewer than the config says", 1), ("no layer", 0)] {
        let image = app();
        let bytes = docker_archive(std::slice::from_ref(&image))
            .edit("manifest.json", |value| value[0]["Layers"].as_array_mut().unwrap().truncate(count))
            .bytes();
        cases.push(reject(why, "docker-archive", bytes, &[]));
    }
    let more = docker().edit("manifest.json", |value| {
        let layers = value[0]["Layers"].as_array_mut().unwrap();
        layers.push(layers[0].clone());
    });
    cases.push(reject("one layer more than the config says", "docker-archive", more.bytes(), &[]));
    let swapped = docker().edit("manifest.json", |value| value[0]["Layers"].as_array_mut().unwrap().swap(0, 1));
    cases.push(reject("layers in the wrong order", "docker-archive", swapped.bytes(), &[&layer_name(1)[..12]]));
    let changed = docker().replace(&layer_name(0), Layer::new("etc/\netc/one=9").tar);
    cases.push(reject("a layer with other bytes", "docker-archive", changed.bytes(), &[&layer_name(0)[..12]]));

    cases.extend([
        accept("RepoTags null", "docker-archive", docker().edit("manifest.json", |value| value[0]["RepoTags"] = Value::Null).bytes(), 1),
        accept(
            "no RepoTags",
            "docker-archive",
            docker().edit("manifest.json", |value| drop(value[0].as_object_mut().unwrap().remove("RepoTags"))).bytes(),
            1,
        ),
        accept("RepoTags empty", "docker-archive", docker().edit("manifest.json", |value| value[0]["RepoTags"] = json!([])).bytes(), 1),
        accept(
            "unknown keys",
            "docker-archive",
            docker().edit("manifest.json", |value| value[0]["x-unknown"] = json!({ "a": [1] })).bytes(),
            1,
        ),
        accept(
            "ports and IPv6",
            "docker-archive",
            docker().edit("manifest.json", |value| value[0]["RepoTags"] = json!(["localhost:5000/a:1", "[::1]:5000/a:1"])).bytes(),
            1,
        ),
        accept("no layers", "docker-archive", docker_archive(&[Image::new("empty:1")]).bytes(), 1),
    ]);
    let renamed = docker().rename(|name| if name == config_name() { "abc.json".to_owned() } else { name.to_owned() });
    cases.push(accept(
        "a config name that is not its digest",
        "docker-archive",
        renamed.edit("manifest.json", |value| value[0]["Config"] = "abc.json".into()).bytes(),
        1,
    ));
    run(cases);
}

#[test]
fn the_config() {
    let mut cases = Vec::new();
    let good = app().config_bytes();
    for (why, bytes) in not_json(&good).into_iter().chain([("an array", b"[]".to_vec()), ("empty object", b"{}".to_vec())]) {
        let image = app().config(bytes);
        let hex = image.id()[7..19].to_owned();
        cases.push(reject(
            &format!("config: {why} (docker-archive)"),
            "docker-archive",
            docker_archive(std::slice::from_ref(&image)).bytes(),
            &[&hex],
        ));
        cases.push(reject(&format!("config: {why} (oci-archive)"), "oci-archive", Layout::of(&[image]).archive().bytes(), &[&hex]));
    }
    let huge = Image::new("app:1").config([b"{".to_vec(), b" ".repeat(9 << 20), good[1..].to_vec()].concat());
    cases.push(reject("a config of 9 MiB", "docker-archive", docker_archive(&[huge]).bytes(), &[]));
    let edits: [(&str, Edit); 13] = [
        ("no rootfs", |config| drop(config.as_object_mut().unwrap().remove("rootfs"))),
        ("rootfs null", |config| config["rootfs"] = Value::Null),
        ("rootfs of another type", |config| config["rootfs"]["type"] = "snapshots".into()),
        ("no diff_ids", |config| drop(config["rootfs"].as_object_mut().unwrap().remove("diff_ids"))),
        ("one diff ID fewer", |config| drop(config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop())),
        ("one diff ID more", |config| {
            config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(format!("sha256:{}", "0".repeat(64)).into())
        }),
        ("a diff ID too short", |config| config["rootfs"]["diff_ids"][0] = "sha256:abc".into()),
        ("a diff ID in upper case", |config| {
            config["rootfs"]["diff_ids"][0] = config["rootfs"]["diff_ids"][0].as_str().unwrap().to_uppercase().replace("SHA", "sha").into()
        }),
        ("a diff ID of another algorithm", |config| config["rootfs"]["diff_ids"][0] = format!("md5:{}", "0".repeat(32)).into()),
        ("a diff ID that is a path", |config| config["rootfs"]["diff_ids"][0] = "sha256:../../../../etc/passwd".into()),
        ("a diff ID that is a number", |config| config["rootfs"]["diff_ids"][0] = 1.into()),
        ("created not RFC 3339", |config| config["created"] = "yesterday".into()),
        ("created a number", |config| config["created"] = 1_700_000_000.into()),
    ];
    cases.extend(edits.into_iter().flat_map(|(name, edit)| config(name, edit)));
    // Right in form, and wrong: seen wherever the layer is decoded.
    let wrong = app().edit_config(|config| config["rootfs"]["diff_ids"][0] = format!("sha256:{}", "0".repeat(64)).into());
    cases.push(reject("a diff ID that is not the layer's", "docker-archive", docker_archive(&[wrong]).bytes(), &[]));

    let edits: [(&str, Edit); 6] = [
        ("no history", |config| drop(config.as_object_mut().unwrap().remove("history"))),
        ("history that does not match", |config| config["history"] = json!([{ "created_by": "one of two" }])),
        ("no config section", |config| drop(config.as_object_mut().unwrap().remove("config"))),
        ("an empty config section", |config| config["config"] = json!({})),
        ("no created", |config| drop(config.as_object_mut().unwrap().remove("created"))),
        ("odd numbers and escapes", |config| config["x"] = json!([1e300, -0.0, "\u{2028}<&>\u{1f600}"])),
    ];
    for (name, edit) in edits {
        let image = app().edit_config(edit);
        cases.push(accept(&format!("{name} (docker-archive)"), "docker-archive", docker_archive(std::slice::from_ref(&image)).bytes(), 1));
        cases.push(accept(&format!("{name} (oci-archive)"), "oci-archive", Layout::of(&[image]).archive().bytes(), 1));
    }
    run(cases);
}

#[test]
fn oci_indexes_and_manifests() {
    let index = |name: &str, edit: Edit| reject(name, "oci-archive", oci().edit("index.json", edit).bytes(), &["index.json"]);
    let node = |name: &str, edit: Edit| {
        let image = app().edit_manifest(edit);
        reject(name, "oci-archive", Layout::of(&[image]).archive().bytes(), &[])
    };
    let mut cases: Vec<Case> = not_json(&oci().member("index.json").data)
        .into_iter()
        .map(|(why, bytes)| {
            reject(&format!("index.json: {why}"), "oci-archive", oci().replace("index.json", bytes).bytes(), &["index.json"])
        })
        .collect();
    for (why, text) in
        [("not JSON", "1.0.0"), ("another version", r#"{"imageLayoutVersion":"2.0.0"}"#), ("no version", "{}"), ("null", "null")]
    {
        cases.push(reject(&format!("oci-layout: {why}"), "oci-archive", oci().replace("oci-layout", text).bytes(), &["oci-layout"]));
    }
    cases.extend([
        index("index.json: schemaVersion 1", |value| value["schemaVersion"] = 1.into()),
        index("index.json: no schemaVersion", |value| drop(value.as_object_mut().unwrap().remove("schemaVersion"))),
        index("index.json: no manifests", |value| drop(value.as_object_mut().unwrap().remove("manifests"))),
        index("index.json: manifests null", |value| value["manifests"] = Value::Null),
        index("index.json: manifests an object", |value| value["manifests"] = json!({})),
        index("index.json: a null descriptor", |value| value["manifests"][0] = Value::Null),
        index("index.json: the media type of a manifest", |value| value["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into()),
        index("index.json: a descriptor without media type", |value| {
            drop(value["manifests"][0].as_object_mut().unwrap().remove("mediaType"))
        }),
        index("index.json: a descriptor without size", |value| drop(value["manifests"][0].as_object_mut().unwrap().remove("size"))),
        index("index.json: a descriptor without digest", |value| drop(value["manifests"][0].as_object_mut().unwrap().remove("digest"))),
        index("index.json: a size that is text", |value| value["manifests"][0]["size"] = "10".into()),
        index("index.json: a negative size", |value| value["manifests"][0]["size"] = (-1).into()),
        index("index.json: a digest that is a path", |value| value["manifests"][0]["digest"] = "sha256:../../index.json".into()),
        index("index.json: a short digest", |value| value["manifests"][0]["digest"] = "sha256:abc".into()),
        index("index.json: an unknown algorithm", |value| value["manifests"][0]["digest"] = format!("md5:{}", "0".repeat(32)).into()),
        node("manifest: schemaVersion 1", |value| value["schemaVersion"] = 1.into()),
        node("manifest: no config", |value| drop(value.as_object_mut().unwrap().remove("config"))),
        node("manifest: no layers", |value| drop(value.as_object_mut().unwrap().remove("layers"))),
        node("manifest: layers null", |value| value["layers"] = Value::Null),
        node("manifest: the media type of an index", |value| value["mediaType"] = "application/vnd.oci.image.index.v1+json".into()),
        node("manifest: one layer fewer", |value| drop(value["layers"].as_array_mut().unwrap().pop())),
        node("manifest: one layer more", |value| {
            let layer = value["layers"][0].clone();
            value["layers"].as_array_mut().unwrap().push(layer);
        }),
        node("manifest: layers in the wrong order", |value| value["layers"].as_array_mut().unwrap().swap(0, 1)),
        node("manifest: a layer without media type", |value| drop(value["layers"][0].as_object_mut().unwrap().remove("mediaType"))),
        node("manifest: a layer's digest in upper case", |value| {
            value["layers"][0]["digest"] = value["layers"][0]["digest"].as_str().unwrap().to_uppercase().into()
        }),
        node("manifest: a layer's size a byte off", |value| {
            value["layers"][0]["size"] = (value["layers"][0]["size"].as_u64().unwrap() + 1).into()
        }),
        node("manifest: the config's size a byte off", |value| {
            value["config"]["size"] = (value["config"]["size"].as_u64().unwrap() - 1).into()
        }),
        node("manifest: both layers and manifests", |value| value["manifests"] = json!([])),
    ]);
    for (why, delta) in [("a byte more", 1), ("a byte less", -1)] {
        let bytes = oci()
            .edit("index.json", |value| value["manifests"][0]["size"] = (value["manifests"][0]["size"].as_i64().unwrap() + delta).into())
            .bytes();
        cases.push(reject(&format!("index.json: a size {why}"), "oci-archive", bytes, &[]));
    }
    // An index where the descriptor says manifest, and the reverse.
    let mut layout = Layout::new();
    let image = layout.image(&app());
    let mut as_manifest = layout.index(std::slice::from_ref(&image));
    as_manifest["mediaType"] = image["mediaType"].clone();
    layout.root(as_manifest, None);
    cases.push(reject("an index called a manifest", "oci-archive", layout.archive().bytes(), &[]));
    let mut layout = Layout::new();
    let mut as_index = layout.image(&app());
    as_index["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
    layout.root(as_index, None);
    cases.push(reject("a manifest called an index", "oci-archive", layout.archive().bytes(), &[]));
    let nested = |depth: usize| {
        let mut layout = Layout::new();
        let mut top = layout.image(&app());
        for _ in 0..depth {
            top = layout.index(&[top]);
        }
        layout.root(top, Some("app:1"));
        layout.archive().bytes()
    };
    cases.push(reject("indexes nested 20 deep", "oci-archive", nested(20), &[]));
    cases.push(accept("an index in an index in an index", "oci-archive", nested(3), 1));
    let mut layout = Layout::new();
    let image = layout.image(&app());
    layout.root(image.clone(), Some("app:1"));
    for n in 0..10_001 {
        let mut artifact = image.clone();
        artifact["annotations"] = json!({ "n": n.to_string() });
        layout.root(artifact, None);
    }
    cases.push(reject("10,002 nodes", "oci-archive", layout.archive().bytes(), &["index.json"]));

    let mut layout = Layout::of(&[app().annotate("any key \u{1f600}", "any\nvalue")]);
    layout.blob("text/plain", b"nobody refers to this".to_vec());
    cases.push(accept("extra blobs and annotations", "oci-archive", layout.archive().bytes(), 1));
    let extra = oci().edit("index.json", |value| value["x-unknown"] = json!({ "a": 1 }));
    cases.push(accept("unknown keys in index.json", "oci-archive", extra.bytes(), 1));
    let no_type = Layout::of(&[app().edit_manifest(|value| drop(value.as_object_mut().unwrap().remove("mediaType")))]);
    cases.push(accept("a manifest without a media type of its own", "oci-archive", no_type.archive().bytes(), 1));
    run(cases);
}

#[test]
fn directories_of_containers_image() {
    let good = || {
        let env = env();
        env.write("in.tar", docker().bytes());
        env.ok("copy docker-archive:in.tar dir:out");
        let files = longshore_testkit::tree(&env.path("out"));
        Archive(files.into_iter().map(|(name, bytes)| Member::file(name, bytes)).collect())
    };
    let files = good();
    let layer = app().layers[0].diff_id()[7..].to_owned();
    assert!(files.0.iter().any(|member| member.text() == layer), "dir keeps layers as they are, under their digests");
    let case = |name: &str, files: Archive, mentions: &[&str]| Case {
        name: format!("dir: {name}"),
        transport: "dir",
        input: Input::Dir(files),
        expect: Expect::Reject(mentions.iter().map(|&text| text.to_owned()).collect()),
    };
    let mut short = files.clone();
    short.member(&layer).data.pop();
    let mut long = files.clone();
    long.member(&layer).data.push(0);
    let mut changed = files.clone();
    changed.member(&layer).data[0] ^= 1;
    run(vec![
        case("an unknown version", files.clone().replace("version", "Directory Transport Version: 9.9\n"), &["version"]),
        case("a version that is none", files.clone().replace("version", "hello"), &["version"]),
        case("no manifest.json", files.clone().without("manifest.json"), &["manifest.json"]),
        case("manifest.json not JSON", files.clone().replace("manifest.json", "{"), &["manifest.json"]),
        case("manifest.json null", files.clone().replace("manifest.json", "null"), &["manifest.json"]),
        case("a layer missing", files.clone().without(&layer), &[&layer[..12]]),
        case("a layer short", short, &[&layer[..12]]),
        case("a layer long", long, &[&layer[..12]]),
        case("a layer changed", changed, &[&layer[..12]]),
        case(
            "a digest with ..",
            files.clone().edit("manifest.json", |value| value["layers"][0]["digest"] = "sha256:../../etc/passwd".into()),
            &["manifest.json"],
        ),
        Case {
            name: "dir: no version file".to_owned(),
            transport: "dir",
            input: Input::Dir(files.clone().without("version")),
            expect: Expect::Accept(1),
        },
        Case { name: "dir: whole".to_owned(), transport: "dir", input: Input::Dir(files), expect: Expect::Accept(1) },
    ]);
}

//! What there is in a registry: tags, platforms, referrers; and which registries are talked to at all.

use std::net::UdpSocket;

use longshore_testkit::facts::facts;
use longshore_testkit::images::{Image, Layer, Layout, Packing};
use longshore_testkit::peers::skipped;
use longshore_testkit::registry::{Auth, Bearer, Fault, Registry, What};
use serde_json::json;

use super::{Scene, is_whole};

fn packed(text: &str) -> Layer {
    Layer::new(text).packed(Packing::Gzip)
}

/// A registry with multi:1 for two platforms and a third of a variant.
fn multi(scene: &Scene) -> (Layout, String) {
    let mut layout = Layout::new();
    let platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    let manifests: Vec<_> = platforms
        .map(|platform| layout.image(&Image::new("multi:1").platform(platform).with(packed(&format!("platform={platform}")))))
        .into();
    let index = layout.index(&manifests);
    let digest = scene.registry.push_layout(&layout, &index, "multi", "1");
    (layout, digest)
}

#[test]
fn one_platform_is_fetched_and_no_other() {
    for (platform, name) in [("linux/arm64", "arm64"), ("linux/arm/v7", "arm"), ("linux/amd64", "amd64")] {
        let scene = Scene::new();
        multi(&scene);
        scene.ok(&format!("copy --platform {platform} docker://HOST/multi:1 docker-archive:out.tar"));
        assert!(facts(&scene.env.path("out.tar")).only().platform().ends_with(name));
        // The index, one manifest, one config, one layer.
        assert_eq!((scene.count("GET /v2/multi/manifests/*"), scene.count("GET /v2/multi/blobs/*")), (2, 2), "{platform}");
    }
}

#[test]
fn a_manifest_is_read_no_further_than_its_index_says() {
    let scene = Scene::new();
    let (layout, _) = multi(&scene);
    let index = layout.blobs().iter().find_map(|(_, bytes)| {
        let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        document["manifests"][1]["size"].as_u64()
    });
    scene.fault(Fault::on("GET /v2/multi/manifests/sha256:*", What::Longer(10)).always());
    let size = format!("more than {} bytes", index.unwrap());
    scene.fails("copy --platform linux/arm64 docker://HOST/multi:1 docker-archive:out.tar", &["HOST", &size]);
}

#[test]
fn a_platform_that_is_not_there_is_told_what_is() {
    let scene = Scene::new();
    multi(&scene);
    for command in [
        "copy --platform windows/amd64 docker://HOST/multi:1 docker-archive:out.tar",
        "save --platform windows/amd64 docker://HOST/multi:1 -o out.tar",
    ] {
        let ran = scene.fails(command, &["windows/amd64", "linux/amd64", "linux/arm64", "linux/arm/v7"]);
        assert_eq!(ran.stderr.matches("/multi:1").count(), 1, "{}", ran.stderr);
    }
    scene.fails("copy --platform linux/s390x docker://HOST/app:1 docker-archive:out.tar", &["linux/s390x", "linux/amd64"]);
}

#[test]
fn a_list_of_docker_is_copied_as_a_whole() {
    let scene = Scene::new();
    let (mut layout, _) = multi(&scene);
    let index = layout.blobs().iter().find(|(_, bytes)| bytes.windows(12).any(|word| word == b"\"manifests\":")).unwrap().1.clone();
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let text = String::from_utf8(index).unwrap().replace("application/vnd.oci.image.index.v1+json", list);
    let top = layout.blob(list, text.into_bytes());
    let digest = scene.registry.push_layout(&layout, &top, "list", "1");
    scene.ok("copy --all-platforms docker://HOST/list:1 docker://HOST/copied:1");
    assert_eq!(scene.registry.digest("copied", "1"), Some(digest));
}

#[test]
fn plain_layers_stay_plain_between_registries() {
    let scene = Scene::new();
    let digest = scene.registry.push_image(&Image::new("plain:1").layer("a=1"), "plain", "1");
    scene.ok("copy docker://HOST/plain:1 docker://HOST/copied:1");
    assert_eq!(scene.registry.digest("copied", "1"), Some(digest.clone()));
    scene.ok("copy --compress gzip docker://HOST/plain:1 docker://HOST/packed:1");
    assert_ne!(scene.registry.digest("packed", "1"), Some(digest));
}

#[test]
fn an_index_is_copied_as_a_whole() {
    let scene = Scene::new();
    let (_, digest) = multi(&scene);
    scene.ok("copy --all-platforms docker://HOST/multi:1 docker://HOST/copied:1");
    assert_eq!(scene.registry.digest("copied", "1"), scene.registry.digest("multi", "1"));
    assert_eq!(scene.count("PUT /v2/copied/manifests/*"), 4);
    let puts = scene.registry.asked("PUT /v2/copied/manifests/*");
    assert!(puts[3].target.ends_with("/1"), "the tag comes last: {:?}", puts.iter().map(|put| &put.target).collect::<Vec<_>>());
    scene.ok("copy --all-platforms docker://HOST/multi:1 oci:layout");
    assert_eq!(facts(&scene.env.path("layout")).roots, [digest.as_str()]);
    scene.ok("copy oci:layout docker://HOST/back:1 --all-platforms");
    assert_eq!(scene.registry.digest("back", "1"), scene.registry.digest("multi", "1"));
}

#[test]
fn a_digest_is_what_it_names() {
    let scene = Scene::new();
    scene.ok("copy docker://HOST/app@DIGEST docker-archive:out.tar");
    assert_eq!(facts(&scene.env.path("out.tar")).essence(), facts(&scene.env.path("whole.tar")).essence());
    std::fs::remove_file(scene.env.path("out.tar")).unwrap();
    // The registry gives another manifest than was asked for.
    let other = scene.registry.push_image(&Image::new("other:1").with(packed("b=2")), "app", "2");
    let (media_type, bytes) = scene.registry.manifest("app", "2").unwrap();
    scene.fault(Fault::on("GET|HEAD /v2/app/manifests/DIGEST", What::body(&media_type, bytes)).always());
    scene.fails("copy docker://HOST/app@DIGEST docker-archive:out.tar", &["DIGEST", &other, "expected"]);
    // A destination that says which digest it is to have gets no other.
    scene.ok("copy docker://HOST/app:2 oci:two");
    scene.fails("copy oci:two docker://HOST/new@DIGEST", &["DIGEST", &other]);
}

#[test]
fn images_of_docker_and_of_oci_are_taken() {
    let docker = |manifest: &mut serde_json::Value| {
        manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
        manifest["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
        for layer in manifest["layers"].as_array_mut().unwrap() {
            layer["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
        }
    };
    let scene = Scene::new();
    let image = Image::new("schema2:1").with(packed("a=1")).edit_manifest(docker);
    scene.registry.push_image(&image, "schema2", "1");
    scene.ok("copy docker://HOST/schema2:1 docker-archive:out.tar");
    assert_eq!(facts(&scene.env.path("out.tar")).images.keys().next(), Some(&image.id()));
    scene.ok("copy docker://HOST/schema2:1 docker://HOST/again:1");
    assert_eq!(scene.registry.digest("again", "1"), scene.registry.digest("schema2", "1"));
    // An OCI manifest may be without a media type of its own.
    let image =
        Image::new("bare:1").layer("a=1").edit_manifest(|manifest| drop(manifest.as_object_mut().unwrap().shift_remove("mediaType")));
    scene.registry.push_image(&image, "bare", "1");
    scene.ok("copy docker://HOST/bare:1 docker-archive:bare.tar");
}

#[test]
fn inspecting_reads_no_layer() {
    let scene = Scene::new();
    multi(&scene);
    for (args, says) in [
        ("inspect docker://HOST/app:1", "sha256:"),
        ("inspect docker://HOST/app:1 --json", "sha256:"),
        ("inspect docker://HOST/multi:1", "arm64"),
        ("inspect docker://HOST/app:1 --raw --config", "diff_ids"),
    ] {
        assert!(scene.ok(args).text().contains(says), "{args}");
    }
    assert_eq!(scene.ok("inspect docker://HOST/app:1 --raw").stdout, scene.registry.manifest("app", "1").unwrap().1);
    assert_eq!((scene.count("GET /v2/app/blobs/LARGE"), scene.count("GET /v2/app/blobs/SMALL"), scene.count("POST *")), (0, 0, 0));
    assert_eq!(scene.count("PUT *"), 0);
}

#[test]
fn tags_are_listed_page_by_page() {
    let scene = Scene::new();
    let mut expected = vec!["1".to_owned()];
    for n in 0..250 {
        expected.push(format!("v{n:03}"));
        scene.registry.tag("app", &format!("v{n:03}"), &scene.digest);
    }
    for name in ["HOST/app", "docker://HOST/app"] {
        let listed: Vec<String> = scene.ok(&format!("tags {name}")).text().lines().map(str::to_owned).collect();
        assert_eq!(listed, expected, "{name}");
    }
    assert!(scene.count("GET /v2/app/tags/list*") >= 3);
    let listed = scene.ok("tags HOST/app --json").json();
    assert!(listed.to_string().contains("v249"), "{listed}");
    scene.fails("tags HOST/absent", &["HOST", "404", "repository name not known to registry"]);
    let mut wrong = Vec::new();
    for (name, link) in [
        ("to itself", "</v2/app/tags/list>; rel=\"next\""),
        ("to the same page for ever", "<{path}>; rel=\"next\""),
        ("to another host", "<http://{elsewhere}/v2/app/tags/list?last=v100>; rel=\"next\""),
        ("to a server without TLS", "<http://tags.invalid/>; rel=\"next\""),
    ] {
        let scene = Scene::new();
        scene.registry.elsewhere("127.0.0.1");
        scene.registry.auth(Auth::Basic, "user", "secret");
        scene.fault(Fault::on("GET /v2/app/tags/list*", What::Header("Link", link.to_owned())).always());
        let ran = scene.run("--creds user:secret tags HOST/app");
        assert!(ran.code.is_some() && scene.promises().is_empty(), "{name}: {:?}", scene.promises());
        assert!(scene.count("GET /v2/app/tags/list*") <= 10_000, "{name}");
        let text = ran.text();
        let listed: Vec<&str> = text.lines().collect();
        if ran.code == Some(0) && listed != ["1"] {
            wrong.push(format!("{name}: {listed:?}"));
        }
    }
    for (name, what) in [
        ("garbage", What::body("application/json", "{")),
        ("no list", What::body("application/json", r#"{"tags":7}"#)),
        ("control characters", What::body("application/json", r#"{"tags":["a\u001b[2J"]}"#)),
        ("without end", What::Endless(longshore_testkit::registry::Framing::Chunked)),
        ("silence", What::Silence),
    ] {
        let scene = Scene::new();
        scene.fault(Fault::on("GET /v2/app/tags/list*", what).always());
        let ran = scene.run("tags HOST/app");
        assert!(!ran.text().contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{name}");
        // Tags with control characters may be listed, escaped.
        if (ran.code != Some(1) && name != "control characters") || !scene.promises().is_empty() {
            wrong.push(format!("{name}: {:?} {} {:?}", ran.code, ran.stderr, scene.promises()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // An empty list, as some registries write it.
    let scene = Scene::new();
    scene.fault(Fault::on("GET /v2/app/tags/list*", What::body("application/json", r#"{"name":"app","tags":null}"#)));
    assert_eq!(scene.ok("tags HOST/app").text(), "");
}

/// app:1 with a signature that refers to it, and cosign's signature beside it.
fn signed(scene: &Scene) -> (String, String) {
    let mut layout = Layout::new();
    let image = layout.image(&scene.image);
    let signature = layout.artifact("application/x.signature", "signed by all", Some(&image));
    scene.registry.push_layout(&layout, &image, "app", "1");
    let mut cosign = Layout::new();
    let artifact = cosign.artifact("application/x.cosign", "signed by cosign", None);
    let tag = format!("sha256-{}.sig", &scene.digest["sha256:".len()..]);
    scene.registry.push_layout(&cosign, &artifact, "app", &tag);
    (signature["digest"].as_str().unwrap().to_owned(), artifact["digest"].as_str().unwrap().to_owned())
}

#[test]
fn referrers_come_along_on_demand() {
    for api in [true, false] {
        let scene = Scene::new();
        let (signature, cosign) = signed(&scene);
        scene.registry.referrers(api);
        if !api {
            // The fallback of the specification: an index under the digest as a tag.
            let (_, bytes) = scene.registry.manifest("app", &signature).unwrap();
            let mut layout = Layout::new();
            let descriptor = json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": signature, "size": bytes.len(), "artifactType": "application/x.signature",
            });
            let index = layout.index(&[descriptor]);
            scene.registry.push_layout(&layout, &index, "app", &scene.fill("sha256-HEX"));
        }
        let holds = |name: &str, digest: &str| scene.env.path(name).join("blobs/sha256").join(&digest["sha256:".len()..]).exists();
        scene.ok("copy docker://HOST/app:1 oci:without");
        assert!(!holds("without", &signature) && !holds("without", &cosign), "{api}");
        assert_eq!(scene.count("GET *referrers*") + scene.count("GET *.sig"), 0, "{api}: nobody asked for them");
        scene.ok("copy --referrers docker://HOST/app:1 oci:with");
        assert!(holds("with", &signature), "{api}: the signature");
        assert!(holds("with", &cosign), "{api}: cosign's");
        scene.ok("check oci:with");
        // And on to another registry, where the referrers API or the tag must lead to them.
        for other_api in [true, false] {
            let other = Registry::start();
            other.referrers(other_api);
            scene.ok(&format!("copy --referrers docker://HOST/app:1 docker://{}/signed:1", other.host()));
            assert!(other.manifest("signed", &signature).is_some() && other.manifest("signed", &cosign).is_some(), "{api} {other_api}");
            assert!(other.tags("signed").contains(&scene.fill("sha256-HEX.sig")), "{api} {other_api}: {:?}", other.tags("signed"));
            assert!(other_api || other.tags("signed").contains(&scene.fill("sha256-HEX")), "{api}: {:?}", other.tags("signed"));
            assert_eq!(other.digest("signed", "1"), scene.registry.digest("app", "1"));
        }
    }
}

#[test]
fn referrers_that_cannot_be_asked_for_are_an_error() {
    for what in [What::error(403, "DENIED", "not for you"), What::error(500, "UNKNOWN", "no index")] {
        let scene = Scene::new();
        signed(&scene);
        scene.fault(Fault::on("GET *referrers*", what).always());
        let ran = scene.run("copy --referrers docker://HOST/app:1 oci:out").exited(1);
        assert!(ran.stderr.contains("not for you") || ran.stderr.contains("no index"), "{}", ran.stderr);
        assert!(!scene.env.path("out").exists());
    }
    // Older registries know nothing of them.
    let scene = Scene::new();
    scene.registry.referrers(false);
    scene.ok("copy --referrers docker://HOST/app:1 oci:out");
}

/// An address of this machine that is not 127.0.0.0/8.
fn outside() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system says from where it would be.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[test]
fn plain_http_is_for_this_machine_or_on_demand() {
    let scene = Scene::new();
    let port = scene.registry.host().rsplit_once(':').unwrap().1.to_owned();
    let far = scene.registry.elsewhere("127.0.0.2");
    for host in [scene.registry.host(), format!("localhost:{port}"), far] {
        scene.ok(&format!("inspect docker://{host}/app:1"));
    }
    let Some(address) = outside() else { return skipped("registry: plain http", "this machine has no other address than 127.0.0.1") };
    let scene = Scene::new();
    let host = scene.registry.elsewhere(&address);
    scene.fails(&format!("copy docker://{host}/app:1 docker-archive:out.tar"), &[&host, "TLS"]);
    assert!(scene.registry.log().is_empty(), "nothing was asked without TLS: {:?}", scene.registry.log());
    scene.fails(&format!("copy docker-archive:whole.tar docker://{host}/new:1"), &[&host]);
    scene.fails(&format!("tags {host}/app"), &[&host]);
    scene.ok(&format!("--insecure copy docker://{host}/app:1 docker-archive:out.tar"));
    assert!(is_whole(&scene).is_empty());
}

#[test]
fn registries_that_are_not_there_end_in_a_sentence() {
    let scene = Scene::new();
    // A port at which nobody listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    scene.fails(&format!("copy docker://{closed}/app:1 docker-archive:out.tar"), &[&closed.to_string()]);
    scene.fails("copy docker://registry.invalid/app:1 docker-archive:out.tar", &["registry.invalid"]);
}

#[test]
fn wrong_command_lines_are_refused() {
    let scene = Scene::new();
    for args in [
        "copy docker://HOST/UPPER:1 out.tar",
        "copy docker:// out.tar",
        "inspect docker://HOST/",
        "inspect docker://HOST/app:",
        "inspect docker://HOST/app@sha256:12",
        "copy docker-archive:whole.tar docker://HOST/UPPER:1",
        "tags",
        "tags HOST/UPPER",
        "login",
    ] {
        let ran = scene.run(args);
        assert_eq!(ran.code, Some(2), "{args}: {}", ran.stderr);
    }
    assert!(scene.registry.log().is_empty());
    // A password in the name would be in every log.
    let ran = scene.run("inspect docker://user:secret@HOST/app:1");
    assert!(ran.code == Some(2) && scene.registry.log().is_empty(), "{}", ran.stderr);
}

#[test]
fn several_registries_in_one_command() {
    let (scene, other) = (Scene::new(), Registry::start());
    let image = Image::new("other:1").layer("b=2");
    other.push_image(&image, "other", "1");
    other.auth(Auth::Bearer(Bearer { anonymous: true, ..Bearer::default() }), "user", "secret");
    scene.ok(&format!("copy docker://HOST/app:1 docker://{}/other:1 docker-archive:both.tar", other.host()));
    let made = facts(&scene.env.path("both.tar"));
    let names: Vec<String> = made.names().into_values().flatten().collect();
    assert_eq!(made.images.len(), 2);
    assert!(
        names.contains(&format!("{}/app:1", scene.registry.host())) && names.contains(&format!("{}/other:1", other.host())),
        "{names:?}"
    );
}

/// Images whose manifests call a layer gzip that is something else: such pushes are taken by registries, and pulled by engines, which look at the bytes.
#[test]
fn what_a_media_type_says_of_compression_is_not_believed() {
    use longshore_testkit::images::pack;
    let tar = longshore_testkit::tar::write(&[
        longshore_testkit::tar::Member::file("etc-a", "1"),
        longshore_testkit::tar::Member::file("etc-b", "2"),
    ]);
    for (says, is) in [(Packing::Gzip, Packing::Plain), (Packing::Gzip, Packing::Zstd), (Packing::Zstd, Packing::Gzip)] {
        let scene = Scene::new();
        let lying = Layer::of_tar(tar.clone()).packed(says).stored(pack(&tar, is));
        let image = Image::new("odd:1").with(packed("a=1")).with(lying);
        let digest = scene.registry.push_image(&image, "odd", "1");
        for to in ["docker-archive:out.tar", "oci:plain --compress none", "oci:zstd --compress zstd:3", "oci:kept"] {
            scene.ok(&format!("copy docker://HOST/odd:1 {to}"));
        }
        for (out, packing) in [("out.tar", "docker-archive"), ("plain", "oci"), ("zstd", "oci"), ("kept", "oci")] {
            let found = facts(&scene.env.path(out));
            let layers = found.only().diff_ids.clone();
            assert_eq!(layers, image.layers.iter().map(Layer::diff_id).collect::<Vec<_>>(), "{says:?} {is:?} {out}");
            scene.ok(&format!("check {packing}:{out}"));
        }
        assert_eq!(facts(&scene.env.path("kept")).roots, [digest.as_str()], "what is copied stays as it is");
        scene.ok("squash docker://HOST/odd:1 squashed.tar");
        assert!(scene.ok("ls docker://HOST/odd:1").text().contains("etc-b"), "{says:?} {is:?}");
        assert!(scene.ok("ls docker://HOST/odd:1 --layer 1").text().contains("etc-b"), "{says:?} {is:?}");
        scene.ok("check docker://HOST/odd:1");
        scene.ok("export docker://HOST/odd:1 -o rootfs.tar");
    }
}

/// cosign's tags as other tools write them to a layout: the tag alone, beside names that are nobody's business in a registry.
#[test]
fn names_of_a_layout_become_no_other_tags() {
    let scene = Scene::new();
    let mut layout = Layout::new();
    let image = layout.image(&scene.image);
    let tag = format!("{}.sig", image["digest"].as_str().unwrap().replace(':', "-"));
    let signature = layout.artifact("application/x.cosign", "signed by cosign", None);
    let sbom = layout.artifact("application/x.sbom", "what is in it", None);
    let (sbom_digest, digest) = (sbom["digest"].as_str().unwrap().to_owned(), image["digest"].as_str().unwrap().to_owned());
    layout.root(image, Some("app:1"));
    layout.root(signature, Some(&tag));
    layout.root(sbom, Some("sbom"));
    layout.archive().write_dir(&scene.env.path("in"));
    scene.ok("copy oci:in docker://HOST/new:2");
    let mut tags = scene.registry.tags("new");
    tags.sort();
    assert_eq!(tags, ["2".to_owned(), tag.clone()]);
    assert!(scene.registry.manifest("new", &sbom_digest).is_some());
    // To a digest, what refers to it comes too.
    scene.ok(&format!("copy --referrers docker://HOST/new:2 docker://HOST/by-digest@{digest}"));
    assert_eq!(scene.registry.tags("by-digest"), [tag]);
}

//! What is taken of a source: one name, one platform, what refers to it, and what an archive left out.

use longshore_testkit::facts::{facts, full_name};
use longshore_testkit::images::{Image, Layer, Layout, Packing, docker_archive};
use serde_json::{Value, json};

use crate::env;

/// The digests that an output's top level lists, in order.
fn listed(env: &longshore_testkit::TestEnv, layout: &str) -> Vec<String> {
    let index: Value = serde_json::from_slice(&env.read(&format!("{layout}/index.json"))).unwrap();
    index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

fn digest(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

#[test]
fn referrers_stay_with_everything_and_come_along_on_demand() {
    let env = env();
    let mut layout = Layout::new();
    let app = layout.image(&Image::new("app:1").with(Layer::new("a=1").packed(Packing::Gzip)));
    let other = layout.image(&Image::new("other:1").with(Layer::new("b=1").packed(Packing::Gzip)));
    let sbom = layout.artifact("application/spdx+json", "{}", Some(&app));
    let of_the_sbom = layout.artifact("application/vnd.example.signature", "signed", Some(&sbom));
    let cosign = layout.artifact("application/vnd.example.simple", "cosign", None);
    let tag = format!("{}.sig", digest(&app).replace(':', "-"));
    layout.root(app.clone(), Some("docker.io/library/app:1"));
    layout.root(other.clone(), Some("docker.io/library/other:1"));
    layout.root(sbom.clone(), None);
    layout.root(of_the_sbom.clone(), None);
    layout.root(cosign.clone(), Some(&tag));
    layout.archive().write_dir(&env.path("in"));

    env.ok("copy oci:in oci:all");
    assert_eq!(listed(&env, "all"), [&app, &other, &sbom, &of_the_sbom, &cosign].map(digest));
    env.ok("copy oci:in:app:1 oci:alone");
    assert_eq!(listed(&env, "alone"), [digest(&app)]);
    env.ok("copy --referrers oci:in:app:1 oci:signed");
    let mut signed = listed(&env, "signed");
    signed.sort();
    let mut expected = [&app, &sbom, &of_the_sbom, &cosign].map(digest);
    expected.sort();
    assert_eq!(signed, expected, "what refers to what refers to it comes along too");
    env.ok("check oci:all oci:alone oci:signed");
    let ran = env.ok(&format!("copy oci:in:@{} oci:sbom", digest(&sbom)));
    assert!(ran.stderr.contains("wrote sbom: 1 manifest, 1 blob, "), "{}", ran.stderr);

    // An archive for docker load has no place for them, and says so.
    let ran = env.ok("copy --referrers oci:in:app:1 app.tar");
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("left out:")).count(), 3, "{}", ran.stderr);
    // Renaming the image leaves the signature's tag alone.
    env.ok("copy --referrers --tag new:1 oci:in:app:1 oci:renamed");
    let index = String::from_utf8(env.read("renamed/index.json")).unwrap();
    assert!(index.contains(&tag) && index.contains("docker.io/library/new:1") && !index.contains("library/app"), "{index}");
}

#[test]
fn what_docker_save_left_out_of_an_index_is_not_missed() {
    let env = env();
    let mut layout = Layout::new();
    let amd64 = Image::new("multi:1").platform("linux/amd64").layer("a=1");
    let here = layout.image(&amd64);
    let mut gone = Layout::new();
    let gone = gone.image(&Image::new("multi:1").platform("linux/arm64").layer("a=2"));
    let index = layout.index(&[here, gone.clone()]);
    layout.root(index, Some("docker.io/library/multi:1"));
    let sparse = layout.archive();
    env.write("oci.tar", sparse.bytes());
    let entry = json!([{ "Config": format!("blobs/sha256/{}", &amd64.id()[7..]), "RepoTags": ["multi:1"],
        "Layers": [format!("blobs/sha256/{}", &Layer::new("a=1").diff_id()[7..])] }]);
    env.write("hybrid.tar", sparse.plus(longshore_testkit::tar::Member::file("manifest.json", entry.to_string())).bytes());

    let ran = env.ok("copy hybrid.tar oci:out");
    assert!(ran.stderr.contains("linux/arm64"), "{}", ran.stderr);
    assert_eq!(facts(&env.path("out")).images.keys().collect::<Vec<_>>(), [&amd64.id()]);
    env.ok("check hybrid.tar oci:out");
    // A layout on its own promises to be whole.
    env.fails(1, "copy oci-archive:oci.tar oci:no").says(&["oci.tar", "linux/arm64", &digest(&gone)[7..19], "--platform"]);
    env.ok("copy --platform linux/amd64 oci-archive:oci.tar oci:yes");
    env.fails(1, "copy --platform linux/arm64 oci-archive:oci.tar oci:no").says(&["linux/arm64", "linux/amd64"]);
}

#[test]
fn only_a_foreign_layer_may_be_elsewhere() {
    let env = env();
    let archive = docker_archive(&[Image::new("app:1").layer("a=1").layer("b=2")]);
    let layer = Layer::new("b=2");
    let name = archive.0.iter().find(|member| member.data == layer.tar).unwrap().text();
    let source = |media: &str| json!({ layer.diff_id(): { "mediaType": media, "digest": layer.diff_id(), "size": layer.tar.len(), "urls": ["https://example.com/b"] } });
    let with = |media: &str| archive.clone().edit("manifest.json", |value| value[0]["LayerSources"] = source(media));

    env.write("whole.tar", with("application/vnd.oci.image.layer.v1.tar").bytes());
    env.ok("copy whole.tar oci:whole");
    env.write("short.tar", with("application/vnd.oci.image.layer.v1.tar").without(&name).bytes());
    env.fails(1, "copy short.tar oci:short").says(&["short.tar", &name, "missing"]);
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    env.write("foreign.tar", with(foreign).without(&name).bytes());
    env.ok("copy foreign.tar classic.tar --dialect classic");
    env.ok("copy classic.tar oci:foreign");
    let stored = longshore_testkit::tree(&env.path("foreign"));
    assert!(
        stored.values().any(|bytes| String::from_utf8_lossy(bytes).contains("https://example.com/b")),
        "the URL survives two conversions"
    );
    env.ok("check classic.tar oci:foreign");
}

#[test]
fn a_foreign_layer_that_another_source_has_is_in_a_classic_archive() {
    let env = env();
    let image = |name: &str, top: &str| Image::new(name).layer("a=1").layer("b=2").layer(top);
    let shared = Layer::new("b=2");
    let listed = json!({ shared.diff_id(): {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar", "digest": shared.diff_id(), "size": shared.tar.len(),
        "urls": ["https://example.com/b"],
    } });
    let foreign = docker_archive(&[image("app:1", "c=3")]).edit("manifest.json", |value| value[0]["LayerSources"] = listed);
    let name = foreign.0.iter().find(|member| member.data == shared.tar).unwrap().text();
    env.write("foreign.tar", foreign.without(&name).bytes());
    env.write("other.tar", docker_archive(&[image("other:1", "d=4")]).bytes());
    for (at, sources) in ["foreign.tar other.tar", "other.tar foreign.tar"].into_iter().enumerate() {
        env.ok(&format!("copy {sources} joined-{at}.tar --dialect classic"));
        env.ok(&format!("check joined-{at}.tar"));
        assert_eq!(facts(&env.path(&format!("joined-{at}.tar"))).images.len(), 2);
    }
}

#[test]
fn platforms_of_an_index_are_chosen_with_their_attestations() {
    let env = env();
    let mut layout = Layout::new();
    let image =
        |platform: &str| Image::new("multi:1").platform(platform).with(Layer::new(&format!("arch={platform}")).packed(Packing::Gzip));
    let mut manifests = Vec::new();
    for platform in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
        let mut descriptor = layout.image(&image(platform));
        let mut parts = platform.split('/');
        descriptor["platform"] = json!({ "os": parts.next(), "architecture": parts.next() });
        if let Some(variant) = parts.next() {
            descriptor["platform"]["variant"] = variant.into();
        }
        let mut attestation = layout.artifact("application/vnd.in-toto+json", platform, None);
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        attestation["annotations"] =
            json!({ "vnd.docker.reference.digest": digest(&descriptor), "vnd.docker.reference.type": "attestation-manifest" });
        manifests.extend([descriptor, attestation]);
    }
    let index = layout.index(&manifests);
    layout.root(index.clone(), Some("docker.io/library/multi:1"));
    layout.archive().write_dir(&env.path("in"));

    env.ok("copy oci:in oci:all");
    assert_eq!(listed(&env, "all"), [digest(&index)], "an index that is kept whole keeps its digest");
    env.ok("copy --platform linux/arm64 --platform linux/arm/v7 oci:in oci:two");
    let two = facts(&env.path("two"));
    let platforms: Vec<_> = two.images.values().map(longshore_testkit::facts::Image::platform).collect();
    assert_eq!(platforms.len(), 2, "{platforms:?}");
    let stored = longshore_testkit::tree(&env.path("two"));
    let kept = |text: &str| stored.values().any(|bytes| bytes == text.as_bytes());
    assert!(kept("linux/arm64") && kept("linux/arm/v7") && !kept("linux/amd64"), "attestations follow their images");

    env.ok("copy --platform linux/arm64 oci:in one.tar");
    assert_eq!(facts(&env.path("one.tar")).only().platform(), "linux/arm64");
    assert!(facts(&env.path("one.tar")).names().values().flatten().any(|name| *name == full_name("multi:1")));
    env.fails(1, "copy --all-platforms oci:in all.tar").says(&["docker-archive", "--platform"]);
    env.fails(1, "copy --platform linux/s390x oci:in none.tar").says(&["linux/s390x", "linux/arm64"]);
}

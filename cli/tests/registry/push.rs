//! Pushing to a registry with which something is wrong.

use std::time::{Duration, Instant};

use longshore_testkit::images::{Image, Layer, Layout, Packing, docker_archive};
use longshore_testkit::noise;
use longshore_testkit::registry::{Asked, Auth, Bearer, Fault, Registry, What};
use longshore_testkit::tar::{Member, write};
use serde_json::Value;

use super::End::{Done, Fails};
use super::{OTHER, Row, Scene, busy_until_a_date, image, play_all, row};

/// A layout, so that digests and sizes are known, and an archive of plain layers, which are compressed on the way.
const PUSHES: [&str; 2] = ["copy oci:in docker://HOST/new:2", "copy in.tar docker://HOST/new:2"];
const BEGIN: &str = "POST /v2/new/blobs/uploads/*";
const CHUNK: &str = "PATCH /v2/new/blobs/uploads/*";
const FINISH: &str = "PUT /v2/new/blobs/uploads/*";
const MANIFEST: &str = "PUT /v2/new/manifests/2";

/// The same image with plain layers.
fn plain() -> Image {
    let layers = image().layers.into_iter().map(|layer| Layer::of_tar(layer.tar));
    layers.fold(Image::new("app:1"), Image::with)
}

fn prepare(scene: &Scene) {
    Layout::of(&[image()]).archive().write_dir(&scene.env.path("in"));
    scene.env.write("in.tar", docker_archive(&[plain()]).bytes());
}

/// What is wrong with new:2. The registry takes no manifest that names what it does not have, so that it is complete.
fn is_there(scene: &Scene) -> Vec<String> {
    let Some((_, bytes)) = scene.registry.manifest("new", "2") else { return vec!["nothing has that tag".to_owned()] };
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    let config = scene.registry.blob("new", manifest["config"]["digest"].as_str().unwrap());
    let mut wrong = Vec::new();
    if config != Some(scene.image.config_bytes()) {
        wrong.push("the config is another".to_owned());
    }
    for (layer, expected) in manifest["layers"].as_array().unwrap().iter().zip(&scene.image.layers) {
        let stored = scene.registry.blob("new", layer["digest"].as_str().unwrap()).unwrap();
        if longshore_testkit::facts::unpack(&stored) != expected.tar {
            wrong.push(format!("another layer than expected: {layer}"));
        }
    }
    wrong
}

fn on(when: &str, what: What) -> Fault {
    Fault::on(when, what)
}

#[test]
fn what_passes_is_tried_again() {
    let rows = || {
        vec![
            row("a question whether a blob is there fails", on("HEAD /v2/new/blobs/*", What::status(500)), 2..=20, Done),
            row("a blob is there, and nobody says how long it is", on("HEAD /v2/new/blobs/*", What::status(200)).always(), 2..=20, Done),
            row("500 on the begin of an upload", on(BEGIN, What::status(500)), 2..=8, Done),
            row("429 on the begin of an upload", on(BEGIN, What::retry_after(429, "1")), 2..=8, Done),
            row("503 until a date", on(BEGIN, busy_until_a_date()), 2..=8, Done),
            row("the begin of an upload is closed", on(BEGIN, What::Close), 2..=8, Done),
            row("the begin of an upload is reset", on(BEGIN, What::Reset), 2..=8, Done),
            row("503 on the end of an upload", on(FINISH, What::status(503)), 2..=8, Done),
            row("520 of a proxy on the end of an upload", on(FINISH, What::status(520)), 2..=8, Done),
            row("the end of an upload is closed", on(FINISH, What::Close), 2..=8, Done),
            row("an upload is done, and nobody hears of it", on(FINISH, What::Mute), 1..=8, Done),
            row("an upload is lost in the middle", on(FINISH, What::LoseUpload { after: 100, kept: 50 }), 2..=8, Done),
            row("the upload is forgotten", on(FINISH, What::ForgetUpload), 2..=8, Done),
            row("500 on a manifest", on(MANIFEST, What::status(500)), 2..=2, Done),
            row("503 on a manifest, twice", on(MANIFEST, What::error(503, "UNAVAILABLE", "not now")).times(2), 3..=3, Done),
            row("a manifest is closed", on(MANIFEST, What::Close), 2..=2, Done),
            row("a manifest is reset", on(MANIFEST, What::Reset), 2..=2, Done),
            row("a manifest is there, and nobody hears of it", on(MANIFEST, What::Mute), 2..=2, Done),
            row("429 on a manifest", on(MANIFEST, What::retry_after(429, "1")), 2..=2, Done),
            row("Locations are relative", on(BEGIN, What::Header("Location", "{path}".to_owned())).always(), 2..=8, Done),
            row(
                "an upload goes to another host",
                on(BEGIN, What::Header("Location", "http://{elsewhere}{path}".to_owned())).always(),
                2..=8,
                Done,
            ),
        ]
    };
    for args in PUSHES {
        play_all(&rows(), args, prepare, is_there);
    }
    // Chunks.
    let rows = [
        row("500 on a chunk", on(CHUNK, What::status(500)), 2..=8, Done),
        row("a chunk is closed", on(CHUNK, What::Close), 2..=8, Done),
        row("a chunk is there, and nobody hears of it", on(CHUNK, What::Mute), 1..=8, Done),
        row("a chunk is lost in the middle", on(CHUNK, What::LoseUpload { after: 3_000_000, kept: 2_000_000 }), 2..=8, Done),
        row("a chunk is lost in the middle, with nothing kept", on(CHUNK, What::LoseUpload { after: 3_000_000, kept: 0 }), 2..=8, Done),
        row("the upload is forgotten before a chunk", on(CHUNK, What::ForgetUpload), 2..=8, Done),
        row("the upload is forgotten before the second chunk", on(CHUNK, What::ForgetUpload).after(1), 2..=8, Done),
    ];
    play_all(&rows, PUSHES[1], prepare, is_there);
}

#[test]
fn what_does_not_pass_ends_in_a_sentence() {
    let rows = || -> Vec<Row> {
        vec![
            row(
                "no access",
                on(BEGIN, What::error(403, "DENIED", "requested access to the resource is denied")).always(),
                1..=3,
                Fails(&["HOST", "403", "requested access to the resource is denied"]),
            ),
            row(
                "no access, which a question is told without words",
                on("HEAD|POST /v2/new/blobs/*", What::error(403, "DENIED", "requested access to the resource is denied")).always(),
                1..=12,
                Fails(&["HOST", "403", "requested access to the resource is denied"]),
            ),
            row(
                "a blob is too large",
                on(FINISH, What::error(413, "SIZE_INVALID", "the quota is used up")).always(),
                1..=3,
                Fails(&["HOST", "413", "the quota is used up"]),
            ),
            row(
                "500 for ever on the begin",
                on(BEGIN, What::error(500, "UNKNOWN", "no space left")).always(),
                2..=40,
                Fails(&["HOST", "500", "no space left"]),
            ),
            row(
                "503 for ever on the end",
                on(FINISH, What::error(503, "UNAVAILABLE", "storage is down")).always(),
                2..=40,
                Fails(&["HOST", "503", "storage is down"]),
            ),
            row(
                "another digest on a blob",
                on(FINISH, What::Header("Docker-Content-Digest", OTHER.to_owned())).always(),
                1..=3,
                Fails(&["HOST", OTHER]),
            ),
            row(
                "another digest on a manifest",
                on(MANIFEST, What::Header("Docker-Content-Digest", OTHER.to_owned())).always(),
                1..=1,
                Fails(&["HOST", OTHER, "expected"]),
            ),
            row(
                "a manifest is refused",
                on(MANIFEST, What::error(400, "MANIFEST_INVALID", "it has no author")).always(),
                1..=1,
                Fails(&["HOST", "400", "it has no author"]),
            ),
            row(
                "500 for ever on a manifest",
                on(MANIFEST, What::error(500, "UNKNOWN", "the database is gone")).always(),
                2..=10,
                Fails(&["HOST", "500", "the database is gone"]),
            ),
            row("a manifest is silent for ever", on(MANIFEST, What::Silence).always(), 1..=4, Fails(&["HOST"])),
            row("an upload is silent for ever", on(FINISH, What::Silence).always(), 1..=3, Fails(&["HOST"])),
            row("no Location", on(BEGIN, What::Header("Location", String::new())).always(), 1..=8, Fails(&["HOST"])),
            row(
                "a Location without TLS",
                on(BEGIN, What::Header("Location", "http://uploads.invalid{path}".to_owned())).always(),
                1..=8,
                Fails(&["uploads.invalid", "TLS"]),
            ),
            row(
                "a Location of another scheme",
                on(BEGIN, What::Header("Location", "file:///tmp/upload".to_owned())).always(),
                1..=8,
                Fails(&["HOST"]),
            ),
            row(
                "a blob that is there with another size",
                on("HEAD /v2/new/blobs/*", What::Answer { status: 200, headers: Vec::new(), body: vec![0; 7] }).always(),
                1..=8,
                Fails(&["HOST", "7 bytes"]),
            ),
            row(
                "read only",
                on("POST|PUT|PATCH *", What::error(405, "UNSUPPORTED", "the operation is unsupported")).always(),
                1..=4,
                Fails(&["HOST", "405"]),
            ),
        ]
    };
    for args in PUSHES {
        play_all(&rows(), args, prepare, is_there);
    }
    // Nothing has a name that is not whole.
    let scene = Scene::new();
    prepare(&scene);
    scene.fault(on(FINISH, What::error(403, "DENIED", "no")).always());
    scene.fails(PUSHES[0], &["403"]);
    assert!(scene.registry.tags("new").is_empty() && scene.count(MANIFEST) == 0);
}

/// The request that ends the upload of the large blob of a layout, or all of it.
fn finish_large(scene: &Scene) -> String {
    let digits = scene.fill("LARGE").replace("sha256:", "");
    format!("PUT /v2/new/blobs/uploads/*{digits}*")
}

#[test]
fn a_blob_that_is_lost_waits_before_it_begins_anew() {
    for (what, least) in
        [(What::retry_after(429, "2"), 2000), (What::retry_after(503, "2"), 2000), (busy_until_a_date(), 2000), (What::Close, 100)]
    {
        let scene = Scene::new();
        prepare(&scene);
        let large = finish_large(&scene);
        scene.fault(on(&large, what.clone()));
        scene.ok(PUSHES[0]);
        assert!(is_there(&scene).is_empty());
        let asked = scene.registry.asked(&large);
        let waited = asked[1].began.duration_since(asked[0].ended.unwrap());
        assert!(waited >= Duration::from_millis(least) && waited < Duration::from_millis(least + 5000), "{what:?}: {waited:?}");
    }
    // What was sent in chunks is there already: only its end is asked for once more.
    let scene = Scene::new();
    prepare(&scene);
    scene.fault(on(CHUNK, What::Delay(Duration::ZERO)));
    scene.fault(on(FINISH, What::retry_after(429, "2")).times(3));
    scene.ok(PUSHES[1]);
    assert!(is_there(&scene).is_empty());
    let chunks = scene.registry.asked(CHUNK);
    assert_eq!(chunks.iter().filter(|chunk| chunk.header("content-range").is_some_and(|range| range.starts_with("0-"))).count(), 1);
}

#[test]
fn a_token_that_ends_in_a_push_is_replaced_once() {
    let challenge = r#"Bearer realm="http://{host}/token",service="testkit",scope="repository:new:pull,push",error="invalid_token""#;
    let refusal = What::Answer { status: 401, headers: vec![("WWW-Authenticate", challenge.to_owned())], body: Vec::new() };
    for (times, code) in [(1, 0), (usize::MAX, 1)] {
        let scene = Scene::new();
        prepare(&scene);
        scene.registry.auth(Auth::Bearer(Bearer::default()), "user", "secret");
        let large = finish_large(&scene);
        scene.fault(on(&large, refusal.clone()).times(times));
        let ran = scene.run(&format!("--creds user:secret {}", PUSHES[0])).exited(code);
        assert_eq!((scene.registry.asked(&large).len(), is_there(&scene).is_empty()), (2, code == 0), "401 {times} times: {}", ran.stderr);
    }
}

#[test]
fn silence_is_waited_for_once() {
    let scene = Scene::new();
    prepare(&scene);
    let large = finish_large(&scene);
    scene.fault(on(&large, What::Silence).always());
    let start = Instant::now();
    scene.fails(PUSHES[0], &["HOST", "no answer for 4 seconds"]);
    // A registry has twice as long to put a blob away.
    assert!(scene.registry.asked(&large).len() == 1 && start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[test]
fn who_dies_in_a_push_is_not_asked_for_ever() {
    // The registry loses the upload, and then answers no more.
    let scene = Scene::new();
    prepare(&scene);
    scene.fault(on(&finish_large(&scene), What::LoseUpload { after: 100_000, kept: 0 }));
    scene.fault(on("HEAD /v2/new/blobs/LARGE", What::Close).after(1).always());
    scene.fails(PUSHES[0], &["HOST", "after 6 attempts"]);
    // Connections that were kept may be gone, which is no attempt.
    let asked = scene.count("HEAD /v2/new/blobs/LARGE");
    assert!((1 + 6..=4 + 6).contains(&asked), "{asked}");
    // It loses the upload, and the source answers no more.
    let (scene, other) = (Scene::new(), Registry::start());
    other.fault(on("PUT /v2/copied/blobs/uploads/*", What::LoseUpload { after: 10, kept: 0 }).times(2));
    scene.fault(on("GET /v2/app/blobs/LARGE", What::Close).after(1).always());
    scene.fails(&format!("copy docker://HOST/app:1 docker://{}/copied:1", other.host()), &["HOST", "LARGE"]);
    let asked = scene.count("GET /v2/app/blobs/LARGE");
    assert!((1 + 6..=4 + 6).contains(&asked), "{asked}");
}

#[test]
fn large_chunks_are_made_where_a_registry_asks_for_them() {
    let scene = Scene::new();
    let noise = |n: u64| Layer::of_tar(write(&[Member::file("noise", noise(5 << 20, n))]));
    scene.env.write("in.tar", docker_archive(&[Image::new("app:1").with(noise(1)).with(noise(2)).with(noise(3))]).bytes());
    scene.fault(on(BEGIN, What::Header("OCI-Chunk-Min-Length", "4000000".to_owned())).always());
    scene.ok("copy in.tar docker://HOST/new:2");
    let chunks = scene.registry.asked(CHUNK);
    let lengths: Vec<u64> = chunks.iter().filter_map(|chunk| chunk.header("content-length")?.parse().ok()).collect();
    // The last of a blob may be smaller.
    assert!(lengths.len() == 6 && lengths.iter().filter(|length| **length >= 4_000_000).count() == 3, "{lengths:?}");
}

#[test]
fn a_chunk_goes_on_where_it_broke_off() {
    let scene = Scene::new();
    prepare(&scene);
    scene.fault(on(CHUNK, What::LoseUpload { after: 3_000_000, kept: 2_000_000 }));
    scene.ok(PUSHES[1]);
    assert!(is_there(&scene).is_empty());
    let chunks = scene.registry.asked(CHUNK);
    let from = |n: usize| chunks[n].header("content-range").unwrap_or_default().split('-').next().unwrap_or_default().to_owned();
    assert_eq!((from(0).as_str(), from(1).as_str()), ("0", "2000000"), "{chunks:?}");
    assert_eq!(scene.registry.asked("GET /v2/new/blobs/uploads/*").len(), 1, "how far it is was asked for");
}

#[test]
fn uploads_elsewhere_learn_nothing() {
    for auth in [Auth::Basic, Auth::Bearer(Bearer::default())] {
        for address in ["127.0.0.1", "127.0.0.2"] {
            for args in PUSHES {
                let scene = Scene::new();
                prepare(&scene);
                scene.registry.elsewhere(address);
                scene.registry.auth(auth.clone(), "user", "secret");
                scene.fault(on(BEGIN, What::Header("Location", "http://{elsewhere}{path}".to_owned())).always());
                scene.ok(&format!("--creds user:secret {args}"));
                assert!(is_there(&scene).is_empty() && scene.promises().is_empty(), "{auth:?} {address} {args}: {:?}", scene.promises());
                assert!(scene.registry.log().iter().any(|asked| asked.listener == longshore_testkit::registry::Listener::Elsewhere));
            }
        }
    }
}

#[test]
fn several_blobs_move_side_by_side() {
    let scene = Scene::new();
    let layers = (0..12).map(|n| Layer::new(&format!("n={n}")).packed(Packing::Gzip));
    let image = layers.fold(Image::new("many:1"), Image::with);
    scene.registry.push_image(&image, "many", "1");
    scene.fault(on("GET /v2/many/blobs/*", What::Delay(Duration::from_millis(300))).always());
    scene.fault(on("PUT /v2/new/blobs/uploads/*", What::Delay(Duration::from_millis(300))).always());
    scene.ok("copy docker://HOST/many:1 oci:many");
    scene.ok("copy oci:many docker://HOST/new:2");
    let most = |when: &str| {
        let asked = scene.registry.asked(when);
        let at_once = |one: &Asked| asked.iter().filter(|other| other.began <= one.began && other.ended.unwrap() > one.began).count();
        asked.iter().map(at_once).max().unwrap()
    };
    for when in ["GET /v2/many/blobs/*", FINISH] {
        assert!((2..=4).contains(&most(when)), "{when}: {} at once", most(when));
    }
    // Connections are kept: as many as move side by side, and some for what comes before.
    let mut connections: Vec<usize> = scene.registry.log().iter().map(|asked| asked.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    assert!(connections.len() <= 12, "{} connections for {} requests", connections.len(), scene.registry.log().len());
    // One by one, whatever the processors.
    scene.registry.forget_log();
    scene.ok("--threads 3 --parallel 1 copy docker://HOST/many:1 oci:again");
    assert_eq!(most("GET /v2/many/blobs/*"), 1);
}

#[test]
fn a_manifest_that_is_not_changed_keeps_its_digest() {
    let scene = Scene::new();
    prepare(&scene);
    scene.ok(PUSHES[0]);
    assert_eq!(scene.registry.digest("new", "2"), scene.registry.digest("app", "1"));
    // Twice: nothing is sent that is there.
    scene.registry.forget_log();
    scene.ok("copy oci:in docker://HOST/new:3");
    assert_eq!((scene.count(BEGIN), scene.count(FINISH), scene.count("PUT /v2/new/manifests/3")), (0, 0, 1));
    assert_eq!(scene.registry.tags("new"), ["2", "3"]);
}

#[test]
fn blobs_come_from_other_repositories_of_a_registry() {
    for (name, fault, uploads) in [
        ("201", None, 0),
        ("202", Some(on("POST *mount=*", What::RefuseMount).always()), 3),
        ("403", Some(on("POST *mount=*", What::error(403, "DENIED", "no mounts")).always()), 3),
        ("400", Some(on("POST *mount=*", What::error(400, "UNSUPPORTED", "no mounts")).always()), 3),
        ("405", Some(on("POST *mount=*", What::status(405)).always()), 3),
        ("500", Some(on("POST *mount=*", What::status(500)).always()), 3),
    ] {
        for auth in [Auth::None, Auth::Bearer(Bearer::default())] {
            let scene = Scene::new();
            scene.registry.auth(auth.clone(), "user", "secret");
            if let Some(fault) = fault.clone() {
                scene.fault(fault);
            }
            scene.ok("--creds user:secret copy docker://HOST/app:1 docker://HOST/new:2");
            assert!(is_there(&scene).is_empty(), "{name}");
            assert_eq!(scene.registry.digest("new", "2"), scene.registry.digest("app", "1"), "{name}");
            assert_eq!(scene.count(FINISH), uploads, "{name} {auth:?}");
            // The upload that comes instead of a mount is used.
            let more = if matches!(name, "201" | "202") { 0 } else { 3 };
            let begun = scene.registry.asked(BEGIN).iter().filter(|asked| !asked.line().contains("mount=")).count();
            assert_eq!(begun, more, "{name} {auth:?}");
            if uploads == 0 {
                assert_eq!((scene.count("GET /v2/app/blobs/LARGE"), scene.count("POST *mount=*")), (0, 3), "{name} {auth:?}");
            }
        }
    }
}

#[test]
fn one_registry_feeds_another() {
    let (scene, other) = (Scene::new(), Registry::start());
    let args = format!("copy docker://HOST/app:1 docker://{}/copied:1", other.host());
    scene.ok(&args);
    assert_eq!(other.digest("copied", "1"), scene.registry.digest("app", "1"));
    assert_eq!(other.blobs("copied"), scene.registry.blobs("app"));
    assert_eq!(other.asked("POST *mount=*").len(), 0, "another registry has nothing to mount from");
    // What breaks off on one side is gone on with.
    let (scene, other) = (Scene::new(), Registry::start());
    scene.fault(Fault::on("GET /v2/app/blobs/LARGE", What::Cut(2_000_000)));
    other.fault(Fault::on("PUT /v2/*/blobs/uploads/*", What::LoseUpload { after: 10_000, kept: 0 }));
    other.fault(Fault::on("POST *", What::status(500)));
    scene.ok(&format!("copy docker://HOST/app:1 docker://{}/copied:1", other.host()));
    assert_eq!(other.digest("copied", "1"), scene.registry.digest("app", "1"));
    // What is wrong with one is said of that one.
    scene.registry.heal();
    scene.fault(Fault::on("GET /v2/app/blobs/LARGE", What::Noise).always());
    let third = Registry::start();
    scene.fails(&format!("copy docker://HOST/app:1 docker://{}/copied:1", third.host()), &["LARGE", "HOST"]);
    assert!(third.manifest("copied", "1").is_none() && third.tags("copied").is_empty());
}

#[test]
fn layers_that_are_elsewhere_are_not_pushed() {
    let scene = Scene::new();
    let foreign = Image::new("app:1").with(Layer::new("a=1").foreign("https://example.com/layer")).layer("b=2");
    Layout::of(std::slice::from_ref(&foreign)).archive().write_dir(&scene.env.path("in"));
    scene.ok("copy oci:in docker://HOST/foreign:1 --allow-missing-layers");
    let missing = foreign.layers[0].diff_id();
    assert!(!scene.registry.blobs("foreign").contains(&missing) && scene.registry.manifest("foreign", "1").is_some());
    assert_eq!(scene.registry.asked(&format!("* *{missing}*")).len(), 0, "it is not even asked for");
}

#[test]
fn whoever_waits_stops_when_another_blob_fails() {
    let scene = Scene::new();
    prepare(&scene);
    scene.fault(on("HEAD /v2/new/blobs/SMALL", What::retry_after(429, "30")).always());
    scene.fault(on("HEAD /v2/new/blobs/LARGE", What::Delay(Duration::from_millis(500))));
    scene.fault(on("POST /v2/new/blobs/uploads/*", What::error(403, "DENIED", "it is full")).always());
    let start = std::time::Instant::now();
    let ran = scene.run(PUSHES[0]).exited(1);
    assert!(ran.stderr.contains("it is full"), "{}", ran.stderr);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_pull_that_waits_stops_when_another_blob_fails() {
    let scene = Scene::new();
    scene.fault(on("GET /v2/app/blobs/SMALL", What::retry_after(429, "30")).always());
    scene.fault(on("GET /v2/app/blobs/LARGE", What::error(403, "DENIED", "it is quarantined")).always());
    for args in ["copy docker://HOST/app:1 docker-archive:out.tar", "copy docker://HOST/app:1 oci:out"] {
        let start = std::time::Instant::now();
        let ran = scene.run(args).exited(1);
        assert!(ran.stderr.contains("it is quarantined"), "{}", ran.stderr);
        assert!(start.elapsed() < Duration::from_secs(10), "{args}: {:?}", start.elapsed());
    }
}

//! Pulling from a registry with which something is wrong.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use longshore_testkit::registry::{Auth, Bearer, Fault, Framing, What};

use super::End::{Done, Fails};
use super::{BUFFERS, OTHER, Scene, busy_until_a_date, is_whole, play_all, row};

const PULL: &str = "copy docker://HOST/app:1 docker-archive:out.tar";
const MANIFEST: &str = "GET /v2/app/manifests/1";
const LARGE: &str = "GET /v2/app/blobs/LARGE";
const CONFIG: &str = "GET /v2/app/blobs/CONFIG";

fn manifest(what: What) -> Fault {
    Fault::on(MANIFEST, what)
}

fn large(what: What) -> Fault {
    Fault::on(LARGE, what)
}

fn config(what: What) -> Fault {
    Fault::on(CONFIG, what)
}

fn no_preparation(_: &Scene) {}

#[test]
fn what_passes_is_waited_for() {
    let rows = [
        row("a manifest's connection is closed", manifest(What::Close), 2..=2, Done),
        row("a manifest's connection is reset", manifest(What::Reset), 2..=2, Done),
        row("a manifest is cut", manifest(What::Cut(100)), 2..=2, Done),
        row("500 on a manifest", manifest(What::status(500)), 2..=2, Done),
        row("503 on a manifest, twice", manifest(What::error(503, "UNAVAILABLE", "not now")).times(2), 3..=3, Done),
        row("a page of a proxy on a manifest", manifest(What::page(502, "Bad Gateway")), 2..=2, Done),
        row("504 on a manifest", manifest(What::status(504)), 2..=2, Done),
        row("520 of a proxy on a manifest", manifest(What::status(520)), 2..=2, Done),
        row("429 with seconds", manifest(What::retry_after(429, "1")), 2..=2, Done),
        row("503 with a date", manifest(busy_until_a_date()), 2..=2, Done),
        row("a config's connection is closed", config(What::Close), 2..=2, Done),
        row("500 on a config", config(What::status(500)), 2..=2, Done),
        row("a config is cut", config(What::Cut(20)), 2..=2, Done),
        row("the first request of all is refused", Fault::on("GET /v2/", What::status(503)), 2..=2, Done),
        row("a blob's connection is closed", large(What::Close), 2..=2, Done),
        row("a blob's connection is reset", large(What::Reset), 2..=2, Done),
        row("a blob breaks off", large(What::Cut(2_000_000)), 2..=2, Done),
        row("a blob breaks off three times", large(What::Cut(500_000)).times(3), 4..=4, Done),
        row("a blob breaks off every 400 kB", large(What::Cut(400_000)).always(), 10..=20, Done),
        row("a blob is reset", large(What::ResetAfter(2_000_000)), 2..=2, Done),
        row("a blob breaks off at its first byte", large(What::Cut(0)).times(2), 3..=3, Done),
        row("500 on a blob", large(What::status(500)).times(2), 3..=3, Done),
        row("429 on a blob", large(What::retry_after(429, "1")), 2..=2, Done),
        row("a blob falls silent", large(What::SilenceAfter(2_000_000)), 2..=2, Done),
        row("a range is ignored", large(What::Cut(2_000_000)), 2..=2, Done).and(large(What::IgnoreRange).after(1)),
        row("another range is sent", large(What::Cut(2_000_000)), 2..=4, Done).and(large(What::WrongRange(5)).after(1)),
        row("the range is sent that was sent before", large(What::Cut(2_000_000)), 2..=4, Done)
            .and(large(What::WrongRange(-2_000_000)).after(1)),
        row("a blob breaks off, and then there is an error", large(What::Cut(2_000_000)), 3..=3, Done)
            .and(large(What::status(503)).after(1)),
        row("a config drips", config(What::Drip { bytes: 40, every: Duration::from_millis(300) }), 1..=1, Done),
    ];
    play_all(&rows, PULL, no_preparation, is_whole);
}

#[test]
fn what_does_not_pass_ends_in_a_sentence() {
    let schema_1 = r#"{"schemaVersion":1,"name":"app","tag":"1","architecture":"amd64","fsLayers":[{"blobSum":"sha256:0"}],"history":[]}"#;
    let type_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let long = format!("{{\"schemaVersion\":2,\"pad\":\"{}\"}}", "x".repeat(5 << 20));
    let rows = [
        row(
            "no such manifest",
            Fault::on(MANIFEST, What::error(404, "MANIFEST_UNKNOWN", "manifest unknown")).always(),
            1..=1,
            Fails(&["HOST", "404", "manifest unknown"]),
        ),
        row(
            "no access",
            manifest(What::error(403, "DENIED", "requested access to the resource is denied")).always(),
            1..=1,
            Fails(&["HOST", "403", "requested access to the resource is denied"]),
        ),
        row("401 without a challenge", manifest(What::status(401)).always(), 1..=2, Fails(&["HOST", "401", "login"])),
        row(
            "400",
            manifest(What::error(400, "NAME_INVALID", "invalid repository name")).always(),
            1..=1,
            Fails(&["400", "invalid repository name"]),
        ),
        row(
            "500 for ever",
            manifest(What::error(500, "UNKNOWN", "the database is gone")).always(),
            2..=10,
            Fails(&["HOST", "500", "the database is gone"]),
        ),
        row("a page of a proxy for ever", manifest(What::page(502, "Bad Gateway")).always(), 2..=10, Fails(&["HOST", "502"])),
        row(
            "429 for ever",
            manifest(What::error(429, "TOOMANYREQUESTS", "you have reached your pull rate limit")).always(),
            2..=10,
            Fails(&["429", "pull rate limit"]),
        ),
        row("429 for an hour", manifest(What::retry_after(429, "3600")).always(), 1..=2, Fails(&["429", "3600"])),
        row("closed for ever", manifest(What::Close).always(), 2..=10, Fails(&["HOST"])),
        row("silent for ever", manifest(What::Silence).always(), 1..=4, Fails(&["HOST"])),
        row("silent from the first request on", Fault::on("* *", What::Silence).always(), 1..=4, Fails(&["HOST"])),
        row("not HTTP", manifest(What::Raw(b"220 mail.example.com ESMTP\r\n".to_vec())).always(), 1..=10, Fails(&["HOST"])),
        row("headers without end", manifest(What::EndlessHeader).always(), 1..=10, Fails(&["HOST"])),
        row(
            "a message with control characters",
            manifest(What::error(403, "DENIED", "no\u{1b}[2J\r\nway\u{7}")).always(),
            1..=1,
            Fails(&["403"]),
        ),
        row("a message without end", manifest(What::error(403, "DENIED", &"no ".repeat(1 << 20))).always(), 1..=1, Fails(&["403"])),
        row("an error without a body", manifest(What::status(418)).always(), 1..=1, Fails(&["418"])),
        row("a manifest that is garbage", manifest(What::body(oci, "{\"schemaVersion\":2,")).always(), 1..=1, Fails(&["HOST/app"])),
        row("a manifest that is a page", manifest(What::page(200, "Welcome to the hotel's network")).always(), 1..=1, Fails(&["HOST/app"])),
        row("an empty manifest", manifest(What::body(oci, "")).always(), 1..=1, Fails(&["HOST/app"])),
        row("a manifest of 5 MiB", manifest(What::body(oci, long)).always(), 1..=1, Fails(&["4194304"])),
        row("a manifest without end", manifest(What::Endless(Framing::Chunked)).always(), 1..=1, Fails(&["4194304"])),
        row("a manifest of schema 1", manifest(What::body(type_1, schema_1)).always(), 1..=1, Fails(&["schema 1"])),
        row(
            "a manifest of another digest",
            manifest(What::Header("Docker-Content-Digest", OTHER.to_owned())).always(),
            1..=1,
            Fails(&["DIGEST", OTHER]),
        ),
        row("a config of other bytes", config(What::Noise).always(), 1..=2, Fails(&["CONFIG"])),
        row("a config without end", config(What::Endless(Framing::Chunked)).always(), 1..=2, Fails(&["CONFIG"])),
        row("a blob of other bytes", large(What::Noise).always(), 1..=2, Fails(&["LARGE"])),
        row("a blob that is longer", large(What::Longer(1 << 20)).always(), 1..=2, Fails(&["LARGE"])),
        row("a blob that says it is longer", large(What::Length(7)).always(), 1..=2, Fails(&["LARGE"])),
        row("a blob that says it is shorter", large(What::Length(-7)).always(), 1..=2, Fails(&["LARGE"])),
        row("a blob without end, in chunks", large(What::Endless(Framing::Chunked)).always(), 1..=2, Fails(&["LARGE"])),
        row("a blob without end", large(What::Endless(Framing::Close)).always(), 1..=2, Fails(&["LARGE"])),
        row(
            "a blob that is not there",
            large(What::error(404, "BLOB_UNKNOWN", "blob unknown to registry")).always(),
            1..=1,
            Fails(&["LARGE", "404", "blob unknown to registry"]),
        ),
        row(
            "no access to a blob",
            large(What::error(403, "DENIED", "it is quarantined")).always(),
            1..=1,
            Fails(&["LARGE", "403", "it is quarantined"]),
        ),
        row(
            "503 on a blob for ever",
            large(What::error(503, "UNAVAILABLE", "storage is down")).always(),
            2..=10,
            Fails(&["LARGE", "503", "storage is down"]),
        ),
        row("a blob breaks off at one byte for ever", large(What::Cut(0)).always(), 2..=10, Fails(&["LARGE"])),
        row("a blob is silent for ever", large(What::Silence).always(), 1..=1, Fails(&["LARGE"])),
        row("a blob has headers and no byte", large(What::SilenceAfter(0)).always(), 1..=1, Fails(&["LARGE"])),
        row("a blob has few bytes and no more", large(What::SilenceAfter(1000)).always(), 1..=1, Fails(&["LARGE", "at byte 1000 of"])),
        row("507 on a manifest for ever", manifest(What::status(507)).always(), 2..=10, Fails(&["HOST", "507"])),
        row("505 on a manifest", manifest(What::status(505)).always(), 1..=1, Fails(&["HOST", "505"])),
        row("a blob leads in a circle", large(What::redirect(307, "{path}")).always(), 2..=20, Fails(&["LARGE", "redirect"])),
        row("a blob leads to a file", large(What::redirect(302, "file:///etc/passwd")).always(), 1..=2, Fails(&["LARGE"])),
        row("a blob leads to another scheme", large(What::redirect(302, "ftp://{elsewhere}{path}")).always(), 1..=2, Fails(&["LARGE"])),
        row(
            "a blob leads to a server without TLS",
            large(What::redirect(307, "http://blobs.invalid{path}")).always(),
            1..=2,
            Fails(&["LARGE", "blobs.invalid", "TLS"]),
        ),
        row("a blob leads nowhere", large(What::redirect(307, "")).always(), 1..=10, Fails(&["LARGE"])),
    ];
    play_all(&rows, PULL, no_preparation, is_whole);
}

#[test]
fn other_hosts_give_blobs_and_learn_nothing() {
    for auth in [Auth::None, Auth::Basic, Auth::Bearer(Bearer::default())] {
        for address in ["127.0.0.1", "127.0.0.2"] {
            let scene = Scene::new();
            scene.registry.elsewhere(address);
            scene.registry.auth(auth.clone(), "user", "secret");
            scene.fault(Fault::on("GET /v2/*/blobs/*", What::redirect(307, "http://{elsewhere}{path}")).always());
            scene.ok("--creds user:secret copy docker://HOST/app:1 docker-archive:out.tar");
            assert!(is_whole(&scene).is_empty() && scene.promises().is_empty(), "{auth:?} {address}: {:?}", scene.promises());
            assert_eq!(scene.count(LARGE), 2, "{auth:?} {address}: once here and once there");
        }
    }
}

#[test]
fn who_comes_back_from_another_host_is_nobody() {
    let scene = Scene::new();
    scene.registry.auth(Auth::Basic, "user", "secret");
    // The other host chooses where the way back leads.
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    scene.fault(large(What::redirect(307, &format!("http://{}/", elsewhere.local_addr().unwrap()))).always());
    let back =
        scene.fill("HTTP/1.1 307 Back\r\nLocation: http://HOST/v2/app/manifests/1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    std::thread::spawn(move || {
        for mut stream in elsewhere.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(back.as_bytes());
        }
    });
    scene.fails("--creds user:secret copy docker://HOST/app:1 docker-archive:out.tar", &["401"]);
    let came_back = scene.registry.asked("GET /v2/app/manifests/1");
    assert!(came_back.len() >= 2 && came_back[1..].iter().all(|asked| asked.header("authorization").is_none()), "{came_back:?}");
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    for (name, whats, twice) in [
        ("cut", vec![What::Cut(1_000_000)], false),
        ("reset", vec![What::ResetAfter(1_500_000)], false),
        ("silence", vec![What::SilenceAfter(700_001)], false),
        ("cut again", vec![What::Cut(1_000_000), What::Cut(1), What::ResetAfter(300_000)], false),
        ("a range that is ignored", vec![What::Cut(1_000_000), What::IgnoreRange], true),
    ] {
        let scene = Scene::new();
        for (n, what) in whats.into_iter().enumerate() {
            // Each of them counts the same requests.
            scene.fault(large(what).after(n));
        }
        scene.ok(PULL);
        assert!(is_whole(&scene).is_empty(), "{name}");
        let mut at = 0;
        for asked in scene.registry.asked(&scene.fill(LARGE)) {
            let range = asked.header("range").map(str::to_owned);
            let expected = (at > 0).then(|| format!("bytes={at}-"));
            assert_eq!(range, expected, "{name}: what was asked for after {at} bytes");
            at += asked.sent;
        }
        let size = scene.large().len() as u64;
        assert!(if twice { at > size } else { at == size }, "{name}: {at} bytes for {size}");
    }
}

#[test]
fn endless_blobs_are_left_at_their_size() {
    for framing in [Framing::Chunked, Framing::Close] {
        // What is decoded is found wrong earlier; what is stored as it comes is read to its end.
        for (args, least) in [(PULL, 0), ("copy docker://HOST/app:1 oci:out.tar", 1)] {
            let scene = Scene::new();
            scene.fault(large(What::Endless(framing)).always());
            scene.fails(args, &["LARGE"]);
            let sent: u64 = scene.registry.asked(&scene.fill(LARGE)).iter().map(|asked| asked.sent).sum();
            let size = scene.large().len() as u64;
            assert!(sent >= least * size && sent < size + BUFFERS, "{framing:?}: {sent} bytes for {size}");
        }
    }
}

#[test]
fn who_asks_to_wait_is_not_asked_before() {
    for (what, least) in [(What::retry_after(429, "2"), 2000), (busy_until_a_date(), 2000), (What::retry_after(503, "soon"), 100)] {
        let scene = Scene::new();
        scene.fault(manifest(what.clone()));
        scene.ok(PULL);
        let asked = scene.registry.asked(MANIFEST);
        let waited = asked[1].began - asked[0].began;
        assert!(waited >= Duration::from_millis(least) && waited < Duration::from_millis(least + 5000), "{what:?}: {waited:?}");
    }
}

#[test]
fn every_blob_is_asked_for_once() {
    let scene = Scene::new();
    for (args, out) in
        [(PULL, "out.tar"), ("save docker://HOST/app:1 -o saved.tar", "saved.tar"), ("copy docker://HOST/app:1 oci:layout", "layout")]
    {
        scene.registry.forget_log();
        scene.ok(args);
        assert_eq!(
            longshore_testkit::facts::facts(&scene.env.path(out)).essence(),
            longshore_testkit::facts::facts(&scene.env.path("whole.tar")).essence(),
            "{args}"
        );
        for when in [LARGE, CONFIG, "GET /v2/app/blobs/SMALL", "GET /v2/app/manifests/*"] {
            assert_eq!(scene.count(when), 1, "{args}: {when}");
        }
        assert!(scene.registry.log().len() <= 6, "{args}: {:?}", scene.registry.log().iter().map(|asked| asked.line()).collect::<Vec<_>>());
    }
    assert_eq!(
        longshore_testkit::tree(&scene.env.path("layout/blobs/sha256"))[&scene.fill("HEX")].len(),
        scene.registry.manifest("app", "1").unwrap().1.len()
    );
}

#[test]
fn an_interrupted_pull_leaves_nothing() {
    use longshore_testkit::env as testenv;
    let scene = Scene::new();
    scene.fault(large(What::SilenceAfter(1_000_000)).always());
    let mut command = scene.env.command(scene.fill(PULL).split_whitespace());
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let start = std::time::Instant::now();
    testenv::interrupt(&child);
    testenv::wait(child, PULL.to_owned()).exited(130);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(!scene.env.path("out.tar").exists() && scene.env.leftovers().is_empty());
}

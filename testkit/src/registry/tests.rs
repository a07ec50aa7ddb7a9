//! The registry behaves, and misbehaves as told: asked by hand, and by skopeo.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use super::*;
use crate::images::{Layer, Packing, docker_archive};
use crate::peers::{Tool, skipped};
use crate::{facts, tar};

/// What came back: status, header lines, body, and whether the connection ended as it should.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    whole: bool,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or_default()
    }
}

/// Asks with a connection of its own.
fn ask(host: &str, line: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    drop(stream.write_all(body));
    let mut bytes = Vec::new();
    let mut piece = [0; 65536];
    let mut end = None;
    let whole = loop {
        match stream.read(&mut piece) {
            Ok(0) => break true,
            Ok(read) => bytes.extend(&piece[..read]),
            Err(_) => break false,
        }
        end = end.or_else(|| bytes.windows(4).position(|four| four == b"\r\n\r\n"));
        if bytes.len() > 4 << 20 {
            break true;
        }
        let Some(end) = end else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
        let length = if head.starts_with("http/1.1 204") || line.starts_with("HEAD") { Some(0) } else { length };
        if length.is_some_and(|length| bytes.len() >= end + 4 + length) {
            break true;
        }
    };
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head, body: bytes.get(end + 4..).unwrap_or_default().to_vec(), whole }
}

fn image() -> Image {
    let tar = tar::write(&[tar::Member::file("noise", crate::noise(300_000, 5))]);
    Image::new("app:1").layer("etc/\netc/a=1").with(Layer::of_tar(tar).packed(Packing::Gzip))
}

fn large(image: &Image) -> (String, Vec<u8>) {
    let bytes = image.layers[1].bytes();
    (crate::digest(&bytes), bytes)
}

#[test]
fn manifests_blobs_ranges_and_tags_are_served() {
    let registry = Registry::start();
    let host = registry.host();
    let digest = registry.push_image(&image(), "team/app", "1");
    let (blob, bytes) = large(&image());
    assert_eq!(ask(&host, "GET /v2/", "", b"").status, 200);
    for reference in ["1", digest.as_str()] {
        let answer = ask(&host, &format!("GET /v2/team/app/manifests/{reference}"), "", b"");
        assert_eq!((answer.status, answer.header("docker-content-digest")), (200, digest.as_str()));
        assert_eq!(crate::digest(&answer.body), digest);
        let head = ask(&host, &format!("HEAD /v2/team/app/manifests/{reference}"), "", b"");
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, answer.body.len().to_string().as_str(), 0));
    }
    let get = |range: &str| ask(&host, &format!("GET /v2/team/app/blobs/{blob}"), range, b"");
    assert_eq!(get("").body, bytes);
    let part = get("Range: bytes=1000-\r\n");
    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[1000..]));
    assert_eq!(part.header("content-range"), format!("bytes 1000-{}/{}", bytes.len() - 1, bytes.len()));
    assert_eq!(get("Range: bytes=0-9\r\n").body, bytes[..10]);
    assert_eq!(get("Range: bytes=99999999-\r\n").status, 416);
    let missing = ask(&host, "GET /v2/team/app/manifests/2", "", b"");
    assert!(missing.status == 404 && missing.body.starts_with(br#"{"errors":[{"code":"MANIFEST_UNKNOWN""#));
    for tag in ["a", "b", "c"] {
        registry.tag("team/app", tag, &digest);
    }
    let page = ask(&host, "GET /v2/team/app/tags/list?n=2", "", b"");
    assert_eq!(page.body, br#"{"name":"team/app","tags":["1","a"]}"#);
    assert_eq!(page.header("link"), "</v2/team/app/tags/list?last=a&n=2>; rel=\"next\"");
    let log = registry.asked("GET /v2/team/app/blobs/*");
    assert_eq!((log.len(), log[1].range, log[1].sent), (4, Some((1000, bytes.len() as u64)), bytes.len() as u64 - 1000));
}

#[test]
fn uploads_are_strict() {
    let registry = Registry::start();
    let host = registry.host();
    let (digest, bytes) = (crate::digest(b"abcdef"), b"abcdef");
    let path = |answer: &Answer| answer.header("location").split_once(&host).unwrap().1.to_owned();
    let begun = ask(&host, "POST /v2/app/blobs/uploads/", "", b"");
    assert_eq!(begun.status, 202);
    let first = path(&begun);
    let sent = ask(&host, &format!("PATCH {first}"), "Content-Range: 0-3\r\n", &bytes[..4]);
    assert_eq!((sent.status, sent.header("range")), (202, "0-3"));
    assert_eq!(ask(&host, &format!("PATCH {first}"), "", b"x").status, 404, "a Location is good for one request");
    let second = path(&sent);
    assert_eq!(ask(&host, &format!("PATCH {second}"), "Content-Range: 3-5\r\n", b"def").status, 416);
    let status = ask(&host, &format!("GET {second}"), "", b"");
    assert_eq!((status.status, status.header("range")), (204, "0-3"));
    let wrong = ask(&host, &format!("PUT {second}&digest={}", crate::digest(b"x")), "", &bytes[4..]);
    assert!(wrong.status == 400 && String::from_utf8_lossy(&wrong.body).contains("DIGEST_INVALID"));
    let begun = ask(&host, "POST /v2/app/blobs/uploads/", "", b"");
    assert_eq!(ask(&host, &format!("PUT {}&digest={digest}", path(&begun)), "", bytes).status, 201);
    assert_eq!(registry.blob("app", &digest).as_deref(), Some(&bytes[..]));
    assert_eq!(ask(&host, &format!("POST /v2/mono/blobs/uploads/?digest={digest}"), "", bytes).status, 201);
    assert_eq!(ask(&host, &format!("POST /v2/other/blobs/uploads/?mount={digest}&from=app"), "", b"").status, 201);
    assert_eq!(registry.blobs("other"), std::slice::from_ref(&digest));
    registry.fault(Fault::on("POST *mount=*", What::RefuseMount));
    assert_eq!(ask(&host, &format!("POST /v2/third/blobs/uploads/?mount={digest}&from=app"), "", b"").status, 202);
    let unknown = r#"{"schemaVersion":2,"config":{"digest":"sha256:0"},"layers":[]}"#;
    let put = ask(&host, "PUT /v2/app/manifests/1", "Content-Type: text/plain\r\n", unknown.as_bytes());
    assert!(put.status == 400 && String::from_utf8_lossy(&put.body).contains("MANIFEST_BLOB_UNKNOWN"));
    // A connection lost in the middle of a chunk, of which a part was kept.
    let begun = ask(&host, "POST /v2/lost/blobs/uploads/", "", b"");
    registry.fault(Fault::on("PATCH *", What::LoseUpload { after: 4, kept: 2 }));
    assert!(!ask(&host, &format!("PATCH {}", path(&begun)), "", bytes).whole);
    let status = ask(&host, &format!("GET {}", path(&begun)), "", b"");
    assert_eq!((status.status, status.header("range")), (204, "0-1"));
    registry.fault(Fault::on("PATCH *", What::ForgetUpload));
    let forgotten = ask(&host, &format!("PATCH {}", path(&status)), "", b"cdef");
    assert!(forgotten.status == 404 && String::from_utf8_lossy(&forgotten.body).contains("BLOB_UPLOAD_UNKNOWN"));
}

#[test]
fn every_fault_of_a_body_is_as_it_says() {
    let registry = Registry::start();
    let (host, elsewhere) = (registry.host(), registry.elsewhere("127.0.0.1"));
    registry.push_image(&image(), "app", "1");
    let (blob, bytes) = large(&image());
    let line = format!("GET /v2/app/blobs/{blob}");
    let len = bytes.len();
    let faulty = |what: What, headers: &str| {
        registry.heal();
        registry.fault(Fault::on("GET /v2/*/blobs/*", what));
        ask(&host, &line, headers, b"")
    };
    assert_eq!(faulty(What::Close, "").head, "");
    assert!(!faulty(What::Reset, "").whole);
    let cut = faulty(What::Cut(1000), "");
    assert!(cut.whole && cut.body == bytes[..1000] && cut.header("content-length") == len.to_string());
    let reset = faulty(What::ResetAfter(70_000), "");
    assert!(!reset.whole && reset.body == bytes[..70_000], "{}", reset.body.len());
    assert!(!faulty(What::Silence, "").whole);
    let silence = faulty(What::SilenceAfter(10), "");
    assert!(!silence.whole && silence.body == bytes[..10]);
    let longer = faulty(What::Longer(10), "");
    assert!(longer.body.len() == len + 10 && longer.body.starts_with(&bytes));
    let noise = faulty(What::Noise, "");
    assert!(noise.body.len() == len && noise.body != bytes);
    assert_eq!(faulty(What::Length(7), "").header("content-length"), (len + 7).to_string());
    assert_eq!(faulty(What::Length(-7), "").header("content-length"), (len - 7).to_string());
    for framing in [Framing::Chunked, Framing::Close] {
        let endless = faulty(What::Endless(framing), "");
        assert!(endless.header("content-length").is_empty() && endless.body.len() > 2 << 20);
    }
    assert!(faulty(What::EndlessHeader, "").head.len() > 2 << 20);
    let range = "Range: bytes=100-\r\n";
    assert_eq!(faulty(What::IgnoreRange, range).status, 200);
    assert!(faulty(What::WrongRange(5), range).header("content-range").starts_with("bytes 105-"));
    let late = faulty(What::Drip { bytes: 100_000, every: Duration::from_millis(10) }, "");
    assert_eq!(late.body, bytes);
    let page = faulty(What::page(502, "Bad Gateway"), "");
    assert!(page.status == 502 && page.header("content-type") == "text/html" && page.body.starts_with(b"<!DOCTYPE"));
    assert_eq!(faulty(What::retry_after(429, "1"), "").header("retry-after"), "1");
    assert_eq!(
        faulty(What::redirect(307, "http://{elsewhere}{path}"), "").header("location"),
        format!("http://{elsewhere}/v2/app/blobs/{blob}")
    );
    assert_eq!(faulty(What::Header("Docker-Content-Digest", "sha256:0".to_owned()), "").header("docker-content-digest"), "sha256:0");
    assert_eq!(faulty(What::Raw(b"not HTTP\r\n\r\n".to_vec()), "").head, "not HTTP");
    assert_eq!(ask(&elsewhere, &line, "", b"").body, bytes, "the other host serves it, too");
    assert_eq!(registry.log().last().unwrap().listener, Listener::Elsewhere);
    registry.heal();
    registry.fault(Fault::on("POST *", What::Header("Location", "http://{elsewhere}{path}".to_owned())));
    let begun = ask(&host, "POST /v2/app/blobs/uploads/", "", b"");
    assert!(begun.header("location").starts_with(&format!("http://{elsewhere}/v2/app/blobs/uploads/")), "{}", begun.head);
}

#[test]
fn tokens_are_good_for_their_scopes() {
    let registry = Registry::start();
    let host = registry.host();
    registry.push_image(&image(), "app", "1");
    let manifest = "GET /v2/app/manifests/1";
    registry.auth(Auth::Basic, "user", "secret");
    assert_eq!(ask(&host, manifest, "", b"").header("www-authenticate"), r#"Basic realm="the testkit""#);
    let basic = |password: &str| format!("Authorization: Basic {}\r\n", auth::base64(format!("user:{password}").as_bytes()));
    assert_eq!(ask(&host, manifest, &basic("secret"), b"").status, 200);
    assert_eq!(ask(&host, manifest, &basic("wrong"), b"").status, 401);
    registry.auth(Auth::Bearer(Bearer { uses: Some(2), ..Bearer::default() }), "user", "secret");
    let refused = ask(&host, manifest, "", b"");
    let challenge = format!(r#"Bearer realm="http://{host}/token",service="testkit",scope="repository:app:pull""#);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, challenge.as_str()));
    let token = |line: &str, headers: &str, body: &[u8]| {
        let answer = ask(&host, line, headers, body);
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, format!("Authorization: Bearer {}\r\n", value["access_token"].as_str().unwrap_or_default()), value)
    };
    let get = "GET /token?service=testkit&scope=repository:app:pull";
    assert_eq!(token(get, &basic("wrong"), b"").0, 401);
    assert_eq!(token(get, "", b"").0, 401);
    let (status, good, _) = token(get, &basic("secret"), b"");
    assert_eq!(status, 200);
    let push = ask(&host, "POST /v2/app/blobs/uploads/", &good, b"");
    assert!(
        push.status == 401 && push.header("www-authenticate").ends_with(r#"scope="repository:app:pull,push",error="insufficient_scope""#)
    );
    assert_eq!(ask(&host, manifest, &good, b"").status, 200);
    assert!(ask(&host, manifest, &good, b"").header("www-authenticate").contains("invalid_token"), "it was good for two requests");
    let form = b"grant_type=password&username=user&password=secret&scope=repository%3Aapp%3Apull";
    let (status, _, answer) = token("POST /token", "", form);
    assert_eq!((status, answer["refresh_token"].as_str()), (200, Some(auth::IDENTITY)));
    let form = format!("grant_type=refresh_token&refresh_token={}&scope=repository:app:pull", auth::IDENTITY);
    let (_, good, _) = token("POST /token", "", form.as_bytes());
    assert_eq!(ask(&host, manifest, &good, b"").status, 200);
    registry.revoke_tokens();
    assert_eq!((ask(&host, manifest, &good, b"").status, registry.tokens()), (401, 3));
}

#[test]
fn referrers_are_listed_unless_switched_off() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let image = layout.image(&image());
    layout.artifact("application/x.signature", "signed", Some(&image));
    let digest = registry.push_layout(&layout, &image, "app", "1");
    let line = format!("GET /v2/app/referrers/{digest}");
    let index: Value = serde_json::from_slice(&ask(&registry.host(), &line, "", b"").body).unwrap();
    assert_eq!(index["manifests"][0]["artifactType"], "application/x.signature");
    registry.referrers(false);
    assert_eq!(ask(&registry.host(), &line, "", b"").status, 404);
}

#[test]
fn skopeo_pushes_pulls_and_lists() {
    let skopeo = match Tool::skopeo() {
        Ok(skopeo) => skopeo,
        Err(why) => return skipped("testkit: registry", &why),
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("in.tar"), docker_archive(&[image()]).bytes()).unwrap();
    for auth in [Auth::None, Auth::Basic, Auth::Bearer(Bearer::default()), Auth::Bearer(Bearer { elsewhere: true, ..Bearer::default() })] {
        let registry = Registry::start();
        registry.auth(auth, "user", "secret");
        let name = format!("docker://{}/team/app:1", registry.host());
        let out = at(&registry.host().replace(':', "-"));
        skopeo.ok(&["copy", "--dest-tls-verify=false", "--dest-creds=user:secret", &format!("docker-archive:{}", at("in.tar")), &name]);
        skopeo.ok(&["copy", "--src-tls-verify=false", "--src-creds=user:secret", &name, &format!("oci:{out}:app:1")]);
        let (theirs, ours) = (facts::facts(Path::new(&at("in.tar"))), facts::facts(Path::new(&out)));
        assert_eq!(theirs.only().diff_ids, ours.only().diff_ids);
        assert_eq!(registry.tags("team/app"), ["1"]);
        assert!(skopeo.ok(&["list-tags", "--tls-verify=false", "--creds=user:secret", name.trim_end_matches(":1")]).contains("\"1\""));
        assert_eq!(registry.unfinished_uploads(), 0);
        let wrong = skopeo.run(&["inspect", "--tls-verify=false", "--creds=user:wrong", &name]);
        assert_eq!(wrong.code == Some(0), matches!(registry.shared.gate.lock().unwrap().auth, Auth::None));
    }
}

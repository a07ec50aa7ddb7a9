//! Malformed inputs, each with the outcome that it must have.
//!
//! Rejected is: exit 1, one sentence that names the file and what in it is wrong, nothing written, quickly. Accepted is: the images that
//! the independent reader sees. A case is a row: its name, what is broken, and what the sentence mentions.

use std::time::{Duration, Instant};

use longshore_testkit::facts::{Packing, facts};
use longshore_testkit::images::{Archive, Image, Layer, Layout, docker_archive, pack};
use longshore_testkit::tar::{Member, fix_checksum};
use longshore_testkit::{Ran, TestEnv};
use serde_json::{Value, json};

use crate::env;

mod model;

/// What is read.
enum Input {
    /// The bytes of a file.
    File(Vec<u8>),
    /// The files of a directory.
    Dir(Archive),
}

/// What must happen.
enum Expect {
    /// It fails, and the sentence mentions all of these.
    Reject(Vec<String>),
    /// It is taken, with this many images.
    Accept(usize),
}

/// An edit of a JSON document before it is digested.
type Edit = fn(&mut Value);

struct Case {
    name: String,
    transport: &'static str,
    input: Input,
    expect: Expect,
}

fn reject(name: &str, transport: &'static str, bytes: Vec<u8>, mentions: &[&str]) -> Case {
    Case {
        name: name.to_owned(),
        transport,
        input: Input::File(bytes),
        expect: Expect::Reject(mentions.iter().map(|&text| text.to_owned()).collect()),
    }
}

fn accept(name: &str, transport: &'static str, bytes: Vec<u8>, images: usize) -> Case {
    Case { name: name.to_owned(), transport, input: Input::File(bytes), expect: Expect::Accept(images) }
}

/// Asserts what every rejection promises.
pub(crate) fn assert_rejected(env: &TestEnv, name: &str, ran: Ran, took: Duration, mentions: &[String], output: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            wrong.push(format!("{name}: {what}\n    `{}` said: {}", ran.command, ran.stderr.trim()));
        }
    };
    demand(ran.code == Some(1), format!("exit code {:?}, not 1", ran.code));
    demand(!ran.stderr.contains("panicked"), "a panic".to_owned());
    demand(took < Duration::from_secs(20), format!("it took {took:?}"));
    demand(matches!(ran.stderr.lines().count(), 1..=2), format!("{} lines, not a sentence and perhaps a hint", ran.stderr.lines().count()));
    demand(ran.stderr.len() < 1200, format!("{} bytes are no sentence", ran.stderr.len()));
    demand(!ran.stderr.chars().any(|c| c.is_control() && c != '\n'), "control characters".to_owned());
    for mention in mentions {
        demand(ran.stderr.contains(mention.as_str()), format!("no mention of {mention:?}"));
    }
    demand(!env.path(output).exists(), format!("it left {output}"));
    demand(env.leftovers().is_empty(), format!("it left {:?}", env.leftovers()));
    wrong
}

/// Runs all cases and fails with the list of those that went wrong.
fn run(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    let count = cases.len();
    for case in cases {
        let env = env();
        let file = match &case.input {
            Input::File(bytes) => {
                env.write("in.tar", bytes);
                "in.tar"
            }
            Input::Dir(files) => {
                files.write_dir(&env.path("in"));
                "in"
            }
        };
        let image = format!("{}:{file}", case.transport);
        for (n, out) in ["oci:out", "docker-archive:out.tar"].into_iter().enumerate() {
            let output = out.split_once(':').unwrap().1;
            let start = Instant::now();
            let ran = env.run(&format!("copy {image} {out}"));
            match &case.expect {
                Expect::Reject(mentions) => {
                    let mut mentions = mentions.clone();
                    mentions.push(file.to_owned());
                    wrong.extend(assert_rejected(&env, &case.name, ran, start.elapsed(), &mentions, output));
                }
                Expect::Accept(images) => {
                    if ran.code != Some(0) {
                        wrong.push(format!("{}: `{}` should take it, and said: {}", case.name, ran.command, ran.stderr.trim()));
                        continue;
                    }
                    let found = facts(&env.path(output)).images.len();
                    if found != *images {
                        wrong.push(format!("{}: {found} images in {out}, not {images}", case.name));
                    }
                }
            }
            if n == 0 {
                let checked = env.run(&format!("check {image}"));
                let code = if matches!(case.expect, Expect::Reject(_)) { 1 } else { 0 };
                if checked.code != Some(code) || checked.stderr.contains("panicked") {
                    wrong.push(format!(
                        "{}: check exits {:?}, not {code}: {}{}",
                        case.name,
                        checked.code,
                        checked.text(),
                        checked.stderr.trim()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} findings in {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

// --- the image that is broken -------------------------------------------------------------------------------------------

fn app() -> Image {
    Image::new("app:1").layer("etc/\netc/one=1").layer("etc/\netc/two=2\netc/.wh.one=")
}

pub(crate) fn docker() -> Archive {
    docker_archive(&[app()])
}

fn oci() -> Archive {
    Layout::of(&[app()]).archive()
}

fn config_name() -> String {
    format!("{}.json", &app().id()[7..])
}

fn layer_name(n: usize) -> String {
    format!("{}.tar", &app().layers[n].diff_id()[7..])
}

/// The archive manifest edited, with what the sentence must mention.
fn manifest(name: &str, edit: impl FnOnce(&mut Value), mentions: &[&str]) -> Case {
    let mut all = vec!["manifest.json"];
    all.extend(mentions);
    reject(name, "docker-archive", docker().edit("manifest.json", |value| edit(&mut value[0])).bytes(), &all)
}

/// The archive manifest replaced by other bytes.
fn manifest_bytes(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    reject(name, "docker-archive", docker().replace("manifest.json", bytes).bytes(), &["manifest.json"])
}

/// An image that is consistent but for what `edit` does to its config.
fn config(name: &str, edit: Edit) -> [Case; 2] {
    let image = app().edit_config(edit);
    let member = image.id()[7..19].to_owned();
    [
        reject(&format!("{name} (docker-archive)"), "docker-archive", docker_archive(std::slice::from_ref(&image)).bytes(), &[&member]),
        reject(&format!("{name} (oci-archive)"), "oci-archive", Layout::of(&[image]).archive().bytes(), &[&member]),
    ]
}

/// Text that is not one JSON document, and why.
fn not_json(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = String::from_utf8(good.to_vec()).unwrap();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let under_unknown = text.replacen('{', &format!("{{\"x-deep\":{},", deep(120)), 1);
    let twice = text.replacen('{', "{\"x-twice\":1,\"x-twice\":2,", 1);
    vec![
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("null", b"null".to_vec()),
        ("a number", b"42".to_vec()),
        ("a string", b"\"text\"".to_vec()),
        ("a byte order mark", [b"\xef\xbb\xbf", good].concat()),
        ("UTF-16", utf16),
        ("bad UTF-8", [b"{\"a\":\"\xff\xfe\"}".as_slice()].concat()),
        ("trailing text", [good, b" x"].concat()),
        ("two values", [good, good].concat()),
        ("100,000 levels", deep(100_000).into_bytes()),
        ("120 levels under an unknown key", under_unknown.into_bytes()),
        ("one key twice", twice.into_bytes()),
        ("text", b"hello".to_vec()),
    ]
}

/// A member with a header field set by hand, its checksum right.
fn with_field(mut archive: Archive, member: &str, at: usize, field: &[u8]) -> Vec<u8> {
    let position = archive.position(member);
    let rest = archive.0.split_off(position);
    let mut bytes: Vec<u8> = archive.0.iter().flat_map(Member::bytes).collect();
    let start = bytes.len();
    bytes.extend(longshore_testkit::tar::write(&rest));
    let block: &mut [u8; 512] = (&mut bytes[start..start + 512]).try_into().unwrap();
    block[at..at + field.len()].copy_from_slice(field);
    fix_checksum(block);
    bytes
}

fn before(archive: Archive, member: &str, extra: Vec<Member>) -> Vec<u8> {
    let mut archive = archive;
    let at = archive.position(member);
    archive.0.splice(at..at, extra);
    archive.bytes()
}

fn pax(records: &[u8]) -> Member {
    Member { kind: b'x', ..Member::file("PaxHeaders/x", records) }
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while format!("{len}").len() + body != len {
        len = format!("{len}").len() + body;
    }
    format!("{len} {key}={value}\n").into_bytes()
}

// --- archives -----------------------------------------------------------------------------------------------------------

#[test]
fn archives_that_are_none() {
    let mut cases = Vec::new();
    for transport in ["docker-archive", "oci-archive"] {
        for (name, bytes) in [
            ("empty", Vec::new()),
            ("text", b"hello, world\n".to_vec()),
            ("512 bytes of text", b"hello, world.\n\n!".repeat(32)),
            ("an archive without members", vec![0; 1024]),
            ("gzip of nothing", pack(b"", Packing::Gzip)),
            ("gzip of text", pack(b"hello", Packing::Gzip)),
            ("zstd of text", pack(b"hello", Packing::Zstd)),
            ("zip", b"PK\x03\x04\x14\x00\x00\x00\x08\x00".repeat(60)),
            ("noise", longshore_testkit::noise(10_000, 7)),
            ("a gzip header alone", vec![0x1f, 0x8b, 8, 0]),
        ] {
            cases.push(reject(&format!("{transport}: {name}"), transport, bytes, &[]));
        }
        let good = if transport == "docker-archive" { docker().bytes() } else { oci().bytes() };
        let lz4 = [&[0x04, 0x22, 0x4d, 0x18], good.as_slice()].concat();
        cases.push(reject(&format!("{transport}: lz4"), transport, lz4, &["lz4"]));
        for packing in [Packing::Gzip, Packing::Zstd, Packing::Xz, Packing::Bzip2] {
            let packed = pack(&good, packing);
            cases.push(reject(&format!("{transport}: {packing:?} cut"), transport, packed[..packed.len() - 6].to_vec(), &[]));
            cases.push(reject(
                &format!("{transport}: {packing:?} and then text"),
                transport,
                [&packed, b"trailing".as_slice()].concat(),
                &[],
            ));
            let twice = pack(&packed, Packing::Gzip);
            cases.push(reject(&format!("{transport}: {packing:?} in gzip"), transport, twice, &[]));
        }
        let mut wrong_crc = pack(&good, Packing::Gzip);
        let at = wrong_crc.len() - 7;
        wrong_crc[at] ^= 1;
        cases.push(reject(&format!("{transport}: gzip with a wrong CRC"), transport, wrong_crc, &[]));
    }
    run(cases);
}

#[test]
fn every_truncation_is_seen() {
    let mut wrong = Vec::new();
    for (transport, archive) in [("docker-archive", docker()), ("oci-archive", oci())] {
        let bytes = archive.bytes();
        let needed = bytes.len() - 1024;
        let offsets = (0..needed).step_by(512).chain((1..needed).step_by(997)).chain([needed - 1, needed - 511]);
        let env = env();
        for at in offsets {
            env.write("in.tar", &bytes[..at]);
            let start = Instant::now();
            let ran = env.run(&format!("copy {transport}:in.tar oci:out"));
            wrong.extend(assert_rejected(
                &env,
                &format!("{transport} cut at byte {at} of {needed}"),
                ran,
                start.elapsed(),
                &["in.tar".to_owned()],
                "out",
            ));
            // The same from a pipe.
            if at % 1024 == 0 {
                let ran = env.run_with_input(&format!("copy {transport}:- docker-archive:out.tar"), &bytes[..at]);
                wrong.extend(assert_rejected(
                    &env,
                    &format!("{transport} from a pipe, cut at byte {at}"),
                    ran,
                    start.elapsed(),
                    &[],
                    "out.tar",
                ));
            }
        }
        // What follows the last member is not needed.
        for at in [needed, needed + 1, needed + 512, needed + 1024] {
            env.write("in.tar", &bytes[..at.min(bytes.len())]);
            let ran = env.run(&format!("copy --force {transport}:in.tar docker-archive:whole.tar"));
            if ran.code != Some(0) {
                wrong.push(format!("{transport} without its last {} bytes is whole: {}", bytes.len() - at, ran.stderr));
            }
        }
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn members_that_are_missing_twice_or_no_files() {
    let (config, layer) = (config_name(), layer_name(0));
    let mut cases = vec![
        reject("no manifest.json", "docker-archive", docker().without("manifest.json").bytes(), &["manifest.json"]),
        reject("no config", "docker-archive", docker().without(&config).bytes(), &[&config]),
        reject("no layer", "docker-archive", docker().without(&layer).bytes(), &[&layer]),
        reject("no index.json", "oci-archive", oci().without("index.json").bytes(), &["index.json"]),
        reject("no oci-layout", "oci-archive", oci().without("oci-layout").bytes(), &["oci-layout"]),
    ];
    for (what, name) in [("manifest", "manifest.json"), ("config", config.as_str()), ("layer", layer.as_str())] {
        let data = docker().member(name).data.clone();
        let mut other = data.clone();
        *other.last_mut().unwrap() ^= 1;
        cases.push(accept(
            &format!("the {what} twice, the same"),
            "docker-archive",
            docker().plus(Member::file(name, data.clone())).bytes(),
            1,
        ));
        cases.push(reject(
            &format!("the {what} twice, different"),
            "docker-archive",
            docker().plus(Member::file(name, other.clone())).bytes(),
            &[name],
        ));
        cases.push(reject(
            &format!("the {what} under two spellings"),
            "docker-archive",
            docker().plus(Member::file(format!("./{name}"), other)).bytes(),
            &[name],
        ));
        for (kind, word) in [(b'3', "character device"), (b'4', "block device"), (b'5', "directory"), (b'6', "fifo")] {
            let mut archive = docker();
            *archive.member(name) = Member::other(kind, name, "");
            cases.push(reject(&format!("the {what} is a {word}"), "docker-archive", archive.bytes(), &[name]));
        }
        for (target, why) in [("../../../etc/passwd", "outside"), ("/etc/passwd", "absolute"), (name, "itself"), ("absent", "nothing")] {
            for kind in [b'1', b'2'] {
                let mut archive = docker();
                *archive.member(name) = Member::other(kind, name, target);
                cases.push(reject(
                    &format!("the {what} is a link ({}) to {why}", kind as char),
                    "docker-archive",
                    archive.bytes(),
                    &[name],
                ));
            }
        }
    }
    for (what, name) in [("index.json", "index.json".to_owned()), ("oci-layout", "oci-layout".to_owned())] {
        let mut other = oci().member(&name).data.clone();
        other.push(b' ');
        cases.push(reject(
            &format!("{what} twice, different"),
            "oci-archive",
            oci().plus(Member::file(name.clone(), other)).bytes(),
            &[&name],
        ));
    }
    let blobs: Vec<String> = oci().0.iter().map(Member::text).filter(|name| name.starts_with("blobs/sha256/") && name.len() > 20).collect();
    assert_eq!(blobs.len(), 4, "config, two layers, manifest");
    for name in blobs {
        let hex = &name[13..25];
        cases.push(reject(&format!("no {name}"), "oci-archive", oci().without(&name).bytes(), &[hex]));
        let mut changed = oci();
        *changed.member(&name).data.last_mut().unwrap() ^= 1;
        cases.push(reject(&format!("{name} changed"), "oci-archive", changed.bytes(), &[hex]));
        let mut longer = oci();
        longer.member(&name).data.push(0);
        cases.push(reject(&format!("{name} a byte longer"), "oci-archive", longer.bytes(), &[hex]));
        let mut shorter = oci();
        shorter.member(&name).data.pop();
        cases.push(reject(&format!("{name} a byte shorter"), "oci-archive", shorter.bytes(), &[hex]));
        let mut linked = oci();
        let data = linked.member(&name).data.clone();
        *linked.member(&name) = Member::other(b'2', name.clone(), "../../elsewhere");
        cases.push(reject(
            &format!("{name} is a symbolic link"),
            "oci-archive",
            linked.plus(Member::file("elsewhere", data)).bytes(),
            &[hex],
        ));
        let cut = oci();
        cases.push(Case {
            name: format!("no {name} in a directory"),
            transport: "oci",
            input: Input::Dir(cut.without(&name)),
            expect: Expect::Reject(vec![hex.to_owned()]),
        });
    }
    run(cases);
}

#[test]
fn headers_that_lie() {
    let layer = layer_name(0);
    let mut cases = Vec::new();
    for (why, field) in [
        ("negative, base-256", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\x00"),
        ("over 2^63", b"\x80\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("far past the end", b"77777777777\0"),
        ("not octal", b"0000000008z\0"),
        ("negative, octal", b"-0000000010\0"),
    ] {
        cases.push(reject(&format!("size {why}"), "docker-archive", with_field(docker(), &layer, 124, field), &[]));
    }
    for (what, at) in [("mode", 100), ("user id", 108), ("group id", 116)] {
        cases.push(reject(&format!("{what} not a number"), "docker-archive", with_field(docker(), &layer, at, b"zzzzzzz\0"), &[]));
    }
    cases.push(reject("time not a number", "docker-archive", with_field(docker(), &layer, 136, b"zzzzzzzzzzz\0"), &[]));
    let mut bad_sum = docker().bytes();
    bad_sum[150] ^= 1;
    cases.push(reject("wrong checksum", "docker-archive", bad_sum, &[]));
    let size = docker().member(&layer).data.len();
    let mut base256 = [0; 12];
    base256[0] = 0x80;
    base256[4..].copy_from_slice(&(size as u64).to_be_bytes());
    cases.push(accept("size in base-256", "docker-archive", with_field(docker(), &layer, 124, &base256), 1));
    let old = with_field(docker(), "manifest.json", 257, &[0; 8]);
    cases.push(accept("a v7 header", "docker-archive", old, 1));

    for (why, records) in [
        ("length 0", b"0 a=b\n".to_vec()),
        ("length too long", b"99 a=b\n".to_vec()),
        ("length too short", b"3 a=b\n".to_vec()),
        ("no length", b"a=b\n".to_vec()),
        ("no equals sign", b"6 abc\n".to_vec()),
        ("no newline", b"6 a=bc".to_vec()),
        ("NUL in a path", record("path", "a\0b")),
        ("size negative", record("size", "-1")),
        ("size not a number", record("size", "many")),
        ("size over 2^63", record("size", "99999999999999999999")),
    ] {
        cases.push(reject(&format!("PAX: {why}"), "docker-archive", before(docker(), &layer, vec![pax(&records)]), &[]));
    }
    let long = |kind: u8, name: &str| Member { kind, ..Member::file("././@LongLink", format!("{name}\0")) };
    cases.extend([
        reject(
            "two PAX headers for one entry",
            "docker-archive",
            before(docker(), &layer, vec![pax(&record("a", "b")), pax(&record("a", "b"))]),
            &[],
        ),
        reject(
            "two long names for one entry",
            "docker-archive",
            before(docker(), &layer, vec![long(b'L', &layer), long(b'L', &layer)]),
            &[],
        ),
        reject("a PAX header for no entry", "docker-archive", docker().plus(pax(&record("a", "b"))).bytes(), &[]),
        reject("a long name for no entry", "docker-archive", docker().plus(long(b'L', "x")).bytes(), &[]),
        reject(
            "a PAX header of 2 MiB",
            "docker-archive",
            before(docker(), &layer, vec![pax(&record("comment", &"x".repeat(2 << 20)))]),
            &[],
        ),
        reject("a name of 600 KB", "docker-archive", docker().plus(Member::file("n".repeat(600_000), "")).bytes(), &[]),
        accept("a long name", "docker-archive", before(docker(), &layer, vec![long(b'L', &layer)]), 1),
        accept("a PAX path", "docker-archive", before(docker(), &layer, vec![pax(&record("path", &layer))]), 1),
        accept(
            "a global PAX header",
            "docker-archive",
            before(docker(), &layer, vec![Member { kind: b'g', ..pax(&record("comment", "git")) }]),
            1,
        ),
        accept("unknown PAX keys", "docker-archive", before(docker(), &layer, vec![pax(&record("VENDOR.key", "value"))]), 1),
    ]);
    // PAX wins over the header: what the header would make an entry of its own is inside this one.
    let mut hidden = docker();
    let inner = Member::file("manifest.json", "evil").bytes();
    let outer = Member { size_field: Some(*b"00000000000\0"), ..Member::file("outer", inner.clone()) };
    let at = hidden.position("manifest.json");
    hidden.0.splice(at..at, [pax(&record("size", &inner.len().to_string())), outer]);
    cases.push(accept("an archive hidden behind a PAX size", "docker-archive", hidden.bytes(), 1));
    run(cases);
}

#[test]
fn names_of_members() {
    let mut cases = Vec::new();
    for name in ["../evil", "a/../../evil", "a/..", "..", "/etc/evil", "/", "a/../manifest.json", ""] {
        cases.push(reject(&format!("a member named {name:?}"), "docker-archive", docker().plus(Member::file(name, "evil")).bytes(), &[]));
    }
    for (key, path) in
        [("Config", "/etc/passwd"), ("Config", "../config.json"), ("Config", "a/../../b"), ("Config", ""), ("Config", "\u{0}")]
    {
        cases.push(manifest(&format!("Config {path:?}"), |entry| entry[key] = path.into(), &[]));
    }
    for path in ["/etc/passwd", "../layer.tar", "", "."] {
        cases.push(manifest(&format!("a layer {path:?}"), |entry| entry["Layers"][0] = path.into(), &[]));
    }
    for path in ["x".repeat(60_000), "é".repeat(30_000)] {
        cases.push(manifest("a layer with a name that fills pages", |entry| entry["Layers"][0] = path.as_str().into(), &[]));
        cases.push(manifest("a config with a name that fills pages", |entry| entry["Config"] = path.into(), &[]));
    }
    cases.push(accept("a leading ./", "docker-archive", docker().rename(|name| format!("./{name}")).bytes(), 1));
    cases.push(accept("a leading ./ in a layout", "oci-archive", oci().rename(|name| format!("./{name}")).bytes(), 1));
    let any = docker().plus(Member::file(b"\xff\xfe\n\x07".to_vec(), "any bytes")).plus(Member::file("d/".repeat(2000) + "f", "deep"));
    cases.push(accept("names of any bytes, and 2,000 components", "docker-archive", any.bytes(), 1));
    cases.push(accept(
        "types that nobody names",
        "docker-archive",
        docker().plus(Member::other(b'6', "fifo", "")).plus(Member::other(b'7', "odd", "")).bytes(),
        1,
    ));
    cases.push(accept("bytes after the end", "docker-archive", [docker().bytes(), b"anything".repeat(100)].concat(), 1));
    run(cases);
}

#[test]
fn layers_may_be_links_to_layers() {
    let image = Image::new("app:1").layer("a=1").layer("b=1").layer("a=1");
    let mut cases = Vec::new();
    for (kind, target) in [(b'2', "../one/layer.tar"), (b'1', "one/layer.tar")] {
        let mut archive = docker_archive(std::slice::from_ref(&image));
        let name = format!("{}.tar", &image.layers[0].diff_id()[7..]);
        archive.member(&name).name = b"one/layer.tar".to_vec();
        archive.0.push(Member::other(kind, "three/layer.tar", target));
        let archive = archive.edit("manifest.json", |manifest| {
            manifest[0]["Layers"][0] = "one/layer.tar".into();
            manifest[0]["Layers"][2] = "three/layer.tar".into();
        });
        cases.push(accept(&format!("a repeated layer as a link ({})", kind as char), "docker-archive", archive.bytes(), 1));
    }
    run(cases);
}

// --- compression of layers ------------------------------------------------------------------------------------------------

#[test]
fn compressed_layers() {
    let layer = Layer::new("etc/\netc/one=1");
    let image = |stored: Vec<u8>| Image::new("app:1").with(layer.clone().packed(Packing::Gzip).stored(stored));
    let both = |name: &str, stored: Vec<u8>, good: bool, mention: &str| -> Vec<Case> {
        let image = image(stored);
        let bytes = [
            ("docker-archive", docker_archive(std::slice::from_ref(&image)).bytes()),
            ("oci-archive", Layout::of(std::slice::from_ref(&image)).archive().bytes()),
        ];
        let hex = longshore_testkit::hex(&image.layers[0].bytes())[..12].to_owned();
        bytes
            .into_iter()
            // A blob that is copied as it is is verified by its digest alone; a docker-archive's layers must be decoded.
            .filter(|(transport, _)| good || *transport == "docker-archive")
            .map(|(transport, bytes)| {
                let name = format!("{transport}: {name}");
                if good { accept(&name, transport, bytes, 1) } else { reject(&name, transport, bytes, &[&hex, mention]) }
            })
            .collect()
    };
    let gz = pack(&layer.tar, Packing::Gzip);
    let mut wrong_crc = gz.clone();
    let at = gz.len() - 8;
    wrong_crc[at] ^= 1;
    let mut wrong_length = gz.clone();
    let at = gz.len() - 1;
    wrong_length[at] ^= 1;
    let half = layer.tar.len() / 2;
    let members = [pack(&layer.tar[..half], Packing::Gzip), pack(&layer.tar[half..], Packing::Gzip)].concat();
    let zst = pack(&layer.tar, Packing::Zstd);
    let skippable = [b"\x50\x2a\x4d\x18\x04\0\0\0abcd".as_slice(), &zst, b"\x5f\x2a\x4d\x18\0\0\0\0"].concat();
    let mut cases = Vec::new();
    cases.extend(both("wrong CRC", wrong_crc, false, ""));
    cases.extend(both("wrong length", wrong_length, false, ""));
    cases.extend(both("no trailer", gz[..gz.len() - 8].to_vec(), false, ""));
    cases.extend(both("text after the stream", [&gz, b"text".as_slice()].concat(), false, ""));
    cases.extend(both("compressed twice", pack(&gz, Packing::Gzip), false, ""));
    cases.extend(both("lz4", [b"\x04\x22\x4d\x18".as_slice(), &layer.tar].concat(), false, "lz4"));
    cases.extend(both("two gzip members", members, true, ""));
    cases.extend(both("zeros after the stream", [&gz, [0; 600].as_slice()].concat(), true, ""));
    cases.extend(both("skippable zstd frames", skippable, true, ""));
    for packing in [Packing::Zstd, Packing::Xz, Packing::Bzip2] {
        let packed = pack(&layer.tar, packing);
        cases.extend(both(&format!("{packing:?} cut"), packed[..packed.len() - 5].to_vec(), false, ""));
        cases.extend(both(&format!("{packing:?}, called gzip"), packed, true, ""));
    }
    run(cases);
}

#[test]
fn zeros_without_end_are_streamed() {
    let env = env();
    let mut tar = Member::file("zeros", "").header();
    let size = 512 << 20;
    tar[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    fix_checksum((&mut tar[..512]).try_into().unwrap());
    tar.resize(512 + size + 1024, 0);
    let image = Image::new("zeros:1").with(Layer::of_tar(tar).packed(Packing::Gzip));
    env.write("in.tar", docker_archive(std::slice::from_ref(&image)).bytes());
    assert!(env.read("in.tar").len() < 2 << 20);
    let (diff_id, stored) = (image.layers[0].diff_id(), longshore_testkit::hex(&image.layers[0].bytes()));
    drop(image);
    env.ok("copy docker-archive:in.tar oci:out");
    assert!(env.path(&format!("out/blobs/sha256/{stored}")).exists(), "a compressed layer stays as it is");
    env.ok("copy --compress zstd docker-archive:in.tar oci-archive:out.tar");
    let report = env.ok("inspect --json oci-archive:out.tar").text();
    assert!(report.contains(&diff_id), "{report}");
    env.ok("check oci:out");
}

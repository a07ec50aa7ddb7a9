//! `ls`, `diff` and `inspect --waste`: what is said of layers.

use std::process::Stdio;

use longshore_testkit::images::{Image, Layer, Layout, Packing, docker_archive};
use longshore_testkit::tar::{Member, write};
use longshore_testkit::{TestEnv, env as testenv, fixture};
use serde_json::{Value, json};

use crate::env;

fn kitchen() -> TestEnv {
    let env = env();
    env.fixture("kitchen.tar", "kitchen.tar");
    env
}

/// A line of kitchen-rootfs.txt for an entry of `ls --json`, but for the digest.
fn fact(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let bytes = |key: &str| match entry.get(format!("{key}_hex")) {
        Some(hex) => unhex(hex.as_str().unwrap()),
        None => text(key).into_bytes(),
    };
    let (kind, link) = match text("kind").as_str() {
        "directory" => ("d", String::new()),
        "file" => ("f", String::new()),
        "symlink" => ("l", escaped(&bytes("link"))),
        "fifo" => ("p", String::new()),
        device => {
            let [major, minor] = [0, 1].map(|at| entry["device"][at].as_u64().unwrap());
            (if device == "block-device" { "b" } else { "c" }, format!("{major},{minor}"))
        }
    };
    let attributes = entry["xattrs"].as_object().into_iter().flatten();
    let attributes: Vec<_> =
        attributes.map(|(name, value)| format!("{name}={}", String::from_utf8(unhex(value.as_str().unwrap())).unwrap())).collect();
    let (uid, gid, mtime, size) = (&entry["uid"], &entry["gid"], &entry["mtime_seconds"], &entry["size"]);
    let (path, mode) = (escaped(&bytes("path")), text("mode").trim_start_matches('0').to_owned());
    format!("{path}|{kind}|{mode}|{uid}|{gid}|{mtime}|{size}|{link}|{}", attributes.join(","))
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// As Python shows bytes that are read as UTF-8 with escapes for everything else.
fn escaped(bytes: &[u8]) -> String {
    let text: String = bytes
        .utf8_chunks()
        .map(|chunk| {
            let invalid: String = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")).collect();
            chunk
                .valid()
                .chars()
                .map(|c| match c {
                    '\n' => "\\n".to_owned(),
                    '\'' => "\\'".to_owned(),
                    c if c.is_ascii() => c.to_string(),
                    c if u32::from(c) < 256 => format!("\\x{:02x}", u32::from(c)),
                    c => format!("\\u{:04x}", u32::from(c)),
                })
                .collect::<String>()
                + &invalid
        })
        .collect();
    text
}

#[test]
fn kitchen_is_what_an_independent_merge_says() {
    let env = kitchen();
    let expected = std::fs::read_to_string(fixture("kitchen-rootfs.txt")).unwrap();
    // Its lines are: path, kind, mode, uid, gid, mtime, size, digest or link or device, attributes.
    let mut expected: Vec<String> = expected
        .lines()
        .map(|line| {
            let mut fields: Vec<_> = line.split('|').collect();
            if fields[1] == "f" {
                fields[7] = "";
            }
            fields.join("|")
        })
        .collect();
    let document = env.ok("ls kitchen.tar --json").json();
    assert_eq!((&document["version"], &document["platform"]), (&json!(1), &json!("linux/amd64")));
    let mut found: Vec<_> = document["entries"].as_array().unwrap().iter().map(fact).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let of = |path: &str| document["entries"].as_array().unwrap().iter().find(|entry| entry["path"] == path).unwrap().clone();
    assert_eq!((of("inode/c")["hard_link"].clone(), of("inode/c")["names"].clone()), (json!("inode/b"), json!(2)));
    assert_eq!((of("inode/a")["layer"].clone(), of("inode/b")["layer"].clone()), (json!(2), json!(0)));
    assert_eq!(of("odd/old")["mtime"], json!("1969-12-31T23:59:59Z"));
}

#[test]
fn a_listing_is_that_of_ls() {
    let env = kitchen();
    assert_eq!(
        env.ok("ls kitchen.tar inode").text(),
        "drwxr-xr-x 1 0 0  0 2023-11-14 22:13 inode\n\
         -rw-r--r-- 1 0 0 15 2023-11-14 22:13 inode/a\n\
         -rw-r--r-- 2 0 0 14 2023-11-14 22:13 inode/b\n\
         -rw-r--r-- 2 0 0 14 2023-11-14 22:13 inode/c link to inode/b\n"
    );
    assert_eq!(env.ok("ls kitchen.tar /lib/libc.txt -v").text(), "0 -rw-r--r-- 1 0 0 5 2023-11-14 22:13 usr/lib/libc.txt\n");
    assert_eq!(env.ok("ls kitchen.tar lib").text(), "lrwxrwxrwx 1 0 0 0 2023-11-14 22:13 lib -> usr/lib\n");
    assert_eq!(env.ok("ls kitchen.tar odd --depth 0").text(), "drwxr-xr-x 1 0 0 0 2023-11-14 22:13 odd\n");
    let top = env.ok("ls kitchen.tar --depth 1").text();
    assert_eq!(top.lines().count(), 12, "{top}");
    let odd = env.ok("ls kitchen.tar odd").text();
    for part in
        ["-rwxr-xr-x+ 1", "brw-rw----", "7, 0", "-rwsr-xr-x", "drwxrwxrwt", "4000000000 3000000000", "odd/new\\nline", "1969-12-31 23:59"]
    {
        assert!(odd.contains(part), "{part}: {odd}");
    }
    assert_eq!(
        env.ok("ls kitchen.tar --layer 1 etc").text(),
        "drwxr-xr-x 1 0 0  0 2023-11-14 22:13 etc\n\
         wrw-r--r-- 1 0 0  0 2023-11-14 22:13 etc/.wh.gone (hides etc/gone)\n\
         wrw-r--r-- 1 0 0  0 2023-11-14 22:13 etc/.wh.never-existed (hides etc/never-existed)\n\
         -rw-r--r-- 1 0 0 11 2023-11-14 22:13 etc/added\n"
    );
    let layer = env.ok("ls kitchen.tar --layer 1 --json").json();
    let opaque = layer["entries"].as_array().unwrap().iter().find(|entry| entry["kind"] == "opaque").unwrap();
    assert_eq!((&layer["layer"], &opaque["path"], &opaque["hides"]), (&json!(1), &json!("data/.wh..wh..opq"), &json!("data")));
    assert_eq!(env.ok("ls kitchen.tar --layer 3").text(), "");
    env.fails(1, "ls kitchen.tar --layer 5").says(&["kitchen.tar", "no layer 5", "0 to 4"]);
    env.fails(1, "ls kitchen.tar etc/pasword").says(&["kitchen.tar", "`etc/pasword` is not there", "hint:", "etc/passwd"]);
}

#[test]
fn every_format_and_packing_lists_the_same() {
    let env = kitchen();
    let expected = env.ok("ls kitchen.tar").text();
    env.ok("copy docker-archive:kitchen.tar:kitchen:1 oci:layout --compress zstd");
    assert_eq!(env.ok("ls oci:layout").text(), expected);
    let piped = env.run_with_input("ls -", &env.read("kitchen.tar")).exited(0);
    assert_eq!(piped.text(), expected);
    env.ok("squash kitchen.tar squashed.tar");
    let squashed = env.ok("ls squashed.tar").text();
    assert_eq!(squashed, expected);
}

#[test]
fn a_platform_is_chosen_and_names_do_not_reach_the_terminal() {
    let env = env();
    let mut layout = Layout::new();
    let one = layout.image(&Image::new("app:1").platform("linux/amd64").layer("amd=1"));
    let other = layout.image(&Image::new("app:1").platform("linux/s390x").with(Layer::of_tar(write(&[Member::file("\x1b[31m", "1")]))));
    let index = layout.index(&[one, other]);
    layout.root(index, Some("docker.io/library/app:1"));
    layout.archive().write_dir(&env.path("in"));
    let ran = env.ok("ls oci:in --platform linux/s390x").text();
    assert!(ran.ends_with(" \\x1b[31m\n"), "{ran:?}");
    assert!(env.ok("ls oci:in --platform linux/amd64").text().ends_with(" amd\n"));
    env.fails(1, "ls oci:in --platform linux/arm64").says(&["linux/arm64", "linux/s390x"]);
    let ran = env.run("diff oci:in oci:in --platform linux/amd64").exited(0);
    assert!(ran.stdout.is_empty());
    env.fails(1, "diff oci:in oci:in --platform linux/arm64").says(&["linux/arm64"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let env = env();
    let many: String = (0..5000).map(|n| format!("file-{n}=\n")).collect();
    env.write("many.tar", docker_archive(&[Image::new("many:1").layer(&many)]).bytes());
    for args in ["ls many.tar", "ls many.tar --json"] {
        let mut child = env.command(args.split(' ')).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        testenv::read_some(child.stdout.as_mut().unwrap(), 10);
        drop(child.stdout.take());
        let ran = testenv::wait(child, args.to_owned());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args}");
    }
}

#[test]
fn a_difference_is_said_in_lines() {
    let env = env();
    let base = "etc/\netc/passwd=root\nusr/\nusr/tool=abc";
    let image = |name: &str, top: &str, packing| Image::new(name).with(Layer::new(base).packed(packing)).layer(top);
    let old = image("app:1", "etc/conf=1\netc/old=12\nlink->etc", Packing::Plain);
    let edit = |config: &mut Value| config["config"]["Env"] = json!(["A=1", "B=\x1b2"]);
    let new = image("app:2", "etc/conf=2\nlink->usr\nusr/new=123", Packing::Gzip).edit_config(edit);
    let ids = [old.id(), new.id()];
    let diff_ids = [&old, &new].map(|image| image.layers[1].diff_id());
    env.write("old.tar", docker_archive(&[old]).bytes());
    env.write("new.tar", docker_archive(&[new]).bytes());
    let ran = env.run("diff old.tar new.tar").exited(1);
    let expected = [
        format!("image {} -> {}", ids[0], ids[1]),
        "D name app:1".to_owned(),
        "A name app:2".to_owned(),
        r#"A config.Env: ["A=1","B=\u001b2"]"#.to_owned(),
        "layers: 1 in common".to_owned(),
        format!("D layer 1 {} 3.6 kB", diff_ids[0]),
        format!("A layer 1 {} 3.6 kB", diff_ids[1]),
        "  1 added, 1 removed, 2 changed; 3 B -> 4 B".to_owned(),
        "files: 1 added, 1 removed, 2 changed; 10 B -> 11 B".to_owned(),
        "C etc/conf: content (1 B)".to_owned(),
        "D etc/old: 2 B".to_owned(),
        "C link: link etc -> usr".to_owned(),
        "A usr/new: 3 B".to_owned(),
    ];
    assert_eq!(ran.text().lines().collect::<Vec<_>>(), expected);
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    let with_layers = env.run("diff --layers old.tar new.tar").exited(1).text();
    assert!(with_layers.contains("\n  D etc/old: 2 B\n") && with_layers.contains("\nD etc/old: 2 B\n"), "{with_layers}");
    assert!(env.run("diff -q old.tar new.tar").exited(1).stdout.is_empty());

    let document = env.run("diff --json old.tar new.tar").exited(1).json();
    assert_eq!((&document["same"], &document["layers_in_common"]), (&json!(false), &json!(1)));
    assert_eq!(document["names"], json!({ "removed": ["app:1"], "added": ["app:2"] }));
    assert_eq!(document["config"], json!([{ "path": "config.Env", "after": ["A=1", "B=\x1b2"] }]));
    let files = &document["files"];
    assert_eq!([&files["added"], &files["removed"], &files["changed"], &files["times_only"]], [1, 1, 2, 0]);
    let first = &files["changes"][0];
    assert_eq!((&first["change"], &first["differs_in"]), (&json!("changed"), &json!(["content"])));
    assert_eq!((&first["before"]["path"], &first["after"]["layer"]), (&json!("etc/conf"), &json!(1)));
    assert_eq!(document["layers"][0]["before"]["diff_id"], json!(diff_ids[0]));
}

#[test]
fn the_same_image_elsewhere_has_no_differences() {
    let env = kitchen();
    env.ok("copy kitchen.tar oci:layout --compress gzip");
    let ran = env.ok("diff kitchen.tar oci:layout");
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("", ""));
    let document = env.ok("diff kitchen.tar oci:layout --json").json();
    assert_eq!((&document["same"], &document["files"]["changes"]), (&json!(true), &json!([])));
    // Other layers, and the same files in them.
    env.ok("squash kitchen.tar squashed.tar");
    let text = env.run("diff kitchen.tar squashed.tar").exited(1).text();
    assert!(text.contains("files: 0 added, 0 removed, 0 changed; "), "{text}");
    assert!(text.lines().last().unwrap().starts_with("files:"), "{text}");
    env.fails(1, "diff kitchen.tar none.tar").says(&["none.tar"]);
}

#[test]
fn waste_is_what_nobody_sees() {
    let env = kitchen();
    let text = env.ok("inspect kitchen.tar --waste").text();
    let (_, waste) = text.split_once("\n\n  hidden").unwrap();
    let expected = "\x20by newer layers: 126 B of 79.1 kB (0.1 %), 10 files
  layer  in files  hidden  hidden files
      0   78.9 kB    69 B             6
      1      57 B    57 B             4
      2      15 B     0 B             0
      3       0 B     0 B             0
      4      57 B     0 B             0

  layer  size  largest hidden files
      0  28 B  data/old1
      0  19 B  etc/gone
      1  19 B  swap/file-to-dir/inner
";
    assert!(waste.starts_with(expected), "{waste}");
    let document = env.ok("inspect kitchen.tar --waste --json").json();
    let waste = &document["entries"][0]["image"]["waste"];
    assert_eq!((&waste["hidden_bytes"], &waste["hidden_files"]), (&json!(126), &json!(10)));
    assert_eq!(waste["layers"][1], json!({ "bytes": 57, "hidden_bytes": 57, "hidden_files": 4 }));
    assert_eq!(waste["largest"][0], json!({ "bytes": 28, "layer": 0, "path": "data/old1" }));
    assert!(env.ok("inspect kitchen.tar --json").json()["entries"][0]["image"].get("waste").is_none());
    env.write("clean.tar", docker_archive(&[Image::new("clean:1").layer("a=1").layer("b=2")]).bytes());
    assert!(env.ok("inspect clean.tar --waste").text().ends_with("\n\n  hidden by newer layers: 0 B of 2 B (0.0 %), 0 files\n"));
}

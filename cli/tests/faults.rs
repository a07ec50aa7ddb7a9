//! Faults of the world: what is not the input's fault leaves no wrong output either.

use std::time::Instant;

use longshore_testkit::facts::Packing;
use longshore_testkit::images::{Image, Layer, docker_archive, pack};
use longshore_testkit::tar::Member;
use longshore_testkit::{env as testenv, peers};

use crate::dialects::DIALECTS;
use crate::env;
use crate::malformed::{assert_rejected, docker};

#[test]
fn a_trickle_is_enough() {
    let env = env();
    let bytes = docker().bytes();
    env.write("in.tar", &bytes);
    env.ok("copy docker-archive:in.tar docker-archive:whole.tar");
    let mut child = env
        .command(["copy", "-", "docker-archive:trickled.tar"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    std::thread::spawn(move || {
        let mut faulty = longshore_testkit::faulty::Faulty::new(stdin).step(7);
        let _ = std::io::Write::write_all(&mut faulty, &bytes);
    });
    testenv::wait(child, "copy - docker-archive:trickled.tar".to_owned()).exited(0);
    assert!(env.read("whole.tar") == env.read("trickled.tar"), "the bytes of a trickle");
}

#[test]
fn what_is_no_archive_is_not_kept_until_the_disk_is_full() {
    let env = env();
    // 64 MiB, where the limit of what is kept is 1 MiB: the first block says that it is no archive, and nothing is kept.
    for (name, byte) in [("zeros", 0), ("text", b'x')] {
        let ran = env.run_with_input("copy --limit spool=1MiB - docker-archive:out.tar", &vec![byte; 64 << 20]);
        assert!(ran.code == Some(1) && ran.stderr.contains("it is not a tar archive"), "{name}: {}", ran.stderr);
        assert!(!env.path("out.tar").exists() && env.leftovers().is_empty(), "{name}");
        env.write("packed", pack(&vec![byte; 64 << 20], Packing::Gzip));
        let ran = env.run("check --limit spool=1MiB packed");
        assert!(ran.code == Some(1) && ran.text().contains("it is not a tar archive"), "{name}: {}{}", ran.text(), ran.stderr);
    }
    let endless = env.command(["copy", "/dev/zero", "out.tar"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    testenv::wait(endless, "copy /dev/zero out.tar".to_owned()).exited(1).says(&["/dev/zero", "it is not a tar archive"]);
}

#[test]
fn a_report_replaces_no_image() {
    let env = env();
    let bytes = docker().bytes();
    env.write("in.tar", &bytes);
    for report in ["in.tar", "./in.tar", "out.tar", "/dev/null"] {
        env.fails(1, &format!("copy in.tar out.tar --report {report}")).says(&[report]);
        assert!(env.read("in.tar") == bytes && !env.path("out.tar").exists(), "{report}");
    }
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn what_would_not_be_read_again_is_not_written() {
    let env = env();
    // Together they make an index of more than 32 KiB, which is all that readers are told to take.
    let images: Vec<Image> =
        (0..200).map(|n| Image::new(&format!("registry.example.com/{}/app:{n}", "a".repeat(180))).layer("a=1")).collect();
    env.write("in.tar", docker_archive(&images).bytes());
    env.write("one.tar", docker().bytes());
    env.ok("copy one.tar oci:there");
    let (before, json) = (longshore_testkit::tree(&env.path("there")), "index.json");
    for (out, document) in [
        ("oci:out", json),
        ("oci:there", json),
        ("oci-archive:out", json),
        ("docker-archive:out", json),
        ("--dialect classic docker-archive:out", "manifest.json"),
    ] {
        // Read one by one, written together.
        let sources: Vec<String> = (0..200).map(|n| format!("docker-archive:{n}.tar")).collect();
        if out == "oci:out" {
            for (n, image) in images.iter().enumerate() {
                env.write(&format!("{n}.tar"), docker_archive(std::slice::from_ref(image)).bytes());
            }
        }
        let ran = env.fails(1, &format!("copy --limit manifest=32KiB {} {out}", sources.join(" ")));
        ran.says(&[document, "readers take no more than 32768", out.split_once(':').unwrap().1]);
        assert!(!env.path("out").exists(), "{out}");
        assert!(longshore_testkit::tree(&env.path("there")) == before, "{out}");
    }
    env.ok("copy in.tar oci:there");
}

#[test]
fn a_layout_that_is_broken_is_not_added_to() {
    let env = env();
    env.write("in.tar", docker().bytes());
    for (name, bytes) in
        [("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#), ("oci-layout", ""), ("index.json", "{"), ("index.json", "{}")]
    {
        env.ok("copy in.tar oci:there");
        env.write(&format!("there/{name}"), bytes);
        let before = longshore_testkit::tree(&env.path("there"));
        env.fails(1, "copy in.tar oci:there --tag other:1").says(&["there", name]);
        assert!(longshore_testkit::tree(&env.path("there")) == before, "{name} {bytes:?}");
        std::fs::remove_dir_all(env.path("there")).unwrap();
    }
    for folder in ["blobs", "blobs/sha256"] {
        env.ok("copy in.tar oci:there");
        std::fs::rename(env.path("there").join(folder), env.path("elsewhere")).unwrap();
        std::os::unix::fs::symlink(env.path("elsewhere"), env.path("there").join(folder)).unwrap();
        let before = longshore_testkit::tree(&env.path("elsewhere"));
        env.fails(1, "copy in.tar oci:there --tag other:1 --compress zstd").says(&["there", "is a symlink"]);
        assert!(longshore_testkit::tree(&env.path("elsewhere")) == before, "{folder}");
        std::fs::remove_dir_all(env.path("there")).unwrap();
        std::fs::remove_dir_all(env.path("elsewhere")).unwrap();
    }
}

#[test]
fn an_image_that_is_not_there_is_told_what_is() {
    let env = env();
    env.write("in.tar", docker().bytes());
    env.ok("copy in.tar oci:layout");
    env.ok("copy in.tar oci-archive:layout.tar");
    for (code, image, says) in [
        (1, "docker-archive:in.tar:other", "hint: there are app:1"),
        (1, "oci:layout:other", "hint: there are app:1"),
        (1, "oci-archive:layout.tar:other", "hint: there are app:1"),
        (2, "in.tar:app:1", "hint: docker-archive:in.tar:app:1"),
        (2, "layout:app:1", "hint: oci:layout:app:1"),
    ] {
        env.fails(code, &format!("inspect {image}")).says(&[says]);
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let env = env();
    let small = env.path("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&small)
        .stderr(std::process::Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return peers::skipped("faults: full disk", "a small tmpfs cannot be mounted here");
    }
    let noise = Image::new("noise:1")
        .with(Layer::of_tar(longshore_testkit::tar::write(&[Member::file("noise", longshore_testkit::noise(2 << 20, 3))])));
    env.write("in.tar", docker_archive(&[noise]).bytes());
    let mut wrong = Vec::new();
    let outputs = ["docker-archive:small/out.tar", "oci-archive:small/out.tar", "oci:small/out", "dir:small/out", "google-dir:small/out"];
    let dialects = DIALECTS.map(|dialect| format!("--dialect {dialect} docker-archive:small/out.tar"));
    for out in outputs.map(str::to_owned).iter().chain(&dialects) {
        let start = Instant::now();
        let ran = env.run(&format!("copy docker-archive:in.tar {out}"));
        wrong.extend(assert_rejected(&env, out, ran, start.elapsed(), &["small".to_owned()], out.split_once(':').unwrap().1));
    }
    let left: Vec<_> = std::fs::read_dir(&small).unwrap().collect();
    let unmounted = std::process::Command::new("umount").arg(&small).status().unwrap();
    assert!(unmounted.success());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_directory_in_place_of_a_file_and_the_reverse() {
    let env = env();
    env.write("in.tar", docker().bytes());
    std::fs::create_dir(env.path("folder")).unwrap();
    env.write("folder/precious", "data");
    for (args, mention) in [
        ("copy docker-archive:folder oci:out", "folder"),
        ("copy docker-archive:in.tar docker-archive:folder", "folder"),
        ("copy --force docker-archive:in.tar docker-archive:folder", "folder"),
        ("copy docker-archive:in.tar dir:folder", "folder"),
        ("copy --force docker-archive:in.tar dir:folder", "folder"),
        ("copy docker-archive:in.tar oci:in.tar", "in.tar"),
        ("copy docker-archive:in.tar dir:in.tar", "in.tar"),
    ] {
        env.fails(1, args).says(&[mention]);
        assert_eq!(env.read("folder/precious"), b"data", "{args}");
        assert_eq!(env.read("in.tar"), docker().bytes(), "{args}");
    }
}

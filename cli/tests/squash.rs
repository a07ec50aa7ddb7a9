//! `squash` and `export`: what people see of it, and what engines make of what it writes.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longshore_testkit::env::{interrupt, wait};
use longshore_testkit::facts::{Packing, facts};
use longshore_testkit::images::{Image, Layer, Layout, docker_archive, pack};
use longshore_testkit::oracle::Tree;
use longshore_testkit::peers::{Dockerd, Podman, find, is_root, skipped};
use longshore_testkit::tar::{self, Member};
use longshore_testkit::{TestEnv, fixture};
use serde_json::{Value, json};

use crate::env;

fn with_kitchen() -> TestEnv {
    let env = env();
    env.fixture("kitchen.tar", "in.tar");
    env
}

fn config(env: &TestEnv, path: &str) -> Value {
    serde_json::from_slice(&facts(&env.path(path)).only().config).unwrap()
}

/// The root file system of an image, as `export` writes it.
fn rows(env: &TestEnv, image: &str) -> String {
    Tree::of_tar(&env.ok(&format!("export {image}")).stdout).rows()
}

fn kitchen_rows() -> String {
    std::fs::read_to_string(fixture("kitchen-rootfs.txt")).unwrap()
}

#[test]
fn kitchen_is_the_same_in_every_format_and_dialect() {
    let env = with_kitchen();
    assert_eq!(rows(&env, "in.tar"), kitchen_rows());
    for dialect in ["docker", "classic", "podman", "crane", "bazel", "google", "v1"] {
        env.ok(&format!("squash in.tar {dialect}.tar --dialect {dialect}"));
        let inspected = env.ok(&format!("inspect {dialect}.tar --json")).json();
        assert_eq!(inspected["entries"][0]["image"]["layers"].as_array().unwrap().len(), 1, "{dialect}");
        assert_eq!(rows(&env, &format!("{dialect}.tar")), kitchen_rows(), "{dialect}");
        env.ok(&format!("check {dialect}.tar"));
    }
    for to in ["oci:oci", "oci-archive:oci.tar", "dir:dir"] {
        env.ok(&format!("squash in.tar {to}"));
        assert_eq!(rows(&env, to), kitchen_rows(), "{to}");
        env.ok(&format!("check {to}"));
    }
    env.assert_no_leftovers();
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_on_how_layers_are_stored() {
    let env = with_kitchen();
    env.ok("copy in.tar oci:gzip");
    env.ok("copy in.tar oci:zstd --compress zstd");
    env.ok("export in.tar -o plain.tar");
    env.ok("export oci:gzip:@0 -o gzip.tar --threads 1");
    env.ok("export oci:zstd:@0 -o zstd.tar --threads 4");
    env.ok("export in.tar -o whole.tar.gz");
    assert_eq!(env.read("plain.tar"), env.read("gzip.tar"));
    assert_eq!(env.read("plain.tar"), env.read("zstd.tar"));
    assert_eq!(env.read("plain.tar"), longshore_testkit::facts::unpack(&env.read("whole.tar.gz")));
    env.ok("squash in.tar one.tar --threads 1");
    env.ok("squash in.tar four.tar --threads 4");
    assert_eq!(env.read("one.tar"), env.read("four.tar"));
    let piped = env.run_with_input("squash - -", &env.read("in.tar")).exited(0);
    assert_eq!(piped.stdout, env.read("one.tar"));
    assert!(piped.stderr.contains("spooled"), "{}", piped.stderr);
}

#[test]
fn the_config_keeps_all_but_diff_ids_and_tells_what_was_merged() {
    let env = with_kitchen();
    let before = config(&env, "in.tar");
    for (flags, kept, which) in
        [("", 0, "all 5 layers"), ("--from 2", 2, "layers 2 to 4"), ("--last 4", 1, "layers 1 to 4"), ("--last 1", 4, "layer 4")]
    {
        env.ok(&format!("squash in.tar out.tar --force {flags}"));
        let mut after = config(&env, "out.tar");
        let found = facts(&env.path("out.tar")).only().clone();
        assert_eq!(after["rootfs"]["diff_ids"], json!(found.diff_ids));
        assert_eq!(found.diff_ids[..kept], facts(&env.path("in.tar")).only().diff_ids[..kept]);
        let history = after["history"].as_array().unwrap().clone();
        assert_eq!(history.len(), before["history"].as_array().unwrap().len() + 1);
        assert_eq!(history.iter().filter(|step| step["empty_layer"] != true).count(), kept + 1, "{flags}");
        let last = history.last().unwrap();
        let comment = format!("merges {which} of {}", facts(&env.path("in.tar")).images.keys().next().unwrap());
        assert_eq!(*last, json!({ "created": before["created"], "created_by": "longshore squash", "comment": comment }));
        for (step, mut told) in before["history"].as_array().unwrap().iter().zip(history) {
            told.as_object_mut().unwrap().remove("empty_layer");
            let mut step = step.clone();
            step.as_object_mut().unwrap().remove("empty_layer");
            assert_eq!(told, step);
        }
        (after["rootfs"], after["history"]) = (before["rootfs"].clone(), before["history"].clone());
        assert_eq!(after, before, "{flags}");
    }
    env.ok("squash in.tar out.tar --force --created 2020-01-01T00:00:00Z");
    assert_eq!(config(&env, "out.tar")["created"], "2020-01-01T00:00:00Z");
}

#[test]
fn layers_of_a_base_image_stay() {
    let env = env();
    let base = Image::new("base:1").layer("etc/\netc/one=1").layer("etc/\netc/two=2");
    let app = base.clone().layer("etc/\netc/.wh.one=\netc/.wh.two=\netc/three=3").layer("etc/\netc/three=4\netc/.wh.never=");
    let app = Image { names: vec!["app:1".to_owned()], ..app };
    env.write("base.tar", docker_archive(&[base]).bytes());
    env.write("app.tar", docker_archive(&[app]).bytes());
    env.ok("squash app.tar out.tar --from base.tar");
    let found = facts(&env.path("out.tar")).only().clone();
    assert_eq!(found.diff_ids[..2], facts(&env.path("app.tar")).only().diff_ids[..2]);
    assert_eq!(rows(&env, "out.tar"), rows(&env, "app.tar"));
    assert_eq!(
        newest(&env, "out.tar"),
        ["etc/.wh.one", "etc/.wh.two", "etc/", "etc/three"],
        "whiteouts that hide something, and no others"
    );
    env.fails(1, "squash base.tar out2.tar --from app.tar").says(&["not built on the base"]);
    env.fails(1, "squash base.tar out2.tar --from 2").says(&["it has 2 layers", "above 2"]);
    env.fails(1, "squash base.tar out2.tar --last 3").says(&["it has 2 layers, not 3"]);
    env.fails(2, "squash base.tar out2.tar --last 0");
    env.fails(2, "squash base.tar out2.tar --last 1 --from 1");
    env.assert_no_leftovers();
}

/// The names in an image's newest layer.
fn newest(env: &TestEnv, path: &str) -> Vec<String> {
    let name = format!("blobs/{}", facts(&env.path(path)).only().diff_ids.last().unwrap().replace(':', "/"));
    let archive = tar::read(&env.read(path));
    tar::read(&archive.iter().find(|member| member.text() == name).unwrap().data).iter().map(Member::text).collect()
}

/// A directory without an entry below an opaque mark, and others without an entry where layers below have something.
fn without_entries() -> Image {
    let base = "d/\nd/old=1\nf=1\ng/\ng/old=1";
    Image::new("a:1").layer(base).layer("d/.wh..wh..opq=\nd/sub/new=2\n.wh.f=\n.wh.g=").layer("f/new=3\ng/new=3")
}

#[test]
fn marks_come_first_and_nothing_lies_below_a_whiteout() {
    let env = env();
    env.write("in.tar", docker_archive(&[without_entries()]).bytes());
    env.ok("squash in.tar out.tar --from 1");
    let expected = ["d/.wh..wh..opq", "f/", "g/", "g/.wh..wh..opq", "f/new", "g/new", "d/sub/new"];
    assert_eq!(newest(&env, "out.tar"), expected);
}

#[test]
fn all_images_and_platforms_at_once() {
    let env = env();
    let one =
        |name: &str, platform: &str| Image::new(name).platform(platform).layer("a=1").with(Layer::new(".wh.a=\nb=2").packed(Packing::Gzip));
    env.write("two.tar", docker_archive(&[one("a:1", "linux/amd64"), one("b:1", "linux/arm64")]).bytes());
    env.ok("squash two.tar out.tar");
    let found = facts(&env.path("out.tar"));
    assert_eq!(found.images.len(), 2);
    assert!(found.images.values().all(|image| image.diff_ids.len() == 1));
    let mut layout = Layout::new();
    let manifests: Vec<_> = ["linux/amd64", "linux/arm64"].iter().map(|platform| layout.image(&one("", platform))).collect();
    let index = layout.index(&manifests);
    layout.root(index, Some("a:1"));
    layout.archive().write_dir(&env.path("multi"));
    env.ok("squash oci:multi oci:out");
    let found = facts(&env.path("out"));
    assert_eq!((found.images.len(), found.roots.len()), (2, 1));
    assert!(found.images.values().all(|image| image.diff_ids.len() == 1));
    env.ok("check oci:out");
    let arm = env.ok("export oci:multi --platform linux/arm64").stdout;
    assert_eq!(tar::read(&arm).iter().map(Member::text).collect::<Vec<_>>(), ["b"]);
    env.fails(1, "export two.tar -o x.tar").says(&["2 images", "choose one"]);
    env.fails(1, "export oci:multi --platform linux/s390x -o x.tar").says(&["linux/s390x", "linux/amd64"]);
}

#[test]
fn v1_archives_get_the_suffix_of_quay() {
    let env = with_kitchen();
    env.ok("squash in.tar out.tar --dialect v1 --squash-tag-suffix");
    let members = tar::read(&env.read("out.tar"));
    let repositories: Value = serde_json::from_slice(&members.iter().find(|member| member.text() == "repositories").unwrap().data).unwrap();
    let id = members[0].text().split('/').next().unwrap().to_owned();
    assert_eq!(repositories, json!({ "kitchen": { "1.squash": id }, "example.com/team/kitchen": { "latest.squash": id } }));
    assert_eq!(members.iter().filter(|member| member.text().ends_with("/layer.tar")).count(), 1);
    assert_eq!(rows(&env, "docker-archive:out.tar"), kitchen_rows());
}

#[test]
fn what_no_engine_would_place_is_refused() {
    let env = env();
    let link = |name: &str, target: &str| Member::other(b'1', name, target);
    let file = |name: &str| Member::file(name, "x");
    let cases: Vec<(Vec<Vec<Member>>, &str)> = vec![
        (vec![vec![link("a", "b")]], "hard link `a` points to `b`, which is not there"),
        (vec![vec![link("a", "b"), file("b")]], "hard link `a` points to `b`, which is not there"),
        (vec![vec![file("b")], vec![file(".wh.b"), link("a", "b")]], "hard link `a` points to `b`, which is not there"),
        (vec![vec![file("f")], vec![link("f/x", "f")]], "hard link `f/x` points to `f`, which is not there"),
        (vec![vec![Member::dir("d/"), link("a", "d")]], "hard link `a` points to the directory `d`"),
        (vec![vec![file("a"), link("a", "a")]], "hard link `a` points to itself"),
        (vec![vec![file("a"), link("b", "../a")]], "contains `..`"),
        (vec![vec![file("a"), file("a/b")]], "entry `a/b` lies below `a`"),
        (vec![vec![file(".wh.")]], "whiteout `.wh.` removes nothing"),
        (vec![vec![file("d/.wh...")]], "whiteout `d/.wh...` removes nothing"),
        (vec![vec![file(".wh.a/b")]], "lies below a whiteout"),
        (vec![vec![Member::other(b'2', "l", ".wh.a"), file("l/b")]], "entry `l/b` lies below a whiteout"),
        (vec![vec![Member::other(b'2', "l", "d/.wh..wh..opq")], vec![file("l/d/b")]], "entry `l/d/b` lies below a whiteout"),
        (vec![vec![file("/")]], "is the root of the layer"),
        (vec![vec![file("a/../b")]], "contains `..`"),
        (vec![vec![Member::other(b'2', "l", "l"), file("l/x")]], "symlink `l` leads through more than 40 others"),
    ];
    for (layers, says) in cases {
        let image = layers.iter().fold(Image::new("a:1"), |image, layer| image.with(Layer::of_tar(tar::write(layer))));
        env.write("in.tar", docker_archive(&[image]).bytes());
        for command in ["squash in.tar out.tar", "squash in.tar oci:out", "export in.tar -o out.tar"] {
            let ran = env.fails(1, command).says(&["in.tar", "layer ", says]);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            let frames: Vec<_> = ran.stderr.split(": ").collect();
            assert!(frames.windows(2).all(|pair| pair[0] != pair[1]), "said twice: {}", ran.stderr);
            env.assert_no_leftovers();
        }
    }
}

#[test]
fn a_layer_that_is_not_what_was_promised_is_refused_even_where_nothing_of_it_is_kept() {
    let env = env();
    let wrong = Layer::new("a=1").stored(tar::write(&[Member::file("a", "2")]));
    env.write("in.tar", docker_archive(&[Image::new("a:1").with(wrong).layer(".wh.a=\nb=1")]).bytes());
    env.fails(1, "squash in.tar out.tar").says(&["layer 0", "expected sha256:"]);
    env.fails(1, "export in.tar -o out.tar").says(&["layer 0", "expected sha256:"]);
    let twice = Layer::of_tar(pack(&tar::write(&[Member::file("a", "1")]), Packing::Gzip)).packed(Packing::Gzip);
    env.write("in.tar", docker_archive(&[Image::new("a:1").layer("b=1").with(twice)]).bytes());
    for command in ["squash in.tar out.tar", "squash in.tar out.tar --last 1", "export in.tar -o out.tar"] {
        let ran = env.fails(1, command).says(&["layer 1 (layer", "compressed twice"]);
        assert_eq!(ran.stderr.matches("layer 1 (layer").count(), 1, "{}", ran.stderr);
    }
    env.assert_no_leftovers();
}

#[test]
fn a_signal_ends_it_while_it_fills_a_hole() {
    let env = env();
    let mut sparse = Member::file("sparse", "");
    let records = [("GNU.sparse.size", "1099511627776"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "1099511627776,0")];
    sparse.about.records = records.map(|(key, value)| (key.into(), value.into())).into();
    // What gets another name becomes a plain file.
    let linked = Layer::of_tar(tar::write(&[sparse, Member::other(b'1', "other", "sparse")]));
    env.write("in.tar", docker_archive(&[Image::new("a:1").with(linked).layer(".wh.sparse=")]).bytes());
    for (args, stdout) in [(["squash", "in.tar", "oci:out"], Stdio::piped()), (["export", "in.tar", "-q"], Stdio::null())] {
        let child = env.command(args).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        interrupt(&child);
        wait(child, args.join(" ")).exited(130);
        assert!(start.elapsed() < Duration::from_secs(2), "{args:?}: {:?}", start.elapsed());
        env.assert_no_leftovers();
    }
}

#[test]
fn export_replaces_nothing_unless_told() {
    let env = with_kitchen();
    env.write("out.tar", "mine");
    env.fails(1, "export in.tar -o out.tar").says(&["exists", "--force"]);
    assert_eq!(env.read("out.tar"), b"mine");
    env.ok("export in.tar -o out.tar --force").says(&["wrote out.tar: 45 entries of 5 layers (linux/amd64)", "digests verified"]);
    env.fails(1, "export missing.tar -o x.tar");
    env.assert_no_leftovers();
}

/// The files of a directory as GNU tar sees them, without attributes, which not every file system has, and without what `edit` takes away.
fn directory_rows(env: &TestEnv, directory: &str, edit: impl Fn(&mut Vec<String>)) -> Vec<String> {
    let archive = env.path("read-back.tar");
    let mut tar = Command::new(find("tar").expect("tar is installed"));
    tar.args(["--format=posix", "-C"]).arg(env.path(directory)).arg("-cf").arg(&archive).arg(".");
    assert!(tar.status().unwrap().success());
    let rows = edited(&Tree::of_tar(&std::fs::read(&archive).unwrap()).rows(), edit);
    std::fs::remove_file(archive).unwrap();
    rows
}

/// The fields of each row that are compared.
fn edited(rows: &str, edit: impl Fn(&mut Vec<String>)) -> Vec<String> {
    let row = |line: &str| {
        let mut fields: Vec<_> = line.split('|').map(str::to_owned).collect();
        fields.pop();
        edit(&mut fields);
        fields.join("|")
    };
    rows.lines().map(row).collect()
}

#[test]
fn root_unpacks_the_root_file_system() {
    const SUITE: &str = "export --to as root";
    if !is_root() {
        return skipped(SUITE, "owners and devices need root");
    }
    let env = with_kitchen();
    let all = |_: &mut Vec<String>| {};
    env.ok("export in.tar --to root").says(&["wrote root: 45 entries of 5 layers (linux/amd64)", "digests verified"]);
    assert_eq!(directory_rows(&env, "root", all), edited(&kitchen_rows(), all));
    std::fs::create_dir(env.path("empty")).unwrap();
    let piped = env.run_with_input("export - --to empty", &env.read("in.tar")).exited(0);
    assert!(!piped.stderr.contains("left out"), "{}", piped.stderr);
    assert_eq!(directory_rows(&env, "empty", all), edited(&kitchen_rows(), all));
    env.assert_no_leftovers();
}

/// A folder in which no run has privileges, and what comes before the arguments of longshore there.
fn without_privileges() -> Result<(TestEnv, &'static str), String> {
    if !is_root() {
        return Ok((env(), ""));
    }
    let setpriv = find("setpriv").ok_or("it needs setpriv, or somebody else than root")?;
    let env = TestEnv::new(setpriv);
    // Folders above the binary may be closed to others.
    std::fs::copy(env!("CARGO_BIN_EXE_longshore"), env.path("longshore")).unwrap();
    chown(env.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    Ok((env, "--reuid=65534 --regid=65534 --clear-groups ./longshore "))
}

/// The user of [`without_privileges`].
const NOBODY: u32 = 65_534;

#[test]
fn others_unpack_what_they_may_keep() {
    const SUITE: &str = "export --to without root";
    let (env, longshore) = match without_privileges() {
        Ok(found) => found,
        Err(why) => return skipped(SUITE, &why),
    };
    env.fixture("kitchen.tar", "in.tar");
    std::fs::set_permissions(env.path("in.tar"), Permissions::from_mode(0o644)).unwrap();
    env.fails(1, &format!("{longshore}export in.tar --to root")).says(&[
        "unpacking into root: entry `",
        ": its owner 0:0",
        "--rootless keeps",
    ]);
    assert!(!env.path("root").exists());
    let ran = env.ok(&format!("{longshore}export in.tar --to root --rootless"));
    ran.says(&[
        "left out: owners, ",
        " of 1 entry: odd/bigid",
        "devices, which are empty files, of 2 entries: odd/null, odd/loop0",
        "wrote root: 45 entries",
    ]);
    // Owners are those of whoever runs this, and devices are empty files.
    let empty_digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let kept = |fields: &mut Vec<String>| {
        if ["b", "c"].contains(&fields[1].as_str()) {
            (fields[1], fields[6], fields[7]) = ("f".to_owned(), "0".to_owned(), empty_digest.to_owned());
        }
        fields.drain(3..5);
    };
    assert_eq!(directory_rows(&env, "root", kept), edited(&kitchen_rows(), kept));
    env.fails(1, &format!("{longshore}export in.tar --to root --rootless")).says(&["root", "not empty", "--force"]);
    env.ok(&format!("{longshore}export in.tar --to root --rootless --force"));
    assert_eq!(directory_rows(&env, "root", kept), edited(&kitchen_rows(), kept));
}

#[test]
fn a_directory_is_filled_only_if_it_is_free() {
    let env = with_kitchen();
    std::fs::create_dir(env.path("full")).unwrap();
    env.write("full/mine", "1");
    env.write("file", "2");
    symlink("nothing", env.path("link")).unwrap();
    for (to, says) in
        [("full", "the directory is not empty"), ("file", "it is no directory"), ("link", "it is a symlink to what is not there")]
    {
        env.fails(1, &format!("export in.tar --to {to} --rootless")).says(&[&format!("unpacking into {to}: {says}")]);
    }
    // Before anything is read.
    env.run_with_input("export - --to full", b"not an archive").exited(1).says(&["the directory is not empty", "--force"]);
    assert_eq!((env.read("full/mine"), env.read("file")), (b"1".to_vec(), b"2".to_vec()));
    env.ok("export in.tar --to full --rootless --force");
    assert_eq!((env.read("full/mine"), env.read("full/inode/a")), (b"1".to_vec(), b"second content\n".to_vec()));
    env.fails(1, "export in.tar --to none/of/these --rootless").says(&["unpacking into none/of/these"]);
    env.fails(2, "export in.tar --rootless").says(&["--to"]);
    env.fails(2, "export in.tar --to a -o b");
    env.assert_no_leftovers();
}

#[test]
fn nothing_is_unpacked_outside() {
    let env = env();
    std::fs::create_dir(env.path("outside")).unwrap();
    env.write("outside/mine", "1");
    let outside = env.path("outside");
    let (absolute, inside) = (outside.to_str().unwrap(), format!("to{}", outside.display()));
    let up = format!("{}outside", "../".repeat(20));
    let base = format!("absolute->{absolute}\nup->{up}\nnear->../outside\nabsolute/a=1\nup/b=2\nnear/c=3");
    let image = Image::new("a:1").layer(&base).layer("absolute/d=4\nlink=>up/b\nabsolute/.wh.mine=\nnear/mine=5");
    env.write("in.tar", docker_archive(&[image]).bytes());
    env.ok("export in.tar --to to --rootless");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(env.read("outside/mine"), b"1");
    for (path, content) in [
        (format!("{inside}/a"), "1"),
        (format!("{inside}/d"), "4"),
        ("to/outside/b".to_owned(), "2"),
        ("to/outside/c".to_owned(), "3"),
        ("to/outside/mine".to_owned(), "5"),
        ("to/link".to_owned(), "2"),
    ] {
        assert_eq!(env.read(&path), content.as_bytes(), "{path}");
    }
    // A symlink that was there before leads nowhere, either.
    std::fs::remove_dir_all(env.path("to/outside")).unwrap();
    symlink(&outside, env.path("to/outside")).unwrap();
    env.ok("export in.tar --to to --rootless --force");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(env.read("to/outside/b"), b"2");
}

#[test]
fn docker_runs_what_was_squashed() {
    const SUITE: &str = "squash with docker";
    let engine = match Dockerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped(SUITE, &why),
    };
    let env = with_kitchen();
    engine.load(&env.path("in.tar"));
    let runs = engine.run("kitchen:1");
    let before = exported(&engine, &env);
    for flags in ["", "--from 2", "--dialect classic", "--dialect podman"] {
        env.ok(&format!("squash in.tar out.tar --force {flags}"));
        engine.clear();
        assert_eq!(engine.load(&env.path("out.tar")).len(), 2, "{flags}");
        assert_eq!(engine.run("kitchen:1"), runs, "{flags}");
        assert_eq!(exported(&engine, &env), before, "{flags}");
    }
}

/// What docker says is in the image, without what it adds itself.
fn exported(engine: &Dockerd, env: &TestEnv) -> Vec<String> {
    let id = engine.ok(&["create", "kitchen:1"]);
    let path = env.path("exported.tar");
    engine.ok(&["export", "-o", path.to_str().unwrap(), id.trim()]);
    engine.ok(&["rm", id.trim()]);
    let own = |row: &&str| {
        let path = row.split('|').next().unwrap();
        // It touches etc to put its own files there.
        !matches!(path, ".dockerenv" | "etc" | "etc/hosts" | "etc/hostname" | "etc/resolv.conf" | "etc/mtab")
            && !["dev", "proc", "sys"].contains(&path.split('/').next().unwrap())
    };
    Tree::of_tar(&std::fs::read(path).unwrap()).rows().lines().filter(own).map(str::to_owned).collect()
}

#[test]
fn podman_loads_what_was_squashed() {
    const SUITE: &str = "squash with podman";
    let podman = match Podman::find() {
        Ok(podman) => podman,
        Err(why) => return skipped(SUITE, &why),
    };
    let env = with_kitchen();
    env.ok("squash in.tar oci-archive:out.tar --tag kitchen:1");
    assert_eq!(podman.load(&env.path("out.tar")).len(), 1);
    let id = facts(&env.path("out.tar")).images.keys().next().unwrap().clone();
    assert_eq!(format!("sha256:{}", podman.id("kitchen:1").trim_start_matches("sha256:")), id);
}

//! The command line: what scripts rely on.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use longshore_testkit::facts::{Packing, facts, full_name};
use longshore_testkit::images::{Image, Layer, Layout, docker_archive};
use longshore_testkit::tar::{Member, write};
use longshore_testkit::{TestEnv, assert_same_bytes, env as testenv, noise, peers};
use serde_json::Value;

use crate::env;

/// A folder with `in.tar`: two images, three names.
fn with_three() -> TestEnv {
    let env = env();
    env.fixture("from/docker20-three-names.tar", "in.tar");
    env
}

/// An image whose layers take a moment: `mib` MiB, half noise and half text.
fn large(mib: usize) -> Image {
    let text = "a line that compresses well, and another one\n".repeat(mib * 12_000);
    let tar = write(&[Member::file("noise", noise(mib << 19, 1)), Member::file("text", text)]);
    Image::new("large:1").with(Layer::of_tar(tar)).layer("etc/\netc/small=1")
}

fn names(env: &TestEnv, path: &str) -> BTreeSet<String> {
    facts(&env.path(path)).names().into_values().flatten().collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| full_name(name)).collect()
}

/// Every string in a JSON document.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(map) => map.iter().flat_map(|(key, value)| std::iter::once(key.clone()).chain(strings(value))).collect(),
        _ => Vec::new(),
    }
}

// --- copy -----------------------------------------------------------------------------------------------------------

#[test]
fn a_copy_ends_with_a_summary_of_two_lines_on_standard_error() {
    let env = with_three();
    let ran = env.ok("copy docker-archive:in.tar oci-archive:out.tar");
    assert!(ran.stdout.is_empty(), "data goes to standard output, and this has none");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.stderr);
    assert!(!ran.stderr.contains(['\r', '\u{1b}']), "no progress bar and no colour on a pipe: {:?}", ran.stderr);
    assert!(ran.stderr.contains("out.tar"), "{}", ran.stderr);
}

#[test]
fn quiet_says_nothing_unless_it_fails() {
    let env = with_three();
    assert_eq!(env.ok("--quiet copy docker-archive:in.tar oci:out").stderr, "");
    env.fails(1, "--quiet copy docker-archive:absent.tar oci:other").says(&["absent.tar"]);
}

#[test]
fn progress_is_json_lines_on_demand() {
    let env = env();
    env.write("in.tar", docker_archive(&[large(4)]).bytes());
    let ran = env.ok("--progress json copy docker-archive:in.tar oci:out");
    let events: Vec<Value> =
        ran.stderr.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!events.is_empty(), "{}", ran.stderr);
    assert!(ran.stderr.lines().all(|line| line.starts_with('{')), "every line is JSON: {}", ran.stderr);
    let none = env.ok("--progress none copy docker-archive:in.tar oci:other");
    assert!(!none.stderr.contains(['{', '\r']), "{}", none.stderr);
    env.ok("--progress plain copy docker-archive:in.tar oci:third");
}

#[test]
fn a_bare_path_is_a_docker_archive_to_write_and_a_directory_is_a_layout() {
    let env = with_three();
    env.ok("copy in.tar out.tar");
    assert_eq!(names(&env, "out.tar"), set(&["kitchen:1", "example.com/team/kitchen:latest", "pantry:2"]));
    env.ok("copy docker-archive:in.tar docker-archive:explicit.tar");
    assert_same_bytes(&env.path("out.tar"), &env.path("explicit.tar"), "a bare path");
    env.ok("copy ./in.tar layout/");
    assert!(env.path("layout/oci-layout").is_file());
    env.ok("copy docker-archive:in.tar:kitchen:1 --tag other:1 layout");
    assert!(names(&env, "layout").contains(&full_name("other:1")), "a directory that exists is a layout");
}

#[test]
fn several_sources_join_in_order() {
    let env = env();
    env.fixture("from/docker20-one.tar", "a.tar");
    env.fixture("from/skopeo-oci-zstd", "b");
    env.write("c.tar", docker_archive(&[Image::new("app:1").layer("a=1")]).bytes());
    for out in ["docker-archive:joined.tar", "oci-archive:joined-oci.tar", "oci:joined"] {
        env.ok(&format!("copy docker-archive:a.tar oci:b docker-archive:c.tar {out}"));
        let made = facts(&env.path(out.split_once(':').unwrap().1));
        let mut expected = facts(&env.path("a.tar")).essence();
        expected.extend(facts(&env.path("b")).essence());
        expected.extend(facts(&env.path("c.tar")).essence());
        assert_eq!(made.essence(), expected, "{out}");
        assert_eq!(made.names().into_values().flatten().collect::<BTreeSet<_>>(), set(&["kitchen:1", "kitchen:latest", "app:1"]), "{out}");
        env.ok(&format!("check {out}"));
    }
    // Layers that both sources have are stored once.
    env.ok("copy docker-archive:a.tar docker-archive:a.tar:kitchen:1 oci:once");
    assert_eq!(facts(&env.path("once")).images.len(), 1);
    env.fails(1, "copy docker-archive:a.tar docker-archive:c.tar dir:both").says(&["dir"]);
}

#[test]
fn one_name_for_two_images_is_refused() {
    let env = env();
    env.write("a.tar", docker_archive(&[Image::new("app:1").layer("a=1")]).bytes());
    env.write("b.tar", docker_archive(&[Image::new("app:1").layer("a=2")]).bytes());
    env.fails(1, "copy docker-archive:a.tar docker-archive:b.tar docker-archive:out.tar").says(&["app:1"]);
    assert!(!env.path("out.tar").exists());
}

#[test]
fn a_reference_on_the_source_picks() {
    let env = with_three();
    let whole = facts(&env.path("in.tar"));
    let kitchen = whole.images.iter().find(|(_, image)| image.names.len() == 2).unwrap().0.clone();
    for (reference, id, kept) in [
        ("kitchen:1", true, vec!["kitchen:1"]),
        ("docker.io/library/kitchen:1", true, vec!["kitchen:1"]),
        ("example.com/team/kitchen", true, vec!["example.com/team/kitchen:latest"]),
        ("pantry:2", false, vec!["pantry:2"]),
        ("@0", true, vec!["kitchen:1", "example.com/team/kitchen:latest"]),
        ("@1", false, vec!["pantry:2"]),
        (&format!("@{kitchen}"), true, vec!["kitchen:1", "example.com/team/kitchen:latest"]),
    ] {
        let out = format!("out-{}.tar", reference.replace(['/', ':', '@'], "_"));
        env.ok(&format!("copy docker-archive:in.tar:{reference} docker-archive:{out}"));
        let made = facts(&env.path(&out));
        assert_eq!(made.images.contains_key(&kitchen), id, "{reference}");
        assert_eq!(made.images.len(), 1, "{reference}");
        assert_eq!(names(&env, &out), set(&kept), "{reference}");
    }
    env.fails(1, "copy docker-archive:in.tar:absent:1 docker-archive:none.tar").says(&["absent:1", "in.tar", "kitchen:1"]);
    env.fails(1, "copy docker-archive:in.tar:@2 docker-archive:none.tar").says(&["in.tar"]);
    assert!(!env.path("none.tar").exists());
}

#[test]
fn names_are_replaced_by_tag_and_by_a_reference_on_the_destination() {
    let env = env();
    env.fixture("from/docker20-one.tar", "in.tar");
    for (args, expected) in [
        ("--tag new:2 docker-archive:in.tar docker-archive:a.tar", vec!["new:2"]),
        (
            "--tag new:2 --tag registry.example:5000/x/y docker-archive:in.tar docker-archive:b.tar",
            vec!["new:2", "registry.example:5000/x/y:latest"],
        ),
        ("docker-archive:in.tar docker-archive:c.tar:given:3", vec!["given:3"]),
        ("--tag new:2 docker-archive:in.tar docker-archive:d.tar:given:3", vec!["given:3"]),
        ("--tag new:2 docker-archive:in.tar oci:e", vec!["new:2"]),
        ("docker-archive:in.tar oci:f:given:3", vec!["given:3"]),
    ] {
        env.ok(&format!("copy {args}"));
        let file = args.rsplit(' ').next().unwrap().split(':').nth(1).unwrap();
        assert_eq!(names(&env, file), set(&expected), "{args}");
    }
    for bad in ["Upper:1", "a:b:c", "app@sha256:abc", ":1", "-x/y"] {
        let ran = env.run(&format!("copy --tag={bad} docker-archive:in.tar docker-archive:bad.tar"));
        assert_eq!(ran.code, Some(2), "--tag {bad}: {}", ran.stderr);
    }
}

#[test]
fn an_archive_that_exists_is_replaced_only_with_force() {
    let env = with_three();
    for (transport, file) in [("docker-archive", "out.tar"), ("oci-archive", "out-oci.tar")] {
        env.write(file, "mine");
        env.fails(1, &format!("copy docker-archive:in.tar {transport}:{file}")).says(&[file, "--force"]);
        assert_eq!(env.read(file), b"mine");
        env.ok(&format!("copy --force docker-archive:in.tar {transport}:{file}"));
        assert_eq!(facts(&env.path(file)).images.len(), 2);
    }
    // Also onto itself: it was read before it is replaced.
    env.ok("copy --force docker-archive:in.tar:pantry:2 docker-archive:in.tar");
    assert_eq!(names(&env, "in.tar"), set(&["pantry:2"]));
}

#[test]
fn what_is_in_an_oci_directory_stays() {
    let env = with_three();
    env.ok("copy docker-archive:in.tar:kitchen:1 oci:out");
    let before = longshore_testkit::tree(&env.path("out"));
    env.ok("copy docker-archive:in.tar:pantry:2 oci:out");
    assert_eq!(names(&env, "out"), set(&["kitchen:1", "pantry:2"]));
    let after = longshore_testkit::tree(&env.path("out"));
    assert!(before.iter().all(|(name, bytes)| name == "index.json" || after.get(name) == Some(bytes)), "old blobs are as they were");
    // A name that exists moves to the new image.
    env.write("new.tar", docker_archive(&[Image::new("kitchen:1").layer("new=1")]).bytes());
    env.ok("copy docker-archive:new.tar oci:out");
    let made = facts(&env.path("out"));
    let named = made.images.iter().find(|(_, image)| image.names.contains(&full_name("kitchen:1"))).unwrap().0;
    assert_eq!(*named, facts(&env.path("new.tar")).images.keys().next().unwrap().clone());
    assert_eq!(names(&env, "out"), set(&["kitchen:1", "pantry:2"]));
    env.ok("check oci:out");
    // The same again changes nothing.
    let before = longshore_testkit::tree(&env.path("out"));
    env.ok("copy docker-archive:new.tar oci:out");
    assert!(before == longshore_testkit::tree(&env.path("out")), "the same copy again changed something");
}

#[test]
fn what_others_put_into_an_oci_directory_stays_too() {
    let env = with_three();
    env.fixture("from/umoci-oci", "out");
    let before = facts(&env.path("out"));
    env.ok("copy docker-archive:in.tar oci:out");
    let after = facts(&env.path("out"));
    for (id, image) in before.images {
        assert_eq!(after.images[&id], image);
    }
    assert_eq!(after.images.len(), 4);
}

#[test]
fn writers_of_one_oci_directory_lose_nothing() {
    let env = env();
    let count = 8;
    for n in 0..count {
        env.write(
            &format!("{n}.tar"),
            docker_archive(&[Image::new(&format!("app:{n}")).layer(&format!("n={n}\nshared=1")).layer("same=1")]).bytes(),
        );
    }
    let spawn = |n: usize| {
        let mut command = env.command(["copy".to_owned(), format!("docker-archive:{n}.tar"), "oci:out".to_owned()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for (n, child) in (0..count).map(spawn).collect::<Vec<_>>().into_iter().enumerate() {
        testenv::wait(child, format!("writer {n}")).exited(0);
    }
    assert_eq!(facts(&env.path("out")).images.len(), count);
    assert_eq!(names(&env, "out"), (0..count).map(|n| full_name(&format!("app:{n}"))).collect());
    env.ok("check oci:out");
    env.assert_no_leftovers();
}

#[test]
fn layers_are_compressed_as_asked_whatever_the_threads() {
    let env = env();
    env.write("in.tar", docker_archive(&[large(3)]).bytes());
    let before = facts(&env.path("in.tar"));
    let mut sizes = Vec::new();
    for (compress, packing) in [
        ("none", Packing::Plain),
        ("gzip", Packing::Gzip),
        ("gzip:1", Packing::Gzip),
        ("gzip:9", Packing::Gzip),
        ("zstd", Packing::Zstd),
        ("zstd:1", Packing::Zstd),
        ("keep", Packing::Plain),
    ] {
        for transport in ["oci-archive", "dir", "docker-archive"] {
            let out = format!("{transport}-{}", compress.replace(':', "-"));
            env.ok(&format!("--threads 1 copy --compress {compress} docker-archive:in.tar {transport}:{out}"));
            let made = facts(&env.path(&out));
            assert_eq!(made.essence(), before.essence(), "{out}");
            assert!(made.only().packing.iter().all(|&found| found == packing), "{out}: {:?}", made.only().packing);
            env.ok(&format!("--threads 3 copy --compress {compress} docker-archive:in.tar {transport}:again-{out}"));
            assert_same_bytes(&env.path(&out), &env.path(&format!("again-{out}")), &out);
            env.ok(&format!("check {transport}:{out}"));
            if transport == "oci-archive" {
                sizes.push((compress, env.read(&out).len()));
            }
        }
    }
    let size = |compress: &str| sizes.iter().find(|(name, _)| *name == compress).unwrap().1;
    assert!(size("gzip:9") <= size("gzip:1") && size("gzip") < size("none") && size("zstd") < size("none"), "{sizes:?}");
    // Compressed layers stay as they are where gzip is only the default, and are made anew where it is asked for.
    env.ok("copy oci-archive:oci-archive-zstd oci:kept");
    assert_eq!(facts(&env.path("kept")).only().packing[0], Packing::Zstd);
    env.ok("copy --compress gzip oci-archive:oci-archive-zstd oci:recoded");
    assert_eq!(facts(&env.path("recoded")).only().packing[0], Packing::Gzip);
    assert_eq!(facts(&env.path("recoded")).essence(), before.essence());
}

#[test]
fn what_can_be_kept_is_kept() {
    let env = env();
    let mut layout = Layout::new();
    let image = Image::new("app:1").annotate("org.example.note", "<kept> & \u{2028}").with(Layer::new("a=1").packed(Packing::Gzip));
    let mut descriptor = layout.image(&image.clone().edit_manifest(|manifest| manifest["x-unknown"] = "kept".into()));
    descriptor["annotations"]["org.example.root"] = "on the descriptor".into();
    layout.root(descriptor.clone(), Some("app:1"));
    let signature = layout.artifact("application/vnd.example.signature", "signed", Some(&descriptor));
    layout.root(signature.clone(), None);
    layout.archive().write_dir(&env.path("in"));
    for out in ["oci-archive:out.tar", "oci:out"] {
        env.ok(&format!("copy oci:in {out}"));
        let file = out.split_once(':').unwrap().1;
        assert_eq!(facts(&env.path(file)).manifests(), facts(&env.path("in")).manifests(), "{out}: the manifest");
        let all = if file == "out" { serde_json::from_slice::<Value>(&env.read("out/index.json")).unwrap() } else { Value::Null };
        if file == "out" {
            assert!(strings(&all).contains(&"on the descriptor".to_owned()), "annotations of the descriptor: {all}");
            assert!(all["manifests"].as_array().unwrap().iter().any(|root| root["digest"] == signature["digest"]), "the artifact: {all}");
            let blobs = longshore_testkit::tree(&env.path("out"));
            let before = longshore_testkit::tree(&env.path("in"));
            assert!(before.iter().all(|(name, bytes)| !name.starts_with("blobs/") || blobs.get(name) == Some(bytes)), "every blob");
        }
    }
    // Where a format cannot hold something, one line says what was left out.
    let ran = env.ok("copy oci:in --dialect classic docker-archive:out-classic.tar");
    assert!(ran.stderr.contains("annotation"), "{}", ran.stderr);
}

#[test]
fn a_foreign_layer_keeps_its_descriptor_and_is_not_fetched() {
    let env = env();
    let image = Image::new("windows:1")
        .with(Layer::new("base=1").packed(Packing::Gzip).foreign("https://example.invalid/layer"))
        .with(Layer::new("a=1").packed(Packing::Gzip));
    Layout::of(&[image]).archive().write_dir(&env.path("in"));
    env.ok("copy oci:in oci:out");
    let (before, after) = (longshore_testkit::tree(&env.path("in")), longshore_testkit::tree(&env.path("out")));
    let blobs = |tree: &std::collections::BTreeMap<String, Vec<u8>>| {
        tree.iter().filter(|(name, _)| name.starts_with("blobs/")).map(|(name, bytes)| (name.clone(), bytes.clone())).collect::<Vec<_>>()
    };
    assert_eq!(blobs(&before), blobs(&after), "the manifest with the urls, and no blob for the foreign layer");
    env.ok("check oci:out");
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let env = with_three();
    for out in ["oci:out", "docker-archive:out.tar", "dir:out-dir"] {
        let args = format!("copy --dry-run docker-archive:in.tar:kitchen:1 {out}");
        let ran = env.ok(&args);
        assert!(ran.text().contains("kitchen:1"), "{out}: the plan names the image: {}", ran.text());
        assert_eq!(ran.stdout, env.ok(&args).stdout, "{out}: the plan is the same each time");
        assert!(!env.path(out.split_once(':').unwrap().1).exists(), "{out}");
    }
}

#[test]
fn a_verbose_copy_says_its_plan_line_by_line() {
    let env = with_three();
    let plan = env.ok("copy --dry-run in.tar oci:out").text();
    assert!(env.ok("copy -v in.tar oci:out").stderr.starts_with(&plan), "{plan}");
}

#[test]
fn a_report_tells_what_was_done() {
    let env = with_three();
    env.ok("copy --report report.json docker-archive:in.tar oci:out");
    let report: Value = serde_json::from_slice(&env.read("report.json")).unwrap();
    let said = strings(&report);
    for (id, image) in facts(&env.path("out")).images {
        assert!(said.contains(&id), "the image ID {id}: {report}");
        assert!(image.diff_ids.iter().all(|diff_id| said.contains(diff_id)), "the diff IDs of {id}: {report}");
        assert!(said.contains(&longshore_testkit::digest(&image.manifest.unwrap())), "the manifest's digest: {report}");
    }
    // An input that must be kept in a temporary file is reported.
    let bytes = env.read("in.tar");
    env.run_with_input("copy --report piped.json - oci:piped", &bytes).exited(0);
    let report = String::from_utf8(env.read("piped.json")).unwrap();
    assert!(report.contains("spool"), "{report}");
    env.assert_no_leftovers();
}

#[test]
fn source_date_epoch_and_the_clock_do_not_change_a_conversion() {
    let env = with_three();
    let run = |epoch: Option<&str>, out: &str| {
        let mut command = env.command(["copy", "docker-archive:in.tar", out]);
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        testenv::finish(command, Vec::new())
    };
    run(Some("86400"), "docker-archive:a.tar").exited(0);
    run(Some("86400"), "docker-archive:b.tar").exited(0);
    assert_same_bytes(&env.path("a.tar"), &env.path("b.tar"), "one epoch");
    run(None, "docker-archive:c.tar").exited(0);
    std::thread::sleep(Duration::from_millis(1100));
    run(None, "docker-archive:d.tar").exited(0);
    assert_same_bytes(&env.path("c.tar"), &env.path("d.tar"), "a second later");
    let bad = run(Some("yesterday"), "docker-archive:e.tar");
    assert!(matches!(bad.code, Some(1 | 2)) && bad.stderr.contains("SOURCE_DATE_EPOCH"), "{:?}: {}", bad.code, bad.stderr);
}

// --- save -----------------------------------------------------------------------------------------------------------

#[test]
fn save_writes_the_formats_of_podman_save() {
    let env = with_three();
    let before = facts(&env.path("in.tar"));
    for (format, out, layout) in [("docker-archive", "a.tar", false), ("oci-archive", "b.tar", true), ("oci-dir", "c", true)] {
        env.ok(&format!("save ./in.tar -o {out} --format {format}"));
        let made = facts(&env.path(out));
        assert_eq!(made.essence(), before.essence(), "{format}");
        assert_eq!(made.names(), before.names(), "{format}");
        assert_eq!(made.roots.is_empty(), !layout, "{format}");
    }
    env.ok("save docker-archive:in.tar:pantry:2 -o d --format docker-dir");
    assert_eq!(facts(&env.path("d")).images.len(), 1);
    assert!(env.path("d/version").is_file());
    // docker-archive is the default, and standard output where there is no -o.
    let piped = env.ok("save ./in.tar");
    assert!(piped.stdout == env.read("a.tar"), "standard output holds what the file holds");
    env.ok("save --tag extra:1 docker-archive:in.tar:pantry:2 -o e.tar");
    assert_eq!(names(&env, "e.tar"), set(&["pantry:2", "extra:1"]), "--tag adds to what is saved");
    // An image that two sources have is one, whatever its names are.
    env.write("copy.tar", env.read("in.tar"));
    assert!(env.ok("save ./in.tar docker-archive:copy.tar:kitchen:1 -o h --format oci-dir").stderr.contains(" 2 images"));
    env.fails(1, "save absent:1 -o f.tar").says(&["absent:1"]);
    env.fails(2, "save ./in.tar -o g.tar --format zip");
    assert!(!env.path("f.tar").exists() && !env.path("g.tar").exists());
}

#[test]
fn an_archive_is_not_written_to_a_terminal() {
    let Some(script) = peers::find("script") else { return peers::skipped("commands: terminal", "script is not installed") };
    let env = with_three();
    for args in ["copy docker-archive:in.tar -", "save ./in.tar"] {
        let inner = testenv::show(&env.command(args.split_whitespace())).replacen("longshore", env!("CARGO_BIN_EXE_longshore"), 1);
        let mut command = std::process::Command::new(&script);
        command.args(["-qec", &inner, "/dev/null"]).current_dir(env.path("")).stdin(Stdio::null());
        let ran = testenv::finish(command, Vec::new());
        assert!(matches!(ran.code, Some(1 | 2)), "{args}: {:?}", ran.code);
        assert!(ran.text().contains("terminal"), "{args}: {}", ran.text());
        assert!(ran.stdout.len() < 2000, "{args}: an archive was written to the terminal");
    }
}

// --- inspect, check, formats, completions, man --------------------------------------------------------------------------

#[test]
fn inspect_shows_what_there_is() {
    let env = with_three();
    let shown = env.ok("inspect docker-archive:in.tar").text();
    let images = facts(&env.path("in.tar")).images;
    for (id, image) in &images {
        assert!(shown.contains(&id[7..19]), "the image ID {id}:\n{shown}");
        assert!(image.diff_ids.iter().all(|diff_id| shown.contains(&diff_id[7..19])), "layers of {id}:\n{shown}");
    }
    for part in ["kitchen:1", "example.com/team/kitchen:latest", "pantry:2", "linux/amd64", "ADD whiteouts", "ADD shelf"] {
        assert!(shown.contains(part), "{part:?}:\n{shown}");
    }
    let one = env.ok("inspect docker-archive:in.tar:pantry:2").text();
    assert!(one.contains("pantry:2") && !one.contains("example.com"), "{one}");

    let json = env.ok("inspect --json docker-archive:in.tar").json();
    let said = strings(&json);
    for (id, image) in &images {
        assert!(said.contains(id), "the image ID {id}: {json}");
        assert!(image.diff_ids.iter().all(|diff_id| said.contains(diff_id)), "the diff IDs of {id}: {json}");
    }
    assert!(said.iter().any(|text| full_name(text) == full_name("kitchen:1")), "{json}");
    assert_eq!(env.ok("inspect --json docker-archive:in.tar").stdout, env.ok("inspect --json in.tar").stdout);
}

#[test]
fn inspect_shows_platforms_and_annotations() {
    let env = env();
    env.fixture("from/skopeo-oci-multiplatform", "multi");
    let shown = env.ok("inspect oci:multi").text();
    assert!(shown.contains("linux/amd64") && shown.contains("linux/arm64"), "{shown}");
    Layout::of(&[Image::new("app:1").annotate("org.example.note", "bell \u{7} and \u{1b}[31mred").layer("a=1")])
        .archive()
        .write_dir(&env.path("app"));
    let shown = env.ok("inspect oci:app").text();
    assert!(shown.contains("org.example.note"), "{shown}");
    assert!(!shown.contains(['\u{7}', '\u{1b}']), "control characters are escaped: {shown:?}");
}

#[test]
fn inspect_raw_gives_the_bytes_as_stored() {
    let env = env();
    env.fixture("from/crane-oci", "oci");
    env.fixture("from/podman4-docker-dir", "dir");
    env.fixture("from/docker20-one.tar", "docker.tar");
    for (image, stored) in [("oci:oci", longshore_testkit::tree(&env.path("oci"))), ("dir:dir", longshore_testkit::tree(&env.path("dir")))]
    {
        let raw = env.ok(&format!("inspect --raw {image}")).stdout;
        assert!(stored.values().any(|bytes| *bytes == raw), "{image}: {}", String::from_utf8_lossy(&raw));
    }
    let raw = env.ok("inspect --raw docker-archive:docker.tar").stdout;
    let members = longshore_testkit::tar::read(&env.read("docker.tar"));
    assert!(members.iter().any(|member| member.data == raw), "{}", String::from_utf8_lossy(&raw));
}

#[test]
fn check_lists_every_finding_with_its_place() {
    let env = env();
    let image = Image::new("app:1").layer("a=1").layer("b=1").layer("c=1");
    let mut archive = docker_archive(std::slice::from_ref(&image));
    env.write("good.tar", archive.bytes());
    env.ok("check docker-archive:good.tar");
    let layers: Vec<String> = image.layers.iter().map(|layer| format!("{}.tar", &layer.diff_id()[7..])).collect();
    for layer in [&layers[0], &layers[2]] {
        archive.member(layer).data = Layer::new("x=9").tar;
    }
    env.write("bad.tar", archive.bytes());
    let ran = env.run("check docker-archive:bad.tar").exited(1);
    let said = format!("{}{}", ran.text(), ran.stderr);
    for layer in [&layers[0], &layers[2]] {
        assert!(said.contains(&layer[..12]), "a finding for {layer}:\n{said}");
    }
    assert!(!said.contains(&layers[1][..12]), "nothing is wrong with {}:\n{said}", layers[1]);
    // Also what no conversion looks at: the tar inside a layer.
    let mut tar = Layer::new("a=1").tar;
    tar[150] ^= 1;
    env.write("tar.tar", docker_archive(&[Image::new("app:1").with(Layer::of_tar(tar))]).bytes());
    env.fails(1, "check docker-archive:tar.tar");
}

#[test]
fn check_finds_what_is_missing_and_goes_on() {
    let env = with_three();
    env.ok("copy in.tar oci:layout");
    std::fs::remove_file(env.path("layout/oci-layout")).unwrap();
    env.ok("copy docker-archive:in.tar:pantry:2 dir:dir");
    let layer = std::fs::read_dir(env.path("dir")).unwrap().map(|entry| entry.unwrap().path());
    let layer =
        layer.filter(|path| path.extension().is_none() && !path.ends_with("version")).max_by_key(|path| path.metadata().unwrap().len());
    std::fs::remove_file(layer.unwrap()).unwrap();
    let ran = env.fails(1, "check layout dir in.tar").says(&["checked docker-archive:in.tar: 2 images, nothing wrong"]);
    assert!(ran.text().starts_with("layout: oci-layout: it is missing\ndir: manifest.json: layers["), "{}", ran.text());
    let sources = env.run("check --json layout dir in.tar").exited(1).json()["sources"].clone();
    let findings: Vec<_> = sources.as_array().unwrap().iter().map(|source| source["findings"].as_array().unwrap().len()).collect();
    assert_eq!(findings, [1, 1, 0], "{sources}");
    // What is not there at all cannot be checked.
    env.fails(1, "check nothing.tar").says(&["longshore: nothing.tar"]);
    env.fails(1, "check docker-archive:in.tar:other").says(&["longshore: in.tar: there is no image other"]);
}

#[test]
fn completions_and_the_manual_are_made_of_the_same_definition() {
    let env = env();
    for shell in ["bash", "zsh", "fish"] {
        let script = env.ok(&format!("completions {shell}")).text();
        assert!(
            script.contains("longshore") && script.contains("inspect") && script.contains("docker-archive"),
            "{shell}: {} bytes",
            script.len()
        );
    }
    env.fails(2, "completions tcsh-like");
    let manual = env.ok("man").text();
    assert!(manual.contains(".TH") && manual.contains("copy"), "{}", &manual[..manual.len().min(500)]);
    let help = env.ok("--help").text();
    for command in ["copy", "save", "inspect", "check", "formats", "completions", "man"] {
        assert!(help.contains(command), "--help is silent about {command}:\n{help}");
        let usage = env.ok(&format!("{command} --help")).text();
        assert!(usage.contains("Usage"), "{command} --help:\n{usage}");
    }
    assert!(env.ok("--version").text().starts_with("longshore "), "--version");
}

// --- exit codes, pipes and signals ------------------------------------------------------------------------------------

#[test]
fn exit_codes_tell_failures_from_wrong_command_lines() {
    let env = with_three();
    for args in [
        "",
        "frobnicate",
        "copy",
        "copy docker-archive:in.tar",
        "copy --frobnicate docker-archive:in.tar oci:out",
        "copy --compress lz4 docker-archive:in.tar oci:out",
        "copy --compress gzip:77 docker-archive:in.tar oci:out",
        "copy --platform nonsense docker-archive:in.tar oci:out",
        "copy --dialect nonsense docker-archive:in.tar docker-archive:out.tar",
        "copy --platform linux/amd64 --all-platforms docker-archive:in.tar oci:out",
        "--progress sometimes copy docker-archive:in.tar oci:out",
        "--threads none copy docker-archive:in.tar oci:out",
        "inspect --json --raw docker-archive:in.tar",
    ] {
        let ran = env.run(args).exited(2);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "`longshore {args}`: {}", ran.stderr);
    }
    for (args, parts) in [
        ("copy docker-archive:absent.tar oci:out", vec!["absent.tar"]),
        ("copy oci:absent oci:out", vec!["absent"]),
        ("copy dir:absent oci:out", vec!["absent"]),
        ("copy docker-archive:in.tar docker-archive:no/such/folder/out.tar", vec!["no/such/folder"]),
        ("inspect ./absent.tar", vec!["absent.tar"]),
        ("check ./absent.tar", vec!["absent.tar"]),
        ("copy oci-archive:in.tar oci:out", vec!["in.tar"]),
        ("copy oci:in.tar oci:out", vec!["in.tar"]),
    ] {
        env.fails(1, args).says(&parts);
    }
    assert!(!env.path("out").exists() && !env.path("out.tar").exists());
}

#[test]
fn limits_can_be_lowered() {
    let env = with_three();
    env.fails(1, "--limit manifest=10 copy docker-archive:in.tar oci:out").says(&["in.tar"]);
    env.fails(2, "--limit nonsense=10 copy docker-archive:in.tar oci:out");
    assert!(!env.path("out").exists());
}

#[test]
fn a_closed_pipe_is_no_error() {
    let env = env();
    env.write("in.tar", docker_archive(&[large(8)]).bytes());
    for args in ["copy docker-archive:in.tar -", "copy docker-archive:in.tar oci-archive:-", "save ./in.tar"] {
        let mut child = env.command(args.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        assert_eq!(testenv::read_some(&mut stdout, 100).len(), 100);
        drop(stdout);
        let ran = testenv::wait(child, args.to_owned()).exited(0);
        assert!(!ran.stderr.to_lowercase().contains("pipe"), "{args}: {}", ran.stderr);
    }
    env.assert_no_leftovers();
}

/// Spawns a copy of standard input, feeds it half an archive and lets it wait for more.
fn waiting(env: &TestEnv, out: &str) -> (std::process::Child, std::process::ChildStdin) {
    let mut child = env.command(["copy", "-", out]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = env.read("in.tar");
    stdin.write_all(&bytes[..bytes.len() / 2]).unwrap();
    stdin.flush().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it must still be waiting");
    (child, stdin)
}

#[test]
fn signals_end_it_at_once_and_leave_nothing() {
    let env = with_three();
    for out in ["oci:out", "docker-archive:out.tar", "dir:out-dir", "oci-archive:out-oci.tar"] {
        for (signal, code) in [(testenv::INT, 130), (testenv::TERM, 143)] {
            let (child, stdin) = waiting(&env, out);
            testenv::signal(&child, signal);
            let start = Instant::now();
            testenv::wait(child, format!("copy - {out}")).exited(code);
            assert!(start.elapsed() < Duration::from_secs(2), "{out}: {:?}", start.elapsed());
            drop(stdin);
            assert!(!env.path(out.split_once(':').unwrap().1).exists(), "{out}");
            env.assert_no_leftovers();
        }
    }
}

#[test]
fn a_signal_while_it_compresses_leaves_nothing() {
    let env = env();
    env.write("in.tar", docker_archive(&[large(48)]).bytes());
    for out in ["oci:out", "docker-archive:out.tar", "oci-archive:out-oci.tar", "dir:out-dir"] {
        let mut child = env
            .command(["copy", "--compress", "gzip:9", "docker-archive:in.tar", out])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while env.leftovers().is_empty() && start.elapsed() < Duration::from_secs(10) {
            assert!(child.try_wait().unwrap().is_none(), "{out}: it ended before it could be interrupted");
            std::thread::sleep(Duration::from_millis(2));
        }
        testenv::interrupt(&child);
        testenv::wait(child, format!("copy {out}")).exited(130);
        assert!(!env.path(out.split_once(':').unwrap().1).exists(), "{out}");
        env.assert_no_leftovers();
    }
}

#[test]
fn killed_at_any_moment_leaves_all_or_nothing() {
    let env = env();
    env.write("in.tar", docker_archive(&[large(6)]).bytes());
    let expected = facts(&env.path("in.tar")).essence();
    for (out, path) in
        [("oci:out", "out"), ("docker-archive:out.tar", "out.tar"), ("oci-archive:out-oci.tar", "out-oci.tar"), ("dir:out-dir", "out-dir")]
    {
        let args = ["copy", "docker-archive:in.tar", out];
        let start = Instant::now();
        let whole = env.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        testenv::wait(whole, out.to_owned()).exited(0);
        let took = start.elapsed();
        let remove = || {
            let path = env.path(path);
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap()
            } else if path.exists() {
                std::fs::remove_file(path).unwrap()
            }
        };
        for moment in 0..12 {
            remove();
            let mut child = env.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(took * moment / 12);
            child.kill().unwrap();
            child.wait().unwrap();
            // A layout without its index is no layout yet.
            if env.path(if path == "out" { "out/index.json" } else { path }).exists() {
                let found = facts(&env.path(path)).essence();
                assert!(
                    found == expected || (path == "out" && found.is_empty()),
                    "{out} killed at moment {moment} is there, and not whole"
                );
            }
        }
        // The next run works, and removes what the killed ones left.
        remove();
        env.ok(&args.join(" "));
        assert_eq!(facts(&env.path(path)).essence(), expected, "{out}");
    }
}

#[test]
fn a_daemon_that_was_named_and_does_not_answer_is_told_of() {
    let env = env();
    let mut command = env.command(["save", "longshore-test/nobody-has-this:1", "-o", "out.tar"]);
    command.env("DOCKER_HOST", format!("unix://{}", env.path("docker.sock").display()));
    let ran = testenv::finish(command, Vec::new());
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("docker.sock").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be asked") && !env.path("out.tar").exists(), "{}", ran.stderr);
}

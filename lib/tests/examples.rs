//! The example programs do what they say, on what the systems that they stand for really wrote.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "these are tests, and programs")]

#[path = "../examples/bazel_image.rs"]
mod bazel_image;
#[path = "../examples/ggcr_tarball.rs"]
mod ggcr_tarball;
#[path = "../examples/google_save.rs"]
mod google_save;
#[path = "../examples/libimage_save.rs"]
mod libimage_save;
#[path = "../examples/quay_squash.rs"]
mod quay_squash;

use std::fs;
use std::path::{Path, PathBuf};

use longshore::context::Context;
use longshore::location::{self, Location, OpenOptions};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/from").join(name)
}

struct Work {
    dir: tempfile::TempDir,
    ctx: Context,
}

impl Work {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ctx = Context::new(2, dir.path().to_owned());
        Self { dir, ctx }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Image IDs and names of an archive or folder.
    fn images(&self, name: &str) -> Vec<(String, Vec<String>)> {
        let source = location::open(&Location::parse_source(name).unwrap(), &OpenOptions::default(), &self.ctx).unwrap();
        let catalog = source.catalog();
        let names = |roots: &[&longshore::catalog::Root]| roots.iter().filter_map(|root| Some(root.name.as_ref()?.to_string())).collect();
        let id = |root: &longshore::catalog::Root| catalog.image(root.node.images()[0]).id().to_string();
        catalog.entries().iter().map(|roots| (id(roots[0]), names(roots))).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn google_save_equals_containerregistry() {
    let work = Work::new();
    for (dialect, archive) in [("google", "gcr-v22.tar"), ("v1", "gcr-v1.tar")] {
        let to = work.path(archive);
        google_save::save(text(&fixture("gcr-fast")), "example.com/team/kitchen:latest", &to, dialect, &work.ctx).unwrap();
        assert!(fs::read(to).unwrap() == fs::read(fixture(archive)).unwrap(), "{archive}");
    }
}

#[test]
fn quay_squash_makes_an_image_of_a_folder_of_2013() {
    let work = Work::new();
    let to = work.path("layout");
    quay_squash::unsquash(text(&fixture("quay-squash.tar")), &format!("oci:{to}"), &work.ctx).unwrap();
    let images = work.images(&to);
    assert_eq!((images.len(), &images[0].1[..]), (1, &["quay.example/team/kitchen:1.squash".to_owned()][..]));
}

#[test]
fn bazel_image_stands_on_its_base() {
    let work = Work::new();
    let change = longshore::assemble::ConfigChange { env: vec![("A".to_owned(), "b".to_owned())], ..Default::default() };
    let (base, to) = (fixture("bazel-base.tar"), work.path("child.tar"));
    let layer = work.path("layer");
    fs::create_dir(&layer).unwrap();
    fs::write(Path::new(&layer).join("file"), "text").unwrap();
    bazel_image::create(&to, "bazel/child:kitchen", text(&base), &[&layer], &change, &work.ctx).unwrap();
    let child = location::open(&Location::parse_source(&to).unwrap(), &OpenOptions::default(), &work.ctx).unwrap();
    let child = &child.catalog().images[0];
    let base = location::open(&Location::parse_source(text(&base)).unwrap(), &OpenOptions::default(), &work.ctx).unwrap();
    let base = &base.catalog().images[0];
    assert_eq!(child.layers[0].diff_id, base.layers[0].diff_id);
    assert_eq!((child.layers.len(), &child.config.config.as_ref().unwrap().env[..]), (2, &["A=b".to_owned()][..]));
}

#[test]
fn ggcr_tarball_equals_crane() {
    let work = Work::new();
    let to = work.path("out.tar");
    let from = fixture("skopeo-oci");
    ggcr_tarball::write(&to, &[text(&from)], Some("127.0.0.1:5001/team/kitchen:1"), &work.ctx).unwrap();
    assert!(fs::read(&to).unwrap() == fs::read(fixture("crane-tarball.tar")).unwrap());
    let error = ggcr_tarball::write(&to, &[text(&fixture("docker20-three-names.tar"))], Some("a:1"), &work.ctx).unwrap_err();
    assert!(error.to_string().contains("a new name is for one image"), "{error}");
}

#[test]
fn libimage_save_groups_names_and_forces_types() {
    let work = Work::new();
    let to = work.path("out.tar");
    let one = fixture("docker20-one.tar");
    libimage_save::save("docker-archive", &to, &[text(&one), text(&fixture("docker20-three-names.tar")), text(&one)], &[], &work.ctx)
        .unwrap();
    let names: Vec<_> = work.images(&to).into_iter().map(|(_, names)| names).collect();
    assert_eq!(names, [vec!["kitchen:1", "example.com/team/kitchen:latest"], vec!["pantry:2"]]);
    for (form, folder, types) in [("docker-dir", "docker", "vnd.docker"), ("oci-dir", "oci", "vnd.oci")] {
        let to = work.path(folder);
        libimage_save::save(form, &to, &[text(&fixture("skopeo-oci-zstd"))], &["b:2"][..usize::from(form == "oci-dir")], &work.ctx)
            .unwrap();
        let source = location::open(&Location::parse_source(&to).unwrap(), &OpenOptions::default(), &work.ctx).unwrap();
        let (media_type, manifest) = source.catalog().images[0].manifest.clone().unwrap();
        assert!(media_type.contains(types) && manifest.layers.iter().all(|layer| layer.media_type.contains(types)), "{media_type}");
    }
    assert!(libimage_save::save("tar", &to, &[text(&one)], &[], &work.ctx).unwrap_err().to_string().contains("unsupported format"));
}

//! Merging is what an engine does with one layer after another: against the in-memory oracle of testkit, on random layers.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::io::Read as _;
use std::path::Path;

use longshore::catalog::ImageId;
use longshore::context::Context;
use longshore::export::export;
use longshore::format::WriteOptions;
use longshore::location::{Access, Location, OpenOptions, create, open};
use longshore::plan::{ConvertOptions, Keep, Squash, convert};
use longshore::transport::{Destination, Output};
use longshore_testkit::facts::{Packing, facts, unpack};
use longshore_testkit::images::{Image, Layer, docker_archive};
use longshore_testkit::oracle::{Tree, check_partial, layers};
use longshore_testkit::tar::{Member, write};
use proptest::prelude::*;

fn image(layers: &[Vec<Member>], packing: Packing) -> Image {
    layers.iter().fold(Image::new("a:1"), |image, layer| image.with(Layer::of_tar(write(layer)).packed(packing)))
}

/// The exported root file system.
fn exported(dir: &Path, ctx: &Context) -> Vec<u8> {
    let source = open(&Location::parse_source(dir.join("in.tar").to_str().unwrap()).unwrap(), &OpenOptions::default(), ctx).unwrap();
    let to = Output::create(&Destination::at(&dir.join("rootfs.tar"), true), ctx).unwrap();
    let done = export(source.as_ref(), ImageId(0), to, ctx).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(done.diff_ids_verified, done.layers);
    fs::read(dir.join("rootfs.tar")).unwrap()
}

/// The newest layer of the image after a squash that keeps some.
fn squashed(dir: &Path, kept: usize, to: &str, ctx: &Context) -> Vec<u8> {
    let source = open(&Location::parse_source(dir.join("in.tar").to_str().unwrap()).unwrap(), &OpenOptions::default(), ctx).unwrap();
    let to = Location::parse_destination(&format!("{to}:{}/out", dir.display())).unwrap();
    let _ = fs::remove_dir_all(to.path().unwrap());
    let write = WriteOptions::default();
    let squash = Squash { keep: Keep::First(kept), created: None, suffix: None };
    let options = ConvertOptions { squash: Some(squash), ..ConvertOptions::default() };
    let plan = convert(source.catalog(), &to.accepts(&write).unwrap(), &options).unwrap();
    longshore::run::run(&plan, source.as_ref(), create(&to, &write, true, &Access::default(), ctx).unwrap(), ctx)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(facts(to.path().unwrap()).only().diff_ids.len(), kept + 1);
    let written = open(&Location::parse_source(to.path().unwrap().to_str().unwrap()).unwrap(), &OpenOptions::default(), ctx).unwrap();
    let mut stored = Vec::new();
    written.open(written.catalog().images[0].layers[kept].blob.unwrap(), 0).unwrap().read_to_end(&mut stored).unwrap();
    unpack(&stored)
}

/// A layer a line, for whoever reads why this failed.
fn outline(layers: &[Vec<Member>]) -> String {
    let member = |member: &Member| {
        let link = if member.link.is_empty() { String::new() } else { format!("->{}", String::from_utf8_lossy(&member.link)) };
        format!("{} {}{link}", char::from(member.kind), member.text())
    };
    layers.iter().map(|layer| layer.iter().map(member).collect::<Vec<_>>().join(", ") + "\n").collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn merged_layers_are_what_they_make_one_after_another(layers in layers(), packed: bool) {
        let dir = tempfile::tempdir().unwrap();
        let ctx = Context::new(2, dir.path().to_owned());
        eprintln!("{}", outline(&layers));
        let packing = if packed { Packing::Gzip } else { Packing::Plain };
        fs::write(dir.path().join("in.tar"), docker_archive(&[image(&layers, packing)]).bytes()).unwrap();
        let expected = Tree::of_layers(&layers).unwrap();
        let rootfs = exported(dir.path(), &ctx);
        Tree::of_tar(&rootfs).assert_is(&expected);
        let to = if packed { "oci" } else { "docker-archive" };
        prop_assert!(squashed(dir.path(), 0, to, &ctx) == rootfs);
        for kept in 1..layers.len() {
            check_partial(&layers[..kept], &squashed(dir.path(), kept, "docker-archive", &ctx), &expected);
        }
    }
}

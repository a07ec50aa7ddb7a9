//! What is fuzzed: one line for each parser.
//!
//! A fuzz function lives in the module that it tests, as `pub fn fuzz_…(&[u8])`. It may check whatever must hold of a result (that
//! writing what was parsed gives the same bytes, that chunk sizes do not matter), and panics when it does not.

use longshore::{compress, format, reference, spec, stores, tar};

use crate::seeds::Seeds;

/// One parser under test.
pub(crate) struct Target {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// The function.
    pub(crate) run: fn(&[u8]),
    /// Inputs to start from.
    pub(crate) seeds: Seeds,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: Seeds) -> Target {
    Target { name, run, seeds }
}

/// All of them.
pub(crate) static TARGETS: &[Target] = &[
    target("archive", format::fuzz_archive, Seeds::Archives),
    target("bolt", stores::fuzz_bolt, Seeds::Databases),
    target("convert", convert, Seeds::Archives),
    target("decode", compress::fuzz_decode, Seeds::Streams),
    target("digest", digest, Seeds::References),
    target("dir", format::fuzz_dir, Seeds::Dirs),
    target("google-dir", format::fuzz_google_dir, Seeds::GoogleDirs),
    target("json", spec::json::fuzz_json, Seeds::Json),
    target("layout", format::fuzz_layout, Seeds::Layouts),
    target("location", format::fuzz_location, Seeds::Locations),
    target("merge", merge, Seeds::Layers),
    target("name", tar::fuzz_name, Seeds::Names),
    target("reference", reference::fuzz_reference, Seeds::References),
    target("sniff", compress::fuzz_sniff, Seeds::Compressed),
    target("spec", spec::fuzz_spec, Seeds::Json),
    target("tar", tar::fuzz_tar, Seeds::Layers),
    target("tar-split", stores::fuzz_tar_split, Seeds::TarSplits),
];

/// What parses as a digest prints as it was.
fn digest(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(digest) = text.parse::<longshore::Digest>() {
        assert_eq!(digest.to_string(), text);
    }
}

thread_local! {
    static PLACE: (tempfile::TempDir, longshore::context::Context) = {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let context = longshore::context::Context::new(1, folder.path().to_owned());
        (folder, context)
    };
}

/// What merges with a layer below it is a tar that names each path once, after its directory; and merged once more, the same.
fn merge(input: &[u8]) {
    use longshore::export::export;
    use longshore::location::{Location, OpenOptions, open};
    use longshore::transport::{Destination, Output};
    use longshore_testkit::images::{Image, Layer, docker_archive};
    use longshore_testkit::oracle::Tree;

    PLACE.with(|(folder, ctx)| {
        let path = |name: &str| folder.path().join(name);
        let exported = |layers: &[Layer]| {
            let image = layers.iter().fold(Image::new("a:1"), |image, layer| image.with(layer.clone()));
            std::fs::write(path("in.tar"), docker_archive(&[image]).bytes()).expect("the input can be written");
            let from = Location::parse_source(path("in.tar").to_str().expect("a temporary folder has a name")).expect("a path");
            let source = open(&from, &OpenOptions::default(), ctx).ok()?;
            let to = Output::create(&Destination::at(&path("out"), true), ctx).expect("the output can be made");
            export(source.as_ref(), longshore::catalog::ImageId(0), to, ctx).ok()?;
            Some(std::fs::read(path("out")).expect("it was written"))
        };
        let below = Layer::new("etc/\netc/one=1\nusr/\nusr/lib/\nusr/lib/two=2");
        let Some(merged) = exported(&[below, Layer::of_tar(input.to_vec())]) else { return };
        Tree::of_tar(&merged);
        let again = exported(&[Layer::of_tar(merged.clone())]).expect("what was merged can be read");
        assert!(again == merged, "merged again, it is another");
    });
}

/// What converts without an error is an archive in which `check` finds nothing, with the same images.
fn convert(input: &[u8]) {
    use longshore::format::WriteOptions;
    use longshore::location::{Access, Location, OpenOptions, create, open};
    use longshore::plan::{ConvertOptions, convert};

    PLACE.with(|(folder, ctx)| {
        let path = |name: &str| folder.path().join(name).to_str().expect("a temporary folder has a name").to_owned();
        std::fs::write(path("in"), input).expect("the input can be written");
        let Ok(source) = open(&Location::parse_source(&path("in")).expect("a path"), &OpenOptions::default(), ctx) else { return };
        for format in ["docker-archive", "oci-archive"] {
            let to = Location::parse_destination(&format!("{format}:{}", path("out"))).expect("a destination");
            let options = WriteOptions::default();
            let accepts = to.accepts(&options).expect("it has a format");
            let Ok(plan) = convert(source.catalog(), &accepts, &ConvertOptions::default()) else { continue };
            let sink = create(&to, &options, true, &Access::default(), ctx).expect("the output can be made");
            let Ok(report) = longshore::run::run(&plan, source.as_ref(), sink, ctx) else { continue };
            let again = open(&to, &OpenOptions::default(), ctx).unwrap_or_else(|error| panic!("{format} cannot be read again: {error}"));
            let mut ids: Vec<_> = again.catalog().images.iter().map(|image| image.id().to_string()).collect();
            let mut expected: Vec<_> = report.images.into_iter().map(|image| image.id).collect();
            ids.sort();
            expected.sort();
            assert_eq!(ids, expected, "{format}");
        }
    });
}

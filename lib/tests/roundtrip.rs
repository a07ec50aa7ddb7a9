//! What is written is read again as it was, in every format, whatever the threads and however the bytes come.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use longshore::Result;
use longshore::catalog::{BlobId, Catalog};
use longshore::context::Context;
use longshore::format::{DIALECTS, WriteOptions};
use longshore::location::{Access, Location, OpenOptions, create, open};
use longshore::plan::{Compress, ConvertOptions, convert};
use longshore::source::Source;
use longshore_testkit::facts::{Facts, Packing, facts};
use longshore_testkit::faulty::Faulty;
use longshore_testkit::images::{Image, Layer, Layout, docker_archive};
use longshore_testkit::tar::{self, Member};
use longshore_testkit::{assert_same_bytes, noise};
use proptest::prelude::*;
use proptest::sample::select;

/// A source whose bytes come a few at a time, and which is no file.
struct Trickling {
    inner: Arc<dyn Source>,
    step: usize,
}

impl Source for Trickling {
    fn catalog(&self) -> &Catalog {
        self.inner.catalog()
    }

    fn open(&self, blob: BlobId, from: u64) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Faulty::new(self.inner.open(blob, from)?).step(self.step).interrupted()))
    }

    fn file(&self, _blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        None
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// A format, the dialect to write it in, and whether it holds several images, names, and manifests that `facts` looks at.
const TARGETS: [(&str, usize, bool, bool, bool); 5] = [
    ("docker-archive", 0, true, true, false),
    ("docker-archive", 1, true, true, false),
    ("oci-archive", 0, true, true, true),
    ("oci", 0, true, true, true),
    ("dir", 0, false, false, true),
];

fn layer() -> impl Strategy<Value = Layer> {
    let packing = select(vec![Packing::Plain, Packing::Gzip, Packing::Zstd]);
    let size = prop_oneof![4 => 0_usize..3000, 1 => Just(1_200_000_usize)];
    // Few seeds, so that layers come twice.
    (size, 0_u64..3, packing).prop_map(|(size, seed, packing)| {
        let content = if seed == 0 { vec![b'x'; size] } else { noise(size, seed) };
        Layer::of_tar(tar::write(&[Member::dir("d/"), Member::file("d/file", content)])).packed(packing)
    })
}

fn image() -> impl Strategy<Value = Image> {
    let platform = select(vec!["linux/amd64", "linux/arm64/v8", "windows/amd64"]);
    let annotations = proptest::collection::btree_map("[a-z.]{1,8}", ".{0,8}", 0..3);
    (proptest::collection::vec(layer(), 0..4), 0_usize..3, platform, annotations).prop_map(|(layers, names, platform, annotations)| {
        let image = layers.into_iter().fold(Image::new("").platform(platform), Image::with);
        let image = (0..names).fold(image, |image, at| image.name(&format!("NAME:{at}")));
        annotations.iter().fold(image, |image, (key, value)| image.annotate(key, value))
    })
}

fn images() -> impl Strategy<Value = Vec<Image>> {
    proptest::collection::vec(image(), 1..4).prop_map(|mut images| {
        for (at, image) in images.iter_mut().enumerate() {
            // Each name is for one image.
            image.names.iter_mut().for_each(|name| *name = name.replace("NAME", &format!("team/app{at}")));
        }
        images
    })
}

fn copy(source: &dyn Source, format: &str, dialect: usize, to: &Path, compress: Option<Compress>, threads: usize) -> Result<()> {
    let ctx = Context::new(threads, to.parent().unwrap().to_owned());
    let options = WriteOptions { dialect: DIALECTS[dialect] };
    let to = Location::parse_destination(&format!("{format}:{}", to.display()))?;
    let sink = create(&to, &options, false, &Access::default(), &ctx)?;
    let plan = convert(source.catalog(), &to.accepts(&options)?, &ConvertOptions { compress, ..ConvertOptions::default() })?;
    longshore::run::run(&plan, source, sink, &ctx).map(drop)
}

fn opened(path: &Path) -> Arc<dyn Source> {
    let options = OpenOptions { keep_going: true, ..OpenOptions::default() };
    let location = Location::parse_source(path.to_str().unwrap()).unwrap();
    open(&location, &options, &Context::new(1, path.parent().unwrap().to_owned())).unwrap()
}

/// The annotations of each image's manifest; nothing where two manifests have one config.
fn annotations(facts: &Facts) -> BTreeMap<String, serde_json::Value> {
    let of = |manifest: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(manifest).unwrap()["annotations"].clone();
    facts.images.iter().filter_map(|(id, image)| Some((id.clone(), of(image.manifest.as_ref()?)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn through_every_format(images in images(), layout in any::<bool>(), step in 1_usize..5000, keep in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.tar");
        let archive = if layout { Layout::of(&images).archive() } else { docker_archive(&images) };
        std::fs::write(&input, archive.bytes()).unwrap();
        let (source, before) = (opened(&input), facts(&input));
        let compress = keep.then_some(Compress::Keep);
        for (at, (format, dialect, several, names, manifests)) in TARGETS.into_iter().enumerate() {
            let path = |what: &str| dir.path().join(format!("{what}-{at}"));
            // Classic archives hold plain layers only.
            let compress = compress.filter(|_| dialect == 0);
            let done = copy(source.as_ref(), format, dialect, &path("one"), compress, 1);
            if !several && source.catalog().entries().len() > 1 {
                prop_assert!(done.is_err() && !path("one").exists());
                continue;
            }
            done.unwrap_or_else(|error| panic!("{format}: {error}"));
            let made = facts(&path("one"));
            prop_assert_eq!(made.essence(), before.essence(), "{}", format);
            if names {
                prop_assert_eq!(made.names(), before.names(), "{}", format);
            }
            let distinct = before.images.len() == images.len();
            if layout && manifests && distinct {
                prop_assert_eq!(annotations(&made), annotations(&before), "{}", format);
            }

            // Threads, and how the bytes come, do not show.
            copy(source.as_ref(), format, dialect, &path("four"), compress, 4).unwrap();
            assert_same_bytes(&path("one"), &path("four"), format);
            let trickling = Trickling { inner: Arc::clone(&source), step };
            copy(&trickling, format, dialect, &path("trickled"), compress, 3).unwrap();
            assert_same_bytes(&path("one"), &path("trickled"), format);

            // It is sound, and what it is written as from here is the same images once more.
            let again = opened(&path("one"));
            let found = longshore::validate::check(again.as_ref(), &Context::new(2, dir.path().to_owned())).unwrap();
            prop_assert!(found.is_empty(), "{}: {:?}", format, found);
            copy(again.as_ref(), "oci-archive", 0, &path("back"), None, 2).unwrap();
            prop_assert_eq!(facts(&path("back")).essence(), before.essence(), "{} and back", format);
        }
    }
}

//! Dialects: how one tool lays out a docker-archive. A dialect is one file here and one line in [`DIALECTS`].

mod bazel;
mod classic;
mod crane;
mod docker;
mod google;
mod podman;

use std::fmt;

use serde::Serialize;

use crate::compress::Compression;
use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::format::Members;
use crate::format::archive_write::Layouter;
use crate::reference::Reference;
use crate::sink::{Accepts, DefaultCompress, ManifestTypes, Names, SealedImage};
use crate::spec::style::go;
use crate::spec::{Config, Descriptor, Json, Raw};

/// Every dialect; the first is the default.
pub static DIALECTS: &[&dyn Dialect] =
    &[&docker::Docker, &classic::Classic, &podman::Podman, &crane::Crane, &bazel::Bazel, &google::GOOGLE, &google::V1];

/// One tool's way to lay out a docker-archive.
pub trait Dialect: Sync {
    /// The value of `--dialect`.
    fn name(&self) -> &'static str;

    /// One line about it, for `longshore formats`.
    fn about(&self) -> &'static str;

    /// What it can hold.
    fn accepts(&self) -> Accepts;

    /// Which members an output has, for `longshore formats`.
    fn members(&self) -> Members;

    /// Decides on the members.
    #[doc(hidden)]
    fn layouter(&self) -> Box<dyn Layouter>;
}

impl fmt::Debug for dyn Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Finds a dialect by its name.
pub fn by_name(name: &str) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name() == name)
}

/// One image of `manifest.json`, with the keys in Docker's order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    layer_sources: Vec<(DiffId, &'a Descriptor)>,
}

fn as_map<S: serde::Serializer>(pairs: &[(DiffId, &Descriptor)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(id, descriptor)| (id, descriptor)))
}

/// What most dialects hold: configs and plain layers under names with a tag, and no manifests.
const ACCEPTS: Accepts = Accepts {
    format: super::NAME,
    several: true,
    configs: true,
    indexes: false,
    artifacts: false,
    annotations: false,
    names: Names::Tagged,
    manifests: ManifestTypes::None,
    compressions: &[Compression::None],
    default_compress: DefaultCompress::None,
    stored_digests: false,
    configs_first: true,
};

/// What the images of an archive manifest say of themselves in one dialect.
pub(super) struct Entries<'a> {
    /// The form of names.
    pub(super) name: fn(&Reference) -> String,
    /// What stands for no names: an empty list, or `null`.
    pub(super) empty_list: bool,
    /// The member of an image's config.
    pub(super) config: &'a dyn Fn(&SealedImage) -> String,
    /// The member of a layer: of the image with this number, and at this position in it.
    pub(super) layer: &'a dyn Fn(usize, &SealedImage, usize) -> String,
}

/// The member of a config in most dialects.
fn config_name(config: &Raw<Config>) -> String {
    format!("{}.json", config.digest().hex())
}

/// The archive manifest, with where foreign layers come from, as Go writes it.
pub(super) fn archive_manifest(images: &[SealedImage], entries: &Entries<'_>) -> Result<Vec<u8>> {
    let made = images.iter().enumerate().map(|(at, image)| {
        let tags: Vec<_> = image.references.iter().map(entries.name).collect();
        let foreign = image.layers.iter().filter(|layer| layer.is_foreign());
        Entry {
            config: (entries.config)(image),
            repo_tags: (entries.empty_list || !tags.is_empty()).then_some(tags),
            layers: (0..image.layers.len()).map(|position| (entries.layer)(at, image, position)).collect(),
            layer_sources: foreign.map(|layer| (layer.diff_id, &layer.descriptor)).collect(),
        }
    });
    let json = serde_json::to_string(&made.collect::<Vec<_>>()).map_err(Error::invalid)?;
    Ok(go(Json::text_of(&json)).into_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use longshore_testkit::facts::Packing;
    use longshore_testkit::images::{Image, Layer, Layout};
    use longshore_testkit::tar::{self, Member};
    use serde_json::{Value, json};

    use super::*;
    use crate::format::WriteOptions;
    use crate::location::{Access, Location, create};
    use crate::plan::{ConvertOptions, convert};
    use crate::testing::{context, layout};

    /// The members of an archive that a dialect makes of images.
    fn write(dir: &Path, dialect: &str, images: &[Image]) -> Vec<Member> {
        let (source, ctx) = (layout(dir, "in", &Layout::of(images)), context(dir));
        let options = WriteOptions { dialect: by_name(dialect).unwrap() };
        let to = Location::parse_destination(&format!("docker-archive:{}/{dialect}.tar", dir.display())).unwrap();
        let plan = convert(source.catalog(), &to.accepts(&options).unwrap(), &ConvertOptions::default()).unwrap();
        crate::run::run(&plan, source.as_ref(), create(&to, &options, true, &Access::default(), &ctx).unwrap(), &ctx).unwrap();
        tar::read(&std::fs::read(to.path().unwrap()).unwrap())
    }

    fn images() -> Vec<Image> {
        let base = Layer::new("etc/\netc/one=1").packed(Packing::Gzip);
        vec![
            Image::new("a:1").name("example.com/team/a").with(base.clone()).with(Layer::new("two=2")).with(base.clone()),
            Image::new("b:2").platform("linux/arm64").with(base),
            Image::new("").platform("linux/s390x"),
        ]
    }

    /// Names, with digests by what they are of.
    fn outline(members: &[Member], images: &[Image]) -> Vec<String> {
        let mut known: Vec<(String, String)> = Vec::new();
        for (at, image) in images.iter().enumerate() {
            known.push((image.id().replace("sha256:", ""), format!("CONFIG{at}")));
            known.extend(image.layers.iter().map(|layer| (layer.diff_id().replace("sha256:", ""), format!("LAYER-{}", layer.tar.len()))));
        }
        let shown = |member: &Member| {
            let name = known.iter().fold(member.text(), |name, (hex, means)| name.replace(hex, means));
            if member.link.is_empty() { name } else { format!("{name} -> {}", String::from_utf8_lossy(&member.link)) }
        };
        members.iter().map(shown).collect()
    }

    #[test]
    fn names_are_unique_and_the_default_comes_first() {
        assert_eq!(
            DIALECTS.iter().map(|dialect| dialect.name()).collect::<Vec<_>>(),
            ["docker", "classic", "podman", "crane", "bazel", "google", "v1"]
        );
        assert!(by_name("quay").is_none());
    }

    #[test]
    fn docker_writes_a_layout_and_an_archive_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let members = write(dir.path(), "docker", &images());
        let names = outline(&members, &images());
        assert_eq!(
            names[..6],
            ["blobs/", "blobs/sha256/", "blobs/sha256/LAYER-2560", "blobs/sha256/LAYER-2048", "blobs/sha256/CONFIG0", &names[5]]
        );
        assert_eq!(names[names.len() - 3..], ["oci-layout", "index.json", "manifest.json"]);
        let manifest: Value = serde_json::from_slice(&members.last().unwrap().data).unwrap();
        let blob = |digest: String| format!("blobs/{}", digest.replace(':', "/"));
        let entry = |image: &Image, tags: Value| {
            let layers: Vec<_> = image.layers.iter().map(|layer| blob(layer.diff_id())).collect();
            json!({ "Config": blob(image.id()), "RepoTags": tags, "Layers": layers })
        };
        let [a, b, c] = &images()[..] else { panic!("three images") };
        assert_eq!(
            manifest,
            json!([entry(a, json!(["a:1", "example.com/team/a:latest"])), entry(b, json!(["b:2"])), entry(c, Value::Null)])
        );
        assert!(members.last().unwrap().data.starts_with(br#"[{"Config":"#), "the keys are in Docker's order");
    }

    #[test]
    fn classic_writes_a_folder_a_layer_and_links_what_comes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let members = write(dir.path(), "classic", &images());
        let names: Vec<_> = members.iter().map(Member::text).collect();
        assert_eq!(names[names.len() - 2..], ["manifest.json", "repositories"]);
        let mut sorted = names[..names.len() - 2].to_vec();
        sorted.sort();
        assert_eq!(names[..names.len() - 2], sorted, "Docker sorts them");
        // Three layers of the first image and one of the second, which is the first's lowest under another name: its config differs.
        let layers: Vec<_> = members.iter().filter(|member| member.text().ends_with("/layer.tar")).collect();
        assert_eq!(layers.iter().filter(|layer| layer.kind == b'0').count(), 2);
        assert_eq!(layers.iter().filter(|layer| layer.kind == b'2' && layer.link.starts_with(b"../")).count(), 2);
        let manifest: Value = serde_json::from_slice(&members[names.len() - 2].data).unwrap();
        let repositories: Value = serde_json::from_slice(&members[names.len() - 1].data).unwrap();
        let top = |image: usize| {
            manifest[image]["Layers"].as_array().unwrap().last().unwrap().as_str().unwrap().trim_end_matches("/layer.tar").to_owned()
        };
        assert_eq!(repositories, json!({ "a": { "1": top(0) }, "example.com/team/a": { "latest": top(0) }, "b": { "2": top(1) } }));
        assert_eq!(
            manifest[2],
            json!({ "Config": format!("{}.json", images()[2].id().replace("sha256:", "")), "RepoTags": null, "Layers": [] })
        );
        // Each folder has its version and the JSON of 2013, whose parents lead to the base.
        for layer in &layers {
            let folder = layer.text().replace("layer.tar", "");
            let data = |name: &str| members.iter().find(|member| member.text() == format!("{folder}{name}")).unwrap().data.clone();
            assert_eq!(data("VERSION"), b"1.0");
            let v1: Value = serde_json::from_slice(&data("json")).unwrap();
            assert_eq!(format!("{}/", v1["id"].as_str().unwrap()), folder);
            assert!(v1["parent"].is_null() || names.contains(&format!("{}/", v1["parent"].as_str().unwrap())));
        }
        let v1: Value =
            serde_json::from_slice(&members[names.iter().position(|name| *name == format!("{}/json", top(0))).unwrap()].data).unwrap();
        assert_eq!(
            (&v1["config"]["Healthcheck"]["Test"][0], &v1["os"], &v1["created"]),
            (&json!("NONE"), &json!("linux"), &json!("2024-01-02T03:04:05Z"))
        );
    }

    #[test]
    fn archive_manifests_name_foreign_layers() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::new("a:1").layer("a=1").with(Layer::new("b=2").foreign("https://example.com/b?c&d"));
        // v1 archives cannot say where a layer is.
        for dialect in DIALECTS.iter().filter(|dialect| dialect.name() != "v1") {
            let members = write(dir.path(), dialect.name(), std::slice::from_ref(&image));
            let clean = |name: &str| name.trim_start_matches("./").to_owned();
            let manifest = members.iter().find(|member| clean(&member.text()) == "manifest.json").unwrap();
            let manifest_text = String::from_utf8(manifest.data.clone()).unwrap();
            let manifest: Value = serde_json::from_str(&manifest_text).unwrap();
            let source = &manifest[0]["LayerSources"][image.layers[1].diff_id()];
            assert_eq!(source["urls"], json!(["https://example.com/b?c&d"]), "{}", dialect.name());
            let of_python = ["bazel", "google"].contains(&dialect.name());
            assert_eq!(manifest_text.contains("b?c\\u0026d"), !of_python, "{}", dialect.name());
            let layers = manifest[0]["Layers"].as_array().unwrap();
            assert_eq!(layers.len(), 2);
            let there = |layer: &Value| members.iter().any(|member| clean(&member.text()) == layer.as_str().unwrap());
            assert!(there(&layers[0]) && !there(&layers[1]), "{}", dialect.name());
            std::fs::remove_dir_all(dir.path().join("in")).unwrap();
        }
    }
}

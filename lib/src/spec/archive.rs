//! The two files in which a docker-archive says what is in it: `manifest.json` and the older `repositories`.
//!
//! ```text
//! manifest.json   [{"Config":"<hex>.json","RepoTags":["kitchen:1"],"Layers":["<hex>/layer.tar",...],"LayerSources":{"<diff ID>":{descriptor}}}]
//! repositories    {"kitchen":{"1":"<ID of the top layer>"}}
//! ```
//!
//! They are written by [Docker](https://github.com/moby/moby/blob/v27.5.1/image/tarexport/save.go), whose struct has these names in upper case.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::descriptor::Descriptor;
use super::raw::Validate;
use super::view::{Json, SpecError, deserialize_by_reading, quoted};
use crate::digest::{DiffId, Digest};

/// `manifest.json`: the images of an archive, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveManifest(pub Vec<ArchiveImage>);

/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveImage {
    /// The member that holds the config.
    pub config: String,
    /// The names of the image; Docker writes `null` for none. They are text until somebody parses them.
    pub repo_tags: Option<Vec<String>>,
    /// The members that hold the layers, first to last. Go writes `null` for none.
    pub layers: Vec<String>,
    /// The image ID of the image it was built on, which no engine has written since 2016.
    pub parent: Option<String>,
    /// Where a layer can be had instead: foreign layers, by diff ID.
    pub layer_sources: Option<BTreeMap<DiffId, Descriptor>>,
}

/// `repositories`: repository, then tag, then the ID of the top layer's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repositories(pub BTreeMap<String, BTreeMap<String, String>>);

impl ArchiveManifest {
    /// Reads `manifest.json`.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let images = json.list(ArchiveImage::read)?;
        if images.is_empty() {
            return Err(SpecError::expected("at least one image", "an empty list"));
        }
        Ok(Self(images))
    }
}

impl Deref for ArchiveManifest {
    type Target = [ArchiveImage];

    fn deref(&self) -> &[ArchiveImage] {
        &self.0
    }
}

impl Validate for ArchiveManifest {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        Self::read(json)
    }
}

impl ArchiveImage {
    /// Reads one entry of `manifest.json`.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&["Config", "RepoTags", "Layers", "Parent", "LayerSources"])?;
        if !fields.has("Layers") {
            return Err(SpecError::new("missing").at_key("Layers"));
        }
        Ok(Self {
            config: fields.required("Config", member)?,
            repo_tags: fields.optional("RepoTags", |list| list.list(Json::string))?,
            layers: fields.or_default("Layers", |list| list.list(member))?,
            parent: fields.text("Parent")?,
            layer_sources: fields.optional("LayerSources", layer_sources)?,
        })
    }
}

impl Repositories {
    /// Reads `repositories`.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        Ok(Self(json.map(|tags| tags.map(Json::string))?))
    }
}

impl Validate for Repositories {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        Self::read(json)
    }
}

deserialize_by_reading!(ArchiveManifest, ArchiveImage, Repositories);

/// The name of a member of the archive.
fn member(json: Json<'_>) -> Result<String, SpecError> {
    let name = json.string()?;
    let wrong = match name.as_str() {
        "" => "an empty string".to_owned(),
        name if name.starts_with('/') => format!("the absolute path {}", quoted(name)),
        name if name.split('/').any(|part| part == "..") => format!("a path with \"..\", {}", quoted(name)),
        name if name.contains('\0') => format!("a path with NUL, {}", quoted(name)),
        _ => return Ok(name),
    };
    Err(SpecError::expected("the name of a file in the archive", wrong))
}

fn layer_sources(json: Json<'_>) -> Result<BTreeMap<DiffId, Descriptor>, SpecError> {
    let sources = json.map(Descriptor::read)?.into_iter();
    let by_id = sources.map(|(key, source)| match key.parse::<Digest>() {
        Ok(digest) => Ok((DiffId(digest), source)),
        Err(error) => Err(SpecError::new(error)),
    });
    by_id.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::spec::{JsonLimits, Raw};

    const ID: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse<T: Validate>(text: &str) -> Result<Raw<T>, String> {
        Raw::parse(text.as_bytes(), &JsonLimits::manifest(&Limits::default())).map_err(|error| error.to_string())
    }

    #[test]
    fn archive_manifests() {
        let source = format!(r#"{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{ID}","size":0}}"#);
        let manifest = parse::<ArchiveManifest>(&format!(
            r#"[{{"Config":"blobs/sha256/a","RepoTags":["x:1","y:2"],"Layers":["a/layer.tar","./b"],"Parent":"","LayerSources":{{"{ID}":{source}}},"Z":1}},
            {{"Config":"c.json","RepoTags":null,"Layers":null}}]"#
        ))
        .unwrap();
        assert_eq!((manifest.len(), manifest[0].layers.len(), manifest[0].repo_tags.as_ref().unwrap().len()), (2, 2, 2));
        assert_eq!(manifest[0].layer_sources.as_ref().unwrap()[&DiffId(ID.parse().unwrap())].size, 0);
        assert_eq!((&manifest[1].repo_tags, &manifest[1].layer_sources, manifest[1].layers.len()), (&None, &None, 0));
        let place = "the name of a file in the archive";
        for (text, expected) in [
            ("null", "expected an array, found null".to_owned()),
            ("{}", "expected an array, found an object".to_owned()),
            ("[]", "expected at least one image, found an empty list".to_owned()),
            ("[null]", "[0]: expected an object, found null".to_owned()),
            (r#"[{"Layers":[]}]"#, "[0].Config: missing".to_owned()),
            (r#"[{"Config":null,"Layers":[]}]"#, "[0].Config: expected a value, found null".to_owned()),
            (r#"[{"Config":"","Layers":[]}]"#, format!("[0].Config: expected {place}, found an empty string")),
            (r#"[{"Config":"/a","Layers":[]}]"#, format!("[0].Config: expected {place}, found the absolute path \"/a\"")),
            (r#"[{"Config":"a"}]"#, "[0].Layers: missing".to_owned()),
            (r#"[{"Config":"a","Layers":"b"}]"#, "[0].Layers: expected an array, found a string".to_owned()),
            (r#"[{"Config":"a","Layers":["b",null]}]"#, "[0].Layers[1]: expected a string, found null".to_owned()),
            (r#"[{"Config":"a","Layers":["a/../b"]}]"#, format!("[0].Layers[0]: expected {place}, found a path with \"..\", \"a/../b\"")),
            (r#"[{"Config":"a","Layers":[],"RepoTags":"x"}]"#, "[0].RepoTags: expected an array, found a string".to_owned()),
            (
                r#"[{"config":"a","Layers":[]}]"#,
                "[0]: expected the key \"Config\", found \"config\" (upper and lower case differ)".to_owned(),
            ),
            (r#"[{"Config":"a","Layers":[],"LayerSources":{"x":{}}}]"#, "[0].LayerSources.x.mediaType: missing".to_owned()),
        ] {
            assert_eq!(parse::<ArchiveManifest>(text).unwrap_err(), expected, "{text}");
        }
        let odd = parse::<ArchiveManifest>(&format!(r#"[{{"Config":"a","Layers":[],"LayerSources":{{"x":{source}}}}}]"#));
        assert_eq!(odd.unwrap_err(), "[0].LayerSources: \"x\" is not a digest (ALGORITHM:HEX)");
    }

    #[test]
    fn repositories() {
        let names = parse::<Repositories>(r#"{"kitchen":{"1":"abc","2":"def"},"x/y":{}}"#).unwrap();
        assert_eq!(names.0["kitchen"]["2"], "def");
        assert_eq!(parse::<Repositories>(r#"{"kitchen":"x"}"#).unwrap_err(), "kitchen: expected an object, found a string");
        assert_eq!(parse::<Repositories>(r#"{"kitchen":{"1":null}}"#).unwrap_err(), "kitchen.1: expected a string, found null");
    }
}

//! Manifests and indexes, OCI's ([manifest], [index]) and Docker's, which have the same keys.
//!
//! [manifest]: https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md
//! [index]: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md

use std::collections::BTreeMap;

use super::descriptor::Descriptor;
use super::media::{self, ManifestKind};
use super::raw::Validate;
use super::view::{Fields, Json, SpecError, deserialize_by_reading, quoted};
use crate::reference::shown;

/// A manifest: one config and its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// "For this version of the specification, this MUST be 2 to ensure backward compatibility with older versions of Docker."
    pub schema_version: u64,
    /// "This property SHOULD be used"; Docker's manifests always have it.
    pub media_type: Option<String>,
    /// "This OPTIONAL property contains the type of an artifact when the manifest is used for an artifact."
    pub artifact_type: Option<String>,
    /// "This REQUIRED property references a configuration object for a container, by digest."
    pub config: Descriptor,
    /// "Each item in the array MUST be a descriptor. The final filesystem layout MUST match the result of applying the layers to an empty
    /// directory", first to last.
    pub layers: Vec<Descriptor>,
    /// "This OPTIONAL property specifies a descriptor of another manifest", for referrers.
    pub subject: Option<Descriptor>,
    /// "This OPTIONAL property contains arbitrary metadata for the image manifest."
    pub annotations: BTreeMap<String, String>,
}

/// An index: a list of manifests, of which an engine picks one by platform. Docker calls it a manifest list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// "For this version of the specification, this MUST be 2".
    pub schema_version: u64,
    /// "This property SHOULD be used"; Docker's lists always have it.
    pub media_type: Option<String>,
    /// "This REQUIRED property contains a list of manifests for specific platforms."
    pub manifests: Vec<Descriptor>,
    /// "This OPTIONAL property specifies a descriptor of another manifest", for referrers.
    pub subject: Option<Descriptor>,
    /// "This OPTIONAL property contains the type of an artifact when the manifest is used for an artifact."
    pub artifact_type: Option<String>,
    /// "This OPTIONAL property contains arbitrary metadata for the image index."
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&[
            "schemaVersion",
            "mediaType",
            "artifactType",
            "config",
            "layers",
            "subject",
            "annotations",
            "manifests",
            "fsLayers",
        ])?;
        let schema_version = schema_version(&fields)?;
        if fields.value("manifests").is_some() {
            return Err(SpecError::expected("a manifest", "an index: it has the key \"manifests\""));
        }
        Ok(Self {
            schema_version,
            media_type: media_type(&fields, false)?,
            artifact_type: fields.text("artifactType")?,
            config: fields.required("config", Descriptor::read)?,
            layers: descriptors(&fields, "layers")?,
            subject: fields.optional("subject", Descriptor::read)?,
            annotations: fields.strings("annotations")?,
        })
    }

    /// Checks the content's own media type against that of the descriptor that led here.
    pub fn agrees_with(&self, descriptor_media_type: &str) -> Result<(), SpecError> {
        agree(self.media_type.as_deref(), descriptor_media_type, false)
    }

    /// Whether it is an image: its config is one, and all its layers are layers. Anything else is an artifact.
    pub fn is_image(&self) -> bool {
        media::is_image_config(&self.config.media_type) && self.layers.iter().all(|layer| media::is_layer(&layer.media_type))
    }
}

impl Index {
    /// Reads an index.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&[
            "schemaVersion",
            "mediaType",
            "manifests",
            "subject",
            "artifactType",
            "annotations",
            "config",
            "layers",
            "fsLayers",
        ])?;
        let schema_version = schema_version(&fields)?;
        if let Some(key) = ["config", "layers"].into_iter().find(|key| fields.value(key).is_some()) {
            return Err(SpecError::expected("an index", format_args!("a manifest: it has the key {key:?}")));
        }
        Ok(Self {
            schema_version,
            media_type: media_type(&fields, true)?,
            // A layout without images has an empty list; nobody writes null.
            manifests: fields.required("manifests", |list| list.list(Descriptor::read))?,
            subject: fields.optional("subject", Descriptor::read)?,
            artifact_type: fields.text("artifactType")?,
            annotations: fields.strings("annotations")?,
        })
    }

    /// Checks the content's own media type against that of the descriptor that led here.
    pub fn agrees_with(&self, descriptor_media_type: &str) -> Result<(), SpecError> {
        agree(self.media_type.as_deref(), descriptor_media_type, true)
    }
}

impl Validate for Manifest {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        Self::read(json)
    }
}

impl Validate for Index {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        Self::read(json)
    }
}

deserialize_by_reading!(Manifest, Index);

fn schema_version(fields: &Fields<'_>) -> Result<u64, SpecError> {
    if fields.has("fsLayers") {
        return Err(SpecError::Schema1);
    }
    match fields.required("schemaVersion", Json::size)? {
        2 => Ok(2),
        1 => Err(SpecError::Schema1),
        other => Err(SpecError::expected("2", other).at_key("schemaVersion")),
    }
}

/// Go writes an empty list as `null`, but leaves no list out.
fn descriptors(fields: &Fields<'_>, key: &str) -> Result<Vec<Descriptor>, SpecError> {
    if !fields.has(key) {
        return Err(SpecError::new("missing").at_key(key));
    }
    fields.or_default(key, |list| list.list(Descriptor::read))
}

fn media_type(fields: &Fields<'_>, index: bool) -> Result<Option<String>, SpecError> {
    let Some(media_type) = fields.text("mediaType")? else { return Ok(None) };
    if media::is_schema1(&media_type) {
        return Err(SpecError::Schema1);
    }
    if ManifestKind::from_media_type(&media_type).is_none_or(|kind| kind.is_index() != index) {
        let expected = if index { "the media type of an index" } else { "the media type of a manifest" };
        return Err(SpecError::expected(expected, quoted(&media_type)).at_key("mediaType"));
    }
    Ok(Some(media_type))
}

fn agree(content: Option<&str>, descriptor: &str, index: bool) -> Result<(), SpecError> {
    // A content without media type is told apart by its keys, and those were looked at.
    let kind = ManifestKind::from_media_type(descriptor);
    let own = content.or_else(|| kind.filter(|kind| kind.is_index() == index).map(ManifestKind::media_type));
    if own == Some(descriptor) {
        return Ok(());
    }
    let content = own.unwrap_or(if index { media::OCI_INDEX } else { media::OCI_MANIFEST });
    Err(SpecError::MediaType { descriptor: shown(descriptor), content: shown(content) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::limits::Limits;
    use crate::spec::{JsonLimits, Raw};

    const DESCRIPTOR: &str =
        r#"{"mediaType":"TYPE","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    fn parse<T: Validate>(text: &str) -> Result<Raw<T>, String> {
        let text = text.replace("CONFIG", &DESCRIPTOR.replace("TYPE", media::OCI_CONFIG));
        let text = text.replace("LAYER", &DESCRIPTOR.replace("TYPE", media::OCI_LAYER_GZIP)).replace("OCI_M", media::OCI_MANIFEST);
        let text = text.replace("OCI_I", media::OCI_INDEX).replace("DOCKER_M", media::DOCKER_MANIFEST);
        Raw::parse(text.into_bytes(), &JsonLimits::manifest(&Limits::default())).map_err(|error| error.to_string())
    }

    #[test]
    fn manifests() {
        let text = r#"{"schemaVersion":2,"mediaType":"OCI_M","config":CONFIG,"layers":[LAYER,LAYER],"annotations":{"a":"b"},"x":[]}"#;
        let manifest = parse::<Manifest>(text).unwrap();
        assert_eq!((manifest.layers.len(), manifest.annotations["a"].as_str(), manifest.is_image()), (2, "b", true));
        assert_eq!(manifest.agrees_with(media::OCI_MANIFEST), Ok(()));
        let clash = manifest.agrees_with(media::DOCKER_MANIFEST).unwrap_err().to_string();
        assert!(clash.starts_with("the descriptor says \"application/vnd.docker.distribution.manifest.v2+json\", but"), "{clash}");

        let bare = parse::<Manifest>(r#"{"schemaVersion":2,"mediaType":"","config":LAYER,"layers":null,"subject":null}"#).unwrap();
        assert!(bare.layers.is_empty() && bare.media_type.is_none() && bare.subject.is_none() && !bare.is_image());
        assert_eq!(bare.agrees_with(media::DOCKER_MANIFEST), Ok(()));
        assert!(bare.agrees_with(media::OCI_INDEX).is_err());

        for (text, expected) in [
            ("null", "expected an object, found null"),
            ("{}", "schemaVersion: missing"),
            (r#"{"schemaVersion":"2","config":CONFIG,"layers":[]}"#, "schemaVersion: expected a number, found a string"),
            (r#"{"schemaVersion":3,"config":CONFIG,"layers":[]}"#, "schemaVersion: expected 2, found 3"),
            (r#"{"schemaVersion":2,"manifests":[]}"#, "expected a manifest, found an index: it has the key \"manifests\""),
            (
                r#"{"schemaVersion":2,"config":CONFIG,"layers":[],"manifests":[]}"#,
                "expected a manifest, found an index: it has the key \"manifests\"",
            ),
            (r#"{"schemaVersion":2,"layers":[]}"#, "config: missing"),
            (r#"{"schemaVersion":2,"config":CONFIG}"#, "layers: missing"),
            (r#"{"schemaVersion":2,"config":CONFIG,"layers":{}}"#, "layers: expected an array, found an object"),
            (r#"{"schemaVersion":2,"config":CONFIG,"layers":[LAYER,null]}"#, "layers[1]: expected an object, found null"),
            (
                r#"{"schemaVersion":2,"config":CONFIG,"Layers":[]}"#,
                "expected the key \"layers\", found \"Layers\" (upper and lower case differ)",
            ),
            (
                r#"{"schemaVersion":2,"mediaType":"OCI_I","config":CONFIG,"layers":[]}"#,
                "mediaType: expected the media type of a manifest, found \"application/vnd.oci.image.index.v1+json\"",
            ),
        ] {
            assert_eq!(parse::<Manifest>(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn indexes() {
        let index = parse::<Index>(r#"{"schemaVersion":2,"manifests":[LAYER],"config":null}"#).unwrap();
        assert_eq!(index.manifests.len(), 1);
        assert!(index.agrees_with(media::OCI_INDEX).is_ok() && index.agrees_with(media::DOCKER_LIST).is_ok());
        assert!(index.agrees_with(media::OCI_MANIFEST).is_err() && index.agrees_with("application/json").is_err());
        assert!(parse::<Index>(r#"{"schemaVersion":2,"mediaType":"OCI_I","manifests":[]}"#).unwrap().manifests.is_empty());
        for (text, expected) in [
            (r#"{"schemaVersion":2,"manifests":null}"#, "manifests: expected a value, found null"),
            (r#"{"schemaVersion":2}"#, "manifests: missing"),
            (r#"{"schemaVersion":2,"config":CONFIG,"layers":[]}"#, "expected an index, found a manifest: it has the key \"config\""),
            (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "expected an index, found a manifest: it has the key \"layers\""),
            (r#"{"schemaVersion":2,"manifests":[1]}"#, "manifests[0]: expected an object, found a number"),
            (
                r#"{"schemaVersion":2,"mediaType":"DOCKER_M","manifests":[]}"#,
                "mediaType: expected the media type of an index, found \"application/vnd.docker.distribution.manifest.v2+json\"",
            ),
        ] {
            assert_eq!(parse::<Index>(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn schema_1_is_refused_with_a_hint() {
        for text in [&br#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#[..], br#"{"schemaVersion":1}"#, br#"{"fsLayers":null}"#] {
            let error = Raw::<Manifest>::parse(text, &JsonLimits { bytes: 100, depth: 9 }).unwrap_err();
            let error = crate::Error::from(error);
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unsupported, "the manifest is of Docker's schema 1"));
            assert!(error.hint_text().is_some());
        }
    }
}

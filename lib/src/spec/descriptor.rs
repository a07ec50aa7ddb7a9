//! Descriptors: the [pointers](https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md) by which one document names another.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use super::edit::Object;
use super::media::{LayerMedia, parse_layer_media};
use super::platform::Platform;
use super::view::{Json, SpecError, deserialize_by_reading};
use crate::digest::Digest;

/// A pointer to some bytes: what they are, how many, and their digest.
///
/// It is written as the text it was listed with, unknown keys included. So changing a field changes nothing that is written: what has to
/// change is changed in the [`Object`] that [`edit`](Self::edit) gives.
#[derive(Clone)]
#[non_exhaustive]
pub struct Descriptor {
    /// "This REQUIRED property contains the media type of the referenced content."
    pub media_type: String,
    /// "This REQUIRED property is the digest of the targeted content."
    pub digest: Digest,
    /// "This REQUIRED property specifies the size, in bytes, of the raw content."
    pub size: u64,
    /// "This OPTIONAL property specifies a list of URIs from which this object MAY be downloaded."
    pub urls: Vec<String>,
    /// "This OPTIONAL property contains arbitrary metadata for this descriptor."
    pub annotations: BTreeMap<String, String>,
    /// "This OPTIONAL property describes the minimum runtime requirements of the image."
    pub platform: Option<Platform>,
    /// "This OPTIONAL property contains the type of an artifact when the descriptor points to an artifact."
    pub artifact_type: Option<String>,
    /// "This OPTIONAL property contains an embedded representation of the referenced content", in base64.
    pub data: Option<String>,
    raw: Box<RawValue>,
}

const KEYS: [&str; 8] = ["mediaType", "digest", "size", "urls", "annotations", "platform", "artifactType", "data"];

impl Descriptor {
    /// A descriptor of nothing but the three required properties.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        let media_type = media_type.into();
        let mut object = Object::new();
        object.set("mediaType", &media_type).set("digest", digest).set("size", size);
        let (urls, annotations) = (Vec::new(), BTreeMap::new());
        Self { media_type, digest, size, urls, annotations, platform: None, artifact_type: None, data: None, raw: object.to_raw() }
    }

    /// Reads a descriptor.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&KEYS)?;
        let media_type = fields.required("mediaType", Json::string)?;
        if media_type.is_empty() {
            return Err(SpecError::expected("a media type", "an empty string").at_key("mediaType"));
        }
        Ok(Self {
            media_type,
            digest: fields.required("digest", |value| value.parsed(str::parse::<Digest>))?,
            size: fields.required("size", Json::size)?,
            urls: fields.or_default("urls", |list| list.list(Json::string))?,
            annotations: fields.strings("annotations")?,
            platform: fields.optional("platform", Platform::read)?,
            artifact_type: fields.text("artifactType")?,
            data: fields.text("data")?,
            raw: RawValue::from_string(json.text().to_owned()).map_err(SpecError::new)?,
        })
    }

    /// The text that it was listed with.
    pub fn raw(&self) -> &RawValue {
        &self.raw
    }

    /// A copy of that text to change. [`Descriptor::try_from`] makes a descriptor of it again.
    pub fn edit(&self) -> Object {
        Object::from_json(Json::of(&self.raw)).expect("the text was read as an object, or made by one")
    }

    /// The annotation of that key.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// What its media type says of a layer.
    pub fn layer_media(&self) -> Option<LayerMedia> {
        parse_layer_media(&self.media_type)
    }
}

deserialize_by_reading!(Descriptor);

impl TryFrom<&Object> for Descriptor {
    type Error = SpecError;

    fn try_from(object: &Object) -> Result<Self, SpecError> {
        Self::read(Json::of(&object.to_raw()))
    }
}

impl Serialize for Descriptor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.raw.get())
    }
}

/// The same text.
impl PartialEq for Descriptor {
    fn eq(&self, other: &Self) -> bool {
        self.raw.get() == other.raw.get()
    }
}

impl Eq for Descriptor {}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn error(text: &str) -> String {
        serde_json::from_str::<Descriptor>(&text.replace("DIGEST", DIGEST)).unwrap_err().to_string()
    }

    #[test]
    fn survives_as_listed() {
        let text = format!(
            r#"{{ "size":7, "x": {{"y" : 1.0}}, "mediaType":"a/b","digest":"{DIGEST}","annotations":{{"b":"\u003c","a":"1"}},"urls":["http://x"],"platform":{{"os":"linux","architecture":"arm","variant":"v6"}},"artifactType":"t","data":"e30=" }}"#
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&descriptor).unwrap(), text);
        assert_eq!((descriptor.media_type.as_str(), descriptor.size, descriptor.digest.to_string().as_str()), ("a/b", 7, DIGEST));
        assert_eq!(descriptor.annotation("b"), Some("<"));
        assert_eq!(descriptor.platform.as_ref().unwrap().to_string(), "linux/arm/v6");
        assert_eq!((descriptor.artifact_type.as_deref(), descriptor.data.as_deref()), (Some("t"), Some("e30=")));
        let mut object = descriptor.edit();
        object.set("size", 8).remove("annotations");
        let edited = Descriptor::try_from(&object).unwrap();
        assert!(edited.raw().get().starts_with(r#"{"size":8,"x":{"y" : 1.0},"mediaType":"a/b""#));
        assert_eq!((edited.size, edited.annotations.len()), (8, 0));
    }

    #[test]
    fn made_anew() {
        let descriptor = Descriptor::new("a/b", DIGEST.parse().unwrap(), 3);
        let text = format!(r#"{{"mediaType":"a/b","digest":"{DIGEST}","size":3}}"#);
        assert_eq!(serde_json::to_string(&descriptor).unwrap(), text);
        assert_eq!(serde_json::from_str::<Descriptor>(&text).unwrap(), descriptor);
        let odd = Descriptor::new("\"\n", DIGEST.parse().unwrap(), u64::MAX);
        assert_eq!(odd.edit().to_vec(), serde_json::to_vec(&odd).unwrap());
    }

    #[test]
    fn refuses_and_says_why() {
        for (text, expected) in [
            ("null", "expected an object, found null"),
            (r#"{"digest":"DIGEST","size":1}"#, "mediaType: missing"),
            (r#"{"mediaType":"","digest":"DIGEST","size":1}"#, "mediaType: expected a media type, found an empty string"),
            (r#"{"mediaType":1,"digest":"DIGEST","size":1}"#, "mediaType: expected a string, found a number"),
            (r#"{"mediaType":"a","size":1}"#, "digest: missing"),
            (
                r#"{"mediaType":"a","digest":"sha256:../x","size":1}"#,
                "digest: digest \"sha256:../x\" does not have 64 lower-case hexadecimal digits",
            ),
            (r#"{"mediaType":"a","digest":"DIGEST"}"#, "size: missing"),
            (r#"{"mediaType":"a","digest":"DIGEST","size":null}"#, "size: expected a value, found null"),
            (r#"{"mediaType":"a","digest":"DIGEST","size":"1"}"#, "size: expected a number, found a string"),
            (r#"{"mediaType":"a","digest":"DIGEST","size":-1}"#, "size: expected a whole number from 0 to 9223372036854775807, found -1"),
            (r#"{"mediaType":"a","digest":"DIGEST","size":1,"annotations":{"k":1}}"#, "annotations.k: expected a string, found a number"),
            (r#"{"mediaType":"a","digest":"DIGEST","size":1,"platform":"linux"}"#, "platform: expected an object, found a string"),
            (
                r#"{"mediatype":"a","digest":"DIGEST","size":1}"#,
                "expected the key \"mediaType\", found \"mediatype\" (upper and lower case differ)",
            ),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
        let fine =
            r#"{"mediaType":"a","digest":"DIGEST","size":1,"urls":null,"annotations":null,"platform":null}"#.replace("DIGEST", DIGEST);
        assert!(serde_json::from_str::<Descriptor>(&fine).is_ok());
    }
}

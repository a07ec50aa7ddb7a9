//! The file [`oci-layout`], which marks a directory or an archive as an OCI image layout.
//!
//! [`oci-layout`]: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md#oci-layout-file

use super::raw::Validate;
use super::view::{Json, SpecError, deserialize_by_reading, quoted};

/// The name of the file.
pub const FILE: &str = "oci-layout";
/// The file as it is written: "The oci-layout file MUST exist; MUST be a JSON object".
pub const CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The one version there is.
pub const VERSION: &str = "1.0.0";

/// The content of `oci-layout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciLayout {
    /// "The file MUST contain an `imageLayoutVersion` field", 1.0.0.
    pub image_layout_version: String,
}

impl OciLayout {
    /// Reads the file.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&["imageLayoutVersion"])?;
        let image_layout_version = fields.required("imageLayoutVersion", Json::string)?;
        if image_layout_version != VERSION {
            return Err(SpecError::expected("\"1.0.0\"", quoted(&image_layout_version)).at_key("imageLayoutVersion"));
        }
        Ok(Self { image_layout_version })
    }
}

impl Validate for OciLayout {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        Self::read(json)
    }
}

deserialize_by_reading!(OciLayout);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_only() {
        let parse = |text: &[u8]| serde_json::from_slice::<OciLayout>(text).map_err(|error| error.to_string());
        assert!(parse(CONTENT).is_ok());
        assert!(parse(br#"{ "imageLayoutVersion": "1.0.0", "x": 1 }"#).is_ok());
        assert_eq!(parse(b"{}").unwrap_err(), "imageLayoutVersion: missing");
        assert_eq!(parse(br#"{"imageLayoutVersion":"1.0.1"}"#).unwrap_err(), "imageLayoutVersion: expected \"1.0.0\", found \"1.0.1\"");
        assert_eq!(parse(br#"{"imageLayoutVersion":1}"#).unwrap_err(), "imageLayoutVersion: expected a string, found a number");
    }
}

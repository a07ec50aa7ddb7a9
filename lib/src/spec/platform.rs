//! Platforms: `linux/arm64/v8`, and which image runs where.
//!
//! The names are Go's; the normal forms are those of [containerd's platforms package], which Docker uses as well.
//!
//! [containerd's platforms package]: https://github.com/containerd/platforms/blob/v0.2.1/database.go

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::view::{Fields, Json, SpecError, deserialize_by_reading, quoted};

/// What an image runs on. "This property describes the minimum runtime requirements of the image."
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// "This REQUIRED property specifies the operating system", as Go names it: `linux`, `windows`.
    pub os: String,
    /// "This REQUIRED property specifies the CPU architecture", as Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// "This OPTIONAL property specifies the variant of the CPU": `v7`, `v8`.
    pub variant: Option<String>,
    /// "This OPTIONAL property specifies the version of the operating system", for Windows.
    pub os_version: Option<String>,
    /// "This OPTIONAL property specifies an array of strings, each specifying a mandatory OS feature", for Windows.
    pub os_features: Vec<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} is not a platform (OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT)")]
pub struct PlatformError(String);

impl Platform {
    /// A platform without variant.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self { os: os.to_owned(), architecture: architecture.to_owned(), ..Self::default() }
    }

    /// Parses `OS/ARCHITECTURE[/VARIANT]`, and keeps it as it is written.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let part = |part: &&str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
        let parts: Vec<_> = text.split('/').collect();
        match parts[..] {
            [os, architecture, ref variant @ ..] if variant.len() <= 1 && parts.iter().all(part) => {
                let variant = variant.first().map(|&variant| variant.to_owned());
                Ok(Self { variant, ..Self::new(os, architecture) })
            }
            _ => Err(PlatformError(quoted(text))),
        }
    }

    /// Where this program runs containers: Linux on the processor that it is built for.
    pub fn host() -> Self {
        let little = cfg!(target_endian = "little");
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if little => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            "mips64" if little => "mips64le",
            "mips" if little => "mipsle",
            other => other,
        };
        Self::new("linux", architecture)
    }

    /// Reads the platform of a descriptor.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&["architecture", "os", "os.version", "os.features", "variant"])?;
        Self::of_fields(&fields)
    }

    /// The same keys stand at the top of a config.
    pub(crate) fn of_fields(fields: &Fields<'_>) -> Result<Self, SpecError> {
        Ok(Self {
            os: fields.or_default("os", Json::string)?,
            architecture: fields.or_default("architecture", Json::string)?,
            variant: fields.text("variant")?,
            os_version: fields.text("os.version")?,
            os_features: fields.or_default("os.features", |list| list.list(Json::string))?,
        })
    }

    /// The normal form: `linux/x86_64` is `linux/amd64`, `linux/arm64/v8` is `linux/arm64`, `linux/arm` is `linux/arm/v7`.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let os = match self.os.to_ascii_lowercase() {
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        Self {
            os,
            architecture: architecture.to_owned(),
            variant: Some(variant.to_owned()).filter(|variant| !variant.is_empty()),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }

    /// Whether it is the platform `wanted`, and has the version and the features that `wanted` names.
    pub fn matches(&self, wanted: &Self) -> bool {
        let (ours, theirs) = (self.normalized(), wanted.normalized());
        (&ours.os, &ours.architecture, &ours.variant) == (&theirs.os, &theirs.architecture, &theirs.variant) && self.has_os_of(wanted)
    }

    /// How well an image for this platform runs on `host`: more is better, none is not at all.
    ///
    /// An older variant of the same architecture runs (arm/v6 on arm/v7), a newer one does not. Other architectures that a processor may
    /// run (386 on amd64, arm on arm64), which containerd takes as a last resort, are never chosen unasked.
    pub fn score(&self, host: &Self) -> Option<u32> {
        let (ours, theirs) = (self.normalized(), host.normalized());
        if (&ours.os, &ours.architecture) != (&theirs.os, &theirs.architecture) || !self.has_os_of(host) {
            return None;
        }
        let level = |platform: &Self| level(&platform.architecture, platform.variant.as_deref().unwrap_or_default());
        match (level(&ours), level(&theirs)) {
            (Some(ours), Some(theirs)) => (ours <= theirs).then_some(ours),
            _ => (ours.variant == theirs.variant).then_some(u32::MAX),
        }
    }

    /// Whether it is `unknown/unknown`, as BuildKit marks attestations, which are no images.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    fn has_os_of(&self, wanted: &Self) -> bool {
        let version = wanted.os_version.is_none() || wanted.os_version == self.os_version;
        version && wanted.os_features.iter().all(|feature| self.os_features.contains(feature))
    }
}

deserialize_by_reading!(Platform);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Self::parse(text)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may come from a file.
        write!(f, "{}/{}", self.os.escape_debug(), self.architecture.escape_debug())?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", variant.escape_debug()),
            None => Ok(()),
        }
    }
}

impl serde::Serialize for Platform {
    /// Writes the keys in the order in which Go's struct has them.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("architecture", &self.architecture)?;
        map.serialize_entry("os", &self.os)?;
        if let Some(version) = &self.os_version {
            map.serialize_entry("os.version", version)?;
        }
        if !self.os_features.is_empty() {
            map.serialize_entry("os.features", &self.os_features)?;
        }
        if let Some(variant) = &self.variant {
            map.serialize_entry("variant", variant)?;
        }
        map.end()
    }
}

impl From<PlatformError> for crate::error::Error {
    fn from(error: PlatformError) -> Self {
        Self::invalid(error)
    }
}

/// The place of a variant among those of its architecture, from normal forms.
fn level(architecture: &str, variant: &str) -> Option<u32> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|&number| number < 100);
    match (architecture, variant) {
        ("amd64", "") => Some(1),
        ("amd64" | "arm", _) => number(variant.strip_prefix('v')?),
        ("arm64", "") => Some(0),
        // Armv9.n has all of Armv8.(n+5).
        ("arm64", "v9") => Some(5),
        ("arm64", _) => match variant.strip_prefix("v8.") {
            Some(minor) => number(minor),
            None => Some(number(variant.strip_prefix("v9.")?)? + 5),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn parses_and_prints() {
        for text in ["linux/amd64", "linux/arm64/v8", "windows/amd64", "unknown/unknown"] {
            assert_eq!(platform(text).to_string(), text);
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/", "a/b/c/d", "linux/a b", "linux/é", "linux /amd64"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Platform::parse("a\n").unwrap_err().to_string(),
            "\"a\\n\" is not a platform (OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT)"
        );
        assert!(platform("unknown/unknown").is_unknown());
        assert_eq!(Platform::host().os, "linux");
        assert!(Platform::host().score(&Platform::host()).is_some());
    }

    #[test]
    fn normal_forms() {
        for (text, normal) in [
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386/x", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(platform(text).normalized().to_string(), normal);
            assert!(platform(text).matches(&platform(normal)) && platform(normal).matches(&platform(text)));
        }
        assert!(!platform("linux/arm/v6").matches(&platform("linux/arm")));
        assert!(!platform("linux/arm64").matches(&platform("linux/amd64")));
    }

    #[test]
    fn the_best_variant_wins() {
        let best = |host: &str, offered: &[&str]| {
            let scored = offered.iter().filter_map(|text| Some((platform(text).score(&platform(host))?, *text)));
            scored.max_by_key(|(score, _)| *score).map_or("none", |(_, text)| text).to_owned()
        };
        assert_eq!(best("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8", "linux/arm64"]), "linux/arm/v6");
        assert_eq!(best("linux/arm/v5", &["linux/arm/v6", "linux/arm"]), "none");
        assert_eq!(best("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"]), "linux/amd64/v2");
        assert_eq!(best("linux/amd64", &["linux/386", "linux/amd64/v1"]), "linux/amd64/v1");
        assert_eq!(best("linux/arm64", &["linux/arm64/v9", "linux/arm64/v8"]), "linux/arm64/v8");
        assert_eq!(best("linux/arm64/v9.1", &["linux/arm64/v8.7", "linux/arm64/v8.6", "linux/arm64"]), "linux/arm64/v8.6");
        assert_eq!(best("linux/ppc64le", &["linux/ppc64", "linux/ppc64le"]), "linux/ppc64le");
        assert_eq!(best("linux/amd64", &["windows/amd64"]), "none");
    }

    #[test]
    fn windows_versions_and_features() {
        let image: Platform = serde_json::from_str(
            r#"{"architecture":"amd64","os":"windows","os.version":"10.0.20348.169","os.features":["win32k"],"variant":null,"x":1}"#,
        )
        .unwrap();
        assert!(image.matches(&platform("windows/amd64")));
        let other = Platform { os_version: Some("10.0.17763.1".to_owned()), ..platform("windows/amd64") };
        assert!(!image.matches(&other));
        let text = r#"{"architecture":"amd64","os":"windows","os.version":"10.0.20348.169","os.features":["win32k"]}"#;
        assert_eq!(serde_json::to_string(&image).unwrap(), text);
        let wrong = serde_json::from_str::<Platform>(r#"{"OS":"linux"}"#).unwrap_err().to_string();
        assert!(wrong.contains("expected the key \"os\", found \"OS\""), "{wrong}");
    }
}

//! The [config](https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md) of an image: platform, diff IDs, history, and how to run it.
//!
//! The view holds what longshore acts on and shows. Docker's own keys (Healthcheck, OnBuild, Shell, ...) stay in the bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::platform::Platform;
use super::raw::Validate;
use super::view::{Fields, Json, SpecError, deserialize_by_reading, quoted};
use crate::digest::{DiffId, Digest};

/// The config of an image. Its digest is the image ID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// "The CPU architecture which the binaries in this image are built to run on."
    pub architecture: String,
    /// "The name of the operating system which the image is built to run on."
    pub os: String,
    /// "The variant of the specified CPU architecture."
    pub variant: Option<String>,
    /// "This OPTIONAL property specifies the version of the operating system targeted by the referenced blob", `os.version`.
    pub os_version: Option<String>,
    /// "This OPTIONAL property specifies an array of strings, each specifying a mandatory OS feature", `os.features`.
    pub os_features: Vec<String>,
    /// "An combined date and time at which the image was created, formatted as defined by RFC 3339, section 5.6."
    pub created: Option<String>,
    /// "Gives the name and/or email address of the person or entity which created and is responsible for maintaining the image."
    pub author: Option<String>,
    /// "The execution parameters which SHOULD be used as a base when running a container using the image. This field can be `null`".
    pub config: Option<ContainerConfig>,
    /// "The rootfs key references the layer content addresses used by the image."
    pub rootfs: Rootfs,
    /// "Describes the history of each layer. The array is ordered from first to last." Informative.
    pub history: Vec<History>,
}

/// How to run the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    /// "The username or UID which is a platform-specific structure that allows specific control over which user the process run as."
    pub user: Option<String>,
    /// "A set of ports to expose from a container running this image", `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// "Entries are in the format of `VARNAME=VARVALUE`."
    pub env: Vec<String>,
    /// "A list of arguments to use as the command to execute when the container starts."
    pub entrypoint: Option<Vec<String>>,
    /// "Default arguments to the entrypoint of the container."
    pub cmd: Option<Vec<String>>,
    /// "A set of directories describing where the process is likely to write data specific to a container instance."
    pub volumes: BTreeSet<String>,
    /// "Sets the current working directory of the entrypoint process in the container."
    pub working_dir: Option<String>,
    /// "The field contains arbitrary metadata for the container."
    pub labels: BTreeMap<String, String>,
    /// "The field contains the system call signal that will be sent to the container to exit", `SIGKILL` or `SIGRTMIN+3`.
    pub stop_signal: Option<String>,
}

/// The layers of the image, as diff IDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// "MUST be set to `layers`."
    pub kind: String,
    /// "An array of layer content hashes (`DiffIDs`), in order from first to last."
    pub diff_ids: Vec<DiffId>,
}

/// What one step of a build did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// "A combined date and time at which the layer was created, formatted as defined by RFC 3339, section 5.6."
    pub created: Option<String>,
    /// "The command which created the layer."
    pub created_by: Option<String>,
    /// "The author of the build point."
    pub author: Option<String>,
    /// "A custom message set when creating the layer."
    pub comment: Option<String>,
    /// "This field is used to mark if the history item created a filesystem diff. It is set to true if this history item doesn't correspond
    /// to an actual layer in the rootfs section".
    pub empty_layer: bool,
}

impl Config {
    /// Reads a config.
    pub fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&[
            "architecture",
            "os",
            "variant",
            "os.version",
            "os.features",
            "created",
            "author",
            "config",
            "rootfs",
            "history",
        ])?;
        let Platform { os, architecture, variant, os_version, os_features } = Platform::of_fields(&fields)?;
        Ok(Self {
            architecture,
            os,
            variant,
            os_version,
            os_features,
            created: fields.optional("created", time)?,
            author: fields.text("author")?,
            config: fields.optional("config", ContainerConfig::read)?,
            rootfs: fields.required("rootfs", Rootfs::read)?,
            history: fields.or_default("history", |list| list.list(History::read))?,
        })
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }

    /// The diff IDs of its layers, first to last.
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.rootfs.diff_ids
    }

    /// When it was made, if it says so.
    pub fn created_at(&self) -> Option<jiff::Timestamp> {
        parse_time(self.created.as_deref()?)
    }
}

impl Validate for Config {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        Self::read(json)
    }
}

deserialize_by_reading!(Config);

impl ContainerConfig {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"])?;
        let keys = |key| fields.or_default(key, |set| Ok(set.object()?.iter().map(|(key, _)| key.to_owned()).collect()));
        Ok(Self {
            user: fields.text("User")?,
            exposed_ports: keys("ExposedPorts")?,
            env: fields.or_default("Env", |list| list.list(Json::string))?,
            entrypoint: fields.optional("Entrypoint", command)?,
            cmd: fields.optional("Cmd", command)?,
            volumes: keys("Volumes")?,
            working_dir: fields.text("WorkingDir")?,
            labels: fields.strings("Labels")?,
            stop_signal: fields.text("StopSignal")?,
        })
    }
}

impl Rootfs {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields: Fields<'_> = json.object()?;
        fields.exact(&["type", "diff_ids"])?;
        let kind = fields.required("type", Json::string)?;
        if kind != "layers" {
            return Err(SpecError::expected("\"layers\"", quoted(&kind)).at_key("type"));
        }
        let diff_ids = fields.or_default("diff_ids", |list| list.list(|id| id.parsed(str::parse::<Digest>).map(DiffId)))?;
        Ok(Self { kind, diff_ids })
    }
}

impl Default for Rootfs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

impl History {
    fn read(json: Json<'_>) -> Result<Self, SpecError> {
        let fields = json.object()?;
        fields.exact(&["created", "created_by", "author", "comment", "empty_layer"])?;
        Ok(Self {
            created: fields.optional("created", time)?,
            created_by: fields.text("created_by")?,
            author: fields.text("author")?,
            comment: fields.text("comment")?,
            empty_layer: fields.or_default("empty_layer", Json::bool)?,
        })
    }
}

/// A list of strings, or one string: Docker's `strslice.StrSlice` takes both.
fn command(json: Json<'_>) -> Result<Vec<String>, SpecError> {
    if json.text().starts_with('"') { Ok(vec![json.string()?]) } else { json.list(Json::string) }
}

fn time(json: Json<'_>) -> Result<String, SpecError> {
    let text = json.string()?;
    match split_time(&text) {
        Some(_) => Ok(text),
        None => Err(SpecError::expected("a time as in RFC 3339 (2006-01-02T15:04:05Z)", quoted(&text))),
    }
}

/// Parses a time as in RFC 3339, in the letters that Go takes: an upper-case `T` and `Z`, and any number of decimals.
pub fn parse_time(text: &str) -> Option<jiff::Timestamp> {
    let (local, zone) = split_time(text)?;
    format!("{local}{zone}").parse().ok()
}

/// A time as in RFC 3339, checked and split into what a clock shows and the offset. (The last hours of 9999 are a time, but no timestamp of jiff's.)
fn split_time(text: &str) -> Option<(jiff::civil::DateTime, &str)> {
    let shape = |part: &str, shape: &str| {
        part.len() == shape.len() && part.bytes().zip(shape.bytes()).all(|(c, s)| if s == b'0' { c.is_ascii_digit() } else { c == s })
    };
    let (clock, rest) = text.split_at_checked("2006-01-02T15:04:05".len())?;
    let decimals = match rest.strip_prefix('.') {
        Some(rest) => 1 + rest.bytes().position(|c| !c.is_ascii_digit()).filter(|&digits| digits > 0)?,
        None => 0,
    };
    let (decimals, zone) = rest.split_at(decimals);
    let hours =
        |zone: &str| zone[1..3].parse::<u8>().is_ok_and(|hours| hours < 24) && zone[4..].parse::<u8>().is_ok_and(|minutes| minutes < 60);
    if !shape(clock, "0000-00-00T00:00:00") || zone != "Z" && !((shape(zone, "+00:00") || shape(zone, "-00:00")) && hours(zone)) {
        return None;
    }
    // jiff takes decimals down to nanoseconds; Go drops those below.
    let local = format!("{clock}{}", &decimals[..decimals.len().min(10)]).parse().ok()?;
    Some((local, zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::spec::{JsonLimits, Raw};

    const ID: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Result<Raw<Config>, String> {
        let text = text.replace("DIFF", ID).replace("ROOTFS", r#""rootfs":{"type":"layers"}"#);
        Raw::parse(text.into_bytes(), &JsonLimits::config(&Limits::default())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_config_as_docker_writes_it() {
        let config = parse(
            r#"{"architecture":"arm","variant":"v6","os":"linux","os.version":"","os.features":null,
            "config":{"Hostname":"","ExposedPorts":{"80/tcp":{},"53/udp":{}},"Env":["A=1","B="],"Cmd":"sh","Entrypoint":["/x","y"],"Volumes":null,
            "WorkingDir":"/","User":"","Labels":{"a":"1","A":"2"},"StopSignal":"SIGINT","OnBuild":null,"Healthcheck":{"Test":["NONE"]}},
            "container_config":{"Env":1},"created":"2024-02-29T12:00:00.123456789Z","docker_version":"x","author":"me",
            "history":[{"created":"0001-01-01T00:00:00Z","created_by":"RUN","empty_layer":true,"comment":"c"},{}],
            "rootfs":{"type":"layers","diff_ids":["DIFF","DIFF"]}}"#,
        )
        .unwrap();
        assert_eq!(config.platform().to_string(), "linux/arm/v6");
        assert_eq!(config.platform().os_version, None);
        assert_eq!(config.diff_ids(), [DiffId(ID.parse().unwrap()); 2]);
        assert_eq!(config.created_at().unwrap().to_string(), "2024-02-29T12:00:00.123456789Z");
        assert_eq!((config.history.len(), config.history[0].empty_layer, config.history[1].empty_layer), (2, true, false));
        let run = config.config.as_ref().unwrap();
        assert_eq!(run.exposed_ports.iter().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!((run.cmd.as_deref(), run.entrypoint.as_ref().unwrap().len()), (Some(&["sh".to_owned()][..]), 2));
        assert_eq!((run.labels.len(), run.user.as_deref(), run.stop_signal.as_deref()), (2, None, Some("SIGINT")));
    }

    #[test]
    fn little_is_needed() {
        for text in [
            "{ROOTFS}",
            r#"{"rootfs":{"type":"layers","diff_ids":null}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{},"history":[]}"#,
            r#"{ROOTFS,"config":null,"history":null,"created":null,"os":null,"author":null}"#,
            r#"{ROOTFS,"config":{"Env":null,"Cmd":null,"Labels":null,"ExposedPorts":null,"User":null}}"#,
        ] {
            assert!(parse(text).unwrap().diff_ids().is_empty(), "{text}");
        }
    }

    #[test]
    fn refuses_and_says_why() {
        for (text, expected) in [
            ("[]", "expected an object, found an array"),
            ("{}", "rootfs: missing"),
            (r#"{"rootfs":null}"#, "rootfs: expected a value, found null"),
            (r#"{"RootFS":{}}"#, "expected the key \"rootfs\", found \"RootFS\" (upper and lower case differ)"),
            (r#"{"rootfs":{}}"#, "rootfs.type: missing"),
            (r#"{"rootfs":{"type":"layers+base"}}"#, "rootfs.type: expected \"layers\", found \"layers+base\""),
            (r#"{"rootfs":{"type":"layers","diff_ids":"x"}}"#, "rootfs.diff_ids: expected an array, found a string"),
            (
                r#"{"rootfs":{"type":"layers","diff_ids":["DIFF","md5:x"]}}"#,
                "rootfs.diff_ids[1]: digest \"md5:x\" has an unknown algorithm (known: sha256, sha512)",
            ),
            (r#"{ROOTFS,"os":1}"#, "os: expected a string, found a number"),
            (r#"{ROOTFS,"created":"yesterday"}"#, "created: expected a time as in RFC 3339 (2006-01-02T15:04:05Z), found \"yesterday\""),
            (r#"{ROOTFS,"created":""}"#, "created: expected a time as in RFC 3339 (2006-01-02T15:04:05Z), found \"\""),
            (r#"{ROOTFS,"config":[]}"#, "config: expected an object, found an array"),
            (r#"{ROOTFS,"config":{"Env":["a",1]}}"#, "config.Env[1]: expected a string, found a number"),
            (r#"{ROOTFS,"config":{"Labels":{"a b":{}}}}"#, "config.Labels[\"a b\"]: expected a string, found an object"),
            (r#"{ROOTFS,"history":[{"empty_layer":1}]}"#, "history[0].empty_layer: expected true or false, found a number"),
            (r#"{ROOTFS,"history":[null]}"#, "history[0]: expected an object, found null"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn times() {
        for text in [
            "2024-01-02T03:04:05Z",
            "0001-01-01T00:00:00Z",
            "1970-01-01T00:00:00.0Z",
            "2024-01-02T03:04:05.123456789012+01:30",
            "2024-01-02T03:04:05-00:00",
            "9999-12-30T20:59:59Z",
        ] {
            assert!(parse_time(text).is_some(), "{text}");
        }
        assert!(split_time("9999-12-31T23:59:59Z").is_some());
        assert_eq!(parse_time("2024-01-02T03:04:05.123456789012+01:30").unwrap().to_string(), "2024-01-02T01:34:05.123456789Z");
        for text in [
            "",
            "2024-01-02",
            "2024-01-02T03:04:05",
            "2024-01-02 03:04:05Z",
            "2024-01-02t03:04:05z",
            "2024-01-02T03:04:05,1Z",
            "2024-01-02T03:04:05.Z",
            "2024-01-02T03:04Z",
            "2024-02-30T03:04:05Z",
            "2024-01-02T24:04:05Z",
            "2024-01-02T03:04:05+0100",
            "2024-01-02T03:04:05+24:00",
            "2024-01-02T03:04:05+01:60",
            "2024-01-02T03:04:05.123",
            "2024-01-02T03:04:05Z[UTC]",
            "+002024-01-02T03:04:05Z",
            "2024-01-02T03:04:05é",
            "2024-01-02T03:04:0é",
        ] {
            assert!(parse_time(text).is_none(), "{text}");
        }
    }
}

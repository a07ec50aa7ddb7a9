//! Changes a config: a pure function from its bytes to new bytes. Every key that is not named keeps its text.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::value::{NO_TIME, expand, port};
use crate::digest::DiffId;
use crate::error::{Context as _, Error, Result};
use crate::spec::{Json, Object, Platform, SpecError};

/// What the history says of a layer when nobody says more.
const CREATED_BY: &str = "longshore assemble";

/// Keys of a config that differ from build to build and mean nothing to who runs the image.
const VARYING: [&str; 3] = ["container", "docker_version", "container_config"];

/// What changes in a config. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigChange {
    /// The text of a JSON config whose keys come below all that follows, and above those of the image; its `rootfs` says nothing, and what is
    /// `null` neither.
    pub config: Option<Vec<u8>>,
    /// The command to begin with: none, `null`, or words.
    pub entrypoint: Option<Option<Vec<String>>>,
    /// What follows the entrypoint.
    pub cmd: Option<Option<Vec<String>>>,
    /// Variables, in order; `$NAME` in a value is what the image that is changed had.
    pub env: Vec<(String, String)>,
    /// Labels, in order.
    pub labels: Vec<(String, String)>,
    /// Who runs the command.
    pub user: Option<String>,
    /// Where it runs.
    pub workdir: Option<String>,
    /// Ports, in order; TCP where they name no protocol.
    pub expose: Vec<String>,
    /// Folders for data, in order.
    pub volumes: Vec<String>,
    /// The signal that ends the container.
    pub stop_signal: Option<String>,
    /// The processor that it is for.
    pub architecture: Option<String>,
    /// The operating system that it is for.
    pub os: Option<String>,
    /// The variant of the processor.
    pub variant: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// When it was made, as in RFC 3339.
    pub created: Option<String>,
    /// How each layer that is added was made; what is more becomes steps without a layer.
    pub history: Vec<String>,
    /// The time of steps of the history, where `created` says none; 1970 where this does not either.
    pub time: Option<String>,
    /// Whether to drop what varies between builds: container, host name, Docker's version and times.
    pub canonical: bool,
}

/// A layer that is added to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Its diff ID.
    pub diff_id: DiffId,
    /// Whether it has no bytes at all: then it is a step of the history only.
    pub empty: bool,
}

impl ConfigChange {
    /// A new config. `platform` is that of an image that says nothing of its own.
    ///
    /// # Errors
    /// When the config of the change is malformed, or a port is none.
    pub fn create(&self, platform: &Platform, added: &[Added]) -> Result<Vec<u8>> {
        let mut config = Object::new();
        config.set("architecture", &platform.architecture).set("os", &platform.os);
        self.change(config, added, true)
    }

    /// The config of an image that is built on one with this config.
    ///
    /// # Errors
    /// When the config or that of the change is malformed, or a port is none.
    pub fn extend(&self, base: &[u8], added: &[Added]) -> Result<Vec<u8>> {
        self.change(Object::parse(base)?, added, true)
    }

    /// A config with nothing but the changes.
    ///
    /// # Errors
    /// When the config or that of the change is malformed, or a port is none.
    pub fn edit(&self, config: &[u8]) -> Result<Vec<u8>> {
        self.change(Object::parse(config)?, &[], false)
    }

    fn change(&self, mut config: Object, added: &[Added], made: bool) -> Result<Vec<u8>> {
        let env = environment(&config)?;
        let below = self.config.as_deref().map(Object::parse).transpose().map_err(|e| Error::from(e).frame("the config to merge"))?;
        if let Some(below) = &below {
            merge(&mut config, below).context(|| "the config to merge")?;
        }
        let merged = below.as_ref().is_some_and(|below| below.contains("created"));
        if self.created.is_some() || made && !merged {
            config.set("created", self.now());
        }
        if let Some(author) = &self.author {
            config.set("author", author);
        }
        self.platform(&mut config);
        self.container(&mut config, &env)?;
        self.layers(&mut config, below.as_ref(), added)?;
        if self.canonical {
            self.canonical(&mut config)?;
        }
        Ok(config.to_vec())
    }

    fn now(&self) -> &str {
        self.created.as_deref().or(self.time.as_deref()).unwrap_or(NO_TIME)
    }

    fn platform(&self, config: &mut Object) {
        let changes = |key: &str, to: &Option<String>| {
            to.as_ref().is_some_and(|to| config.get(key).is_none_or(|is| Json::of(is).string().ok().as_ref() != Some(to)))
        };
        let (architecture, os) = (changes("architecture", &self.architecture), changes("os", &self.os));
        // What is said of another processor or system is no longer so.
        if architecture {
            config.remove("variant");
        }
        if os {
            config.remove("os.version");
            config.remove("os.features");
        }
        for (key, value) in [("architecture", &self.architecture), ("os", &self.os), ("variant", &self.variant)] {
            match value.as_deref() {
                // None is said by no key.
                Some("") if key == "variant" => drop(config.remove(key)),
                Some(value) => drop(config.set(key, value)),
                None => {}
            }
        }
    }

    /// How the image is run.
    fn container(&self, config: &mut Object, env: &HashMap<String, String>) -> Result<()> {
        let mut container = object_at(config, "config")?;
        let before = container.len();
        let mut changed = false;
        let mut set = |container: &mut Object, key: &str, value: Option<&str>| {
            if let Some(value) = value {
                container.set(key, value);
                changed = true;
            }
        };
        set(&mut container, "User", self.user.as_deref());
        set(&mut container, "WorkingDir", self.workdir.as_deref());
        set(&mut container, "StopSignal", self.stop_signal.as_deref());
        for (key, words) in [("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd)] {
            if let Some(words) = words {
                container.set(key, words);
                changed = true;
            }
        }
        if !self.env.is_empty() {
            let new = self.env.iter().map(|(key, value)| format!("{key}={}", expand(value, env)));
            let list = merged_env(&container, new)?;
            container.set("Env", list);
        }
        let ports = self.expose.iter().map(|text| port(text)).collect::<Result<Vec<_>>>()?;
        let nothing = |keys: &[String]| keys.iter().map(|key| (key.clone(), Object::new())).collect::<Vec<_>>();
        put_all(&mut container, "ExposedPorts", &nothing(&ports))?;
        put_all(&mut container, "Volumes", &nothing(&self.volumes))?;
        put_all(&mut container, "Labels", &self.labels)?;
        let lists = [self.env.is_empty(), self.expose.is_empty(), self.volumes.is_empty(), self.labels.is_empty()];
        if changed || container.len() != before || lists.contains(&false) {
            config.set_raw("config", container.to_raw());
        }
        Ok(())
    }

    /// Diff IDs and history.
    fn layers(&self, config: &mut Object, below: Option<&Object>, added: &[Added]) -> Result<()> {
        let mut rootfs = object_at(config, "rootfs")?;
        let mut ids = diff_ids(config)?;
        let (layers, missing) = (ids.len(), rootfs.is_empty());
        ids.extend(added.iter().filter(|layer| !layer.empty).map(|layer| format!("\"{}\"", layer.diff_id)));
        if missing || ids.len() > layers {
            rootfs.set("type", "layers");
            rootfs.set_raw("diff_ids", array(ids)?);
            config.set_raw("rootfs", rootfs.to_raw());
        }
        let mut all = history(config)?;
        pad(&mut all, layers);
        let steps = match self.merged(below, layers, added)? {
            Merged::All(steps) => {
                all.clear();
                steps
            }
            Merged::Added(steps) => steps,
            Merged::Nothing | Merged::LeftOut(_) => self.steps(added),
        };
        if !steps.is_empty() {
            config.set_raw("history", array(all.into_iter().map(|(text, _)| text).chain(steps))?);
        }
        Ok(())
    }

    /// What the history of the merged config is good for: that of the layers that are added, or of all.
    fn merged(&self, below: Option<&Object>, layers: usize, added: &[Added]) -> Result<Merged> {
        let Some(below) = below.filter(|_| self.history.is_empty()) else { return Ok(Merged::Nothing) };
        let known = history(below)?;
        let described = described(&known);
        let new = added.iter().filter(|layer| !layer.empty).count();
        let is_empty = known.is_empty();
        let steps = known.into_iter().map(|(text, _)| text).collect();
        Ok(match described {
            _ if is_empty => Merged::Nothing,
            _ if described == layers + new => Merged::All(steps),
            _ if described == new && new > 0 => Merged::Added(steps),
            _ => Merged::LeftOut(described),
        })
    }

    /// Says that the history of the merged config is left out, where it fits neither the layers that are added nor all.
    pub(super) fn history_left_out(&self, layers: usize, added: &[Added]) -> Result<Option<String>> {
        let below = self.config.as_deref().map(Object::parse).transpose()?;
        let Merged::LeftOut(described) = self.merged(below.as_ref(), layers, added)? else { return Ok(None) };
        let all = layers + added.iter().filter(|layer| !layer.empty).count();
        Ok(Some(format!("the history of the config to merge is of {described} layers, and is left out: the image has {all}")))
    }

    /// What the history says of the layers that are added.
    fn steps(&self, added: &[Added]) -> Vec<String> {
        let step = |at: usize| {
            let mut step = Object::new();
            step.set("created", self.now());
            step.set("created_by", self.history.get(at).map_or(CREATED_BY, String::as_str));
            if let Some(author) = &self.author {
                step.set("author", author);
            }
            if added.get(at).is_none_or(|layer| layer.empty) {
                step.set("empty_layer", true);
            }
            String::from(step.to_raw().get())
        };
        (0..added.len().max(self.history.len())).map(step).collect()
    }

    fn canonical(&self, config: &mut Object) -> Result<()> {
        for key in VARYING {
            config.remove(key);
        }
        let mut container = object_at(config, "config")?;
        if container.remove("Hostname").is_some() {
            config.set_raw("config", container.to_raw());
        }
        if config.contains("created") {
            config.set("created", self.created.as_deref().unwrap_or(NO_TIME));
        }
        let steps = history(config)?;
        if steps.is_empty() {
            return Ok(());
        }
        let timeless = |(text, _): (String, bool)| -> Result<String> {
            let mut step = Object::parse(text.as_bytes())?;
            if step.contains("created") {
                step.set("created", NO_TIME);
            }
            Ok(step.to_raw().get().to_owned())
        };
        config.set_raw("history", array(steps.into_iter().map(timeless).collect::<Result<Vec<_>>>()?)?);
        Ok(())
    }
}

/// The config of an image whose lower layers, those of the config `old`, are exchanged for those of the config `new`: their diff IDs and
/// history become part of it.
///
/// # Errors
/// When one of them is malformed.
pub(super) fn rebased(image: &[u8], old: &[u8], new: &[u8]) -> Result<Vec<u8>> {
    let (mut config, old, new) = (Object::parse(image)?, Object::parse(old)?, Object::parse(new)?);
    let (replaced, mut ids) = (diff_ids(&old)?.len(), diff_ids(&new)?);
    let lower = ids.len();
    ids.extend(diff_ids(&config)?.into_iter().skip(replaced));
    let mut rootfs = object_at(&config, "rootfs")?;
    rootfs.set_raw("diff_ids", array(ids)?);
    config.set_raw("rootfs", rootfs.to_raw());

    let (own, before, mut steps) = (history(&config)?, history(&old)?, history(&new)?);
    if own.is_empty() && steps.is_empty() {
        return Ok(config.to_vec());
    }
    pad(&mut steps, lower);
    steps.extend(above(own, &before, replaced));
    config.set_raw("history", array(steps.into_iter().map(|(text, _)| text))?);
    Ok(config.to_vec())
}

/// The steps of a history that follow those of its base: where it begins with as many of the same kind, behind those, and else behind those
/// of the layers of the base.
fn above(steps: Vec<(String, bool)>, base: &[(String, bool)], layers: usize) -> Vec<(String, bool)> {
    let same_kind = steps.len() >= base.len() && steps.iter().zip(base).all(|((_, empty), (_, of_base))| empty == of_base);
    let of_base = base.iter().filter(|(_, empty)| !empty).count();
    if same_kind && of_base == layers {
        return steps.into_iter().skip(base.len()).collect();
    }
    let mut left = layers;
    let below = |(_, empty): &(String, bool)| {
        let below = left > 0;
        left = left.saturating_sub(usize::from(!empty));
        below
    };
    steps.into_iter().skip_while(below).collect()
}

/// What becomes of the history of a config that is merged.
enum Merged {
    /// It is that of the layers that are added.
    Added(Vec<String>),
    /// It is that of all layers, and takes the place of what there was.
    All(Vec<String>),
    /// It is of this many layers, which are neither.
    LeftOut(usize),
    /// There is none, or something else says more.
    Nothing,
}

/// How many layers a history is of.
fn described(steps: &[(String, bool)]) -> usize {
    steps.iter().filter(|(_, empty)| !empty).count()
}

/// Gives each of the first `layers` layers a step, where some have none: what follows would be taken for theirs.
fn pad(steps: &mut Vec<(String, bool)>, layers: usize) {
    let described = described(steps);
    steps.extend(std::iter::repeat_n(("{}".to_owned(), false), layers.saturating_sub(described)));
}

/// The texts of the diff IDs of a config.
fn diff_ids(config: &Object) -> Result<Vec<String>> {
    let rootfs = object_at(config, "rootfs")?;
    let Some(ids) = rootfs.get("diff_ids").map(Json::of).filter(|ids| !ids.is_null()) else { return Ok(Vec::new()) };
    Ok(ids.array()?.into_iter().map(|id| id.text().to_owned()).collect())
}

/// The object that is the value of a key; without keys where there is none.
fn object_at(object: &Object, key: &str) -> Result<Object> {
    let Some(value) = object.get(key).filter(|value| value.get() != "null") else { return Ok(Object::new()) };
    Object::parse(value.get().as_bytes()).map_err(|e| Error::from(e).frame(key))
}

/// The steps of a history, and whether they made no layer.
fn history(config: &Object) -> Result<Vec<(String, bool)>> {
    let Some(list) = config.get("history").map(Json::of).filter(|list| !list.is_null()) else { return Ok(Vec::new()) };
    let step = |step: Json<'_>| {
        let empty = step.object()?.or_default("empty_layer", Json::bool)?;
        Ok((step.text().to_owned(), empty))
    };
    list.list(step).map_err(|e: SpecError| Error::invalid(e).frame("history"))
}

fn array(texts: impl IntoIterator<Item = String>) -> Result<Box<RawValue>> {
    let text = texts.into_iter().collect::<Vec<_>>().join(",");
    RawValue::from_string(format!("[{text}]")).map_err(Error::invalid)
}

/// The variables of a config.
fn environment(config: &Object) -> Result<HashMap<String, String>> {
    let list = env_list(&object_at(config, "config")?)?;
    Ok(list.iter().filter_map(|entry| entry.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn env_list(container: &Object) -> Result<Vec<String>> {
    let Some(list) = container.get("Env").map(Json::of).filter(|list| !list.is_null()) else { return Ok(Vec::new()) };
    list.list(Json::string).map_err(|e| Error::invalid(e).frame("Env"))
}

/// The list of variables with others: in the place of those of the same name, or at the end.
fn merged_env(container: &Object, new: impl Iterator<Item = String>) -> Result<Vec<String>> {
    fn name(entry: &str) -> &str {
        entry.split_once('=').map_or(entry, |(name, _)| name)
    }
    let mut list = env_list(container)?;
    for entry in new {
        match list.iter_mut().find(|known| name(known) == name(&entry)) {
            Some(known) => *known = entry,
            None => list.push(entry),
        }
    }
    Ok(list)
}

/// Adds keys to the object at `key`, which keeps its others.
fn put_all(container: &mut Object, key: &str, entries: &[(String, impl Serialize)]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut object = object_at(container, key)?;
    for (name, value) in entries {
        object.set(name, value);
    }
    container.set_raw(key, object.to_raw());
    Ok(())
}

/// Puts the keys of `above` over those of a config; what maps and variables have is joined. Layers are not taken from it.
fn merge(config: &mut Object, above: &Object) -> Result<()> {
    for key in above.keys().filter(|key| !["rootfs", "history"].contains(key)) {
        let Some(value) = above.get(key).filter(|value| value.get() != "null") else { continue };
        if key != "config" {
            config.set_raw(key, value.to_owned());
            continue;
        }
        let (mut container, above) = (object_at(config, "config")?, object_at(above, "config")?);
        for key in above.keys() {
            let Some(value) = above.get(key) else { continue };
            match key {
                "Env" if value.get() != "null" => {
                    let list = merged_env(&container, env_list(&above)?.into_iter())?;
                    container.set("Env", list);
                }
                "ExposedPorts" | "Labels" | "Volumes"
                    if value.get() != "null" && container.get(key).is_some_and(|is| is.get() != "null") =>
                {
                    let (mut joined, others) = (object_at(&container, key)?, object_at(&above, key)?);
                    for (name, value) in others.keys().filter_map(|name| Some((name, others.get(name)?))) {
                        joined.set_raw(name, value.to_owned());
                    }
                    container.set_raw(key, joined.to_raw());
                }
                _ => {
                    container.set_raw(key, value.to_owned());
                }
            }
        }
        config.set_raw("config", container.to_raw());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::digest::Digest;

    const BASE: &str = r#"{"architecture":"amd64","variant":"v1","os":"linux","os.version":"1","created":"2024-01-02T03:04:05Z","container":"c","docker_version":"20",
        "container_config":{"Env":[]},"config":{"Hostname":"h","Env":["PATH=/bin","A=1"],"Cmd":["x"],"Labels":{"k":"\u003c","l":"1"},"x-own":1.50,
        "ExposedPorts":null,"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":["DIFF"],"x":1},
        "history":[{"created":"2024-01-02T03:04:05Z","created_by":"ADD \u003c"},{"created_by":"CMD","empty_layer":true}],"x-top":[1, 2.50]}"#;

    fn base() -> String {
        BASE.replace("DIFF", &Digest::of(b"base").to_string())
    }

    fn added(bytes: &[u8]) -> Added {
        Added { diff_id: DiffId(Digest::of(bytes)), empty: bytes.is_empty() }
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn edited(change: &ConfigChange) -> (String, Value) {
        let text = String::from_utf8(change.edit(base().as_bytes()).unwrap()).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn nothing_changes_nothing() {
        let (text, value) = edited(&ConfigChange::default());
        let before: Value = serde_json::from_str(&base()).unwrap();
        assert_eq!(value, before);
        assert!(text.contains(r#""x-own":1.50"#) && text.contains("[1, 2.50]") && text.contains("ADD \\u003c"), "{text}");
    }

    #[test]
    fn each_change_changes_its_key() {
        let some = |text: &str| Some(text.to_owned());
        let none = ConfigChange::default;
        let table: Vec<(ConfigChange, &str, Value)> = vec![
            (ConfigChange { entrypoint: Some(Some(strings(&["/a", "b"]))), ..none() }, "/config/Entrypoint", json!(["/a", "b"])),
            (ConfigChange { entrypoint: Some(None), ..none() }, "/config/Entrypoint", Value::Null),
            (ConfigChange { cmd: Some(Some(vec![])), ..none() }, "/config/Cmd", json!([])),
            (ConfigChange { cmd: Some(None), ..none() }, "/config/Cmd", Value::Null),
            (ConfigChange { user: some("0:0"), ..none() }, "/config/User", json!("0:0")),
            (ConfigChange { workdir: some("/w"), ..none() }, "/config/WorkingDir", json!("/w")),
            (ConfigChange { stop_signal: some("SIGINT"), ..none() }, "/config/StopSignal", json!("SIGINT")),
            (ConfigChange { expose: strings(&["80", "53/udp"]), ..none() }, "/config/ExposedPorts", json!({ "80/tcp": {}, "53/udp": {} })),
            (ConfigChange { volumes: strings(&["/data"]), ..none() }, "/config/Volumes", json!({ "/data": {} })),
            (
                ConfigChange { labels: vec![("l".into(), "2".into()), ("m".into(), "<".into())], ..none() },
                "/config/Labels",
                json!({ "k": "<", "l": "2", "m": "<" }),
            ),
            (
                ConfigChange {
                    env: vec![("N".into(), "$A".into()), ("PATH".into(), "/x:${PATH}".into()), ("M".into(), "$N".into())],
                    ..none()
                },
                "/config/Env",
                json!(["PATH=/x:/bin", "A=1", "N=1", "M=$N"]),
            ),
            (ConfigChange { author: some("me"), ..none() }, "/author", json!("me")),
            (ConfigChange { created: some("2025-01-01T00:00:00Z"), ..none() }, "/created", json!("2025-01-01T00:00:00Z")),
            (ConfigChange { variant: some("v2"), ..none() }, "/variant", json!("v2")),
        ];
        let before: Value = serde_json::from_str(&base()).unwrap();
        for (change, pointer, expected) in table {
            let (text, mut value) = edited(&change);
            assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
            assert!(text.contains(r#""x-own":1.50"#) && text.contains("[1, 2.50]"), "{text}");
            // And no other key.
            let mut expected = before.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            for document in [&mut value, &mut expected] {
                document.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
            }
            assert_eq!(value, expected, "{pointer}");
        }
        let (text, _) = edited(&ConfigChange { labels: vec![("m".into(), "1".into())], ..none() });
        assert!(text.contains(r#"{"k":"\u003c","l":"1","m":"1"}"#), "labels that stay keep their text: {text}");
        assert!(ConfigChange { expose: strings(&["http"]), ..none() }.edit(base().as_bytes()).is_err());
    }

    #[test]
    fn another_platform_loses_what_was_said_of_the_old_one() {
        let (_, value) = edited(&ConfigChange { architecture: Some("arm64".into()), os: Some("linux".into()), ..ConfigChange::default() });
        assert_eq!((&value["architecture"], value.get("variant"), &value["os.version"]), (&json!("arm64"), None, &json!("1")));
        let (_, value) =
            edited(&ConfigChange { os: Some("windows".into()), architecture: Some("amd64".into()), ..ConfigChange::default() });
        assert_eq!((&value["os"], value.get("os.version"), &value["variant"]), (&json!("windows"), None, &json!("v1")));
    }

    #[test]
    fn layers_and_their_history_are_appended() {
        let change = ConfigChange {
            history: strings(&["one", "two", "three"]),
            author: Some("me".into()),
            time: Some("2020-01-01T00:00:00Z".into()),
            ..ConfigChange::default()
        };
        let text = change.extend(base().as_bytes(), &[added(b"1"), added(b"")]).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["rootfs"], json!({ "type": "layers", "diff_ids": [Digest::of(b"base"), Digest::of(b"1")], "x": 1 }));
        let step = |text: &str| json!({ "created": "2020-01-01T00:00:00Z", "created_by": text, "author": "me" });
        let empty = |text: &str| json!({ "created": "2020-01-01T00:00:00Z", "created_by": text, "author": "me", "empty_layer": true });
        assert_eq!(value["history"].as_array().unwrap()[2..], [step("one"), empty("two"), empty("three")]);
        assert_eq!(value["created"], "2020-01-01T00:00:00Z");
        assert!(String::from_utf8(text).unwrap().contains("ADD \\u003c"));
        // A base that does not say how its layers were made.
        let silent = base().replace("\"history\"", "\"x-history\"");
        let value: Value = serde_json::from_slice(&ConfigChange::default().extend(silent.as_bytes(), &[added(b"1")]).unwrap()).unwrap();
        assert_eq!(value["history"], json!([{}, { "created": NO_TIME, "created_by": "longshore assemble" }]));
    }

    #[test]
    fn a_new_config_is_what_it_must_be() {
        let text = ConfigChange::default().create(&Platform::new("linux", "arm64"), &[added(b"1")]).unwrap();
        let expected = format!(
            r#"{{"architecture":"arm64","os":"linux","created":"{NO_TIME}","rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[{{"created":"{NO_TIME}","created_by":"longshore assemble"}}]}}"#,
            Digest::of(b"1")
        );
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_config_is_merged_below_the_rest() {
        let below = r#"{"created":"2021-01-01T00:00:00Z","author":"file","rootfs":{"type":"layers","diff_ids":["no"]},"history":[{"created_by":"file"},{"empty_layer":true}],
            "config":{"User":"file","Env":["A=2","B=3"],"Labels":{"l":"file"},"ExposedPorts":{"1/tcp":{}},"Cmd":null},"x-top":0}"#;
        let change = ConfigChange {
            config: Some(below.into()),
            user: Some("flag".into()),
            env: vec![("B".into(), "$A".into())],
            ..ConfigChange::default()
        };
        let value: Value = serde_json::from_slice(&change.extend(base().as_bytes(), &[added(b"1")]).unwrap()).unwrap();
        assert_eq!((&value["created"], &value["author"], &value["x-top"]), (&json!("2021-01-01T00:00:00Z"), &json!("file"), &json!(0)));
        let container = &value["config"];
        assert_eq!((&container["User"], &container["Cmd"], &container["Hostname"]), (&json!("flag"), &Value::Null, &json!("h")));
        assert_eq!(container["Env"], json!(["PATH=/bin", "A=2", "B=1"]), "variables are those of the base");
        assert_eq!((&container["Labels"], &container["ExposedPorts"]), (&json!({ "k": "<", "l": "file" }), &json!({ "1/tcp": {} })));
        assert_eq!(value["rootfs"]["diff_ids"], json!([Digest::of(b"base"), Digest::of(b"1")]));
        assert_eq!(value["history"].as_array().unwrap()[2..], [json!({ "created_by": "file" }), json!({ "empty_layer": true })]);
        // Its history is of other layers than these.
        let value: Value = serde_json::from_slice(&change.extend(base().as_bytes(), &[added(b"1"), added(b"2")]).unwrap()).unwrap();
        assert_eq!(value["history"][2]["created_by"], "longshore assemble");
        assert!(ConfigChange { config: Some(b"[]".to_vec()), ..ConfigChange::default() }.edit(base().as_bytes()).is_err());
    }

    #[test]
    fn canonical_drops_what_varies() {
        let (_, value) = edited(&ConfigChange { canonical: true, ..ConfigChange::default() });
        for key in VARYING {
            assert!(value.get(key).is_none(), "{key}");
        }
        assert_eq!((value["config"].get("Hostname"), &value["config"]["x-own"], &value["created"]), (None, &json!(1.5), &json!(NO_TIME)));
        assert_eq!(value["history"], json!([{ "created": NO_TIME, "created_by": "ADD <" }, { "created_by": "CMD", "empty_layer": true }]));
    }

    #[test]
    fn a_rebased_config_has_the_history_of_its_new_base() {
        let config = |layers: &[&str], steps: Value| {
            let ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer.as_bytes())).collect();
            json!({ "rootfs": { "type": "layers", "diff_ids": ids }, "history": steps, "x": 1.5 }).to_string()
        };
        let step = |text: &str| json!({ "created_by": text });
        let cmd = json!({ "created_by": "CMD", "empty_layer": true });
        let old = config(&["a", "b"], json!([step("a"), step("b"), cmd]));
        let new = config(&["c"], json!([step("c"), cmd, cmd]));
        let own = json!({ "created_by": "ENV", "empty_layer": true });
        let image = config(&["a", "b", "d"], json!([step("a"), step("b"), cmd, own, step("d")]));
        let rebase = |image: &str, old: &str, new: &str| -> Value {
            serde_json::from_slice(&rebased(image.as_bytes(), old.as_bytes(), new.as_bytes()).unwrap()).unwrap()
        };
        let value = rebase(&image, &old, &new);
        assert_eq!(value["rootfs"]["diff_ids"], json!([Digest::of(b"c"), Digest::of(b"d")]));
        assert_eq!((&value["history"], &value["x"]), (&json!([step("c"), cmd, cmd, own, step("d")]), &json!(1.5)));
        // An old base that says less than the image does of it.
        let silent = config(&["a", "b"], json!([]));
        assert_eq!(rebase(&image, &silent, &new)["history"], json!([step("c"), cmd, cmd, cmd, own, step("d")]));
        assert_eq!(rebase(&image, &old, &silent)["history"], json!([{}, {}, own, step("d")]));
    }
}

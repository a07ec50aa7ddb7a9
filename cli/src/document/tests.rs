//! A catalog with everything odd in it, as text and as JSON.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use longshore::catalog::{Blob, BlobId, Known, Layer};
use longshore::spec::{Index, JsonLimits, Manifest, Raw};
use longshore::{Limits, Result};

use super::*;

struct Held(Catalog);

impl Source for Held {
    fn catalog(&self) -> &Catalog {
        &self.0
    }

    fn open(&self, _blob: BlobId, _from: u64) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::empty()))
    }

    fn file(&self, _blob: BlobId) -> Option<(Arc<File>, Range<u64>)> {
        None
    }

    fn describe(&self) -> String {
        "oci:app".to_owned()
    }
}

fn digest(digit: char) -> Digest {
    format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap()
}

fn config(history: &str) -> Raw<Config> {
    let text = format!(
        r#"{{"os":"linux","architecture":"arm","variant":"v7","created":"2024-01-02T03:04:05Z","author":"A\u001b[31m",
            "config":{{"Cmd":["sh","-c","a \"b\""],"Env":["A=1","B=\n"],"Labels":{{"k":"v\u202e"}},"ExposedPorts":{{"80/tcp":{{}},"53/udp":{{}}}}}},
            "rootfs":{{"type":"layers","diff_ids":["{}","{}"]}},"history":{history}}}"#,
        digest('1'),
        digest('2')
    );
    Raw::parse(text.into_bytes(), &JsonLimits::config(&Limits::default())).unwrap()
}

fn manifest(text: &str) -> Raw<Manifest> {
    let text = text.replace("CONFIG", &digest('c').to_string()).replace("SUBJECT", &digest('5').to_string());
    Raw::parse(text.into_bytes(), &JsonLimits::manifest(&Limits::default())).unwrap()
}

fn image(catalog: &mut Catalog, history: &str) -> Node {
    let known = Known { size: Some(281_443_328), digest: Some(digest('d')), diff_id: Some(DiffId(digest('1'))) };
    let blob = catalog.add_blob(Blob { known, compression: Compression::Gzip, place: "blobs/d".to_owned() });
    let layer = |digit, blob| Layer { diff_id: DiffId(digest(digit)), blob, descriptor: None, missing: None };
    let layers = vec![layer('1', Some(blob)), layer('2', None)];
    let id = catalog.add_image(Image { manifest: None, config: config(history), layers, legacy: None, lineage: None });
    Node { descriptor: None, content: Content::Image(id) }
}

fn held() -> Held {
    let mut catalog = Catalog::default();
    let matching = r##"[{"created_by":"/bin/sh -c make\n# x"},{"created_by":"ENV A=1","empty_layer":true},{"comment":"squashed"}]"##;
    let one = image(&mut catalog, matching);
    let two = image(&mut catalog, r#"[{"created_by":"only one step"}]"#);
    let listed: Descriptor = serde_json::from_str(&format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":5,"platform":{{"os":"windows","architecture":"amd64","os.version":"10.0"}}}}"#,
        digest('e')
    ))
    .unwrap();
    let unread = Node { descriptor: Some(listed), content: Content::Unread };
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"a":"b"}}"#;
    let index: Raw<Index> = Raw::parse(index.as_bytes(), &JsonLimits::manifest(&Limits::default())).unwrap();
    let artifact = manifest(
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x-sbom","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"CONFIG","size":2},"layers":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"SUBJECT","size":3}}"#,
    );
    let root = |name: Option<&str>, node: &Node| Root { name: name.map(Name::from_annotation), node: node.clone() };
    let indexed = Node { descriptor: None, content: Content::Index { raw: index, nodes: [two, unread].into() } };
    let artifact = Node { descriptor: None, content: Content::Artifact { manifest: Some(artifact), blobs: [BlobId(0)].into() } };
    catalog.roots =
        vec![root(Some("kitchen:1"), &one), root(Some("bare"), &one), root(Some("bad name\n"), &indexed), root(None, &artifact)];
    Held(catalog)
}

#[test]
fn text_is_aligned_and_nothing_from_outside_reaches_the_terminal_raw() {
    let text = render(&describe(&held()), false);
    let text = anstream::adapter::strip_str(&text).to_string();
    let mut shown: Vec<_> = text.lines().collect();
    // Digests of JSON are not what this is about.
    shown.retain(|line| !["image ID", "index  ", "artifact  "].iter().any(|label| line.trim_start().starts_with(label)));
    assert_eq!(
        shown.join("\n"),
        r#"kitchen:1, bare (@0)
  platform     linux/arm/v7
  created      2024-01-02T03:04:05Z
  author       A\u{1b}[31m
  size         281.4 MB in 2 layers
  cmd          ["sh", "-c", "a \"b\""]
  env          A=1
               B=\n
  ports        53/udp, 80/tcp
  labels       k=v\u{202e}

  layer  diff ID           size  stored as  made by
      0  111111111111  281.4 MB  gzip       RUN make\n# x
      -  -                    -  -          ENV A=1
      1  222222222222   unknown  elsewhere  squashed

bad name\n (@1)
  platforms    linux/arm/v7, windows/amd64 10.0
  annotations  a=b

  linux/arm/v7
    platform     linux/arm/v7
    created      2024-01-02T03:04:05Z
    author       A\u{1b}[31m
    size         281.4 MB in 2 layers
    cmd          ["sh", "-c", "a \"b\""]
    env          A=1
                 B=\n
    ports        53/udp, 80/tcp
    labels       k=v\u{202e}

    layer  diff ID           size  stored as  made by
        0  111111111111  281.4 MB  gzip
        1  222222222222   unknown  elsewhere
    the history has 1 step and does not match the layers

  windows/amd64 10.0
    manifest     sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee (not in this source)
    media type   application/vnd.oci.image.manifest.v1+json

@2 (no name)
  media type   application/vnd.oci.image.manifest.v1+json
  type         application/x-sbom
  subject      sha256:5555555555555555555555555555555555555555555555555555555555555555
  size         281.4 MB in 1 blob"#
    );
}

#[test]
fn json_keeps_exact_values() {
    let json = serde_json::to_value(describe(&held())).unwrap();
    assert_eq!((&json["version"], &json["format"]), (&1.into(), &"oci".into()));
    let entry = &json["entries"][0];
    assert_eq!(entry["names"][0]["reference"], "docker.io/library/kitchen:1");
    assert_eq!((&entry["names"][1]["name"], &entry["names"][1]["reference"]), (&"bare".into(), &"docker.io/library/bare:latest".into()));
    assert_eq!(entry["image"]["history"][0]["created_by"], "/bin/sh -c make\n# x");
    assert_eq!((&entry["image"]["history"][0]["layer"], &entry["image"]["history"][2]["layer"]), (&0.into(), &1.into()));
    assert_eq!(entry["image"]["history"][1].get("layer"), None);
    assert_eq!(entry["image"]["layers"][0]["size"], 281_443_328);
    assert_eq!(entry["image"]["layers"][1].get("size"), None);
    let index = &json["entries"][1];
    assert_eq!((&index["kind"], &index["names"][0]["name"]), (&"index".into(), &"bad name\n".into()));
    assert_eq!(index["manifests"][0]["image"]["history_matches"], false);
    assert_eq!((&index["manifests"][1]["kind"], &index["manifests"][1]["os_version"]), (&"unread".into(), &"10.0".into()));
    assert_eq!((&json["entries"][2]["kind"], &json["entries"][2]["artifact_type"]), (&"artifact".into(), &"application/x-sbom".into()));
}

//! What `longshore formats` says of an output is what an output has.

use std::collections::BTreeSet;

use longshore_testkit::{facts, tree};

use crate::env;

/// Whether `name` is what a pattern such as `blobs/<algorithm>/<hex>` says.
fn fits(name: &str, pattern: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('<') else { return name == pattern };
    let (what, rest) = rest.split_once('>').unwrap();
    let Some(name) = name.strip_prefix(before) else { return false };
    let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    let wanted = match what {
        "algorithm" => &name[..end] == "sha256",
        "NNN" => end == 3,
        _ => end == 64,
    };
    wanted && fits(&name[end..], rest)
}

#[test]
fn outputs_have_the_files_that_formats_lists_and_no_other() {
    let env = env();
    env.fixture("from/docker20-three-names.tar", "in.tar");
    env.fixture("from/skopeo-oci-multiplatform", "multi");
    env.fixture("from/skopeo-oci", "gzip");
    env.write("metadata.json", r#"{"id":"1"}"#.replace('1', &"1".repeat(64)));
    env.write("layer.tar", longshore_testkit::tar::write(&[]));
    let document = env.ok("formats --json").json();
    let mut asked: Vec<(String, String, &serde_json::Value)> = Vec::new();
    for dialect in document["dialects"].as_array().unwrap() {
        let name = dialect["name"].as_str().unwrap();
        let command = match name {
            // With all members that there may be.
            "bazel" => "assemble docker-archive:bazel.tar --base ./gzip --metadata metadata.json --layer layer.tar --tag app:1",
            // Layers keep their compression there, and the names of members their ends.
            "crane" => "copy ./gzip docker-archive:crane.tar",
            // One image has a member more.
            "v1" => "copy docker-archive:in.tar:pantry:2 docker-archive:v1.tar",
            _ => &format!("copy in.tar docker-archive:{name}.tar"),
        };
        asked.push((format!("{command} --dialect {name}"), format!("{name}.tar"), dialect));
    }
    for format in document["formats"].as_array().unwrap().iter().filter(|format| format["name"] != "docker-archive") {
        let name = format["name"].as_str().unwrap();
        let source = if format["holds"]["several"] == true { "in.tar" } else { "oci:multi" };
        asked.push((format!("copy {source} {name}:{name}.out"), format!("{name}.out"), format));
    }
    for (command, output, listed) in asked {
        env.ok(&command);
        let path = env.path(&output);
        let files: Vec<String> = if path.is_dir() { tree(&path).into_keys().collect() } else { facts::members(&path) };
        let patterns: BTreeSet<&str> = listed["members"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
        for file in files.iter().filter(|file| !file.ends_with('/')) {
            assert!(patterns.iter().any(|pattern| fits(file, pattern)), "`{command}` wrote {file}, which is not in {patterns:?}");
        }
        for pattern in patterns {
            assert!(files.iter().any(|file| fits(file, pattern)), "`{command}` wrote no {pattern}: {files:?}");
        }
    }
}

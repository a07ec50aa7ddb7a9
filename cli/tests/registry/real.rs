//! Debian's docker-registry, and docker, podman and skopeo around it.

use longshore_testkit::facts::{facts, full_name};
use longshore_testkit::peers::{DockerRegistry, Dockerd, Podman, RegistryOptions, Tool, skipped};
use longshore_testkit::registry::auth::base64;
use longshore_testkit::{TestEnv, assert_same_bytes, digest};
use serde_json::Value;

use crate::env;

fn start(suite: &str, options: RegistryOptions) -> Option<DockerRegistry> {
    DockerRegistry::start(options).map_err(|why| skipped(suite, &why)).ok()
}

/// The flags that a registry needs.
fn flags(registry: &DockerRegistry, options: RegistryOptions) -> String {
    let ca = if options.tls { format!("--ca {}", registry.certificate().display()) } else { String::new() };
    let creds = if options.password { "--creds user:secret" } else { "" };
    format!("{ca} {creds}")
}

fn kitchen(env: &TestEnv) {
    env.fixture("from/docker20-one.tar", "kitchen.tar");
    env.fixture("from/skopeo-oci", "kitchen");
    env.fixture("from/skopeo-oci-multiplatform", "multi");
}

#[test]
fn what_is_pushed_is_pulled_again() {
    for (password, tls) in [(false, false), (true, false), (false, true), (true, true)] {
        let options = RegistryOptions { password, tls, ..RegistryOptions::default() };
        let Some(registry) = start("registry: docker-registry", options) else { return };
        let (env, host, flags) = (env(), registry.host(), flags(&registry, options));
        kitchen(&env);
        env.ok(&format!("{flags} copy kitchen.tar docker://{host}/team/kitchen:1"));
        env.ok(&format!("{flags} copy docker://{host}/team/kitchen:1 docker-archive:back.tar"));
        assert_eq!(facts(&env.path("back.tar")).essence(), facts(&env.path("kitchen.tar")).essence());
        // A layout keeps its manifest, an index all that is in it.
        env.ok(&format!("{flags} copy oci:kitchen docker://{host}/team/same:1"));
        assert_eq!(digest(&registry.manifest("team/same", "1").unwrap()), facts(&env.path("kitchen")).roots[0]);
        env.ok(&format!("{flags} copy --all-platforms oci:multi docker://{host}/team/multi:1"));
        assert_eq!(digest(&registry.manifest("team/multi", "1").unwrap()), facts(&env.path("multi")).roots[0]);
        env.ok(&format!("{flags} copy --all-platforms docker://{host}/team/multi:1 oci:multi-back"));
        assert_eq!(facts(&env.path("multi-back")).manifests(), facts(&env.path("multi")).manifests());
        assert_eq!(env.ok(&format!("{flags} tags {host}/team/multi")).text(), "1\n");
        let raw = env.ok(&format!("{flags} inspect docker://{host}/team/same:1 --raw")).stdout;
        assert_eq!(raw, registry.manifest("team/same", "1").unwrap());
        if password {
            for flag in ["", "--creds user:wrong"] {
                let ca = if tls { format!("--ca {}", registry.certificate().display()) } else { String::new() };
                env.fails(1, &format!("{ca} {flag} inspect docker://{host}/team/kitchen:1")).says(&[host, "401"]);
            }
        }
        if tls {
            let creds = if password { "--creds user:secret" } else { "" };
            env.fails(1, &format!("{creds} inspect docker://{host}/team/kitchen:1")).says(&[host, "certificate"]);
            env.ok(&format!("{creds} --insecure inspect docker://{host}/team/kitchen:1"));
        }
    }
}

#[test]
fn a_certificate_made_as_docker_documents_it_is_believed() {
    let options = RegistryOptions { tls: true, authority: true, ..RegistryOptions::default() };
    let Some(registry) = start("registry: certificate", options) else { return };
    let (env, host, flags) = (env(), registry.host(), flags(&registry, options));
    kitchen(&env);
    env.fails(1, &format!("copy kitchen.tar docker://{host}/kitchen:1")).says(&[host, "certificate"]);
    env.ok(&format!("{flags} copy kitchen.tar docker://{host}/kitchen:1"));
}

#[test]
fn a_client_shows_its_certificate() {
    let options = RegistryOptions { tls: true, client: true, ..RegistryOptions::default() };
    let Some(registry) = start("registry: client certificate", options) else { return };
    let (env, host, flags) = (env(), registry.host(), flags(&registry, options));
    kitchen(&env);
    let (certificate, key) = registry.client();
    let shown = format!("{flags} --cert {} --key {}", certificate.display(), key.display());
    env.ok(&format!("{shown} copy kitchen.tar docker://{host}/kitchen:1"));
    env.ok(&format!("{shown} inspect docker://{host}/kitchen:1"));
    env.fails(1, &format!("{flags} inspect docker://{host}/kitchen:1")).says(&[host, "certificate"]);
    env.fails(1, &format!("{flags} --cert absent.pem --key {} inspect docker://{host}/kitchen:1", key.display())).says(&["absent.pem"]);
}

#[test]
fn a_login_is_believed_by_others_and_theirs_by_us() {
    let options = RegistryOptions { password: true, ..RegistryOptions::default() };
    let Some(registry) = start("registry: login", options) else { return };
    let (env, host) = (env(), registry.host());
    kitchen(&env);
    env.run_with_input(&format!("login {host} -u user --password-stdin"), b"wrong").exited(1).says(&[host, "401"]);
    env.run_with_input(&format!("login {host} -u user --password-stdin"), b"secret").exited(0);
    env.ok(&format!("copy kitchen.tar docker://{host}/kitchen:1"));
    match Tool::skopeo() {
        Ok(skopeo) => {
            let file = env.path(".docker/config.json").display().to_string();
            skopeo.ok(&["inspect", "--tls-verify=false", "--authfile", &file, &format!("docker://{host}/kitchen:1")]);
            env.ok(&format!("logout {host}"));
            env.fails(1, &format!("inspect docker://{host}/kitchen:1")).says(&["401"]);
            let theirs = env.path("auth.json").display().to_string();
            skopeo.ok(&["login", "--tls-verify=false", "--authfile", &theirs, "-u", "user", "-p", "secret", host]);
            let mut command = env.command(["inspect", &format!("docker://{host}/kitchen:1")]);
            command.env("REGISTRY_AUTH_FILE", theirs);
            longshore_testkit::env::finish(command, Vec::new()).exited(0);
            // The file of containers is read first: it is the one that a login changes, and that a logout forgets.
            let (path, image) = (".config/containers/auth.json", format!("docker://{host}/kitchen:1"));
            let first = env.path(path).display().to_string();
            skopeo.ok(&["login", "--tls-verify=false", "--authfile", &first, "-u", "user", "-p", "secret", host]);
            let stale = String::from_utf8(env.read(path)).unwrap().replace(&base64(b"user:secret"), &base64(b"user:old"));
            env.write(path, stale);
            env.fails(1, &format!("inspect {image}")).says(&["401"]);
            env.run_with_input(&format!("login {host} -u user --password-stdin"), b"secret").exited(0).says(&[&first]);
            skopeo.ok(&["inspect", "--tls-verify=false", "--authfile", &first, &image]);
            env.ok(&format!("inspect {image}"));
            env.ok(&format!("logout {host}")).says(&[&first]);
            assert_ne!(skopeo.run(&["inspect", "--tls-verify=false", "--authfile", &first, &image]).code, Some(0));
            env.fails(1, &format!("inspect {image}")).says(&["401"]);
        }
        Err(why) => skipped("registry: skopeo's login", &why),
    }
}

#[test]
fn the_same_bytes_as_skopeo() {
    let Some(registry) = start("registry: skopeo", RegistryOptions::default()) else { return };
    let skopeo = match Tool::skopeo() {
        Ok(skopeo) => skopeo,
        Err(why) => return skipped("registry: skopeo", &why),
    };
    let (env, host) = (env(), registry.host());
    kitchen(&env);
    let at = |name: &str| env.path(name).display().to_string();
    // Pushed by skopeo, pulled by both.
    skopeo.ok(&["copy", "--dest-tls-verify=false", &format!("docker-archive:{}", at("kitchen.tar")), &format!("docker://{host}/theirs:1")]);
    skopeo.ok(&["copy", "--dest-tls-verify=false", "--all", &format!("oci:{}", at("multi")), &format!("docker://{host}/multi:1")]);
    for (name, all) in [("theirs", false), ("multi", true)] {
        let image = format!("docker://{host}/{name}:1");
        let out = format!("oci:{}:1", at(&format!("{name}-skopeo")));
        let mut args = vec!["copy", "--src-tls-verify=false", "--preserve-digests", &image, &out];
        if all {
            args.push("--all");
        }
        // Docker's types cannot be kept in a layout by skopeo 1.9: then only the blobs are compared.
        if skopeo.run(&args).code != Some(0) {
            args.retain(|arg| *arg != "--preserve-digests");
            skopeo.ok(&args);
        }
        env.ok(&format!("copy {} {image} oci:{name}-ours", if all { "--all-platforms" } else { "" }));
        let (ours, theirs) = (facts(&env.path(&format!("{name}-ours"))), facts(&env.path(&format!("{name}-skopeo"))));
        assert_eq!(ours.essence(), theirs.essence(), "{name}");
        if all {
            assert_same_bytes(&env.path("multi-ours/blobs"), &env.path("multi-skopeo/blobs"), "an index, blob for blob");
        }
        assert_eq!(ours.roots[0], digest(&registry.manifest(name, "1").unwrap()), "{name}: the manifest's digest");
    }
    // Pushed by us, pulled by skopeo.
    env.ok(&format!("copy kitchen.tar docker://{host}/ours:1"));
    env.ok(&format!("copy --all-platforms oci:multi docker://{host}/ours:multi"));
    skopeo.ok(&["copy", "--src-tls-verify=false", &format!("docker://{host}/ours:1"), &format!("oci:{}:1", at("again"))]);
    assert_eq!(facts(&env.path("again")).essence(), facts(&env.path("kitchen.tar")).essence());
    skopeo.ok(&[
        "copy",
        "--src-tls-verify=false",
        "--all",
        &format!("docker://{host}/ours:multi"),
        &format!("oci:{}:1", at("multi-again")),
    ]);
    assert_eq!(facts(&env.path("multi-again")).manifests(), facts(&env.path("multi")).manifests());
}

#[test]
fn a_second_repository_gets_its_blobs_mounted() {
    let Some(registry) = start("registry: mount", RegistryOptions::default()) else { return };
    let (env, host) = (env(), registry.host());
    kitchen(&env);
    env.ok(&format!("copy oci:kitchen docker://{host}/first:1"));
    let before = registry.requests().len();
    env.ok(&format!("copy docker://{host}/first:1 docker://{host}/second:1"));
    let requests = registry.requests().split_off(before);
    let sent: Vec<&String> =
        requests.iter().filter(|line| line.starts_with("PATCH") || (line.starts_with("PUT") && line.contains("/blobs/"))).collect();
    assert!(sent.is_empty(), "blobs were sent: {sent:?}");
    assert!(requests.iter().any(|line| line.starts_with("POST") && line.contains("mount=") && line.ends_with("201")), "{requests:?}");
    assert_eq!((registry.blobs("second"), registry.manifest("second", "1")), (registry.blobs("first"), registry.manifest("first", "1")));
    // And once more into the same repository: nothing but the manifest.
    let before = registry.requests().len();
    env.ok(&format!("copy oci:kitchen docker://{host}/second:2"));
    let requests = registry.requests().split_off(before);
    assert!(!requests.iter().any(|line| line.starts_with("POST") || line.starts_with("PATCH")), "{requests:?}");
}

#[test]
fn docker_pulls_and_runs_what_is_pushed() {
    let Some(registry) = start("registry: docker", RegistryOptions::default()) else { return };
    let engine = match Dockerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped("registry: docker", &why),
    };
    let (env, host) = (env(), registry.host());
    kitchen(&env);
    let id = facts(&env.path("kitchen.tar")).images.keys().next().unwrap().clone();
    for (tag, flags) in [("gzip", ""), ("gzip9", "--compress gzip:9")] {
        env.ok(&format!("copy {flags} kitchen.tar docker://{host}/kitchen:{tag}"));
        let name = format!("{host}/kitchen:{tag}");
        engine.clear();
        engine.ok(&["pull", &name]);
        assert_eq!(engine.id(&name), id, "{tag}");
        assert_eq!(engine.run(&name).trim(), "hello from the image", "{tag}");
    }
    // And the other way: docker pushes, we pull.
    let name = format!("{host}/pushed:1");
    engine.clear();
    engine.load(&env.path("kitchen.tar"));
    engine.ok(&["tag", "kitchen:1", &name]);
    engine.ok(&["push", &name]);
    env.ok(&format!("save docker://{name} -o pushed.tar"));
    assert_eq!(facts(&env.path("pushed.tar")).essence(), facts(&env.path("kitchen.tar")).essence());
    assert!(facts(&env.path("pushed.tar")).only().names.contains(&full_name(&name)));
    engine.clear();
    assert_eq!(engine.load(&env.path("pushed.tar")), [name.as_str()]);
}

#[test]
fn podman_pulls_what_is_pushed() {
    let Some(registry) = start("registry: podman", RegistryOptions::default()) else { return };
    let podman = match Podman::find() {
        Ok(podman) => podman,
        Err(why) => return skipped("registry: podman", &why),
    };
    let (env, host) = (env(), registry.host());
    kitchen(&env);
    for (tag, flags, source) in
        [("gzip", "", "kitchen.tar"), ("zstd", "--compress zstd:3", "kitchen.tar"), ("multi", "--all-platforms", "oci:multi")]
    {
        env.ok(&format!("copy {flags} {source} docker://{host}/kitchen:{tag}"));
        let name = format!("{host}/kitchen:{tag}");
        podman.ok(&["pull", "--tls-verify=false", &format!("docker://{name}")]);
        if source == "kitchen.tar" {
            assert_eq!(podman.id(&name), *facts(&env.path("kitchen.tar")).images.keys().next().unwrap(), "{tag}");
        }
        podman.clear();
    }
}

#[test]
fn what_docker_registry_says_is_passed_on() {
    let Some(registry) = start("registry: messages", RegistryOptions::default()) else { return };
    let (env, host) = (env(), registry.host());
    kitchen(&env);
    env.fails(1, &format!("copy docker://{host}/absent:1 docker-archive:out.tar")).says(&[host, "404", "manifest unknown"]);
    env.fails(1, &format!("tags {host}/absent")).says(&[host, "404", "repository name not known to registry"]);
    env.ok(&format!("copy --all-platforms oci:multi docker://{host}/multi:1"));
    let index: Value = serde_json::from_slice(&registry.manifest("multi", "1").unwrap()).unwrap();
    let there = format!(
        "{}/{}",
        index["manifests"][0]["platform"]["os"].as_str().unwrap(),
        index["manifests"][0]["platform"]["architecture"].as_str().unwrap()
    );
    env.fails(1, &format!("copy --platform plan9/mips docker://{host}/multi:1 docker-archive:out.tar")).says(&["plan9/mips", &there]);
    assert!(!env.path("out.tar").exists());
}

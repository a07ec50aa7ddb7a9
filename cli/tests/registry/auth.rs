//! Who asks: passwords, tokens, and the files that keep them.

use longshore_testkit::registry::auth::{IDENTITY, base64};
use longshore_testkit::registry::{Auth, Bearer, Fault, Listener, Registry, What};
use serde_json::{Value, json};

use super::{Scene, is_whole};

const PULL: &str = "copy docker://HOST/app:1 docker-archive:out.tar";

fn ways() -> Vec<Auth> {
    let bearer = Bearer::default();
    vec![
        Auth::Basic,
        Auth::Bearer(bearer.clone()),
        Auth::Bearer(Bearer { elsewhere: true, ..bearer.clone() }),
        Auth::Bearer(Bearer { access_token: true, oauth2: false, expires_in: None, ..bearer.clone() }),
        Auth::Bearer(Bearer { expires_in: Some(1), ..bearer }),
    ]
}

fn guarded(auth: Auth) -> Scene {
    let scene = Scene::new();
    scene.registry.auth(auth, "user", "secret");
    scene
}

fn docker_config(scene: &Scene) -> Value {
    let path = scene.env.path(".docker/config.json");
    std::fs::read(path).map(|bytes| serde_json::from_slice(&bytes).unwrap()).unwrap_or_default()
}

fn write_config(scene: &Scene, path: &str, config: &Value) {
    let path = scene.env.path(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, config.to_string()).unwrap();
}

fn entry(scene: &Scene, entry: Value) -> Value {
    let mut auths = serde_json::Map::new();
    auths.insert(scene.registry.host(), entry);
    json!({ "auths": auths })
}

#[test]
fn passwords_are_taken_from_the_command_line_and_standard_input() {
    for auth in ways() {
        let scene = guarded(auth.clone());
        let ran = scene.ok(&format!("-v --creds user:secret {PULL}"));
        assert!(is_whole(&scene).is_empty(), "{auth:?}");
        assert!(!ran.stderr.contains("secret"), "{auth:?}: {}", ran.stderr);
        for input in ["user:secret\n", "user:secret", "user:secret\r\n"] {
            let args = scene.fill("--limit idle=2 --creds-stdin inspect docker://HOST/app:1");
            scene.env.run_with_input(&args, input.as_bytes()).exited(0);
        }
    }
}

#[test]
fn without_or_with_wrong_credentials_it_ends_in_a_sentence() {
    for auth in ways() {
        for flags in ["", "--creds user:wrong", "--creds other:secret"] {
            let scene = guarded(auth.clone());
            let ran = scene.fails(&format!("{flags} {PULL}"), &["HOST", "401", "login HOST"]);
            assert!(!ran.stderr.contains("secret") && !ran.stderr.contains("wrong"), "{}", ran.stderr);
            // A wrong password is not sent again and again: accounts are locked for that.
            assert!(scene.registry.log().len() <= 6, "{auth:?} {flags}: {} requests", scene.registry.log().len());
        }
    }
    let scene = guarded(Auth::Basic);
    assert_eq!(scene.run("--creds user: inspect docker://HOST/app:1").code, Some(1));
    assert_eq!(scene.run("--creds user --creds-stdin inspect docker://HOST/app:1").code, Some(2));
    for args in ["--creds secret inspect docker://HOST/app:1", "login --creds secret HOST", "inspect docker://user:secret@HOST/app:1"] {
        let ran = scene.run(args);
        assert!(matches!(ran.code, Some(1 | 2)) && !ran.stderr.contains("secret"), "{}", ran.stderr);
    }
}

#[test]
fn everybody_may_pull_where_tokens_are_given_to_everybody() {
    let scene = guarded(Auth::Bearer(Bearer { anonymous: true, ..Bearer::default() }));
    scene.ok(PULL);
    assert!(is_whole(&scene).is_empty());
    assert_eq!(scene.registry.tokens(), 1, "one token for all of a repository");
    scene.fails("copy docker-archive:whole.tar docker://HOST/new:1", &["HOST", "401"]);
    scene.ok("--creds user:secret copy docker-archive:whole.tar docker://HOST/new:1");
}

#[test]
fn a_token_that_ended_is_replaced() {
    // In the middle of things; once for each request that was refused. One by one: of two at once, each could take the other's new token.
    let scene = guarded(Auth::Bearer(Bearer { uses: Some(1), ..Bearer::default() }));
    scene.ok(&format!("--parallel 1 --creds user:secret {PULL}"));
    assert!(is_whole(&scene).is_empty());
    let refused = scene.registry.log().iter().filter(|asked| asked.status == 401).count();
    assert!(refused <= scene.registry.tokens(), "{refused} refusals, {} tokens", scene.registry.tokens());
    for what in [What::status(401), What::error(401, "UNAUTHORIZED", "token expired")] {
        // Refused once, for no reason, and without a challenge: asked once more with another token, or not at all.
        let scene = guarded(Auth::Bearer(Bearer::default()));
        scene.fault(Fault::on("GET /v2/app/blobs/LARGE", what).always());
        scene.fails(&format!("--creds user:secret {PULL}"), &["HOST", "401"]);
        assert!(scene.count("GET /v2/app/blobs/LARGE") <= 2);
    }
    let challenge = r#"Bearer realm="http://{host}/token",service="testkit",scope="repository:app:pull",error="invalid_token""#;
    let refusal = What::Answer { status: 401, headers: vec![("WWW-Authenticate", challenge.to_owned())], body: Vec::new() };
    for (times, code) in [(1, 0), (usize::MAX, 1)] {
        let scene = guarded(Auth::Bearer(Bearer::default()));
        scene.fault(Fault::on("GET /v2/app/blobs/LARGE", refusal.clone()).times(times));
        scene.run(&format!("--creds user:secret {PULL}")).exited(code);
        assert_eq!((scene.count("GET /v2/app/blobs/LARGE"), scene.env.path("out.tar").exists()), (2, code == 0), "401 {times} times");
        assert!(scene.registry.tokens() <= 2 + usize::from(times > 1), "{} tokens", scene.registry.tokens());
    }
}

#[test]
fn a_push_asks_for_what_it_needs() {
    for auth in ways() {
        let scene = guarded(auth.clone());
        scene.ok("--creds user:secret copy docker-archive:whole.tar docker://HOST/new:1");
        scene.ok("--creds user:secret copy docker://HOST/app:1 docker://HOST/mounted:1");
        assert_eq!(scene.registry.digest("mounted", "1"), scene.registry.digest("app", "1"), "{auth:?}");
        assert_eq!(scene.count("PUT /v2/mounted/blobs/uploads/*"), 0, "{auth:?}: mounted");
    }
}

#[test]
fn a_token_service_that_is_down_is_not_asked_by_everybody_again() {
    let scene = guarded(Auth::Bearer(Bearer::default()));
    scene.fault(Fault::on("* /token*", What::error(503, "UNAVAILABLE", "no database")).always());
    let ran = scene.run(&format!("--limit idle=60 --creds user:secret {PULL}"));
    assert!(ran.code == Some(1) && ran.stderr.contains("no database"), "{}", ran.stderr);
    assert_eq!(scene.count("* /token*"), 6);
}

#[test]
fn a_message_that_repeats_a_secret_is_not_repeated() {
    let scene = guarded(Auth::Bearer(Bearer::default()));
    let repeated = format!("{} is user:secret", base64(b"user:secret"));
    scene.fault(Fault::on("* /token*", What::error(403, "DENIED", &repeated)).always());
    let ran = scene.run(&format!("-v --creds user:secret {PULL}"));
    assert!(ran.code == Some(1) && ran.stderr.contains("[…] is user:[…]"), "{}", ran.stderr);
}

#[test]
fn a_token_service_fails_like_a_registry() {
    for (name, what, code, asked, says) in [
        ("500 once", Fault::on("* /token*", What::status(500)), 0, 2..=2, "kept"),
        ("closed once", Fault::on("* /token*", What::Close), 0, 2..=2, ""),
        ("429 once", Fault::on("* /token*", What::retry_after(429, "1")), 0, 2..=2, ""),
        ("500 for ever", Fault::on("* /token*", What::error(500, "UNKNOWN", "no database")).always(), 1, 2..=10, "no database"),
        ("403", Fault::on("* /token*", What::error(403, "DENIED", "you are banned")).always(), 1, 1..=2, "you are banned"),
        ("a page", Fault::on("* /token*", What::page(200, "Log in")).always(), 1, 1..=2, "token"),
        ("no token", Fault::on("* /token*", What::body("application/json", "{}")).always(), 1, 1..=2, "token"),
        (
            "an endless token",
            Fault::on("* /token*", What::Endless(longshore_testkit::registry::Framing::Chunked)).always(),
            1,
            1..=2,
            "token",
        ),
        ("silence", Fault::on("* /token*", What::Silence).always(), 1, 1..=4, "token"),
        (
            "a token with a line break",
            Fault::on("* /token*", What::body("application/json", "{\"token\":\"a\\r\\nX-Evil: 1\"}")).always(),
            1,
            1..=2,
            "token",
        ),
    ] {
        let scene = guarded(Auth::Bearer(Bearer::default()));
        scene.fault(what);
        let args = format!("--creds user:secret {PULL}");
        if code == 0 {
            scene.ok(&args);
        } else {
            scene.fails(&args, &["HOST", says]);
        }
        let count = scene.count("* /token*");
        assert!(asked.contains(&count), "{name}: {count} requests for tokens");
        assert!(scene.registry.log().iter().all(|asked| asked.header("x-evil").is_none()), "{name}");
    }
}

#[test]
fn realms_without_tls_see_no_password() {
    let scene = guarded(Auth::None);
    scene.registry.elsewhere("127.0.0.1");
    for realm in ["http://tokens.invalid/token", "ftp://tokens.invalid/token", "file:///etc/passwd"] {
        let challenge = format!(r#"Bearer realm="{realm}",service="testkit""#);
        scene.registry.heal();
        scene.fault(
            Fault::on("GET *", What::Answer { status: 401, headers: vec![("WWW-Authenticate", challenge)], body: Vec::new() }).always(),
        );
        scene.fails(&format!("--creds user:secret {PULL}"), &["HOST"]);
    }
    assert!(scene.registry.log().iter().all(|asked| asked.header("authorization").is_none()));
}

#[test]
fn credentials_of_one_registry_are_not_those_of_another() {
    let (scene, other) = (guarded(Auth::Basic), Registry::start());
    other.auth(Auth::Basic, "user", "secret");
    scene.env.run_with_input(&scene.fill("login HOST -u user --password-stdin"), b"secret").exited(0);
    let ran = scene.run(&format!("copy docker://HOST/app:1 docker://{}/app:1", other.host())).exited(1);
    assert!(ran.stderr.contains(&other.host()) && ran.stderr.contains("401"), "{}", ran.stderr);
    assert!(other.log().iter().all(|asked| asked.header("authorization").is_none()), "the other registry saw a password");
}

#[test]
fn a_password_of_the_command_line_is_for_one_registry() {
    let (scene, other) = (guarded(Auth::Basic), Registry::start());
    other.auth(Auth::Basic, "user", "secret");
    let other_host = other.host();
    let (here, there) = ("docker://HOST/app:1", &*format!("docker://{other_host}/app:1"));
    for args in [
        format!("copy {here} {there}"),
        format!("copy {here} {there} docker-archive:out.tar"),
        format!("copy docker-archive:whole.tar {here} {there} {here}"),
        format!("save {here} whole.tar {there} -o out.tar"),
        format!("diff {here} {there}"),
        format!("check {there} {here}"),
        format!("squash {here} docker-archive:out.tar --from {there}"),
        format!("squash {here} {there}"),
        format!("edit {here} {there} --env A=b"),
        format!("rebase whole.tar docker-archive:out.tar --old-base {here} --new-base {there}"),
        format!("assemble --base {here} {there}"),
        format!("load -i {here} {there}"),
    ] {
        for (option, input) in [("--creds user:secret", ""), ("--creds-stdin", "user:secret\n")] {
            let ran = scene.env.run_with_input(&scene.fill(&format!("--limit idle=2 {option} {args}")), input.as_bytes()).exited(2);
            let name = option.split(' ').next().unwrap();
            let ran = ran.says(&[name, &scene.registry.host(), &other_host, "longshore login"]);
            assert!(!ran.stderr.contains("secret"), "{args}: {}", ran.stderr);
        }
    }
    assert!(scene.registry.log().is_empty() && other.log().is_empty(), "nothing was asked");
    assert!(!scene.env.path("out.tar").exists());
    // Two repositories of one registry are one, and without a password there is nothing to show.
    scene.ok("--creds user:secret copy docker://HOST/app:1 docker://HOST/other:1");
    scene.ok("--creds user:secret diff docker://HOST/app:1 docker://HOST/app:1");
    let ran = scene.run(&format!("copy {here} {there}")).exited(1);
    assert!(ran.stderr.contains("401"), "{}", ran.stderr);
}

#[test]
fn a_login_is_kept_where_docker_keeps_it() {
    for auth in ways() {
        let scene = guarded(auth.clone());
        let login = |password: &str| {
            scene.env.run_with_input(&scene.fill("--limit idle=2 login HOST -u user --password-stdin"), password.as_bytes())
        };
        login("wrong").exited(1).says(&[&scene.registry.host(), "401"]);
        assert_eq!(docker_config(&scene)["auths"].get(scene.registry.host()), None, "a wrong password is not kept");
        login("secret\n").exited(0);
        let kept = &docker_config(&scene)["auths"][scene.registry.host()];
        assert!(kept["auth"] == base64(b"user:secret") || kept["identitytoken"] == IDENTITY, "{auth:?}: {kept}");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(scene.env.path(".docker/config.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        scene.ok(PULL);
        assert!(is_whole(&scene).is_empty(), "{auth:?}");
        scene.ok("logout HOST");
        assert_eq!(docker_config(&scene)["auths"].get(scene.registry.host()), None);
        scene.fails("inspect docker://HOST/app:1", &["401"]);
    }
}

#[test]
fn a_login_keeps_what_else_is_in_the_file() {
    let scene = guarded(Auth::Basic);
    let before = json!({ "HttpHeaders": { "X": "y" }, "auths": { "other.example.com": { "auth": "YTpi" } }, "psFormat": "table" });
    write_config(&scene, ".docker/config.json", &before);
    scene.env.run_with_input(&scene.fill("login HOST -u user --password-stdin"), b"secret").exited(0);
    let mut after = docker_config(&scene);
    assert_eq!(
        after["auths"].as_object_mut().unwrap().shift_remove(&scene.registry.host()).map(|kept| kept["auth"].clone()),
        Some(json!(base64(b"user:secret")))
    );
    assert_eq!(after, before);
    for broken in ["{", "[]", "{\"auths\":7}"] {
        scene.env.write(".docker/config.json", broken);
        let ran = scene.env.run_with_input(&scene.fill("login HOST -u user --password-stdin"), b"secret").exited(1);
        assert!(ran.stderr.contains("config.json"), "{}", ran.stderr);
        assert_eq!(scene.env.read(".docker/config.json"), broken.as_bytes());
    }
}

/// Runs with variables whose values are in the folder.
fn run_with(scene: &Scene, variables: &[(&str, &str)], args: &str) -> longshore_testkit::Ran {
    let mut command = scene.env.command(scene.fill(&format!("--limit idle=2 {args}")).split_whitespace());
    command.envs(variables.iter().map(|(key, value)| (key, scene.env.path(value))));
    longshore_testkit::env::finish(command, Vec::new())
}

#[test]
fn a_login_beats_an_older_one_and_a_logout_forgets_all() {
    use std::os::unix::fs::PermissionsExt as _;
    let (runtime, config, docker) = ("run/containers/auth.json", ".config/containers/auth.json", ".docker/config.json");
    let variables = [("XDG_RUNTIME_DIR", "run")];
    for (older, expected) in [
        (vec![runtime], runtime),
        (vec![config], config),
        (vec![config, docker], config),
        (vec![runtime, config, docker], runtime),
        (vec![docker], docker),
        (vec![], docker),
    ] {
        let scene = guarded(Auth::Basic);
        let other = json!({ "other.example.com": { "auth": "YTpi" } });
        for path in [runtime, config, docker] {
            let mut before = json!({ "x": [1], "auths": other });
            if older.contains(&path) {
                before["auths"][scene.registry.host()] = json!({ "auth": base64(b"user:old") });
            }
            write_config(&scene, path, &before);
            std::fs::set_permissions(scene.env.path(path), std::fs::Permissions::from_mode(0o640)).unwrap();
        }
        let before = |path: &str| scene.env.read(path);
        let unchanged = [runtime, config, docker].map(|path| (path, before(path)));
        let at = |path: &str| scene.env.path(path).display().to_string();
        run_with(&scene, &variables, "--creds user:secret login HOST").exited(0).says(&[&at(expected)]);
        for (path, bytes) in unchanged.iter().filter(|(path, _)| *path != expected) {
            assert_eq!(before(path), *bytes, "{path} is not written");
        }
        run_with(&scene, &variables, PULL).exited(0);
        let ran = run_with(&scene, &variables, "logout HOST").exited(0).says(&["logged out of"]);
        for path in [runtime, config, docker] {
            let left: Value = serde_json::from_slice(&before(path)).unwrap();
            assert_eq!(left, json!({ "x": [1], "auths": other }), "{older:?}: {path}");
            assert_eq!(ran.stderr.contains(&at(path)), path == expected || older.contains(&path), "{older:?}: {}", ran.stderr);
            assert_eq!(std::fs::metadata(scene.env.path(path)).unwrap().permissions().mode() & 0o777, 0o640, "{path}");
        }
        run_with(&scene, &variables, "inspect docker://HOST/app:1").exited(1).says(&["401"]);
        run_with(&scene, &variables, "logout HOST").exited(0).says(&["there was no login"]);
    }
}

#[test]
fn the_file_of_the_environment_is_the_only_one() {
    let scene = guarded(Auth::Basic);
    let variables = [("REGISTRY_AUTH_FILE", "only.json")];
    let others = [".docker/config.json", ".config/containers/auth.json"];
    for path in others {
        write_config(&scene, path, &entry(&scene, json!({ "auth": base64(b"user:old") })));
    }
    let before = others.map(|path| scene.env.read(path));
    run_with(&scene, &variables, "logout HOST").exited(0).says(&["there was no login"]);
    run_with(&scene, &variables, "--creds user:secret login HOST").exited(0).says(&["only.json"]);
    run_with(&scene, &variables, PULL).exited(0);
    run_with(&scene, &variables, "logout HOST").exited(0).says(&["logged out of", "only.json"]);
    run_with(&scene, &variables, "inspect docker://HOST/app:1").exited(1).says(&["401"]);
    assert_eq!(others.map(|path| scene.env.read(path)), before, "the others are neither read nor written");
}

#[test]
fn files_of_docker_and_of_containers_are_read() {
    let coded = base64(b"user:secret");
    for (name, path, variable) in [
        ("docker's", ".docker/config.json", None),
        ("DOCKER_CONFIG", "elsewhere/config.json", Some(("DOCKER_CONFIG", "elsewhere"))),
        ("REGISTRY_AUTH_FILE", "auth.json", Some(("REGISTRY_AUTH_FILE", "auth.json"))),
        ("XDG_RUNTIME_DIR", "run/containers/auth.json", Some(("XDG_RUNTIME_DIR", "run"))),
        ("XDG_CONFIG_HOME", "conf/containers/auth.json", Some(("XDG_CONFIG_HOME", "conf"))),
        ("containers'", ".config/containers/auth.json", None),
    ] {
        for written in [json!({ "auth": coded }), json!({ "username": "user", "password": "secret" })] {
            if written.get("auth").is_none() && path != ".docker/config.json" {
                continue;
            }
            let scene = guarded(Auth::Basic);
            write_config(&scene, path, &entry(&scene, written));
            let mut command = scene.env.command(scene.fill(PULL).split_whitespace());
            command.envs(variable.map(|(key, value)| (key, scene.env.path(value))));
            let ran = longshore_testkit::env::finish(command, Vec::new());
            assert_eq!(ran.code, Some(0), "{name}: {}", ran.stderr);
        }
    }
}

#[test]
fn the_nearest_entry_is_taken() {
    let scene = guarded(Auth::Basic);
    let host = scene.registry.host();
    let (right, wrong) = (json!({ "auth": base64(b"user:secret") }), json!({ "auth": base64(b"user:wrong") }));
    // containers' auth.json knows repositories and paths above them.
    let mut auths = serde_json::Map::new();
    auths.insert(host.clone(), wrong);
    auths.insert(format!("{host}/app"), right);
    write_config(&scene, "auth.json", &json!({ "auths": auths }));
    let mut command = scene.env.command(scene.fill(PULL).split_whitespace());
    command.env("REGISTRY_AUTH_FILE", scene.env.path("auth.json"));
    let ran = longshore_testkit::env::finish(command, Vec::new());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    // The command line beats the files.
    scene.fails("--creds user:wrong inspect docker://HOST/app:1", &["401"]);
}

#[test]
fn identity_tokens_are_exchanged() {
    let scene = guarded(Auth::Bearer(Bearer::default()));
    write_config(&scene, ".docker/config.json", &entry(&scene, json!({ "auth": base64(b"user:"), "identitytoken": IDENTITY })));
    scene.ok(PULL);
    assert!(is_whole(&scene).is_empty());
    let asked = scene.registry.asked("POST /token*");
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.header("authorization").is_none()));
}

/// A program as docker's credential stores are, which runs in the folder and notes what it is asked.
fn store(scene: &Scene, answer: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let bin = scene.env.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let program = bin.join("docker-credential-testkit");
    let script = format!("#!/bin/sh\nread server\necho \"$1 $server\" >> '{}'\n{answer}\n", scene.env.path("asked").display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn run_with_store(scene: &Scene, args: &str) -> longshore_testkit::Ran {
    let mut command = scene.env.command(scene.fill(&format!("--limit idle=2 {args}")).split_whitespace());
    command.env("PATH", format!("{}:/usr/bin:/bin", scene.env.path("bin").display()));
    longshore_testkit::env::finish(command, Vec::new())
}

#[test]
fn credential_stores_are_asked() {
    let good = "echo '{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"secret\"}'";
    for key in ["credsStore", "credHelpers"] {
        let scene = guarded(Auth::Basic);
        store(&scene, good);
        let value = if key == "credsStore" { json!("testkit") } else { json!({ scene.registry.host(): "testkit" }) };
        write_config(&scene, ".docker/config.json", &json!({ key: value }));
        let ran = run_with_store(&scene, PULL);
        assert_eq!(ran.code, Some(0), "{key}: {}", ran.stderr);
        assert_eq!(String::from_utf8(scene.env.read("asked")).unwrap(), format!("get {}\n", scene.registry.host()), "{key}: once");
    }
    let identity = format!("echo '{{\"Username\":\"<token>\",\"Secret\":\"{IDENTITY}\"}}'");
    let scene = guarded(Auth::Bearer(Bearer::default()));
    store(&scene, &identity);
    write_config(&scene, ".docker/config.json", &json!({ "credsStore": "testkit" }));
    assert_eq!(run_with_store(&scene, PULL).code, Some(0), "an identity token of a store");
    for (name, answer, says) in [
        ("it has none", "echo 'credentials not found in native keychain'; exit 1", "401"),
        ("it fails", "echo 'the keychain is locked' >&2; exit 1", "docker-credential-testkit"),
        ("it prints nonsense", "echo nonsense", "docker-credential-testkit"),
    ] {
        let scene = guarded(Auth::Basic);
        store(&scene, answer);
        write_config(&scene, ".docker/config.json", &json!({ "credsStore": "testkit" }));
        let ran = run_with_store(&scene, PULL);
        assert!(ran.code == Some(1) && ran.stderr.contains(says), "{name}: {}", ran.stderr);
    }
}

/// A store that keeps one password in a file, and fails to erase what it does not have.
const ONE_PASSWORD: &str = r#"case $1 in
store) echo "$server" > kept ;;
get) cat kept 2> /dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
erase) rm kept 2> /dev/null || { echo 'there is nothing to erase' >&2; exit 1; } ;;
esac"#;

#[test]
fn a_login_goes_to_a_credential_store_and_a_logout_to_it_as_well() {
    let old = |scene: &Scene| json!({ scene.registry.host(): { "auth": base64(b"user:old") } });
    for (path, key, stale) in [
        (".docker/config.json", "credsStore", false),
        (".docker/config.json", "credsStore", true),
        (".docker/config.json", "credHelpers", true),
        (".config/containers/auth.json", "credHelpers", false),
    ] {
        let scene = guarded(Auth::Basic);
        let asked = || String::from_utf8(std::fs::read(scene.env.path("asked")).unwrap_or_default()).unwrap();
        store(&scene, ONE_PASSWORD);
        let value = if key == "credsStore" { json!("testkit") } else { json!({ scene.registry.host(): "testkit" }) };
        let auths = if stale { old(&scene) } else { json!({}) };
        write_config(&scene, path, &json!({ key: value, "auths": auths }));
        let before = scene.env.read(path);
        run_with_store(&scene, "--creds user:secret login HOST").exited(0).says(&["logged in", "docker-credential-testkit"]);
        let kept: Value = serde_json::from_slice(&scene.env.read("kept")).unwrap();
        assert_eq!(kept, json!({ "ServerURL": scene.registry.host(), "Username": "user", "Secret": "secret" }));
        assert_eq!(scene.env.read(path) == before, !stale, "{path}: written when there is something to forget");
        assert!(!String::from_utf8(scene.env.read(path)).unwrap().contains("\"auth\""), "no password is in {path}");
        run_with_store(&scene, PULL).exited(0);
        let ran = run_with_store(&scene, "logout HOST").exited(0).says(&["logged out of", "docker-credential-testkit"]);
        assert!(!ran.stderr.contains(path), "{}", ran.stderr);
        assert!(asked().ends_with(&format!("erase {}\n", scene.registry.host())) && !scene.env.path("kept").exists());
        run_with_store(&scene, "inspect docker://HOST/app:1").exited(1).says(&["401"]);
        run_with_store(&scene, "logout HOST").exited(0).says(&["there was no login"]);
        assert_eq!(asked().matches("erase").count(), 1, "what is not there is not erased");
    }
    // One that says neither yes nor no is not taken for either.
    let scene = guarded(Auth::Basic);
    store(&scene, "echo 'the keychain is locked' >&2; exit 1");
    write_config(&scene, ".docker/config.json", &json!({ "credsStore": "testkit" }));
    run_with_store(&scene, "logout HOST").exited(1).says(&["docker-credential-testkit", "the keychain is locked"]);
}

#[test]
fn a_token_service_on_another_port_sees_the_password_and_no_token() {
    let scene = guarded(Auth::Bearer(Bearer { elsewhere: true, ..Bearer::default() }));
    scene.ok(&format!("--creds user:secret {PULL}"));
    let log = scene.registry.log();
    let seen = |kind: Listener, what: &str| {
        log.iter().any(|asked| asked.listener == kind && asked.header("authorization").is_some_and(|value| value.starts_with(what)))
    };
    assert!(!seen(Listener::Tokens, "Bearer"), "a token went to the token service");
    assert!(!seen(Listener::Main, "Basic"), "the password went to the registry, which wants tokens");
    assert!(seen(Listener::Main, "Bearer"));
}

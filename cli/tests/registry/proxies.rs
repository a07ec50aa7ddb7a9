//! Which proxy is asked for what, as the environment has it.

use longshore_testkit::registry::{Fault, Registry, What};

use super::Scene;

/// A listener that is asked as a proxy, and refuses.
fn proxy() -> Registry {
    let proxy = Registry::start();
    proxy.fault(Fault::on("* *", What::page(403, "the proxy does not want to")).always());
    proxy
}

/// What a proxy was asked, each once.
fn asked(proxy: &Registry) -> Vec<String> {
    let mut lines: Vec<String> = proxy.log().iter().map(longshore_testkit::registry::Asked::line).collect();
    lines.dedup();
    lines
}

#[test]
fn each_scheme_has_its_proxy() {
    const TUNNEL: &str = "CONNECT registry.invalid:443";
    const PLAIN: &str = "GET http://registry.invalid/v2/";
    let scene = Scene::new();
    let [http, https] = [proxy(), proxy()];
    let [plain, secure] = [&http, &https].map(|proxy| format!("http://{}", proxy.host()));
    let (plain, secure) = (plain.as_str(), secure.as_str());
    for (flags, variables, of_http, of_https) in [
        // Without --insecure there is TLS, and nothing else.
        ("", vec![("HTTP_PROXY", plain), ("HTTPS_PROXY", secure)], None, Some(TUNNEL)),
        ("", vec![("HTTP_PROXY", plain)], None, None),
        ("--insecure", vec![("HTTP_PROXY", plain), ("HTTPS_PROXY", secure)], Some(PLAIN), Some(TUNNEL)),
        ("--insecure", vec![("HTTP_PROXY", plain)], Some(PLAIN), None),
        ("--insecure", vec![("HTTPS_PROXY", secure)], None, Some(TUNNEL)),
        // Lower case beats upper case, and does for it.
        ("", vec![("HTTPS_PROXY", plain), ("https_proxy", secure)], None, Some(TUNNEL)),
        ("--insecure", vec![("HTTP_PROXY", secure), ("http_proxy", plain)], Some(PLAIN), None),
        // Whom NO_PROXY names is asked without one.
        ("--insecure", vec![("HTTP_PROXY", plain), ("HTTPS_PROXY", secure), ("NO_PROXY", "registry.invalid")], None, None),
        ("--insecure", vec![("HTTP_PROXY", plain), ("HTTPS_PROXY", secure), ("no_proxy", "a.example,.invalid")], None, None),
        ("--insecure", vec![("HTTP_PROXY", plain), ("HTTPS_PROXY", secure), ("NO_PROXY", "other.invalid")], Some(PLAIN), Some(TUNNEL)),
        ("--insecure", vec![("HTTP_PROXY", plain), ("HTTPS_PROXY", secure), ("NO_PROXY", "registry.invalid:443")], Some(PLAIN), None),
    ] {
        http.forget_log();
        https.forget_log();
        let args = format!("--limit idle=2 {flags} inspect docker://registry.invalid/app:1");
        let mut command = scene.env.command(args.split_whitespace());
        command.envs(variables.iter().copied());
        longshore_testkit::env::finish(command, Vec::new()).exited(1);
        for (name, proxy, expected) in [("HTTP_PROXY", &http, of_http), ("HTTPS_PROXY", &https, of_https)] {
            let asked = asked(proxy);
            let right = match expected {
                Some(expected) => !asked.is_empty() && asked.iter().all(|line| line.starts_with(expected)),
                None => asked.is_empty(),
            };
            assert!(right, "{flags} {variables:?}: what {name} names was asked {asked:?}");
        }
    }
}

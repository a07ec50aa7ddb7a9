//! Everything that is tested through the binary, in one test program.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "these are tests")]

mod assemble;
mod commands;
mod conformance;
mod dialects;
mod engines;
mod faults;
mod formats;
mod interop;
mod look;
mod malformed;
mod registry;
mod selection;
mod squash;

use longshore_testkit::TestEnv;

/// An empty folder with the binary to run in it.
fn env() -> TestEnv {
    TestEnv::new(env!("CARGO_BIN_EXE_longshore"))
}

#[test]
fn no_module_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(main.lines().any(|line| line == format!("mod {module};")), "tests/{name} is not a module of tests/main.rs");
        }
    }
}

//! Images in engines, by the command line: saved by name, from daemons and from stores, and loaded.

use std::process::Command;

use longshore_testkit::TestEnv;
use longshore_testkit::env::{Ran, finish};
use longshore_testkit::facts::facts;
use longshore_testkit::images::{Image, docker_archive};
use longshore_testkit::peers::{Containerd, Dockerd, Podman, skipped};

use crate::env;

/// A machine of engines that the test chooses: no daemon and no store, unless a variable names one.
struct Machine {
    env: TestEnv,
    variables: Vec<(&'static str, String)>,
}

/// Podman reads it too, and wants to know where everything is.
fn conf(driver: &str, graph_root: &str, run_root: &str) -> String {
    format!("[storage]\ndriver = \"{driver}\"\ngraphroot = \"{graph_root}\"\nrunroot = \"{run_root}\"\n")
}

impl Machine {
    fn new() -> Self {
        let env = env();
        let none = |name: &str| env.path(name).display().to_string();
        let variables = vec![
            ("DOCKER_HOST", format!("unix://{}", none("no-docker.sock"))),
            ("CONTAINERS_STORAGE_CONF", none("storage.conf")),
            ("CONTAINERD_NAMESPACE", "of-nobody".to_owned()),
        ];
        env.write("storage.conf", conf("overlay", &none("no-store"), &none("no-run")));
        env.fixture("from/docker20-one.tar", "kitchen.tar");
        Self { env, variables }
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value));
    }

    fn command(&self, args: &str) -> Command {
        let mut command = self.env.command(args.split_whitespace());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, args: &str) -> Ran {
        finish(self.command(args), Vec::new())
    }

    #[track_caller]
    fn ok(&self, args: &str) -> Ran {
        let ran = self.run(args).exited(0);
        self.env.assert_no_leftovers();
        ran
    }

    #[track_caller]
    fn fails(&self, args: &str, says: &[&str]) -> Ran {
        let ran = self.run(args).exited(1).says(says);
        self.env.assert_no_leftovers();
        ran
    }

    /// Asserts that a file holds the image of kitchen.tar, with its layers.
    #[track_caller]
    fn is_kitchen(&self, file: &str) {
        let (found, expected) = (facts(&self.env.path(file)), facts(&self.env.path("kitchen.tar")));
        assert_eq!(found.only().diff_ids, expected.only().diff_ids, "{file}");
        self.env.ok(&format!("check ./{file}"));
    }
}

#[test]
fn a_name_is_looked_for_where_there_is_no_engine() {
    let machine = Machine::new();
    // The machine may have stores of its own, in which this is not.
    machine.fails("save longshore-of-nobody:1 -o out.tar", &["there is no image longshore-of-nobody:1"]);
    machine.fails("copy docker-daemon:kitchen out.tar", &["docker-daemon:kitchen", "no-docker.sock"]);
    machine.fails("copy docker-daemon: out.tar", &["which image"]);
    machine.fails("copy containers-storage:kitchen out.tar", &["no-store"]);
    machine.fails("copy docker-storage:[no-store]kitchen out.tar", &["no-store"]);
    machine.fails("copy containerd:[no-store]default/kitchen out.tar", &["no-store"]);
    machine.fails("copy kitchen.tar docker-storage:", &["docker-storage", "nobody but docker writes into its store"]);
    machine.fails("load -i kitchen.tar", &["docker-daemon", "no-docker.sock"]);
    machine.run("copy docker-storage:[no-end out.tar").exited(2).says(&["expected a ]"]);
    assert!(!machine.env.path("out.tar").exists());
}

#[test]
fn docker_by_its_daemon_and_without() {
    let mut engine = match Dockerd::start_with(&["--storage-driver", "overlay2"]) {
        Ok(engine) => engine,
        Err(why) => return skipped("engines: docker", &why),
    };
    let mut machine = Machine::new();
    machine.set("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    let loaded = machine.ok("load -i kitchen.tar");
    assert_eq!(loaded.text(), "Loaded image: kitchen:1\n");
    assert_eq!(engine.id("kitchen:1"), facts(&machine.env.path("kitchen.tar")).images.keys().next().unwrap().clone());
    machine.ok("load -i kitchen.tar --report report.json");
    let report: serde_json::Value = serde_json::from_slice(&machine.env.read("report.json")).unwrap();
    assert_eq!((&report["bytes_read"], &report["blobs_held"]), (&serde_json::json!(0), &report["blobs"]), "{report}");

    machine.ok("save kitchen:1 -o by-name.tar").says(&["kitchen:1 is in docker ("]);
    machine.is_kitchen("by-name.tar");
    machine.ok("copy docker-daemon:kitchen:1 by-daemon.tar");
    machine.is_kitchen("by-daemon.tar");
    let data = engine.data().display().to_string();
    machine.ok(&format!("copy docker-storage:[{data}]kitchen:1 by-storage.tar"));
    machine.is_kitchen("by-storage.tar");
    machine.fails("save kitchn:1 -o out.tar", &["there is no image kitchn:1", "did you mean kitchen:1", "Looked in docker ("]);
    machine.ok("load -i kitchen.tar docker-daemon:other:2");
    assert_eq!(engine.id("other:2"), engine.id("kitchen:1"));
    let missing = machine.fails("copy docker-daemon:kitchen:2 out.tar", &["docker-daemon:kitchen:2"]);
    assert_eq!(missing.stderr.lines().filter(|line| line.starts_with("longshore: ")).count(), 1, "{}", missing.stderr);
    engine.kill();
    machine.fails("copy docker-daemon:kitchen:1 out.tar", &["docker-daemon:kitchen:1"]);
    machine.fails("load -i kitchen.tar", &["docker-daemon"]);
    // The store is there without its daemon.
    machine.ok(&format!("copy docker-storage:[{data}]kitchen:1 dead.tar"));
    machine.is_kitchen("dead.tar");
}

#[test]
fn podman_by_its_store_and_its_program() {
    for driver in ["overlay", "vfs"] {
        let podman = match Podman::with_driver(driver) {
            Ok(podman) => podman,
            Err(why) => return skipped("engines: podman", &why),
        };
        let machine = Machine::new();
        let root = podman.root().display().to_string();
        let place = format!("containers-storage:[{driver}@{root}+{}/run]", podman.folder().display());
        let loaded = machine.ok(&format!("load -i kitchen.tar {place}"));
        assert_eq!(loaded.text(), "Loaded image: kitchen:1\n", "{driver}");
        assert!(podman.ok(&["images"]).contains("kitchen"), "{driver}");
        machine.ok(&format!("copy {place}kitchen:1 by-store.tar"));
        machine.is_kitchen("by-store.tar");
        machine.env.write("storage.conf", conf(driver, &root, "/run/of-nobody"));
        machine.ok("save kitchen:1 -o by-name.tar").says(&["kitchen:1 is in containers-storage ("]);
        machine.is_kitchen("by-name.tar");
        machine.fails("save kitchn:1 -o out.tar", &["kitchen:1"]);
        podman.clear();
        machine.fails(&format!("copy {place}kitchen:1 out.tar"), &["there is no image kitchen:1"]);
    }
}

#[test]
fn containerd_by_its_store_and_ctr() {
    let engine = match Containerd::start() {
        Ok(engine) => engine,
        Err(why) => return skipped("engines: containerd", &why),
    };
    let mut machine = Machine::new();
    machine.set("CONTAINERD_ADDRESS", engine.socket().display().to_string());
    let loaded = machine.ok("load -i kitchen.tar containerd:lab/");
    assert_eq!(loaded.text(), "Loaded image: kitchen:1\n");
    assert!(engine.ok(&["--namespace", "lab", "images", "list", "--quiet"]).contains("docker.io/library/kitchen:1"));
    let root = engine.root().display().to_string();
    machine.ok(&format!("copy containerd:[{root}]lab/docker.io/library/kitchen:1 by-store.tar"));
    machine.is_kitchen("by-store.tar");
    machine.ok(&format!("copy containerd:[{root}]lab/kitchen:1 familiar.tar"));
    machine.is_kitchen("familiar.tar");
    machine.fails(&format!("copy containerd:[{root}]lab/kitchn:1 out.tar"), &["kitchen:1"]);
    machine.fails(&format!("copy containerd:[{root}]other/kitchen:1 out.tar"), &["other", "containerd:NAMESPACE/NAME"]);
    // An image of another platform than the machine's.
    let other = Image::new("other:1").platform("linux/s390x").layer("etc/\netc/a=1");
    machine.env.write("other.tar", docker_archive(&[other]).bytes());
    machine.ok("load -i other.tar containerd:lab/");
    assert!(engine.ok(&["--namespace", "lab", "images", "list", "--quiet"]).contains("docker.io/library/other:1"));
    machine.ok(&format!("copy --platform linux/s390x containerd:[{root}]lab/other:1 again.tar"));
}

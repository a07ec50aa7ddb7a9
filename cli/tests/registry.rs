//! Registries through the binary: what goes wrong with them, and what must come of it.
//!
//! Most of it is rows: what goes wrong with which request, and then either the complete and right output or one sentence and nothing. In
//! patterns and texts `LARGE`, `SMALL` and `CONFIG` stand for the digests of the blobs, `HEX` for the digits of the manifest's digest,
//! `HOST` for the registry and `ELSEWHERE` for its second port.

use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use longshore_testkit::facts::{Packing, facts};
use longshore_testkit::images::{Image, Layer, docker_archive, pack};
use longshore_testkit::registry::{Fault, Listener, Registry, What};
use longshore_testkit::tar::{Member, write};
use longshore_testkit::{Ran, TestEnv, noise};

use crate::env;
use crate::malformed::assert_rejected;

mod auth;
mod names;
mod proxies;
mod pull;
mod push;
mod real;

/// An image of a small layer and a large one, which is more than what sockets hold. Both are compressed, so that its manifest is kept.
fn image() -> Image {
    static LARGE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (tar, packed) = LARGE.get_or_init(|| {
        let tar = write(&[Member::file("noise", noise(5 << 20, 17))]);
        let packed = pack(&tar, Packing::Gzip);
        (tar, packed)
    });
    let small = Layer::new("etc/\netc/a=1").packed(Packing::Gzip);
    Image::new("app:1").with(small).with(Layer::of_tar(tar.clone()).packed(Packing::Gzip).stored(packed.clone()))
}

/// A digest of nothing that is there.
const OTHER: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";

/// What of a blob may be on its way when a client leaves.
const BUFFERS: u64 = 8 << 20;

/// A registry with the image as app:1, and a folder to run in.
struct Scene {
    env: TestEnv,
    registry: Registry,
    image: Image,
    /// The manifest's digest.
    digest: String,
}

impl Scene {
    fn new() -> Self {
        let (env, registry, image) = (env(), Registry::start(), image());
        let digest = registry.push_image(&image, "app", "1");
        env.write("whole.tar", docker_archive(std::slice::from_ref(&image)).bytes());
        Self { env, registry, image, digest }
    }

    fn large(&self) -> Vec<u8> {
        self.image.layers[1].bytes()
    }

    /// Puts digests and hosts in the place of their names.
    fn fill(&self, text: &str) -> String {
        let digest = |n: usize| longshore_testkit::digest(&self.image.layers[n].bytes());
        text.replace("LARGE", &digest(1))
            .replace("SMALL", &digest(0))
            .replace("CONFIG", &self.image.id())
            .replace("DIGEST", &self.digest)
            .replace("HEX", &self.digest["sha256:".len()..])
            .replace("HOST", &self.registry.host())
    }

    fn fault(&self, mut fault: Fault) {
        fault.when = self.fill(&fault.when);
        self.registry.fault(fault);
    }

    /// Runs the binary with an idle time of two seconds.
    fn run(&self, args: &str) -> Ran {
        self.env.run(&format!("--limit idle=2 {}", self.fill(args)))
    }

    #[track_caller]
    fn ok(&self, args: &str) -> Ran {
        self.env.ok(&format!("--limit idle=2 {}", self.fill(args)))
    }

    #[track_caller]
    fn fails(&self, args: &str, says: &[&str]) -> Ran {
        let says: Vec<String> = says.iter().map(|text| self.fill(text)).collect();
        let (start, output) = (Instant::now(), if self.env.path("out.tar").exists() { "another.tar" } else { "out.tar" });
        let ran = self.run(args);
        let (stdout, stderr, code, command) = (ran.stdout.clone(), ran.stderr.clone(), ran.code, ran.command.clone());
        let wrong = assert_rejected(&self.env, args, ran, start.elapsed(), &says, output);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ran { code, stdout, stderr, command }
    }

    fn count(&self, when: &str) -> usize {
        self.registry.asked(&self.fill(when)).len()
    }

    /// What must hold whatever goes wrong: nobody else sees who asks, and no blob is read far past its size.
    fn promises(&self) -> Vec<String> {
        let size = self.large().len() as u64;
        let mut wrong = Vec::new();
        for asked in self.registry.log() {
            if asked.listener == Listener::Elsewhere && (asked.header("authorization").is_some() || asked.header("cookie").is_some()) {
                wrong.push(format!("another host saw Authorization: {}", asked.line()));
            }
            if asked.sent > size + BUFFERS {
                wrong.push(format!("{} bytes were taken of {}", asked.sent, asked.line()));
            }
        }
        wrong
    }
}

/// What must come of a row.
enum End {
    /// The right output.
    Done,
    /// One sentence that mentions these, and no output.
    Fails(&'static [&'static str]),
}

/// One thing that goes wrong.
struct Row {
    name: &'static str,
    faults: Vec<Fault>,
    /// A request, and how often it may be made.
    asked: (&'static str, RangeInclusive<usize>),
    end: End,
}

fn row(name: &'static str, fault: Fault, asked: RangeInclusive<usize>, end: End) -> Row {
    // The request that goes wrong is the one that is counted.
    let when: &'static str = Box::leak(fault.when.clone().into_boxed_str());
    Row { name, faults: vec![fault], asked: (when, asked), end }
}

impl Row {
    fn and(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}

/// How long a row may take: some attempts, each of which may be silent for two seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sets a row up, runs it and lists what is wrong with what came of it.
fn play(row: &Row, args: &str, prepare: impl Fn(&Scene), finished: impl Fn(&Scene) -> Vec<String>) -> Vec<String> {
    let scene = Scene::new();
    scene.registry.elsewhere("127.0.0.1");
    prepare(&scene);
    for fault in &row.faults {
        scene.fault(fault.clone());
    }
    let start = Instant::now();
    let ran = scene.run(args);
    let took = start.elapsed();
    let (when, times) = &row.asked;
    let (count, said) = (scene.count(when), ran.stderr.trim().to_owned());
    let mut wrong = scene.promises();
    if took > PATIENCE {
        wrong.push(format!("it took {took:?}"));
    }
    if !times.contains(&count) {
        let log: Vec<String> = scene.registry.log().iter().map(|asked| format!("{} {}", asked.line(), asked.status)).collect();
        wrong.push(format!("{when}: {count} requests, not {times:?}\n    {}", log.join("\n    ")));
    }
    match row.end {
        End::Done if ran.code != Some(0) => wrong.push("it should succeed".to_owned()),
        End::Done => wrong.extend(finished(&scene)),
        End::Fails(says) => {
            let says: Vec<String> = says.iter().map(|text| scene.fill(text)).collect();
            wrong.extend(assert_rejected(&scene.env, row.name, ran, took, &says, "out.tar"));
        }
    }
    let left = scene.env.leftovers();
    if !left.is_empty() {
        wrong.push(format!("it left {left:?}"));
    }
    wrong.iter().map(|what| format!("{} ({args}): {what}\n    it said: {said}", row.name)).collect()
}

/// Plays all rows, a few side by side, since most of their time is spent waiting.
fn play_all(rows: &[Row], args: &str, prepare: impl Fn(&Scene) + Sync, finished: impl Fn(&Scene) -> Vec<String> + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut wrong = Vec::new();
                    while let Some(row) = rows.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                        wrong.extend(play(row, args, &prepare, &finished));
                    }
                    wrong
                })
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {} rows went wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// What is wrong with `out.tar`, which should hold the image.
fn is_whole(scene: &Scene) -> Vec<String> {
    let (made, expected) = (facts(&scene.env.path("out.tar")).essence(), facts(&scene.env.path("whole.tar")).essence());
    if made == expected { Vec::new() } else { vec!["the output is not the image".to_owned()] }
}

/// An answer with a fixed clock, and a date two seconds later.
fn busy_until_a_date() -> What {
    let headers = vec![("Date", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()), ("Retry-After", "Sun, 06 Nov 1994 08:49:39 GMT".to_owned())];
    What::Answer { status: 503, headers, body: Vec::new() }
}

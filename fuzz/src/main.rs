//! A fuzz harness for stable Rust: `cargo run -p longshore-fuzz --release -- [--seconds N] [TARGET...]`.
//!
//! Each target gets the same share of the time and its own stream of damaged seeds, which the printed seed repeats. A panic, or an input
//! that takes over five seconds, ends the run with exit code 1; the input is then in a file, and `--replay` runs it again. What kills the
//! process itself (a stack overflow) leaves no file: `--trace` writes every input before it runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever runs it")]

mod mutate;
mod seeds;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mutate::{Random, mutate};
use targets::{TARGETS, Target};

/// How long one input may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the command line asks for.
struct Options {
    seconds: f64,
    seed: u64,
    artifacts: PathBuf,
    trace: bool,
    replay: Vec<PathBuf>,
    targets: Vec<&'static Target>,
}

impl Options {
    fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |now| now.as_secs());
        let mut options =
            Self { seconds: 60.0, seed: clock, artifacts: std::env::temp_dir(), trace: false, replay: Vec::new(), targets: Vec::new() };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--seconds" => options.seconds = value()?.parse().map_err(|e| format!("--seconds: {e}"))?,
                "--seed" => options.seed = value()?.parse().map_err(|e| format!("--seed: {e}"))?,
                "--artifacts" => options.artifacts = value()?.into(),
                "--replay" => options.replay.push(value()?.into()),
                "--trace" => options.trace = true,
                name => {
                    let known = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
                    options.targets.push(
                        TARGETS
                            .iter()
                            .find(|target| target.name == name)
                            .ok_or_else(|| format!("no target {name}; there are {}", known()))?,
                    );
                }
            }
        }
        if options.targets.is_empty() {
            options.targets = TARGETS.iter().collect();
        }
        Ok(options)
    }
}

/// What a worker is running now, for the watch over time.
#[derive(Default)]
struct Slot(Mutex<Option<(Instant, &'static str, Vec<u8>)>>);

/// An input that a target did not survive.
struct Finding {
    target: &'static str,
    input: Vec<u8>,
    why: String,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("longshore-fuzz: {error}");
            return ExitCode::from(2);
        }
    };
    // Its message comes with the finding.
    std::panic::set_hook(Box::new(|_| {}));
    if !options.replay.is_empty() {
        return replay(&options);
    }
    println!("seed {}", options.seed);
    match fuzz(&options) {
        None => ExitCode::SUCCESS,
        Some(finding) => {
            let path = save(&options.artifacts, &finding);
            println!("{}: {}", finding.target, finding.why);
            println!(
                "the input ({} bytes) is in {}; again: longshore-fuzz {} --replay {}",
                finding.input.len(),
                path.display(),
                finding.target,
                path.display()
            );
            ExitCode::FAILURE
        }
    }
}

/// Runs every target for its share of the time and gives the first finding.
fn fuzz(options: &Options) -> Option<Finding> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(options.targets.len()).max(1);
    let rounds = options.targets.len().div_ceil(threads).max(1);
    let share = Duration::from_secs_f64(options.seconds / rounds as f64);
    let (next, stop, found) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let slots: Vec<Slot> = (0..threads).map(|_| Slot::default()).collect();
    let report = |finding: Finding| {
        found.lock().expect("no one panics with it").get_or_insert(finding);
        stop.store(true, Ordering::Relaxed);
    };
    let working = AtomicUsize::new(threads);
    std::thread::scope(|scope| {
        for (number, slot) in slots.iter().enumerate() {
            let (next, stop, working, report) = (&next, &stop, &working, &report);
            scope.spawn(move || {
                while let Some(target) = options.targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(finding) = run(target, share, options, slot, stop, number) {
                        report(finding);
                    }
                }
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        // The watch: a thread cannot be stopped, so an input that never ends takes the process with it.
        while working.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(20));
            for slot in &slots {
                let running = slot.0.lock().expect("no one panics with it");
                if let Some((since, target, input)) = running.as_ref().filter(|(since, ..)| since.elapsed() > PATIENCE) {
                    let finding = Finding { target, input: input.clone(), why: format!("an input runs for over {:?}", since.elapsed()) };
                    let path = save(&options.artifacts, &finding);
                    println!("{target}: {}; the input is in {}", finding.why, path.display());
                    #[allow(clippy::exit, reason = "the thread that hangs would keep the process alive")]
                    std::process::exit(1);
                }
            }
        }
    });
    found.into_inner().expect("no one panics with it")
}

/// Runs one target for `share`.
fn run(target: &'static Target, share: Duration, options: &Options, slot: &Slot, stop: &AtomicBool, number: usize) -> Option<Finding> {
    let seeds = target.seeds.collect();
    let mut random = Random::new(options.seed, target.name);
    let start = Instant::now();
    let mut count: u64 = 0;
    let trace = options.artifacts.join(format!("trace-{number}"));
    while start.elapsed() < share && !stop.load(Ordering::Relaxed) {
        // The seeds as they are come first.
        let input = usize::try_from(count).ok().and_then(|at| seeds.get(at).cloned()).unwrap_or_else(|| mutate(&mut random, &seeds));
        if options.trace {
            std::fs::write(&trace, &input).expect("the trace can be written");
        }
        let input = watched(slot, target.name, input, |input| call(target, input));
        count += 1;
        if let Err((input, why)) = input {
            return Some(Finding { target: target.name, input, why });
        }
    }
    println!(
        "{}: {count} executions in {:.1} s, {:.0} a second",
        target.name,
        start.elapsed().as_secs_f64(),
        count as f64 / start.elapsed().as_secs_f64().max(0.001)
    );
    None
}

/// Runs an input while the watch can see it, and gives it back with what went wrong.
fn watched(
    slot: &Slot,
    name: &'static str,
    input: Vec<u8>,
    call: impl FnOnce(&[u8]) -> Result<(), String>,
) -> Result<(), (Vec<u8>, String)> {
    *slot.0.lock().expect("no one panics with it") = Some((Instant::now(), name, input.clone()));
    let result = call(&input);
    *slot.0.lock().expect("no one panics with it") = None;
    result.map_err(|why| (input, why))
}

fn call(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("panicked: {}", text.unwrap_or("with something that is no text"))
    })
}

/// Writes an input where it can be replayed from.
fn save(folder: &Path, finding: &Finding) -> PathBuf {
    let path = folder.join(format!("{}-{}", finding.target, &longshore_testkit::hex(&finding.input)[..12]));
    if let Err(error) = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, &finding.input)) {
        eprintln!("the input cannot be written to {}: {error}", path.display());
    }
    path
}

fn replay(options: &Options) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for path in &options.replay {
        let input = match std::fs::read(path) {
            Ok(input) => input,
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::from(2);
            }
        };
        for target in &options.targets {
            let start = Instant::now();
            match call(target, &input) {
                Ok(()) => println!("{}: survives {} in {:?}", target.name, path.display(), start.elapsed()),
                Err(why) => {
                    println!("{}: {} {why}", target.name, path.display());
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::Seeds;

    fn options(target: &'static Target) -> Options {
        let folder = std::env::temp_dir().join(format!("longshore-fuzz-test-{}", std::process::id()));
        Options { seconds: 20.0, seed: 1, artifacts: folder, trace: false, replay: Vec::new(), targets: vec![target] }
    }

    #[test]
    fn a_panic_is_found_with_its_input() {
        static FRAGILE: Target = Target {
            name: "fragile",
            run: |input| assert!(!input.windows(2).any(|pair| pair == b"\xff\xff"), "two of them"),
            seeds: Seeds::References,
        };
        let finding = fuzz(&options(&FRAGILE)).expect("a target that fails on a token of the dictionary is soon found to fail");
        assert!(finding.input.windows(2).any(|pair| pair == b"\xff\xff"));
        assert!(finding.why.contains("two of them"), "{}", finding.why);
    }

    #[test]
    fn names_are_unique_and_every_kind_of_seed_has_some() {
        let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        names.sort_unstable();
        assert!(!names.is_empty() && names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for kind in [
            Seeds::Archives,
            Seeds::Compressed,
            Seeds::Dirs,
            Seeds::Json,
            Seeds::Layers,
            Seeds::Layouts,
            Seeds::Locations,
            Seeds::Names,
            Seeds::References,
            Seeds::Streams,
        ] {
            assert!(kind.collect().len() > 3, "{kind:?}");
        }
    }

    #[test]
    fn every_target_survives_its_seeds() {
        for target in TARGETS {
            for seed in target.seeds.collect() {
                assert_eq!(call(target, &seed), Ok(()), "{}", target.name);
            }
        }
    }

    #[test]
    fn the_command_line() {
        let parse = |args: &str| Options::parse(args.split_whitespace().map(str::to_owned));
        let Ok(options) = parse("--seconds 1.5 --seed 7 digest") else { panic!("it is right") };
        assert_eq!((options.seconds, options.seed, options.targets.len()), (1.5, 7, 1));
        assert!(parse("--seconds").is_err() && parse("nonsense").is_err());
    }
}

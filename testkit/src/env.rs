//! A temporary folder and the binary under test, run in it with a clean environment and a time limit.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use tempfile::TempDir;

/// How long one run of the binary may take before the test fails. The slowest takes some seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A temporary folder in which the binary runs.
#[derive(Debug)]
pub struct TestEnv {
    folder: TempDir,
    binary: PathBuf,
}

/// What one run of the binary did.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// The command line, for messages.
    pub command: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("standard output is UTF-8")
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("`{}` did not print JSON: {e}\n{}", self.command, String::from_utf8_lossy(&self.stdout)))
    }

    /// Asserts the exit code, and that nothing panicked.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert!(!self.stderr.contains("panicked at"), "`{}` panicked:\n{}", self.command, self.stderr);
        assert_eq!(self.code, Some(code), "the exit code of `{}`; it said:\n{}", self.command, self.stderr);
        self
    }

    /// Asserts that standard error mentions each of `parts`.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "`{}` does not mention {part:?}:\n{}", self.command, self.stderr);
        }
        self
    }
}

impl TestEnv {
    /// Makes an empty folder for runs of `binary`, in a test `env!("CARGO_BIN_EXE_longshore")`.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self { folder: lower_case_folder(), binary: binary.into() }
    }

    /// The folder, or something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Reads a file of the folder.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Copies a fixture into the folder as `name`.
    pub fn fixture(&self, fixture: &str, name: &str) -> PathBuf {
        let path = self.path(name);
        crate::copy_tree(&crate::fixture(fixture), &path);
        path
    }

    /// A command that runs the binary in the folder: no configuration, no terminal, no proxies, temporary files in the folder as well.
    pub fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.folder.path()).env("TMPDIR", self.folder.path()).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs the binary with `args`, which white space separates.
    pub fn run(&self, args: &str) -> Ran {
        finish(self.command(args.split_whitespace()), Vec::new())
    }

    /// Runs the binary with `input` on a pipe.
    pub fn run_with_input(&self, args: &str, input: &[u8]) -> Ran {
        let mut command = self.command(args.split_whitespace());
        command.stdin(Stdio::piped());
        finish(command, input.to_vec())
    }

    /// Runs the binary and asserts that it succeeds and leaves no temporary file.
    #[track_caller]
    pub fn ok(&self, args: &str) -> Ran {
        let ran = self.run(args).exited(0);
        self.assert_no_leftovers();
        ran
    }

    /// Runs the binary and asserts that it fails with `code`, says why and leaves no temporary file.
    #[track_caller]
    pub fn fails(&self, code: i32, args: &str) -> Ran {
        let ran = self.run(args).exited(code);
        assert!(!ran.stderr.trim().is_empty(), "`{}` failed without a word", ran.command);
        self.assert_no_leftovers();
        ran
    }

    /// Asserts that no file that the binary makes for the time of its run is left anywhere in the folder.
    #[track_caller]
    pub fn assert_no_leftovers(&self) {
        let left: Vec<String> = self.leftovers();
        assert!(left.is_empty(), "temporary files were left: {left:?}");
    }

    /// Temporary files and folders of the binary that are there now.
    pub fn leftovers(&self) -> Vec<String> {
        fn walk(path: &Path, left: &mut Vec<String>) {
            // What disappears while one looks is what should disappear.
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(".longshore-") || name.starts_with(".tmp") {
                    left.push(name);
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    walk(&entry.path(), left);
                }
            }
        }
        let mut left = Vec::new();
        walk(self.folder.path(), &mut left);
        left.sort();
        left
    }
}

/// Runs `command` to its end, feeding it `input` if its standard input is a pipe.
pub fn finish(mut command: Command, input: Vec<u8>) -> Ran {
    let shown = show(&command);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("cannot run {shown}: {e}"));
    if let Some(mut stdin) = child.stdin.take() {
        std::thread::spawn(move || {
            // A program may stop reading whenever it likes.
            let _ = stdin.write_all(&input);
        });
    }
    wait(child, shown)
}

/// Waits for a child whose output is piped, for as long as a test may wait.
pub fn wait(mut child: Child, command: String) -> Ran {
    fn collect(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        })
    }
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("`{command}` did not end within {PATIENCE:?}");
        }
        std::thread::sleep(if start.elapsed() < Duration::from_millis(200) { Duration::from_millis(1) } else { Duration::from_millis(10) });
    };
    let stderr = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
    Ran { code: status.code(), stdout: stdout.join().unwrap(), stderr, command }
}

/// The command line as one would type it.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(program).chain(command.get_args().map(|arg| arg.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

/// SIGINT, what Ctrl-C sends.
pub const INT: Signal = Signal::INT;
/// SIGTERM, what service managers send.
pub const TERM: Signal = Signal::TERM;

/// Sends `signal` to a child.
pub fn signal(child: &Child, signal: Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Sends SIGINT, what Ctrl-C sends.
pub fn interrupt(child: &Child) {
    signal(child, INT);
}

/// Reads exactly `len` bytes, or all there are.
pub fn read_some(pipe: &mut impl std::io::Read, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.take(len as u64).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A folder whose path is a valid repository name: podman names what it loads from a folder after its path.
fn lower_case_folder() -> TempDir {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let prefix = format!("longshore-test-{}-{number}", std::process::id());
    tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir().unwrap()
}

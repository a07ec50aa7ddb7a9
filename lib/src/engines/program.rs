//! An engine's program that reads an archive from its standard input: `podman load`, `ctr images import -`.
//!
//! An archive that breaks off ends with bytes that no archive has, so that nobody takes it for complete, and the program is given a moment to
//! find that out and to tidy up. podman copies the archive to its temporary folder, and leaves it there when it is stopped: it gets one of its
//! own, which goes with it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::context::{Cancel, Context};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::format::{self, Format, WriteOptions};
use crate::pool::lock;
use crate::sink::{Accepts, Sink};
use crate::spool::Temporary;
use crate::tar::BLOCK;
use crate::transport::{Destination, FinishWrite, Given, PollWrite};

use super::{Late, ToEngine};

const SLICE: Duration = Duration::from_millis(20);
/// How much of what a program says is kept: its end.
const SAID: usize = 16 << 10;
/// How long a program may tidy up: first by itself, and then when it is told to end.
const TIDY: Duration = Duration::from_millis(500);
/// What ends an archive that is none: headers whose checksum is wrong.
const BROKEN_OFF: [u8; 2 * BLOCK] = [0xff; 2 * BLOCK];

/// A program that loads the archive on its standard input, and is done when that ends.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it is called in IMAGEs and messages.
    pub name: &'static str,
    /// The program: a path, or a name that is looked for on the path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What it reads.
    pub format: &'static dyn Format,
}

impl Program {
    /// `podman load`, with options of podman's own before it.
    pub fn podman(program: PathBuf, options: impl IntoIterator<Item = OsString>) -> Self {
        let args = options.into_iter().chain(["load".into()]).collect();
        Self { name: "podman", program, args, format: &format::docker_archive::DockerArchive }
    }

    /// `ctr images import`, with options of ctr's own (`--address`) before it.
    pub fn containerd(program: PathBuf, options: impl IntoIterator<Item = OsString>, namespace: &str) -> Self {
        let own = ["--namespace", namespace, "images", "import", "--all-platforms", "-"].map(OsString::from);
        let args = options.into_iter().chain(own).collect();
        Self { name: "containerd", program, args, format: &format::docker_archive::DockerArchive }
    }

    /// What it takes.
    pub fn accepts(&self, options: &WriteOptions) -> Accepts {
        Accepts { format: self.name, ..self.format.accepts(options) }
    }

    /// Starts it. What is written goes to it at once; dropped before it is complete, the archive that the program sees is a broken one.
    ///
    /// # Errors
    /// When it is not there, or cannot be started.
    pub fn create(&self, options: &WriteOptions, ctx: &Context) -> Result<Box<dyn Sink>> {
        let late = Late::default();
        let temporary = Temporary::dir(&scratch(&ctx.temp)).context(|| self.name)?;
        let running = Running::start(self, Some(temporary), &ctx.cancel, late.clone()).context(|| self.name)?;
        let given = Destination::Given(Given::new(Box::new(running), self.program.display().to_string()));
        let archive = self.format.create(&format::Target::Archive(given), options, ctx)?;
        Ok(Box::new(ToEngine { archive, late, name: self.name }))
    }
}

/// The program while it reads.
struct Running {
    child: Child,
    stdin: Option<PollWrite>,
    /// The end of what it says, and who keeps it.
    said: Arc<Mutex<Vec<u8>>>,
    listener: Option<JoinHandle<()>>,
    cancel: Cancel,
    late: Late,
    /// Its temporary folder, removed when it has ended.
    _temporary: Option<Temporary>,
}

impl Running {
    fn start(program: &Program, temporary: Option<Temporary>, cancel: &Cancel, late: Late) -> Result<Self> {
        let mut command = Command::new(&program.program);
        command.args(&program.args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.envs(temporary.as_ref().map(|temporary| ("TMPDIR", temporary.path())));
        let mut child = command.spawn().map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let error = Error::io(error).frame(program.program.display());
            if missing { error.hint("it is not installed, or not on the path") } else { error }
        })?;
        let stdin = child.stdin.take().map(|stdin| PollWrite::pipe(OwnedFd::from(stdin))).transpose()?;
        let stderr = child.stderr.take();
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&said);
        let listen = move || stderr.into_iter().for_each(|stderr| listen(stderr, &kept));
        let listener = std::thread::Builder::new().name("stderr".to_owned()).spawn(listen).ok();
        Ok(Self { child, stdin, said, listener, cancel: cancel.clone(), late, _temporary: temporary })
    }

    /// What it said. Whom it started may hold its standard error open for longer than it lives: only a little is waited for more.
    fn said(&self) -> Vec<u8> {
        let start = Instant::now();
        while self.listener.as_ref().is_some_and(|listener| !listener.is_finished()) && start.elapsed() < TIDY {
            std::thread::sleep(SLICE);
        }
        lock(&self.said).clone()
    }

    /// Waits a little for its end.
    fn ends(&mut self) -> bool {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(None) if start.elapsed() < TIDY => std::thread::sleep(SLICE),
                Ok(status) => return status.is_some(),
                Err(_) => return false,
            }
        }
    }

    /// Waits for its end, and says what it says where it fails.
    fn wait(&mut self) -> Result<()> {
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(Error::io)? {
                break status;
            }
            self.late.get().unwrap_or(&self.cancel).poll()?;
            std::thread::sleep(SLICE);
        };
        if status.success() { Ok(()) } else { Err(failure(status, &self.said())) }
    }
}

impl Write for Running {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        match stdin.write_unless(bytes, self.late.get().unwrap_or(&self.cancel)) {
            // It ended too early: what it says is what matters.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdin = None;
                self.wait()?;
                Err(Error::new(ErrorKind::Unavailable, "it did not read all").into())
            }
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FinishWrite for Running {
    fn finish(&mut self) -> io::Result<()> {
        self.stdin = None;
        Ok(self.wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            // Where the pipe is full, what is in it breaks off in any case.
            let _ = stdin.try_write(&BROKEN_OFF);
        }
        if self.ends() {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !self.ends() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Where the temporary folder of a program lies: like podman's own not in `/tmp`, which may be memory, where nobody said so.
fn scratch(temp: &Path) -> PathBuf {
    let large = Path::new("/var/tmp");
    if temp == Path::new("/tmp") && large.is_dir() { large.to_owned() } else { temp.to_owned() }
}

/// Reads all, and keeps the end.
fn listen(mut stderr: impl Read, said: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut kept = lock(said);
                kept.extend_from_slice(&buffer[..count]);
                let surplus = kept.len().saturating_sub(SAID);
                kept.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn failure(status: ExitStatus, said: &[u8]) -> Error {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let line = line.map(|line| line.trim_start_matches("Error: ").trim_start_matches("ctr: "));
    Error::new(ErrorKind::Unavailable, line.map_or_else(|| format!("it ended with {status}"), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(script: &str, cancel: &Cancel) -> Running {
        let args = ["-c".into(), script.into()].into();
        let program = Program { name: "test", program: "/bin/sh".into(), args, format: &format::docker_archive::DockerArchive };
        Running::start(&program, None, cancel, Late::default()).unwrap()
    }

    #[test]
    fn what_a_program_leaves_in_its_temporary_folder_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo copy > $TMPDIR/copy; mkdir $TMPDIR/more; cat > /dev/null";
        let program = Program {
            name: "test",
            program: "/bin/sh".into(),
            args: ["-c".into(), script.into()].into(),
            format: &format::docker_archive::DockerArchive,
        };
        for ends in [true, false] {
            let temporary = Temporary::dir(dir.path()).unwrap();
            let mut running = Running::start(&program, Some(temporary), &Cancel::default(), Late::default()).unwrap();
            running.write_all(b"bytes").unwrap();
            if ends {
                running.finish().unwrap();
            }
            drop(running);
            assert_eq!(crate::testing::names(dir.path()), Vec::<String>::new(), "{ends}");
        }
        assert_eq!(scratch(Path::new("/elsewhere")), Path::new("/elsewhere"));
    }

    #[test]
    fn what_a_program_reads_and_says() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut good = running(&format!("cat > {}; echo all is well >&2", out.display()), &Cancel::default());
        good.write_all(&[7; 1 << 20]).unwrap();
        good.finish().unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), [7; 1 << 20]);
        for (script, says) in [
            ("cat > /dev/null; echo one >&2; echo 'Error: two' >&2; echo >&2; exit 3", "two"),
            ("cat > /dev/null; exit 3", "it ended with exit status: 3"),
            ("echo full >&2; exit 1", "full"),
            ("exit 0", "it did not read all"),
        ] {
            let mut bad = running(script, &Cancel::default());
            let done = bad.write_all(&[0; 4 << 20]).and_then(|()| bad.finish());
            assert_eq!(Error::io(done.unwrap_err()).to_string(), says, "{script}");
        }
    }

    #[test]
    fn whom_it_leaves_behind_is_not_waited_for() {
        for (script, fails) in [("cat > /dev/null; sleep 20 & exit 0", false), ("cat > /dev/null; echo no >&2; sleep 20 & exit 1", true)] {
            let start = Instant::now();
            let done = running(script, &Cancel::default()).finish();
            assert_eq!(done.err().map(|error| Error::io(error).to_string()), fails.then(|| "no".to_owned()), "{script}");
            assert!(start.elapsed() < Duration::from_secs(10), "{script}");
        }
    }

    #[test]
    fn an_archive_that_breaks_off_looks_so() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut dropped = running(&format!("cat > {}", out.display()), &Cancel::default());
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read(&out).unwrap(), [&b"half"[..], &BROKEN_OFF].concat());
    }

    #[test]
    fn cancelling_ends_the_waiting() {
        let cancel = Cancel::default();
        let mut slow = running("sleep 5", &cancel);
        let stop = cancel.clone();
        let start = Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            stop.cancel();
        });
        let error = Error::io(slow.write_all(&[0; 4 << 20]).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        drop(slow);
        assert!(start.elapsed() < Duration::from_millis(1500));
    }

    #[test]
    fn a_program_that_is_not_there() {
        let program = Program::podman("/nowhere/podman".into(), []);
        let error = program.create(&WriteOptions::default(), &crate::testing::context(std::path::Path::new("."))).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "podman: /nowhere/podman: No such file or directory");
        assert!(error.hint_text().unwrap().contains("not installed"));
    }
}

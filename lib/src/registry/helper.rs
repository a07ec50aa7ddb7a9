//! Credential helpers, programs that know passwords: `docker-credential-NAME VERB`, asked on standard input, answering on standard output.
//!
//! Follows the protocol of docker-credential-helpers. What such a program says is bounded, and so is the time that it may take; whoever waits
//! for it can be stopped. What it starts itself and leaves behind (an agent, say) is not waited for.

use std::io::{self, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::context::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::lock;

/// The longest answer. Identity tokens have some thousand bytes.
const ANSWER: usize = 1 << 20;
/// How long it may take: somebody may have to open a key ring by hand.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long what it said is waited for when it has ended.
const AFTER: Duration = Duration::from_millis(500);
const SLICE: Duration = Duration::from_millis(10);

/// The program of a name.
pub(super) fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// Runs the program of a name: the request goes in, the answer comes out; `None` when it knows nothing.
pub(super) fn ask(name: &str, verb: &str, request: &str, cancel: &Cancel) -> Result<Option<String>> {
    let program = program(name);
    if name.contains(['/', '\0']) {
        return Err(Error::invalid("a credential helper is a name, not a path").frame(program.escape_debug()));
    }
    let mut command = Command::new(&program);
    command.arg(verb);
    let mut asked = Asked::start(command, request.to_owned()).map_err(|error| {
        let hint = format!("install it, or take {name} out of the file that names it");
        Error::io(error).frame(format_args!("running {program}")).hint(hint)
    })?;
    let frame = |error: Error| if error.kind() == ErrorKind::Cancelled { error } else { error.frame(format_args!("{program} {verb}")) };
    let status = asked.wait(cancel, PATIENCE).map_err(frame)?;
    let said = asked.stdout.text();
    if status.success() {
        return Ok(Some(said));
    }
    // The words of docker-credential-helpers' `errCredentialsNotFoundMessage`.
    if said.contains("credentials not found in native keychain") {
        return Ok(None);
    }
    let said = if said.trim().is_empty() { asked.stderr.text() } else { said };
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned();
    Err(frame(Error::new(ErrorKind::Denied, said)))
}

/// A program while it thinks; dropped, it is ended.
struct Asked {
    child: Child,
    stdout: Heard,
    stderr: Heard,
}

impl Asked {
    fn start(mut command: Command, request: String) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let (stdout, stderr) = (Heard::listen(child.stdout.take()), Heard::listen(child.stderr.take()));
        let asked = Self { child, stdout: stdout?, stderr: stderr? };
        // One that does not read what it is asked says so by how it ends.
        let tell = move || stdin.map(|mut stdin| stdin.write_all(request.as_bytes()));
        thread::Builder::new().name("request".to_owned()).spawn(tell)?;
        Ok(asked)
    }

    /// Waits until it has ended and said all.
    fn wait(&mut self, cancel: &Cancel, patience: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(Error::io)? {
                break status;
            }
            cancel.poll()?;
            if self.stdout.is_full() {
                return Err(Error::limit(format_args!("its answer has more than {ANSWER} bytes")));
            }
            if Instant::now() >= end {
                return Err(Error::new(ErrorKind::Denied, format!("it gave no answer within {} seconds", patience.as_secs())));
            }
            thread::sleep(SLICE);
        };
        let end = Instant::now() + AFTER;
        while !(self.stdout.is_done() && self.stderr.is_done()) && Instant::now() < end {
            thread::sleep(SLICE);
        }
        match self.stdout.is_full() {
            true => Err(Error::limit(format_args!("its answer has more than {ANSWER} bytes"))),
            false => Ok(status),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // What has ended cannot be ended again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one of its outputs says, heard by a thread that nobody has to wait for.
struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Heard {
    fn listen(from: Option<impl Read + Send + 'static>) -> io::Result<Self> {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&bytes);
        let listen = move || {
            let Some(from) = from else { return };
            let (mut from, mut buffer) = (from.take(ANSWER as u64 + 1), [0; 4096]);
            // What cannot be read any more is not said.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                lock(&kept).extend_from_slice(&buffer[..count]);
            }
        };
        Ok(Self { bytes, thread: thread::Builder::new().name("answer".to_owned()).spawn(listen)? })
    }

    fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    fn is_full(&self) -> bool {
        lock(&self.bytes).len() > ANSWER
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, cancel: &Cancel, patience: Duration) -> Result<(bool, String)> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut asked = Asked::start(command, "host\n".to_owned()).map_err(Error::io)?;
        let status = asked.wait(cancel, patience)?;
        Ok((status.success(), asked.stdout.text()))
    }

    #[test]
    fn what_it_says_and_how_it_ends() {
        let never = Cancel::default();
        for (script, expected) in [("cat", (true, "host\n")), ("echo no; exit 3", (false, "no\n")), ("exit 0", (true, ""))] {
            assert_eq!(run(script, &never, PATIENCE).unwrap(), (expected.0, expected.1.to_owned()), "{script}");
        }
        let large = format!("head -c {} /dev/zero", ANSWER + 1);
        assert_eq!(run(&large, &never, PATIENCE).unwrap_err().kind(), ErrorKind::Limit);
    }

    #[test]
    fn nobody_waits_for_one_that_never_ends() {
        let start = Instant::now();
        let error = run("sleep 20", &Cancel::default(), Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(run("yes", &Cancel::default(), PATIENCE).unwrap_err().kind(), ErrorKind::Limit);
        // Whom it leaves behind keeps its output open.
        assert_eq!(run("cat; sleep 20 &", &Cancel::default(), PATIENCE).unwrap().1, "host\n");
        let cancel = Cancel::default();
        let stop = cancel.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            stop.cancel();
        });
        assert_eq!(run("sleep 20", &cancel, PATIENCE).unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    }
}

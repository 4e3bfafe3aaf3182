//! Commands with a deadline, and what became of them.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long any single command may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    command: String,
    /// Its exit status; 128 + n where signal n ended it.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// What it printed; the test fails where the command did.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self}");
        self.stdout
    }

    /// What it complained about; the test fails unless it ended with this status.
    #[track_caller]
    pub(crate) fn fails_with(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self}");
        assert!(
            !self.stderr.trim().is_empty(),
            "it failed without a word: {self}"
        );
        self.stderr
    }

    /// Whether it went well, in the words that `eventually` wants.
    pub(crate) fn check(self) -> Result<String, String> {
        if self.status == 0 {
            Ok(self.stdout)
        } else {
            Err(self.to_string())
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.status, self.stdout, self.stderr
        )
    }
}

/// Runs a command to its end, with nothing on its standard input.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Outcome {
    Running::start(command, None).wait(DEADLINE)
}

/// Runs a command to its end, with a text on its standard input.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Outcome {
    Running::start(command, Some(input.to_owned())).wait(DEADLINE)
}

/// A program that a test compares weft with; missing, it fails the test and says what installs it.
#[track_caller]
pub(crate) fn peer(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/sbin:/sbin");
    assert!(
        std::env::split_paths(&path).any(|folder| folder.join(program).exists()),
        "{program} is missing; install it with: scripts/setup.sh --test"
    );
    let mut command = Command::new(program);
    command.env("PATH", path);
    command
}

/// A command that is under way; its output is read all the time, so that it never waits for us.
#[derive(Debug)]
pub(crate) struct Running {
    title: String,
    child: Child,
    stdout: Reader,
    stderr: Reader,
}

/// What a pipe has given so far.
#[derive(Debug)]
struct Reader {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command, input: Option<String>) -> Self {
        let title = title(command);
        let stdin = if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("`{title}` did not start: {error}"));
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            // A command that fails early does not read it.
            let _ = stdin.write_all(text.as_bytes());
        }
        let stdout = Reader::start(child.stdout.take().expect("it is piped"));
        let stderr = Reader::start(child.stderr.take().expect("it is piped"));
        Self {
            title,
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Waits for its end; a command past its deadline is killed, and fails the test.
    #[track_caller]
    pub(crate) fn wait(self, deadline: Duration) -> Outcome {
        let (outcome, in_time) = self.end(deadline);
        assert!(in_time, "not done after {deadline:?}: {outcome}");
        outcome
    }

    /// Ends it, and gives what it has printed.
    pub(crate) fn kill(mut self) -> Vec<u8> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.stdout.end()
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> Vec<u8> {
        self.stdout
            .bytes
            .lock()
            .expect("nobody panics with it")
            .clone()
    }

    fn end(mut self, deadline: Duration) -> (Outcome, bool) {
        let until = Instant::now() + deadline;
        let (status, in_time) = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break (status, true);
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                break (self.child.wait().expect("our child"), false);
            }
            thread::sleep(Duration::from_millis(5));
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let outcome = Outcome {
            command: self.title.clone(),
            status: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: text(self.stdout.end()),
            stderr: text(self.stderr.end()),
        };
        (outcome, in_time)
    }
}

/// A test that fails leaves nothing running.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Reader {
    fn start(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let mut chunk = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut chunk) {
                shared
                    .lock()
                    .expect("nobody panics with it")
                    .extend_from_slice(&chunk[..count]);
            }
        });
        Self {
            bytes,
            thread: Some(thread),
        }
    }

    fn end(&mut self) -> Vec<u8> {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        std::mem::take(&mut *self.bytes.lock().expect("nobody panics with it"))
    }
}

fn title(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

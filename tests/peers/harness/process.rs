//! Servers that run for as long as a test, and clients that have to come to an end.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Long enough for a slow machine; nobody waits that long where all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take to end before it is killed.
const FAREWELL: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(20);

/// Repeats `look` until it is true; `what` is what never came otherwise.
pub(crate) fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(TICK);
    }
}

/// A process that leads a group of its own, and whose whole group ends with it.
struct Group {
    child: Child,
    end: Signal,
}

impl Group {
    fn start(command: &mut Command, output: &Path, errors: &Path) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(output).unwrap())
            .stderr(File::create(errors).unwrap())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        Self {
            child,
            end: Signal::SIGTERM,
        }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let _ = killpg(Pid::from_raw(id), signal);
    }

    fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(TICK);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(self.end);
        self.ends_within(FAREWELL);
        // What it started and left behind.
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    group: Group,
    folder: TempDir,
}

impl Server {
    /// Starts it, with an empty folder of its own, and waits until it accepts connections at `address`.
    pub(crate) fn start(address: SocketAddr, command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(folder.path());
        let log = folder.path().join("server.log");
        let group = Group::start(&mut command, &log, &folder.path().join("errors.log"));
        let mut server = Self {
            address,
            group,
            folder,
        };
        until(&format!("{command:?} to listen at {address}"), || {
            let has_ended = server.group.child.try_wait().unwrap().is_some();
            assert!(!has_ended, "{command:?} ended: {}", server.output());
            TcpStream::connect(address).is_ok()
        });
        server
    }

    /// Ends it by this signal rather than by SIGTERM.
    pub(crate) fn ending_by(mut self, signal: Signal) -> Self {
        self.group.end = signal;
        self
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it wrote.
    pub(crate) fn output(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.path().join(name));
        read("server.log").unwrap_or_default() + &read("errors.log").unwrap_or_default()
    }
}

/// What a client said when it had come to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Finished {
    /// Its output, if all went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(
            self.status.success(),
            "{}\n{}\n{}",
            self.status,
            self.output,
            self.errors
        );
        self.output
    }
}

/// Runs a client to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let (output, errors) = (folder.path().join("output"), folder.path().join("errors"));
    let mut group = Group::start(command, &output, &errors);
    let status = group.ends_within(PATIENCE * 3);
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let (output, errors) = (read(&output), read(&errors));
    let status = status.unwrap_or_else(|| panic!("{command:?} does not end\n{output}\n{errors}"));
    Finished {
        status,
        output,
        errors,
    }
}

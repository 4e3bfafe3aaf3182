//! `RUN` of image builds: a command in an overlay, in namespaces of its own, without a network.
//!
//! The same machinery as a container's first process, without shim and sandbox.

use std::io::{self, PipeReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use crate::cgroup::Group;
use crate::container::bundle::{Bundle, Network, Process, Root};
use crate::container::init::capabilities;
use crate::container::launch;
use crate::container::restart::RestartPolicy;
use crate::files;
use crate::image::{ImageError, RunCommand, RunStep};

/// Distinguishes the steps of builds that run at the same time.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// Runs build steps as containers.
#[derive(Debug)]
pub(crate) struct BuildRunner {
    program: PathBuf,
    /// Where bundles and mount points of running steps lie.
    directory: PathBuf,
}

impl BuildRunner {
    pub(crate) fn new(program: &Path, directory: PathBuf) -> BuildRunner {
        BuildRunner {
            program: program.to_owned(),
            directory,
        }
    }

    fn run_in(&self, directory: &Path, step: &mut RunCommand<'_>) -> Result<i32, ImageError> {
        let failed = |reason: String| ImageError::Run { reason };
        let bundle = bundle_of(step, directory).map_err(&failed)?;
        let path = directory.join("bundle.json");
        std::fs::create_dir_all(directory)
            .and_then(|()| files::replace_json(&path, &bundle))
            .map_err(ImageError::io("preparing a build step"))?;
        let (output, stdout) = io::pipe().map_err(ImageError::io("making a pipe"))?;
        let stderr = stdout
            .try_clone()
            .map_err(ImageError::io("making a pipe"))?;
        let launched = launch::launch(&self.program, &path, stdout, stderr)
            .map_err(|error| failed(error.to_string()))?;
        let ended =
            wait_in_background(launched.pid).map_err(ImageError::io("starting a thread"))?;
        copy(output, step.output).map_err(ImageError::io("reading the output of a build step"))?;
        ended
            .recv()
            .map_err(|_| failed("its end was not noticed".to_owned()))
    }
}

impl RunStep for BuildRunner {
    fn run(&self, step: &mut RunCommand<'_>) -> Result<i32, ImageError> {
        let number = STEPS.fetch_add(1, Ordering::Relaxed);
        let directory = self
            .directory
            .join(format!("step-{}-{number}", std::process::id()));
        let result = self.run_in(&directory, step);
        let removed = files::remove_tree(&directory);
        let code = result?;
        removed.map_err(ImageError::io("removing a build step"))?;
        Ok(code)
    }
}

fn bundle_of(step: &RunCommand<'_>, directory: &Path) -> Result<Bundle, String> {
    Ok(Bundle {
        id: "build".to_owned(),
        hostname: "build".to_owned(),
        root: Root::Overlay {
            layers: step.layers.to_vec(),
            upper: step.upper.to_owned(),
            work: step.work.to_owned(),
        },
        root_directory: directory.join("root"),
        read_only_root: false,
        network: Network::Isolated,
        mounts: Vec::new(),
        process: Process {
            command: step.command.clone(),
            environment: step.environment.clone(),
            working_directory: step.working_directory.clone(),
            user: step.user.clone(),
            capabilities: capabilities::choose(&[], &[]).map_err(|error| error.to_string())?,
            terminal: false,
        },
        group: Group::default(),
        restart: RestartPolicy::Never,
        stop_signal: libc::SIGTERM,
        oom_score_adjust: 0,
    })
}

/// The first process ends with the thread that launched it, so that one reads and another waits.
fn wait_in_background(pid: i32) -> io::Result<Receiver<i32>> {
    let (send, receive) = sync_channel(1);
    let wait = move || {
        let _ = send.send(launch::wait_for(pid).unwrap_or(125));
    };
    thread::Builder::new()
        .name("build".to_owned())
        .spawn(wait)?;
    Ok(receive)
}

/// Until the last process of the step has closed its output.
fn copy(mut from: PipeReader, output: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => output(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

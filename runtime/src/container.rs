//! One container: what it consists of, its shim, and its first process.
//!
//! The server writes a [`bundle::Bundle`] and starts the shim; shim and first process read it. After that the
//! server knows the container by its status file and the shim's socket alone, so it may die at any time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) mod bundle;
pub(crate) mod control;
pub(crate) mod exec;
pub(crate) mod init;
pub(crate) mod launch;
pub(crate) mod log;
pub(crate) mod report;
pub(crate) mod restart;
pub(crate) mod shim;
pub(crate) mod status;

/// Where a container keeps its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Below the state directory: bundle, root filesystem, files, log.
    pub(crate) state: PathBuf,
    /// Below the runtime directory: status, socket.
    pub(crate) runtime: PathBuf,
}

impl Place {
    pub(crate) fn new(state_dir: &Path, runtime_dir: &Path, id: &str) -> Place {
        Place {
            state: state_dir.join("containers").join(id),
            runtime: runtime_dir.join("containers").join(id),
        }
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.state.join("bundle.json")
    }

    /// The same of a process that is to relieve the one that runs.
    pub(crate) fn next_bundle(&self) -> PathBuf {
        self.state.join("next-bundle.json")
    }

    /// What the server knows of it besides the bundle.
    pub(crate) fn record(&self) -> PathBuf {
        self.state.join("record.json")
    }

    /// Where the root filesystem is mounted, in the container's own mount namespace.
    pub(crate) fn root(&self) -> PathBuf {
        self.state.join("root")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.state.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.state.join("work")
    }

    /// Files that are mounted into it.
    pub(crate) fn files(&self) -> PathBuf {
        self.state.join("files")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    pub(crate) fn status(&self) -> PathBuf {
        self.runtime.join("status.json")
    }
}

/// `weft shim STATE RUNTIME PROGRAM RESTARTS`.
pub(crate) fn shim_main(arguments: &[OsString]) -> ExitCode {
    let parsed = match arguments {
        [state, runtime, program, restarts] => restarts
            .to_str()
            .and_then(|text| text.parse().ok())
            .map(|restarts| (state, runtime, program, restarts)),
        _ => None,
    };
    let Some((state, runtime, program, restarts)) = parsed else {
        eprintln!("weft shim is a part of `weft node`, which starts it");
        return ExitCode::from(2);
    };
    let place = Place {
        state: state.into(),
        runtime: runtime.into(),
    };
    shim::main(&place, Path::new(program), restarts)
}

/// `weft init BUNDLE`, or `weft init --exec` with the command in the environment.
pub(crate) fn init_main(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [flag] if flag == "--exec" => exec::main(),
        [bundle] => init::main(Path::new(bundle)),
        _ => {
            eprintln!("weft init is a part of `weft shim`, which starts it");
            ExitCode::from(2)
        }
    }
}

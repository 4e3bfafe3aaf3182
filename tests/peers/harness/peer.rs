//! Which peers are installed, and how they are called.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something that weft does not bring along.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    /// A program.
    Program(&'static str),
    /// A module of Python.
    Python(&'static str),
    /// A package of Node.
    Node(&'static str),
}

impl Peer {
    pub(crate) fn is_there(self) -> bool {
        match self {
            Peer::Program(name) => found(name).is_some(),
            Peer::Python(module) => python_modules().is_some_and(|path| path.join(module).is_dir()),
            Peer::Node(package) => {
                found("node").is_some() && folder().join("node/node_modules").join(package).is_dir()
            }
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Program(name) => write!(out, "{name}"),
            Peer::Python(module) => write!(out, "Python's {module}"),
            Peer::Node(package) => write!(out, "Node's {package}"),
        }
    }
}

/// A program, with its arguments still to come.
pub(crate) fn program(name: &str) -> Command {
    let path = found(name).unwrap_or_else(|| panic!("{name} is not installed"));
    Command::new(path)
}

/// A script of this folder, run by the Python that has the peers' modules.
pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new(folder().join("python/bin/python"));
    command.arg("-u").arg(scripts().join(script));
    command
}

/// A script of this folder, run by Node with the peers' packages.
pub(crate) fn node(script: &str) -> Command {
    let mut command = program("node");
    command
        .env("NODE_PATH", folder().join("node/node_modules"))
        .arg(scripts().join(script));
    command
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// Where `scripts/setup.sh --test` installs what is no package of the system.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    target.join("peers")
}

fn python_modules() -> Option<PathBuf> {
    let versions = std::fs::read_dir(folder().join("python/lib")).ok()?;
    let mut folders = versions
        .flatten()
        .map(|version| version.path().join("site-packages"));
    folders.find(|path| path.is_dir())
}

fn found(name: &str) -> Option<PathBuf> {
    let own = folder().join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers out of an ordinary user's path.
    let more = ["/usr/sbin", "/sbin", "/usr/lib/postgresql/15/bin"].map(PathBuf::from);
    std::iter::once(own)
        .chain(std::env::split_paths(&path))
        .chain(more)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

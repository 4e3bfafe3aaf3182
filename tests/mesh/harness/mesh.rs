//! One mesh: its folders, and the `weft` command bent on it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::command::{self, Outcome};
use super::process::Process;
use super::wait::{eventually, holds};

/// The program that is tested.
pub(crate) fn binary() -> PathBuf {
    env::var_os("WEFT_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_weft")), PathBuf::from)
}

/// The folder with `examples`, `docs` and `README.md`.
pub(crate) fn source() -> PathBuf {
    env::var_os("WEFT_TEST_SOURCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// The folders of a mesh of its own; nothing runs in it until something is started.
#[derive(Debug)]
pub(crate) struct Mesh {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Mesh {
    /// Paths are short: the longest socket in them must fit into 107 bytes.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("wt-")
            .tempdir_in("/tmp")
            .expect("/tmp is writable");
        open_to_others(folder.path());
        let mut environment = vec![
            ("WEFT_HOME".to_owned(), text(&folder.path().join("home"))),
            (
                "WEFT_RUNTIME_DIR".to_owned(),
                text(&folder.path().join("run")),
            ),
            ("WEFT_API_ADDRESS".to_owned(), "127.0.0.1:0".to_owned()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ];
        let own = binary().parent().map(text).unwrap_or_default();
        let path = env::var("PATH").unwrap_or_default();
        environment.push(("PATH".to_owned(), format!("{own}:{path}:/usr/sbin:/sbin")));
        Self {
            folder,
            environment,
        }
    }

    /// Sets a variable for every command of this mesh, and for the daemon that one of them starts.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A command with the mesh in its environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(source())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// `weft` with these words, to its end.
    #[track_caller]
    pub(crate) fn weft(&self, words: &[&str]) -> Outcome {
        command::run(self.command(binary()).args(words))
    }

    /// `weft` with these words and a text on its standard input.
    #[track_caller]
    pub(crate) fn weft_with_input(&self, words: &[&str], input: &str) -> Outcome {
        command::run_with_input(self.command(binary()).args(words), input)
    }

    /// The document that a command prints with `-o json`.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let text = self.weft(&[words, &["-o", "json"]].concat()).ok();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("weft {words:?} -o json: {error} in {text}"))
    }

    /// Where everything of this mesh is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the daemon had to say.
    pub(crate) fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.folder().join("run/daemon.log")).unwrap_or_default()
    }

    /// Waits until every sidecar has acknowledged the mesh's current revision.
    #[track_caller]
    pub(crate) fn until_in_force(&self) {
        eventually("every sidecar to acknowledge the newest revision", || {
            self.is_in_force()
        });
    }

    /// Everything that runs for the mesh: daemon, holder, and all that lives in the mesh's namespaces.
    #[track_caller]
    pub(crate) fn processes(&self) -> Vec<Process> {
        let status = self.json(&["status"]);
        let pid = |value: &serde_json::Value| {
            i32::try_from(value.as_i64().expect("a pid")).expect("a pid")
        };
        let holder = Process::of(pid(&status["node"]["holderPid"])).expect("the holder runs");
        let own = holder
            .namespace("user")
            .expect("the holder's namespaces may be looked at");
        let mut found: Vec<Process> = Process::all()
            .into_iter()
            .filter(|process| process.namespace("user") == Some(own))
            .collect();
        found.push(Process::of(pid(&status["pid"])).expect("the daemon runs"));
        found
    }

    /// Every sidecar that runs is connected, and says so: after a restart of the daemon they come back one by one.
    fn is_in_force(&self) -> Result<(), String> {
        let status = self.document(&["proxy-status"])?;
        let pods = self.document(&["ps"])?;
        let is_synced = |pod: &Value| {
            let proxies = status["proxies"].as_array().into_iter().flatten();
            let mut own = proxies.filter(|proxy| proxy["pod"] == pod["name"]);
            own.any(|proxy| proxy["revision"] == status["revision"] && proxy["lastError"].is_null())
        };
        let pods = pods.as_array().cloned().unwrap_or_default();
        let meshed = pods.iter().filter(|pod| pod["sidecar"] != "none");
        let behind: Vec<&Value> = meshed.filter(|pod| !is_synced(pod)).collect();
        holds(!pods.is_empty() && behind.is_empty(), || {
            format!("{behind:?} in {status}")
        })
    }

    fn document(&self, words: &[&str]) -> Result<Value, String> {
        let text = self.weft(&[words, &["-o", "json"]].concat()).check()?;
        serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
    }
}

impl Drop for Mesh {
    /// Files of the mesh's users other than root can only be removed from inside a namespace that maps them.
    fn drop(&mut self) {
        if std::fs::remove_dir_all(self.folder.path()).is_err() {
            let _ = Command::new("unshare")
                .args(["--map-auto", "--map-root-user", "rm", "-rf"])
                .arg(self.folder.path())
                .output();
        }
    }
}

/// The mesh namespace's root is another user, who has to get through to its own folders.
fn open_to_others(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
        .expect("our own folder");
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

//! Where a node keeps its things, as its starter says it and as a command line says it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Where a node keeps its things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// `$WEFT_HOME/node`: images, layers, containers, volumes, logs.
    pub state_dir: PathBuf,
    /// `$WEFT_RUNTIME_DIR/node`: sockets, state of what runs.
    pub runtime_dir: PathBuf,
    /// The socket broker, which resolves names outside the mesh.
    pub broker_socket: PathBuf,
}

impl NodeOptions {
    /// The node's socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir.join("node.sock")
    }

    /// The socket for connections into sandboxes.
    pub fn handoff(&self) -> PathBuf {
        self.runtime_dir.join("handoff.sock")
    }

    /// The program, at a path which the mesh's root can reach.
    pub(crate) fn program(&self) -> PathBuf {
        self.runtime_dir.join("weft")
    }

    /// As options of `weft node`.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let options = [
            ("--state-dir", &self.state_dir),
            ("--runtime-dir", &self.runtime_dir),
            ("--broker-socket", &self.broker_socket),
        ];
        options
            .into_iter()
            .flat_map(|(name, path)| [OsString::from(name), path.as_os_str().to_owned()])
            .collect()
    }

    /// From the options of `weft node`; what is left out comes from the environment.
    ///
    /// # Errors
    /// Names an option that is unknown or lacks its value.
    pub(crate) fn from_arguments(arguments: &[OsString]) -> Result<NodeOptions, String> {
        let mut options = NodeOptions::from_environment(|name| std::env::var_os(name), is_root());
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--detach" {
                continue;
            }
            let slot = match name.to_str() {
                Some("--state-dir") => &mut options.state_dir,
                Some("--runtime-dir") => &mut options.runtime_dir,
                Some("--broker-socket") => &mut options.broker_socket,
                _ => return Err(format!("unknown option {}", name.display())),
            };
            let value = arguments
                .next()
                .ok_or_else(|| format!("{} needs a value", name.display()))?;
            *slot = std::path::absolute(value).map_err(|error| error.to_string())?;
        }
        Ok(options)
    }

    fn from_environment(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> NodeOptions {
        let directory = |name: &str, for_root: &str, base: &str, fallback: &str| {
            if let Some(path) = variable(name).filter(|value| !value.is_empty()) {
                return PathBuf::from(path);
            }
            if is_root {
                return PathBuf::from(for_root);
            }
            let base = variable(base).map(PathBuf::from);
            base.unwrap_or_else(|| {
                let home = variable("HOME").unwrap_or_else(|| OsStr::new("/").to_owned());
                PathBuf::from(home).join(fallback)
            })
            .join("weft")
        };
        let home = directory(
            "WEFT_HOME",
            "/var/lib/weft",
            "XDG_DATA_HOME",
            ".local/share",
        );
        let runtime = directory("WEFT_RUNTIME_DIR", "/run/weft", "XDG_RUNTIME_DIR", ".cache");
        NodeOptions {
            state_dir: home.join("node"),
            runtime_dir: runtime.join("node"),
            broker_socket: runtime.join("pods").join(weft_proto::names::BROKER_SOCKET),
        }
    }
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_command_line() {
        let options = NodeOptions {
            state_dir: "/a/node".into(),
            runtime_dir: "/b/node".into(),
            broker_socket: "/b/pods/broker.sock".into(),
        };

        assert_eq!(
            NodeOptions::from_arguments(&options.to_arguments()),
            Ok(options)
        );
    }

    #[test]
    fn an_ordinary_users_directories_follow_the_xdg_variables() {
        let variable = |name: &str| match name {
            "HOME" => Some("/home/anna".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
            _ => None,
        };

        let options = NodeOptions::from_environment(variable, false);

        assert_eq!(
            options.state_dir,
            PathBuf::from("/home/anna/.local/share/weft/node")
        );
        assert_eq!(
            options.broker_socket,
            PathBuf::from("/run/user/1000/weft/pods/broker.sock")
        );
    }

    #[test]
    fn an_option_without_its_value_is_named() {
        let error = NodeOptions::from_arguments(&["--state-dir".into()]).expect_err("no value");

        assert!(error.contains("--state-dir"), "{error}");
    }
}

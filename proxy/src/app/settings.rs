//! Options, bootstrap and role put together: what a proxy really does.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use weft_proto::envoy::config::core::v3::Node;
use weft_proto::envoy::config::core::v3::node::UserAgentVersionType;
use weft_proto::names;

use super::Options;
use crate::bootstrap::Bootstrap;

/// Where a sidecar is asked for its sockets, in its state directory.
const HANDOVER_SOCKET: &str = "handover.sock";

/// What a proxy really does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) workers: NonZeroUsize,
    pub(super) broker: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) handover: Option<PathBuf>,
    pub(super) identity: bool,
    pub(super) admin: Vec<SocketAddr>,
    pub(super) health: Vec<SocketAddr>,
    pub(super) metrics: Vec<SocketAddr>,
}

impl Settings {
    pub(super) fn new(options: &Options, bootstrap: &Bootstrap) -> Self {
        let of_sidecar = |path: PathBuf| options.sidecar.then_some(path);
        let all = |port| match options.sidecar {
            true => vec![
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            ],
            false => vec![],
        };
        let or = |given: &[SocketAddr], port| match given.is_empty() {
            true => all(port),
            false => given.to_vec(),
        };
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, names::ADMIN_PORT));
        let admin = options
            .admin
            .or(bootstrap.admin)
            .or(options.sidecar.then_some(loopback));
        let broker = Path::new(names::POD_SOCKET_DIR).join(names::BROKER_SOCKET);
        let state_dir = options
            .state_dir
            .clone()
            .or(of_sidecar(PathBuf::from(names::SIDECAR_STATE_DIR)));
        let of_state = state_dir.as_ref().map(|dir| dir.join(HANDOVER_SOCKET));
        Self {
            workers: workers(options.concurrency),
            broker: options.broker_socket.clone().or(of_sidecar(broker)),
            handover: options.handover.clone().or(of_state.and_then(of_sidecar)),
            state_dir,
            identity: options.identity.unwrap_or(options.sidecar),
            admin: admin.into_iter().collect(),
            health: or(&options.health, names::HEALTH_PORT),
            metrics: or(&options.metrics, names::METRICS_PORT),
        }
    }
}

/// The bootstrap's node, with what the program knows of itself.
pub(super) fn node(bootstrap: &Bootstrap) -> Node {
    let mut node = bootstrap.node.clone();
    if node.user_agent_name.is_empty() {
        node.user_agent_name = "weft".into();
        node.user_agent_version_type = Some(UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").into(),
        ));
    }
    node
}

fn workers(asked: usize) -> NonZeroUsize {
    NonZeroUsize::new(asked)
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap() -> Bootstrap {
        Bootstrap::parse("{}", Path::new("b.json")).expect("valid")
    }

    #[test]
    fn a_sidecar_has_its_ports_sockets_and_directory() {
        let mut options = Options::new("b.json");
        options.sidecar = true;

        let settings = Settings::new(&options, &bootstrap());

        assert_eq!(settings.broker, Some("/run/weft/broker.sock".into()));
        assert_eq!(settings.state_dir, Some("/var/lib/weft".into()));
        assert_eq!(
            settings.handover,
            Some("/var/lib/weft/handover.sock".into())
        );
        assert!(settings.identity);
        let shown = |addresses: &[SocketAddr]| {
            addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&settings.admin), ["127.0.0.1:15000"]);
        assert_eq!(shown(&settings.health), ["0.0.0.0:15021", "[::]:15021"]);
        assert_eq!(shown(&settings.metrics), ["0.0.0.0:15020", "[::]:15020"]);
    }

    #[test]
    fn another_proxy_has_only_what_it_is_told() {
        let mut options = Options::new("b.json");
        options.metrics = vec![([127, 0, 0, 1], 0).into()];

        let settings = Settings::new(&options, &bootstrap());

        assert_eq!(settings.broker, None);
        assert_eq!(settings.state_dir, None);
        assert_eq!(settings.handover, None);
        assert!(!settings.identity);
        assert!(settings.admin.is_empty() && settings.health.is_empty());
        assert_eq!(settings.metrics.len(), 1);
    }
}

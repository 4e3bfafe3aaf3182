//! Connections out of the mesh.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipnet::IpNet;
use rustix::io::Errno;
use tokio::net::TcpStream;
use weft_proto::names;

const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What sidecars may dial in the host's network.
///
/// Never the host's own loopback (its local services trust whoever reaches them), link-local addresses (metadata
/// services of clouds), what is no single host, and the mesh's own networks, which mean something else there.
#[derive(Debug, Clone)]
pub struct DialPolicy {
    own: Vec<IpNet>,
    allowed: BTreeSet<SocketAddr>,
}

impl DialPolicy {
    /// Refuses these networks, which are the sandboxes', besides what is always refused.
    pub fn new(sandbox_networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            own: sandbox_networks.into_iter().collect(),
            allowed: BTreeSet::new(),
        }
    }

    /// Makes an exception for one address.
    pub fn allow(&mut self, address: SocketAddr) {
        self.allowed.insert(address);
    }

    fn check(&self, address: SocketAddr) -> Result<(), DialError> {
        if self.allowed.contains(&address) {
            return Ok(());
        }
        let ip = address.ip().to_canonical();
        let what = if ip.is_loopback() {
            "the host's loopback"
        } else if ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) || ip.is_multicast()
        {
            "no single host"
        } else if is_link_local(ip) {
            "a link-local address"
        } else if names::is_service_address(ip) || self.own.iter().any(|net| net.contains(&ip)) {
            "an address of the mesh that no service has"
        } else {
            return Ok(());
        };
        Err(DialError::Refused { address, what })
    }
}

impl Default for DialPolicy {
    /// The sandboxes' networks as the node lays them out.
    fn default() -> Self {
        let ipv4 = ipnet::Ipv4Net::new(Ipv4Addr::new(10, 96, 0, 0), 16).map(IpNet::V4);
        let ipv6 = Ipv6Addr::new(0xfd57, 0x6060, 0, 0, 0, 0, 0, 0);
        let ipv6 = ipnet::Ipv6Net::new(ipv6, 64).map(IpNet::V6);
        Self::new(ipv4.into_iter().chain(ipv6))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{address} is {what}, which cannot be reached from the mesh")]
    Refused {
        address: SocketAddr,
        what: &'static str,
    },
    #[error("{address} did not answer in {} ms", timeout.as_millis())]
    TimedOut {
        address: SocketAddr,
        timeout: Duration,
    },
    #[error("connecting to {address}: {source}")]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
}

impl DialError {
    pub(super) fn errno(&self) -> i32 {
        match self {
            Self::Refused { .. } => Errno::ACCESS.raw_os_error(),
            Self::TimedOut { .. } => Errno::TIMEDOUT.raw_os_error(),
            Self::Connect { source, .. } => source.raw_os_error().unwrap_or(0),
        }
    }
}

pub(super) async fn dial(
    policy: &DialPolicy,
    address: SocketAddr,
    timeout_millis: u32,
) -> Result<OwnedFd, DialError> {
    policy.check(address)?;
    let timeout = Duration::from_millis(timeout_millis.into()).min(LONGEST_TIMEOUT);
    let connect = |source| DialError::Connect { address, source };

    let dialled = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
    let stream = dialled
        .map_err(|_| DialError::TimedOut { address, timeout })?
        .map_err(connect)?;
    Ok(stream.into_std().map_err(connect)?.into())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(policy: &DialPolicy, address: &str) -> bool {
        policy.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn the_host_itself_and_the_mesh_are_refused() {
        let policy = DialPolicy::default();
        for address in [
            "127.0.0.1:15080",
            "127.9.9.9:1",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "0.0.0.0:80",
            "[::]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "255.255.255.255:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "10.96.0.7:80",
            "240.240.0.3:80",
            "[fd57:6060::5]:80",
            "[fd57:f0f0::5]:80",
        ] {
            assert!(!is_allowed(&policy, address), "{address}");
        }
    }

    #[test]
    fn the_rest_of_the_world_is_not() {
        let policy = DialPolicy::default();
        for address in ["192.0.2.1:443", "10.95.255.255:5432", "[2001:db8::1]:443"] {
            assert!(is_allowed(&policy, address), "{address}");
        }
    }

    #[test]
    fn an_exception_holds_for_one_port_only() {
        let mut policy = DialPolicy::default();
        policy.allow("127.0.0.1:4317".parse().unwrap());

        assert!(is_allowed(&policy, "127.0.0.1:4317"));
        assert!(!is_allowed(&policy, "127.0.0.1:4318"));
    }
}

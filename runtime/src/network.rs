//! The mesh's network: a bridge, and sandboxes on it.
//!
//! A sandbox is a network namespace held open by a bind mount, so it outlives every process. This module
//! knows addresses, links and rules; who uses them is the server's business.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rtnetlink::Handle;
use serde::{Deserialize, Serialize};

pub(crate) mod addresses;
mod link;
pub(crate) mod namespace;
pub(crate) mod rules;

use addresses::{AddressPool, Addresses};

/// The bridge, in the mesh's own network namespace.
pub(crate) const BRIDGE: &str = "weft0";

/// Why the network cannot be what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("all addresses of the mesh are in use")]
    NoAddress,
    #[error("{doing}")]
    System { doing: String, source: io::Error },
    #[error("{doing}: {source}")]
    Netlink {
        doing: &'static str,
        source: Box<rtnetlink::Error>,
    },
    #[error(transparent)]
    Rules(#[from] rules::RulesError),
    #[error("a thread of the network ended unexpectedly")]
    Thread,
}

impl NetworkError {
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
        let doing = doing.into();
        move |source| NetworkError::System { doing, source }
    }

    pub(crate) fn netlink(doing: &'static str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
        move |source| NetworkError::Netlink {
            doing,
            source: Box::new(source),
        }
    }
}

/// Whether this kernel speaks IPv6. Where it does not, sandboxes have IPv4 only.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// One sandbox's part of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) addresses: Addresses,
    /// What holds the network namespace open.
    pub(crate) namespace: PathBuf,
    pub(crate) inode: u64,
    /// Tables that rules were applied to, by family.
    pub(crate) tables: rules::Tables,
}

/// The network of one mesh.
#[derive(Debug)]
pub(crate) struct Network {
    namespaces: PathBuf,
    pool: AddressPool,
    handle: Handle,
    bridge: u32,
}

impl Network {
    /// Makes what is not there yet: an earlier server of the same mesh may have.
    pub(crate) async fn open(runtime_dir: &Path) -> Result<Network, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(NetworkError::system("opening a netlink socket"))?;
        tokio::spawn(connection);
        let bridge = link::make_bridge(&handle).await?;
        Ok(Network {
            namespaces: runtime_dir.join("namespaces"),
            pool: AddressPool::default(),
            handle,
            bridge,
        })
    }

    /// Makes a bridge and a link in the current namespace, to see whether the kernel can.
    pub(crate) async fn probe() -> Result<(), NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(NetworkError::system("opening a netlink socket"))?;
        let connection = tokio::spawn(connection);
        let bridge = link::make_bridge(&handle).await;
        let pair = link::make_pair(&handle).await;
        connection.abort();
        bridge.and(pair)
    }

    /// Gateway of all sandboxes, and where the mesh DNS listens.
    pub(crate) fn gateway(&self) -> (Ipv4Addr, Ipv6Addr) {
        (addresses::GATEWAY_IPV4, addresses::GATEWAY_IPV6)
    }

    /// Counts an attachment in that an earlier server made.
    pub(crate) fn adopt(&self, attachment: &Attachment) {
        self.pool.claim(attachment.addresses);
    }

    /// Makes a network namespace with an address on the bridge, and applies rules before anything can run in it.
    pub(crate) async fn attach(
        &self,
        id: &str,
        rules: rules::RuleSet,
    ) -> Result<Attachment, NetworkError> {
        let addresses = self.pool.allocate()?;
        let namespace = self.namespaces.join(id);
        let made = self.make(addresses, &namespace, rules).await;
        if made.is_err() {
            self.discard(addresses, &namespace).await;
        }
        made
    }

    async fn make(
        &self,
        addresses: Addresses,
        namespace: &Path,
        rules: rules::RuleSet,
    ) -> Result<Attachment, NetworkError> {
        let inode = namespace::make(namespace).await?;
        // Rules come before the link: not even a packet that arrives unasked passes them.
        let tables = rules::apply(namespace, rules, rules::Tables::default()).await?;
        link::connect(&self.handle, self.bridge, addresses, namespace).await?;
        Ok(Attachment {
            addresses,
            namespace: namespace.to_owned(),
            inode,
            tables,
        })
    }

    /// Takes an attachment back; what is gone already is no error.
    pub(crate) async fn detach(&self, attachment: &Attachment) {
        self.discard(attachment.addresses, &attachment.namespace)
            .await;
    }

    async fn discard(&self, addresses: Addresses, namespace: &Path) {
        link::disconnect(&self.handle, addresses).await;
        let path = namespace.to_owned();
        let _ = tokio::task::spawn_blocking(move || namespace::unmake(&path)).await;
        self.pool.release(addresses);
    }
}

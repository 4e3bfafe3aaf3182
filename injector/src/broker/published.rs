//! Ports that pods publish: sockets in the host's network, kept for as long as a pod claims them.
//!
//! All sockets have `SO_REUSEPORT`: a restarted broker must be able to take a port whose socket lives on in a
//! sidecar. So that nobody else's port is shared by accident, a fresh claim first proves that the port is free.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// As much as the kernel's default net.core.somaxconn allows.
const BACKLOG: i32 = 4096;

/// What a pod is when it publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It has just been made: nobody may listen there yet.
    Fresh,
    /// It was running before this broker: its sidecar may hold the socket already.
    Adopted,
}

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another process listens there.
    #[error(
        "{address} is already in use on this machine: stop what listens there (`ss -ltnp` tells), or publish another port"
    )]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// Only root may have it.
    #[error(
        "{address} is a port that ordinary users may not open: publish one from 1024 on, or lower net.ipv4.ip_unprivileged_port_start"
    )]
    Privileged {
        /// Where.
        address: SocketAddr,
    },
    /// The host has no such address.
    #[error("this machine has no address {address}: publish on one that it has")]
    NoSuchAddress {
        /// Where.
        address: SocketAddr,
    },
    /// The caller's pod did not publish it.
    #[error("{address} is not published by this pod")]
    NotPublished {
        /// Where.
        address: SocketAddr,
    },
    /// The system said no.
    #[error("listening on {address}")]
    System {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl PublishError {
    fn of(address: SocketAddr, errno: Errno) -> Self {
        match errno {
            Errno::ADDRINUSE => Self::InUse { address },
            Errno::ACCESS | Errno::PERM => Self::Privileged { address },
            Errno::ADDRNOTAVAIL => Self::NoSuchAddress { address },
            _ => Self::System {
                address,
                source: errno.into(),
            },
        }
    }

    pub(super) fn errno(&self) -> i32 {
        match self {
            Self::InUse { .. } => Errno::ADDRINUSE.raw_os_error(),
            Self::Privileged { .. } | Self::NotPublished { .. } => Errno::ACCESS.raw_os_error(),
            Self::NoSuchAddress { .. } => Errno::ADDRNOTAVAIL.raw_os_error(),
            Self::System { source, .. } => source.raw_os_error().unwrap_or(0),
        }
    }
}

/// Says which of these addresses cannot be published now, before anything is started.
///
/// # Errors
/// Names the first one.
pub fn check_ports_free(addresses: &[SocketAddr]) -> Result<(), PublishError> {
    for address in addresses {
        prove_free(*address).map_err(|errno| PublishError::of(*address, errno))?;
    }
    Ok(())
}

/// All sockets, and who claims them.
#[derive(Debug, Default)]
pub(super) struct Published {
    sockets: HashMap<SocketAddr, Socket>,
    claims: HashMap<u64, BTreeSet<SocketAddr>>,
}

#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    is_listening: bool,
}

impl Published {
    pub(super) fn publish(
        &mut self,
        network_namespace: u64,
        addresses: &[SocketAddr],
        claim: Claim,
    ) -> Result<(), PublishError> {
        let mut opened = Vec::new();
        for address in addresses {
            if !self.sockets.contains_key(address) {
                let socket =
                    open(*address, claim).map_err(|errno| PublishError::of(*address, errno))?;
                opened.push((*address, socket));
            }
        }
        self.sockets.extend(opened);
        let claimed = addresses.iter().copied().collect();
        self.claims.insert(network_namespace, claimed);
        self.close_unclaimed();
        Ok(())
    }

    pub(super) fn withdraw(&mut self, network_namespace: u64) {
        self.claims.remove(&network_namespace);
        self.close_unclaimed();
    }

    /// The listening socket of an address, for the pod in that namespace.
    pub(super) fn socket(
        &mut self,
        network_namespace: u64,
        address: SocketAddr,
    ) -> Result<OwnedFd, PublishError> {
        let claimed = self.claims.get(&network_namespace);
        if !claimed.is_some_and(|claimed| claimed.contains(&address)) {
            return Err(PublishError::NotPublished { address });
        }
        let socket = self
            .sockets
            .get_mut(&address)
            .ok_or(PublishError::NotPublished { address })?;
        if !socket.is_listening {
            rustix::net::listen(&socket.descriptor, BACKLOG)
                .map_err(|errno| PublishError::of(address, errno))?;
            socket.is_listening = true;
        }
        socket
            .descriptor
            .try_clone()
            .map_err(|source| PublishError::System { address, source })
    }

    fn close_unclaimed(&mut self) {
        let Self { sockets, claims } = self;
        sockets.retain(|address, _| claims.values().any(|claimed| claimed.contains(address)));
    }
}

fn open(address: SocketAddr, claim: Claim) -> Result<Socket, Errno> {
    if claim == Claim::Fresh {
        prove_free(address)?;
    }
    let descriptor = bind(address, Sharing::WithOwn)?;
    // An adopted pod's sidecar has a socket that is served: a second one that listens would be given half of the
    // connections, and nobody would accept them.
    let is_listening = claim == Claim::Fresh;
    if is_listening {
        rustix::net::listen(&descriptor, BACKLOG)?;
    }
    Ok(Socket {
        descriptor,
        is_listening,
    })
}

/// Binding alone proves nothing: with `SO_REUSEADDR` it succeeds beside a socket that only listens later.
fn prove_free(address: SocketAddr) -> Result<(), Errno> {
    let probe = bind(address, Sharing::Nobody)?;
    rustix::net::listen(&probe, 1)
}

#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    Nobody,
    /// With other sockets of the same user that say so too.
    WithOwn,
}

fn bind(address: SocketAddr, sharing: Sharing) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if sharing == Sharing::WithOwn {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        // `0.0.0.0:80` and `[::]:80` are two publications.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    }

    #[test]
    fn a_port_in_use_is_named_before_anything_starts() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();

        let error = check_ports_free(&[free_address(), address]).unwrap_err();

        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("already in use"), "{text}");
    }

    #[test]
    fn only_the_pod_that_published_a_port_gets_its_socket() {
        let mut published = Published::default();
        let address = free_address();
        published.publish(7, &[address], Claim::Fresh).unwrap();

        assert!(published.socket(7, address).is_ok());
        let error = published.socket(8, address).unwrap_err();
        assert!(matches!(error, PublishError::NotPublished { .. }));
    }

    #[test]
    fn a_fresh_claim_never_shares_a_strangers_port() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();

        let error = Published::default()
            .publish(7, &[address], Claim::Fresh)
            .unwrap_err();

        assert!(matches!(error, PublishError::InUse { .. }));
    }

    #[test]
    fn two_pods_that_publish_one_port_share_its_socket() {
        let mut published = Published::default();
        let address = free_address();
        published.publish(7, &[address], Claim::Fresh).unwrap();
        published.publish(8, &[address], Claim::Fresh).unwrap();
        let taken_over = TcpListener::from(published.socket(8, address).unwrap());

        published.withdraw(7);
        let _client = TcpStream::connect(address).unwrap();

        taken_over.set_nonblocking(false).unwrap();
        assert!(taken_over.accept().is_ok());
    }

    #[test]
    fn a_new_broker_takes_the_port_of_a_pod_that_goes_on() {
        let address = free_address();
        let mut former = Published::default();
        former.publish(7, &[address], Claim::Fresh).unwrap();
        let in_sidecar = TcpListener::from(former.socket(7, address).unwrap());
        drop(former);

        let mut published = Published::default();
        published.publish(7, &[address], Claim::Adopted).unwrap();
        let _client = TcpStream::connect(address).unwrap();

        // Not listening yet: every connection still goes to the sidecar's socket.
        in_sidecar.set_nonblocking(false).unwrap();
        assert!(in_sidecar.accept().is_ok());
        drop(in_sidecar);
        assert!(published.socket(7, address).is_ok());
        assert!(TcpStream::connect(address).is_ok());
    }

    #[test]
    fn a_port_is_free_again_when_nobody_claims_it() {
        let mut published = Published::default();
        let address = free_address();
        published.publish(7, &[address], Claim::Fresh).unwrap();
        assert!(check_ports_free(&[address]).is_err());

        published.withdraw(7);

        assert!(check_ports_free(&[address]).is_ok());
    }

    #[test]
    fn a_failed_publication_changes_nothing() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut published = Published::default();
        let mine = free_address();

        let result = published.publish(7, &[mine, other.local_addr().unwrap()], Claim::Fresh);

        assert!(result.is_err());
        assert!(check_ports_free(&[mine]).is_ok());
    }
}

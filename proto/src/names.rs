//! Ports, paths and names that more than one part of weft relies on.
//!
//! Everything here is part of the contract between processes: the injector writes rules with these ports,
//! the proxy listens on them, the control plane names them in xDS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where redirected outbound connections arrive.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where redirected inbound connections arrive.
pub const INBOUND_PORT: u16 = 15006;
/// `/healthz/ready`.
pub const HEALTH_PORT: u16 = 15021;
/// `/metrics`.
pub const METRICS_PORT: u16 = 15020;
/// The admin interface, on loopback.
pub const ADMIN_PORT: u16 = 15000;
/// API and page, on the host's loopback.
pub const API_PORT: u16 = 15080;

/// The user the sidecar runs as; its own traffic is exempt from redirection.
pub const SIDECAR_UID: u32 = 1337;

/// Source of what the sidecar sends to its own application: tells it apart from the application's own
/// traffic to its own address.
pub const INBOUND_SOURCE_IPV4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6, added to the loopback interface of every sandbox.
pub const INBOUND_SOURCE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd57, 0, 0, 0, 0, 0, 0, 6);

/// Virtual service addresses: 240.240.0.0/16. Class E is never used by a network that an
/// application may want to reach.
pub const SERVICE_NETWORK_IPV4: (Ipv4Addr, u8) = (Ipv4Addr::new(240, 240, 0, 0), 16);
/// Virtual service addresses of IPv6: fd57:f0f0::/112.
pub const SERVICE_NETWORK_IPV6: (Ipv6Addr, u8) =
    (Ipv6Addr::new(0xfd57, 0xf0f0, 0, 0, 0, 0, 0, 0), 112);

/// Where a sidecar finds the sockets of the control plane and the broker.
pub const POD_SOCKET_DIR: &str = "/run/weft";
/// File name of the xDS and identity socket.
pub const XDS_SOCKET: &str = "xds.sock";
/// File name of the socket broker's socket.
pub const BROKER_SOCKET: &str = "broker.sock";
/// Where a sidecar keeps key, certificate and last good configuration; survives its restart, not its sandbox.
pub const SIDECAR_STATE_DIR: &str = "/var/lib/weft";

/// The default trust domain.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// The DNS suffix of services.
pub const SERVICE_SUFFIX: &str = "svc.cluster.local";

/// ALPN between sidecars for HTTP/1.1; opaque bytes carry none. It says what is inside, so the receiving side detects nothing.
pub const ALPN_HTTP1: &str = "http/1.1";
/// HTTP/2 between sidecars.
pub const ALPN_HTTP2: &str = "h2";

/// What a sidecar offers by ALPN that would have opaque connections share one of HTTP/2, each as a CONNECT of it. Whoever does not
/// know it leaves it out, and opaque bytes follow the handshake as ever.
pub const ALPN_STREAMS: &str = "weft-streams";

/// What a sidecar offers by ALPN, and nothing beside it, that would have requests of HTTP/1.1 share a connection of HTTP/2, each as a
/// request of it. Whoever does not know it leaves it out, and is spoken HTTP/1.1 to.
pub const ALPN_HTTP1_STREAMS: &str = "weft-http1";

/// SDS name of a workload's own certificate.
pub const SECRET_IDENTITY: &str = "identity";
/// SDS name of the roots to trust.
pub const SECRET_TRUST_BUNDLE: &str = "trust-bundle";

/// Key of weft's own entries in `Metadata.filter_metadata` of listeners, clusters and endpoints.
pub const METADATA: &str = "weft.dev";
/// `{"network": "host"}`: the socket is bound or dialled in the host's network by the socket broker.
pub const METADATA_NETWORK: &str = "network";
/// The value that means the host's network.
pub const NETWORK_HOST: &str = "host";

/// `{"connections": "shared"}`: requests of HTTP/1.1 to a cluster's sidecars may share connections, and so may opaque connections.
pub const METADATA_CONNECTIONS: &str = "connections";
/// The value that means that they may.
pub const CONNECTIONS_SHARED: &str = "shared";
/// `{"requests": "shared-when-busy"}`: of requests of HTTP/1.1 many may.
pub const METADATA_REQUESTS: &str = "requests";
/// The value that means that they may.
pub const REQUESTS_SHARED_WHEN_BUSY: &str = "shared-when-busy";

/// Whether an address belongs to the virtual service networks.
pub fn is_service_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == SERVICE_NETWORK_IPV4.0.octets()[..2],
        IpAddr::V6(address) => address.octets()[..14] == SERVICE_NETWORK_IPV6.0.octets()[..14],
    }
}

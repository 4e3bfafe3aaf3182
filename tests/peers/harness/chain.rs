//! Proxies with TLS: one that ends it, or two with mutual TLS between them.
//!
//! They run inside the test's process, because what signs their identity does, too.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;
use weft_proxy::Options;
use weft_proxy::app::{LogControl, Proxy};
use weft_proxy::bootstrap::Bootstrap;

use super::config::{
    Certificate, Door, bootstrap, clusters, secured_cluster, secured_listener, with_control_plane,
};
use super::control_plane::ControlPlane;
use super::place::own_address;
use super::process::until;

/// Where TLS is listened for.
const SECURED_PORT: u16 = 10_010;

/// Running proxies; they end when this is dropped.
pub(crate) struct Chain {
    entrance: Ipv4Addr,
    secured: SocketAddr,
    proxies: Vec<Proxy>,
    runtime: Runtime,
    control_plane: ControlPlane,
}

impl Chain {
    /// One proxy that ends TLS in front of a server of HTTP/1.1, and asks nobody for a certificate.
    pub(crate) fn ending_tls(server: SocketAddr) -> Self {
        let mut chain = Self::new();
        let (at, clusters) = (chain.secured, clusters(server));
        chain.add(
            chain.entrance,
            &[secured_listener(at, "http1", Certificate::Optional)],
            &clusters,
        );
        chain
    }

    /// Two proxies with mutual TLS between them: every door of the first leads to the server behind the second.
    pub(crate) fn pair(server: SocketAddr) -> Self {
        let mut chain = Self::new();
        let far = own_address();
        chain.secured = SocketAddr::from((far, SECURED_PORT));
        let at = chain.secured;
        chain.add(
            far,
            &[secured_listener(at, "same", Certificate::Required)],
            &clusters(server),
        );
        let doors = Door::ALL.map(|door| door.listener(chain.entrance));
        let to_far: Vec<Value> = clusters(at).into_iter().map(secured_cluster).collect();
        chain.add(chain.entrance, &doors, &to_far);
        chain
    }

    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let entrance = own_address();
        Self {
            entrance,
            secured: SocketAddr::from((entrance, SECURED_PORT)),
            proxies: Vec::new(),
            control_plane: ControlPlane::start(&runtime),
            runtime,
        }
    }

    fn add(&mut self, ip: Ipv4Addr, listeners: &[Value], clusters: &[Value]) {
        let socket = self.control_plane.socket();
        let text = with_control_plane(bootstrap(ip, listeners, clusters), &socket).to_string();
        let bootstrap = Bootstrap::parse(&text, Path::new("peers")).unwrap();
        let state = self.control_plane.folder().join(ip.to_string());
        std::fs::create_dir(&state).unwrap();
        let options = Options {
            concurrency: 2,
            state_dir: Some(state),
            identity: Some(true),
            ..Options::new("peers")
        };
        let started = Proxy::start(&options, bootstrap, LogControl::none());
        let proxy = self.runtime.block_on(started).unwrap();
        until("the proxy to be ready", || proxy.is_ready());
        self.proxies.push(proxy);
    }

    /// Where one of the first proxy's doors is.
    pub(crate) fn at(&self, door: Door) -> SocketAddr {
        SocketAddr::from((self.entrance, door.port()))
    }

    /// Where TLS is listened for.
    pub(crate) fn secured(&self) -> SocketAddr {
        self.secured
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // The client's side first: its connections end in order.
        while let Some(proxy) = self.proxies.pop() {
            self.runtime
                .block_on(proxy.shutdown(Duration::from_secs(1)));
        }
    }
}

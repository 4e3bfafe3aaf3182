//! A filter chain as it is served.

use std::sync::Arc;

use weft_proto::names;

use super::routes::RouteTable;
use crate::cluster::slot::Slot;
use crate::config::Named;
use crate::config::filter::gate::Gate;
use crate::config::filter::{HttpFilter, carried_over};
use crate::config::http::{HttpConfig, RouteSource};
use crate::config::listener::{ChainMatch, FilterChain, NetworkFilter, TcpConfig};
use crate::config::tls::DownstreamTls;

/// A filter chain.
#[derive(Debug)]
pub struct Chain {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Which connections it is for; `None`: all, where nothing else matches.
    pub matches: Option<ChainMatch>,
    /// TLS towards the client.
    pub tls: Option<Arc<TlsTermination>>,
    /// What connections pass first; what has not changed goes on from its predecessor.
    pub gates: Vec<Gate>,
    /// What is inside.
    pub service: Service,
}

/// What is inside a connection.
#[derive(Debug)]
pub enum Service {
    /// Requests.
    Http(Arc<HttpService>),
    /// Bytes.
    Tcp(Arc<TcpConfig>),
}

/// How requests are served.
#[derive(Debug)]
pub struct HttpService {
    /// As configured.
    pub config: Arc<HttpConfig>,
    /// Where they go; `None` until the routes have been discovered.
    pub routes: Option<Arc<RouteTable>>,
    /// What every request passes, in order; what has not changed goes on from its predecessor.
    pub filters: Arc<[HttpFilter]>,
    /// Whether somebody asks for request headers when the request is over.
    pub keeps_request_headers: bool,
    /// Whether somebody asks for response headers when the request is over.
    pub keeps_response_headers: bool,
}

/// TLS towards clients.
#[derive(Debug)]
pub struct TlsTermination {
    /// As configured.
    pub config: Arc<DownstreamTls>,
    /// What sidecars offer by ALPN whose connections, or requests of HTTP/1.1, would come as streams of one that they
    /// share; none where they may not.
    pub streams: Option<&'static str>,
    /// What `tls` makes of it.
    pub built: Slot,
}

impl Chain {
    /// Whether that depends on the first bytes, and not only on the destination.
    pub fn depends_on_first_bytes(&self) -> bool {
        self.matches.as_ref().is_some_and(|matches| {
            matches.transport.is_some()
                || !matches.application_protocols.is_empty()
                || !matches.server_names.is_empty()
        })
    }

    /// Whether its routes are those that have been discovered.
    pub(super) fn is_current(&self, routes: &Named<Arc<RouteTable>>) -> bool {
        let Service::Http(service) = &self.service else {
            return true;
        };
        match &service.config.routes {
            RouteSource::Inline(_) => true,
            RouteSource::Discovered(name) => {
                let (one, other) = (service.routes.as_ref(), routes.get(name));
                one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
            }
        }
    }

    /// With the routes it names, going on from its predecessor.
    pub(super) fn new(
        config: &FilterChain,
        matches: Option<ChainMatch>,
        routes: &Named<Arc<RouteTable>>,
        before: Option<&Chain>,
    ) -> Self {
        let tls = config.tls.as_ref().map(|tls| {
            let streams = streams(&config.filter, tls);
            before
                .and_then(|before| before.tls.as_ref())
                .filter(|before| before.config == *tls && before.streams == streams)
                .cloned()
                .unwrap_or_else(|| {
                    Arc::new(TlsTermination {
                        config: Arc::clone(tls),
                        streams,
                        built: Slot::default(),
                    })
                })
        });
        let service = match &config.filter {
            NetworkFilter::Tcp(tcp) => Service::Tcp(Arc::clone(tcp)),
            NetworkFilter::Http(http) => {
                let routes = match &http.routes {
                    RouteSource::Inline(routes) => {
                        Some(Arc::new(RouteTable::new(Arc::clone(routes))))
                    }
                    RouteSource::Discovered(name) => routes.get(name).cloned(),
                };
                let answers = routes
                    .as_ref()
                    .is_some_and(|routes| routes.answers_by_request);
                Service::Http(Arc::new(HttpService {
                    keeps_request_headers: http.needs_request_headers() || answers,
                    keeps_response_headers: http.needs_response_headers(),
                    filters: filters(http, before),
                    config: Arc::clone(http),
                    routes,
                }))
            }
        };
        Chain {
            name: Arc::clone(&config.name),
            matches,
            tls,
            gates: gates(&config.gates, before),
            service,
        }
    }
}

fn gates(gates: &[Gate], before: Option<&Chain>) -> Vec<Gate> {
    let before = before.map_or(&[][..], |before| &before.gates);
    let same = |gate: &Gate| before.iter().find(|before| *before == gate);
    gates
        .iter()
        .map(|gate| same(gate).unwrap_or(gate).clone())
        .collect()
}

fn filters(http: &HttpConfig, before: Option<&Chain>) -> Arc<[HttpFilter]> {
    let before = before.and_then(|before| match &before.service {
        Service::Http(service) => Some(&*service.filters),
        Service::Tcp(_) => None,
    });
    carried_over(&http.filters, before.unwrap_or_default())
}
/// What is spoken inside is told by nothing else, and it is for nobody but sidecars.
fn streams(filter: &NetworkFilter, tls: &DownstreamTls) -> Option<&'static str> {
    let speaks_http1 = tls.alpn.iter().any(|each| **each == *names::ALPN_HTTP1);
    match filter {
        NetworkFilter::Tcp(_) if tls.is_of_mesh() && tls.alpn.is_empty() => {
            Some(names::ALPN_STREAMS)
        }
        NetworkFilter::Http(_) if tls.is_of_mesh() && speaks_http1 => {
            Some(names::ALPN_HTTP1_STREAMS)
        }
        _ => None,
    }
}

//! A filter chain as it is served, and which connections it is for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::routes::RouteTable;
use crate::cluster::slot::Slot;
use crate::config::filter::{HttpFilter, carried_over};
use crate::config::http::{HttpConfig, RouteSource};
use crate::config::listener::{
    ChainMatch, DownstreamTls, FilterChain, NetworkFilter, ServerNameMatch, TcpConfig,
    TransportProtocol,
};

/// A filter chain.
#[derive(Debug)]
pub struct Chain {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Which connections it is for; `None`: all, where nothing else matches.
    pub matches: Option<ChainMatch>,
    /// TLS towards the client.
    pub tls: Option<Arc<TlsTermination>>,
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
}

/// TLS towards clients.
#[derive(Debug)]
pub struct TlsTermination {
    /// As configured.
    pub config: Arc<DownstreamTls>,
    /// What `tls` makes of it.
    pub built: Slot,
}

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Where it was going.
    pub destination: SocketAddr,
    /// Whether it begins with a TLS handshake; `None`: nobody has looked.
    pub transport: Option<TransportProtocol>,
    /// Offered by ALPN, or found by inspection.
    pub application_protocols: &'a [&'a str],
    /// The name a TLS client asks for, lower case.
    pub server_name: Option<&'a str>,
}

impl Chain {
    /// Whether it is for a connection.
    pub fn is_for(&self, arrival: &Arrival<'_>) -> bool {
        self.matches
            .as_ref()
            .is_none_or(|matches| is_match(matches, arrival))
    }

    /// Whether that depends on the first bytes, and not only on the destination.
    pub fn depends_on_first_bytes(&self) -> bool {
        self.matches.as_ref().is_some_and(|matches| {
            matches.transport.is_some()
                || !matches.application_protocols.is_empty()
                || !matches.server_names.is_empty()
        })
    }

    /// Whether its routes are those that have been discovered.
    pub(super) fn is_current(&self, routes: &HashMap<Arc<str>, Arc<RouteTable>>) -> bool {
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
        routes: &HashMap<Arc<str>, Arc<RouteTable>>,
        before: Option<&Chain>,
    ) -> Self {
        let tls = config.tls.as_ref().map(|tls| {
            before
                .and_then(|before| before.tls.as_ref())
                .filter(|before| before.config == *tls)
                .cloned()
                .unwrap_or_else(|| {
                    Arc::new(TlsTermination {
                        config: Arc::clone(tls),
                        built: Slot::default(),
                    })
                })
        });
        let service = match &config.filter {
            NetworkFilter::Tcp(tcp) => Service::Tcp(Arc::clone(tcp)),
            NetworkFilter::Http(http) => Service::Http(Arc::new(HttpService {
                keeps_request_headers: http.needs_request_headers(),
                filters: filters(http, before),
                config: Arc::clone(http),
                routes: match &http.routes {
                    RouteSource::Inline(routes) => {
                        Some(Arc::new(RouteTable::new(Arc::clone(routes))))
                    }
                    RouteSource::Discovered(name) => routes.get(name).cloned(),
                },
            })),
        };
        Chain {
            name: Arc::clone(&config.name),
            matches,
            tls,
            service,
        }
    }
}

fn filters(http: &HttpConfig, before: Option<&Chain>) -> Arc<[HttpFilter]> {
    let before = before.and_then(|before| match &before.service {
        Service::Http(service) => Some(&*service.filters),
        Service::Tcp(_) => None,
    });
    carried_over(&http.filters, before.unwrap_or_default())
}

/// Envoy's order: port, then address, then server name, then transport, then application protocol.
pub(super) fn specificity(matches: &ChainMatch) -> (bool, u8, usize, bool, bool) {
    let prefix = matches
        .destination_prefixes
        .iter()
        .map(|net| net.prefix_len())
        .max();
    let name = matches
        .server_names
        .iter()
        .map(|name| match name {
            ServerNameMatch::Exact(_) => usize::MAX,
            ServerNameMatch::Suffix(suffix) => suffix.len(),
        })
        .max();
    (
        matches.destination_port.is_some(),
        prefix.map_or(0, |length| length.saturating_add(1)),
        name.unwrap_or(0),
        matches.transport.is_some(),
        !matches.application_protocols.is_empty(),
    )
}

fn is_match(matches: &ChainMatch, arrival: &Arrival<'_>) -> bool {
    let address = arrival.destination.ip();
    let is_named = |name: &ServerNameMatch| match (name, arrival.server_name) {
        (ServerNameMatch::Exact(name), Some(asked)) => asked == &**name,
        (ServerNameMatch::Suffix(suffix), Some(asked)) => asked.ends_with(&**suffix),
        (_, None) => false,
    };
    let is_spoken = |wanted: &Arc<str>| arrival.application_protocols.contains(&&**wanted);
    matches
        .destination_port
        .is_none_or(|port| port == arrival.destination.port())
        && is_empty_or_any(&matches.destination_prefixes, |net| net.contains(&address))
        && matches
            .transport
            .is_none_or(|wanted| arrival.transport == Some(wanted))
        && is_empty_or_any(&matches.application_protocols, is_spoken)
        && is_empty_or_any(&matches.server_names, is_named)
}

fn is_empty_or_any<T>(all: &[T], test: impl Fn(&T) -> bool) -> bool {
    all.is_empty() || all.iter().any(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival<'a>(
        transport: Option<TransportProtocol>,
        application_protocols: &'a [&'a str],
    ) -> Arrival<'a> {
        Arrival {
            destination: ([10, 96, 0, 5], 8080).into(),
            transport,
            application_protocols,
            server_name: None,
        }
    }

    #[test]
    fn empty_criteria_match_all() {
        assert!(is_match(&ChainMatch::default(), &arrival(None, &[])));
    }

    #[test]
    fn every_criterion_must_hold() {
        let matches = ChainMatch {
            destination_port: Some(8080),
            destination_prefixes: vec!["10.96.0.0/16".parse().expect("a net")],
            transport: Some(TransportProtocol::Tls),
            application_protocols: vec!["h2".into()],
            server_names: vec![],
        };
        let tls = Some(TransportProtocol::Tls);

        assert!(is_match(&matches, &arrival(tls, &["http/1.1", "h2"])));
        assert!(!is_match(&matches, &arrival(tls, &["http/1.1"])));
        assert!(!is_match(
            &matches,
            &arrival(Some(TransportProtocol::Raw), &["h2"])
        ));
        let elsewhere = Arrival {
            destination: ([10, 97, 0, 5], 8080).into(),
            ..arrival(tls, &["h2"])
        };
        assert!(!is_match(&matches, &elsewhere));
    }

    #[test]
    fn a_wildcard_name_matches_what_is_below_it() {
        let matches = ChainMatch {
            server_names: vec![ServerNameMatch::Suffix(".example.com".into())],
            ..ChainMatch::default()
        };
        let named = |server_name| Arrival {
            server_name,
            ..arrival(None, &[])
        };

        assert!(is_match(&matches, &named(Some("a.example.com"))));
        assert!(!is_match(&matches, &named(Some("example.com"))));
        assert!(!is_match(&matches, &named(None)));
    }

    #[test]
    fn the_more_specific_chain_comes_first() {
        let by_port = ChainMatch {
            destination_port: Some(80),
            ..ChainMatch::default()
        };
        let by_protocol = ChainMatch {
            application_protocols: vec!["h2".into()],
            ..ChainMatch::default()
        };

        assert!(specificity(&by_port) > specificity(&by_protocol));
        assert!(specificity(&by_protocol) > specificity(&ChainMatch::default()));
    }
}

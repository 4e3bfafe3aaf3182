//! Which filter chain a connection gets.
//!
//! One criterion after the other, in Envoy's order, leaves the chains that are most specific in it; the next
//! chooses among those. There is no way back: where the most specific port has no chain for the name that is asked
//! for, chains of other ports are not looked at.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::chain::Chain;
use crate::config::listener::{ChainMatch, ServerNameMatch, SourceType, TransportProtocol};

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Where it was going.
    pub destination: SocketAddr,
    /// The client.
    pub source: SocketAddr,
    /// Whoever made the connection: a proxy before us, where one named the client.
    pub direct_source: IpAddr,
    /// Whether it begins with a TLS handshake; `None`: nobody has looked.
    pub transport: Option<TransportProtocol>,
    /// Offered by ALPN, or found by inspection.
    pub application_protocols: &'a [&'a str],
    /// The name a TLS client asks for, lower case.
    pub server_name: Option<&'a str>,
}

/// How specific a chain is in one criterion: 0 where it has none, `None` where it does not match.
type Rank = Option<usize>;

/// The criteria, in order.
const CRITERIA: [fn(&ChainMatch, &Arrival<'_>) -> Rank; 9] = [
    by_destination_port,
    by_destination_address,
    by_server_name,
    by_transport,
    by_application_protocol,
    by_direct_source,
    by_source_type,
    by_source_address,
    by_source_port,
];

/// The chain for a connection; the one without criteria where no other is for it.
pub(super) fn choose<'a>(
    chains: &'a [Arc<Chain>],
    arrival: &Arrival<'_>,
) -> Option<&'a Arc<Chain>> {
    let mut left: Vec<(&Arc<Chain>, &ChainMatch)> = chains
        .iter()
        .filter_map(|chain| Some((chain, chain.matches.as_ref()?)))
        .collect();
    for criterion in CRITERIA {
        if left.is_empty() {
            break;
        }
        let rank = |(_, matches): &(_, &ChainMatch)| criterion(matches, arrival);
        let best = left.iter().filter_map(rank).max();
        left.retain(|chain| best.is_some() && rank(chain) == best);
    }
    let chosen = left.first().map(|(chain, _)| *chain);
    chosen.or_else(|| chains.iter().find(|chain| chain.matches.is_none()))
}

fn by_destination_port(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    match matches.destination_port {
        None => Some(0),
        Some(port) => (port == arrival.destination.port()).then_some(1),
    }
}

fn by_destination_address(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    longest(&matches.destination_prefixes, arrival.destination.ip())
}

fn by_server_name(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    if matches.server_names.is_empty() {
        return Some(0);
    }
    let asked = arrival.server_name?;
    let ranks = matches.server_names.iter().filter_map(|name| match name {
        ServerNameMatch::Exact(name) => (asked == &**name).then_some(usize::MAX),
        ServerNameMatch::Suffix(suffix) => asked.ends_with(&**suffix).then_some(suffix.len()),
    });
    ranks.max()
}

fn by_transport(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    match matches.transport {
        None => Some(0),
        wanted => (arrival.transport == wanted).then_some(1),
    }
}

/// What the client offers first counts most.
fn by_application_protocol(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    if matches.application_protocols.is_empty() {
        return Some(0);
    }
    let offered = arrival.application_protocols;
    let is_served = |protocol: &&str| {
        let mut served = matches.application_protocols.iter();
        served.any(|served| **served == **protocol)
    };
    offered
        .iter()
        .position(is_served)
        .map(|position| offered.len() - position)
}

fn by_direct_source(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    longest(&matches.direct_source_prefixes, arrival.direct_source)
}

fn by_source_type(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    let source = arrival.source.ip();
    let is_local = source.is_loopback() || source == arrival.destination.ip();
    match matches.source_type {
        SourceType::Any => Some(0),
        SourceType::SameAddressOrLoopback => is_local.then_some(1),
        SourceType::External => (!is_local).then_some(1),
    }
}

fn by_source_address(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    longest(&matches.source_prefixes, arrival.source.ip())
}

fn by_source_port(matches: &ChainMatch, arrival: &Arrival<'_>) -> Rank {
    if matches.source_ports.is_empty() {
        return Some(0);
    }
    let port = arrival.source.port();
    matches.source_ports.contains(&port).then_some(1)
}

/// The longest of the prefixes that an address is in.
fn longest(prefixes: &[IpNet], address: IpAddr) -> Rank {
    if prefixes.is_empty() {
        return Some(0);
    }
    let lengths = prefixes
        .iter()
        .filter(|net| net.contains(&address))
        .map(|net| usize::from(net.prefix_len()) + 1);
    lengths.max()
}

#[cfg(test)]
mod tests {
    use super::super::chain::Service;
    use super::*;
    use crate::config::listener::{TcpConfig, TcpTarget};

    fn chain(name: &str, matches: Option<ChainMatch>) -> Arc<Chain> {
        let tcp = TcpConfig {
            longest: None,
            subset: None,
            tunnel: None,
            hashes_source: false,
            stat_prefix: "".into(),
            target: TcpTarget::Cluster("c".into()),
            buffer_bytes: 1024,
            idle_timeout: None,
            access_logs: Arc::new([]),
        };
        Arc::new(Chain {
            name: name.into(),
            matches,
            tls: None,
            gates: vec![],
            service: Service::Tcp(Arc::new(tcp)),
        })
    }

    fn arrival() -> Arrival<'static> {
        Arrival {
            destination: ([10, 96, 0, 5], 8080).into(),
            source: ([10, 96, 0, 9], 40_000).into(),
            direct_source: [10, 96, 0, 9].into(),
            transport: Some(TransportProtocol::Tls),
            application_protocols: &["h2", "http/1.1"],
            server_name: Some("a.example.com"),
        }
    }

    fn net(text: &str) -> Vec<IpNet> {
        vec![text.parse().expect("a net")]
    }

    fn names(names: &[&str]) -> Vec<ServerNameMatch> {
        let name = |name: &&str| match name.strip_prefix('*') {
            Some(suffix) => ServerNameMatch::Suffix(suffix.into()),
            None => ServerNameMatch::Exact((*name).into()),
        };
        names.iter().map(name).collect()
    }

    /// The name of the chain that is chosen among these.
    fn chosen(chains: &[(&str, ChainMatch)], arrival: &Arrival<'_>) -> Option<String> {
        let chains: Vec<_> = chains
            .iter()
            .map(|(name, matches)| chain(name, Some(matches.clone())))
            .collect();
        choose(&chains, arrival).map(|chain| chain.name.to_string())
    }

    #[test]
    fn without_criteria_a_chain_is_for_all_and_the_default_one_for_what_is_left() {
        let any = ("any", ChainMatch::default());
        assert_eq!(chosen(&[any], &arrival()).as_deref(), Some("any"));

        let other_port = ChainMatch {
            destination_port: Some(1),
            ..ChainMatch::default()
        };
        let chains = [chain("port", Some(other_port)), chain("default", None)];
        let found = choose(&chains, &arrival()).expect("the default one");
        assert_eq!(&*found.name, "default");
        assert!(choose(&chains[..1], &arrival()).is_none());
    }

    #[test]
    fn each_criterion_is_preferred_to_none_and_must_hold() {
        let some = ChainMatch::default;
        let criteria = [
            (
                ChainMatch {
                    destination_port: Some(8080),
                    ..some()
                },
                ChainMatch {
                    destination_port: Some(80),
                    ..some()
                },
            ),
            (
                ChainMatch {
                    destination_prefixes: net("10.96.0.0/16"),
                    ..some()
                },
                ChainMatch {
                    destination_prefixes: net("10.97.0.0/16"),
                    ..some()
                },
            ),
            (
                ChainMatch {
                    server_names: names(&["*.example.com"]),
                    ..some()
                },
                ChainMatch {
                    server_names: names(&["example.com"]),
                    ..some()
                },
            ),
            (
                ChainMatch {
                    transport: Some(TransportProtocol::Tls),
                    ..some()
                },
                ChainMatch {
                    transport: Some(TransportProtocol::Raw),
                    ..some()
                },
            ),
            (
                ChainMatch {
                    application_protocols: vec!["h2".into()],
                    ..some()
                },
                ChainMatch {
                    application_protocols: vec!["h3".into()],
                    ..some()
                },
            ),
            (
                ChainMatch {
                    direct_source_prefixes: net("10.96.0.9/32"),
                    ..some()
                },
                ChainMatch {
                    direct_source_prefixes: net("::/0"),
                    ..some()
                },
            ),
            (
                ChainMatch {
                    source_type: SourceType::External,
                    ..some()
                },
                ChainMatch {
                    source_type: SourceType::SameAddressOrLoopback,
                    ..some()
                },
            ),
            (
                ChainMatch {
                    source_prefixes: net("10.0.0.0/8"),
                    ..some()
                },
                ChainMatch {
                    source_prefixes: net("11.0.0.0/8"),
                    ..some()
                },
            ),
            (
                ChainMatch {
                    source_ports: vec![1, 40_000],
                    ..some()
                },
                ChainMatch {
                    source_ports: vec![1],
                    ..some()
                },
            ),
        ];
        for (holds, fails) in criteria {
            let chains = [("any", some()), ("this", holds.clone())];
            assert_eq!(
                chosen(&chains, &arrival()).as_deref(),
                Some("this"),
                "{holds:?}"
            );
            let chains = [("this", fails.clone()), ("any", some())];
            assert_eq!(
                chosen(&chains, &arrival()).as_deref(),
                Some("any"),
                "{fails:?}"
            );
        }
    }

    #[test]
    fn the_longest_prefix_and_the_longest_name_win() {
        let prefixes = |text| ChainMatch {
            destination_prefixes: net(text),
            ..ChainMatch::default()
        };
        let chains = [
            ("wide", prefixes("10.0.0.0/8")),
            ("narrow", prefixes("10.96.0.0/16")),
        ];
        assert_eq!(chosen(&chains, &arrival()).as_deref(), Some("narrow"));

        let named = |name| ChainMatch {
            server_names: names(&[name]),
            ..ChainMatch::default()
        };
        let chains = [
            ("com", named("*.com")),
            ("exact", named("a.example.com")),
            ("example", named("*.example.com")),
        ];
        assert_eq!(chosen(&chains, &arrival()).as_deref(), Some("exact"));
        assert_eq!(chosen(&chains[..1], &arrival()).as_deref(), Some("com"));
    }

    #[test]
    fn the_protocol_that_the_client_prefers_decides() {
        let speaks = |protocol: &str| ChainMatch {
            application_protocols: vec![protocol.into()],
            ..ChainMatch::default()
        };
        let chains = [("one", speaks("http/1.1")), ("two", speaks("h2"))];
        assert_eq!(chosen(&chains, &arrival()).as_deref(), Some("two"));
    }

    #[test]
    fn there_is_no_way_back_to_a_less_specific_port() {
        let of_port = ChainMatch {
            destination_port: Some(8080),
            server_names: names(&["b.example.com"]),
            ..ChainMatch::default()
        };
        let chains = [("port", of_port), ("any", ChainMatch::default())];

        assert_eq!(chosen(&chains, &arrival()), None);
    }

    #[test]
    fn a_client_on_the_same_address_is_local() {
        let local = ChainMatch {
            source_type: SourceType::SameAddressOrLoopback,
            ..ChainMatch::default()
        };
        let mut arrival = arrival();
        arrival.source = ([10, 96, 0, 5], 1).into();

        assert_eq!(
            chosen(&[("local", local)], &arrival).as_deref(),
            Some("local")
        );
    }
}
